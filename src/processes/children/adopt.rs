//! Taking up what an earlier server left with the keeper.

use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::child::{Record, Way};
use super::scan::Snapshot;
use super::tree::{self, Target};
use super::{Child, Children, Stat, Uncollected};
use crate::keeper::Ended;
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
    /// Its end, when that is in the file: then the last server took it away, and its pid may be somebody else's.
    pub(in crate::processes) ended: Option<Exit>,
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

    /// Whether it was just being started when its server died: nobody knows its pid, if it has one.
    pub(in crate::processes) fn is_unstarted(&self, id: ProcessId) -> bool {
        self.inner.inherited().get(&id.0).is_some_and(|kept| kept.pid.is_none())
    }

    /// Looks for processes that were just being started when their server died, before the keeper heard of them: those that
    /// run are its children by now, lead a group and carry their cookie. What isn't found was never started, or had ended.
    pub(in crate::processes) async fn find_unstarted(&self, ids: Vec<ProcessId>) {
        let Some(keeper) = self.inner.keeper.pid().and_then(|pid| i32::try_from(pid).ok()).filter(|_| !ids.is_empty()) else {
            return;
        };
        let cookies: Vec<_> = ids.into_iter().map(|id| (id, self.inner.cookie(id))).collect();
        let look = move |all: &Snapshot| -> Vec<(ProcessId, Stat)> {
            let is_root = |stat: &Stat| stat.parent == keeper && stat.group == stat.pid;
            cookies.iter().filter_map(|(id, cookie)| Some((*id, all.first(is_root, cookie)?))).collect()
        };
        for (id, stat) in self.inner.scanner.look(look).await.unwrap_or_default() {
            let mut inherited = self.inner.inherited();
            let Some(kept) = inherited.get_mut(&id.0) else { continue };
            self.inner.keeper.found(kept, stat.pid.cast_unsigned());
            tracing::info!(%id, pid = stat.pid, "a process that was just being started is found");
        }
    }

    /// Takes up a process; `None` when there is none, or its pid isn't known.
    pub(in crate::processes) fn adopt(&self, id: ProcessId, known: Known) -> Option<Adopted> {
        let (mut kept, pid) = {
            let mut inherited = self.inner.inherited();
            let pid = inherited.get(&id.0)?.pid?;
            (inherited.remove(&id.0)?, pid)
        };
        let Known { owner, program, args, cwd, created_at_ms, cgroup, ended } = known;
        kept.ended = kept.ended.or(ended.map(|exit| match exit {
            Exit::Code(code) => Ended::Code(code),
            Exit::Signal(signal) => Ended::Signal(signal),
        }));
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

    /// Ends what nobody took up, once all rooms had their turn: it is of no use any more. Goes on in the background.
    pub fn end_unclaimed(&self) {
        for id in self.inherited_ids() {
            tracing::warn!(process = %id, "an earlier server left it and nobody can go on with it: it is ended");
            let children = self.clone();
            spawn_owned("process-end", async move { children.end_inherited(id).await });
        }
        if let Some(desks) = self.desks() {
            desks.release_all();
        }
    }

    /// Ends a process that can't be gone on with.
    pub(in crate::processes) async fn end_inherited(&self, id: ProcessId) {
        self.inner.inherited().remove(&id.0);
        self.inner.keeper.forget(&id.to_string());
        let target = Target::Tree { root: 0, is_over: true, cookie: self.inner.cookie(id), cgroup: None };
        tree::end(&self.inner.scanner, target, Duration::from_millis(500), tree::KILL_WAIT).await;
    }
}
