//! A screen recording: frames when something changed, touches when nothing did. Knows no screen, thread or clock.
//!
//! ```text
//! (start) ──push──▶ running ⇄ pause / resume ⇄ paused
//!                      └── a bound ──▶ full ──finish──▶ (file)
//! ```

use std::io::{Seek, Write};
use std::time::Duration;

use crate::encoder::{Encoded, Encoder, Purpose, Settings};
use crate::error::{Error, Result};
use crate::fmp4::{Fmp4Writer, Summary};

/// How soon after a change the screen, still again, is encoded once more: the frame is then on the disk, and as crisp as
/// the bit rate allows.
pub const SETTLES: Duration = Duration::from_millis(500);
/// How often a still screen gets a frame. It says "nothing changed" in some bytes, and bounds what of the duration a kill
/// can cost.
pub const STILL_FRAME_EVERY: Duration = Duration::from_secs(10);
/// A keyframe, from which a player can begin, comes when so much time passed since the last …
pub const KEYFRAME_EVERY: Duration = Duration::from_secs(10);
/// … and what was written since is as large as the last keyframe, or so many frames. So keyframes double a file at most,
/// and a blinking cursor doesn't pay for them.
pub const KEYFRAME_FRAMES: u64 = 600;

/// What a recording may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The size of the file.
    pub max_bytes: u64,
    /// The duration of the video, without what was paused.
    pub max_duration: Duration,
}

/// Which bound ended a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// `max_bytes`.
    Bytes,
    /// `max_duration`.
    Duration,
}

/// What became of a frame or a touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// A frame was added.
    Written {
        /// A player can begin there.
        is_keyframe: bool,
    },
    /// The bit rate is used up. The picture is kept: a later touch or push adds it.
    Skipped,
    /// Nothing had to be done.
    Idle,
    /// The recording is paused: nothing was taken.
    Paused,
    /// A bound is reached: nothing is taken any more. The file is to be finished.
    Full(Limit),
}

/// Frames of one size into one file. Times are the caller's monotonic clock, from any origin; a time before the last one
/// counts as the last one.
#[derive(Debug)]
pub struct Recording<W> {
    encoder: Encoder,
    writer: Fmp4Writer<W>,
    limits: Limits,
    clock: Clock,
    /// The file doesn't show what the screen does: the rate control skipped it, or a pause ended the last frame.
    owes_frame: bool,
    /// The last frame came from a change, and was not encoded again since.
    unsettled: bool,
    last_frame: Option<Duration>,
    keyframe: Keyframe,
    full: Option<Limit>,
    failed: bool,
}

/// The caller's clock as the video's time: from the first frame on, without pauses.
#[derive(Debug, Default)]
struct Clock {
    /// When video time zero was, moved on by pauses.
    origin: Option<Duration>,
    paused_at: Option<Duration>,
    latest: Duration,
}

/// The last keyframe, and what came since. Times are the video's.
#[derive(Debug, Default)]
struct Keyframe {
    at: Duration,
    bytes: usize,
    frames_since: u64,
    bytes_since: usize,
}

impl<W: Write> Recording<W> {
    /// A recording of frames of `width`×`height` pixels to the start of `out`. Nothing is written before the first frame.
    ///
    /// # Errors
    /// [`Error::Size`], [`Error::Codec`]: as [`Encoder::new`].
    pub fn new(out: W, width: u32, height: u32, fps: u32, bitrate_bps: u32, limits: Limits) -> Result<Self> {
        let encoder = Encoder::new(width, height, Settings { fps, bitrate_bps, purpose: Purpose::Recording })?;
        let (coded_width, coded_height) = encoder.coded_size();
        Ok(Self {
            encoder,
            writer: Fmp4Writer::new(out, coded_width, coded_height),
            limits,
            clock: Clock::default(),
            owes_frame: false,
            unsettled: false,
            last_frame: None,
            keyframe: Keyframe::default(),
            full: None,
            failed: false,
        })
    }

    /// Adds a frame that the screen shows from `at` on; the first is the start of the video. Rows of BGRX, `stride` bytes
    /// apart. Call it when something changed, `fps` times a second at most: the rate control counts on it. Blocks for the
    /// encoding and, about once a second, the write of a fragment.
    ///
    /// # Errors
    /// [`Error::Frame`] takes nothing. After any other the recording is over: what was written plays, and
    /// [`crate::repair`] makes it whole.
    pub fn push(&mut self, bgrx: &[u8], stride: usize, at: Duration) -> Result<Progress> {
        let now = match self.begin(at)? {
            Ok(now) => now,
            Err(progress) => return Ok(progress),
        };
        let wants_keyframe = self.keyframe.is_due(now);
        let encoded = match self.encoder.encode(bgrx, stride, now, wants_keyframe) {
            Err(error @ Error::Frame { .. }) => return Err(error),
            other => self.noting(other)?,
        };
        self.clock.start(at);
        self.unsettled = true;
        self.take(encoded, now)
    }

    /// Says that nothing changed until `at`. Cheap: most calls look at the clock and do nothing. Call it once a second or
    /// so, and more often if you like.
    ///
    /// # Errors
    /// As [`Recording::push`].
    pub fn touch(&mut self, at: Duration) -> Result<Progress> {
        let now = match self.begin(at)? {
            Ok(now) => now,
            Err(progress) => return Ok(progress),
        };
        let Some(last) = self.last_frame else { return Ok(if self.owes_frame { self.again(now)? } else { Progress::Idle }) };
        let since = now.saturating_sub(last);
        let frame_duration = Duration::from_secs(1) / self.encoder.settings().fps;
        let wait = match (self.owes_frame, self.unsettled) {
            (true, _) => frame_duration,
            (false, true) => SETTLES,
            (false, false) => STILL_FRAME_EVERY,
        };
        if since < wait { Ok(Progress::Idle) } else { self.again(now) }
    }

    /// Stops the video's time at `at`, with all that happened before on the disk. Paused already: nothing happens.
    ///
    /// # Errors
    /// As [`Recording::push`].
    pub fn pause(&mut self, at: Duration) -> Result<()> {
        if let Ok(now) = self.begin(at)? {
            let closed = self.writer.close(now);
            self.noting(closed)?;
            self.clock.pause(at);
        }
        Ok(())
    }

    /// Lets the video's time go on from `at`, with the picture from before the pause; push the screen as it is now
    /// afterwards. Not paused: nothing happens.
    ///
    /// # Errors
    /// As [`Recording::push`].
    pub fn resume(&mut self, at: Duration) -> Result<Progress> {
        let was_paused = self.is_paused();
        self.clock.resume(at);
        match self.begin(at)? {
            Ok(now) if was_paused && self.last_frame.is_some() => self.again(now),
            Ok(_) => Ok(Progress::Idle),
            Err(progress) => Ok(progress),
        }
    }

    /// Whether it is paused.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.clock.paused_at.is_some()
    }

    /// What it would hold if it was finished at `at`.
    #[must_use]
    pub fn summary(&self, at: Duration) -> Summary {
        self.writer.summary(self.clock.video(at).min(self.limits.max_duration))
    }

    /// The bound that ended it.
    #[must_use]
    pub fn full(&self) -> Option<Limit> {
        self.full
    }

    /// Checks what every call checks: the video's time, or why nothing is to be done.
    fn begin(&mut self, at: Duration) -> Result<std::result::Result<Duration, Progress>> {
        if self.failed {
            return Err(Error::Stream("the recording failed before"));
        }
        if self.is_paused() {
            return Ok(Err(Progress::Paused));
        }
        self.clock.latest = self.clock.latest.max(at);
        let now = self.clock.video(at);
        if self.full.is_none() && now >= self.limits.max_duration {
            self.full = Some(Limit::Duration);
        }
        Ok(self.full.map_or(Ok(now), |limit| Err(Progress::Full(limit))))
    }

    fn again(&mut self, now: Duration) -> Result<Progress> {
        let encoded = self.encoder.encode_again(now, false);
        let encoded = self.noting(encoded)?;
        self.unsettled = false;
        self.take(encoded, now)
    }

    fn take(&mut self, encoded: Option<Encoded>, now: Duration) -> Result<Progress> {
        let Some(encoded) = encoded else {
            self.owes_frame = true;
            return Ok(Progress::Skipped);
        };
        if self.writer.bytes_with(encoded.data.len()) > self.limits.max_bytes {
            self.full = Some(Limit::Bytes);
            return Ok(Progress::Full(Limit::Bytes));
        }
        let written = self.writer.write(&encoded, now);
        self.noting(written)?;
        self.owes_frame = false;
        self.last_frame = Some(now);
        self.keyframe.count(&encoded, now);
        Ok(Progress::Written { is_keyframe: encoded.is_keyframe })
    }

    /// Remembers that something failed: what is written after a torn fragment would not be found.
    fn noting<T>(&mut self, result: Result<T>) -> Result<T> {
        self.failed |= result.is_err();
        result
    }
}

impl<W: Write + Seek> Recording<W> {
    /// Ends the video at `at`, or where it was paused or full, and says the duration in its head. Blocks for a write.
    ///
    /// # Errors
    /// [`Error::Io`]: what was written before plays. [`Error::NoFrames`]: nothing was pushed, and nothing written.
    pub fn finish(mut self, at: Duration) -> Result<(W, Summary)> {
        if let Ok(now) = self.begin(at)?
            && self.owes_frame
        {
            // the last picture is worth a frame even when the bit rate is used up; it may be skipped again
            self.again(now)?;
        }
        let end = match self.full {
            // the time of frames that didn't fit isn't shown
            Some(Limit::Bytes) => self.last_frame.unwrap_or_default() + Duration::from_secs(1) / self.encoder.settings().fps,
            Some(Limit::Duration) | None => self.clock.video(at),
        };
        let (out, summary) = self.writer.finish(end.min(self.limits.max_duration))?;
        if summary.frames == 0 { Err(Error::NoFrames) } else { Ok((out, summary)) }
    }
}

impl Clock {
    /// The first frame is time zero.
    fn start(&mut self, at: Duration) {
        self.origin.get_or_insert(at);
    }

    fn video(&self, at: Duration) -> Duration {
        let at = self.paused_at.unwrap_or(at.max(self.latest));
        self.origin.map_or(Duration::ZERO, |origin| at.saturating_sub(origin))
    }

    fn pause(&mut self, at: Duration) {
        self.latest = self.latest.max(at);
        self.paused_at = Some(self.latest);
    }

    fn resume(&mut self, at: Duration) {
        let Some(paused_at) = self.paused_at.take() else { return };
        let at = at.max(paused_at);
        self.latest = at;
        self.origin = self.origin.map(|origin| origin + (at - paused_at));
    }
}

impl Keyframe {
    fn is_due(&self, now: Duration) -> bool {
        let is_worth_it = self.bytes_since >= self.bytes || self.frames_since >= KEYFRAME_FRAMES;
        is_worth_it && now.saturating_sub(self.at) >= KEYFRAME_EVERY
    }

    fn count(&mut self, encoded: &Encoded, now: Duration) {
        if encoded.is_keyframe {
            *self = Self { at: now, bytes: encoded.data.len(), frames_since: 0, bytes_since: 0 };
        } else {
            self.frames_since += 1;
            self.bytes_since += encoded.data.len();
        }
    }
}
