//! The whole log in its one order: what `/v1/events` reads. Raw ACP envelopes (streams `acp/…`) are left out unless they
//! are asked for: what they mean stands in the streams of their sessions.

use std::borrow::Cow;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, Transaction};
use serde::Deserialize;

use super::read::{as_i64, as_u64};
use super::types::GapReason;

/// The key in `meta` of the last position of the log that was given before rows were removed.
const LAST_SEQ: &str = "last_seq";

/// The stream in which processes are told of.
const PROCESSES: &str = "processes";

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

/// A range of a stream that is not in the log any more, or never was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogGap {
    /// Where in the whole log it lies: at the last event that was removed, or before the first that was kept again.
    pub seq: u64,
    /// The stream.
    pub stream: String,
    /// First missing position there.
    pub from: u64,
    /// Last missing position there.
    pub to: u64,
    /// Why.
    pub reason: GapReason,
}

/// Which events of the log are wanted: those of the named streams and processes, or all when none is named; and of
/// these the named types, or all.
#[derive(Debug, Clone, Default)]
pub struct LogFilter {
    /// Of these streams.
    pub streams: Vec<String>,
    /// About these processes (`proc_<n>`).
    pub processes: Vec<String>,
    /// Only of these types; `turn.*` means all that begin with `turn.`.
    pub kinds: Vec<String>,
}

/// A page of the log.
#[derive(Debug, Clone, Default)]
pub struct LogPage {
    /// In order.
    pub events: Vec<LogEvent>,
    /// What is missing of wanted streams between where the page began and `reached`, in order.
    pub gaps: Vec<LogGap>,
    /// Everything up to here was looked at: where the next page starts, also when nothing was found.
    pub reached: u64,
    /// True when the log ended here at the time of reading.
    pub is_last: bool,
}

/// How much one page may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct PageLimits {
    /// Events that it gives.
    pub(super) max_events: usize,
    /// Their payload; one event is given whatever its size.
    pub(super) max_bytes: usize,
    /// Rows that it looks at.
    pub(super) max_scanned: usize,
}

/// Before rows are removed: their positions must not be given again.
pub(super) fn remember_last(tx: &Transaction<'_>) -> rusqlite::Result<()> {
    let last = tx.query_row("SELECT coalesce(max(seq), 0) FROM events", [], |row| row.get::<_, i64>(0))?;
    remember(tx, last)
}

/// No position up to `last` is given again.
pub(super) fn remember(connection: &Connection, last: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO meta (key, value) VALUES (?1, ?2)
             ON CONFLICT (key) DO UPDATE SET value = excluded.value
             WHERE CAST(value AS INTEGER) < CAST(excluded.value AS INTEGER)",
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

/// What follows `after`. Events and gaps are of one moment.
pub(super) fn page(connection: &Connection, after: u64, filter: &LogFilter, limits: PageLimits) -> rusqlite::Result<LogPage> {
    let moment = connection.unchecked_transaction()?; // reads only; a connection of the readers has none open
    let mut page = events(&moment, after, filter, limits)?;
    page.gaps = gaps(&moment, after, page.reached, filter)?;
    Ok(page)
}

fn events(connection: &Connection, after: u64, filter: &LogFilter, limits: PageLimits) -> rusqlite::Result<LogPage> {
    let mut select = connection.prepare_cached(
        "SELECT e.seq, s.name, e.stream_seq, e.time_ms, e.type, e.payload FROM events e JOIN streams s ON s.id = e.stream_id
         WHERE e.seq > ?1 ORDER BY e.seq LIMIT ?2",
    )?;
    let mut rows = select.query((as_i64(after), as_i64(limits.max_scanned as u64)))?;
    let mut page = LogPage { reached: after, ..LogPage::default() };
    let (mut bytes, mut scanned) = (0, 0);
    while page.events.len() < limits.max_events {
        let Some(row) = rows.next()? else {
            page.is_last = scanned < limits.max_scanned;
            return Ok(page);
        };
        scanned += 1;
        let seq = as_u64(row.get(0)?);
        let (stream, kind) = (row.get_ref(1)?.as_str()?, row.get_ref(4)?.as_str()?);
        if filter.wants(stream, kind, || row.get_ref(5)?.as_blob().map_err(Into::into))? {
            let payload = row.get_ref(5)?.as_blob()?;
            bytes += payload.len();
            if !page.events.is_empty() && bytes > limits.max_bytes {
                break;
            }
            page.events.push(LogEvent {
                seq,
                stream: stream.to_owned(),
                stream_seq: as_u64(row.get(2)?),
                time_ms: row.get(3)?,
                kind: kind.to_owned(),
                payload: Bytes::copy_from_slice(payload),
            });
        }
        page.reached = seq;
    }
    Ok(page)
}

/// The events of one stream behind `after` there.
pub(super) fn of_stream(
    connection: &Connection,
    name: &str,
    after: u64,
    max_events: usize,
    max_bytes: usize,
) -> rusqlite::Result<Vec<LogEvent>> {
    let mut select = connection.prepare_cached(
        "SELECT seq, stream_seq, time_ms, type, payload FROM events
         WHERE stream_id = (SELECT id FROM streams WHERE name = ?1) AND stream_seq > ?2 ORDER BY stream_seq LIMIT ?3",
    )?;
    let mut rows = select.query((name, as_i64(after), as_i64(max_events as u64)))?;
    let (mut events, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let payload = row.get_ref(4)?.as_blob()?;
        bytes += payload.len();
        events.push(LogEvent {
            seq: as_u64(row.get(0)?),
            stream: name.to_owned(),
            stream_seq: as_u64(row.get(1)?),
            time_ms: row.get(2)?,
            kind: row.get(3)?,
            payload: Bytes::copy_from_slice(payload),
        });
        if bytes >= max_bytes {
            break;
        }
    }
    Ok(events)
}

/// The gaps of wanted streams that lie behind `after` and no further than `reached`.
fn gaps(connection: &Connection, after: u64, reached: u64, filter: &LogFilter) -> rusqlite::Result<Vec<LogGap>> {
    let mut select = connection.prepare_cached(
        "SELECT g.log_seq, s.name, g.from_seq, g.to_seq, g.reason FROM gaps g JOIN streams s ON s.id = g.stream_id
         WHERE g.log_seq > ?1 AND g.log_seq <= ?2 ORDER BY g.log_seq, g.stream_id, g.from_seq",
    )?;
    let gap = |row: &rusqlite::Row<'_>| {
        let retention = row.get_ref(4)?.as_str()? == GapReason::Retention.as_str();
        Ok(LogGap {
            seq: as_u64(row.get(0)?),
            stream: row.get(1)?,
            from: as_u64(row.get(2)?),
            to: as_u64(row.get(3)?),
            reason: if retention { GapReason::Retention } else { GapReason::NotKept },
        })
    };
    let found = select.query_map((as_i64(after), as_i64(reached)), gap)?;
    found.filter(|gap| gap.as_ref().is_ok_and(|gap| filter.may_hold(&gap.stream)) || gap.is_err()).collect()
}

impl LogFilter {
    fn names_nothing(&self) -> bool {
        self.streams.is_empty() && self.processes.is_empty()
    }

    /// Whether something of this stream may be wanted.
    fn may_hold(&self, stream: &str) -> bool {
        if self.names_nothing() {
            return !stream.starts_with("acp/");
        }
        self.streams.iter().any(|one| one == stream) || (!self.processes.is_empty() && stream == PROCESSES)
    }

    fn wants<'a>(
        &self,
        stream: &str,
        kind: &str,
        payload: impl FnOnce() -> rusqlite::Result<&'a [u8]>,
    ) -> rusqlite::Result<bool> {
        let matches = |wanted: &String| match wanted.strip_suffix('*') {
            Some(prefix) => kind.starts_with(prefix),
            None => kind == wanted,
        };
        if !self.may_hold(stream) || !(self.kinds.is_empty() || self.kinds.iter().any(matches)) {
            return Ok(false);
        }
        if self.names_nothing() || self.streams.iter().any(|one| one == stream) {
            return Ok(true);
        }
        Ok(about(payload()?).iter().any(|id| self.processes.iter().any(|wanted| wanted == id)))
    }
}

/// What events of the stream `processes` are about.
#[derive(Deserialize, Default)]
struct About<'a> {
    #[serde(borrow)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    ids: Vec<Cow<'a, str>>,
    #[serde(borrow)]
    process: Option<AboutOne<'a>>,
    #[serde(borrow)]
    port: Option<AboutPort<'a>>,
}

#[derive(Deserialize)]
struct AboutOne<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AboutPort<'a> {
    #[serde(borrow)]
    process_id: Option<Cow<'a, str>>,
}

/// The processes that an event of their stream names.
fn about(payload: &[u8]) -> Vec<Cow<'_, str>> {
    let About { id, ids, process, port } = serde_json::from_slice(payload).unwrap_or_default();
    let named = [id, process.map(|process| process.id), port.and_then(|port| port.process_id)];
    named.into_iter().flatten().chain(ids).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_processes_are_known_by_what_they_are_about() {
        for (payload, expected) in [
            (r#"{"type":"process.started","process":{"id":"proc_1","args":["proc_2"]}}"#, vec!["proc_1"]),
            (r#"{"type":"process.ran","id":"proc_3"}"#, vec!["proc_3"]),
            (r#"{"type":"process.deleted","ids":["proc_1","proc_2"]}"#, vec!["proc_1", "proc_2"]),
            (r#"{"type":"port.opened","port":{"port":80,"processId":"proc_4"}}"#, vec!["proc_4"]),
            (r#"{"type":"port.opened","port":{"port":80}}"#, vec![]),
            ("no JSON", vec![]),
        ] {
            assert_eq!(about(payload.as_bytes()), expected, "{payload}");
        }
    }

    #[test]
    fn a_filter_names_sources_and_types() {
        let list = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let wants = |filter: &LogFilter, stream: &str, kind: &str| {
            let payload = br#"{"process":{"id":"proc_1"}}"#;
            filter.wants(stream, kind, || Ok(payload)).expect("no SQL")
        };
        let all = LogFilter::default();
        assert!(wants(&all, "session/a", "turn.started") && wants(&all, "processes", "x") && !wants(&all, "acp/i/out", "x"));
        let some = LogFilter { streams: list(&["session/a"]), processes: list(&["proc_1"]), kinds: list(&["turn.*", "x"]) };
        assert!(wants(&some, "session/a", "turn.started") && wants(&some, "processes", "x"));
        assert!(!wants(&some, "session/b", "turn.started") && !wants(&some, "session/a", "turn"));
        let other = LogFilter { processes: list(&["proc_2"]), ..LogFilter::default() };
        assert!(!wants(&other, "processes", "x") && !wants(&other, "session/a", "x"));
    }
}
