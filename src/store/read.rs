//! Reading pages from the file, on connections of their own.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _};

use super::check::Soundness;
use super::open::connect_reader;
use super::types::{Error, Event, GapReason, Item};

/// Connections kept open between reads; more may exist for a moment.
const IDLE_CONNECTIONS_MAX: usize = 2;

/// Read connections, made when needed.
pub(super) struct Readers {
    path: PathBuf,
    soundness: Arc<Soundness>,
    idle: Mutex<Vec<Connection>>,
    /// Reads at once: each takes a thread of the blocking pool and a page cache.
    permits: tokio::sync::Semaphore,
}

impl Readers {
    pub(super) fn new(path: PathBuf, soundness: Arc<Soundness>) -> Self {
        Self { path, soundness, idle: Mutex::default(), permits: tokio::sync::Semaphore::new(4) }
    }

    /// Runs a query on the blocking pool. Dropping the future lets the query end unseen.
    pub(super) async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let _permit = self.permits.acquire().await.map_err(|_| Error::Closed)?;
        let readers = Arc::clone(self);
        let result = tokio::task::spawn_blocking(move || {
            let idle = readers.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let connection = idle.map_or_else(|| connect_reader(&readers.path), Ok)?;
            let result = query(&connection).inspect_err(|error| readers.soundness.saw(error));
            let mut idle = readers.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if result.is_ok() && idle.len() < IDLE_CONNECTIONS_MAX {
                idle.push(connection);
            }
            result
        });
        result.await.map_err(|_| Error::Closed)?.map_err(|error| Error::Read(error.to_string()))
    }
}

/// The events after `after`, with the holes between them named. At least one item when there is any.
pub(super) fn page(
    connection: &Connection,
    stream: i64,
    after: u64,
    max_events: usize,
    max_bytes: usize,
) -> rusqlite::Result<Vec<Item>> {
    let mut select = connection.prepare_cached(
        "SELECT stream_seq, payload FROM events WHERE stream_id = ?1 AND stream_seq > ?2 ORDER BY stream_seq LIMIT ?3",
    )?;
    let mut rows = select.query((stream, as_i64(after), as_i64(max_events as u64)))?;
    let mut items = Vec::new();
    let (mut expected, mut bytes) = (after + 1, 0);
    while let Some(row) = rows.next()? {
        let seq = as_u64(row.get(0)?);
        let payload: Vec<u8> = row.get(1)?;
        bytes += payload.len();
        if seq > expected {
            items.push(Item::Gap { from: expected, to: seq - 1, reason: gap_reason(connection, stream, expected)? });
        }
        expected = seq + 1;
        items.push(Item::Event(Event { seq, payload: Bytes::from(payload), kept: true }));
        if bytes >= max_bytes {
            break;
        }
    }
    Ok(items)
}

fn gap_reason(connection: &Connection, stream: i64, position: u64) -> rusqlite::Result<GapReason> {
    let known: Option<String> = connection
        .prepare_cached("SELECT reason FROM gaps WHERE stream_id = ?1 AND from_seq <= ?2 AND to_seq >= ?2")?
        .query_row((stream, as_i64(position)), |row| row.get(0))
        .optional()?;
    Ok(if known.as_deref() == Some(GapReason::Retention.as_str()) { GapReason::Retention } else { GapReason::NotKept })
}

/// SQLite's integers are signed; positions never come near the difference.
pub(super) fn as_i64(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn as_u64(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
