//! The pointer: where it is, moving it, its buttons.

use x11rb::protocol::xproto::{self, ConnectionExt as _, Window};
use x11rb::protocol::xtest::ConnectionExt as _;

use crate::{Display, Error, Result};

/// Where the pointer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Pixels from the left edge of the screen.
    pub x: i32,
    /// Pixels from its upper edge.
    pub y: i32,
    /// The screen's number: always 0.
    pub screen: u32,
    /// The root's child under the pointer (with a window manager that is the frame), or the root.
    pub window: Window,
}

/// A button, as X11 and its programs number them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Button {
    Left,
    Middle,
    Right,
    WheelUp,
    WheelDown,
    WheelLeft,
    WheelRight,
    Back,
    Forward,
}

impl Button {
    /// Its number.
    pub fn number(self) -> u8 {
        match self {
            Self::Left => 1,
            Self::Middle => 2,
            Self::Right => 3,
            Self::WheelUp => 4,
            Self::WheelDown => 5,
            Self::WheelLeft => 6,
            Self::WheelRight => 7,
            Self::Back => 8,
            Self::Forward => 9,
        }
    }
}

impl Display {
    /// Where the pointer is now. One round trip.
    ///
    /// # Errors
    /// [`Error::Gone`].
    pub fn pointer_position(&self) -> Result<Position> {
        let pointer = self.conn.query_pointer(self.root)?.reply()?;
        let window = if pointer.child == x11rb::NONE { self.root } else { pointer.child };
        Ok(Position { x: pointer.root_x.into(), y: pointer.root_y.into(), screen: 0, window })
    }

    /// Moves the pointer, in pixels from the upper left corner; beyond the screen, to its edge. One round trip.
    ///
    /// # Errors
    /// [`Error::Invalid`]: negative; [`Error::Gone`].
    pub fn move_pointer(&mut self, x: i32, y: i32) -> Result<()> {
        self.send_pointer(x, y)?;
        self.sync()
    }

    /// Presses or releases a button where the pointer is. One round trip. A button that is down already stays down.
    ///
    /// # Errors
    /// [`Error::Gone`].
    pub fn button(&mut self, button: Button, is_down: bool) -> Result<()> {
        self.send_button(button, is_down)?;
        self.sync()
    }

    pub(crate) fn send_pointer(&mut self, x: i32, y: i32) -> Result<()> {
        let (x, y) = (on_screen("x", x, self.size.width)?, on_screen("y", y, self.size.height)?);
        self.conn.xtest_fake_input(xproto::MOTION_NOTIFY_EVENT, 0, 0, self.root, x, y, 0)?;
        Ok(())
    }

    pub(crate) fn send_button(&mut self, button: Button, is_down: bool) -> Result<()> {
        let event = match is_down {
            true => {
                self.buttons.insert(button);
                xproto::BUTTON_PRESS_EVENT
            }
            false => {
                self.buttons.remove(&button);
                xproto::BUTTON_RELEASE_EVENT
            }
        };
        self.conn.xtest_fake_input(event, button.number(), 0, self.root, 0, 0, 0)?;
        Ok(())
    }

    pub(crate) fn release_buttons(&mut self) -> Result<()> {
        let buttons = std::mem::take(&mut self.buttons);
        buttons.into_iter().try_for_each(|button| self.send_button(button, false))
    }
}

/// Errors unless it can be a position; beyond the screen is its edge.
pub(crate) fn valid(name: &str, value: i32) -> Result<u16> {
    let negative = || Error::Invalid(format!("{name} is {value}: positions count from 0"));
    u32::try_from(value).map(|value| u16::try_from(value).unwrap_or(u16::MAX)).map_err(|_| negative())
}

fn on_screen(name: &str, value: i32, size: u16) -> Result<i16> {
    let value = valid(name, value)?.min(size.saturating_sub(1));
    Ok(i16::try_from(value).unwrap_or(i16::MAX))
}
