//! Plain text that scrolls away need not be parsed: of a long run of it, only the lines that the scrollback and the
//! screen can hold leave a trace. Exact, because such text changes nothing but cells and the cursor.

use alacritty_terminal::term::TermMode;

use super::Screen;

/// Lines that are tried as a beginning: one that ends in the last column is none.
const LINES_TRIED: usize = 64;

/// Runs that are shorter aren't worth the look.
const RUN_MIN: usize = 32 * 1024;

impl Screen {
    /// How many bytes at the beginning leave no trace. Those are skipped: the cursor is where they would have left it.
    /// And how many bytes after them were looked at: from there on it is worth another look.
    pub(super) fn skip_flood(&mut self, bytes: &[u8]) -> (usize, usize) {
        if bytes.len() < RUN_MIN || !self.is_plain() {
            return (0, 0);
        }
        let run = &bytes[..plain_prefix(bytes)];
        if run.len() < RUN_MIN {
            return (0, run.len());
        }
        // The first rows may come to lie over older text, until the cursor has reached the bottom: those go, too.
        let lines = 2 * self.emulator.rows() + self.emulator.history_max;
        let bottom = self.emulator.rows() - 1;
        if let Some(start) = start_of_lines(run, lines) {
            // In front of a line's end, at the bottom: this line end, too, scrolls the row away.
            self.emulator.move_to(bottom, 0);
            return (start, run.len() - start);
        }
        if let Some((start, column)) = self.start_without_returns(run, lines) {
            self.emulator.move_to(bottom, column);
            return (start, run.len() - start);
        }
        (0, run.len())
    }

    /// The same for a run without CR and TAB, as in raw mode: there the column follows from the number of characters. Gives
    /// the column, too.
    fn start_without_returns(&self, run: &[u8], lines: usize) -> Option<(usize, usize)> {
        let wraps = self.emulator.term.mode().contains(TermMode::LINE_WRAP);
        if !wraps || run.iter().any(|byte| matches!(byte, b'\r' | b'\t')) {
            return None;
        }
        let cursor = &self.emulator.term.grid().cursor;
        let columns = self.emulator.columns();
        // A character in the last column leaves the cursor there, to wrap before the next one: then it stands at `columns`.
        let first = if cursor.input_needs_wrap { columns } else { cursor.point.column.0 };
        let mut line_ends: Vec<usize> = Vec::new();
        line_ends.extend(run.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at));
        let behind = line_ends.len().checked_sub(lines + 1)?;
        (0..=behind).rev().take(LINES_TRIED).find_map(|line| {
            let start = line_ends[line];
            let printed = start - line;
            let column = if printed == 0 { first } else { (first + printed - 1) % columns + 1 };
            let prints = run[start..].iter().any(|byte| *byte >= 0x20);
            (column < columns && prints).then_some((start, column))
        })
    }

    fn is_plain(&self) -> bool {
        let emulator = &self.emulator;
        self.sequence.is_ground()
            && self.cut_off.is_empty()
            && emulator.region == (0..emulator.rows())
            && !emulator.term.mode().intersects(TermMode::ALT_SCREEN | TermMode::INSERT)
    }
}

/// How many bytes at the beginning are printable ASCII, TAB, CR or LF.
fn plain_prefix(bytes: &[u8]) -> usize {
    const BLOCK: usize = 256;
    let plain = |byte: u8| (0x20..0x7f).contains(&byte) | (byte == b'\n') | (byte == b'\r') | (byte == b'\t');
    let blocks = bytes.chunks(BLOCK).take_while(|block| block.iter().fold(true, |all, byte| all & plain(*byte)));
    let whole = bytes.len().min(blocks.count() * BLOCK);
    whole + bytes[whole..].iter().take_while(|byte| plain(**byte)).count()
}

/// Where the last part of the run begins that has more than `lines` line ends: with a CR LF. The part must print something,
/// or the parser would repeat (REP) another character than the last one.
fn start_of_lines(run: &[u8], lines: usize) -> Option<usize> {
    let mut line_ends = run.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at);
    let start = line_ends.by_ref().skip(lines).find(|at| *at > 0 && run[at - 1] == b'\r')? - 1;
    let prints = run[start..].iter().any(|byte| *byte >= 0x20);
    prints.then_some(start)
}
