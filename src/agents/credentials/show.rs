//! What is shown of credentials: redacted views, one bare secret, lines for a shell.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Credential, CredentialKind, Credentials};
use crate::agents::launcher::quote;

/// A credential as it may be printed. It has no debug output on purpose: it may hold a whole secret.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct View {
    /// Who it is for.
    pub provider: String,
    /// Where it was found.
    pub source: &'static str,
    /// `api_key` or `oauth`.
    pub auth_type: &'static str,
    /// The key or token: first and last four characters, unless everything was to be revealed.
    pub api_key: String,
    /// Whether it is cut.
    pub redacted: bool,
}

/// All credentials as `credentials extract` prints them.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct Views {
    /// For Anthropic.
    pub anthropic: Option<View>,
    /// For OpenAI.
    pub openai: Option<View>,
    /// For further providers.
    pub other: BTreeMap<String, View>,
}

/// Why no credential can be given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoCredential {
    /// None was found.
    #[error("no credentials found for provider {provider}")]
    NotFound {
        /// The provider.
        provider: String,
    },
    /// The agent doesn't use this provider.
    #[error("agent {agent} only supports provider {supported}")]
    WrongProvider {
        /// The agent, with a capital letter.
        agent: String,
        /// What it uses.
        supported: String,
    },
    /// There is no such agent here.
    #[error("credentials of agent {agent} are not known; use claude, codex, opencode or amp")]
    UnknownAgent {
        /// As asked for.
        agent: String,
    },
}

impl Credential {
    /// The credential, cut unless it is to be revealed.
    pub fn view(&self, reveal: bool) -> View {
        let value = self.value.expose();
        View {
            provider: self.provider.clone(),
            source: self.source,
            auth_type: match self.kind {
                CredentialKind::ApiKey => "api_key",
                CredentialKind::Oauth => "oauth",
            },
            api_key: if reveal { value.to_owned() } else { redact(value) },
            redacted: !reveal,
        }
    }
}

impl Credentials {
    /// All of them, cut unless they are to be revealed.
    pub fn views(&self, reveal: bool) -> Views {
        let view = |credential: &Credential| credential.view(reveal);
        Views {
            anthropic: self.anthropic.as_ref().map(view),
            openai: self.openai.as_ref().map(view),
            other: self.other.iter().map(|(name, credential)| (name.clone(), view(credential))).collect(),
        }
    }

    /// The one credential that an agent would use, or that is for a provider.
    ///
    /// # Errors
    /// [`NoCredential`], in the words for the caller.
    pub fn pick(&self, agent: Option<&str>, provider: Option<&str>) -> Result<&Credential, NoCredential> {
        let supported: &[&str] = match agent {
            None => &[],
            Some("claude" | "amp") => &["anthropic"],
            Some("codex") => &["openai"],
            Some("opencode") => &["openai", "anthropic"],
            Some(other) => return Err(NoCredential::UnknownAgent { agent: other.to_owned() }),
        };
        let wanted: Vec<&str> = match provider {
            Some(provider) if agent.is_none() || agent == Some("opencode") || supported.contains(&provider) => vec![provider],
            Some(_) => {
                let agent = capitalised(agent.unwrap_or_default());
                return Err(NoCredential::WrongProvider { agent, supported: supported.join(" or ") });
            }
            None if agent.is_none() => vec!["anthropic", "openai"],
            None => supported.to_vec(),
        };
        let found = wanted.iter().find_map(|name| self.of(name));
        found.ok_or_else(|| NoCredential::NotFound { provider: wanted.join(" or ") })
    }

    fn of(&self, provider: &str) -> Option<&Credential> {
        match provider {
            "anthropic" => self.anthropic.as_ref(),
            "openai" => self.openai.as_ref(),
            other => self.other.get(other),
        }
    }

    /// The credentials as assignments that a POSIX shell can `eval`, one a line; `export` puts that before each.
    ///
    /// Tokens go by the variables that take tokens. Codex's OAuth token is left out: no variable takes it.
    pub fn extract_env(&self, export: bool) -> Vec<String> {
        let names = |credential: &Credential| -> &'static [&'static str] {
            match (credential.provider.as_str(), credential.kind, credential.variable) {
                ("anthropic", CredentialKind::ApiKey, _) => &super::ANTHROPIC_KEYS,
                ("anthropic", CredentialKind::Oauth, Some("ANTHROPIC_AUTH_TOKEN")) => &["ANTHROPIC_AUTH_TOKEN"],
                ("anthropic", CredentialKind::Oauth, _) => &["CLAUDE_CODE_OAUTH_TOKEN"],
                ("openai", CredentialKind::ApiKey, _) => &super::OPENAI_KEYS,
                _ => &[],
            }
        };
        let prefix = if export { "export " } else { "" };
        let line = |name: &str, credential: &Credential| format!("{prefix}{name}={}", shell_word(credential.value.expose()));
        let known = self.anthropic.iter().chain(&self.openai);
        known.flat_map(|credential| names(credential).iter().map(move |name| line(name, credential))).collect()
    }
}

/// First and last four characters; nothing of a short value.
fn redact(value: &str) -> String {
    let characters: Vec<char> = value.chars().collect();
    if characters.len() <= 8 {
        return "****".to_owned();
    }
    let (first, last) = (&characters[..4], &characters[characters.len() - 4..]);
    format!("{}...{}", first.iter().collect::<String>(), last.iter().collect::<String>())
}

/// The value as a shell reads it back; keys of the usual letters stay as they are.
fn shell_word(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | '+' | '=' | ':' | '@' | ',');
    if !value.is_empty() && value.chars().all(plain) { value.to_owned() } else { quote(value) }
}

fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
