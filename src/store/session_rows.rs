//! Rows of sessions, turns, requests, rules and spans, as the file has them, and how they are written.

use rusqlite::{OptionalExtension as _, Row, Transaction, params};

use super::read::{as_i64, as_u64};

/// A session as the file remembers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRow {
    /// `ses_…`; names its stream `session/<id>`.
    pub id: String,
    /// The ACP server that carries it.
    pub server_id: String,
    /// The id that ACP clients use.
    pub acp_session_id: String,
    /// The agent's id.
    pub agent: String,
    /// Its working directory.
    pub cwd: String,
    /// What people call it.
    pub title: Option<String>,
    /// Unix milliseconds.
    pub created_at_ms: i64,
    /// Unix milliseconds.
    pub updated_at_ms: i64,
    /// Unix milliseconds, once it is closed.
    pub closed_at_ms: Option<i64>,
    /// What its creator called the request, and a digest of it.
    pub idempotency: Option<(String, String)>,
    /// Everything else: a JSON object.
    pub doc: String,
}

/// A turn as the file remembers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TurnRow {
    /// `turn_…`.
    pub id: String,
    /// The session.
    pub session_id: String,
    /// Orders the turns of a session, from 1.
    pub number: u64,
    /// `queued`, `running` or `ended`.
    pub state: String,
    /// What its sender called the request, and a digest of it.
    pub idempotency: Option<(String, String)>,
    /// Everything else: a JSON object.
    pub doc: String,
}

/// A request for a decision as the file remembers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestRow {
    /// `req_…`.
    pub id: String,
    /// The session, when it belongs to one.
    pub session_id: Option<String>,
    /// The ACP server whose agent asks.
    pub server_id: String,
    /// `permission`, `elicitation`, `question`, …
    pub kind: String,
    /// `pending` or `resolved`.
    pub state: String,
    /// Unix milliseconds.
    pub created_at_ms: i64,
    /// Unix milliseconds.
    pub resolved_at_ms: Option<i64>,
    /// Everything else: a JSON object.
    pub doc: String,
}

/// A rule that decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleRow {
    /// `rule_…`.
    pub id: String,
    /// Rules are tried in this order.
    pub position: i64,
    /// `policy` or `remembered`.
    pub origin: String,
    /// Unix milliseconds.
    pub created_at_ms: i64,
    /// The rule: a JSON object.
    pub doc: String,
}

/// A span as the file remembers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpanRow {
    /// 16 hex digits.
    pub span_id: String,
    /// 32 hex digits.
    pub trace_id: String,
    /// The span around it.
    pub parent_span_id: Option<String>,
    /// The session, when it belongs to one.
    pub session_id: Option<String>,
    /// The turn, when it belongs to one.
    pub turn_id: Option<String>,
    /// `turn`, `tool_call`, `permission` or `process`.
    pub kind: String,
    /// What ran: a tool's name, a command.
    pub name: String,
    /// Unix milliseconds.
    pub started_at_ms: i64,
    /// Unix milliseconds, once it is over.
    pub ended_at_ms: Option<i64>,
    /// How it ended, as a word.
    pub outcome: Option<String>,
    /// Attributes: a JSON object.
    pub doc: String,
}

/// The columns of [`session`], in its order.
pub(super) const SESSION_COLUMNS: &str = "id, server_id, acp_session_id, agent, cwd, title, created_at_ms, updated_at_ms, \
     closed_at_ms, idempotency_key, request_hash, doc";

pub(super) fn session(row: &Row<'_>) -> rusqlite::Result<SessionRow> {
    Ok(SessionRow {
        id: row.get(0)?,
        server_id: row.get(1)?,
        acp_session_id: row.get(2)?,
        agent: row.get(3)?,
        cwd: row.get(4)?,
        title: row.get(5)?,
        created_at_ms: row.get(6)?,
        updated_at_ms: row.get(7)?,
        closed_at_ms: row.get(8)?,
        idempotency: row.get::<_, Option<String>>(9)?.zip(row.get(10)?),
        doc: row.get(11)?,
    })
}

/// The columns of [`turn`], in its order.
pub(super) const TURN_COLUMNS: &str = "id, session_id, number, state, idempotency_key, request_hash, doc";

pub(super) fn turn(row: &Row<'_>) -> rusqlite::Result<TurnRow> {
    Ok(TurnRow {
        id: row.get(0)?,
        session_id: row.get(1)?,
        number: as_u64(row.get(2)?),
        state: row.get(3)?,
        idempotency: row.get::<_, Option<String>>(4)?.zip(row.get(5)?),
        doc: row.get(6)?,
    })
}

/// The columns of [`request`], in its order.
pub(super) const REQUEST_COLUMNS: &str = "id, session_id, server_id, kind, state, created_at_ms, resolved_at_ms, doc";

pub(super) fn request(row: &Row<'_>) -> rusqlite::Result<RequestRow> {
    Ok(RequestRow {
        id: row.get(0)?,
        session_id: row.get(1)?,
        server_id: row.get(2)?,
        kind: row.get(3)?,
        state: row.get(4)?,
        created_at_ms: row.get(5)?,
        resolved_at_ms: row.get(6)?,
        doc: row.get(7)?,
    })
}

/// The columns of [`span`], in its order.
pub(super) const SPAN_COLUMNS: &str = "span_id, trace_id, parent_span_id, session_id, turn_id, kind, name, started_at_ms, \
     ended_at_ms, outcome, doc";

pub(super) fn span(row: &Row<'_>) -> rusqlite::Result<SpanRow> {
    Ok(SpanRow {
        span_id: row.get(0)?,
        trace_id: row.get(1)?,
        parent_span_id: row.get(2)?,
        session_id: row.get(3)?,
        turn_id: row.get(4)?,
        kind: row.get(5)?,
        name: row.get(6)?,
        started_at_ms: row.get(7)?,
        ended_at_ms: row.get(8)?,
        outcome: row.get(9)?,
        doc: row.get(10)?,
    })
}

/// An upsert, not a replacement: a replacement would delete the turns that hang on the row.
pub(super) fn put_session(tx: &Transaction<'_>, row: &SessionRow) -> rusqlite::Result<()> {
    let (key, hash) = parts(row.idempotency.as_ref());
    tx.prepare_cached(
        "INSERT INTO sessions (id, server_id, acp_session_id, agent, cwd, title, created_at_ms, updated_at_ms, closed_at_ms,
             idempotency_key, request_hash, doc)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
         ON CONFLICT (id) DO UPDATE SET server_id = excluded.server_id, acp_session_id = excluded.acp_session_id,
             cwd = excluded.cwd, title = excluded.title, updated_at_ms = excluded.updated_at_ms,
             closed_at_ms = excluded.closed_at_ms, doc = excluded.doc",
    )?
    .execute(params![
        row.id,
        row.server_id,
        row.acp_session_id,
        row.agent,
        row.cwd,
        row.title,
        row.created_at_ms,
        row.updated_at_ms,
        row.closed_at_ms,
        key,
        hash,
        row.doc,
    ])?;
    Ok(())
}

/// Its turns, requests and spans go with it; its stream is left to the sweep.
pub(super) fn delete_session(tx: &Transaction<'_>, id: &str) -> rusqlite::Result<()> {
    tx.prepare_cached("DELETE FROM sessions WHERE id = ?1")?.execute([id])?;
    super::sweep::orphan_stream(tx, &format!("session/{id}"))
}

/// Nothing is written when the session is gone.
pub(super) fn put_turn(tx: &Transaction<'_>, row: &TurnRow) -> rusqlite::Result<()> {
    let (key, hash) = parts(row.idempotency.as_ref());
    tx.prepare_cached(
        "INSERT INTO turns (id, session_id, number, state, idempotency_key, request_hash, doc)
         SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7 WHERE EXISTS (SELECT 1 FROM sessions WHERE id = ?2)
         ON CONFLICT (id) DO UPDATE SET number = excluded.number, state = excluded.state, doc = excluded.doc
             WHERE session_id = excluded.session_id",
    )?
    .execute(params![row.id, row.session_id, as_i64(row.number), row.state, key, hash, row.doc])?;
    Ok(())
}

/// Nothing is written when the session is gone.
pub(super) fn put_request(tx: &Transaction<'_>, row: &RequestRow) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO requests (id, session_id, server_id, kind, state, created_at_ms, resolved_at_ms, doc)
         SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8 WHERE ?2 IS NULL OR EXISTS (SELECT 1 FROM sessions WHERE id = ?2)
         ON CONFLICT (id) DO UPDATE SET state = excluded.state, resolved_at_ms = excluded.resolved_at_ms, doc = excluded.doc",
    )?
    .execute(params![
        row.id,
        row.session_id,
        row.server_id,
        row.kind,
        row.state,
        row.created_at_ms,
        row.resolved_at_ms,
        row.doc
    ])?;
    Ok(())
}

pub(super) fn put_rule(tx: &Transaction<'_>, row: &RuleRow) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT OR REPLACE INTO permission_rules (id, position, origin, created_at_ms, doc) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?
    .execute(params![row.id, row.position, row.origin, row.created_at_ms, row.doc])?;
    Ok(())
}

/// Nothing is written when the session is gone.
pub(super) fn put_span(tx: &Transaction<'_>, row: &SpanRow) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO spans (span_id, trace_id, parent_span_id, session_id, turn_id, kind, name, started_at_ms, ended_at_ms,
             outcome, doc)
         SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11
         WHERE ?4 IS NULL OR EXISTS (SELECT 1 FROM sessions WHERE id = ?4)
         ON CONFLICT (span_id) DO UPDATE SET name = excluded.name, ended_at_ms = excluded.ended_at_ms,
             outcome = excluded.outcome, doc = excluded.doc",
    )?
    .execute(params![
        row.span_id,
        row.trace_id,
        row.parent_span_id,
        row.session_id,
        row.turn_id,
        row.kind,
        row.name,
        row.started_at_ms,
        row.ended_at_ms,
        row.outcome,
        row.doc,
    ])?;
    Ok(())
}

/// A row that may not be there.
pub(super) fn one<T>(result: rusqlite::Result<T>) -> rusqlite::Result<Option<T>> {
    result.optional()
}

fn parts(idempotency: Option<&(String, String)>) -> (Option<&String>, Option<&String>) {
    idempotency.map_or((None, None), |(key, hash)| (Some(key), Some(hash)))
}
