//! Reading what a process wrote, while it writes and afterwards.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use super::Error;
use super::managed::{Follower, Followers, Handle};
use super::room::{Finished, Found, Room};
use super::spool::{GapReason, Item, SpoolIndex, SpoolReader, Stream, Streams};
use super::types::{LogStream, ProcessId, ProcessInfo};

/// A reader that is further behind reads on a thread that may wait for the disk; what was just written is in the page
/// cache.
const NEAR_ENTRIES: u64 = 64;

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
        /// Bytes of the asked streams that are missing.
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
    /// The process ended, and everything was read.
    Over {
        /// `exited`.
        reason: &'static str,
    },
}

/// Reads a log, live or finished. Dropping it ends nothing.
pub struct LogReader {
    id: ProcessId,
    stream: LogStream,
    streams: Streams,
    index: Arc<SpoolIndex>,
    /// Absent while it is with a blocking thread; made again at `position` when that was given up.
    reader: Option<SpoolReader>,
    position: u64,
    live: Option<Live>,
    /// It follows: the process waits a little for it.
    follower: Option<Arc<Follower>>,
}

struct Live {
    followers: Arc<Followers>,
    grown: watch::Receiver<u64>,
    info: watch::Receiver<Arc<ProcessInfo>>,
}

impl LogReader {
    /// Puts a reader where the query wants it.
    pub(super) async fn open(room: &Room, found: &Found, query: LogQuery) -> Result<Self, Error> {
        let info = found.info();
        let (index, live) = match found {
            Found::Alive(Handle { log, info, .. }) => (
                Arc::clone(&log.index),
                Some(Live { followers: Arc::clone(&log.followers), grown: log.grown.clone(), info: info.clone() }),
            ),
            Found::Finished(finished) => (log_of(room, finished).await?, None),
        };
        let stream = query.stream.unwrap_or(if info.tty { LogStream::Pty } else { LogStream::Combined });
        let mut log = Self {
            id: info.id,
            stream,
            streams: streams(stream),
            index,
            reader: None,
            position: query.since,
            live,
            follower: None,
        };
        if let Some(tail) = query.tail {
            let (index, streams) = (Arc::clone(&log.index), log.streams);
            let after = blocking(info.id, move || SpoolReader::new(index).tail(tail as u64, streams)).await?;
            log.position = log.position.max(after);
        }
        Ok(log)
    }

    /// The process now waits for this reader when it is far behind, as long as it goes on reading.
    pub fn follow(&mut self) {
        self.follower = self.live.as_ref().map(|live| live.followers.add(self.position));
    }

    /// What is read: `Combined`, or `Pty` for a terminal, when the query didn't say.
    pub fn stream(&self) -> LogStream {
        self.stream
    }

    /// The newest sequence number of the whole process.
    pub fn last_sequence(&self) -> u64 {
        self.index.end().last_sequence
    }

    /// What comes next, about `max_bytes` of it; nothing when there is no more now. Cancel safe.
    ///
    /// # Errors
    /// [`Error::LogUnreadable`].
    pub async fn read(&mut self, max_bytes: usize) -> Result<Vec<LogItem>, Error> {
        loop {
            let items = self.read_items(max_bytes).await?;
            if items.is_empty() {
                return Ok(Vec::new());
            }
            let shown: Vec<_> = items.into_iter().filter_map(|item| self.show(item)).collect();
            if !shown.is_empty() {
                return Ok(shown);
            }
        }
    }

    /// The same without leaving anything out.
    pub(super) async fn read_items(&mut self, max_bytes: usize) -> Result<Vec<Item>, Error> {
        let last = self.last_sequence();
        if last <= self.position {
            return Ok(Vec::new());
        }
        let mut reader = self.reader.take().unwrap_or_else(|| {
            let mut reader = SpoolReader::new(Arc::clone(&self.index));
            reader.seek_after(self.position);
            reader
        });
        let (reader, items) = if self.live.is_some() && last - self.position <= NEAR_ENTRIES {
            let items = reader.read(max_bytes).map_err(|error| unreadable(self.id, &error))?;
            (reader, items)
        } else {
            blocking(self.id, move || reader.read(max_bytes).map(|items| (reader, items))).await?
        };
        self.position = self.position.max(reader.position());
        if let Some(follower) = &self.follower {
            follower.reached(self.position);
        }
        self.reader = Some(reader);
        Ok(items)
    }

    /// Leaves out what is there already.
    pub(super) fn skip_to_end(&mut self) {
        self.position = self.last_sequence();
        self.reader = None;
    }

    fn show(&self, item: Item) -> Option<LogItem> {
        match item {
            Item::Entry(entry) if self.streams.contains(entry.stream) => Some(LogItem::Entry(LogEntry {
                sequence: entry.sequence,
                stream: log_stream(entry.stream),
                timestamp_ms: entry.time_ms,
                offset: entry.offset,
                data: Bytes::from(entry.bytes),
            })),
            Item::Gap(gap) if gap.bytes.of(self.streams) > 0 => Some(LogItem::Gap {
                from_sequence: gap.from_sequence,
                to_sequence: gap.to_sequence,
                bytes: gap.bytes.of(self.streams),
                reason: match gap.reason {
                    GapReason::Truncated => "truncated",
                    GapReason::NotKept => "not_kept",
                },
            }),
            Item::Entry(_) | Item::Gap(_) | Item::Control { .. } => None,
        }
    }

    /// Waits until there may be more to read, or until it is over. Cancel safe.
    pub async fn changed(&mut self) -> LogState {
        loop {
            // Before looking: what comes after it wakes `changed`.
            let ended = match &mut self.live {
                Some(live) => {
                    live.grown.mark_unchanged();
                    !live.info.borrow_and_update().is_alive()
                }
                None => true,
            };
            if self.last_sequence() > self.position {
                return LogState::More;
            }
            if ended {
                return LogState::Over { reason: "exited" };
            }
            let Some(live) = &mut self.live else { continue };
            tokio::select! {
                grown = live.grown.changed() => if grown.is_err() { self.live = None },
                shown = live.info.changed() => if shown.is_err() { self.live = None },
            }
        }
    }
}

/// The log of a process that is finished.
pub(super) async fn log_of(room: &Room, finished: &Finished) -> Result<Arc<SpoolIndex>, Error> {
    match &finished.unsaved_log {
        Some(log) => Ok(Arc::clone(log)),
        None => load(room, finished.info.id).await,
    }
}

/// The log of a process that is gone, from its files.
pub(super) async fn load(room: &Room, id: ProcessId) -> Result<Arc<SpoolIndex>, Error> {
    let folder = room.spool_dir.clone();
    blocking(id, move || SpoolIndex::load(&folder, id.0)).await
}

/// On a thread that may wait for the disk.
pub(super) async fn blocking<T: Send + 'static>(
    id: ProcessId,
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await.map_err(|_| Error::Stopping)?;
    done.map_err(|error| unreadable(id, &error))
}

fn unreadable(id: ProcessId, error: &std::io::Error) -> Error {
    Error::LogUnreadable { id, cause: error.to_string() }
}

/// The spool's streams of a query.
pub(super) fn streams(stream: LogStream) -> Streams {
    match stream {
        LogStream::Stdout => Streams::from(Stream::Stdout),
        LogStream::Stderr => Streams::from(Stream::Stderr),
        LogStream::Pty => Streams::from(Stream::Pty),
        LogStream::Combined => Streams::from(Stream::Stdout).with(Stream::Stderr),
    }
}

fn log_stream(stream: Stream) -> LogStream {
    match stream {
        Stream::Stdout => LogStream::Stdout,
        Stream::Stderr => LogStream::Stderr,
        Stream::Pty => LogStream::Pty,
    }
}
