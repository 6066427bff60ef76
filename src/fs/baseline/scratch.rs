//! Contents that are kept for a while: compressed, in a file without a name, which is gone with the process.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// Much faster than reading a disk, and half of the bytes of source code are gone.
const LEVEL: i32 = 1;
/// The file's name until it has none.
const NAME: &str = "baselines.tmp";

/// The file. It is made with the first content.
pub(super) struct Scratch {
    directory: PathBuf,
    max_bytes: u64,
    room: Mutex<Room>,
}

#[derive(Default)]
struct Room {
    file: Option<Arc<File>>,
    /// The file's length.
    end: u64,
    /// What is free before that: where, and how much. No two touch.
    free: BTreeMap<u64, u64>,
}

/// A content in it. Dropping it makes room.
#[derive(Debug)]
pub(super) struct Extent {
    scratch: Arc<Scratch>,
    file: Arc<File>,
    offset: u64,
    stored_bytes: u64,
    size_bytes: usize,
}

impl std::fmt::Debug for Scratch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scratch").finish_non_exhaustive()
    }
}

impl Scratch {
    /// In a directory of ours; with at most `max_bytes`.
    pub(super) fn new(directory: PathBuf, max_bytes: u64) -> Arc<Self> {
        Arc::new(Self { directory, max_bytes, room: Mutex::default() })
    }

    fn room(&self) -> MutexGuard<'_, Room> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner) // each change leaves it whole
    }

    /// Keeps a content; `None` when there is no room for it. Blocks.
    ///
    /// # Errors
    /// The disk's.
    pub(super) fn put(self: &Arc<Self>, content: &[u8]) -> io::Result<Option<Extent>> {
        let stored = zstd::bulk::compress(content, LEVEL)?;
        let stored_bytes = stored.len() as u64;
        let (file, offset) = {
            let mut room = self.room();
            let file = room.file(&self.directory)?;
            let Some(offset) = room.take(stored_bytes, self.max_bytes) else { return Ok(None) };
            (file, offset)
        };
        // From here on its place is given back whatever happens.
        let extent = Extent { scratch: Arc::clone(self), file, offset, stored_bytes, size_bytes: content.len() };
        extent.file.write_all_at(&stored, offset)?;
        Ok(Some(extent))
    }
}

impl Room {
    fn file(&mut self, directory: &std::path::Path) -> io::Result<Arc<File>> {
        if let Some(file) = &self.file {
            return Ok(Arc::clone(file));
        }
        let path = directory.join(NAME);
        let _ = std::fs::remove_file(&path); // of a server that was killed in between
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        std::fs::remove_file(&path)?;
        Ok(Arc::clone(self.file.insert(Arc::new(file))))
    }

    fn take(&mut self, bytes: u64, max_bytes: u64) -> Option<u64> {
        let gap = self.free.iter().find(|(_, free)| **free >= bytes).map(|(offset, free)| (*offset, *free));
        if let Some((offset, free)) = gap {
            self.free.remove(&offset);
            if free > bytes {
                self.free.insert(offset + bytes, free - bytes);
            }
            return Some(offset);
        }
        let offset = self.end;
        self.end = Some(offset + bytes).filter(|end| *end <= max_bytes)?;
        Some(offset)
    }

    fn give_back(&mut self, offset: u64, bytes: u64) {
        let (mut from, mut to) = (offset, offset + bytes);
        if let Some((before, free)) = self.free.range(..offset).next_back().map(|(at, free)| (*at, *free))
            && before + free == offset
        {
            self.free.remove(&before);
            from = before;
        }
        if let Some(free) = self.free.remove(&to) {
            to += free;
        }
        if to < self.end {
            self.free.insert(from, to - from);
            return;
        }
        self.end = from;
        if let Some(file) = &self.file {
            let _ = file.set_len(from); // what can't be cut off is written over
        }
    }
}

impl Extent {
    /// Bytes on disk.
    pub(super) fn stored_bytes(&self) -> u64 {
        self.stored_bytes
    }

    /// The content. Blocks.
    ///
    /// # Errors
    /// The disk's.
    pub(super) fn read(&self) -> io::Result<Bytes> {
        let mut stored = vec![0; usize::try_from(self.stored_bytes).map_err(io::Error::other)?];
        self.file.read_exact_at(&mut stored, self.offset)?;
        zstd::bulk::decompress(&stored, self.size_bytes).map(Bytes::from)
    }
}

impl Drop for Extent {
    fn drop(&mut self) {
        self.scratch.room().give_back(self.offset, self.stored_bytes);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_is_seen_of_the_file_and_room_comes_back() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join(NAME), "of a server that was killed").expect("a file");
        let scratch = Scratch::new(dir.path().to_path_buf(), 100);
        let one = scratch.put(b"one").expect("written").expect("room");
        let empty = scratch.put(b"").expect("written").expect("room");
        assert_eq!(std::fs::read_dir(dir.path()).expect("a directory").count(), 0);
        assert_eq!((&one.read().expect("read")[..], &empty.read().expect("read")[..]), (&b"one"[..], &b""[..]));
        let noise: Vec<u8> = (0..200).map(|_| rand::random()).collect();
        assert!(scratch.put(&noise).expect("no error").is_none(), "there is a bound");
        assert_eq!(&scratch.put(&[7; 100_000]).expect("written").expect("room").read().expect("read")[..], &[7; 100_000]);
        drop((one, empty));
        let room = scratch.room();
        assert_eq!((room.end, room.free.len()), (0, 0));
    }

    proptest! {
        #[test]
        fn what_is_kept_stays_whatever_goes(steps in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>(), 0..40_usize), 1..60)) {
            let dir = tempfile::tempdir().expect("a directory");
            let scratch = Scratch::new(dir.path().to_path_buf(), 2000);
            let mut kept: Vec<(Vec<u8>, Extent)> = Vec::new();
            for (number, (index, goes, length)) in steps.into_iter().enumerate() {
                if goes && !kept.is_empty() {
                    kept.swap_remove(index.index(kept.len()));
                } else {
                    let content: Vec<u8> = (0..length).map(|at| (at * 31 + number * 7) as u8).collect();
                    let extent = scratch.put(&content).expect("written");
                    kept.extend(extent.map(|extent| (content, extent)));
                }
                for (content, extent) in &kept {
                    prop_assert_eq!(&extent.read().expect("read")[..], &content[..]);
                }
                let stored: u64 = kept.iter().map(|(_, extent)| extent.stored_bytes).sum();
                let room = scratch.room();
                prop_assert_eq!(stored + room.free.values().sum::<u64>(), room.end);
            }
        }
    }
}
