//! The last lines of a stream, within a bound.

use std::collections::VecDeque;

/// The latest lines of a byte stream, for error reports: at most so many lines, each at most so many bytes.
#[derive(Debug)]
pub struct StderrTail {
    lines: VecDeque<Vec<u8>>,
    open: bool,
    max_lines: usize,
    line_max_bytes: usize,
    /// With `max_lines` unlimited, the sum is what `line_max_bytes` bounds.
    bytes: usize,
}

impl StderrTail {
    /// Keeps `max_lines` lines of `line_max_bytes` each; with `usize::MAX` lines, `line_max_bytes` in all.
    pub fn new(max_lines: usize, line_max_bytes: usize) -> Self {
        Self { lines: VecDeque::new(), open: false, max_lines, line_max_bytes, bytes: 0 }
    }

    /// Takes what was read, in pieces of any size.
    pub fn push(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = piece.strip_suffix(b"\n").map_or((piece, false), |text| (text, true));
            if !self.open {
                self.lines.push_back(Vec::new());
                self.open = true;
            }
            if let Some(line) = self.lines.back_mut() {
                let room = self.line_max_bytes.saturating_sub(line.len());
                let kept = text.len().min(room);
                line.extend_from_slice(&text[..kept]);
                self.bytes += kept;
            }
            self.open &= !ends;
            self.trim();
        }
    }

    fn trim(&mut self) {
        let unlimited = self.max_lines == usize::MAX;
        while self.lines.len() > self.max_lines || (unlimited && self.lines.len() > 1 && self.bytes > self.line_max_bytes) {
            self.bytes -= self.lines.pop_front().map_or(0, |line| line.len());
        }
    }

    /// The lines, joined; bytes that aren't UTF-8 are replaced.
    pub fn text(&self) -> String {
        let lines: Vec<_> =
            self.lines.iter().map(|line| String::from_utf8_lossy(line).trim_end_matches('\r').to_owned()).collect();
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_last_lines() {
        let mut tail = StderrTail::new(2, 100);
        tail.push(b"one\ntwo\nth");
        tail.push(b"ree\n");
        assert_eq!(tail.text(), "two\nthree");
    }

    #[test]
    fn cuts_a_line_without_end() {
        let mut tail = StderrTail::new(2, 4);
        for _ in 0..1000 {
            tail.push(b"xxxxxxxx");
        }
        assert_eq!(tail.text(), "xxxx");
    }

    #[test]
    fn half_a_character_is_replaced() {
        let mut tail = StderrTail::new(2, 100);
        tail.push(&[b'a', 0xc3]);
        assert_eq!(tail.text(), "a\u{fffd}");
    }
}
