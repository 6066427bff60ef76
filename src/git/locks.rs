//! Locks on working trees: what git itself doesn't remove or prune. Source: git-worktree(1).

use std::ffi::OsString;
use std::path::Path;

use super::command::Command;
use super::repository::Repository;
use super::{Error, Git, Place};

impl Git {
    /// Locks a working tree, or takes that lock off. Another lock stays as it is. Goes on when nobody waits.
    ///
    /// # Errors
    /// [`Error::NotAWorktree`], and those of [`Git::worktrees`].
    pub async fn lock_worktree(&self, place: &Place, at: &Path, why: &str, is_locked: bool) -> Result<(), Error> {
        let repository = Repository::find(&self.commands, place).await?;
        let known = self.all(&repository).await?.into_iter().find(|worktree| worktree.path() == at);
        let known = known.ok_or_else(|| Error::NotAWorktree(at.to_path_buf()))?;
        let args: Vec<OsString> = match (known.locked(), is_locked) {
            (None, true) => vec!["worktree".into(), "lock".into(), "--reason".into(), why.into(), "--".into(), at.into()],
            (Some(reason), false) if reason == why => vec!["worktree".into(), "unlock".into(), "--".into(), at.into()],
            _ => return Ok(()),
        };
        let mut command = Command::new(args, self.commands.bounds.git_output_max_bytes);
        command.is_change = true;
        repository.run(&self.commands, command).await?.ok().map(drop)
    }

    /// Removes a branch that nobody has used yet.
    ///
    /// # Errors
    /// Those of [`Git::worktrees`].
    pub async fn remove_branch(&self, place: &Place, branch: &str) -> Result<(), Error> {
        let repository = Repository::find(&self.commands, place).await?;
        let command = Command::new(["branch", "--delete", "--force", "--", branch], self.commands.bounds.git_output_max_bytes);
        repository.run(&self.commands, command).await?.ok().map(drop)
    }
}
