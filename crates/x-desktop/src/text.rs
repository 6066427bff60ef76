//! Text of properties and selections, which says in its type how it is encoded (ICCCM 2.0 §2.7.1).

/// A designation in compound text: ESC, then bytes up to one of 0x30 and above.
const ESC: u8 = 0x1b;

/// How bytes of text are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// `UTF8_STRING`, and MIME types of text.
    Utf8,
    /// `STRING`: ISO 8859-1, plus tab and newline.
    Latin1,
    /// `COMPOUND_TEXT`, of which Latin-1 and UTF-8 segments are read.
    Compound,
}

/// What bytes say, and whether some of them said nothing in that encoding and are U+FFFD here.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Decoded {
    pub text: String,
    pub is_lossy: bool,
}

/// Decodes all of `bytes`.
pub fn decode(bytes: &[u8], encoding: Encoding) -> Decoded {
    match encoding {
        Encoding::Utf8 => utf8(bytes),
        Encoding::Latin1 => Decoded { text: latin1(bytes), is_lossy: false },
        Encoding::Compound => compound(bytes),
    }
}

/// `text` in Latin-1; `None` when it has characters that aren't in there.
pub fn to_latin1(text: &str) -> Option<Vec<u8>> {
    text.chars().map(|character| u8::try_from(u32::from(character)).ok()).collect()
}

fn latin1(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

fn utf8(bytes: &[u8]) -> Decoded {
    match str::from_utf8(bytes) {
        Ok(text) => Decoded { text: text.into(), is_lossy: false },
        Err(_) => Decoded { text: String::from_utf8_lossy(bytes).into_owned(), is_lossy: true },
    }
}

/// The part of compound text (X Consortium, Compound Text Encoding 1.1) that programs still write: Latin-1, and UTF-8
/// between `ESC % G` and `ESC % @`. Characters of other sets are U+FFFD.
fn compound(bytes: &[u8]) -> Decoded {
    let (mut text, mut is_lossy) = (String::new(), false);
    let (mut is_left_known, mut is_right_known) = (true, true);
    let mut rest = bytes;
    while let Some((&first, after)) = rest.split_first() {
        if first == ESC {
            let end = after.iter().position(|&byte| byte >= 0x30).map_or(after.len(), |last| last + 1);
            let (sequence, after) = after.split_at(end);
            rest = after;
            match sequence {
                b"%G" => {
                    let end = rest.iter().position(|&byte| byte == ESC).unwrap_or(rest.len());
                    let part = utf8(&rest[..end]);
                    text.push_str(&part.text);
                    is_lossy |= part.is_lossy;
                    rest = &rest[end..];
                }
                b"(B" => is_left_known = true,
                b"-A" => is_right_known = true,
                [b'(' | b'$', ..] if sequence.get(1) != Some(&b')') => is_left_known = false,
                [b'-' | b')' | b'$', ..] => is_right_known = false,
                _ => {}
            }
            continue;
        }
        let is_known = first.is_ascii_control() || if first < 0x80 { is_left_known } else { is_right_known };
        text.push(if is_known { char::from(first) } else { char::REPLACEMENT_CHARACTER });
        is_lossy |= !is_known;
        rest = after;
    }
    Decoded { text, is_lossy }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latin1_is_every_byte() {
        assert_eq!(decode(b"caf\xe9\0", Encoding::Latin1).text, "café\0");
        assert_eq!(to_latin1("café").as_deref(), Some(&b"caf\xe9"[..]));
        assert_eq!(to_latin1("日"), None);
    }

    #[test]
    fn bytes_that_are_not_utf8_are_said() {
        let decoded = decode(b"a\xffb", Encoding::Utf8);
        assert_eq!(decoded, Decoded { text: "a\u{fffd}b".into(), is_lossy: true });
    }

    #[test]
    fn compound_text_with_utf8_inside() {
        let decoded = decode("caf\u{e9}".chars().map(|c| c as u8).collect::<Vec<_>>().as_slice(), Encoding::Compound);
        assert_eq!(decoded, Decoded { text: "café".into(), is_lossy: false });
        let decoded = decode(b"a\x1b%G\xe6\x97\xa5\x1b%@b", Encoding::Compound);
        assert_eq!(decoded, Decoded { text: "a日b".into(), is_lossy: false });
        let decoded = decode(b"a\x1b$(BF|\x1b(Bb", Encoding::Compound);
        assert_eq!(decoded, Decoded { text: "a\u{fffd}\u{fffd}b".into(), is_lossy: true });
    }
}
