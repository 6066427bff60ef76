//! The journal: the task that makes rows of changes, one batch after another. Whoever changes files only puts the change
//! into its queue, and waits for room there when the disk is far behind.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::super::edit::DiffLimits;
use super::super::ledger::{Conflict, Leases, Notices, Seen, Severity, conflicts_of};
use super::image::Raw;
use super::rows::{Edit, EditInfo, prepare};
use super::{Change, KeepLimits};
use crate::config::{Bounds, as_usize};
use crate::rt::clock::now_ms;
use crate::rt::spawn_owned;
use crate::store::{FsBlob, FsEditRow, FsKeep, FsSeenRow, RowChange, Store, Stream};

/// Changes that wait; all of them are taken at once. Each holds two files open.
const QUEUE_MAX: usize = 256;
/// Trees with their contents in memory, from when they are read until they are noted.
const TREES_MAX: usize = 4;
/// How long a change waits for others, so that they share a commit, and nobody is woken for each.
const GATHER: Duration = Duration::from_millis(20);
/// Contents in memory at once, but for one change.
const BATCH_BYTES: usize = 8 * 1024 * 1024;
/// After so many edits, or bytes of contents, what is too much goes.
const TRIM_EVERY_EDITS: u64 = 200;
const TRIM_EVERY_BYTES: u64 = 16 * 1024 * 1024;
/// With no more contents than this, a batch that somebody waits for is committed on the spot.
const LITTLE_BYTES: usize = 64 * 1024;

/// The stream of edits in the log.
pub const STREAM: &str = "fs/edits";

/// What the journal is told.
pub(in crate::fs) enum Entry {
    Change(Box<Change>),
    /// An edit whose row is made already: one that takes another back, or a proposal.
    Row {
        edit: Box<Edit>,
        blobs: Vec<FsBlob>,
        kind: &'static str,
    },
    Status {
        id: String,
        status: &'static str,
        kind: &'static str,
    },
    Seen(Vec<FsSeenRow>),
    Settle(oneshot::Sender<()>),
}

/// The handle.
pub(in crate::fs) struct Journal {
    sender: mpsc::Sender<Entry>,
    /// Somebody waits for what is in the queue.
    urgent: Arc<Notify>,
    trees: Arc<Semaphore>,
    pub(in crate::fs) store: Store,
    pub(in crate::fs) seen: Arc<Seen>,
}

impl Journal {
    /// Starts the task.
    pub(in crate::fs) async fn start(
        store: Store,
        bounds: &Bounds,
        keep: KeepLimits,
        leases: Arc<Leases>,
        notices: Arc<dyn Notices>,
    ) -> Result<Self, crate::store::Error> {
        let stream = store.open_stream(STREAM).await?;
        let seen = Arc::new(Seen::new(store.fs_seen(as_usize(bounds.fs_seen_max)).await?, as_usize(bounds.fs_seen_max)));
        let (sender, receiver) = mpsc::channel(QUEUE_MAX);
        let limits = limits(bounds);
        let urgent = Arc::new(Notify::new());
        let worker = Worker {
            urgent: Arc::clone(&urgent),
            store: store.clone(),
            stream,
            leases,
            notices,
            bounds: bounds.clone(),
            keep,
            limits,
            edits: TRIM_EVERY_EDITS,
            bytes: 0,
            told: Told::default(),
        };
        spawn_owned("fs-journal", worker.run(receiver));
        Ok(Self { sender, urgent, trees: Arc::new(Semaphore::new(TREES_MAX)), store, seen })
    }

    /// Held while the contents of a tree are in memory. Blocks: for threads that may.
    pub(in crate::fs) fn room_for_tree(&self) -> Option<OwnedSemaphorePermit> {
        let runtime = tokio::runtime::Handle::try_current().ok()?;
        runtime.block_on(Arc::clone(&self.trees).acquire_owned()).ok() // never closed
    }

    /// Blocks while the queue is full: for threads that may.
    pub(in crate::fs) fn send(&self, entry: Entry) {
        let _ = self.sender.blocking_send(entry); // only without a runtime, which has nothing to keep any more
    }

    pub(in crate::fs) async fn send_async(&self, entry: Entry) {
        let _ = self.sender.send(entry).await; // the same
    }

    /// A session has seen what a file has. Never waits: one that is lost is only not known after a restart.
    pub(in crate::fs) fn saw(&self, session: &str, path: &Path, hash: &str, op: &'static str) {
        self.saw_all(session, vec![(path.to_path_buf(), hash.to_owned())], op);
    }

    /// The same of many files.
    pub(in crate::fs) fn saw_all(&self, session: &str, files: Vec<(PathBuf, String)>, op: &'static str) {
        let news = files.into_iter().filter(|(path, hash)| self.seen.put(session, path, hash, op));
        let row = |(path, sha256): (PathBuf, String)| FsSeenRow {
            session_id: session.to_owned(),
            path: Raw::of(&path).0,
            sha256,
            op: op.to_owned(),
            seen_at_ms: now_ms(),
        };
        let rows: Vec<_> = news.map(row).collect();
        if !rows.is_empty() {
            let _ = self.sender.try_send(Entry::Seen(rows));
        }
    }

    pub(in crate::fs) async fn settle(&self) {
        let (reply, settled) = oneshot::channel();
        self.send_async(Entry::Settle(reply)).await;
        self.urgent.notify_one();
        let _ = settled.await; // the runtime ends
    }
}

pub(in crate::fs) fn limits(bounds: &Bounds) -> DiffLimits {
    DiffLimits { compared_max_bytes: bounds.fs_edit_max_bytes, shown_max_bytes: as_usize(bounds.fs_diff_max_bytes) }
}

/// Which pairs of sessions were told of which conflict: once for each, until it gets worse.
#[derive(Default)]
struct Told(VecDeque<(Vec<u8>, String, String, &'static str)>);

const TOLD_MAX: usize = 4096;

impl Told {
    fn is_new(&mut self, conflict: &Conflict) -> bool {
        let path = Raw::of(&conflict.path).0;
        let key = (path, conflict.session_id.clone(), conflict.other_session_id.clone(), conflict.severity.as_str());
        if self.0.contains(&key) {
            return false;
        }
        self.0.push_back(key);
        if self.0.len() > TOLD_MAX {
            self.0.pop_front();
        }
        true
    }
}

/// What comes within a moment of the first, or until somebody waits for it.
async fn gather(receiver: &mut mpsc::Receiver<Entry>, urgent: &Notify, first: Entry) -> VecDeque<Entry> {
    let mut batch = VecDeque::from([first]);
    tokio::select! {
        () = tokio::time::sleep(GATHER) => {}
        () = urgent.notified() => {}
    }
    while batch.len() < QUEUE_MAX
        && let Ok(next) = receiver.try_recv()
    {
        batch.push_back(next);
    }
    batch
}

/// The changes that a batch begins with, as far as their contents may be in memory at once.
fn prepare_some(batch: &mut VecDeque<Entry>, keep: KeepLimits, limits: DiffLimits) -> Vec<(Edit, Vec<FsBlob>)> {
    let (mut prepared, mut bytes) = (Vec::new(), 0);
    while bytes <= BATCH_BYTES
        && let Some(Entry::Change(_)) = batch.front()
        && let Some(Entry::Change(change)) = batch.pop_front()
    {
        // A panic is in the log, and costs this one change.
        let Ok((edit, blobs)) = catch_unwind(AssertUnwindSafe(|| prepare(*change, keep, limits))) else { continue };
        bytes += bytes_of(&blobs);
        prepared.push((edit, blobs));
    }
    prepared
}

fn bytes_of(blobs: &[FsBlob]) -> usize {
    blobs.iter().map(|blob| blob.content.len()).sum()
}

struct Worker {
    urgent: Arc<Notify>,
    store: Store,
    stream: Arc<Stream>,
    leases: Arc<Leases>,
    notices: Arc<dyn Notices>,
    bounds: Bounds,
    keep: KeepLimits,
    limits: DiffLimits,
    /// Since the last trimming.
    edits: u64,
    bytes: u64,
    told: Told,
}

impl Worker {
    async fn run(mut self, mut receiver: mpsc::Receiver<Entry>) {
        while let Some(first) = receiver.recv().await {
            let batch = gather(&mut receiver, &self.urgent, first).await;
            self.write(batch).await;
            self.trim().await;
        }
    }

    async fn write(&mut self, mut batch: VecDeque<Entry>) {
        let mut pending = Pending::default();
        let (mut seen, mut waiting) = (Vec::new(), Vec::new());
        while let Some(entry) = batch.pop_front() {
            match entry {
                Entry::Change(_) => {
                    batch.push_front(entry);
                    let Some(rest) = self.write_changes(batch, &mut pending).await else { return };
                    batch = rest;
                }
                Entry::Row { edit, blobs, kind } => {
                    pending.bytes += bytes_of(&blobs);
                    self.append(*edit, blobs, kind, &mut pending.acks);
                }
                Entry::Status { id, status, kind } => {
                    let payload = json!({"type": kind, "id": id, "status": status}).to_string();
                    let change = RowChange::SetFsEditStatus { id, status };
                    pending.acks.push(self.store.append_acked(&self.stream, kind, payload.into(), Some(change)));
                }
                Entry::Seen(rows) => seen.extend(rows),
                Entry::Settle(reply) => waiting.push(reply),
            }
        }
        if !waiting.is_empty() && pending.bytes <= LITTLE_BYTES {
            self.store.flush();
        }
        // The disk's pace is ours: no more than one batch waits for it.
        pending.settled().await;
        if !seen.is_empty()
            && let Err(error) = self.store.change(RowChange::PutFsSeen(seen)).await
        {
            tracing::warn!(%error, "what sessions saw of files is not kept over a restart");
        }
        for reply in waiting {
            let _ = reply.send(()); // who waited may have left
        }
    }

    /// Those that a batch begins with, or some of them; gives the others back. `None`: the runtime ends.
    async fn write_changes(&mut self, mut batch: VecDeque<Entry>, pending: &mut Pending) -> Option<VecDeque<Entry>> {
        let (keep, limits) = (self.keep, self.limits);
        let work = move || (prepare_some(&mut batch, keep, limits), batch);
        let (prepared, rest) = tokio::task::spawn_blocking(work).await.ok()?;
        for (edit, blobs) in prepared {
            pending.bytes += bytes_of(&blobs);
            let row = self.append(edit, blobs, "edit.applied", &mut pending.acks);
            if row.session_id.is_some() {
                pending.settled().await;
                self.tell_conflicts(&row, &mut pending.acks).await;
            }
        }
        if pending.bytes > BATCH_BYTES {
            pending.settled().await;
        }
        Some(rest)
    }

    fn append(
        &mut self,
        edit: Edit,
        blobs: Vec<FsBlob>,
        kind: &'static str,
        acks: &mut Vec<oneshot::Receiver<u64>>,
    ) -> FsEditRow {
        self.edits += 1;
        self.bytes += bytes_of(&blobs) as u64;
        let row = edit.clone().into_row();
        let kept = blobs.iter().map(|blob| blob.sha256.clone()).collect();
        let mut shown = EditInfo::of(edit, &kept).to_json();
        if let Some(shown) = shown.as_object_mut() {
            shown.remove("diff"); // GET /v1/fs/edits/{id} has it
            shown.remove("restorable"); // contents that were kept before aren't looked up here
        }
        let payload = json!({"type": kind, "edit": shown}).to_string();
        let change = RowChange::PutFsEdit(Box::new(row.clone()), blobs);
        acks.push(self.store.append_acked(&self.stream, kind, payload.into(), Some(change)));
        row
    }

    async fn tell_conflicts(&mut self, row: &FsEditRow, acks: &mut Vec<oneshot::Receiver<u64>>) {
        let mut found = match conflicts_of(&self.store, &self.bounds, row).await {
            Ok(found) => found,
            Err(error) => return tracing::warn!(%error, "edits of other sessions can't be read: nobody is told of conflicts"),
        };
        found.extend(self.leased_by_others(row));
        for conflict in found {
            if self.told.is_new(&conflict) {
                let payload = json!({"type": "fs.conflict", "conflict": conflict.to_json()});
                acks.push(self.store.append_acked(&self.stream, "fs.conflict", payload.to_string().into(), None));
                self.notices.conflict(&conflict);
            }
        }
    }

    /// Whoever has leased what was changed all the same.
    fn leased_by_others(&self, row: &FsEditRow) -> Vec<Conflict> {
        let path = Raw(row.path.clone()).path();
        let leases = self.leases.list(Some(&path), None).into_iter();
        let others = leases.filter(|lease| path.starts_with(&lease.path) && row.session_id.as_ref() != Some(&lease.session_id));
        let of = |lease: crate::fs::Lease| Conflict {
            path: path.clone(),
            severity: Severity::Leased,
            session_id: row.session_id.clone().unwrap_or_default(),
            edit_id: Some(row.id.clone()),
            lines: None,
            other_session_id: lease.session_id,
            other_edit_id: None,
            other_lines: None,
        };
        others.map(of).collect()
    }

    async fn trim(&mut self) {
        if self.edits < TRIM_EVERY_EDITS && self.bytes < TRIM_EVERY_BYTES {
            return;
        }
        (self.edits, self.bytes) = (0, 0);
        let bounds = &self.bounds;
        let age_ms = i64::try_from(bounds.fs_edits_max_age_ms).unwrap_or(i64::MAX);
        let keep = FsKeep {
            edits: bounds.fs_edits_max,
            blob_bytes: bounds.fs_preimages_max_bytes,
            after_ms: now_ms().saturating_sub(age_ms),
            seen: bounds.fs_seen_max,
        };
        if let Err(error) = self.store.change(RowChange::TrimFs(keep)).await {
            tracing::warn!(%error, "old edits could not be removed; it is tried again");
        }
    }
}

/// What isn't in the file yet.
#[derive(Default)]
struct Pending {
    acks: Vec<oneshot::Receiver<u64>>,
    bytes: usize,
}

impl Pending {
    async fn settled(&mut self) {
        for ack in self.acks.drain(..) {
            let _ = ack.await; // the store is closed
        }
        self.bytes = 0;
    }
}
