//! Rows of working trees that were made for sessions.

use rusqlite::{Row, Transaction};

use super::Store;
use super::types::Error;

/// A working tree of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorktreeRow {
    /// Where it is.
    pub path: Vec<u8>,
    /// A directory of the repository that it belongs to.
    pub repository: Vec<u8>,
    /// The session.
    pub session_id: String,
    /// Unix milliseconds.
    pub created_at_ms: i64,
    /// When the session was seen to be over: Unix milliseconds.
    pub ended_at_ms: Option<i64>,
    /// Why it is kept all the same.
    pub kept: Option<String>,
}

pub(super) fn put(tx: &Transaction<'_>, row: &WorktreeRow) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO git_worktrees (path, repository, session_id, created_at_ms, ended_at_ms, kept) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (path) DO UPDATE SET repository = ?2, session_id = ?3, created_at_ms = ?4, ended_at_ms = ?5, kept = ?6",
    )?
    .execute((&row.path, &row.repository, &row.session_id, row.created_at_ms, row.ended_at_ms, &row.kept))?;
    Ok(())
}

pub(super) fn delete(tx: &Transaction<'_>, path: &[u8]) -> rusqlite::Result<()> {
    tx.prepare_cached("DELETE FROM git_worktrees WHERE path = ?1")?.execute([path])?;
    Ok(())
}

fn row(row: &Row<'_>) -> rusqlite::Result<WorktreeRow> {
    Ok(WorktreeRow {
        path: row.get(0)?,
        repository: row.get(1)?,
        session_id: row.get(2)?,
        created_at_ms: row.get(3)?,
        ended_at_ms: row.get(4)?,
        kept: row.get(5)?,
    })
}

impl Store {
    /// All working trees of sessions. Cancel safe: it only reads.
    ///
    /// # Errors
    /// The file can't be read.
    pub async fn worktrees(&self) -> Result<Vec<WorktreeRow>, Error> {
        let sql = "SELECT path, repository, session_id, created_at_ms, ended_at_ms, kept FROM git_worktrees ORDER BY path";
        self.inner.readers.run(move |connection| connection.prepare_cached(sql)?.query_map([], row)?.collect()).await
    }
}
