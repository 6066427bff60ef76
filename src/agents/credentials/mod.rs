//! Which credentials are there for the agents' models. They are only reported: agents inherit the server's environment
//! and read their own files.
//!
//! Nothing is read but the given [`Env`] and files below the given home; nothing is printed here. Values are
//! [`Secret`]s, so no debug output shows them.

mod files;
mod show;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use show::{NoCredential, View, Views};

use crate::config::{Bounds, Env, Secret};

/// Where to look, and for what.
#[derive(Debug, Clone, Copy)]
pub struct DiscoverOptions {
    /// Also OAuth tokens, not only API keys.
    pub oauth: bool,
    /// The caller chose this home directory: `CODEX_HOME`, `XDG_DATA_HOME` and `CLAUDE_CONFIG_DIR`, which belong to
    /// another one, are ignored.
    pub home_is_chosen: bool,
    /// Milliseconds since the Unix epoch: tokens that expired before it don't count.
    pub now_ms: i64,
    /// Larger files are skipped.
    pub file_max_bytes: u64,
}

impl DiscoverOptions {
    /// Everything, in the user's own home.
    pub fn new(now_ms: i64, bounds: &Bounds) -> Self {
        Self { oauth: true, home_is_chosen: false, now_ms, file_max_bytes: bounds.credential_file_max_bytes }
    }
}

/// What was found: the first hit for each provider.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    /// For Anthropic.
    pub anthropic: Option<Credential>,
    /// For OpenAI.
    pub openai: Option<Credential>,
    /// For further providers in OpenCode's file, by their name there.
    pub other: BTreeMap<String, Credential>,
}

/// One credential.
#[derive(Debug, Clone)]
pub struct Credential {
    /// `anthropic`, `openai`, or a name in OpenCode's file.
    pub provider: String,
    /// `environment`, `amp`, `claude-code`, `codex`, `opencode`.
    pub source: &'static str,
    /// What kind it is.
    pub kind: CredentialKind,
    /// The key or token.
    pub value: Secret,
    /// The variable that it came from, when it came from the environment.
    pub variable: Option<&'static str>,
}

/// What kind a credential is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialKind {
    /// An API key.
    ApiKey,
    /// An OAuth access token: it can't be used as an API key.
    Oauth,
}

const ANTHROPIC_KEYS: [&str; 2] = ["ANTHROPIC_API_KEY", "CLAUDE_API_KEY"];
const ANTHROPIC_TOKENS: [&str; 2] = ["CLAUDE_CODE_OAUTH_TOKEN", "ANTHROPIC_AUTH_TOKEN"];
const OPENAI_KEYS: [&str; 2] = ["OPENAI_API_KEY", "CODEX_API_KEY"];

/// Looks for credentials: environment, Amp, Claude Code, Codex, OpenCode, in this order for each provider.
///
/// Files that are missing, too large or malformed are skipped. Reads about ten small files; blocks on the disk.
pub fn discover(env: &Env, home: &Path, options: DiscoverOptions) -> Credentials {
    let mut found = Credentials::default();
    from_environment(env, options, &mut found);
    let places = Places::new(env, home, options.home_is_chosen);
    files::amp(&places, options, &mut found);
    files::claude(&places, options, &mut found);
    files::codex(&places, options, &mut found);
    files::opencode(&places, options, &mut found);
    found
}

/// The directories that agents keep their files in.
struct Places {
    home: PathBuf,
    claude: PathBuf,
    codex: PathBuf,
    opencode: PathBuf,
}

impl Places {
    fn new(env: &Env, home: &Path, home_is_chosen: bool) -> Self {
        let dir = |variable: &str| env.path(variable).filter(|path| path.is_absolute() && !home_is_chosen);
        let data = dir("XDG_DATA_HOME").unwrap_or_else(|| home.join(".local/share"));
        Self {
            home: home.to_owned(),
            claude: dir("CLAUDE_CONFIG_DIR").unwrap_or_else(|| home.join(".claude")),
            codex: dir("CODEX_HOME").unwrap_or_else(|| home.join(".codex")),
            opencode: data.join("opencode"),
        }
    }
}

fn from_environment(env: &Env, options: DiscoverOptions, found: &mut Credentials) {
    let mut look = |names: &[&'static str], provider: &str, kind: CredentialKind| {
        for name in names {
            if let Some(value) = env.get(name).map(str::trim).filter(|value| !value.is_empty()) {
                let (provider, value) = (provider.to_owned(), Secret::new(value));
                found.offer(Credential { provider, source: "environment", kind, value, variable: Some(name) });
            }
        }
    };
    look(&ANTHROPIC_KEYS, "anthropic", CredentialKind::ApiKey);
    look(&OPENAI_KEYS, "openai", CredentialKind::ApiKey);
    if options.oauth {
        look(&ANTHROPIC_TOKENS, "anthropic", CredentialKind::Oauth);
    }
}

impl Credentials {
    /// All that were found.
    pub fn all(&self) -> impl Iterator<Item = &Credential> {
        self.anthropic.iter().chain(&self.openai).chain(self.other.values())
    }

    /// Keeps a credential unless its provider has one.
    fn offer(&mut self, credential: Credential) {
        match credential.provider.as_str() {
            "anthropic" => _ = self.anthropic.get_or_insert(credential),
            "openai" => _ = self.openai.get_or_insert(credential),
            _ => _ = self.other.entry(credential.provider.clone()).or_insert(credential),
        }
    }
}

#[cfg(test)]
mod tests;
