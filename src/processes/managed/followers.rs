//! Who follows a log, and how far each may fall behind.
//!
//! A log has a bound: a follower that is slower than the process would find a gap. So the owner pauses reading the process
//! while a follower is far behind (a quarter of the bound), as long as that one reads half of that within `patience`; one
//! that doesn't is *slow*, and may read gaps until it has caught up. The same policy as for a terminal's viewers.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// An entry takes at most so many bytes on disk.
const ENTRY_MAX_BYTES: u64 = 8192 + 32;

/// One who follows. Dropping it stops being considered.
#[derive(Debug)]
pub(in crate::processes) struct Follower {
    position: AtomicU64,
    is_slow: AtomicBool,
    moved: Arc<Notify>,
}

impl Follower {
    /// It has read everything up to this sequence number.
    pub(in crate::processes) fn reached(&self, sequence: u64) {
        self.position.store(sequence, Ordering::Relaxed);
        self.moved.notify_one();
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.moved.notify_one(); // whoever waits for it need not any more
    }
}

/// All followers of one log.
#[derive(Debug, Default)]
pub(in crate::processes) struct Followers {
    all: Mutex<Vec<Weak<Follower>>>,
    count: AtomicU64,
    moved: Arc<Notify>,
}

/// Somebody is far behind.
#[derive(Debug, Clone, Copy)]
pub(in crate::processes) struct Behind {
    /// Where the slowest is.
    position: u64,
    /// Until when it may stay there.
    pub(in crate::processes) until: Instant,
}

impl Followers {
    /// One more, from this position on.
    pub(in crate::processes) fn add(&self, position: u64) -> Arc<Follower> {
        let (position, is_slow) = (AtomicU64::new(position), AtomicBool::new(false));
        let follower = Arc::new(Follower { position, is_slow, moved: Arc::clone(&self.moved) });
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|follower| follower.strong_count() > 0);
        all.push(Arc::downgrade(&follower));
        self.count.store(all.len() as u64, Ordering::Relaxed);
        follower
    }

    /// Whether reading has to pause for somebody: `last` is the newest sequence number, `max_bytes` the log's bound, and
    /// `before` what was said last. Who got too little further in all of its time becomes slow.
    pub(in crate::processes) fn behind(
        &self,
        last: u64,
        max_bytes: u64,
        before: Option<Behind>,
        patience: Duration,
    ) -> Option<Behind> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let far = (max_bytes / 4 / ENTRY_MAX_BYTES).max(2);
        let now = Instant::now();
        let progress = far / 2;
        let timed_out = before.filter(|before| before.until <= now).map(|before| before.position + progress);
        let mut slowest: Option<u64> = None;
        for follower in self.all.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade) {
            let position = follower.position.load(Ordering::Relaxed);
            let is_far = last.saturating_sub(position) > far;
            if !is_far || timed_out.is_some_and(|needed| position < needed) {
                follower.is_slow.store(is_far, Ordering::Relaxed);
            }
            if is_far && !follower.is_slow.load(Ordering::Relaxed) {
                slowest = Some(slowest.map_or(position, |slowest| slowest.min(position)));
            }
        }
        let position = slowest?;
        Some(
            before
                .filter(|before| position < before.position + progress && before.until > now)
                .unwrap_or(Behind { position, until: now + patience }),
        )
    }

    /// Resolves when somebody moved on or went. Cancel safe.
    pub(in crate::processes) async fn moved(&self) {
        self.moved.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);
    const BOUND: u64 = 80 * ENTRY_MAX_BYTES;

    #[test]
    fn reading_pauses_for_one_who_goes_on_and_not_for_one_who_does_not() {
        let followers = Followers::default();
        assert!(followers.behind(1000, BOUND, None, PATIENCE).is_none(), "nobody follows");
        let follower = followers.add(0);
        assert!(followers.behind(20, BOUND, None, PATIENCE).is_none(), "a quarter is not far");
        let behind = followers.behind(21, BOUND, None, PATIENCE);
        assert_eq!(behind.map(|behind| behind.position), Some(0));
        follower.reached(5);
        assert!(followers.behind(21, BOUND, behind, PATIENCE).is_none());
        let stuck = followers.behind(100, BOUND, None, Duration::ZERO);
        assert!(stuck.is_some());
        assert!(followers.behind(100, BOUND, stuck, PATIENCE).is_none(), "its time is over: it is slow");
        assert!(followers.behind(200, BOUND, None, PATIENCE).is_none(), "and stays so");
        follower.reached(190);
        assert!(followers.behind(200, BOUND, None, PATIENCE).is_none());
        assert!(followers.behind(300, BOUND, None, PATIENCE).is_some(), "it had caught up");
        drop(follower);
        assert!(followers.behind(400, BOUND, None, PATIENCE).is_none());
    }
}
