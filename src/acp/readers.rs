//! Who reads a server's events live, and how far each has got. A POST's answer waits, briefly, until the readers that
//! keep up have been handed the same events: an answer doesn't overtake the updates that precede it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;

/// The live readers of one stream.
#[derive(Debug, Default)]
pub struct Readers {
    readers: Mutex<Vec<Weak<Reader>>>,
    moved: Arc<Notify>,
}

/// One reader's position; it counts as a reader until it is dropped.
#[derive(Debug)]
pub struct Reader {
    reached: AtomicU64,
    /// Didn't keep up the last time it was waited for; not waited for again until it has caught up.
    late: AtomicBool,
    moved: Arc<Notify>,
}

impl Readers {
    /// A reader at position `after`.
    pub fn register(&self, after: u64) -> Arc<Reader> {
        // A reader that begins far back is late until it has caught up.
        let reader =
            Arc::new(Reader { reached: AtomicU64::new(after), late: AtomicBool::new(true), moved: Arc::clone(&self.moved) });
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        readers.retain(|reader| reader.strong_count() > 0);
        readers.push(Arc::downgrade(&reader));
        reader
    }

    /// How many read it right now.
    pub fn count(&self) -> usize {
        let readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        readers.iter().filter(|reader| reader.strong_count() > 0).count()
    }

    /// Waits until every reader that keeps up has been handed the event at `seq`, at most `patience`. Cancel safe.
    pub async fn reached(&self, seq: u64, patience: Duration) {
        let waited = tokio::time::timeout(patience, async {
            loop {
                let moved = self.moved.notified(); // made before the look, so that no wake is lost in between
                if self.behind(seq).is_empty() {
                    return;
                }
                moved.await;
            }
        });
        if waited.await.is_err() {
            for reader in self.behind(seq) {
                reader.late.store(true, Ordering::Relaxed);
            }
        }
    }

    fn behind(&self, seq: u64) -> Vec<Arc<Reader>> {
        let readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        let living = readers.iter().filter_map(Weak::upgrade);
        living.filter(|reader| !reader.late.load(Ordering::Relaxed) && reader.reached.load(Ordering::Acquire) < seq).collect()
    }
}

impl Reader {
    /// The socket has taken everything up to `seq`; `newest` says whether that is all there is.
    pub fn reached(&self, seq: u64, newest: u64) {
        self.reached.store(seq, Ordering::Release);
        if seq >= newest {
            self.late.store(false, Ordering::Relaxed);
        }
        self.moved.notify_waiters();
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.moved.notify_waiters();
    }
}
