//! Taking up what an earlier server left with the keeper.

use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock, PoisonError};

use tokio::sync::watch;

use super::child::{Record, Way};
use super::{Child, Children, Uncollected};
use crate::keeper::{Ended, Kept};
use crate::processes::cgroup::Cgroup;
use crate::processes::desk::Left;
use crate::processes::slate::Slate;
use crate::processes::types::{Exit, Owner, ProcessId};
use crate::rt::spawn_owned;

/// The place of a process's slate at the keeper.
pub(in crate::processes) const SLATE: usize = 3;

/// A process of an earlier server: it is the keeper's child now.
pub(in crate::processes) struct Adopted {
    pub(in crate::processes) child: Child,
    /// Somebody has to collect its exit.
    pub(in crate::processes) exit: Uncollected,
    /// What was handed over, at its places.
    pub(in crate::processes) fds: [Option<OwnedFd>; 4],
    /// What was just being moved.
    pub(in crate::processes) left: Vec<Left>,
}

/// What is known of it besides.
pub(in crate::processes) struct Known {
    pub(in crate::processes) owner: Owner,
    pub(in crate::processes) program: std::path::PathBuf,
    pub(in crate::processes) args: Vec<std::ffi::OsString>,
    pub(in crate::processes) cwd: Option<std::path::PathBuf>,
    pub(in crate::processes) created_at_ms: i64,
    pub(in crate::processes) cgroup: Option<Arc<Cgroup>>,
}

impl Children {
    /// The processes that nobody has taken up yet.
    pub(in crate::processes) fn inherited_ids(&self) -> Vec<ProcessId> {
        self.inner.inherited().keys().map(|number| ProcessId(*number)).collect()
    }

    /// Whether an earlier server left this process, and it isn't taken up yet.
    pub(in crate::processes) fn has_inherited(&self, id: ProcessId) -> bool {
        self.inner.inherited().contains_key(&id.0)
    }

    /// Takes up a process; `None` when there is none, or it wasn't started.
    pub(in crate::processes) fn adopt(&self, id: ProcessId, known: Known) -> Option<Adopted> {
        let kept = self.inner.inherited().remove(&id.0)?;
        let Some(pid) = kept.pid else {
            self.inner.keeper.forget(&kept.key);
            return None;
        };
        let Known { owner, program, args, cwd, created_at_ms, cgroup } = known;
        let record = Arc::new(Record { id, owner, pid, program, args, cwd, created_at_ms });
        let (publish, exit) = watch::channel::<Option<Exit>>(None);
        let cgroup = Arc::new(cgroup.map_or_else(OnceLock::new, OnceLock::from));
        let (cookie, inner) = (self.inner.cookie(id).into(), Arc::clone(&self.inner));
        let child = Child { record, cookie, cgroup, is_kept: true, inner, exit };
        if kept.ended.is_none() {
            self.inner.known().insert(pid, child.clone());
        }
        let way = Way::Told(self.inner.keeper.watch(&kept));
        let exit = Uncollected { inner: Arc::clone(&self.inner), pid, id, publish, way };
        tracing::debug!(pid, %id, ?owner, "process taken up");
        Some(Adopted { child, exit, fds: kept.fds, left: self.left(id) })
    }

    /// What was just being moved of a process when its server died; given once.
    pub(in crate::processes) fn left(&self, id: ProcessId) -> Vec<Left> {
        let mut all = self.inner.left.lock().unwrap_or_else(PoisonError::into_inner); // a list is whole after each change
        let (left, others) = std::mem::take(&mut *all).into_iter().partition(|left| left.process() == id);
        *all = others;
        left
    }

    /// The slate of a process that nobody has taken up yet.
    pub(in crate::processes) fn inherited_slate(&self, id: ProcessId) -> Option<Slate> {
        Slate::open(self.inherited_fd(id)?).ok()
    }

    /// Its memory.
    pub(in crate::processes) fn inherited_fd(&self, id: ProcessId) -> Option<OwnedFd> {
        self.inner.inherited().get(&id.0)?.fds[SLATE].as_ref()?.try_clone().ok()
    }

    /// How it ended, when it did while no server ran.
    pub(in crate::processes) fn inherited_end(&self, id: ProcessId) -> Option<Ended> {
        self.inner.inherited().get(&id.0)?.ended
    }

    /// Ends what nobody took up, once all rooms had their turn: it was just being started, or is of no use any more.
    /// Goes on in the background.
    pub fn end_unclaimed(&self) {
        let unclaimed: Vec<Kept> = std::mem::take(&mut *self.inner.inherited()).into_values().collect();
        for kept in unclaimed {
            tracing::warn!(process = kept.key, "an earlier server left it and nobody can go on with it: it is ended");
            self.inner.keeper.forget(&kept.key);
            if let Ok(id) = kept.key.parse() {
                let children = self.clone();
                spawn_owned("process-end", async move { children.end_tree(id).await });
            }
        }
    }

    async fn end_tree(&self, id: ProcessId) {
        let cookie = self.inner.cookie(id);
        let target = super::Target::Tree { root: 0, is_over: true, cookie, cgroup: None };
        super::tree::end(&self.inner.scanner, target, std::time::Duration::from_millis(500), super::tree::KILL_WAIT).await;
    }
}
