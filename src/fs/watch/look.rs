//! Looking at a tree: a place, a directory for the first time, and everything again.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Instant;

use rustix::fs::{FileType, Mode, OFlags, RawDir, fstatfs, openat};
use rustix::io::Errno;

use super::dirs::{DirId, Entry, Name, Place, ROOT, Seen, Told};
use super::kernel::{Holder, Kernel, NoWatch};
use super::pending::{Leaving, Origin};
use super::rules::OwnRules;
use super::tree::{Tree, Way};
use crate::fs::beneath;
use crate::fs::entry::Meta;

/// For names of a directory (getdents64(2)).
const LIST_BYTES: usize = 64 * 1024;

/// A rename that was found by comparing has no cookie of the kernel's, whose own are never 0.
const FOUND: u32 = 0;

/// Where files change without inotify knowing (statfs(2)): NFS, SMB, CIFS, SMB2, 9p, FUSE, Ceph, AFS.
const REMOTE: [i64; 8] = [0x6969, 0x517b, 0xff53_4d42, 0xfe53_4d42, 0x0102_1997, 0x6573_5546, 0x00c3_6400, 0x5346_414f];

/// What is no tree of files: proc, sysfs, cgroups, debugfs, tracefs, devpts, securityfs, bpf, mqueue.
const PSEUDO: [i64; 10] =
    [0x9fa0, 0x6265_6572, 0x6367_7270, 0x0027_e0eb, 0x6462_6720, 0x7472_6163, 0x1cd1, 0x7363_6673, 0xcafe_4a11, 0x1980_0202];

/// Whether inotify tells of everything that happens on a file system.
pub(super) fn is_remote(directory: &OwnedFd) -> bool {
    kind_of_system(directory).is_some_and(|kind| REMOTE.contains(&kind))
}

#[allow(clippy::unnecessary_cast)] // its type differs between systems
fn kind_of_system(directory: impl AsFd) -> Option<i64> {
    fstatfs(directory).ok().map(|system| (system.f_type as i64) & 0xffff_ffff)
}

/// What comparing found, until it is known what was only moved.
#[derive(Default)]
struct Found {
    gone: Vec<(Place, Entry)>,
    appeared: Vec<(Place, Seen)>,
}

impl Tree {
    /// Looks at one place that is pending.
    pub(super) fn look(&mut self, place: &Place, kernel: &mut Kernel) {
        if self.dirs.get(place.dir).is_none() || self.pending.get_mut(place).is_none_or(|pending| pending.is_looked_at) {
            return; // went with its directory, or was found with it
        }
        let meta = self.meta(place);
        let is_shown = |meta: &Meta| !self.rules.ignores(&self.dirs, place.dir, &place.name, is_directory(meta));
        let now = meta.as_ref().ok().filter(|meta| is_shown(meta));
        let (is_gone, is_inotify) = (meta.is_err(), self.way == Way::Inotify);
        if let Some(pending) = self.pending.get_mut(place) {
            let was_early = std::mem::take(&mut pending.is_early);
            pending.is_early = is_gone && is_inotify && !was_early && pending.origin == Origin::Same;
            if pending.is_early {
                return;
            }
        }
        self.apply(place, now.copied(), kernel);
    }

    fn meta(&mut self, place: &Place) -> Result<Meta, Errno> {
        if self.opened.as_ref().is_none_or(|(id, _)| *id != place.dir) {
            self.opened = Some((place.dir, self.open(place.dir, OFlags::PATH)?));
        }
        let (_, directory) = self.opened.as_ref().ok_or(Errno::NOENT)?;
        Meta::of(directory, Path::new(&*place.name))
    }

    fn apply(&mut self, place: &Place, now: Option<Meta>, kernel: &mut Kernel) {
        let known = self.dirs.entry(place);
        let seen = now.as_ref().map(Seen::of);
        let stays = known.filter(|known| seen.is_some_and(|seen| seen.is_directory() && seen.inode == known.seen.inode));
        if stays.is_none() {
            let taken = self.dirs.take(place);
            self.forget(taken);
        }
        let (Some(meta), Some(seen)) = (now, seen) else { return };
        if known.is_none() && !self.has_room() {
            return;
        }
        let dir = stays.and_then(|known| known.dir);
        self.dirs.set(place, Entry { seen, dir });
        match dir {
            None if self.looks_into(&meta, place) => {
                let id = self.dirs.make(place, Told::Not);
                self.walk(id, true, kernel);
            }
            Some(id) if self.way == Way::Inotify && self.dirs.get(id).is_some_and(|dir| dir.wd.is_none()) => {
                self.rescan(id, kernel);
            }
            _ => {}
        }
    }

    fn has_room(&mut self) -> bool {
        self.is_full |= self.dirs.count() >= self.entries_max;
        !self.is_full
    }

    /// Whether a directory is looked into: not into what the kernel only shows as files, and not into ours.
    fn looks_into(&self, meta: &Meta, place: &Place) -> bool {
        if !self.recursive || !is_directory(meta) || self.own.is(meta) {
            return false;
        }
        if meta.id.0 == self.device {
            return true;
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = self.open(place.dir, OFlags::PATH).and_then(|parent| openat(parent, &*place.name, flags, Mode::empty()));
        opened.is_ok_and(|directory| kind_of_system(directory).is_none_or(|kind| !PSEUDO.contains(&kind)))
    }

    /// A directory of the tree, if it still is the one that is known.
    pub(super) fn open(&self, id: DirId, flags: OFlags) -> Result<OwnedFd, Errno> {
        let known = self.dirs.get(id).ok_or(Errno::NOENT)?;
        let flags = flags | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let directory = beneath::open(self.root.as_fd(), &self.dirs.path(id), flags, Mode::empty())?;
        if id != ROOT {
            let place = Place { dir: known.parent, name: Name::clone(&known.name) };
            let found = Seen::of(&Meta::of_open(&directory)?);
            if self.dirs.entry(&place).is_none_or(|entry| entry.seen.inode != found.inode) {
                return Err(Errno::NOENT);
            }
        }
        Ok(directory)
    }

    /// Opens a directory, watches it, and reads its rules; then it may be listed.
    fn enter(&mut self, id: DirId, kernel: &mut Kernel) -> Result<OwnedFd, Errno> {
        let directory = self.open(id, OFlags::RDONLY)?;
        if self.way == Way::Inotify && self.dirs.get(id).is_some_and(|dir| dir.wd.is_none()) {
            match kernel.add(&directory, Holder::Dir(self.id, id)) {
                Ok(wd) => self.dirs.get_mut(id).ok_or(Errno::NOENT)?.wd = Some(wd),
                Err(NoWatch::Unreadable) => {}
                Err(NoWatch::Limit) => self.fall_back("watch_limit", kernel),
                Err(NoWatch::Unsupported) => self.fall_back("no_inotify", kernel),
            }
        }
        if self.rules.reads_files() {
            self.dirs.get_mut(id).ok_or(Errno::NOENT)?.rules = OwnRules::read(&directory);
        }
        Ok(directory)
    }

    /// Looks at a directory and all below it for the first time.
    pub(super) fn walk(&mut self, start: DirId, tells: bool, kernel: &mut Kernel) {
        let mut left = vec![start];
        while let Some(id) = left.pop() {
            let Ok(directory) = self.enter(id, kernel) else { continue }; // gone, or nobody may read it
            for (name, kind) in list(&directory) {
                let is_dir = |kind: FileType| kind == FileType::Directory;
                if kind != FileType::Unknown && self.rules.ignores(&self.dirs, id, &name, is_dir(kind)) {
                    continue;
                }
                let Ok(meta) = Meta::of(&directory, Path::new(&*name)) else { continue };
                if kind == FileType::Unknown && self.rules.ignores(&self.dirs, id, &name, is_directory(&meta)) {
                    continue;
                }
                if !self.has_room() {
                    return;
                }
                let place = Place { dir: id, name };
                let seen = Seen::of(&meta);
                if tells && self.comes_home(&place, seen, kernel) {
                    continue;
                }
                self.dirs.set(&place, Entry { seen, dir: None });
                if tells {
                    self.pending.replace(&place, Origin::New, || None).is_looked_at = true;
                }
                if self.looks_into(&meta, &place) {
                    left.push(self.dirs.make(&place, if tells { Told::Not } else { Told::Here }));
                }
            }
        }
    }

    /// True for what was moved into a directory that was not watched yet.
    fn comes_home(&mut self, place: &Place, seen: Seen, kernel: &mut Kernel) -> bool {
        let is_it = |leaving: &Leaving| leaving.entry.is_some_and(|entry| entry.seen == seen);
        if !self.homeless.get(&seen.inode).is_some_and(is_it) {
            return false;
        }
        let Some(leaving) = self.homeless.remove(&seen.inode) else { return false };
        let Some(entry) = leaving.entry else { return false };
        self.dirs.attach(place, entry, &leaving.from);
        let pending = self.pending.replace(place, leaving.origin, || None);
        (pending.is_looked_at, pending.written) = (true, leaving.written);
        if let Some(dir) = entry.dir {
            self.rescan(dir, kernel); // what was looked at before it was found was looked for elsewhere
        }
        true
    }

    /// Reads rules again that may have changed, and looks again at what they are for.
    pub(super) fn refresh_rules(&mut self, kernel: &mut Kernel) {
        let mut stale = std::mem::take(&mut self.stale_rules);
        stale.sort_unstable();
        stale.dedup();
        for id in stale {
            let Ok(directory) = self.open(id, OFlags::PATH) else { continue };
            let rules = OwnRules::read(&directory);
            if self.dirs.get(id).is_some_and(|dir| dir.rules.differ(&rules)) {
                self.rescan(id, kernel);
            }
        }
    }

    /// Compares a directory and all below it with what is known; what differs is pending. Gives how much did.
    pub(super) fn rescan(&mut self, start: DirId, kernel: &mut Kernel) -> usize {
        let before = self.pending.len();
        let (mut left, mut found) = (vec![start], Found::default());
        while let Some(id) = left.pop() {
            if self.compare(id, kernel, &mut found).is_err() {
                self.doubt(id);
            } else if let Some(dir) = self.dirs.get(id) {
                left.extend(dir.entries.values().filter_map(|entry| entry.dir));
            }
            if left.is_empty() {
                left = self.pair(&mut found); // what moved was not below any directory that was compared
            }
        }
        for (place, entry) in found.gone {
            self.pending.replace(&place, Origin::Gone, || Some(entry));
        }
        for (place, _) in found.appeared {
            self.pending.replace(&place, Origin::New, || None);
        }
        self.pending.stir(Instant::now());
        self.pending.len() - before
    }

    fn compare(&mut self, id: DirId, kernel: &mut Kernel, found: &mut Found) -> Result<(), Errno> {
        let directory = self.enter(id, kernel)?;
        let mut listed = HashSet::new();
        for (name, _) in list(&directory) {
            let Ok(meta) = Meta::of(&directory, Path::new(&*name)) else { continue };
            let place = Place { dir: id, name: Name::clone(&name) };
            let (known, seen) = (self.dirs.entry(&place), Seen::of(&meta));
            let is_shown = !self.rules.ignores(&self.dirs, id, &name, is_directory(&meta));
            match known {
                Some(known) if known.seen != seen || !is_shown => {
                    self.pending.touch(&place, || Some(known));
                }
                None if is_shown => found.appeared.push((place, seen)),
                _ => {}
            }
            listed.insert(name);
        }
        let known = self.dirs.get(id).ok_or(Errno::NOENT)?;
        let gone = known.entries.iter().filter(|(name, _)| !listed.contains(*name));
        found.gone.extend(gone.map(|(name, entry)| (Place { dir: id, name: Name::clone(name) }, *entry)));
        Ok(())
    }

    /// What went in one place and appeared in another was renamed. Gives the directories among it, to be compared.
    fn pair(&mut self, found: &mut Found) -> Vec<DirId> {
        let (mut gone, mut directories) = (HashMap::new(), Vec::new());
        for (place, entry) in std::mem::take(&mut found.gone) {
            // Of two names of one file, one may have been renamed; the other is gone.
            found.gone.extend(gone.insert((entry.seen.inode, entry.seen.stamp), (place, entry)));
        }
        for (to, seen) in std::mem::take(&mut found.appeared) {
            let key = (seen.inode, seen.stamp);
            match gone.get(&key) {
                Some((_, entry)) if entry.seen.kind == seen.kind => {
                    let Some((from, _)) = gone.remove(&key) else { continue };
                    let entry = self.dirs.take(&from);
                    self.pending.leave(&from, FOUND, entry, Instant::now());
                    self.arrive(&to, None, FOUND);
                    directories.extend(entry.and_then(|entry| entry.dir));
                }
                _ => found.appeared.push((to, seen)),
            }
        }
        found.gone.extend(gone.into_values());
        directories
    }
}

fn is_directory(meta: &Meta) -> bool {
    meta.kind == crate::fs::entry::Kind::Directory
}

/// The names in a directory; as many as can be read.
fn list(directory: &OwnedFd) -> Vec<(Name, FileType)> {
    let mut buffer = vec![MaybeUninit::uninit(); LIST_BYTES];
    let mut entries = RawDir::new(directory, &mut buffer);
    let mut names = Vec::new();
    while let Some(Ok(entry)) = entries.next() {
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            names.push((OsStr::from_bytes(name).into(), entry.file_type()));
        }
    }
    names
}
