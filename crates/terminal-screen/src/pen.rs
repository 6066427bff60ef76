//! Writes attributes: SGR, hyperlinks and character sets, as differences to what the client's terminal has.

use std::io::Write as _;

use alacritty_terminal::grid::Charsets;
use alacritty_terminal::term::cell::{Cell, Flags};
use alacritty_terminal::vte::ansi::{CharsetIndex, Color, NamedColor, StandardCharset};

/// Attributes that SGR sets.
pub(super) const STYLE: Flags = Flags::INVERSE
    .union(Flags::BOLD)
    .union(Flags::ITALIC)
    .union(Flags::DIM)
    .union(Flags::HIDDEN)
    .union(Flags::STRIKEOUT)
    .union(Flags::ALL_UNDERLINES);

/// Whether two cells look the same but for their text.
pub(super) fn same_style(a: &Cell, b: &Cell) -> bool {
    (a.fg, a.bg, a.flags & STYLE) == (b.fg, b.bg, b.flags & STYLE)
        && (a.extra.is_none() && b.extra.is_none()
            || (a.underline_color(), a.hyperlink()) == (b.underline_color(), b.hyperlink()))
}

/// Nothing was written there, or nothing is to be seen.
pub(super) fn is_blank(cell: &Cell) -> bool {
    is_erased(cell) && cell.bg == Color::Named(NamedColor::Background)
}

/// As erasing with some background leaves it.
pub(super) fn is_erased(cell: &Cell) -> bool {
    cell.c == ' '
        && cell.fg == Color::Named(NamedColor::Foreground)
        && !cell.flags.intersects(STYLE)
        && cell.zerowidth().is_none_or(<[char]>::is_empty)
        && cell.underline_color().is_none()
        && cell.hyperlink().is_none()
}

/// The bytes of a snapshot, and the state they leave the client's terminal in.
#[derive(Default)]
pub(super) struct Pen {
    pub(super) out: Vec<u8>,
    style: Cell,
    charsets: Charsets,
}

impl Pen {
    pub(super) fn put(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    pub(super) fn format(&mut self, text: std::fmt::Arguments<'_>) {
        let written = self.out.write_fmt(text);
        debug_assert!(written.is_ok(), "a Vec takes everything");
    }

    pub(super) fn char(&mut self, c: char) {
        self.put(c.encode_utf8(&mut [0; 4]));
    }

    /// What is printed now looks like this cell.
    pub(super) fn style(&mut self, like: &Cell) {
        if same_style(&self.style, like) {
            return;
        }
        let link = like.hyperlink();
        if link != self.style.hyperlink() {
            match &link {
                Some(link) => self.format(format_args!("\x1b]8;id={};{}\x1b\\", link.id(), link.uri())),
                None => self.put("\x1b]8;;\x1b\\"),
            }
        }
        self.put("\x1b[0");
        self.flags(like.flags);
        self.color(like.fg, 30);
        self.color(like.bg, 40);
        match like.underline_color() {
            Some(Color::Spec(rgb)) => self.format(format_args!(";58:2::{}:{}:{}", rgb.r, rgb.g, rgb.b)),
            Some(Color::Indexed(index)) => self.format(format_args!(";58:5:{index}")),
            Some(Color::Named(_)) | None => {}
        }
        self.put("m");
        self.style = Cell { c: ' ', ..like.clone() };
    }

    pub(super) fn plain(&mut self) {
        self.style(&Cell::default());
    }

    fn flags(&mut self, flags: Flags) {
        const CODES: [(Flags, &str); 11] = [
            (Flags::BOLD, ";1"),
            (Flags::DIM, ";2"),
            (Flags::ITALIC, ";3"),
            (Flags::UNDERLINE, ";4"),
            (Flags::DOUBLE_UNDERLINE, ";4:2"),
            (Flags::UNDERCURL, ";4:3"),
            (Flags::DOTTED_UNDERLINE, ";4:4"),
            (Flags::DASHED_UNDERLINE, ";4:5"),
            (Flags::INVERSE, ";7"),
            (Flags::HIDDEN, ";8"),
            (Flags::STRIKEOUT, ";9"),
        ];
        for (flag, code) in CODES {
            if flags.contains(flag) {
                self.put(code);
            }
        }
    }

    fn color(&mut self, color: Color, base: usize) {
        match color {
            Color::Named(name) if (name as usize) < 8 => self.format(format_args!(";{}", base + name as usize)),
            Color::Named(name) if (name as usize) < 16 => self.format(format_args!(";{}", base + 52 + name as usize)),
            Color::Named(_) => {}
            Color::Indexed(index) => self.format(format_args!(";{};5;{index}", base + 8)),
            Color::Spec(rgb) => self.format(format_args!(";{};2;{};{};{}", base + 8, rgb.r, rgb.g, rgb.b)),
        }
    }

    /// Designates the four character sets.
    pub(super) fn charsets(&mut self, charsets: Charsets) {
        use CharsetIndex::{G0, G1, G2, G3};
        for (index, letter) in [(G0, '('), (G1, ')'), (G2, '*'), (G3, '+')] {
            if self.charsets[index] != charsets[index] {
                let set = if charsets[index] == StandardCharset::Ascii { 'B' } else { '0' };
                self.format(format_args!("\x1b{letter}{set}"));
            }
        }
        self.charsets = charsets;
    }

    /// Prints a cell's text in ASCII character sets.
    pub(super) fn cell(&mut self, cell: &Cell) {
        self.style(cell);
        self.char(cell.c);
        for combining in cell.zerowidth().into_iter().flatten() {
            self.char(*combining);
        }
    }
}
