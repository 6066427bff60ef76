//! What is kept of a daemon: `<data>/daemon/daemon-<host>-<port>.{pid,version,log}`.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use super::super::Failure;
use crate::config::Dirs;
use crate::keeper::KEPT_FLAG;
use crate::processes::started_at_ticks;

/// A process that `daemon start` has started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) pid: u32,
    /// Clock ticks since boot at its start: tells it from a later process of the same number.
    start_ticks: u64,
    /// The boot that the ticks count from.
    boot: String,
}

impl Record {
    /// The record of a process that runs now; `None` when it has ended.
    pub(super) fn of(pid: u32) -> Option<Self> {
        Some(Self { pid, start_ticks: started_at_ticks(pid)?, boot: boot_id() })
    }

    /// Whether exactly this process still runs. A zombie doesn't.
    pub(super) fn lives(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }

    /// The server below it, when it is a keeper.
    pub(super) fn server(&self) -> Option<Self> {
        let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.pid)).unwrap_or_default();
        let is_server = |pid: &u32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0).any(|word| word == KEPT_FLAG.as_bytes())
        };
        children.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).find(is_server).and_then(Self::of)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace();
        let record =
            Self { pid: words.next()?.parse().ok()?, start_ticks: words.next()?.parse().ok()?, boot: words.next()?.to_owned() };
        Some(record)
    }
}

fn boot_id() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    if id.trim().is_empty() { "unknown".to_owned() } else { id.trim().to_owned() }
}

/// The files of one address.
pub(super) struct Files {
    dir: PathBuf,
    pid: PathBuf,
    version: PathBuf,
    lock: PathBuf,
    /// What the server says. The last start's is kept beside it as `.log.old`.
    pub(super) log: PathBuf,
}

impl Files {
    pub(super) fn new(dirs: &Dirs, address: SocketAddr) -> Self {
        let dir = dirs.data.join("daemon");
        let host = address.ip().to_string().replace(['.', ':'], "-");
        let file = |extension: &str| dir.join(format!("daemon-{host}-{}.{extension}", address.port()));
        Self { pid: file("pid"), version: file("version"), lock: file("lock"), log: file("log"), dir }
    }

    /// Waits until no other start or stop is at work on this address. Blocks.
    ///
    /// # Errors
    /// The files can't be written.
    pub(super) fn lock(&self) -> Result<Flock<File>, Failure> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir).map_err(|error| refused(&self.dir, &error))?;
        let file = create(&self.lock).map_err(|error| refused(&self.lock, &error))?;
        Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| refused(&self.lock, &errno))
    }

    /// The daemon that was started last, whether it runs or not.
    pub(super) fn known(&self) -> Option<Record> {
        Record::parse(&std::fs::read_to_string(&self.pid).ok()?)
    }

    /// The build that the daemon was started from.
    pub(super) fn build(&self) -> Option<String> {
        let build = std::fs::read_to_string(&self.version).ok()?.trim().to_owned();
        Some(build).filter(|build| !build.is_empty())
    }

    /// Remembers a daemon.
    ///
    /// # Errors
    /// The files can't be written.
    pub(super) fn write(&self, record: &Record, build: &str) -> Result<(), Failure> {
        let pid = format!("{}\n{}\n{}\n", record.pid, record.start_ticks, record.boot);
        for (path, content) in [(&self.version, format!("{build}\n")), (&self.pid, pid)] {
            let written = create(path).and_then(|mut file| file.set_len(0).and_then(|()| file.write_all(content.as_bytes())));
            written.map_err(|error| refused(path, &error))?;
        }
        Ok(())
    }

    /// Forgets the daemon; the log stays. True when there was something to forget.
    pub(super) fn remove(&self) -> bool {
        let known = std::fs::remove_file(&self.pid).is_ok();
        let _ = std::fs::remove_file(&self.version); // means nothing without the other
        known
    }

    /// An empty log for the next start, readable by its owner alone.
    ///
    /// # Errors
    /// The file can't be written.
    pub(super) fn new_log(&self) -> Result<File, Failure> {
        let _ = std::fs::rename(&self.log, self.log.with_extension("log.old")); // the first start has none
        OpenOptions::new().create(true).append(true).mode(0o600).open(&self.log).map_err(|error| refused(&self.log, &error))
    }
}

fn create(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().create(true).write(true).truncate(false).mode(0o600).open(path)
}

fn refused(path: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure::failed(format_args!("can't write {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_names_one_process_only() {
        let me = Record::of(std::process::id()).expect("I run");
        assert!(me.lives());
        assert!(!Record { start_ticks: me.start_ticks + 1, ..me.clone() }.lives());
        assert!(!Record { boot: "another".to_owned(), ..me }.lives());
    }

    #[test]
    fn a_bare_number_is_nobodys() {
        assert_eq!(Record::parse("42\n"), None);
        assert_eq!(Record::parse("42\n7\nb\n"), Some(Record { pid: 42, start_ticks: 7, boot: "b".to_owned() }));
    }

    #[test]
    fn files_are_named_by_address() {
        let dirs = Dirs { home: None, data: "/d".into(), config: "/c".into() };
        let named = |address: &str| Files::new(&dirs, address.parse().expect("an address")).pid;
        assert_eq!(named("127.0.0.1:2468"), Path::new("/d/daemon/daemon-127-0-0-1-2468.pid"));
        assert_eq!(named("[::1]:1"), Path::new("/d/daemon/daemon---1-1.pid"));
    }
}
