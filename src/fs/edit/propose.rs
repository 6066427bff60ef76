//! Proposals: edits that wait for somebody's yes. They are made anew from what they say when they are applied, so that they
//! fit a file that changed elsewhere meanwhile.

use super::super::history::{Captured, Edit, Entry, Kept, prepare_edit};
use super::super::{Author, Error, Fs, Located, Reach, Sha256Hex};
use super::{EditOptions, EditSpec, Edited};
use crate::rt::ids::new_id;
use crate::rt::spawn_owned;

impl Fs {
    /// Keeps an edit as a proposal, if it fits what is there now. Cancel safe until it is kept.
    ///
    /// # Errors
    /// As [`Fs::edit`]; [`Error::Invalid`] when no history is kept, [`Error::TooMuch`] for one that says more than a file
    /// that is edited may have.
    pub async fn propose(&self, reach: &Reach, at: Located, spec: EditSpec, options: EditOptions) -> Result<Edited, Error> {
        let journal = self.journal()?;
        let max = self.inner.bounds.fs_edit_max_bytes;
        if spec.text_bytes() > max {
            let what = "the text of a proposed edit, which is kept with it,".to_owned();
            return Err(Error::TooMuch { what, max, bound: "fs_edit_max_bytes" });
        }
        let planned = self.planned(reach, &at, spec.clone(), &options).await?;
        let conflicts = self.conflicts_of_plan(reach, &planned).await?;
        let [before, after] = [&planned.old, &planned.new].map(|content| content.as_deref().map(Sha256Hex::of));
        let id = new_id("edit");
        let mut edit = prepare_edit(&id, "edit", reach.author(), &planned.path, &planned.diff);
        edit.row.status = "proposed".to_owned();
        // Lines are told by numbers: they mean what is there now, and nothing else.
        let expected = match spec {
            EditSpec::Lines { .. } => before.clone(),
            _ => options.expected,
        };
        let mut blobs = Vec::new();
        let (before_image, _) = Captured::content(planned.old).settle(self.keep_limits(), &mut blobs);
        let (after_image, _) = Captured::content(planned.new).settle(self.keep_limits(), &mut Vec::new());
        edit.kept = Kept {
            before: before_image,
            after: after_image,
            spec: Some(spec),
            expected: expected.map(|hash| hash.as_str().to_owned()),
            ..Kept::default()
        };
        journal.send_async(Entry::Row { edit: Box::new(edit), blobs: Vec::new(), kind: "edit.proposed" }).await;
        Ok(Edited { id: Some(id), at, before, after, diff: planned.diff, offsets: planned.offsets, conflicts })
    }

    /// Makes a proposed edit, in the name of the session that proposed it. Its own row stays, as what was decided. Dropping
    /// the future doesn't stop it.
    ///
    /// # Errors
    /// [`Error::UnknownEdit`], [`Error::Settled`] when it was decided before, and as [`Fs::edit`].
    pub async fn apply(&self, reach: &Reach, id: &str) -> Result<Edited, Error> {
        let (fs, reach, id) = (self.clone(), reach.clone(), id.to_owned());
        let applied = spawn_owned("fs-apply", async move { fs.apply_now(&reach, &id).await });
        applied.await.map_err(|_| Error::Stopping)?
    }

    async fn apply_now(&self, reach: &Reach, id: &str) -> Result<Edited, Error> {
        let _one = self.inner.changing.enter(id).await;
        let edit = self.proposal(id).await?;
        let author = Author {
            session_id: edit.row.session_id.clone(),
            turn_id: edit.row.turn_id.clone(),
            tool_call_id: edit.doc.tool_call_id.clone(),
            forces: reach.author().forces,
        };
        let at = Located::from(edit.path());
        let spec = edit.kept.spec.clone().ok_or_else(|| Error::UnknownEdit { id: id.to_owned() })?;
        let expected = edit.kept.expected.as_deref().and_then(Sha256Hex::parse);
        let options = EditOptions { expected, ..EditOptions::default() };
        let reach = reach.in_name_of(author);
        let edited = self.edit(&reach, at, spec, options).await?;
        self.decide(id, "accepted", "edit.accepted").await?;
        Ok(edited)
    }

    /// Puts a proposed edit aside.
    ///
    /// # Errors
    /// [`Error::UnknownEdit`], [`Error::Settled`].
    pub async fn reject(&self, reach: &Reach, id: &str) -> Result<(), Error> {
        let _one = self.inner.changing.enter(id).await;
        let edit = self.proposal(id).await?;
        self.may_touch(reach, &edit).await?;
        self.decide(id, "rejected", "edit.rejected").await
    }

    async fn proposal(&self, id: &str) -> Result<Edit, Error> {
        let edit = self.known_edit(id).await?;
        match edit.row.status.as_str() {
            "proposed" => Ok(edit),
            status => Err(Error::Settled { id: id.to_owned(), status: status.to_owned() }),
        }
    }

    async fn decide(&self, id: &str, status: &'static str, kind: &'static str) -> Result<(), Error> {
        let journal = self.journal()?;
        journal.send_async(Entry::Status { id: id.to_owned(), status, kind }).await;
        journal.settle().await;
        Ok(())
    }
}
