//! The thread that encodes: it waits for work, and ends with the file.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use screen_video::{Limit, Limits, Progress, Recording as Video, Summary};
use tokio::sync::{mpsc, oneshot};
use x_desktop::picture::{Format, encode};
use x_desktop::{Frame, Pointer};

use super::Live;
use super::folder::millis;
use super::types::EndReason;

/// Without effect on PNG.
const QUALITY: u8 = 100;

/// What it is to do. Times are from the start of the recording.
pub(super) enum Work {
    Frame { frame: Arc<Frame>, pointer: Option<Pointer>, at: Duration },
    Touch(Duration),
    Pause(Duration, oneshot::Sender<()>),
    Resume(Duration),
    Finish(Duration),
}

/// How it ended.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// What is in the file; `None` when nothing in it plays.
    pub(super) summary: Option<Summary>,
    /// Unless it was asked to.
    pub(super) reason: Option<EndReason>,
}

/// What is written how, and where.
pub(super) struct Plan {
    /// Of the frames, in pixels; later ones of another size are scaled to it.
    pub(super) size: (u32, u32),
    pub(super) fps: u32,
    pub(super) limits: Limits,
    pub(super) path: PathBuf,
    pub(super) poster: PathBuf,
}

struct Writer {
    video: Video<File>,
    plan: Plan,
    live: Arc<Live>,
    /// As it was pushed.
    last: Option<Arc<Frame>>,
    latest: Duration,
}

/// Works until it is told to finish, a bound is reached, something fails, or nobody is there who could tell.
pub(super) fn run(file: File, plan: Plan, live: Arc<Live>, mut work: mpsc::Receiver<Work>) -> Outcome {
    let (width, height) = plan.size;
    let video = match Video::new(file, width, height, plan.fps, bitrate_bps(plan.size, plan.fps), plan.limits) {
        Ok(video) => video,
        Err(error) => {
            tracing::warn!(%error, "a recording can't be encoded");
            return Outcome { summary: None, reason: Some(EndReason::Encoder) };
        }
    };
    let mut writer = Writer { video, plan, live, last: None, latest: Duration::ZERO };
    loop {
        let next = work.blocking_recv().unwrap_or(Work::Finish(writer.latest));
        if let Work::Finish(at) = next {
            return writer.finish(at);
        }
        match writer.take(next) {
            Ok(Progress::Full(_)) => return writer.finish_now(),
            Ok(_) => {}
            Err(error) => return writer.failed(&error),
        }
    }
}

/// An eighth of a bit for each pixel: text that scrolls stays legible, and nearly everything else needs far less.
fn bitrate_bps((width, height): (u32, u32), fps: u32) -> u32 {
    let bits = u64::from(width) * u64::from(height) * u64::from(fps) / 8;
    u32::try_from(bits).unwrap_or(u32::MAX).max(LEAST_BITRATE_BPS)
}

/// Small screens and low rates still have to bring a first frame.
const LEAST_BITRATE_BPS: u32 = 1_000_000;

impl Writer {
    fn take(&mut self, work: Work) -> screen_video::Result<Progress> {
        let mut told = None;
        let progress = match work {
            Work::Frame { frame, pointer, at } => self.frame(frame, pointer.as_ref(), at)?,
            Work::Touch(at) | Work::Finish(at) => self.touch(at)?,
            Work::Pause(at, done) => {
                self.video.pause(at)?;
                self.latest = self.latest.max(at);
                self.live.paused.store(true, Ordering::Relaxed);
                told = Some(done);
                Progress::Paused
            }
            Work::Resume(at) => {
                self.latest = self.latest.max(at);
                self.video.resume(at)?
            }
        };
        self.live.duration_ms.store(millis(self.video.summary(self.latest).duration), Ordering::Relaxed);
        if let Some(done) = told {
            let _ = done.send(()); // who asked has left
        }
        Ok(progress)
    }

    fn touch(&mut self, at: Duration) -> screen_video::Result<Progress> {
        self.latest = self.latest.max(at);
        self.video.touch(at)
    }

    fn frame(&mut self, frame: Arc<Frame>, pointer: Option<&Pointer>, at: Duration) -> screen_video::Result<Progress> {
        let mut frame = frame;
        if let Some(pointer) = pointer {
            Arc::make_mut(&mut frame).draw_pointer(pointer);
        }
        let (width, height) = self.plan.size;
        if (frame.rect.width, frame.rect.height) != (width, height) {
            match frame.scaled(width, height) {
                Ok(scaled) => frame = Arc::new(scaled),
                Err(error) => {
                    tracing::warn!(%error, "a frame of a recording is left out");
                    return self.touch(at);
                }
            }
        }
        // Much is drawn as it was, and the rest of the screen is of no interest to a region.
        if self.last.as_ref().is_some_and(|last| last.data == frame.data) {
            return self.touch(at);
        }
        self.latest = self.latest.max(at);
        let stride = width as usize * x_desktop::picture::BYTES_PER_PIXEL;
        let progress = self.video.push(&frame.data, stride, at)?;
        if self.last.is_none() {
            self.keep_poster(&frame);
        }
        self.last = Some(frame);
        Ok(progress)
    }

    /// A recording without one is a recording all the same.
    fn keep_poster(&self, frame: &Frame) {
        let kept = encode(frame, Format::Png, QUALITY).map_err(|error| error.to_string());
        let kept = kept.and_then(|png| std::fs::write(&self.plan.poster, png).map_err(|error| error.to_string()));
        if let Err(error) = kept {
            tracing::warn!(error, "a recording's poster could not be written");
        }
    }

    fn finish_now(self) -> Outcome {
        let at = self.latest;
        self.finish(at)
    }

    fn finish(self, at: Duration) -> Outcome {
        let was_full = self.video.full();
        let path = self.plan.path;
        match self.video.finish(at) {
            Ok((file, summary)) => {
                if let Err(error) = file.sync_all() {
                    tracing::warn!(%error, "a recording may not be on the disk yet");
                }
                // The time may have been over just now.
                let is_long = summary.duration >= self.plan.limits.max_duration;
                let full = was_full.or(is_long.then_some(Limit::Duration));
                Outcome { summary: Some(summary), reason: full.map(reason_of) }
            }
            Err(screen_video::Error::NoFrames) => Outcome { summary: None, reason: was_full.map(reason_of) },
            Err(error) => over(&path, &error),
        }
    }

    fn failed(self, error: &screen_video::Error) -> Outcome {
        drop(self.video); // nobody writes any more
        over(&self.plan.path, error)
    }
}

fn reason_of(limit: Limit) -> EndReason {
    match limit {
        Limit::Bytes => EndReason::Size,
        Limit::Duration => EndReason::Duration,
    }
}

/// After a failure: what was written before plays.
fn over(path: &std::path::Path, error: &screen_video::Error) -> Outcome {
    tracing::warn!(%error, path = %path.display(), "a recording ended early");
    let reason = if matches!(error, screen_video::Error::Io(_)) { EndReason::Disk } else { EndReason::Encoder };
    let info = screen_video::repair(path).or_else(|_| screen_video::inspect(path)).ok();
    let summary = info.map(|info| Summary { duration: info.duration, frames: info.frames, bytes: info.bytes });
    Outcome { summary, reason: Some(reason) }
}
