//! The files room: what HTTP clients do with files in the sandbox. Blocking calls run on threads made for that; nothing is
//! held in memory but a cache of content hashes.
//!
//! | module | what |
//! |---|---|
//! | `path`, `reach`, `beneath` | what a client's path names, and where it may lead |
//! | `entry`, `shares`, `list` | what a file is, many of them at once, and what a directory holds |
//! | `walk`, `names`, `search`, `replace` | trees: listed, looked through for names and contents, changed at many places |
//! | `read`, `hash`, `outgoing` | contents, what tells one content from another, and how they are sent |
//! | `draft`, `change` | writes that are all or nothing; directories, moves, removals |
//! | `copy` | copies of files and trees |
//! | `edit` | edits of texts: by text, by lines, by a patch |
//! | `history` | what was changed, in whose name, and taking it back |
//! | `baseline` | what was there when a turn began |
//! | `ledger` | what sessions know of files, and where they meet |
//! | `archive` | archives up and down |
//! | `upload` | uploads in pieces |
//! | `watch` | what changes, told in order |
//!
//! No path is resolved twice: what is checked is what was opened.

mod archive;
mod baseline;
mod beneath;
mod change;
#[cfg(test)]
mod change_tests;
mod copy;
mod draft;
mod edit;
mod entry;
mod error;
mod hash;
mod history;
mod ledger;
mod list;
mod names;
mod outgoing;
mod path;
mod reach;
mod read;
mod replace;
mod search;
mod shares;
mod upload;
mod walk;
mod watch;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

pub use archive::{Extracted, Extraction, Failed, Format, Pieces, Skipped};
pub use baseline::Baseline;
pub use draft::{Draft, Expected, Fsync, Written};
pub use edit::{Diff, EditOptions, EditSpec, Edited, Hunk, Mismatch};
pub use entry::{Kind, Meta};
pub use error::{Error, MovedOn};
pub use hash::{Sha256Hex, Validator};
pub use history::{
    Author, EditInfo, EditQuery, External, HistoryPage, Present, Rights, RollbackTo, RolledBack, STREAM, Side, Thing,
};
pub use ledger::{Conflict, FileState, Lease, LeaseSpec, Leases, Merged, NoNotices, Notices, SeenFile, Severity, Stale};
pub use list::Listing;
pub use names::FindNames;
pub use outgoing::Coding;
pub use path::{Located, shown};
pub use reach::{Fence, Reach};
pub use read::{Content, HASHED_MAX_BYTES, Opened};
pub use replace::{Replace, ReplaceFile};
pub use search::{Case, Pattern, Search, SearchItem};
pub use walk::{TreePage, Wanted};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
pub use upload::{Completion, Upload, Uploads};
pub use watch::{Means, Ready, WaitFor, Waited, Watch, WatchSpec};

use crate::config::{Bounds, as_usize};
use crate::rt::keyed::Keyed;
use crate::store::Store;

/// What the room needs from outside.
pub struct FsConfig {
    /// Relative paths and `~` start here.
    pub home: PathBuf,
    /// When there are any, no path leads out of them.
    pub roots: Vec<PathBuf>,
    /// Our own files, which are never watched.
    pub data: PathBuf,
    /// Where changes are told.
    pub store: Store,
    /// Every limit.
    pub bounds: Bounds,
}

/// The handle on the room.
#[derive(Clone)]
pub struct Fs {
    inner: Arc<Inner>,
}

struct Inner {
    reach: Reach,
    hashes: hash::Cache,
    /// One at a time changes a file; by its path.
    changing: Keyed,
    /// One permit per transfer in pieces: each holds a thread.
    transfers: Arc<Semaphore>,
    /// As many searches as may be under way.
    searches: Arc<Semaphore>,
    watches: Arc<watch::Watches>,
    baselines: baseline::Baselines,
    bounds: Bounds,
    leases: Arc<Leases>,
    /// Where changes are noted, once it is connected.
    journal: OnceLock<history::Journal>,
}

impl Fs {
    /// Opens the room.
    ///
    /// # Errors
    /// [`Error::Root`]: a root that is no directory.
    pub fn new(config: FsConfig) -> Result<Self, Error> {
        let FsConfig { home, roots, data, store, bounds } = config;
        let reach = Reach::new(home, &roots)?;
        let hashes = hash::Cache::new(as_usize(bounds.fs_hash_cache_max));
        let transfers = Arc::new(Semaphore::new(as_usize(bounds.fs_transfers_max)));
        let searches = Arc::new(Semaphore::new(as_usize(bounds.fs_searches_max)));
        let leases = Arc::new(Leases::new(as_usize(bounds.fs_leases_max)));
        let own = watch::Own::at(&data);
        let baselines = baseline::Baselines::new(data, own.clone(), bounds.clone());
        let watches = Arc::new(watch::Watches::new(store, bounds.clone(), own));
        let (changing, journal) = (Keyed::default(), OnceLock::new());
        let inner = Inner { reach, hashes, changing, transfers, searches, watches, baselines, bounds, leases, journal };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Keeps a history of what is changed from here on, and what sessions have seen; `notices` is told of conflicts. Once:
    /// a second call changes nothing.
    ///
    /// # Errors
    /// [`Error::Store`] when the file can't be read.
    pub async fn connect(&self, notices: Arc<dyn Notices>) -> Result<(), Error> {
        let leases = Arc::clone(&self.inner.leases);
        let store = self.inner.watches.store().clone();
        let journal = history::Journal::start(store, &self.inner.bounds, self.keep_limits(), leases, notices).await?;
        let _ = self.inner.journal.set(journal); // it was connected before
        Ok(())
    }

    /// Held while something is transferred in pieces.
    fn transfer(&self) -> Result<OwnedSemaphorePermit, Error> {
        let busy = |_| Error::Busy { max: self.inner.bounds.fs_transfers_max };
        Arc::clone(&self.inner.transfers).try_acquire_owned().map_err(busy)
    }

    /// Where paths may lead when nothing narrower is said.
    pub fn reach(&self) -> &Reach {
        &self.inner.reach
    }

    /// Nowhere but beneath these; see [`Reach::beneath`]. They are opened anew for each call, so that nothing is held that
    /// has moved meanwhile. Cancel safe.
    ///
    /// # Errors
    /// [`Error::RootGone`], [`Error::Outside`], [`Error::Denied`].
    pub async fn beneath(&self, fences: Vec<Fence>) -> Result<Reach, Error> {
        let reach = self.inner.reach.clone();
        blocking(move || reach.beneath(&fences)).await
    }

    /// What a directory that a client names is as a fence; see [`Reach::fence`]. Cancel safe.
    ///
    /// # Errors
    /// As there.
    pub async fn fence(&self, raw: std::ffi::OsString) -> Result<Fence, Error> {
        let reach = self.inner.reach.clone();
        blocking(move || reach.fence(&raw)).await
    }
}

/// So many threads this room has at once, of the 512 that a runtime makes at most: whoever waits in one of them for the
/// journal or the store must leave others for these.
const THREADS_MAX: usize = 384;
static THREADS: Semaphore = Semaphore::const_new(THREADS_MAX);

/// Runs what blocks on a thread for that, when there is one. Dropping the future doesn't stop it once it has begun.
///
/// # Errors
/// Its own, and [`Error::Stopping`] when the runtime ends.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    let thread = THREADS.acquire().await.map_err(|_| Error::Stopping)?;
    let work = move || {
        let _thread = thread;
        work()
    };
    tokio::task::spawn_blocking(work).await.map_err(|_| Error::Stopping)?
}
