//! Which processes there are: living ones by their owners' handles, finished ones as they ended.
//!
//! A finished process keeps its place until it is deleted or retention takes the oldest: by count, age, and bytes of all
//! logs together. Places are rows in the store, too, so that a restart of the server finds them.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tokio::sync::{Semaphore, oneshot};

use super::Error;
use super::cgroup::{Cgroup, CgroupRoot};
use super::children::Children;
use super::kept::{Kept, Remembered, row};
use super::managed::{Command, Handle};
use super::open_ports::OpenPorts;
use super::run::RunKeys;
use super::spool::{self, SpoolIndex};
use super::types::{ProcessConfig, ProcessId, ProcessInfo, Stopped};
use crate::config::{Bounds, as_usize};
use crate::rt::clock::now_ms;
use crate::rt::spawn_owned;
use crate::store::{RowChange, Store, Stream};

/// How long events of runs are gathered.
const GATHER: Duration = Duration::from_millis(25);

/// What all owners share.
pub(super) struct Room {
    pub(super) children: Children,
    pub(super) store: Store,
    pub(super) events: Arc<Stream>,
    pub(super) bounds: Bounds,
    pub(super) spool_dir: PathBuf,
    pub(super) script_dir: PathBuf,
    pub(super) run_keys: RunKeys,
    config: Mutex<ProcessConfig>,
    table: Mutex<Table>,
    stopping: AtomicBool,
    /// Events that wait for a common commit.
    soon: Mutex<Vec<(&'static str, Bytes, RowChange)>>,
    pub(super) cgroups: Option<CgroupRoot>,
    pub(super) cgroups_made: AtomicU64,
    pub(super) ports: OpenPorts,
    /// Permits for outputs that are read on after the end, because something in the background holds them.
    pub(super) lingering: Arc<Semaphore>,
}

#[derive(Default)]
struct Table {
    places: BTreeMap<ProcessId, Place>,
    /// Processes that run, are about to, or are being started.
    alive: u64,
    /// Bytes that the logs of finished processes take.
    log_bytes: u64,
    finished: usize,
    keys: HashMap<String, Key>,
}

struct Key {
    digest: String,
    id: ProcessId,
}

enum Place {
    Alive(Handle),
    Finished(Arc<Finished>),
}

/// A process that is no more.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) info: Arc<ProcessInfo>,
    pub(super) log_bytes: u64,
    /// Its log, when the disk did not take the end of it: only memory knows what is missing.
    pub(super) unsaved_log: Option<Arc<SpoolIndex>>,
    /// What it left in the background is in there.
    pub(super) cgroup: Option<Arc<Cgroup>>,
}

/// What an id stands for.
pub(super) enum Found {
    Alive(Handle),
    Finished(Arc<Finished>),
}

impl Found {
    pub(super) fn info(&self) -> Arc<ProcessInfo> {
        match self {
            Self::Alive(handle) => handle.info(),
            Self::Finished(finished) => Arc::clone(&finished.info),
        }
    }
}

/// A permission to start one more process. Dropped unused, its place is free again.
pub(super) struct Slot {
    room: Arc<Room>,
    used: bool,
}

impl Drop for Slot {
    fn drop(&mut self) {
        if !self.used {
            self.room.table().alive -= 1;
        }
    }
}

/// What a key was used for.
pub(super) enum KeyUse {
    Free,
    Same(ProcessId),
    Other,
}

impl Room {
    /// Blocks: looks for cgroups.
    pub(super) fn new(
        children: Children,
        store: Store,
        events: Arc<Stream>,
        bounds: Bounds,
        (spool_dir, script_dir): (PathBuf, PathBuf),
    ) -> Self {
        let lingering = Arc::new(Semaphore::new(as_usize(bounds.processes_lingering_max)));
        let config = ProcessConfig {
            max_concurrent_processes: bounds.processes_concurrent_max,
            default_run_timeout_ms: bounds.run_timeout_default_ms,
            max_run_timeout_ms: bounds.run_timeout_max_ms,
            max_output_bytes: bounds.run_output_max_bytes,
            max_log_bytes_per_process: bounds.process_log_max_bytes,
            max_input_bytes_per_request: bounds.process_input_max_bytes,
        };
        let starts = children.keeper().starts();
        let cgroups = CgroupRoot::discover(store.id(), children.keeper().pid());
        Self {
            children,
            store,
            events,
            bounds,
            spool_dir,
            script_dir,
            run_keys: RunKeys::default(),
            config: Mutex::new(config),
            table: Mutex::default(),
            stopping: AtomicBool::new(false),
            soon: Mutex::default(),
            cgroups: cgroups.inspect(|root| tracing::debug!(bounds = ?root.offers(), "cgroups can be written")),
            // Numbers of an earlier server's are not used again.
            cgroups_made: AtomicU64::new(starts << 24 | 1),
            ports: OpenPorts::default(),
            lingering,
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner) // each change leaves it whole
    }

    pub(super) fn config(&self) -> ProcessConfig {
        *self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes new limits; owners learn the new bound of their logs.
    pub(super) fn set_config(&self, config: ProcessConfig) {
        *self.config.lock().unwrap_or_else(PoisonError::into_inner) = config;
        for handle in self.alive() {
            let _ = handle.mailbox.try_send(Command::BoundLog { max_bytes: config.max_log_bytes_per_process }); // full: keeps the old one
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Nothing is started or restarted any more.
    pub(super) fn stop_starting(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Room for one more process.
    pub(super) fn slot(self: &Arc<Self>) -> Result<Slot, Error> {
        if self.is_stopping() {
            return Err(Error::Stopping);
        }
        let max = self.config().max_concurrent_processes;
        let mut table = self.table();
        if table.alive >= max {
            return Err(Error::LimitReached { max });
        }
        table.alive += 1;
        Ok(Slot { room: Arc::clone(self), used: false })
    }

    /// The same for one that runs already, whatever the limit.
    pub(super) fn forced_slot(self: &Arc<Self>) -> Slot {
        self.table().alive += 1;
        Slot { room: Arc::clone(self), used: false }
    }

    /// Enters a process that runs; one that is started again under its id takes its own place.
    pub(super) fn enter(&self, mut slot: Slot, handle: Handle) {
        slot.used = true;
        let mut table = self.table();
        table.take(handle.id);
        table.places.insert(handle.id, Place::Alive(handle));
    }

    /// Enters one that lives on; without a slot, it has ended and something in the background holds its output.
    pub(super) fn take_up(&self, slot: Option<Slot>, handle: Handle) {
        match slot {
            Some(slot) => self.enter(slot, handle),
            None => _ = self.table().places.insert(handle.id, Place::Alive(handle)),
        }
    }

    /// It won't run again. Called once, before its end is shown.
    pub(super) fn is_over(&self) {
        self.table().alive -= 1;
    }

    /// Its owner ends: nothing is written into its log any more.
    pub(super) fn finished(self: &Arc<Self>, finished: Finished) {
        let (id, log_bytes) = (finished.info.id, finished.log_bytes);
        let mut table = self.table();
        if let Some(place @ Place::Alive(_)) = table.places.get_mut(&id) {
            *place = Place::Finished(Arc::new(finished));
            table.log_bytes += log_bytes;
            table.finished += 1;
        }
        let gone = self.retain(&mut table);
        drop(table);
        self.forget(gone);
    }

    /// Takes the oldest finished ones out, beyond the bounds.
    fn retain(&self, table: &mut Table) -> Vec<ProcessId> {
        let oldest_ms = now_ms().saturating_sub_unsigned(self.bounds.processes_finished_max_age_ms);
        let mut gone = Vec::new();
        while table.finished > 0 {
            let too_many = table.finished as u64 > self.bounds.processes_finished_max
                || table.log_bytes > self.bounds.process_logs_max_bytes;
            // Ids rise with time; the first that is finished is about the oldest.
            let first = table.places.iter().find_map(|(id, place)| match place {
                Place::Finished(finished) => Some((*id, finished.info.exited_at_ms.unwrap_or(0))),
                Place::Alive(_) => None,
            });
            match first {
                Some((id, ended_ms)) if too_many || ended_ms < oldest_ms => {
                    table.remove(id);
                    gone.push(id);
                }
                _ => break,
            }
        }
        gone
    }

    /// Removes rows and files of processes that are out of the table.
    fn forget(&self, gone: Vec<ProcessId>) {
        if gone.is_empty() {
            return;
        }
        let numbers: Vec<u64> = gone.iter().map(|id| id.0).collect();
        let ids: Vec<String> = gone.iter().map(ToString::to_string).collect();
        let payload = Bytes::from(json!({"type": "process.deleted", "ids": ids}).to_string());
        let change = RowChange::DeleteProcesses { numbers: numbers.clone() };
        self.store.append(&self.events, "process.deleted", payload, Some(change));
        self.store.flush(); // whoever asked for it and looks finds it done
        let folder = self.spool_dir.clone();
        let removed = tokio::task::spawn_blocking(move || {
            for number in numbers {
                if let Err(error) = spool::remove(&folder, number) {
                    tracing::warn!(number, %error, "a process's log could not be removed");
                }
            }
        });
        spawn_owned("process-forget", async move { _ = removed.await });
    }

    /// Ends what a finished process left in the background.
    pub(super) async fn end_rest(&self, id: ProcessId, grace: Duration) -> Stopped {
        let cgroup = match self.find(id) {
            Some(Found::Finished(finished)) => finished.cgroup.clone(),
            _ => None,
        };
        self.children.end_rest(id, cgroup, grace).await
    }

    /// Deletes one that is finished.
    pub(super) fn delete(&self, id: ProcessId) -> bool {
        let removed = self.table().remove(id);
        if removed {
            self.forget(vec![id]);
        }
        removed
    }

    pub(super) fn find(&self, id: ProcessId) -> Option<Found> {
        Some(match self.table().places.get(&id)? {
            Place::Alive(handle) => Found::Alive(handle.clone()),
            Place::Finished(finished) => Found::Finished(Arc::clone(finished)),
        })
    }

    /// All processes by id.
    pub(super) fn infos(&self) -> Vec<Arc<ProcessInfo>> {
        let table = self.table();
        let infos = table.places.values().map(|place| match place {
            Place::Alive(handle) => handle.info(),
            Place::Finished(finished) => Arc::clone(&finished.info),
        });
        infos.collect()
    }

    /// The owners that there are.
    pub(super) fn alive(&self) -> Vec<Handle> {
        let table = self.table();
        let alive = table.places.values().filter_map(|place| match place {
            Place::Alive(handle) => Some(handle.clone()),
            Place::Finished(_) => None,
        });
        alive.collect()
    }

    /// What a key was used for; a free one is taken for `id`.
    pub(super) fn use_key(&self, key: &str, digest: &str, id: ProcessId) -> KeyUse {
        let mut table = self.table();
        match table.keys.get(key) {
            Some(used) if used.digest == digest => KeyUse::Same(used.id),
            Some(_) => KeyUse::Other,
            None => {
                table.keys.insert(key.to_owned(), Key { digest: digest.to_owned(), id });
                KeyUse::Free
            }
        }
    }

    /// The key is free again: what it was used for failed.
    pub(super) fn free_key(&self, key: &str) {
        self.table().keys.remove(key);
    }

    /// Writes a process's row with an event; resolves once both are committed.
    pub(super) fn log_change(
        &self,
        kind: &'static str,
        info: &ProcessInfo,
        kept: &Kept,
        log_bytes: u64,
    ) -> oneshot::Receiver<u64> {
        let payload = Bytes::from(json!({"type": kind, "process": info}).to_string());
        let change = RowChange::PutProcess(Box::new(row(info, kept, log_bytes)));
        let committed = self.store.append_acked(&self.events, kind, payload, Some(change));
        self.store.flush();
        committed
    }

    /// Logs an event that nobody waits for. Such events are gathered for a moment: a commit for each of hundreds of runs a
    /// second would slow the runs down.
    pub(super) fn log_soon(self: &Arc<Self>, kind: &'static str, payload: Bytes, change: RowChange) {
        let mut soon = self.soon.lock().unwrap_or_else(PoisonError::into_inner);
        soon.push((kind, payload, change));
        if self.is_stopping() {
            drop(soon);
            return self.log_gathered(); // the store closes soon
        }
        if soon.len() > 1 {
            return; // it is on its way
        }
        drop(soon);
        let room = Arc::clone(self);
        spawn_owned("process-log", async move {
            tokio::time::sleep(GATHER).await;
            room.log_gathered();
        });
    }

    /// Hands what was gathered to the store.
    pub(super) fn log_gathered(&self) {
        let gathered = std::mem::take(&mut *self.soon.lock().unwrap_or_else(PoisonError::into_inner));
        for (kind, payload, change) in gathered {
            self.store.append(&self.events, kind, payload, Some(change));
        }
    }

    /// Enters what the last run left. Called once, before anything is started.
    pub(super) fn enter_finished(&self, rows: Vec<Remembered>) {
        let mut table = self.table();
        for (info, log_bytes, key) in rows {
            let id = info.id;
            table.log_bytes += log_bytes;
            table.finished += 1;
            table.places.insert(
                id,
                Place::Finished(Arc::new(Finished { info: Arc::new(info), log_bytes, unsaved_log: None, cgroup: None })),
            );
            if let Some((key, digest)) = key {
                table.keys.insert(key, Key { digest, id });
            }
        }
        let gone = self.retain(&mut table);
        drop(table);
        self.forget(gone);
    }
}

impl Table {
    /// Takes a finished process out; its key is free again.
    fn remove(&mut self, id: ProcessId) -> bool {
        let removed = self.take(id);
        if removed {
            self.keys.retain(|_, key| key.id != id);
        }
        removed
    }

    fn take(&mut self, id: ProcessId) -> bool {
        let Some(Place::Finished(finished)) = self.places.get(&id) else { return false };
        self.log_bytes = self.log_bytes.saturating_sub(finished.log_bytes);
        self.finished -= 1;
        self.places.remove(&id);
        true
    }
}
