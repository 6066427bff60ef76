//! A watched tree: what is known of it, what is to be looked at, and how it is looked at. Blocks, for it asks the file system.
//!
//! What the kernel says only marks places; what is there is looked up then. So what comes twice is told once, and what
//! was missed is found by the same way. A directory is watched first and listed then: nothing falls between.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::fs::inotify::ReadFlags;

use super::dirs::{DirId, Dirs, Entry, Name, Place, ROOT};
use super::kernel::{Holder, Kernel, Raw};
use super::pending::{Leaving, Origin, Pendings};
use super::rules::{IGNORE_FILE, Rules};
use super::tell::{Change, tell};
use super::{Means, Own};
use crate::fs::entry::Meta;

/// How changes are learned of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// The kernel says.
    Inotify,
    /// By looking again and again, and why.
    Poll(&'static str),
}

impl Way {
    /// As clients are told.
    pub(super) fn means(self) -> Means {
        match self {
            Self::Inotify => Means { mode: "inotify", why: None },
            Self::Poll(why) => Means { mode: "poll", why: Some(why) },
        }
    }
}

/// A watched tree.
pub(super) struct Tree {
    pub(super) id: u64,
    pub(super) rules: Rules,
    pub(super) recursive: bool,
    /// What is never looked into.
    pub(super) own: Own,
    pub(super) root: OwnedFd,
    pub(super) device: u64,
    pub(super) dirs: Dirs,
    pub(super) pending: Pendings,
    pub(super) way: Way,
    pub(super) entries_max: usize,
    /// There are more entries than are kept: the rest isn't watched.
    pub(super) is_full: bool,
    /// The root is not where it was: it is to be looked for.
    pub(super) root_in_doubt: bool,
    pub(super) stale_rules: Vec<DirId>,
    /// Watches of directories that are gone.
    ended: Vec<(i32, DirId)>,
    /// What left and came nowhere that is watched, by inode: it may be found in a directory that is new.
    pub(super) homeless: HashMap<u64, Leaving>,
    /// The directory that was looked into last: neighbours are often looked at together.
    pub(super) opened: Option<(DirId, OwnedFd)>,
}

impl Tree {
    /// Of an open directory; nothing is looked at yet.
    pub(super) fn new(id: u64, root: OwnedFd, rules: Rules, recursive: bool, way: Way, entries_max: usize) -> Self {
        let device = Meta::of_open(&root).map_or(0, |meta| meta.id.0);
        Self {
            id,
            rules,
            recursive,
            own: Own::default(),
            root,
            device,
            dirs: Dirs::new(),
            pending: Pendings::default(),
            way,
            entries_max,
            is_full: false,
            root_in_doubt: false,
            stale_rules: Vec::new(),
            ended: Vec::new(),
            homeless: HashMap::new(),
            opened: None,
        }
    }

    /// The same, without our own files.
    pub(super) fn without(self, own: Own) -> Self {
        Self { own, ..self }
    }

    /// Looks at all of it for the first time: from here on nothing is missed.
    pub(super) fn build(&mut self, kernel: &mut Kernel) {
        self.walk(ROOT, false, kernel);
        self.opened = None;
    }

    /// What the kernel said of a directory.
    pub(super) fn note(&mut self, dir: DirId, raw: &Raw, now: Instant) {
        let Some(name) = &raw.name else { return self.note_itself(dir, raw.what) };
        let Some(known) = self.dirs.get(dir) else { return };
        if self.rules.reads_files() && (**name == *IGNORE_FILE || **name == *".git") {
            self.stale_rules.push(dir);
        }
        self.pending.stir(now);
        let place = Place { dir, name: Name::clone(name) };
        let was = known.entries.get(name).copied();
        if raw.what.contains(ReadFlags::CREATE) {
            self.pending.replace(&place, Origin::New, || was);
        } else if raw.what.contains(ReadFlags::DELETE) {
            self.pending.replace(&place, Origin::Gone, || was);
        } else if raw.what.contains(ReadFlags::MOVED_FROM) {
            let entry = self.dirs.take(&place);
            self.pending.leave(&place, raw.cookie, entry, now);
        } else if raw.what.contains(ReadFlags::MOVED_TO) {
            self.arrive(&place, was, raw.cookie);
        } else {
            self.pending.touch(&place, || was).written |= raw.what.contains(ReadFlags::MODIFY);
        }
    }

    fn note_itself(&mut self, dir: DirId, what: ReadFlags) {
        let gone = ReadFlags::IGNORED | ReadFlags::UNMOUNT | ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF;
        if !what.intersects(gone) {
            return;
        }
        if dir == ROOT {
            self.root_in_doubt = true;
            if let Some(root) = self.dirs.get_mut(ROOT).filter(|_| what.contains(ReadFlags::IGNORED)) {
                root.wd = None;
            }
        } else if what.intersects(ReadFlags::IGNORED | ReadFlags::UNMOUNT) {
            self.doubt(dir);
        }
    }

    /// A directory may be gone, or another one: its watch has ended, or it can't be opened.
    pub(super) fn doubt(&mut self, dir: DirId) {
        let Some(known) = self.dirs.get_mut(dir) else { return };
        known.wd = None;
        let place = Place { dir: known.parent, name: Name::clone(&known.name) };
        let was = self.dirs.entry(&place);
        self.pending.touch(&place, || was);
        self.pending.stir(Instant::now());
    }

    pub(super) fn arrive(&mut self, place: &Place, was: Option<Entry>, cookie: u32) {
        let leaving = self.pending.arrive(cookie);
        self.pending.touch(place, || was); // what clients know to be here, before it is replaced
        let replaced = self.dirs.take(place);
        self.forget(replaced);
        let (mut origin, mut written) = (Origin::New, false);
        if let Some(leaving) = leaving {
            if let Some(entry) = leaving.entry {
                self.dirs.attach(place, entry, &leaving.from);
            }
            origin = if leaving.origin == Origin::From(place.clone()) { Origin::Same } else { leaving.origin };
            written = leaving.written;
        }
        self.pending.replace(place, origin, || None).written |= written;
    }

    /// Looks at what is pending and tells what came of it.
    pub(super) fn flush(&mut self, kernel: &mut Kernel) -> Vec<Change> {
        for leaving in self.pending.left() {
            let Some(entry) = leaving.entry else { continue };
            if let Some(other) = self.homeless.insert(entry.seen.inode, leaving) {
                self.forget(other.entry);
            }
        }
        self.refresh_rules(kernel);
        let mut upto = 0;
        loop {
            let places = self.pending.after(upto); // looking finds more to look at
            if places.is_empty() {
                break;
            }
            upto = self.pending.last();
            for place in places {
                self.look(&place, kernel);
            }
        }
        self.opened = None;
        for (_, leaving) in std::mem::take(&mut self.homeless) {
            self.forget(leaving.entry); // it went out of the tree
        }
        self.end_watches(kernel);
        let dirs = &self.dirs;
        let pending = self.pending.take(Instant::now(), |place| dirs.get(place.dir).is_some());
        let changes = tell(&mut self.dirs, pending);
        self.dirs.bury();
        changes
    }

    /// From here on it is looked at again and again.
    pub(super) fn fall_back(&mut self, why: &'static str, kernel: &mut Kernel) {
        self.way = Way::Poll(why);
        self.unwatch(kernel);
    }

    /// Its watches end.
    pub(super) fn unwatch(&mut self, kernel: &mut Kernel) {
        for id in self.dirs.ids() {
            if let Some(wd) = self.dirs.get_mut(id).and_then(|dir| dir.wd.take()) {
                self.ended.push((wd, id));
            }
        }
        self.end_watches(kernel);
    }

    /// Nothing is known of it any more.
    pub(super) fn empty(&mut self) {
        self.dirs = Dirs::new();
        self.pending.clear();
        self.stale_rules.clear();
        self.opened = None;
    }

    fn end_watches(&mut self, kernel: &mut Kernel) {
        for (wd, dir) in self.ended.drain(..) {
            kernel.remove(wd, Holder::Dir(self.id, dir));
        }
    }

    /// What was known below an entry isn't any more. Its watches end with the next look.
    pub(super) fn forget(&mut self, entry: Option<Entry>) {
        if let Some(dir) = entry.and_then(|entry| entry.dir) {
            self.ended.extend(self.dirs.kill(dir));
        }
    }
}
