//! What the room's callers ask of recordings.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use screen_video::{FPS, Limits};
use tokio::sync::{mpsc, oneshot};
use x_desktop::Rect;

use super::folder::Folder;
use super::task::{Command, Order, Owner};
use super::types::{EndReason, Recording, RecordingSpec, RecordingStatus};
use super::{Active, Entry, Live, Recordings};
use crate::config::{Bounds, as_duration};
use crate::desktop::home::Home;
use crate::desktop::waits::Region;
use crate::desktop::{Desktop, Error};
use crate::rt::spawn_owned;

/// Commands that wait for the owner.
const MAILBOX_MAX: usize = 16;
/// At the server's end, the time for a recording to be finished. One that isn't is repaired by the next server.
const FINISH_TIME: Duration = Duration::from_secs(2);
/// Frames a second, where neither the recording nor the desktop says otherwise.
const FPS_USUAL: u32 = 30;

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
        let dir = shown.home.as_ref().or(self.parts().home.as_ref()).map(Home::recordings).unwrap_or_default();
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
