//! Replacing text in a content: by what it says, or by its lines. Pure. Bytes outside of what is replaced stay.

use std::borrow::Cow;

use memchr::memmem;

use super::diff::lines;

const BOM: &[u8] = b"\xef\xbb\xbf";
/// Lines named in an answer.
const LINES_SHOWN_MAX: usize = 20;

/// Why an edit doesn't fit what is there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // the texts say what each is
pub enum Mismatch {
    #[error("the text to be replaced is not in it: read the file again")]
    Missing,
    #[error("the text to be replaced is in it {count} times: give more of what is around it, or the occurrence")]
    Ambiguous {
        count: usize,
        /// Where the first of them begin, from 1.
        lines: Vec<usize>,
    },
    #[error("the text to be replaced is in it {count} times: there is no occurrence {asked}")]
    NoOccurrence { asked: usize, count: usize },
    #[error("it has {has} lines: lines {start} to {end} are not there")]
    NoLines { start: usize, end: usize, has: usize },
    #[error("hunk {number} of the patch fits nowhere: its lines for line {line} are not there")]
    Hunk { number: usize, line: usize },
    #[error("it isn't there, and only what is there can be changed so")]
    Nothing,
    #[error("it is there, and the edit is for a file that isn't")]
    Something,
}

/// Replaces `old`, which must be there once, unless `occurrence` (from 1) says which. An empty `old` makes a content where
/// there is none.
///
/// # Errors
/// [`Mismatch`].
pub(super) fn exact(content: Option<&[u8]>, old: &[u8], new: &[u8], occurrence: Option<usize>) -> Result<Vec<u8>, Mismatch> {
    let content = match (content, old.is_empty()) {
        (None | Some([]), true) => return Ok(new.to_vec()),
        (Some(_), true) => return Err(Mismatch::Something),
        (None, false) => return Err(Mismatch::Nothing),
        (Some(content), false) => content,
    };
    // Who names carriage returns means what is said.
    let names_returns = memchr::memchr(b'\r', old).is_some();
    let new = if names_returns { Cow::Borrowed(new) } else { like(content, new) };
    let old = like(content, old);
    let found: Vec<usize> = memmem::find_iter(content, &old).collect();
    let at = match (found.as_slice(), occurrence) {
        ([], _) => return Err(Mismatch::Missing),
        (_, Some(asked)) => {
            let at = asked.checked_sub(1).and_then(|index| found.get(index));
            *at.ok_or(Mismatch::NoOccurrence { asked, count: found.len() })?
        }
        ([at], None) => *at,
        (_, None) => {
            let line = |at: &usize| memchr::memchr_iter(b'\n', &content[..*at]).count() + 1;
            let lines = found.iter().take(LINES_SHOWN_MAX).map(line).collect();
            return Err(Mismatch::Ambiguous { count: found.len(), lines });
        }
    };
    Ok([&content[..at], &new, &content[at + old.len()..]].concat())
}

/// Replaces the lines `start` to `end` (from 1, both with). With `end` one less than `start`, `new` comes before `start`.
/// What is put in ends with a line's end as long as anything follows or the replaced line had one.
///
/// # Errors
/// [`Mismatch::NoLines`], [`Mismatch::Nothing`].
pub(super) fn range(content: Option<&[u8]>, start: usize, end: usize, new: &[u8]) -> Result<Vec<u8>, Mismatch> {
    let content = content.ok_or(Mismatch::Nothing)?;
    let bom = if content.starts_with(BOM) && !new.starts_with(BOM) { BOM } else { &[] };
    let new = like(content, new);
    let all = lines(&content[bom.len()..]);
    if start == 0 || end + 1 < start || start > all.len() + 1 || end > all.len() {
        return Err(Mismatch::NoLines { start, end, has: all.len() });
    }
    let (before, replaced, after) = (&all[..start - 1], &all[start - 1..end], &all[end..]);
    let line_end: &[u8] = if is_crlf(content) { b"\r\n" } else { b"\n" };
    let mut changed = bom.to_vec();
    before.iter().for_each(|line| changed.extend_from_slice(line));
    if !new.is_empty() {
        if before.last().is_some_and(|line| !line.ends_with(b"\n")) {
            changed.extend_from_slice(line_end);
        }
        changed.extend_from_slice(&new);
        let had_end = replaced.last().is_some_and(|line| line.ends_with(b"\n"));
        if !new.ends_with(b"\n") && (had_end || !after.is_empty()) {
            changed.extend_from_slice(line_end);
        }
    }
    after.iter().for_each(|line| changed.extend_from_slice(line));
    Ok(changed)
}

/// True when every line ends with CRLF.
pub(super) fn is_crlf(content: &[u8]) -> bool {
    let mut ends = memchr::memchr_iter(b'\n', content).peekable();
    ends.peek().is_some() && ends.all(|at| at > 0 && content[at - 1] == b'\r')
}

/// What is meant for a content whose lines all end with CRLF, and has none of them, gets them: editors and models send `\n`.
pub(super) fn like<'a>(content: &[u8], text: &'a [u8]) -> Cow<'a, [u8]> {
    with_ends(memchr::memchr(b'\n', text).is_some() && is_crlf(content), text)
}

/// The same where it is known whether they do: finding that out takes as long as the content.
pub(super) fn with_ends(is_crlf: bool, text: &[u8]) -> Cow<'_, [u8]> {
    if !is_crlf || memchr::memchr(b'\r', text).is_some() {
        return Cow::Borrowed(text);
    }
    let mut converted = Vec::with_capacity(text.len() + text.len() / 16);
    for line in lines(text) {
        match line.strip_suffix(b"\n") {
            Some(line) => converted.extend_from_slice(&[line, b"\r\n"].concat()),
            None => converted.extend_from_slice(line),
        }
    }
    Cow::Owned(converted)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn exactly(content: &str, old: &str, new: &str, occurrence: Option<usize>) -> Result<String, Mismatch> {
        let changed = exact(Some(content.as_bytes()), old.as_bytes(), new.as_bytes(), occurrence);
        changed.map(|changed| String::from_utf8(changed).expect("text"))
    }

    #[test]
    fn text_that_is_there_once_is_replaced() {
        assert_eq!(exactly("a b c", "b", "x", None).as_deref(), Ok("a x c"));
        assert_eq!(exactly("a b c", "d", "x", None), Err(Mismatch::Missing));
        let twice = "one\ntwo one\n";
        assert_eq!(exactly(twice, "one", "x", None), Err(Mismatch::Ambiguous { count: 2, lines: vec![1, 2] }));
        assert_eq!(exactly(twice, "one", "x", Some(2)).as_deref(), Ok("one\ntwo x\n"));
        for asked in [0, 3] {
            assert_eq!(exactly(twice, "one", "x", Some(asked)), Err(Mismatch::NoOccurrence { asked, count: 2 }));
        }
    }

    #[test]
    fn nothing_becomes_something() {
        assert_eq!(exact(None, b"", b"x", None), Ok(b"x".to_vec()));
        assert_eq!(exact(Some(b""), b"", b"x", None), Ok(b"x".to_vec()));
        assert_eq!(exact(Some(b"y"), b"", b"x", None), Err(Mismatch::Something));
        assert_eq!(exact(None, b"y", b"x", None), Err(Mismatch::Nothing));
    }

    #[test]
    fn ends_of_lines_stay_what_they_are() {
        assert_eq!(exactly("a\r\nb\r\nc", "a\nb\n", "x\n", None).as_deref(), Ok("x\r\nc"));
        assert_eq!(exactly("a\r\nb\n", "a\nb\n", "x\n", None), Err(Mismatch::Missing), "a mixture is left to who writes it");
        assert_eq!(exactly("a\r\n", "\r\n", "\n", None).as_deref(), Ok("a\n"), "what is said is done");
    }

    #[test]
    fn lines_are_replaced() {
        let of = |content: &str, start, end, new: &str| {
            let changed = range(Some(content.as_bytes()), start, end, new.as_bytes());
            changed.map(|changed| String::from_utf8(changed).expect("text"))
        };
        assert_eq!(of("1\n2\n3\n", 2, 2, "x").as_deref(), Ok("1\nx\n3\n"));
        assert_eq!(of("1\n2\n3\n", 2, 3, "x\ny\n").as_deref(), Ok("1\nx\ny\n"));
        assert_eq!(of("1\n2\n3\n", 2, 3, "").as_deref(), Ok("1\n"));
        assert_eq!(of("1\n2\n", 1, 0, "0").as_deref(), Ok("0\n1\n2\n"));
        assert_eq!(of("1\n2", 3, 2, "3").as_deref(), Ok("1\n2\n3"));
        assert_eq!(of("1\n2", 2, 2, "x").as_deref(), Ok("1\nx"), "no newline is made up at the end");
        assert_eq!(of("1\r\n2\r\n", 1, 1, "x").as_deref(), Ok("x\r\n2\r\n"));
        assert_eq!(of("\u{feff}1\n2\n", 1, 1, "x").as_deref(), Ok("\u{feff}x\n2\n"));
        assert_eq!(of("", 1, 0, "x").as_deref(), Ok("x"));
        for (start, end) in [(0, 1), (1, 4), (5, 4), (3, 1)] {
            assert_eq!(of("1\n2\n3\n", start, end, "x"), Err(Mismatch::NoLines { start, end, has: 3 }));
        }
    }

    proptest! {
        #[test]
        fn bytes_around_an_edit_stay(before in prop::collection::vec(any::<u8>(), 0..40), after in prop::collection::vec(any::<u8>(), 0..40), new in prop::collection::vec(any::<u8>(), 0..40)) {
            let mark = b"<the mark>";
            let content = [&before[..], mark, &after].concat();
            prop_assume!(memmem::find_iter(&content, mark).count() == 1);
            let changed = exact(Some(&content), mark, &new, None).expect("it is there once");
            prop_assert!(changed.starts_with(&before) && changed.ends_with(&after));
            prop_assert_eq!(&changed[before.len()..changed.len() - after.len()], &like(&content, &new)[..]);
        }

        #[test]
        fn a_range_leaves_the_other_lines(texts in prop::collection::vec("[a-z\u{e9}]{0,4}", 1..8), end in any::<prop::sample::Index>(), has_last in any::<bool>()) {
            let mut content = texts.join("\n").into_bytes();
            if has_last { content.push(b'\n'); }
            let all = lines(&content);
            prop_assume!(!all.is_empty());
            let end = end.index(all.len()) + 1;
            let start = end.div_ceil(2);
            let changed = range(Some(&content), start, end, b"").expect("they are there");
            prop_assert_eq!(changed, [&all[..start - 1], &all[end..]].concat().concat());
        }
    }
}
