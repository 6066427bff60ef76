//! What the writer knows of each stream, and retention.

use std::sync::Weak;

use rusqlite::{Connection, OptionalExtension as _, Transaction};

use super::read::{as_i64, as_u64};
use super::stream::Stream;
use super::types::GapReason;
use crate::config::Bounds;
use crate::rt::clock::now_ms;

/// How far a stream was written, known to the writer alone.
pub(super) struct Written {
    pub(super) live: Weak<Stream>,
    /// The last position given, whether or not the disk took it.
    pub(super) last_seq: u64,
    pub(super) held: Held,
    /// Ranges the disk refused, not yet written down.
    pub(super) holes: Vec<(u64, u64)>,
}

/// What the file holds of a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) events: u64,
    pub(super) bytes: u64,
}

impl Held {
    pub(super) fn add(&mut self, payload: usize) {
        self.events += 1;
        self.bytes += payload as u64;
    }
}

impl Written {
    pub(super) fn add_hole(&mut self, seq: u64) {
        match self.holes.last_mut() {
            Some((_, to)) if *to + 1 == seq => *to = seq,
            _ => self.holes.push((seq, seq)),
        }
    }

    /// Writes the holes down and removes what is beyond the bounds, counting what this transaction `added`. Gives what
    /// the file holds once the transaction is committed. `log_seq` is where the transaction begins in the whole log.
    pub(super) fn tend(
        &self,
        tx: &Transaction<'_>,
        row_id: i64,
        added: Held,
        log_seq: i64,
        bounds: &Bounds,
    ) -> rusqlite::Result<Held> {
        for (from, to) in &self.holes {
            put_gap(tx, row_id, *from, *to, GapReason::NotKept, log_seq + 1)?;
        }
        let held = Held { events: self.held.events + added.events, bytes: self.held.bytes + added.bytes };
        if held.events <= bounds.log_stream_max_events && held.bytes <= bounds.log_stream_max_bytes {
            return Ok(held);
        }
        retain(tx, row_id, held, bounds)
    }
}

/// Makes a stream whose number and name are free.
pub(super) fn put_stream(tx: &Transaction<'_>, row_id: i64, name: &str) -> rusqlite::Result<()> {
    let mut insert = tx.prepare_cached("INSERT OR IGNORE INTO streams (id, name, created_at_ms) VALUES (?1, ?2, ?3)")?;
    insert.execute((row_id, name, now_ms())).map(|_| ())
}

/// How far a stream's source is read.
pub(super) fn read_to(connection: &Connection, name: &str) -> rusqlite::Result<u64> {
    let mut select = connection.prepare_cached("SELECT read_to FROM streams WHERE name = ?1")?;
    Ok(select.query_row([name], |row| row.get(0)).optional()?.map_or(0, as_u64))
}

/// The highest number of a stream.
pub(super) fn last_stream(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("SELECT coalesce(max(id), 0) FROM streams", [], |row| row.get(0))
}

/// The rows of these streams, and whether each was just made; in one transaction. `next_row` gives free numbers.
pub(super) fn stream_rows(
    connection: &mut Connection,
    names: &[String],
    next_row: &dyn Fn() -> i64,
) -> rusqlite::Result<Vec<(i64, bool)>> {
    let tx = connection.transaction()?;
    let mut rows = Vec::new();
    for name in names {
        let mut insert = tx.prepare_cached("INSERT OR IGNORE INTO streams (id, name, created_at_ms) VALUES (?1, ?2, ?3)")?;
        let is_new = insert.execute((next_row(), name, now_ms()))? == 1;
        let mut select = tx.prepare_cached("SELECT id FROM streams WHERE name = ?1")?;
        rows.push((select.query_row([name], |row| row.get(0))?, is_new));
    }
    tx.commit()?;
    Ok(rows)
}

/// The last position and what the file holds of a stream.
pub(super) fn of(connection: &Connection, row_id: i64) -> rusqlite::Result<(u64, Held)> {
    connection.query_row(
        "SELECT max(coalesce(max(stream_seq), 0), coalesce((SELECT max(to_seq) FROM gaps WHERE stream_id = ?1), 0)),
                count(*), coalesce(sum(length(payload)), 0)
         FROM events WHERE stream_id = ?1",
        [row_id],
        |row| Ok((as_u64(row.get(0)?), Held { events: as_u64(row.get(1)?), bytes: as_u64(row.get(2)?) })),
    )
}

/// Removes the oldest tenth of a stream that has outgrown its bound, and writes down that it did.
fn retain(tx: &Transaction<'_>, row_id: i64, held: Held, bounds: &Bounds) -> rusqlite::Result<Held> {
    let count = (held.events / 10).max(1).max(held.events.saturating_sub(bounds.log_stream_max_events));
    let upto: Option<(i64, i64)> = tx
        .prepare_cached("SELECT stream_seq, seq FROM events WHERE stream_id = ?1 ORDER BY stream_seq LIMIT 1 OFFSET ?2")?
        .query_row((row_id, as_i64(count - 1)), |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((upto, log_seq)) = upto else { return Ok(held) };
    let (events, bytes): (i64, i64) = tx
        .prepare_cached(
            "SELECT count(*), coalesce(sum(length(payload)), 0) FROM events WHERE stream_id = ?1 AND stream_seq <= ?2",
        )?
        .query_row((row_id, upto), |row| Ok((row.get(0)?, row.get(1)?)))?;
    tx.prepare_cached("DELETE FROM events WHERE stream_id = ?1 AND stream_seq <= ?2")?.execute((row_id, upto))?;
    tx.prepare_cached("DELETE FROM gaps WHERE stream_id = ?1 AND to_seq <= ?2")?.execute((row_id, upto))?;
    put_gap(tx, row_id, 1, as_u64(upto), GapReason::Retention, log_seq)?;
    Ok(Held { events: held.events.saturating_sub(as_u64(events)), bytes: held.bytes.saturating_sub(as_u64(bytes)) })
}

fn put_gap(tx: &Transaction<'_>, row_id: i64, from: u64, to: u64, reason: GapReason, log_seq: i64) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO gaps (stream_id, from_seq, to_seq, reason, log_seq) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (stream_id, from_seq) DO UPDATE SET to_seq = excluded.to_seq, reason = excluded.reason,
             log_seq = excluded.log_seq",
    )?
    .execute((row_id, as_i64(from), as_i64(to), reason.as_str(), log_seq))?;
    Ok(())
}
