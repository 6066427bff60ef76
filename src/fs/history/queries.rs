//! Looking at edits.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::super::{Error, Fs, Reach};
use super::image::Raw;
use super::rows::{Edit, EditInfo};
use crate::store::FsEditFilter;

/// Which edits are wanted.
#[derive(Debug, Clone, Default)]
pub struct EditQuery {
    /// Of this file, or below this directory.
    pub path: Option<PathBuf>,
    /// Of this session.
    pub session_id: Option<String>,
    /// Of this turn.
    pub turn_id: Option<String>,
    /// With this status.
    pub status: Option<String>,
    /// Made before this one: the last of the page before.
    pub before: Option<String>,
}

/// Some edits, the latest first.
#[derive(Debug, Clone)]
pub struct HistoryPage {
    /// Without their diffs.
    pub edits: Vec<EditInfo>,
    /// Where the next page begins.
    pub next: Option<String>,
}

impl Fs {
    /// Edits, the latest first; also those that were answered a moment ago. Cancel safe: it only reads.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn edits(&self, reach: &Reach, query: EditQuery, limit: usize) -> Result<HistoryPage, Error> {
        let journal = self.journal()?;
        journal.settle().await;
        let filter = FsEditFilter {
            path: query.path.as_deref().map(|path| Raw::of(path).0),
            session_id: query.session_id,
            turn_id: query.turn_id,
            status: query.status,
            before: query.before,
            ..FsEditFilter::default()
        };
        let mut rows = journal.store.fs_edits(filter, limit + 1).await?;
        let is_more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| is_more).map(|row| row.id.clone());
        let edits: Vec<_> = rows.into_iter().map(Edit::of).filter(|edit| reach.covers(&edit.path())).collect();
        let kept = self.kept_of(edits.iter()).await?;
        let without_diff = |mut edit: Edit| {
            edit.row.diff = None;
            EditInfo::of(edit, &kept)
        };
        Ok(HistoryPage { edits: edits.into_iter().map(without_diff).collect(), next })
    }

    /// One edit with its diff. Cancel safe: it only reads.
    ///
    /// # Errors
    /// [`Error::UnknownEdit`], also for one outside of what may be reached.
    pub async fn edit_info(&self, reach: &Reach, id: &str) -> Result<EditInfo, Error> {
        let edit = self.known_edit(id).await?;
        self.may_touch(reach, &edit).await?;
        let kept = self.kept_of([&edit].into_iter()).await?;
        Ok(EditInfo::of(edit, &kept))
    }

    pub(in crate::fs) async fn known_edit(&self, id: &str) -> Result<Edit, Error> {
        let journal = self.journal()?;
        journal.settle().await;
        let row = journal.store.fs_edit(id).await?;
        row.map(Edit::of).ok_or_else(|| Error::UnknownEdit { id: id.to_owned() })
    }

    /// What can't be reached isn't known.
    pub(in crate::fs) async fn may_touch(&self, reach: &Reach, edit: &Edit) -> Result<(), Error> {
        let is_covered = reach.covers(&edit.path()) && edit.from().is_none_or(|from| reach.covers(&from));
        if is_covered { Ok(()) } else { Err(Error::UnknownEdit { id: edit.row.id.clone() }) }
    }

    /// Which of the contents that taking these back needs are kept.
    async fn kept_of(&self, edits: impl Iterator<Item = &Edit>) -> Result<HashSet<String>, Error> {
        let needed: HashSet<String> = edits.filter_map(Edit::needs).flatten().collect();
        Ok(self.journal()?.store.fs_blobs_kept(needed.into_iter().collect()).await?)
    }
}

impl EditInfo {
    /// As it is shown.
    pub fn to_json(&self) -> Value {
        let mut shown = json!({
            "id": self.id,
            "status": self.status,
            "op": self.op,
            "timeMs": self.time_ms,
            "before": self.before,
            "after": self.after,
            "added": self.added,
            "removed": self.removed,
            "restorable": self.restorable,
        });
        Self::show_path(&mut shown, "path", &self.path);
        if let Some(from) = &self.from {
            Self::show_path(&mut shown, "from", from);
        }
        let words = [
            ("sessionId", &self.session_id),
            ("turnId", &self.turn_id),
            ("toolCallId", &self.tool_call_id),
            ("rollbackOf", &self.rollback_of),
            ("diff", &self.diff),
        ];
        for (key, word) in words {
            if let Some(word) = word {
                shown[key] = word.as_str().into();
            }
        }
        if self.diff_is_cut {
            shown["diffTruncated"] = true.into();
        }
        if let Some(summary) = &self.summary {
            shown["summary"] = summary.clone();
        }
        shown
    }

    /// A path in JSON: under `key`, and when it isn't UTF-8 its bytes beside it.
    pub(in crate::fs) fn show_path(shown: &mut Value, key: &str, path: &Path) {
        shown[key] = path.to_string_lossy().into();
        if path.to_str().is_none() {
            shown[format!("{key}Base64")] = BASE64_STANDARD.encode(Raw::of(path).0).into();
        }
    }
}
