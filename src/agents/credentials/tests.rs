use std::path::Path;

use super::*;

const NOW_MS: i64 = 1_800_000_000_000;

fn options() -> DiscoverOptions {
    DiscoverOptions::new(NOW_MS, &Bounds::default())
}

fn env(pairs: &[(&str, &str)]) -> Env {
    Env::from_pairs(pairs.iter().map(|(key, value)| (*key, *value)))
}

fn home(files: &[(&str, &str)]) -> tempfile::TempDir {
    let home = tempfile::tempdir().expect("temporary directory");
    for (name, text) in files {
        let path = home.path().join(name);
        std::fs::create_dir_all(path.parent().expect("below home")).expect("created");
        std::fs::write(path, text).expect("written");
    }
    home
}

#[test]
fn empty_variables_are_no_credentials() {
    let found = discover(&env(&[("ANTHROPIC_API_KEY", ""), ("OPENAI_API_KEY", " ")]), Path::new("/nowhere"), options());
    assert!(found.anthropic.is_none() && found.openai.is_none());
}

#[test]
fn the_environment_comes_first() {
    let home = home(&[(".amp/config.json", r#"{"auth":{"token":"amp-token-123"}}"#)]);
    let found = discover(&env(&[("CLAUDE_API_KEY", "from-env-1234")]), home.path(), options());
    assert_eq!(found.anthropic.expect("found").source, "environment");
    let found = discover(&Env::default(), home.path(), options());
    assert_eq!(found.anthropic.expect("found").value.expose(), "amp-token-123");
}

#[test]
fn expired_tokens_do_not_count_however_the_expiry_is_written() {
    for (expiry, expected) in [
        ("1700000000000", false),
        ("1900000000000", true),
        ("\"2020-01-01T00:00:00Z\"", false),
        ("\"2099-01-01T00:00:00Z\"", true),
        ("\"1700000000000\"", false),
        ("\"whenever\"", true),
        ("null", true),
    ] {
        let text = format!(r#"{{"claudeAiOauth":{{"accessToken":"tok","expiresAt":{expiry}}}}}"#);
        let home = home(&[(".claude/.credentials.json", &text)]);
        let found = discover(&Env::default(), home.path(), options());
        assert_eq!(found.anthropic.is_some(), expected, "{expiry}");
    }
}

#[test]
fn directories_from_the_environment_are_honoured_unless_the_home_was_chosen() {
    let other = home(&[
        ("codex/auth.json", r#"{"OPENAI_API_KEY":"sk-codex-home"}"#),
        (
            "data/opencode/auth.json",
            r#"{"groq":{"type":"api","key":"gsk"},"anthropic":{"type":"oauth","access":"a","expires":1}}"#,
        ),
    ]);
    let path = |name: &str| other.path().join(name).display().to_string();
    let env = env(&[("CODEX_HOME", &path("codex")), ("XDG_DATA_HOME", &path("data"))]);
    let empty = home(&[]);
    let found = discover(&env, empty.path(), options());
    assert_eq!(found.openai.expect("found").value.expose(), "sk-codex-home");
    assert!(found.other.contains_key("groq") && found.anthropic.is_none());
    let found = discover(&env, empty.path(), DiscoverOptions { home_is_chosen: true, ..options() });
    assert!(found.openai.is_none() && found.other.is_empty());
}

#[test]
fn without_oauth_only_keys_count() {
    let home = home(&[(".codex/auth.json", r#"{"OPENAI_API_KEY":null,"tokens":{"access_token":"t"}}"#)]);
    let env = env(&[("ANTHROPIC_AUTH_TOKEN", "tok")]);
    let found = discover(&env, home.path(), DiscoverOptions { oauth: false, ..options() });
    assert!(found.openai.is_none() && found.anthropic.is_none());
    let found = discover(&env, home.path(), options());
    assert_eq!(found.openai.expect("found").kind, CredentialKind::Oauth);
}

#[test]
fn claude_keys_must_look_like_keys_and_broken_files_are_skipped() {
    let home = home(&[
        (".claude.json.api", "{broken"),
        (".claude.json", r#"{"apiKey":"nope","customApiKey":"sk-ant-yes"}"#),
        (".codex/auth.json", "[]"),
    ]);
    let found = discover(&Env::default(), home.path(), options());
    assert_eq!(found.anthropic.expect("found").value.expose(), "sk-ant-yes");
}

#[test]
fn views_are_redacted_and_debug_output_shows_no_secret() {
    let env = env(&[("ANTHROPIC_API_KEY", "sk-test-1234567890abcdef"), ("OPENAI_API_KEY", "12345678")]);
    let found = discover(&env, Path::new("/nowhere"), options());
    let shown = serde_json::to_string(&found.views(false)).expect("JSON");
    let expected = r#"{"anthropic":{"provider":"anthropic","source":"environment","auth_type":"api_key","api_key":"sk-t...cdef","redacted":true},"openai":{"provider":"openai","source":"environment","auth_type":"api_key","api_key":"****","redacted":true},"other":{}}"#;
    assert_eq!(shown, expected);
    assert!(!format!("{found:?}").contains("1234567890"));
    assert_eq!(found.views(true).openai.expect("found").api_key, "12345678");
}

#[test]
fn a_credential_is_picked_for_an_agent() {
    let found = discover(&env(&[("ANTHROPIC_API_KEY", "a")]), Path::new("/nowhere"), options());
    assert_eq!(found.pick(Some("opencode"), None).expect("found").provider, "anthropic");
    assert_eq!(found.pick(Some("codex"), None).expect_err("none").to_string(), "no credentials found for provider openai");
    let error = found.pick(Some("claude"), Some("openai")).expect_err("refused");
    assert_eq!(error.to_string(), "agent Claude only supports provider anthropic");
}

#[test]
fn lines_for_a_shell_are_safe_and_tokens_are_no_keys() {
    let found = discover(&env(&[("ANTHROPIC_API_KEY", "sk 'quote; rm"), ("CODEX_API_KEY", "sk-1")]), Path::new("/x"), options());
    let expected = [
        r"export ANTHROPIC_API_KEY='sk '\''quote; rm'",
        r"export CLAUDE_API_KEY='sk '\''quote; rm'",
        "export OPENAI_API_KEY=sk-1",
        "export CODEX_API_KEY=sk-1",
    ];
    assert_eq!(found.extract_env(true), expected);
    let found = discover(&env(&[("CLAUDE_CODE_OAUTH_TOKEN", "tok")]), Path::new("/x"), options());
    assert_eq!(found.extract_env(false), ["CLAUDE_CODE_OAUTH_TOKEN=tok"]);
}
