//! Directories, moves and removals. Everything is done by name in directories that are held, so that nobody can lead it
//! elsewhere meanwhile.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{AtFlags, Dir, Mode, OFlags, RenameFlags, openat, renameat_with, unlinkat};
use rustix::io::Errno;
use tokio::sync::OwnedMutexGuard;

use super::draft::{present, turn_key};
use super::edit::Planned;
use super::entry::{Encoder, Kind, Meta};
use super::history::{After, Captured, Change, Image};
use super::reach::Place;
use super::{Error, Fs, Located, Reach, Sha256Hex, blocking, shares};

const OPEN_DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

impl Fs {
    /// What a path leads to, as the JSON of the contract; with `follows` false, a link is itself.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Outside`], [`Error::Denied`].
    pub async fn stat(&self, reach: &Reach, at: Located, follows: bool) -> Result<Vec<u8>, Error> {
        let reach = reach.clone();
        blocking(move || {
            let nofollow = if follows { OFlags::empty() } else { OFlags::NOFOLLOW };
            let file = reach.open(&at, OFlags::PATH | nofollow, Mode::empty())?;
            let meta = Meta::of_open(&file).map_err(|errno| Error::of("look at", at.path(), errno))?;
            let mut encoder = Encoder::new(Vec::with_capacity(256));
            let target = shares::link(file.as_fd(), b"", meta.kind);
            encoder.entry(None, at.path().as_os_str().as_bytes(), &meta, target.as_deref());
            encoder.details(&meta);
            encoder.push("}");
            Ok(encoder.into_bytes())
        })
        .await
    }

    /// Makes a directory and those above it; one that is there is as good.
    ///
    /// # Errors
    /// [`Error::NotADirectory`] when something else has the name, [`Error::Outside`], [`Error::Denied`].
    pub async fn make_directory(&self, reach: &Reach, at: Located) -> Result<(), Error> {
        let (fs, reach) = (self.clone(), reach.clone());
        blocking(move || {
            if fs.inner.journal.get().is_none() || !matches!(reach.directory(&at), Err(Error::NotFound(_))) {
                return reach.make(&at).map(drop);
            }
            let above = reach.missing_above(&at).len();
            reach.make(&at)?;
            let place = reach.place(&at, false)?;
            let made = Captured::of(&place, fs.keep_limits())?;
            let mut change = Change::new("mkdir", &reach, place.real_path(), Captured::default(), After::Captured(made));
            change.made_above(above);
            fs.note(change);
            Ok(())
        })
        .await
    }

    /// Removes what has a name: a link, not what it leads to; a directory that holds anything only when `recursive`.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Os`] with `ENOTEMPTY`, [`Error::Stale`], [`Error::Outside`], [`Error::Denied`], [`Error::Invalid`] for
    /// what must not go: the roots, the home, the root directory.
    pub async fn remove(&self, reach: &Reach, at: Located, recursive: bool) -> Result<(), Error> {
        let alone = self.alone(&at).await;
        let (fs, reach) = (self.clone(), reach.clone());
        let removed = blocking(move || {
            let _alone = alone;
            let place = reach.place(&at, false)?;
            let meta = present(&place)?.ok_or_else(|| Error::NotFound(at.path().to_path_buf()))?;
            reach.spare(&at, &meta)?;
            let failed = |errno| Error::of("remove", at.path(), errno);
            fs.may_lose(&reach, &place, &meta)?;
            let was = fs.keep(&place, &meta);
            let removed = match meta.kind {
                Kind::Directory if recursive => remove_tree(&place),
                Kind::Directory => unlinkat(&place.directory, &place.name, AtFlags::REMOVEDIR),
                _ => unlinkat(&place.directory, &place.name, AtFlags::empty()),
            };
            let after = match removed {
                Ok(()) => After::Known(Image::default()),
                // What a removal left when it broke off.
                Err(_) => match Captured::of(&place, fs.keep_limits()) {
                    Ok(left) if left.is_less_than(&was) => After::Captured(left),
                    _ => return removed.map_err(failed),
                },
            };
            fs.note(Change::new("delete", &reach, place.real_path(), was, after));
            removed.map_err(failed)
        });
        self.explained(removed.await).await
    }

    /// Gives something another name, perhaps in another directory, which is made. Nothing is lost when it fails: what had
    /// the name before, which goes only with `overwrite`, is there until the other one is. Dropping the future doesn't stop
    /// it.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::DestinationExists`], [`Error::Invalid`] for a directory that shall move into itself,
    /// [`Error::Stale`] when what would go is newer than what the author saw, [`Error::Outside`], [`Error::Denied`], [`Error::NoSpace`].
    pub async fn relocate(&self, reach: &Reach, from: Located, to: Located, overwrite: bool) -> Result<(), Error> {
        let alone = self.alone_with_both(&from, &to).await;
        let (fs, reach) = (self.clone(), reach.clone());
        let moved = blocking(move || {
            let _alone = alone;
            let source = reach.place(&from, false)?;
            let meta = present(&source)?.ok_or_else(|| Error::NotFound(from.path().to_path_buf()))?;
            reach.spare(&from, &meta)?;
            let keeps = fs.inner.journal.get().is_some();
            let above = reach.missing_above(&to).len();
            let destination = reach.place(&to, true)?;
            let failed = |error| {
                destination.remove_made(above);
                error
            };
            let there = present(&destination)?;
            if there.is_some() && !overwrite {
                return Err(Error::DestinationExists(to.path().to_path_buf()));
            }
            if let Some(there) = &there {
                reach.spare(&to, there)?;
            }
            if !keeps || there.as_ref().is_some_and(|there| there.id == meta.id && is_same_name(&source, &destination)) {
                return rename(&source, &meta, &destination, there.as_ref()).map_err(failed)?;
            }
            if let Some(there) = &there {
                fs.may_lose(&reach, &destination, there)?;
            }
            let was = there.as_ref().map(|there| fs.keep(&destination, there)).unwrap_or_default();
            let moved = Captured::moved(&source, &meta, fs.keep_limits());
            let origin = source.real_path();
            let cleared = rename(&source, &meta, &destination, there.as_ref()).map_err(failed)?;
            fs.put_there(&reach, &origin, &destination);
            let mut change = Change::new("move", &reach, destination.real_path(), was, After::Captured(moved));
            change.from = Some(origin);
            change.made_above(above);
            fs.note(change);
            cleared
        });
        self.explained(moved.await).await
    }

    /// Changes of either path come one after another. Who moves one to the other and who moves it back take them in the same
    /// order: nobody waits for somebody who waits for him.
    async fn alone_with_both(&self, one: &Located, other: &Located) -> (OwnedMutexGuard<()>, Option<OwnedMutexGuard<()>>) {
        let (first, second) = if turn_key(one) <= turn_key(other) { (one, other) } else { (other, one) };
        let held = self.alone(first).await;
        (held, if turn_key(first) == turn_key(second) { None } else { Some(self.alone(second).await) })
    }
}

impl Fs {
    /// The hash of a file's content. Blocks.
    pub(super) fn hash_at(&self, place: &Place, meta: &Meta) -> Result<Sha256Hex, Error> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat(&place.directory, &place.name, flags, Mode::empty());
        let file = file.map_err(|errno| Error::of("read", &place.path, errno))?.into();
        self.inner.hashes.of(&file, meta).map_err(|error| Error::io("read", &place.path, &error))
    }

    /// The end of an edit that leaves nothing. Blocks.
    pub(super) fn remove_edited(
        &self,
        reach: &Reach,
        planned: Planned,
        at: &Located,
        is_guarded: bool,
    ) -> Result<Option<String>, Error> {
        let place = reach.target(at, false)?;
        let meta = present(&place)?.ok_or_else(|| Error::NotFound(at.path().to_path_buf()))?;
        if is_guarded {
            self.may_lose(reach, &place, &meta)?;
        }
        let found = self.hash_at(&place, &meta)?;
        if planned.old.as_deref().map(Sha256Hex::of).as_ref() != Some(&found) {
            return Err(Error::Changed { path: at.path().to_path_buf(), found: Some(found.as_str().to_owned()) });
        }
        let was = self.keep(&place, &meta);
        let removed = unlinkat(&place.directory, &place.name, AtFlags::empty());
        removed.map_err(|errno| Error::of("remove", at.path(), errno))?;
        let mut change = Change::new("edit", reach, place.real_path(), was, After::Known(Image::default()));
        change.diff = Some(planned.diff);
        Ok(self.note(change))
    }
}

impl Reach {
    /// Refuses what must not go.
    fn spare(&self, at: &Located, meta: &Meta) -> Result<(), Error> {
        if meta.kind == Kind::Directory && self.needs(meta) {
            return Err(Error::Invalid(format!("{} must stay: it holds everything else", at.path().display())));
        }
        Ok(())
    }
}

impl Place {
    /// Of the directories above it, so many were made for something that failed: they go, as far as they are empty.
    pub(super) fn remove_made(&self, count: usize) {
        let real = self.real_path();
        let mut below = self.directory.try_clone().ok();
        for name in real.ancestors().skip(1).take(count).filter_map(std::path::Path::file_name) {
            // Upwards from what is held: whatever has the path by now is left alone.
            let Some(directory) = below else { return };
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let Ok(above) = openat(&directory, "..", flags, Mode::empty()) else { return };
            if unlinkat(&above, name, AtFlags::REMOVEDIR).is_err() {
                return;
            }
            below = Some(above);
        }
    }
}

/// Renames so that nothing is lost: an error says that nothing was moved, one within that something was, but that what went
/// is still there, or a part of it.
fn rename(source: &Place, meta: &Meta, destination: &Place, there: Option<&Meta>) -> Result<Result<(), Error>, Error> {
    let failed = |errno| Error::of("move", &destination.path, errno);
    let rename = |flags| renameat_with(&source.directory, &source.name, &destination.directory, &destination.name, flags);
    match there {
        None => match rename(RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => Err(Error::DestinationExists(destination.path.clone())),
            Err(Errno::INVAL) if meta.kind != Kind::Directory => rename(RenameFlags::empty()).map(Ok).map_err(failed),
            Err(Errno::XDEV) => super::copy::across(source, meta, destination),
            renamed => renamed.map(Ok).map_err(failed),
        },
        // Two names of one file: rename(2) would leave both.
        Some(there) if there.id == meta.id && is_same_name(source, destination) => Ok(Ok(())),
        Some(there) if there.id == meta.id && meta.kind != Kind::Directory => Ok(clear(source, meta.kind)),
        Some(there) => match rename(RenameFlags::EXCHANGE) {
            // What was there has the source's name now.
            Ok(()) => Ok(clear(source, there.kind)),
            Err(Errno::INVAL | Errno::NOSYS) if meta.kind != Kind::Directory && there.kind != Kind::Directory => {
                rename(RenameFlags::empty()).map(Ok).map_err(failed)
            }
            Err(Errno::XDEV) => {
                // Copied beside what is there, and then in its place; the original goes last.
                let copy = super::copy::copied_beside(source, meta, destination)?;
                let replaced = self::rename(&copy, meta, destination, Some(there));
                let replaced = replaced.inspect_err(|_| super::copy::discard(&copy))?;
                Ok(replaced.and_then(|()| clear(source, meta.kind)))
            }
            Err(errno) => Err(failed(errno)),
        },
    }
}

/// Removes what is in the way by now.
pub(super) fn clear(place: &Place, kind: Kind) -> Result<(), Error> {
    let removed = match kind {
        Kind::Directory => remove_tree(place),
        _ => unlinkat(&place.directory, &place.name, AtFlags::empty()),
    };
    removed.map_err(|errno| Error::of("remove", &place.path, errno))
}

fn is_same_name(one: &Place, other: &Place) -> bool {
    let directory = |place: &Place| Meta::of_open(&place.directory).map(|meta| meta.id).ok();
    one.name == other.name && directory(one) == directory(other)
}

/// Removes a directory with all that it holds, on one file system: what is mounted below stays, and ends it with `EBUSY`.
/// Follows no link, and uses neither stack nor descriptors for depth.
pub(super) fn remove_tree(place: &Place) -> Result<(), Errno> {
    let mut here = openat(&place.directory, &place.name, OPEN_DIRECTORY, Mode::empty())?;
    let top = Meta::of_open(&here)?.id;
    // Directories on the way down: what each is, and its name in the one before.
    let mut way = vec![(top, place.name.clone())];
    loop {
        if let Some((name, below)) = empty(&here, top.0)? {
            way.push((Meta::of_open(&below)?.id, name));
            here = below;
            continue;
        }
        let name = way.pop().map_or_else(|| place.name.clone(), |(_, name)| name);
        let Some((above, _)) = way.last() else { return unlinkat(&place.directory, &name, AtFlags::REMOVEDIR) };
        here = up(&here, *above)?;
        unlinkat(&here, &name, AtFlags::REMOVEDIR)?;
    }
}

/// The directory above one that is held: `ESTALE` when that isn't the one that it was found in.
pub(super) fn up(here: &OwnedFd, known: (u64, u64)) -> Result<OwnedFd, Errno> {
    let above = openat(here, "..", OPEN_DIRECTORY, Mode::empty())?;
    if Meta::of_open(&above)?.id == known { Ok(above) } else { Err(Errno::STALE) }
}

/// Removes what a directory holds until it meets another directory that isn't empty.
fn empty(directory: &OwnedFd, device: u64) -> Result<Option<(OsString, OwnedFd)>, Errno> {
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let refused = match unlinkat(directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => continue,
            Err(errno @ (Errno::ISDIR | Errno::PERM)) => errno,
            Err(errno) => return Err(errno),
        };
        if unlinkat(directory, name, AtFlags::REMOVEDIR).is_ok() {
            continue;
        }
        let below = openat(directory, name, OPEN_DIRECTORY, Mode::empty());
        let below = below.map_err(|errno| if errno == Errno::NOTDIR { refused } else { errno })?;
        if Meta::of_open(&below)?.id.0 != device {
            return Err(Errno::BUSY);
        }
        return Ok(Some((OsStr::from_bytes(name.to_bytes()).to_owned(), below)));
    }
    Ok(None)
}
