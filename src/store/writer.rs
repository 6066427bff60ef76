//! The one write connection: whoever holds it takes what has gathered, commits it as one transaction, and shows it.
//! That is the writer's thread, or a caller whose few events would only wait for that thread to wake up.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError, Weak};
use std::time::{Duration, Instant};

use rusqlite::{Connection, Transaction};
use tokio::sync::{oneshot, watch};

use super::checkpoint::Checkpoint;
use super::queue::{Append, Command, Queue};
use super::read::{Readers, as_i64, as_u64};
use super::rows::RowChange;
use super::stream::Stream;
use super::types::{Error, GapReason, Health};
use crate::config::{Bounds, as_usize};
use crate::rt::clock::now_ms;

/// How far a stream was written, known to the writer alone.
struct Written {
    live: Weak<Stream>,
    last_seq: u64,
    first_seq: u64,
    bytes: u64,
    /// Ranges the disk refused, not yet written down.
    holes: Vec<(u64, u64)>,
}

pub(super) struct Writer {
    connection: Connection,
    path: PathBuf,
    queue: Arc<Queue>,
    readers: Arc<Readers>,
    health: watch::Sender<Health>,
    bounds: Bounds,
    streams: HashMap<i64, Written>,
    checkpoint: Arc<Checkpoint>,
}

impl Writer {
    pub(super) fn new(
        connection: Connection,
        path: &Path,
        queue: Arc<Queue>,
        readers: Arc<Readers>,
        health: watch::Sender<Health>,
        bounds: Bounds,
    ) -> Self {
        let checkpoint = Arc::default();
        Self { connection, path: path.to_path_buf(), queue, readers, health, bounds, streams: HashMap::new(), checkpoint }
    }

    /// Commits what is queued. Gives the reply to a request to close, which comes last.
    fn work(&mut self) -> Option<oneshot::Sender<()>> {
        loop {
            let batch = self.queue.take(as_usize(self.bounds.store_batch_max_events));
            if batch.is_empty() {
                return None;
            }
            let (batch, close) = split_at_close(batch);
            self.handle(batch);
            if close.is_some() {
                return close;
            }
        }
    }

    fn close(self) {
        self.queue.close();
        self.checkpoint.stop();
        let _ = self.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)"); // the next start does it otherwise
    }

    /// Opening a stream needs its row at once; appends and changes between two of them share a transaction.
    fn handle(&mut self, batch: Vec<Command>) {
        let (mut appends, mut changes) = (Vec::new(), Vec::new());
        for command in batch {
            match command {
                Command::Append(append) => appends.push(append),
                Command::Change { change, reply } => changes.push((change, reply)),
                Command::Open { names, reply } => {
                    self.commit(std::mem::take(&mut appends), std::mem::take(&mut changes));
                    let _ = reply.send(self.open_streams(&names)); // who asked may have left
                }
                Command::Close { .. } => {}
            }
        }
        self.commit(appends, changes);
    }

    fn commit(&mut self, appends: Vec<Append>, changes: Vec<(RowChange, oneshot::Sender<Result<(), Error>>)>) {
        if appends.is_empty() && changes.is_empty() {
            return;
        }
        let seqs = self.number(&appends);
        let result = self.transaction(&appends, &seqs, &changes);
        self.note(&result, &appends, &seqs);
        self.show(appends, &seqs, result.is_ok());
        let outcome = result.map_err(|error| Error::Write(error.to_string()));
        for (_, reply) in changes {
            let _ = reply.send(outcome.clone());
        }
    }

    /// Positions are given whether or not the disk takes the events: what was shown keeps its number.
    fn number(&mut self, appends: &[Append]) -> Vec<u64> {
        appends
            .iter()
            .map(|append| {
                let written = self
                    .streams
                    .get_mut(&append.stream.row_id)
                    .expect("a stream handle comes from open_stream, which made this entry");
                written.last_seq += 1;
                written.bytes += append.payload.len() as u64;
                written.last_seq
            })
            .collect()
    }

    fn transaction(
        &mut self,
        appends: &[Append],
        seqs: &[u64],
        changes: &[(RowChange, oneshot::Sender<Result<(), Error>>)],
    ) -> rusqlite::Result<()> {
        let now = now_ms();
        let tx = self.connection.transaction()?;
        {
            let mut insert = tx.prepare_cached(
                "INSERT INTO events (stream_id, stream_seq, time_ms, type, payload) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?;
            for (append, seq) in appends.iter().zip(seqs) {
                insert.execute((append.stream.row_id, as_i64(*seq), now, append.kind, &append.payload[..]))?;
                if let Some(change) = &append.change {
                    change.apply(&tx)?;
                }
            }
        }
        for (change, _) in changes {
            change.apply(&tx)?;
        }
        for row_id in touched(appends) {
            if let Some(written) = self.streams.get_mut(&row_id) {
                write_holes(&tx, row_id, &written.holes)?;
                retain(&tx, row_id, written, &self.bounds)?;
            }
        }
        tx.commit()?;
        self.checkpoint.written(appends.iter().map(|append| append.payload.len() as u64 / 4096 + 1).sum());
        Ok(())
    }

    /// Keeps book of the outcome: holes that are now in the file are forgotten, new ones are remembered.
    fn note(&mut self, result: &rusqlite::Result<()>, appends: &[Append], seqs: &[u64]) {
        match result {
            Ok(()) => {
                for append in appends {
                    if let Some(written) = self.streams.get_mut(&append.stream.row_id) {
                        written.holes.clear();
                    }
                }
                if let Health::Degraded { events_not_kept, .. } = &*self.health.borrow() {
                    tracing::warn!(events_not_kept, "the database takes writes again");
                }
                self.health.send_if_modified(|health| std::mem::replace(health, Health::Healthy) != Health::Healthy);
            }
            Err(error) => {
                for (append, seq) in appends.iter().zip(seqs) {
                    if let Some(written) = self.streams.get_mut(&append.stream.row_id) {
                        add_hole(&mut written.holes, *seq);
                    }
                }
                self.degrade(error, appends.len() as u64);
            }
        }
    }

    fn degrade(&self, error: &rusqlite::Error, lost: u64) {
        self.health.send_modify(|health| {
            let (before, since_ms) = match health {
                Health::Degraded { events_not_kept, since_ms, .. } => (*events_not_kept, *since_ms),
                Health::Healthy => {
                    tracing::error!(%error, path = %self.path.display(), "the database refuses writes: events live in memory only until it recovers");
                    (0, now_ms())
                }
            };
            *health = Health::Degraded { cause: error.to_string(), events_not_kept: before + lost, since_ms };
        });
    }

    /// Events reach the rings first, then watchers wake, then those who asked to be told: a POST's answer never
    /// overtakes the event stream.
    fn show(&self, appends: Vec<Append>, seqs: &[u64], kept: bool) {
        let mut start = 0;
        while start < appends.len() {
            let stream = &appends[start].stream;
            let run = appends[start..].iter().take_while(|append| append.stream.row_id == stream.row_id).count();
            let events = appends[start..start + run].iter().zip(&seqs[start..start + run]);
            stream.extend(events.map(|(append, seq)| (*seq, append.payload.clone())), kept);
            stream.publish(seqs[start + run - 1]);
            start += run;
        }
        for (append, seq) in appends.into_iter().zip(seqs) {
            if let Some(ack) = append.ack {
                let _ = ack.send(*seq);
            }
        }
    }

    fn open_streams(&mut self, names: &[String]) -> Result<Vec<Arc<Stream>>, Error> {
        let row_ids = self.stream_rows(names).map_err(|error| Error::Write(error.to_string()))?;
        row_ids.into_iter().map(|(row_id, is_new)| self.open_stream(row_id, is_new)).collect()
    }

    fn open_stream(&mut self, row_id: i64, is_new: bool) -> Result<Arc<Stream>, Error> {
        if let Some(live) = self.streams.get(&row_id).and_then(|written| written.live.upgrade()) {
            return Ok(live);
        }
        self.streams.retain(|_, written| written.live.strong_count() > 0);
        let nothing = Ok((1, 0, 0));
        let extent = if is_new { nothing } else { self.extent(row_id).map_err(|error| Error::Read(error.to_string())) };
        let (first_seq, last_seq, bytes) = extent?;
        let stream = Arc::new(Stream::new(
            row_id,
            last_seq,
            Arc::clone(&self.readers),
            as_usize(self.bounds.log_ring_max_events),
            as_usize(self.bounds.log_ring_max_bytes),
        ));
        self.streams.insert(row_id, Written { live: Arc::downgrade(&stream), last_seq, first_seq, bytes, holes: Vec::new() });
        Ok(stream)
    }

    /// The rows of these streams, and whether each was just made; in one transaction.
    fn stream_rows(&mut self, names: &[String]) -> rusqlite::Result<Vec<(i64, bool)>> {
        let tx = self.connection.transaction()?;
        let mut rows = Vec::new();
        for name in names {
            let mut insert = tx.prepare_cached("INSERT OR IGNORE INTO streams (name, created_at_ms) VALUES (?1, ?2)")?;
            let is_new = insert.execute((name, now_ms()))? == 1;
            let mut select = tx.prepare_cached("SELECT id FROM streams WHERE name = ?1")?;
            rows.push((select.query_row([name], |row| row.get(0))?, is_new));
        }
        tx.commit()?;
        Ok(rows)
    }

    /// First and last position and payload bytes of what the file holds of a stream.
    fn extent(&self, row_id: i64) -> rusqlite::Result<(u64, u64, u64)> {
        self.connection.query_row(
            "SELECT coalesce(min(stream_seq), 1),
                    max(coalesce(max(stream_seq), 0), coalesce((SELECT max(to_seq) FROM gaps WHERE stream_id = ?1), 0)),
                    coalesce(sum(length(payload)), 0)
             FROM events WHERE stream_id = ?1",
            [row_id],
            |row| Ok((as_u64(row.get(0)?), as_u64(row.get(1)?), as_u64(row.get(2)?))),
        )
    }
}

fn split_at_close(mut batch: Vec<Command>) -> (Vec<Command>, Option<oneshot::Sender<()>>) {
    let Some(at) = batch.iter().position(|command| matches!(command, Command::Close { .. })) else {
        return (batch, None);
    };
    let close = batch.drain(at..).next();
    match close {
        Some(Command::Close { reply }) => (batch, Some(reply)),
        _ => (batch, None),
    }
}

/// The streams of a batch, each once.
fn touched(appends: &[Append]) -> Vec<i64> {
    let mut ids: Vec<_> = appends.iter().map(|append| append.stream.row_id).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

fn add_hole(holes: &mut Vec<(u64, u64)>, seq: u64) {
    match holes.last_mut() {
        Some((_, to)) if *to + 1 == seq => *to = seq,
        _ => holes.push((seq, seq)),
    }
}

fn write_holes(tx: &Transaction<'_>, row_id: i64, holes: &[(u64, u64)]) -> rusqlite::Result<()> {
    for (from, to) in holes {
        put_gap(tx, row_id, *from, *to, GapReason::NotKept)?;
    }
    Ok(())
}

fn put_gap(tx: &Transaction<'_>, row_id: i64, from: u64, to: u64, reason: GapReason) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO gaps (stream_id, from_seq, to_seq, reason) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (stream_id, from_seq) DO UPDATE SET to_seq = excluded.to_seq, reason = excluded.reason",
    )?
    .execute((row_id, as_i64(from), as_i64(to), reason.as_str()))?;
    Ok(())
}

/// Removes the oldest tenth of a stream that has outgrown its bound, and writes down that it did.
fn retain(tx: &Transaction<'_>, row_id: i64, written: &mut Written, bounds: &Bounds) -> rusqlite::Result<()> {
    let count = written.last_seq + 1 - written.first_seq;
    if count <= bounds.log_stream_max_events && written.bytes <= bounds.log_stream_max_bytes {
        return Ok(());
    }
    let upto = (written.first_seq + (count / 10).max(1) - 1).max(written.last_seq.saturating_sub(bounds.log_stream_max_events));
    let freed: i64 = tx
        .prepare_cached("SELECT coalesce(sum(length(payload)), 0) FROM events WHERE stream_id = ?1 AND stream_seq <= ?2")?
        .query_row((row_id, as_i64(upto)), |row| row.get(0))?;
    tx.prepare_cached("DELETE FROM events WHERE stream_id = ?1 AND stream_seq <= ?2")?.execute((row_id, as_i64(upto)))?;
    tx.prepare_cached("DELETE FROM gaps WHERE stream_id = ?1 AND to_seq <= ?2")?.execute((row_id, as_i64(upto)))?;
    put_gap(tx, row_id, 1, upto, GapReason::Retention)?;
    written.first_seq = upto + 1;
    written.bytes = written.bytes.saturating_sub(as_u64(freed));
    Ok(())
}

/// A commit on the spot that took longer than this blocked a thread of the runtime for too long,
const SLOW_COMMIT: Duration = Duration::from_millis(3);
/// so that for this long none is tried again.
const LEAVE_MS: i64 = 1_000;

/// The writer, held by whoever commits; `None` once it is closed.
pub(super) struct Shared {
    writer: Mutex<Option<Writer>>,
    queue: Arc<Queue>,
    /// Until when, in Unix milliseconds, callers leave all commits to the thread: the disk was slow.
    leave_until_ms: AtomicI64,
}

impl Shared {
    /// See [`Store::flush`](super::Store::flush).
    pub(super) fn flush(&self) {
        if self.queue.is_empty() {
            return;
        }
        if !self.queue.is_little() || now_ms() < self.leave_until_ms.load(Ordering::Relaxed) {
            return self.queue.wake();
        }
        match self.writer.try_lock() {
            Ok(mut writer) => {
                let started = Instant::now();
                if let Some(Some(close)) = writer.as_mut().map(Writer::work) {
                    self.end(writer.take(), close); // it came in between
                }
                if started.elapsed() > SLOW_COMMIT {
                    self.leave_until_ms.store(now_ms() + LEAVE_MS, Ordering::Relaxed);
                }
            }
            // The holder may have looked into the queue just before our events came.
            Err(TryLockError::WouldBlock | TryLockError::Poisoned(_)) => self.queue.wake(),
        }
    }

    fn run(&self) {
        loop {
            self.queue.wait();
            let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(working) = writer.as_mut() else { return };
            if let Some(close) = working.work() {
                self.end(writer.take(), close);
                return;
            }
        }
    }

    fn end(&self, writer: Option<Writer>, close: oneshot::Sender<()>) {
        if let Some(writer) = writer {
            writer.close();
        }
        let _ = close.send(()); // who asked may have left
        self.queue.wake(); // the thread ends
    }
}

/// Starts the writer's thread and the checkpoint thread beside it.
pub(super) fn start(writer: Writer) -> Result<Arc<Shared>, Error> {
    let (path, checkpoint, queue) = (writer.path.clone(), Arc::clone(&writer.checkpoint), Arc::clone(&writer.queue));
    let shared = Arc::new(Shared { writer: Mutex::new(Some(writer)), queue, leave_until_ms: AtomicI64::new(0) });
    let spawn = |name: &str, body: Box<dyn FnOnce() + Send>| {
        std::thread::Builder::new()
            .name(name.into())
            .spawn(body)
            .map_err(|error| Error::Write(format!("can't start a thread: {error}")))
    };
    let worker = Arc::clone(&shared);
    spawn("store-writer", Box::new(move || worker.run()))?;
    spawn("store-checkpt", Box::new(move || checkpoint.run(&path)))?;
    Ok(shared)
}
