//! What a process tree may use, and who sees to it: the kernel through a cgroup; where it can't, whoever measures here;
//! time and output, the owner itself.

use std::time::Duration;

use tokio::time::Instant;

use crate::processes::children::Child;
use crate::processes::types::{Exit, ExitReason, Limits};
use crate::processes::usage::{self, Breach, TreeUsage};

/// How often a tree is measured.
const SAMPLE: Duration = Duration::from_millis(200);

/// The limits that the owner itself watches.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) wall_end: Option<Instant>,
    pub(super) output_bytes: u64,
}

impl Watched {
    /// From now on.
    pub(super) fn start(limits: &Limits) -> Self {
        let wall_end = limits.wall_time_ms.map(|ms| Instant::now() + Duration::from_millis(ms));
        Self { wall_end, output_bytes: limits.output_bytes.unwrap_or(u64::MAX) }
    }

    /// Of a process that has lived so long already.
    pub(super) fn since(limits: &Limits, lived: Duration) -> Self {
        let mut watched = Self::start(limits);
        watched.wall_end = watched.wall_end.map(|end| end.checked_sub(lived).unwrap_or_else(Instant::now));
        watched
    }

    /// Nothing more to watch.
    pub(super) fn over() -> Self {
        Self { wall_end: None, output_bytes: u64::MAX }
    }
}

/// The limits that the kernel doesn't hold for this child; `None` when there are none.
pub(in crate::processes) fn unbounded(child: &Child, limits: &Limits) -> Option<usage::Limits> {
    let held = child.cgroup().map(|cgroup| cgroup.enforcement()).unwrap_or_default();
    let open =
        usage::Limits { memory_bytes: limits.memory_bytes.filter(|_| !held.memory), pids: limits.pids.filter(|_| !held.pids) };
    (open != usage::Limits::default()).then_some(open)
}

/// Measures the tree until it uses too much. Cancel safe.
pub(in crate::processes) async fn exceeded(child: &Child, limits: usage::Limits) -> ExitReason {
    loop {
        tokio::time::sleep(SAMPLE).await;
        let pids = child.tree_pids().await;
        let measured = tokio::task::spawn_blocking(move || usage::breach(TreeUsage::measure(&pids, &limits), &limits)).await;
        if let Ok(Some(breach)) = measured {
            return reason(breach);
        }
    }
}

/// The limit by which the kernel ended a child, or refused it something before it failed.
pub(in crate::processes) fn breached(child: &Child, exit: Exit) -> Option<ExitReason> {
    let cgroup = child.cgroup().filter(|_| exit != Exit::Code(0))?;
    cgroup.breach().map(reason)
}

fn reason(breach: Breach) -> ExitReason {
    match breach {
        Breach::Memory { .. } => ExitReason::MemoryLimit,
        Breach::Pids { .. } => ExitReason::PidsLimit,
    }
}
