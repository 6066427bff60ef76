//! The screen as lines of text.

use alacritty_terminal::grid::Dimensions as _;
use alacritty_terminal::index::Line;
use alacritty_terminal::term::TermMode;
use alacritty_terminal::term::cell::{Cell, Flags};

use super::Screen;

impl Screen {
    /// The rows of the active screen from top to bottom, with the scrollback above them if asked for (the alternate
    /// screen has none). Blanks at the end of each are trimmed. `join_wrapped` makes one line of the rows that a long
    /// line was wrapped into.
    pub fn text(&self, scrollback: bool, join_wrapped: bool) -> Vec<String> {
        let grid = self.emulator.term.grid();
        let top = if scrollback { grid.topmost_line() } else { Line(0) };
        let mut lines = Vec::new();
        let mut joined = String::new();
        for line in top.0..=grid.bottommost_line().0 {
            let cells = &grid[Line(line)][..];
            cells.iter().for_each(|cell| push(&mut joined, cell));
            let wraps = cells.last().is_some_and(|cell| cell.flags.contains(Flags::WRAPLINE));
            if join_wrapped && wraps && line != grid.bottommost_line().0 {
                continue;
            }
            joined.truncate(joined.trim_end_matches(' ').len());
            lines.push(std::mem::take(&mut joined));
        }
        lines
    }

    /// How many lines are above the main screen.
    pub fn scrollback_lines(&self) -> usize {
        self.emulator.term.grid().history_size()
    }

    /// Whether the alternate screen is shown.
    pub fn is_alternate(&self) -> bool {
        self.emulator.has(TermMode::ALT_SCREEN)
    }
}

/// Adds a cell's text; the second half of a wide character has none.
pub(super) fn push(text: &mut String, cell: &Cell) {
    if !cell.flags.intersects(Flags::WIDE_CHAR_SPACER | Flags::LEADING_WIDE_CHAR_SPACER) {
        text.push(cell.c);
        text.extend(cell.zerowidth().into_iter().flatten());
    }
}
