//! What viewers do with pointer and keyboard: neko's binary messages, read and carried out.
//!
//! One message is one event, big-endian: `u8` what, `u16` length of the rest, the rest (neko v3, data channel).

use std::collections::BTreeSet;

use x_desktop::{Button, KeyChange, Scroll};

use crate::desktop::link::Link;
use crate::desktop::{Error, input};

/// Of wheel travel are one notch, in pixels of a browser: what neko's own client takes for one.
const NOTCH_PX: i32 = 53;
/// Notches of one message.
const NOTCHES_MAX: i32 = 100;
/// Keys and buttons that one viewer holds.
const HELD_MAX: usize = 32;

/// Something to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Input {
    Move {
        x: i32,
        y: i32,
    },
    /// As it was sent; see [`Hands::wheel`].
    Scroll {
        x: i32,
        y: i32,
        control: bool,
    },
    Key {
        keysym: u32,
        is_down: bool,
    },
    Button {
        number: u32,
        is_down: bool,
    },
    /// The viewer's clock, to be sent back.
    Ping([u8; 8]),
}

impl Input {
    /// `None` for what is cut, has another length than it should, or isn't known.
    pub(super) fn parse(message: &[u8]) -> Option<Self> {
        let (what, body) = (*message.first()?, message.get(3..)?);
        let u16_at = |at: usize| Some(u16::from_be_bytes(body.get(at..at + 2)?.try_into().ok()?));
        let i16_at = |at: usize| Some(i16::from_be_bytes(body.get(at..at + 2)?.try_into().ok()?));
        let u32_at = |at: usize| Some(u32::from_be_bytes(body.get(at..at + 4)?.try_into().ok()?));
        Some(match (what, body.len()) {
            (1, 4) => Self::Move { x: u16_at(0)?.into(), y: u16_at(2)?.into() },
            (2, 4 | 5) => {
                Self::Scroll { x: i16_at(0)?.into(), y: i16_at(2)?.into(), control: body.get(4).is_some_and(|key| *key != 0) }
            }
            (3 | 4, 4) => Self::Key { keysym: u32_at(0)?, is_down: what == 3 },
            (5 | 6, 4) => Self::Button { number: u32_at(0)?, is_down: what == 5 },
            (7, 8) => Self::Ping(body.try_into().ok()?),
            _ => return None,
        })
    }

    /// Whether whoever does this has the desktop in hand; a pointer may only pass over the picture.
    pub(super) fn is_meant(self) -> bool {
        !matches!(self, Self::Move { .. } | Self::Ping(_))
    }
}

/// How a client counts the wheel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum WheelUnit {
    /// Pixels, down and right are positive: what browsers say, and `DesktopViewer` passes on.
    #[default]
    Pixels,
    /// Notches, up and left are positive: neko's own client.
    Notches,
}

/// What a viewer holds down, and what is left of its wheel.
#[derive(Debug, Default)]
pub(super) struct Hands {
    keys: BTreeSet<u32>,
    buttons: BTreeSet<u8>,
    carry: (i32, i32),
    pub(super) unit: WheelUnit,
}

impl Hands {
    /// Carries it out.
    ///
    /// # Errors
    /// There is no such button, no such key, or the X server is gone.
    pub(super) async fn carry_out(&mut self, link: &Link, act: Input) -> Result<(), Error> {
        match act {
            Input::Ping(_) => Ok(()),
            Input::Move { x, y } => {
                link.call("a move of the pointer", Error::Input, move |display| {
                    let size = display.size();
                    // the SDK sends the width itself at the right edge
                    let (x, y) = (x.min(i32::from(size.width) - 1), y.min(i32::from(size.height) - 1));
                    display.move_pointer(x, y)
                })
                .await
            }
            Input::Button { number, is_down } => self.button(link, number, is_down).await,
            Input::Key { keysym, is_down } => self.key(link, keysym, is_down).await,
            Input::Scroll { x, y, control } => {
                let (right, down) = self.wheel(x, y);
                if (right, down) == (0, 0) {
                    return Ok(());
                }
                let modifiers: &[&str] = if control { &["ctrl"] } else { &[] };
                let scroll = Scroll::new(right, down, modifiers).map_err(|error| Error::of_x(error, Error::Invalid))?;
                input::follow_to_end(link, Box::new(scroll)).await
            }
        }
    }

    /// Notches to the right and down; what is less than one is kept for the next time.
    fn wheel(&mut self, x: i32, y: i32) -> (i32, i32) {
        let bounded = |notches: i32| notches.clamp(-NOTCHES_MAX, NOTCHES_MAX);
        if self.unit == WheelUnit::Notches {
            return (bounded(x.saturating_neg()), bounded(y.saturating_neg()));
        }
        let notches = |carry: &mut i32, delta: i32| {
            // the other direction begins anew
            *carry = if carry.signum() * delta.signum() < 0 { delta } else { carry.saturating_add(delta) };
            let whole = *carry / NOTCH_PX;
            *carry -= whole * NOTCH_PX;
            bounded(whole)
        };
        let (carry_x, carry_y) = &mut self.carry;
        (notches(carry_x, x), notches(carry_y, y))
    }

    async fn button(&mut self, link: &Link, number: u32, is_down: bool) -> Result<(), Error> {
        let button = button(number).ok_or_else(|| Error::Invalid(format!("there is no button {number}")))?;
        let was_down = self.buttons.contains(&button.number());
        if is_down == was_down || (is_down && self.held() >= HELD_MAX) {
            return Ok(());
        }
        link.call("a button", Error::Input, move |display| display.button(button, is_down)).await?;
        if is_down {
            self.buttons.insert(button.number())
        } else {
            self.buttons.remove(&button.number())
        };
        Ok(())
    }

    /// A key that is down already is repeated by the X server itself.
    async fn key(&mut self, link: &Link, keysym: u32, is_down: bool) -> Result<(), Error> {
        if is_down == self.keys.contains(&keysym) || (is_down && self.held() >= HELD_MAX) {
            return Ok(());
        }
        let change = KeyChange::of_keysym(keysym, is_down).map_err(|error| Error::of_x(error, Error::Invalid))?;
        input::follow_to_end(link, Box::new(change)).await?;
        if is_down {
            self.keys.insert(keysym)
        } else {
            self.keys.remove(&keysym)
        };
        Ok(())
    }

    fn held(&self) -> usize {
        self.keys.len() + self.buttons.len()
    }

    /// Lets go of everything: the viewer left, or isn't in control any more.
    pub(super) async fn let_go(&mut self, link: &Link) {
        for keysym in std::mem::take(&mut self.keys) {
            let Ok(up) = KeyChange::of_keysym(keysym, false) else { continue };
            if let Err(error) = input::follow_to_end(link, Box::new(up)).await {
                tracing::debug!(%error, "a key that a viewer held");
            }
        }
        for button in std::mem::take(&mut self.buttons).into_iter().filter_map(|number| button(number.into())) {
            if let Err(error) = link.call("a button", Error::Input, move |display| display.button(button, false)).await {
                tracing::debug!(%error, "a button that a viewer held");
            }
        }
    }
}

/// By its number in X11. The wheel has messages of its own.
fn button(number: u32) -> Option<Button> {
    [Button::Left, Button::Middle, Button::Right, Button::Back, Button::Forward]
        .into_iter()
        .find(|button| u32::from(button.number()) == number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let hex: String = hex.split_whitespace().collect();
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect()
    }

    #[test]
    fn what_a_viewer_sends_is_read() {
        let cases = [
            ("01 0004 0280 0167", Input::Move { x: 640, y: 359 }),
            ("05 0004 00000001", Input::Button { number: 1, is_down: true }),
            ("06 0004 00000003", Input::Button { number: 3, is_down: false }),
            ("02 0005 0000 0078 00", Input::Scroll { x: 0, y: 120, control: false }),
            ("02 0005 0007 ffcb 01", Input::Scroll { x: 7, y: -53, control: true }),
            ("02 0004 0000 0001", Input::Scroll { x: 0, y: 1, control: false }),
            ("03 0004 0000ffe1", Input::Key { keysym: 0xffe1, is_down: true }),
            ("04 0004 00000061", Input::Key { keysym: 0x61, is_down: false }),
            ("07 0008 00000001 00000002", Input::Ping([0, 0, 0, 1, 0, 0, 0, 2])),
        ];
        for (hex, input) in cases {
            assert_eq!(Input::parse(&bytes(hex)), Some(input), "{hex}");
        }
    }

    #[test]
    fn rubbish_is_nothing() {
        for hex in ["", "01", "01 0004", "01 0004 02", "01 0004 0280 0167 00", "63 0000", "03 0004 00"] {
            assert_eq!(Input::parse(&bytes(hex)), None, "{hex}");
        }
        proptest::proptest!(|(message: Vec<u8>)| { let _ = Input::parse(&message); });
    }

    #[test]
    fn the_wheel_turns_by_whole_notches_and_loses_nothing() {
        let mut hands = Hands::default();
        assert_eq!(hands.wheel(0, 120), (0, 2));
        assert_eq!(hands.wheel(0, 40), (0, 1), "14 were left");
        assert_eq!(hands.wheel(0, -53), (0, -1), "another direction begins anew");
        assert_eq!((hands.wheel(20, 0), hands.wheel(20, 0), hands.wheel(20, 0)), ((0, 0), (0, 0), (1, 0)));
        assert_eq!(hands.wheel(0, i32::from(i16::MAX)), (0, NOTCHES_MAX));
        for far in [i32::MAX, i32::MAX, i32::MIN, i32::MIN] {
            assert_eq!(hands.wheel(far, 0).0.abs(), NOTCHES_MAX);
        }
        hands.unit = WheelUnit::Notches;
        assert_eq!(hands.wheel(1, 1), (-1, -1), "up and left are positive");
    }
}
