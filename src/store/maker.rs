//! Makes handles on streams, and gives new ones their rows without waiting for the disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use super::queue::{Command, Queue};
use super::read::Readers;
use super::stream::{RingBounds, Stream};
use crate::config::{Bounds, as_usize};

/// Who knows which rows are free. Rows are numbered here alone, never by SQLite.
pub(super) struct Maker {
    last_row: AtomicI64,
    queue: Arc<Queue>,
    readers: Arc<Readers>,
    ring: RingBounds,
}

impl Maker {
    pub(super) fn new(last_row: i64, queue: Arc<Queue>, readers: Arc<Readers>, bounds: &Bounds) -> Self {
        Self {
            last_row: AtomicI64::new(last_row),
            queue,
            readers,
            ring: RingBounds {
                max_events: as_usize(bounds.log_ring_max_events),
                max_bytes: as_usize(bounds.log_ring_max_bytes),
                unwatched_max_bytes: as_usize(bounds.log_ring_unwatched_max_bytes),
            },
        }
    }

    /// A row that no stream has.
    pub(super) fn next_row(&self) -> i64 {
        self.last_row.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A stream under a name that was never used: its row is written with its first event.
    pub(super) fn make(&self, name: &str) -> Arc<Stream> {
        let stream = self.handle(self.next_row(), 0);
        // Not waking the writer: the command comes before the first event in the same queue.
        self.queue.put(Command::Make { name: name.to_owned(), stream: Arc::clone(&stream) });
        stream
    }

    pub(super) fn handle(&self, row_id: i64, last_seq: u64) -> Arc<Stream> {
        Arc::new(Stream::new(row_id, last_seq, Arc::clone(&self.readers), self.ring))
    }
}
