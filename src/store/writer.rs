//! The one write connection: whoever holds it takes what has gathered, commits it as one transaction, and shows it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::{oneshot, watch};

use super::batch::{Asked, Batch, Committed, is_busy, is_of_one};
use super::check::Soundness;
use super::checkpoint::Checkpoint;
use super::deferred::Deferred;
use super::extent::{self, Held, Written};
use super::log;
use super::maker::Maker;
use super::open::PATIENCE;
use super::queue::{Append, Command, Queue, split_at_close};
use super::read::as_u64;
use super::rows::RowChange;
use super::stream::Stream;
use super::sweep;
use super::types::{Error, Health};
use crate::config::{Bounds, as_usize};
use crate::rt::clock::now_ms;

/// Between two slices of old streams: commits go first.
const SWEEP_PAUSE: Duration = Duration::from_millis(20);
/// Streams whose extent is remembered though nobody holds them: finding it out again reads all that the file has of them.
const KNOWN_MAX: usize = 4096;
/// After a refusal, until what waits for the disk is tried without an event that asks for it.
const RETRY_PAUSE: Duration = Duration::from_secs(5);
/// The same once, at the end, when nobody should wait for another process.
const LAST_PATIENCE: Duration = Duration::from_millis(500);

pub(super) struct Writer {
    connection: Connection,
    path: PathBuf,
    queue: Arc<Queue>,
    health: watch::Sender<Health>,
    bounds: Bounds,
    maker: Arc<Maker>,
    soundness: Arc<Soundness>,
    /// The last committed position of the whole log.
    log: watch::Sender<u64>,
    log_seq: i64,
    streams: HashMap<i64, Written>,
    deferred: Deferred,
    /// Orphaned streams beyond this number are to be removed.
    sweep_keep: Option<u64>,
    chores_at: Option<Instant>,
    checkpoint: Arc<Checkpoint>,
}

/// What a writer shares with others.
pub(super) struct Parts {
    pub(super) queue: Arc<Queue>,
    pub(super) health: watch::Sender<Health>,
    pub(super) maker: Arc<Maker>,
    pub(super) soundness: Arc<Soundness>,
}

impl Writer {
    pub(super) fn new(connection: Connection, path: &Path, parts: Parts, bounds: Bounds) -> rusqlite::Result<Self> {
        let Parts { queue, health, maker, soundness } = parts;
        let log_seq = log::last_seq(&connection)?;
        Ok(Self {
            connection,
            path: path.to_path_buf(),
            queue,
            health,
            maker,
            soundness,
            log: watch::Sender::new(as_u64(log_seq)),
            log_seq,
            sweep_keep: Some(bounds.log_deleted_streams_max),
            bounds,
            streams: HashMap::new(),
            deferred: Deferred::default(),
            chores_at: Some(Instant::now()),
            checkpoint: Arc::default(),
        })
    }

    /// Follows the last committed position of the whole log.
    pub(super) fn watch_log(&self) -> watch::Receiver<u64> {
        self.log.subscribe()
    }

    /// What its threads need besides.
    pub(super) fn parts(&self) -> (PathBuf, Arc<Checkpoint>, Arc<Queue>) {
        (self.path.clone(), Arc::clone(&self.checkpoint), Arc::clone(&self.queue))
    }

    /// Commits a batch of what is queued. True when there may be more; gives the reply to a request to close, which comes
    /// last.
    pub(super) fn work(&mut self) -> (bool, Option<oneshot::Sender<()>>) {
        let batch = self.queue.take(as_usize(self.bounds.store_batch_max_events));
        let (is_more, (batch, close)) = (!batch.is_empty(), split_at_close(batch));
        self.handle(batch);
        (is_more, close)
    }

    /// Commits a few events without waiting for anyone. When another process writes, they go back into the queue. False
    /// when that or another trouble came up, so that the thread should look.
    pub(super) fn work_a_little(&mut self) -> bool {
        let (appends, is_later) = self.queue.take_little();
        if appends.is_empty() {
            return true;
        }
        let _ = self.connection.busy_timeout(Duration::ZERO); // can't fail on an open connection
        let busy = self.try_commit(appends, Vec::new(), true);
        let _ = self.connection.busy_timeout(PATIENCE);
        if let Some(appends) = busy {
            self.queue.put_back(appends, is_later);
            return false;
        }
        !self.is_degraded()
    }

    pub(super) fn close(mut self) {
        let _ = self.connection.busy_timeout(LAST_PATIENCE);
        self.recover();
        self.queue.close();
        self.soundness.leave(&self.connection);
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
                Command::Make { name, stream } => {
                    // Deferred changes are made before events: the stream's row is there when its first event comes.
                    self.deferred.push(RowChange::PutStream { row_id: stream.row_id, name });
                    let written =
                        Written { live: Arc::downgrade(&stream), last_seq: 0, held: Held::default(), holes: Vec::new() };
                    self.streams.insert(stream.row_id, written);
                }
                Command::Close { .. } => {}
            }
        }
        self.commit(appends, changes);
    }

    fn commit(&mut self, appends: Vec<Append>, asked: Vec<Asked>) {
        if !appends.is_empty() || !asked.is_empty() {
            self.try_commit(appends, asked, false);
        }
    }

    /// Commits, shows and answers. With `gives_back`, a database that another process writes to changes nothing, and
    /// the events come back.
    fn try_commit(&mut self, appends: Vec<Append>, asked: Vec<Asked>, gives_back: bool) -> Option<Vec<Append>> {
        let seqs = self.number(&appends);
        let result = self.write(&appends, &seqs, &asked);
        if gives_back && result.as_ref().is_err_and(is_busy) {
            for append in &appends {
                self.written(append).last_seq -= 1;
            }
            return Some(appends);
        }
        let (kept, answers) = match result {
            Ok(committed) => self.committed(committed, &appends, &seqs, &asked),
            Err(error) => self.refused(&error, &appends, &seqs, &asked),
        };
        self.show(appends, &seqs, &kept);
        for ((_, reply), answer) in asked.into_iter().zip(answers) {
            let _ = reply.send(answer);
        }
        None
    }

    /// Positions are given whether or not the disk takes the events: what was shown keeps its number.
    fn number(&mut self, appends: &[Append]) -> Vec<u64> {
        let next = |append: &Append| {
            let written = self.written(append);
            written.last_seq += 1;
            written.last_seq
        };
        appends.iter().map(next).collect()
    }

    fn written(&mut self, append: &Append) -> &mut Written {
        self.streams.get_mut(&append.stream.row_id).expect("a stream handle comes from open_stream, which made this entry")
    }

    fn write(&mut self, appends: &[Append], seqs: &[u64], asked: &[Asked]) -> rusqlite::Result<Committed> {
        let recovers = self.is_degraded();
        let batch = Batch {
            deferred: self.deferred.changes(),
            appends,
            seqs,
            log_seq: self.log_seq,
            asked,
            streams: &self.streams,
            bounds: &self.bounds,
            recovers,
        };
        match batch.write(&mut self.connection, false) {
            // One bad change must not take the others with it.
            Err(error) if is_of_one(&error) => batch.write(&mut self.connection, true),
            result => result,
        }
    }

    /// Keeps book of a commit. Gives which events are kept, and the answers.
    fn committed(
        &mut self,
        committed: Committed,
        appends: &[Append],
        seqs: &[u64],
        asked: &[Asked],
    ) -> (Vec<bool>, Vec<Result<(), Error>>) {
        self.log_seq = committed.log_seq;
        for (row_id, held) in committed.held {
            if let Some(written) = self.streams.get_mut(&row_id) {
                written.held = held;
                written.holes.clear();
            }
        }
        for ((append, seq), _) in appends.iter().zip(seqs).zip(&committed.kept).filter(|(_, kept)| !**kept) {
            self.written(append).add_hole(*seq);
        }
        let riding = appends.iter().filter_map(|append| append.change.as_ref());
        for change in self.deferred.changes().iter().chain(riding).chain(asked.iter().map(|(change, _)| change)) {
            if let Some(keep_streams) = change.keep_streams() {
                self.sweep_keep = Some(keep_streams);
                self.chores_at = Some(Instant::now() + SWEEP_PAUSE);
            }
        }
        self.deferred.made();
        if let Health::Degraded { events_not_kept, .. } = &*self.health.borrow() {
            tracing::warn!(events_not_kept, "the database takes writes again");
        }
        self.health.send_if_modified(|health| std::mem::replace(health, Health::Healthy) != Health::Healthy);
        self.checkpoint.written(appends.iter().map(pages).sum());
        (committed.kept, committed.answers)
    }

    /// Remembers what the disk refused: holes, and the changes of rows that nobody else would make again.
    fn refused(
        &mut self,
        error: &rusqlite::Error,
        appends: &[Append],
        seqs: &[u64],
        asked: &[Asked],
    ) -> (Vec<bool>, Vec<Result<(), Error>>) {
        for (append, seq) in appends.iter().zip(seqs) {
            self.written(append).add_hole(*seq);
            if let Some(change) = &append.change {
                self.deferred.push(change.clone());
            }
        }
        for (change, _) in asked.iter().filter(|(change, _)| matches!(change, RowChange::DeleteAcpServer { .. })) {
            self.deferred.push(change.clone());
        }
        self.degrade(error, appends.len() as u64);
        self.chores_at = Some(Instant::now() + RETRY_PAUSE);
        let answer = Err(Error::Write(error.to_string()));
        (vec![false; appends.len()], vec![answer; asked.len()])
    }

    fn is_degraded(&self) -> bool {
        matches!(&*self.health.borrow(), Health::Degraded { .. })
    }

    fn degrade(&self, error: &rusqlite::Error, lost: u64) {
        self.soundness.saw(error);
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

    /// What is done beside commits, when it is due: what the disk refused is tried again, and old streams are removed a
    /// slice at a time. Gives when it wants to be called again.
    pub(super) fn chores(&mut self) -> Option<Instant> {
        if Instant::now() < self.chores_at? {
            return self.chores_at;
        }
        self.chores_at = None;
        self.recover();
        if let (Some(keep), None) = (self.sweep_keep, self.chores_at) {
            let live = |stream| self.streams.get(&stream).is_some_and(|written: &Written| written.live.strong_count() > 0);
            let pause = match sweep::slice(&mut self.connection, keep, live) {
                Ok(swept) => {
                    self.streams.retain(|stream, _| !swept.streams.contains(stream));
                    self.checkpoint.written(swept.pages);
                    self.sweep_keep = (!swept.done).then_some(keep);
                    SWEEP_PAUSE
                }
                Err(error) => {
                    tracing::warn!(%error, "streams of deleted ACP servers could not be removed; it is tried again");
                    RETRY_PAUSE
                }
            };
            self.chores_at = self.sweep_keep.map(|_| Instant::now() + pause);
        }
        self.chores_at
    }

    /// Writes what waits for the disk, if anything does.
    fn recover(&mut self) {
        let waits = !self.deferred.changes().is_empty() || self.streams.values().any(|written| !written.holes.is_empty());
        if waits && self.is_degraded() {
            self.try_commit(Vec::new(), Vec::new(), false);
        }
    }

    /// Events reach the rings first, then watchers wake, then those who asked to be told: a POST's answer never
    /// overtakes the event stream.
    fn show(&self, appends: Vec<Append>, seqs: &[u64], kept: &[bool]) {
        let mut start = 0;
        while start < appends.len() {
            let (stream, is_kept) = (&appends[start].stream, kept[start]);
            let alike = |(append, kept): &(&Append, &bool)| append.stream.row_id == stream.row_id && **kept == is_kept;
            let run = appends[start..].iter().zip(&kept[start..]).take_while(alike).count();
            let events = appends[start..start + run].iter().zip(&seqs[start..start + run]);
            stream.extend(events.map(|(append, seq)| (*seq, append.payload.clone())), is_kept);
            stream.publish(seqs[start + run - 1]);
            start += run;
        }
        self.log.send_if_modified(|log| std::mem::replace(log, as_u64(self.log_seq)) != as_u64(self.log_seq));
        for (append, seq) in appends.into_iter().zip(seqs) {
            if let Some(ack) = append.ack {
                let _ = ack.send(*seq);
            }
        }
    }

    fn open_streams(&mut self, names: &[String]) -> Result<Vec<Arc<Stream>>, Error> {
        let next_row = || self.maker.next_row();
        let row_ids =
            extent::stream_rows(&mut self.connection, names, &next_row).map_err(|error| Error::Write(self.saw(&error)))?;
        row_ids.into_iter().map(|(row_id, is_new)| self.open_stream(row_id, is_new)).collect()
    }

    /// Words for an error, which may be the first sign of damage.
    fn saw(&self, error: &rusqlite::Error) -> String {
        self.soundness.saw(error);
        error.to_string()
    }

    fn open_stream(&mut self, row_id: i64, is_new: bool) -> Result<Arc<Stream>, Error> {
        if let Some(written) = self.streams.get_mut(&row_id) {
            let stream = written.live.upgrade().unwrap_or_else(|| self.maker.handle(row_id, written.last_seq));
            written.live = Arc::downgrade(&stream);
            return Ok(stream);
        }
        if self.streams.len() >= KNOWN_MAX {
            self.streams.retain(|_, written| written.live.strong_count() > 0 || !written.holes.is_empty());
        }
        let found = if is_new { Ok((0, Held::default())) } else { extent::of(&self.connection, row_id) };
        let (last_seq, held) = found.map_err(|error| Error::Read(self.saw(&error)))?;
        let stream = self.maker.handle(row_id, last_seq);
        self.streams.insert(row_id, Written { live: Arc::downgrade(&stream), last_seq, held, holes: Vec::new() });
        Ok(stream)
    }
}

/// About how many pages of the WAL an event takes: its own, those of the indexes, and those of the rows that change.
fn pages(append: &Append) -> u64 {
    append.payload.len() as u64 / 4096 + if append.change.is_some() { 4 } else { 1 }
}
