//! A spool as a whole: on a real folder, and on a disk that fails on request.

mod bound;
mod failing;
mod follow;
mod lines;
mod speed;
mod torn;

use std::path::Path;
use std::sync::Arc;

use super::frame::MAX_ENTRY_BYTES;
use super::index::End;
use super::lines::{Line, LineEnd};
use super::segment::{MIN_SEGMENT_BYTES, disk_bytes};
use super::types::Position;
use super::types::{Count, Entry, Gap, StreamBytes};
use super::*;

const MIN: u64 = MIN_SEGMENT_BYTES;

/// What a process has written to each stream, in full.
#[derive(Default, Clone)]
struct Model {
    written: [Vec<u8>; 3],
}

impl Model {
    fn stream(&mut self, stream: Stream) -> &mut Vec<u8> {
        &mut self.written[stream as usize]
    }

    /// Appends bytes that differ from place to place, partly of more than one byte to the character.
    fn append(&mut self, spool: &mut Spool, stream: Stream, size: usize) {
        let from = self.stream(stream).len();
        let alphabet = "aé€😀\n".as_bytes();
        let bytes: Vec<u8> =
            (from..from + size).map(|at| if at % 97 == 0 { (at / 97) as u8 } else { alphabet[at % 11] }).collect();
        self.stream(stream).extend_from_slice(&bytes);
        let (before, range) = (spool.index().end().last_sequence, spool.append(stream, from as i64, &bytes));
        assert_eq!(range.start, before + 1);
        assert_eq!(range.end, spool.index().end().last_sequence + 1);
        assert!(range.end - range.start >= size.div_ceil(MAX_ENTRY_BYTES) as u64);
    }

    /// The items follow on each other and are what was written. Moves the place to their end.
    fn check(&self, place: &mut Position, items: &[Item]) {
        for item in items {
            match item {
                Item::Entry(entry) => {
                    assert_eq!((entry.sequence, entry.offset), (place.next, place.bytes.get(entry.stream)));
                    let whole = &self.written[entry.stream as usize];
                    let from = entry.offset as usize;
                    assert!(whole[from..from + entry.bytes.len()] == entry.bytes, "the bytes of entry {}", entry.sequence);
                    *place = place.after(entry.sequence, entry.stream, entry.offset, entry.bytes.len());
                }
                Item::Gap(gap) => {
                    assert_eq!(gap.from_sequence, place.next);
                    assert!(gap.to_sequence >= gap.from_sequence && gap.bytes.total() > gap.to_sequence - gap.from_sequence);
                    place.next = gap.to_sequence + 1;
                    for stream in Stream::ALL {
                        place.bytes.set(stream, place.bytes.get(stream) + gap.bytes.get(stream));
                    }
                }
                Item::Control { .. } => {}
            }
        }
    }

    /// Reading all of it comes to the end, and what is missing is what the index says.
    fn check_whole(&self, index: &Arc<SpoolIndex>) -> Vec<Item> {
        let items = read_all(&mut SpoolReader::new(Arc::clone(index)), 50_000);
        let mut place = Position::START;
        self.check(&mut place, &items);
        let end = index.end();
        assert_eq!(place.next, end.last_sequence + 1);
        assert_eq!(place.bytes, end.bytes);
        for stream in Stream::ALL {
            assert_eq!(end.bytes.get(stream), self.written[stream as usize].len() as u64);
        }
        let missing = gaps(&items).into_iter().fold(Count::default(), |sum, gap| sum.plus(size(gap)));
        assert_eq!(missing, end.truncated.plus(end.not_kept));
        items
    }
}

fn size(gap: Gap) -> Count {
    Count { entries: gap.to_sequence - gap.from_sequence + 1, bytes: gap.bytes.total() }
}

fn read_all(reader: &mut SpoolReader, max_bytes: usize) -> Vec<Item> {
    let mut all = Vec::new();
    loop {
        let items = reader.read(max_bytes).unwrap();
        if items.is_empty() {
            return all;
        }
        all.extend(items);
    }
}

fn gaps(items: &[Item]) -> Vec<Gap> {
    items.iter().filter_map(|item| if let Item::Gap(gap) = item { Some(*gap) } else { None }).collect()
}

fn sequences(items: &[Item]) -> Vec<u64> {
    items.iter().filter_map(|item| if let Item::Entry(entry) = item { Some(entry.sequence) } else { None }).collect()
}

fn files(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
