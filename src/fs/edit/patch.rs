//! Applying a unified diff to one content. Each hunk goes where its lines are, next to where it says; lines count byte for
//! byte, unless some fuzz is allowed.

use std::path::Path;

use diffy::patch_set::{FileOperation, FilePatch, ParseOptions, PatchSet};
use diffy::{Hunk, Line, Patch};

use super::Invalid;
use super::diff::lines;
use super::text::{Mismatch, is_crlf, with_ends};

/// So many lines may be compared to find where hunks belong: a patch of many that are alike could go on for hours.
const COMPARED_MAX: u64 = 20_000_000;
/// A line counts as one, and as one more for each so many bytes.
const LINE_BYTES: usize = 64;

/// What a patch makes of a content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Patched {
    /// `None`: the file goes.
    pub(super) content: Option<Vec<u8>>,
    /// For each hunk, how many lines further down it was applied than it says.
    pub(super) offsets: Vec<i64>,
}

/// Applies a patch that is about the file at `path` and no other.
///
/// # Errors
/// [`Refused::Patch`] for what can't be read or is about something else, [`Refused::Content`] when it doesn't fit.
pub(super) fn apply(path: &Path, content: Option<&[u8]>, patch: &[u8], fuzz: usize) -> Result<Patched, Refused> {
    let only = only_one(patch)?;
    let operation = only.operation();
    let (creates, deletes) = (operation.is_create(), operation.is_delete());
    names_fit(path, operation)?;
    if only.old_mode().zip(only.new_mode()).is_some_and(|(old, new)| old != new) {
        return Err(Invalid("a patch that changes a file's mode: leave its mode lines out".into()).into());
    }
    let text = only.patch().as_text().ok_or_else(|| Invalid("a patch of a binary file: write the file whole".into()))?;
    let base = match (content, creates) {
        (Some(_), true) => return Err(Mismatch::Something.into()),
        (None, false) => return Err(Mismatch::Nothing.into()),
        (content, _) => content.unwrap_or_default(),
    };
    let (changed, offsets) = apply_hunks(base, text, fuzz)?;
    if deletes && !changed.is_empty() {
        return Err(Mismatch::Hunk { number: text.hunks().len() + 1, line: 1 }.into()); // more is there than goes
    }
    Ok(Patched { content: (!deletes).then_some(changed), offsets })
}

/// Why a patch was not applied.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Patch(Invalid),
    Content(Mismatch),
}

impl From<Invalid> for Refused {
    fn from(why: Invalid) -> Self {
        Self::Patch(why)
    }
}

impl From<Mismatch> for Refused {
    fn from(why: Mismatch) -> Self {
        Self::Content(why)
    }
}

fn only_one(patch: &[u8]) -> Result<FilePatch<'_, [u8]>, Invalid> {
    let is_git = patch.starts_with(b"diff --git ") || memchr::memmem::find(patch, b"\ndiff --git ").is_some();
    let options = if is_git { ParseOptions::gitdiff() } else { ParseOptions::unidiff() };
    let mut found = PatchSet::parse_bytes(patch, options);
    let none = || Invalid("a patch without a hunk: it begins with --- and +++ lines, or with diff --git".into());
    let first = found.next().ok_or_else(none)?.map_err(|error| Invalid(format!("a patch that can't be read: {error}")))?;
    match found.next() {
        None => Ok(first),
        Some(_) => Err(Invalid("a patch of several files: send one for each".into())),
    }
}

/// Its names end as the path does; prefixes such as `a/` and `b/` don't count.
fn names_fit(path: &Path, operation: &FileOperation<'_, [u8]>) -> Result<(), Invalid> {
    use std::os::unix::ffi::OsStrExt as _;
    let names: Vec<&[u8]> = match operation {
        FileOperation::Create(name) | FileOperation::Delete(name) => vec![name],
        FileOperation::Modify { original, modified } => vec![original, modified],
        FileOperation::Rename { .. } | FileOperation::Copy { .. } => {
            return Err(Invalid("a patch that moves or copies a file: use /v1/fs/move or /v1/fs/copy, then a patch".into()));
        }
    };
    let fits = |name: &[u8]| {
        let name = Path::new(std::ffi::OsStr::from_bytes(name));
        let below = name.strip_prefix("/").unwrap_or(name);
        let prefixes = ["a", "b", "i", "w", "c", "o"];
        let bare = prefixes.iter().find_map(|prefix| below.strip_prefix(prefix).ok());
        path.ends_with(below) || bare.is_some_and(|bare| path.ends_with(bare))
    };
    match names.into_iter().find(|name| !fits(name)) {
        None => Ok(()),
        Some(name) => Err(Invalid(format!("a patch of {}, which is not {}", String::from_utf8_lossy(name), path.display()))),
    }
}

fn apply_hunks(base: &[u8], patch: &Patch<'_, [u8]>, fuzz: usize) -> Result<(Vec<u8>, Vec<i64>), Refused> {
    let (image, has_returns) = (lines(base), is_crlf(base));
    let mut places = Places { image: &image, left: COMPARED_MAX };
    let (mut changed, mut offsets): (Vec<u8>, Vec<i64>) = (Vec::with_capacity(base.len()), Vec::new());
    // Lines of the old content that are done with; how far the last hunk was off.
    let (mut done, mut drift): (usize, i64) = (0, 0);
    for (index, hunk) in patch.hunks().iter().enumerate() {
        let stated = stated_start(hunk);
        let sides = Sides::of(hunk, has_returns);
        let expected = usize::try_from(i64::try_from(stated).unwrap_or(i64::MAX).saturating_add(drift)).unwrap_or(0);
        let found = (0..=fuzz).find_map(|fuzz| {
            let trimmed = sides.trimmed(fuzz)?;
            Some((places.nearest(&trimmed.old, done, expected.saturating_add(trimmed.skipped))?, trimmed))
        });
        if places.left == 0 {
            return Err(Invalid(format!("hunk {} of the patch takes too long to find: say its lines' numbers", index + 1)).into());
        }
        let (at, trimmed) = found.ok_or(Mismatch::Hunk { number: index + 1, line: stated + 1 })?;
        image[done..at].iter().for_each(|line| changed.extend_from_slice(line));
        trimmed.new.iter().for_each(|line| changed.extend_from_slice(line));
        done = at + trimmed.old.len();
        drift = i64::try_from(at).unwrap_or(i64::MAX) - i64::try_from(stated + trimmed.skipped).unwrap_or(i64::MAX);
        offsets.push(drift);
    }
    image[done..].iter().for_each(|line| changed.extend_from_slice(line));
    Ok((changed, offsets))
}

/// Where a hunk says that it is, from 0. One without old lines names the line before it.
fn stated_start(hunk: &Hunk<'_, [u8]>) -> usize {
    let range = hunk.old_range();
    if range.is_empty() { range.start() } else { range.start().saturating_sub(1) }
}

/// The lines of a hunk as they were and as they shall be.
struct Sides {
    old: Vec<Vec<u8>>,
    new: Vec<Vec<u8>>,
    /// Equal lines that it begins and ends with.
    leading: usize,
    trailing: usize,
    skipped: usize,
}

impl Sides {
    fn of(hunk: &Hunk<'_, [u8]>, has_returns: bool) -> Self {
        let bytes = |line: &[u8]| with_ends(has_returns, line).into_owned();
        let is_context = |line: &&Line<'_, [u8]>| matches!(line, Line::Context(_));
        let (mut old, mut new) = (Vec::new(), Vec::new());
        for line in hunk.lines() {
            match line {
                Line::Context(line) => {
                    old.push(bytes(line));
                    new.push(bytes(line));
                }
                Line::Delete(line) => old.push(bytes(line)),
                Line::Insert(line) => new.push(bytes(line)),
            }
        }
        let leading = hunk.lines().iter().take_while(is_context).count();
        let trailing = hunk.lines().iter().rev().take_while(is_context).count();
        Self { old, new, leading, trailing, skipped: 0 }
    }

    /// Without so many equal lines at each end; `None` when it has none to spare.
    fn trimmed(&self, fuzz: usize) -> Option<Self> {
        let (first, last) = (self.leading.min(fuzz), self.trailing.min(fuzz));
        if fuzz > 0 && first.max(last) < fuzz || first + last > self.old.len() {
            return None;
        }
        let cut = |lines: &[Vec<u8>]| lines[first..lines.len() - last].to_vec();
        let (old, new) = (cut(&self.old), cut(&self.new));
        Some(Self { old, new, leading: 0, trailing: 0, skipped: first })
    }
}

/// Where hunks may belong.
struct Places<'a> {
    image: &'a [&'a [u8]],
    /// So much may still be compared.
    left: u64,
}

impl Places<'_> {
    /// Where these lines are, next to `expected` and not before `from`. No lines are exactly there.
    fn nearest(&mut self, wanted: &[Vec<u8>], from: usize, expected: usize) -> Option<usize> {
        let last = self.image.len().checked_sub(wanted.len()).filter(|last| *last >= from)?;
        if wanted.is_empty() {
            return (from..=last).contains(&expected).then_some(expected);
        }
        let middle = expected.clamp(from, last);
        let above = |away: usize| middle.checked_sub(away).filter(|at| *at >= from);
        let below = |away: usize| middle.checked_add(away).filter(|at| *at <= last && away > 0);
        let mut around = (0..=(middle - from).max(last - middle)).flat_map(|away| [above(away), below(away)]).flatten();
        around.find(|at| self.fits(*at, wanted))
    }

    fn fits(&mut self, at: usize, wanted: &[Vec<u8>]) -> bool {
        let lines = &self.image[at..at + wanted.len()];
        lines.iter().zip(wanted).all(|(line, wanted)| {
            self.left = self.left.saturating_sub(1 + (wanted.len() / LINE_BYTES) as u64);
            self.left > 0 && *line == &wanted[..]
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::diff::{DiffLimits, diff};
    use super::*;

    const BASE: &str = "1\n2\n3\n4\n5\n6\n7\n8\n";

    fn patched(content: Option<&str>, patch: &str) -> Result<(Option<String>, Vec<i64>), Refused> {
        let patched = apply(Path::new("/w/d/f"), content.map(str::as_bytes), patch.as_bytes(), 0)?;
        Ok((patched.content.map(|content| String::from_utf8(content).expect("text")), patched.offsets))
    }

    #[test]
    fn a_hunk_goes_where_its_lines_are() {
        let patch = "--- a/d/f\n+++ b/d/f\n@@ -3,3 +3,3 @@\n 3\n-4\n+four\n 5\n";
        assert_eq!(patched(Some(BASE), patch), Ok((Some(BASE.replace('4', "four")), vec![0])));
        let moved = format!("x\ny\n{BASE}");
        assert_eq!(patched(Some(&moved), patch), Ok((Some(moved.replace('4', "four")), vec![2])));
        let other = BASE.replace('5', "five");
        assert_eq!(patched(Some(&other), patch), Err(Mismatch::Hunk { number: 1, line: 3 }.into()), "no fuzz");
        let fuzzy = apply(Path::new("/w/d/f"), Some(other.as_bytes()), patch.as_bytes(), 1).expect("one line is not looked at");
        assert_eq!(fuzzy.content.expect("a content"), other.replace('4', "four").into_bytes());
    }

    #[test]
    fn git_says_more_around_it() {
        let patch = "diff --git a/d/f b/d/f\nindex 1..2 100644\n--- a/d/f\n+++ b/d/f\n@@ -1,2 +1 @@\n-1\n 2\n";
        assert_eq!(patched(Some(BASE), patch).map(|done| done.0), Ok(Some(BASE[2..].to_owned())));
        let made = "diff --git a/d/f b/d/f\nnew file mode 100644\n--- /dev/null\n+++ b/d/f\n@@ -0,0 +1 @@\n+x\n";
        assert_eq!(patched(None, made).map(|done| done.0), Ok(Some("x\n".to_owned())));
        assert_eq!(patched(Some("y"), made), Err(Mismatch::Something.into()));
        let gone = "--- a/d/f\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n";
        assert_eq!(patched(Some("x\n"), gone).map(|done| done.0), Ok(None));
        assert!(matches!(patched(Some("x\ny\n"), gone), Err(Refused::Content(_))), "more is there than goes");
    }

    #[test]
    fn lines_that_are_all_alike_end_the_search() {
        let hunk = format!("--- a/d/f\n+++ b/d/f\n@@ -1,100000 +1,100000 @@\n{}-x\n+y\n", " \n".repeat(99_999));
        let refused = patched(Some(&"\n".repeat(300_000)), &hunk);
        assert!(matches!(&refused, Err(Refused::Patch(Invalid(said))) if said.contains("too long")), "{refused:?}");
    }

    #[test]
    fn of_two_places_the_nearer_one_is_meant() {
        let base = "x\n".repeat(3) + "a\n" + &"x\n".repeat(5) + "a\n";
        for (line, at) in [(1, 3), (4, 3), (6, 3), (7, 3), (8, 9), (9, 9), (40, 9)] {
            let patch = format!("--- a/d/f\n+++ b/d/f\n@@ -{line} +{line} @@\n-a\n+b\n");
            let offsets = patched(Some(&base), &patch).expect("it fits").1;
            assert_eq!(offsets, [at + 1 - line], "for line {line}");
        }
    }

    #[test]
    fn what_a_patch_may_not_do() {
        for (patch, why) in [
            ("", "can't be read"),
            ("--- a/d/g\n+++ b/d/g\n@@ -1 +1 @@\n-1\n+x\n", "which is not"),
            ("--- a/d/f\n+++ b/d/f\n@@ -1 +1 @@\n-1\n+x\n--- a/e\n+++ b/e\n@@ -1 +1 @@\n-1\n+x\n", "several"),
            ("diff --git a/d/f b/d/g\nsimilarity index 100%\nrename from d/f\nrename to d/g\n", "moves"),
        ] {
            let refused = patched(Some(BASE), patch);
            assert!(matches!(&refused, Err(Refused::Patch(Invalid(said))) if said.contains(why)), "{patch:?}: {refused:?}");
        }
    }

    #[test]
    fn ends_of_lines_come_through() {
        let patch = "--- a/d/f\n+++ b/d/f\n@@ -1,2 +1,2 @@\n a\n-b\n+c\n";
        assert_eq!(patched(Some("a\r\nb\r\n"), patch).map(|done| done.0), Ok(Some("a\r\nc\r\n".to_owned())));
        let last = "--- a/d/f\n+++ b/d/f\n@@ -1 +1 @@\n-a\n\\ No newline at end of file\n+b\n\\ No newline at end of file\n";
        assert_eq!(patched(Some("a"), last).map(|done| done.0), Ok(Some("b".to_owned())));
    }

    proptest! {
        #[test]
        fn our_own_diffs_apply(old in prop::collection::vec("[ab\r]{0,2}", 0..12), new in prop::collection::vec("[ab\r]{0,2}", 0..12), ends in any::<(bool, bool)>()) {
            let text = |lines: &[String], has_end: bool| {
                let mut text = lines.join("\n");
                if has_end && !text.is_empty() { text.push('\n'); }
                text
            };
            let (old, new) = (text(&old, ends.0), text(&new, ends.1));
            // Lines that all end with CRLF take up what has none: such a diff is not applied byte for byte.
            prop_assume!(old != new && !super::super::text::is_crlf(old.as_bytes()));
            let limits = DiffLimits { compared_max_bytes: 1000, shown_max_bytes: 10_000 };
            let made = diff("/w/d/f", Some(old.as_bytes()), Some(new.as_bytes()), limits).text.expect("texts");
            let patched = apply(Path::new("/w/d/f"), Some(old.as_bytes()), made.as_bytes(), 0).expect("it fits");
            prop_assert_eq!(patched.content.expect("a content"), new.into_bytes());
            prop_assert!(patched.offsets.iter().all(|offset| *offset == 0));
        }
    }
}
