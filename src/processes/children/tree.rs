//! Finding and ending a whole process tree, whatever its members did to escape.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::scan::{Scanner, Snapshot, Stat, read_stat};
use crate::processes::cgroup::Cgroup;
use crate::processes::types::{ProcessId, Stopped};

/// After KILL, how long the kernel is given to take the processes of one tree away.
pub(super) const KILL_WAIT: Duration = Duration::from_secs(2);

/// What is to be ended.
#[derive(Debug, Clone)]
pub(super) enum Target {
    /// The process `root`, what descends from it, is in its group or session, or carries its cookie.
    Tree {
        /// The process.
        root: i32,
        /// It exited and was collected. Its number stays free for as long as a group or session of that number lives on, so
        /// a process that has it now is a stranger, and then so are its group and session.
        is_over: bool,
        /// Its whole cookie.
        cookie: String,
        /// Its cgroup, where there is one: nobody gets out of that.
        cgroup: Option<Arc<Cgroup>>,
    },
    /// What carries a cookie of this store.
    Leftovers {
        /// The cookies' beginning.
        store: String,
        /// The cookies of those to spare.
        spared: HashSet<String>,
        /// The beginning of this run's cookies, and the first number of this server, which may have started some by now.
        own: (String, u64),
    },
    /// What descends from this process or carries a cookie of this run.
    Run {
        /// The cookies' beginning.
        run: String,
    },
}

impl Target {
    /// The living members.
    fn members(&self, snapshot: &Snapshot) -> Vec<Stat> {
        let me = std::process::id().cast_signed();
        match self {
            Self::Tree { root, is_over, cookie, cgroup } => {
                let root = if *is_over && snapshot.has(*root) { &0 } else { root };
                let inside = cgroup.as_ref().and_then(|cgroup| cgroup.pids().ok()).unwrap_or_default();
                let is_inside = |stat: &Stat| inside.contains(&stat.pid.cast_unsigned());
                let is_of = |number: i32| number == *root && *root != 0;
                let claims = |stat: &Stat| is_of(stat.pid) || is_of(stat.group) || is_of(stat.session) || is_inside(stat);
                snapshot.members(me, claims, |carried| carried == cookie)
            }
            Self::Leftovers { store, spared, own: (run, first) } => {
                let number = |carried: &str| carried.strip_prefix(run)?.parse::<ProcessId>().ok().map(|id| id.0);
                let is_left = |carried: &str| !spared.contains(carried) && number(carried).is_none_or(|number| number < *first);
                snapshot.members(me, |_| false, |carried| carried.starts_with(store) && is_left(carried))
            }
            Self::Run { run } => snapshot.members(me, |stat| stat.parent == me, |carried| carried.starts_with(run)),
        }
    }
}

/// TERM, grace, KILL, each to what is there at that moment; looks again until nothing new appears.
pub(super) async fn end(scanner: &Scanner, target: Target, grace: Duration, kill_wait: Duration) -> Stopped {
    let mut stopped = Stopped::default();
    let mut termed = HashSet::new();
    let grace_end = Instant::now() + grace;
    let mut pause = Duration::from_millis(2);
    loop {
        let living = members(scanner, &target).await;
        if living.is_empty() {
            return stopped;
        }
        if Instant::now() >= grace_end {
            break;
        }
        for stat in living.iter().filter(|stat| termed.insert((stat.pid, stat.start_ticks))) {
            stopped.terminated += 1;
            signal(stat, Signal::SIGTERM);
            signal(stat, Signal::SIGCONT); // a stopped process sees TERM only once it goes on
        }
        tokio::time::sleep(pause.min(grace_end.saturating_duration_since(Instant::now()))).await;
        pause = (pause * 2).min(Duration::from_millis(40));
    }
    kill_all(scanner, &target, kill_wait, &mut stopped).await;
    stopped
}

async fn kill_all(scanner: &Scanner, target: &Target, wait: Duration, stopped: &mut Stopped) {
    // All at once, so that nobody forks away meanwhile. They are still counted below: a killed process is there until
    // the kernel has taken it down.
    let at_once = if let Target::Tree { cgroup: Some(cgroup), .. } = target { Some(Arc::clone(cgroup)) } else { None };
    let deadline = Instant::now() + wait;
    let mut killed = HashSet::new();
    loop {
        let living = members(scanner, target).await;
        stopped.survived = living.len();
        if living.is_empty() || Instant::now() >= deadline {
            return;
        }
        for stat in &living {
            stopped.killed += usize::from(killed.insert((stat.pid, stat.start_ticks)));
            signal(stat, Signal::SIGKILL);
        }
        if let Some(cgroup) = &at_once {
            let _ = cgroup.kill_all(); // each was signalled above, too
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Signals each living member once; gives how many there were.
pub(super) async fn signal_all(scanner: &Scanner, target: &Target, with: Signal) -> usize {
    let living = members(scanner, target).await;
    living.iter().for_each(|stat| signal(stat, with));
    living.len()
}

/// The living members.
pub(super) async fn pids(scanner: &Scanner, target: &Target) -> Vec<u32> {
    members(scanner, target).await.into_iter().map(|stat| stat.pid.cast_unsigned()).collect()
}

async fn members(scanner: &Scanner, target: &Target) -> Vec<Stat> {
    let target = target.clone();
    scanner.look(move |snapshot| target.members(snapshot)).await.unwrap_or_default()
}

/// Signals exactly this process: not one that got the same number since we looked.
fn signal(stat: &Stat, signal: Signal) {
    if read_stat(stat.pid).is_some_and(|now| now.start_ticks == stat.start_ticks) {
        let _ = kill(Pid::from_raw(stat.pid), signal); // an error means that it is gone
    }
}
