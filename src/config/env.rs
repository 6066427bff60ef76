//! The environment, read once.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

/// Variables that carry our own secrets. No child ever sees them: an agent that knew the token could approve its own
/// permission requests.
pub const SECRET_VARIABLES: &[&str] = &["SANDBOXD_TOKEN", "SANDBOXD_TOKEN_FILE"];

/// A snapshot of the environment, taken once at start.
#[derive(Debug, Clone, Default)]
pub struct Env(pub(super) BTreeMap<OsString, OsString>);

impl Env {
    /// Reads the process environment.
    #[allow(clippy::disallowed_methods)] // the one place that reads it
    pub fn read() -> Self {
        Self(std::env::vars_os().collect())
    }

    /// An environment made of the given pairs, for tests.
    pub fn from_pairs<K: Into<OsString>, V: Into<OsString>>(pairs: impl IntoIterator<Item = (K, V)>) -> Self {
        Self(pairs.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
    }

    /// The variable's value, when it is set, not empty, and UTF-8.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(std::ffi::OsStr::new(name)).and_then(|value| value.to_str()).filter(|value| !value.is_empty())
    }

    /// The variable's value as a path, when it is set and not empty.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.0.get(std::ffi::OsStr::new(name)).filter(|value| !value.is_empty()).map(PathBuf::from)
    }

    /// True when the variable is `1` or `true`.
    pub fn flag(&self, name: &str) -> bool {
        matches!(self.get(name), Some("1" | "true"))
    }

    /// What a child inherits: everything but our own secrets.
    pub fn for_children(&self) -> impl Iterator<Item = (&OsString, &OsString)> {
        self.0.iter().filter(|(key, _)| !SECRET_VARIABLES.iter().any(|secret| key.as_os_str() == *secret))
    }

    /// The directories of `PATH`, in order.
    pub fn search_path(&self) -> Vec<PathBuf> {
        let path = self.0.get(std::ffi::OsStr::new("PATH")).cloned().unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
        std::env::split_paths(&path).filter(|dir| dir.is_absolute()).collect()
    }
}
