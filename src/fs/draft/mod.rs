//! Writing a file so that readers see the old content or the new: it grows beside its place, and takes the place at the end.
//!
//! ```text
//!  begin ──▶ pieces ──▶ commit: is the place as expected? ──▶ rename (a place that can't be renamed over: copied into)
//!    └──────── dropped anywhere before: nothing is left ◀──┘ no
//! ```
//!
//! What comes in pieces has no name until then, so that a kill leaves nothing; where the file system can't do that, and for
//! what is written in one go, the name begins with [`PREFIX`]. `place` has both.

mod place;

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Gid, Mode, OFlags, Uid, fchmod, fchown, fsync, openat};
use rustix::io::Errno;
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit};

use super::edit::Diff;
use super::entry::{Kind, Meta};
use super::hash::{Hasher, Sha256Hex};
use super::history::image::read;
use super::history::{self, After, Captured, Change, Image};
use super::ledger::Stale;
use super::reach::Place;
use super::{Error, Fs, Located, Reach, blocking};
use place::Temporary;

/// Names of what is being written begin so; they are left out of listings of changes.
pub(super) const PREFIX: &str = ".sandboxd-tmp_";
/// As far as the umask lets.
const FILE_MODE: Mode = Mode::from_bits_retain(0o666);

/// What must be there for a write to be made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Expected {
    /// Whatever there is.
    #[default]
    Anything,
    /// Nothing.
    Nothing,
    /// Anything but nothing.
    Something,
    /// One of these contents.
    Content(Vec<Sha256Hex>),
    /// None of these.
    Not(Vec<Sha256Hex>),
}

/// How sure a write is when it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fsync {
    /// It is with the kernel: it survives us, not the machine.
    #[default]
    No,
    /// It is on the disk, with its name.
    Yes,
}

/// A file that was written.
#[derive(Debug, Clone)]
pub struct Written {
    /// Where a client said.
    pub at: Located,
    /// Bytes.
    pub size: u64,
    /// Its content.
    pub hash: Sha256Hex,
    /// What was there before; `None` when nothing was.
    pub before: Option<Meta>,
    /// Its edit in the history, when there is one.
    pub edit_id: Option<String>,
}

/// A file that is being written. Dropping it leaves nothing.
pub struct Draft {
    fs: Fs,
    at: Located,
    place: Arc<Place>,
    /// `None` when nothing can be made beside the place: then the content is copied into it.
    temporary: Option<Temporary>,
    file: File,
    hasher: Hasher,
    size: u64,
    fsync: Fsync,
    /// When it comes in pieces.
    _permit: Option<OwnedSemaphorePermit>,
    reach: Reach,
    /// Directories that were made for it.
    made: usize,
    note: Note,
    /// What was in its place.
    was: Captured,
}

/// What the history says of it.
struct Note {
    op: &'static str,
    diff: Option<Diff>,
    /// What its session saw last must be there.
    is_guarded: bool,
    /// Mode and owner that it gets back; whoever restores it tells the history.
    restores: Option<(u32, u32, u32)>,
}

/// What was written of a file before.
pub(super) struct Grown {
    pub(super) file: File,
    pub(super) hasher: Hasher,
    pub(super) size: u64,
}

impl Fs {
    /// Begins to write a file in one go; directories above it are made. Blocks: for a thread that may.
    ///
    /// # Errors
    /// [`Error::NotAFile`] when something else has the name, [`Error::Outside`], [`Error::Denied`], [`Error::NoSpace`].
    pub(super) fn begin(&self, reach: &Reach, at: Located, fsync: Fsync) -> Result<Draft, Error> {
        self.begin_with(reach, at, fsync, place::named)
    }

    fn begin_with(&self, reach: &Reach, at: Located, fsync: Fsync, make: place::Make) -> Result<Draft, Error> {
        let (place, made) = match reach.target(&at, false) {
            Err(Error::NotFound(_)) => {
                let made = if self.inner.journal.get().is_some() { reach.missing_above(&at).len() } else { 0 };
                (Arc::new(reach.target(&at, true)?), made)
            }
            place => (Arc::new(place?), 0),
        };
        if let Some(meta) = present(&place)?
            && meta.kind != Kind::File
        {
            return Err(Error::NotAFile(at.path().to_path_buf()));
        }
        let (file, temporary) = make(&place).map_err(|errno| Error::of("write", at.path(), errno))?;
        Ok(Draft { made, ..self.draft(reach, at, place, temporary, file, fsync) })
    }

    /// With nothing in it yet.
    fn draft(
        &self,
        reach: &Reach,
        at: Located,
        place: Arc<Place>,
        temporary: Option<Temporary>,
        file: File,
        fsync: Fsync,
    ) -> Draft {
        Draft {
            fs: self.clone(),
            at,
            place,
            temporary,
            file,
            hasher: Hasher::default(),
            size: 0,
            fsync,
            _permit: None,
            reach: reach.clone(),
            made: 0,
            note: Note { op: "write", diff: None, is_guarded: true, restores: None },
            was: Captured::default(),
        }
    }

    /// Takes over what grew beside its place under `name`: so many bytes, all of them hashed. Dropping that leaves the file
    /// under this name.
    pub(super) fn adopt(&self, reach: &Reach, at: Located, place: Place, name: String, grown: Grown, fsync: Fsync) -> Draft {
        let place = Arc::new(place);
        let temporary = Some(Temporary::kept(Arc::clone(&place), name));
        let Grown { file, hasher, size } = grown;
        Draft { hasher, size, ..self.draft(reach, at, place, temporary, file, fsync) }
    }

    /// Writes a file whose content is in memory. Dropping the future doesn't stop it.
    ///
    /// # Errors
    /// As [`Fs::begin_write`] and [`Fs::commit`].
    pub async fn write(
        &self,
        reach: &Reach,
        at: Located,
        content: bytes::Bytes,
        expected: Expected,
        fsync: Fsync,
    ) -> Result<Written, Error> {
        let alone = self.alone(&at).await;
        let (fs, reach) = (self.clone(), reach.clone());
        let written = blocking(move || {
            let mut draft = fs.begin(&reach, at, fsync)?;
            draft.push(&content)?;
            draft.commit(&expected, alone)
        });
        self.explained(written.await).await
    }

    /// Begins to write a file. Dropping the draft leaves nothing.
    ///
    /// # Errors
    /// [`Error::Busy`], [`Error::Changed`] when already now something else is there,
    /// [`Error::NotAFile`] when something else has the name, [`Error::Outside`], [`Error::Denied`], [`Error::NoSpace`].
    pub async fn begin_write(&self, reach: &Reach, at: Located, fsync: Fsync, expected: &Expected) -> Result<Draft, Error> {
        let (fs, reach, expected) = (self.clone(), reach.clone(), expected.clone());
        let permit = Some(self.transfer()?);
        blocking(move || {
            let draft = fs.begin_with(&reach, at, fsync, place::nameless_if_possible)?;
            draft.check(&expected)?;
            Ok(Draft { _permit: permit, ..draft })
        })
        .await
    }

    /// Adds to a draft. Dropping the future drops the draft.
    ///
    /// # Errors
    /// [`Error::NoSpace`], or what else the system says.
    pub async fn push(&self, draft: Draft, pieces: Vec<bytes::Bytes>) -> Result<Draft, Error> {
        let mut draft = draft;
        blocking(move || pieces.iter().try_for_each(|piece| draft.push(piece)).map(|()| draft)).await
    }

    /// Puts a draft in its place if what is there is what was expected. Dropping the future doesn't stop it.
    ///
    /// # Errors
    /// [`Error::Changed`] when something else is there, and as [`Fs::push`].
    pub async fn commit(&self, draft: Draft, expected: Expected) -> Result<Written, Error> {
        let alone = self.alone(&draft.at).await;
        self.explained(blocking(move || draft.commit(&expected, alone)).await).await
    }

    /// Changes of one path come one after another.
    pub(super) async fn alone(&self, at: &Located) -> OwnedMutexGuard<()> {
        self.inner.changing.enter(&turn_key(at)).await
    }
}

/// The same for all ways to write a path, but for links. Two paths that are no text may have the same one.
pub(super) fn turn_key(at: &Located) -> String {
    at.path().components().collect::<PathBuf>().to_string_lossy().into_owned()
}

impl Draft {
    /// What the history says of it, and whether it must be newer than nothing that its session hasn't seen.
    pub(super) fn note_as(&mut self, op: &'static str, diff: Option<Diff>, is_guarded: bool) {
        self.note = Note { op, diff, is_guarded, restores: None };
    }

    /// It is what was there once, with this mode and owner; the history isn't told.
    pub(super) fn restores(&mut self, mode: u32, uid: u32, gid: u32) {
        self.note = Note { op: "rollback", diff: None, is_guarded: false, restores: Some((mode, uid, gid)) };
    }

    /// Adds to it. Blocks.
    pub(super) fn push(&mut self, piece: &[u8]) -> Result<(), Error> {
        self.file.write_all(piece).map_err(|error| self.failed(&error))?;
        self.hasher.update(piece);
        self.size += piece.len() as u64;
        Ok(())
    }

    fn failed(&self, error: &io::Error) -> Error {
        Error::io("write", self.at.path(), error)
    }

    /// Puts it in its place. Blocks. `_alone` is held until then.
    pub(super) fn commit(self, expected: &Expected, _alone: OwnedMutexGuard<()>) -> Result<Written, Error> {
        self.put(expected)
    }

    /// The same for who keeps others away otherwise.
    pub(super) fn put(mut self, expected: &Expected) -> Result<Written, Error> {
        let before = self.check(expected)?;
        let expected = &self.guarded(expected, before.as_ref())?;
        if let Some(before) = &before {
            self.be_like(before);
        }
        match (self.note.restores, &before) {
            (Some((mode, uid, gid)), _) => self.be(mode, uid, gid),
            (None, Some(before)) => self.was = self.fs.keep(&self.place, before),
            (None, None) => {}
        }
        if self.fsync == Fsync::Yes {
            self.file.sync_all().map_err(|error| self.failed(&error))?;
        }
        self.take_place(expected, before.as_ref())?;
        if self.fsync == Fsync::Yes {
            self.sync_name()?;
        }
        let hash = std::mem::take(&mut self.hasher).finish();
        let meta = Meta::of_open(&self.file).ok();
        if let Some(meta) = &meta {
            self.fs.inner.hashes.put(meta, meta, self.size, &hash);
        }
        let edit_id = self.noted(&hash, meta.as_ref());
        Ok(Written { at: self.at, size: self.size, hash, before, edit_id })
    }

    /// A session doesn't write over what is newer than what it saw. Who named the content that must be there knows it.
    fn guarded(&self, expected: &Expected, before: Option<&Meta>) -> Result<Expected, Error> {
        let is_told = matches!(expected, Expected::Content(_)) && self.note.op == "write";
        if before.is_none() || is_told || !self.note.is_guarded || self.reach.author().session_id.is_none() {
            return Ok(expected.clone());
        }
        let path = self.place.real_path();
        let Some(base) = self.fs.must_be(self.reach.author(), &path) else { return Ok(expected.clone()) };
        let (current, yours) = (self.hash_of(&self.place.name)?, self.hasher.clone().finish());
        match current {
            Some(current) if current.as_str() == base || current == yours => Ok(Expected::Content(vec![current])),
            None => Ok(expected.clone()),
            current => {
                let texts = self.text(&self.file).zip(self.text_there());
                let (yours, current) = (Some(yours.as_str().to_owned()), current.map(|hash| hash.as_str().to_owned()));
                Err(Error::Stale(Box::new(Stale { path, base, yours, current, texts, merged: None })))
            }
        }
    }

    /// A content that is short enough to be compared.
    fn text(&self, file: &File) -> Option<bytes::Bytes> {
        read(file, Meta::of_open(file).ok()?.size, self.fs.inner.bounds.fs_edit_max_bytes)
    }

    fn text_there(&self) -> Option<bytes::Bytes> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&self.place.directory, &self.place.name, flags, Mode::empty()).ok()?;
        self.text(&file.into())
    }

    /// Tells the history.
    fn noted(&mut self, hash: &Sha256Hex, meta: Option<&Meta>) -> Option<String> {
        if self.note.restores.is_some() || self.fs.inner.journal.get().is_none() {
            return None;
        }
        let path = self.place.real_path();
        let known = || After::Known(Image::file(hash, self.size, 0o644, (0, 0)));
        let after = meta.and_then(|meta| history::written(&self.file, hash, self.size, meta)).unwrap_or_else(known);
        let mut change = Change::new(self.note.op, &self.reach, path, std::mem::take(&mut self.was), after);
        change.made_above(self.made);
        change.diff = self.note.diff.take();
        self.fs.note(change)
    }

    /// What is in its place, when that is as expected.
    fn check(&self, expected: &Expected) -> Result<Option<Meta>, Error> {
        let before = present(&self.place)?;
        let found = match (&before, expected) {
            (Some(_), Expected::Content(_) | Expected::Not(_)) => self.hash_of(&self.place.name)?,
            _ => None,
        };
        let fits = match expected {
            Expected::Anything => true,
            Expected::Nothing => before.is_none(),
            Expected::Something => before.is_some(),
            Expected::Content(any) => found.as_ref().is_some_and(|found| any.contains(found)),
            Expected::Not(none) => found.as_ref().is_none_or(|found| !none.contains(found)),
        };
        if !fits {
            let found = if found.is_none() && before.is_some() { self.hash_of(&self.place.name)? } else { found };
            return Err(Error::Changed { path: self.at.path().to_path_buf(), found: found.map(|hash| hash.as_str().to_owned()) });
        }
        Ok(before)
    }

    fn hash_of(&self, name: impl rustix::path::Arg) -> Result<Option<Sha256Hex>, Error> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match openat(&self.place.directory, name, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            opened => File::from(opened.map_err(|errno| Error::of("read", self.at.path(), errno))?),
        };
        let meta = Meta::of_open(&file).map_err(|errno| Error::of("look at", self.at.path(), errno))?;
        self.fs.inner.hashes.of(&file, &meta).map(Some).map_err(|error| self.failed(&error))
    }

    /// Mode and owner stay those of what was there, as far as we may.
    fn be_like(&self, before: &Meta) {
        self.be(before.mode, before.uid, before.gid);
    }

    fn be(&self, mode: u32, uid: u32, gid: u32) {
        if Meta::of_open(&self.file).is_ok_and(|meta| (meta.mode, meta.uid, meta.gid) == (mode, uid, gid)) {
            return; // asking costs less than two more changes of the file
        }
        let _ = fchown(&self.file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))); // only root may give away
        let _ = fchmod(&self.file, Mode::from_bits_retain(mode)); // after the owner, which clears setuid
    }

    fn sync_name(&self) -> Result<(), Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(self.place.directory.as_fd(), ".", flags, Mode::empty());
        let synced = directory.and_then(fsync);
        synced.map_err(|errno| Error::of("sync the directory of", self.at.path(), errno))
    }
}

/// What has the name now.
pub(super) fn present(place: &Place) -> Result<Option<Meta>, Error> {
    match Meta::of(&place.directory, Path::new(&place.name)) {
        Ok(meta) => Ok(Some(meta)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(Error::of("look at", &PathBuf::from(&place.path), errno)),
    }
}
