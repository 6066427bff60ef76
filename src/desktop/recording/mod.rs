//! Recordings of the screen: H.264 in MP4 files that play at any moment.
//!
//! ```text
//! (start) ──▶ recording ⇄ paused ── stop, a bound, the desktop's or the server's end ──▶ completed
//!                                └─ nothing to play in it ──────────────────────────────▶ failed
//! ```
//! Only its owner moves one; there is one at a time.
//!
//! | module | what |
//! |---|---|
//! | `task` | **the owner**: when a picture is taken |
//! | `writer` | the thread that encodes and writes |
//! | `folder` | the files, and what a killed server left |
//! | `calls` | what the room's callers ask |
//! | `types` | what clients see |

mod calls;
mod folder;
mod task;
mod types;
mod writer;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use serde_json::json;
use tokio::sync::mpsc;

pub use types::{EndReason, Recording, RecordingSpec, RecordingStatus};

use super::{Error, Parts};
use crate::config::as_usize;
use crate::rt::clock::{now_ms, rfc3339};
use crate::rt::spawn_owned;
use folder::{Folder, millis, number_of_id};
use task::Command;
use writer::Outcome;

/// All recordings. A cheap handle.
#[derive(Clone)]
pub(super) struct Recordings {
    inner: Arc<Inner>,
}

struct Inner {
    parts: Arc<Parts>,
    shelf: Mutex<Shelf>,
    /// Directories that were looked into. Held while one is: nobody numbers a recording meanwhile.
    looked_into: tokio::sync::Mutex<BTreeSet<Folder>>,
}

#[derive(Default)]
struct Shelf {
    /// The highest number that was ever given.
    last: u64,
    known: BTreeMap<u64, Entry>,
    /// The one that is under way, or the last that was.
    active: Option<Active>,
}

struct Entry {
    folder: Folder,
    recording: Recording,
    live: Option<Arc<Live>>,
}

#[derive(Clone)]
struct Active {
    /// Closed once it is over and its end written down.
    commands: mpsc::Sender<Command>,
    live: Arc<Live>,
}

/// What changes while it goes on.
#[derive(Default)]
struct Live {
    number: OnceLock<u64>,
    duration_ms: AtomicU64,
    paused: AtomicBool,
}

impl Entry {
    /// As it is now.
    fn shown(&self) -> Recording {
        let mut recording = self.recording.clone();
        if let Some(live) = self.live.as_ref().filter(|_| recording.status == RecordingStatus::Recording) {
            recording.duration_ms = live.duration_ms.load(Ordering::Relaxed);
            recording.paused = live.paused.load(Ordering::Relaxed);
            if let Some(file) = live.number.get().and_then(|number| std::fs::metadata(self.folder.video(*number)).ok()) {
                recording.bytes = file.len();
            }
        }
        recording
    }
}

impl Recordings {
    pub(super) fn new(parts: Arc<Parts>) -> Self {
        let (shelf, looked_into) = (Mutex::default(), tokio::sync::Mutex::default());
        Self { inner: Arc::new(Inner { parts, shelf, looked_into }) }
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.inner.shelf.lock().unwrap_or_else(PoisonError::into_inner) // each change is whole
    }

    fn last(&self) -> u64 {
        self.shelf().last
    }

    fn insert(&self, number: u64, folder: Folder, recording: Recording, live: Option<Arc<Live>>) {
        let mut shelf = self.shelf();
        shelf.last = shelf.last.max(number);
        shelf.known.insert(number, Entry { folder, recording, live });
    }

    /// Learns what lies there, and repairs what a killed server left. Once for each directory; dropping the future changes
    /// nothing.
    pub(super) async fn look_into(&self, dir: PathBuf) {
        let (this, folder) = (self.clone(), Folder(dir));
        // To its end in any case: two repairs of one file would tear it.
        let looked = spawn_owned("desktop-recordings", async move {
            let mut looked_into = this.inner.looked_into.lock().await;
            if looked_into.contains(&folder) {
                return;
            }
            let there = folder.clone();
            let found = tokio::task::spawn_blocking(move || there.read()).await.unwrap_or_default(); // a panic is in the log
            this.take(&folder, found);
            looked_into.insert(folder);
        });
        let _ = looked.await; // as above
    }

    fn take(&self, folder: &Folder, found: folder::Found) {
        let mut shelf = self.shelf();
        shelf.last = shelf.last.max(found.last);
        let mut repaired = Vec::new();
        for (number, recording) in found.recordings {
            if shelf.known.contains_key(&number) {
                tracing::warn!(number, dir = %folder.0.display(), "a recording of another directory has this number: not listed");
                continue;
            }
            if found.repaired.contains(&number) {
                repaired.push(recording.clone());
            }
            shelf.known.insert(number, Entry { folder: folder.clone(), recording, live: None });
        }
        drop(shelf);
        repaired.iter().for_each(|recording| self.tell("desktop.recording_ended", recording));
    }

    fn began(&self, recording: &Recording) {
        self.tell("desktop.recording_started", recording);
    }

    /// What became of it. `reason` is why it was asked to end.
    async fn ended(&self, number: u64, reason: EndReason, outcome: Outcome) {
        let Some((folder, recording)) = self.set_ended(number, reason, outcome) else { return };
        let noted = recording.clone();
        let noted = tokio::task::spawn_blocking(move || folder.note(number, &noted)).await;
        if let Err(error) = noted.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
            tracing::warn!(%error, number, "what became of a recording could not be written down");
        }
        self.tell("desktop.recording_ended", &recording);
    }

    fn set_ended(&self, number: u64, reason: EndReason, outcome: Outcome) -> Option<(Folder, Recording)> {
        let mut shelf = self.shelf();
        let entry = shelf.known.get_mut(&number)?;
        let recording = &mut entry.recording;
        recording.status = if outcome.summary.is_some() { RecordingStatus::Completed } else { RecordingStatus::Failed };
        recording.ended_at = Some(rfc3339(now_ms()));
        recording.reason = Some(outcome.reason.unwrap_or(reason));
        if let Some(summary) = outcome.summary {
            (recording.duration_ms, recording.bytes) = (millis(summary.duration), summary.bytes);
        }
        entry.live = None;
        Some((entry.folder.clone(), entry.recording.clone()))
    }

    /// An event for `/v1/events`.
    fn tell(&self, kind: &'static str, recording: &Recording) {
        let payload = json!({"type": kind, "time": rfc3339(now_ms()), "recording": recording});
        let parts = &self.inner.parts;
        parts.store.append(&parts.events, kind, payload.to_string().into(), None);
        parts.store.flush();
    }

    /// The one that is under way.
    fn active(&self) -> Option<Active> {
        self.shelf().active.clone().filter(|active| !active.commands.is_closed())
    }

    /// Takes the one place there is.
    fn occupy(&self, active: Active) -> Result<(), Error> {
        let max = as_usize(self.inner.parts.bounds.desktop_recordings_max);
        let mut shelf = self.shelf();
        if shelf.active.as_ref().is_some_and(|active| !active.commands.is_closed()) {
            return Err(Error::Conflict("a recording is under way: stop it first".to_owned()));
        }
        if shelf.known.len() >= max {
            return Err(Error::Conflict(format!("{max} recordings are kept: delete some first")));
        }
        shelf.active = Some(active);
        Ok(())
    }

    /// Ends the one that is under way, and gives its number once its file is whole. Dropping the future doesn't keep it up.
    async fn stop(&self, reason: EndReason) -> Option<u64> {
        let active = self.active()?;
        let _ = active.commands.send(Command::Stop(reason)).await; // it is ending by itself
        active.commands.closed().await;
        active.live.number.get().copied()
    }

    /// Resolves when none is under way that is now.
    pub(super) async fn until_over(&self) {
        if let Some(active) = self.active() {
            active.commands.closed().await;
        }
    }

    fn get(&self, id: &str) -> Result<(u64, Folder, Recording), Error> {
        let not_found = || Error::RecordingNotFound(id.to_owned());
        let number = number_of_id(id).ok_or_else(not_found)?;
        let shelf = self.shelf();
        let entry = shelf.known.get(&number).ok_or_else(not_found)?;
        Ok((number, entry.folder.clone(), entry.shown()))
    }
}
