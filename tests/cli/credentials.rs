use super::support::{BIN, Home};

const KEY: &str = "sk-ant-0123456789";

#[test]
fn secrets_are_cut_unless_they_are_to_be_revealed() {
    let home = Home::new().env("ANTHROPIC_API_KEY", KEY).env("OPENAI_API_KEY", "short");
    let extract = |args: &[&str]| home.run(&[&["credentials", "extract"], args].concat());
    let shown = extract(&[]).json();
    assert_eq!(shown["anthropic"]["api_key"], "sk-a...6789");
    assert_eq!((&shown["openai"]["api_key"], &shown["openai"]["redacted"]), (&"****".into(), &true.into()));
    for args in [&["-a", "claude"][..], &["-p", "anthropic"], &["--agent", "amp", "--provider", "anthropic"]] {
        let one = extract(args).ok();
        assert_eq!(one.out, "sk-a...6789\n", "an agent's or provider's is cut, too");
        assert!(!one.err.contains(KEY));
    }
    assert_eq!(extract(&["-a", "claude", "--reveal"]).ok().out, format!("{KEY}\n"));
    let revealed = extract(&["-r"]).json();
    assert_eq!((&revealed["anthropic"]["api_key"], &revealed["anthropic"]["redacted"]), (&KEY.into(), &false.into()));
}

#[test]
fn what_is_not_there_is_an_error_only_when_it_was_asked_for() {
    let home = Home::new();
    home.run(&["credentials", "extract", "-p", "anthropic"]).fails(1, "no credentials found for provider anthropic");
    home.run(&["credentials", "extract", "-a", "claude", "-p", "openai"])
        .fails(1, "agent Claude only supports provider anthropic");
    assert_eq!(home.run(&["credentials", "extract", "-a", "nope"]).code, Some(2));
    let none = home.run(&["credentials", "extract"]).json();
    assert_eq!(none, serde_json::json!({"anthropic": null, "openai": null, "other": {}}));
    assert_eq!(home.run(&["credentials", "extract-env"]).ok().out, "");
}

#[test]
fn a_shell_reads_back_a_hostile_value() {
    let hostile = "sk 'quote\"; touch pwned; $(touch pwned) `touch pwned` \\ & #";
    let home = Home::new().env("ANTHROPIC_API_KEY", hostile);
    for (flag, reader) in [("", "\"$ANTHROPIC_API_KEY\""), ("--export", "\"$(sh -c 'printf %s \"$CLAUDE_API_KEY\"')\"")] {
        let script = format!(
            "lines=$({BIN} credentials extract-env {flag}) && unset ANTHROPIC_API_KEY && eval \"$lines\" && printf %s {reader}"
        );
        let output = home.command("sh", &["-c", &script]).output().expect("it runs");
        assert_eq!(String::from_utf8_lossy(&output.stdout), hostile, "{output:?}");
    }
    assert!(!home.path().join("pwned").exists());
}

#[test]
fn a_chosen_home_is_looked_in_and_oauth_can_be_left_out() {
    let home = Home::new();
    home.write("other/.claude/.credentials.json", r#"{"claudeAiOauth":{"accessToken":"oauth-token-1234"}}"#);
    let env = home.run(&["credentials", "extract-env", "-e", "-d", "other"]).ok();
    assert_eq!(env.out, "export CLAUDE_CODE_OAUTH_TOKEN=oauth-token-1234\n", "a token is no API key");
    let shown = home.run(&["credentials", "extract", "-d", "other"]).json();
    assert_eq!(shown["anthropic"]["auth_type"], "oauth");
    let without = home.run(&["credentials", "extract", "-d", "other", "--no-oauth"]).json();
    assert_eq!(without["anthropic"], serde_json::Value::Null);
}
