//! Where a draft grows, and how it takes its place.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{
    Access, AtFlags, CWD, FallocateFlags, Mode, OFlags, RenameFlags, accessat, fallocate, linkat, openat, renameat_with, unlinkat,
};
use rustix::io::Errno;

use super::{Draft, Expected, FILE_MODE, Fsync, PREFIX, Sha256Hex};
use crate::fs::Error;
use crate::fs::entry::Meta;
use crate::fs::reach::Place;
use crate::rt::ids::new_id;

const READ_WRITE: OFlags = OFlags::RDWR.union(OFlags::CLOEXEC);

/// A name beside the place; it goes when nobody takes it over.
pub(super) struct Temporary {
    place: Arc<Place>,
    name: String,
    /// False until a nameless file gets it.
    is_there: bool,
    is_kept: bool,
}

impl Temporary {
    /// One that stays when it is dropped.
    pub(super) fn kept(place: Arc<Place>, name: String) -> Self {
        Self { place, name, is_there: true, is_kept: true }
    }

    /// Gives a nameless file its name.
    fn link(&mut self, file: &File) -> Result<(), Errno> {
        if !self.is_there {
            linkat(CWD, by_descriptor(file), &self.place.directory, &self.name, AtFlags::SYMLINK_FOLLOW)?; // see open(2), O_TMPFILE
            self.is_there = true;
        }
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if self.is_there && !self.is_kept {
            let _ = unlinkat(&self.place.directory, &self.name, AtFlags::empty()); // it may be gone with its directory
        }
    }
}

fn new_name() -> String {
    format!("{PREFIX}{}", new_id("w"))
}

fn by_descriptor(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// Makes a file for what shall be at a place, with a name beside it; `None` when nothing can be made there: then its content
/// is copied into what is there.
pub(super) type Make = fn(&Arc<Place>) -> Result<(File, Option<Temporary>), Errno>;

/// With a name from the beginning: the cheapest.
pub(super) fn named(place: &Arc<Place>) -> Result<(File, Option<Temporary>), Errno> {
    let name = new_name();
    let flags = READ_WRITE | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
    match openat(&place.directory, &name, flags, FILE_MODE) {
        Ok(file) => {
            let temporary = Temporary { place: Arc::clone(place), name, is_there: true, is_kept: false };
            Ok((file.into(), Some(temporary)))
        }
        Err(errno) => elsewhere(place, errno),
    }
}

/// Without one where that can be: a kill in the middle leaves nothing, and nobody sees it grow.
pub(super) fn nameless_if_possible(place: &Arc<Place>) -> Result<(File, Option<Temporary>), Errno> {
    match openat(&place.directory, ".", READ_WRITE | OFlags::TMPFILE, FILE_MODE).map(File::from) {
        // Without /proc it could get no name.
        Ok(file) if Path::new(&by_descriptor(&file)).exists() => {
            let temporary = Temporary { place: Arc::clone(place), name: new_name(), is_there: false, is_kept: false };
            Ok((file, Some(temporary)))
        }
        _ => named(place),
    }
}

/// A directory that we may not write in, with a file that we may.
fn elsewhere(place: &Place, errno: Errno) -> Result<(File, Option<Temporary>), Errno> {
    let is_closed = matches!(errno, Errno::ACCESS | Errno::PERM | Errno::ROFS);
    let may_write = || accessat(&place.directory, &place.name, Access::WRITE_OK, AtFlags::empty()).is_ok();
    if !is_closed || !may_write() {
        return Err(errno);
    }
    Ok((nameless(&std::env::temp_dir())?.into(), None))
}

fn nameless(directory: &Path) -> Result<OwnedFd, Errno> {
    openat(CWD, directory, READ_WRITE | OFlags::TMPFILE, Mode::RUSR | Mode::WUSR)
}

impl Draft {
    /// Blocks.
    pub(super) fn take_place(&mut self, expected: &Expected, before: Option<&Meta>) -> Result<(), Error> {
        let Some(temporary) = &mut self.temporary else { return self.copy_into() };
        temporary.link(&self.file).map_err(|errno| Error::of("write", self.at.path(), errno))?;
        let (place, beside) = (Arc::clone(&self.place), temporary.name.clone());
        let rename = |flags| renameat_with(&place.directory, &beside, &place.directory, &place.name, flags);
        let renamed = match (expected, before) {
            (Expected::Nothing, _) => rename(RenameFlags::NOREPLACE),
            (Expected::Content(any), Some(_)) => match rename(RenameFlags::EXCHANGE) {
                Ok(()) => return self.look_at_what_came_out(any, &beside),
                Err(Errno::INVAL | Errno::NOSYS) => rename(RenameFlags::empty()), // not on this file system
                failed => failed,
            },
            _ => rename(RenameFlags::empty()),
        };
        match renamed {
            Ok(()) => {
                self.keep_temporary();
                Ok(())
            }
            Err(Errno::EXIST) => Err(self.changed(self.hash_of(&place.name)?)),
            // A file that something is mounted on, as /etc/hosts in containers.
            Err(Errno::BUSY | Errno::XDEV) => self.copy_into(),
            Err(errno) => Err(Error::of("write", self.at.path(), errno)),
        }
    }

    /// Whoever writes without asking us may do so until the last moment. What came out goes with the draft when it is what
    /// was expected; else both are put back.
    fn look_at_what_came_out(&mut self, any: &[Sha256Hex], beside: &str) -> Result<(), Error> {
        let found = self.hash_of(beside);
        if let Ok(Some(hash)) = &found
            && any.contains(hash)
        {
            return Ok(());
        }
        let (directory, name) = (&self.place.directory, &self.place.name);
        if let Err(errno) = renameat_with(directory, beside, directory, name, RenameFlags::EXCHANGE) {
            // Nobody else has it: it stays beside.
            tracing::error!(path = %self.place.path.display(), beside, %errno, "what was replaced by mistake lies beside its place");
            self.keep_temporary();
        }
        Err(self.changed(found?))
    }

    fn keep_temporary(&mut self) {
        self.temporary.iter_mut().for_each(|temporary| temporary.is_kept = true);
    }

    fn changed(&self, found: Option<Sha256Hex>) -> Error {
        Error::Changed { path: self.at.path().to_path_buf(), found: found.map(|hash| hash.as_str().to_owned()) }
    }

    /// What can't be replaced is written in place. Room for it is made first; what breaks off all the same is undone as far
    /// as the old content is kept.
    fn copy_into(&mut self) -> Result<(), Error> {
        self.was.read_now(self.fs.keep_limits());
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let place = openat(&self.place.directory, &self.place.name, flags, Mode::empty());
        let place = File::from(place.map_err(|errno| Error::of("write", self.at.path(), errno))?);
        self.overwrite(&place).map_err(|error| {
            if let Some(old) = self.was.bytes_of_file()
                && let Err(again) = write_whole(&place, &mut &old[..])
            {
                tracing::error!(path = %self.place.path.display(), %again, "what was written in part can't be undone");
            }
            self.failed(&error)
        })
    }

    fn overwrite(&self, place: &File) -> io::Result<()> {
        // Else it is done, or the file system can't.
        if let Err(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) = fallocate(place, FallocateFlags::KEEP_SIZE, 0, self.size.max(1)) {
            return Err(Errno::NOSPC.into());
        }
        io::Seek::rewind(&mut &self.file)?;
        write_whole(place, &mut &self.file)?;
        if self.fsync == Fsync::Yes { place.sync_all() } else { Ok(()) }
    }
}

fn write_whole(place: &File, content: &mut impl io::Read) -> io::Result<()> {
    io::Seek::rewind(&mut &*place)?;
    let length = io::copy(content, &mut &*place)?;
    place.set_len(length)
}
