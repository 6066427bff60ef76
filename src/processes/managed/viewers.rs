//! Who watches a terminal, and how far each may lag behind.
//!
//! The owner hands every piece of output to each viewer's queue. When a queue is full the owner pauses reading the
//! terminal, as a real one does, until the viewer took half of it; a viewer that doesn't within `patience` is *slow*: its
//! queue is dropped, and once it has sent what it had, it gets the screen as it is then.
//!
//! ```text
//! following ──queue full for longer than `patience`──▶ slow ──its socket took everything──▶ following, from a snapshot
//! ```

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::processes::types::{ProcessInfo, TerminalSize};

/// What a piece in a queue takes in memory besides its bytes, about. Without it a queue of single bytes, or of sizes,
/// would be a hundred times as large as its bound.
const PIECE_BYTES: usize = 64;

/// What waits for a viewer.
#[derive(Debug, Clone)]
pub(in crate::processes) enum Piece {
    /// Output.
    Output(Bytes),
    /// For one who was slow: the screen as it is now.
    Redraw {
        /// The size, which may have changed meanwhile.
        size: TerminalSize,
        /// Bytes that draw it.
        snapshot: Bytes,
        /// Bytes of output that were left out.
        skipped_bytes: u64,
    },
    /// The size is another one now.
    Resized(TerminalSize),
    /// The process ended.
    Exited(Arc<ProcessInfo>),
}

impl Piece {
    /// What it takes of a queue's bound. A picture of the screen takes no more than a size does: there is one at most.
    fn bytes_queued(&self) -> usize {
        let Self::Output(bytes) = self else { return PIECE_BYTES };
        bytes.len() + PIECE_BYTES
    }

    /// What a viewer doesn't see without this one.
    fn bytes_left_out(&self) -> u64 {
        match self {
            Self::Output(bytes) => bytes.len() as u64,
            Self::Redraw { skipped_bytes, .. } => *skipped_bytes,
            Self::Resized(_) | Self::Exited(_) => 0,
        }
    }
}

/// A viewer's end of its queue.
#[derive(Debug)]
pub(in crate::processes) struct Viewer {
    queue: Arc<Queue>,
}

#[derive(Debug)]
struct Queue {
    state: Mutex<State>,
    /// For the viewer: there is something.
    filled: Notify,
    /// For the owner: a full queue has room again.
    emptied: Arc<Notify>,
    max_bytes: usize,
}

#[derive(Debug, Default)]
struct State {
    pieces: VecDeque<Piece>,
    /// By [`Piece::bytes_queued`].
    bytes: usize,
    full_since: Option<Instant>,
    /// Output left out since it is slow.
    skipped: Option<u64>,
    /// It was told that it is slow.
    told: bool,
}

impl State {
    fn add(&mut self, piece: Piece) {
        self.bytes += piece.bytes_queued();
        self.pieces.push_back(piece);
    }
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner) // whole after each change
    }
}

/// What a viewer finds.
#[derive(Debug)]
pub(in crate::processes) enum Next {
    /// The next piece.
    Piece(Piece),
    /// It was too slow, and took everything now: it has to ask for the screen. Said once.
    Slow,
}

impl Viewer {
    /// The next piece. Cancel safe.
    pub(in crate::processes) async fn next(&self) -> Next {
        loop {
            let filled = self.queue.filled.notified();
            if let Some(next) = self.take() {
                return next;
            }
            filled.await;
        }
    }

    fn take(&self) -> Option<Next> {
        let mut state = self.queue.state();
        if let Some(piece) = state.pieces.pop_front() {
            state.bytes -= piece.bytes_queued();
            if state.full_since.is_some() && state.bytes <= self.queue.max_bytes / 2 {
                state.full_since = None;
                self.queue.emptied.notify_one();
            }
            return Some(Next::Piece(piece));
        }
        if state.skipped.is_some() && !state.told {
            state.told = true;
            return Some(Next::Slow);
        }
        None
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.queue.emptied.notify_one(); // whoever waits for it need not any more
    }
}

/// The owner's side: all viewers of one terminal.
#[derive(Debug)]
pub(in crate::processes) struct Viewers {
    all: Vec<Weak<Queue>>,
    emptied: Arc<Notify>,
    max_bytes: usize,
    max: usize,
    patience: Duration,
}

impl Viewers {
    pub(in crate::processes) fn new(max: usize, max_bytes: usize, patience: Duration) -> Self {
        Self { all: Vec::new(), emptied: Arc::default(), max_bytes, max, patience }
    }

    /// One more; `None` when there are as many as allowed.
    pub(in crate::processes) fn add(&mut self) -> Option<Viewer> {
        self.all.retain(|queue| queue.strong_count() > 0);
        if self.all.len() >= self.max {
            return None;
        }
        let (state, filled) = (Mutex::default(), Notify::new());
        let queue = Arc::new(Queue { state, filled, emptied: Arc::clone(&self.emptied), max_bytes: self.max_bytes });
        self.all.push(Arc::downgrade(&queue));
        Some(Viewer { queue })
    }

    /// As many as allowed.
    pub(in crate::processes) fn max(&self) -> usize {
        self.max
    }

    pub(in crate::processes) fn is_empty(&self) -> bool {
        self.all.iter().all(|queue| queue.strong_count() == 0)
    }

    /// Hands a piece to all. Slow ones are only told how much they miss.
    pub(in crate::processes) fn push(&mut self, piece: &Piece) {
        self.all.retain(|queue| queue.strong_count() > 0);
        for queue in self.all.iter().filter_map(Weak::upgrade) {
            let mut state = queue.state();
            match (piece, &mut state.skipped) {
                (Piece::Output(bytes), Some(skipped)) => *skipped += bytes.len() as u64,
                (Piece::Resized(_), Some(_)) => {} // the screen it gets has the size
                (Piece::Output(_) | Piece::Exited(_) | Piece::Resized(_) | Piece::Redraw { .. }, _) => {
                    state.add(piece.clone());
                    if state.bytes >= queue.max_bytes && state.full_since.is_none() {
                        state.full_since = Some(Instant::now());
                    }
                }
            }
            drop(state);
            queue.filled.notify_one();
        }
    }

    /// Until when reading has to pause at most for somebody whose queue is full; those whose time is over become slow.
    pub(in crate::processes) fn held_until(&mut self) -> Option<Instant> {
        let now = Instant::now();
        let mut until: Option<Instant> = None;
        for queue in self.all.iter().filter_map(Weak::upgrade) {
            let mut state = queue.state();
            let Some(end) = state.full_since.map(|since| since + self.patience) else { continue };
            if end > now {
                until = Some(until.map_or(end, |until| until.max(end)));
                continue;
            }
            let waiting = std::mem::take(&mut state.pieces);
            let left_out = waiting.iter().map(Piece::bytes_left_out).sum();
            (state.bytes, state.full_since, state.skipped, state.told) = (0, None, Some(left_out), false);
            drop(state);
            queue.filled.notify_one();
        }
        until
    }

    /// Resolves when a full queue has room again, or its viewer is gone. Cancel safe.
    pub(in crate::processes) async fn emptied(&self) {
        self.emptied.notified().await;
    }

    /// A slow viewer gets the screen and follows again from here.
    pub(in crate::processes) fn redraw(&self, viewer: &ViewerKey, size: TerminalSize, snapshot: impl FnOnce() -> Bytes) {
        if let Some(queue) = viewer.0.upgrade() {
            redraw(&queue, size, snapshot);
        }
    }

    /// Tells all of the end, slow ones after they got the screen. Nobody is waited for any more: a viewer takes what is
    /// left for it in its own time.
    pub(in crate::processes) fn finish(&mut self, last: &Piece, size: TerminalSize, mut snapshot: impl FnMut() -> Bytes) {
        self.all.iter().filter_map(Weak::upgrade).for_each(|queue| redraw(&queue, size, &mut snapshot));
        self.push(last);
        self.all.clear(); // else a full queue would be emptied later, and the end be lost with the rest
    }
}

fn redraw(queue: &Queue, size: TerminalSize, snapshot: impl FnOnce() -> Bytes) {
    let mut state = queue.state();
    if let Some(skipped_bytes) = state.skipped.take() {
        state.add(Piece::Redraw { size, snapshot: snapshot(), skipped_bytes });
        drop(state);
        queue.filled.notify_one();
    }
}

/// Names a viewer towards the owner.
#[derive(Debug, Clone)]
pub(in crate::processes) struct ViewerKey(Weak<Queue>);

impl Viewer {
    pub(in crate::processes) fn key(&self) -> ViewerKey {
        ViewerKey(Arc::downgrade(&self.queue))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(len: usize) -> Piece {
        Piece::Output(Bytes::from(vec![b'x'; len]))
    }

    #[tokio::test]
    async fn a_quick_viewer_gets_every_byte() {
        let mut viewers = Viewers::new(2, 100, Duration::from_secs(60));
        let viewer = viewers.add().expect("room");
        let mut got = 0;
        for _ in 0..50 {
            viewers.push(&output(60));
            viewers.push(&output(60));
            assert!(viewers.held_until().is_some(), "it is full");
            for _ in 0..2 {
                let Next::Piece(Piece::Output(bytes)) = viewer.next().await else { panic!("output") };
                got += bytes.len();
            }
            viewers.emptied().await;
            assert!(viewers.held_until().is_none());
        }
        assert_eq!(got, 50 * 120);
    }

    #[tokio::test]
    async fn a_slow_viewer_holds_nobody_up_for_long_and_learns_what_it_missed() {
        let mut viewers = Viewers::new(2, 100, Duration::ZERO);
        let (slow, quick) = (viewers.add().expect("room"), viewers.add().expect("room"));
        assert!(viewers.add().is_none(), "as many as allowed");
        viewers.push(&output(70));
        assert!(matches!(quick.next().await, Next::Piece(_)));
        viewers.push(&output(70));
        assert!(matches!(quick.next().await, Next::Piece(_)));
        assert_eq!(viewers.held_until(), None, "its time is over at once");
        viewers.push(&output(5));
        assert!(matches!(slow.next().await, Next::Slow));
        viewers.redraw(&slow.key(), TerminalSize::default(), || Bytes::from_static(b"screen"));
        viewers.push(&output(1));
        assert!(matches!(slow.next().await, Next::Piece(Piece::Redraw { skipped_bytes: 145, .. })));
        assert!(matches!(slow.next().await, Next::Piece(Piece::Output(_))));
        assert!(matches!(quick.next().await, Next::Piece(_)));
        drop(slow);
        assert!(viewers.add().is_some(), "its place is free again");
    }
    #[tokio::test]
    async fn the_end_is_not_lost_in_a_full_queue() {
        let mut viewers = Viewers::new(2, 100, Duration::ZERO);
        let late = viewers.add().expect("room");
        viewers.push(&output(100));
        viewers.finish(&Piece::Resized(TerminalSize::default()), TerminalSize::default(), Bytes::new);
        assert_eq!(viewers.held_until(), None, "nobody is waited for");
        assert!(matches!(late.next().await, Next::Piece(Piece::Output(_))), "it gets all, though late");
        assert!(matches!(late.next().await, Next::Piece(Piece::Resized(_))), "and what stands for the end here");
    }

    #[tokio::test]
    async fn who_is_slow_twice_learns_of_all_that_it_missed() {
        let mut viewers = Viewers::new(2, 100, Duration::ZERO);
        let slow = viewers.add().expect("room");
        let size = TerminalSize { cols: 7, rows: 5 };
        for _ in 0..2 {
            viewers.push(&output(100));
            viewers.held_until();
            viewers.redraw(&slow.key(), size, Bytes::new);
        }
        let Next::Piece(piece) = slow.next().await else { panic!("a piece") };
        assert!(matches!(piece, Piece::Redraw { skipped_bytes: 200, size: TerminalSize { cols: 7, rows: 5 }, .. }), "{piece:?}");
    }

    #[tokio::test]
    async fn a_queue_of_crumbs_stays_within_its_bound() {
        let mut viewers = Viewers::new(1, 10 * PIECE_BYTES, Duration::ZERO);
        let idle = viewers.add().expect("room");
        let mut most = 0;
        for cols in 1..1000 {
            viewers.push(&Piece::Resized(TerminalSize { cols, rows: 1 }));
            viewers.push(&output(usize::from(cols % 2)));
            most = most.max(idle.queue.state().pieces.len());
            viewers.held_until();
            viewers.redraw(&idle.key(), TerminalSize::default(), Bytes::new);
        }
        assert!((10..13).contains(&most), "{most}");
    }
}
