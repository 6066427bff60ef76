//! One look at all processes, shared by all who want one at the same time: with hundreds of trees ending at once, each
//! scanning for itself would be quadratic. Files below `/proc` are read on blocking threads.
//!
//! Sources: proc_pid_stat(5), proc_pid_environ(5).

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use tokio::sync::Mutex;

use super::COOKIE_VARIABLE;

/// What proc_pid_stat(5) tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::processes) struct Stat {
    pub(in crate::processes) pid: i32,
    pub(in crate::processes) state: u8,
    pub(in crate::processes) parent: i32,
    pub(in crate::processes) group: i32,
    pub(in crate::processes) session: i32,
    pub(in crate::processes) start_ticks: u64,
}

/// A process, and its cookie once somebody asked for it.
struct Seen {
    stat: Stat,
    cookie: OnceLock<Box<str>>,
}

/// The processes that were there at one moment, without zombies.
pub(super) struct Snapshot {
    begun: Instant,
    all: Vec<Seen>,
    /// Places in `all`, by parent.
    children: HashMap<i32, Vec<usize>>,
}

impl Snapshot {
    fn take() -> Self {
        let begun = Instant::now();
        let all: Vec<_> = all_stats().into_iter().map(|stat| Seen { stat, cookie: OnceLock::new() }).collect();
        let mut children: HashMap<i32, Vec<usize>> = HashMap::new();
        for (at, seen) in all.iter().enumerate() {
            children.entry(seen.stat.parent).or_default().push(at);
        }
        Self { begun, all, children }
    }

    /// All processes that `claims` or whose cookie `carries`, with their descendants, except `me`. Environments are read
    /// only of those that nothing else claims, and once per snapshot.
    pub(super) fn members(&self, me: i32, claims: impl Fn(&Stat) -> bool, carries: impl Fn(&str) -> bool) -> Vec<Stat> {
        let mut found = vec![false; self.all.len()];
        let places = || (0..self.all.len()).filter(|at| self.all[*at].stat.pid != me);
        self.add(places().filter(|at| claims(&self.all[*at].stat)).collect(), &mut found);
        let open: Vec<_> = places().filter(|at| !found[*at]).collect();
        self.add(open.into_iter().filter(|at| carries(self.cookie(*at))).collect(), &mut found);
        places().filter(|at| found[*at]).map(|at| self.all[at].stat).collect()
    }

    /// The oldest of those that `may` be it and carry this cookie.
    pub(super) fn first(&self, may: impl Fn(&Stat) -> bool, cookie: &str) -> Option<Stat> {
        let places = (0..self.all.len()).filter(|at| may(&self.all[*at].stat) && self.cookie(*at) == cookie);
        places.map(|at| self.all[at].stat).min_by_key(|stat| stat.start_ticks)
    }

    /// Whether there is a process of this number.
    pub(super) fn has(&self, pid: i32) -> bool {
        self.all.iter().any(|seen| seen.stat.pid == pid)
    }

    /// Marks these and what descends from them.
    fn add(&self, mut open: Vec<usize>, found: &mut [bool]) {
        while let Some(at) = open.pop() {
            if !std::mem::replace(&mut found[at], true) {
                open.extend(self.children.get(&self.all[at].stat.pid).into_iter().flatten());
            }
        }
    }

    fn cookie(&self, at: usize) -> &str {
        let seen = &self.all[at];
        seen.cookie.get_or_init(|| cookie_in(&environ(seen.stat.pid)))
    }
}

/// Gives snapshots.
#[derive(Default)]
pub(super) struct Scanner {
    latest: Mutex<Option<Arc<Snapshot>>>,
}

impl Scanner {
    /// What `look` finds in a snapshot that was begun after this call; whoever calls while one is being taken shares the
    /// next. Cancel safe.
    pub(super) async fn look<T: Send + 'static>(&self, look: impl FnOnce(&Snapshot) -> T + Send + 'static) -> Option<T> {
        let asked = Instant::now();
        let mut latest = self.latest.lock().await;
        let snapshot = match latest.take().filter(|snapshot| snapshot.begun >= asked) {
            Some(snapshot) => snapshot,
            None => Arc::new(tokio::task::spawn_blocking(Snapshot::take).await.ok()?), // none: the runtime ends
        };
        *latest = Some(Arc::clone(&snapshot));
        drop(latest);
        tokio::task::spawn_blocking(move || look(&snapshot)).await.ok()
    }
}

/// Every process that is not a zombie.
fn all_stats() -> Vec<Stat> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| std::str::from_utf8(entry.file_name().as_bytes()).ok()?.parse().ok());
    pids.filter_map(read_stat).filter(|stat| !matches!(stat.state, b'Z' | b'X')).collect()
}

pub(in crate::processes) fn read_stat(pid: i32) -> Option<Stat> {
    parse_stat(pid, &std::fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// When the process with this number was started, in clock ticks since boot: number and ticks together name one process
/// for as long as the machine runs. `None` when there is none, or when it has ended and only waits for its parent.
pub fn started_at_ticks(pid: u32) -> Option<u64> {
    let stat = read_stat(i32::try_from(pid).ok()?)?;
    (!matches!(stat.state, b'Z' | b'X')).then_some(stat.start_ticks)
}

/// How many parents [`cookie_owner`] asks: more than any sane tree is deep.
const ANCESTORS_MAX: usize = 256;

/// The cookie of this process; of its nearest ancestor that has one, when its own environment has none or can't be read.
/// `None` for this server itself, and for what came from elsewhere. Blocks.
///
/// Not found is what changed its environment *and* lost its parents: there the tree's cgroup, group or session help.
pub fn cookie_owner(pid: u32) -> Option<String> {
    let me = std::process::id().cast_signed();
    let parents = std::iter::successors(i32::try_from(pid).ok(), |pid| Some(read_stat(*pid)?.parent));
    let mut chain = parents.take(ANCESTORS_MAX).take_while(|pid| *pid > 0 && *pid != me);
    chain.find_map(|pid| Some(cookie_in(&environ(pid)).into_string()).filter(|cookie| !cookie.is_empty()))
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

/// The cookie's value; empty without one.
fn cookie_in(environ: &[u8]) -> Box<str> {
    let mut variables = environ.split(|byte| *byte == 0).filter_map(|variable| std::str::from_utf8(variable).ok());
    variables.find_map(|variable| variable.strip_prefix(COOKIE_VARIABLE)?.strip_prefix('=')).unwrap_or_default().into()
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
    fn the_cookie_is_a_whole_variable() {
        assert_eq!(&*cookie_in(b"A=1\0SANDBOXD_COOKIE=s/r/p1\0B=\xff\0"), "s/r/p1");
        assert_eq!(&*cookie_in(b"XSANDBOXD_COOKIE=a\0SANDBOXD_COOKIES=b\0"), "");
    }

    #[test]
    #[allow(clippy::disallowed_methods)] // starts processes to look at
    fn the_cookie_is_that_of_the_nearest_ancestor_with_one() {
        use std::io::BufRead as _;
        use std::process::{Command, Stdio};
        let _alone = crate::processes::TEST_CHILDREN.blocking_lock();
        let mut command = Command::new("sh");
        command.args(["-c", "env -i sh -c 'echo $$; exec sleep 100' & wait"]).env(COOKIE_VARIABLE, "s/r/p");
        let mut parent = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("a shell");
        let mut line = String::new();
        std::io::BufReader::new(parent.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        let child: i32 = line.trim().parse().expect("a pid");
        assert_eq!(&*cookie_in(&environ(child)), "", "its environment was emptied");
        let found = [cookie_owner(child.cast_unsigned()), cookie_owner(parent.id()), cookie_owner(std::process::id())];
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(child), nix::sys::signal::Signal::SIGKILL);
        parent.wait().expect("ended");
        let cookie = Some("s/r/p".to_owned());
        assert_eq!(found, [cookie.clone(), cookie, None]);
        assert_eq!(cookie_owner(child.cast_unsigned()), None, "it is gone");
    }

    #[test]
    fn claims_cover_descendants_and_spare_environments() {
        let seen = |pid, parent, cookie: Option<&str>| {
            let stat = Stat { pid, state: b'S', parent, group: pid, session: pid, start_ticks: 0 };
            Seen { stat, cookie: cookie.map_or_else(OnceLock::new, |cookie| OnceLock::from(Box::from(cookie))) }
        };
        // 1 is the server; 2 the root with its child 3; 4 escaped with the cookie and started 5; 6 is somebody else's.
        let all = vec![
            seen(1, 0, None),
            seen(2, 1, None),
            seen(3, 2, None),
            seen(4, 1, Some("x")),
            seen(5, 4, Some("")),
            seen(6, 1, Some("y")),
        ];
        let mut children: HashMap<i32, Vec<usize>> = HashMap::new();
        for (at, seen) in all.iter().enumerate() {
            children.entry(seen.stat.parent).or_default().push(at);
        }
        let snapshot = Snapshot { begun: Instant::now(), all, children };
        let found = snapshot.members(1, |stat| stat.pid == 2, |cookie| cookie == "x");
        assert_eq!(found.iter().map(|stat| stat.pid).collect::<Vec<_>>(), [2, 3, 4, 5]);
        assert!(snapshot.all[2].cookie.get().is_none(), "claimed by its parent already");
        let below = snapshot.members(1, |stat| stat.parent == 1, |_| false);
        assert_eq!(below.len(), 5);
    }
}
