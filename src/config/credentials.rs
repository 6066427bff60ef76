//! Which variables of the environment hold secrets, by their names and what they look like.

use super::Env;

/// Words in the name of a variable that holds a secret.
const WORDS: [&str; 9] =
    ["TOKEN", "SECRET", "SECRETS", "PASSWORD", "PASSWD", "PASSPHRASE", "CREDENTIAL", "CREDENTIALS", "APIKEY"];
/// Last words of names that only say where a secret lies.
const PLACES: [&str; 5] = ["FILE", "PATH", "DIR", "URL", "ENDPOINT"];

impl Env {
    /// The values of variables whose names look like those of credentials (`…_API_KEY`, `…_TOKEN`, `…PASSWORD…`, …), and the
    /// passwords within URLs.
    pub fn secrets(&self) -> Vec<&str> {
        let texts = self.0.iter().filter_map(|(name, value)| Some((name.to_str()?, value.to_str()?)));
        let mut secrets = Vec::new();
        for (name, value) in texts {
            secrets.extend(password(value));
            if is_secret(name) && !is_path(value) {
                secrets.push(value);
            }
        }
        secrets
    }
}

/// True for the value of a variable that somebody may keep a secret in, whatever its name: not for where a file, a folder
/// or a site is, nor for plain words like `production`.
pub fn may_be_secret(value: &str) -> bool {
    let is_word = value.bytes().all(|byte| byte.is_ascii_lowercase() || matches!(byte, b'-' | b'_' | b'.'));
    let is_site = value.starts_with("http") && value.contains("://") && !value.contains(['@', '?', '#']);
    !is_path(value) && !is_word && !is_site
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    let mut words = name.split(['_', '-', '.']).filter(|word| !word.is_empty());
    if words.clone().next_back().is_some_and(|last| PLACES.contains(&last)) {
        return false;
    }
    let is_key = name.ends_with("_KEY") || name.contains("API_KEY") || name.contains("AUTHTOKEN");
    is_key || words.any(|word| WORDS.contains(&word)) || name.ends_with("PASSWORD")
}

/// Such as `GOOGLE_APPLICATION_CREDENTIALS` has.
fn is_path(value: &str) -> bool {
    value.starts_with('/') && std::path::Path::new(value).exists()
}

/// Of `scheme://user:password@host`.
fn password(value: &str) -> Option<&str> {
    let (_, rest) = value.split_once("://")?;
    let (user, _) = rest.split(['/', '?', '#']).next()?.rsplit_once('@')?;
    user.split_once(':').map(|(_, password)| password)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_may_be_secret() {
        for yes in ["sk-ant-123", "hunter2", "https://u:p@host/x", "Correct Horse", "0123456789"] {
            assert!(may_be_secret(yes), "{yes}");
        }
        for no in ["/tmp", "production", "my-team.local", "https://example.test/mcp", ""] {
            assert!(!may_be_secret(no), "{no}");
        }
    }

    #[test]
    fn names_tell_what_is_secret() {
        for yes in [
            "ANTHROPIC_API_KEY",
            "GITHUB_TOKEN",
            "AWS_SECRET_ACCESS_KEY",
            "aws_session_token",
            "PGPASSWORD",
            "DB_PASSWORD_PROD",
            "GOOGLE_CREDENTIALS",
            "npm_config_authToken",
            "SSH_PRIVATE_KEY",
            "OTEL_API_KEY_2",
        ] {
            assert!(is_secret(yes), "{yes}");
        }
        for no in [
            "PATH",
            "AWS_ACCESS_KEY_ID",
            "MAX_OUTPUT_TOKENS",
            "SANDBOXD_TOKEN_FILE",
            "SSH_AUTH_SOCK",
            "TOKENIZERS_PARALLELISM",
            "KEYMAP",
        ] {
            assert!(!is_secret(no), "{no}");
        }
    }

    #[test]
    fn values_are_found_also_within_urls() {
        let env = Env::from_pairs([
            ("GITHUB_TOKEN", "ghp_123"),
            ("HTTPS_PROXY", "http://me:pass%40word@proxy:3128/x@y"),
            ("HOME_URL", "https://example.com/a@b"),
            ("GOOGLE_APPLICATION_CREDENTIALS", "/"),
            ("LANG", "C"),
        ]);
        assert_eq!(env.secrets(), ["ghp_123", "pass%40word"]);
    }
}
