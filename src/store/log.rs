//! The whole log in its one order: what `/v1/events` reads. Raw ACP envelopes (streams `acp/…`) are left out: what they
//! mean stands in the streams of their sessions.

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, Transaction};

use super::read::{as_i64, as_u64};

/// The key in `meta` of the last position of the log that was given before rows were removed.
const LAST_SEQ: &str = "last_seq";

/// An event with its place in the whole log.
#[derive(Debug, Clone)]
pub struct LogEvent {
    /// Its position in the log; grows by time, with holes.
    pub seq: u64,
    /// The stream it belongs to, such as `session/ses_…` or `processes`.
    pub stream: String,
    /// Its position there.
    pub stream_seq: u64,
    /// Unix milliseconds of its commit.
    pub time_ms: i64,
    /// Its type, such as `turn.started`.
    pub kind: String,
    /// What it carries: one JSON text.
    pub payload: Bytes,
}

/// Which events of the log are wanted. Empty lists want all.
#[derive(Debug, Clone, Default)]
pub struct LogFilter {
    /// Only of these streams.
    pub streams: Vec<String>,
    /// Only of these types; `turn.*` means all that begin with `turn.`.
    pub kinds: Vec<String>,
}

/// A page of the log.
#[derive(Debug, Clone, Default)]
pub struct LogPage {
    /// In order.
    pub events: Vec<LogEvent>,
    /// Everything up to here was looked at: where the next page starts, also when nothing was found.
    pub reached: u64,
}

/// Before rows are removed: their positions must not be given again.
pub(super) fn remember_last(tx: &Transaction<'_>) -> rusqlite::Result<()> {
    let last = tx.query_row("SELECT coalesce(max(seq), 0) FROM events", [], |row| row.get::<_, i64>(0))?;
    tx.prepare_cached(
        "INSERT INTO meta (key, value) VALUES (?1, ?2)
         ON CONFLICT (key) DO UPDATE SET value = excluded.value WHERE CAST(value AS INTEGER) < CAST(excluded.value AS INTEGER)",
    )?
    .execute((LAST_SEQ, last.to_string()))?;
    Ok(())
}

/// The last position ever given.
pub(super) fn last_seq(connection: &Connection) -> rusqlite::Result<i64> {
    let written: i64 = connection.query_row("SELECT coalesce(max(seq), 0) FROM events", [], |row| row.get(0))?;
    let kept: Option<String> =
        connection.query_row("SELECT value FROM meta WHERE key = ?1", [LAST_SEQ], |row| row.get(0)).optional()?;
    Ok(kept.and_then(|kept| kept.parse().ok()).unwrap_or(0).max(written))
}

/// What follows `after`, looking at `max_scanned` rows and giving `max_events` at most.
pub(super) fn page(
    connection: &Connection,
    after: u64,
    filter: &LogFilter,
    max_events: usize,
    max_bytes: usize,
    max_scanned: usize,
) -> rusqlite::Result<LogPage> {
    let mut select = connection.prepare_cached(
        "SELECT e.seq, s.name, e.stream_seq, e.time_ms, e.type, e.payload FROM events e JOIN streams s ON s.id = e.stream_id
         WHERE e.seq > ?1 ORDER BY e.seq LIMIT ?2",
    )?;
    let mut rows = select.query((as_i64(after), as_i64(max_scanned as u64)))?;
    let mut page = LogPage { events: Vec::new(), reached: after };
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        let seq = as_u64(row.get(0)?);
        let (stream, kind) = (row.get_ref(1)?.as_str()?, row.get_ref(4)?.as_str()?);
        if filter.wants(stream, kind) {
            let payload: Vec<u8> = row.get(5)?;
            bytes += payload.len();
            if !page.events.is_empty() && bytes > max_bytes {
                break;
            }
            page.events.push(LogEvent {
                seq,
                stream: stream.to_owned(),
                stream_seq: as_u64(row.get(2)?),
                time_ms: row.get(3)?,
                kind: kind.to_owned(),
                payload: payload.into(),
            });
        }
        page.reached = seq;
        if page.events.len() >= max_events {
            break;
        }
    }
    Ok(page)
}

impl LogFilter {
    fn wants(&self, stream: &str, kind: &str) -> bool {
        let of_stream =
            if self.streams.is_empty() { !stream.starts_with("acp/") } else { self.streams.iter().any(|one| one == stream) };
        let matches = |wanted: &String| match wanted.strip_suffix('*') {
            Some(prefix) => kind.starts_with(prefix),
            None => kind == wanted,
        };
        of_stream && (self.kinds.is_empty() || self.kinds.iter().any(matches))
    }
}
