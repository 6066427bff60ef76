//! What a directory holds: names are read in batches, looked at by several threads, and written as JSON at once.

use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use bytes::Bytes;
use rustix::fs::{Mode, OFlags, RawDir, readlinkat};
use rustix::io::Errno;
use tokio::sync::mpsc;

use super::entry::{Encoder, Kind, Meta, Prefix};
use super::{Error, Fs, Located, Reach, blocking};
use crate::rt::spawn_owned;

/// Names that are looked at together: what a listing costs in memory, whatever the directory holds.
const BATCH: usize = 8192;
/// Fewer names than this aren't worth a thread.
const SHARE_MIN: usize = 512;
const THREADS_MAX: usize = 4;
const READ_BYTES: usize = 256 * 1024;
/// A name, its path and the rest of an entry, about.
const ENTRY_BYTES: usize = 160;

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
            let mut names = Names::new(directory, hidden);
            let failed = |errno| Error::of("list", at.path(), errno);
            let prefix = Prefix::new(at.path());
            let is_all = names.fill().map_err(failed)?;
            let first = names.encode(&prefix, true);
            Ok((names, prefix, at, first, is_all))
        };
        let (names, prefix, at, first, is_all) = blocking(begin).await?;
        if is_all {
            return Ok(Listing::Whole([&first[..], b"]"].concat().into()));
        }
        let permit = self.transfer()?;
        let (pieces, received) = mpsc::channel(1);
        spawn_owned("fs-list", async move {
            let _permit = permit;
            // A reader that leaves closes the channel, which ends the thread.
            let rest = blocking(move || {
                rest(names, &prefix, &at, first.into(), &pieces);
                Ok(())
            });
            let _ = rest.await;
        });
        Ok(Listing::Pieces(received))
    }
}

fn rest(mut names: Names, prefix: &Prefix, at: &Located, first: Bytes, pieces: &mpsc::Sender<Result<Bytes, Error>>) {
    let mut next = Ok(first);
    loop {
        let failed = next.is_err();
        if pieces.blocking_send(next).is_err() || failed {
            return;
        }
        next = match names.fill() {
            Err(errno) => Err(Error::of("list", at.path(), errno)),
            Ok(is_last) => {
                let piece = names.encode(prefix, false);
                if is_last {
                    let _ = pieces.blocking_send(Ok([&piece[..], b"]"].concat().into())); // a reader that left
                    return;
                }
                Ok(piece.into())
            }
        };
    }
}

/// Names of a directory, a batch at a time.
struct Names {
    directory: OwnedFd,
    hidden: bool,
    buffer: Vec<MaybeUninit<u8>>,
    /// One behind another.
    text: Vec<u8>,
    ends: Vec<usize>,
}

impl Names {
    fn new(directory: OwnedFd, hidden: bool) -> Self {
        Self { directory, hidden, buffer: vec![MaybeUninit::uninit(); READ_BYTES], text: Vec::new(), ends: Vec::new() }
    }

    /// Reads the next batch; true when it is the last.
    fn fill(&mut self) -> Result<bool, Errno> {
        self.text.clear();
        self.ends.clear();
        let mut entries = RawDir::new(self.directory.as_fd(), &mut self.buffer);
        loop {
            let Some(entry) = entries.next() else { return Ok(true) };
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            let is_shown = !matches!(name, b"." | b"..") && (self.hidden || !name.starts_with(b"."));
            if is_shown {
                self.text.extend_from_slice(name);
                self.ends.push(self.text.len());
            }
            // What the kernel gave at once is taken at once: the position in the directory is behind it.
            if self.ends.len() >= BATCH && entries.is_buffer_empty() {
                return Ok(false);
            }
        }
    }

    fn name(&self, at: usize) -> &[u8] {
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        &self.text[start..self.ends[at]]
    }

    /// The batch as entries behind `[`, or behind a comma.
    fn encode(&self, prefix: &Prefix, is_first: bool) -> Vec<u8> {
        let count = self.ends.len();
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX).min(count / SHARE_MIN + 1);
        let share = count.div_ceil(threads).max(1);
        let encode = |from: usize| self.encode_some(prefix, from, (from + share).min(count));
        let parts: Vec<Vec<u8>> = if threads == 1 {
            vec![encode(0)]
        } else {
            std::thread::scope(|scope| {
                let others: Vec<_> = (1..threads).map(|part| scope.spawn(move || encode(part * share))).collect();
                let mut parts = vec![encode(0)];
                parts.extend(others.into_iter().filter_map(|part| part.join().ok())); // a panic is in the log
                parts
            })
        };
        let mut out = Vec::with_capacity(parts.iter().map(Vec::len).sum::<usize>() + 2);
        out.extend_from_slice(if is_first { b"[" } else { b"" });
        let mut is_empty = is_first;
        for part in parts.iter().filter(|part| !part.is_empty()) {
            if !std::mem::take(&mut is_empty) {
                out.push(b',');
            }
            out.extend_from_slice(part);
        }
        out
    }

    fn encode_some(&self, prefix: &Prefix, from: usize, to: usize) -> Vec<u8> {
        let mut encoder = Encoder::new(Vec::with_capacity(to.saturating_sub(from) * ENTRY_BYTES));
        let mut is_first = true;
        for at in from..to {
            let name = self.name(at);
            let Ok(meta) = Meta::of(self.directory.as_fd(), Path::new(OsStr::from_bytes(name))) else { continue }; // gone
            if !std::mem::take(&mut is_first) {
                encoder.push(",");
            }
            encoder.entry(Some(prefix), name, &meta, link(self.directory.as_fd(), name, meta.kind).as_deref());
            encoder.push("}");
        }
        encoder.into_bytes()
    }
}

/// What a link says.
pub(super) fn link(directory: BorrowedFd<'_>, name: &[u8], kind: Kind) -> Option<Vec<u8>> {
    (kind == Kind::Symlink).then(|| readlinkat(directory, name, Vec::new()).map(|target| target.into_bytes()).ok()).flatten()
}
