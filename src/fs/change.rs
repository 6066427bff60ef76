//! Directories, moves and removals. Everything is done by name in directories that are held, so that nobody can lead it
//! elsewhere meanwhile.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{AtFlags, Dir, Mode, OFlags, RenameFlags, openat, renameat_with, unlinkat};
use rustix::io::Errno;

use super::draft::{PREFIX, present};
use super::entry::{Encoder, Kind, Meta};
use super::reach::Place;
use super::{Error, Fs, Located, Reach, blocking, list};
use crate::rt::ids::new_id;

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
            let target = list::link(file.as_fd(), b"", meta.kind);
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
        let reach = reach.clone();
        blocking(move || reach.make(&at).map(drop)).await
    }

    /// Removes what has a name: a link, not what it leads to; a directory that holds anything only when `recursive`.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Os`] with `ENOTEMPTY`, [`Error::Outside`], [`Error::Denied`], [`Error::Invalid`] for
    /// what must not go: the roots, the home, the root directory.
    pub async fn remove(&self, reach: &Reach, at: Located, recursive: bool) -> Result<(), Error> {
        let _alone = self.alone(&at).await;
        let reach = reach.clone();
        blocking(move || {
            let place = reach.place(&at, false)?;
            let meta = present(&place)?.ok_or_else(|| Error::NotFound(at.path().to_path_buf()))?;
            reach.spare(&at, &meta)?;
            let failed = |errno| Error::of("remove", at.path(), errno);
            match meta.kind {
                Kind::Directory if recursive => remove_tree(&place).map_err(failed),
                Kind::Directory => unlinkat(&place.directory, &place.name, AtFlags::REMOVEDIR).map_err(failed),
                _ => unlinkat(&place.directory, &place.name, AtFlags::empty()).map_err(failed),
            }
        })
        .await
    }

    /// Gives something another name, perhaps in another directory, which is made. Nothing is lost when it fails: what had
    /// the name before, which goes only with `overwrite`, is there until the other one is.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::DestinationExists`], [`Error::Invalid`] for a directory that shall move into itself,
    /// [`Error::Outside`], [`Error::Denied`], [`Error::NoSpace`].
    pub async fn relocate(&self, reach: &Reach, from: Located, to: Located, overwrite: bool) -> Result<(), Error> {
        let _alone = (self.alone(&from).await, if from == to { None } else { Some(self.alone(&to).await) });
        let reach = reach.clone();
        blocking(move || {
            let source = reach.place(&from, false)?;
            let meta = present(&source)?.ok_or_else(|| Error::NotFound(from.path().to_path_buf()))?;
            reach.spare(&from, &meta)?;
            let destination = reach.place(&to, true)?;
            let there = present(&destination)?;
            if there.is_some() && !overwrite {
                return Err(Error::DestinationExists(to.path().to_path_buf()));
            }
            if let Some(there) = &there {
                reach.spare(&to, there)?;
            }
            rename(&source, &meta, &destination, there.as_ref())
        })
        .await
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

/// Renames so that nothing is lost.
fn rename(source: &Place, meta: &Meta, destination: &Place, there: Option<&Meta>) -> Result<(), Error> {
    let failed = |errno| Error::of("move", &destination.path, errno);
    let rename = |flags| renameat_with(&source.directory, &source.name, &destination.directory, &destination.name, flags);
    let remove = |place: &Place, kind| match kind {
        Kind::Directory => remove_tree(place),
        _ => unlinkat(&place.directory, &place.name, AtFlags::empty()),
    };
    match there {
        None => match rename(RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => Err(Error::DestinationExists(destination.path.clone())),
            Err(Errno::INVAL) if meta.kind != Kind::Directory => rename(RenameFlags::empty()).map_err(failed),
            Err(Errno::XDEV) => super::copy::across(source, meta, destination),
            renamed => renamed.map_err(failed),
        },
        // Two names of one file: rename(2) would leave both.
        Some(there) if there.id == meta.id && is_same_name(source, destination) => Ok(()),
        Some(there) if there.id == meta.id && meta.kind != Kind::Directory => remove(source, meta.kind).map_err(failed),
        Some(there) => match rename(RenameFlags::EXCHANGE) {
            // What was there has the source's name now.
            Ok(()) => remove(source, there.kind).map_err(failed),
            Err(Errno::INVAL | Errno::NOSYS) if meta.kind != Kind::Directory && there.kind != Kind::Directory => {
                rename(RenameFlags::empty()).map_err(failed)
            }
            Err(Errno::XDEV) => {
                // Copied beside what is there, and then in its place.
                let name = OsString::from(format!("{PREFIX}{}", new_id("m")));
                let beside = Place {
                    directory: destination.directory.try_clone().map_err(|error| Error::io("move", &destination.path, &error))?,
                    path: destination.path.with_file_name(&name),
                    name,
                };
                super::copy::across(source, meta, &beside)?;
                self::rename(&beside, meta, destination, Some(there))
            }
            Err(errno) => Err(failed(errno)),
        },
    }
}

fn is_same_name(one: &Place, other: &Place) -> bool {
    let directory = |place: &Place| Meta::of_open(&place.directory).map(|meta| meta.id).ok();
    one.name == other.name && directory(one) == directory(other)
}

/// Removes a directory with all that it holds, on one file system: what is mounted below stays, and ends it with `EBUSY`.
/// Follows no link, and uses no stack for depth.
pub(super) fn remove_tree(place: &Place) -> Result<(), Errno> {
    let top = openat(&place.directory, &place.name, OPEN_DIRECTORY, Mode::empty())?;
    let device = Meta::of_open(&top)?.id.0;
    // Directories on the way down, each with its name in the one before.
    let mut open: Vec<(OsString, OwnedFd)> = vec![(place.name.clone(), top)];
    while let Some((_, directory)) = open.last() {
        match empty(directory, device)? {
            Some((name, below)) => open.push((name, below)),
            None => {
                let Some((name, _)) = open.pop() else { break };
                let parent = open.last().map_or(place.directory.as_fd(), |(_, parent)| parent.as_fd());
                unlinkat(parent, &name, AtFlags::REMOVEDIR)?;
            }
        }
    }
    Ok(())
}

/// Removes what a directory holds until it meets another directory that isn't empty.
fn empty(directory: &OwnedFd, device: u64) -> Result<Option<(OsString, OwnedFd)>, Errno> {
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        match unlinkat(directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => continue,
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(errno) => return Err(errno),
        }
        if unlinkat(directory, name, AtFlags::REMOVEDIR).is_ok() {
            continue;
        }
        let below = openat(directory, name, OPEN_DIRECTORY, Mode::empty())?;
        if Meta::of_open(&below)?.id.0 != device {
            return Err(Errno::BUSY);
        }
        return Ok(Some((OsStr::from_bytes(name.to_bytes()).to_owned(), below)));
    }
    Ok(None)
}
