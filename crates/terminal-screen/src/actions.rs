//! Each action of the parser on the [`Emulator`]: most go to `Term` as they are.

use alacritty_terminal::term::TermMode;
use alacritty_terminal::vte::ansi::{
    Attr, CharsetIndex, ClearMode, CursorShape, CursorStyle, Handler, Hyperlink, KeyboardModes, KeyboardModesApplyBehavior,
    LineClearMode, Mode, ModifyOtherKeys, PrivateMode, Rgb, StandardCharset, TabulationClearMode,
};

use super::emulator::{Emulator, LINK_MAX_BYTES};

/// Actions that are `Term`'s alone.
macro_rules! hand_on {
    ($($name:ident($($argument:ident: $type:ty),*);)*) => {
        $(#[inline]
        fn $name(&mut self, $($argument: $type),*) {
            Handler::$name(&mut self.term, $($argument),*);
        })*
    };
}

/// Actions that may cut a wide character on the cursor's row in two.
macro_rules! hand_on_and_tidy {
    ($($name:ident($($argument:ident: $type:ty),*);)*) => {
        $(fn $name(&mut self, $($argument: $type),*) {
            Handler::$name(&mut self.term, $($argument),*);
            self.tidy_row();
        })*
    };
}

impl Handler for Emulator {
    hand_on! {
        goto(line: i32, column: usize);
        goto_line(line: i32);
        identify_terminal(intermediate: Option<char>);
        device_status(which: usize);
        move_forward(columns: usize);
        move_backward(columns: usize);
        backspace();
        carriage_return();
        scroll_up(rows: usize);
        scroll_down(rows: usize);
        insert_blank_lines(rows: usize);
        delete_lines(rows: usize);
        save_cursor_position();
        decaln();
        reverse_index();
        terminal_attribute(attribute: Attr);
        set_mode(mode: Mode);
        unset_mode(mode: Mode);
        report_mode(mode: Mode);
        report_private_mode(mode: PrivateMode);
        set_keypad_application_mode();
        unset_keypad_application_mode();
        configure_charset(index: CharsetIndex, charset: StandardCharset);
        set_color(index: usize, color: Rgb);
        reset_color(index: usize);
        text_area_size_chars();
    }

    hand_on_and_tidy! {
        insert_blank(count: usize);
        erase_chars(count: usize);
        clear_line(mode: LineClearMode);
        clear_screen(mode: ClearMode);
    }

    #[inline]
    fn input(&mut self, c: char) {
        if c < '\u{300}' && !self.has(TermMode::INSERT) {
            self.term.input(c);
        } else {
            self.input_carefully(c);
        }
    }

    /// The parser has this one action for LF and for IND.
    #[inline]
    fn linefeed(&mut self) {
        self.term.newline();
    }

    fn move_up(&mut self, rows: usize) {
        self.move_to(self.row_above(rows), self.column());
    }

    fn move_down(&mut self, rows: usize) {
        self.move_to(self.row_below(rows), self.column());
    }

    fn move_up_and_cr(&mut self, rows: usize) {
        self.move_to(self.row_above(rows), 0);
    }

    fn move_down_and_cr(&mut self, rows: usize) {
        self.move_to(self.row_below(rows), 0);
    }

    fn goto_col(&mut self, column: usize) {
        self.move_to(self.row(), column);
    }

    /// `Term` would write tab characters into the grid, and wrap at the last column, which others don't.
    #[inline]
    fn put_tab(&mut self, count: u16) {
        self.term.move_forward_tabs(count);
    }

    fn move_forward_tabs(&mut self, count: u16) {
        self.term.move_forward_tabs(count);
    }

    fn move_backward_tabs(&mut self, count: u16) {
        self.term.move_backward_tabs(count);
        self.cursor().input_needs_wrap = false;
    }

    fn delete_chars(&mut self, count: usize) {
        let count = count.min(self.columns() - self.column()); // `Term` would erase left of the cursor
        self.term.delete_chars(count);
        self.tidy_row();
    }

    fn bell(&mut self) {
        self.bells = self.bells.saturating_add(1);
    }

    fn set_title(&mut self, title: Option<String>) {
        Self::set_title(self, title);
    }

    fn push_title(&mut self) {
        Self::push_title(self);
    }

    fn pop_title(&mut self) {
        if let Some(title) = self.titles.pop() {
            self.title = title;
        }
    }

    fn set_cursor_style(&mut self, style: Option<CursorStyle>) {
        self.styled = style.is_some();
        self.term.set_cursor_style(style);
    }

    fn set_cursor_shape(&mut self, shape: CursorShape) {
        self.styled = true;
        self.term.set_cursor_shape(shape);
    }

    fn set_horizontal_tabstop(&mut self) {
        let column = self.column();
        self.tabs[column] = true;
        self.term.set_horizontal_tabstop();
    }

    fn clear_tabs(&mut self, mode: TabulationClearMode) {
        let column = self.column();
        match mode {
            TabulationClearMode::Current => self.tabs[column] = false,
            TabulationClearMode::All => self.tabs.fill(false),
        }
        self.term.clear_tabs(mode);
    }

    fn restore_cursor_position(&mut self) {
        self.term.restore_cursor_position();
        self.hold_in_region();
    }

    fn reset_state(&mut self) {
        self.term.reset_state();
        self.forget();
    }

    fn set_private_mode(&mut self, mode: PrivateMode) {
        if !self.note_mode(mode, true) {
            self.term.set_private_mode(mode);
        }
    }

    fn unset_private_mode(&mut self, mode: PrivateMode) {
        if !self.note_mode(mode, false) {
            self.term.unset_private_mode(mode);
        }
    }

    fn set_scrolling_region(&mut self, top: usize, bottom: Option<usize>) {
        let rows = self.rows();
        let bottom = bottom.unwrap_or(rows).min(rows);
        if top < bottom {
            self.region = top - 1..bottom;
            self.term.set_scrolling_region(top, Some(bottom));
        }
    }

    fn set_active_charset(&mut self, index: CharsetIndex) {
        self.charset = index;
        self.term.set_active_charset(index);
    }

    fn set_hyperlink(&mut self, link: Option<Hyperlink>) {
        let length = |link: &Hyperlink| link.uri.len() + link.id.as_ref().map_or(0, String::len);
        self.term.set_hyperlink(link.filter(|link| length(link) <= LINK_MAX_BYTES));
    }

    fn push_keyboard_mode(&mut self, mode: KeyboardModes) {
        self.push_keyboard(mode);
    }

    fn pop_keyboard_modes(&mut self, count: u16) {
        self.pop_keyboard(count);
    }

    fn set_keyboard_mode(&mut self, mode: KeyboardModes, behaviour: KeyboardModesApplyBehavior) {
        let current = &mut self.keyboard().current;
        match behaviour {
            KeyboardModesApplyBehavior::Replace => *current = mode,
            KeyboardModesApplyBehavior::Union => current.insert(mode),
            KeyboardModesApplyBehavior::Difference => current.remove(mode),
        }
    }

    fn set_modify_other_keys(&mut self, mode: ModifyOtherKeys) {
        self.modify_other_keys = mode as u8;
    }
}
