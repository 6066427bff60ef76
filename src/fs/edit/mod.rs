//! Editing a text file: what shall be replaced is said by its text, by its lines, or by a patch. Nothing is changed unless
//! all of it fits.

mod diff;
mod patch;
mod propose;
mod text;

use std::fs::File;
use std::path::PathBuf;

use bytes::Bytes;
use rustix::fs::{Mode, OFlags, openat};
use serde::{Deserialize, Serialize};

pub use diff::{Diff, DiffLimits, Hunk, diff};
pub use text::Mismatch;

use super::draft::{Fsync, present};
use super::entry::Kind;
use super::history::image::read_whole;
use super::history::journal_limits;
use super::ledger::Conflict;
use super::reach::Place;
use super::{Error, Expected, Fs, Located, Reach, Sha256Hex, blocking};

/// What shall be replaced, and by what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum EditSpec {
    /// Text that is there.
    Text {
        /// What is there: once, unless `occurrence` says which. Empty: nothing is.
        old: String,
        /// What shall be there.
        new: String,
        /// Which, from 1.
        occurrence: Option<usize>,
    },
    /// Lines.
    Lines {
        /// First, from 1.
        start_line: usize,
        /// Last; one less than the first puts something in before it.
        end_line: usize,
        /// What shall be there.
        new: String,
    },
    /// A unified diff of this file.
    Patch {
        /// The diff.
        patch: String,
        /// Equal lines around a change that need not be there.
        fuzz: usize,
    },
}

/// How an edit is made.
#[derive(Debug, Clone, Default)]
pub struct EditOptions {
    /// What the file must have before.
    pub expected: Option<Sha256Hex>,
    /// It isn't made when it meets what another session changed.
    pub fails_on_conflict: bool,
}

/// An edit that was made.
#[derive(Debug, Clone)]
pub struct Edited {
    /// Its id; `None` when nothing had to be changed.
    pub id: Option<String>,
    /// Where the client said.
    pub at: Located,
    /// The hash of what was there.
    pub before: Option<Sha256Hex>,
    /// The hash of what is there.
    pub after: Option<Sha256Hex>,
    /// What changed.
    pub diff: Diff,
    /// How many lines further down than it says each hunk of a patch was applied.
    pub offsets: Vec<i64>,
    /// With what other sessions changed.
    pub conflicts: Vec<Conflict>,
}

/// A patch that can't be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Invalid(pub(super) String);

/// What an edit would make of a file.
pub(super) struct Planned {
    pub(super) path: PathBuf,
    pub(super) old: Option<Bytes>,
    pub(super) new: Option<Bytes>,
    pub(super) diff: Diff,
    pub(super) offsets: Vec<i64>,
}

impl Fs {
    /// Edits a file. Dropping the future doesn't stop an edit that has begun.
    ///
    /// # Errors
    /// [`Error::Mismatch`] when it doesn't fit what is there, [`Error::Changed`] when something else than `expected` is
    /// there, [`Error::Stale`], [`Error::Conflicts`], [`Error::TooMuch`] for a file beyond `fs_edit_max_bytes`, and as for writes.
    pub async fn edit(&self, reach: &Reach, at: Located, spec: EditSpec, options: EditOptions) -> Result<Edited, Error> {
        let alone = self.alone(&at).await;
        let planned = self.planned(reach, &at, spec, &options).await?;
        let conflicts = self.conflicts_of_plan(reach, &planned).await?;
        if options.fails_on_conflict && !conflicts.is_empty() {
            return Err(Error::Conflicts(conflicts));
        }
        let (fs, reach, to) = (self.clone(), reach.clone(), at.clone());
        let [before, after] = [&planned.old, &planned.new].map(|content| content.as_deref().map(Sha256Hex::of));
        let (diff, offsets) = (planned.diff.clone(), planned.offsets.clone());
        let is_guarded = options.expected.is_none();
        let made = blocking(move || {
            if planned.old == planned.new {
                return Ok(None);
            }
            let expected = match &planned.old {
                Some(old) => Expected::Content(vec![Sha256Hex::of(old)]),
                None => Expected::Nothing,
            };
            let Some(new) = planned.new.clone() else { return fs.remove_edited(&reach, planned, &to, is_guarded) };
            let mut draft = fs.begin(&reach, to, Fsync::No)?;
            draft.note_as("edit", Some(planned.diff), is_guarded);
            draft.push(&new)?;
            Ok(draft.commit(&expected, alone)?.edit_id)
        });
        let id = self.explained(made.await).await?;
        Ok(Edited { id, at, before, after, diff, offsets, conflicts })
    }

    /// Works out what an edit comes to, without making it.
    async fn planned(&self, reach: &Reach, at: &Located, spec: EditSpec, options: &EditOptions) -> Result<Planned, Error> {
        let (fs, reach, at, expected) = (self.clone(), reach.clone(), at.clone(), options.expected.clone());
        blocking(move || {
            let (path, old) = match reach.target(&at, false) {
                Ok(place) => (place.real_path(), fs.text_at(&place, &at)?),
                Err(Error::NotFound(_)) => (at.path().to_path_buf(), None), // its directory is made with it
                Err(error) => return Err(error),
            };
            let found = old.as_deref().map(Sha256Hex::of);
            if expected.is_some_and(|expected| found.as_ref() != Some(&expected)) {
                return Err(Error::Changed { path: at.path().to_path_buf(), found: found.map(|hash| hash.as_str().to_owned()) });
            }
            let mismatch = |why| Error::Mismatch { path: at.path().to_path_buf(), why, found: found.clone() };
            let patched = spec.apply(at.path(), old.as_deref());
            let (new, offsets) = patched.map_err(|refused| match refused {
                patch::Refused::Patch(Invalid(why)) => Error::Invalid(why),
                patch::Refused::Content(why) => mismatch(why),
            })?;
            let limits = journal_limits(&fs.inner.bounds);
            let diff = diff(&at.path().to_string_lossy(), old.as_deref(), new.as_deref(), limits);
            Ok(Planned { path, old: old.map(Into::into), new: new.map(Into::into), diff, offsets })
        })
        .await
    }

    async fn conflicts_of_plan(&self, reach: &Reach, planned: &Planned) -> Result<Vec<Conflict>, Error> {
        let Some(session) = &reach.author().session_id else { return Ok(Vec::new()) };
        if self.inner.journal.get().is_none() || planned.old == planned.new {
            return Ok(Vec::new());
        }
        let hunks = planned.diff.text.is_some().then(|| planned.diff.hunks.clone());
        self.conflicts_before(&planned.path, session, hunks).await
    }

    /// What an edit begins with. Blocks.
    fn text_at(&self, place: &Place, at: &Located) -> Result<Option<Vec<u8>>, Error> {
        let Some(meta) = present(place)? else { return Ok(None) };
        if meta.kind != Kind::File {
            return Err(Error::NotAFile(at.path().to_path_buf()));
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat(&place.directory, &place.name, flags, Mode::empty());
        let mut file = File::from(file.map_err(|errno| Error::of("read", at.path(), errno))?);
        let max = self.inner.bounds.fs_edit_max_bytes;
        let text = read_whole(&mut file, max).map_err(|error| Error::io("read", at.path(), &error))?;
        let what =
            format!("{}, which shall be edited (write it whole with PUT /v1/fs/file, or use a program),", at.path().display());
        text.map(Some).ok_or(Error::TooMuch { what, max, bound: "fs_edit_max_bytes" })
    }
}

impl EditSpec {
    /// Bytes that it says.
    fn text_bytes(&self) -> u64 {
        let bytes = match self {
            Self::Text { old, new, .. } => old.len() + new.len(),
            Self::Lines { new, .. } => new.len(),
            Self::Patch { patch, .. } => patch.len(),
        };
        bytes as u64
    }

    /// What becomes of a content: the new one, or `None` when the file goes; and the offsets of a patch's hunks.
    fn apply(&self, path: &std::path::Path, content: Option<&[u8]>) -> Result<(Option<Vec<u8>>, Vec<i64>), patch::Refused> {
        match self {
            Self::Text { old, new, occurrence } => {
                Ok((Some(text::exact(content, old.as_bytes(), new.as_bytes(), *occurrence)?), Vec::new()))
            }
            Self::Lines { start_line, end_line, new } => {
                Ok((Some(text::range(content, *start_line, *end_line, new.as_bytes())?), Vec::new()))
            }
            Self::Patch { patch, fuzz } => {
                let patched = patch::apply(path, content, patch.as_bytes(), *fuzz)?;
                Ok((patched.content, patched.offsets))
            }
        }
    }
}
