//! From what tool calls say, and from what a watch saw during a turn, to edits in the history.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::{Bookkeeper, Turn};
use crate::fs::{Author, Baseline, EditInfo, EditQuery, External, Located, Present, Sha256Hex, Thing};
use crate::sessions::{Diff, Touch};

/// Edits of a turn that are looked at at once.
const PAGE: usize = 500;

/// What an edit left at its path.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Left {
    Nothing,
    /// A file with this hash.
    File(String),
    /// A directory with what came in it.
    Directory,
    Unknown,
}

impl Left {
    fn by(edit: &EditInfo) -> Self {
        match &edit.after {
            _ if edit.summary.is_some() => Self::Unknown,
            None => Self::Nothing,
            Some(side) => match &side.sha256 {
                Some(hash) => Self::File(hash.clone()),
                None if side.kind == "directory" && edit.op != "mkdir" => Self::Directory,
                None => Self::Unknown,
            },
        }
    }

    fn of(thing: &Thing) -> Self {
        match thing {
            Thing::Nothing => Self::Nothing,
            Thing::File { content, .. } => Self::File(Sha256Hex::of(content).as_str().to_owned()),
            Thing::Link { .. } => Self::Unknown,
        }
    }

    fn is(&self, thing: &Thing) -> bool {
        *self != Self::Unknown && *self == Self::of(thing)
    }
}

/// A change that is to be noted.
struct Found {
    path: PathBuf,
    before: Option<Thing>,
    after: Thing,
}

impl Bookkeeper {
    /// Notes what a tool call says of files.
    pub(super) async fn note(&self, touch: Touch) {
        let author = Author {
            session_id: Some(touch.session_id.clone()),
            turn_id: touch.turn_id.clone(),
            tool_call_id: Some(touch.tool_call_id.clone()),
            forces: false,
        };
        for path in touch.paths.iter().filter(|path| path.is_absolute()) {
            let real = self.fs.real_path(self.fs.reach(), &Located::from(path.clone())).await;
            let Some(after) = self.present(&real).await.and_then(|found| found.thing) else { continue };
            let diffs: Vec<_> = touch.diffs.iter().filter(|diff| diff.path == *path).collect();
            match (after.content(), diffs.is_empty(), touch.kind.as_deref()) {
                (Some(content), true, None | Some("read" | "search" | "fetch" | "think" | "execute" | "other")) => {
                    self.fs.record_seen(&touch.session_id, &real, Sha256Hex::of(content).as_str());
                }
                (None, true, None | Some("read" | "search")) => {}
                _ => self.note_one(&author, real, &diffs, after).await,
            }
        }
    }

    async fn note_one(&self, author: &Author, path: PathBuf, diffs: &[&Diff], after: Thing) {
        let told = if diffs.is_empty() { None } else { before(after.content(), diffs) };
        let mut told = told.map(|content| content.map_or(Thing::Nothing, |content| after.with(content)));
        let turn = author.turn_id.as_ref().and_then(|id| {
            let turns = self.turns();
            let turn = turns.get(id)?;
            Some((turn.baseline.clone()?, turn.began_ms))
        });
        if let Some((baseline, began_ms)) = &turn {
            let latest = self.latest(&path).await.filter(|latest| latest.time_ms >= *began_ms);
            let known = match latest {
                Some(latest) => self.left(baseline, &path, Left::by(&latest), &after).await,
                None => baseline.before(path.clone()).await,
            };
            match (&told, known) {
                // A shell command changed it before: both are taken back, then.
                (Some(Thing::File { content, .. }), Some(known)) if known.content() != Some(content) => {
                    let author = Author { tool_call_id: None, ..author.clone() };
                    let between = if known.content().is_some() { &known } else { &after }.with(content.clone());
                    self.record(author, Found { path: path.clone(), before: Some(known), after: between }, Vec::new()).await;
                }
                // What an agent calls new may have been there.
                (None, known) | (Some(Thing::Nothing), known @ Some(_)) => told = known,
                (Some(_), _) => {}
            }
            if let Some(content) = after.content() {
                baseline.remember(content.clone()).await;
            }
        }
        self.record(author.clone(), Found { path, before: told, after }, Vec::new()).await;
    }

    /// Notes what only a watch saw of a turn that is over.
    pub(super) async fn close(&self, turn_id: &str, mut turn: Turn) {
        if turn.trace.is_empty() {
            return;
        }
        let files = || turn.baseline.as_ref().map(Baseline::files).unwrap_or_default();
        turn.trace.expand(files, self.files_max);
        if turn.trace.is_cut {
            let (session, max) = (&turn.session_id, self.files_max);
            tracing::warn!(session, turn = turn_id, max, "more files changed in a turn than are noted");
        }
        let author = match turn.is_shared {
            true => Author::default(),
            false => Author { session_id: Some(turn.session_id.clone()), turn_id: Some(turn_id.to_owned()), ..Author::default() },
        };
        let noted = self.noted_since(&turn.cwd, turn.began_ms).await;
        let mut found = Vec::new();
        for path in turn.trace.files() {
            found.extend(self.find(&turn, path, &noted).await);
        }
        // They are taken back the other way round: what came makes room for what went.
        found.sort_by_key(|one| one.after != Thing::Nothing);
        for one in found {
            if let (Some(baseline), Some(content)) = (&turn.baseline, one.after.content()) {
                baseline.remember(content.clone()).await; // for other turns here
            }
            let had = |path: &Path| turn.baseline.as_ref().is_some_and(|baseline| baseline.had_directory(path));
            let made = if one.after == Thing::Nothing { Vec::new() } else { turn.trace.made_above(&one.path, had) };
            self.record(author.clone(), one, made).await;
        }
    }

    /// What became of one file that a watch saw change; `None` when that is noted already, nothing, or can't be said.
    async fn find(&self, turn: &Turn, path: PathBuf, noted: &HashMap<PathBuf, Left>) -> Option<Found> {
        let Present { thing, meta } = self.present(&path).await?;
        let is_directory = meta.is_some_and(|meta| meta.kind == crate::fs::Kind::Directory);
        let after = if is_directory { Thing::Nothing } else { thing? };
        let real = self.fs.real_path(self.fs.reach(), &Located::from(path.clone())).await;
        let above = real.ancestors().skip(1).find_map(|above| noted.get(above));
        let before = match (noted.get(&real), &turn.baseline) {
            (Some(latest), _) if latest.is(&after) => return None,
            // It came or went with its directory.
            (None, _) if above == Some(&Left::Directory) || above == Some(&Left::Nothing) && after == Thing::Nothing => {
                return None;
            }
            (Some(latest), Some(baseline)) => self.left(baseline, &path, latest.clone(), &after).await,
            (Some(_), None) => None,
            (None, baseline) => Self::before(turn, baseline.as_ref(), &path).await,
        };
        let is_older = |changed: (i64, u32)| changed.0 * 1000 + i64::from(changed.1 / 1_000_000) + 1000 < turn.began_ms;
        let is_untouched = before.is_none() && !turn.trace.has_moved() && meta.is_some_and(|meta| is_older(meta.changed));
        (before.as_ref() != Some(&after) && !is_untouched).then_some(Found { path, before, after })
    }

    /// What was at a path when the turn began.
    async fn before(turn: &Turn, baseline: Option<&Baseline>, path: &Path) -> Option<Thing> {
        let known = match baseline {
            Some(baseline) => baseline.before(path.to_path_buf()).await,
            None => None,
        };
        let known = known.filter(|before| *before != Thing::Nothing || turn.trace.trusts_absence());
        known.or_else(|| turn.trace.is_new(path).then_some(Thing::Nothing))
    }

    /// What an edit left at a path, with its content, when that is known; `like` has its rights.
    async fn left(&self, baseline: &Baseline, path: &Path, left: Left, like: &Thing) -> Option<Thing> {
        match left {
            Left::Nothing => Some(Thing::Nothing),
            Left::File(hash) => baseline.content(path.to_path_buf(), hash).await.map(|content| like.with(content)),
            Left::Directory | Left::Unknown => None,
        }
    }

    async fn latest(&self, path: &Path) -> Option<EditInfo> {
        let query = EditQuery { path: Some(path.to_path_buf()), status: Some("applied".to_owned()), ..EditQuery::default() };
        let latest = self.fs.edits(self.fs.reach(), query, 1).await.ok().and_then(|page| page.edits.into_iter().next());
        latest.filter(|edit| edit.path == path)
    }

    /// What the history says that is below a directory, where something was noted since then.
    async fn noted_since(&self, directory: &Path, began_ms: i64) -> HashMap<PathBuf, Left> {
        let real = self.fs.real_path(self.fs.reach(), &Located::from(directory.to_path_buf())).await;
        let (mut noted, mut before) = (HashMap::new(), None);
        loop {
            let status = Some("applied".to_owned());
            let query = EditQuery { path: Some(real.clone()), status, before, ..EditQuery::default() };
            let Ok(page) = self.fs.edits(self.fs.reach(), query, PAGE).await else { return noted };
            let is_over = page.edits.last().is_none_or(|edit| edit.time_ms < began_ms);
            for edit in page.edits.into_iter().filter(|edit| edit.time_ms >= began_ms) {
                if let Some(from) = &edit.from {
                    noted.entry(from.clone()).or_insert(Left::Nothing);
                }
                noted.entry(edit.path.clone()).or_insert_with(|| Left::by(&edit));
            }
            before = page.next;
            if is_over || before.is_none() {
                return noted;
            }
        }
    }

    /// Unless the history has it already.
    async fn record(&self, author: Author, found: Found, made: Vec<PathBuf>) {
        let Found { path, before, after } = found;
        if before.is_none() {
            let real = self.fs.real_path(self.fs.reach(), &Located::from(path.clone())).await;
            if self.latest(&real).await.is_some_and(|latest| Left::by(&latest).is(&after)) {
                return;
            }
        }
        self.fs.record_external(External { author, path, before, after, made }).await;
    }

    /// What is there now.
    async fn present(&self, path: &Path) -> Option<Present> {
        self.fs.present(self.fs.reach(), Located::from(path.to_path_buf())).await.ok()
    }
}

/// What was there before a tool call's changes, when they tell it: they name whole contents, or parts that are there once.
/// The outer `None`: it isn't known.
fn before(after: Option<&Bytes>, diffs: &[&Diff]) -> Option<Option<Bytes>> {
    let mut text = std::str::from_utf8(after?).ok()?.to_owned();
    for (number, diff) in diffs.iter().rev().enumerate() {
        if diff.new == text {
            let is_first = number + 1 == diffs.len();
            match &diff.old {
                Some(old) => text = old.clone(),
                None if is_first => return Some(None),
                None => return None,
            }
        } else {
            let old = diff.old.as_ref().filter(|_| !diff.new.is_empty() && text.matches(&diff.new).count() == 1)?;
            text = text.replacen(&diff.new, old, 1);
        }
    }
    Some(Some(text.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diff(old: Option<&str>, new: &str) -> Diff {
        Diff { path: "/f".into(), old: old.map(str::to_owned), new: new.to_owned() }
    }

    fn told(after: &str, diffs: &[Diff]) -> Option<Option<String>> {
        let after = Bytes::from(after.to_owned());
        let before = before(Some(&after), &diffs.iter().collect::<Vec<_>>())?;
        Some(before.map(|before| String::from_utf8(before.to_vec()).expect("text")))
    }

    #[test]
    fn what_was_there_follows_from_what_changed() {
        assert_eq!(told("b", &[diff(Some("a"), "b")]), Some(Some("a".to_owned())), "whole contents");
        assert_eq!(told("b", &[diff(None, "b")]), Some(None), "a new file");
        assert_eq!(told("one two", &[diff(Some("zwei"), "two")]), Some(Some("one zwei".to_owned())), "a part");
        let two = [diff(Some("a"), "b"), diff(Some("c"), "d")];
        assert_eq!(told("b d", &two), Some(Some("a c".to_owned())), "two parts");
        assert_eq!(told("two two", &[diff(Some("zwei"), "two")]), None, "which of them?");
        assert_eq!(told("x", &[diff(Some("zwei"), "")]), None, "something was removed somewhere");
    }
}
