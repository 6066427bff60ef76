//! Takes pictures when something may be different, encodes them once, and hands them to all viewers.
//!
//! Nothing queues: a picture is taken when a viewer has room for it. A screen that rests is encoded a few times more, so that text
//! becomes crisp, and then nothing is done until something changes.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use webrtc_peers::Frame;
use x_desktop::Frame as Screen;

use super::picture::{Coder, Packet, Picture};
use super::rate::RateControl;
use super::{Need, Stream};
use crate::desktop::Error;
use crate::desktop::link::Taken;
use crate::desktop::lookout::Lookout;

/// A picture that rests is encoded again after these times, each finer than the one before.
const REFINED_AFTER: [Duration; 3] = [Duration::from_millis(100), Duration::from_millis(220), Duration::from_millis(400)];
/// From then on, what was made coarse or small because all of it moved is taken for a screen again.
const SETTLED: usize = 2;
/// After so long a rest, a frame with nothing new is sent, of some tens of bytes: browsers that get no frame for three seconds over WebRTC
/// ask for a keyframe.
const REPEATED_EVERY: Duration = Duration::from_secs(2);
/// Keyframes that viewers ask for come no more often, and where networks are slow no more often than in so many times of what one takes
/// to be sent: else there would be nothing but keyframes.
const KEYFRAME_EVERY: Duration = Duration::from_millis(300);
const KEYFRAME_TIMES: f64 = 1.2;
/// What networks carry is looked at as often.
const RATE_EVERY: Duration = Duration::from_millis(100);
/// A screen that hasn't changed for so long rests.
const RESTS: Duration = Duration::from_secs(1);
/// After a picture that could not be taken.
const RETRY: Duration = Duration::from_millis(100);

pub(super) struct Pump {
    stream: Arc<Stream>,
    coder: Option<Coder>,
    rate: RateControl,
    size: (u32, u32),
    /// The last picture, for whoever needs it again.
    last: Option<Arc<Picture>>,
    /// The same without the pointer; held so that others who want a picture of a screen that rests get this one.
    bare: Option<Arc<Screen>>,
    number: u64,
    /// How often the last picture was encoded again.
    refined: usize,
    rests_since: Instant,
    encoded_at: Instant,
    next_frame: Instant,
    next_keyframe: Instant,
    next_rate: Instant,
}

/// What is to be done now.
enum Step {
    Take,
    /// Where the pointer is.
    Point,
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
            bare: None,
            number: 0,
            refined: 0,
            rests_since: now,
            encoded_at: now,
            next_frame: now,
            next_keyframe: now,
            next_rate: now,
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
                (self.last, self.bare) = (None, None); // a screen takes megabytes
                asked.await;
                continue;
            }
            if !self.serve(&mut Lookout::new(stream.session.link.clone(), true)).await {
                return;
            }
        }
    }

    /// While somebody watches. False when the connection is gone.
    async fn serve(&mut self, lookout: &mut Lookout) -> bool {
        let stream = Arc::clone(&self.stream);
        let mut ready = stream.ready();
        loop {
            let asked = stream.asked.notified();
            let need = stream.need();
            if need == Need::Nothing {
                return true;
            }
            if stream.consider_pointer() {
                lookout.soil();
            }
            let wake_at = match self.step(&need, lookout) {
                Step::Wait(at) => at,
                step => match self.work(step, lookout).await {
                    Ok(()) => continue,
                    Err(Error::Failed { .. }) => return false,
                    Err(error) => {
                        tracing::debug!(%error, "a frame of the stream is left out"); // busy: the next one, then
                        Instant::now() + RETRY
                    }
                },
            };
            tokio::select! {
                is_there = lookout.changed(), if !lookout.is_dirty() => if !is_there {
                    return false;
                },
                () = asked => {}
                Ok(()) = ready.changed() => {}
                () = tokio::time::sleep_until(wake_at) => {}
            }
        }
    }

    fn step(&mut self, need: &Need, lookout: &Lookout) -> Step {
        let (now, is_dirty) = (Instant::now(), lookout.is_dirty());
        let Need::Pictures { is_ready, wants_keyframe } = *need else { return Step::Wait(now + RETRY) };
        if is_dirty && is_ready {
            return if now >= self.next_frame { Step::Take } else { Step::Wait(self.next_frame) };
        }
        if self.last.is_none() {
            return Step::Wait(now + RETRY);
        }
        let next_look = lookout.next_look().unwrap_or(now + RETRY);
        let mut wake_at = if is_dirty { now + RETRY } else { next_look };
        if wants_keyframe && is_ready {
            if now >= self.next_keyframe {
                return Step::Again { is_keyframe: true };
            }
            wake_at = wake_at.min(self.next_keyframe);
        }
        if let Some(after) = REFINED_AFTER.get(self.refined).filter(|_| !is_dirty && is_ready) {
            if now >= self.rests_since + *after {
                self.refined += 1;
                if self.refined >= SETTLED {
                    self.rate.rests(now.into_std());
                }
                return Step::Again { is_keyframe: false };
            }
            wake_at = wake_at.min(self.rests_since + *after);
        }
        if !is_dirty && self.stream.wants_repeats() {
            let repeat_at = self.encoded_at + REPEATED_EVERY;
            if now >= repeat_at {
                return Step::Again { is_keyframe: false };
            }
            wake_at = wake_at.min(repeat_at);
        }
        if now >= next_look && !is_dirty {
            return Step::Point;
        }
        Step::Wait(wake_at)
    }

    async fn work(&mut self, step: Step, lookout: &mut Lookout) -> Result<(), Error> {
        self.consider_rate().await;
        match step {
            Step::Wait(_) => Ok(()),
            Step::Again { is_keyframe } => self.encode(is_keyframe).await,
            Step::Point => {
                if let Some(pointer) = lookout.pointer(self.frame_time()).await? {
                    self.stream.pointers.send_replace(Some(pointer));
                    if *self.stream.draws_pointer.borrow() {
                        lookout.soil(); // it belongs to the picture
                    }
                }
                Ok(())
            }
            Step::Take => self.take(lookout).await,
        }
    }

    fn frame_time(&self) -> Duration {
        Duration::from_secs(1) / self.rate.rate().fps.max(1)
    }

    async fn take(&mut self, lookout: &mut Lookout) -> Result<(), Error> {
        let now = Instant::now();
        self.next_frame = now + self.frame_time();
        let Taken { frame, pointer, .. } = lookout.picture(None, Duration::ZERO, self.frame_time()).await?;
        let size = (frame.rect.width, frame.rect.height);
        if size != self.size {
            self.size = size;
            self.rate = RateControl::new(size, self.stream.fps, now.into_std());
            self.stream.resized(size);
        }
        let is_other_pointer = *self.stream.pointers.borrow() != pointer;
        if is_other_pointer {
            self.stream.pointers.send_replace(pointer.clone());
        }
        let drawn = pointer.filter(|_| *self.stream.draws_pointer.borrow());
        let is_as_it_was = match (&self.bare, &self.last) {
            (Some(bare), Some(last)) => last.pointer == drawn && (Arc::ptr_eq(bare, &frame) || bare.data == frame.data),
            _ => false,
        };
        self.bare = Some(Arc::clone(&frame));
        if is_as_it_was && !self.stream.wants_keyframe() {
            return Ok(()); // much is drawn as it was
        }
        let mut shown = frame;
        if let Some(pointer) = &drawn {
            Arc::make_mut(&mut shown).draw_pointer(pointer);
        }
        self.number += 1;
        let picture = Arc::new(Picture { frame: shown, pointer: drawn, number: self.number, at: now - self.stream.began });
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
        self.encoded_at = taken;
        let picture = match is_keyframe || self.refined > 0 {
            // the same once more is later all the same
            true => Arc::new(Picture { at: taken - self.stream.began, ..Picture::clone(&picture) }),
            false => picture,
        };
        let is_settled = self.refined >= SETTLED;
        let encoded = tokio::task::spawn_blocking(move || {
            let settled = if is_settled { coder.rests() } else { Ok(()) };
            let encoded = settled.and_then(|()| coder.encode(&picture, rate, is_keyframe, taken.into_std()));
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
        let (now, slowest_bps) = (Instant::now(), self.stream.slowest_bps());
        let takes = slowest_bps.map_or(Duration::ZERO, |bps| time_to_send(packet.data.len(), bps));
        self.rate.sent(takes, now.into_std());
        if packet.is_keyframe {
            self.next_keyframe = now + KEYFRAME_EVERY.max(takes.mul_f64(KEYFRAME_TIMES));
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
        // At rest nothing is looked for: what is sent for that keeps browsers waiting for frames, and then asking for keyframes.
        let rests = now > self.rests_since + RESTS;
        if let Some(gateway) = &self.stream.gateway {
            gateway.desire(if rests { 0 } else { self.rate.wanted_bps() }).await;
        }
    }
}

/// At most ten seconds.
fn time_to_send(bytes: usize, bps: u64) -> Duration {
    let millis = u64::try_from(bytes).unwrap_or(u64::MAX).saturating_mul(8_000) / bps.max(1);
    Duration::from_millis(millis.min(10_000))
}
