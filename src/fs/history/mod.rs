//! What was done to files, in whose name, and how it is taken back.
//!
//! A change is noted when it is made: what goes is held open, no more. The journal's task then reads it, compares, and
//! appends the edit to the log with its row and the contents that are kept, in one transaction. Who asks for edits waits
//! for the journal; who changes files doesn't.
//!
//! ```text
//!  proposed ──apply──▶ accepted (another edit made it)      applied ──rollback──▶ reverted (another edit took it back)
//!      └─────reject──▶ rejected                                ◀──that one taken back──┘
//! ```

pub(super) mod image;
mod journal;
mod plan;
mod queries;
mod rollback;
mod rows;
#[cfg(test)]
mod tests;
mod thing;

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub(super) use image::{Captured, Image, KeepLimits};
pub use journal::STREAM;
pub(super) use journal::{Entry, Journal, limits as journal_limits};
pub use queries::{EditQuery, HistoryPage};
pub use rollback::{RollbackTo, RolledBack};
pub(super) use rows::{Edit, Kept, edit_of, prepare_edit};
pub use rows::{EditInfo, Side};
pub use thing::{Present, Rights, Thing};

use super::edit::Diff;
use super::entry::Meta;
use super::{Error, Fs, Located, Reach, Sha256Hex};
use crate::rt::clock::now_ms;
use crate::rt::ids::new_id;

/// In whose name files are read and changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Author {
    /// The session.
    pub session_id: Option<String>,
    /// Its turn that is under way.
    pub turn_id: Option<String>,
    /// The tool call of that turn.
    pub tool_call_id: Option<String>,
    /// Writes over what the session hasn't seen.
    pub forces: bool,
}

/// A change that was made, on its way to the journal.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) id: String,
    pub(super) time_ms: i64,
    pub(super) op: &'static str,
    pub(super) author: Arc<Author>,
    pub(super) path: PathBuf,
    /// What is at `path` now was there.
    pub(super) from: Option<PathBuf>,
    /// What was at `path`.
    pub(super) before: Captured,
    /// What is there now.
    pub(super) after: After,
    /// Directories that were made above `path`, topmost first.
    pub(super) made: Vec<PathBuf>,
    /// When it was compared already.
    pub(super) diff: Option<Diff>,
    /// What many changes at once came to; they can't be taken back.
    pub(super) summary: Option<serde_json::Value>,
}

/// What is there after a change.
#[derive(Debug)]
pub(super) enum After {
    Known(Image),
    /// A file that was just written, still open.
    Written {
        file: std::fs::File,
        image: Image,
    },
    /// To be looked at like what was there before; its contents are not kept.
    Captured(Captured),
}

impl Change {
    pub(super) fn new(op: &'static str, reach: &Reach, path: PathBuf, before: Captured, after: After) -> Self {
        Self {
            id: new_id("edit"),
            time_ms: now_ms(),
            op,
            author: Arc::clone(reach.author()),
            path,
            from: None,
            before,
            after,
            made: Vec::new(),
            diff: None,
            summary: None,
        }
    }
}

impl Change {
    /// So many directories above it were made for it.
    pub(super) fn made_above(&mut self, count: usize) {
        let above = self.path.ancestors().skip(1).take(count);
        self.made = above.map(std::path::Path::to_path_buf).collect();
        self.made.reverse();
    }
}

/// A change that somebody else made, as an agent with tools of its own.
#[derive(Debug, Clone)]
pub struct External {
    /// In whose name.
    pub author: Author,
    /// Where: an absolute path.
    pub path: PathBuf,
    /// What was there; `None` when nobody knows: then the change can't be taken back.
    pub before: Option<Thing>,
    /// What is there now.
    pub after: Thing,
    /// Directories that were made above it, topmost first: they go with it when it is taken back and they hold nothing else.
    pub made: Vec<PathBuf>,
}

impl Fs {
    /// The bounds of what is kept.
    pub(super) fn keep_limits(&self) -> KeepLimits {
        let bounds = &self.inner.bounds;
        KeepLimits {
            file_max_bytes: bounds.fs_preimage_max_bytes,
            tree_max_bytes: bounds.fs_preimage_tree_max_bytes,
            tree_max_names: crate::config::as_usize(bounds.fs_preimage_tree_max_names),
        }
    }

    /// What is at a place that is about to be changed; nothing is kept without a journal. Blocks while many trees wait to be
    /// noted.
    pub(super) fn keep(&self, place: &super::reach::Place, meta: &Meta) -> Captured {
        let Some(journal) = self.inner.journal.get() else { return Captured::default() };
        let room = if meta.kind == super::Kind::Directory { journal.room_for_tree() } else { None };
        // What can't be read can go all the same: it is only not kept.
        let captured = Captured::known(place, meta, self.keep_limits());
        captured.unwrap_or_else(|_| Captured::unknown()).in_room(room)
    }

    /// Notes a change that was made; gives its id, when there is a journal. Blocks while very many wait.
    pub(super) fn note(&self, change: Change) -> Option<String> {
        let journal = self.inner.journal.get()?;
        let id = change.id.clone();
        if let (Some(session), Some(hash)) = (&change.author.session_id, after_hash(&change.after)) {
            journal.saw(session, &change.path, hash, "write");
        }
        journal.send(Entry::Change(Box::new(change)));
        Some(id)
    }

    /// Notes many changes at once, as of an archive that was unpacked, as one edit that can't be taken back. `summary` is
    /// shown with it.
    pub(super) async fn record_summary(
        &self,
        reach: &Reach,
        op: &'static str,
        at: &Located,
        summary: serde_json::Value,
    ) -> Option<String> {
        let path = self.real_path(reach, at).await;
        let mut change = Change::new(op, reach, path, Captured::default(), After::Known(Image::default()));
        change.summary = Some(summary);
        let id = change.id.clone();
        self.inner.journal.get()?.send_async(Entry::Change(Box::new(change))).await;
        Some(id)
    }

    /// Notes a change that somebody else made, and that its session has seen what is there now. Gives the edit's id, unless
    /// nothing changed.
    pub async fn record_external(&self, external: External) -> Option<String> {
        let journal = self.inner.journal.get()?;
        let External { author, path, before, after, made } = external;
        if before.as_ref() == Some(&after) {
            return None;
        }
        let reach = self.reach().in_name_of(author);
        let is_link = |thing: &Thing| matches!(thing, Thing::Link { .. });
        let follows = !is_link(&after) && !before.as_ref().is_some_and(is_link);
        let at = Located::from(path);
        let path = if follows { self.real_path(&reach, &at).await } else { self.real_place(&reach, &at).await };
        let hash = after.content().map(|content| Sha256Hex::of(content));
        if let (Some(session), Some(hash)) = (&reach.author().session_id, &hash) {
            journal.saw(session, &path, hash.as_str(), "write");
        }
        let captured = before.map_or_else(Captured::unknown, Captured::thing);
        let mut change = Change::new("external", &reach, path, captured, After::Captured(Captured::thing(after)));
        change.made = made;
        let id = change.id.clone();
        journal.send_async(Entry::Change(Box::new(change))).await;
        Some(id)
    }

    /// Waits until everything that was done before is in the log, or can't be. Cancel safe.
    pub async fn settle(&self) {
        if let Some(journal) = self.inner.journal.get() {
            journal.settle().await;
        }
    }

    /// Where a path really leads, as far as its directory is there: what edits are known by. Cancel safe.
    pub async fn real_path(&self, reach: &Reach, at: &Located) -> PathBuf {
        let (reach, at) = (reach.clone(), at.clone());
        let fallback = at.path().to_path_buf();
        super::blocking(move || Ok(reach.target(&at, false)?.real_path())).await.unwrap_or(fallback)
    }

    /// The same, with a link at its end as itself.
    async fn real_place(&self, reach: &Reach, at: &Located) -> PathBuf {
        let (reach, at) = (reach.clone(), at.clone());
        let fallback = at.path().to_path_buf();
        super::blocking(move || Ok(reach.place(&at, false)?.real_path())).await.unwrap_or(fallback)
    }

    pub(super) fn journal(&self) -> Result<&Journal, Error> {
        self.inner.journal.get().ok_or_else(|| Error::Invalid("no history is kept here".to_owned()))
    }
}

fn after_hash(after: &After) -> Option<&str> {
    match after {
        After::Known(image) | After::Written { image, .. } => image.hash(),
        After::Captured(_) => None,
    }
}

/// A written file's image, with the mode and owner that it has.
pub(super) fn written(file: &std::fs::File, hash: &Sha256Hex, size: u64, meta: &Meta) -> Option<After> {
    let image = Image::file(hash, size, meta.mode, (meta.uid, meta.gid));
    Some(After::Written { file: file.try_clone().ok()?, image })
}
