//! Baselines: copies of what was in a directory when an agent's turn began there, so that what a shell command changed, which
//! only a watch sees, can be taken back.
//!
//! ```text
//!  a turn begins ─▶ queue ─▶ thread fs-baseline, of low priority: lists the directory as a watch does,
//!                            copies what it has no copy of ─▶ scratch: a file without a name
//!  it ends ─▶ what was there before? ─▶ a copy; nothing; or nobody knows
//! ```
//!
//! Nobody waits for the thread, so the agent may be first. What the kernel says of a file's last change decides: a copy is
//! what was there when the turn began only when its file, and that there was none only when the directory, had not changed
//! since clearly before that. Everything else isn't known. Copies of files that are as they were serve the next turn.

mod fill;
mod scratch;
#[cfg(test)]
mod tests;
mod view;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::watch::Own;
use super::{Error, Fs, Located, Reach, Thing, blocking};
use crate::config::{Bounds, as_duration, as_usize};
use fill::Filler;
use scratch::Scratch;
use view::{Remembered, View};

/// Turns whose directories wait to be copied; one more has no copies.
const QUEUE_MAX: usize = 64;
/// So long the agent's prompt is before us.
const HEAD_START: Duration = Duration::from_millis(10);
/// How often directories that nobody works in are looked for, at the most.
const LEAST_TICK: Duration = Duration::from_secs(1);

/// What was in a directory when a turn began, as far as it is known by now. Cloning shares it.
#[derive(Clone)]
pub struct Baseline {
    view: Arc<View>,
    /// Somebody works there.
    _held: Arc<()>,
}

/// Directories with copies.
pub(super) struct Baselines {
    shared: Arc<Shared>,
    worker: Mutex<Option<SyncSender<Job>>>,
}

struct Shared {
    scratch: Arc<Scratch>,
    own: Own,
    bounds: Bounds,
    kept: Mutex<HashMap<PathBuf, Kept>>,
}

/// One directory.
struct Kept {
    latest: Arc<View>,
    held: Arc<()>,
    used: Instant,
}

impl Kept {
    fn is_held(&self) -> bool {
        Arc::strong_count(&self.held) > 1
    }
}

/// A directory to be copied.
struct Job {
    at: Located,
    reach: Reach,
    view: Arc<View>,
    /// Of the turn before.
    previous: Option<Arc<View>>,
    due: Instant,
}

impl Baselines {
    /// With a file in `data`, our own directory.
    pub(super) fn new(data: PathBuf, own: Own, bounds: Bounds) -> Self {
        let scratch = Scratch::new(data, bounds.fs_baselines_max_bytes);
        Self { shared: Arc::new(Shared { scratch, own, bounds, kept: Mutex::default() }), worker: Mutex::default() }
    }

    fn begin(&self, reach: Reach, at: Located) -> Option<Baseline> {
        let (view, previous, held) = {
            let mut kept = self.shared.kept();
            if !kept.contains_key(at.path()) && !self.shared.makes_room(&mut kept) {
                tracing::debug!(path = %at.path().display(), "agents work in too many directories: this one isn't copied");
                return None;
            }
            // Turns that go on at once meet each other's changes.
            let others = kept.get(at.path()).filter(|one| one.is_held()).map(|one| one.latest.remembered());
            let view = Arc::new(View::new(at.path().to_path_buf(), others.unwrap_or_else(|| self.shared.remembered())));
            let fresh = || Kept { latest: Arc::clone(&view), held: Arc::default(), used: Instant::now() };
            let one = kept.entry(at.path().to_path_buf()).or_insert_with(fresh);
            let previous = std::mem::replace(&mut one.latest, Arc::clone(&view));
            let previous = Some(previous).filter(|previous| !Arc::ptr_eq(previous, &view));
            (view, previous, Arc::clone(&one.held))
        };
        let (path, due) = (at.path().to_path_buf(), Instant::now() + HEAD_START);
        if !self.send(Job { at, reach, view: Arc::clone(&view), previous: previous.clone(), due }) {
            if let (Some(one), Some(previous)) = (self.shared.kept().get_mut(&path), previous) {
                one.latest = previous;
            }
            return None;
        }
        Some(Baseline { view, _held: held })
    }

    /// False when too much waits.
    fn send(&self, job: Job) -> bool {
        let mut worker = self.worker.lock().unwrap_or_else(PoisonError::into_inner); // whole after each change
        let sent = match &*worker {
            Some(sender) => sender.try_send(job),
            None => Err(TrySendError::Disconnected(job)),
        };
        match sent {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => false,
            // The first, or the thread panicked.
            Err(TrySendError::Disconnected(job)) => {
                let (sender, jobs) = sync_channel(QUEUE_MAX);
                let is_sent = sender.try_send(job).is_ok();
                let shared = Arc::clone(&self.shared);
                let started = std::thread::Builder::new().name("fs-baseline".into()).spawn(move || shared.run(&jobs));
                *worker = started.is_ok().then_some(sender);
                is_sent && worker.is_some()
            }
        }
    }
}

impl Shared {
    fn kept(&self) -> MutexGuard<'_, HashMap<PathBuf, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner) // each change leaves it whole
    }

    fn remembered(&self) -> Arc<Remembered> {
        Arc::new(Remembered::new(Arc::clone(&self.scratch), self.bounds.fs_baseline_max_bytes))
    }

    /// True when there is room for one more directory.
    fn makes_room(&self, kept: &mut HashMap<PathBuf, Kept>) -> bool {
        if kept.len() < as_usize(self.bounds.fs_baselines_max) {
            return true;
        }
        let idle = kept.iter().filter(|(_, one)| !one.is_held()).min_by_key(|(_, one)| one.used).map(|(path, _)| path.clone());
        idle.is_some_and(|path| kept.remove(&path).is_some())
    }

    /// The thread, until the room is gone.
    fn run(&self, jobs: &Receiver<Job>) {
        // Of this thread alone (setpriority(2), "C library/kernel differences"). Without it agents wait a little.
        let _ = rustix::process::setpriority_process(None, 19);
        let tick = (as_duration(self.bounds.fs_baseline_idle_ms) / 4).max(LEAST_TICK);
        loop {
            let is_idle = self.kept().is_empty();
            let job = if is_idle { jobs.recv().map_err(|_| RecvTimeoutError::Disconnected) } else { jobs.recv_timeout(tick) };
            match job {
                Ok(job) => {
                    std::thread::sleep(job.due.saturating_duration_since(Instant::now()));
                    self.copy(&job);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.forget_idle();
        }
    }

    fn copy(&self, job: &Job) {
        let filler = Filler { scratch: &self.scratch, own: &self.own, bounds: &self.bounds };
        match filler.fill(job) {
            Ok(cut) => {
                tracing::debug!(path = %job.at.path().display(), files = job.view.known().files.len(), "the directory of a turn is copied");
                let was_cut = job.previous.as_ref().is_some_and(|previous| previous.known().is_cut);
                if cut.is_any() && !was_cut {
                    let path = job.at.path().display();
                    tracing::warn!(%path, files_left_out = cut.files, is_listed_whole = cut.is_whole, "what agents' shells change here can't all be taken back");
                }
            }
            Err(error) => tracing::debug!(%error, path = %job.at.path().display(), "the directory of a turn isn't copied"),
        }
    }

    fn forget_idle(&self) {
        let idle = as_duration(self.bounds.fs_baseline_idle_ms);
        let now = Instant::now();
        self.kept().retain(|_, one| {
            if one.is_held() {
                one.used = now;
            }
            now.duration_since(one.used) < idle
        });
    }
}

impl Fs {
    /// Begins to copy what is in a directory, as it is now; returns at once. `None` when there are too many.
    pub fn baseline(&self, at: Located) -> Option<Baseline> {
        self.inner.baselines.begin(self.reach().clone(), at)
    }
}

impl Baseline {
    /// What was at a path when the turn began; `None` when that isn't known. Cancel safe.
    pub async fn before(&self, path: PathBuf) -> Option<Thing> {
        let view = Arc::clone(&self.view);
        blocking(move || Ok(view.before(&path))).await.ok().flatten()
    }

    /// The files that are known to have been there.
    pub fn files(&self) -> Vec<PathBuf> {
        self.view.files()
    }

    /// True for a directory that is known to have been there.
    pub fn had_directory(&self, path: &std::path::Path) -> bool {
        self.view.had_directory(path)
    }

    /// Keeps a content that the turn itself made, for what it changes later; as long as there is room.
    pub async fn remember(&self, content: bytes::Bytes) {
        let view = Arc::clone(&self.view);
        let remember = move || {
            view.remember(&content);
            Ok(())
        };
        let _: Result<(), Error> = blocking(remember).await; // it is only not known
    }

    /// A content that was there when the turn began at this path, or that was remembered. Cancel safe.
    pub async fn content(&self, path: PathBuf, sha256: String) -> Option<bytes::Bytes> {
        let view = Arc::clone(&self.view);
        blocking(move || Ok(view.content(&path, &sha256))).await.ok().flatten()
    }
}
