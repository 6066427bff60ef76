//! Reading files: small ones at once, large ones a piece at a time, so that a transfer costs the same memory whatever its
//! size.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use rustix::fs::{Advice, Mode, OFlags, fadvise};
use tokio::sync::mpsc;

use super::entry::{Kind, Meta};
use super::hash::{Hasher, Validator};
use super::{Error, Fs, Located, Reach, blocking};
use crate::rt::spawn_owned;

/// One piece of a transfer; two are in memory at once.
const PIECE_BYTES: usize = 256 * 1024;
/// Up to this size a file is hashed before it is sent, so that its entity tag is that of its content.
const HASHED_MAX_BYTES: u64 = 4 * 1024 * 1024;

/// A regular file that is open for reading.
#[derive(Clone)]
pub struct Opened {
    file: Arc<File>,
    at: Located,
    /// What it was when it was opened.
    pub meta: Meta,
    /// Tells its content from others.
    pub validator: Validator,
}

/// A file's content, or a part of it.
#[derive(Debug)]
pub enum Content {
    /// All of it.
    Whole(Bytes),
    /// A piece at a time; so many bytes when that is known. An error ends it early.
    Pieces(Option<u64>, mpsc::Receiver<Result<Bytes, Error>>),
}

impl Fs {
    /// Opens a regular file. Never waits for what writes into a FIFO.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotAFile`], [`Error::Outside`], [`Error::Denied`].
    pub async fn open(&self, reach: &Reach, at: Located) -> Result<Opened, Error> {
        let (reach, fs) = (reach.clone(), self.clone());
        blocking(move || {
            let (file, meta) = open(&reach, &at)?;
            let validator = match fs.inner.hashes.get(&meta) {
                Some(hash) => Validator::Content(hash),
                None if meta.size <= HASHED_MAX_BYTES => {
                    let hash = fs.inner.hashes.of(&file, &meta);
                    Validator::Content(hash.map_err(|error| Error::io("read", at.path(), &error))?)
                }
                None => Validator::times(&meta),
            };
            Ok(Opened { file: Arc::new(file), at, meta, validator })
        })
        .await
    }

    /// The same with the hash of its content, which is read for that when it isn't known.
    ///
    /// # Errors
    /// The system's.
    pub async fn hashed(&self, opened: Opened) -> Result<Opened, Error> {
        let fs = self.clone();
        blocking(move || {
            let hash = fs.inner.hashes.of(&opened.file, &opened.meta);
            let validator = Validator::Content(hash.map_err(|error| Error::io("read", opened.at.path(), &error))?);
            Ok(Opened { validator, ..opened })
        })
        .await
    }

    /// The content of what was opened, or a part of it. Dropping what it gives ends it.
    ///
    /// # Errors
    /// [`Error::Busy`], and the system's.
    pub async fn read(&self, opened: &Opened, part: Option<Range<u64>>) -> Result<Content, Error> {
        let is_all = part.is_none();
        let range = part.unwrap_or(0..opened.meta.size);
        let length = range.end - range.start;
        // What the kernel makes up as it is read says that it has no size.
        let has_no_size = is_all && opened.meta.size == 0;
        let of = opened.clone();
        if length <= PIECE_BYTES as u64 && !has_no_size {
            return blocking(move || of.exactly(range).map(Content::Whole)).await;
        }
        let permit = self.transfer()?;
        let (pieces, received) = mpsc::channel(1);
        let fs = self.clone();
        spawn_owned("fs-read", async move {
            let _permit = permit;
            // A reader that leaves closes the channel, which ends the thread.
            let send = blocking(move || {
                let sent = if has_no_size { of.to_the_end(&pieces) } else { of.pieces(range, is_all, &fs, &pieces) };
                if let Err(error) = sent {
                    let _ = pieces.blocking_send(Err(error)); // a reader that left
                }
                Ok(())
            });
            let _ = send.await;
        });
        Ok(Content::Pieces((!has_no_size).then_some(length), received))
    }
}

/// Opens a regular file.
pub(super) fn open(reach: &Reach, at: &Located) -> Result<(File, Meta), Error> {
    // NONBLOCK: opening a FIFO would wait for its other end.
    let file = reach.open(at, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY, Mode::empty())?;
    let meta = Meta::of_open(&file).map_err(|errno| Error::of("look at", at.path(), errno))?;
    if meta.kind != Kind::File {
        return Err(Error::NotAFile(at.path().to_path_buf()));
    }
    Ok((file.into(), meta))
}

impl Opened {
    /// The path that it was opened by.
    pub fn at(&self) -> &Located {
        &self.at
    }

    fn exactly(&self, range: Range<u64>) -> Result<Bytes, Error> {
        let length = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let mut content = BytesMut::zeroed(length);
        let read = self.file.read_exact_at(&mut content, range.start);
        read.map_err(|error| self.torn(&error)).map(|()| content.freeze())
    }

    fn torn(&self, error: &std::io::Error) -> Error {
        match error.kind() {
            std::io::ErrorKind::UnexpectedEof => {
                Error::BrokeOff(format!("{} became shorter while it was read", self.at.path().display()))
            }
            _ => Error::io("read", self.at.path(), error),
        }
    }

    fn pieces(&self, range: Range<u64>, is_all: bool, fs: &Fs, pieces: &mpsc::Sender<Result<Bytes, Error>>) -> Result<(), Error> {
        let _ = fadvise(&*self.file, 0, None, Advice::Sequential); // only advice
        let mut hasher = (is_all && matches!(self.validator, Validator::Times(_))).then(Hasher::default);
        let mut start = range.start;
        while start < range.end {
            let end = range.end.min(start + PIECE_BYTES as u64);
            let piece = self.exactly(start..end)?;
            if let Some(hasher) = &mut hasher {
                hasher.update(&piece);
            }
            if pieces.blocking_send(Ok(piece)).is_err() {
                return Ok(());
            }
            start = end;
        }
        if let (Some(hasher), Ok(after)) = (hasher, Meta::of_open(&*self.file)) {
            fs.inner.hashes.put(&self.meta, &after, &hasher.finish());
        }
        Ok(())
    }

    /// Whatever its size says.
    fn to_the_end(&self, pieces: &mpsc::Sender<Result<Bytes, Error>>) -> Result<(), Error> {
        let mut start = 0;
        loop {
            let mut piece = BytesMut::zeroed(PIECE_BYTES);
            let read = self.file.read_at(&mut piece, start).map_err(|error| self.torn(&error))?;
            if read == 0 {
                return Ok(());
            }
            piece.truncate(read);
            start += read as u64;
            if pieces.blocking_send(Ok(piece.freeze())).is_err() {
                return Ok(());
            }
        }
    }
}
