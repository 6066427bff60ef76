//! Compound text (X Consortium, Compound Text Encoding 1.1), as Xlib writes what doesn't fit into Latin-1: runs in one of many
//! character sets, each named by an escape sequence, and UTF-8 between `ESC % G` and `ESC % @`.

use encoding_rs::Encoding;

use super::Decoded;

/// An escape sequence: ESC, then bytes up to one of 0x30 and above.
const ESC: u8 = 0x1b;

/// What a half of the code table (below 0x80, or above) has.
#[derive(Clone, Copy)]
enum Set {
    Ascii,
    /// A set of one byte, as the upper half of this encoding.
    Single(&'static Encoding),
    /// A set of two bytes, as this EUC encoding has it in its upper half, each character after `prefix`.
    Double {
        euc: &'static Encoding,
        prefix: Option<u8>,
    },
    Unknown,
}

impl Set {
    /// The set that `sequence` (without its ESC) puts into a half, and whether that is the left one; `None` for other sequences.
    fn designated(sequence: &[u8]) -> Option<(Self, bool)> {
        let (is_left, is_wide, last) = match *sequence {
            [half @ (b'(' | b')' | b'-'), last] => (half == b'(', false, last),
            [b'$', half @ (b'(' | b')'), last] => (half == b'(', true, last),
            [b'$', last] => (true, true, last),
            _ => return None,
        };
        let is_of_96 = sequence[0] == b'-';
        let set = if is_wide { Self::double(last) } else { Self::single(last, is_of_96) };
        Some((set, is_left))
    }

    fn single(last: u8, is_of_96: bool) -> Self {
        if !is_of_96 {
            return if matches!(last, b'B' | b'J') { Self::Ascii } else { Self::Unknown };
        }
        Self::Single(match last {
            b'A' => encoding_rs::WINDOWS_1252, // of which 0xa0 to 0xff are ISO 8859-1
            b'B' => encoding_rs::ISO_8859_2,
            b'C' => encoding_rs::ISO_8859_3,
            b'D' => encoding_rs::ISO_8859_4,
            b'F' => encoding_rs::ISO_8859_7,
            b'G' => encoding_rs::ISO_8859_6,
            b'H' => encoding_rs::ISO_8859_8,
            b'L' => encoding_rs::ISO_8859_5,
            b'M' => encoding_rs::WINDOWS_1254, // the same for ISO 8859-9
            b'T' => encoding_rs::WINDOWS_874,  // and TIS 620
            b'V' => encoding_rs::ISO_8859_10,
            b'Y' => encoding_rs::ISO_8859_13,
            b'_' => encoding_rs::ISO_8859_14,
            b'b' => encoding_rs::ISO_8859_15,
            b'f' => encoding_rs::ISO_8859_16,
            _ => return Self::Unknown,
        })
    }

    fn double(last: u8) -> Self {
        let (euc, prefix) = match last {
            b'A' => (encoding_rs::GBK, None),
            b'B' => (encoding_rs::EUC_JP, None),
            b'C' => (encoding_rs::EUC_KR, None),
            b'D' => (encoding_rs::EUC_JP, Some(0x8f)),
            _ => return Self::Unknown,
        };
        Self::Double { euc, prefix }
    }

    /// What a run of bytes of one half says.
    fn decode(self, run: &[u8]) -> Decoded {
        let (encoding, bytes) = match self {
            Self::Ascii => return Decoded { text: run.iter().map(|&byte| char::from(byte & 0x7f)).collect(), is_lossy: false },
            Self::Unknown => {
                let text = run.iter().map(|_| char::REPLACEMENT_CHARACTER).collect();
                return Decoded { text, is_lossy: true };
            }
            Self::Single(encoding) => (encoding, run.iter().map(|byte| byte | 0x80).collect::<Vec<_>>()),
            Self::Double { euc, prefix } => {
                let pairs = run.chunks(2).flat_map(|pair| prefix.into_iter().chain(pair.iter().map(|byte| byte | 0x80)));
                (euc, pairs.collect())
            }
        };
        let (text, is_lossy) = encoding.decode_without_bom_handling(&bytes);
        Decoded { text: text.into_owned(), is_lossy }
    }
}

/// Decodes all of it; characters of sets that are not known are U+FFFD.
pub(super) fn decode(bytes: &[u8]) -> Decoded {
    let (mut left, mut right) = (Set::Ascii, Set::Single(encoding_rs::WINDOWS_1252));
    let mut all = Decoded { text: String::new(), is_lossy: false };
    let mut rest = bytes;
    while let Some((&first, after)) = rest.split_first() {
        if first == ESC {
            let end = after.iter().position(|&byte| byte >= 0x30).map_or(after.len(), |last| last + 1);
            let (sequence, after) = after.split_at(end);
            rest = after;
            if sequence == b"%G" {
                let (run, after) = split(rest, |byte| byte == ESC);
                all.add(super::utf8(run));
                rest = after;
            } else if let Some((set, is_left)) = Set::designated(sequence) {
                *if is_left { &mut left } else { &mut right } = set;
            }
        } else if is_control(first) {
            all.text.push(char::from(first));
            rest = after;
        } else {
            let is_left = first < 0x80;
            let (run, after) = split(rest, |byte| byte == ESC || is_control(byte) || (byte < 0x80) != is_left);
            // A space between words of two bytes each is a space.
            all.add(if is_left { left } else { right }.decode(run));
            rest = after;
        }
    }
    all
}

/// C0, space (which no set redefines), DEL, and C1.
fn is_control(byte: u8) -> bool {
    byte <= 0x20 || (0x7f..0xa0).contains(&byte)
}

/// Up to the first that `ends`, and from there.
fn split(bytes: &[u8], ends: impl Fn(u8) -> bool) -> (&[u8], &[u8]) {
    bytes.split_at(bytes.iter().position(|&byte| ends(byte)).unwrap_or(bytes.len()))
}

impl Decoded {
    fn add(&mut self, other: Self) {
        self.text.push_str(&other.text);
        self.is_lossy |= other.is_lossy;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8]) -> Decoded {
        decode(bytes)
    }

    #[test]
    fn latin1_is_what_it_begins_with() {
        assert_eq!(of(b"caf\xe9\n"), Decoded { text: "café\n".into(), is_lossy: false });
    }

    /// As Xlib wrote it for xterm's title.
    #[test]
    fn sets_of_one_and_two_bytes_and_utf8() {
        let title = b"the \x1b-Y\xb4terminal\xa1 \x1b-A\xe9\x1b$(BF|\x1b-L\xb6\x1b%G\xf0\x9f\x98\x80\x1b%@";
        assert_eq!(of(title), Decoded { text: "the “terminal” é日Ж😀".into(), is_lossy: false });
        assert_eq!(of(b"a\x1b$(BF| F|\x1b(Bb"), Decoded { text: "a日 日b".into(), is_lossy: false });
        assert_eq!(of(b"\x1b$)C\xb0\xa1\x1b$(AVP"), Decoded { text: "가中".into(), is_lossy: false });
    }

    #[test]
    fn what_is_not_known_is_said() {
        assert_eq!(of(b"a\x1b$(G!!\x1b(Bb"), Decoded { text: "a\u{fffd}\u{fffd}b".into(), is_lossy: true });
        assert!(of(b"\x1b$(BF").is_lossy, "half a character");
        assert_eq!(of(b"a\x1b"), Decoded { text: "a".into(), is_lossy: false });
    }
}
