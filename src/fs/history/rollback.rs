//! Taking edits back: the latest first, all of them or none. Each is checked against a plan of what the ones before it
//! leave; then each is taken back and noted as an edit of its own, which can be taken back in turn.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use bytes::Bytes;
use rustix::fs::{
    AtFlags, Gid, Mode, OFlags, RenameFlags, Uid, chownat, fchmod, mkdirat, openat, renameat_with, symlinkat, unlinkat,
};
use rustix::io::Errno;

use super::super::change::{clear, remove_tree};
use super::super::copy::{beside, discard};
use super::super::draft::{Fsync, present};
use super::super::edit::{Diff, diff};
use super::super::entry::Kind;
use super::super::reach::Place;
use super::super::{Error, Expected, Fs, Located, MovedOn, Reach, Sha256Hex, blocking};
use super::image::{Captured, Image, Node, Raw, What};
use super::journal::{Entry, limits};
use super::plan::{Plan, is_same, on_disk};
use super::rows::{Edit, Kept, prepare_edit};
use super::{Author, KeepLimits};
use crate::config::as_usize;
use crate::rt::ids::new_id;
use crate::rt::spawn_owned;
use crate::store::{FsBlob, FsEditFilter};

static NOTHING: Image = Image { nodes: Vec::new(), is_whole: true };

/// With more contents than this a rollback waits until they are on the disk.
const LITTLE_BYTES: usize = 1024 * 1024;

/// How far back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RollbackTo {
    /// Before this edit, and only this one.
    Before(String),
    /// As after this edit: all that came later is taken back.
    After(String),
    /// As at this time: Unix milliseconds.
    Time(i64),
    /// Without what was done in this turn.
    Turn(String),
}

/// An edit that was taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolledBack {
    /// Which.
    pub edit_id: String,
    /// The edit that did it.
    pub by_edit_id: String,
    /// The file.
    pub path: std::path::PathBuf,
}

impl Fs {
    /// Takes edits back, of one session when it is named. Dropping the future stops it between two edits.
    ///
    /// # Errors
    /// [`Error::MovedOn`] when something else is there by now, or what was there isn't kept: then nothing is done.
    /// [`Error::UnknownEdit`], [`Error::Settled`] for an edit that isn't applied, [`Error::TooMuch`]. What the system says in
    /// the middle ends it; what was taken back until then is in the history.
    pub async fn rollback(&self, reach: &Reach, session: Option<String>, to: RollbackTo) -> Result<Vec<RolledBack>, Error> {
        let _one = self.inner.changing.enter("\0rollback").await; // no path begins so
        let edits = self.to_be_undone(reach, session, to).await?;
        let needs: HashSet<String> = edits.iter().filter_map(Edit::needs).flatten().collect();
        let kept = self.journal()?.store.fs_blobs_kept(needs.into_iter().collect()).await?;
        let (fs, within) = (self.clone(), reach.clone());
        let edits = blocking(move || check(&fs, &within, edits, &kept)).await?;
        let mut done = Vec::with_capacity(edits.len());
        for edit in edits {
            let (fs, within) = (self.clone(), reach.clone());
            // What is taken back is noted, whoever waits for it.
            let undone = spawn_owned("fs-rollback", async move { fs.undo(&within, edit).await });
            done.push(undone.await.map_err(|_| Error::Stopping)??);
        }
        self.settle().await;
        Ok(done)
    }

    /// The latest first.
    async fn to_be_undone(&self, reach: &Reach, session: Option<String>, to: RollbackTo) -> Result<Vec<Edit>, Error> {
        let mut filter = FsEditFilter { session_id: session, ..FsEditFilter::default() };
        match to {
            RollbackTo::Before(id) => {
                let edit = self.known_edit(&id).await?;
                self.may_touch(reach, &edit).await?;
                if edit.row.status != "applied" {
                    return Err(Error::Settled { id, status: edit.row.status });
                }
                return Ok(vec![edit]);
            }
            RollbackTo::After(id) => {
                let edit = self.known_edit(&id).await?;
                self.may_touch(reach, &edit).await?;
                filter.after = Some(id);
            }
            RollbackTo::Time(at_ms) => filter.after_ms = Some(at_ms),
            RollbackTo::Turn(id) => filter.turn_id = Some(id),
        }
        let journal = self.journal()?;
        journal.settle().await;
        let max = self.inner.bounds.fs_rollback_max_edits;
        let rows = journal.store.fs_edits(filter, as_usize(max) + 1).await?;
        if rows.len() as u64 > max {
            let what = "the number of edits to be taken back".to_owned();
            return Err(Error::TooMuch { what, max, bound: "fs_rollback_max_edits" });
        }
        let ids: HashSet<String> = rows.iter().map(|row| row.id.clone()).collect();
        let edits: Vec<_> = rows.into_iter().filter(|row| row.status == "applied").map(Edit::of).collect();
        // What took back one of these is no change any more.
        let counts = |edit: &Edit| edit.doc.rollback_of.as_ref().is_none_or(|of| !ids.contains(of));
        let edits: Vec<_> = edits.into_iter().filter(counts).collect();
        for edit in &edits {
            self.may_touch(reach, edit).await?;
        }
        Ok(edits)
    }

    /// Takes one back and notes that.
    async fn undo(&self, reach: &Reach, edit: Edit) -> Result<RolledBack, Error> {
        let journal = self.journal()?;
        let (path, from) = (edit.path(), edit.from());
        let mut contents = HashMap::new();
        for hash in edit.kept.before.hashes().unwrap_or_default() {
            let gone = || Error::MovedOn(vec![MovedOn { edit_id: edit.row.id.clone(), path: path.clone(), why: "not_kept" }]);
            let content = journal.store.fs_blob(&hash).await?.ok_or_else(gone)?;
            contents.insert(hash, content);
        }
        let mut author = Author::clone(reach.author());
        // What is told of a session's files stays with it, whoever takes it back.
        author.session_id = author.session_id.or_else(|| edit.row.session_id.clone());
        let _alone = self.alone(&Located::from(path.clone())).await;
        let (fs, within) = (self.clone(), reach.clone());
        let (edit, (made, blobs)) = blocking(move || {
            let undone = Undo { fs: &fs, reach: &within, contents: &contents, author: &author }.undo(&edit)?;
            Ok((edit, undone))
        })
        .await?;
        let by_edit_id = made.row.id.clone();
        if let (Some(session), Some(hash)) = (&reach.author().session_id, made.kept.after.hash()) {
            journal.saw(session, &made.path(), hash, "write");
        }
        let is_much = blobs.iter().map(|blob| blob.content.len()).sum::<usize>() > LITTLE_BYTES;
        journal.send_async(Entry::Row { edit: Box::new(made), blobs, kind: "edit.applied" }).await;
        if is_much {
            journal.settle().await; // many of them would be in memory at once otherwise
        }
        let status = |id: &str, status, kind| Entry::Status { id: id.to_owned(), status, kind };
        journal.send_async(status(&edit.row.id, "reverted", "edit.reverted")).await;
        // What it took back counts again; what that had taken back doesn't; and so on.
        let (mut earlier, mut counts) = (edit.doc.rollback_of.clone(), true);
        while let Some(id) = earlier {
            let (word, kind) = if counts { ("applied", "edit.restored") } else { ("reverted", "edit.reverted") };
            journal.send_async(status(&id, word, kind)).await;
            earlier = journal.store.fs_edit(&id).await?.and_then(|row| Edit::of(row).doc.rollback_of);
            counts = !counts;
        }
        Ok(RolledBack { edit_id: edit.row.id, by_edit_id, path: from.unwrap_or(path) })
    }
}

/// All or nothing: gives the edits back when each can be undone after the ones before.
fn check(fs: &Fs, reach: &Reach, edits: Vec<Edit>, kept: &HashSet<String>) -> Result<Vec<Edit>, Error> {
    let mut plan = Plan::new(fs, reach);
    let mut moved_on = Vec::new();
    for edit in &edits {
        let is_kept = edit.needs().is_some_and(|needs| needs.iter().all(|hash| kept.contains(hash)));
        let undone = if is_kept { plan.undo(edit)? } else { Err("not_kept") };
        if let Err(why) = undone {
            moved_on.push(MovedOn { edit_id: edit.row.id.clone(), path: edit.path(), why });
        }
    }
    if moved_on.is_empty() { Ok(edits) } else { Err(Error::MovedOn(moved_on)) }
}

/// Takes one edit back. Blocks.
struct Undo<'a> {
    fs: &'a Fs,
    reach: &'a Reach,
    contents: &'a HashMap<String, Bytes>,
    author: &'a Author,
}

impl Undo<'_> {
    /// The edit that does it, and the contents that are kept for it.
    fn undo(&self, edit: &Edit) -> Result<(Edit, Vec<FsBlob>), Error> {
        let (path, kept) = (edit.path(), &edit.kept);
        let target = edit.from().unwrap_or_else(|| path.clone());
        let moved_on = |why| Error::MovedOn(vec![MovedOn { edit_id: edit.row.id.clone(), path: path.clone(), why }]);
        if !is_same(&on_disk(self.fs, self.reach, &path, false)?, &kept.after, edit.from().is_some()) {
            return Err(moved_on("changed"));
        }
        let made = self.reach.missing_above(&Located::from(target.clone()));
        let mut blobs = Vec::new();
        let (was, old) = self.keep(&target, &mut blobs)?;
        if edit.from().is_some() {
            if !was.is_like(&kept.left) {
                return Err(moved_on("occupied"));
            }
            let left = self.move_back(&path, &target, &was)?;
            // Both, or neither.
            let back = |_: &Error| drop(self.move_back(&target, &path, left));
            self.set(&path, left, &kept.before).inspect_err(back)?;
        } else {
            self.set(&target, &was, &kept.before)?;
        }
        for made in kept.made.iter().rev() {
            self.remove_empty(&made.path())?;
        }
        let new = kept.before.hash().and_then(|hash| self.contents.get(hash));
        let shown = match edit.from() {
            None => self.diff(&target, &was, old, &kept.before, new),
            Some(_) => Diff::default(),
        };
        let mut undone = prepare_edit(&new_id("edit"), "rollback", self.author, &target, &shown);
        undone.doc.rollback_of = Some(edit.row.id.clone());
        undone.kept = Kept { before: was, made: made.iter().map(|path| Raw::of(path)).collect(), ..Kept::default() };
        match edit.from() {
            None => undone.kept.after = kept.before.clone(),
            Some(_) => {
                undone.row.from_path = Some(edit.row.path.clone());
                (undone.kept.after, undone.kept.left) = (kept.after.clone(), kept.before.clone());
            }
        }
        Ok((undone, blobs))
    }

    fn limits(&self) -> KeepLimits {
        self.fs.keep_limits()
    }

    fn place(&self, path: &Path, makes_parents: bool) -> Result<Place, Error> {
        self.reach.place(&Located::from(path.to_path_buf()), makes_parents)
    }

    fn diff(&self, path: &Path, was: &Image, old: Option<Bytes>, now: &Image, new: Option<&Bytes>) -> Diff {
        let is_known = (was.nodes.is_empty() || old.is_some()) && (now.nodes.is_empty() || new.is_some());
        if !is_known {
            return Diff::default();
        }
        diff(&path.to_string_lossy(), old.as_deref(), new.map(|new| &new[..]), limits(&self.fs.inner.bounds))
    }

    /// What is at a path before it changes.
    fn keep(&self, path: &Path, blobs: &mut Vec<FsBlob>) -> Result<(Image, Option<Bytes>), Error> {
        match self.place(path, false) {
            Ok(place) => Ok(Captured::of(&place, self.limits())?.settle(self.limits(), blobs)),
            Err(Error::NotFound(_)) => Ok((Image::default(), None)),
            Err(error) => Err(error),
        }
    }

    /// From one image to the other, in one step: what it shall be is made beside it.
    fn set(&self, path: &Path, was: &Image, wanted: &Image) -> Result<(), Error> {
        if let ([Node { what: What::File { .. }, .. }], [node @ Node { what: What::File { .. }, .. }]) =
            (was.nodes.as_slice(), wanted.nodes.as_slice())
        {
            let there = was.hash().and_then(Sha256Hex::parse);
            return self.write(path, node, there.map_or(Expected::Something, |hash| Expected::Content(vec![hash])));
        }
        if wanted.nodes.is_empty() {
            return self.remove(path, was);
        }
        let place = self.place(path, true)?;
        let made = beside(&place)?;
        let put = self.make(&made.path, wanted).and_then(|()| self.put(&made, &place, was));
        put.inspect_err(|_| discard(&made))
    }

    /// Gives what was made beside a place its name.
    fn put(&self, made: &Place, place: &Place, was: &Image) -> Result<(), Error> {
        let rename = |flags| renameat_with(&made.directory, &made.name, &place.directory, &place.name, flags);
        let failed = |errno| Error::of("make", &place.path, errno);
        if was.nodes.is_empty() {
            return rename(RenameFlags::NOREPLACE).map_err(failed);
        }
        match rename(RenameFlags::EXCHANGE) {
            Err(Errno::INVAL | Errno::NOSYS) => {
                self.remove(&place.path, was)?; // not on this file system
                return rename(RenameFlags::NOREPLACE).map_err(failed);
            }
            renamed => renamed.map_err(failed)?,
        }
        let kind = if was.is_directory() { Kind::Directory } else { Kind::File };
        if let Err(error) = clear(made, kind) {
            tracing::warn!(%error, "what was there before a rollback can't be removed"); // it was taken back all the same
        }
        Ok(())
    }

    fn write(&self, path: &Path, node: &Node, expected: Expected) -> Result<(), Error> {
        let What::File { sha256, .. } = &node.what else { return Ok(()) };
        let content = sha256.as_ref().and_then(|hash| self.contents.get(hash));
        let content = content.ok_or_else(|| Error::BrokeOff("what was there is not kept any more".to_owned()))?;
        let mut draft = self.fs.begin(self.reach, Located::from(path.to_path_buf()), Fsync::No)?;
        draft.restores(node.mode, node.uid, node.gid);
        draft.push(content)?;
        draft.put(&expected).map(drop)
    }

    fn remove(&self, path: &Path, was: &Image) -> Result<(), Error> {
        if was.nodes.is_empty() {
            return Ok(());
        }
        let place = self.place(path, false)?;
        let removed = match was.is_directory() {
            true => remove_tree(&place),
            false => unlinkat(&place.directory, &place.name, AtFlags::empty()),
        };
        removed.map_err(|errno| Error::of("remove", path, errno))
    }

    /// Moves to where `was` is, in one step; gives what is at `from` then.
    fn move_back<'b>(&self, from: &Path, to: &Path, was: &'b Image) -> Result<&'b Image, Error> {
        if !was.nodes.is_empty() {
            let (source, destination) = (self.place(from, false)?, self.place(to, false)?);
            let (one, other) = (&source.directory, &destination.directory);
            match renameat_with(one, &source.name, other, &destination.name, RenameFlags::EXCHANGE) {
                // Not on this file system, or one lies in the other.
                Err(Errno::INVAL | Errno::NOSYS | Errno::XDEV) => self.remove(to, was)?,
                renamed => return renamed.map(|()| was).map_err(|errno| Error::of("move", to, errno)),
            }
        }
        self.rename(from, to).map(|()| &NOTHING)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), Error> {
        let (source, destination) = (self.place(from, false)?, self.place(to, true)?);
        let meta = present(&source)?.ok_or_else(|| Error::NotFound(from.to_path_buf()))?;
        let flags = RenameFlags::NOREPLACE;
        match renameat_with(&source.directory, &source.name, &destination.directory, &destination.name, flags) {
            Err(Errno::XDEV) => super::super::copy::across(&source, &meta, &destination)?,
            renamed => renamed.map_err(|errno| Error::of("move", to, errno)),
        }
    }

    /// Makes what is not there.
    fn make(&self, path: &Path, wanted: &Image) -> Result<(), Error> {
        let mut directories = Vec::new();
        for node in &wanted.nodes {
            let at = if node.below.0.is_empty() { path.to_path_buf() } else { path.join(node.below.path()) };
            let failed = |errno| Error::of("make", &at, errno);
            match &node.what {
                What::File { .. } => self.write(&at, node, Expected::Nothing)?,
                What::Symlink { target } => {
                    let place = self.place(&at, true)?;
                    symlinkat(target.path(), &place.directory, &place.name).map_err(failed)?;
                    let (uid, gid) = (Uid::from_raw(node.uid), Gid::from_raw(node.gid));
                    let flags = AtFlags::SYMLINK_NOFOLLOW;
                    let _ = chownat(&place.directory, &place.name, Some(uid), Some(gid), flags); // only root may give away
                }
                What::Directory => {
                    let place = self.place(&at, true)?;
                    mkdirat(&place.directory, &place.name, Mode::RWXU).map_err(failed)?;
                    directories.push((place, node));
                }
                What::Other => {}
            }
        }
        // Last, and the innermost first: a mode may forbid to write in it.
        for (place, node) in directories.into_iter().rev() {
            be_like(&place, node).map_err(|errno| Error::of("make", &place.path, errno))?;
        }
        Ok(())
    }

    fn remove_empty(&self, path: &Path) -> Result<(), Error> {
        let place = match self.place(path, false) {
            Err(Error::NotFound(_)) => return Ok(()),
            place => place?,
        };
        match present(&place)? {
            Some(meta) if meta.kind == Kind::Directory => {
                let _ = unlinkat(&place.directory, &place.name, AtFlags::REMOVEDIR); // somebody else uses it
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

fn be_like(place: &Place, node: &Node) -> rustix::io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = openat(&place.directory, &place.name, flags, Mode::empty())?;
    let _ = rustix::fs::fchown(&directory, Some(Uid::from_raw(node.uid)), Some(Gid::from_raw(node.gid))); // only root may give away
    fchmod(&directory, Mode::from_bits_retain(node.mode))
}
