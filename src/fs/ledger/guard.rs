//! What a session may remove, or put something else in the place of: nothing that is newer than what it saw. And what it
//! knows of what it has put somewhere itself.

use std::collections::HashMap;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, openat};

use super::super::entry::{Kind, Meta};
use super::super::reach::Place;
use super::super::{Author, Error, Fs, Located, Reach, Sha256Hex, beneath};
use super::Stale;

impl Fs {
    /// Fails when a file is newer than what the author saw of it, or any file below a directory. Links go as they are. Blocks.
    pub(in crate::fs) fn may_lose(&self, reach: &Reach, place: &Place, meta: &Meta) -> Result<(), Error> {
        let author = reach.author();
        let (Some(session), Some(journal)) = (author.session_id.as_deref().filter(|_| !author.forces), self.inner.journal.get())
        else {
            return Ok(());
        };
        let top = place.real_path();
        match meta.kind {
            Kind::File => match journal.seen.get(session, &top) {
                Some(base) => as_seen(top, base, &self.hash_at(place, meta)?),
                None => Ok(()),
            },
            Kind::Directory => journal.seen.below(session, &top).into_iter().try_for_each(|(path, base)| {
                match path.strip_prefix(&top).ok().and_then(|below| self.hash_below(place, below)) {
                    Some(current) => as_seen(path, base, &current),
                    None => Ok(()), // it went before
                }
            }),
            _ => Ok(()),
        }
    }

    /// Fails when the author saw another content of a file than this one, which is there. Blocks.
    pub(in crate::fs) fn must_know(&self, reach: &Reach, at: &Located, current: &Sha256Hex) -> Result<(), Error> {
        let path = reach.target(at, false)?.real_path();
        self.must_be(reach.author(), &path).map_or(Ok(()), |base| as_seen(path, base, current))
    }

    fn hash_below(&self, place: &Place, below: &Path) -> Option<Sha256Hex> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = beneath::open(place.directory.as_fd(), &Path::new(&place.name).join(below), flags, Mode::empty()).ok()?;
        let meta = Meta::of_open(&file).ok().filter(|meta| meta.kind == Kind::File)?;
        self.inner.hashes.of(&file.into(), &meta).ok()
    }

    /// The author has moved or copied something here: what it saw of that it knows here, too. Where it saw what had the name
    /// before, it knows what it has put there. Blocks.
    pub(in crate::fs) fn put_there(&self, reach: &Reach, origin: &Path, place: &Place) {
        let (Some(session), Some(journal)) = (&reach.author().session_id, self.inner.journal.get()) else { return };
        let top = place.real_path();
        let moved = journal.seen.below(session, origin).into_iter();
        let moved = moved.filter_map(|(path, hash)| Some((top.join(path.strip_prefix(origin).ok()?), hash)));
        let mut known: Vec<(PathBuf, String)> = moved.collect();
        if let Some(hash) = journal.seen.get(session, origin) {
            known.push((top, hash));
        } else if journal.seen.get(session, &top).is_some()
            && let Ok(meta) = Meta::of(&place.directory, Path::new(&place.name))
            && meta.kind == Kind::File
            && let Ok(hash) = self.hash_at(place, &meta)
        {
            known.push((top, hash.as_str().to_owned()));
        }
        journal.saw_all(session, known, "write");
    }

    /// The same for a directory that took another one's place whole. Blocks.
    pub(in crate::fs) fn put_below(&self, reach: &Reach, place: &Place) {
        let (Some(session), Some(journal)) = (&reach.author().session_id, self.inner.journal.get()) else { return };
        let top = place.real_path();
        let known = journal.seen.below(session, &top).into_iter().filter_map(|(path, _)| {
            let hash = self.hash_below(place, path.strip_prefix(&top).ok()?)?;
            Some((path, hash.as_str().to_owned()))
        });
        journal.saw_all(session, known.collect(), "write");
    }

    /// What the author saw below a directory, for who puts many files there; `None` when it saw nothing there.
    pub(in crate::fs) fn known_below(&self, reach: &Reach, at: &Located) -> Option<Known> {
        let (author, journal) = (Arc::clone(reach.author()), self.inner.journal.get()?);
        let top = reach.target(at, false).ok()?.real_path();
        let files = journal.seen.below(author.session_id.as_deref()?, &top).into_iter();
        let files: HashMap<_, _> = files.filter_map(|(path, hash)| Some((path.strip_prefix(&top).ok()?.into(), hash))).collect();
        (!files.is_empty()).then(|| Known { fs: self.clone(), author, top, files })
    }

    /// A session begins as a copy of another one: it has seen what that one saw.
    pub fn copy_seen(&self, from: &str, to: &str) {
        if let Some(journal) = self.inner.journal.get() {
            let seen = journal.seen.list(Some(from), None, usize::MAX).into_iter().rev();
            let (read, written): (Vec<_>, Vec<_>) = seen.partition(|file| file.op == "read");
            for (files, op) in [(read, "read"), (written, "write")] {
                journal.saw_all(to, files.into_iter().map(|file| (file.path, file.sha256)).collect(), op);
            }
        }
    }
}

/// What an author saw below a directory.
pub(in crate::fs) struct Known {
    fs: Fs,
    author: Arc<Author>,
    top: PathBuf,
    files: HashMap<PathBuf, String>,
}

impl Known {
    /// True for a file, by its path below the directory, that it saw.
    pub(in crate::fs) fn has(&self, below: &Path) -> bool {
        self.files.contains_key(below)
    }

    /// Fails when such a file, of which this is the directory, is newer than that. Blocks.
    pub(in crate::fs) fn may_replace(&self, directory: BorrowedFd<'_>, below: &Path) -> Result<(), Error> {
        match (self.files.get(below).filter(|_| !self.author.forces), self.hash(directory, below)) {
            (Some(base), Some(current)) => as_seen(self.top.join(below), base.clone(), &current),
            _ => Ok(()),
        }
    }

    /// Such a file was put there in its name. Blocks.
    pub(in crate::fs) fn put(&self, directory: BorrowedFd<'_>, below: &Path) {
        if let (Some(session), Some(journal)) = (&self.author.session_id, self.fs.inner.journal.get())
            && self.has(below)
            && let Some(hash) = self.hash(directory, below)
        {
            journal.saw(session, &self.top.join(below), hash.as_str(), "write");
        }
    }

    fn hash(&self, directory: BorrowedFd<'_>, below: &Path) -> Option<Sha256Hex> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat(directory, below.file_name()?, flags, Mode::empty()).ok()?;
        let meta = Meta::of_open(&file).ok().filter(|meta| meta.kind == Kind::File)?;
        self.fs.inner.hashes.of(&file.into(), &meta).ok()
    }
}

fn as_seen(path: PathBuf, base: String, current: &Sha256Hex) -> Result<(), Error> {
    if current.as_str() == base {
        return Ok(());
    }
    let current = Some(current.as_str().to_owned());
    Err(Error::Stale(Box::new(Stale { path, base, yours: None, current, texts: None, merged: None })))
}
