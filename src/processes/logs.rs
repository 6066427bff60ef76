//! Reading what a process wrote, while it writes and afterwards.

use bytes::Bytes;

use super::Error;
use super::types::LogStream;

/// Which part of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogQuery {
    /// Which streams; all of them when absent.
    pub stream: Option<LogStream>,
    /// Only entries after this sequence number.
    pub since: u64,
    /// Only the last so many of those that are there.
    pub tail: Option<usize>,
}

/// A piece of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// From 1, over all streams of the process.
    pub sequence: u64,
    /// `Stdout`, `Stderr` or `Pty`.
    pub stream: LogStream,
    /// When it was read, in Unix milliseconds.
    pub timestamp_ms: i64,
    /// How many bytes of its stream came before it.
    pub offset: u64,
    /// At most 8192 bytes; valid UTF-8 is not split.
    pub data: Bytes,
}

/// What a reader gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogItem {
    /// Output.
    Entry(LogEntry),
    /// Output that can't be had any more.
    Gap {
        /// First missing sequence number.
        from_sequence: u64,
        /// Last missing sequence number.
        to_sequence: u64,
        /// Bytes that are missing, over all streams.
        bytes: u64,
        /// `truncated` (the log's bound) or `not_kept` (the disk refused it).
        reason: &'static str,
    },
}

/// Whether a log goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogState {
    /// There may be more to read.
    More,
    /// The process ended or was deleted, and everything was read.
    Over {
        /// `exited` or `deleted`.
        reason: &'static str,
    },
}

/// Reads a log, live or finished. Dropping it ends nothing.
#[derive(Debug)]
pub struct LogReader {
    stream: LogStream,
}

impl LogReader {
    /// What is read: `Combined`, or `Pty` for a terminal, when the query didn't say.
    pub fn stream(&self) -> LogStream {
        self.stream
    }

    /// The newest sequence number of the whole process.
    pub fn last_sequence(&self) -> u64 {
        0
    }

    /// What comes next, about `max_bytes` of it; nothing when there is no more now. Cancel safe.
    ///
    /// # Errors
    /// [`Error::LogUnreadable`].
    #[allow(clippy::unused_async)]
    pub async fn read(&mut self, max_bytes: usize) -> Result<Vec<LogItem>, Error> {
        let _ = max_bytes;
        Ok(Vec::new())
    }

    /// Waits until there may be more to read, or until it is over. Cancel safe.
    #[allow(clippy::unused_async)]
    pub async fn changed(&mut self) -> LogState {
        LogState::Over { reason: "exited" }
    }
}
