//! Copies of files and of whole directories: links stay links, modes and times are kept, what is neither file, directory
//! nor link is refused.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, Dir, Gid, Mode, OFlags, RenameFlags, Timespec, Timestamps, Uid, chownat, fchmod, fchown, futimens, mkdirat, openat,
    readlinkat, renameat_with, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::change::{clear, remove_tree, up};
use super::draft::{PREFIX, present};
use super::entry::{Kind, Meta};
use super::history::{After, Captured, Change};
use super::reach::Place;
use super::{Error, Fs, Located, Reach, blocking};
use crate::rt::ids::new_id;

const OPEN_DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

impl Fs {
    /// Copies a file, a link or a directory with all it holds. The copy grows under a name of its own and has the other one
    /// only when it is whole. Dropping the future doesn't stop it.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::DestinationExists`] without `overwrite`, [`Error::Stale`] as for moves, [`Error::Invalid`] for what can't be copied,
    /// [`Error::Outside`], [`Error::Denied`], [`Error::NoSpace`].
    pub async fn copy(&self, reach: &Reach, from: Located, to: Located, overwrite: bool) -> Result<(), Error> {
        let alone = self.alone(&to).await;
        let (fs, reach) = (self.clone(), reach.clone());
        let copied = blocking(move || {
            let _alone = alone;
            let source = reach.place(&from, false)?;
            let meta = present(&source)?.ok_or_else(|| Error::NotFound(from.path().to_path_buf()))?;
            let keeps = fs.inner.journal.get().is_some();
            let above = reach.missing_above(&to).len();
            let destination = reach.place(&to, true)?;
            let there = present(&destination)?;
            match &there {
                Some(_) if !overwrite => return Err(Error::DestinationExists(to.path().to_path_buf())),
                Some(there) if there.kind == Kind::Directory => {
                    return Err(Error::Invalid(format!("{} is a directory: remove it first", to.path().display())));
                }
                Some(there) => fs.may_lose(&reach, &destination, there)?,
                None => {}
            }
            let was = there.as_ref().map(|there| fs.keep(&destination, there)).unwrap_or_default();
            let copied = copied_beside(&source, &meta, &destination).and_then(|draft| {
                let flags = if overwrite { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
                let renamed = renameat_with(&draft.directory, &draft.name, &destination.directory, &destination.name, flags);
                let failed = |errno| match errno {
                    Errno::EXIST => Error::DestinationExists(to.path().to_path_buf()),
                    errno => Error::of("copy to", to.path(), errno),
                };
                renamed.map_err(failed).inspect_err(|_| discard(&draft))
            });
            copied.inspect_err(|_| destination.remove_made(above))?;
            if keeps {
                let made = match present(&destination) {
                    Ok(Some(meta)) => fs.keep(&destination, &meta),
                    _ => Captured::unknown(), // somebody has removed it already
                };
                fs.put_there(&reach, &source.real_path(), &destination);
                let mut change = Change::new("copy", &reach, destination.real_path(), was, After::Captured(made));
                change.made_above(above);
                fs.note(change);
            }
            Ok(())
        });
        self.explained(copied.await).await
    }
}

/// Moves to another file system, to a name that nothing has: a copy, and then the original goes. Nothing is left of a copy
/// that fails; an error within says that the original is still there, or a part of it.
pub(super) fn across(source: &Place, meta: &Meta, destination: &Place) -> Result<Result<(), Error>, Error> {
    let copy = copied_beside(source, meta, destination)?;
    let flags = RenameFlags::NOREPLACE;
    let renamed = renameat_with(&copy.directory, &copy.name, &destination.directory, &destination.name, flags);
    renamed.map_err(|errno| Error::of("move", &destination.path, errno)).inspect_err(|_| discard(&copy))?;
    Ok(clear(source, meta.kind))
}

/// A whole copy under a name of ours, or nothing.
pub(super) fn copied_beside(source: &Place, meta: &Meta, destination: &Place) -> Result<Place, Error> {
    let copy = beside(destination)?;
    one(source, meta, &copy).inspect_err(|_| discard(&copy))?;
    Ok(copy)
}

/// A name of ours in the same directory.
pub(super) fn beside(place: &Place) -> Result<Place, Error> {
    let name = OsString::from(format!("{PREFIX}{}", new_id("c")));
    let directory = place.directory.try_clone().map_err(|error| Error::io("copy to", &place.path, &error))?;
    Ok(Place { directory, path: place.path.with_file_name(&name), name })
}

pub(super) fn discard(draft: &Place) {
    if unlinkat(&draft.directory, &draft.name, AtFlags::empty()).is_err() {
        let _ = remove_tree(draft); // it may not be there at all
    }
}

/// So many directories above the one that is being copied are held open, from either side; those further up are found again
/// by `..`.
const HELD_MAX: usize = 64;

/// A directory that is being copied: where from and where to, and what is left of it.
struct Level {
    /// `None` far up.
    held: Option<(OwnedFd, OwnedFd)>,
    ids: ((u64, u64), (u64, u64)),
    left: Vec<OsString>,
    meta: Meta,
}

/// Directories on the way down.
struct Copying {
    levels: Vec<Level>,
    /// Where it is, for people.
    path: PathBuf,
}

/// Copies one thing to a name that nothing has. Uses neither stack nor descriptors for depth.
fn one(source: &Place, meta: &Meta, draft: &Place) -> Result<(), Error> {
    if meta.kind != Kind::Directory {
        return leaf(&source.directory, &source.name, meta, &draft.directory, &draft.name, &source.path);
    }
    let mut copying = Copying { levels: Vec::new(), path: source.path.clone() };
    let top = Level::open((&source.directory, &source.name), (&draft.directory, &draft.name), meta);
    copying.levels.push(top.map_err(|errno| copying.failed(errno))?);
    // A directory that is copied into itself must not find its copy.
    let own = copying.levels[0].ids.1;
    while copying.step(own)? {}
    Ok(())
}

impl Copying {
    fn failed(&self, errno: Errno) -> Error {
        Error::of("copy", &self.path, errno)
    }

    /// Copies the next name; false when none is left.
    fn step(&mut self, own: (u64, u64)) -> Result<bool, Error> {
        let Some(level) = self.levels.last_mut() else { return Ok(false) };
        let Some(name) = level.left.pop() else { return self.leave() };
        let Some((from, to)) = &level.held else { return Ok(false) }; // the last one is held
        self.path.push(&name);
        let failed = |errno| Error::of("copy", &self.path, errno);
        let meta = Meta::of(from, Path::new(&name)).map_err(failed)?;
        if meta.id != own && meta.kind == Kind::Directory {
            let below = Level::open((from, &name), (to, &name), &meta).map_err(failed)?;
            self.levels.push(below);
            if let Some(far) = self.levels.len().checked_sub(HELD_MAX + 1) {
                self.levels[far].held = None;
            }
            return Ok(true);
        }
        if meta.id != own {
            leaf(from, &name, &meta, to, &name, &self.path)?;
        }
        self.path.pop();
        Ok(true)
    }

    /// Back to the directory above one that is done.
    fn leave(&mut self) -> Result<bool, Error> {
        let Some(Level { held: Some((from, to)), meta, .. }) = self.levels.pop() else { return Ok(false) };
        let failed = |errno| Error::of("copy", &self.path, errno);
        if let Some(above) = self.levels.last_mut()
            && above.held.is_none()
        {
            above.held = Some((up(&from, above.ids.0).map_err(failed)?, up(&to, above.ids.1).map_err(failed)?));
        }
        be_like(&to, &meta).map_err(failed)?; // last: it may forbid to write in it, and to go up from it
        self.path.pop();
        Ok(true)
    }
}

impl Level {
    /// Makes the directory that it is copied to.
    fn open(from: (&OwnedFd, &OsStr), to: (&OwnedFd, &OsStr), meta: &Meta) -> Result<Self, Errno> {
        mkdirat(to.0, to.1, Mode::RWXU)?;
        let to = openat(to.0, to.1, OPEN_DIRECTORY, Mode::empty())?;
        let from = openat(from.0, from.1, OPEN_DIRECTORY, Mode::empty())?;
        let mut left = Vec::new();
        for entry in Dir::read_from(&from)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if !matches!(name, b"." | b"..") {
                left.push(OsStr::from_bytes(name).to_owned());
            }
        }
        let ids = (Meta::of_open(&from)?.id, Meta::of_open(&to)?.id);
        Ok(Self { held: Some((from, to)), ids, left, meta: *meta })
    }
}

fn leaf(from: &OwnedFd, name: &OsStr, meta: &Meta, to: &OwnedFd, new_name: &OsStr, path: &Path) -> Result<(), Error> {
    let failed = |errno| Error::of("copy", path, errno);
    match meta.kind {
        Kind::Symlink => {
            let target = readlinkat(from, name, Vec::new()).map_err(failed)?;
            symlinkat(&target, to, new_name).map_err(failed)?;
            let (uid, gid) = (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid));
            let _ = chownat(to, new_name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW); // only root may give away
            let _ = utimensat(to, new_name, &times(meta), AtFlags::SYMLINK_NOFOLLOW); // of no importance
            Ok(())
        }
        Kind::File => {
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut source = File::from(openat(from, name, flags, Mode::empty()).map_err(failed)?);
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut copy = File::from(openat(to, new_name, flags, Mode::RUSR | Mode::WUSR).map_err(failed)?);
            // The kernel copies, or shares blocks where the file system can (copy_file_range(2)).
            std::io::copy(&mut source, &mut copy).map_err(|error| Error::io("copy", path, &error))?;
            be_like(&copy, meta).map_err(failed)
        }
        kind => Err(Error::Invalid(format!(
            "{} is a {}: only files, directories and links are copied",
            path.display(),
            kind.as_str()
        ))),
    }
}

/// Owner, as far as we may, mode and times.
fn be_like(copy: impl std::os::fd::AsFd, meta: &Meta) -> Result<(), Errno> {
    let _ = fchown(&copy, Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid))); // only root may give away
    fchmod(&copy, Mode::from_bits_retain(meta.mode))?;
    futimens(&copy, &times(meta))
}

fn times(meta: &Meta) -> Timestamps {
    let modified = Timespec { tv_sec: meta.modified.0, tv_nsec: meta.modified.1.into() };
    Timestamps { last_access: modified, last_modification: modified }
}
