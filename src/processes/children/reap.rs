//! Collecting the dead. Each child of ours is waited for by its owner task; orphans, which come to the server as child
//! subreaper (and as PID 1), are collected here. Neither takes the other's: a child of ours is in `known`, and one that
//! is just being started is safe because starting holds `starting`.

use std::os::fd::OwnedFd;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, pidfd_open};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{SignalKind, signal};

use super::{Inner, scan, sys};
use crate::processes::types::Exit;
use crate::rt::spawn_owned;

/// Exits come in bunches; one sweep serves a bunch.
const GATHER: Duration = Duration::from_millis(20);

/// Where there is no pidfd_open(2), as before Linux 5.3, a child is looked at this often.
const POLL: Duration = Duration::from_millis(10);

pub(super) fn start(inner: &Arc<Inner>) -> std::io::Result<()> {
    let mut exits = signal(SignalKind::child())?;
    let inner: Weak<Inner> = Arc::downgrade(inner);
    spawn_owned("reaper", async move {
        while exits.recv().await.is_some() {
            tokio::time::sleep(GATHER).await;
            let Some(inner) = inner.upgrade() else { return };
            sweep(&inner);
        }
    });
    Ok(())
}

fn sweep(inner: &Inner) {
    let _nothing_starts = inner.starting.write().unwrap_or_else(PoisonError::into_inner);
    let known = inner.known();
    for pid in children_of_this_process().into_iter().filter(|pid| !known.contains_key(&pid.cast_unsigned())) {
        if scan::read_stat(pid).is_some_and(|stat| stat.state == b'Z') {
            let _ = waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG)); // gone already: nothing to do
        }
    }
}

/// Whether anything lives that lost its parent and came to this process.
pub(super) fn has_orphans(inner: &Inner) -> bool {
    let known = inner.known();
    children_of_this_process().into_iter().any(|pid| !known.contains_key(&pid.cast_unsigned()))
}

/// By `/proc/self/task/*/children` (proc_tid_children(5)): cheap, and the list only has to be right for processes
/// that are dead already.
fn children_of_this_process() -> Vec<i32> {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return Vec::new() };
    let lists = tasks.flatten().filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    lists.flat_map(|list| list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect()
}

/// Waits for a child of ours and collects it. Not to be called twice for one child.
pub(super) async fn exit_of(pid: u32) -> Exit {
    let pid = Pid::from_raw(pid.cast_signed());
    let watched = watch(pid);
    loop {
        match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(_, code)) => return Exit::Code(code),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Exit::Signal(signal as i32),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => {
                tracing::error!(%pid, %errno, "a child could not be waited for");
                return Exit::Code(-1);
            }
        }
        match &watched {
            Some(pidfd) => {
                if let Ok(mut ready) = pidfd.readable().await {
                    ready.clear_ready(); // readable for good once it ended; then waitpid takes it
                }
            }
            None => tokio::time::sleep(POLL).await,
        }
    }
}

/// A descriptor that is readable once the process ended (pidfd_open(2)).
fn watch(pid: Pid) -> Option<AsyncFd<OwnedFd>> {
    let pid = rustix::process::Pid::from_raw(pid.as_raw())?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    sys::watched(pidfd, Interest::READABLE).ok()
}
