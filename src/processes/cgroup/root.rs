//! Where our cgroups lie: one folder below the server's own cgroup.
//!
//! ```text
//! <own cgroup>/sandboxd-<pid namespace>-<pid>-<start ticks>/   this server's folder; names a server, or its keeper, for good
//!                 ├ server/                                    the server itself, only if it had to make room
//!                 └ <store>-<process>/                         one per process tree
//! ```
//!
//! A cgroup that hands controllers down may hold no processes itself. So before memory and pids can be had, the server
//! leaves its own cgroup for a leaf. If others are left behind there, it goes back and does without.

use std::fs::OpenOptions;
use std::io::{Error, ErrorKind, Result};
use std::path::{Component, Path, PathBuf};

use super::{Cgroup, Enforcement, Limits, remove_tree, write};
use crate::processes::started_at_ticks;

const PREFIX: &str = "sandboxd-";

/// The leaf for the server itself.
const SERVER: &str = "server";

/// A folder of cgroups that this server may write to. Dropping it removes the folder if nothing is in it.
#[derive(Debug)]
pub struct CgroupRoot {
    path: PathBuf,
    offers: Enforcement,
    /// Who goes with us when we make room.
    keeper: Option<u32>,
}

impl CgroupRoot {
    /// Finds the hierarchy and makes this server's folder in it; `None` when there is none that we may write to. Empty
    /// folders of servers that live no more are removed; what still runs in those of servers on the same store is killed.
    /// That finds even what has lost every other mark: call it after what an earlier run left behind was asked to end.
    ///
    /// With a keeper the folder is its own, so that the next server finds it and what is in it. May move this process, and
    /// the keeper, into another cgroup. Blocks.
    pub fn discover(store: &str, keeper: Option<u32>) -> Option<Self> {
        let mounts = std::fs::read("/proc/self/mountinfo").ok()?;
        let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
        let own = own_folder(&String::from_utf8_lossy(&mounts), &own)?;
        let name = Self::name(keeper.unwrap_or_else(std::process::id))?;
        // A server that is started again begins where the last one had gone.
        let own = outside(own, &name);
        sweep(&own, store);
        match Self::below(&own, &name, keeper, &mut write) {
            Ok(root) => Some(root),
            Err(error) => {
                tracing::info!(cgroup = %own.display(), %error, "no writable cgroup: process trees are found through /proc only");
                None
            }
        }
    }

    fn name(pid: u32) -> Option<String> {
        Some(format!("{PREFIX}{}-{pid}-{}", pid_namespace(), started_at_ticks(pid)?))
    }

    pub(super) fn below(own: &Path, name: &str, keeper: Option<u32>, write: &mut Write<'_>) -> Result<Self> {
        OpenOptions::new().write(true).open(own.join("cgroup.procs"))?; // whoever moves a process needs this one too
        let path = own.join(name);
        if let Err(error) = std::fs::create_dir(&path)
            && error.kind() != ErrorKind::AlreadyExists
        {
            return Err(error);
        }
        let mut root = Self { path, offers: Enforcement::default(), keeper };
        root.require_domain()?; // on failure the drop removes the folder
        root.offers = root.delegate(own, write);
        Ok(root)
    }

    /// Has memory and pids handed down to our cgroups, if the host lets us.
    fn delegate(&self, own: &Path, write: &mut Write<'_>) -> Enforcement {
        let available = words(&own.join("cgroup.controllers"));
        let wanted: Vec<_> = available.iter().map(String::as_str).filter(|name| matches!(*name, "memory" | "pids")).collect();
        if let Err(error) = self.hand_down(own, &wanted, write) {
            tracing::info!(cgroup = %own.display(), %error, "cgroups can't bound memory and processes here");
            return Enforcement::default();
        }
        Enforcement { memory: wanted.contains(&"memory"), pids: wanted.contains(&"pids") }
    }

    fn hand_down(&self, own: &Path, wanted: &[&str], write: &mut Write<'_>) -> Result<()> {
        if wanted.is_empty() {
            return Err(Error::other("neither the memory nor the pids controller is available"));
        }
        let enabled = words(&own.join("cgroup.subtree_control"));
        let missing: Vec<_> = wanted.iter().copied().filter(|name| !enabled.iter().any(|has| has == name)).collect();
        if !missing.is_empty() && !own.join("cgroup.type").exists() {
            write(&own.join("cgroup.subtree_control"), &signed('+', &missing))?; // the machine's root may keep processes
        } else if !missing.is_empty() {
            self.make_room(own, &missing, write)?;
        }
        write(&self.path.join("cgroup.subtree_control"), &signed('+', wanted))
    }

    /// Moves this process out of its own cgroup, and has the controllers handed down from there; undone on failure.
    ///
    /// Pids alone is handed down even while processes are there, and then no cgroup below may hold a process any more:
    /// hence the second look at our own folder, and both controllers in one write.
    fn make_room(&self, own: &Path, missing: &[&str], write: &mut Write<'_>) -> Result<()> {
        let all = self.keeper.into_iter().chain([std::process::id()]).map(|pid| pid.to_string());
        let (all, server): (Vec<_>, _) = (all.collect(), self.path.join(SERVER));
        let control = own.join("cgroup.subtree_control");
        std::fs::create_dir(&server)?;
        let outcome = (all.iter().try_for_each(|pid| write(&server.join("cgroup.procs"), pid)))
            .and_then(|()| write(&control, &signed('+', missing)))
            .and_then(|()| self.require_domain());
        if outcome.is_err() {
            let _ = write(&control, &signed('-', missing));
            all.iter().for_each(|pid| _ = write(&own.join("cgroup.procs"), pid));
            let _ = std::fs::remove_dir(&server);
        }
        outcome
    }

    /// A cgroup of another type can't hold whole processes.
    fn require_domain(&self) -> Result<()> {
        let kind = words(&self.path.join("cgroup.type")).join(" ");
        if kind.is_empty() || kind == "domain" { Ok(()) } else { Err(Error::other(format!("it is a {kind} cgroup"))) }
    }

    /// Which limits its cgroups can hold.
    pub fn offers(&self) -> Enforcement {
        self.offers
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for CgroupRoot {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.path); // the next server's sweep takes it, when a cgroup is left in it now
    }
}

/// The folder outside of our own leaf, when it is that.
pub(super) fn outside(own: PathBuf, name: &str) -> PathBuf {
    let leaf = Path::new(name).join(SERVER);
    if own.ends_with(&leaf) { own.ancestors().nth(2).map_or_else(|| own.clone(), Path::to_path_buf) } else { own }
}

/// How a kernel's file is written.
pub(super) type Write<'a> = dyn FnMut(&Path, &str) -> Result<()> + 'a;

/// What a file lists; nothing when it can't be read.
fn words(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

/// As `cgroup.subtree_control` wants it, such as `+memory +pids`.
fn signed(sign: char, names: &[&str]) -> String {
    names.iter().map(|name| format!("{sign}{name}")).collect::<Vec<_>>().join(" ")
}

/// Where the cgroup2 hierarchy that holds us shows our own cgroup.
pub(super) fn own_folder(mountinfo: &str, own: &str) -> Option<PathBuf> {
    let own = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    mountinfo.lines().find_map(|line| {
        let (mount, rest) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, at) = (unescape(fields.next()?), unescape(fields.next()?));
        if rest.split(' ').next()? != "cgroup2" {
            return None;
        }
        let below = Path::new(own).strip_prefix(&root).ok()?; // else our part of the hierarchy isn't mounted there
        let inside = below.components().all(|part| matches!(part, Component::Normal(_))); // `..`: outside our namespace
        inside.then(|| Path::new(&at).components().chain(below.components()).collect())
    })
}

/// proc_pid_mountinfo(5) writes space, tab, line feed and backslash as a backslash and three octal digits.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (escape, plain)| text.replace(escape, plain))
}

/// A number that differs between pid namespaces that live at the same time.
pub(super) fn pid_namespace() -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self/ns/pid").map_or(0, |meta| meta.ino())
}

/// Removes what dead servers left here. A folder with processes in it stays, unless they are of our store: else they are
/// not ours to judge. So does one from another pid namespace, whose numbers mean nothing here.
fn sweep(own: &Path, store: &str) {
    for entry in std::fs::read_dir(own).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| is_dead(name, pid_namespace(), started_at_ticks)) {
            end_leftovers(&entry.path(), &format!("{store}-"));
            let _ = remove_tree(&entry.path());
        }
    }
}

fn end_leftovers(folder: &Path, prefix: &str) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(prefix)) {
            let tree = Cgroup { path: entry.path(), limits: Limits::default(), enforcement: Enforcement::default() };
            if tree.pids().is_ok_and(|pids| !pids.is_empty()) {
                tracing::warn!(cgroup = %entry.path().display(), "killing what an earlier run left behind");
                let _ = tree.kill_all(); // the end of `remove` tells whether it worked
            }
            if let Err(error) = tree.remove() {
                tracing::warn!(cgroup = %entry.path().display(), %error, "what an earlier run left behind goes on");
            }
        }
    }
}

pub(super) fn is_dead(name: &str, namespace: u64, started_at: impl Fn(u32) -> Option<u64>) -> bool {
    let Some(numbers) = name.strip_prefix(PREFIX) else { return false };
    let numbers: Option<Vec<u64>> = numbers.split('-').map(|number| number.parse().ok()).collect();
    let Some([of, pid, ticks]) = numbers.as_deref() else { return false };
    *of == namespace && u32::try_from(*pid).is_ok_and(|pid| started_at(pid) != Some(*ticks))
}
