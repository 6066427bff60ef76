//! The screen of a terminal, kept on the server: what a program wrote, as it would look. A client that attaches gets a
//! [snapshot](Screen::snapshot) instead of the whole history, and who has no terminal reads [text](Screen::text) or
//! [cells](Screen::cells).
//!
//! Pure and synchronous: bytes in, state out. Whoever owns the pseudo-terminal owns the screen, feeds it all output in
//! order and decides whether [replies](Screen::take_replies) go to the program.
//!
//! ```text
//! bytes ─▶ feed ─▶ (flood: skip what scrolls away) ─▶ parser ─▶ Emulator ─▶ Term
//!                                   └ Sequence: is one unfinished?   └ notes what Term doesn't show
//! ```

mod actions;
mod cells;
mod emulator;
mod flood;
mod pen;
mod sequence;
mod snapshot;
#[cfg(test)]
mod tests;
mod text;
mod tidy;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use alacritty_terminal::vte::ansi::{Processor, Timeout};

pub use cells::{CursorInfo, CursorShape, Modes, Run, ScreenCells, Underline};

use emulator::{Emulator, Size};
use sequence::Sequence;

/// The parser looks for the next ESC after each invalid byte: longer pieces would make garbage quadratic.
const PIECE: usize = 4096;

/// Size of a terminal in character cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TerminalSize {
    /// Columns, 1 to 1000.
    pub cols: u16,
    /// Rows, 1 to 1000.
    pub rows: u16,
}

impl Default for TerminalSize {
    fn default() -> Self {
        Self { cols: 80, rows: 24 }
    }
}

impl TerminalSize {
    /// Whether columns and rows are within their ranges.
    pub fn is_valid(self) -> bool {
        let is_right = |cells| (1..=1000).contains(&cells);
        is_right(self.cols) && is_right(self.rows)
    }

    /// The emulator needs two columns for a wide character: a terminal with one column is kept with two.
    fn inner(self) -> Size {
        Size { columns: usize::from(self.cols).clamp(2, 1000), rows: usize::from(self.rows).clamp(1, 1000) }
    }
}

/// Synchronized updates are shown as they come: a held-back one would be state that no snapshot can pass on.
#[derive(Default)]
struct NoHolding;

impl Timeout for NoHolding {
    fn set_timeout(&mut self, _: Duration) {}

    fn clear_timeout(&mut self) {}

    fn pending_timeout(&self) -> bool {
        false
    }
}

/// What a terminal shows, its scrollback, and the state that further output depends on.
pub struct Screen {
    size: TerminalSize,
    emulator: Emulator,
    parser: Processor<NoHolding>,
    sequence: Sequence,
    /// The beginning of a UTF-8 character that the last piece ended with. The parser doesn't get it yet: it loses
    /// characters when it puts such a one together itself.
    cut_off: Vec<u8>,
    skips_floods: bool,
}

impl Screen {
    /// An empty screen that keeps up to `scrollback_max_lines` lines above it. A size outside 1 to 1000 is brought there.
    pub fn new(size: TerminalSize, scrollback_max_lines: usize) -> Self {
        Self {
            size,
            emulator: Emulator::new(&size.inner(), scrollback_max_lines),
            parser: Processor::new(),
            sequence: Sequence::default(),
            cut_off: Vec::new(),
            skips_floods: true,
        }
    }

    /// Takes what the program wrote, in pieces of any length. Long ones (up to 1 MiB) are faster: of plain text that
    /// scrolls out of the scrollback only the end is parsed.
    pub fn feed(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        // What was looked at is not looked at again: that would be quadratic.
        let mut looked_at = 0;
        while !rest.is_empty() {
            if self.skips_floods && looked_at == 0 {
                let skipped;
                (skipped, looked_at) = self.skip_flood(rest);
                rest = &rest[skipped..];
            }
            let (piece, after) = rest.split_at(rest.len().min(PIECE));
            self.feed_piece(piece);
            (rest, looked_at) = (after, looked_at.saturating_sub(piece.len()));
        }
    }

    fn feed_piece(&mut self, piece: &[u8]) {
        let piece = &piece[self.finish_character(piece)..];
        let piece = &piece[self.sequence.surplus(piece)..];
        let whole = piece.len() - sequence::cut_off(piece);
        let character = &piece[whole..];
        self.sequence.follow(&piece[..whole]);
        self.parser.advance(&mut self.emulator, &piece[..whole]);
        if self.sequence.is_ground() {
            self.cut_off.extend_from_slice(character);
        } else {
            self.sequence.follow(character);
            self.parser.advance(&mut self.emulator, character);
        }
    }

    /// Completes a character that the last piece cut off. Gives how many bytes of this one it took.
    fn finish_character(&mut self, piece: &[u8]) -> usize {
        if self.cut_off.is_empty() {
            return 0;
        }
        let mut taken = 0;
        for byte in piece {
            if sequence::cut_off(&self.cut_off) == 0 || byte & 0xc0 != 0x80 {
                break;
            }
            self.cut_off.push(*byte);
            taken += 1;
        }
        let unfinished = sequence::cut_off(&self.cut_off) > 0;
        if unfinished && taken == piece.len() {
            return taken;
        }
        let character = std::mem::take(&mut self.cut_off);
        self.parser.advance(&mut self.emulator, if unfinished { "\u{fffd}".as_bytes() } else { &character });
        taken
    }

    /// Changes the size; lines are wrapped anew on the main screen. A size outside 1 to 1000 is brought there.
    pub fn resize(&mut self, size: TerminalSize) {
        self.size = size;
        self.emulator.resize(&size.inner());
    }

    /// The size as it was asked for.
    pub fn size(&self) -> TerminalSize {
        self.size
    }

    /// What a terminal would have answered to the program since the last call: device status, attributes, cursor
    /// position, modes. At most 4 KiB; more is dropped. Colours and kitty keyboard flags are never answered.
    pub fn take_replies(&mut self) -> Vec<u8> {
        self.emulator.replies.take().into_bytes()
    }

    /// The title that the program has set, at most 1 KiB.
    pub fn title(&self) -> Option<&str> {
        self.emulator.title.as_deref()
    }

    /// How often the bell rang.
    pub fn bells(&self) -> u64 {
        self.emulator.bells
    }
}
