//! Cgroups (version 2): a folder per process tree that its members can't leave unless they are root, so that all of them
//! are counted, bounded and killed together, whatever they did to escape.
//!
//! Not every host lets us. Without a writable hierarchy there is no [`CgroupRoot`]; without the memory or pids controller
//! (a hybrid host, or processes of others beside us) a tree can be killed and listed but not bounded, which
//! [`Cgroup::enforcement`] says. [`super::usage`] stands in then.
//!
//! Everything here reads and writes small files of the kernel and blocks for as long as that takes.
//!
//! Sources: cgroups(7), `Documentation/admin-guide/cgroup-v2.rst`.

mod root;
#[cfg(test)]
mod tests;

use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind, Result, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::usage::{Breach, Limits};

pub use root::CgroupRoot;

/// How long [`Cgroup::remove`] waits for the kernel to let go of a cgroup whose last process has just ended.
const REMOVE_WAIT: Duration = Duration::from_millis(500);

/// Which limits a cgroup really holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Enforcement {
    /// Memory of the whole tree. At the limit the kernel kills the whole tree.
    pub memory: bool,
    /// Number of tasks. At the limit `fork` fails.
    pub pids: bool,
}

/// The cgroup of one process tree. Dropping it removes the folder if it is empty, and kills nothing.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    limits: Limits,
    enforcement: Enforcement,
}

impl Cgroup {
    /// Makes a cgroup of this name. What the host can't bound is left unbounded: see [`Self::enforcement`].
    ///
    /// # Errors
    /// The name isn't a plain one (`InvalidInput`), is taken (`AlreadyExists`), or the kernel makes no more cgroups.
    pub fn create(root: &CgroupRoot, name: &str, limits: &Limits) -> Result<Self> {
        let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
        if name.is_empty() || !plain {
            return Err(Error::new(ErrorKind::InvalidInput, "a cgroup's name is made of letters, digits, _ and -"));
        }
        let path = root.path().join(name);
        std::fs::create_dir(&path)?;
        Ok(Self::bounded(path, limits))
    }

    /// The one that an earlier server made, by the beginning of its name; of several the one that holds something.
    pub fn find(root: &CgroupRoot, prefix: &str, limits: &Limits) -> Option<Self> {
        let entries = std::fs::read_dir(root.path()).ok()?.flatten();
        let ours = entries.filter(|entry| entry.file_name().to_str().is_some_and(|name| name.starts_with(prefix)));
        let of = |path: PathBuf| {
            let holds = |file: &str| std::fs::read_to_string(path.join(file)).is_ok_and(|limit| limit.trim() != "max");
            let memory = limits.memory_bytes.is_some() && holds("memory.max");
            let enforcement = Enforcement { memory, pids: limits.pids.is_some() && holds("pids.max") };
            Self { path, limits: *limits, enforcement }
        };
        ours.map(|entry| of(entry.path())).find(|cgroup| cgroup.pids().is_ok_and(|pids| !pids.is_empty()))
    }

    /// Writes the limits to a folder that is there.
    fn bounded(path: PathBuf, limits: &Limits) -> Self {
        let bound = |file: &str, limit: Option<u64>| limit.is_some_and(|n| write(&path.join(file), &n.to_string()).is_ok());
        let enforcement = Enforcement { memory: bound("memory.max", limits.memory_bytes), pids: bound("pids.max", limits.pids) };
        if enforcement.memory {
            let _ = write(&path.join("memory.swap.max"), "0"); // not there without swap accounting
            let _ = write(&path.join("memory.oom.group"), "1"); // not there before Linux 4.19
        }
        Self { path, limits: *limits, enforcement }
    }

    /// Which of the limits asked for it really holds.
    pub fn enforcement(&self) -> Enforcement {
        self.enforcement
    }

    /// The file into which a child writes `0` between fork and exec to get here before its program runs.
    ///
    /// # Errors
    /// The cgroup is gone, or descriptors have run out.
    pub fn procs_file(&self) -> Result<File> {
        OpenOptions::new().write(true).open(self.path.join("cgroup.procs"))
    }

    /// Moves a process here with all its threads. Children it has already stay where they are.
    ///
    /// # Errors
    /// The process or the cgroup is gone, or the process is another user's.
    pub fn add(&self, pid: u32) -> Result<()> {
        write(&self.path.join("cgroup.procs"), &pid.to_string())
    }

    /// Sends KILL to every process here and below; those that fork meanwhile are hit too. They end a moment later.
    ///
    /// # Errors
    /// The kernel refuses. A cgroup that is gone has nobody to kill, which is none.
    pub fn kill_all(&self) -> Result<()> {
        match write(&self.path.join("cgroup.kill"), "1") {
            Err(error) if error.kind() == ErrorKind::NotFound => self.kill_each(), // before Linux 5.14, or removed
            outcome => gone_is_fine(outcome),
        }
    }

    /// Frozen first, so that nobody forks while the list is read; KILL reaches the frozen as well.
    fn kill_each(&self) -> Result<()> {
        let freeze = self.path.join("cgroup.freeze");
        let _ = write(&freeze, "1"); // not there before Linux 5.2
        for _ in 0..16 {
            let pids = self.pids()?;
            if pids.is_empty() {
                break;
            }
            for pid in pids.into_iter().filter_map(|pid| i32::try_from(pid).ok()) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL); // an error means that it is gone
            }
        }
        let _ = write(&freeze, "0");
        Ok(())
    }

    /// Whether a process that is not a zombie is here or below. A cgroup that is gone has none.
    ///
    /// # Errors
    /// The kernel's file can't be read.
    #[cfg(test)]
    pub fn is_populated(&self) -> Result<bool> {
        let events = match std::fs::read_to_string(self.path.join("cgroup.events")) {
            Err(error) if is_gone(&error) => return Ok(false),
            events => events?,
        };
        Ok(value(&events, "populated") != Some(0))
    }

    /// The processes here and below, as this process sees them; empty when the cgroup is gone.
    ///
    /// # Errors
    /// The kernel's files can't be read.
    pub fn pids(&self) -> Result<Vec<u32>> {
        let mut pids = Vec::new();
        for folder in folders(&self.path) {
            match std::fs::read_to_string(folder.join("cgroup.procs")) {
                // 0 stands for a process of another pid namespace; sent a signal, it would mean our own group
                Ok(text) => pids.extend(text.lines().filter_map(|line| line.parse().ok()).filter(|pid: &u32| *pid > 0)),
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(pids)
    }

    /// Which limit of its own the tree has run into since it began. Memory: the kernel has killed it. Pids: a `fork` has
    /// failed, which the tree may well have survived.
    ///
    /// A kill because the whole machine or an outer cgroup was out of memory is none.
    pub fn breach(&self) -> Option<Breach> {
        self.memory_breach().or_else(|| self.pids_breach())
    }

    /// `oom_kill` counts every OOM killer; `oom` only those that our limit, or one below, woke.
    fn memory_breach(&self) -> Option<Breach> {
        let limit_bytes = self.limits.memory_bytes.filter(|_| self.enforcement.memory)?;
        let events = self.read("memory.events")?;
        let ours = value(&events, "oom_kill")? > 0 && value(&events, "oom")? > 0;
        let peak = self.read("memory.peak").and_then(|text| text.trim().parse().ok()); // not there before Linux 5.19
        ours.then(|| Breach::Memory { limit_bytes, used_bytes: peak.unwrap_or(limit_bytes) })
    }

    /// Until Linux 6.12 `max` also counts the forks that an outer cgroup's limit refused: the peak tells them apart.
    fn pids_breach(&self) -> Option<Breach> {
        let limit = self.limits.pids.filter(|_| self.enforcement.pids)?;
        let refused = value(&self.read("pids.events")?, "max")? > 0;
        let peak: Option<u64> = self.read("pids.peak").and_then(|text| text.trim().parse().ok());
        (refused && peak.is_none_or(|peak| peak >= limit)).then_some(Breach::Pids { limit, count: limit })
    }

    fn read(&self, file: &str) -> Option<String> {
        std::fs::read_to_string(self.path.join(file)).ok()
    }

    /// Removes the cgroup and those its processes made below it. Waits up to half a second for processes that are just
    /// ending. One that is gone already is no error.
    ///
    /// # Errors
    /// A process is still here (`ResourceBusy`).
    pub fn remove(&self) -> Result<()> {
        let deadline = Instant::now() + REMOVE_WAIT;
        loop {
            match remove_tree(&self.path) {
                Err(error) if error.kind() == ErrorKind::ResourceBusy && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                outcome => return outcome,
            }
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if let Err(error) = remove_tree(&self.path) {
            tracing::debug!(cgroup = %self.path.display(), %error, "a cgroup stays behind");
        }
    }
}

/// One write: the kernel takes each as a whole. Never makes a file.
fn write(path: &Path, text: &str) -> Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(text.as_bytes())
}

/// The number that a file of `name number` lines gives.
fn value(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

/// This folder and all below, each before what it holds. Empty when there is none.
fn folders(path: &Path) -> Vec<PathBuf> {
    let mut found = if path.is_dir() { vec![path.to_owned()] } else { Vec::new() };
    let mut at = 0;
    while at < found.len() {
        let entries = std::fs::read_dir(&found[at]).into_iter().flatten().flatten();
        found.extend(entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()));
        at += 1;
    }
    found
}

/// The innermost first: a cgroup goes only when it holds no other.
fn remove_tree(path: &Path) -> Result<()> {
    folders(path).iter().rev().try_for_each(|folder| gone_is_fine(std::fs::remove_dir(folder)))
}

/// A file that is opened before its cgroup goes says ENODEV afterwards.
fn is_gone(error: &Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(nix::libc::ENODEV)
}

fn gone_is_fine(outcome: Result<()>) -> Result<()> {
    outcome.or_else(|error| if is_gone(&error) { Ok(()) } else { Err(error) })
}
