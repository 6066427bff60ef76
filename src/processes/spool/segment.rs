//! Segment files: their header, their names, and what is done with them by name.

use std::io;
use std::path::{Path, PathBuf};

use super::frame::{FRAME_HEADER_BYTES, LOST_BODY_BYTES, MAX_ENTRY_BYTES, RESIZE_BODY_BYTES};
use super::frame::{check, decode_control, decode_position, encode_control, encode_position, u64_at};
use super::types::{Control, Count, Position};

/// The smallest segment: room for the longest entry, and whatever may have to go before it. A bound below this is taken
/// as this.
pub const MIN_SEGMENT_BYTES: u64 = 8448;

pub(super) const SEGMENT_HEADER_BYTES: usize = 96;

const MAGIC: [u8; 4] = *b"SPOL";
const VERSION: u16 = 1;

const _: () = assert!(
    SEGMENT_HEADER_BYTES + 3 * FRAME_HEADER_BYTES + LOST_BODY_BYTES + RESIZE_BODY_BYTES + MAX_ENTRY_BYTES
        <= MIN_SEGMENT_BYTES as usize
);

/// How long a segment gets before the next is begun.
pub(super) fn segment_bytes(max_bytes: u64) -> u64 {
    (max_bytes / 8).max(MIN_SEGMENT_BYTES)
}

/// The first bytes of a segment. Little-endian: magic, version, flags (1: a size follows), process number, segment index,
/// position (four u64), lost before (two u64), time, cols, rows, check, padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub number: u64,
    pub index: u64,
    pub first: Position,
    /// What had not been kept before `first`.
    pub lost_before: Count,
    pub time_ms: i64,
    /// The terminal's size before the first frame.
    pub size: Option<Control>,
}

impl SegmentHeader {
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut out = [0; SEGMENT_HEADER_BYTES];
        out[0..4].copy_from_slice(&MAGIC);
        out[4..6].copy_from_slice(&VERSION.to_le_bytes());
        out[6] = u8::from(self.size.is_some());
        out[8..16].copy_from_slice(&self.number.to_le_bytes());
        out[16..24].copy_from_slice(&self.index.to_le_bytes());
        out[24..56].copy_from_slice(&encode_position(self.first));
        out[56..64].copy_from_slice(&self.lost_before.entries.to_le_bytes());
        out[64..72].copy_from_slice(&self.lost_before.bytes.to_le_bytes());
        out[72..80].copy_from_slice(&self.time_ms.to_le_bytes());
        out[80..84].copy_from_slice(&self.size.map(encode_control).unwrap_or_default());
        let check = check(&out);
        out[84..88].copy_from_slice(&check.to_le_bytes());
        out
    }

    /// The header, unless it is none or of another version.
    pub fn decode(bytes: &[u8; SEGMENT_HEADER_BYTES]) -> Option<Self> {
        let mut unchecked = *bytes;
        unchecked[84..88].fill(0);
        let known = bytes[0..4] == MAGIC && bytes[4..6] == VERSION.to_le_bytes();
        if !known || bytes[84..88] != check(&unchecked).to_le_bytes() {
            return None;
        }
        Some(Self {
            number: u64_at(bytes, 8),
            index: u64_at(bytes, 16),
            first: decode_position(&bytes[24..56])?,
            lost_before: Count { entries: u64_at(bytes, 56), bytes: u64_at(bytes, 64) },
            time_ms: u64_at(bytes, 72).cast_signed(),
            size: if bytes[6] == 1 { decode_control(&bytes[80..84]) } else { None },
        })
    }
}

pub(super) fn path(dir: &Path, number: u64, index: u64) -> PathBuf {
    dir.join(format!("p{number}.{index}.spool"))
}

/// A file of a spool, as its name tells.
pub(super) struct Found {
    pub number: u64,
    pub index: u64,
    pub path: PathBuf,
}

/// Every spool file of the folder, in no order. None when there is no folder.
pub(super) fn list(dir: &Path) -> io::Result<Vec<Found>> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        if let Some((number, index)) = name.to_str().and_then(parse_name) {
            found.push(Found { number, index, path: entry.path() });
        }
    }
    Ok(found)
}

/// Only names that we would give: whatever else lies in the folder is not ours to delete.
fn parse_name(name: &str) -> Option<(u64, u64)> {
    let (number, index) = name.strip_prefix('p')?.strip_suffix(".spool")?.split_once('.')?;
    let (number, index) = (number.parse().ok()?, index.parse().ok()?);
    (format!("p{number}.{index}.spool") == name).then_some((number, index))
}

/// Deletes all files of a process's spool. None is fine. Gives how many there were.
///
/// # Errors
/// The folder can't be read, or a file can't be deleted; the rest is deleted all the same.
pub fn remove(dir: &Path, number: u64) -> io::Result<usize> {
    delete(list(dir)?.into_iter().filter(|file| file.number == number))
}

/// Deletes the spools of all processes that `keep` doesn't know, by their number. Gives how many files there were.
///
/// # Errors
/// As [`remove`].
pub fn sweep(dir: &Path, keep: impl Fn(u64) -> bool) -> io::Result<usize> {
    delete(list(dir)?.into_iter().filter(|file| !keep(file.number)))
}

fn delete(files: impl Iterator<Item = Found>) -> io::Result<usize> {
    let (mut deleted, mut failed) = (0, None);
    for file in files {
        match std::fs::remove_file(&file.path) {
            Ok(()) => deleted += 1,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => failed = Some(error),
        }
    }
    failed.map_or(Ok(deleted), Err)
}

/// The bytes that a process's spool takes: lengths of its files.
///
/// # Errors
/// The folder or a file in it can't be read.
#[cfg(test)]
pub fn disk_bytes(dir: &Path, number: u64) -> io::Result<u64> {
    let mut sum = 0;
    for file in list(dir)?.into_iter().filter(|file| file.number == number) {
        match std::fs::symlink_metadata(&file.path) {
            Ok(metadata) => sum += metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::super::types::StreamBytes;
    use super::*;

    #[test]
    fn a_header_survives_the_disk_and_damage_is_seen() {
        let first = Position { next: 9, bytes: StreamBytes::from_array([1, 2, 3]) };
        let lost_before = Count { entries: 4, bytes: 5 };
        for size in [None, Some(Control::Resize { cols: 80, rows: 24 })] {
            let header = SegmentHeader { number: 3, index: 2, first, lost_before, time_ms: 99, size };
            let encoded = header.encode();
            assert_eq!(SegmentHeader::decode(&encoded), Some(header));
            for at in 0..SEGMENT_HEADER_BYTES {
                let mut damaged = encoded;
                damaged[at] ^= 0x40;
                assert_eq!(SegmentHeader::decode(&damaged), None, "byte {at}");
            }
        }
    }

    #[test]
    fn only_our_own_names_are_ours() {
        assert_eq!(parse_name("p12.0.spool"), Some((12, 0)));
        for name in
            ["p12.spool", "p.0.spool", "p01.0.spool", "p1.+2.spool", "p1.0.spool~", "P1.0.spool", "p1.0.0.spool", "p1.-1.spool"]
        {
            assert_eq!(parse_name(name), None, "{name}");
        }
    }

    #[test]
    fn removing_and_sweeping_touch_what_they_name() {
        let dir = tempfile::tempdir().unwrap();
        for (name, len) in
            [("p1.0.spool", 10), ("p1.7.spool", 5), ("p2.0.spool", 3), ("p3.1.spool", 1), ("p1.x.spool", 9), ("note", 2)]
        {
            std::fs::write(dir.path().join(name), vec![b'x'; len]).unwrap();
        }
        assert_eq!(disk_bytes(dir.path(), 1).unwrap(), 15);
        assert_eq!(remove(dir.path(), 1).unwrap(), 2);
        assert_eq!(disk_bytes(dir.path(), 1).unwrap(), 0);
        assert_eq!(sweep(dir.path(), |number| number == 2).unwrap(), 1);
        let mut left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["note", "p1.x.spool", "p2.0.spool"]);
        assert_eq!(remove(&dir.path().join("none"), 1).unwrap(), 0);
    }
}
