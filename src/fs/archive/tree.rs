//! The directory that an archive is unpacked in: everything is made by name in directories that are held, and no link is
//! ever followed, whoever made it.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, mkdirat, openat};
use rustix::io::Errno;

use super::super::Error;
use super::super::entry::{Kind, Meta};

const STEP: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// As far as the umask lets.
const DIRECTORY_MODE: Mode = Mode::from_bits_retain(0o777);

/// A destination. Keeps the directories open that lead to where it was last: neighbours in an archive share them.
pub(super) struct Tree {
    root: OwnedFd,
    /// As a path, for people.
    shown: PathBuf,
    open: Vec<(OsString, OwnedFd)>,
}

impl Tree {
    pub(super) fn new(root: OwnedFd, shown: PathBuf) -> Self {
        Self { root, shown, open: Vec::new() }
    }

    /// A path in it as clients see it.
    pub(super) fn shown(&self, below: &Path) -> PathBuf {
        self.shown.join(below)
    }

    /// The directory that holds `path`, made when it isn't there, and the name in it.
    ///
    /// # Errors
    /// [`Error::Invalid`] when a link is on the way.
    pub(super) fn place<'a>(&mut self, path: &'a Path) -> Result<(BorrowedFd<'_>, &'a OsStr), Error> {
        let name = path.file_name().ok_or_else(|| Error::Invalid(format!("invalid relative path: {}", path.display())))?;
        let parent = path.parent().unwrap_or(Path::new(""));
        Ok((self.directory(parent)?, name))
    }

    /// A directory, made when it isn't there.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is a link, or one is on the way.
    pub(super) fn directory(&mut self, path: &Path) -> Result<BorrowedFd<'_>, Error> {
        let names = || path.iter();
        let shared = self.open.iter().zip(names()).take_while(|((open, _), name)| open == name).count();
        self.open.truncate(shared);
        for (at, name) in names().enumerate().skip(shared) {
            let here = self.open.last().map_or(self.root.as_fd(), |(_, directory)| directory.as_fd());
            let step = step(here, name).map_err(|errno| {
                let path: PathBuf = self.shown.join(names().take(at + 1).collect::<PathBuf>());
                refusal(here, name, &path, errno)
            })?;
            self.open.push((name.to_owned(), step));
        }
        Ok(self.open.last().map_or(self.root.as_fd(), |(_, directory)| directory.as_fd()))
    }

    /// The directory that holds `path`, to be held beside another; nothing is made.
    pub(super) fn parent_of(&self, path: &Path) -> Result<OwnedFd, Error> {
        let failed = |errno| Error::of("open", &self.shown.join(path), errno);
        let mut here = openat(&self.root, ".", STEP, Mode::empty()).map_err(failed)?;
        for name in path.parent().unwrap_or(Path::new("")).iter() {
            here = openat(&here, name, STEP, Mode::empty()).map_err(failed)?;
        }
        Ok(here)
    }
}

fn step(here: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Errno> {
    match openat(here, name, STEP, Mode::empty()) {
        Err(Errno::NOENT) => match mkdirat(here, name, DIRECTORY_MODE) {
            Ok(()) | Err(Errno::EXIST) => openat(here, name, STEP, Mode::empty()), // somebody else may have made it
            Err(errno) => Err(errno),
        },
        opened => opened,
    }
}

fn refusal(here: BorrowedFd<'_>, name: &OsStr, path: &Path, errno: Errno) -> Error {
    let is_link = Meta::of(here, Path::new(name)).is_ok_and(|meta| meta.kind == Kind::Symlink);
    match errno {
        Errno::NOTDIR | Errno::LOOP if is_link => {
            Error::Invalid(format!("{} is a link: nothing is unpacked through links", path.display()))
        }
        errno => Error::of("unpack", path, errno),
    }
}
