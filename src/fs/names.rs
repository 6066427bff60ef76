//! Looking for files by their names: by a pattern, or by letters that somebody remembers.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::path::Path;
use std::time::{Duration, Instant};

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ignore::overrides::{Override, OverrideBuilder};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::entry::Kind;
use super::walk::{Found, Skipped, Walk, Wanted, until};
use super::{Error, Fs, Located, Reach, blocking};
use crate::config::as_usize;

/// What somebody remembers of a name is at most so long.
const FUZZY_MAX_BYTES: usize = 256;

/// Which names are looked for.
#[derive(Debug, Clone, Default)]
pub struct FindNames {
    /// They fit this pattern; without a slash in it, in any directory.
    pub pattern: Option<String>,
    /// They have these letters in this order; the best fits come first.
    pub fuzzy: Option<String>,
    /// Of which files.
    pub wanted: Wanted,
    /// Directories, too.
    pub directories: bool,
    /// At most so many; `None` for as many as there may be.
    pub limit: Option<usize>,
}

impl Fs {
    /// Names in a tree: `{"files": [{"path", …}], "count", "truncated"}`. Dropping the future ends it.
    ///
    /// # Errors
    /// [`Error::Invalid`] for patterns, [`Error::NotFound`], [`Error::NotADirectory`], [`Error::Outside`], [`Error::Denied`].
    pub async fn find_names(&self, reach: &Reach, at: Located, find: FindNames) -> Result<Value, Error> {
        let bounds = self.inner.bounds.clone();
        let selection = find.wanted.compile(as_usize(bounds.fs_walk_depth_max))?;
        let pattern = find.pattern.as_deref().map(compile).transpose()?;
        if find.fuzzy.as_ref().is_some_and(|fuzzy| fuzzy.len() > FUZZY_MAX_BYTES) {
            return Err(Error::Invalid(format!("fuzzy is longer than {FUZZY_MAX_BYTES} bytes")));
        }
        let reach = reach.clone();
        let (asked, waits) = oneshot::channel::<()>(); // closed when the future is dropped
        let deadline = Instant::now() + Duration::from_millis(bounds.fs_walk_timeout_ms);
        let work = blocking(move || {
            let is_over = until(deadline, move || asked.is_closed());
            let mut walk = Walk::new(&reach, &at, selection, None, &bounds, is_over)?;
            let limit_max = as_usize(bounds.fs_walk_page_max_entries);
            let limit = find.limit.unwrap_or(limit_max).min(limit_max);
            let mut kept =
                Kept { fuzzy: find.fuzzy.map(|fuzzy| fuzzy.to_ascii_lowercase()), limit, best: BinaryHeap::new(), count: 0 };
            while let Some(found) = walk.next() {
                let is_directory = found.kind == Kind::Directory;
                if is_directory && !find.directories {
                    continue;
                }
                let path = Path::new(OsStr::from_bytes(walk.position()));
                let fits = pattern.as_ref().is_none_or(|pattern| pattern.matched(path, is_directory).is_whitelist());
                if fits && !kept.take(walk.position(), &found) {
                    break;
                }
            }
            Ok(kept.answer(walk.is_stopped(), &walk.skipped))
        });
        let answer = work.await;
        drop(waits);
        answer
    }
}

fn compile(pattern: &str) -> Result<Override, Error> {
    let failed = |error: ignore::Error| Error::Invalid(format!("pattern: {error}"));
    let mut builder = OverrideBuilder::new("");
    if pattern.starts_with('!') || pattern.trim().is_empty() {
        return Err(Error::Invalid("pattern must say what fits, like **/*.rs".to_owned()));
    }
    builder.add(pattern).map_err(failed)?.build().map_err(failed)
}

/// The best names so far; the worst of them is on top.
struct Kept {
    fuzzy: Option<String>,
    limit: usize,
    best: BinaryHeap<Reverse<Scored>>,
    count: usize,
}

/// Better ones are greater: a higher score, then what came first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Scored {
    score: i32,
    before: Reverse<usize>,
    path: Vec<u8>,
    is_directory: bool,
}

impl Kept {
    /// False when no more are of interest.
    fn take(&mut self, relative: &[u8], found: &Found) -> bool {
        let score = match &self.fuzzy {
            Some(fuzzy) => match score(fuzzy.as_bytes(), relative) {
                Some(score) => score,
                None => return true,
            },
            None => 0,
        };
        self.count += 1;
        if self.fuzzy.is_none() && self.count > self.limit {
            return false;
        }
        let is_worse = |worst: &Reverse<Scored>| worst.0.score >= score;
        if self.best.len() >= self.limit && self.best.peek().is_none_or(is_worse) {
            return true;
        }
        let is_directory = found.kind == Kind::Directory;
        self.best.push(Reverse(Scored { score, before: Reverse(self.count), path: found.path(), is_directory }));
        if self.best.len() > self.limit {
            self.best.pop();
        }
        true
    }

    fn answer(self, is_stopped: bool, skipped: &Skipped) -> Value {
        let has_scores = self.fuzzy.is_some();
        let shown = self.best.into_sorted_vec().into_iter().map(|Reverse(scored)| {
            let mut file = json!({"path": String::from_utf8_lossy(&scored.path)});
            if std::str::from_utf8(&scored.path).is_err() {
                file["pathBase64"] = BASE64_STANDARD.encode(&scored.path).into();
            }
            if scored.is_directory {
                file["entryType"] = "directory".into();
            }
            if has_scores {
                file["score"] = scored.score.into();
            }
            file
        });
        let files: Vec<Value> = shown.collect();
        let is_truncated = self.count > files.len() || is_stopped;
        let mut answer = json!({"count": files.len(), "truncated": is_truncated, "files": files});
        skipped.show(&mut answer);
        answer
    }
}

/// A letter that fits.
const LETTER: i32 = 16;
/// It comes right behind the one before.
const NEIGHBOUR: i32 = 12;
/// It begins a word.
const WORD: i32 = 10;
/// It is in the last name, not in a directory's.
const NAME: i32 = 8;
/// Letters were left out before it.
const GAP: i32 = -3;
/// No way leads here.
const NEVER: i32 = i32::MIN / 2;

/// How well lower-case letters fit a path that has them in their order; `None` when it hasn't.
fn score(letters: &[u8], path: &[u8]) -> Option<i32> {
    let mut left = path.iter();
    if !letters.iter().all(|letter| left.any(|byte| byte.to_ascii_lowercase() == *letter)) {
        return None;
    }
    let name_start = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    // The best score of the letters so far, the last of them at each place.
    let mut best = vec![0; path.len()];
    for (nth, letter) in letters.iter().enumerate() {
        let (mut next, mut behind) = (vec![NEVER; path.len()], NEVER);
        for (at, byte) in path.iter().enumerate() {
            if at >= 2 {
                behind = behind.max(best[at - 2]);
            }
            if byte.to_ascii_lowercase() != *letter {
                continue;
            }
            let before = match (nth, at) {
                (0, _) => 0,
                (_, 0) => NEVER,
                _ => (best[at - 1] + NEIGHBOUR).max(behind + GAP),
            };
            let word = if begins_word(path, at) { WORD } else { 0 };
            let name = if at >= name_start { NAME } else { 0 };
            next[at] = before.saturating_add(LETTER + word + name).max(NEVER);
        }
        best = next;
    }
    // Of equal fits the shorter path is meant.
    best.into_iter()
        .max()
        .filter(|best| *best > NEVER / 2)
        .map(|best| best - i32::try_from(path.len() / 8).unwrap_or(i32::MAX / 4))
}

fn begins_word(path: &[u8], at: usize) -> bool {
    let Some(before) = at.checked_sub(1).map(|before| path[before]) else { return true };
    !before.is_ascii_alphanumeric() || (before.is_ascii_lowercase() && path[at].is_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn best<'a>(letters: &str, paths: &[&'a str]) -> Option<&'a str> {
        let scored = paths.iter().filter_map(|path| score(letters.as_bytes(), path.as_bytes()).map(|score| (score, *path)));
        scored.max_by_key(|(score, _)| *score).map(|(_, path)| path)
    }

    #[test]
    fn what_is_meant_comes_first() {
        assert_eq!(best("main", &["src/domain/x.rs", "src/main.rs", "man/in.txt"]), Some("src/main.rs"));
        assert_eq!(best("fsm", &["src/fs/mod.rs", "offsetmap.rs"]), Some("src/fs/mod.rs"));
        assert_eq!(best("ul", &["src/UserList.ts", "src/bull.ts"]), Some("src/UserList.ts"));
        assert_eq!(best("mod", &["a/b/c/d/e/f/mod.rs", "a/mod.rs"]), Some("a/mod.rs"));
        assert_eq!(best("xyz", &["src/main.rs"]), None);
        assert_eq!(score(b"ba", b"ab"), None);
        assert!(score(b"", b"ab").is_some());
    }

    proptest::proptest! {
        #[test]
        fn a_score_is_given_for_what_has_the_letters_in_order(letters in "[abAB/._]{0,6}", path in "[abAB/._]{0,20}") {
            let letters = letters.to_ascii_lowercase();
            let lower = path.to_ascii_lowercase();
            let mut left = lower.bytes();
            let has_them = !path.is_empty() && letters.bytes().all(|letter| left.any(|byte| byte == letter));
            proptest::prop_assert_eq!(score(letters.as_bytes(), path.as_bytes()).is_some(), has_them);
        }
    }
}
