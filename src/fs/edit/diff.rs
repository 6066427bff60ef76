//! Differences by lines, as unified diffs. Lines are bytes up to and with their `\n`: CRLF, a BOM and what isn't UTF-8 are
//! part of them.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use similar::{Algorithm, DiffOp, capture_diff_slices_deadline, group_diff_ops};

/// Equal lines shown around a change.
const CONTEXT_LINES: usize = 2;
/// After so long what is left counts as replaced: comparing files that share little takes long, and says little.
const PATIENCE: Duration = Duration::from_millis(200);
/// A NUL among so many first bytes: no text.
const LOOKED_AT_BYTES: usize = 8 * 1024;

/// What tells one text from another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diff {
    /// In unified format; `None` when one of them is no text or too long to be compared.
    pub text: Option<String>,
    /// The text ends before the diff does.
    pub is_cut: bool,
    /// Lines that are new.
    pub added: usize,
    /// Lines that are gone.
    pub removed: usize,
    /// What changed, in order; empty without a text.
    pub hunks: Vec<Hunk>,
}

/// Lines that were replaced: each range counts from 0, and may be empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hunk {
    /// First of the old lines.
    pub old_start: usize,
    /// How many.
    pub old_lines: usize,
    /// First of the new lines.
    pub new_start: usize,
    /// How many.
    pub new_lines: usize,
}

/// How much may be compared and shown.
#[derive(Debug, Clone, Copy)]
pub struct DiffLimits {
    /// Of each text.
    pub compared_max_bytes: u64,
    /// Of the diff.
    pub shown_max_bytes: usize,
}

/// Compares what was there with what is there now; `None` is nothing. `path` names both.
pub fn diff(path: &str, before: Option<&[u8]>, after: Option<&[u8]>, limits: DiffLimits) -> Diff {
    let texts = [before.unwrap_or_default(), after.unwrap_or_default()];
    if texts.iter().any(|text| text.len() as u64 > limits.compared_max_bytes || is_binary(text)) {
        return Diff::default();
    }
    let [old, new] = texts.map(lines);
    let ops = capture_diff_slices_deadline(Algorithm::Myers, &old, &new, Some(Instant::now() + PATIENCE));
    let hunks: Vec<Hunk> = ops.iter().filter(|op| !matches!(op, DiffOp::Equal { .. })).map(Hunk::of).collect();
    let added = hunks.iter().map(|hunk| hunk.new_lines).sum();
    let removed = hunks.iter().map(|hunk| hunk.old_lines).sum();
    let mut writer = Writer { out: Vec::new(), max: limits.shown_max_bytes, is_cut: false };
    if !hunks.is_empty() || before.is_some() != after.is_some() {
        let name = shown_name(path);
        let of = |side: &str, is_there: bool| if is_there { format!("{side}/{name}") } else { "/dev/null".to_owned() };
        writer.line(format!("--- {}\n+++ {}\n", of("a", before.is_some()), of("b", after.is_some())).as_bytes());
    }
    for group in group_diff_ops(ops, CONTEXT_LINES) {
        writer.group(&group, &old, &new);
    }
    let text = String::from_utf8_lossy(&writer.out).into_owned();
    Diff { text: Some(text), is_cut: writer.is_cut, added, removed, hunks }
}

/// Lines with their ends.
pub(super) fn lines(text: &[u8]) -> Vec<&[u8]> {
    text.split_inclusive(|byte| *byte == b'\n').collect()
}

fn is_binary(text: &[u8]) -> bool {
    memchr::memchr(0, &text[..text.len().min(LOOKED_AT_BYTES)]).is_some()
}

/// A name must not look like lines of its own.
fn shown_name(path: &str) -> Cow<'_, str> {
    let path = path.trim_start_matches('/');
    if path.contains(char::is_control) { path.escape_debug().to_string().into() } else { path.into() }
}

impl Hunk {
    fn of(op: &DiffOp) -> Self {
        let (old, new) = (op.old_range(), op.new_range());
        Self { old_start: old.start, old_lines: old.len(), new_start: new.start, new_lines: new.len() }
    }
}

struct Writer {
    out: Vec<u8>,
    max: usize,
    is_cut: bool,
}

impl Writer {
    /// Whole lines only, and none after one that was left out.
    fn line(&mut self, line: &[u8]) {
        if self.is_cut || self.out.len() + line.len() > self.max {
            self.is_cut = true;
        } else {
            self.out.extend_from_slice(line);
        }
    }

    fn group(&mut self, group: &[DiffOp], old: &[&[u8]], new: &[&[u8]]) {
        let (Some(first), Some(last)) = (group.first(), group.last()) else { return };
        let of = |start: usize, end: usize| match end - start {
            0 => format!("{start},0"), // the line before
            1 => format!("{}", start + 1),
            lines => format!("{},{lines}", start + 1),
        };
        let from = of(first.old_range().start, last.old_range().end);
        let to = of(first.new_range().start, last.new_range().end);
        self.line(format!("@@ -{from} +{to} @@\n").as_bytes());
        for op in group {
            let is_equal = matches!(op, DiffOp::Equal { .. });
            old[op.old_range()].iter().for_each(|line| self.marked(if is_equal { b' ' } else { b'-' }, line));
            if !is_equal {
                new[op.new_range()].iter().for_each(|line| self.marked(b'+', line));
            }
        }
    }

    fn marked(&mut self, mark: u8, line: &[u8]) {
        let end: &[u8] = if line.ends_with(b"\n") { b"" } else { b"\n\\ No newline at end of file\n" };
        self.line(&[&[mark], line, end].concat());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: DiffLimits = DiffLimits { compared_max_bytes: 1000, shown_max_bytes: 1000 };

    fn text(before: Option<&str>, after: Option<&str>) -> String {
        diff("/d/f", before.map(str::as_bytes), after.map(str::as_bytes), LIMITS).text.expect("texts")
    }

    #[test]
    fn two_lines_of_context() {
        let before = "1\n2\n3\n4\n5\n6\n7\n";
        let expected = "--- a/d/f\n+++ b/d/f\n@@ -2,5 +2,5 @@\n 2\n 3\n-4\n+four\n 5\n 6\n";
        assert_eq!(text(Some(before), Some(&before.replace('4', "four"))), expected);
        assert_eq!(text(Some(before), Some(before)), "");
    }

    #[test]
    fn files_that_come_and_go() {
        assert_eq!(text(None, Some("a\n")), "--- /dev/null\n+++ b/d/f\n@@ -0,0 +1 @@\n+a\n");
        assert_eq!(text(Some("a\n"), None), "--- a/d/f\n+++ /dev/null\n@@ -1 +0,0 @@\n-a\n");
        assert_eq!(text(None, Some("")), "--- /dev/null\n+++ b/d/f\n");
    }

    #[test]
    fn the_last_newline_and_carriage_returns_count() {
        let expected = "--- a/d/f\n+++ b/d/f\n@@ -1 +1 @@\n-a\n\\ No newline at end of file\n+a\n";
        assert_eq!(text(Some("a"), Some("a\n")), expected);
        assert_eq!(text(Some("a\r\n"), Some("a\n")), "--- a/d/f\n+++ b/d/f\n@@ -1 +1 @@\n-a\r\n+a\n");
    }

    #[test]
    fn what_is_no_text_or_too_long_has_no_diff() {
        assert_eq!(diff("f", Some(b"a\0"), Some(b"b"), LIMITS), Diff::default());
        assert_eq!(diff("f", Some(&[b'a'; 1001]), None, LIMITS).text, None);
        let long = "line\n".repeat(100);
        let cut = diff("f", None, Some(long.as_bytes()), DiffLimits { shown_max_bytes: 55, ..LIMITS });
        assert!(cut.is_cut && cut.added == 100);
        assert_eq!(cut.text.expect("a text"), "--- /dev/null\n+++ b/f\n@@ -0,0 +1,100 @@\n+line\n+line\n");
    }

    #[test]
    fn a_name_is_one_line() {
        assert!(diff("/a\n+++ b", None, Some(b""), LIMITS).text.expect("a text").starts_with("--- /dev/null\n+++ b/a\\n+++ b\n"));
    }
}
