//! Queries over requests and rules.

use rusqlite::Connection;

use super::read::as_i64;
use super::session_rows::{self as rows, REQUEST_COLUMNS, RequestRow, RuleRow};

/// Which requests a list shows.
#[derive(Debug, Clone, Default)]
pub struct RequestFilter {
    /// `pending` or `resolved`.
    pub state: Option<String>,
    /// Of this session.
    pub session_id: Option<String>,
    /// Of this kind.
    pub kind: Option<String>,
    /// Made before this one: the last id of the page before.
    pub before: Option<String>,
}

/// Requests, newest first.
pub(super) fn page(connection: &Connection, filter: &RequestFilter, limit: usize) -> rusqlite::Result<Vec<RequestRow>> {
    let sql = format!(
        "SELECT {REQUEST_COLUMNS} FROM requests
         WHERE (?1 IS NULL OR state = ?1) AND (?2 IS NULL OR session_id = ?2) AND (?3 IS NULL OR kind = ?3)
           AND (?4 IS NULL OR id < ?4)
         ORDER BY id DESC LIMIT ?5"
    );
    let values = (&filter.state, &filter.session_id, &filter.kind, &filter.before, as_i64(limit as u64));
    connection.prepare_cached(&sql)?.query_map(values, rows::request)?.collect()
}

pub(super) fn by_id(connection: &Connection, id: &str) -> rusqlite::Result<Option<RequestRow>> {
    let sql = format!("SELECT {REQUEST_COLUMNS} FROM requests WHERE id = ?1");
    rows::one(connection.prepare_cached(&sql)?.query_row([id], rows::request))
}

/// All rules, in the order in which they are tried.
pub(super) fn rules(connection: &Connection) -> rusqlite::Result<Vec<RuleRow>> {
    let rule = |row: &rusqlite::Row<'_>| {
        let (id, position, origin) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(RuleRow { id, position, origin, created_at_ms: row.get(3)?, doc: row.get(4)? })
    };
    connection
        .prepare_cached("SELECT id, position, origin, created_at_ms, doc FROM permission_rules ORDER BY position, id")?
        .query_map([], rule)?
        .collect()
}
