//! Watching files: what changes below a directory, told in order and from any position on, for it is in the log.
//!
//! ```text
//!  inotify ─▶ thread fs-watch-read ─▶ queue ─▶ thread fs-watch: marks places, looks at them ─▶ stream fs/<hash> of the log
//!             only drains it                   75 ms later, tells what differs                 ─▶ any number of readers
//! ```
//!
//! | module | what |
//! |---|---|
//! | `kernel` | the one inotify instance and its watches |
//! | `owner`, `trees` | the thread that alone has the trees; when to look, and what is said besides changes |
//! | `tree`, `look` | one tree: what the kernel said of it, and looking at it |
//! | `dirs`, `rules`, `own` | what is known of it, and what of it is looked at |
//! | `pending`, `tell` | from what is to be looked at to changes; pure |
//! | `log` | changes as events |
//! | `survey` | the same tree, listed once for others |
//! | `wait` | waiting for one file |
//!
//! States of a tree: *watched* by inotify → *polled* once that can't be had, said with a `fs.resync`; *gone* while its root
//! isn't there, with a `fs.resync` at both ends. A tree that nobody reads any more is kept for a while, so that whoever
//! comes back goes on where they were.

mod dirs;
mod kernel;
mod log;
mod look;
mod own;
mod owner;
mod pending;
mod rules;
mod survey;
mod tell;
#[cfg(test)]
mod tests;
mod tree;
mod trees;
mod wait;

use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SendError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{Mode, OFlags};
use sha2::{Digest as _, Sha256};
use tokio::sync::oneshot;

use super::{Error, Fs, Located, Reach, blocking};
use crate::config::{Bounds, as_usize};
use crate::store::{Store, Stream};
pub(super) use own::Own;
use owner::{Ask, Message, Owner};
pub(super) use survey::Survey;
pub use wait::{WaitFor, Waited};

/// What of a directory is watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchSpec {
    /// With all that is below it.
    pub recursive: bool,
    /// Patterns as in a `.gitignore` at the root; they win over those.
    pub ignore: Vec<String>,
    /// What `.gitignore` files ignore is left out.
    pub gitignore: bool,
    /// With names that begin with a dot.
    pub hidden: bool,
    /// With `.git`.
    pub git: bool,
}

/// How changes are learned of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Means {
    /// `inotify` or `poll`.
    pub mode: &'static str,
    /// Why it is polled.
    pub why: Option<&'static str>,
}

/// A watch that stands.
#[derive(Debug, Clone)]
pub struct Ready {
    /// The directory.
    pub root: PathBuf,
    /// How changes are learned of.
    pub means: Means,
    /// Directories that are looked into.
    pub directories: usize,
    /// Entries that are known.
    pub entries: usize,
    /// What changes from here on has a later position in the stream.
    pub sequence: u64,
}

/// Somebody watches, until this is dropped.
pub struct Watch {
    /// Where changes are told.
    pub stream: Arc<Stream>,
    /// What stands.
    pub ready: Ready,
    /// The tree is kept while anybody has this.
    pub held: Arc<()>,
}

/// The room's part that watches; its threads start with the first watch.
pub(super) struct Watches {
    store: Store,
    bounds: Bounds,
    own: Own,
    owner: Mutex<Option<SyncSender<Message>>>,
    ended: Arc<AtomicBool>,
}

impl Watches {
    pub(super) fn new(store: Store, bounds: Bounds, own: Own) -> Self {
        Self { store, bounds, own, owner: Mutex::default(), ended: Arc::default() }
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// Asks the owner. Blocks while its queue is full.
    fn send(&self, message: Message) -> Result<(), Error> {
        let Err(SendError(message)) = self.sender(false)?.send(message) else { return Ok(()) };
        self.sender(true)?.send(message).map_err(|_| Error::Stopping)
    }

    /// `anew`: the thread panicked, and what it had is gone.
    fn sender(&self, anew: bool) -> Result<SyncSender<Message>, Error> {
        let mut owner = self.owner.lock().unwrap_or_else(PoisonError::into_inner); // whole after each change
        match &*owner {
            Some(sender) if !anew => Ok(sender.clone()),
            _ => Ok(owner.insert(self.start()?).clone()),
        }
    }

    fn start(&self) -> Result<SyncSender<Message>, Error> {
        let reads = as_usize(self.bounds.fs_watch_queue_max_bytes) / kernel::READ_BYTES;
        let (sender, receiver) = sync_channel(reads.max(2));
        let (store, bounds, ended, back) = (self.store.clone(), self.bounds.clone(), Arc::clone(&self.ended), sender.clone());
        std::thread::Builder::new()
            .name("fs-watch".into())
            .spawn(move || Owner::new(store, bounds, back, ended).run(&receiver))
            .map_err(|error| Error::BrokeOff(format!("can't start a thread: {error}")))?;
        Ok(sender)
    }
}

impl Drop for Watches {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(sender) = self.owner.get_mut().unwrap_or_else(PoisonError::into_inner) {
            let _ = sender.try_send(Message::Wake); // a full queue wakes it, too
        }
    }
}

impl Fs {
    /// Watches a directory. Resolves when nothing that changes from then on is missed. Those who watch the same
    /// directory in the same way share one tree. Dropping the future leaves a tree that goes when nobody asks for it.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotADirectory`], [`Error::Outside`], [`Error::Denied`]; [`Error::Invalid`] for a
    /// pattern that is none, and for our own files; [`Error::TooMany`] trees, [`Error::TooMuch`] in one.
    pub async fn watch(&self, reach: &Reach, at: Located, spec: WatchSpec) -> Result<Watch, Error> {
        let watches = Arc::clone(&self.inner.watches);
        let name = stream_name(&at, &spec, reach);
        let reach = reach.clone();
        let (asked, root, own) = (at.clone(), reach.clone(), watches.own.clone());
        // Before anything is made for it: a path that leads nowhere has no stream.
        blocking(move || open(&root, &asked, &own).map(drop)).await?;
        let stream = watches.store.open_stream(&name).await.map_err(|error| Error::BrokeOff(error.to_string()))?;
        let (reply, answer) = oneshot::channel();
        let own = watches.own.clone();
        let ask = Box::new(Ask { name, at, reach, spec, own, stream, reply });
        blocking(move || watches.send(Message::Watch(ask))).await?;
        answer.await.map_err(|_| Error::Stopping)?
    }
}

/// A directory to be watched. One that can't be listed can't be watched either.
fn open(reach: &Reach, at: &Located, own: &Own) -> Result<std::os::fd::OwnedFd, Error> {
    match reach.open(at, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()) {
        Err(Error::Os { errno, .. }) if errno == rustix::io::Errno::NOTDIR.raw_os_error() => {
            Err(Error::NotADirectory(at.path().to_path_buf()))
        }
        Ok(root) if own.holds(&root) => {
            Err(Error::Invalid(format!("{} has the server's own files, which are not watched", at.path().display())))
        }
        opened => opened,
    }
}

/// The same for the same directory and rules, also after a restart. Who may go elsewhere has a tree of their own: one that
/// comes back is looked for as far as its first reader may go.
fn stream_name(at: &Located, spec: &WatchSpec, reach: &Reach) -> String {
    let mut hasher = Sha256::new();
    hasher.update(at.path().as_os_str().as_bytes());
    hasher.update([0, u8::from(spec.recursive), u8::from(spec.gitignore), u8::from(spec.hidden), u8::from(spec.git)]);
    spec.ignore.iter().for_each(|glob| hasher.update([glob.as_bytes(), b"\n"].concat()));
    for fence in reach.fences().into_iter().flatten() {
        hasher.update([fence.path.as_os_str().as_bytes(), b"\0", fence.real.as_os_str().as_bytes(), b"\0"].concat());
    }
    let hash: String = hasher.finalize().iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    format!("fs/{hash}")
}
