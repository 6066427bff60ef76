//! Numbers of children. They are in cookies, and a cookie has to name one tree: so none is given twice under one keeper,
//! which holds the count for the next server.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::keeper::{Keeper, Kept};
use crate::rt::sys::SharedMemory;

const KEY: &str = "numbers";
const BYTES: usize = 8;

pub(super) struct Numbers {
    memory: Option<SharedMemory>,
    alone: AtomicU64,
    /// All smaller ones were given by earlier servers.
    pub(super) first: u64,
}

impl Numbers {
    /// True of what [`Numbers::new`] wants.
    pub(super) fn owns(kept: &Kept) -> bool {
        kept.key == KEY
    }

    /// Goes on with the count of an earlier server, from `least` at least.
    pub(super) fn new(keeper: &Keeper, kept: Option<Kept>, least: u64) -> Self {
        let there = kept.and_then(|kept| SharedMemory::open(kept.fds.into_iter().flatten().next()?).ok());
        let memory = there.filter(|memory| memory.len() == BYTES).or_else(|| {
            let memory = SharedMemory::new("sandboxd-numbers", BYTES).ok().filter(|_| keeper.is_there())?;
            keeper.keep(KEY, &[memory.fd()]).ok()?;
            Some(memory)
        });
        let mut numbers = Self { memory, alone: AtomicU64::new(1), first: least };
        numbers.count_from(least);
        numbers.first = numbers.next().load(Ordering::Relaxed);
        numbers
    }

    fn next(&self) -> &AtomicU64 {
        self.memory.as_ref().map_or(&self.alone, |memory| memory.number(0))
    }

    pub(super) fn take(&self) -> u64 {
        self.next().fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn count_from(&self, next: u64) {
        self.next().fetch_max(next, Ordering::Relaxed);
    }
}
