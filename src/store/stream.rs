//! The live end of one stream: the latest events in memory, and the way to read on from any position.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::watch;

use super::read::Readers;
use super::types::{Error, Event, GapReason, Item};

/// What watchers follow: how far the stream reaches, and whether it is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Newest {
    /// The last position; 0 when nothing was written yet.
    pub seq: u64,
    /// True once nothing will follow.
    pub ended: bool,
}

/// A stream of the log. Written only by the store's writer; read by any number of readers, each with its own cursor.
pub struct Stream {
    pub(super) row_id: i64,
    tail: Mutex<Tail>,
    newest: watch::Sender<Newest>,
    /// The position of what was appended last, committed or not.
    appended: AtomicU64,
    readers: Arc<Readers>,
    ring: RingBounds,
}

/// How much of a stream stays in memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct RingBounds {
    pub(super) max_events: usize,
    pub(super) max_bytes: usize,
    /// While nobody follows it.
    pub(super) unwatched_max_bytes: usize,
}

#[derive(Default)]
struct Tail {
    ring: VecDeque<Event>,
    ring_bytes: usize,
}

impl Tail {
    /// The oldest first, as long as it has to be.
    fn forget(&mut self, has_to: impl Fn(&Self) -> bool) {
        while has_to(self)
            && let Some(gone) = self.ring.pop_front()
        {
            self.ring_bytes -= gone.payload.len();
        }
    }

    /// What the file doesn't have stays: nobody else has it.
    fn forget_kept(&mut self, max_bytes: usize) {
        let is_kept = |tail: &Self| tail.ring.front().is_some_and(|event| event.kept);
        self.forget(|tail| is_kept(tail) && tail.ring_bytes + tail.ring.len() * size_of::<Event>() > max_bytes);
    }
}

impl Stream {
    pub(super) fn new(row_id: i64, last_seq: u64, readers: Arc<Readers>, ring: RingBounds) -> Self {
        let (newest, _) = watch::channel(Newest { seq: last_seq, ended: false });
        Self { row_id, tail: Mutex::default(), newest, appended: AtomicU64::new(last_seq), readers, ring }
    }

    /// The position that the event which was appended last has, or will have once it is committed. Means something to who
    /// alone appends, always in the same order: one owner at a time.
    pub fn appended(&self) -> u64 {
        self.appended.load(Ordering::Relaxed)
    }

    pub(super) fn count_append(&self) {
        self.appended.fetch_add(1, Ordering::Relaxed);
    }

    /// How far the stream reaches now.
    pub fn newest(&self) -> Newest {
        *self.newest.borrow()
    }

    /// Follows [`Stream::newest`].
    pub fn watch(&self) -> watch::Receiver<Newest> {
        self.newest.subscribe()
    }

    /// True while somebody follows it.
    pub fn is_followed(&self) -> bool {
        self.newest.receiver_count() > 0
    }

    /// Says that nothing will follow: readers that have read everything end. Idempotent.
    pub fn end(&self) {
        self.newest.send_modify(|newest| newest.ended = true);
    }

    /// What follows position `after`, up to about `max_bytes` (at least one item); empty when there is nothing yet.
    /// Cancel safe.
    ///
    /// # Errors
    /// [`Error::Read`] when the file can't be read.
    pub async fn read_after(self: &Arc<Self>, after: u64, max_events: usize, max_bytes: usize) -> Result<Vec<Item>, Error> {
        if let Some(items) = self.read_ring(after, max_events, max_bytes) {
            return Ok(items);
        }
        let row_id = self.row_id;
        let page =
            self.readers.run(move |connection| super::read::page(connection, row_id, after, max_events, max_bytes)).await?;
        if !page.is_empty() {
            return Ok(page);
        }
        // Nothing of it is in the file, though the ring starts later: the disk refused everything in between.
        let tail = self.lock();
        let first = tail.ring.front().map_or(self.newest().seq + 1, |event| event.seq);
        Ok(if first > after + 1 {
            vec![Item::Gap { from: after + 1, to: first - 1, reason: GapReason::NotKept }]
        } else {
            Vec::new()
        })
    }

    /// `None` when the ring doesn't reach back to `after`.
    fn read_ring(&self, after: u64, max_events: usize, max_bytes: usize) -> Option<Vec<Item>> {
        let tail = self.lock();
        if after >= self.newest().seq {
            return Some(Vec::new());
        }
        let first = tail.ring.front()?.seq;
        if after + 1 < first {
            return None;
        }
        let skip = usize::try_from(after + 1 - first).unwrap_or(usize::MAX);
        let mut bytes = 0;
        let mut items = Vec::new();
        for event in tail.ring.iter().skip(skip).take(max_events) {
            bytes += event.payload.len();
            if bytes > max_bytes && !items.is_empty() {
                break;
            }
            items.push(Item::Event(event.clone()));
        }
        Some(items)
    }

    /// Adds committed events; called by the writer only, which then calls [`Stream::publish`].
    pub(super) fn extend(&self, events: impl Iterator<Item = (u64, Bytes)>, kept: bool) {
        let mut tail = self.lock();
        for (seq, payload) in events {
            tail.ring_bytes += payload.len();
            tail.ring.push_back(Event { seq, payload, kept });
        }
        let RingBounds { max_events, max_bytes, unwatched_max_bytes } = self.ring;
        // The newest event always stays, whatever its size: its readers need not go to the file.
        tail.forget(|tail| tail.ring.len() > 1 && (tail.ring.len() > max_events || tail.ring_bytes > max_bytes));
        if !self.is_followed() {
            tail.forget_kept(unwatched_max_bytes);
        }
    }

    /// Forgets what the file has, when nobody follows the stream: it is read from there again.
    pub fn let_go(&self) {
        let mut tail = self.lock();
        if !self.is_followed() {
            tail.forget_kept(0);
            tail.ring.shrink_to_fit();
        }
    }

    pub(super) fn publish(&self, last_seq: u64) {
        self.newest.send_modify(|newest| newest.seq = last_seq);
    }

    fn lock(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner) // the ring is whole after each push
    }
}
