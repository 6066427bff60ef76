//! Working trees beside the first, so that sessions don't step on each other. Source: git-worktree(1).

use std::ffi::{OsStr, OsString};
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use utoipa::ToSchema;

use super::command::Command;
use super::repository::Repository;
use super::text::{fields, shown, shown_path};
use super::{Error, Git, Place};
use crate::rt::spawn_owned;

/// Where a working tree is, or will be.
pub struct Spot {
    /// The directory that holds it.
    pub parent: Place,
    /// Its name there.
    pub name: OsString,
}

/// What is to be added.
pub struct WorktreeSpec {
    /// Where.
    pub spot: Spot,
    /// The branch to check out; it is made when it isn't there. Without one, the commit alone is checked out.
    pub branch: Option<String>,
    /// The commit to begin with; what is checked out when absent. Only for a branch that is made, or without one.
    pub base: Option<String>,
    /// Why it is locked, when it shall be.
    pub lock: Option<String>,
}

/// A working tree.
#[derive(Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Worktree {
    /// Where it is.
    path: String,
    /// Its bytes in base64 when they are not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    path_base64: Option<String>,
    /// The hash of what is checked out; `null` when there is no commit yet.
    head: Option<String>,
    /// The branch; `null` when there is none.
    branch: Option<String>,
    /// True for the one that the repository began with: it can't be removed.
    is_main: bool,
    /// True when the repository has no working tree of its own.
    bare: bool,
    /// Why it can't be removed; empty when nobody said.
    locked: Option<String>,
    /// Why it is no use any more, such as that its directory is gone.
    prunable: Option<String>,
    /// The session that it was made for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// Why it is still there, though that session has long been over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept: Option<String>,
    /// Its branch was made with it.
    #[serde(skip)]
    pub made_branch: bool,
    #[serde(skip)]
    at: PathBuf,
}

impl Worktree {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.at
    }

    pub(super) fn locked(&self) -> Option<&str> {
        self.locked.as_deref()
    }
}

impl Git {
    /// The working trees of a repository, the main one first; those that the caller may not use are left out.
    /// Cancel safe.
    ///
    /// # Errors
    /// [`Error::NotARepository`], [`Error::Outside`], and those of running git.
    pub async fn worktrees(&self, place: &Place) -> Result<Vec<Worktree>, Error> {
        let repository = Repository::find(&self.commands, place).await?;
        let mut shown = Vec::new();
        for worktree in self.all(&repository).await? {
            // One whose directory is gone is judged by where that was.
            let held = match place.open(&worktree.at).await {
                Err(Error::Outside(_)) => place.open(worktree.at.parent().unwrap_or(Path::new("/"))).await,
                held => held,
            };
            match held {
                Ok(_) => shown.push(worktree),
                Err(Error::Outside(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(shown)
    }

    pub(super) async fn all(&self, repository: &Repository) -> Result<Vec<Worktree>, Error> {
        let args = ["worktree", "list", "--porcelain", "-z"];
        let told = repository.run(&self.commands, Command::new(args, self.commands.bounds.git_output_max_bytes)).await?;
        Ok(parse(&told.ok()?.stdout))
    }

    /// Adds a working tree; asks no network. It goes on when nobody waits.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::InUse`], [`Error::UnknownRevision`], [`Error::Invalid`], those of
    /// [`Git::worktrees`].
    pub async fn add_worktree(&self, place: Place, spec: WorktreeSpec) -> Result<Worktree, Error> {
        let git = self.clone();
        let added = spawn_owned("git-worktree", async move { git.add(&place, spec).await });
        added.await.map_err(|_| Error::Stopping)?
    }

    async fn add(&self, place: &Place, spec: WorktreeSpec) -> Result<Worktree, Error> {
        let repository = Repository::find(&self.commands, place).await?;
        let (target, is_free) = spec.spot.real().await?;
        if !is_free {
            return Err(Error::Exists(spec.spot.shown()));
        }
        let mut args: Vec<OsString> = ["worktree", "add"].map(Into::into).to_vec();
        let base = spec.base.as_deref();
        let commit = match repository.resolve(&self.commands, base.unwrap_or("HEAD"), "commit").await? {
            Some(commit) => commit,
            None => return Err(Error::UnknownRevision(base.unwrap_or("HEAD").to_owned())),
        };
        let mut made_branch = false;
        if let Some(why) = &spec.lock {
            args.extend(["--lock".into(), "--reason".into(), why.into()]);
        }
        let state = match &spec.branch {
            None => {
                args.push("--detach".into());
                commit
            }
            Some(branch) if self.has_branch(&repository, branch).await? => {
                if base.is_some() {
                    return Err(Error::InUse(format!("the branch {branch} is there already: leave `base` out to use it")));
                }
                branch.clone()
            }
            Some(branch) => {
                made_branch = true;
                args.extend(["--no-track".into(), "-b".into(), branch.into()]);
                commit
            }
        };
        args.extend(["--".into(), target.clone().into_os_string(), state.into()]);
        let mut command = Command::new(args, self.commands.bounds.git_output_max_bytes);
        command.is_change = true;
        let told = repository.run(&self.commands, command).await?;
        let said = &told.said;
        if told.code() != Some(0) && (said.contains("already used by") || said.contains("already checked out")) {
            return Err(Error::InUse(said.trim_start_matches("fatal: ").to_owned()));
        }
        told.ok()?;
        let added = self.all(&repository).await?.into_iter().find(|worktree| worktree.at == target);
        added.map(|added| Worktree { made_branch, ..added }).ok_or(Error::NotAWorktree(target))
    }

    /// Whether there is such a branch.
    async fn has_branch(&self, repository: &Repository, branch: &str) -> Result<bool, Error> {
        let full = format!("refs/heads/{branch}");
        let command = Command::new(["check-ref-format", &full], 0);
        if branch.starts_with('-') || branch.contains('\0') || repository.run(&self.commands, command).await?.code() != Some(0) {
            return Err(Error::Invalid(format!("not a name for a branch: {branch:?}")));
        }
        let command = Command::new(["show-ref", "--verify", "--quiet", &full], 0);
        Ok(repository.run(&self.commands, command).await?.code() == Some(0))
    }

    /// Removes a working tree with its directory; its branch stays. It goes on when nobody waits.
    ///
    /// # Errors
    /// [`Error::NotAWorktree`], [`Error::Locked`]; without `force`, [`Error::Dirty`] when anything would be lost.
    pub async fn remove_worktree(&self, place: Place, spot: Spot, force: bool) -> Result<(), Error> {
        let git = self.clone();
        let removed = spawn_owned("git-worktree", async move { git.remove(&place, &spot, force).await });
        removed.await.map_err(|_| Error::Stopping)?
    }

    async fn remove(&self, place: &Place, spot: &Spot, force: bool) -> Result<(), Error> {
        let repository = Repository::find(&self.commands, place).await?;
        let worktrees = self.all(&repository).await?.into_iter();
        let (target, _) = spot.real().await?;
        let unknown = || Error::NotAWorktree(spot.shown());
        let found = worktrees.filter(|worktree| !worktree.is_main).find(|worktree| worktree.at == target).ok_or_else(unknown)?;
        if let Some(why) = found.locked {
            return Err(Error::Locked { path: found.at, why });
        }
        let settings = match force || found.prunable.is_some() {
            true => Vec::new(), // nothing is looked at
            false => self.refuse_loss(&repository, place, &found.at, found.branch.is_some()).await?,
        };
        let mut args: Vec<OsString> = ["worktree", "remove"].map(Into::into).to_vec();
        args.extend(force.then(|| "--force".into()));
        args.extend(["--".into(), found.at.clone().into_os_string()]);
        let mut command = Command::new(args, self.commands.bounds.git_output_max_bytes);
        command.is_change = true;
        command.settings = settings;
        let told = repository.run(&self.commands, command).await?;
        if told.said.contains("contains modified or untracked files") {
            return Err(Error::Dirty { path: found.at, why: UNCOMMITTED }); // since it was looked at
        }
        told.ok().map(drop)
    }

    /// Fails when the working tree has what no commit has, or stands at a commit that no branch or tag has.
    /// Gives what has to be switched off there, too.
    async fn refuse_loss(&self, of: &Repository, place: &Place, at: &Path, has_branch: bool) -> Result<Vec<OsString>, Error> {
        let directory = place.open(at).await?.into();
        let there = Repository::find(&self.commands, &Place { path: at.to_path_buf(), directory, ..place.clone() }).await?;
        if there.common_dir != of.common_dir {
            return Err(Error::NotAWorktree(at.to_path_buf()));
        }
        let args = ["status", "--porcelain=v2", "-z", "--untracked-files=normal", "--ignore-submodules=all"];
        // What is told at all is a change: no more than its beginning is needed. Submodules git refuses itself.
        let told = there.run(&self.commands, Command::new(args, 1024)).await?.ok()?;
        if !told.stdout.is_empty() {
            return Err(Error::Dirty { path: at.to_path_buf(), why: UNCOMMITTED });
        }
        if !has_branch {
            let args = ["for-each-ref", "--count=1", "--contains=HEAD"];
            if there.run(&self.commands, Command::new(args, 1024)).await?.ok()?.stdout.is_empty() {
                return Err(Error::Dirty { path: at.to_path_buf(), why: "its commits are on no branch" });
            }
        }
        Ok(there.settings)
    }
}

const UNCOMMITTED: &str = "uncommitted changes or untracked files";

impl Spot {
    /// Its real path, and whether nothing is there.
    async fn real(&self) -> Result<(PathBuf, bool), Error> {
        let (directory, name) = (self.parent.directory.clone(), self.name.clone());
        let looked = tokio::task::spawn_blocking(move || {
            let target = std::fs::read_link(format!("/proc/self/fd/{}", directory.as_raw_fd()))?.join(name);
            let is_free = std::fs::symlink_metadata(&target).is_err();
            Ok((target, is_free))
        });
        let failed = |error: std::io::Error| Error::Invalid(format!("{}: {error}", self.parent.path.display()));
        looked.await.map_err(|_| Error::Stopping)?.map_err(failed)
    }

    /// Its path as the caller knows it.
    fn shown(&self) -> PathBuf {
        self.parent.path.join(&self.name)
    }
}

/// Records of lines like `branch refs/heads/main`, with a NUL behind each line and one more behind each record.
fn parse(output: &[u8]) -> Vec<Worktree> {
    let mut all = Vec::new();
    let mut current = Worktree { is_main: true, ..Worktree::default() };
    for line in fields(output) {
        let (key, value) = match line.iter().position(|byte| *byte == b' ') {
            Some(at) => (&line[..at], &line[at + 1..]),
            None => (line, &b""[..]),
        };
        let text = || shown(value).0;
        match key {
            b"" => all.push(std::mem::take(&mut current)),
            b"worktree" => {
                current.at = PathBuf::from(OsStr::from_bytes(value));
                (current.path, current.path_base64) = shown_path(&current.at);
            }
            b"HEAD" => current.head = Some(text()).filter(|hash| hash.bytes().any(|byte| byte != b'0')),
            b"branch" => current.branch = Some(text().trim_start_matches("refs/heads/").to_owned()),
            b"bare" => current.bare = true,
            b"locked" => current.locked = Some(text()),
            b"prunable" => current.prunable = Some(text()),
            _ => {}
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worktrees_are_read() {
        let all = parse(
            b"worktree /r\0HEAD 00\0branch refs/heads/a/b\0\0\
              worktree /r w\0HEAD 1f\0detached\0locked\0prunable gone\0\0",
        );
        let first = (all[0].path.as_str(), all[0].head.as_deref(), all[0].branch.as_deref(), all[0].is_main);
        assert_eq!(first, ("/r", None, Some("a/b"), true));
        let second = (all[1].path.as_str(), all[1].head.as_deref(), all[1].branch.as_deref(), all[1].is_main);
        assert_eq!(second, ("/r w", Some("1f"), None, false));
        assert_eq!((all[1].locked.as_deref(), all[1].prunable.as_deref()), (Some(""), Some("gone")));
    }
}
