//! Rows of changed files: edits, contents that were replaced, and what sessions saw last.

use std::collections::HashSet;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params_from_iter};

use super::Store;
use super::read::{as_i64, as_u64};
use super::types::Error;

const EDIT_COLUMNS: &str = "id, status, op, path, from_path, time_ms, session_id, turn_id, doc, diff, kept";
/// What one transaction removes at most, so that no commit waits long for it.
const TRIM_ROWS: i64 = 500;

/// A change of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FsEditRow {
    /// Its id; sorts by time.
    pub id: String,
    /// `proposed`, `accepted`, `rejected`, `applied` or `reverted`.
    pub status: String,
    /// What was done, as a word.
    pub op: String,
    /// Where.
    pub path: Vec<u8>,
    /// Where from, when something was moved.
    pub from_path: Option<Vec<u8>>,
    /// Unix milliseconds.
    pub time_ms: i64,
    /// In whose name.
    pub session_id: Option<String>,
    /// During which of its turns.
    pub turn_id: Option<String>,
    /// Everything that no query looks for: a JSON object.
    pub doc: String,
    /// What changed, for people.
    pub diff: Option<String>,
    /// What it is taken back or made with, as given: a JSON object.
    pub kept: String,
}

/// A content that was replaced.
#[derive(Debug, Clone)]
pub struct FsBlob {
    /// Its hash.
    pub sha256: String,
    /// The bytes.
    pub content: Bytes,
}

/// What a session last saw of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FsSeenRow {
    /// The session.
    pub session_id: String,
    /// The file.
    pub path: Vec<u8>,
    /// The hash of its content.
    pub sha256: String,
    /// `read` or `write`.
    pub op: String,
    /// Unix milliseconds.
    pub seen_at_ms: i64,
}

/// Which edits are wanted; all of what is given must fit.
#[derive(Debug, Clone, Default)]
pub struct FsEditFilter {
    /// Of this file, or of what is below this directory.
    pub path: Option<Vec<u8>>,
    /// Of this session.
    pub session_id: Option<String>,
    /// Of this turn.
    pub turn_id: Option<String>,
    /// With this status.
    pub status: Option<String>,
    /// Only what was done: no proposals, whatever became of them.
    pub done: bool,
    /// Made before this one.
    pub before: Option<String>,
    /// Made after this one.
    pub after: Option<String>,
    /// Made after this time.
    pub after_ms: Option<i64>,
}

/// How much of changed files stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FsKeep {
    /// Edits.
    pub edits: u64,
    /// Bytes of contents.
    pub blob_bytes: u64,
    /// Nothing from before this time.
    pub after_ms: i64,
    /// Rows of what was seen.
    pub seen: u64,
}

pub(super) fn put_edit(tx: &Transaction<'_>, row: &FsEditRow) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO fs_edits (id, status, op, path, from_path, time_ms, session_id, turn_id, doc, diff, kept)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
         ON CONFLICT (id) DO UPDATE SET status = ?2, doc = ?9, diff = ?10, kept = ?11",
    )?
    .execute(rusqlite::params![
        row.id,
        row.status,
        row.op,
        row.path,
        row.from_path,
        row.time_ms,
        row.session_id,
        row.turn_id,
        row.doc,
        row.diff,
        row.kept,
    ])?;
    Ok(())
}

pub(super) fn put_blob(tx: &Transaction<'_>, blob: &FsBlob, now_ms: i64) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO fs_blobs (sha256, size, used_at_ms, content) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (sha256) DO UPDATE SET used_at_ms = ?3",
    )?
    .execute((&blob.sha256, as_i64(blob.content.len() as u64), now_ms, &blob.content[..]))?;
    Ok(())
}

pub(super) fn set_status(tx: &Transaction<'_>, id: &str, status: &str) -> rusqlite::Result<()> {
    tx.prepare_cached("UPDATE fs_edits SET status = ?2 WHERE id = ?1")?.execute((id, status))?;
    Ok(())
}

pub(super) fn put_seen(tx: &Transaction<'_>, rows: &[FsSeenRow]) -> rusqlite::Result<()> {
    let mut put = tx.prepare_cached(
        "INSERT INTO fs_seen (session_id, path, sha256, op, seen_at_ms) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (session_id, path) DO UPDATE SET sha256 = ?3, op = ?4, seen_at_ms = ?5",
    )?;
    rows.iter().try_for_each(|row| put.execute((&row.session_id, &row.path, &row.sha256, &row.op, row.seen_at_ms)).map(drop))
}

/// Removes what is too much, oldest first, some at a time.
pub(super) fn trim(tx: &Transaction<'_>, keep: &FsKeep) -> rusqlite::Result<()> {
    tx.prepare_cached("DELETE FROM fs_edits WHERE number IN (SELECT number FROM fs_edits WHERE time_ms < ?1 LIMIT ?2)")?
        .execute((keep.after_ms, TRIM_ROWS))?;
    // Only the oldest ever go, so that numbers have no holes: counting would read every row.
    tx.prepare_cached(
        "DELETE FROM fs_edits WHERE number IN
             (SELECT number FROM fs_edits WHERE number <= (SELECT max(number) FROM fs_edits) - ?1 LIMIT ?2)",
    )?
    .execute((as_i64(keep.edits), TRIM_ROWS))?;
    tx.prepare_cached("DELETE FROM fs_blobs WHERE sha256 IN (SELECT sha256 FROM fs_blobs WHERE used_at_ms < ?1 LIMIT ?2)")?
        .execute((keep.after_ms, TRIM_ROWS))?;
    let total: i64 = tx.prepare_cached("SELECT coalesce(sum(size), 0) FROM fs_blobs")?.query_row([], |row| row.get(0))?;
    let mut excess = total - as_i64(keep.blob_bytes);
    while excess > 0 {
        let oldest: Option<(String, i64)> = tx
            .prepare_cached("SELECT sha256, size FROM fs_blobs ORDER BY used_at_ms, size LIMIT 1")?
            .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let Some((sha256, size)) = oldest else { break };
        tx.prepare_cached("DELETE FROM fs_blobs WHERE sha256 = ?1")?.execute([sha256])?;
        excess -= size;
    }
    tx.prepare_cached(
        "DELETE FROM fs_seen WHERE (session_id, path) IN
             (SELECT session_id, path FROM fs_seen ORDER BY seen_at_ms DESC LIMIT ?2 OFFSET ?1)",
    )?
    .execute((as_i64(keep.seen), TRIM_ROWS))?;
    Ok(())
}

fn edit(row: &Row<'_>) -> rusqlite::Result<FsEditRow> {
    Ok(FsEditRow {
        id: row.get(0)?,
        status: row.get(1)?,
        op: row.get(2)?,
        path: row.get(3)?,
        from_path: row.get(4)?,
        time_ms: row.get(5)?,
        session_id: row.get(6)?,
        turn_id: row.get(7)?,
        doc: row.get(8)?,
        diff: row.get(9)?,
        kept: row.get(10)?,
    })
}

fn page(connection: &Connection, filter: &FsEditFilter, limit: usize) -> rusqlite::Result<Vec<FsEditRow>> {
    use rusqlite::types::Value;
    // Conditions only where they are asked for: SQLite uses no index for one that may be null.
    let mut conditions = vec!["1"];
    let mut values: Vec<Value> = Vec::new();
    if let Some(path) = &filter.path {
        conditions.push("(path = ? OR from_path = ? OR (path > ? AND path < ?) OR (from_path > ? AND from_path < ?))");
        let [above, below] = [b'/', b'/' + 1].map(|end| Value::from([path.as_slice(), &[end]].concat()));
        values.extend([path.clone().into(), path.clone().into(), above.clone(), below.clone(), above, below]);
    }
    let given = [
        ("session_id = ?", &filter.session_id),
        ("turn_id = ?", &filter.turn_id),
        ("status = ?", &filter.status),
        ("id < ?", &filter.before),
        ("id > ?", &filter.after),
    ];
    for (condition, value) in given {
        if let Some(value) = value {
            conditions.push(condition);
            values.push(value.clone().into());
        }
    }
    if filter.done {
        conditions.push("status IN ('applied', 'reverted')");
    }
    if let Some(after_ms) = filter.after_ms {
        conditions.push("time_ms > ?");
        values.push(after_ms.into());
    }
    values.push(as_i64(limit as u64).into());
    let sql = format!("SELECT {EDIT_COLUMNS} FROM fs_edits WHERE {} ORDER BY id DESC LIMIT ?", conditions.join(" AND "));
    connection.prepare_cached(&sql)?.query_map(params_from_iter(values), edit)?.collect()
}

fn seen(row: &Row<'_>) -> rusqlite::Result<FsSeenRow> {
    Ok(FsSeenRow { session_id: row.get(0)?, path: row.get(1)?, sha256: row.get(2)?, op: row.get(3)?, seen_at_ms: row.get(4)? })
}

#[allow(clippy::missing_errors_doc)] // the same for all: the file can't be read
impl Store {
    /// Edits, newest first, `limit` at most. Cancel safe: it only reads.
    pub async fn fs_edits(&self, filter: FsEditFilter, limit: usize) -> Result<Vec<FsEditRow>, Error> {
        self.inner.readers.run(move |connection| page(connection, &filter, limit)).await
    }

    /// One edit.
    pub async fn fs_edit(&self, id: &str) -> Result<Option<FsEditRow>, Error> {
        let id = id.to_owned();
        let sql = format!("SELECT {EDIT_COLUMNS} FROM fs_edits WHERE id = ?1");
        self.inner.readers.run(move |connection| connection.prepare_cached(&sql)?.query_row([id], edit).optional()).await
    }

    /// Which of these contents are kept.
    pub async fn fs_blobs_kept(&self, hashes: Vec<String>) -> Result<HashSet<String>, Error> {
        let query = move |connection: &Connection| {
            let mut is_kept = connection.prepare_cached("SELECT EXISTS (SELECT 1 FROM fs_blobs WHERE sha256 = ?1)")?;
            let mut kept = HashSet::new();
            for hash in hashes {
                if is_kept.query_row([&hash], |row| row.get(0))? {
                    kept.insert(hash);
                }
            }
            Ok(kept)
        };
        self.inner.readers.run(query).await
    }

    /// A content, when it is kept.
    pub async fn fs_blob(&self, hash: &str) -> Result<Option<Bytes>, Error> {
        let hash = hash.to_owned();
        let query = move |connection: &Connection| {
            let mut select = connection.prepare_cached("SELECT content FROM fs_blobs WHERE sha256 = ?1")?;
            select.query_row([hash], |row| row.get::<_, Vec<u8>>(0)).optional()
        };
        Ok(self.inner.readers.run(query).await?.map(Bytes::from))
    }

    /// What sessions saw last, the latest first, `limit` at most.
    pub async fn fs_seen(&self, limit: usize) -> Result<Vec<FsSeenRow>, Error> {
        let query = move |connection: &Connection| {
            let sql = "SELECT session_id, path, sha256, op, seen_at_ms FROM fs_seen ORDER BY seen_at_ms DESC LIMIT ?1";
            connection.prepare_cached(sql)?.query_map([as_i64(limit as u64)], seen)?.collect()
        };
        self.inner.readers.run(query).await
    }

    /// Bytes of all contents that are kept.
    pub async fn fs_blob_bytes(&self) -> Result<u64, Error> {
        let sql = "SELECT coalesce(sum(size), 0) FROM fs_blobs";
        self.inner.readers.run(move |connection| connection.query_row(sql, [], |row| row.get(0))).await.map(as_u64)
    }
}
