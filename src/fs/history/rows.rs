//! Edits as the store has them, and as they are shown.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::edit::{Diff, DiffLimits, EditSpec, Hunk, diff};
use super::image::{Image, Raw, What, read};
use super::{After, Author, Change, KeepLimits};
use crate::rt::clock::now_ms;
use crate::store::{FsBlob, FsEditRow};

/// What is shown of an edit beside its row.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::fs) struct Doc {
    pub(in crate::fs) tool_call_id: Option<String>,
    pub(in crate::fs) rollback_of: Option<String>,
    pub(in crate::fs) diff_is_cut: bool,
    pub(in crate::fs) added: usize,
    pub(in crate::fs) removed: usize,
    /// Old start, old lines, new start, new lines; from 0.
    pub(in crate::fs) hunks: Vec<(usize, usize, usize, usize)>,
    pub(in crate::fs) summary: Option<Value>,
}

/// What it is taken back or made with.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::fs) struct Kept {
    pub(in crate::fs) before: Image,
    pub(in crate::fs) after: Image,
    /// What is at the path that something was moved from.
    pub(in crate::fs) left: Image,
    pub(in crate::fs) made: Vec<Raw>,
    pub(in crate::fs) spec: Option<EditSpec>,
    /// What a proposal is for: the hash of a content.
    pub(in crate::fs) expected: Option<String>,
}

/// A row read.
pub(in crate::fs) fn edit_of(row: FsEditRow) -> Edit {
    Edit::of(row)
}

/// An edit that is made of no change; what was there before and after is left to the caller.
pub(in crate::fs) fn prepare_edit(id: &str, op: &str, author: &Author, path: &Path, diff: &Diff) -> Edit {
    let mut doc = Doc { tool_call_id: author.tool_call_id.clone(), ..Doc::default() };
    doc.take(diff);
    let row = FsEditRow {
        id: id.to_owned(),
        status: "applied".to_owned(),
        op: op.to_owned(),
        path: Raw::of(path).0,
        from_path: None,
        time_ms: now_ms(),
        session_id: author.session_id.clone(),
        turn_id: author.turn_id.clone(),
        doc: String::new(),
        diff: diff.text.clone(),
        kept: String::new(),
    };
    Edit { row, doc, kept: Kept::default() }
}

/// An edit with all that is known of it.
#[derive(Debug, Clone)]
pub(in crate::fs) struct Edit {
    pub(in crate::fs) row: FsEditRow,
    pub(in crate::fs) doc: Doc,
    pub(in crate::fs) kept: Kept,
}

impl Edit {
    pub(in crate::fs) fn of(row: FsEditRow) -> Self {
        let doc = serde_json::from_str(&row.doc).unwrap_or_default();
        let kept = serde_json::from_str(&row.kept).unwrap_or_else(|_| {
            let unknown = Image { is_whole: false, ..Image::default() };
            Kept { before: unknown, ..Kept::default() }
        });
        Self { row, doc, kept }
    }

    pub(in crate::fs) fn into_row(self) -> FsEditRow {
        let mut row = self.row;
        row.doc = serde_json::to_string(&self.doc).unwrap_or_default();
        row.kept = serde_json::to_string(&self.kept).unwrap_or_default();
        row
    }

    pub(in crate::fs) fn path(&self) -> PathBuf {
        Raw(self.row.path.clone()).path()
    }

    pub(in crate::fs) fn from(&self) -> Option<PathBuf> {
        self.row.from_path.clone().map(|from| Raw(from).path())
    }

    /// The contents that taking it back needs; `None` when it can't be.
    pub(in crate::fs) fn needs(&self) -> Option<Vec<String>> {
        if self.doc.summary.is_some() || !matches!(self.row.status.as_str(), "applied" | "reverted") {
            return None;
        }
        // What was moved is as it was; everything else must be told from what others write.
        if self.row.from_path.is_none() {
            self.kept.after.hashes()?;
        }
        self.kept.left.hashes()?;
        self.kept.before.hashes()
    }

    pub(in crate::fs) fn hunks(&self) -> Vec<Hunk> {
        let of = |&(old_start, old_lines, new_start, new_lines): &_| Hunk { old_start, old_lines, new_start, new_lines };
        self.doc.hunks.iter().map(of).collect()
    }
}

/// A change made into a row. Blocks.
pub(in crate::fs) fn prepare(change: Change, keep: KeepLimits, limits: DiffLimits) -> (Edit, Vec<FsBlob>) {
    let mut blobs = Vec::new();
    let (before, old) = change.before.settle(keep, &mut blobs);
    let (after, new) = match change.after {
        After::Known(image) => (image, None),
        After::Written { file, image } => {
            let content = written_content(&file, &image, limits);
            (image, content)
        }
        After::Captured(captured) => captured.settle(keep, &mut Vec::new()),
    };
    let is_text = |image: &Image, content: &Option<Bytes>| image.nodes.is_empty() && image.is_whole || content.is_some();
    let diff = change.diff.unwrap_or_else(|| {
        if change.from.is_none() && is_text(&before, &old) && is_text(&after, &new) {
            diff(&change.path.to_string_lossy(), old.as_deref(), new.as_deref(), limits)
        } else {
            Diff::default()
        }
    });
    let mut edit = prepare_edit(&change.id, change.op, &change.author, &change.path, &diff);
    edit.row.time_ms = change.time_ms;
    edit.row.from_path = change.from.as_deref().map(|from| Raw::of(from).0);
    edit.doc.summary = change.summary;
    edit.kept = Kept { before, after, made: change.made.iter().map(|path| Raw::of(path)).collect(), ..Kept::default() };
    (edit, blobs)
}

/// Somebody may write into it by now: what is read must be what was written.
fn written_content(file: &std::fs::File, image: &Image, limits: DiffLimits) -> Option<Bytes> {
    let What::File { size, sha256 } = &image.nodes.first()?.what else { return None };
    let content = read(file, *size, limits.compared_max_bytes)?;
    let hash = super::super::Sha256Hex::of(&content);
    (sha256.as_deref() == Some(hash.as_str())).then_some(content)
}

/// As many ranges of lines as are remembered of one edit; more count as one.
const HUNKS_MAX: usize = 200;

impl Doc {
    pub(in crate::fs) fn take(&mut self, diff: &Diff) {
        (self.diff_is_cut, self.added, self.removed) = (diff.is_cut, diff.added, diff.removed);
        let of = |hunk: &Hunk| (hunk.old_start, hunk.old_lines, hunk.new_start, hunk.new_lines);
        self.hunks = match diff.hunks.as_slice() {
            [first, .., last] if diff.hunks.len() > HUNKS_MAX => {
                let old = last.old_start + last.old_lines - first.old_start;
                vec![(first.old_start, old, first.new_start, last.new_start + last.new_lines - first.new_start)]
            }
            hunks => hunks.iter().map(of).collect(),
        };
    }
}

/// What was, or is, at a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Side {
    /// `file`, `directory`, `symlink` or `other`.
    pub kind: &'static str,
    /// The hash of a file's content, when it is known.
    pub sha256: Option<String>,
    /// Bytes of a file.
    pub size: Option<u64>,
    /// Names below a directory.
    pub entries: Option<usize>,
}

impl Side {
    fn of(image: &Image) -> Option<Self> {
        let node = image.nodes.first()?;
        let bare = Self { kind: "other", sha256: None, size: None, entries: None };
        Some(match &node.what {
            What::File { sha256, size } => Self { kind: "file", sha256: sha256.clone(), size: Some(*size), ..bare },
            What::Directory => Self { kind: "directory", entries: Some(image.nodes.len() - 1), ..bare },
            What::Symlink { .. } => Self { kind: "symlink", ..bare },
            What::Other => bare,
        })
    }
}

/// An edit as it is shown.
#[derive(Debug, Clone)]
pub struct EditInfo {
    /// Its id.
    pub id: String,
    /// `proposed`, `accepted`, `rejected`, `applied` or `reverted`.
    pub status: String,
    /// What was done.
    pub op: String,
    /// Where.
    pub path: PathBuf,
    /// Where from.
    pub from: Option<PathBuf>,
    /// Unix milliseconds.
    pub time_ms: i64,
    /// In whose name.
    pub session_id: Option<String>,
    /// During which turn.
    pub turn_id: Option<String>,
    /// By which tool call.
    pub tool_call_id: Option<String>,
    /// The edit that it took back.
    pub rollback_of: Option<String>,
    /// What was there.
    pub before: Option<Side>,
    /// What was there then.
    pub after: Option<Side>,
    /// Lines.
    pub added: usize,
    /// Lines.
    pub removed: usize,
    /// What changed.
    pub diff: Option<String>,
    /// The diff ends early.
    pub diff_is_cut: bool,
    /// Whether what was there is kept.
    pub restorable: bool,
    /// What many changes came to.
    pub summary: Option<Value>,
}

impl EditInfo {
    pub(in crate::fs) fn of(edit: Edit, blobs: &HashSet<String>) -> Self {
        let restorable = edit.needs().is_some_and(|needs| needs.iter().all(|hash| blobs.contains(hash)));
        let (path, from) = (edit.path(), edit.from());
        let Edit { row, doc, kept } = edit;
        Self {
            id: row.id,
            status: row.status,
            op: row.op,
            path,
            from,
            time_ms: row.time_ms,
            session_id: row.session_id,
            turn_id: row.turn_id,
            tool_call_id: doc.tool_call_id,
            rollback_of: doc.rollback_of,
            before: Side::of(&kept.before),
            after: Side::of(&kept.after),
            added: doc.added,
            removed: doc.removed,
            diff: row.diff,
            diff_is_cut: doc.diff_is_cut,
            restorable,
            summary: doc.summary,
        }
    }
}
