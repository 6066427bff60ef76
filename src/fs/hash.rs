//! What tells one content from another: SHA-256, remembered for as long as the file surely hasn't changed.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::sync::{Mutex, PoisonError};

use rustix::buffer::spare_capacity;
use rustix::io::{Errno, pread};
use sha2::{Digest as _, Sha256};

use super::entry::Meta;
use super::outgoing::Coding;
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

    /// Of what stands between the quotes of an entity tag, whatever its coding.
    pub fn of_etag(opaque: &str) -> Option<Self> {
        let hash = Coding::ALL.iter().find_map(|coding| opaque.strip_suffix(coding.as_str())?.strip_suffix('-'));
        Self::parse(hash.unwrap_or(opaque))
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
        let digit = |value: u8| char::from(b"0123456789abcdef"[usize::from(value)]);
        Sha256Hex(self.0.finalize().iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect())
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

    /// As an entity tag: one for each coding, for their bytes differ.
    pub fn etag(&self, coding: Option<Coding>) -> String {
        let (dash, coding) = coding.map_or(("", ""), |coding| ("-", coding.as_str()));
        match self {
            Self::Content(hash) => format!("\"{}{dash}{coding}\"", hash.as_str()),
            Self::Times(times) => format!("W/\"{times}{dash}{coding}\""),
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

    /// Remembers that of so many bytes, if the file has been at rest: what it was before it was read, it is after that. What
    /// the kernel makes up, without a size, has no times either.
    pub(super) fn put(&self, before: &Meta, after: &Meta, bytes: u64, hash: &Sha256Hex) {
        if bytes == 0 || bytes != after.size || !after.is_as_it_was(before) || !is_settled(after) {
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
        let (hash, bytes) = read(file)?;
        if let Ok(after) = Meta::of_open(file) {
            self.put(meta, &after, bytes, &hash);
        }
        Ok(hash)
    }
}

/// False while it may change without its times telling: its hash can't be remembered.
pub(super) fn is_settled(meta: &Meta) -> bool {
    let (seconds, nanoseconds) = meta.changed;
    seconds * 1000 + i64::from(nanoseconds / 1_000_000) <= now_ms() - SETTLE_MS
}

fn key(meta: &Meta) -> Key {
    Key { id: meta.id, size: meta.size, modified: meta.modified, changed: meta.changed }
}

/// The hash of all that it has, and how much that is.
fn read(file: &File) -> io::Result<(Sha256Hex, u64)> {
    let (mut hasher, mut at) = (Hasher::default(), 0);
    let mut chunk = Vec::with_capacity(CHUNK_BYTES);
    loop {
        chunk.clear();
        match pread(file, spare_capacity(&mut chunk), at) {
            Ok(0) => return Ok((hasher.finish(), at)),
            Ok(read) => {
                hasher.update(&chunk);
                at += read as u64;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
