//! The one SQLite file: the log and the rows beside it. The only room with SQL.
//!
//! There is one write connection ([`writer`]); whoever holds it commits whatever has gathered as one transaction (group
//! commit, WAL, `synchronous=NORMAL`: a committed event survives SIGKILL; see docs/decisions.md). Readers have their
//! own connections ([`read`]) and never block it. Each stream of the log has a live end in memory ([`stream`]): a
//! reader holds a cursor, takes events from the ring while it keeps up and from the file when it doesn't, so replay
//! and live are one path without a gap or a double, and a slow reader costs one page.
//!
//! States of the disk: *healthy* → *degraded* (a commit failed: events go on living in memory, readers are told
//! `not_kept`; the holes, and the changes of rows that came with the events, are written as soon as the disk takes
//! writes again) → *healthy*.

mod aside;
mod backup;
mod batch;
mod check;
mod checkpoint;
mod deferred;
mod extent;
mod files;
mod log;
#[cfg(test)]
mod log_tests;
mod maker;
mod open;
mod processes;
mod queries;
mod queue;
mod read;
mod recover;
mod redaction;
mod requests;
mod rows;
mod salvage;
mod salvage_table;
#[cfg(test)]
mod salvage_tests;
mod session_rows;
mod sessions;
mod shared;
mod spans;
mod stream;
mod sweep;
#[cfg(test)]
mod tests;
mod types;
mod worktrees;
mod writer;

use std::collections::BTreeSet;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use bytes::Bytes;
use tokio::sync::{oneshot, watch};

pub use aside::time_in_names;
pub use backup::{Examined, Restored, StateError, back_up, examine, restore};
pub use check::Integrity;
pub use files::{FsBlob, FsEditFilter, FsEditRow, FsKeep, FsSeenRow};
pub use log::{LogEvent, LogFilter, LogGap, LogPage};
pub use recover::SetAside;
pub use requests::RequestFilter;
pub use rows::{AcpServerRow, AcpSessionRow, ProcessEnd, ProcessRow, RowChange};
pub use session_rows::{RequestRow, RuleRow, SessionRow, SpanRow, TurnRow};
pub use sessions::SessionFilter;
pub use spans::{ToolRow, TraceFilter, TraceRow};
pub use stream::{Newest, Stream};
pub use types::{Error, Event, GapReason, Health, Item};
pub use worktrees::WorktreeRow;

use crate::config::Bounds;
use crate::rt::redact::Redactor;
use check::Soundness;
use maker::Maker;
use queue::{Append, Command, Queue};
use read::Readers;
use shared::Shared;
use writer::Writer;

/// A cheap handle on the store. The file closes when the last handle is gone or [`Store::close`] ran.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    store_id: String,
    queue: Arc<Queue>,
    readers: Arc<Readers>,
    health: watch::Receiver<Health>,
    streams: Arc<Maker>,
    log: watch::Receiver<u64>,
    writer: Arc<Shared>,
    soundness: Arc<Soundness>,
    set_aside: Option<SetAside>,
    /// What is known of secrets, and what finds them.
    redactor: RwLock<(BTreeSet<String>, Option<Redactor>)>,
    /// Held for the life of the store: no second server writes this file.
    lock: nix::fcntl::Flock<std::fs::File>,
}

impl Store {
    /// Opens or makes the file, migrates it, and starts the writer.
    ///
    /// `fallback` names the file to use when another live server holds the first: users run several servers in one
    /// home, on different ports.
    ///
    /// A damaged file is set aside, and what can be read of it is in the new one: see [`Store::set_aside`]. One that the
    /// last server didn't close is checked, for a bounded time here and then beside: see [`Store::integrity`].
    ///
    /// # Errors
    /// [`Error::Open`] with what to do: the folder can't be made, the file is read-only, or of a newer version.
    pub fn open(path: &Path, fallback: &Path, bounds: &Bounds) -> Result<Self, Error> {
        Self::open_kept(path, fallback, bounds, None)
    }

    /// The same with the lock file that an earlier run held, still open and locked: the file it belongs to is used.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_kept(path: &Path, fallback: &Path, bounds: &Bounds, lock: Option<OwnedFd>) -> Result<Self, Error> {
        let open::Opened { ready, path, lock } = open::open(path, fallback, bounds, lock.map(std::fs::File::from))?;
        let open::Ready { connection, store_id, unchecked, depth } = ready;
        let (health_tx, health) = watch::channel(Health::Healthy);
        let queue = Arc::new(Queue::new(bounds.store_queue_max_bytes));
        let soundness = Arc::new(Soundness::new(&path, unchecked.is_empty()));
        let readers = Arc::new(Readers::new(path.clone(), Arc::clone(&soundness)));
        let unreadable = |error: rusqlite::Error| Error::Read(error.to_string());
        let last_row = extent::last_stream(&connection).map_err(unreadable)?;
        let set_aside = recover::read(&connection).map_err(unreadable)?;
        let streams = Arc::new(Maker::new(last_row, Arc::clone(&queue), Arc::clone(&readers), bounds));
        let parts = writer::Parts {
            queue: Arc::clone(&queue),
            health: health_tx,
            maker: Arc::clone(&streams),
            soundness: Arc::clone(&soundness),
        };
        let writer = Writer::new(connection, &path, parts, bounds.clone()).map_err(unreadable)?;
        let log = writer.watch_log();
        let writer = shared::start(writer)?;
        if !unchecked.is_empty() {
            let soundness = Arc::clone(&soundness);
            shared::spawn("store-check", move || soundness.check(unchecked, depth))?;
        }
        let redactor = RwLock::default();
        let inner = Inner { path, store_id, queue, readers, health, streams, log, writer, soundness, set_aside, redactor, lock };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// From here on these secrets, too, are taken out of events, and of rows but those that something is started again with,
    /// before anyone sees them.
    pub fn redact(&self, secrets: impl IntoIterator<Item = String>) {
        let mut redactor = self.inner.redactor.write().unwrap_or_else(PoisonError::into_inner); // as in `redactor`
        let (known, found) = &mut *redactor;
        let before = known.len();
        known.extend(secrets);
        if known.len() > before {
            *found = Redactor::new(&*known);
        }
    }

    /// Both are whole after each change.
    fn redactor(&self) -> RwLockReadGuard<'_, (BTreeSet<String>, Option<Redactor>)> {
        self.inner.redactor.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// A span as it is stored: without known secrets.
    pub fn clean_span(&self, row: &SpanRow) -> SpanRow {
        let mut row = row.clone();
        if let Some(redactor) = &self.redactor().1 {
            redaction::clean_span(&mut row, redactor);
        }
        row
    }

    /// The lock on the file, for who keeps it over a restart.
    pub fn lock(&self) -> BorrowedFd<'_> {
        self.inner.lock.as_fd()
    }

    /// The file in use.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Made once per file; marks the processes that servers on this file started.
    pub fn id(&self) -> &str {
        &self.inner.store_id
    }

    /// Whether commits succeed right now.
    pub fn health(&self) -> Health {
        self.inner.health.borrow().clone()
    }

    /// Whether the file is sound, as far as is known.
    pub fn integrity(&self) -> Integrity {
        self.inner.soundness.get()
    }

    /// The damaged file that was set aside last, by this start or an earlier one, as long as it is there.
    pub fn set_aside(&self) -> Option<&SetAside> {
        self.inner.set_aside.as_ref().filter(|aside| aside.path.exists())
    }

    /// Opens a stream of the log, making it when it isn't there. Opening twice gives the same stream.
    /// Cancel safe: a stream that nobody waits for any more is made all the same.
    ///
    /// # Errors
    /// [`Error::Write`] when the disk refuses the new row.
    pub async fn open_stream(&self, name: &str) -> Result<Arc<Stream>, Error> {
        let [stream] = self.open_streams([name.to_owned()]).await?;
        Ok(stream)
    }

    /// The same for several, in one transaction. Cancel safe in the same way.
    ///
    /// # Errors
    /// As [`Store::open_stream`].
    pub async fn open_streams<const N: usize>(&self, names: [String; N]) -> Result<[Arc<Stream>; N], Error> {
        let (reply, answer) = oneshot::channel();
        self.inner.queue.push(Command::Open { names: names.into(), reply });
        let streams = answer.await.map_err(|_| Error::Closed)??;
        streams.try_into().map_err(|_| Error::Closed)
    }

    /// Queues one event, with a change of rows in the same transaction when one is given; it is committed within a few
    /// milliseconds, or at once by [`Store::flush`].
    /// Order of calls is order in the log. Never fails: an event that the disk refuses stays in memory and its readers
    /// are told, and the change of rows is made with the next commit that succeeds. Callers that produce without end await [`Store::room`] first.
    pub fn append(&self, stream: &Arc<Stream>, kind: &'static str, payload: Bytes, change: Option<RowChange>) {
        self.put(stream, kind, payload, change, None);
    }

    /// The same; resolves with the event's position once it is committed and its readers were woken (or it could not
    /// be kept). Dropping the future drops nothing else.
    pub fn append_acked(
        &self,
        stream: &Arc<Stream>,
        kind: &'static str,
        payload: Bytes,
        change: Option<RowChange>,
    ) -> oneshot::Receiver<u64> {
        let (ack, acked) = oneshot::channel();
        self.put(stream, kind, payload, change, Some(ack));
        acked
    }

    /// As [`Store::append`], of an event that was read from somewhere: with it, the source is read up to `read_to`. See
    /// [`Store::read_to`].
    pub fn append_read(&self, stream: &Arc<Stream>, kind: &'static str, payload: Bytes, change: Option<RowChange>, read_to: u64) {
        let append = Append { read_to: Some(read_to), ..self.clean(stream, kind, payload, change, None) };
        self.inner.queue.put(Command::Append(append));
    }

    /// The same; resolves as [`Store::append_acked`].
    pub fn append_read_acked(
        &self,
        stream: &Arc<Stream>,
        kind: &'static str,
        payload: Bytes,
        change: Option<RowChange>,
        read_to: u64,
    ) -> oneshot::Receiver<u64> {
        let (ack, acked) = oneshot::channel();
        let append = Append { read_to: Some(read_to), ..self.clean(stream, kind, payload, change, Some(ack)) };
        self.inner.queue.put(Command::Append(append));
        acked
    }

    /// How far the source of a stream's events was read with the last one that is in the file. Cancel safe: it only reads.
    ///
    /// # Errors
    /// [`Error::Read`] when the file can't be read.
    pub async fn read_to(&self, name: &str) -> Result<u64, Error> {
        let name = name.to_owned();
        self.inner.readers.run(move |connection| extent::read_to(connection, &name)).await
    }

    /// Appends several events; they and `change` are committed together, after what others append meanwhile: they don't wait for
    /// it. When somebody follows the stream, that is soon; otherwise within a few milliseconds. Whoever appends to the same
    /// stream otherwise calls [`Store::append_in_order`].
    pub fn append_later(&self, stream: &Arc<Stream>, events: Vec<(&'static str, Bytes)>, change: Option<RowChange>) {
        let appends = self.joined(stream, events, change, None);
        self.inner.queue.put_later(appends, stream.is_followed());
    }

    /// The same; resolves as [`Store::append_acked`], with the last one's position. Without `wanted`, nobody but followers of
    /// the stream waits for it.
    pub fn append_later_acked(
        &self,
        stream: &Arc<Stream>,
        events: Vec<(&'static str, Bytes)>,
        wanted: bool,
    ) -> oneshot::Receiver<u64> {
        let (ack, acked) = oneshot::channel();
        let appends = self.joined(stream, events, None, Some(ack));
        self.inner.queue.put_later(appends, wanted || stream.is_followed());
        acked
    }

    /// What was appended to be later is committed with everything else: nobody waits for that alone.
    pub fn no_later(&self) {
        self.inner.queue.promote();
    }

    /// As [`Store::append`], after all that was appended to be later. Resolves as [`Store::append_acked`].
    pub fn append_in_order(
        &self,
        stream: &Arc<Stream>,
        kind: &'static str,
        payload: Bytes,
        change: Option<RowChange>,
    ) -> oneshot::Receiver<u64> {
        let (ack, acked) = oneshot::channel();
        let append = self.clean(stream, kind, payload, change, Some(ack));
        self.inner.queue.put_in_order(Command::Append(append));
        acked
    }

    /// The same of several events: they and `change` are committed together.
    pub fn append_all_in_order(&self, stream: &Arc<Stream>, events: Vec<(&'static str, Bytes)>, change: Option<RowChange>) {
        let appends = self.joined(stream, events, change, None);
        self.inner.queue.put_all_in_order(appends.into_iter().map(Command::Append));
    }

    /// Has what is queued committed. A little is committed on the spot, which saves two changes of thread and is what
    /// makes a turn quick; much, or when the disk was slow a moment ago, is left to the writer's thread.
    pub fn flush(&self) {
        self.inner.writer.flush();
    }

    /// `change` and `ack` go with the last one.
    fn joined(
        &self,
        stream: &Arc<Stream>,
        events: Vec<(&'static str, Bytes)>,
        change: Option<RowChange>,
        ack: Option<oneshot::Sender<u64>>,
    ) -> Vec<Append> {
        let (count, mut change, mut ack) = (events.len(), change, ack);
        let each = events.into_iter().enumerate().map(|(at, (kind, payload))| {
            if at + 1 < count {
                return Append { is_joined: true, ..self.clean(stream, kind, payload, None, None) };
            }
            self.clean(stream, kind, payload, change.take(), ack.take())
        });
        each.collect()
    }

    fn put(
        &self,
        stream: &Arc<Stream>,
        kind: &'static str,
        payload: Bytes,
        change: Option<RowChange>,
        ack: Option<oneshot::Sender<u64>>,
    ) {
        let append = self.clean(stream, kind, payload, change, ack);
        self.inner.queue.put(Command::Append(append));
    }

    /// From here on what is appended to be later is committed only when something else has it so.
    #[cfg(test)]
    pub(crate) fn hold_later(&self) {
        self.inner.queue.hold_later();
    }

    /// How many events wait so.
    #[cfg(test)]
    pub(crate) fn held_later(&self) -> usize {
        self.inner.queue.held_later()
    }

    /// Ends as by a SIGKILL: of those the first `kept` are committed, the rest never.
    #[cfg(test)]
    pub(crate) async fn kill(&self, kept: usize) {
        self.inner.queue.cut_later(kept);
        self.close().await;
    }

    /// JSON without known secrets.
    pub fn redacted(&self, json: String) -> String {
        let mut json = json;
        if let Some(redactor) = &self.redactor().1 {
            redactor.clean_json(&mut json);
        }
        json
    }

    /// Without known secrets.
    fn clean(
        &self,
        stream: &Arc<Stream>,
        kind: &'static str,
        payload: Bytes,
        change: Option<RowChange>,
        ack: Option<oneshot::Sender<u64>>,
    ) -> Append {
        let (mut payload, mut change) = (payload, change);
        if let Some(redactor) = &self.redactor().1 {
            if let Some(clean) = redactor.json(&payload) {
                payload = clean.into();
            }
            change.iter_mut().for_each(|change| redaction::clean(change, redactor));
        }
        stream.count_append();
        Append { stream: Arc::clone(stream), kind, payload, change, read_to: None, ack, is_joined: false }
    }

    /// Changes rows; resolves once committed. Dropping the future doesn't take the change back. A refused change is
    /// not tried again, except for [`RowChange::DeleteAcpServer`], which is made as soon as the disk takes writes.
    ///
    /// # Errors
    /// [`Error::Write`] when the disk refuses, [`Error::Closed`] during shutdown.
    pub async fn change(&self, change: RowChange) -> Result<(), Error> {
        let mut change = change;
        if let Some(redactor) = &self.redactor().1 {
            redaction::clean(&mut change, redactor);
        }
        let (reply, answer) = oneshot::channel();
        self.inner.queue.push(Command::Change { change, reply });
        answer.await.map_err(|_| Error::Closed)?
    }

    /// Waits until everything that was appended before is committed, or can't be. Cancel safe.
    pub async fn settle(&self) {
        if self.inner.writer.settle_now() {
            return;
        }
        let _ = self.change(RowChange::Many(Vec::new())).await; // an error is the disk's or the end's: nothing more comes
    }

    /// Waits until the writer's queue has room. Cancel safe.
    pub async fn room(&self) {
        self.inner.queue.room().await;
    }

    /// True when the writer's queue has room right now.
    pub fn has_room(&self) -> bool {
        self.inner.queue.has_room()
    }

    /// The ACP servers and their sessions, as the last run left them. Cancel safe: it only reads.
    ///
    /// # Errors
    /// [`Error::Read`] when the file can't be read.
    pub async fn acp_servers(&self) -> Result<Vec<(AcpServerRow, Vec<AcpSessionRow>)>, Error> {
        self.inner.readers.run(rows::acp_servers).await
    }

    /// The managed processes by number, as the last run left them, and the highest number that was ever used.
    /// `owner_word` knows the owners' words. Cancel safe: it only reads.
    ///
    /// # Errors
    /// [`Error::Read`] when the file can't be read.
    pub async fn processes(&self, owner_word: fn(&str) -> Option<&'static str>) -> Result<(Vec<ProcessRow>, u64), Error> {
        self.inner.readers.run(move |connection| processes::all(connection, owner_word)).await
    }

    /// Commits what is queued and ends the writer. Later appends are dropped. Idempotent. Dropping the
    /// future doesn't stop the closing.
    pub async fn close(&self) {
        let (reply, answer) = oneshot::channel();
        self.inner.queue.push(Command::Close { reply });
        let _ = answer.await; // an error means that it is closed already
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let (reply, _) = oneshot::channel();
        self.queue.push(Command::Close { reply }); // ends the writer's thread; nothing waits for it here
    }
}
