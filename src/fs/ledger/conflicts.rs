//! Where two sessions changed lines that are the same, or near each other. Made of the edits in the store: what each of them
//! changed is followed through those after it, so that all line numbers are of the content as it is now.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::super::edit::Hunk;
use super::super::history::image::Raw;
use super::super::history::{EditInfo, edit_of};
use crate::config::{Bounds, as_usize};
use crate::rt::clock::now_ms;
use crate::store::{Error, FsEditFilter, FsEditRow, Store};

/// Lines between two changes that are still neighbours.
const NEAR_LINES: usize = 5;
/// Files of a session that are looked at.
const FILES_MAX: usize = 100;

/// How close two changes are; worse ones are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)] // the words say it
pub enum Severity {
    DifferentArea,
    AdjacentLine,
    SameLine,
    /// The other session has leased the file.
    Leased,
}

impl Severity {
    /// As a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DifferentArea => "different_area",
            Self::AdjacentLine => "adjacent_line",
            Self::SameLine => "same_line",
            Self::Leased => "leased",
        }
    }
}

/// Two sessions that are at the same file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The file.
    pub path: PathBuf,
    /// How close.
    pub severity: Severity,
    /// Who changed it last.
    pub session_id: String,
    /// By this edit; `None` for one that is about to be made.
    pub edit_id: Option<String>,
    /// Its lines now: first and last, from 1. One that only removed is between two lines, the last of which comes first.
    pub lines: Option<(usize, usize)>,
    /// Who else changed it.
    pub other_session_id: String,
    /// By this edit.
    pub other_edit_id: Option<String>,
    /// Its lines now.
    pub other_lines: Option<(usize, usize)>,
}

impl Conflict {
    /// As it is shown.
    pub fn to_json(&self) -> Value {
        let mut shown = json!({
            "severity": self.severity.as_str(),
            "sessionId": self.session_id,
            "otherSessionId": self.other_session_id,
        });
        EditInfo::show_path(&mut shown, "path", &self.path);
        for (key, id) in [("editId", &self.edit_id), ("otherEditId", &self.other_edit_id)] {
            if let Some(id) = id {
                shown[key] = id.as_str().into();
            }
        }
        for (key, lines) in [("lines", self.lines), ("otherLines", self.other_lines)] {
            if let Some((start, end)) = lines {
                shown[key] = json!({"startLine": start, "endLine": end});
            }
        }
        shown
    }
}

/// What one edit changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Touch {
    pub(super) edit_id: Option<String>,
    pub(super) session_id: Option<String>,
    /// `None`: nobody knows which lines.
    pub(super) hunks: Option<Vec<Hunk>>,
}

/// What one edit changed, in lines of the content as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Placed<'a> {
    touch: &'a Touch,
    ranges: Vec<Range<usize>>,
}

/// Follows each edit's lines through the edits after it.
fn placed(touches: &[Touch]) -> Vec<Placed<'_>> {
    let mut all: Vec<Placed<'_>> = Vec::with_capacity(touches.len());
    for touch in touches {
        let Some(hunks) = &touch.hunks else {
            all.push(Placed { touch, ranges: std::iter::once(0..usize::MAX).collect() });
            continue;
        };
        for earlier in &mut all {
            earlier.ranges.iter_mut().for_each(|range| *range = moved(range, hunks));
            earlier.ranges.dedup(); // all within one hunk are that now
        }
        let ranges = hunks.iter().map(|hunk| hunk.new_start..hunk.new_start + hunk.new_lines).collect();
        all.push(Placed { touch, ranges });
    }
    all
}

/// Where lines are after a change: the last hunk that begins before them says it.
fn moved(range: &Range<usize>, hunks: &[Hunk]) -> Range<usize> {
    let shifted = |line: usize, old: usize, new: usize| line.saturating_sub(old).saturating_add(new);
    let before = |count: usize| count.checked_sub(1).map(|last| hunks[last]);
    let ends = |hunk: &Hunk| (hunk.old_start + hunk.old_lines, hunk.new_start + hunk.new_lines);
    let start = match before(hunks.partition_point(|hunk| hunk.old_start <= range.start)) {
        Some(hunk) if range.start < ends(&hunk).0 => hunk.new_start,
        Some(hunk) => shifted(range.start, ends(&hunk).0, ends(&hunk).1),
        None => range.start,
    };
    let end = match before(hunks.partition_point(|hunk| hunk.old_start < range.end)) {
        Some(hunk) if range.end < ends(&hunk).0 => ends(&hunk).1,
        Some(hunk) if range.end != usize::MAX => shifted(range.end, ends(&hunk).0, ends(&hunk).1),
        _ => range.end,
    };
    start..end.max(start)
}

fn closeness(one: &Range<usize>, other: &Range<usize>) -> Severity {
    let (start, end) = (one.start.max(other.start), one.end.min(other.end));
    let both_empty = one.is_empty() && other.is_empty();
    if start < end || start == end && (both_empty || is_inside(one, other) || is_inside(other, one)) {
        Severity::SameLine
    } else if start - end <= NEAR_LINES {
        Severity::AdjacentLine
    } else {
        Severity::DifferentArea
    }
}

type Pair<'a> = (Severity, &'a Range<usize>, &'a Range<usize>);

/// The closest of two lists of lines, each in order; the last of those that are equally close.
fn closest<'a>(one: &'a [Range<usize>], other: &'a [Range<usize>]) -> Option<Pair<'a>> {
    let mut worst = (Severity::DifferentArea, one.last()?, other.last()?);
    for range in one {
        // Only neighbours can be worse.
        let first = other.partition_point(|other| other.end.saturating_add(NEAR_LINES) < range.start);
        let near = other[first..].iter().take_while(|other| other.start <= range.end.saturating_add(NEAR_LINES));
        for other in near {
            let severity = closeness(range, other);
            if severity > Severity::DifferentArea && severity >= worst.0 {
                worst = (severity, range, other);
            }
        }
    }
    Some(worst)
}

/// Where lines went, in the middle of others.
fn is_inside(point: &Range<usize>, range: &Range<usize>) -> bool {
    point.is_empty() && range.start < point.start && point.start < range.end
}

fn shown(range: &Range<usize>) -> Option<(usize, usize)> {
    (range.end != usize::MAX).then_some((range.start + 1, range.end))
}

/// The worst of each pair of sessions, with the latest edits that it comes from. The first session is the one that came
/// later.
pub(super) fn conflicts(path: &Path, touches: &[Touch]) -> Vec<Conflict> {
    let all = placed(touches);
    let mut worst: BTreeMap<(String, String), Conflict> = BTreeMap::new();
    // The latest first: once there is nothing worse, what came before is of no interest.
    for (index, later) in all.iter().enumerate().rev() {
        for earlier in all[..index].iter().rev() {
            let (Some(session), Some(other)) = (&later.touch.session_id, &earlier.touch.session_id) else { continue };
            if session == other {
                continue;
            }
            let pair = if session < other { (session.clone(), other.clone()) } else { (other.clone(), session.clone()) };
            let known = worst.get(&pair).map(|known| known.severity);
            if known == Some(Severity::SameLine) {
                continue;
            }
            let Some((severity, one, two)) = closest(&later.ranges, &earlier.ranges) else { continue };
            if known.is_none_or(|known| known < severity) {
                let conflict = Conflict {
                    path: path.to_path_buf(),
                    severity,
                    session_id: session.clone(),
                    edit_id: later.touch.edit_id.clone(),
                    lines: shown(one),
                    other_session_id: other.clone(),
                    other_edit_id: earlier.touch.edit_id.clone(),
                    other_lines: shown(two),
                };
                worst.insert(pair, conflict);
            }
        }
    }
    worst.into_values().collect()
}

/// The edits of a file that count, oldest first.
async fn touches(store: &Store, bounds: &Bounds, path: &Path) -> Result<Vec<Touch>, Error> {
    let age_ms = i64::try_from(bounds.fs_conflict_max_age_ms).unwrap_or(i64::MAX);
    let after_ms = Some(now_ms().saturating_sub(age_ms));
    let filter = FsEditFilter { path: Some(Raw::of(path).0), after_ms, done: true, ..FsEditFilter::default() };
    let rows = store.fs_edits(filter, as_usize(bounds.fs_conflict_edits_max)).await?;
    let own = Raw::of(path).0;
    let rows = rows.into_iter().rev().filter(|row| row.path == own);
    Ok(rows.map(touch).collect())
}

fn touch(row: FsEditRow) -> Touch {
    let (id, session_id, is_compared) = (row.id.clone(), row.session_id.clone(), row.diff.is_some());
    Touch { edit_id: Some(id), session_id, hunks: is_compared.then(|| edit_of(row).hunks()) }
}

/// Of an edit that was just made: with which sessions it conflicts, but for those that are somewhere else in the file.
pub(in crate::fs) async fn conflicts_of(store: &Store, bounds: &Bounds, row: &FsEditRow) -> Result<Vec<Conflict>, Error> {
    let Some(session) = &row.session_id else { return Ok(Vec::new()) };
    let path = Raw(row.path.clone()).path();
    let mut touches = touches(store, bounds, &path).await?;
    touches.retain(|touch| touch.edit_id.as_ref().is_some_and(|id| *id <= row.id));
    Ok(of_session(conflicts(&path, &touches), session, Severity::AdjacentLine))
}

/// Of an edit that is about to be made.
pub(in crate::fs) async fn conflicts_with(
    store: &Store,
    bounds: &Bounds,
    path: &Path,
    session: &str,
    hunks: Option<Vec<Hunk>>,
) -> Result<Vec<Conflict>, Error> {
    let mut touches = touches(store, bounds, path).await?;
    touches.push(Touch { edit_id: None, session_id: Some(session.to_owned()), hunks });
    let mut found = of_session(conflicts(path, &touches), session, Severity::AdjacentLine);
    found.retain(|conflict| conflict.edit_id.is_none());
    Ok(found)
}

/// Of a file, of a session, or of both.
pub(in crate::fs) async fn all(
    store: &Store,
    bounds: &Bounds,
    path: Option<&Path>,
    session: Option<&str>,
) -> Result<Vec<Conflict>, Error> {
    let paths = match path {
        Some(path) => vec![path.to_path_buf()],
        None => {
            let filter = FsEditFilter { session_id: session.map(str::to_owned), done: true, ..FsEditFilter::default() };
            let rows = store.fs_edits(filter, as_usize(bounds.fs_conflict_edits_max)).await?;
            let mut paths: Vec<_> = rows.into_iter().map(|row| Raw(row.path).path()).collect();
            paths.sort_unstable();
            paths.dedup();
            paths.truncate(FILES_MAX);
            paths
        }
    };
    let mut found = Vec::new();
    for path in paths {
        let of_file = conflicts(&path, &touches(store, bounds, &path).await?);
        match session {
            Some(session) => found.extend(of_session(of_file, session, Severity::DifferentArea)),
            None => found.extend(of_file),
        }
    }
    found.sort_by_key(|conflict| std::cmp::Reverse(conflict.severity));
    Ok(found)
}

fn of_session(conflicts: Vec<Conflict>, session: &str, at_least: Severity) -> Vec<Conflict> {
    let is_its = |conflict: &Conflict| conflict.session_id == session || conflict.other_session_id == session;
    conflicts.into_iter().filter(|conflict| is_its(conflict) && conflict.severity >= at_least).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::super::edit::{DiffLimits, diff};
    use super::*;

    type Lines = Option<(usize, usize)>;

    /// Each of them is a session and the content that it wrote.
    fn found(contents: &[(&str, &str)]) -> Vec<(Severity, Lines, Lines)> {
        let limits = DiffLimits { compared_max_bytes: 10_000, shown_max_bytes: 10_000 };
        let mut before = contents[0].1;
        let mut touches = Vec::new();
        for (number, (session, after)) in contents.iter().enumerate().skip(1) {
            let hunks = diff("f", Some(before.as_bytes()), Some(after.as_bytes()), limits).hunks;
            let touch = Touch { edit_id: Some(number.to_string()), session_id: Some((*session).to_owned()), hunks: Some(hunks) };
            touches.push(touch);
            before = after;
        }
        conflicts(Path::new("/f"), &touches).into_iter().map(|one| (one.severity, one.lines, one.other_lines)).collect()
    }

    fn text(change: impl Fn(usize) -> String) -> String {
        (1..=40).map(change).collect()
    }

    #[test]
    fn the_same_line_near_lines_and_others() {
        let base = text(|line| format!("{line}\n"));
        let changed = |content: &str, line: usize, to: &str| content.replacen(&format!("\n{line}\n"), &format!("\n{to}\n"), 1);
        let first = changed(&base, 10, "ten");
        for (line, severity) in [
            (11, Severity::AdjacentLine),
            (16, Severity::AdjacentLine),
            (17, Severity::DifferentArea),
            (4, Severity::AdjacentLine),
            (3, Severity::DifferentArea),
        ] {
            let second = changed(&first, line, "x");
            assert_eq!(found(&[("", &base), ("a", &first), ("b", &second)]), [(severity, Some((line, line)), Some((10, 10)))]);
        }
        let second = first.replace("ten", "TEN");
        assert_eq!(found(&[("", &base), ("a", &first), ("b", &second)])[0].0, Severity::SameLine);
        assert_eq!(found(&[("", &base), ("a", &first), ("a", &second)]), [], "a session is not in its own way");
    }

    #[test]
    fn lines_are_followed_through_later_edits() {
        let base = text(|line| format!("{line}\n"));
        let first = base.replacen("\n30\n", "\nthirty\n", 1);
        let above = format!("0\n0\n0\n{first}");
        let second = above.replacen("\n31\n", "\nx\n", 1);
        let all = found(&[("", &base), ("a", &first), ("a", &above), ("b", &second)]);
        assert_eq!(all, [(Severity::AdjacentLine, Some((34, 34)), Some((33, 33)))]);
    }

    #[test]
    fn lines_that_are_gone_are_a_place_too() {
        let base = text(|line| format!("{line}\n"));
        let first = base.replacen("10\n11\n", "", 1);
        let second = first.replacen("\n12\n", "\nx\n", 1);
        assert_eq!(found(&[("", &base), ("a", &first), ("b", &second)])[0].0, Severity::AdjacentLine);
        let around = first.replacen("\n9\n12\n", "\nx\n", 1);
        assert_eq!(found(&[("", &base), ("a", &first), ("b", &around)])[0].0, Severity::SameLine);
    }

    /// As it is defined: each pair, and each hunk.
    fn slowly<'a>(one: &'a [Range<usize>], other: &'a [Range<usize>]) -> Option<Pair<'a>> {
        let pairs = one.iter().flat_map(|one| other.iter().map(move |two| (one, two)));
        pairs.map(|(one, two)| (closeness(one, two), one, two)).max_by_key(|pair| pair.0)
    }

    fn moved_slowly(range: &Range<usize>, hunks: &[Hunk]) -> Range<usize> {
        let (mut start, mut end) = (range.start, range.end);
        for hunk in hunks {
            let (old_end, new_end) = (hunk.old_start + hunk.old_lines, hunk.new_start + hunk.new_lines);
            if range.start >= old_end {
                start = range.start - old_end + new_end;
            } else if range.start >= hunk.old_start {
                start = hunk.new_start;
            }
            if range.end > hunk.old_start {
                end = if range.end >= old_end { range.end - old_end + new_end } else { new_end };
            }
        }
        start..end.max(start)
    }

    fn ranges() -> impl Strategy<Value = Vec<Range<usize>>> {
        prop::collection::vec((0usize..8, 0usize..4), 0..8).prop_map(|steps| {
            let mut at = 0;
            let range = |(gap, lines): (usize, usize)| {
                let start = at + gap + 1;
                at = start + lines;
                start..at
            };
            steps.into_iter().map(range).collect()
        })
    }

    proptest! {
        #[test]
        fn the_closest_pair_is_found_among_neighbours(one in ranges(), other in ranges()) {
            prop_assert_eq!(closest(&one, &other), slowly(&one, &other));
        }

        #[test]
        fn lines_are_moved_by_the_hunk_before_them(lines in ranges(), new in prop::collection::vec(0usize..4, 8), start in 0usize..60, length in 0usize..9) {
            let mut shift: usize = 0;
            let hunk = |(old, new_lines): (&Range<usize>, &usize)| {
                let new_start = old.start + shift;
                shift += new_lines; // each only adds, so that no number is negative
                Hunk { old_start: old.start, old_lines: old.len(), new_start, new_lines: new_lines + old.len() }
            };
            let hunks: Vec<_> = lines.iter().zip(&new).map(hunk).collect();
            let range = start..start + length;
            prop_assert_eq!(moved(&range, &hunks), moved_slowly(&range, &hunks));
        }
    }

    #[test]
    fn where_nobody_knows_the_lines_it_may_be_any() {
        let touch = |session: &str, hunks| Touch { edit_id: None, session_id: Some(session.to_owned()), hunks };
        let hunk = Hunk { old_start: 3, old_lines: 1, new_start: 3, new_lines: 1 };
        let found = conflicts(Path::new("/f"), &[touch("a", Some(vec![hunk])), touch("b", None)]);
        assert_eq!((found[0].severity, found[0].lines), (Severity::SameLine, None));
    }
}
