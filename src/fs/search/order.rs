//! Several threads find, one order comes out: that of the walk. A thread that is ahead leaves a little and goes on; with
//! much it waits for its turn, so that memory stays small whatever is found.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use std::time::Instant;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::SearchItem;
use super::hits::Part;

/// So many batches may be ready before their turn.
const WAITING_MAX: usize = 256;
/// A batch that has more waits for its turn.
const SMALL_BYTES: usize = 16 * 1024;

/// Puts batches in order on their way out, and ends it when there is enough.
pub(super) struct Order {
    state: Mutex<State>,
    turned: Condvar,
}

struct State {
    out: mpsc::Sender<SearchItem>,
    /// To wait with a deadline.
    runtime: Option<Handle>,
    deadline: Instant,
    next: u64,
    waiting: BTreeMap<u64, Part>,
    matches_left: u64,
    bytes_left: u64,
    matches: u64,
    why_cut: Option<&'static str>,
    is_over: bool,
}

impl Order {
    pub(super) fn new(out: mpsc::Sender<SearchItem>, matches_max: u64, bytes_max: u64, deadline: Instant) -> Self {
        let state = State {
            out,
            runtime: Handle::try_current().ok(),
            deadline,
            next: 0,
            waiting: BTreeMap::new(),
            matches_left: matches_max,
            bytes_left: bytes_max,
            matches: 0,
            why_cut: None,
            is_over: false,
        };
        Self { state: Mutex::new(state), turned: Condvar::new() }
    }

    /// Takes a part of a batch, `is_last` or not; it is empty afterwards. False when no more is of interest. Blocks.
    pub(super) fn give(&self, batch: u64, part: &mut Part, is_last: bool) -> bool {
        let mut state = self.lock();
        while !state.is_over && state.next != batch {
            if is_last && state.waiting.len() < WAITING_MAX && part.text.len() <= SMALL_BYTES {
                state.waiting.insert(batch, std::mem::take(part));
                return true;
            }
            state = self.turned.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.emit(std::mem::take(part));
        if is_last && !state.is_over {
            state.next += 1;
            let mut next = state.next;
            while let Some(ready) = state.waiting.remove(&next) {
                state.emit(ready);
                next += 1;
            }
            state.next = next;
        }
        let goes_on = !state.is_over;
        drop(state);
        self.turned.notify_all();
        goes_on
    }

    /// No more is of interest: nobody waits for a turn any more.
    pub(super) fn end(&self) {
        self.lock().is_over = true;
        self.turned.notify_all();
    }

    pub(super) fn is_over(&self) -> bool {
        self.lock().is_over
    }

    /// How many matches went out, and why not all, if not all did.
    pub(super) fn result(&self) -> (u64, Option<&'static str>) {
        let state = self.lock();
        (state.matches, state.why_cut)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner) // numbers that are whole after each step
    }
}

impl State {
    fn emit(&mut self, part: Part) {
        if self.is_over || part.ends.is_empty() {
            return;
        }
        let (mut text, mut end) = (part.text, 0);
        for (line_end, is_match) in &part.ends {
            let bytes = (line_end - end) as u64;
            if (*is_match && self.matches_left == 0) || bytes > self.bytes_left {
                self.why_cut = Some(if bytes > self.bytes_left { "bytes" } else { "matches" });
                self.is_over = true;
                break;
            }
            self.matches_left -= u64::from(*is_match);
            self.matches += u64::from(*is_match);
            self.bytes_left -= bytes;
            end = *line_end;
        }
        text.truncate(end);
        if !text.is_empty() {
            self.send(SearchItem::Hits(Bytes::from(text)));
        }
    }

    /// Waits for a reader that is slow, but not for ever: others want to search, too.
    fn send(&mut self, item: SearchItem) {
        let item = match self.out.try_send(item) {
            Ok(()) => return,
            Err(TrySendError::Full(item)) => item,
            Err(TrySendError::Closed(_)) => return self.is_over = true,
        };
        let late = self
            .runtime
            .as_ref()
            .map(|runtime| runtime.block_on(async { tokio::time::timeout_at(self.deadline.into(), self.out.send(item)).await }));
        match late {
            Some(Ok(Ok(()))) => {}
            Some(Err(_)) | None => (self.why_cut, self.is_over) = (Some("time"), true),
            Some(Ok(Err(_))) => self.is_over = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(lines: &[&str]) -> Part {
        let mut part = Part::default();
        for line in lines {
            part.text.extend_from_slice(line.as_bytes());
            part.text.push(b'\n');
            part.ends.push((part.text.len(), !line.starts_with('-')));
        }
        part
    }

    fn read(out: &mut mpsc::Receiver<SearchItem>) -> String {
        let mut text = String::new();
        while let Ok(SearchItem::Hits(hits)) = out.try_recv() {
            text.push_str(std::str::from_utf8(&hits).expect("UTF-8"));
        }
        text
    }

    #[test]
    fn batches_come_out_in_their_order() {
        let (out, mut read_end) = mpsc::channel(64);
        let order = Order::new(out, 100, 1000, Instant::now());
        assert!(order.give(2, &mut part(&["c"]), true));
        assert!(order.give(1, &mut part(&[]), true));
        assert_eq!(read(&mut read_end), "");
        assert!(order.give(0, &mut part(&["a"]), false));
        assert_eq!(read(&mut read_end), "a\n");
        assert!(order.give(0, &mut part(&["b"]), true));
        assert_eq!(read(&mut read_end), "b\nc\n");
        assert_eq!(order.result(), (3, None));
    }

    #[test]
    fn threads_that_are_ahead_with_much_wait_for_their_turn() {
        let (out, mut read_end) = mpsc::channel(64);
        let order = Order::new(out, u64::MAX, u64::MAX, Instant::now());
        let long = "x".repeat(SMALL_BYTES);
        std::thread::scope(|scope| {
            for batch in (0..8).rev() {
                let (order, long) = (&order, &long);
                scope.spawn(move || order.give(batch, &mut part(&[&format!("{batch}{long}")]), true));
            }
        });
        let firsts: String = read(&mut read_end).lines().filter_map(|line| line.chars().next()).collect();
        assert_eq!(firsts, "01234567");
    }

    #[test]
    fn what_is_beyond_a_bound_ends_it() {
        let (out, mut read_end) = mpsc::channel(64);
        let order = Order::new(out, 2, 1000, Instant::now());
        assert!(!order.give(0, &mut part(&["a", "-after", "b", "-after", "c", "-after"]), true));
        assert_eq!(read(&mut read_end), "a\n-after\nb\n-after\n");
        assert_eq!(order.result(), (2, Some("matches")));
        let (out, mut read_end) = mpsc::channel(64);
        let order = Order::new(out, 100, 5, Instant::now());
        assert!(!order.give(0, &mut part(&["abc", "de"]), true));
        assert_eq!((read(&mut read_end).as_str(), order.result()), ("abc\n", (1, Some("bytes"))));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_reader_that_does_not_read_ends_it_in_time() {
        let (out, mut read_end) = mpsc::channel(1);
        let order = Order::new(out, 100, 1000, Instant::now());
        let (first, second) =
            tokio::task::spawn_blocking(move || (order.give(0, &mut part(&["a"]), true), order.give(1, &mut part(&["b"]), true)))
                .await
                .expect("it ends");
        assert_eq!((first, second, read(&mut read_end).as_str()), (true, false, "a\n"));
    }

    #[test]
    fn a_reader_that_left_ends_it() {
        let (out, read_end) = mpsc::channel(64);
        let order = Order::new(out, 100, 1000, Instant::now());
        drop(read_end);
        assert!(!order.give(0, &mut part(&["a"]), true));
        assert!(!order.give(7, &mut part(&["b"]), false), "without waiting for a turn");
    }
}
