//! Lines and characters of a text (LSP 3.17, "Position").

/// What a character is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// Bytes.
    Utf8,
    /// What every server knows.
    #[default]
    Utf16,
    /// Code points.
    Utf32,
}

impl Encoding {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Utf8 => "utf-8",
            Self::Utf16 => "utf-16",
            Self::Utf32 => "utf-32",
        }
    }

    /// The encoding of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Self::Utf8, Self::Utf16, Self::Utf32].into_iter().find(|encoding| encoding.as_str() == name)
    }

    fn units(self, character: char) -> usize {
        match self {
            Self::Utf8 => character.len_utf8(),
            Self::Utf16 => character.len_utf16(),
            Self::Utf32 => 1,
        }
    }

    /// The byte of a line that a character begins at; the line's end when it is shorter.
    #[must_use]
    pub fn byte_of(self, line: &str, character: usize) -> usize {
        let mut units = 0;
        for (at, this) in line.char_indices() {
            let next = units + self.units(this);
            if character < next {
                return at; // in the middle of one: its beginning
            }
            units = next;
        }
        line.len()
    }

    /// The character at a byte of a line, which lies on one's beginning.
    #[must_use]
    pub fn character_of(self, line: &str, byte: usize) -> usize {
        line.char_indices().take_while(|(at, _)| *at < byte).map(|(_, this)| self.units(this)).sum()
    }

    /// The same place of a line as another encoding counts it.
    #[must_use]
    pub fn convert(self, line: &str, character: usize, to: Self) -> usize {
        if self == to { character } else { to.character_of(line, self.byte_of(line, character)) }
    }
}

/// Where the lines of a text begin.
#[derive(Debug, Clone)]
pub struct Lines {
    starts: Vec<usize>,
}

impl Lines {
    /// Lines end with `\n`, `\r\n` or `\r`.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let bytes = text.as_bytes();
        let ends = bytes.iter().enumerate().filter(|(at, byte)| match byte {
            b'\n' => true,
            b'\r' => bytes.get(at + 1) != Some(&b'\n'),
            _ => false,
        });
        Self { starts: std::iter::once(0).chain(ends.map(|(at, _)| at + 1)).collect() }
    }

    /// How many there are; one more than ends of lines.
    #[must_use]
    #[allow(clippy::len_without_is_empty)] // never
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// A line without its end.
    #[must_use]
    pub fn line<'a>(&self, text: &'a str, number: usize) -> Option<&'a str> {
        let from = *self.starts.get(number)?;
        let to = self.starts.get(number + 1).map_or(text.len(), |next| *next);
        Some(text.get(from..to)?.trim_end_matches(['\n', '\r']))
    }

    /// The line that a byte lies in, and where in it.
    #[must_use]
    pub fn place_of(&self, byte: usize) -> (usize, usize) {
        let line = self.starts.partition_point(|start| *start <= byte).saturating_sub(1);
        (line, byte - self.starts[line])
    }

    /// The byte that a position lies at: the line's end when that is shorter, the text's end when there is no such line.
    #[must_use]
    pub fn byte_of(&self, text: &str, (line, character): (usize, usize), encoding: Encoding) -> usize {
        match self.line(text, line) {
            Some(content) => self.starts[line] + encoding.byte_of(content, character),
            None => text.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_place_is_counted_in_each_encoding() {
        let line = "aä€🦀b";
        let counted = |encoding: Encoding| {
            ["a", "ä", "€", "🦀", "b"].map(|this| encoding.character_of(line, line.find(this).expect("there")))
        };
        assert_eq!(counted(Encoding::Utf8), [0, 1, 3, 6, 10]);
        assert_eq!(counted(Encoding::Utf16), [0, 1, 2, 3, 5]);
        assert_eq!(counted(Encoding::Utf32), [0, 1, 2, 3, 4]);
        assert_eq!(Encoding::Utf16.convert(line, 5, Encoding::Utf8), 10);
        assert_eq!(Encoding::Utf16.convert(line, 4, Encoding::Utf8), 6, "the middle of a pair is its beginning");
        assert_eq!(Encoding::Utf16.convert(line, 99, Encoding::Utf8), 11, "a line has an end");
    }

    #[test]
    fn lines_end_in_three_ways() {
        let text = "one\r\ntwo\rthree\n\nfive";
        let lines = Lines::of(text);
        let all: Vec<_> = (0..lines.len()).map(|number| lines.line(text, number).expect("a line")).collect();
        assert_eq!(all, ["one", "two", "three", "", "five"]);
        assert_eq!(lines.place_of(text.find("wo").expect("there")), (1, 1));
        assert_eq!(lines.byte_of(text, (2, 2), Encoding::Utf8), text.find("ree").expect("there"));
        assert_eq!((lines.byte_of(text, (0, 99), Encoding::Utf8), lines.byte_of(text, (9, 0), Encoding::Utf8)), (3, text.len()));
        assert_eq!(Lines::of("").line("", 0), Some(""));
    }

    proptest! {
        #[test]
        fn there_and_back(line in "[^\r\n]{0,40}", part in 0.0..1.0_f64) {
            let ends: Vec<usize> = line.char_indices().map(|(at, _)| at).chain([line.len()]).collect();
            let byte = ends[((ends.len() - 1) as f64 * part) as usize];
            for encoding in [Encoding::Utf8, Encoding::Utf16, Encoding::Utf32] {
                prop_assert_eq!(encoding.byte_of(&line, encoding.character_of(&line, byte)), byte);
            }
        }

        #[test]
        fn each_byte_has_its_place(text: String) {
            let lines = Lines::of(&text);
            for (byte, _) in text.char_indices() {
                let (line, offset) = lines.place_of(byte);
                prop_assert!(line < lines.len() && offset <= byte);
            }
        }
    }
}
