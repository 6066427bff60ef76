//! Text, whatever the layout.

use std::time::Duration;

use x11rb::protocol::xproto::Keysym;

use super::{Prepared, names};
use crate::{Display, Error, Plan, Result};

/// Characters in one step. A press and its release go to the server in one write, with Shift and AltGr around them: else a key
/// could repeat itself while this process waits for its turn. x11rb writes 16 KiB at once, and a request has 36 bytes.
const AT_ONCE: usize = 64;

/// Characters before the program has to have handled them: a program that hangs isn't sent text without end.
const AHEAD: usize = 1024;

/// Characters of one text: hours of typing for a person, minutes here.
const CHARACTERS_MAX: usize = 1_000_000;

/// Types a text into the window in focus.
#[derive(Debug)]
pub struct Typing {
    symbols: Vec<Keysym>,
    typed: usize,
    unsettled: usize,
    pause: Duration,
}

impl Typing {
    /// Line ends (`\n`, `\r\n`, `\r`) press Return, `\t` Tab. `pause` is waited between two characters; each key is released at
    /// once, so that it never repeats itself. Keys that were asked to stay down do.
    ///
    /// # Errors
    /// [`Error::Invalid`]: another control character, with its position in characters from 0; more than a million characters. The
    /// steps: [`Error::TimedOut`], the program in focus hangs (`typed` says how far it came); [`Error::Refused`], the keyboard has
    /// no spare keycodes.
    pub fn new(text: &str, pause: Duration) -> Result<Self> {
        let count = text.chars().count();
        if count > CHARACTERS_MAX {
            return Err(Error::Invalid(format!("a text has at most {CHARACTERS_MAX} characters, not {count}")));
        }
        let mut symbols = Vec::with_capacity(count);
        let mut characters = text.chars().enumerate().peekable();
        while let Some((position, character)) = characters.next() {
            symbols.push(match character {
                '\n' => names::RETURN,
                '\r' => {
                    characters.next_if(|(_, next)| *next == '\n');
                    names::RETURN
                }
                '\t' => names::TAB,
                _ => names::symbol_of(character).ok_or_else(|| {
                    let code = u32::from(character);
                    Error::Invalid(format!("no key types the control character U+{code:04X} at position {position}"))
                })?,
            });
        }
        Ok(Self { symbols, typed: 0, unsettled: 0, pause })
    }

    /// How many characters were typed so far, `\r\n` counted as one.
    pub fn typed(&self) -> usize {
        self.typed
    }

    fn advance(&mut self, display: &mut Display) -> Result<Option<Duration>> {
        if self.typed == self.symbols.len() {
            return Ok(None);
        }
        if self.unsettled >= AHEAD {
            if let Some(wait) = display.settle()? {
                return Ok(Some(wait));
            }
            self.unsettled = 0;
        }
        let ahead = &self.symbols[self.typed..self.symbols.len().min(self.typed + AT_ONCE)];
        let ready = match display.prepare(ahead, 1)? {
            Prepared::Later(wait) => return Ok(Some(wait)),
            Prepared::Now(ready) if self.pause.is_zero() => ready,
            Prepared::Now(_) => 1,
        };
        let strokes = display.strokes(&ahead[..ready])?;
        display.without_caps_lock(|display| strokes.into_iter().try_for_each(|stroke| display.tap(stroke)))?;
        self.typed += ready;
        self.unsettled += ready;
        display.sync()?;
        Ok((self.typed < self.symbols.len()).then_some(self.pause))
    }
}

impl Plan for Typing {
    fn step(&mut self, display: &mut Display) -> Result<Option<Duration>> {
        let stepped = self.advance(display);
        if stepped.is_err() {
            self.symbols.truncate(self.typed);
        }
        stepped
    }

    fn abandon(&mut self, _: &mut Display) {} // nothing is held between two steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_ends_are_one_return_each() {
        let typing = Typing::new("a\r\nb\n\rc\td", Duration::ZERO).unwrap();
        let keys = [0x61, names::RETURN, 0x62, names::RETURN, names::RETURN, 0x63, names::TAB, 0x64];
        assert_eq!(typing.symbols, keys);
    }

    #[test]
    fn a_control_character_is_refused_where_it_is() {
        let error = Typing::new("né\u{1b}[A", Duration::ZERO).unwrap_err();
        assert_eq!(error.to_string(), "no key types the control character U+001B at position 2");
    }
}
