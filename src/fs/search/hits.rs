//! What is found in one file, as lines of JSON.

use std::io::{self, Write as _};
use std::ops::Range;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use grep_matcher::Matcher as _;
use grep_regex::RegexMatcher;
use grep_searcher::{Searcher, Sink, SinkContext, SinkFinish, SinkMatch};
use serde_json::json;

/// Matches in one line that are shown.
const RANGES_MAX: usize = 256;
/// Of a line that is too long, so much of what is shown lies before the match.
const LEAD_PARTS: usize = 4;

/// Lines of JSON, one behind another.
#[derive(Debug, Default)]
pub(super) struct Part {
    pub(super) text: Vec<u8>,
    /// Where each line ends, and whether it is a match.
    pub(super) ends: Vec<(usize, bool)>,
}

/// Where hits go when there are many.
pub(super) trait Outlet {
    /// Takes what there is; false when no more is of interest.
    fn pass(&mut self, part: &mut Part) -> bool;
}

/// Writes what a searcher finds in one file.
pub(super) struct Hits<'a, O> {
    pub(super) part: &'a mut Part,
    pub(super) outlet: O,
    pub(super) matcher: &'a RegexMatcher,
    path: &'a [u8],
    line_max_bytes: usize,
    /// So many more in this file.
    left: u64,
    pub(super) found: u64,
    pub(super) is_cut: bool,
    pub(super) is_binary: bool,
    is_over: bool,
}

impl<'a, O: Outlet> Hits<'a, O> {
    pub(super) fn new(
        part: &'a mut Part,
        outlet: O,
        matcher: &'a RegexMatcher,
        path: &'a [u8],
        line_max_bytes: usize,
        left: u64,
    ) -> Self {
        Self { part, outlet, matcher, path, line_max_bytes, left, found: 0, is_cut: false, is_binary: false, is_over: false }
    }

    fn write(&mut self, kind: &str, number: u64, offset: u64, line: &[u8], ranges: &[Range<usize>]) -> bool {
        let line = without_end(line);
        let shown = window(line, ranges.first().map_or(0, |first| first.start), self.line_max_bytes);
        let out = &mut self.part.text;
        let _ = write!(out, "{{\"kind\":\"{kind}\",\"path\":"); // a Vec takes all
        text(out, self.path, "pathBase64");
        let _ = write!(out, ",\"line\":{number},\"offset\":{offset},\"text\":");
        text(out, &line[shown.clone()], "textBase64");
        if kind == "match" {
            let pairs: Vec<[usize; 2]> = ranges.iter().map(|range| [range.start, range.end]).collect();
            let _ = write!(out, ",\"ranges\":{}", json!(pairs));
        }
        if shown.len() < line.len() {
            let _ = write!(out, ",\"textOffset\":{},\"lineBytes\":{}", shown.start, line.len());
        }
        out.extend_from_slice(b"}\n");
        self.part.ends.push((out.len(), kind == "match"));
        self.is_over = !self.outlet.pass(self.part);
        !self.is_over
    }
}

impl<O: Outlet> Sink for Hits<'_, O> {
    type Error = io::Error;

    fn matched(&mut self, _: &Searcher, found: &SinkMatch<'_>) -> Result<bool, io::Error> {
        if self.left == 0 {
            self.is_cut = true;
            return Ok(false);
        }
        self.left -= 1;
        self.found += 1;
        let mut ranges = Vec::new();
        let line = without_end(found.bytes());
        let _ = self.matcher.find_iter(line, |range| {
            ranges.push(range.start()..range.end());
            ranges.len() < RANGES_MAX
        });
        Ok(self.write("match", found.line_number().unwrap_or_default(), found.absolute_byte_offset(), found.bytes(), &ranges))
    }

    fn context(&mut self, _: &Searcher, around: &SinkContext<'_>) -> Result<bool, io::Error> {
        Ok(self.write("context", around.line_number().unwrap_or_default(), around.absolute_byte_offset(), around.bytes(), &[]))
    }

    fn finish(&mut self, _: &Searcher, end: &SinkFinish) -> Result<(), io::Error> {
        self.is_binary = end.binary_byte_offset().is_some();
        Ok(())
    }
}

/// A JSON string; what isn't UTF-8 is replaced, and its bytes stand beside it under `odd`.
pub(in crate::fs) fn text(out: &mut Vec<u8>, bytes: &[u8], odd: &str) {
    let quoted = serde_json::to_string(&String::from_utf8_lossy(bytes)).unwrap_or_default();
    out.extend_from_slice(quoted.as_bytes());
    if std::str::from_utf8(bytes).is_err() {
        let _ = write!(out, ",\"{odd}\":\"{}\"", BASE64_STANDARD.encode(bytes)); // a Vec takes all
    }
}

/// A line, or several, without the last end of line.
pub(in crate::fs) fn without_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// The part of a line that is shown: the beginning when the match lies there, else around the match. Whole characters.
pub(in crate::fs) fn window(line: &[u8], first: usize, max_bytes: usize) -> Range<usize> {
    if line.len() <= max_bytes {
        return 0..line.len();
    }
    let start = if first < max_bytes / 2 { 0 } else { first.saturating_sub(max_bytes / LEAD_PARTS).min(line.len() - max_bytes) };
    let is_inside = |at: &usize| *at > 0 && *at < line.len() && line[*at] & 0b1100_0000 == 0b1000_0000;
    // At most three bytes: what is no UTF-8 isn't searched for a beginning.
    let begin = (start..start + 4).find(|at| !is_inside(at)).unwrap_or(start);
    let end = start + max_bytes;
    let end = (0..4).map(|back| end - back).find(|at| !is_inside(at)).unwrap_or(end);
    begin..end.max(begin)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_window_lies_around_the_match() {
        assert_eq!(window(b"0123456789", 9, 10), 0..10);
        assert_eq!(window(&[b'x'; 100], 3, 20), 0..20);
        assert_eq!(window(&[b'x'; 100], 50, 20), 45..65);
        assert_eq!(window(&[b'x'; 100], 99, 20), 80..100);
    }

    proptest! {
        #[test]
        fn a_window_has_whole_characters(line in "\\PC{0,80}", first in 0usize..80, max in 8usize..40) {
            let shown = window(line.as_bytes(), first.min(line.len()), max);
            prop_assert!(shown.len() <= max && shown.len() + 6 >= max.min(line.len()));
            prop_assert!(std::str::from_utf8(&line.as_bytes()[shown]).is_ok());
        }
    }

    #[test]
    fn ends_of_lines_are_not_shown() {
        assert_eq!(without_end(b"a\r\n"), b"a");
        assert_eq!(without_end(b"a\n\n"), b"a\n");
        assert_eq!(without_end(b""), b"");
    }
}
