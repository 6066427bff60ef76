//! Uploads that go on where they broke off: the part lies beside its place, and its length is how far it came.
//!
//! ```text
//!  begin ──▶ append, append, … ──▶ complete: hash, condition, rename        a restart, a broken connection, a full disk:
//!              └── expired, or aborted: the part goes                       go on where the part ends
//! ```
//!
//! One small file per upload in the data directory says where its part is. One client at a time writes to one.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustix::fs::{AtFlags, Mode, OFlags, openat, unlinkat};
use serde::{Deserialize, Serialize};

use super::draft::{Grown, PREFIX, present};
use super::entry::{Kind, Meta};
use super::hash::Hasher;
use super::reach::Place;
use super::{Author, Error, Expected, Fence, Fs, Fsync, Located, Pieces, Reach, Sha256Hex, Written, blocking};
use crate::config::as_usize;
use crate::rt::clock::now_ms;
use crate::rt::files::{read_bounded, write_atomically};
use crate::rt::ids::new_id;
use crate::rt::spawn_owned;

const FILE_MODE: Mode = Mode::from_bits_retain(0o666);
/// What is written of one upload is shorter.
const STATE_MAX_BYTES: u64 = 64 * 1024;
const HASH_CHUNK_BYTES: usize = 256 * 1024;
/// Expired ones are looked for so often.
const SWEEP_INTERVAL: Duration = Duration::from_secs(600);

/// The handle on uploads under way.
#[derive(Clone)]
pub struct Uploads {
    fs: Fs,
    directory: Arc<Path>,
    /// Those that a client writes to now.
    busy: Arc<Mutex<HashSet<String>>>,
}

/// What is remembered of an upload.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct State {
    /// Where the client said, in base64.
    at: String,
    /// Where its links lead, in base64: the part is in the same directory.
    place: String,
    part: String,
    /// Device and inode of the part.
    id: (u64, u64),
    size: Option<u64>,
    /// In whose name it was begun, and where that one's paths might lead then: so it stays until its end.
    #[serde(default)]
    author: Author,
    #[serde(default)]
    fences: Option<Vec<Fence>>,
}

/// An upload.
#[derive(Debug, Clone)]
pub struct Upload {
    /// Its id.
    pub id: String,
    /// Where it will be.
    pub at: Located,
    /// Bytes that are here.
    pub offset: u64,
    /// Bytes that it will have, when that was said.
    pub size: Option<u64>,
    /// When it goes if nothing more comes, in Unix milliseconds.
    pub expires_at_ms: i64,
}

/// What a complete upload must be.
#[derive(Debug, Clone, Default)]
pub struct Completion {
    /// Its content.
    pub hash: Option<Sha256Hex>,
    /// What must be in its place.
    pub expected: Expected,
    /// How sure it is when it is answered.
    pub fsync: Fsync,
}

/// An upload's part, open.
struct Part {
    state: State,
    at: Located,
    place: Place,
    file: File,
    meta: Meta,
}

/// Lets the next client write.
struct Turn {
    busy: Arc<Mutex<HashSet<String>>>,
    id: String,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id); // a set is whole after each change
    }
}

impl Uploads {
    /// Goes on with what is under `directory`, and removes what expires there from now on.
    pub fn start(fs: Fs, directory: PathBuf) -> Self {
        let uploads = Self { fs, directory: directory.into(), busy: Arc::default() };
        let sweeping = uploads.clone();
        spawn_owned("fs-uploads", async move {
            loop {
                let uploads = sweeping.clone();
                let _ = blocking(move || uploads.sweep()).await; // what can't be read now may be later
                tokio::time::sleep(SWEEP_INTERVAL).await;
            }
        });
        uploads
    }

    /// Begins one; directories above its place are made. Dropping the future doesn't stop it.
    ///
    /// # Errors
    /// [`Error::NotAFile`] when something else has the name, [`Error::TooMuch`], [`Error::Outside`], [`Error::Denied`].
    pub async fn begin(&self, reach: &Reach, at: Located, size: Option<u64>) -> Result<Upload, Error> {
        let (uploads, reach) = (self.clone(), reach.clone());
        blocking(move || {
            let max = uploads.fs.inner.bounds.fs_uploads_max;
            if uploads.ids()?.len() >= as_usize(max) {
                uploads.sweep()?;
                if uploads.ids()?.len() >= as_usize(max) {
                    return Err(Error::TooMuch { what: "uploads under way".to_owned(), max, bound: "fs_uploads_max" });
                }
            }
            let place = reach.target(&at, true)?;
            if present(&place)?.is_some_and(|there| there.kind != Kind::File) {
                return Err(Error::NotAFile(at.path().to_path_buf()));
            }
            let id = new_id("up");
            let part = format!("{PREFIX}{id}");
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let failed = |errno| Error::of("write", at.path(), errno);
            let file = openat(&place.directory, &part, flags, FILE_MODE).map_err(failed)?;
            let meta = Meta::of_open(&file).map_err(failed)?;
            let encode = |path: &Path| BASE64_STANDARD.encode(path.as_os_str().as_bytes());
            let state = State {
                at: encode(at.path()),
                place: encode(&place.path),
                part,
                id: meta.id,
                size,
                author: Author::clone(reach.author()),
                fences: reach.fences().map(<[Fence]>::to_vec),
            };
            let written = uploads.remember(&id, &state);
            written.inspect_err(|_| {
                let _ = unlinkat(&place.directory, &state.part, AtFlags::empty()); // it expires nowhere else
            })?;
            Ok(uploads.shown(id, at, &meta, size))
        })
        .await
    }

    /// How far one came.
    ///
    /// # Errors
    /// [`Error::NoUpload`].
    pub async fn get(&self, reach: &Reach, id: &str) -> Result<Upload, Error> {
        let (uploads, reach, id) = (self.clone(), reach.clone(), id.to_owned());
        blocking(move || {
            let part = uploads.open(&reach, &id)?;
            Ok(uploads.shown(id, part.at, &part.meta, part.state.size))
        })
        .await
    }

    /// Adds what comes, at `offset`. What is there already must be the same, so that a piece may come twice. Whatever
    /// comes before it breaks off stays. Dropping the future ends it when the next piece would be read.
    ///
    /// # Errors
    /// [`Error::BadOffset`] with the right one, [`Error::InUse`], [`Error::TooMuch`] beyond the size that was said,
    /// [`Error::NoUpload`], [`Error::NoSpace`], [`Error::BrokeOff`], [`Error::Busy`].
    pub async fn append(&self, reach: &Reach, id: &str, offset: u64, pieces: Pieces) -> Result<Upload, Error> {
        let held = (self.enter(id)?, self.fs.transfer()?);
        let (uploads, reach, id) = (self.clone(), reach.clone(), id.to_owned());
        blocking(move || {
            let _held = held;
            let part = uploads.open(&reach, &id)?;
            part.take(offset, pieces)?;
            let meta = Meta::of_open(&part.file).map_err(|errno| Error::of("look at", part.at.path(), errno))?;
            Ok(uploads.shown(id, part.at, &meta, part.state.size))
        })
        .await
    }

    /// Puts one in its place. What fails leaves the part. Dropping the future doesn't stop it.
    ///
    /// # Errors
    /// [`Error::BadHash`], [`Error::BadOffset`] when something is missing, [`Error::InUse`], [`Error::NoUpload`],
    /// [`Error::Changed`] when something else is in its place, [`Error::Stale`] when that is newer than what the session saw
    /// that began it.
    pub async fn complete(&self, reach: &Reach, id: &str, how: Completion) -> Result<Written, Error> {
        let turn = self.enter(id)?;
        let (uploads, of, wanted) = (self.clone(), reach.clone(), id.to_owned());
        let (part, hasher) = blocking(move || {
            let part = uploads.open(&of, &wanted)?;
            if part.state.size.is_some_and(|size| size != part.meta.size) {
                return Err(Error::BadOffset { offset: part.meta.size });
            }
            let hasher = part.hash()?;
            let found = hasher.clone().finish();
            match &how.hash {
                Some(expected) if *expected != found => {
                    Err(Error::BadHash { expected: expected.as_str().to_owned(), found: found.as_str().to_owned() })
                }
                _ => Ok((part, hasher)),
            }
        })
        .await?;
        let alone = self.fs.alone(&part.at).await;
        let (uploads, id) = (self.clone(), id.to_owned());
        let reach = part.in_name_of(reach);
        let written = blocking(move || {
            let _turn = turn;
            let Part { state, at, place, file, meta } = part;
            let directory = place.directory.try_clone().map_err(|error| Error::io("write", at.path(), &error))?;
            let draft =
                uploads.fs.adopt(&reach, at, place, state.part.clone(), Grown { file, hasher, size: meta.size }, how.fsync);
            let written = draft.commit(&how.expected, alone)?;
            let _ = unlinkat(&directory, &state.part, AtFlags::empty()); // there where it was exchanged or copied
            uploads.forget(&id);
            Ok(written)
        });
        self.fs.explained(written.await).await
    }

    /// Ends one, with its part.
    ///
    /// # Errors
    /// [`Error::NoUpload`], [`Error::InUse`].
    pub async fn abort(&self, reach: &Reach, id: &str) -> Result<(), Error> {
        let turn = self.enter(id)?;
        let (uploads, reach, id) = (self.clone(), reach.clone(), id.to_owned());
        blocking(move || {
            let _turn = turn;
            let part = uploads.open(&reach, &id)?;
            let removed = unlinkat(&part.place.directory, &part.state.part, AtFlags::empty());
            removed.map_err(|errno| Error::of("remove", part.at.path(), errno))?;
            uploads.forget(&id);
            Ok(())
        })
        .await
    }

    fn enter(&self, id: &str) -> Result<Turn, Error> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner); // a set is whole after each change
        if !busy.insert(id.to_owned()) {
            return Err(Error::InUse(format!("upload {id}")));
        }
        Ok(Turn { busy: Arc::clone(&self.busy), id: id.to_owned() })
    }

    fn shown(&self, id: String, at: Located, part: &Meta, size: Option<u64>) -> Upload {
        let lasts_ms = i64::try_from(self.fs.inner.bounds.fs_upload_expiry_ms).unwrap_or(i64::MAX);
        Upload { id, at, offset: part.size, size, expires_at_ms: changed_ms(part).saturating_add(lasts_ms) }
    }

    /// For who may use its place: as far as the call leads, and as far as who began it could go.
    fn open(&self, reach: &Reach, id: &str) -> Result<Part, Error> {
        let part = self.find(reach, id)?;
        match &part.state.fences {
            None => Ok(part),
            Some(fences) => self.find(&self.fs.reach().beneath(fences)?, id),
        }
    }

    fn find(&self, reach: &Reach, id: &str) -> Result<Part, Error> {
        let none = || Error::NoUpload(id.to_owned());
        let state: State = self.recall(id).ok_or_else(none)?;
        let (at, path) = (decoded(&state.at).ok_or_else(none)?, decoded(&state.place).ok_or_else(none)?);
        let parent = Located::from(path.parent().unwrap_or(Path::new("/")).to_path_buf());
        let directory = reach.directory(&parent).map_err(|error| if let Error::NotFound(_) = error { none() } else { error })?;
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(openat(&directory, &state.part, flags, Mode::empty()).map_err(|_| none())?);
        let meta = Meta::of_open(&file).map_err(|_| none())?;
        if meta.kind != Kind::File || meta.id != state.id {
            return Err(none()); // something else has the name
        }
        let place = Place { directory, name: path.file_name().unwrap_or_default().to_owned(), path };
        Ok(Part { state, at: Located::from(at), place, file, meta })
    }

    fn file(&self, id: &str) -> Option<PathBuf> {
        let is_id = id.starts_with("up_") && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        is_id.then(|| self.directory.join(format!("{id}.json")))
    }

    fn recall(&self, id: &str) -> Option<State> {
        let text = read_bounded(&self.file(id)?, STATE_MAX_BYTES).ok()?;
        serde_json::from_str(&text).ok()
    }

    fn remember(&self, id: &str, state: &State) -> Result<(), Error> {
        let write = || {
            std::fs::create_dir_all(&self.directory)?;
            let path = self.file(id).ok_or(io::ErrorKind::InvalidInput)?;
            write_atomically(&path, serde_json::to_string(state)?.as_bytes(), 0o600)
        };
        write().map_err(|error| Error::io("remember", &self.directory, &error))
    }

    fn forget(&self, id: &str) {
        let _ = self.file(id).map(std::fs::remove_file); // without its part it expires
    }

    fn ids(&self) -> Result<Vec<String>, Error> {
        let entries = match std::fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|error| Error::io("list", &self.directory, &error))?,
        };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        Ok(names.filter_map(|name| name.strip_suffix(".json").map(str::to_owned)).collect())
    }

    /// Removes those that have expired, and what is known of those whose part is gone.
    fn sweep(&self) -> Result<(), Error> {
        for id in self.ids()? {
            let Ok(_turn) = self.enter(&id) else { continue };
            match self.find(self.fs.reach(), &id) {
                Err(Error::NoUpload(_)) => self.forget(&id),
                Ok(part) if self.shown(id.clone(), part.at.clone(), &part.meta, None).expires_at_ms < now_ms() => {
                    tracing::info!(id, path = %part.at.path().display(), bytes = part.meta.size, "an upload expired");
                    let _ = unlinkat(&part.place.directory, &part.state.part, AtFlags::empty()); // gone already
                    self.forget(&id);
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn decoded(text: &str) -> Option<PathBuf> {
    BASE64_STANDARD.decode(text).ok().map(|bytes| PathBuf::from(OsString::from_vec(bytes)))
}

fn changed_ms(part: &Meta) -> i64 {
    let (seconds, nanoseconds) = part.modified;
    seconds.saturating_mul(1000).saturating_add(i64::from(nanoseconds / 1_000_000))
}

impl Part {
    fn failed(&self, error: &io::Error) -> Error {
        Error::io("write", self.at.path(), error)
    }

    /// Where who completes it may go, in their name, or in that of who began it.
    fn in_name_of(&self, reach: &Reach) -> Reach {
        let (by, begun) = (reach.author(), &self.state.author);
        match &by.session_id {
            Some(_) => reach.clone(),
            None => reach.in_name_of(Author { forces: by.forces || begun.forces, ..begun.clone() }),
        }
    }

    /// Writes pieces at `offset`; compares where there is something already.
    fn take(&self, offset: u64, mut pieces: Pieces) -> Result<(), Error> {
        let (mut at, mut end) = (offset, self.meta.size);
        if at > end {
            return Err(Error::BadOffset { offset: end });
        }
        loop {
            let piece = match pieces.blocking_recv() {
                Some(Some(piece)) => piece,
                Some(None) => return Ok(()),
                None => return Err(Error::BrokeOff(format!("{end} bytes are here: go on from there"))),
            };
            if let Some(max) = self.state.size.filter(|size| at.saturating_add(piece.len() as u64) > *size) {
                return Err(Error::TooMuch { what: "bytes of this upload".to_owned(), max, bound: "size" });
            }
            let known = usize::try_from(end - at).unwrap_or(usize::MAX).min(piece.len());
            let mut there = vec![0; known];
            self.file.read_exact_at(&mut there, at).map_err(|error| self.failed(&error))?;
            if there != piece[..known] {
                return Err(Error::BadOffset { offset: end }); // another content than the one that is here
            }
            at += known as u64;
            let new = &piece[known..];
            if !new.is_empty() {
                self.file.write_all_at(new, at).map_err(|error| self.failed(&error))?;
                at += new.len() as u64;
                end = at;
            }
        }
    }

    fn hash(&self) -> Result<Hasher, Error> {
        let (mut hasher, mut chunk, mut file) = (Hasher::default(), vec![0; HASH_CHUNK_BYTES], &self.file);
        loop {
            match file.read(&mut chunk).map_err(|error| self.failed(&error))? {
                0 => return Ok(hasher),
                read => hasher.update(&chunk[..read]),
            }
        }
    }
}
