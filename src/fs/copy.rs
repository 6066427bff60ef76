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

use super::change::remove_tree;
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
    /// only when it is whole.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::DestinationExists`] without `overwrite`, [`Error::Stale`] as for moves, [`Error::Invalid`] for what can't be copied,
    /// [`Error::Outside`], [`Error::Denied`], [`Error::NoSpace`].
    pub async fn copy(&self, reach: &Reach, from: Located, to: Located, overwrite: bool) -> Result<(), Error> {
        let _alone = self.alone(&to).await;
        let (fs, reach) = (self.clone(), reach.clone());
        let copied = blocking(move || {
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
            let draft = beside(&destination)?;
            let copied = one(&source, &meta, &draft).and_then(|()| {
                let flags = if overwrite { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
                let renamed = renameat_with(&draft.directory, &draft.name, &destination.directory, &destination.name, flags);
                renamed.map_err(|errno| match errno {
                    Errno::EXIST => Error::DestinationExists(to.path().to_path_buf()),
                    errno => Error::of("copy to", to.path(), errno),
                })
            });
            copied.inspect_err(|_| {
                discard(&draft);
                destination.remove_made(above);
            })?;
            if keeps {
                let made = Captured::of(&destination, fs.keep_limits()).unwrap_or_else(|_| Captured::unknown());
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

/// Moves to another file system: a copy, and then the original goes. Nothing is left of a copy that fails.
pub(super) fn across(source: &Place, meta: &Meta, destination: &Place) -> Result<(), Error> {
    let draft = beside(destination)?;
    let copied = one(source, meta, &draft).and_then(|()| {
        let flags = RenameFlags::NOREPLACE;
        let renamed = renameat_with(&draft.directory, &draft.name, &destination.directory, &destination.name, flags);
        renamed.map_err(|errno| Error::of("move", &destination.path, errno))
    });
    copied.inspect_err(|_| discard(&draft))?;
    let removed = match meta.kind {
        Kind::Directory => remove_tree(source),
        _ => unlinkat(&source.directory, &source.name, AtFlags::empty()),
    };
    removed.map_err(|errno| Error::of("remove", &source.path, errno))
}

/// A name of ours in the same directory.
fn beside(place: &Place) -> Result<Place, Error> {
    let name = OsString::from(format!("{PREFIX}{}", new_id("c")));
    let directory = place.directory.try_clone().map_err(|error| Error::io("copy to", &place.path, &error))?;
    Ok(Place { directory, path: place.path.with_file_name(&name), name })
}

fn discard(draft: &Place) {
    if unlinkat(&draft.directory, &draft.name, AtFlags::empty()).is_err() {
        let _ = remove_tree(draft); // it may not be there at all
    }
}

/// A directory that is being copied: where from, where to, and what is left of it.
struct Level {
    from: OwnedFd,
    to: OwnedFd,
    path: PathBuf,
    left: Vec<OsString>,
    meta: Meta,
}

/// Copies one thing to a name that nothing has. Uses no stack for depth.
fn one(source: &Place, meta: &Meta, draft: &Place) -> Result<(), Error> {
    if meta.kind != Kind::Directory {
        return leaf(&source.directory, &source.name, meta, &draft.directory, &draft.name, &source.path);
    }
    let of = |errno| Error::of("copy", &source.path, errno);
    let top = open_level(&source.directory, &source.name, &draft.directory, &draft.name, meta, source.path.clone());
    let mut levels = vec![top.map_err(of)?];
    // A directory that is copied into itself must not find its copy.
    let own = Meta::of_open(&levels[0].to).map(|meta| meta.id).ok();
    while let Some(level) = levels.last_mut() {
        let Some(name) = level.left.pop() else {
            let failed = |errno| Error::of("copy", &level.path, errno);
            be_like(&level.to, &level.meta).map_err(failed)?; // last: it may forbid to write in it
            levels.pop();
            continue;
        };
        let path = level.path.join(&name);
        let meta = Meta::of(&level.from, Path::new(&name)).map_err(|errno| Error::of("copy", &path, errno))?;
        if Some(meta.id) == own {
            continue;
        }
        if meta.kind == Kind::Directory {
            let below = open_level(&level.from, &name, &level.to, &name, &meta, path.clone());
            levels.push(below.map_err(|errno| Error::of("copy", &path, errno))?);
        } else {
            leaf(&level.from, &name, &meta, &level.to, &name, &path)?;
        }
    }
    Ok(())
}

fn open_level(from: &OwnedFd, name: &OsStr, to: &OwnedFd, new_name: &OsStr, meta: &Meta, path: PathBuf) -> Result<Level, Errno> {
    let from = openat(from, name, OPEN_DIRECTORY, Mode::empty())?;
    mkdirat(to, new_name, Mode::RWXU)?;
    let to = openat(to, new_name, OPEN_DIRECTORY, Mode::empty())?;
    let mut left = Vec::new();
    for entry in Dir::read_from(&from)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            left.push(OsStr::from_bytes(name).to_owned());
        }
    }
    Ok(Level { from, to, path, left, meta: *meta })
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
