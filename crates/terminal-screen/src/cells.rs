//! The screen as styled cells, for who draws it without being a terminal.

use alacritty_terminal::grid::Dimensions as _;
use alacritty_terminal::index::Line;
use alacritty_terminal::term::TermMode;
use alacritty_terminal::term::cell::{Cell, Flags};
use alacritty_terminal::vte::ansi::{Color, CursorShape as Shape};
use serde::Serialize;
use utoipa::ToSchema;

use super::pen::same_style;
use super::{Screen, TerminalSize, text};

/// What a terminal shows now.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScreenCells {
    /// Columns and rows.
    pub size: TerminalSize,
    /// The rows from top to bottom; each is a list of runs of cells that look the same, from left to right. Blank cells
    /// at the end of a row are left out.
    pub rows: Vec<Vec<Run>>,
    /// The cursor.
    pub cursor: CursorInfo,
    /// Modes that the program has set.
    pub modes: Modes,
    /// The title that the program has set, at most 1 KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Whether this is the alternate screen, as full-screen programs use it.
    pub alternate: bool,
    /// How many lines are in the scrollback of the screen shown.
    pub scrollback_lines: usize,
}

/// Cells beside each other that look the same. Attributes that are off are left out.
///
/// A colour is `black`, `red`, `green`, `yellow`, `blue`, `magenta`, `cyan` or `white`, one of these as in `brightRed`,
/// an index of the 256-colour palette from `16` to `255`, or `#rrggbb`.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// The characters, with those that combine with them.
    pub text: String,
    /// How many columns they take.
    pub width: usize,
    /// Foreground; the default colour when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fg: Option<String>,
    /// Background; the default colour when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bg: Option<String>,
    /// Bold.
    #[serde(skip_serializing_if = "is_off")]
    pub bold: bool,
    /// Dim.
    #[serde(skip_serializing_if = "is_off")]
    pub dim: bool,
    /// Italic.
    #[serde(skip_serializing_if = "is_off")]
    pub italic: bool,
    /// The kind of underline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub underline: Option<Underline>,
    /// Colour of the underline; that of the text when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub underline_color: Option<String>,
    /// Foreground and background are swapped.
    #[serde(skip_serializing_if = "is_off")]
    pub inverse: bool,
    /// Not to be shown.
    #[serde(skip_serializing_if = "is_off")]
    pub hidden: bool,
    /// Struck through.
    #[serde(skip_serializing_if = "is_off")]
    pub strike: bool,
    /// Target of the hyperlink.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
fn is_off(flag: &bool) -> bool {
    !*flag
}

/// Kinds of underlines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum Underline {
    /// One line.
    Single,
    /// Two lines.
    Double,
    /// A wave.
    Curly,
    /// Dots.
    Dotted,
    /// Dashes.
    Dashed,
}

/// Shapes of the cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum CursorShape {
    /// A filled cell.
    Block,
    /// A line below.
    Underline,
    /// A line on the left.
    Bar,
}

/// Where the cursor is and how it looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CursorInfo {
    /// Row from the top, from 0.
    pub row: usize,
    /// Column from the left, from 0.
    pub column: usize,
    /// Whether it is shown.
    pub visible: bool,
    /// Its shape.
    pub shape: CursorShape,
    /// Whether it blinks.
    pub blinking: bool,
}

/// Modes that matter to who sends input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Modes {
    /// Arrow keys send SS3 sequences (DECCKM).
    pub application_cursor_keys: bool,
    /// The keypad sends sequences (DECKPAM).
    pub application_keypad: bool,
    /// Pasted text is to be bracketed (2004).
    pub bracketed_paste: bool,
    /// Mouse buttons are reported (1000, 1002, 1003).
    pub mouse: bool,
    /// Mouse movement is reported while a button is pressed (1002).
    pub mouse_drag: bool,
    /// All mouse movement is reported (1003).
    pub mouse_motion: bool,
    /// Mouse reports are in SGR form (1006).
    pub mouse_sgr: bool,
    /// Mouse reports are in UTF-8 form (1005).
    pub mouse_utf8: bool,
    /// The wheel sends arrow keys on the alternate screen (1007).
    pub alternate_scroll: bool,
    /// Gaining and losing focus is reported (1004).
    pub focus_reporting: bool,
    /// Positions count from the scroll region (DECOM).
    pub origin: bool,
    /// Long lines wrap (DECAWM).
    pub autowrap: bool,
    /// Printing shifts what is to the right (IRM).
    pub insert: bool,
    /// A line feed also returns the carriage (LNM).
    pub line_feed_new_line: bool,
    /// Flags of the kitty keyboard protocol.
    pub kitty_keyboard: u8,
}

impl Screen {
    /// The active screen, cell by cell, without its scrollback.
    pub fn cells(&self) -> ScreenCells {
        let grid = self.emulator.term.grid();
        ScreenCells {
            size: self.size,
            rows: (0..=grid.bottommost_line().0).map(|line| runs(&grid[Line(line)][..])).collect(),
            cursor: self.cursor_info(),
            modes: self.modes(),
            title: self.emulator.title.clone(),
            alternate: self.is_alternate(),
            scrollback_lines: self.scrollback_lines(),
        }
    }

    /// The cursor. Cheap, unlike [`cells`](Self::cells).
    pub fn cursor_info(&self) -> CursorInfo {
        let style = self.emulator.term.cursor_style();
        CursorInfo {
            row: self.emulator.row(),
            column: self.emulator.column(),
            visible: self.emulator.has(TermMode::SHOW_CURSOR),
            shape: match style.shape {
                Shape::Underline => CursorShape::Underline,
                Shape::Beam => CursorShape::Bar,
                Shape::Block | Shape::HollowBlock | Shape::Hidden => CursorShape::Block,
            },
            blinking: style.blinking,
        }
    }

    /// The modes. Cheap, unlike [`cells`](Self::cells).
    pub fn modes(&self) -> Modes {
        let has = |mode| self.emulator.has(mode);
        Modes {
            application_cursor_keys: has(TermMode::APP_CURSOR),
            application_keypad: has(TermMode::APP_KEYPAD),
            bracketed_paste: has(TermMode::BRACKETED_PASTE),
            mouse: self.emulator.term.mode().intersects(TermMode::MOUSE_MODE),
            mouse_drag: has(TermMode::MOUSE_DRAG),
            mouse_motion: has(TermMode::MOUSE_MOTION),
            mouse_sgr: has(TermMode::SGR_MOUSE),
            mouse_utf8: has(TermMode::UTF8_MOUSE),
            alternate_scroll: has(TermMode::ALTERNATE_SCROLL),
            focus_reporting: has(TermMode::FOCUS_IN_OUT),
            origin: has(TermMode::ORIGIN),
            autowrap: has(TermMode::LINE_WRAP),
            insert: has(TermMode::INSERT),
            line_feed_new_line: has(TermMode::LINE_FEED_NEW_LINE),
            kitty_keyboard: self.emulator.keyboards[usize::from(self.is_alternate())].current.bits(),
        }
    }
}

fn runs(cells: &[Cell]) -> Vec<Run> {
    let end = cells.iter().rposition(|cell| !super::pen::is_blank(cell)).map_or(0, |last| last + 1);
    let mut runs: Vec<Run> = Vec::new();
    let mut before: Option<&Cell> = None;
    for cell in &cells[..end] {
        if !before.is_some_and(|before| same_style(before, cell)) {
            runs.push(run(cell));
        }
        before = Some(cell);
        let Some(run) = runs.last_mut() else { continue };
        run.width += 1;
        if cell.flags.contains(Flags::LEADING_WIDE_CHAR_SPACER) {
            run.text.push(' ');
        }
        text::push(&mut run.text, cell);
    }
    runs
}

fn run(cell: &Cell) -> Run {
    let has = |flag| cell.flags.contains(flag);
    let kinds = [
        (Flags::UNDERLINE, Underline::Single),
        (Flags::DOUBLE_UNDERLINE, Underline::Double),
        (Flags::UNDERCURL, Underline::Curly),
        (Flags::DOTTED_UNDERLINE, Underline::Dotted),
        (Flags::DASHED_UNDERLINE, Underline::Dashed),
    ];
    Run {
        text: String::new(),
        width: 0,
        fg: color(cell.fg),
        bg: color(cell.bg),
        bold: has(Flags::BOLD),
        dim: has(Flags::DIM),
        italic: has(Flags::ITALIC),
        underline: kinds.into_iter().find(|(flag, _)| has(*flag)).map(|(_, kind)| kind),
        underline_color: cell.underline_color().and_then(color),
        inverse: has(Flags::INVERSE),
        hidden: has(Flags::HIDDEN),
        strike: has(Flags::STRIKEOUT),
        link: cell.hyperlink().map(|link| link.uri().to_owned()),
    }
}

fn color(color: Color) -> Option<String> {
    const NAMES: [&str; 16] = [
        "black",
        "red",
        "green",
        "yellow",
        "blue",
        "magenta",
        "cyan",
        "white",
        "brightBlack",
        "brightRed",
        "brightGreen",
        "brightYellow",
        "brightBlue",
        "brightMagenta",
        "brightCyan",
        "brightWhite",
    ];
    match color {
        Color::Named(name) => NAMES.get(name as usize).map(|name| (*name).to_owned()),
        Color::Indexed(index) => Some(NAMES.get(usize::from(index)).map_or_else(|| index.to_string(), |name| (*name).to_owned())),
        Color::Spec(rgb) => Some(rgb.to_string()),
    }
}
