//! A file of an archive: nobody sees a half of it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek as _, Write as _};
use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, Timespec, Timestamps, fchmod, futimens, openat, renameat, unlinkat};
use rustix::io::Errno;

use super::super::Error;
use super::super::draft::PREFIX;
use crate::rt::ids::new_id;

/// For reading what is there, or changing what it is like.
pub(super) const OPEN_DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);
const CREATE: OFlags = OFlags::WRONLY.union(OFlags::CREATE).union(OFlags::EXCL).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// Up to this size a file is read before it is made, and then written at once under its own name.
const SMALL_BYTES: u64 = 64 * 1024;
/// So much of a larger one is read at a time.
const PIECE_BYTES: usize = 256 * 1024;

/// Removes what may not be there.
pub(super) fn discard(directory: BorrowedFd<'_>, name: &OsStr) {
    let _ = unlinkat(directory, name, AtFlags::empty()); // then there is nothing to remove
}

/// A file that is to be made in a directory that is held.
pub(super) struct New<'a> {
    pub(super) directory: BorrowedFd<'a>,
    pub(super) name: &'a OsStr,
    /// As a path, for people.
    pub(super) shown: &'a Path,
    pub(super) mode: u32,
    pub(super) modified: Timespec,
}

impl New<'_> {
    /// Writes it, and replaces the file or link that has the name. Leaves nothing when it fails.
    ///
    /// # Errors
    /// [`Error::Invalid`] when there is less content than was said, [`Error::NoSpace`], what else the system says.
    pub(super) fn write(&self, content: &mut impl Read, size: u64, is_sparse: bool) -> Result<(), Error> {
        if size > SMALL_BYTES || is_sparse {
            return self.beside(|file| self.stream(file, content, size, is_sparse));
        }
        let mut whole = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
        let read = content.take(size).read_to_end(&mut whole).map_err(|error| self.damaged(&error))?;
        if (read as u64) < size {
            return Err(self.short());
        }
        let put = |file: &mut File| file.write_all(&whole).map_err(|error| self.failed(&error));
        match self.create(self.name) {
            Ok(mut file) => {
                let made = put(&mut file).and_then(|()| self.be_as_said(&file));
                made.inspect_err(|_| discard(self.directory, self.name))
            }
            Err(Errno::EXIST) => self.beside(put),
            Err(errno) => Err(self.refused(errno)),
        }
    }

    /// Writes under a name of ours, and renames.
    fn beside(&self, put: impl FnOnce(&mut File) -> Result<(), Error>) -> Result<(), Error> {
        let draft = format!("{PREFIX}{}", new_id("x"));
        let mut file = self.create(OsStr::new(&draft)).map_err(|errno| self.refused(errno))?;
        let made = put(&mut file)
            .and_then(|()| self.be_as_said(&file))
            .and_then(|()| renameat(self.directory, &draft, self.directory, self.name).map_err(|errno| self.refused(errno)));
        made.inspect_err(|_| discard(self.directory, OsStr::new(&draft)))
    }

    fn create(&self, name: &OsStr) -> Result<File, Errno> {
        openat(self.directory, name, CREATE, Mode::RUSR | Mode::WUSR).map(File::from)
    }

    fn stream(&self, file: &mut File, content: &mut impl Read, size: u64, is_sparse: bool) -> Result<(), Error> {
        let mut piece = vec![0; PIECE_BYTES];
        let mut left = size;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE_BYTES);
            let read = content.read(&mut piece[..most]).map_err(|error| self.damaged(&error))?;
            if read == 0 {
                return Err(self.short());
            }
            left -= read as u64;
            let put = match &piece[..read] {
                zeros if is_sparse && zeros.iter().all(|byte| *byte == 0) => {
                    file.seek_relative(i64::try_from(read).unwrap_or_default()) // a hole stays one
                }
                piece => file.write_all(piece),
            };
            put.map_err(|error| self.failed(&error))?;
        }
        if is_sparse { file.set_len(size).map_err(|error| self.failed(&error)) } else { Ok(()) }
    }

    fn be_as_said(&self, file: &File) -> Result<(), Error> {
        fchmod(file, Mode::from_bits_retain(self.mode)).map_err(|errno| self.refused(errno))?;
        let times = Timestamps { last_access: self.modified, last_modification: self.modified };
        let _ = futimens(file, &times); // a time that the file system doesn't know
        Ok(())
    }

    fn failed(&self, error: &io::Error) -> Error {
        Error::io("unpack", self.shown, error)
    }

    fn refused(&self, errno: Errno) -> Error {
        Error::of("unpack", self.shown, errno)
    }

    fn short(&self) -> Error {
        Error::BrokeOff(format!("the archive ended within {}", self.shown.display()))
    }

    fn damaged(&self, error: &io::Error) -> Error {
        Error::BrokeOff(format!("{} can't be read from the archive: {error}", self.shown.display()))
    }
}
