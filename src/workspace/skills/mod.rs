//! Skills of a directory: copied from where its configuration says to where agents look.
//!
//! ```text
//! skills.json ─▶ sources: a folder, or the copy of a repository ─▶ skills: folders with a SKILL.md
//!                          ─▶ .claude/skills/<name>/ and .agents/skills/<name>/, unless somebody else's is there
//! ```

mod config;
mod failure;
mod find;
mod git;
mod place;
mod record;
mod tree;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;
use tokio::sync::Mutex;
use utoipa::ToSchema;

pub use config::{SkillSource, SkillsConfig};

use crate::config::{Bounds, Env};
use crate::processes::Children;
use crate::rt::spawn_owned;
use failure::Failure;
use git::{Copies, Copy};

/// What became of a source, or of one of its skills.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct SkillOutcome {
    /// The entry of the configuration.
    pub name: String,
    /// The source, without a password in its URL.
    pub source: String,
    /// The skill; absent when the source has failed as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skill: Option<String>,
    /// What became of it.
    pub status: SkillStatus,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What is worth knowing although it works.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What became of a skill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SkillStatus {
    /// It was written, or replaced an older one.
    Applied,
    /// It was there already.
    Unchanged,
    /// It isn't configured any more, and was removed.
    Removed,
    /// It isn't there, or not everywhere, or not as it should be.
    Failed,
}

/// Copies skills. Cheap to clone.
#[derive(Clone)]
pub(super) struct Skills {
    inner: Arc<Inner>,
}

struct Inner {
    bounds: Bounds,
    /// Held while skills of any directory are applied: copies aren't replaced while they are read.
    copies: Mutex<Copies>,
}

/// A source that was looked at.
struct Fetched {
    name: String,
    source: SkillSource,
    folder: Result<Copy, Failure>,
}

impl Skills {
    pub(super) fn new(copies: PathBuf, env: Env, children: Children, bounds: Bounds) -> Self {
        let copies = Mutex::new(Copies::new(copies, env, children, bounds.clone()));
        Self { inner: Arc::new(Inner { bounds, copies }) }
    }

    /// Makes the directory's skills those of `entries` (name → [`SkillsConfig`]), and says what became of each. Doing so
    /// again changes nothing. Dropping the future doesn't stop it.
    pub(super) async fn apply(&self, directory: &Path, entries: BTreeMap<String, Value>) -> Vec<SkillOutcome> {
        if entries.is_empty() && !tokio::fs::try_exists(record::path(directory)).await.unwrap_or(false) {
            return Vec::new();
        }
        let (inner, directory) = (Arc::clone(&self.inner), directory.to_owned());
        let task = spawn_owned("skills", async move {
            let copies = inner.copies.lock().await;
            let mut fetched = Vec::new();
            for (name, entry) in entries {
                fetched.extend(sources(&copies, &directory, name, entry).await);
            }
            let bounds = inner.bounds.clone();
            let placed = tokio::task::spawn_blocking(move || place::place(&directory, fetched, &bounds)).await;
            placed.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())) // never cancelled: a bug
        });
        match task.await {
            Ok(outcomes) => outcomes,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Vec::new(), // the runtime ends, and nobody reads this any more
        }
    }
}

/// The sources of one entry, each with its folder on this machine.
async fn sources(copies: &Copies, directory: &Path, name: String, entry: Value) -> Vec<Fetched> {
    let config = match serde_json::from_value::<SkillsConfig>(entry) {
        Ok(config) => config,
        Err(error) => {
            let failure = Failure::Unreadable(error.to_string());
            return vec![Fetched { name, source: SkillSource::default(), folder: Err(failure) }];
        }
    };
    let mut fetched = Vec::new();
    for source in config.sources {
        let folder = fetch(copies, directory, &source).await;
        fetched.push(Fetched { name: name.clone(), source, folder });
    }
    fetched
}

async fn fetch(copies: &Copies, directory: &Path, source: &SkillSource) -> Result<Copy, Failure> {
    let reference = source.reference.as_deref();
    match source.kind.as_str() {
        "local" => Ok(Copy { folder: directory.join(&source.source), note: None }),
        "github" => copies.get(&github_url(&source.source)?, reference).await,
        "git" => copies.get(&git_url(directory, &source.source), reference).await,
        other => Err(Failure::UnknownKind(other.to_owned())),
    }
}

/// `owner/repo`, or a URL as it is.
fn github_url(source: &str) -> Result<String, Failure> {
    if source.contains("://") {
        return Ok(source.to_owned());
    }
    let bare = source.trim_end_matches(".git");
    match bare.split('/').collect::<Vec<_>>()[..] {
        [owner, repo] if find::is_name(owner) && find::is_name(repo) => Ok(format!("https://github.com/{owner}/{repo}.git")),
        _ => Err(Failure::NoRepository(source.to_owned())),
    }
}

/// A path is relative to the directory; what isn't there is a URL, or `host:path`.
fn git_url(directory: &Path, source: &str) -> String {
    let path: PathBuf = directory.join(source);
    if path.exists() { path.to_string_lossy().into_owned() } else { source.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn github_sources() {
        for source in ["o/r", "o/r.git"] {
            assert_eq!(github_url(source), Ok("https://github.com/o/r.git".to_owned()));
        }
        assert_eq!(github_url("https://host/o/r"), Ok("https://host/o/r".to_owned()));
        for wrong in ["", "o", "o/r/s", "/r", "o/..", "-o r/x"] {
            assert!(github_url(wrong).is_err(), "{wrong}");
        }
    }
}
