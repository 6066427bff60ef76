//! Keys and chords by name.

use std::time::Duration;

use x11rb::protocol::xproto::{Keycode, Keysym};

use super::{Prepared, names};
use crate::{Display, Error, Plan, Result};

/// Repetitions of a chord.
const PRESSES_MAX: u32 = 1000;

/// Repetitions in one step: more would keep others waiting.
const PRESSES_AT_ONCE: u32 = 16;

/// Between such steps, for the program to come along.
const BREATH: Duration = Duration::from_millis(2);

/// A chord, pressed and released.
#[derive(Debug)]
pub struct Press {
    symbols: Vec<Keysym>,
    left: u32,
    hold: Duration,
    held: Vec<Keycode>,
}

impl Press {
    /// `chord` is keys joined by `+`, pressed in this order and released in the reverse one, `count` times (1 to 1000), each time
    /// kept down for `hold`. Keys that need Shift or AltGr on this layout press it themselves.
    ///
    /// # Errors
    /// [`Error::Invalid`]: a name that no key has (it says similar ones), more than eight keys, a count out of range.
    pub fn new(chord: &str, count: u32, hold: Duration) -> Result<Self> {
        if !(1..=PRESSES_MAX).contains(&count) {
            return Err(Error::Invalid(format!("a key is pressed 1 to {PRESSES_MAX} times, not {count}")));
        }
        Ok(Self { symbols: names::chord(chord)?, left: count, hold, held: Vec::new() })
    }

    fn advance(&mut self, display: &mut Display) -> Result<Option<Duration>> {
        self.release(display)?;
        if self.left == 0 {
            return Ok(None);
        }
        if let Prepared::Later(wait) = display.prepare(&self.symbols, self.symbols.len())? {
            return Ok(Some(wait));
        }
        let at_once = if self.hold.is_zero() { self.left.min(PRESSES_AT_ONCE) } else { 1 };
        for _ in 0..at_once {
            display.hold_chord(&self.symbols, &mut self.held)?;
            self.left -= 1;
            if self.hold.is_zero() {
                display.let_go_all(&mut self.held)?;
            }
        }
        display.sync()?;
        match self.hold.is_zero() {
            true if self.left == 0 => Ok(None),
            true => Ok(Some(BREATH)),
            false => Ok(Some(self.hold)),
        }
    }

    fn release(&mut self, display: &mut Display) -> Result<()> {
        if self.held.is_empty() {
            return Ok(());
        }
        display.let_go_all(&mut self.held)?;
        display.sync()
    }
}

impl Plan for Press {
    fn step(&mut self, display: &mut Display) -> Result<Option<Duration>> {
        let stepped = self.advance(display);
        if stepped.is_err() {
            self.left = 0;
            self.abandon(display);
        }
        stepped
    }

    fn abandon(&mut self, display: &mut Display) {
        let _ = self.release(display); // the server is gone, and the keys with it
    }
}

/// Keys that go down to stay, or up again.
#[derive(Debug)]
pub struct KeyChange {
    symbols: Vec<Keysym>,
    is_down: bool,
}

impl KeyChange {
    /// Keys go down and stay so until [`KeyChange::up`] or [`Display::release_all`]. What is down already stays.
    ///
    /// # Errors
    /// As [`Press::new`].
    pub fn down(chord: &str) -> Result<Self> {
        Ok(Self { symbols: names::chord(chord)?, is_down: true })
    }

    /// One key by its keysym (X11 protocol, appendix A), to stay down or to go up.
    ///
    /// # Errors
    /// [`Error::Invalid`]: no key has it.
    pub fn of_keysym(symbol: Keysym, is_down: bool) -> Result<Self> {
        let is_keysym = (0x20..=0x1eff_ffff).contains(&symbol);
        is_keysym
            .then_some(Self { symbols: vec![symbol], is_down })
            .ok_or_else(|| Error::Invalid(format!("{symbol:#x} is no keysym")))
    }

    /// Keys go up.
    ///
    /// # Errors
    /// As [`Press::new`].
    pub fn up(chord: &str) -> Result<Self> {
        Ok(Self { symbols: names::chord(chord)?, is_down: false })
    }
}

impl Plan for KeyChange {
    fn step(&mut self, display: &mut Display) -> Result<Option<Duration>> {
        if let Prepared::Later(wait) = display.prepare(&self.symbols, self.symbols.len())? {
            return Ok(Some(wait));
        }
        if self.is_down {
            for symbol in &self.symbols {
                display.key_down(*symbol)?;
            }
        } else {
            for symbol in self.symbols.iter().rev() {
                display.key_up(*symbol)?;
            }
        }
        display.sync()?;
        Ok(None)
    }

    fn abandon(&mut self, _: &mut Display) {}
}

impl Display {
    /// Presses keys, and notes each in `held` as soon as it is down.
    pub(crate) fn hold_chord(&mut self, symbols: &[Keysym], held: &mut Vec<Keycode>) -> Result<()> {
        let strokes = self.strokes(symbols)?;
        let mut act = |display: &mut Self| {
            for keycode in strokes.iter().flat_map(|stroke| stroke.modifiers().chain([stroke.keycode])) {
                display.hold_key(keycode)?;
                held.push(keycode);
            }
            Ok(())
        };
        // A key that locks would find its lock off, and put it on for ever.
        match symbols.iter().any(|symbol| names::LOCKS.contains(symbol)) {
            true => act(self),
            false => self.without_caps_lock(act),
        }
    }

    /// Releases what [`Display::hold_chord`] noted, the last first.
    pub(crate) fn let_go_all(&mut self, held: &mut Vec<Keycode>) -> Result<()> {
        while let Some(keycode) = held.pop() {
            self.let_go(keycode)?;
        }
        Ok(())
    }

    /// The keysyms of modifiers to be held, each of which must be a key of the layout.
    pub(crate) fn modifiers(&mut self, symbols: &[Keysym]) -> Result<()> {
        self.look_at_keyboard()?;
        self.strokes(symbols).map(drop)
    }

    fn key_down(&mut self, symbol: Keysym) -> Result<()> {
        if self.keyboard.down.iter().any(|(down, _)| *down == symbol) {
            return Ok(());
        }
        let mut held = Vec::new();
        let done = self.hold_chord(&[symbol], &mut held);
        if done.is_err() {
            self.let_go_all(&mut held)?;
        } else {
            self.keyboard.down.push((symbol, held));
        }
        done
    }

    fn key_up(&mut self, symbol: Keysym) -> Result<()> {
        if let Some(index) = self.keyboard.down.iter().position(|(down, _)| *down == symbol) {
            let (_, mut held) = self.keyboard.down.remove(index);
            return self.let_go_all(&mut held);
        }
        // Somebody else may have pressed it; the server ignores the release of a key that is up.
        for stroke in self.strokes(&[symbol])? {
            if !self.keyboard.held.contains_key(&stroke.keycode) {
                self.fake_key(stroke.keycode, false)?;
            }
        }
        Ok(())
    }
}

/// Names of modifiers, as [`names::symbol_named`] knows them.
pub(crate) fn modifiers_named(names: &[&str]) -> Result<Vec<Keysym>> {
    names.iter().map(|name| names::symbol_named(name)).collect()
}
