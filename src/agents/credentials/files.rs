//! The files in which agents keep their credentials.

use std::path::Path;

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{Credential, CredentialKind, Credentials, DiscoverOptions, Places};
use crate::config::Secret;
use crate::rt::files::read_bounded;

/// Keys of `~/.amp/config.json`, as JSON pointers.
const AMP_KEYS: [&str; 9] = [
    "/anthropic_api_key",
    "/anthropicApiKey",
    "/api_key",
    "/apiKey",
    "/accessToken",
    "/token",
    "/anthropic/apiKey",
    "/anthropic/token",
    "/auth/token",
];
const CLAUDE_KEY_FILES: [&str; 3] = [".claude.json.api", ".claude.json", ".claude.json.nathan"];
const CLAUDE_KEYS: [&str; 4] = ["/primaryApiKey", "/apiKey", "/anthropicApiKey", "/customApiKey"];

fn read(path: &Path, options: DiscoverOptions) -> Option<Value> {
    serde_json::from_str(&read_bounded(path, options.file_max_bytes).ok()?).ok()
}

fn text<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    value.pointer(pointer)?.as_str().map(str::trim).filter(|text| !text.is_empty())
}

fn offer(found: &mut Credentials, provider: &str, source: &'static str, kind: CredentialKind, value: &str) {
    let (provider, value) = (provider.to_owned(), Secret::new(value));
    found.offer(Credential { provider, source, kind, value, variable: None });
}

/// `~/.amp/config.json`.
pub(super) fn amp(places: &Places, options: DiscoverOptions, found: &mut Credentials) {
    let config = read(&places.home.join(".amp/config.json"), options);
    let key = config.as_ref().and_then(|config| AMP_KEYS.iter().find_map(|pointer| text(config, pointer)));
    if let Some(key) = key {
        offer(found, "anthropic", "amp", CredentialKind::ApiKey, key);
    }
}

/// Claude Code's API keys, then its OAuth tokens.
pub(super) fn claude(places: &Places, options: DiscoverOptions, found: &mut Credentials) {
    for file in CLAUDE_KEY_FILES {
        let Some(config) = read(&places.home.join(file), options) else { continue };
        let keys = CLAUDE_KEYS.iter().filter_map(|pointer| text(&config, pointer));
        for key in keys.filter(|key| key.starts_with("sk-ant-")) {
            offer(found, "anthropic", "claude-code", CredentialKind::ApiKey, key);
        }
    }
    if !options.oauth {
        return;
    }
    for path in [places.claude.join(".credentials.json"), places.home.join(".claude-oauth-credentials.json")] {
        let Some(config) = read(&path, options) else { continue };
        let fresh = !is_past(config.pointer("/claudeAiOauth/expiresAt"), options.now_ms);
        if let Some(token) = text(&config, "/claudeAiOauth/accessToken").filter(|_| fresh) {
            offer(found, "anthropic", "claude-code", CredentialKind::Oauth, token);
        }
    }
}

/// `$CODEX_HOME/auth.json`.
pub(super) fn codex(places: &Places, options: DiscoverOptions, found: &mut Credentials) {
    let Some(auth) = read(&places.codex.join("auth.json"), options) else { return };
    if let Some(key) = text(&auth, "/OPENAI_API_KEY") {
        offer(found, "openai", "codex", CredentialKind::ApiKey, key);
    }
    if let Some(token) = text(&auth, "/tokens/access_token").filter(|_| options.oauth) {
        offer(found, "openai", "codex", CredentialKind::Oauth, token);
    }
}

/// `$XDG_DATA_HOME/opencode/auth.json`.
pub(super) fn opencode(places: &Places, options: DiscoverOptions, found: &mut Credentials) {
    let auth = read(&places.opencode.join("auth.json"), options);
    for (provider, entry) in auth.as_ref().and_then(Value::as_object).into_iter().flatten() {
        match text(entry, "/type") {
            Some("api") => {
                if let Some(key) = text(entry, "/key") {
                    offer(found, provider, "opencode", CredentialKind::ApiKey, key);
                }
            }
            Some("oauth") if options.oauth && !is_past(entry.get("expires"), options.now_ms) => {
                if let Some(token) = text(entry, "/access") {
                    offer(found, provider, "opencode", CredentialKind::Oauth, token);
                }
            }
            _ => {}
        }
    }
}

/// True for an expiry in the past: a number of milliseconds, as agents write it, or an RFC 3339 string. An expiry that
/// can't be read, or 0, says nothing.
fn is_past(expiry: Option<&Value>, now_ms: i64) -> bool {
    let at_ms = match expiry {
        Some(Value::Number(number)) => number.as_f64().filter(|at| *at > 0.0),
        Some(Value::String(text)) => text.parse().ok().or_else(|| {
            let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
            Some((at.unix_timestamp_nanos() / 1_000_000) as f64)
        }),
        _ => None,
    };
    at_ms.is_some_and(|at| at < now_ms as f64)
}
