//! Reaping orphans. As child subreaper (and as PID 1) the server becomes the parent of whatever loses its own; nobody
//! else waits for those. It never touches a child that has an owner task: those are in `known`, and a child that is
//! just being started is safe because starting holds the same lock.

use std::sync::{Arc, Weak};
use std::time::Duration;

use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};

use super::{Inner, scan};
use crate::rt::spawn_owned;

/// Exits come in bunches; one sweep serves a bunch.
const GATHER: Duration = Duration::from_millis(20);

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
    let known = inner.known();
    for pid in children_of_this_process().into_iter().filter(|pid| !known.contains(&pid.cast_unsigned())) {
        if scan::read_stat(pid).is_some_and(|stat| stat.state == b'Z') {
            let _ = waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG)); // gone already: nothing to do
        }
    }
}

/// By `/proc/self/task/*/children` (proc_tid_children(5)): cheap, and the list only has to be right for processes
/// that are dead already.
fn children_of_this_process() -> Vec<i32> {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return Vec::new() };
    let lists = tasks.flatten().filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    lists.flat_map(|list| list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect()
}
