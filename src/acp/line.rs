//! Cutting an agent's stdout into lines, within a bound.

use bytes::{Buf as _, Bytes, BytesMut};

/// Kept of a line that is too long: enough to see what it was, and to find its id.
const HEAD_BYTES: usize = 64 * 1024;
/// Lines up to this length are copied out of the read buffer.
const COPIED_BYTES: usize = 16 * 1024;

/// What came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// A line without its line break.
    Whole(Bytes),
    /// A line over the bound, dropped but for its beginning.
    TooLong {
        /// Its first bytes.
        head: Bytes,
        /// Its whole length.
        bytes: u64,
    },
}

/// Cuts a byte stream into lines. Memory: one line of at most the bound.
#[derive(Debug)]
pub struct LineCutter {
    buffer: BytesMut,
    /// Bytes of `buffer` that hold no line break.
    searched: usize,
    dropping: Option<(Bytes, u64)>,
    max_bytes: usize,
    /// How far the stream was cut, its line breaks included.
    position: u64,
}

impl LineCutter {
    /// Lines of up to `max_bytes` bytes come out whole.
    pub fn new(max_bytes: usize) -> Self {
        Self { buffer: BytesMut::new(), searched: 0, dropping: None, max_bytes, position: 0 }
    }

    /// The same for a stream whose first byte has this number.
    pub fn from(position: u64, max_bytes: usize) -> Self {
        Self { position, ..Self::new(max_bytes) }
    }

    /// How far the stream was cut: behind the last line that was given.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Where to read into; then call [`LineCutter::next_line`] until it gives `None`.
    pub fn buffer(&mut self) -> &mut BytesMut {
        self.buffer.reserve(16 * 1024);
        &mut self.buffer
    }

    /// The next line, when one is complete.
    pub fn next_line(&mut self) -> Option<Line> {
        let found = memchr::memchr(b'\n', &self.buffer[self.searched..]);
        let Some(at) = found.map(|at| at + self.searched) else {
            self.searched = self.buffer.len();
            self.drop_overlong();
            return None;
        };
        self.searched = 0;
        self.position += at as u64 + 1;
        // A short line is copied out: were it a slice, one event in a ring would keep the whole read buffer alive.
        let line = if at <= COPIED_BYTES {
            let line = Bytes::copy_from_slice(&self.buffer[..at]);
            self.buffer.advance(at + 1);
            line
        } else {
            let mut line = self.buffer.split_to(at + 1).freeze();
            line.truncate(at);
            line
        };
        Some(self.finish(line))
    }

    /// What follows the last line break, at the end of the stream.
    pub fn rest(&mut self) -> Option<Line> {
        let line = self.buffer.split().freeze();
        self.searched = 0;
        self.position += line.len() as u64;
        (!line.is_empty() || self.dropping.is_some()).then(|| self.finish(line))
    }

    fn finish(&mut self, line: Bytes) -> Line {
        match self.dropping.take() {
            Some((head, bytes)) => Line::TooLong { head, bytes: bytes + line.len() as u64 },
            None if line.len() > self.max_bytes => {
                Line::TooLong { head: line.slice(..line.len().min(HEAD_BYTES)), bytes: line.len() as u64 }
            }
            None => Line::Whole(line),
        }
    }

    fn drop_overlong(&mut self) {
        let length = self.buffer.len();
        match &mut self.dropping {
            Some((_, bytes)) => *bytes += length as u64,
            None if length > self.max_bytes => {
                let head = Bytes::copy_from_slice(&self.buffer[..length.min(HEAD_BYTES)]);
                self.dropping = Some((head, length as u64));
            }
            None => return,
        }
        self.position += length as u64;
        self.buffer = BytesMut::new(); // gives the memory back
        self.searched = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cut(max: usize, pieces: &[&[u8]]) -> Vec<Line> {
        let mut cutter = LineCutter::new(max);
        let mut lines = Vec::new();
        for piece in pieces {
            cutter.buffer().extend_from_slice(piece);
            while let Some(line) = cutter.next_line() {
                lines.push(line);
            }
        }
        lines.extend(cutter.rest());
        lines
    }

    #[test]
    fn lines_come_out_whole_however_they_arrive() {
        let expected = vec![Line::Whole("ab".into()), Line::Whole("".into()), Line::Whole("c".into())];
        assert_eq!(cut(10, &[b"a", b"b\n\nc"]), expected);
    }

    #[test]
    fn a_long_line_is_dropped_and_counted() {
        let lines = cut(4, &[b"12345", b"67", b"8\nok\n"]);
        assert_eq!(lines, vec![Line::TooLong { head: "12345".into(), bytes: 8 }, Line::Whole("ok".into())]);
    }

    proptest! {
        #[test]
        fn cutting_does_not_depend_on_the_pieces(text in "[ab\n]{0,64}", at in 0usize..64, max in 1usize..20) {
            let bytes = text.as_bytes();
            let at = at.min(bytes.len());
            let lengths = |lines: Vec<Line>| lines.into_iter().map(|line| match line {
                Line::Whole(line) => (true, line.len() as u64),
                Line::TooLong { bytes, .. } => (false, bytes),
            }).collect::<Vec<_>>();
            prop_assert_eq!(lengths(cut(max, &[bytes])), lengths(cut(max, &[&bytes[..at], &bytes[at..]])));
        }
    }
}
