//! What a process tree uses, for hosts whose cgroups can't bound it: measured from `/proc`, and judged.
//!
//! Memory is resident memory, and swapped-out pages are not counted. Adding up the resident sets of a tree counts a page
//! that several of its processes share several times, so that sum is an upper bound. The kernel's own fair share (PSS)
//! is exact but costs a walk over all page tables; it is read only when the cheap sum is above the limit.
//!
//! Numbers of processes are numbers of tasks: a thread counts like a process, and so does a zombie until it is reaped.
//! That is what `pids.max` and `RLIMIT_NPROC` count too.
//!
//! Sources: proc_pid_status(5), `Documentation/filesystems/proc.rst` (smaps_rollup), getrlimit(2).

use nix::sys::resource::Resource;

/// What a process tree may use together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Memory of all its processes; unbounded when absent.
    pub memory_bytes: Option<u64>,
    /// Tasks, which are processes and their threads; unbounded when absent.
    pub pids: Option<u64>,
}

/// A limit that was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Breach {
    /// The tree needed more memory than it may have.
    Memory {
        /// What it may have.
        limit_bytes: u64,
        /// What it had, as far as that is known; the limit itself when the kernel didn't say.
        used_bytes: u64,
    },
    /// The tree has, or tried to have, more tasks than it may have.
    Pids {
        /// How many it may have.
        limit: u64,
        /// How many it had; the limit itself when the kernel refused one more.
        count: u64,
    },
}

/// What a process tree uses at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TreeUsage {
    /// Resident memory: exact when it is above the limit it was measured for, otherwise possibly too high.
    pub memory_bytes: u64,
    /// Tasks.
    pub pids: u64,
}

impl TreeUsage {
    /// Measures these processes; those that are gone count nothing. Reads two small files per process at most, and
    /// blocks: the second, costly one only when the memory limit seems to be exceeded.
    pub fn measure(pids: &[u32], limits: &Limits) -> Self {
        let each: Vec<_> = pids.iter().filter_map(|pid| Some((*pid, status(*pid)?))).collect();
        let count = each.iter().map(|(_, one)| one.pids).sum();
        let resident = each.iter().map(|(_, one)| one.memory_bytes).sum();
        let over = limits.memory_bytes.is_some_and(|limit| resident > limit);
        let exact = || each.iter().map(|(pid, one)| fair_share_bytes(*pid).unwrap_or(one.memory_bytes)).sum();
        Self { memory_bytes: if over { exact() } else { resident }, pids: count }
    }
}

/// Which limit this usage exceeds; memory first.
pub fn breach(usage: TreeUsage, limits: &Limits) -> Option<Breach> {
    if let Some(limit_bytes) = limits.memory_bytes.filter(|limit| usage.memory_bytes > *limit) {
        return Some(Breach::Memory { limit_bytes, used_bytes: usage.memory_bytes });
    }
    let limit = limits.pids.filter(|limit| usage.pids > *limit)?;
    Some(Breach::Pids { limit, count: usage.pids })
}

const MIB: u64 = 1 << 20;

/// What `RLIMIT_DATA` leaves above twice the memory limit.
const DATA_SLACK_BYTES: u64 = 256 * MIB;

/// What `RLIMIT_NPROC` leaves above the limit of tasks.
const NPROC_SLACK: u64 = 4096;

/// The rlimits that hold a tree which grows faster than it is measured; soft and hard alike. They are no substitute for
/// measuring: each process has them for itself, and they are wide on purpose.
///
/// Memory is `RLIMIT_DATA`, not `RLIMIT_AS`: runtimes reserve gigabytes of addresses they never touch (an idle JVM 9 GB;
/// node starts neither in 640 MiB of addresses nor has WebAssembly in 1 GiB). It still counts memory that was committed
/// and never touched: a JVM with 87 MB resident had 510 MB of it. And node doesn't fail but hangs when it gets less than
/// about 40 MiB. Hence the slack.
///
/// Tasks are `RLIMIT_NPROC`, which the kernel ignores for root and counts per user: whatever else this user runs is in
/// it. Hence the slack here.
pub fn rlimits(limits: &Limits, is_root: bool) -> Vec<(Resource, u64)> {
    let data = |bytes: u64| (Resource::RLIMIT_DATA, bytes.saturating_mul(2).saturating_add(DATA_SLACK_BYTES));
    let tasks = |count: u64| (Resource::RLIMIT_NPROC, count.saturating_add(NPROC_SLACK));
    let pids = limits.pids.filter(|_| !is_root);
    limits.memory_bytes.map(data).into_iter().chain(pids.map(tasks)).collect()
}

fn status(pid: u32) -> Option<TreeUsage> {
    Some(parse_status(&String::from_utf8_lossy(&std::fs::read(format!("/proc/{pid}/status")).ok()?)))
}

/// A zombie has no memory any more, and therefore no `VmRSS`.
fn parse_status(text: &str) -> TreeUsage {
    let memory_bytes = kilobytes(text, "VmRSS:").unwrap_or(0);
    TreeUsage { memory_bytes, pids: field(text, "Threads:").and_then(|count| count.parse().ok()).unwrap_or(1) }
}

/// `None` when it may not be read, as for another user's process.
fn fair_share_bytes(pid: u32) -> Option<u64> {
    kilobytes(&std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?, "Pss:")
}

fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let number: u64 = field(text, name)?.strip_suffix("kB")?.trim().parse().ok()?;
    Some(number.saturating_mul(1024))
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GENEROUS: Limits = Limits { memory_bytes: Some(1 << 50), pids: Some(1 << 20) };
    const TIGHT: Limits = Limits { memory_bytes: Some(1), pids: Some(0) };

    #[test]
    fn a_status_is_read_whatever_the_name() {
        let text = "Name:\tVmRSS: 1 kB\nState:\tS (sleeping)\nVmHWM:\t   90 kB\nVmRSS:\t   40460 kB\nThreads:\t11\n";
        assert_eq!(parse_status(text), TreeUsage { memory_bytes: 40460 * 1024, pids: 11 });
        let zombie = "Name:\tsh\nState:\tZ (zombie)\nThreads:\t1\n";
        assert_eq!(parse_status(zombie), TreeUsage { memory_bytes: 0, pids: 1 });
    }

    #[test]
    fn reaching_a_limit_is_no_breach_but_exceeding_it_is() {
        let limits = Limits { memory_bytes: Some(100), pids: Some(3) };
        assert_eq!(breach(TreeUsage { memory_bytes: 100, pids: 3 }, &limits), None);
        let memory = breach(TreeUsage { memory_bytes: 101, pids: 9 }, &limits);
        assert_eq!(memory, Some(Breach::Memory { limit_bytes: 100, used_bytes: 101 }));
        let pids = breach(TreeUsage { memory_bytes: 1, pids: 4 }, &limits);
        assert_eq!(pids, Some(Breach::Pids { limit: 3, count: 4 }));
        assert_eq!(breach(TreeUsage { memory_bytes: u64::MAX, pids: u64::MAX }, &Limits::default()), None);
    }

    #[test]
    fn this_process_is_measured_and_its_fair_share_is_no_more_than_its_resident_set() {
        let me = [std::process::id()];
        let resident = TreeUsage::measure(&me, &GENEROUS);
        assert!(resident.memory_bytes > MIB && resident.pids >= 2, "{resident:?}: the tests' main thread and this one");
        let fair = fair_share_bytes(me[0]).expect("our own is readable");
        assert!(fair > 0 && fair <= resident.memory_bytes + 64 * MIB, "{fair} of {resident:?}");
        let exact = TreeUsage::measure(&me, &TIGHT);
        assert!(matches!(breach(exact, &TIGHT), Some(Breach::Memory { limit_bytes: 1, .. })));
    }

    #[test]
    fn a_process_that_is_gone_counts_nothing() {
        assert_eq!(TreeUsage::measure(&[u32::MAX], &GENEROUS), TreeUsage::default());
    }

    #[test]
    fn the_backstop_is_wider_than_the_limit_and_root_has_none_for_tasks() {
        let limits = Limits { memory_bytes: Some(64 * MIB), pids: Some(10) };
        let data = (Resource::RLIMIT_DATA, 384 * MIB);
        assert_eq!(rlimits(&limits, false), [data, (Resource::RLIMIT_NPROC, 4106)]);
        assert_eq!(rlimits(&limits, true), [data]);
        assert_eq!(rlimits(&Limits::default(), false), []);
        let most = Limits { memory_bytes: Some(u64::MAX), pids: None };
        assert_eq!(rlimits(&most, false), [(Resource::RLIMIT_DATA, u64::MAX)]);
    }
}
