//! The end of everything, when no server is there to do it.

use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::protocol::Ended;
use super::table::Table;

/// Time between TERM and KILL.
const GRACE: Duration = Duration::from_millis(500);

/// Time for the kernel to take away what was killed.
const KILL_TIME: Duration = Duration::from_secs(2);

const POLL: Duration = Duration::from_millis(5);

/// One that was collected, and how it ended. `None`: there is none right now.
pub(super) fn collected() -> Option<(Pid, Ended)> {
    loop {
        return match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => Some((pid, Ended::Code(code))),
            Ok(WaitStatus::Signaled(pid, signal, _)) => Some((pid, Ended::Signal(signal as i32))),
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => None,
            Ok(_) | Err(Errno::EINTR) => continue,
            Err(_) => None,
        };
    }
}

/// TERM to all that is kept and to each child, a while, and KILL until there is no child any more. What loses its parent
/// comes to us, the subreaper: so nothing that a server started is left.
pub(super) fn end_all(table: &mut Table) {
    let groups: Vec<Pid> = living(table).collect();
    let children = children();
    groups.iter().for_each(|group| _ = killpg(*group, Signal::SIGTERM));
    children.iter().filter(|child| !groups.contains(child)).for_each(|child| _ = kill(*child, Signal::SIGTERM));
    wait_for_none(table, GRACE, || ());
    // Where the kernel doesn't list children, the groups are what is known.
    living(table).for_each(|group| _ = killpg(group, Signal::SIGKILL));
    wait_for_none(table, KILL_TIME, || self::children().into_iter().for_each(|child| _ = kill(child, Signal::SIGKILL)));
}

fn wait_for_none(table: &mut Table, time: Duration, each: impl Fn()) {
    let until = Instant::now() + time;
    loop {
        while let Some((pid, ended)) = collected() {
            let _ = table.exited(pid.as_raw(), ended);
        }
        if (children().is_empty() && living(table).next().is_none()) || Instant::now() >= until {
            return;
        }
        each();
        std::thread::sleep(POLL);
    }
}

fn living(table: &Table) -> impl Iterator<Item = Pid> {
    table.iter().filter(|entry| entry.pid > 0 && entry.ended.is_none()).map(|entry| Pid::from_raw(entry.pid))
}

/// Our children (proc_pid_task(5)); none where the kernel doesn't tell.
fn children() -> Vec<Pid> {
    let list = std::fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).map(Pid::from_raw).collect()
}
