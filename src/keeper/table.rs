//! What the keeper keeps. Room for all of it is reserved once; nothing here grows.

use std::os::fd::OwnedFd;

use super::protocol::{Ended, FDS_MAX, KEY_MAX};

/// Entries at most: more than a server has processes.
pub(super) const ENTRIES_MAX: usize = 4096;

/// One entry.
#[derive(Debug)]
pub(super) struct Entry {
    key: [u8; KEY_MAX],
    key_len: usize,
    pub(super) fds: [Option<OwnedFd>; FDS_MAX],
    /// 0 until it is known.
    pub(super) pid: i32,
    pub(super) ended: Option<Ended>,
}

impl Entry {
    pub(super) fn key(&self) -> &str {
        std::str::from_utf8(&self.key[..self.key_len]).unwrap_or_default() // it came as one
    }
}

/// All entries.
pub(super) struct Table {
    entries: Vec<Entry>,
}

impl Table {
    pub(super) fn new() -> Self {
        Self { entries: Vec::with_capacity(ENTRIES_MAX) }
    }

    /// Keeps descriptors under a key, in the place of what it has. False when the table is full.
    pub(super) fn keep(&mut self, key: &str, fds: [Option<OwnedFd>; FDS_MAX]) -> bool {
        self.forget(key);
        if self.entries.len() >= ENTRIES_MAX || key.len() > KEY_MAX {
            return false;
        }
        let mut entry = Entry { key: [0; KEY_MAX], key_len: key.len(), fds, pid: 0, ended: None };
        entry.key[..key.len()].copy_from_slice(key.as_bytes());
        self.entries.push(entry);
        true
    }

    pub(super) fn started(&mut self, key: &str, pid: i32) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.key() == key) {
            entry.pid = pid;
        }
    }

    /// Closes one of its descriptors.
    pub(super) fn close(&mut self, key: &str, place: u64) {
        let entry = self.entries.iter_mut().find(|entry| entry.key() == key);
        let place = usize::try_from(place).ok();
        if let Some(fd) = entry.zip(place).and_then(|(entry, place)| entry.fds.get_mut(place)) {
            *fd = None;
        }
    }

    /// Closes its descriptors.
    pub(super) fn forget(&mut self, key: &str) {
        if let Some(at) = self.entries.iter().position(|entry| entry.key() == key) {
            self.entries.swap_remove(at);
        }
    }

    /// A child was collected; gives its entry when it has one.
    pub(super) fn exited(&mut self, pid: i32, ended: Ended) -> Option<&Entry> {
        let entry = self.entries.iter_mut().find(|entry| entry.pid == pid && entry.ended.is_none())?;
        entry.ended = Some(ended);
        Some(entry)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_kept_replaced_and_forgotten() {
        let mut table = Table::new();
        assert!(table.keep("a", [const { None }; FDS_MAX]) && table.keep("b", [const { None }; FDS_MAX]));
        table.started("a", 7);
        table.started("nobody", 8);
        assert_eq!(table.exited(7, Ended::Code(3)).map(Entry::key), Some("a"));
        assert!(table.exited(7, Ended::Code(4)).is_none() && table.exited(8, Ended::Code(0)).is_none());
        assert_eq!(table.iter().find(|entry| entry.key() == "a").and_then(|entry| entry.ended), Some(Ended::Code(3)));
        assert!(table.keep("a", [const { None }; FDS_MAX]));
        assert_eq!(table.iter().find(|entry| entry.key() == "a").map(|entry| entry.pid), Some(0));
        table.forget("b");
        table.forget("b");
        assert_eq!(table.iter().count(), 1);
    }

    #[test]
    fn a_full_table_says_so() {
        let mut table = Table::new();
        assert!(!table.keep(&"x".repeat(KEY_MAX + 1), [const { None }; FDS_MAX]));
        for number in 0..ENTRIES_MAX {
            assert!(table.keep(&number.to_string(), [const { None }; FDS_MAX]));
        }
        assert!(!table.keep("one more", [const { None }; FDS_MAX]));
        assert!(table.keep("7", [const { None }; FDS_MAX]), "it has a place already");
    }
}
