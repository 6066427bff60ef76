//! Keeps the grid in states that a terminal can be brought into by writing to it. The emulator leaves halves of wide
//! characters behind an erased other half, and pending wraps away from the last column; xterm.js and ghostty blank the
//! first and never have the second.

use alacritty_terminal::grid::{Cursor, Dimensions as _, Grid};
use alacritty_terminal::index::{Column, Line};
use alacritty_terminal::term::cell::{Cell, Flags};

/// Blanks halves of wide characters, and drops marks that only the last column may carry.
pub(super) fn row(grid: &mut Grid<Cell>, line: Line) {
    const SUSPECT: Flags =
        Flags::WIDE_CHAR.union(Flags::WIDE_CHAR_SPACER).union(Flags::WRAPLINE).union(Flags::LEADING_WIDE_CHAR_SPACER);
    let columns = grid.columns();
    let mut after_wide = false;
    for column in 0..columns {
        let last = column + 1 == columns;
        let flags = grid[line][Column(column)].flags;
        let follows_wide = std::mem::take(&mut after_wide);
        if !flags.intersects(SUSPECT) {
            continue;
        }
        if flags.contains(Flags::WIDE_CHAR) {
            after_wide = !last && grid[line][Column(column + 1)].flags.contains(Flags::WIDE_CHAR_SPACER);
            if !after_wide {
                grid[line][Column(column)].clear_wide();
            }
        }
        let cell_flags = &mut grid[line][Column(column)].flags;
        if flags.contains(Flags::WIDE_CHAR_SPACER) && !follows_wide {
            cell_flags.remove(Flags::WIDE_CHAR_SPACER);
        }
        if !last {
            cell_flags.remove(Flags::WRAPLINE);
        }
        if !cell_flags.contains(Flags::WRAPLINE) {
            cell_flags.remove(Flags::LEADING_WIDE_CHAR_SPACER);
        }
    }
}

/// All rows and both cursors, after a resize.
pub(super) fn grid(grid: &mut Grid<Cell>) {
    for line in grid.topmost_line().0..=grid.bottommost_line().0 {
        row(grid, Line(line));
    }
    count_as_written(grid);
    let (lines, columns) = (grid.screen_lines(), grid.columns());
    cursor(&mut grid.cursor, lines, columns);
    cursor(&mut grid.saved_cursor, lines, columns);
}

/// Counts all cells as written: a row that was erased with a background, then widened, would otherwise keep that
/// background when it is erased without one.
pub(super) fn count_as_written(grid: &mut Grid<Cell>) {
    for line in grid.topmost_line().0..=grid.bottommost_line().0 {
        let _ = grid[Line(line)].last_mut();
    }
}

fn cursor(cursor: &mut Cursor<Cell>, lines: usize, columns: usize) {
    let last_line = i32::try_from(lines).unwrap_or(i32::MAX) - 1;
    cursor.point.line.0 = cursor.point.line.0.clamp(0, last_line);
    cursor.point.column.0 = cursor.point.column.0.min(columns - 1);
    if cursor.input_needs_wrap && cursor.point.column.0 + 1 < columns {
        cursor.input_needs_wrap = false;
        cursor.point.column += 1;
    }
}
