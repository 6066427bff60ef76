//! Queries over sessions and their turns.

use rusqlite::{Connection, params_from_iter};

use super::read::as_i64;
use super::session_rows::{self as rows, SESSION_COLUMNS, SessionRow, TURN_COLUMNS, TurnRow};

/// Which sessions a list shows.
#[derive(Debug, Clone, Default)]
pub struct SessionFilter {
    /// Of this agent.
    pub agent: Option<String>,
    /// In this working directory.
    pub cwd: Option<String>,
    /// Of this ACP server.
    pub server_id: Option<String>,
    /// Closed ones only, or open ones only.
    pub closed: Option<bool>,
    /// Changed before this one: time and id of the last session of the page before.
    pub before: Option<(i64, String)>,
}

/// Sessions by last change, newest first.
pub(super) fn page(connection: &Connection, filter: &SessionFilter, limit: usize) -> rusqlite::Result<Vec<SessionRow>> {
    let mut conditions = vec!["1"];
    let mut values: Vec<rusqlite::types::Value> = Vec::new();
    for (condition, value) in [("agent = ?", &filter.agent), ("cwd = ?", &filter.cwd), ("server_id = ?", &filter.server_id)] {
        if let Some(value) = value {
            conditions.push(condition);
            values.push(value.clone().into());
        }
    }
    match filter.closed {
        Some(true) => conditions.push("closed_at_ms IS NOT NULL"),
        Some(false) => conditions.push("closed_at_ms IS NULL"),
        None => {}
    }
    if let Some((updated_at_ms, id)) = &filter.before {
        conditions.push("(updated_at_ms, id) < (?, ?)");
        values.extend([(*updated_at_ms).into(), id.clone().into()]);
    }
    values.push(as_i64(limit as u64).into());
    let sql = format!(
        "SELECT {SESSION_COLUMNS} FROM sessions WHERE {} ORDER BY updated_at_ms DESC, id DESC LIMIT ?",
        conditions.join(" AND ")
    );
    connection.prepare_cached(&sql)?.query_map(params_from_iter(values), rows::session)?.collect()
}

pub(super) fn by_id(connection: &Connection, id: &str) -> rusqlite::Result<Option<SessionRow>> {
    let sql = format!("SELECT {SESSION_COLUMNS} FROM sessions WHERE id = ?1");
    rows::one(connection.prepare_cached(&sql)?.query_row([id], rows::session))
}

pub(super) fn by_key(connection: &Connection, key: &str) -> rusqlite::Result<Option<SessionRow>> {
    let sql = format!("SELECT {SESSION_COLUMNS} FROM sessions WHERE idempotency_key = ?1");
    rows::one(connection.prepare_cached(&sql)?.query_row([key], rows::session))
}

/// The session that ACP clients call so; on any server of the agent, the one changed last, when no server is named.
pub(super) fn by_acp(
    connection: &Connection,
    server_id: Option<&str>,
    agent: Option<&str>,
    acp_session_id: &str,
) -> rusqlite::Result<Option<SessionRow>> {
    // Conditions only where they are asked for: SQLite uses no index for one that may be null.
    let mut conditions = vec!["acp_session_id = ?"];
    let mut values = vec![acp_session_id];
    for (condition, value) in [("server_id = ?", server_id), ("agent = ?", agent)] {
        if let Some(value) = value {
            conditions.push(condition);
            values.push(value);
        }
    }
    let conditions = conditions.join(" AND ");
    let sql = format!("SELECT {SESSION_COLUMNS} FROM sessions WHERE {conditions} ORDER BY updated_at_ms DESC LIMIT 1");
    rows::one(connection.prepare_cached(&sql)?.query_row(params_from_iter(values), rows::session))
}

/// Closed sessions that retention no longer keeps: changed before `oldest_ms`, or not among the `keep` changed last.
pub(super) fn beyond(connection: &Connection, keep: u64, oldest_ms: i64) -> rusqlite::Result<Vec<String>> {
    connection
        .prepare_cached(
            "SELECT id FROM sessions WHERE closed_at_ms IS NOT NULL AND updated_at_ms < ?2
             UNION SELECT id FROM (SELECT id FROM sessions WHERE closed_at_ms IS NOT NULL
                                   ORDER BY updated_at_ms DESC, id DESC LIMIT -1 OFFSET ?1)
             LIMIT 100",
        )?
        .query_map((as_i64(keep), oldest_ms), |row| row.get(0))?
        .collect()
}

/// A session's turns after number `after`, in order.
pub(super) fn turns(connection: &Connection, session_id: &str, after: u64, limit: usize) -> rusqlite::Result<Vec<TurnRow>> {
    let sql = format!("SELECT {TURN_COLUMNS} FROM turns WHERE session_id = ?1 AND number > ?2 ORDER BY number LIMIT ?3");
    let limit = as_i64(limit as u64);
    connection.prepare_cached(&sql)?.query_map((session_id, as_i64(after), limit), rows::turn)?.collect()
}

pub(super) fn turn(connection: &Connection, id: &str) -> rusqlite::Result<Option<TurnRow>> {
    let sql = format!("SELECT {TURN_COLUMNS} FROM turns WHERE id = ?1");
    rows::one(connection.prepare_cached(&sql)?.query_row([id], rows::turn))
}

pub(super) fn turn_by_key(connection: &Connection, session_id: &str, key: &str) -> rusqlite::Result<Option<TurnRow>> {
    let sql = format!("SELECT {TURN_COLUMNS} FROM turns WHERE session_id = ?1 AND idempotency_key = ?2");
    rows::one(connection.prepare_cached(&sql)?.query_row((session_id, key), rows::turn))
}

/// The highest number of a session's turns; 0 when it has none.
pub(super) fn last_turn(connection: &Connection, session_id: &str) -> rusqlite::Result<u64> {
    connection
        .prepare_cached("SELECT coalesce(max(number), 0) FROM turns WHERE session_id = ?1")?
        .query_row([session_id], |row| row.get(0))
        .map(super::read::as_u64)
}

/// Turns that an earlier run left queued or running, by session and number.
pub(super) fn unfinished_turns(connection: &Connection) -> rusqlite::Result<Vec<TurnRow>> {
    let sql = format!("SELECT {TURN_COLUMNS} FROM turns WHERE state <> 'ended' ORDER BY session_id, number");
    connection.prepare_cached(&sql)?.query_map([], rows::turn)?.collect()
}
