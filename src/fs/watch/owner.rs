//! The thread that alone has the trees and the watches: it takes what the kernel said, decides when to look, and tells what
//! came of it.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use rustix::fs::inotify::ReadFlags;
use tokio::sync::{oneshot, watch};

use super::kernel::{Drain, Holder, Kernel, Raw};
use super::pending::Timing;
use super::trees::{Root, Watched};
use super::{Own, Ready, Watch, WatchSpec};
use crate::config::{Bounds, as_duration, as_usize};
use crate::fs::{Error, Located, Reach};
use crate::store::{Store, Stream};

/// Reads that are taken before trees are looked at.
const READS_AT_ONCE: usize = 64;
/// How often what nobody announces is looked for: whether somebody still waits, and where roots are.
const TICK: Duration = Duration::from_secs(1);

/// What the owner is asked or told.
pub(super) enum Message {
    /// What the kernel said.
    Read(Vec<Raw>),
    Watch(Box<Ask>),
    Wait {
        directory: OwnedFd,
        reply: oneshot::Sender<Option<watch::Receiver<()>>>,
    },
    /// Something is to be looked at.
    Wake,
}

/// Somebody wants to watch.
pub(super) struct Ask {
    /// Of the stream; the same for the same directory and rules.
    pub(super) name: String,
    pub(super) at: Located,
    pub(super) reach: Reach,
    pub(super) spec: WatchSpec,
    pub(super) own: Own,
    pub(super) stream: Arc<Stream>,
    pub(super) reply: oneshot::Sender<Result<Watch, Error>>,
}

/// Somebody waits for something in a directory.
struct Waiter {
    wd: i32,
    tell: watch::Sender<()>,
}

pub(super) struct Owner {
    store: Store,
    bounds: Bounds,
    back: SyncSender<Message>,
    ended: Arc<AtomicBool>,
    kernel: Kernel,
    drain: Option<Drain>,
    trees: HashMap<u64, Watched>,
    waiters: HashMap<u64, Waiter>,
    last_id: u64,
    /// Events were lost.
    overflowed: bool,
    ticked: Instant,
}

impl Owner {
    /// `back` leads to itself.
    pub(super) fn new(store: Store, bounds: Bounds, back: SyncSender<Message>, ended: Arc<AtomicBool>) -> Self {
        let kernel = Kernel::new(as_usize(bounds.fs_watch_directories_max));
        let mut owner = Self {
            store,
            bounds,
            back,
            ended,
            kernel,
            drain: None,
            trees: HashMap::new(),
            waiters: HashMap::new(),
            last_id: 0,
            overflowed: false,
            ticked: Instant::now(),
        };
        owner.listen();
        owner
    }

    fn listen(&mut self) {
        let back = self.back.clone();
        self.drain =
            self.kernel.instance().and_then(|fd| Drain::start(fd, move |events| back.send(Message::Read(events)).is_ok()));
    }

    /// Until the room is gone.
    pub(super) fn run(mut self, messages: &Receiver<Message>) {
        while !self.ended.load(Ordering::Relaxed) {
            match self.next(messages) {
                Ok(message) => {
                    self.handle(message);
                    for message in messages.try_iter().take(READS_AT_ONCE) {
                        self.handle(message);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.look();
        }
    }

    fn next(&self, messages: &Receiver<Message>) -> Result<Message, RecvTimeoutError> {
        if self.trees.is_empty() && self.waiters.is_empty() {
            return messages.recv().map_err(|_| RecvTimeoutError::Disconnected);
        }
        let timing = self.timing();
        let due = self.trees.values().filter_map(|tree| tree.due(&timing)).min();
        let wait = due.map_or(TICK, |due| due.saturating_duration_since(Instant::now()).min(TICK));
        messages.recv_timeout(wait)
    }

    fn timing(&self) -> Timing {
        Timing { window: as_duration(self.bounds.fs_watch_window_ms), settle: as_duration(self.bounds.fs_watch_settle_ms) }
    }

    fn handle(&mut self, message: Message) {
        match message {
            Message::Read(events) => {
                let now = Instant::now();
                events.iter().for_each(|raw| self.note(raw, now));
            }
            Message::Watch(ask) => self.watch(*ask),
            Message::Wait { directory, reply } => {
                let _ = reply.send(self.wait(&directory)); // who asked may have left
            }
            Message::Wake => {}
        }
    }

    fn note(&mut self, raw: &Raw, now: Instant) {
        self.overflowed |= raw.what.contains(ReadFlags::QUEUE_OVERFLOW);
        let is_over = raw.what.contains(ReadFlags::IGNORED);
        let holders = if is_over { self.kernel.forget(raw.wd) } else { self.kernel.holders(raw.wd).to_vec() };
        for holder in holders {
            match holder {
                Holder::Dir(tree, dir) => {
                    if let Some(watched) = self.trees.get_mut(&tree) {
                        watched.tree.note(dir, raw, now);
                    }
                }
                Holder::Wait(id) => {
                    if is_over {
                        self.waiters.remove(&id); // which it is told by
                    } else if let Some(waiter) = self.waiters.get(&id) {
                        let _ = waiter.tell.send(()); // who waited may have left
                    }
                }
            }
        }
    }

    fn wait(&mut self, directory: &OwnedFd) -> Option<watch::Receiver<()>> {
        self.last_id += 1;
        let id = self.last_id;
        let wd = self.kernel.add(directory, Holder::Wait(id)).ok()?;
        let (tell, told) = watch::channel(());
        self.waiters.insert(id, Waiter { wd, tell });
        Some(told)
    }

    fn watch(&mut self, ask: Ask) {
        let known = self.trees.iter().find(|(_, tree)| tree.name == ask.name).map(|(id, _)| *id);
        let (found, reply) = match known {
            Some(id) => (Ok(id), ask.reply),
            None => self.begin(ask),
        };
        let watch = found.map(|id| self.hold(id));
        let _ = reply.send(watch.and_then(|watch| watch.ok_or(Error::Stopping))); // who asked may have left: see `forget_idle`
    }

    fn begin(&mut self, ask: Ask) -> (Result<u64, Error>, oneshot::Sender<Result<Watch, Error>>) {
        if self.trees.len() as u64 >= self.bounds.fs_watch_trees_max {
            self.forget_idle(Duration::ZERO);
        }
        if self.trees.len() as u64 >= self.bounds.fs_watch_trees_max {
            let max = self.bounds.fs_watch_trees_max;
            let error = Error::TooMany { what: "directories are watched", max, bound: "fs_watch_trees_max" };
            return (Err(error), ask.reply);
        }
        if self.kernel.instance().is_none() {
            self.kernel = Kernel::new(as_usize(self.bounds.fs_watch_directories_max)); // others may have given theirs back
            self.listen();
        }
        self.last_id += 1;
        let (id, reply) = (self.last_id, ask.reply);
        let (name, stream) = (ask.name, ask.stream);
        let root = Root { at: ask.at, reach: ask.reach, spec: ask.spec, own: ask.own };
        let begun = Watched::begin(id, name, root, self.log(stream), &self.bounds, &mut self.kernel);
        (begun.map(|tree| drop(self.trees.insert(id, tree))).map(|()| id), reply)
    }

    fn hold(&mut self, id: u64) -> Option<Watch> {
        let watched = self.trees.get_mut(&id)?;
        watched.check_root(&mut self.kernel, &self.bounds); // it was opened just now: it must be there
        let held = watched.held.upgrade().unwrap_or_default();
        watched.held = Arc::downgrade(&held);
        watched.idle_since = None;
        let tree = &watched.tree;
        let ready = Ready {
            root: watched.root.at.path().to_path_buf(),
            means: tree.way.means(),
            directories: tree.dirs.directories(),
            entries: tree.dirs.count(),
            sequence: watched.log.stream.newest().seq,
        };
        Some(Watch { stream: Arc::clone(&watched.log.stream), ready, held })
    }

    fn log(&self, stream: Arc<Stream>) -> super::log::Log {
        let changes_max = as_usize(self.bounds.fs_watch_event_max_changes);
        super::log::Log { store: self.store.clone(), stream, root: String::new(), changes_max }
    }

    /// Whatever is due.
    fn look(&mut self) {
        let (now, timing) = (Instant::now(), self.timing());
        let overflowed = std::mem::take(&mut self.overflowed);
        let pending_max = as_usize(self.bounds.fs_watch_pending_max_paths);
        for watched in self.trees.values_mut() {
            if overflowed && watched.tree.way == super::tree::Way::Inotify {
                watched.resync("overflow", &mut self.kernel);
            }
            if watched.is_root_due(now) {
                watched.check_root(&mut self.kernel, &self.bounds);
            }
            if watched.is_poll_due(now) {
                watched.poll(&mut self.kernel, &self.bounds);
            }
            let is_due = watched.tree.pending.due(&timing).is_some_and(|due| due <= now);
            if is_due || watched.tree.pending.len() >= pending_max {
                watched.flush(None, &mut self.kernel);
            }
        }
        if now.duration_since(self.ticked) >= TICK {
            self.ticked = now;
            self.forget_idle(as_duration(self.bounds.fs_watch_linger_ms));
        }
    }

    /// Trees that nobody has read for so long, and those who wait no more.
    fn forget_idle(&mut self, linger: Duration) {
        let now = Instant::now();
        let kernel = &mut self.kernel;
        self.trees.retain(|_, watched| {
            if watched.held.strong_count() > 0 {
                watched.idle_since = None;
                return true;
            }
            let idle_since = *watched.idle_since.get_or_insert(now);
            let stays = now.duration_since(idle_since) < linger;
            if !stays {
                watched.tree.unwatch(kernel);
            }
            stays
        });
        self.waiters.retain(|id, waiter| {
            let stays = !waiter.tell.is_closed();
            if !stays {
                kernel.remove(waiter.wd, Holder::Wait(*id));
            }
            stays
        });
    }
}

/// Nobody has it yet.
pub(super) fn nobody() -> Weak<()> {
    Weak::new()
}
