//! What is known of a watched tree: directories with what was seen of their entries. Directories know their parent and
//! their name, so that one that is moved needs no other change.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::PathBuf;
use std::sync::Arc;

use super::rules::OwnRules;
use crate::fs::entry::{Kind, Meta};

/// Names a directory within its tree; given again only once nothing speaks of the old one.
pub(super) type DirId = u32;
pub(super) type Name = Arc<OsStr>;

/// The directory that is watched.
pub(super) const ROOT: DirId = 0;

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) dir: DirId,
    pub(super) name: Name,
}

/// What was seen of an entry, to know it again and to know whether it changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) kind: Kind,
    /// Its inode, whatever the device.
    pub(super) inode: u64,
    /// Of size, times and mode; of directories always the same, for their entries are told themselves.
    pub(super) stamp: u64,
}

impl Seen {
    pub(super) fn of(meta: &Meta) -> Self {
        let mut hasher = DefaultHasher::new();
        if meta.kind != Kind::Directory {
            (meta.size, meta.modified, meta.mode, meta.uid, meta.gid).hash(&mut hasher);
        }
        let (device, inode) = meta.id;
        Self { kind: meta.kind, inode: inode ^ device.rotate_left(40), stamp: hasher.finish() }
    }

    pub(super) fn is_directory(&self) -> bool {
        self.kind == Kind::Directory
    }
}

/// An entry of a directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) seen: Seen,
    /// What is known of it when it is a directory that is looked into.
    pub(super) dir: Option<DirId>,
}

/// Where clients believe a directory to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Told {
    /// Where it is.
    Here,
    /// They don't know it yet.
    Not,
    /// Where it was before.
    At(Place),
    /// They were told that it is gone.
    Gone,
}

/// A directory that is looked into.
pub(super) struct Dir {
    pub(super) parent: DirId,
    pub(super) name: Name,
    pub(super) told: Told,
    pub(super) entries: HashMap<Name, Entry>,
    /// Its watch, when it has one.
    pub(super) wd: Option<i32>,
    pub(super) rules: OwnRules,
    is_dead: bool,
}

impl Dir {
    /// Whether clients believe it to be there.
    pub(super) fn is_told_at(&self, place: &Place) -> bool {
        match &self.told {
            Told::Here => self.parent == place.dir && self.name == place.name,
            Told::At(told) => told == place,
            Told::Not | Told::Gone => false,
        }
    }
}

/// All directories of a tree.
pub(super) struct Dirs {
    slots: Vec<Option<Dir>>,
    free: Vec<DirId>,
    dead: Vec<DirId>,
    entries: usize,
}

impl Dirs {
    /// The root alone.
    pub(super) fn new() -> Self {
        let mut dirs = Self { slots: Vec::new(), free: Vec::new(), dead: Vec::new(), entries: 0 };
        dirs.put(ROOT, OsStr::new("").into(), Told::Here);
        dirs
    }

    fn put(&mut self, parent: DirId, name: Name, told: Told) -> DirId {
        let dir = Dir { parent, name, told, entries: HashMap::new(), wd: None, rules: OwnRules::default(), is_dead: false };
        if let Some(id) = self.free.pop() {
            self.slots[id as usize] = Some(dir);
            return id;
        }
        self.slots.push(Some(dir));
        u32::try_from(self.slots.len() - 1).expect("entries are bounded far below")
    }

    /// A directory that is there.
    pub(super) fn get(&self, id: DirId) -> Option<&Dir> {
        self.any(id).filter(|dir| !dir.is_dead)
    }

    pub(super) fn get_mut(&mut self, id: DirId) -> Option<&mut Dir> {
        self.any_mut(id).filter(|dir| !dir.is_dead)
    }

    /// One that is there, or went since changes were told.
    fn any(&self, id: DirId) -> Option<&Dir> {
        self.slots.get(id as usize)?.as_ref()
    }

    pub(super) fn any_mut(&mut self, id: DirId) -> Option<&mut Dir> {
        self.slots.get_mut(id as usize)?.as_mut()
    }

    pub(super) fn entry(&self, place: &Place) -> Option<Entry> {
        self.get(place.dir)?.entries.get(&place.name).copied()
    }

    /// How many entries are known.
    pub(super) fn count(&self) -> usize {
        self.entries
    }

    /// How many directories are looked into.
    pub(super) fn directories(&self) -> usize {
        self.slots.len() - self.free.len() - self.dead.len()
    }

    /// The entry at a place is this; its directory is kept.
    pub(super) fn set(&mut self, place: &Place, entry: Entry) {
        let Some(dir) = self.get_mut(place.dir) else { return };
        if dir.entries.insert(Arc::clone(&place.name), entry).is_none() {
            self.entries += 1;
        }
    }

    /// Takes an entry out; what is known below it stays, for [`Dirs::attach`] or [`Dirs::kill`].
    pub(super) fn take(&mut self, place: &Place) -> Option<Entry> {
        let taken = self.get_mut(place.dir)?.entries.remove(&place.name);
        self.entries -= usize::from(taken.is_some());
        taken
    }

    /// Puts what was taken out of `from` elsewhere.
    pub(super) fn attach(&mut self, place: &Place, entry: Entry, from: &Place) {
        self.set(place, entry);
        let Some(dir) = entry.dir.and_then(|id| self.get_mut(id)) else { return };
        dir.parent = place.dir;
        dir.name = Arc::clone(&place.name);
        dir.told = match std::mem::replace(&mut dir.told, Told::Here) {
            Told::Here if from != place => Told::At(from.clone()),
            Told::At(told) if told == *place => Told::Here,
            told => told,
        };
    }

    /// A directory that is looked into from now on.
    pub(super) fn make(&mut self, place: &Place, told: Told) -> DirId {
        let id = self.put(place.dir, Arc::clone(&place.name), told);
        if let Some(entry) = self.get_mut(place.dir).and_then(|dir| dir.entries.get_mut(&place.name)) {
            entry.dir = Some(id);
        }
        id
    }

    /// A directory and all below it are gone; gives their watches. What clients were told of them is known until
    /// [`Dirs::bury`].
    pub(super) fn kill(&mut self, id: DirId) -> Vec<(i32, DirId)> {
        let (mut watches, mut left) = (Vec::new(), vec![id]);
        while let Some(id) = left.pop() {
            let Some(dir) = self.get_mut(id) else { continue };
            dir.is_dead = true;
            let entries = std::mem::take(&mut dir.entries);
            watches.extend(dir.wd.take().map(|wd| (wd, id)));
            self.entries -= entries.len();
            self.dead.push(id);
            left.extend(entries.values().filter_map(|entry| entry.dir));
        }
        watches
    }

    /// Clients know nothing more of what is gone from a directory: they were told that it went with it.
    pub(super) fn forget_gone_in(&mut self, id: DirId) {
        for gone in &self.dead {
            let Some(dir) = self.slots[*gone as usize].as_mut() else { continue };
            let is_in = match &dir.told {
                Told::Here => dir.parent == id,
                Told::At(place) => place.dir == id,
                Told::Not | Told::Gone => false,
            };
            if is_in {
                dir.told = Told::Gone;
            }
        }
    }

    /// Nobody asks any more for what is gone.
    pub(super) fn bury(&mut self) {
        for id in self.dead.drain(..) {
            self.slots[id as usize] = None;
            self.free.push(id);
        }
    }

    /// Where a directory is, from the root; empty for the root.
    pub(super) fn path(&self, id: DirId) -> PathBuf {
        let mut names = Vec::new();
        let mut at = id;
        while at != ROOT {
            let Some(dir) = self.any(at) else { break };
            names.push(&*dir.name);
            at = dir.parent;
        }
        names.into_iter().rev().collect()
    }

    /// Where clients believe a directory to be; `None` when they don't know it.
    pub(super) fn told_path(&self, id: DirId) -> Option<PathBuf> {
        let mut names = Vec::new();
        let mut at = id;
        while at != ROOT {
            let dir = self.any(at)?;
            let (parent, name) = match &dir.told {
                Told::Here => (dir.parent, &dir.name),
                Told::At(place) => (place.dir, &place.name),
                Told::Not | Told::Gone => return None,
            };
            names.push(&**name);
            at = parent;
        }
        Some(names.into_iter().rev().collect())
    }

    /// The directories that are looked into.
    pub(super) fn ids(&self) -> Vec<DirId> {
        let ids = (0..).zip(&self.slots).filter(|(_, slot)| slot.as_ref().is_some_and(|dir| !dir.is_dead));
        ids.map(|(id, _)| id).collect()
    }
}
