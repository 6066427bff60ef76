//! Queries over spans, and what is done to many of them at once.

use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use super::read::{as_i64, as_u64};
use super::session_rows::{self as rows, SPAN_COLUMNS, SpanRow};

/// Spans that one transaction removes at most, so that no commit waits long for it.
const TRIM_MAX: u64 = 2000;

/// Which traces a list shows: by their first span.
#[derive(Debug, Clone, Default)]
pub struct TraceFilter {
    /// Of this session.
    pub session_id: Option<String>,
    /// Whose first span is of this kind.
    pub kind: Option<String>,
    /// That began then or later, in Unix milliseconds.
    pub since_ms: Option<i64>,
    /// That began before this one: start and span id of the last one of the page before.
    pub before: Option<(i64, String)>,
}

/// A trace: its first span and what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceRow {
    /// The span without a parent.
    pub root: SpanRow,
    /// All of its spans, that one included.
    pub spans: u64,
    /// Tool calls among them.
    pub tool_calls: u64,
    /// Those that failed.
    pub tool_failures: u64,
    /// Waits for decisions.
    pub waits: u64,
    /// What these took together, as far as they are over, in milliseconds.
    pub waited_ms: u64,
}

/// How one tool did with one agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolRow {
    /// The tool.
    pub tool: String,
    /// The agent; empty when the span doesn't name it.
    pub agent: String,
    /// Calls that are over.
    pub calls: u64,
    /// Those that failed.
    pub failed: u64,
    /// Those that were cancelled or lost.
    pub unfinished: u64,
    /// Milliseconds of all.
    pub total_ms: u64,
    /// Half of the calls took this or less (nearest rank).
    pub p50_ms: u64,
    /// 95 of 100 took this or less.
    pub p95_ms: u64,
    /// The longest.
    pub max_ms: u64,
}

/// A trace's spans in the order in which they began.
pub(super) fn of_trace(connection: &Connection, trace_id: &str, limit: usize) -> rusqlite::Result<Vec<SpanRow>> {
    let sql = format!("SELECT {SPAN_COLUMNS} FROM spans WHERE trace_id = ?1 ORDER BY started_at_ms, span_id LIMIT ?2");
    connection.prepare_cached(&sql)?.query_map((trace_id, as_i64(limit as u64)), rows::span)?.collect()
}

/// A session's spans behind start and id of another one, in the order in which they began.
pub(super) fn of_session(
    connection: &Connection,
    session_id: &str,
    after: Option<&(i64, String)>,
    limit: usize,
) -> rusqlite::Result<Vec<SpanRow>> {
    let sql = format!(
        "SELECT {SPAN_COLUMNS} FROM spans WHERE session_id = ?1 AND (started_at_ms, span_id) > (?2, ?3)
         ORDER BY started_at_ms, span_id LIMIT ?4"
    );
    let (started_at_ms, span_id) = after.map_or((i64::MIN, ""), |(at, id)| (*at, id.as_str()));
    let values = (session_id, started_at_ms, span_id, as_i64(limit as u64));
    connection.prepare_cached(&sql)?.query_map(values, rows::span)?.collect()
}

/// When a session's first span began.
pub(super) fn session_start(connection: &Connection, session_id: &str) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached("SELECT min(started_at_ms) FROM spans WHERE session_id = ?1")?
        .query_row([session_id], |row| row.get(0))
}

/// Traces, newest first.
pub(super) fn traces(connection: &Connection, filter: &TraceFilter, limit: usize) -> rusqlite::Result<Vec<TraceRow>> {
    let of_session = if filter.session_id.is_some() { "session_id = ?1" } else { "?1 IS NULL" }; // for its index
    let sql = format!(
        "SELECT {SPAN_COLUMNS},
             (SELECT count(*) FROM spans t WHERE t.trace_id = s.trace_id),
             (SELECT count(*) FROM spans t WHERE t.trace_id = s.trace_id AND kind = 'tool_call'),
             (SELECT count(*) FROM spans t WHERE t.trace_id = s.trace_id AND kind = 'tool_call' AND outcome = 'failed'),
             (SELECT count(*) FROM spans t WHERE t.trace_id = s.trace_id AND kind = 'permission'),
             (SELECT coalesce(sum(ended_at_ms - started_at_ms), 0) FROM spans t
                 WHERE t.trace_id = s.trace_id AND kind = 'permission')
         FROM spans s
         WHERE parent_span_id IS NULL AND {of_session} AND (?2 IS NULL OR kind = ?2)
           AND started_at_ms >= ?3 AND (started_at_ms, span_id) < (?4, ?5)
         ORDER BY started_at_ms DESC, span_id DESC LIMIT ?6"
    );
    let (before_ms, before_id) = filter.before.as_ref().map_or((i64::MAX, ""), |(at, id)| (*at, id.as_str()));
    let since_ms = filter.since_ms.unwrap_or(i64::MIN);
    let values = params![filter.session_id, filter.kind, since_ms, before_ms, before_id, as_i64(limit as u64)];
    let trace = |row: &rusqlite::Row<'_>| {
        Ok(TraceRow {
            root: rows::span(row)?,
            spans: as_u64(row.get(11)?),
            tool_calls: as_u64(row.get(12)?),
            tool_failures: as_u64(row.get(13)?),
            waits: as_u64(row.get(14)?),
            waited_ms: as_u64(row.get(15)?),
        })
    };
    connection.prepare_cached(&sql)?.query_map(values, trace)?.collect()
}

/// How tools did, the most used first.
pub(super) fn tools(
    connection: &Connection,
    session_id: Option<&str>,
    since_ms: i64,
    limit: usize,
) -> rusqlite::Result<Vec<ToolRow>> {
    let mut select = connection.prepare_cached(
        "WITH calls AS (
             SELECT name, coalesce(doc ->> '$.\"gen_ai.agent.name\"', '') AS agent, outcome,
                 ended_at_ms - started_at_ms AS ms
             FROM spans
             WHERE kind = 'tool_call' AND ended_at_ms IS NOT NULL AND (?1 IS NULL OR session_id = ?1) AND started_at_ms >= ?2),
         ranked AS (
             SELECT *, row_number() OVER (PARTITION BY name, agent ORDER BY ms) AS rank,
                 count(*) OVER (PARTITION BY name, agent) AS calls
             FROM calls)
         SELECT name, agent, count(*), sum(outcome = 'failed'), sum(outcome IN ('cancelled', 'lost')), sum(ms),
             min(CASE WHEN rank * 2 >= calls THEN ms END), min(CASE WHEN rank * 100 >= calls * 95 THEN ms END), max(ms)
         FROM ranked GROUP BY name, agent ORDER BY count(*) DESC, name, agent LIMIT ?3",
    )?;
    let tool = |row: &rusqlite::Row<'_>| {
        Ok(ToolRow {
            tool: row.get(0)?,
            agent: row.get(1)?,
            calls: as_u64(row.get(2)?),
            failed: as_u64(row.get::<_, Option<i64>>(3)?.unwrap_or(0)),
            unfinished: as_u64(row.get::<_, Option<i64>>(4)?.unwrap_or(0)),
            total_ms: as_u64(row.get(5)?),
            p50_ms: as_u64(row.get(6)?),
            p95_ms: as_u64(row.get(7)?),
            max_ms: as_u64(row.get(8)?),
        })
    };
    select.query_map((session_id, since_ms, as_i64(limit as u64)), tool)?.collect()
}

/// Removes the oldest spans beyond `keep`, some at a time.
pub(super) fn trim(tx: &Transaction<'_>, keep: u64) -> rusqlite::Result<()> {
    let count: i64 = tx.prepare_cached("SELECT count(*) FROM spans")?.query_row([], |row| row.get(0))?;
    let beyond = as_u64(count).saturating_sub(keep).min(TRIM_MAX);
    if beyond > 0 {
        tx.prepare_cached(
            "DELETE FROM spans WHERE span_id IN (SELECT span_id FROM spans ORDER BY started_at_ms, span_id LIMIT ?1)",
        )?
        .execute([as_i64(beyond)])?;
    }
    Ok(())
}

/// Those that have not ended, with their sessions. Processes have events that tell how they ended.
pub(super) fn open(connection: &Connection) -> rusqlite::Result<Vec<(String, Option<String>)>> {
    let mut found = connection.prepare_cached(
        "SELECT span_id, session_id FROM spans WHERE ended_at_ms IS NULL AND kind <> 'process' ORDER BY span_id",
    )?;
    found.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

/// When anything was last written to the log, in Unix milliseconds.
pub(super) fn last_heard(connection: &Connection) -> rusqlite::Result<Option<i64>> {
    connection.query_row("SELECT time_ms FROM events ORDER BY seq DESC LIMIT 1", [], |row| row.get(0)).optional()
}

pub(super) fn with_ids(connection: &Connection, ids: &[String]) -> rusqlite::Result<Vec<SpanRow>> {
    let mut found = connection.prepare_cached(&format!("SELECT {SPAN_COLUMNS} FROM spans WHERE span_id = ?1"))?;
    ids.iter().filter_map(|id| found.query_row([id], rows::span).optional().transpose()).collect()
}

/// Ends what an earlier run left open, when it was last heard of.
pub(super) fn lose(tx: &Transaction<'_>, ids: &[String], at_ms: Option<i64>) -> rusqlite::Result<()> {
    let mut update = tx.prepare_cached(
        "UPDATE spans SET outcome = 'lost', ended_at_ms = max(started_at_ms, coalesce(?2, started_at_ms)),
             doc = json_set(doc, '$.\"error.type\"', 'lost')
         WHERE span_id = ?1 AND ended_at_ms IS NULL",
    )?;
    ids.iter().try_for_each(|id| update.execute((id, at_ms)).map(drop))
}

/// Remembers how far the stream of processes was made into spans.
pub(super) fn keep_cursor(tx: &Transaction<'_>, position: u64) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO meta (key, value) VALUES ('process_spans', ?1) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
    )?
    .execute([position.to_string()])?;
    Ok(())
}

pub(super) fn cursor(connection: &Connection) -> rusqlite::Result<u64> {
    let kept: Option<String> =
        connection.query_row("SELECT value FROM meta WHERE key = 'process_spans'", [], |row| row.get(0)).optional()?;
    Ok(kept.and_then(|kept| kept.parse().ok()).unwrap_or(0))
}
