//! A terminal's screen as the server sees it, and those who watch it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Attached;
use super::viewers::{Piece, Viewers};
use crate::config::{Bounds, as_duration, as_usize};
use crate::processes::Error;
use crate::processes::spool::{Control, Item, SpoolIndex, SpoolReader};
use crate::processes::types::TerminalSize;
use terminal_screen::Screen;

/// Output waits so long, or until there is so much of it, before the screen takes it: in a flood most of it scrolls away
/// unseen, which is cheaper to find out in large pieces.
const FEED_AFTER: Duration = Duration::from_millis(15);
const FEED_AT_BYTES: usize = 1024 * 1024;

/// The owner's side of a terminal.
pub(super) struct Terminal {
    /// Made with the first output: many a terminal never writes.
    screen: Option<Screen>,
    /// Written by the process, not yet on the screen.
    pending: Vec<u8>,
    pending_since: Option<Instant>,
    /// What was written under an earlier server is there, and not on the screen yet.
    log: Option<Arc<SpoolIndex>>,
    pub(super) viewers: Viewers,
    pub(super) size: TerminalSize,
    scrollback_max_lines: usize,
}

impl Terminal {
    pub(super) fn new(size: TerminalSize, bounds: &Bounds) -> Self {
        let scrollback_max_lines = as_usize(bounds.terminal_scrollback_max_lines);
        let viewers = Viewers::new(
            as_usize(bounds.terminal_viewers_max),
            as_usize(bounds.terminal_viewer_queue_max_bytes),
            as_duration(bounds.terminal_viewer_patience_ms),
        );
        Self { screen: None, pending: Vec::new(), pending_since: None, log: None, viewers, size, scrollback_max_lines }
    }

    /// The same, of a process that goes on: its screen is made from its log as soon as it is needed.
    pub(super) fn of_log(self, log: Arc<SpoolIndex>) -> Self {
        Self { log: Some(log), ..self }
    }

    /// Output: to the viewers at once, to the screen soon.
    pub(super) fn take(&mut self, bytes: &[u8]) {
        if !self.viewers.is_empty() {
            self.viewers.push(&Piece::Output(Bytes::copy_from_slice(bytes)));
        }
        self.pending.extend_from_slice(bytes);
        self.pending_since.get_or_insert_with(Instant::now);
        if self.pending.len() >= FEED_AT_BYTES {
            self.feed();
        }
    }

    /// When [`Terminal::feed`] is due.
    pub(super) fn feed_at(&self) -> Option<Instant> {
        self.pending_since.map(|since| since + FEED_AFTER)
    }

    /// Brings the screen up to date.
    pub(super) fn feed(&mut self) {
        self.pending_since = None;
        if let Some(log) = self.log.take() {
            self.pending = Vec::new(); // the log has it, too
            match screen_from_log(SpoolReader::new(log), self.size, self.scrollback_max_lines) {
                Ok(mut screen) => {
                    screen.resize(self.size);
                    let _ = screen.take_replies(); // to questions that were answered then
                    self.screen = Some(screen);
                }
                Err(error) => tracing::warn!(%error, "a terminal's screen can't be made again: its log can't be read"),
            }
        }
        if self.pending.is_empty() {
            return;
        }
        let (size, lines) = (self.size, self.scrollback_max_lines);
        self.screen.get_or_insert_with(|| Screen::new(size, lines)).feed(&self.pending);
        if self.pending.capacity() > 64 * 1024 {
            self.pending = Vec::new(); // after a flood: an idle terminal costs little
        } else {
            self.pending.clear();
        }
    }

    /// What a terminal answers to the process's questions (cursor position and so on). A viewer's own terminal answers
    /// them, too: so these are only for when nobody watches.
    pub(super) fn take_replies(&mut self) -> Vec<u8> {
        let replies = self.screen.as_mut().map(Screen::take_replies).unwrap_or_default();
        if self.viewers.is_empty() { replies } else { Vec::new() }
    }

    /// The screen, up to date.
    pub(super) fn screen(&mut self) -> &mut Screen {
        self.feed();
        let (size, lines) = (self.size, self.scrollback_max_lines);
        self.screen.get_or_insert_with(|| Screen::new(size, lines))
    }

    pub(super) fn resize(&mut self, size: TerminalSize) {
        self.feed();
        self.size = size;
        if let Some(screen) = &mut self.screen {
            screen.resize(size);
        }
        self.viewers.push(&Piece::Resized(size));
    }

    pub(super) fn attach(&mut self) -> Result<Attached, Error> {
        self.feed();
        let snapshot = self.screen.is_some().then(|| self.snapshot());
        let viewer = self.viewers.add().ok_or(Error::TooManyViewers { max: self.viewers.max() })?;
        Ok(Attached { viewer, size: self.size, snapshot })
    }

    pub(super) fn snapshot(&mut self) -> Bytes {
        let lines = self.scrollback_max_lines;
        self.screen().snapshot(lines).into()
    }

    /// Slow viewers get the last screen before they are told of the end.
    pub(super) fn finish(&mut self, last: &Piece) {
        let (snapshot, size) = (self.snapshot(), self.size);
        self.viewers.finish(last, size, || snapshot.clone());
    }
}

/// Rebuilds the screen of a terminal that is gone from what it wrote. Blocks: for a thread of its own.
///
/// # Errors
/// The log can't be read.
pub(in crate::processes) fn screen_from_log(
    mut log: SpoolReader,
    size: TerminalSize,
    scrollback_max_lines: usize,
) -> std::io::Result<Screen> {
    let mut screen = Screen::new(size, scrollback_max_lines);
    loop {
        let items = log.read(FEED_AT_BYTES)?;
        if items.is_empty() {
            return Ok(screen);
        }
        let mut gathered = Vec::new();
        for item in items {
            match item {
                Item::Entry(entry) => gathered.extend_from_slice(&entry.bytes),
                Item::Gap(_) => {}
                Item::Control { control: Control::Resize { cols, rows }, .. } => {
                    screen.feed(&std::mem::take(&mut gathered));
                    screen.resize(TerminalSize { cols, rows });
                }
            }
        }
        screen.feed(&gathered);
    }
}
