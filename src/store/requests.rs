//! Queries over requests and rules.

use rusqlite::{Connection, params_from_iter};

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
    // Conditions only where they are asked for: SQLite uses no index for one that may be null.
    let mut conditions = vec!["1"];
    let mut values: Vec<rusqlite::types::Value> = Vec::new();
    let given = [
        ("state = ?", &filter.state),
        ("session_id = ?", &filter.session_id),
        ("kind = ?", &filter.kind),
        ("id < ?", &filter.before),
    ];
    for (condition, value) in given {
        match value.as_deref() {
            None => {}
            Some("pending") if condition == "state = ?" => conditions.push("state = 'pending'"), // the index's own words
            Some(value) => {
                conditions.push(condition);
                values.push(value.to_owned().into());
            }
        }
    }
    values.push(as_i64(limit as u64).into());
    let conditions = conditions.join(" AND ");
    let sql = format!("SELECT {REQUEST_COLUMNS} FROM requests WHERE {conditions} ORDER BY id DESC LIMIT ?");
    connection.prepare_cached(&sql)?.query_map(params_from_iter(values), rows::request)?.collect()
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
