//! What tells one content from another: SHA-256, remembered for as long as the file surely hasn't changed.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, Read as _};
use std::sync::{Mutex, PoisonError};

use sha2::{Digest as _, Sha256};

use super::entry::Meta;
use crate::rt::clock::now_ms;

/// Read at once.
const CHUNK_BYTES: usize = 256 * 1024;
/// A file that changed this short a time before it was looked at may change again without its times telling: clocks of
/// file systems tick every few milliseconds.
const SETTLE_MS: i64 = 50;

/// A content's SHA-256, as lower-case hex.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Sha256Hex(String);

impl Sha256Hex {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Of text that is one.
    pub fn parse(text: &str) -> Option<Self> {
        let is_hash = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_hash.then(|| Self(text.to_ascii_lowercase()))
    }

    /// Of a content in memory.
    pub fn of(content: &[u8]) -> Self {
        let mut hasher = Hasher::default();
        hasher.update(content);
        hasher.finish()
    }
}

/// Takes a content in, a piece at a time.
#[derive(Default, Clone)]
pub(super) struct Hasher(Sha256);

impl Hasher {
    pub(super) fn update(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    pub(super) fn finish(self) -> Sha256Hex {
        use std::fmt::Write as _;
        let hex = self.0.finalize().iter().fold(String::with_capacity(64), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}"); // writing to a String can't fail
            hex
        });
        Sha256Hex(hex)
    }
}

/// Tells contents apart towards HTTP clients (RFC 9110 section 8.8.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Validator {
    /// The content itself.
    Content(Sha256Hex),
    /// Its file's identity, size and times: for what is too large to be read before it is sent.
    Times(String),
}

impl Validator {
    /// From what the file system says.
    pub(super) fn times(meta: &Meta) -> Self {
        let (device, inode) = meta.id;
        let (changed_s, changed_ns) = meta.changed;
        Self::Times(format!("{device:x}-{inode:x}-{:x}-{changed_s:x}.{changed_ns:x}", meta.size))
    }

    /// As an entity tag.
    pub fn etag(&self) -> String {
        match self {
            Self::Content(hash) => format!("\"{}\"", hash.as_str()),
            Self::Times(times) => format!("W/\"{times}\""),
        }
    }
}

/// What a hash is remembered under: nobody can set the time of the last change (ctime, inode(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    id: (u64, u64),
    size: u64,
    modified: (i64, u32),
    changed: (i64, u32),
}

/// Hashes of files, the latest few.
pub(super) struct Cache {
    known: Mutex<Known>,
    max: usize,
}

#[derive(Default)]
struct Known {
    hashes: HashMap<Key, Sha256Hex>,
    order: VecDeque<Key>,
}

impl Cache {
    pub(super) fn new(max: usize) -> Self {
        Self { known: Mutex::default(), max }
    }

    pub(super) fn get(&self, meta: &Meta) -> Option<Sha256Hex> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).hashes.get(&key(meta)).cloned()
    }

    /// Remembers it, if the file has been at rest: `meta` from before it was read is that from after.
    pub(super) fn put(&self, before: &Meta, after: &Meta, hash: &Sha256Hex) {
        let settled_ms = now_ms() - SETTLE_MS;
        let (seconds, nanoseconds) = after.changed;
        if key(before) != key(after) || seconds * 1000 + i64::from(nanoseconds / 1_000_000) > settled_ms {
            return;
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner); // whole after each change
        if known.hashes.insert(key(after), hash.clone()).is_none() {
            known.order.push_back(key(after));
        }
        while known.order.len() > self.max
            && let Some(oldest) = known.order.pop_front()
        {
            known.hashes.remove(&oldest);
        }
    }

    /// The hash of an open file, read from its beginning when it isn't known. Blocks.
    pub(super) fn of(&self, file: &File, meta: &Meta) -> io::Result<Sha256Hex> {
        if let Some(known) = self.get(meta) {
            return Ok(known);
        }
        let hash = read(file)?;
        if let Ok(after) = Meta::of_open(file) {
            self.put(meta, &after, &hash);
        }
        Ok(hash)
    }
}

fn key(meta: &Meta) -> Key {
    Key { id: meta.id, size: meta.size, modified: meta.modified, changed: meta.changed }
}

fn read(file: &File) -> io::Result<Sha256Hex> {
    let mut hasher = Hasher::default();
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut at = 0;
    let mut reader = Positioned { file, at: &mut at };
    loop {
        match reader.read(&mut chunk)? {
            0 => return Ok(hasher.finish()),
            read => hasher.update(&chunk[..read]),
        }
    }
}

/// Reads without moving the file's own position.
struct Positioned<'a> {
    file: &'a File,
    at: &'a mut u64,
}

impl io::Read for Positioned<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = std::os::unix::fs::FileExt::read_at(self.file, into, *self.at)?;
        *self.at += read as u64;
        Ok(read)
    }
}
