//! The emulator with what it keeps to itself: each action goes to [`Term`], and what a snapshot needs and `Term` doesn't
//! show is noted on the way. Where `Term` has no bound, or leaves the grid in a state that no other terminal has, the
//! action is done here.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use alacritty_terminal::event::{Event, EventListener};
use alacritty_terminal::grid::{Cursor, Dimensions, Grid};
use alacritty_terminal::index::{Column, Line};
use alacritty_terminal::term::cell::Cell;
use alacritty_terminal::term::{Config, Osc52, Term, TermMode};
use alacritty_terminal::vte::ansi::{CharsetIndex, KeyboardModes, NamedPrivateMode, PrivateMode};

use super::tidy;

/// Replies kept for the program; what is beyond is dropped.
const REPLIES_MAX_BYTES: usize = 4 * 1024;

/// Longest title that is kept.
const TITLE_MAX_BYTES: usize = 1024;

/// Deepest stack of titles, and of keyboard modes; the oldest is forgotten.
const STACK_MAX: usize = 16;

/// Most combining characters of a cell.
pub(super) const COMBINING_MAX: usize = 8;

/// Longest hyperlink that is kept.
pub(super) const LINK_MAX_BYTES: usize = 2048;

/// Private modes that `Term` doesn't know and terminals of clients may: noted, so that a snapshot passes them on.
const PASSED_ON: [u16; 9] = [5, 9, 45, 66, 80, 1015, 1016, 2027, 2031];

/// Columns and rows as [`Term`] asks for them.
pub(super) struct Size {
    pub(super) columns: usize,
    pub(super) rows: usize,
}

impl Dimensions for Size {
    fn total_lines(&self) -> usize {
        self.rows
    }

    fn screen_lines(&self) -> usize {
        self.rows
    }

    fn columns(&self) -> usize {
        self.columns
    }
}

/// Collects what the emulator answers to queries.
#[derive(Clone, Default)]
pub(super) struct Replies(Arc<Mutex<String>>);

impl Replies {
    pub(super) fn take(&self) -> String {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl EventListener for Replies {
    fn send_event(&self, event: Event) {
        let Event::PtyWrite(text) = event else { return };
        let mut replies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if replies.len() + text.len() <= REPLIES_MAX_BYTES {
            replies.push_str(&text);
        }
    }
}

/// The kitty keyboard flags of one screen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Keyboard {
    pub(super) current: KeyboardModes,
    /// What a pop brings back, the newest last.
    pub(super) pushed: Vec<KeyboardModes>,
}

pub(super) struct Emulator {
    pub(super) term: Term<Replies>,
    pub(super) replies: Replies,
    /// Rows of the scroll region.
    pub(super) region: Range<usize>,
    /// For each column whether it is a tab stop.
    pub(super) tabs: Vec<bool>,
    pub(super) charset: CharsetIndex,
    pub(super) title: Option<String>,
    pub(super) titles: Vec<Option<String>>,
    pub(super) bells: u64,
    /// Whether the program has chosen the cursor's style.
    pub(super) styled: bool,
    /// Of the main and of the alternate screen.
    pub(super) keyboards: [Keyboard; 2],
    /// XTMODKEYS 4, as its number.
    pub(super) modify_other_keys: u8,
    /// Those of [`PASSED_ON`] that are set.
    pub(super) passed_on: Vec<u16>,
    pub(super) history_max: usize,
}

impl Emulator {
    pub(super) fn new(size: &Size, history_max: usize) -> Self {
        let config = Config { scrolling_history: history_max, osc52: Osc52::Disabled, ..Config::default() };
        let replies = Replies::default();
        Self {
            term: Term::new(config, size, replies.clone()),
            replies,
            region: 0..size.rows,
            tabs: default_tabs(size.columns),
            charset: CharsetIndex::default(),
            title: None,
            titles: Vec::new(),
            bells: 0,
            styled: false,
            keyboards: Default::default(),
            modify_other_keys: 0,
            passed_on: Vec::new(),
            history_max,
        }
    }

    pub(super) fn columns(&self) -> usize {
        self.term.columns()
    }

    pub(super) fn rows(&self) -> usize {
        self.term.screen_lines()
    }

    pub(super) fn has(&self, mode: TermMode) -> bool {
        self.term.mode().contains(mode)
    }

    pub(super) fn keyboard(&mut self) -> &mut Keyboard {
        let alternate = self.has(TermMode::ALT_SCREEN);
        &mut self.keyboards[usize::from(alternate)]
    }

    pub(super) fn resize(&mut self, size: &Size) {
        if (size.columns, size.rows) == (self.columns(), self.rows()) {
            return;
        }
        if size.columns != self.columns() {
            let stops = default_tabs(size.columns);
            self.tabs.truncate(size.columns);
            let known = self.tabs.len();
            self.tabs.extend_from_slice(&stops[known..]);
        }
        self.term.resize(Size { ..*size });
        self.region = 0..size.rows;
        tidy::grid(self.term.grid_mut());
        if self.has(TermMode::ALT_SCREEN) {
            self.with_main(tidy::grid);
        }
    }

    /// Shows the main screen's grid, also while the alternate screen is active.
    ///
    /// `Term` gives only the active grid, and clears the alternate one when it is entered: so that is put aside. The
    /// main screen's saved cursor becomes its cursor, which it is already since the alternate screen was entered.
    pub(super) fn with_main<T>(&mut self, look: impl FnOnce(&mut Grid<Cell>) -> T) -> T {
        if !self.has(TermMode::ALT_SCREEN) {
            return look(self.term.grid_mut());
        }
        let alternate = std::mem::replace(self.term.grid_mut(), Grid::new(1, 1, 0));
        self.term.swap_alt();
        let seen = look(self.term.grid_mut());
        self.term.swap_alt();
        *self.term.grid_mut() = alternate;
        seen
    }

    pub(super) fn cursor(&mut self) -> &mut Cursor<Cell> {
        &mut self.term.grid_mut().cursor
    }

    /// Moves the cursor to a row of the screen, whatever the origin.
    pub(super) fn move_to(&mut self, row: usize, column: usize) {
        let (rows, columns) = (self.rows(), self.columns());
        let cursor = self.cursor();
        cursor.point.line = Line(i32::try_from(row.min(rows - 1)).unwrap_or(0));
        cursor.point.column = Column(column.min(columns - 1));
        cursor.input_needs_wrap = false;
    }

    pub(super) fn row(&self) -> usize {
        usize::try_from(self.term.grid().cursor.point.line.0).unwrap_or(0)
    }

    pub(super) fn column(&self) -> usize {
        self.term.grid().cursor.point.column.0
    }

    /// The row `count` further up: the top margin holds a cursor that is below it.
    pub(super) fn row_above(&self, count: usize) -> usize {
        let row = self.row();
        let top = if row >= self.region.start { self.region.start } else { 0 };
        row.saturating_sub(count).max(top)
    }

    /// The row `count` further down: the bottom margin holds a cursor that is above it.
    pub(super) fn row_below(&self, count: usize) -> usize {
        let row = self.row();
        let bottom = if row < self.region.end { self.region.end } else { self.rows() };
        (row + count).min(bottom - 1)
    }

    /// Within the margins, where origin mode wants the cursor.
    pub(super) fn hold_in_region(&mut self) {
        if !self.has(TermMode::ORIGIN) {
            return;
        }
        let row = self.row();
        let held = row.clamp(self.region.start, self.region.end - 1);
        if held != row {
            let column = self.column();
            self.move_to(held, column);
        }
    }

    pub(super) fn tidy_row(&mut self) {
        let line = self.term.grid().cursor.point.line;
        tidy::row(self.term.grid_mut(), line);
    }

    /// Prints what may need care: combining characters, and any in insert mode.
    pub(super) fn input_carefully(&mut self, c: char) {
        use alacritty_terminal::vte::ansi::Handler as _;
        let cursor = &self.term.grid().cursor;
        let (point, before) = (cursor.point, usize::from(!cursor.input_needs_wrap));
        let row = &self.term.grid()[point.line];
        let mut column = Column(point.column.saturating_sub(before));
        if row[column].flags.contains(alacritty_terminal::term::cell::Flags::WIDE_CHAR_SPACER) {
            column = Column(column.0.saturating_sub(1));
        }
        let extra = row[column].extra.clone();
        let full = row[column].zerowidth().is_some_and(|there| there.len() >= COMBINING_MAX);
        self.term.input(c);
        let cell = &mut self.term.grid_mut()[point.line][column];
        if full && cell.zerowidth().is_some_and(|there| there.len() > COMBINING_MAX) {
            cell.extra = extra;
        }
        if self.has(TermMode::INSERT) {
            self.tidy_row();
        }
    }

    /// Enters or leaves the alternate screen.
    pub(super) fn alternate(&mut self, enter: bool) {
        if self.has(TermMode::ALT_SCREEN) == enter {
            return;
        }
        self.term.swap_alt();
        if enter {
            // What an earlier program left and saved on the alternate screen means nothing to this one.
            let grid = self.term.grid_mut();
            tidy::count_as_written(grid);
            grid.reset_region(..);
            grid.saved_cursor = grid.cursor.clone();
        } else {
            self.keyboards[1] = Keyboard::default();
            self.hold_in_region();
        }
    }

    pub(super) fn set_title(&mut self, title: Option<String>) {
        self.title = title.map(|mut title| {
            title.truncate(title.floor_char_boundary(TITLE_MAX_BYTES));
            title.retain(|c| !c.is_control());
            title
        });
    }

    pub(super) fn push_title(&mut self) {
        push_bounded(&mut self.titles, self.title.clone());
    }

    pub(super) fn push_keyboard(&mut self, mode: KeyboardModes) {
        let keyboard = self.keyboard();
        push_bounded(&mut keyboard.pushed, keyboard.current);
        keyboard.current = mode;
    }

    pub(super) fn pop_keyboard(&mut self, count: u16) {
        let keyboard = self.keyboard();
        for _ in 0..usize::from(count).min(STACK_MAX) {
            keyboard.current = keyboard.pushed.pop().unwrap_or_default();
        }
    }

    /// Notes a private mode; true when that is all there is to do.
    pub(super) fn note_mode(&mut self, mode: PrivateMode, set: bool) -> bool {
        match mode {
            PrivateMode::Named(NamedPrivateMode::SwapScreenAndSetRestoreCursor) | PrivateMode::Unknown(47 | 1047) => {
                self.alternate(set);
                return true;
            }
            PrivateMode::Named(NamedPrivateMode::ColumnMode) => self.region = 0..self.rows(),
            PrivateMode::Named(NamedPrivateMode::BlinkingCursor) => self.styled = true,
            PrivateMode::Unknown(number) if PASSED_ON.contains(&number) => {
                self.passed_on.retain(|known| *known != number);
                if set {
                    self.passed_on.push(number);
                }
                return true;
            }
            _ => {}
        }
        false
    }

    /// Everything as at the beginning, but for the palette and the bells.
    pub(super) fn forget(&mut self) {
        self.region = 0..self.rows();
        self.tabs = default_tabs(self.columns());
        self.charset = CharsetIndex::default();
        self.title = None;
        self.titles.clear();
        self.styled = false;
        self.keyboards = Default::default();
        self.modify_other_keys = 0;
        self.passed_on.clear();
    }
}

/// A stop at each eighth column.
pub(super) fn default_tabs(columns: usize) -> Vec<bool> {
    (0..columns).map(|column| column % 8 == 0).collect()
}

fn push_bounded<T>(stack: &mut Vec<T>, item: T) {
    if stack.len() >= STACK_MAX {
        stack.remove(0);
    }
    stack.push(item);
}
