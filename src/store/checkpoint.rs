//! Checkpoints beside the writer.

use std::path::Path;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::aside::with;
use super::open::connect_checkpointer;

/// Pages written before the checkpoint thread is woken (4 KiB each).
const CHECKPOINT_PAGES: u64 = 16384;

/// Pages that an earlier server left in the WAL, from which on they are moved at once: opening reads so many in some milliseconds.
const LEFT_PAGES: u64 = 1024;

/// A page in the WAL.
const PAGE_BYTES: u64 = 4096;

/// What is written during a checkpoint keeps the WAL from beginning at its start again: one more follows after this time.
const AGAIN: Duration = Duration::from_secs(2);

/// Moves the WAL into the database beside the writer, so that no commit waits for an fsync.
#[derive(Default)]
pub(super) struct Checkpoint {
    state: Mutex<(u64, bool)>,
    wake: Condvar,
}

impl Checkpoint {
    /// Counts pages that went into the WAL.
    pub(super) fn written(&self, pages: u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 += pages;
        if state.0 >= CHECKPOINT_PAGES {
            self.wake.notify_one();
        }
    }

    pub(super) fn stop(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1 = true;
        self.wake.notify_one();
    }

    /// The checkpoint thread. What a server that was killed left in the WAL counts, too: a server that is killed again and again
    /// would never come to checkpoint, and each start reads the whole WAL.
    pub(super) fn run(&self, path: &Path) {
        let connection = match connect_checkpointer(path) {
            Ok(connection) => connection,
            Err(error) => return tracing::error!(%error, "no checkpoints: the WAL will grow until the server stops"),
        };
        let left = std::fs::metadata(with(path, "-wal")).map_or(0, |wal| wal.len()) / PAGE_BYTES;
        if left >= LEFT_PAGES {
            self.written(CHECKPOINT_PAGES);
        }
        let mut again = false;
        loop {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let mut is_late = false;
            while state.0 < CHECKPOINT_PAGES && !state.1 && !is_late {
                if again {
                    let waited = self.wake.wait_timeout(state, AGAIN).unwrap_or_else(PoisonError::into_inner);
                    (state, is_late) = (waited.0, waited.1.timed_out());
                } else {
                    state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            }
            if state.1 {
                return;
            }
            again = state.0 >= CHECKPOINT_PAGES; // one more once it is quiet
            state.0 = 0;
            drop(state);
            if let Err(error) = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())) {
                tracing::warn!(%error, "checkpoint failed");
            }
        }
    }
}
