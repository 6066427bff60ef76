//! A process's output on its way into the log.

use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::LiveLog;
use super::followers::{Behind, Followers};
use super::stdio::Stdio;
use crate::processes::spool::{Control, Spool, SpoolIndex, Stream, Utf8Carry};
use crate::processes::types::TerminalSize;
use crate::rt::clock::now_ms;

/// What is read at once: a pipe holds so much unless it was made larger (pipe(7)).
pub(in crate::processes) const READ_MAX_BYTES: usize = 64 * 1024;

thread_local! {
    /// One per thread instead of one per process: nothing is awaited while it is in use.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_MAX_BYTES]);
}

/// Reads what a stream has right now and shows it to `look`; an empty slice is the stream's end.
pub(in crate::processes) fn read_now(stdio: &mut Stdio, stream: Stream, look: impl FnOnce(&[u8])) {
    SCRATCH.with_borrow_mut(|scratch| {
        if let Some(count) = stdio.try_read(stream, scratch) {
            look(&scratch[..count]);
        }
    });
}

/// The log of one process, as its owner writes it.
pub(super) struct Output {
    spool: Spool,
    carries: [Utf8Carry; 3],
    grown: watch::Sender<u64>,
    /// Bytes of all streams.
    pub(super) bytes: u64,
    degraded: bool,
    max_bytes: u64,
    pub(super) followers: Arc<Followers>,
    behind: Option<Behind>,
}

impl Output {
    /// A new log, or the one that is there already, to go on with.
    pub(super) fn new(folder: &Path, number: u64, max_bytes: u64, again: bool) -> Self {
        let (grown, _) = watch::channel(0);
        let old = again.then(|| Spool::reopen(folder, number, max_bytes)).transpose();
        let old = old.inspect_err(|error| tracing::warn!(number, %error, "a process's log can't be read: a new one is begun"));
        let spool = old.ok().flatten().unwrap_or_else(|| Spool::create(folder, number, max_bytes));
        Self {
            spool,
            carries: Default::default(),
            grown,
            bytes: 0,
            degraded: false,
            max_bytes,
            followers: Arc::default(),
            behind: None,
        }
    }

    /// What readers hold.
    pub(super) fn log(&self) -> LiveLog {
        LiveLog { index: self.spool.index(), grown: self.grown.subscribe(), followers: Arc::clone(&self.followers) }
    }

    pub(super) fn set_max_bytes(&mut self, max_bytes: u64) {
        self.max_bytes = max_bytes;
        self.spool.set_max_bytes(max_bytes);
    }

    /// Until when reading has to pause at most for somebody who follows and is far behind.
    pub(super) fn held_until(&mut self, patience: Duration) -> Option<Instant> {
        let last = *self.grown.borrow();
        self.behind = self.followers.behind(last, self.max_bytes, self.behind, patience);
        self.behind.map(|behind| behind.until)
    }

    /// Into the log; half a character at the end waits for its other half.
    pub(super) fn take(&mut self, stream: Stream, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        let whole = self.carries[slot(stream)].push(bytes);
        append(&mut self.spool, &self.grown, &mut self.degraded, stream, &whole);
    }

    /// What the process has written to a stream and is in the log, kept or not.
    pub(super) fn logged(&self, stream: Stream) -> u64 {
        self.spool.index().end().bytes.get(stream)
    }

    /// Half a character that was read and waits for its other half.
    pub(super) fn held(&self, stream: Stream) -> &[u8] {
        self.carries[slot(stream)].held()
    }

    /// What an earlier server had read, of which `base` bytes were in the log before; some may have got there.
    pub(super) fn make_up(&mut self, stream: Stream, base: u64, bytes: &[u8]) {
        let there = usize::try_from(self.logged(stream).saturating_sub(base)).unwrap_or(usize::MAX);
        self.carries[slot(stream)] = Utf8Carry::default();
        if let Some(missing) = bytes.get(there..) {
            self.take(stream, missing);
        }
    }

    /// The stream has ended.
    pub(super) fn finish(&mut self, stream: Stream) {
        let rest = self.carries[slot(stream)].finish();
        append(&mut self.spool, &self.grown, &mut self.degraded, stream, &rest);
    }

    /// Notes a terminal's size, for rebuilding its screen later.
    pub(super) fn resized(&mut self, size: TerminalSize) {
        self.spool.append_control(now_ms(), Control::Resize { cols: size.cols, rows: size.rows });
    }

    /// The log, when only memory knows what is missing at its end.
    pub(super) fn unsaved(&self) -> Option<Arc<SpoolIndex>> {
        let index = self.spool.index();
        index.end().degraded.then_some(index)
    }

    /// Bytes on disk.
    pub(super) fn disk_bytes(&self) -> u64 {
        self.spool.index().end().disk_bytes
    }
}

fn append(spool: &mut Spool, grown: &watch::Sender<u64>, degraded: &mut bool, stream: Stream, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    let sequences = spool.append(stream, now_ms(), bytes);
    grown.send_replace(sequences.end.saturating_sub(1));
    let end = spool.index().end();
    if end.degraded != *degraded {
        let number = spool.index().number();
        match end.error.filter(|_| end.degraded) {
            Some(cause) => tracing::error!(number, cause, "a process's output can't be kept: readers are told what is missing"),
            None => tracing::info!(number, lost_bytes = end.not_kept.bytes, "a process's output is kept again"),
        }
        *degraded = end.degraded;
    }
}

fn slot(stream: Stream) -> usize {
    match stream {
        Stream::Stdout => 0,
        Stream::Stderr => 1,
        Stream::Pty => 2,
    }
}
