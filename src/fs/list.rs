//! What a directory holds: names are read a share at a time, looked at by several threads, and written as JSON at once.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::{Mode, OFlags, RawDir};
use rustix::io::Errno;
use tokio::sync::mpsc;

use super::entry::Prefix;
use super::shares::{self, Name, Share};
use super::{Error, Fs, Located, Reach, blocking};
use crate::rt::spawn_owned;

/// Names behind which a piece ends: what a listing costs in memory, whatever the directory holds.
const PIECE_NAMES: usize = 8192;
/// Of names that are read at once: some eight hundred, one thread's share.
const READ_BYTES: usize = 32 * 1024;

/// A directory as the JSON array of its entries.
#[derive(Debug)]
pub enum Listing {
    /// All of it.
    Whole(Bytes),
    /// A piece at a time; the last one may be an error, after which nothing is whole.
    Pieces(mpsc::Receiver<Result<Bytes, Error>>),
}

impl Fs {
    /// The entries of a directory as they come, in JSON. Dropping what it gives ends it.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotADirectory`], [`Error::Outside`], [`Error::Denied`],
    /// [`Error::Busy`].
    pub async fn list(&self, reach: &Reach, at: Located, hidden: bool) -> Result<Listing, Error> {
        let reach = reach.clone();
        let begin = move || {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK;
            let directory = match reach.open(&at, flags, Mode::empty()) {
                Err(Error::Os { errno, .. }) if errno == Errno::NOTDIR.raw_os_error() => {
                    return Err(Error::NotADirectory(at.path().to_path_buf()));
                }
                opened => opened?,
            };
            let mut entries = Entries::new(directory, at, hidden);
            let first = entries.piece()?;
            Ok((entries, first))
        };
        let (entries, first) = blocking(begin).await?;
        if entries.is_over {
            return Ok(Listing::Whole(first));
        }
        let permit = self.transfer()?;
        let (pieces, received) = mpsc::channel(1);
        spawn_owned("fs-list", async move {
            let _permit = permit;
            // A reader that leaves closes the channel, which ends the thread.
            let rest = blocking(move || {
                rest(entries, first, &pieces);
                Ok(())
            });
            let _ = rest.await;
        });
        Ok(Listing::Pieces(received))
    }
}

fn rest(mut entries: Entries, first: Bytes, pieces: &mpsc::Sender<Result<Bytes, Error>>) {
    let mut next = Ok(first);
    loop {
        let failed = next.is_err();
        if pieces.blocking_send(next).is_err() || failed || entries.is_over {
            return;
        }
        next = entries.piece();
    }
}

/// The entries of a directory, on their way into an array.
struct Entries {
    directory: Arc<Directory>,
    at: Located,
    hidden: bool,
    buffer: Vec<MaybeUninit<u8>>,
    /// The array has its `[`.
    is_begun: bool,
    /// It has no entry yet.
    is_empty: bool,
    /// No name is left.
    is_over: bool,
}

struct Directory {
    fd: OwnedFd,
    prefix: Prefix,
}

impl Entries {
    fn new(fd: OwnedFd, at: Located, hidden: bool) -> Self {
        let directory = Arc::new(Directory { fd, prefix: Prefix::new(at.path()) });
        let buffer = vec![MaybeUninit::uninit(); READ_BYTES];
        Self { directory, at, hidden, buffer, is_begun: false, is_empty: true, is_over: false }
    }

    /// The next piece of the array, from its `[` to its `]`.
    fn piece(&mut self) -> Result<Bytes, Error> {
        let mut out = Vec::new();
        match (self.is_begun, self.is_empty) {
            (false, _) => out.push(b'['),
            (true, false) => out.push(b','),
            (true, true) => {}
        }
        let (is_first, mut taken, mut failed) = (!std::mem::replace(&mut self.is_begun, true), 0, None);
        let mut next = || {
            let share = if taken < PIECE_NAMES { self.next() } else { Ok(None) };
            let share = share.unwrap_or_else(|errno| {
                failed = Some(errno);
                None
            })?;
            taken += share.ends.len();
            Some(share)
        };
        let is_any = shares::encode(&mut out, &mut next);
        if let Some(errno) = failed {
            return Err(Error::of("list", self.at.path(), errno));
        }
        if !is_any && !is_first {
            out.clear(); // no entry follows the comma
        }
        self.is_empty &= !is_any;
        if self.is_over {
            out.push(b']');
        }
        Ok(out.into())
    }

    /// What the kernel gives at once. `None` at the end.
    fn next(&mut self) -> Result<Option<Names>, Errno> {
        if self.is_over {
            return Ok(None);
        }
        let mut names = Names { directory: Arc::clone(&self.directory), text: Vec::new(), ends: Vec::new() };
        let mut entries = RawDir::new(self.directory.fd.as_fd(), &mut self.buffer);
        loop {
            let Some(entry) = entries.next() else {
                self.is_over = true;
                return Ok((!names.ends.is_empty()).then_some(names));
            };
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if !matches!(name, b"." | b"..") && (self.hidden || !name.starts_with(b".")) {
                names.text.extend_from_slice(name);
                names.ends.push(names.text.len());
            }
            // What the kernel gave at once is taken at once: the position in the directory is behind it.
            if entries.is_buffer_empty() && !names.ends.is_empty() {
                return Ok(Some(names));
            }
        }
    }
}

/// Some names of a directory.
struct Names {
    directory: Arc<Directory>,
    /// One behind another.
    text: Vec<u8>,
    ends: Vec<usize>,
}

impl Share for Names {
    fn len(&self) -> usize {
        self.ends.len()
    }

    fn name(&self, at: usize) -> Name<'_> {
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        let name = &self.text[start..self.ends[at]];
        Name { directory: self.directory.fd.as_fd(), prefix: &self.directory.prefix, name }
    }
}
