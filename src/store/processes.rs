//! Rows of managed processes.

use rusqlite::{Connection, OptionalExtension as _, Transaction};

use super::read::{as_i64, as_u64};
use super::rows::{ProcessEnd, ProcessRow};

/// The key in `meta` of the highest number that a process ever had.
const LAST_NUMBER: &str = "last_process";

pub(super) fn put(tx: &Transaction<'_>, row: &ProcessRow) -> rusqlite::Result<()> {
    let end = row.end.as_ref();
    let (key, hash) = row.idempotency.as_ref().map_or((None, None), |(key, hash)| (Some(key), Some(hash)));
    tx.prepare_cached(
        "INSERT OR REPLACE INTO processes (number, spec, owner, created_at_ms, exited_at_ms, exit_code, exit_signal,
             exit_reason, restarts, cols, rows, log_bytes, idempotency_key, request_hash)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
    )?
    .execute(rusqlite::params![
        as_i64(row.number),
        row.spec,
        row.owner,
        row.created_at_ms,
        end.map(|end| end.at_ms),
        end.and_then(|end| end.code),
        end.and_then(|end| end.signal),
        end.map(|end| &end.reason),
        row.restarts,
        row.terminal.map(|(cols, _)| cols),
        row.terminal.map(|(_, rows)| rows),
        as_i64(end.map_or(0, |end| end.log_bytes)),
        key,
        hash,
    ])?;
    count(tx, row.number)
}

pub(super) fn count(tx: &Transaction<'_>, number: u64) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO meta (key, value) VALUES (?1, ?2)
         ON CONFLICT (key) DO UPDATE SET value = excluded.value WHERE CAST(value AS INTEGER) < CAST(excluded.value AS INTEGER)",
    )?
    .execute((LAST_NUMBER, number.to_string()))?;
    Ok(())
}

pub(super) fn delete(tx: &Transaction<'_>, numbers: &[u64]) -> rusqlite::Result<()> {
    let mut delete = tx.prepare_cached("DELETE FROM processes WHERE number = ?1")?;
    numbers.iter().try_for_each(|number| delete.execute([as_i64(*number)]).map(|_| ()))
}

/// All rows by number, and the highest number that was ever used. `owner_word` gives the static word for one that was
/// read; rows of unknown owners are left out.
pub(super) fn all(
    connection: &Connection,
    owner_word: fn(&str) -> Option<&'static str>,
) -> rusqlite::Result<(Vec<ProcessRow>, u64)> {
    let mut select = connection.prepare(
        "SELECT number, spec, owner, created_at_ms, exited_at_ms, exit_code, exit_signal, exit_reason, restarts, cols, rows,
                log_bytes, idempotency_key, request_hash
         FROM processes ORDER BY number",
    )?;
    let rows = select.query_map([], |row| {
        let Some(owner) = owner_word(&row.get::<_, String>(2)?) else { return Ok(None) };
        let end = match row.get::<_, Option<i64>>(4)? {
            None => None,
            Some(at_ms) => Some(ProcessEnd {
                at_ms,
                code: row.get(5)?,
                signal: row.get(6)?,
                reason: row.get::<_, Option<String>>(7)?.unwrap_or_default(),
                log_bytes: as_u64(row.get(11)?),
            }),
        };
        Ok(Some(ProcessRow {
            number: as_u64(row.get(0)?),
            spec: row.get(1)?,
            owner,
            created_at_ms: row.get(3)?,
            end,
            restarts: row.get(8)?,
            terminal: row.get::<_, Option<u16>>(9)?.zip(row.get(10)?),
            idempotency: row.get::<_, Option<String>>(12)?.zip(row.get(13)?),
        }))
    })?;
    let rows = rows.filter_map(Result::transpose).collect::<rusqlite::Result<Vec<_>>>()?;
    let last: Option<String> =
        connection.query_row("SELECT value FROM meta WHERE key = ?1", [LAST_NUMBER], |row| row.get(0)).optional()?;
    Ok((rows, last.and_then(|last| last.parse().ok()).unwrap_or(0)))
}
