//! One child: the handle on it, and who waits for its exit.

use std::collections::HashSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::sync::watch;

use super::tree::{self, Target};
use super::{Inner, reap};
use crate::keeper::Ended;
use crate::processes::cgroup::Cgroup;
use crate::processes::types::{Exit, Owner, ProcessId, SignalScope, Stopped};
use crate::processes::usage::{Limits, TreeUsage};

/// What is known of a child while it runs.
#[derive(Debug)]
pub(in crate::processes) struct Record {
    pub(in crate::processes) id: ProcessId,
    pub(in crate::processes) owner: Owner,
    pub(in crate::processes) pid: u32,
    pub(in crate::processes) program: PathBuf,
    pub(in crate::processes) args: Vec<OsString>,
    pub(in crate::processes) cwd: Option<PathBuf>,
    pub(in crate::processes) created_at_ms: i64,
}

/// A cheap handle on a child. Dropping it stops nothing.
#[derive(Clone)]
pub struct Child {
    pub(super) record: Arc<Record>,
    pub(super) cookie: Arc<str>,
    pub(super) cgroup: Arc<OnceLock<Arc<Cgroup>>>,
    /// The keeper knows it.
    pub(super) is_kept: bool,
    pub(super) inner: Arc<Inner>,
    pub(super) exit: watch::Receiver<Option<Exit>>,
}

/// A child whose exit nobody waits for yet.
#[must_use = "a child that nobody collects stays as a zombie"]
pub(in crate::processes) struct Uncollected {
    pub(super) inner: Arc<Inner>,
    pub(super) pid: u32,
    pub(super) id: ProcessId,
    pub(super) publish: watch::Sender<Option<Exit>>,
    pub(super) way: Way,
}

/// How an exit is learned.
pub(super) enum Way {
    /// waitpid(2) takes the child away.
    Collected,
    /// It stays until [`Child::release`]: were this server killed in between, the keeper would collect it.
    Seen,
    /// It isn't our child: the keeper tells.
    Told(watch::Receiver<Option<Ended>>),
}

impl Uncollected {
    /// Waits for the exit, collects it and publishes it. Not to be dropped before: it is the only one that does.
    pub(in crate::processes) async fn collect(self) -> Exit {
        let exit = match self.way {
            Way::Collected => reap::exit_of(self.pid, false).await,
            Way::Seen => {
                self.inner.unreleased().insert(self.pid);
                reap::exit_of(self.pid, true).await
            }
            Way::Told(end) => told(end, self.pid).await,
        };
        {
            // Since it was waited for, its number may have become that of another child.
            let mut known = self.inner.known();
            if known.get(&self.pid).is_some_and(|child| child.record.id == self.id) {
                known.remove(&self.pid);
            }
        }
        tracing::debug!(pid = self.pid, %exit, "process exited");
        self.publish.send_replace(Some(exit));
        exit
    }
}

/// The end of a process that isn't our child. The keeper tells it, unless it is gone, or the last server took the process away.
async fn told(mut end: watch::Receiver<Option<Ended>>, pid: u32) -> Exit {
    let told = tokio::select! {
        told = end.wait_for(Option::is_some) => told.map(|end| *end),
        () = reap::taken_away(pid) => return Exit::Code(-1),
    };
    match told {
        Ok(Some(Ended::Code(code))) => Exit::Code(code),
        Ok(Some(Ended::Signal(signal))) => Exit::Signal(signal),
        _ => reap::end_of_stranger(pid).await,
    }
}

impl Child {
    /// Its number among all that this server started.
    pub fn id(&self) -> ProcessId {
        self.record.id
    }

    /// The child's process id, which is also its group's.
    pub fn pid(&self) -> u32 {
        self.record.pid
    }

    pub(in crate::processes) fn record(&self) -> &Record {
        &self.record
    }

    /// The exit, once there is one. Cancel safe.
    pub async fn exited(&self) -> Exit {
        let mut exit = self.exit.clone();
        let known = exit.wait_for(Option::is_some).await.map(|exit| *exit);
        known.ok().flatten().unwrap_or(Exit::Code(-1)) // the owner task is gone: only when the runtime ends
    }

    /// Ends the whole tree: TERM, then KILL after `grace`. Also finds what the child left after its own exit.
    ///
    /// Returns when nothing is left, or what is left can't be killed. Dropping the future stops the escalation.
    pub async fn stop(&self, grace: Duration) -> Stopped {
        let stopped = tree::end(&self.inner.scanner, self.tree(), grace, tree::KILL_WAIT).await;
        if stopped.survived > 0 {
            tracing::error!(pid = self.pid(), survived = stopped.survived, "processes could not be killed");
        }
        stopped
    }

    /// Memory of the whole tree, in bytes; exact when it is above `limit_bytes`, otherwise possibly too high. Cancel safe.
    pub async fn memory_bytes(&self, limit_bytes: u64) -> u64 {
        let pids = self.tree_pids().await;
        let limits = Limits { memory_bytes: Some(limit_bytes), pids: None };
        let measured = tokio::task::spawn_blocking(move || TreeUsage::measure(&pids, &limits)).await;
        measured.map_or(0, |usage| usage.memory_bytes) // the runtime ends
    }

    /// Its end is in the file: the child is taken away.
    pub fn release(&self) {
        if self.is_kept && self.inner.unreleased().remove(&self.pid()) {
            reap::collect(self.pid());
        }
    }

    /// Nothing of it has to outlive this server any more: the keeper closes what it held of it.
    pub fn forget(&self) {
        if self.is_kept {
            // In this order: the keeper would wait for the end of one that it knows and we took away.
            self.inner.keeper.forget(&self.id().to_string());
            self.release();
        }
    }

    /// Closes one of its descriptors at the keeper, too.
    pub(in crate::processes) fn close_kept(&self, place: usize) {
        if self.is_kept {
            self.inner.keeper.close(&self.id().to_string(), place);
        }
    }

    /// Signals the child, its group or its tree; gives how many processes that were (a group counts as one).
    pub(in crate::processes) async fn signal(&self, signal: Signal, scope: SignalScope) -> usize {
        let pid = Pid::from_raw(self.root());
        let running = self.exit.borrow().is_none(); // afterwards the number may be somebody else's
        match scope {
            SignalScope::Process => usize::from(running && kill(pid, signal).is_ok()),
            SignalScope::Group => usize::from(running && killpg(pid, signal).is_ok()),
            SignalScope::Tree => tree::signal_all(&self.inner.scanner, &self.tree(), signal).await,
        }
    }

    /// The pids of the whole tree, also after the child's own exit.
    pub(in crate::processes) async fn tree_pids(&self) -> Vec<u32> {
        tree::pids(&self.inner.scanner, &self.tree()).await
    }

    fn root(&self) -> i32 {
        i32::try_from(self.pid()).unwrap_or(i32::MAX)
    }

    /// Its cgroup, where it has one.
    pub(in crate::processes) fn cgroup(&self) -> Option<&Arc<Cgroup>> {
        self.cgroup.get()
    }

    /// Puts the tree as it is into a cgroup. What forks meanwhile is looked for until nothing new is found.
    pub(in crate::processes) async fn move_into(&self, cgroup: Arc<Cgroup>) {
        let mut moved = HashSet::new();
        loop {
            let new: Vec<u32> = self.tree_pids().await.into_iter().filter(|pid| moved.insert(*pid)).collect();
            if new.is_empty() {
                break;
            }
            let to = Arc::clone(&cgroup);
            // Those that are gone by now are no matter. Blocks while the kernel waits for a quiet moment.
            _ = tokio::task::spawn_blocking(move || new.into_iter().for_each(|pid| _ = to.add(pid))).await;
        }
        let _ = self.cgroup.set(cgroup); // there is one already: it stays
    }

    fn tree(&self) -> Target {
        let is_over = self.exit.borrow().is_some();
        Target::Tree { root: self.root(), is_over, cookie: self.cookie.to_string(), cgroup: self.cgroup().cloned() }
    }
}
