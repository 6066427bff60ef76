//! Takes pictures when something may be different, encodes them once, and hands them to all viewers.
//!
//! Nothing queues: a picture is taken when a viewer has room for it. A screen that rests is encoded a few times more, so that text
//! becomes crisp, and then nothing is done until something changes.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use webrtc_peers::Frame;
use x_desktop::{Display, Rect};

use super::picture::{Coder, Packet, Picture};
use super::rate::RateControl;
use super::{Need, Stream};
use crate::desktop::Error;
use crate::desktop::link::{Seen, Watcher};

/// A picture that rests is encoded again after these times, each finer than the one before.
const REFINED_AFTER: [Duration; 3] = [Duration::from_millis(100), Duration::from_millis(220), Duration::from_millis(400)];
/// Keyframes that viewers ask for come no more often.
const KEYFRAME_EVERY: Duration = Duration::from_millis(300);
/// What networks carry is looked at as often.
const RATE_EVERY: Duration = Duration::from_millis(500);
/// How often a pointer is looked for that has not moved for [`POINTER_RESTS`]: its motion damages nothing.
const RESTING_POINTER_EVERY: Duration = Duration::from_millis(100);
const POINTER_RESTS: Duration = Duration::from_secs(2);
/// After a picture that could not be taken.
const RETRY: Duration = Duration::from_millis(100);

pub(super) struct Pump {
    stream: Arc<Stream>,
    coder: Option<Coder>,
    rate: RateControl,
    size: (u32, u32),
    /// The last picture, for whoever needs it again.
    last: Option<Arc<Picture>>,
    number: u64,
    is_dirty: bool,
    seen: Seen,
    /// How often the last picture was encoded again.
    refined: usize,
    rests_since: Instant,
    next_frame: Instant,
    next_keyframe: Instant,
    next_rate: Instant,
    next_look: Instant,
    pointed: Option<(i32, i32)>,
    moved_at: Instant,
}

/// What is to be done now.
enum Step {
    Take,
    /// The last picture once more.
    Again {
        is_keyframe: bool,
    },
    Wait(Instant),
}

impl Pump {
    pub(super) fn new(stream: Arc<Stream>) -> Self {
        let now = Instant::now();
        let rate = RateControl::new((1, 1), stream.fps, now.into_std());
        Self {
            stream,
            coder: Some(Coder::new()),
            rate,
            size: (0, 0),
            last: None,
            number: 0,
            is_dirty: true,
            seen: Seen::default(),
            refined: 0,
            rests_since: now,
            next_frame: now,
            next_keyframe: now,
            next_rate: now,
            next_look: now,
            pointed: None,
            moved_at: now,
        }
    }

    /// Until the stream ends, or the X server is gone.
    pub(super) async fn run(mut self) {
        let stop = self.stream.stop.clone();
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.serve_all() => {}
        }
    }

    async fn serve_all(&mut self) {
        let stream = Arc::clone(&self.stream);
        loop {
            let asked = stream.asked.notified();
            if stream.need() == Need::Nothing {
                self.last = None; // a screen takes megabytes
                asked.await;
                continue;
            }
            let mut watcher = stream.session.link.watch(); // before the picture: what changes after it is heard of
            self.is_dirty = true;
            if !self.serve(&mut watcher).await {
                return;
            }
        }
    }

    /// While somebody watches. False when the connection is gone.
    async fn serve(&mut self, watcher: &mut Watcher) -> bool {
        let stream = Arc::clone(&self.stream);
        let mut ready = stream.ready();
        loop {
            let asked = stream.asked.notified();
            let need = stream.need();
            if need == Need::Nothing {
                return true;
            }
            let wake_at = match self.step(&need) {
                Step::Wait(at) => at,
                step => match self.work(step, watcher).await {
                    Ok(()) => continue,
                    Err(Error::Failed { .. }) => return false,
                    Err(error) => {
                        tracing::debug!(%error, "a frame of the stream is left out"); // busy: the next one, then
                        Instant::now() + RETRY
                    }
                },
            };
            tokio::select! {
                is_there = watcher.changed(), if !self.is_dirty => match is_there {
                    true => self.look(watcher),
                    false => return false,
                },
                () = asked => {}
                Ok(()) = ready.changed() => {}
                () = tokio::time::sleep_until(wake_at) => {}
            }
        }
    }

    fn step(&mut self, need: &Need) -> Step {
        let now = Instant::now();
        let Need::Pictures { is_ready, wants_keyframe } = *need else { return Step::Wait(now + RETRY) };
        if self.is_dirty && is_ready {
            return if now >= self.next_frame { Step::Take } else { Step::Wait(self.next_frame) };
        }
        if self.last.is_none() {
            return Step::Wait(now + RETRY);
        }
        let mut wake_at = if self.is_dirty { now + RETRY } else { self.next_look };
        if wants_keyframe {
            if now >= self.next_keyframe {
                return Step::Again { is_keyframe: true };
            }
            wake_at = wake_at.min(self.next_keyframe);
        }
        if let Some(after) = REFINED_AFTER.get(self.refined).filter(|_| !self.is_dirty && is_ready) {
            if now >= self.rests_since + *after {
                self.refined += 1;
                return Step::Again { is_keyframe: false };
            }
            wake_at = wake_at.min(self.rests_since + *after);
        }
        if now >= self.next_look && !self.is_dirty {
            return Step::Take; // looks for the pointer first
        }
        Step::Wait(wake_at)
    }

    async fn work(&mut self, step: Step, watcher: &mut Watcher) -> Result<(), Error> {
        self.consider_rate().await;
        match step {
            Step::Wait(_) => Ok(()),
            Step::Again { is_keyframe } => self.encode(is_keyframe).await,
            Step::Take if !self.is_dirty => self.look_for_pointer().await,
            Step::Take => self.take(watcher).await,
        }
    }

    /// What the watcher heard of.
    fn look(&mut self, watcher: &mut Watcher) {
        let now = watcher.now();
        self.is_dirty |= (now.changes, now.resizes, now.cursors) != (self.seen.changes, self.seen.resizes, self.seen.cursors);
        self.seen = now;
    }

    async fn look_for_pointer(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        let is_resting = now - self.moved_at > POINTER_RESTS;
        self.next_look = now + if is_resting { RESTING_POINTER_EVERY } else { self.frame_time() };
        let link = &self.stream.session.link;
        let position = link.call("the pointer", Error::Screenshot, |display| display.pointer_position()).await?;
        if self.pointed != Some((position.x, position.y)) {
            (self.is_dirty, self.moved_at) = (true, now);
        }
        Ok(())
    }

    fn frame_time(&self) -> Duration {
        Duration::from_secs(1) / self.rate.rate().fps.max(1)
    }

    async fn take(&mut self, watcher: &mut Watcher) -> Result<(), Error> {
        let now = Instant::now();
        self.next_frame = now + self.frame_time();
        self.next_look = self.next_frame;
        self.seen = watcher.now(); // whatever comes after this is another frame
        let capture = |display: &mut Display| Ok((display.capture(Rect::of_size(display.size()))?, display.pointer()?));
        let (mut frame, pointer) = self.stream.session.link.call("a picture", Error::Screenshot, capture).await?;
        self.is_dirty = false;
        if self.pointed != Some((pointer.x, pointer.y)) {
            (self.pointed, self.moved_at) = (Some((pointer.x, pointer.y)), now);
        }
        let size = (frame.rect.width, frame.rect.height);
        if size != self.size {
            self.size = size;
            self.rate = RateControl::new(size, self.stream.fps, now.into_std());
            self.stream.resized(size);
        }
        frame.draw_pointer(&pointer);
        // much is drawn as it was
        if self.last.as_ref().is_some_and(|last| last.frame.data == frame.data) && !self.stream.wants_keyframe() {
            return Ok(());
        }
        self.number += 1;
        let picture = Picture { frame: Arc::new(frame), number: self.number, at: now - self.stream.began };
        let picture = Arc::new(picture);
        self.last = Some(Arc::clone(&picture));
        self.stream.pictures.send_replace(Some(picture));
        (self.refined, self.rests_since) = (0, now);
        let is_keyframe = self.stream.wants_keyframe() && now >= self.next_keyframe;
        self.encode(is_keyframe).await
    }

    /// Encodes the last picture, if somebody wants it encoded.
    async fn encode(&mut self, is_keyframe: bool) -> Result<(), Error> {
        let (Some(picture), true) = (self.last.clone(), self.stream.wants_frames()) else { return Ok(()) };
        let (mut coder, rate) = (self.coder.take().unwrap_or_else(Coder::new), self.rate.rate());
        let taken = Instant::now();
        let picture = match is_keyframe || self.refined > 0 {
            // the same once more is later all the same
            true => {
                Arc::new(Picture { frame: Arc::clone(&picture.frame), number: picture.number, at: taken - self.stream.began })
            }
            false => picture,
        };
        let encoded = tokio::task::spawn_blocking(move || {
            let encoded = coder.encode(&picture, rate, is_keyframe, taken.into_std());
            (coder, encoded)
        });
        let (coder, encoded) = encoded.await.map_err(|error| Error::Screenshot(error.to_string()))?;
        self.coder = Some(coder);
        match encoded.map_err(Error::Screenshot)? {
            Some(packet) => self.hand_out(packet).await,
            None => self.refined = 0, // left out: it comes again as soon as it may
        }
        Ok(())
    }

    async fn hand_out(&mut self, packet: Packet) {
        if packet.is_keyframe {
            self.next_keyframe = Instant::now() + KEYFRAME_EVERY;
        }
        let packet = Arc::new(packet);
        self.stream.encoded(&packet);
        if let Some(gateway) = &self.stream.gateway {
            let Packet { data, is_keyframe, at, taken, .. } = &*packet;
            gateway.frame(Frame { data: Arc::clone(data), is_keyframe: *is_keyframe, at: *at, taken: *taken }).await;
        }
    }

    async fn consider_rate(&mut self) {
        let now = Instant::now();
        if now < self.next_rate {
            return;
        }
        self.next_rate = now + RATE_EVERY;
        if self.rate.consider(self.stream.slowest_bps(), now.into_std()) {
            let rate = self.rate.rate();
            tracing::debug!(bps = rate.bitrate_bps, fps = rate.fps, shrink = rate.shrink, "the stream's rate");
        }
        self.stream.rate_is(self.rate.rate());
        if let Some(gateway) = &self.stream.gateway {
            gateway.desire(self.rate.wanted_bps()).await;
        }
    }
}
