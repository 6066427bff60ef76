//! The bytes that bring a freshly reset terminal of the same size into the state of a [`Screen`].
//!
//! They begin with RIS, the one sequence after which all terminals agree; CAN before it ends whatever the client's
//! parser was in. Both answer nothing and ring nothing. Then scrollback and main screen row by row, the alternate screen
//! above it, and at last the modes, since most of them would change how the rows are drawn.

use alacritty_terminal::grid::{Cursor, Dimensions as _, Grid};
use alacritty_terminal::index::{Column, Line};
use alacritty_terminal::term::TermMode;
use alacritty_terminal::term::cell::{Cell, Flags};
use alacritty_terminal::vte::ansi::{CharsetIndex, Color, CursorShape, KeyboardModes, NamedColor};

use super::Screen;
use super::emulator::{Emulator, Keyboard, default_tabs};
use super::pen::{Pen, is_blank, is_erased, same_style};

/// Private modes that are off in a fresh terminal.
const MODES: [(TermMode, u16); 9] = [
    (TermMode::APP_CURSOR, 1),
    (TermMode::MOUSE_REPORT_CLICK, 1000),
    (TermMode::MOUSE_DRAG, 1002),
    (TermMode::MOUSE_MOTION, 1003),
    (TermMode::FOCUS_IN_OUT, 1004),
    (TermMode::UTF8_MOUSE, 1005),
    (TermMode::SGR_MOUSE, 1006),
    (TermMode::BRACKETED_PASTE, 2004),
    (TermMode::ORIGIN, 6),
];

impl Screen {
    /// What to send to a terminal of this size so that it shows the same, with up to `scrollback_lines` lines of
    /// scrollback, and goes on in the same way with the bytes that follow. Asks the terminal nothing.
    ///
    /// Not restored: the stack of titles, blinking and overlined text, what the main screen had saved (DECSC) before the
    /// alternate one was entered, the character that REP would repeat, the wrap mark of the bottom row.
    pub fn snapshot(&mut self, scrollback_lines: usize) -> Vec<u8> {
        let mut pen = Pen::default();
        pen.put("\x18\x1bc");
        palette(&mut pen, &self.emulator);
        if let Some(title) = &self.emulator.title {
            pen.format(format_args!("\x1b]2;{title}\x1b\\"));
        }
        let alternate = self.emulator.has(TermMode::ALT_SCREEN);
        self.emulator.with_main(|main| {
            rows(&mut pen, main, scrollback_lines);
            if !alternate && main.saved_cursor != Cursor::default() {
                cursor(&mut pen, main, &main.saved_cursor, 0);
                pen.put("\x1b7");
            }
            if alternate {
                cursor(&mut pen, main, &main.cursor, 0);
            }
        });
        keyboard(&mut pen, &self.emulator.keyboards[0]);
        if alternate {
            pen.put("\x1b[?1049h");
            keyboard(&mut pen, &self.emulator.keyboards[1]);
            let grid = self.emulator.term.grid();
            pen.charsets(Cursor::<Cell>::default().charsets);
            pen.plain();
            pen.put("\x1b[2J\x1b[H");
            rows(&mut pen, grid, 0);
            cursor(&mut pen, grid, &grid.saved_cursor, 0);
            pen.put("\x1b7");
        }
        last_things(&mut pen, &self.emulator);
        pen.out.extend_from_slice(self.sequence.unfinished());
        pen.out.extend_from_slice(&self.cut_off);
        pen.out
    }
}

/// Colours that the program has redefined.
fn palette(pen: &mut Pen, emulator: &Emulator) {
    pen.put("\x1b]104\x1b\\\x1b]110\x1b\\\x1b]111\x1b\\\x1b]112\x1b\\");
    for index in 0..=NamedColor::Cursor as usize {
        let Some(rgb) = emulator.term.colors()[index] else { continue };
        match index.checked_sub(NamedColor::Foreground as usize) {
            Some(dynamic) => pen.format(format_args!("\x1b]{}", 10 + dynamic)),
            None => pen.format(format_args!("\x1b]4;{index}")),
        }
        pen.format(format_args!(";rgb:{:02x}/{:02x}/{:02x}\x1b\\", rgb.r, rgb.g, rgb.b));
    }
}

/// Rows from the given depth of the scrollback on. The cursor is at the top left of an empty screen.
fn rows(pen: &mut Pen, grid: &Grid<Cell>, scrollback_lines: usize) {
    pen.charsets(Cursor::<Cell>::default().charsets);
    let scrollback = i32::try_from(grid.history_size().min(scrollback_lines)).unwrap_or(i32::MAX);
    let bottom = grid.bottommost_line().0;
    let last = Column(grid.columns() - 1);
    for line in -scrollback..=bottom {
        let cells = &grid[Line(line)][..];
        if line > -scrollback {
            match &grid[Line(line - 1)][last] {
                above if above.flags.contains(Flags::WRAPLINE) => wrap(pen, above, &cells[0]),
                _ => {
                    pen.plain(); // a row that scrolls in gets the pen's background
                    pen.put("\r\n");
                }
            }
        }
        row(pen, cells, line != bottom && cells[last.0].flags.contains(Flags::WRAPLINE));
    }
}

/// Makes the client's terminal wrap by itself, so that it knows the two rows for one line.
fn wrap(pen: &mut Pen, above: &Cell, first: &Cell) {
    let plain = first.bg == Color::Named(NamedColor::Background);
    if above.flags.contains(Flags::LEADING_WIDE_CHAR_SPACER) {
        if first.flags.contains(Flags::WIDE_CHAR) && plain && same_style(above, first) {
            return; // it doesn't fit above, and wraps
        }
        // Any other wide character does the same, and is erased again. So is what the pen's background filled.
        pen.style(above);
        pen.put("\u{3000}\r");
        pen.plain();
        pen.put("\x1b[2X");
        if above.bg != Color::Named(NamedColor::Background) {
            pen.put("\x1b[2C\x1b[K\r");
        }
    } else if !plain || is_blank(first) {
        pen.plain();
        pen.put(" \r");
    }
}

fn row(pen: &mut Pen, cells: &[Cell], wraps: bool) {
    let (mut end, mut erased) = (cells.len(), None);
    if !wraps {
        let tail = cells.last().filter(|cell| is_erased(cell));
        let run = tail.map_or(0, |tail| cells.iter().rev().take_while(|cell| is_erased(cell) && cell.bg == tail.bg).count());
        end -= run;
        erased = tail.filter(|tail| !is_blank(tail));
    }
    for (column, cell) in cells[..end].iter().enumerate() {
        let leads = cell.flags.contains(Flags::LEADING_WIDE_CHAR_SPACER) && wraps && column + 1 == cells.len();
        if !leads && !cell.flags.contains(Flags::WIDE_CHAR_SPACER) {
            pen.cell(cell);
        }
    }
    if let Some(tail) = erased {
        pen.style(tail);
        pen.put("\x1b[K");
    }
}

/// Puts the cursor where it is, with its pen and character sets. `top` is the row that counts as the first.
fn cursor(pen: &mut Pen, grid: &Grid<Cell>, cursor: &Cursor<Cell>, top: usize) {
    let row = usize::try_from(cursor.point.line.0).unwrap_or(0).saturating_sub(top) + 1;
    let column = cursor.point.column;
    pen.charsets(Cursor::<Cell>::default().charsets);
    if cursor.input_needs_wrap {
        // Only printing into the last column brings the cursor behind it.
        let cells = &grid[cursor.point.line];
        let wide = usize::from(cells[column].flags.contains(Flags::WIDE_CHAR_SPACER));
        pen.format(format_args!("\x1b[{row};{}H", column.0 + 1 - wide));
        if wide > 0 {
            pen.plain();
            pen.put("\x1b[2X"); // printed over, it would take the mark from the row above that this one didn't fit there
        }
        pen.cell(&cells[column - wide]);
    } else {
        pen.format(format_args!("\x1b[{row};{}H", column.0 + 1));
    }
    pen.style(&cursor.template);
    pen.charsets(cursor.charsets);
}

fn keyboard(pen: &mut Pen, keyboard: &Keyboard) {
    let mut modes = keyboard.pushed.iter().chain([&keyboard.current]);
    if let Some(first) = modes.next().filter(|first| **first != KeyboardModes::NO_MODE) {
        pen.format(format_args!("\x1b[={};1u", first.bits()));
    }
    for mode in modes {
        pen.format(format_args!("\x1b[>{}u", mode.bits()));
    }
}

fn last_things(pen: &mut Pen, emulator: &Emulator) {
    let mode = *emulator.term.mode();
    if emulator.region != (0..emulator.rows()) {
        pen.format(format_args!("\x1b[{};{}r", emulator.region.start + 1, emulator.region.end));
    }
    if emulator.tabs != default_tabs(emulator.columns()) {
        pen.put("\x1b[3g");
        for (column, _) in emulator.tabs.iter().enumerate().filter(|(_, stop)| **stop) {
            pen.format(format_args!("\x1b[{}G\x1bH", column + 1));
        }
    }
    for (_, number) in MODES.iter().filter(|(flag, _)| mode.contains(*flag)) {
        pen.format(format_args!("\x1b[?{number}h"));
    }
    let top = if mode.contains(TermMode::ORIGIN) { emulator.region.start } else { 0 };
    cursor(pen, emulator.term.grid(), &emulator.term.grid().cursor, top);
    for number in &emulator.passed_on {
        pen.format(format_args!("\x1b[?{number}h"));
    }
    let rest = [
        (emulator.charset == CharsetIndex::G1, "\x0e"),
        (mode.contains(TermMode::APP_KEYPAD), "\x1b="),
        (!mode.contains(TermMode::ALTERNATE_SCROLL), "\x1b[?1007l"),
        (!mode.contains(TermMode::SHOW_CURSOR), "\x1b[?25l"),
        (!mode.contains(TermMode::LINE_WRAP), "\x1b[?7l"),
        (mode.contains(TermMode::INSERT), "\x1b[4h"),
        (mode.contains(TermMode::LINE_FEED_NEW_LINE), "\x1b[20h"),
    ];
    rest.iter().filter(|(wanted, _)| *wanted).for_each(|(_, text)| pen.put(text));
    if emulator.modify_other_keys != 0 {
        pen.format(format_args!("\x1b[>4;{}m", emulator.modify_other_keys));
    }
    if emulator.styled {
        let style = emulator.term.cursor_style();
        let number = match style.shape {
            CursorShape::Underline => 4,
            CursorShape::Beam => 6,
            CursorShape::Block | CursorShape::HollowBlock | CursorShape::Hidden => 2,
        };
        pen.format(format_args!("\x1b[{} q", number - u8::from(style.blinking)));
    }
}
