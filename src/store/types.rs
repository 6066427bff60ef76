//! What the store speaks of.

use std::path::PathBuf;

use bytes::Bytes;

/// What can go wrong with the file.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The file can't be used at all; says what to do.
    #[error("can't open the database {path}: {cause}. {help}")]
    Open {
        /// The file.
        path: PathBuf,
        /// What SQLite or the system said.
        cause: String,
        /// What to do about it.
        help: &'static str,
    },
    /// A change was refused, as by a full disk.
    #[error("the database refused a write: {0}")]
    Write(String),
    /// A page could not be read.
    #[error("the database could not be read: {0}")]
    Read(String),
    /// The store is closing.
    #[error("the database is closed")]
    Closed,
}

/// One event of a stream.
#[derive(Debug, Clone)]
pub struct Event {
    /// Position in its stream, from 1.
    pub seq: u64,
    /// What it carries, verbatim: for ACP one JSON text without a newline.
    pub payload: Bytes,
    /// False when the disk refused it: it lives in memory only.
    pub kept: bool,
}

/// Why a range is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GapReason {
    /// Retention removed it.
    Retention,
    /// The disk refused it.
    NotKept,
}

impl GapReason {
    /// The word on the wire and in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retention => "retention",
            Self::NotKept => "not_kept",
        }
    }
}

/// What a reader gets.
#[derive(Debug, Clone)]
pub enum Item {
    /// An event.
    Event(Event),
    /// The events `from..=to` can't be had any more.
    Gap {
        /// First missing position.
        from: u64,
        /// Last missing position.
        to: u64,
        /// Why.
        reason: GapReason,
    },
}

impl Item {
    /// The position a reader has reached with this item.
    pub fn end(&self) -> u64 {
        match self {
            Self::Event(event) => event.seq,
            Self::Gap { to, .. } => *to,
        }
    }
}

/// Whether commits succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// The last commit succeeded.
    Healthy,
    /// The last commit failed.
    Degraded {
        /// What SQLite said.
        cause: String,
        /// Events that could not be kept since the trouble began.
        events_not_kept: u64,
        /// Since when, in Unix milliseconds.
        since_ms: i64,
    },
}
