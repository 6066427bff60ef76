//! What sessions have in other rooms, which know nothing of them.

use super::worktrees::Worktrees;
use crate::acp::BoxFuture;
use crate::fs::{Fence, Fs};
use crate::sessions::{BadRoot, BadWorktree, Custodian, Root, SessionWorktree};

/// Keeps it.
pub(super) struct Keeping {
    pub(super) fs: Fs,
    pub(super) worktrees: Worktrees,
}

impl Custodian for Keeping {
    fn ended(&self, session_id: &str) {
        self.fs.leases().end_of(session_id);
        self.worktrees.look();
    }

    fn reopened(&self, _: &str) {
        self.worktrees.look();
    }

    fn worktree(
        &self,
        session_id: &str,
        asked: SessionWorktree,
        roots: Option<Vec<Root>>,
    ) -> BoxFuture<Result<String, BadWorktree>> {
        let (fs, worktrees, session_id) = (self.fs.clone(), self.worktrees.clone(), session_id.to_owned());
        Box::pin(async move {
            let reach = match roots {
                None => fs.reach().clone(),
                Some(roots) => {
                    let fences = roots.into_iter().map(|Root { path, real }| Fence { path: path.into(), real: real.into() });
                    let reach = fs.beneath(fences.collect()).await;
                    reach.map_err(|error| BadWorktree { code: error.code(), why: error.to_string() })?
                }
            };
            worktrees.make(session_id, asked, reach).await
        })
    }

    fn worktree_settled(&self, session_id: &str, is_made: bool) -> BoxFuture<()> {
        let (worktrees, session_id) = (self.worktrees.clone(), session_id.to_owned());
        Box::pin(async move { worktrees.settled(&session_id, is_made).await })
    }

    fn copied(&self, from: &str, to: &str) {
        self.fs.copy_seen(from, to);
    }

    fn roots(&self, asked: Vec<String>) -> BoxFuture<Result<Vec<Root>, BadRoot>> {
        let fs = self.fs.clone();
        Box::pin(async move {
            let mut roots = Vec::with_capacity(asked.len());
            for path in asked {
                let fence = fs.fence(path.clone().into()).await;
                let Fence { path: named, real } = fence.map_err(|error| BadRoot { path, why: error.to_string() })?;
                let text = |path: std::path::PathBuf| path.to_string_lossy().into_owned(); // a fence is UTF-8
                roots.push(Root { path: text(named), real: text(real) });
            }
            Ok(roots)
        })
    }
}
