//! Copies of repositories with skills: `<digest of URL and ref>` in a folder of ours, without history.

use std::path::{Path, PathBuf};
use std::time::Duration;

use regex::Regex;
use sha2::{Digest as _, Sha256};

use super::failure::Failure;
use crate::config::{Bounds, Env, as_duration, as_usize};
use crate::processes::{ChildSpec, Children, Owner};
use crate::rt::files;
use crate::rt::ids::new_id;

const STAGING_PREFIX: &str = ".staging-";
/// Arguments: folder, URL, ref. A commit can be fetched as well as a branch or tag.
const FETCH: &str = "git init -q \"$1\" && cd \"$1\" && git fetch -q --depth 1 --no-tags -- \"$2\" \"$3\" \
                     && git checkout -q --detach FETCH_HEAD";
/// The end of git's output that is shown.
const OUTPUT_MAX_BYTES: usize = 2048;

/// The copies. One caller at a time.
pub(super) struct Copies {
    folder: PathBuf,
    env: Env,
    children: Children,
    bounds: Bounds,
}

/// A copy that can be read.
pub(super) struct Copy {
    pub(super) folder: PathBuf,
    /// Why it is an older one.
    pub(super) note: Option<String>,
}

impl Copies {
    pub(super) fn new(folder: PathBuf, env: Env, children: Children, bounds: Bounds) -> Self {
        Self { folder, env, children, bounds }
    }

    /// A copy of `url` at `reference`, or at its default branch. One that isn't older than `skills_git_fresh_ms` is used as
    /// it is; an older one also when the repository can't be had.
    pub(super) async fn get(&self, url: &str, reference: Option<&str>) -> Result<Copy, Failure> {
        let reference = reference.unwrap_or("HEAD");
        let folder = self.folder.join(key(url, reference));
        let age = age(&folder);
        if age.is_some_and(|age| age < as_duration(self.bounds.skills_git_fresh_ms)) {
            return Ok(Copy { folder, note: None });
        }
        match self.fetch(url, reference, &folder).await {
            Ok(()) => Ok(Copy { folder, note: None }),
            Err(failure) if age.is_some() => Ok(Copy { folder, note: Some(format!("an older copy is used: {failure}")) }),
            Err(failure) => Err(failure),
        }
    }

    async fn fetch(&self, url: &str, reference: &str, folder: &Path) -> Result<(), Failure> {
        let staging = self.folder.join(format!("{STAGING_PREFIX}{}", new_id("git")));
        let io = |error: std::io::Error| Failure::io(&self.folder, &error);
        tokio::fs::create_dir_all(&self.folder).await.map_err(io)?;
        for path in self.spare(folder) {
            let _ = tokio::fs::remove_dir_all(path).await; // tried again next time
        }
        let fetched = self.run(&staging, url, reference).await;
        let placed = match fetched {
            Ok(()) => {
                let _ = tokio::fs::remove_dir_all(folder).await; // nobody reads it: one caller at a time
                tokio::fs::rename(&staging, folder).await.map_err(io)
            }
            Err(failure) => Err(failure),
        };
        if placed.is_err() {
            let _ = tokio::fs::remove_dir_all(&staging).await; // what stays, the next one removes
        }
        placed
    }

    async fn run(&self, staging: &Path, url: &str, reference: &str) -> Result<(), Failure> {
        let git = files::find_executable("git", &self.env.search_path()).ok_or(Failure::GitMissing)?;
        let mut args: Vec<std::ffi::OsString> = ["-c", FETCH, "sh"].map(Into::into).to_vec();
        args.extend([staging.into(), url.into(), reference.into()]);
        let mut env = vec![("GIT_TERMINAL_PROMPT".into(), "0".into()), ("GIT_ASKPASS".into(), "/bin/false".into())];
        if self.env.get("GIT_SSH_COMMAND").is_none() {
            env.push(("GIT_SSH_COMMAND".into(), "ssh -o BatchMode=yes".into()));
        }
        tracing::debug!(git = %git.display(), "fetching skills");
        let spec = ChildSpec { program: "/bin/sh".into(), args, cwd: Some(self.folder.clone()), env, owner: Owner::System };
        let timeout_ms = self.bounds.skills_git_timeout_ms;
        let ran = self.children.errand(&spec, Duration::from_millis(timeout_ms), OUTPUT_MAX_BYTES, |_| {}).await;
        match ran.map_err(|error| Failure::Git(error.to_string()))? {
            (None, _) => Err(Failure::GitTimedOut(timeout_ms)),
            (Some(exit), _) if exit.code() == Some(0) => Ok(()),
            (Some(exit), output) => Err(Failure::Git(without_secrets(&format!("{exit}: {}", output.trim())))),
        }
    }

    /// What was left half done, and the oldest copies that are too many beside `next`.
    fn spare(&self, next: &Path) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let is_staging = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(STAGING_PREFIX));
        let (staging, mut copies): (Vec<_>, Vec<_>) = entries.filter(|path| path != next).partition(is_staging);
        copies.sort_by_key(|path| age(path));
        let beyond = copies.split_off(copies.len().min(as_usize(self.bounds.skills_git_copies_max) - 1));
        staging.into_iter().chain(beyond).collect()
    }
}

fn key(url: &str, reference: &str) -> String {
    let digest = Sha256::digest(format!("{url}\0{reference}"));
    digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// How long ago a copy was made.
fn age(folder: &Path) -> Option<Duration> {
    let modified = std::fs::metadata(folder).and_then(|metadata| metadata.modified()).ok()?;
    Some(modified.elapsed().unwrap_or_default()) // the clock was set back
}

/// A text without what URLs in it say about users.
pub(super) fn without_secrets(text: &str) -> String {
    static USER: std::sync::LazyLock<Regex> = std::sync::LazyLock::new(|| Regex::new(r"://[^/@\s']+@").expect("a pattern"));
    USER.replace_all(text, "://…@").into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_in_urls_are_not_shown() {
        let text = "fatal: 'https://user:pass@host/a' and ssh://git@host, not a@b or http://host/@x";
        assert_eq!(without_secrets(text), "fatal: 'https://…@host/a' and ssh://…@host, not a@b or http://host/@x");
    }
}
