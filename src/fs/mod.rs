//! The files room: what HTTP clients do with files in the sandbox. Blocking calls run on threads made for that; nothing is
//! held in memory but a cache of content hashes.
//!
//! | module | what |
//! |---|---|
//! | `path`, `reach`, `beneath` | what a client's path names, and where it may lead |
//! | `entry`, `list` | what a file is, and what a directory holds |
//! | `read`, `hash` | contents, and what tells one content from another |
//! | `draft`, `change` | writes that are all or nothing; directories, moves, removals |
//! | `copy` | copies of files and trees |
//! | `watch` | what changes, told in order |
//!
//! No path is resolved twice: what is checked is what was opened.

mod beneath;
mod change;
mod copy;
mod draft;
mod entry;
mod error;
mod hash;
mod list;
mod path;
mod reach;
mod read;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;

pub use draft::{Draft, Expected, Fsync, Written};
pub use entry::{Kind, Meta};
pub use error::Error;
pub use hash::{Sha256Hex, Validator};
pub use list::Listing;
pub use path::Located;
pub use reach::Reach;
pub use read::{Content, Opened};
pub use watch::{Means, Ready, WaitFor, Waited, Watch, WatchSpec};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::{Bounds, as_usize};
use crate::rt::keyed::Keyed;
use crate::store::Store;

/// What the room needs from outside.
pub struct FsConfig {
    /// Relative paths and `~` start here.
    pub home: PathBuf,
    /// When there are any, no path leads out of them.
    pub roots: Vec<PathBuf>,
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
    watches: Arc<watch::Watches>,
    bounds: Bounds,
}

impl Fs {
    /// Opens the room.
    ///
    /// # Errors
    /// [`Error::Root`]: a root that is no directory.
    pub fn new(config: FsConfig) -> Result<Self, Error> {
        let FsConfig { home, roots, store, bounds } = config;
        let reach = Reach::new(home, &roots)?;
        let hashes = hash::Cache::new(as_usize(bounds.fs_hash_cache_max));
        let transfers = Arc::new(Semaphore::new(as_usize(bounds.fs_transfers_max)));
        let watches = Arc::new(watch::Watches::new(store, bounds.clone()));
        Ok(Self { inner: Arc::new(Inner { reach, hashes, changing: Keyed::default(), transfers, watches, bounds }) })
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
}

/// Runs what blocks on a thread for that. Dropping the future doesn't stop it.
///
/// # Errors
/// Its own, and [`Error::Stopping`] when the runtime ends.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Error::Stopping)?
}
