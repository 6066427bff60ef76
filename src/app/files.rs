//! Files and sessions know nothing of each other: here agents' changes of files come into the history, and conflicts into
//! the streams of the sessions that are in each other's way.
//!
//! What an agent's tool calls say is noted when they end. What else changed below its directory during a turn, by a shell
//! command or a tool that says nothing, is seen by a watch and noted when the turn ends: in its name when no other turn
//! was under way there, else in nobody's.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde::Deserialize;
use tokio::sync::Semaphore;

use crate::fs::{Author, Conflict, Content, EditQuery, Error, External, Fs, Located, Notices, Sha256Hex, WatchSpec};
use crate::rt::spawn_owned;
use crate::sessions::{Diff, Sessions, Touch, Witness};
use crate::store::{Item, Stream};

/// Files of one turn that only a watch saw; more are not noted, which the log says.
const SEEN_MAX: usize = 1000;
/// A content beyond this isn't read: it could not be restored either.
const CONTENT_MAX_BYTES: u64 = 4 * 1024 * 1024;
/// After a turn's end, until the watch has told what was done in it.
const SETTLE: Duration = Duration::from_millis(300);
/// What is told at once in one read of a watch.
const READ_EVENTS: usize = 64;
const READ_BYTES: usize = 256 * 1024;
/// Tool calls whose files are read at once.
const READERS_MAX: usize = 4;

/// Conflicts become events of both sessions.
pub(super) struct ConflictNotices(pub(super) Sessions);

impl Notices for ConflictNotices {
    fn conflict(&self, conflict: &Conflict) {
        for id in [&conflict.session_id, &conflict.other_session_id] {
            let (sessions, id, data) = (self.0.clone(), id.clone(), conflict.to_json());
            spawn_owned("fs-conflict", async move {
                if let Err(error) = sessions.notice(&id, "fs.conflict", &data).await {
                    tracing::debug!(%error, session = id, "a conflict could not be told");
                }
            });
        }
    }
}

/// Notes what agents do to files.
#[derive(Clone)]
pub(super) struct Bookkeeper {
    fs: Fs,
    home: Arc<Path>,
    /// Turns under way, or just over, by their ids: the next one of a session may begin before the last is noted.
    turns: Arc<Mutex<HashMap<String, Turn>>>,
    readers: Arc<Semaphore>,
}

struct Turn {
    session_id: String,
    cwd: PathBuf,
    /// Another turn was under way in the same place.
    is_shared: bool,
    /// What a watch saw change.
    changed: HashSet<PathBuf>,
    /// What was there before, for files that came into being.
    created: HashSet<PathBuf>,
    /// Some are left out.
    is_cut: bool,
}

impl Bookkeeper {
    pub(super) fn new(fs: Fs, home: PathBuf) -> Self {
        Self { fs, home: home.into(), turns: Arc::default(), readers: Arc::new(Semaphore::new(READERS_MAX)) }
    }

    /// What holds the home, or files for a moment, holds far too much that is nobody's work.
    fn is_place_of_work(&self, cwd: &Path) -> bool {
        !self.home.starts_with(cwd) && cwd != std::env::temp_dir()
    }

    fn turns(&self) -> MutexGuard<'_, HashMap<String, Turn>> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner) // each change leaves it whole
    }
}

impl Witness for Bookkeeper {
    fn turn_began(&self, session_id: &str, turn_id: &str, cwd: &str) {
        let cwd = PathBuf::from(cwd);
        {
            let mut turns = self.turns();
            let meets = |other: &Turn| other.cwd.starts_with(&cwd) || cwd.starts_with(&other.cwd);
            let mut is_shared = false;
            for other in turns.values_mut().filter(|other| other.session_id != session_id && meets(other)) {
                (other.is_shared, is_shared) = (true, true);
            }
            let (changed, created) = (HashSet::new(), HashSet::new());
            let session_id = session_id.to_owned();
            let turn = Turn { session_id, cwd: cwd.clone(), is_shared, changed, created, is_cut: false };
            turns.insert(turn_id.to_owned(), turn);
        }
        if !self.is_place_of_work(&cwd) {
            return;
        }
        let (books, session_id, turn_id) = (self.clone(), session_id.to_owned(), turn_id.to_owned());
        spawn_owned("fs-turn", async move {
            if let Err(error) = books.look(&turn_id, &cwd).await {
                tracing::debug!(%error, session = session_id, "the directory of a turn isn't watched");
            }
        });
    }

    fn turn_ended(&self, _: &str, turn_id: &str) {
        let (books, turn_id) = (self.clone(), turn_id.to_owned());
        spawn_owned("fs-turn-end", async move {
            tokio::time::sleep(SETTLE).await;
            books.close(&turn_id).await;
        });
    }

    fn touched(&self, touch: Touch) {
        if !touch.succeeded {
            return;
        }
        let books = self.clone();
        spawn_owned("fs-touch", async move {
            let _permit = books.readers.acquire().await;
            books.note(touch).await;
        });
    }
}

impl Bookkeeper {
    /// Notes what a tool call says of files.
    async fn note(&self, touch: Touch) {
        let author = Author {
            session_id: Some(touch.session_id.clone()),
            turn_id: touch.turn_id.clone(),
            tool_call_id: Some(touch.tool_call_id.clone()),
            forces: false,
        };
        for path in touch.paths.iter().filter(|path| path.is_absolute()) {
            let after = self.content(path).await;
            let diffs: Vec<_> = touch.diffs.iter().filter(|diff| diff.path == *path).collect();
            match (&after, diffs.is_empty(), touch.kind.as_deref()) {
                (Known::Content(content), true, None | Some("read" | "search" | "fetch" | "think" | "execute" | "other")) => {
                    self.fs.record_seen(&touch.session_id, path, Sha256Hex::of(content).as_str());
                }
                (Known::Unreadable, ..) | (Known::Nothing, true, None | Some("read" | "search")) => {}
                _ => {
                    let after = after.content();
                    let before = if diffs.is_empty() { None } else { before(after.as_ref(), &diffs) };
                    self.record(author.clone(), path, before, after).await;
                }
            }
        }
    }

    /// Unless the history has it already. `before`: what was there, when that is known.
    async fn record(&self, author: Author, path: &Path, before: Option<Option<Bytes>>, after: Option<Bytes>) {
        let query = EditQuery { path: Some(path.to_path_buf()), status: Some("applied".to_owned()), ..EditQuery::default() };
        let latest = self.fs.edits(self.fs.reach(), query, 1).await.ok().and_then(|page| page.edits.into_iter().next());
        let now = after.as_deref().map(Sha256Hex::of);
        let known = latest.filter(|edit| edit.path == path).map(|edit| edit.after.and_then(|side| side.sha256));
        if known.is_some_and(|known| known.as_deref() == now.as_ref().map(Sha256Hex::as_str)) {
            return;
        }
        let external = External {
            author,
            path: path.to_path_buf(),
            from: None,
            before_is_known: before.is_some(),
            before: before.flatten(),
            after,
        };
        self.fs.record_external(external).await;
    }

    /// Follows what changes below the directory of a turn until that is over.
    async fn look(&self, turn_id: &str, cwd: &Path) -> Result<(), Error> {
        let spec = WatchSpec { recursive: true, ignore: Vec::new(), gitignore: true, hidden: true, git: false };
        let watch = self.fs.watch(self.fs.reach(), Located::from(cwd.to_path_buf()), spec).await?;
        let stream: &Arc<Stream> = &watch.stream;
        let (mut at, mut newest) = (watch.ready.sequence, stream.watch());
        loop {
            let items = stream.read_after(at, READ_EVENTS, READ_BYTES).await.unwrap_or_default();
            for item in &items {
                at = item.end();
                if let Item::Event(event) = item
                    && !self.saw(turn_id, &event.payload)
                {
                    return Ok(());
                }
            }
            if items.is_empty() {
                let is_over = async {
                    while self.turns().contains_key(turn_id) {
                        tokio::time::sleep(SETTLE).await;
                    }
                };
                tokio::select! {
                    changed = newest.changed() => if changed.is_err() { return Ok(()) },
                    () = is_over => return Ok(()),
                }
            }
        }
    }

    /// Remembers what a watch told; false when the turn is over.
    fn saw(&self, turn_id: &str, event: &[u8]) -> bool {
        #[derive(Deserialize)]
        struct Told {
            #[serde(default)]
            changes: Vec<Changed>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Changed {
            r#type: String,
            absolute_path: PathBuf,
            kind: String,
        }
        let told: Told = serde_json::from_slice(event).unwrap_or(Told { changes: Vec::new() });
        let mut turns = self.turns();
        let Some(turn) = turns.get_mut(turn_id) else { return false };
        for change in told.changes.into_iter().filter(|change| change.kind == "file") {
            if turn.changed.len() >= SEEN_MAX {
                turn.is_cut = true;
                break;
            }
            if change.r#type == "create" && !turn.changed.contains(&change.absolute_path) {
                turn.created.insert(change.absolute_path.clone());
            }
            turn.changed.insert(change.absolute_path);
        }
        true
    }

    /// Notes what only a watch saw of a turn that is over.
    async fn close(&self, turn_id: &str) {
        let Some(turn) = self.turns().remove(turn_id) else { return };
        if turn.is_cut {
            tracing::warn!(
                session = turn.session_id,
                turn = turn_id,
                max = SEEN_MAX,
                "more files changed in a turn than are noted"
            );
        }
        let author = match turn.is_shared {
            true => Author::default(),
            false => Author { session_id: Some(turn.session_id), turn_id: Some(turn_id.to_owned()), ..Author::default() },
        };
        for path in turn.changed {
            let after = match self.content(&path).await {
                Known::Unreadable => continue,
                after => after.content(),
            };
            let before = turn.created.contains(&path).then_some(None);
            self.record(author.clone(), &path, before, after).await;
        }
    }

    /// What a file has now.
    async fn content(&self, path: &Path) -> Known {
        let opened = match self.fs.open(self.fs.reach(), Located::from(path.to_path_buf())).await {
            Ok(opened) if opened.meta.size <= CONTENT_MAX_BYTES => opened,
            Err(Error::NotFound(_)) => return Known::Nothing,
            _ => return Known::Unreadable,
        };
        match self.fs.read(&opened, None).await {
            Ok(Content::Whole(content)) => Known::Content(content),
            Ok(Content::Pieces(_, mut pieces)) => {
                let mut content = BytesMut::new();
                while let Some(piece) = pieces.recv().await {
                    let Ok(piece) = piece else { return Known::Unreadable };
                    content.extend_from_slice(&piece);
                }
                Known::Content(content.freeze())
            }
            Err(_) => Known::Unreadable,
        }
    }
}

/// What is known of a content.
enum Known {
    Content(Bytes),
    Nothing,
    Unreadable,
}

impl Known {
    fn content(self) -> Option<Bytes> {
        match self {
            Self::Content(content) => Some(content),
            Self::Nothing | Self::Unreadable => None,
        }
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
