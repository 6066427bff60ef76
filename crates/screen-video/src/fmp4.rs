//! A fragmented MP4 file of one H.264 track: whatever is cut off of it, what is before plays.
//!
//! ```text
//! ftyp moov | moof mdat | moof mdat | …        a fragment: at most a second, or what lies between two keyframes
//! ```
//!
//! A fragment is one write, so a kill leaves whole ones. Where a disk or a power cut tears one, most players show what is
//! before; ffmpeg refuses a file that ends within a `moof` (some hundred bytes), until [`crate::repair`] cut it off.
//!
//! A frame's duration is known when the next one comes, so the newest frame waits in memory; with it the fragment it will
//! belong to. Nothing else is kept: an hour and a day need the same memory. Neither `sidx` nor `mfra` is written: both
//! would need an index of all fragments, and players find their way by the fragments' own times.
//!
//! The boxes are `mp4-atom`'s. Muxers of whole files were looked at and don't fit: `muxide` 0.5 guesses a fragment's time
//! from the mean of the one before, so that a variable frame rate drifts; `shiguredo_mp4` 2026.5 keeps an entry of each
//! fragment for good.

use std::io::{Seek, SeekFrom, Write};
use std::time::Duration;

use crate::annexb::{self, ParameterSets};
use crate::boxes::{self, FRAGMENT_BYTES, SAMPLE_BYTES, Sample, TIMESCALE};
use crate::encoder::Encoded;
use crate::error::{Error, Result};

/// The longest fragment: what a kill costs at most, besides the newest frame.
pub const FRAGMENT_DURATION: Duration = Duration::from_secs(1);
/// A fragment of so many bytes is written before its time.
pub const FRAGMENT_DATA_BYTES: usize = 4 * 1024 * 1024;

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// From the first frame to the end of the last.
    pub duration: Duration,
    /// Frames in the file.
    pub frames: u64,
    /// The file's size.
    pub bytes: u64,
}

/// Writes frames as they come. Every write ends with a whole fragment; after an error, drop it: what was written before
/// plays.
#[derive(Debug)]
pub struct Fmp4Writer<W> {
    out: W,
    size: (u32, u32),
    /// From the first keyframe; every later one has the same.
    sets: Option<ParameterSets>,
    fragment: Fragment,
    /// The newest frame: its data is the end of the fragment's.
    newest: Option<Newest>,
    /// The end of the last frame that has one, in ticks.
    end: u64,
    sequence: u32,
    written: Summary,
}

/// Samples that wait to be written together.
#[derive(Debug, Default)]
struct Fragment {
    /// When the first sample begins, in ticks.
    base: u64,
    samples: Vec<Sample>,
    data: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
struct Newest {
    at: u64,
    size: u32,
    is_keyframe: bool,
}

impl<W: Write> Fmp4Writer<W> {
    /// A writer to the start of `out`, for video of `width`×`height` pixels. Nothing is written before the first frame.
    pub fn new(out: W, width: u32, height: u32) -> Self {
        Self {
            out,
            size: (width, height),
            sets: None,
            fragment: Fragment::default(),
            newest: None,
            end: 0,
            sequence: 0,
            written: Summary::default(),
        }
    }

    /// Takes a frame that is shown from `at` on, counted from the start of the video; the first must be a keyframe. A time
    /// that isn't after the last frame's becomes the next tick (1/90,000 s). Blocks for the write of at most one fragment,
    /// which a keyframe, a second or 4 MiB of waiting frames cause.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Stream`] when the first frame is no keyframe, or a keyframe has other parameter sets.
    pub fn write(&mut self, frame: &Encoded, at: Duration) -> Result<()> {
        if frame.is_keyframe || self.sets.is_none() {
            self.check_sets(frame)?;
        }
        let at = ticks(at).max(self.newest.map_or(self.end, |newest| newest.at + 1));
        self.close_newest(at);
        let full = self.fragment.data.len() >= FRAGMENT_DATA_BYTES;
        if frame.is_keyframe || full || at.saturating_sub(self.fragment.base) >= ticks(FRAGMENT_DURATION) {
            self.write_fragment()?;
        }
        if self.fragment.samples.is_empty() {
            self.fragment.base = at;
        }
        let before = self.fragment.data.len();
        annexb::to_sample(&frame.data, &mut self.fragment.data);
        let size = u32::try_from(self.fragment.data.len() - before).map_err(|_| Error::Stream("a frame of 4 GiB"))?;
        self.newest = Some(Newest { at, size, is_keyframe: frame.is_keyframe });
        Ok(())
    }

    /// What is in the file and what waits: as [`Fmp4Writer::close`] at `end` would leave it.
    #[must_use]
    pub fn summary(&self, end: Duration) -> Summary {
        let waiting = u64::from(self.newest.is_some());
        let end = self.newest.map_or(self.end, |newest| ticks(end).max(newest.at + 1));
        let duration = from_ticks(end);
        Summary {
            duration,
            frames: self.written.frames + self.fragment.samples.len() as u64 + waiting,
            bytes: self.bytes_with(0),
        }
    }

    /// The file's size if a frame of `frame_bytes` more came now and it was closed then; never too small.
    #[must_use]
    pub fn bytes_with(&self, frame_bytes: usize) -> u64 {
        let frame = if frame_bytes == 0 { 0 } else { FRAGMENT_BYTES + SAMPLE_BYTES + frame_bytes + frame_bytes / 3 };
        let samples = self.fragment.samples.len() + usize::from(self.newest.is_some());
        let waiting = if samples == 0 { 0 } else { FRAGMENT_BYTES + samples * SAMPLE_BYTES + self.fragment.data.len() };
        self.written.bytes + (waiting + frame) as u64
    }

    /// Writes everything that waits; the newest frame lasts until `end`, one tick at least. Without a frame the output
    /// stays empty. More frames may follow, from `end` on.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn close(&mut self, end: Duration) -> Result<Summary> {
        if let Some(newest) = self.newest {
            self.close_newest(ticks(end).max(newest.at + 1));
        }
        self.write_fragment()?;
        self.out.flush()?;
        Ok(self.written)
    }

    fn check_sets(&mut self, frame: &Encoded) -> Result<()> {
        let sets = ParameterSets::of(&frame.data).filter(|_| frame.is_keyframe);
        match (&self.sets, sets) {
            (None, None) => Err(Error::Stream("it begins without a keyframe")),
            (None, Some(sets)) => {
                let head = boxes::head(self.size.0, self.size.1, &sets, 0)?;
                self.out.write_all(&head)?;
                self.written.bytes = head.len() as u64;
                self.sets = Some(sets);
                Ok(())
            }
            (Some(before), Some(sets)) if *before != sets => Err(Error::Stream("its parameter sets change")),
            (Some(_), _) => Ok(()),
        }
    }

    /// Gives the newest frame its end. It then belongs to the fragment.
    fn close_newest(&mut self, end: u64) {
        let Some(newest) = self.newest.take() else { return };
        // 13 hours a frame; what is longer keeps the place of the next frame, which the fragment's base says
        let duration = u32::try_from(end - newest.at).unwrap_or(u32::MAX);
        self.end = end;
        self.fragment.samples.push(Sample { duration, size: newest.size, is_keyframe: newest.is_keyframe });
    }

    /// Writes the samples that have their end. The data of the newest frame, if it waits, stays.
    fn write_fragment(&mut self) -> Result<()> {
        if self.fragment.samples.is_empty() {
            return Ok(());
        }
        let kept = self.newest.map_or(0, |newest| newest.size as usize);
        let data_bytes = self.fragment.data.len() - kept;
        let mut bytes = boxes::fragment_head(self.sequence + 1, self.fragment.base, &self.fragment.samples, data_bytes)?;
        bytes.extend_from_slice(&self.fragment.data[..data_bytes]);
        // one write: ffmpeg refuses a whole file that ends within a moof
        self.out.write_all(&bytes)?;
        self.sequence += 1;
        let lasted: u64 = self.fragment.samples.iter().map(|sample| u64::from(sample.duration)).sum();
        self.written.duration = from_ticks(self.fragment.base + lasted);
        self.written.frames += self.fragment.samples.len() as u64;
        self.written.bytes += bytes.len() as u64;
        self.fragment.samples.clear();
        self.fragment.data.drain(..data_bytes);
        self.fragment.base = self.newest.map_or(0, |newest| newest.at);
        Ok(())
    }
}

impl<W: Write + Seek> Fmp4Writer<W> {
    /// [`Fmp4Writer::close`], and says the duration at the head of the file, for players that look no further.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn finish(mut self, end: Duration) -> Result<(W, Summary)> {
        let summary = self.close(end)?;
        if let Some(sets) = &self.sets {
            let head = boxes::head(self.size.0, self.size.1, sets, ticks(summary.duration))?;
            self.out.seek(SeekFrom::Start(0))?;
            self.out.write_all(&head)?;
            self.out.seek(SeekFrom::End(0))?;
            self.out.flush()?;
        }
        Ok((self.out, summary))
    }
}

/// The nearest tick: rounding each time, not each duration, keeps hours without drift.
pub(crate) fn ticks(at: Duration) -> u64 {
    let nanos = at.as_nanos() * u128::from(TIMESCALE) + 500_000_000;
    u64::try_from(nanos / 1_000_000_000).unwrap_or(u64::MAX / 2)
}

/// The time of a tick.
pub(crate) fn from_ticks(ticks: u64) -> Duration {
    let nanos = u128::from(ticks) * 1_000_000_000 / u128::from(TIMESCALE);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}
