//! The owner of one recording: looks when something may be different, and hands pictures to the thread that encodes.
//!
//! A picture is taken once the thread has room for one, and no more often than `fps`: nothing queues, the newest counts. While
//! the screen is still, nothing is taken.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use screen_video::{FPS, GREATEST_LONG_SIDE, GREATEST_SHORT_SIDE, Limits};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use x_desktop::Rect;

use super::folder::{Folder, id};
use super::types::{EndReason, Recording, RecordingStatus};
use super::writer::{self, Outcome, Plan, Work};
use super::{Live, Recordings};
use crate::desktop::Error;
use crate::desktop::link::Taken;
use crate::desktop::lookout::Lookout;
use crate::desktop::session::Session;
use crate::desktop::supervisor::{Phase, Shown};
use crate::rt::clock::{now_ms, rfc3339};

/// How often the file hears that nothing changed.
const TOUCH_EVERY: Duration = Duration::from_secs(1);

pub(super) enum Command {
    Pause(oneshot::Sender<()>),
    Resume(oneshot::Sender<()>),
    Stop(EndReason),
}

/// What is to be recorded, checked.
pub(super) struct Order {
    pub(super) folder: Folder,
    pub(super) fps: u32,
    /// As it was asked for; the screen may become smaller.
    pub(super) region: Option<Rect>,
    pub(super) cursor: bool,
    pub(super) limits: Limits,
}

/// Before the first frame.
pub(super) struct Owner {
    pub(super) recordings: Recordings,
    pub(super) session: Arc<Session>,
    pub(super) shown: watch::Receiver<Arc<Shown>>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) order: Order,
    pub(super) live: Arc<Live>,
}

/// While it goes on.
struct Running {
    owner: Owner,
    lookout: Lookout,
    work: mpsc::Sender<Work>,
    outcome: oneshot::Receiver<Outcome>,
    began: Instant,
    is_paused: bool,
    next_frame: Instant,
    next_touch: Instant,
}

impl Owner {
    /// Records until the end. The answer is sent once the first frame is taken; whoever waits for the end waits for `commands`
    /// to be closed.
    pub(super) async fn run(self, reply: oneshot::Sender<Result<Recording, Error>>) {
        let recordings = self.recordings.clone();
        match self.begin().await {
            Err(error) => _ = reply.send(Err(error)), // the client may have left
            Ok((number, recording, mut running)) => {
                recordings.began(&recording);
                let _ = reply.send(Ok(recording)); // as above
                let (reason, outcome) = running.run().await;
                recordings.ended(number, reason, outcome).await;
            }
        }
    }

    async fn begin(self) -> Result<(u64, Recording, Running), Error> {
        let mut lookout = Lookout::new(self.session.link.clone(), self.order.cursor);
        let (began, started_at_ms) = (Instant::now(), now_ms());
        let Taken { frame, pointer, .. } = self.picture(&mut lookout).await?;
        let size = (frame.rect.width, frame.rect.height);
        let (long, short) = (size.0.max(size.1), size.0.min(size.1));
        if long > GREATEST_LONG_SIDE || short > GREATEST_SHORT_SIDE {
            let (width, height) = size;
            let why = format!(
                "{width}x{height} pixels are too many: {GREATEST_LONG_SIDE}x{GREATEST_SHORT_SIDE} at most, name a region"
            );
            return Err(Error::Invalid(why));
        }
        let (number, file, recording) = self.made(size, started_at_ms).await?;
        let folder = &self.order.folder;
        let plan = Plan {
            size,
            fps: self.order.fps,
            limits: self.order.limits,
            path: folder.video(number),
            poster: folder.poster(number),
        };
        let (work, tasks) = mpsc::channel(1);
        let (tell, outcome) = oneshot::channel();
        let live = Arc::clone(&self.live);
        let thread = std::thread::Builder::new().name("recording".to_owned());
        let started = thread.spawn(move || {
            let _ = tell.send(writer::run(file, plan, live, tasks)); // the server ends
        });
        if let Err(error) = started {
            self.recordings.ended(number, EndReason::Encoder, Outcome::default()).await;
            return Err(Error::Home(error.to_string()));
        }
        let _ = work.send(Work::Frame { frame, pointer, at: Duration::ZERO }).await; // its outcome says why not
        let next_frame = began + self.order.frame_time();
        let running =
            Running { owner: self, lookout, work, outcome, began, is_paused: false, next_frame, next_touch: began + TOUCH_EVERY };
        Ok((number, recording, running))
    }

    /// One that the stream took just now is as good: what was drawn since comes with the next one.
    async fn picture(&self, lookout: &mut Lookout) -> Result<Taken, Error> {
        let frame_time = self.order.frame_time();
        lookout.picture(self.order.region, frame_time / 2, frame_time).await
    }

    /// Its place on the disk and in the list.
    async fn made(&self, (width, height): (u32, u32), started_at_ms: i64) -> Result<(u64, File, Recording), Error> {
        let (folder, fps, last) = (self.order.folder.clone(), self.order.fps, self.recordings.last());
        let made = tokio::task::spawn_blocking(move || {
            let (number, file) = folder.create(last)?;
            let recording = Recording {
                id: id(number),
                status: RecordingStatus::Recording,
                file_name: format!("{}.mp4", id(number)),
                bytes: 0,
                started_at: rfc3339(started_at_ms),
                ended_at: None,
                duration_ms: 0,
                width: Some(coded(width)),
                height: Some(coded(height)),
                fps: Some(fps),
                paused: false,
                reason: None,
            };
            folder.note(number, &recording).inspect_err(|_| drop(folder.remove(number)))?;
            Ok::<_, std::io::Error>((number, file, recording))
        });
        let made = made.await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        let (number, file, recording) = made.map_err(|error| Error::Home(error.to_string()))?;
        let _ = self.live.number.set(number); // the only one who sets it
        self.recordings.insert(number, self.order.folder.clone(), recording.clone(), Some(Arc::clone(&self.live)));
        Ok((number, file, recording))
    }
}

/// As the encoder pads it.
fn coded(side: u32) -> u32 {
    side.next_multiple_of(2).max(screen_video::LEAST_SIDE)
}

impl Order {
    fn frame_time(&self) -> Duration {
        Duration::from_secs(1) / self.fps.clamp(*FPS.start(), *FPS.end())
    }
}

impl Running {
    /// Why it ended, unless the outcome knows better.
    async fn run(&mut self) -> (EndReason, Outcome) {
        loop {
            let wake_at = self.wake_at();
            tokio::select! {
                biased;
                outcome = &mut self.outcome => return (EndReason::Encoder, outcome.unwrap_or_default()),
                command = self.owner.commands.recv() => match command {
                    Some(Command::Pause(done)) => self.pause(done).await,
                    Some(Command::Resume(done)) => self.resume(done).await,
                    Some(Command::Stop(reason)) => return self.finish(reason).await,
                    None => return self.finish(EndReason::ServerStopped).await,
                },
                reason = left(&mut self.owner.shown, &self.owner.session) => return self.finish(reason).await,
                is_there = self.lookout.changed(), if !self.lookout.is_dirty() => if !is_there {
                    return self.finish_gone().await;
                },
                () = tokio::time::sleep_until(wake_at) => match self.tick().await {
                    Err(Error::Failed { .. }) => return self.finish_gone().await,
                    Err(error) => tracing::debug!(%error, "a frame of a recording is left out"), // busy: the next one, then
                    Ok(()) => {}
                },
            }
        }
    }

    fn wake_at(&self) -> Instant {
        match (self.is_paused, self.lookout.is_dirty()) {
            (true, _) => Instant::now() + TOUCH_EVERY, // nothing will have to be done
            (false, true) => self.next_frame,
            (false, false) => self.lookout.next_look().map_or(self.next_touch, |look| look.min(self.next_touch)),
        }
    }

    async fn tick(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        if self.is_paused {
            return Ok(());
        }
        if !self.lookout.is_dirty() && self.lookout.next_look().is_some_and(|at| now >= at) {
            let frame_time = self.owner.order.frame_time();
            if self.lookout.pointer(frame_time).await?.is_some() {
                self.lookout.soil(); // it belongs to the picture
            }
        }
        if self.lookout.is_dirty() {
            return if now >= self.next_frame { self.frame().await } else { Ok(()) };
        }
        if now >= self.next_touch {
            self.next_touch = now + TOUCH_EVERY;
            let _ = self.work.try_send(Work::Touch(self.began.elapsed())); // busy: no touch is needed
        }
        Ok(())
    }

    async fn frame(&mut self) -> Result<(), Error> {
        let Ok(room) = self.work.reserve().await else {
            self.lookout.settle(); // the thread has ended: its outcome is there
            return Ok(());
        };
        let now = Instant::now();
        self.next_frame = now + self.owner.order.frame_time();
        // A part that isn't on the screen any more: the video stays as it is until the screen changes.
        let Taken { frame, pointer, .. } = self.owner.picture(&mut self.lookout).await?;
        self.next_touch = now + TOUCH_EVERY;
        room.send(Work::Frame { frame, pointer, at: now - self.began });
        Ok(())
    }

    async fn pause(&mut self, done: oneshot::Sender<()>) {
        self.is_paused = true;
        let _ = self.work.send(Work::Pause(self.began.elapsed(), done)).await; // it ended: whoever asked is told by `done`
    }

    async fn resume(&mut self, done: oneshot::Sender<()>) {
        if self.is_paused {
            self.owner.live.paused.store(false, Ordering::Relaxed);
            let _ = self.work.send(Work::Resume(self.began.elapsed())).await; // it ended
            self.is_paused = false;
            self.lookout.soil();
        }
        let _ = done.send(()); // who asked has left
    }

    /// The X server is gone.
    async fn finish_gone(&mut self) -> (EndReason, Outcome) {
        let reason = why_gone(&self.owner.shown.borrow());
        self.finish(reason).await
    }

    async fn finish(&mut self, reason: EndReason) -> (EndReason, Outcome) {
        // What was drawn just before belongs to it; a desktop that ends shows nothing more.
        if reason == EndReason::Stopped && !self.is_paused {
            self.lookout.look();
            if self.lookout.is_dirty()
                && let Err(error) = self.frame().await
            {
                tracing::debug!(%error, "the last frame of a recording");
            }
        }
        let _ = self.work.send(Work::Finish(self.began.elapsed())).await; // it ended already
        let outcome = (&mut self.outcome).await.unwrap_or_default();
        (reason, outcome)
    }
}

/// Resolves when the desktop isn't that of this session any more. Cancel safe.
async fn left(shown: &mut watch::Receiver<Arc<Shown>>, session: &Arc<Session>) -> EndReason {
    let is_other = |shown: &Arc<Shown>| shown.session.as_ref().is_none_or(|now| !Arc::ptr_eq(now, session));
    match shown.wait_for(is_other).await {
        Ok(shown) => why_gone(&shown),
        Err(_) => EndReason::ServerStopped,
    }
}

fn why_gone(shown: &Shown) -> EndReason {
    match shown.state {
        Phase::Active | Phase::Starting | Phase::Failed => EndReason::DesktopRestarted,
        Phase::Inactive | Phase::Stopping => EndReason::DesktopStopped,
    }
}
