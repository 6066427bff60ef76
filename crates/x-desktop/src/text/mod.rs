//! Text of properties and selections, which says in its type how it is encoded (ICCCM 2.0 §2.7.1).

mod compound;

/// How bytes of text are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// `UTF8_STRING`, and MIME types of text.
    Utf8,
    /// `STRING`: ISO 8859-1, plus tab and newline.
    Latin1,
    /// `COMPOUND_TEXT`: Latin, Cyrillic, Greek, East Asian and UTF-8 segments are read.
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
        Encoding::Compound => compound::decode(bytes),
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
}
