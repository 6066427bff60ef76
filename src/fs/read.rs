//! Reading files: small ones at once, large ones a piece at a time, so that a transfer costs the same memory whatever its
//! size.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::fs::{Advice, Mode, OFlags, fadvise};
use rustix::io::pread;
use tokio::sync::mpsc;

use super::entry::{Kind, Meta};
use super::hash::{Hasher, Sha256Hex, Validator, is_settled};
use super::outgoing::{Coding, Finish, Gzip, Outgoing, PIECE_BYTES, SAMPLE_BYTES, Zstd, shrinks};
use super::{Error, Fs, Located, Reach, blocking};
use crate::rt::spawn_owned;

/// Up to this size a file that is too large to be read at once is hashed before it is sent where its hash is asked for.
pub const HASHED_MAX_BYTES: u64 = 4 * 1024 * 1024;

/// A file that is open for reading.
#[derive(Clone)]
pub struct Opened {
    file: Arc<File>,
    at: Located,
    reach: Reach,
    /// What it was when it was opened; of what the kernel makes up, the size that it turned out to have.
    pub meta: Meta,
    /// Tells its content from others.
    pub validator: Validator,
    /// All of it, when it is small.
    content: Option<Bytes>,
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
    /// Opens a regular file, and reads it when it is small. Never waits for what writes into a FIFO.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotAFile`], [`Error::Outside`], [`Error::Denied`].
    pub async fn open(&self, reach: &Reach, at: Located) -> Result<Opened, Error> {
        let (reach, fs) = (reach.clone(), self.clone());
        blocking(move || {
            let (file, meta) = open(&reach, &at)?;
            let validator = Validator::times(&meta);
            let mut opened = Opened { file: Arc::new(file), at, reach, meta, validator, content: None };
            let hash = if opened.is_small() { opened.take_in(&fs)? } else { opened.hash_at_hand(&fs)? };
            if let Some(hash) = hash {
                fs.saw(&opened.reach, &opened.at, hash.as_str());
                opened.validator = Validator::Content(hash);
            }
            Ok(opened)
        })
        .await
    }

    /// The same with the hash of its content, which is read for that when it isn't known.
    ///
    /// # Errors
    /// The system's.
    pub async fn hashed(&self, opened: Opened) -> Result<Opened, Error> {
        if matches!(opened.validator, Validator::Content(_)) {
            return Ok(opened);
        }
        let fs = self.clone();
        blocking(move || {
            let validator = Validator::Content(opened.hash(&fs)?);
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
        if let Some(content) = &opened.content {
            let at = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(content.len());
            return Ok(Content::Whole(content.slice(at(range.start)..at(range.end))));
        }
        let length = range.end - range.start;
        if opened.has_no_size() && is_all {
            let pieces = self.send(opened, |of, _, pieces| of.to_the_end(&mut |piece| give(pieces, piece)))?;
            return Ok(Content::Pieces(None, pieces));
        }
        if length <= PIECE_BYTES as u64 {
            let of = opened.clone();
            return blocking(move || of.exactly(range).map(Content::Whole)).await;
        }
        let send = move |of: &Opened, fs: &Fs, pieces: &Pieces| of.each(range, is_all, fs, &mut |piece| give(pieces, piece));
        Ok(Content::Pieces(Some(length), self.send(opened, send)?))
    }

    /// All of the content, encoded. Dropping what it gives ends it.
    ///
    /// # Errors
    /// [`Error::Busy`], and the system's.
    pub async fn read_encoded(&self, opened: &Opened, coding: Coding) -> Result<Content, Error> {
        if let Some(content) = opened.content.clone() {
            let at = opened.at.clone();
            let encode = move || coding.encode(&content).map_err(|error| Error::io("encode", at.path(), &error));
            return blocking(encode).await.map(|encoded| Content::Whole(encoded.into()));
        }
        let send = move |of: &Opened, fs: &Fs, pieces: &Pieces| {
            let outgoing = Outgoing::new(pieces.clone());
            match coding {
                Coding::Gzip => of.through(Gzip::new(outgoing), fs),
                Coding::Zstd => of.through(Zstd::new(outgoing).map_err(|error| of.torn(&error))?, fs),
            }
        };
        Ok(Content::Pieces(None, self.send(opened, send)?))
    }

    /// True when encoding it is worth while, as far as its beginning tells.
    ///
    /// # Errors
    /// The system's.
    pub async fn shrinks(&self, opened: &Opened) -> Result<bool, Error> {
        let of = opened.clone();
        blocking(move || {
            let beginning = match &of.content {
                Some(content) => content.clone(),
                None => of.up_to(SAMPLE_BYTES, 0)?,
            };
            shrinks(&beginning).map_err(|error| of.torn(&error))
        })
        .await
    }

    /// Sends what `work` gives on a thread of its own. A reader that leaves closes the channel, which ends it.
    fn send(
        &self,
        opened: &Opened,
        work: impl FnOnce(&Opened, &Self, &Pieces) -> Result<(), Error> + Send + 'static,
    ) -> Result<mpsc::Receiver<Result<Bytes, Error>>, Error> {
        let permit = self.transfer()?;
        let (pieces, received) = mpsc::channel(1);
        let (of, fs) = (opened.clone(), self.clone());
        spawn_owned("fs-read", async move {
            let _permit = permit;
            let send = blocking(move || {
                if let Err(error) = work(&of, &fs, &pieces) {
                    let _ = pieces.blocking_send(Err(error)); // a reader that left
                }
                Ok(())
            });
            let _ = send.await;
        });
        Ok(received)
    }
}

type Pieces = mpsc::Sender<Result<Bytes, Error>>;

fn give(pieces: &Pieces, piece: Bytes) -> io::Result<()> {
    pieces.blocking_send(Ok(piece)).map_err(|_| io::ErrorKind::BrokenPipe.into())
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

    /// The entity tags that its content has, encoded or not, with and without its hash being known: whoever has one of them
    /// has this content.
    pub fn etags(&self) -> Vec<String> {
        let times = Validator::times(&self.meta);
        let validators = [Some(&self.validator), (self.validator != times).then_some(&times)].into_iter().flatten();
        let codings = || std::iter::once(None).chain(Coding::ALL.map(Some));
        validators.flat_map(|validator| codings().map(|coding| validator.etag(coding))).collect()
    }

    /// False when only reading it tells how long it is.
    pub fn is_sized(&self) -> bool {
        self.content.is_some() || !self.has_no_size()
    }

    fn is_small(&self) -> bool {
        self.meta.size <= PIECE_BYTES as u64
    }

    /// What the kernel makes up as it is read says that it has no size.
    fn has_no_size(&self) -> bool {
        self.meta.size == 0
    }

    /// Reads all of it, unless that is more than its size says. Gives its hash.
    fn take_in(&mut self, fs: &Fs) -> Result<Option<Sha256Hex>, Error> {
        let most = if self.has_no_size() { PIECE_BYTES } else { usize::try_from(self.meta.size).unwrap_or(PIECE_BYTES) };
        let content = self.up_to(most, 0)?;
        if self.has_no_size() && content.len() == most {
            return Ok(None);
        }
        let after = Meta::of_open(&*self.file).map_err(|errno| Error::of("look at", self.at.path(), errno))?;
        let known = fs.inner.hashes.get(&self.meta).filter(|_| after.is_as_it_was(&self.meta));
        let hash = known.unwrap_or_else(|| {
            let hash = Sha256Hex::of(&content);
            fs.inner.hashes.put(&self.meta, &after, content.len() as u64, &hash);
            hash
        });
        self.meta.size = content.len() as u64; // it may have become shorter, or be made up
        self.content = Some(content);
        Ok(Some(hash))
    }

    /// The hash of what is too large to be read at once, when it is known; for a session also otherwise, up to a size: it
    /// may not write over what it hasn't seen.
    fn hash_at_hand(&self, fs: &Fs) -> Result<Option<Sha256Hex>, Error> {
        let is_wanted = self.reach.author().session_id.is_some() && self.meta.size <= HASHED_MAX_BYTES;
        if is_wanted { self.hash(fs).map(Some) } else { Ok(fs.inner.hashes.get(&self.meta)) }
    }

    fn hash(&self, fs: &Fs) -> Result<Sha256Hex, Error> {
        fs.inner.hashes.of(&self.file, &self.meta).map_err(|error| self.torn(&error))
    }

    /// So many bytes, fewer at the end.
    fn up_to(&self, most: usize, start: u64) -> Result<Bytes, Error> {
        let mut content = Vec::with_capacity(most);
        while content.len() < most {
            let at = start + content.len() as u64;
            match pread(&*self.file, spare_capacity(&mut content), at) {
                Ok(0) => break,
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(Error::of("read", self.at.path(), errno)),
            }
        }
        content.truncate(most); // an allocator may give more room
        Ok(content.into())
    }

    fn exactly(&self, range: Range<u64>) -> Result<Bytes, Error> {
        let length = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let content = self.up_to(length, range.start)?;
        if content.len() == length { Ok(content) } else { Err(self.torn(&io::ErrorKind::UnexpectedEof.into())) }
    }

    fn torn(&self, error: &io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                Error::BrokeOff(format!("{} became shorter while it was read", self.at.path().display()))
            }
            _ => Error::io("read", self.at.path(), error),
        }
    }

    /// Whether what is read whole is hashed on the way. Not when the hash could be neither told nor remembered.
    fn is_hash_of_use(&self) -> bool {
        let is_long = self.meta.size > HASHED_MAX_BYTES; // it is at rest by its end
        matches!(self.validator, Validator::Times(_))
            && (is_long || is_settled(&self.meta) || self.reach.author().session_id.is_some())
    }

    /// Gives a part, a piece at a time.
    fn each(&self, range: Range<u64>, is_all: bool, fs: &Fs, sink: &mut Sink<'_>) -> Result<(), Error> {
        let _ = fadvise(&*self.file, 0, None, Advice::Sequential); // only advice
        let mut hasher = (is_all && self.is_hash_of_use()).then(Hasher::default);
        let mut start = range.start;
        while start < range.end {
            let end = range.end.min(start + PIECE_BYTES as u64);
            let piece = self.exactly(start..end)?;
            if let Some(hasher) = &mut hasher {
                hasher.update(&piece);
            }
            // Before the last piece is given: a session that has it all may write over it at once.
            if end == range.end
                && let (Some(hasher), Ok(after)) = (hasher.take(), Meta::of_open(&*self.file))
            {
                let hash = hasher.finish();
                fs.inner.hashes.put(&self.meta, &after, range.end, &hash);
                fs.saw(&self.reach, &self.at, hash.as_str());
            }
            sink(piece).map_err(|error| Error::BrokeOff(error.to_string()))?;
            start = end;
        }
        Ok(())
    }

    /// All of it through an encoder, whose end is only written when all of it was there.
    fn through<W: Finish>(&self, mut encoder: W, fs: &Fs) -> Result<(), Error> {
        self.each(0..self.meta.size, true, fs, &mut |piece| encoder.write_all(&piece))?;
        encoder.finish().map_err(|error| Error::BrokeOff(error.to_string()))
    }

    /// Whatever its size says.
    fn to_the_end(&self, sink: &mut Sink<'_>) -> Result<(), Error> {
        let mut start = 0;
        loop {
            let piece = self.up_to(PIECE_BYTES, start)?;
            if piece.is_empty() {
                return Ok(());
            }
            start += piece.len() as u64;
            sink(piece).map_err(|error| Error::BrokeOff(error.to_string()))?;
        }
    }
}

type Sink<'a> = dyn FnMut(Bytes) -> io::Result<()> + 'a;
