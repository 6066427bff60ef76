//! Telling text from what steers a terminal (ECMA-48). Pure.

/// What a byte is, after those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// To be shown.
    Text,
    LineFeed,
    CarriageReturn,
    /// Part of an escape sequence, or another control character.
    Hidden,
}

/// Where in an escape sequence a stream stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Escape {
    #[default]
    Ground,
    /// After ESC, and what may stand between it and its last byte.
    Begun,
    /// ESC [ …
    Csi,
    /// ESC ] … and the like, until BEL or ESC \.
    Text,
    TextEnding,
}

const ESC: u8 = 0x1B;

impl Escape {
    /// Takes a byte. A line feed ends whatever is unfinished: a stray ESC hides one line at most.
    pub fn take(&mut self, byte: u8) -> Class {
        match byte {
            b'\n' => {
                *self = Self::Ground;
                return Class::LineFeed;
            }
            0x18 | 0x1A => *self = Self::Ground,
            ESC => *self = if matches!(self, Self::Text | Self::TextEnding) { Self::TextEnding } else { Self::Begun },
            _ => return self.take_other(byte),
        }
        Class::Hidden
    }

    /// How many of the bytes are plain text, when it stands in none.
    pub fn plain_len(self, bytes: &[u8]) -> usize {
        if self != Self::Ground {
            return 0;
        }
        // whole blocks without a branch for each byte: lines are mostly text
        let is_plain = |block: &&[u8]| !block.iter().fold(false, |found, byte| found | is_control(*byte));
        let blocks = bytes.chunks_exact(16).take_while(is_plain).count() * 16;
        let rest = &bytes[blocks..];
        blocks + rest.iter().position(|byte| is_control(*byte)).unwrap_or(rest.len())
    }

    fn take_other(&mut self, byte: u8) -> Class {
        match (*self, byte) {
            (Self::Ground | Self::Begun | Self::Csi, b'\r') => return Class::CarriageReturn,
            (Self::Ground, _) if !is_control(byte) => return Class::Text,
            (Self::Begun, b'[') => *self = Self::Csi,
            (Self::Begun, b']' | b'P' | b'X' | b'^' | b'_') => *self = Self::Text,
            (Self::Begun, 0x30..=0x7E) | (Self::Csi, 0x40..=0x7E) | (Self::Text, 0x07) => *self = Self::Ground,
            (Self::TextEnding, b'\\') => *self = Self::Ground,
            (Self::TextEnding, _) => {
                *self = Self::Begun; // the ESC ended the text, and begins something else
                return self.take_other(byte);
            }
            (Self::Begun | Self::Csi, 0x80..) => {
                *self = Self::Ground; // no sequence has such a byte
                return Class::Text;
            }
            _ => {}
        }
        Class::Hidden
    }
}

fn is_control(byte: u8) -> bool {
    (byte < 0x20 && byte != b'\t') || byte == 0x7F
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(bytes: &[u8]) -> String {
        let mut escape = Escape::default();
        let shown: Vec<u8> = bytes.iter().copied().filter(|byte| escape.take(*byte) == Class::Text).collect();
        String::from_utf8_lossy(&shown).into_owned()
    }

    #[test]
    fn what_steers_a_terminal_is_hidden() {
        for (bytes, text) in [
            (&b"\x1b[1;31mred\x1b[0m"[..], "red"),
            (b"\x1b]0;title\x07a\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "alink"),
            (b"\x1bP1$r0m\x1b\\b\x1b(Bc\x1b=d\x1b#8e", "bcde"),
            (b"a\x08\x07\x00\x7f\tb", "a\tb"),
            ("\x1b[2K€\x1b[?25lé".as_bytes(), "€é"),
            (b"\x1b[12\x18x\x1b]half\x1b[1mbold", "xbold"),
            (b"\x1b\x1b[1mz", "z"),
        ] {
            assert_eq!(shown(bytes), text, "{bytes:?}");
        }
    }

    #[test]
    fn an_unfinished_sequence_hides_no_second_line() {
        for start in ["\x1b", "\x1b[", "\x1b]", "\x1bP", "\x1b]\x1b"] {
            assert_eq!(shown(format!("{start}\nnext").as_bytes()), "next", "{start:?}");
        }
    }

    #[test]
    fn plain_text_is_found_at_once() {
        assert_eq!(Escape::Ground.plain_len(b"ab\tc\rd"), 4);
        assert_eq!(Escape::Ground.plain_len("é".as_bytes()), 2);
        assert_eq!(Escape::Csi.plain_len(b"abc"), 0);
        for len in 0..70 {
            let mut text = vec![b'x'; len];
            assert_eq!(Escape::Ground.plain_len(&text), len);
            text.extend(b"\x7f and more text of some length");
            assert_eq!(Escape::Ground.plain_len(&text), len);
        }
    }
}
