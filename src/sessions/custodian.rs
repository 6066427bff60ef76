//! What belongs to a session but not to this room: where it may go in the file system, and what others hold for it.

use std::sync::Arc;

use super::ground::{Root, SessionWorktree};
use super::types::SessionSpec;
use super::{Error, Sessions};
use crate::acp::BoxFuture;

/// Why a root is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRoot {
    /// As it was given.
    pub path: String,
    /// What is wrong with it.
    pub why: String,
}

/// Why there is no working tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadWorktree {
    /// As a word.
    pub code: &'static str,
    /// In words.
    pub why: String,
}

/// Keeps what sessions have elsewhere.
pub trait Custodian: Send + Sync {
    /// What directories that a client names are as roots, all or none.
    fn roots(&self, asked: Vec<String>) -> BoxFuture<Result<Vec<Root>, BadRoot>>;
    /// Makes a working tree for a session that is about to be made, beneath its roots; gives its path.
    fn worktree(
        &self,
        session_id: &str,
        asked: SessionWorktree,
        roots: Option<Vec<Root>>,
    ) -> BoxFuture<Result<String, BadWorktree>>;
    /// The session of a working tree is made now; or it won't be, and the tree goes.
    fn worktree_settled(&self, session_id: &str, is_made: bool) -> BoxFuture<()>;
    /// A closed session was opened again. Must not block.
    fn reopened(&self, session_id: &str);
    /// A session was closed or deleted; may be said more than once. Must not block.
    fn ended(&self, session_id: &str);
    /// A session began as a copy of another one, which may be gone. Must not block.
    fn copied(&self, from: &str, to: &str);
}

impl Sessions {
    /// Who keeps what sessions have elsewhere from now on; once.
    pub fn kept_by(&self, custodian: Arc<dyn Custodian>) {
        let _ = self.inner.custodian.set(custodian); // there is one in a server
    }

    /// What others hold for a session, when there is anybody.
    pub(super) fn custodian(&self) -> Option<&Arc<dyn Custodian>> {
        self.inner.custodian.get()
    }

    /// The directory of a session that is about to be made: its working tree, when it asks for one.
    ///
    /// # Errors
    /// [`Error::BadWorktree`].
    pub(super) async fn ground(&self, id: &str, spec: &SessionSpec, roots: Option<&Vec<Root>>) -> Result<String, Error> {
        let Some(asked) = &spec.worktree else { return Ok(self.folder(spec.cwd.as_deref())) };
        let custodian = self.custodian().ok_or_else(|| Error::invalid("worktree: there are no repositories here"))?;
        let made = custodian.worktree(id, asked.clone(), roots.cloned()).await;
        made.map_err(|BadWorktree { code, why }| Error::BadWorktree { code, why })
    }

    /// Tells that a session is closed or deleted.
    pub(super) fn tell_end(&self, id: &str) {
        if let Some(custodian) = self.custodian() {
            custodian.ended(id);
        }
    }

    /// Roots that were asked for, as they are kept.
    ///
    /// # Errors
    /// [`Error::BadRoot`], [`Error::Invalid`] for none at all or too many.
    pub(super) async fn roots(&self, asked: Option<&[String]>) -> Result<Option<Vec<Root>>, Error> {
        let Some(asked) = asked else { return Ok(None) };
        let max = self.bounds().session_roots_max;
        if asked.is_empty() || asked.len() as u64 > max {
            let why = format!("roots must name between 1 and {max} directories (session_roots_max); leave it out for none");
            return Err(Error::Invalid { why });
        }
        let custodian = self.custodian().ok_or_else(|| Error::invalid("roots: no files are served here"))?;
        let kept = custodian.roots(asked.to_vec()).await;
        kept.map(Some).map_err(|BadRoot { path, why }| Error::BadRoot { path, why })
    }
}
