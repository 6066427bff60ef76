//! Collecting the dead. Each child of ours is waited for by its owner task; orphans, which come to the server as child
//! subreaper (and as PID 1), are collected here. Neither takes the other's: a child of ours is in `known`, and one that
//! is just being started is safe because starting holds `starting`.

use std::os::fd::OwnedFd;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, pidfd_open};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::{Inner, scan};
use crate::processes::types::Exit;
use crate::rt::{spawn_owned, sys};

/// How often the dead are looked for while there are children, and while there are none (as PID 1, others may send some).
const LOOK: Duration = Duration::from_millis(250);
const LOOK_WHEN_ALONE: Duration = Duration::from_secs(1);

/// How often a process is looked at whose end somebody else tells, which takes less.
const LOOK_WHEN_TOLD: Duration = Duration::from_secs(2);

/// How long that one has once it is gone: more than a busy machine holds up a task.
const TOLD_PATIENCE: Duration = Duration::from_secs(15);

/// Where there is no pidfd_open(2), as before Linux 5.3, a child is looked at this often.
const POLL: Duration = Duration::from_millis(10);

/// Looks now and then instead of at each SIGCHLD: our own children, which are nearly all that end, are none of its
/// business, and a signal for each would cost more than collecting it.
pub(super) fn start(inner: &Arc<Inner>) {
    let inner: Weak<Inner> = Arc::downgrade(inner);
    spawn_owned("reaper", async move {
        let mut pause = LOOK_WHEN_ALONE;
        loop {
            tokio::time::sleep(pause).await;
            let Some(inner) = inner.upgrade() else { return };
            pause = match any_dead() {
                Ok(false) => LOOK,
                Ok(true) => {
                    sweep(&inner);
                    LOOK
                }
                Err(_) => LOOK_WHEN_ALONE,
            };
        }
    });
}

/// Whether a child waits to be collected, without collecting it (waitid(2)).
fn any_dead() -> Result<bool, Errno> {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    waitid(Id::All, flags).map(|status| status != WaitStatus::StillAlive)
}

fn sweep(inner: &Inner) {
    let _nothing_starts = inner.starting.write().unwrap_or_else(PoisonError::into_inner);
    let (known, unreleased) = (inner.known(), inner.unreleased());
    let is_other = |pid: &i32| !known.contains_key(&pid.cast_unsigned()) && !unreleased.contains(&pid.cast_unsigned());
    for pid in children_of(std::process::id()).into_iter().filter(is_other) {
        if scan::read_stat(pid).is_some_and(|stat| stat.state == b'Z') {
            let _ = waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG)); // gone already: nothing to do
        }
    }
}

/// Whether anything lives that lost its parent and came to this process.
pub(super) fn has_orphans(inner: &Inner) -> bool {
    let (known, me) = (inner.known(), std::process::id());
    // Those of an earlier server have come to the keeper.
    let keepers = inner.keeper.pid().map(children_of).unwrap_or_default();
    let all = children_of(me).into_iter().chain(keepers).map(i32::cast_unsigned);
    all.filter(|pid| *pid != me).any(|pid| !known.contains_key(&pid))
}

/// By `/proc/<pid>/task/*/children` (proc_tid_children(5)): cheap, and the list only has to be right for processes
/// that are dead already.
fn children_of(pid: u32) -> Vec<i32> {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let lists = tasks.flatten().filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    lists.flat_map(|list| list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect()
}

/// Takes away a child that has ended.
pub(super) fn collect(pid: u32) {
    let _ = waitpid(Pid::from_raw(pid.cast_signed()), Some(WaitPidFlag::WNOHANG)); // it isn't ours any more: nothing to do
}

/// Waits for the end of a process that isn't a child of ours; how it ended can't be known. Cancel safe.
pub(super) async fn end_of_stranger(pid: u32) -> Exit {
    let began = scan::started_at_ticks(pid);
    while began.is_some() && scan::started_at_ticks(pid) == began {
        tokio::time::sleep(LOOK).await; // another process may get its number
    }
    Exit::Code(-1)
}

/// Waits until somebody took a process away, and some time longer: whoever did it tells of it. Cancel safe.
pub(super) async fn taken_away(pid: u32) {
    let began = || scan::read_stat(pid.cast_signed()).map(|stat| stat.start_ticks); // of a zombie, too
    let known = began();
    while known.is_some() && began() == known {
        tokio::time::sleep(LOOK_WHEN_TOLD).await;
    }
    tokio::time::sleep(TOLD_PATIENCE).await;
}

/// Waits for a child of ours, and collects it unless it `stays`. Not to be called twice for one child.
pub(super) async fn exit_of(pid: u32, stays: bool) -> Exit {
    let pid = Pid::from_raw(pid.cast_signed());
    let watched = watch(pid);
    loop {
        if let Some(pidfd) = &watched
            && let Ok(mut ready) = pidfd.readable().await
        {
            ready.clear_ready(); // readable for good once it ended; then waitpid takes it
        }
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG;
        let seen = if stays { waitid(Id::Pid(pid), flags | WaitPidFlag::WNOWAIT) } else { waitid(Id::Pid(pid), flags) };
        match seen {
            Ok(WaitStatus::Exited(_, code)) => return Exit::Code(code),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Exit::Signal(signal as i32),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => {
                tracing::error!(%pid, %errno, "a child could not be waited for");
                return Exit::Code(-1);
            }
        }
        if watched.is_none() {
            tokio::time::sleep(POLL).await;
        }
    }
}

/// A descriptor that is readable once the process ended (pidfd_open(2)).
fn watch(pid: Pid) -> Option<AsyncFd<OwnedFd>> {
    let pid = rustix::process::Pid::from_raw(pid.as_raw())?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    sys::watched(pidfd, Interest::READABLE).ok()
}
