//! What hands do with a mouse: clicks, drags and turns of the wheel, with keys held meanwhile.

use std::time::Duration;

use x11rb::protocol::xproto::{Keycode, Keysym};

use crate::keyboard::modifiers_named;
use crate::pointer::{Button, valid};
use crate::{Display, Error, Plan, Result};

/// Clicks of one plan.
const CLICKS_MAX: u32 = 1000;

/// Between two clicks: far below what programs take for a double click (GTK 400 ms, xterm 250 ms).
const BETWEEN_CLICKS: Duration = Duration::from_millis(1);

/// Turns of the wheel of one plan, in each direction.
const NOTCHES_MAX: u32 = 10_000;

/// Turns in one step, and the pause after it: programs draw in between.
const NOTCHES_AT_ONCE: u32 = 8;
const BETWEEN_NOTCHES: Duration = Duration::from_millis(4);

/// Points of a drag's path.
const POINTS_MAX: usize = 10_000;

/// Motions of one drag.
const MOTIONS_MAX: u32 = 100_000;

/// A drag that says nothing of its pace: a motion for so many pixels, within these bounds, …
const PIXELS_PER_MOTION: f64 = 12.0;
const MOTIONS_USUAL: std::ops::RangeInclusive<f64> = 8.0..=60.0;

/// … and so long between them.
const BETWEEN_MOTIONS: Duration = Duration::from_millis(3);

/// What holds keys and a button for a while.
#[derive(Debug, Default)]
struct Grip {
    modifiers: Vec<Keysym>,
    held: Vec<Keycode>,
    button: Option<Button>,
    is_on: bool,
}

impl Grip {
    fn new(modifiers: &[&str]) -> Result<Self> {
        Ok(Self { modifiers: modifiers_named(modifiers)?, ..Self::default() })
    }

    /// Holds the modifiers, once.
    fn take(&mut self, display: &mut Display) -> Result<()> {
        if !std::mem::replace(&mut self.is_on, true) && !self.modifiers.is_empty() {
            display.modifiers(&self.modifiers)?;
            display.hold_chord(&self.modifiers, &mut self.held)?;
        }
        Ok(())
    }

    fn press(&mut self, display: &mut Display, button: Button) -> Result<()> {
        self.button = Some(button);
        display.send_button(button, true)
    }

    fn release(&mut self, display: &mut Display) -> Result<()> {
        self.button.take().map_or(Ok(()), |button| display.send_button(button, false))
    }

    /// Lets go of everything, in the order a hand does.
    fn drop_all(&mut self, display: &mut Display) -> Result<()> {
        self.release(display)?;
        display.let_go_all(&mut self.held)?;
        display.sync()
    }

    /// At the end, and after an error, nothing is held.
    fn after(&mut self, display: &mut Display, stepped: Result<Option<Duration>>) -> Result<Option<Duration>> {
        match stepped {
            Ok(Some(pause)) => display.sync().map(|()| Some(pause)),
            Ok(None) => self.drop_all(display).map(|()| None),
            Err(error) => {
                let _ = self.drop_all(display); // what went wrong first is said
                Err(error)
            }
        }
    }
}

/// A button pressed and released, once or more, where the pointer is.
#[derive(Debug)]
pub struct Click {
    button: Button,
    left: u32,
    hold: Duration,
    grip: Grip,
}

impl Click {
    /// `count` (1 to 1000) clicks so quick that programs take two for a double click. Each is `hold` long. `modifiers` are names
    /// of keys, held meanwhile.
    ///
    /// # Errors
    /// [`Error::Invalid`]: the count, or no key has such a name. The steps: [`Error::Refused`], the layout has no such modifier.
    pub fn new(button: Button, count: u32, hold: Duration, modifiers: &[&str]) -> Result<Self> {
        if !(1..=CLICKS_MAX).contains(&count) {
            return Err(Error::Invalid(format!("a button is clicked 1 to {CLICKS_MAX} times, not {count}")));
        }
        Ok(Self { button, left: count, hold, grip: Grip::new(modifiers)? })
    }

    fn advance(&mut self, display: &mut Display) -> Result<Option<Duration>> {
        self.grip.take(display)?;
        if self.grip.button.is_none() && self.left > 0 {
            self.left -= 1;
            self.grip.press(display, self.button)?;
            if !self.hold.is_zero() {
                return Ok(Some(self.hold));
            }
        }
        self.grip.release(display)?;
        Ok((self.left > 0).then_some(BETWEEN_CLICKS))
    }
}

/// Turns of the wheel where the pointer is.
#[derive(Debug)]
pub struct Scroll {
    turns: [(Button, u32); 2],
    grip: Grip,
}

impl Scroll {
    /// Notches to the right and down; to the left and up if negative. At most 10 000 each, not both 0.
    ///
    /// # Errors
    /// [`Error::Invalid`]: out of range, or no key has a modifier's name. The steps: as [`Click::new`].
    pub fn new(right: i32, down: i32, modifiers: &[&str]) -> Result<Self> {
        if right == 0 && down == 0 {
            return Err(Error::Invalid("the wheel is to turn by nothing".into()));
        }
        if right.unsigned_abs().max(down.unsigned_abs()) > NOTCHES_MAX {
            return Err(Error::Invalid(format!("the wheel turns by at most {NOTCHES_MAX} notches at once")));
        }
        let vertical = if down < 0 { Button::WheelUp } else { Button::WheelDown };
        let horizontal = if right < 0 { Button::WheelLeft } else { Button::WheelRight };
        let turns = [(vertical, down.unsigned_abs()), (horizontal, right.unsigned_abs())];
        Ok(Self { turns, grip: Grip::new(modifiers)? })
    }

    fn advance(&mut self, display: &mut Display) -> Result<Option<Duration>> {
        self.grip.take(display)?;
        for _ in 0..NOTCHES_AT_ONCE {
            let Some((button, left)) = self.turns.iter_mut().find(|(_, left)| *left > 0) else { return Ok(None) };
            *left -= 1;
            self.grip.press(display, *button)?;
            self.grip.release(display)?;
        }
        let is_over = self.turns.iter().all(|(_, left)| *left == 0);
        Ok((!is_over).then_some(BETWEEN_NOTCHES))
    }
}

/// The pointer moved along a path with a button down.
#[derive(Debug)]
pub struct Drag {
    button: Button,
    path: Vec<(f64, f64)>,
    /// Length of the path until each point.
    lengths: Vec<f64>,
    motions: u32,
    made: u32,
    pause: Duration,
    grip: Grip,
}

impl Drag {
    /// From the first point over the others to the last, in pixels, 2 to 10 000 of them: in so many `motions` (to 100 000) of
    /// even length, and `duration` long. By default as a quick hand would: 25 to 200 ms, by length.
    ///
    /// # Errors
    /// [`Error::Invalid`]: a number out of range, or no key has a modifier's name. The steps: as [`Click::new`].
    pub fn new(
        button: Button,
        path: &[(i32, i32)],
        motions: Option<u32>,
        duration: Option<Duration>,
        modifiers: &[&str],
    ) -> Result<Self> {
        if !(2..=POINTS_MAX).contains(&path.len()) {
            return Err(Error::Invalid(format!("a drag has 2 to {POINTS_MAX} points, not {}", path.len())));
        }
        let motions_given = motions.unwrap_or(1);
        if !(1..=MOTIONS_MAX).contains(&motions_given) {
            return Err(Error::Invalid(format!("a drag has 1 to {MOTIONS_MAX} motions, not {motions_given}")));
        }
        let point = |(x, y): &(i32, i32)| Ok((f64::from(valid("x", *x)?), f64::from(valid("y", *y)?)));
        let path = path.iter().map(point).collect::<Result<Vec<_>>>()?;
        let mut lengths = vec![0.0];
        for pair in path.windows(2) {
            let length = (pair[1].0 - pair[0].0).hypot(pair[1].1 - pair[0].1);
            lengths.push(lengths[lengths.len() - 1] + length);
        }
        let usual = (lengths[lengths.len() - 1] / PIXELS_PER_MOTION).clamp(*MOTIONS_USUAL.start(), *MOTIONS_USUAL.end());
        let motions = motions.unwrap_or((usual as u32).max(path.len() as u32 - 1));
        let pause = duration.map_or(BETWEEN_MOTIONS, |duration| duration / motions);
        Ok(Self { button, path, lengths, motions, made: 0, pause, grip: Grip::new(modifiers)? })
    }

    fn advance(&mut self, display: &mut Display) -> Result<Option<Duration>> {
        self.grip.take(display)?;
        if self.grip.button.is_none() {
            self.go(display, 0.0)?;
            self.grip.press(display, self.button)?;
            return Ok(Some(self.pause));
        }
        self.made += 1;
        self.go(display, f64::from(self.made) / f64::from(self.motions))?;
        if self.made < self.motions {
            return Ok(Some(self.pause));
        }
        self.grip.release(display)?;
        Ok(None)
    }

    /// Moves to where a share of the path ends: 0 to 1.
    fn go(&self, display: &mut Display, share: f64) -> Result<()> {
        let length = share * self.lengths[self.lengths.len() - 1];
        let last = self.path.len() - 1;
        let next = self.lengths.partition_point(|before| *before < length).clamp(1, last);
        let (from, to) = (self.path[next - 1], self.path[next]);
        let leg = self.lengths[next] - self.lengths[next - 1];
        let part = if leg > 0.0 { ((length - self.lengths[next - 1]) / leg).clamp(0.0, 1.0) } else { 1.0 };
        let between = |from: f64, to: f64| (from + (to - from) * part).round() as i32;
        display.send_pointer(between(from.0, to.0), between(from.1, to.1))
    }
}

macro_rules! gesture {
    ($name:ty) => {
        impl Plan for $name {
            fn step(&mut self, display: &mut Display) -> Result<Option<Duration>> {
                let stepped = self.advance(display);
                self.grip.after(display, stepped)
            }

            fn abandon(&mut self, display: &mut Display) {
                let _ = self.grip.drop_all(display); // the server is gone, and what was held with it
            }
        }
    };
}

gesture!(Click);
gesture!(Scroll);
gesture!(Drag);
