//! A tree with all that the owner knows of it: where it is told, where its root is, when it is polled.

use std::os::fd::OwnedFd;
use std::sync::Weak;
use std::time::{Duration, Instant};

use super::dirs::{ROOT, Seen};
use super::kernel::Kernel;
use super::log::Log;
use super::look::is_remote;
use super::pending::Timing;
use super::rules::Rules;
use super::tree::{Tree, Way};
use super::{Own, WatchSpec, open};
use crate::config::{Bounds, as_duration, as_usize};
use crate::fs::entry::Meta;
use crate::fs::{Error, Located, Reach};

/// How often it is looked whether a root is still where it was: a directory above it may be renamed, which nobody says;
const ROOT_CHECK: Duration = Duration::from_secs(1);
/// and whether one that is gone is back.
const ROOT_SEARCH: Duration = Duration::from_millis(100);
/// A tree is polled so that looking takes no more than this part of the time.
const POLL_SHARE: u32 = 20;

/// What is watched, and how.
pub(super) struct Root {
    pub(super) at: Located,
    pub(super) reach: Reach,
    pub(super) spec: WatchSpec,
    pub(super) own: Own,
}

pub(super) struct Watched {
    pub(super) tree: Tree,
    /// Of its stream.
    pub(super) name: String,
    pub(super) root: Root,
    pub(super) log: Log,
    /// Those who read it.
    pub(super) held: Weak<()>,
    pub(super) idle_since: Option<Instant>,
    /// Times that everything was looked at again.
    scan: u64,
    is_there: bool,
    root_due: Instant,
    poll_due: Instant,
    poll_pause: Duration,
    /// When inotify is tried again.
    retry_due: Instant,
    was_full: bool,
}

impl Watched {
    /// Looks at all of it: from then on nothing is missed.
    pub(super) fn begin(
        id: u64,
        name: String,
        root: Root,
        log: Log,
        bounds: &Bounds,
        kernel: &mut Kernel,
    ) -> Result<Self, Error> {
        let mut tree = root.tree(id, bounds, kernel)?;
        let started = Instant::now();
        tree.build(kernel);
        if tree.is_full {
            tree.unwatch(kernel);
            let what = format!("what {} holds", root.at.path().display());
            return Err(Error::TooMuch { what, max: bounds.fs_watch_entries_max, bound: "fs_watch_entries_max" });
        }
        let poll_pause = as_duration(bounds.fs_watch_poll_min_ms).max(started.elapsed() * POLL_SHARE);
        let now = Instant::now();
        let log = Log { root: root.at.path().to_string_lossy().into_owned(), ..log };
        if log.stream.newest().seq > 0 {
            log.resync("not_watched", tree.way, 0, None); // what happened since the last one nobody knows
        }
        Ok(Self {
            tree,
            name,
            root,
            log,
            held: super::owner::nobody(),
            idle_since: Some(now),
            scan: 0,
            is_there: true,
            root_due: now + ROOT_CHECK,
            poll_due: now + poll_pause,
            poll_pause,
            retry_due: now + as_duration(bounds.fs_watch_retry_ms),
            was_full: false,
        })
    }

    /// When something is to be done next.
    pub(super) fn due(&self, timing: &Timing) -> Option<Instant> {
        let polls = matches!(self.tree.way, Way::Poll(_)) && self.is_there;
        let dues = [self.tree.pending.due(timing), Some(self.root_due), polls.then_some(self.poll_due)];
        dues.into_iter().flatten().min()
    }

    /// Tells what is pending.
    pub(super) fn flush(&mut self, scan: Option<u64>, kernel: &mut Kernel) -> usize {
        let way = self.tree.way;
        let changes = self.tree.flush(kernel);
        self.log.changed(&changes, scan);
        if self.tree.way != way
            && let Way::Poll(why) = self.tree.way
        {
            self.scan += 1;
            self.log.resync(why, self.tree.way, self.scan, None);
            self.poll_due = Instant::now(); // what happened while the watches ended
        }
        if self.tree.is_full && !std::mem::replace(&mut self.was_full, true) {
            self.log.resync("too_many_entries", self.tree.way, self.scan, None);
        }
        changes.len()
    }

    /// Looks at everything again, says why, and tells what differs.
    pub(super) fn resync(&mut self, reason: &'static str, kernel: &mut Kernel) {
        self.scan += 1;
        let scan = self.scan;
        self.tree.rescan(ROOT, kernel);
        self.log.resync(reason, self.tree.way, scan, Some(self.tree.pending.len()));
        self.flush(Some(scan), kernel);
    }

    pub(super) fn is_poll_due(&self, now: Instant) -> bool {
        self.is_there && matches!(self.tree.way, Way::Poll(_)) && self.poll_due <= now
    }

    /// Looks at everything again. While nothing changes, ever more rarely.
    pub(super) fn poll(&mut self, kernel: &mut Kernel, bounds: &Bounds) {
        let started = Instant::now();
        let was_looked_at = self.retry_due <= started && self.watch_again(kernel, bounds);
        if !was_looked_at {
            self.tree.rescan(ROOT, kernel);
        }
        let told = self.flush(None, kernel);
        let (min, max) = (as_duration(bounds.fs_watch_poll_min_ms), as_duration(bounds.fs_watch_poll_max_ms));
        let pause = if told > 0 { min } else { (self.poll_pause * 2).clamp(min, max.max(min)) };
        self.poll_pause = pause.max(started.elapsed() * POLL_SHARE);
        self.poll_due = Instant::now() + self.poll_pause;
    }

    /// Tries inotify again, where others may have ended watches meanwhile.
    fn watch_again(&mut self, kernel: &mut Kernel, bounds: &Bounds) -> bool {
        self.retry_due = Instant::now() + as_duration(bounds.fs_watch_retry_ms);
        if self.tree.way != Way::Poll("watch_limit") {
            return false;
        }
        let polled = std::mem::replace(&mut self.tree.way, Way::Inotify);
        self.tree.rescan(ROOT, kernel);
        if self.tree.way == polled {
            return true; // looked at, all the same
        }
        self.scan += 1;
        self.log.resync("watched_again", self.tree.way, self.scan, None);
        true
    }

    pub(super) fn is_root_due(&self, now: Instant) -> bool {
        self.tree.root_in_doubt || self.root_due <= now
    }

    /// Is the root still there, or there again?
    pub(super) fn check_root(&mut self, kernel: &mut Kernel, bounds: &Bounds) {
        self.tree.root_in_doubt = false;
        let found = self.root.open().and_then(|root| identity(&root, &self.root.at));
        let known = identity(&self.tree.root, &self.root.at).ok();
        let is_known = found.as_ref().ok().is_some_and(|found| Some(found) == known.as_ref());
        if self.is_there && !is_known {
            self.is_there = false;
            self.tree.unwatch(kernel);
            self.tree.empty();
            self.log.resync("root_gone", self.tree.way, self.scan, None);
        }
        if !self.is_there && found.is_ok() {
            self.come_back(kernel, bounds);
        }
        self.root_due = Instant::now() + if self.is_there { ROOT_CHECK } else { ROOT_SEARCH };
    }

    fn come_back(&mut self, kernel: &mut Kernel, bounds: &Bounds) {
        let Ok(tree) = self.root.tree(self.tree.id, bounds, kernel) else { return };
        self.tree = tree;
        self.is_there = true;
        self.scan += 1;
        self.tree.walk(ROOT, true, kernel);
        self.log.resync("root_back", self.tree.way, self.scan, Some(self.tree.pending.len()));
        self.flush(Some(self.scan), kernel);
        self.poll_due = Instant::now() + self.poll_pause;
    }
}

fn identity(root: &std::os::fd::OwnedFd, at: &Located) -> Result<u64, Error> {
    let meta = Meta::of_open(root).map_err(|errno| Error::of("look at", at.path(), errno))?;
    Ok(Seen::of(&meta).inode)
}

impl Root {
    fn open(&self) -> Result<OwnedFd, Error> {
        open(&self.reach, &self.at, &self.own)
    }

    /// The tree of a root that is there; nothing is looked at yet.
    pub(super) fn tree(&self, id: u64, bounds: &Bounds, kernel: &Kernel) -> Result<Tree, Error> {
        let root = self.open()?;
        let rules = Rules::new(&self.spec, self.at.path(), &self.reach)?;
        let way = if kernel.instance().is_none() {
            Way::Poll(kernel.why_not)
        } else if is_remote(&root) {
            Way::Poll("file_system")
        } else {
            Way::Inotify
        };
        let entries_max = as_usize(bounds.fs_watch_entries_max);
        Ok(Tree::new(id, root, rules, self.spec.recursive, way, entries_max).without(self.own.clone()))
    }
}
