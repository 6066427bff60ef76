//! Finding and ending a whole process tree, whatever its members did to escape.
//!
//! A process belongs to a tree when it is the root, descends from it, is in its group or session, or carries its
//! cookie. Sources: proc_pid_stat(5), proc_pid_environ(5).

use std::collections::{HashMap, HashSet};
use std::os::unix::ffi::OsStrExt as _;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{COOKIE_VARIABLE, Stopped};

/// After KILL, how long the kernel is given to take the processes away.
const KILL_WAIT: Duration = Duration::from_secs(2);

/// What proc_pid_stat(5) tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) pid: i32,
    pub(super) state: u8,
    pub(super) parent: i32,
    group: i32,
    session: i32,
    start_ticks: u64,
}

pub(super) async fn stop(root: u32, cookie: &str, grace: Duration) -> Stopped {
    let root = i32::try_from(root).unwrap_or(i32::MAX);
    let needle = format!("{COOKIE_VARIABLE}={cookie}\0");
    end(grace, move || members(root, needle.as_bytes())).await
}

/// Ends what carries a cookie of this store but not of this run. Returns how many there were.
pub(super) async fn end_leftovers(store_prefix: &str, run_prefix: &str) -> usize {
    let of_store = format!("{COOKIE_VARIABLE}={store_prefix}");
    let of_run = format!("{COOKIE_VARIABLE}={run_prefix}");
    let me = std::process::id().cast_signed();
    let find = move || {
        let all = all_stats();
        let carries = |stat: &&Stat| {
            let environ = environ(stat.pid);
            stat.pid != me && contains(&environ, of_store.as_bytes()) && !contains(&environ, of_run.as_bytes())
        };
        all.iter().filter(carries).copied().collect()
    };
    end(Duration::from_millis(500), find).await.terminated
}

/// TERM, grace, KILL, each to what is there at that moment; looks again until nothing new appears.
async fn end(grace: Duration, find: impl Fn() -> Vec<Stat> + Send) -> Stopped {
    let mut stopped = Stopped::default();
    let mut termed = HashSet::new();
    let grace_end = Instant::now() + grace;
    let mut pause = Duration::from_millis(2);
    loop {
        let living = find();
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
    kill_all(find, &mut stopped).await;
    stopped
}

async fn kill_all(find: impl Fn() -> Vec<Stat> + Send, stopped: &mut Stopped) {
    let deadline = Instant::now() + KILL_WAIT;
    let mut killed = HashSet::new();
    loop {
        let living = find();
        stopped.survived = living.len();
        if living.is_empty() || Instant::now() >= deadline {
            return;
        }
        for stat in &living {
            stopped.killed += usize::from(killed.insert((stat.pid, stat.start_ticks)));
            signal(stat, Signal::SIGKILL);
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Signals exactly this process: not one that got the same number since we looked.
fn signal(stat: &Stat, signal: Signal) {
    if read_stat(stat.pid).is_some_and(|now| now.start_ticks == stat.start_ticks) {
        let _ = kill(Pid::from_raw(stat.pid), signal); // an error means that it is gone
    }
}

/// The living members of a tree.
fn members(root: i32, cookie: &[u8]) -> Vec<Stat> {
    let all = all_stats();
    let me = std::process::id().cast_signed();
    let mut children: HashMap<i32, Vec<&Stat>> = HashMap::new();
    for stat in &all {
        children.entry(stat.parent).or_default().push(stat);
    }
    let belongs =
        |stat: &Stat| stat.pid == root || stat.group == root || stat.session == root || contains(&environ(stat.pid), cookie);
    let mut found: HashMap<i32, Stat> = HashMap::new();
    let mut open: Vec<Stat> = all.iter().filter(|stat| stat.pid != me && belongs(stat)).copied().collect();
    while let Some(stat) = open.pop() {
        if found.insert(stat.pid, stat).is_none() {
            open.extend(children.get(&stat.pid).into_iter().flatten().copied().copied());
        }
    }
    found.into_values().collect()
}

/// Every process that is not a zombie.
fn all_stats() -> Vec<Stat> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| std::str::from_utf8(entry.file_name().as_bytes()).ok()?.parse().ok());
    pids.filter_map(read_stat).filter(|stat| !matches!(stat.state, b'Z' | b'X')).collect()
}

pub(super) fn read_stat(pid: i32) -> Option<Stat> {
    parse_stat(pid, &std::fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// When the process with this number was started, in clock ticks since boot: number and ticks together name one process
/// for as long as the machine runs. `None` when there is none, or when it has ended and only waits for its parent.
pub fn started_at_ticks(pid: u32) -> Option<u64> {
    let stat = read_stat(i32::try_from(pid).ok()?)?;
    (!matches!(stat.state, b'Z' | b'X')).then_some(stat.start_ticks)
}

/// The name in parentheses may itself hold parentheses and spaces: fields count from the last one.
fn parse_stat(pid: i32, stat: &[u8]) -> Option<Stat> {
    let close = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(stat.get(close + 2..)?).ok()?;
    let fields: Vec<&str> = rest.split(' ').collect();
    Some(Stat {
        pid,
        state: *fields.first()?.as_bytes().first()?,
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        session: fields.get(3)?.parse().ok()?,
        start_ticks: fields.get(19)?.parse().ok()?,
    })
}

/// Empty when it can't be read, as for another user's process.
fn environ(pid: i32) -> Vec<u8> {
    std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default()
}

/// True when one of the variables begins with `needle`.
fn contains(environ: &[u8], needle: &[u8]) -> bool {
    let (bare, whole) = needle.strip_suffix(b"\0").map_or((needle, false), |bare| (bare, true));
    environ.split(|byte| *byte == 0).any(|variable| if whole { variable == bare } else { variable.starts_with(bare) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_is_read_right() {
        let line = b"42 (a) b (c) S 7 42 42 0 -1 4194304 1 0 0 0 1 2 0 0 20 0 1 0 12345 100 50";
        let stat = parse_stat(42, line).expect("well formed");
        assert_eq!((stat.state, stat.parent, stat.group, stat.start_ticks), (b'S', 7, 42, 12345));
    }

    #[test]
    fn cookies_match_whole_variables() {
        let environ = b"A=1\0SANDBOXD_COOKIE=s/r/p1\0B=2\0";
        assert!(contains(environ, b"SANDBOXD_COOKIE=s/r/p1\0"));
        assert!(!contains(environ, b"SANDBOXD_COOKIE=s/r/p\0"));
        assert!(contains(environ, b"SANDBOXD_COOKIE=s/"));
    }
}
