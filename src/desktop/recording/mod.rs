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
//! | `types` | what clients see |

mod folder;
mod task;
mod types;
mod writer;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use screen_video::{FPS, Limits};
use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use x_desktop::Rect;

pub use types::{EndReason, Recording, RecordingSpec, RecordingStatus};

use super::waits::Region;
use super::{Desktop, Error, Parts};
use crate::config::{Bounds, as_duration, as_usize};
use crate::rt::clock::{now_ms, rfc3339};
use crate::rt::spawn_owned;
use folder::{Folder, millis, number_of_id};
use task::{Command, Order, Owner};
use writer::Outcome;

/// Commands that wait for the owner.
const MAILBOX_MAX: usize = 16;
/// At the server's end, the time for a recording to be finished. One that isn't is repaired by the next server.
const FINISH_TIME: Duration = Duration::from_secs(2);
/// Frames a second, where neither the recording nor the desktop says otherwise.
const FPS_USUAL: u32 = 30;

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

impl RecordingSpec {
    /// Within the bounds, in what the desktop has set.
    ///
    /// # Errors
    /// [`Error::Invalid`]: what is out of range.
    fn order(&self, folder: Folder, usual_fps: Option<u32>, bounds: &Bounds) -> Result<Order, Error> {
        let within = |name: &str, value: Option<u64>, max: u64| match value {
            Some(value) if value == 0 || value > max => Err(Error::Invalid(format!("{name} is 1 to {max}, not {value}"))),
            value => Ok(value.unwrap_or(max)),
        };
        let region = self.region.map(|Region { x, y, width, height }| Rect { x, y, width, height });
        if region.is_some_and(|region| region.width == 0 || region.height == 0) {
            return Err(Error::Invalid("a region has at least one pixel: width and height are not 0".to_owned()));
        }
        let limits = Limits {
            max_bytes: within("maxBytes", self.max_bytes, bounds.desktop_recording_max_bytes)?,
            max_duration: as_duration(within("maxDurationMs", self.max_duration_ms, bounds.desktop_recording_max_ms)?),
        };
        let fps = self.fps.or(usual_fps).unwrap_or(FPS_USUAL).clamp(*FPS.start(), *FPS.end());
        Ok(Order { folder, fps, region, cursor: self.cursor.unwrap_or(true), limits })
    }
}

impl Desktop {
    /// Starts a recording; answers once its first frame is taken. Dropping the future doesn't stop it.
    ///
    /// # Errors
    /// What is out of range; [`Error::Conflict`]: there is no desktop, a recording is under way, or too many are kept.
    pub async fn recording_start(&self, spec: RecordingSpec) -> Result<Recording, Error> {
        let shown = self.shown();
        // First what is wrong whatever the state.
        let dir = shown.home.as_ref().or(self.parts().home.as_ref()).map(super::home::Home::recordings).unwrap_or_default();
        let order = spec.order(Folder(dir), shown.spec.recording_fps, &self.parts().bounds)?;
        let session = self.session().map_err(|error| Error::Conflict(format!("nothing to record: {error}")))?;
        let recordings = self.recordings_known().await;
        let (commands, mailbox) = mpsc::channel(MAILBOX_MAX);
        let live = Arc::new(Live::default());
        recordings.occupy(Active { commands, live: Arc::clone(&live) })?;
        let owner =
            Owner { recordings: recordings.clone(), session, shown: self.inner.shown.clone(), commands: mailbox, order, live };
        let (reply, answer) = oneshot::channel();
        spawn_owned("desktop-recording", owner.run(reply));
        answer.await.map_err(|_| Error::Stopping)?
    }

    /// Ends the recording that is under way; answers once its file is whole. Dropping the future doesn't keep it up.
    ///
    /// # Errors
    /// [`Error::Conflict`]: none is under way.
    pub async fn recording_stop(&self) -> Result<Recording, Error> {
        let recordings = &self.inner.recordings;
        let number = recordings.stop(EndReason::Stopped).await.ok_or_else(none_active)?;
        let shelf = recordings.shelf();
        shelf.known.get(&number).map(Entry::shown).ok_or_else(none_active)
    }

    /// Stops its time; what was recorded is on the disk then. Paused already: nothing happens.
    ///
    /// # Errors
    /// [`Error::Conflict`]: none is under way.
    pub async fn recording_pause(&self) -> Result<Recording, Error> {
        self.recording_tell(Command::Pause).await
    }

    /// Goes on. Not paused: nothing happens.
    ///
    /// # Errors
    /// [`Error::Conflict`]: none is under way.
    pub async fn recording_resume(&self) -> Result<Recording, Error> {
        self.recording_tell(Command::Resume).await
    }

    async fn recording_tell(&self, command: fn(oneshot::Sender<()>) -> Command) -> Result<Recording, Error> {
        let recordings = &self.inner.recordings;
        let active = recordings.active().ok_or_else(none_active)?;
        let (done, told) = oneshot::channel();
        active.commands.send(command(done)).await.map_err(|_| none_active())?;
        told.await.map_err(|_| none_active())?;
        let number = active.live.number.get().ok_or_else(none_active)?;
        recordings.shelf().known.get(number).map(Entry::shown).ok_or_else(none_active)
    }

    /// All of them, the oldest first.
    pub async fn recordings(&self) -> Vec<Recording> {
        self.recordings_known().await.shelf().known.values().map(Entry::shown).collect()
    }

    /// One of them.
    ///
    /// # Errors
    /// [`Error::RecordingNotFound`].
    pub async fn recording(&self, id: &str) -> Result<Recording, Error> {
        Ok(self.recordings_known().await.get(id)?.2)
    }

    /// Its file. While it grows, what is there plays.
    ///
    /// # Errors
    /// [`Error::RecordingNotFound`].
    pub async fn recording_file(&self, id: &str) -> Result<(PathBuf, Recording), Error> {
        let (number, folder, recording) = self.recordings_known().await.get(id)?;
        Ok((folder.video(number), recording))
    }

    /// Its first frame, a PNG.
    ///
    /// # Errors
    /// [`Error::RecordingNotFound`].
    pub async fn recording_poster(&self, id: &str) -> Result<PathBuf, Error> {
        let (number, folder, _) = self.recordings_known().await.get(id)?;
        Ok(folder.poster(number))
    }

    /// Removes it with its file. Dropping the future doesn't keep it.
    ///
    /// # Errors
    /// [`Error::RecordingNotFound`]; [`Error::Conflict`] while it is under way; the disk refuses.
    pub async fn recording_delete(&self, id: &str) -> Result<(), Error> {
        let recordings = self.recordings_known().await;
        let (number, folder, recording) = recordings.get(id)?;
        if recording.status == RecordingStatus::Recording {
            return Err(Error::Conflict(format!("{id} is under way: stop it first")));
        }
        let removed = tokio::task::spawn_blocking(move || folder.remove(number)).await;
        let removed = removed.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        removed.map_err(|error| Error::Home(error.to_string()))?;
        recordings.shelf().known.remove(&number);
        Ok(())
    }

    /// Finishes what is recorded, as far as that is done in some seconds: the server ends.
    pub async fn shut_down(&self, reason: EndReason) {
        if tokio::time::timeout(FINISH_TIME, self.inner.recordings.stop(reason)).await.is_err() {
            tracing::warn!("a recording was not finished in time: the next server repairs it");
        }
    }

    /// With what lies in the usual directory, and in that of the desktop.
    async fn recordings_known(&self) -> &Recordings {
        let recordings = &self.inner.recordings;
        let shown = self.shown();
        for home in [self.parts().home.as_ref(), shown.home.as_ref()].into_iter().flatten() {
            recordings.look_into(home.recordings()).await;
        }
        recordings
    }
}

fn none_active() -> Error {
    Error::Conflict("no recording is under way".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_is_kept_within_its_bounds() {
        let bounds = Bounds::default();
        let order = |spec: RecordingSpec, usual| spec.order(Folder("/r".into()), usual, &bounds);
        let usual = order(RecordingSpec::default(), None).expect("in range");
        assert_eq!((usual.fps, usual.cursor, usual.region), (30, true, None));
        assert_eq!(usual.limits.max_bytes, bounds.desktop_recording_max_bytes);
        for (asked, desktop, fps) in [(Some(0), None, 1), (Some(500), Some(5), 60), (None, Some(12), 12)] {
            let spec = RecordingSpec { fps: asked, ..RecordingSpec::default() };
            assert_eq!(order(spec, desktop).expect("in range").fps, fps);
        }
        for spec in [
            RecordingSpec { max_bytes: Some(0), ..RecordingSpec::default() },
            RecordingSpec { max_bytes: Some(u64::MAX), ..RecordingSpec::default() },
            RecordingSpec { max_duration_ms: Some(0), ..RecordingSpec::default() },
            RecordingSpec { region: Some(Region { x: 0, y: 0, width: 0, height: 4 }), ..RecordingSpec::default() },
        ] {
            assert!(matches!(order(spec, None), Err(Error::Invalid(_))));
        }
    }
}
