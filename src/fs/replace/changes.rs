//! The changes in one content. Bytes stay what they are: ends of lines, and what is no UTF-8.

use std::collections::HashSet;
use std::ops::Range;

use grep_matcher::{Captures as _, Matcher as _};
use grep_regex::RegexMatcher;
use serde_json::{Value, json};

use crate::config::Bounds;
use crate::fs::Error;
use crate::fs::search::hits::{text, window, without_end};

/// What takes the place of a match.
pub(super) enum With<'a> {
    /// This.
    Text(&'a [u8]),
    /// This, with groups of the match for `$1` and `${name}`.
    Groups(&'a [u8]),
}

/// One match, and what takes its place. Its id is its number in the content.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Change {
    id: u64,
    range: Range<usize>,
    with: Vec<u8>,
}

/// The changes in one content, in order, none within another.
#[derive(Debug)]
pub(super) struct Changes(Vec<Change>);

/// More than may be in one file: matches, or bytes that take their place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooMany {
    what: &'static str,
    max: u64,
    bound: &'static str,
}

impl TooMany {
    /// As what it means for the file.
    pub(super) fn of_file(self) -> Error {
        Error::TooMuch { what: self.what.to_owned(), max: self.max, bound: self.bound }
    }
}

impl Changes {
    /// All of them. A replacement may be long, and take many places: its bytes are bounded as the file's are.
    pub(super) fn find(matcher: &RegexMatcher, content: &[u8], with: &With<'_>, bounds: &Bounds) -> Result<Self, TooMany> {
        let (matches_max, bytes_max) = (bounds.fs_search_matches_max, bounds.fs_search_heap_max_bytes);
        let (mut changes, mut bytes) = (Vec::new(), 0);
        let Ok(mut captures) = matcher.new_captures() else { return Ok(Self(changes)) };
        let _ = matcher.captures_iter(content, &mut captures, |captures| {
            let Some(found) = captures.get(0) else { return true };
            // Behind the last end of line no line begins.
            if found.is_empty() && found.start() == content.len() && content.ends_with(b"\n") {
                return true;
            }
            let mut replaced = Vec::new();
            match with {
                With::Text(text) => replaced.extend_from_slice(text),
                With::Groups(text) => {
                    captures.interpolate(|name| matcher.capture_index(name), content, text, &mut replaced);
                }
            }
            bytes += replaced.len() as u64;
            changes.push(Change { id: changes.len() as u64, range: found.start()..found.end(), with: replaced });
            changes.len() as u64 <= matches_max && bytes <= bytes_max
        });
        if changes.len() as u64 > matches_max {
            return Err(TooMany { what: "the number of matches in one file", max: matches_max, bound: "fs_search_matches_max" });
        }
        if bytes > bytes_max {
            return Err(TooMany {
                what: "what takes the place of matches in one file",
                max: bytes_max,
                bound: "fs_search_heap_max_bytes",
            });
        }
        Ok(Self(changes))
    }

    pub(super) fn count(&self) -> u64 {
        self.0.len() as u64
    }

    /// Those with these ids.
    pub(super) fn only(self, ids: Option<&[u64]>) -> Self {
        let Some(ids) = ids else { return self };
        let ids: HashSet<u64> = ids.iter().copied().collect();
        Self(self.0.into_iter().filter(|change| ids.contains(&change.id)).collect())
    }

    /// The content with all of them made.
    pub(super) fn apply(&self, content: &[u8]) -> Vec<u8> {
        self.within(content, 0..content.len(), &self.0)
    }

    fn within(&self, content: &[u8], part: Range<usize>, changes: &[Change]) -> Vec<u8> {
        let (mut out, mut at) = (Vec::with_capacity(part.len()), part.start);
        for change in changes {
            out.extend_from_slice(&content[at..change.range.start]);
            out.extend_from_slice(&change.with);
            at = change.range.end;
        }
        out.extend_from_slice(&content[at..part.end]);
        out
    }

    /// For people: the lines of each change before and after, those on the same lines together.
    pub(super) fn show(&self, content: &[u8], line_max_bytes: usize) -> Value {
        let (mut shown, mut rest, mut number, mut counted) = (Vec::new(), &self.0[..], 1, 0);
        while let Some(first) = rest.first() {
            let start = memchr::memrchr(b'\n', &content[..first.range.start]).map_or(0, |end| end + 1);
            let (mut taken, mut end) = (0, start);
            while let Some(change) = rest.get(taken).filter(|change| taken == 0 || change.range.start < end) {
                end = end.max(line_end(content, change.range.start.max(change.range.end.saturating_sub(1))));
                taken += 1;
            }
            let (group, behind) = rest.split_at(taken);
            number += memchr::memchr_iter(b'\n', &content[counted..start]).count();
            (counted, rest) = (start, behind);
            shown.push(self.show_group(content, start..end, number, group, line_max_bytes));
        }
        shown.into()
    }

    fn show_group(&self, content: &[u8], lines: Range<usize>, number: usize, group: &[Change], max_bytes: usize) -> Value {
        let after = self.within(content, lines.clone(), group);
        let first = group.first().map_or(0, |change| change.range.start - lines.start);
        let mut change = json!({"line": number, "offset": lines.start});
        for (key, odd, whole) in [("before", "beforeBase64", &content[lines.clone()]), ("after", "afterBase64", &after)] {
            let whole = without_end(whole);
            let part = window(whole, first, max_bytes);
            if part.len() < whole.len() {
                change["isCut"] = true.into();
            }
            let mut quoted = format!("{{\"{key}\":").into_bytes();
            text(&mut quoted, &whole[part], odd);
            quoted.push(b'}');
            if let Ok(Value::Object(members)) = serde_json::from_slice(&quoted) {
                for (key, value) in members {
                    change[key] = value;
                }
            }
        }
        let matches = group.iter().map(|change| json!({"id": change.id, "range": [change.range.start, change.range.end]}));
        change["matches"] = matches.collect();
        change
    }
}

/// Where the line ends that has this byte, its end of line with it.
fn line_end(content: &[u8], at: usize) -> usize {
    memchr::memchr(b'\n', &content[at..]).map_or(content.len(), |end| at + end + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fs::search::Pattern;

    fn pattern(text: &str) -> Pattern {
        Pattern { text: text.to_owned(), ..Pattern::default() }
    }

    fn replaced(pattern: &Pattern, with: &With<'_>, content: &[u8]) -> Vec<u8> {
        let matcher = pattern.compile().expect("a pattern");
        Changes::find(&matcher, content, with, &Bounds::default()).expect("few enough").apply(content)
    }

    #[test]
    fn groups_and_literals() {
        let swapped = replaced(&pattern(r"(\w+)=(?<v>\w+)"), &With::Groups(b"${v}=$1 $$"), b"a=b, c=d");
        assert_eq!(swapped, b"b=a $, d=c $");
        let literal = Pattern { is_literal: true, ..pattern("$1") };
        assert_eq!(replaced(&literal, &With::Text(b"$2"), b"x$1y"), b"x$2y");
    }

    #[test]
    fn bytes_stay_what_they_are() {
        assert_eq!(replaced(&pattern("a$"), &With::Text(b"b"), b"a\r\na\nxa\r\n"), b"b\r\nb\nxb\r\n");
        assert_eq!(replaced(&pattern("é"), &With::Text(b"e"), b"\xff\xc3\xa9\x80"), b"\xffe\x80");
        assert_eq!(replaced(&pattern("^"), &With::Text(b"> "), b"a\nb\n"), b"> a\n> b\n");
    }

    #[test]
    fn changes_on_the_same_lines_are_shown_together() {
        let multiline = Pattern { multiline: true, ..pattern(r"b\nc|x") };
        let content = b"0\nx a x b\nc x\nn\nx\r\n";
        let changes =
            Changes::find(&multiline.compile().expect("a pattern"), content, &With::Text(b"_"), &Bounds::default()).expect("few");
        let shown = changes.show(content, 100);
        let expected = json!([
            {"line": 2, "offset": 2, "before": "x a x b\nc x", "after": "_ a _ _ _", "matches": [
                {"id": 0, "range": [2, 3]}, {"id": 1, "range": [6, 7]}, {"id": 2, "range": [8, 11]}, {"id": 3, "range": [12, 13]}]},
            {"line": 5, "offset": 16, "before": "x", "after": "_", "matches": [{"id": 4, "range": [16, 17]}]},
        ]);
        assert_eq!(shown, expected);
        assert_eq!(changes.only(Some(&[1, 4])).apply(content), b"0\nx a _ b\nc x\nn\n_\r\n");
    }

    #[test]
    fn what_one_file_may_take_is_bounded() {
        let x = pattern("x").compile().expect("a pattern");
        let few = Bounds { fs_search_matches_max: 2, fs_search_heap_max_bytes: 10, ..Bounds::default() };
        let bound =
            |content: &[u8], with: &[u8]| Changes::find(&x, content, &With::Text(with), &few).map_err(|error| error.bound);
        assert_eq!(bound(b"xxx", b"").map(|_| ()), Err("fs_search_matches_max"));
        assert_eq!(bound(b"xx", b"123456").map(|_| ()), Err("fs_search_heap_max_bytes"));
        assert_eq!(bound(b"xx", b"12345").map(|changes| changes.count()), Ok(2));
    }

    proptest! {
        /// The same as the regex crate does, line by line.
        #[test]
        fn a_replacement_is_that_of_the_regex_crate(
            content in "[ab\\n]{0,40}",
            text in prop::sample::select(vec!["a", "ab", "b+", "a*b", "^a", "b$", r"\ba", "[ab]{2}"]),
        ) {
            let expected = regex::RegexBuilder::new(text).multi_line(true).build().expect("a pattern");
            let expected = expected.replace_all(&content, "<$0>").into_owned();
            let ours = replaced(&pattern(text), &With::Groups(b"<$0>"), content.as_bytes());
            prop_assert_eq!(String::from_utf8(ours).expect("UTF-8"), expected);
        }

        #[test]
        fn what_is_shown_makes_the_whole(content in "[abx\\n]{0,60}") {
            let changes = Changes::find(&pattern("x").compile().expect("a pattern"), content.as_bytes(), &With::Text(b"yy"), &Bounds::default()).expect("few");
            let mut lines: Vec<String> = content.split('\n').map(str::to_owned).collect();
            for change in changes.show(content.as_bytes(), 1000).as_array().expect("changes") {
                let line = usize::try_from(change["line"].as_u64().expect("a line")).expect("small") - 1;
                prop_assert_eq!(&lines[line], change["before"].as_str().expect("text"));
                lines[line] = change["after"].as_str().expect("text").to_owned();
            }
            prop_assert_eq!(lines.join("\n").into_bytes(), changes.apply(content.as_bytes()));
        }
    }
}
