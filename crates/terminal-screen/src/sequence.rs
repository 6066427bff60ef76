//! Where the byte stream stands: between characters, or inside an escape sequence or a character cut off by the end of a
//! piece. The parser doesn't tell, and three things hang on it: a snapshot ends with what has begun, so that the next
//! byte finds the client's terminal in the same state; a flood may be skipped only between sequences; and an endless
//! string must not fill the memory.

/// Longest unfinished sequence that is kept; of a longer one only its kind is.
const KEPT_MAX: usize = 64 * 1024;

const ESC: u8 = 0x1b;
const BEL: u8 = 0x07;
const CAN: u8 = 0x18;
const SUB: u8 = 0x1a;

/// The states of the parser as far as they decide where a sequence ends (<https://vt100.net/emu/dec_ansi_parser>).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    Ground,
    Escape,
    EscapeIntermediate,
    Csi,
    Osc,
    DcsEntry,
    DcsParameters,
    DcsIntermediate,
    DcsIgnore,
    DcsBody,
    /// SOS, PM and APC.
    Ignored,
}

/// The unfinished sequence, if there is one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Sequence {
    state: State,
    /// What came since its ESC, without control characters: those had their effect already.
    kept: Vec<u8>,
    overflowed: bool,
}

impl Sequence {
    /// Whether no escape sequence is unfinished.
    pub(super) fn is_ground(&self) -> bool {
        self.state == State::Ground
    }

    /// Follows bytes that the parser gets.
    pub(super) fn follow(&mut self, bytes: &[u8]) {
        let rest = match bytes.iter().rposition(|byte| *byte == ESC) {
            Some(at) => {
                // From any state ESC begins anew, so what was before doesn't matter.
                *self = Self { state: State::Escape, kept: vec![ESC], overflowed: false };
                &bytes[at + 1..]
            }
            None => bytes,
        };
        for byte in rest {
            if self.is_ground() {
                return; // and stays so: there is no further ESC
            }
            self.state = step(self.state, *byte);
            self.keep(*byte);
        }
    }

    fn keep(&mut self, byte: u8) {
        if self.is_ground() {
            *self = Self::default();
        } else if self.kept.len() >= KEPT_MAX {
            self.overflowed = true;
            self.kept.truncate(2);
        } else if byte >= 0x20 && !self.overflowed {
            self.kept.push(byte);
        }
    }

    /// How many of the bytes belong to a string that has become too long for the parser to collect.
    pub(super) fn surplus(&self, bytes: &[u8]) -> usize {
        if !(self.overflowed && self.state == State::Osc) {
            return 0;
        }
        bytes.iter().position(|byte| matches!(*byte, BEL | CAN | SUB | ESC)).unwrap_or(bytes.len())
    }

    /// What brings another terminal into the same state.
    pub(super) fn unfinished(&self) -> &[u8] {
        match self.state {
            State::Osc if self.overflowed => b"\x1b]999;", // a number that nobody knows: ignored to its end
            _ if self.overflowed => b"\x1b^",
            _ => &self.kept,
        }
    }
}

fn step(state: State, byte: u8) -> State {
    use State::{Csi, DcsBody, DcsEntry, DcsIgnore, DcsIntermediate, DcsParameters};
    use State::{Escape, EscapeIntermediate, Ground, Ignored, Osc};
    match (state, byte) {
        (_, CAN | SUB) | (Osc, BEL) | (DcsBody, 0x9c) => Ground,
        (Escape, b'[') => Csi,
        (Escape, b']') => Osc,
        (Escape, b'P') => DcsEntry,
        (Escape, b'X' | b'^' | b'_') => Ignored,
        (Escape, 0x20..=0x2f) => EscapeIntermediate,
        (Escape | EscapeIntermediate, 0x30..=0x7e) | (Csi, 0x40..=0x7e) => Ground,
        (DcsEntry | DcsParameters, 0x20..=0x2f) => DcsIntermediate,
        (DcsEntry, 0x30..=0x3f) => DcsParameters,
        (DcsParameters, 0x3c..=0x3f) | (DcsIntermediate, 0x30..=0x3f) => DcsIgnore,
        (DcsEntry | DcsParameters | DcsIntermediate, 0x40..=0x7e) => DcsBody,
        (state, _) => state,
    }
}

/// How many bytes at the end begin a UTF-8 character without finishing it.
pub(super) fn cut_off(bytes: &[u8]) -> usize {
    let lead = bytes.iter().rev().take(3).position(|byte| *byte >= 0xc0);
    let Some(length) = lead.map(|at| at + 1) else { return 0 };
    match std::str::from_utf8(&bytes[bytes.len() - length..]) {
        Err(error) if error.valid_up_to() == 0 && error.error_len().is_none() => length,
        _ => 0,
    }
}
