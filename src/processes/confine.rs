//! What holds the tree of a process together.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::cgroup::Cgroup;
use super::children::{BeforeExec, Child, Confined};
use super::room::Room;
use super::types::{Limits, ProcessId};
use super::usage;
use crate::rt::spawn_owned;

impl Room {
    /// What holds a process's tree together from the first moment on: only where its limits need it, because it makes the
    /// start slower (fork instead of vfork). [`Room::gather`] does it later for the others.
    pub(super) fn confine(&self, id: ProcessId, limits: &Limits) -> Confined {
        let limits = limits.of_tree();
        if limits == usage::Limits::default() {
            return Confined::default();
        }
        let cgroup = self.cgroup(id, &limits);
        let cgroup_procs = cgroup.as_ref().and_then(|cgroup| cgroup.procs_file().ok()).map(Into::into);
        let held = cgroup.as_ref().map(|cgroup| cgroup.enforcement()).unwrap_or_default();
        let open = usage::Limits {
            memory_bytes: limits.memory_bytes.filter(|_| !held.memory),
            pids: limits.pids.filter(|_| !held.pids),
        };
        let plan = BeforeExec {
            rlimits: usage::rlimits(&open, nix::unistd::geteuid().is_root()),
            cgroup_procs, // moved there afterwards, it may have started something outside already
            ..BeforeExec::default()
        };
        Confined { before_exec: Some(plan), cgroup }
    }

    fn cgroup(&self, id: ProcessId, limits: &usage::Limits) -> Option<Arc<Cgroup>> {
        let number = self.cgroups_made.fetch_add(1, Ordering::Relaxed); // a restart has one of its own
        let name = format!("{}-{id}-{number}", self.store.id());
        self.cgroups.as_ref().and_then(|root| Cgroup::create(root, &name, limits).ok()).map(Arc::new)
    }

    /// The cgroup of a process that an earlier server started.
    pub(super) fn cgroup_of(&self, id: ProcessId, limits: &Limits) -> Option<Arc<Cgroup>> {
        let prefix = format!("{}-{id}-", self.store.id());
        Cgroup::find(self.cgroups.as_ref()?, &prefix, &limits.of_tree()).map(Arc::new)
    }

    /// Puts a tree that has lived for a moment into a cgroup, where that is possible: from then on nothing escapes.
    pub(super) fn gather(self: &Arc<Self>, child: Child) {
        if self.cgroups.is_none() || child.cgroup().is_some() {
            return;
        }
        let room = Arc::clone(self);
        spawn_owned("process-gather", async move {
            if let Some(cgroup) = room.cgroup(child.id(), &usage::Limits::default()) {
                child.move_into(cgroup).await;
            }
        });
    }
}
