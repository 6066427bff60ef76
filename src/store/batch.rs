//! One batch as one transaction.

use std::collections::{BTreeMap, HashMap};

use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};
use tokio::sync::oneshot;

use super::extent::{Held, Written};
use super::queue::Append;
use super::read::as_i64;
use super::rows::RowChange;
use super::types::Error;
use crate::config::Bounds;
use crate::rt::clock::now_ms;

/// A change that somebody waits for.
pub(super) type Asked = (RowChange, oneshot::Sender<Result<(), Error>>);

/// What one transaction shall write.
pub(super) struct Batch<'a> {
    pub(super) deferred: &'a [RowChange],
    pub(super) appends: &'a [Append],
    /// One position per append.
    pub(super) seqs: &'a [u64],
    /// The last position of the whole log.
    pub(super) log_seq: i64,
    pub(super) asked: &'a [Asked],
    pub(super) streams: &'a HashMap<i64, Written>,
    pub(super) bounds: &'a Bounds,
    /// The disk refused something before: the holes of all streams are written down.
    pub(super) recovers: bool,
}

/// What became of it, now that it is committed.
pub(super) struct Committed {
    /// The last position of the whole log now.
    pub(super) log_seq: i64,
    /// Per append.
    pub(super) kept: Vec<bool>,
    /// Per change that was asked for.
    pub(super) answers: Vec<Result<(), Error>>,
    /// What the file holds of streams that were tended to, their holes included.
    pub(super) held: Vec<(i64, Held)>,
}

impl Batch<'_> {
    /// All or nothing; unless `one_by_one`, when what SQLite refuses for its own sake is left out and said in the log.
    pub(super) fn write(&self, connection: &mut Connection, one_by_one: bool) -> rusqlite::Result<Committed> {
        let now = now_ms();
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for change in self.deferred {
            let _ = attempt(&tx, one_by_one, || change.apply(&tx))?; // a refusal is in the log
        }
        let mut kept = Vec::with_capacity(self.appends.len());
        let mut log_seq = self.log_seq;
        {
            let mut insert = tx.prepare_cached(
                "INSERT INTO events (seq, stream_id, stream_seq, time_ms, type, payload) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?;
            for (append, seq) in self.appends.iter().zip(self.seqs) {
                log_seq += 1; // ours, not SQLite's: a position that a removed row had must not come again
                let row = (log_seq, append.stream.row_id, as_i64(*seq), now, append.kind, &append.payload[..]);
                kept.push(attempt(&tx, one_by_one, || insert.execute(row))?.is_ok());
                if let Some(change) = &append.change {
                    let _ = attempt(&tx, one_by_one, || change.apply(&tx))?; // the same
                }
            }
        }
        for (row_id, read_to) in self.read_to(&kept) {
            let mut update = tx.prepare_cached("UPDATE streams SET read_to = ?2 WHERE id = ?1")?;
            update.execute((row_id, as_i64(read_to)))?;
        }
        let mut answers = Vec::with_capacity(self.asked.len());
        for (change, _) in self.asked {
            let done = attempt(&tx, one_by_one, || change.apply(&tx))?;
            answers.push(done.map_err(|error| Error::Write(error.to_string())));
        }
        let held = self.tend(&tx, &kept, one_by_one)?;
        tx.commit()?;
        Ok(Committed { log_seq, kept, answers, held })
    }

    /// How far the sources of streams are read with what is kept.
    fn read_to(&self, kept: &[bool]) -> Vec<(i64, u64)> {
        let mut last: Vec<(i64, u64)> = Vec::new();
        for (append, _) in self.appends.iter().zip(kept).filter(|(_, kept)| **kept) {
            let Some(read_to) = append.read_to else { continue };
            match last.iter_mut().find(|(row_id, _)| *row_id == append.stream.row_id) {
                Some((_, to)) => *to = read_to,
                None => last.push((append.stream.row_id, read_to)),
            }
        }
        last
    }

    fn tend(&self, tx: &Transaction<'_>, kept: &[bool], one_by_one: bool) -> rusqlite::Result<Vec<(i64, Held)>> {
        let mut added: BTreeMap<i64, Held> = BTreeMap::new();
        for (append, _) in self.appends.iter().zip(kept).filter(|(_, kept)| **kept) {
            added.entry(append.stream.row_id).or_default().add(append.payload.len());
        }
        if self.recovers {
            for (row_id, _) in self.streams.iter().filter(|(_, written)| !written.holes.is_empty()) {
                added.entry(*row_id).or_default();
            }
        }
        let mut held = Vec::with_capacity(added.len());
        for (row_id, added) in added {
            let Some(written) = self.streams.get(&row_id) else { continue };
            if let Ok(now) = attempt(tx, one_by_one, || written.tend(tx, row_id, added, self.log_seq, self.bounds))? {
                held.push((row_id, now));
            }
        }
        Ok(held)
    }
}

/// Makes one change of many. The outer error ends the transaction; the inner one is this change's alone.
fn attempt<T>(
    tx: &Transaction<'_>,
    one_by_one: bool,
    change: impl FnOnce() -> rusqlite::Result<T>,
) -> rusqlite::Result<rusqlite::Result<T>> {
    if !one_by_one {
        return change().map(Ok);
    }
    tx.execute_batch("SAVEPOINT one")?;
    match change() {
        Ok(done) => {
            tx.execute_batch("RELEASE one")?;
            Ok(Ok(done))
        }
        Err(error) if is_of_one(&error) => {
            tx.execute_batch("ROLLBACK TO one; RELEASE one")?;
            tracing::error!(%error, "the database refused one change; those beside it are kept");
            Ok(Err(error))
        }
        Err(error) => Err(error),
    }
}

/// True for what is wrong with one statement, not with the disk.
pub(super) fn is_of_one(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig | ErrorCode::ParameterOutOfRange)
    )
}

/// True when another process writes right now.
pub(super) fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}
