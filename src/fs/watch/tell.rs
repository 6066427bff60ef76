//! From what clients believe and what is there to changes that lead from one to the other, in an order in which they can be
//! followed one by one. Pure.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use super::dirs::{DirId, Dirs, Entry, Place, ROOT, Told};
use super::pending::{Origin, Pending};
use crate::fs::entry::Kind;

/// What happened to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Create,
    Change,
    Delete,
    Rename,
}

impl What {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Change => "change",
            Self::Delete => "delete",
            Self::Rename => "rename",
        }
    }
}

/// A change, with paths from the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) what: What,
    pub(super) path: PathBuf,
    /// Of a rename: the path before.
    pub(super) from: Option<PathBuf>,
    pub(super) kind: Kind,
}

/// Tells everything that was looked at.
pub(super) fn tell(dirs: &mut Dirs, pending: HashMap<Place, Pending>) -> Vec<Change> {
    let mut order: Vec<_> = pending.iter().map(|(place, pending)| (pending.order, place.clone())).collect();
    order.sort_unstable_by_key(|(order, _)| *order);
    let mut telling = Telling {
        moved: moves(dirs, &pending),
        dirs,
        pending,
        done: HashSet::new(),
        telling: HashSet::new(),
        moved_away: HashSet::new(),
        overwritten: HashSet::new(),
        changes: Vec::new(),
    };
    for (_, place) in &order {
        telling.place(place);
    }
    telling.changes
}

/// Where what was at a place is now, for what clients know and what is still there.
fn moves(dirs: &Dirs, pending: &HashMap<Place, Pending>) -> HashMap<Place, Place> {
    let mut moved = HashMap::new();
    for (to, to_pending) in pending {
        let Origin::From(from) = &to_pending.origin else { continue };
        let was = pending.get(from).and_then(|pending| pending.was);
        let is_it = |entry: Entry| was.is_some_and(|was| was.seen.inode == entry.seen.inode && was.seen.kind == entry.seen.kind);
        if dirs.entry(to).is_some_and(is_it) {
            moved.insert(from.clone(), to.clone());
        }
    }
    moved
}

struct Telling<'a> {
    dirs: &'a mut Dirs,
    pending: HashMap<Place, Pending>,
    /// What was there is now here.
    moved: HashMap<Place, Place>,
    done: HashSet<Place>,
    /// Those of them that wait for another to be told first.
    telling: HashSet<Place>,
    /// Clients know that what was there is elsewhere.
    moved_away: HashSet<Place>,
    /// What was there was told to be replaced, though it is still somewhere.
    overwritten: HashSet<Place>,
    changes: Vec<Change>,
}

impl Telling<'_> {
    fn place(&mut self, place: &Place) {
        if self.done.insert(place.clone()) {
            self.telling.insert(place.clone());
            self.tell(place);
            self.telling.remove(place);
        }
    }

    fn tell(&mut self, place: &Place) {
        let Some(pending) = self.pending.get(place).cloned() else { return };
        let now = self.dirs.entry(place);
        if now.is_some() && pending.was.is_some() {
            self.make_room(place);
        }
        let was = pending.was.filter(|_| !self.moved_away.contains(place));
        match (was, now) {
            (None, None) => {}
            (Some(_), None) if self.moved.contains_key(place) => {} // told as a rename where it is now
            (Some(was), None) => self.gone(place, &was),
            (was, Some(now)) => self.there(place, &pending, was, now),
        }
    }

    /// What was here is somewhere else: that is told before what is here now.
    fn make_room(&mut self, place: &Place) {
        if let Some(to) = self.moved.get(place).cloned() {
            self.place(&to);
        }
    }

    fn gone(&mut self, place: &Place, was: &Entry) {
        if let Some(dir) = was.dir.and_then(|dir| self.dirs.any_mut(dir))
            && dir.is_told_at(place)
        {
            dir.told = Told::Gone;
        }
        let Some(parent) = self.dirs.told_path(place.dir) else { return }; // went with its directory
        self.put(What::Delete, parent.join(&*place.name), None, was.seen.kind);
    }

    fn there(&mut self, place: &Place, pending: &Pending, was: Option<Entry>, now: Entry) {
        if !self.parents(place.dir) {
            // It lies in what takes its old place: its turn comes, and then it is new.
            self.done.remove(place);
            self.pending.get_mut(place).into_iter().for_each(|pending| pending.origin = Origin::New);
            return;
        }
        if was.is_some() && self.moved.contains_key(place) {
            self.overwritten.insert(place.clone()); // two have changed places: one of them is told as new
        }
        if self.renamed(place, pending, was, now) {
            return;
        }
        match was {
            Some(was) if was.seen.kind == now.seen.kind && was.dir == now.dir => {
                let is_changed = was.seen != now.seen || pending.written;
                if is_changed && !now.seen.is_directory() {
                    self.at(What::Change, place, now.seen.kind);
                }
            }
            Some(was) if was.seen.is_directory() || now.seen.is_directory() => {
                self.gone(place, &was);
                self.create(place, now);
            }
            Some(_) => self.at(What::Change, place, now.seen.kind),
            None => self.create(place, now),
        }
    }

    /// True when it was told as a rename.
    fn renamed(&mut self, place: &Place, pending: &Pending, was: Option<Entry>, now: Entry) -> bool {
        let Origin::From(from) = &pending.origin else { return false };
        if self.moved.get(from) != Some(place) || self.overwritten.contains(from) {
            return false;
        }
        let Some(parent) = self.dirs.told_path(from.dir) else { return false }; // told to be gone with its directory
        if let Some(was) = was.filter(|was| was.seen.is_directory() || now.seen.is_directory()) {
            self.gone(place, &was);
        }
        let before = parent.join(&*from.name);
        self.moved_away.insert(from.clone());
        if let Some(dir) = now.dir.and_then(|dir| self.dirs.get_mut(dir)) {
            dir.told = Told::Here;
        }
        let Some(after) = self.dirs.told_path(place.dir).map(|parent| parent.join(&*place.name)) else { return true };
        if after != before {
            self.put(What::Rename, after, Some(before), now.seen.kind);
        }
        let known = self.pending.get(from).and_then(|pending| pending.was);
        let is_changed = pending.written || known.is_some_and(|known| known.seen.stamp != now.seen.stamp);
        if is_changed && !now.seen.is_directory() {
            self.at(What::Change, place, now.seen.kind);
        }
        true
    }

    /// The directories above are known to clients first. False when one of them waits for this to be told.
    fn parents(&mut self, dir: DirId) -> bool {
        let (mut at, mut unknown) = (dir, Vec::new());
        while at != ROOT && self.dirs.told_path(at).is_none() {
            let Some(known) = self.dirs.get(at) else { return true };
            unknown.push((at, Place { dir: known.parent, name: known.name.clone() }));
            at = known.parent;
        }
        for (id, place) in unknown.into_iter().rev() {
            self.place(&place);
            if self.dirs.told_path(id).is_some() {
                continue;
            }
            if self.telling.contains(&place) {
                return false;
            }
            if let Some(dir) = self.dirs.get_mut(id) {
                dir.told = Told::Here;
            }
        }
        true
    }

    /// With all that it holds, as far as that is not told for itself.
    fn create(&mut self, place: &Place, now: Entry) {
        self.at(What::Create, place, now.seen.kind);
        let Some(id) = now.dir else { return };
        let Some(dir) = self.dirs.get_mut(id) else { return };
        let was_known = std::mem::replace(&mut dir.told, Told::Here) != Told::Not;
        if !was_known {
            return; // found with its entries, which are pending
        }
        let names: Vec<_> = dir.entries.keys().cloned().collect();
        // What clients knew in it went where it was told to be gone.
        self.pending.iter_mut().filter(|(place, _)| place.dir == id).for_each(|(_, pending)| pending.was = None);
        self.dirs.forget_gone_in(id);
        for name in names {
            let place = Place { dir: id, name };
            if self.telling.contains(&place) {
                continue; // needs this directory first, and follows
            }
            if self.pending.contains_key(&place) && !self.done.contains(&place) {
                self.place(&place);
            } else if let Some(entry) = self.dirs.entry(&place) {
                self.done.insert(place.clone());
                self.create(&place, entry);
            }
        }
    }

    fn at(&mut self, what: What, place: &Place, kind: Kind) {
        if let Some(parent) = self.dirs.told_path(place.dir) {
            self.put(what, parent.join(&*place.name), None, kind);
        }
    }

    fn put(&mut self, what: What, path: PathBuf, from: Option<PathBuf>, kind: Kind) {
        self.changes.push(Change { what, path, from, kind });
    }
}
