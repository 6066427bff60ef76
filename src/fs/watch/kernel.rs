//! The server's one inotify instance (inotify(7)): the kernel bounds instances and watches per user, and agents need some,
//! too. A thread only drains it, for what isn't drained in time is lost; everything else is the owner's.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use super::dirs::{DirId, Name};

/// One read; what is handed on at a time.
pub(super) const READ_BYTES: usize = 64 * 1024;

/// Nothing that only reads: searches would fill the kernel's queue.
const MASK: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR)
    .union(WatchFlags::EXCL_UNLINK);

/// What the kernel said.
#[derive(Debug)]
pub(super) struct Raw {
    pub(super) wd: i32,
    pub(super) what: ReadFlags,
    pub(super) cookie: u32,
    /// The entry; without one, the directory itself.
    pub(super) name: Option<Name>,
}

/// Who is told what happens in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder {
    /// A directory of a tree.
    Dir(u64, DirId),
    /// Somebody who waits for something in it.
    Wait(u64),
}

/// Why a directory can't be watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoWatch {
    /// The kernel or our own bound allows no more.
    Limit,
    /// Nothing in it can be read, or it is gone.
    Unreadable,
    /// There is no inotify here.
    Unsupported,
}

/// The watches. One directory has one watch, whoever holds it.
pub(super) struct Kernel {
    inotify: Option<Arc<OwnedFd>>,
    /// Why there is none.
    pub(super) why_not: &'static str,
    holders: HashMap<i32, Vec<Holder>>,
    watches_max: usize,
}

impl Kernel {
    /// With none when the kernel gives no instance.
    pub(super) fn new(watches_max: usize) -> Self {
        let opened = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC);
        let why_not = match &opened {
            Ok(_) => "",
            Err(Errno::MFILE | Errno::NFILE) => "instance_limit",
            Err(_) => "no_inotify",
        };
        if let Err(errno) = &opened {
            tracing::warn!(%errno, "no inotify instance can be had: changes of files are looked for by polling");
        }
        Self { inotify: opened.ok().map(Arc::new), why_not, holders: HashMap::new(), watches_max }
    }

    /// Without an instance, and why.
    pub(super) fn without(why_not: &'static str) -> Self {
        Self { inotify: None, why_not, holders: HashMap::new(), watches_max: 0 }
    }

    pub(super) fn instance(&self) -> Option<Arc<OwnedFd>> {
        self.inotify.clone()
    }

    /// Watches an open directory.
    pub(super) fn add(&mut self, directory: impl AsFd, holder: Holder) -> Result<i32, NoWatch> {
        let Some(inotify) = &self.inotify else { return Err(NoWatch::Unsupported) };
        if self.holders.len() >= self.watches_max {
            return Err(NoWatch::Limit);
        }
        // By its descriptor: its path may lead elsewhere by now.
        let path = format!("/proc/self/fd/{}", directory.as_fd().as_raw_fd());
        let wd = inotify::add_watch(inotify, path, MASK).map_err(|errno| match errno {
            Errno::NOSPC | Errno::NOMEM => NoWatch::Limit,
            Errno::ACCESS | Errno::PERM | Errno::NOTDIR => NoWatch::Unreadable,
            Errno::NOENT if !std::path::Path::new("/proc/self/fd").exists() => NoWatch::Unsupported,
            Errno::NOENT => NoWatch::Unreadable,
            _ => NoWatch::Unsupported,
        })?;
        let holders = self.holders.entry(wd).or_default();
        if !holders.contains(&holder) {
            holders.push(holder);
        }
        Ok(wd)
    }

    /// One holder less; without any the watch ends.
    pub(super) fn remove(&mut self, wd: i32, holder: Holder) {
        let Some(holders) = self.holders.get_mut(&wd) else { return };
        holders.retain(|one| *one != holder);
        if holders.is_empty() {
            self.holders.remove(&wd);
            if let Some(inotify) = &self.inotify {
                let _ = inotify::remove_watch(inotify, wd); // the directory may be gone, and its watch with it
            }
        }
    }

    /// The kernel has ended this watch.
    pub(super) fn forget(&mut self, wd: i32) -> Vec<Holder> {
        self.holders.remove(&wd).unwrap_or_default()
    }

    pub(super) fn holders(&self, wd: i32) -> &[Holder] {
        self.holders.get(&wd).map_or(&[], Vec::as_slice)
    }
}

/// Ends the draining thread when it is dropped.
pub(super) struct Drain {
    end: Arc<OwnedFd>,
}

impl Drain {
    /// Starts the thread; it hands on one read at a time and ends when nobody takes them.
    pub(super) fn start(inotify: Arc<OwnedFd>, give: impl Fn(Vec<Raw>) -> bool + Send + 'static) -> Option<Self> {
        let end = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).ok()?);
        let ended = Arc::clone(&end);
        let body = move || {
            let mut buffer = vec![MaybeUninit::uninit(); READ_BYTES];
            while wait(&inotify, &ended) {
                let events = read(&inotify, &mut buffer);
                if !events.is_empty() && !give(events) {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("fs-watch-read".into()).spawn(body).ok()?;
        Some(Self { end })
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        let _ = rustix::io::write(&self.end, &1_u64.to_ne_bytes()); // can't be full: nothing else is written
    }
}

/// False when the thread is to end.
fn wait(inotify: &OwnedFd, end: &OwnedFd) -> bool {
    loop {
        let mut fds = [PollFd::new(inotify, PollFlags::IN), PollFd::new(end, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) => return fds[1].revents().is_empty(),
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

/// What one read gives; nothing when nothing is there.
pub(super) fn read(inotify: &OwnedFd, buffer: &mut [MaybeUninit<u8>]) -> Vec<Raw> {
    let mut reader = inotify::Reader::new(inotify, buffer);
    let mut events = Vec::new();
    loop {
        let Ok(event) = reader.next() else { return events };
        let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()).into());
        events.push(Raw { wd: event.wd(), what: event.events(), cookie: event.cookie(), name });
        if reader.is_buffer_empty() {
            return events;
        }
    }
}
