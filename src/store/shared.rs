//! Who holds the writer: its thread, or a caller whose few events would only wait for that thread to wake up.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::queue::Queue;
use super::types::Error;
use super::writer::Writer;
use crate::rt::clock::now_ms;

/// A commit on the spot that took longer than this blocked a thread of the runtime for too long,
const SLOW_COMMIT: Duration = Duration::from_millis(3);
/// so that for this long none is tried again.
const LEAVE_MS: i64 = 1_000;

/// The writer, held by whoever commits; `None` once it is closed.
pub(super) struct Shared {
    writer: Mutex<Option<Writer>>,
    queue: Arc<Queue>,
    /// Until when, in Unix milliseconds, callers leave all commits to the thread: the disk was slow.
    leave_until_ms: AtomicI64,
}

impl Shared {
    /// See [`Store::flush`](super::Store::flush). One little batch, without waiting for any lock: what comes in
    /// meanwhile, and what another process keeps from being written, is the thread's.
    pub(super) fn flush(&self) {
        if !self.queue.wants() {
            return;
        }
        if !self.queue.is_little() || now_ms() < self.leave_until_ms.load(Ordering::Relaxed) {
            return self.queue.wake();
        }
        match self.writer.try_lock() {
            Ok(mut writer) => {
                let started = Instant::now();
                let went_well = writer.as_mut().is_none_or(Writer::work_a_little);
                drop(writer);
                if !went_well || started.elapsed() > SLOW_COMMIT {
                    self.leave_until_ms.store(now_ms() + LEAVE_MS, Ordering::Relaxed);
                }
                if !went_well || self.queue.wants() {
                    self.queue.wake();
                }
            }
            // The holder may have looked into the queue just before our events came.
            Err(TryLockError::WouldBlock | TryLockError::Poisoned(_)) => self.queue.wake(),
        }
    }

    /// Commits all that is queued when that is a little, and nobody else is at it. False when somebody else must do it.
    pub(super) fn settle_now(&self) -> bool {
        if now_ms() < self.leave_until_ms.load(Ordering::Relaxed) {
            return false;
        }
        let Ok(mut writer) = self.writer.try_lock() else { return false };
        let started = Instant::now();
        // Whoever holds the writer knows that no commit is under way.
        while !self.queue.is_empty() && started.elapsed() < SLOW_COMMIT {
            if !self.queue.is_little() || !writer.as_mut().is_some_and(Writer::work_a_little) {
                return false;
            }
        }
        drop(writer);
        if started.elapsed() > SLOW_COMMIT {
            self.leave_until_ms.store(now_ms() + LEAVE_MS, Ordering::Relaxed);
        }
        self.queue.is_empty()
    }

    fn run(&self) {
        let mut chores_at = Some(Instant::now()); // what the last run left
        loop {
            self.queue.wait(chores_at);
            // Held for one batch at a time: callers with a few events come in between.
            loop {
                let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
                let Some(working) = writer.as_mut() else { return };
                let (is_more, close) = working.work();
                if let Some(close) = close {
                    self.end(writer.take(), close);
                    return;
                }
                if !is_more {
                    chores_at = working.chores();
                    break;
                }
            }
        }
    }

    fn end(&self, writer: Option<Writer>, close: oneshot::Sender<()>) {
        if let Some(writer) = writer {
            writer.close();
        }
        let _ = close.send(()); // who asked may have left
        self.queue.wake(); // the thread ends
    }
}

/// Starts the writer's thread and the checkpoint thread beside it.
pub(super) fn start(writer: Writer) -> Result<Arc<Shared>, Error> {
    let (path, checkpoint, queue) = writer.parts();
    let shared = Arc::new(Shared { writer: Mutex::new(Some(writer)), queue, leave_until_ms: AtomicI64::new(0) });
    let worker = Arc::clone(&shared);
    spawn("store-writer", move || worker.run())?;
    spawn("store-checkpt", move || checkpoint.run(&path))?;
    Ok(shared)
}

/// Starts a thread of the store's.
pub(super) fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    let started = std::thread::Builder::new().name(name.into()).spawn(body);
    started.map(drop).map_err(|error| Error::Write(format!("can't start a thread: {error}")))
}
