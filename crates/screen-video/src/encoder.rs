//! H.264 of screen frames: BGRX in, Annex B out (ITU-T H.264, annex B).
//!
//! Constrained Baseline, 4:2:0, BT.709 in limited range and said so in the stream.
//! A frame is one slice: slices that fit a packet would need a setting that makes the library write to stderr, and a
//! packetiser splits units anyway (RFC 6184, 5.8).

use std::time::Duration;

use openh264::encoder::{
    BitRate, Complexity, Encoder as OpenH264, EncoderConfig, FrameRate, FrameType, IntraFramePeriod, Profile, QpRange,
    RateControlMode, UsageType, VuiConfig,
};
use openh264::{OpenH264API, Timestamp};

use crate::error::{Error, Result};
use crate::i420::I420;
use crate::raw;

/// The least width and height that is encoded, in pixels: one macroblock. Smaller screens are padded to it.
pub const LEAST_SIDE: u32 = 16;
/// The encoder's greatest longer side, in pixels (level 5.2).
pub const GREATEST_LONG_SIDE: u32 = 3840;
/// The encoder's greatest shorter side, in pixels (level 5.2).
pub const GREATEST_SHORT_SIDE: u32 = 2160;
/// Bit rates that the encoder takes, in bits per second; others are moved to the nearer end.
pub const BITRATE_BPS: std::ops::RangeInclusive<u32> = 50_000..=200_000_000;
/// Frame rates that the encoder takes; others are moved to the nearer end.
pub const FPS: std::ops::RangeInclusive<u32> = 1..=60;
/// The finest quantiser: below it, text gains nothing that an eye sees and doubles in bytes.
const FINEST: u8 = 20;
/// The coarsest quantiser of a recording: text can just be read. Where even that is too much, frames are skipped.
const COARSEST_RECORDED: u8 = 40;
/// The coarsest quantiser of a live stream, where a frame now is worth more than a fine one later.
const COARSEST_LIVE: u8 = 46;

/// So many keyframes in a row that nobody asked for are motion all over the screen.
const SURPRISES_MAX: u32 = 3;

/// What the video is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A file: every frame is legible; under motion that is too much for the bit rate, frames are skipped.
    Recording,
    /// A live stream: under such motion, frames become coarse before they are skipped.
    Live,
}

/// How to encode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Frames per second at most, 1 to 60. The rate control gives each frame its share of the bit rate by it.
    pub fps: u32,
    /// Bits per second at most, over a few seconds.
    pub bitrate_bps: u32,
    /// What the video is for.
    pub purpose: Purpose,
}

/// One encoded frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// NAL units with start codes; a keyframe begins with its SPS and PPS.
    pub data: Vec<u8>,
    /// Decodable without any frame before it (IDR).
    pub is_keyframe: bool,
}

/// An H.264 encoder for frames of one size. Another size is another encoder.
///
/// Belongs to one thread; every call blocks for as long as the encoding takes (1920×1080: a few milliseconds for a frame
/// like the last one, some tens for a keyframe). It holds the last frame, converted, for [`Encoder::encode_again`].
pub struct Encoder {
    width: u32,
    height: u32,
    settings: Settings,
    codec: OpenH264,
    picture: I420,
    /// A picture was converted, so that it can be encoded again.
    has_picture: bool,
    has_encoded: bool,
    /// A keyframe is owed: the first, or a forced one that the rate control skipped.
    owes_keyframe: bool,
    content: Content,
    /// Keyframes in a row that nobody asked for.
    surprises: u32,
}

/// What the library expects. A screen is like the one before, or scrolled: that costs it next to nothing, and all else is another
/// scene to it, for which it makes a keyframe. In motion it looks for what went where, and takes a coarser quantiser.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    Screen,
    Motion,
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder").field("width", &self.width).field("height", &self.height).finish_non_exhaustive()
    }
}

impl Encoder {
    /// An encoder for frames of `width`×`height` pixels, at least 1×1 and at most 3840×2160 in either orientation.
    ///
    /// # Errors
    /// [`Error::Size`] outside these; [`Error::Codec`] when the library has no memory.
    pub fn new(width: u32, height: u32, settings: Settings) -> Result<Self> {
        let (long, short) = (width.max(height), width.min(height));
        if short == 0 || long > GREATEST_LONG_SIDE || short > GREATEST_SHORT_SIDE {
            return Err(Error::Size { width, height });
        }
        let settings = settings.within();
        let (coded_width, coded_height) = (coded(width), coded(height));
        let picture = I420::black(coded_width, coded_height);
        Ok(Self {
            width,
            height,
            settings,
            codec: codec(settings, Content::Screen)?,
            picture,
            has_picture: false,
            has_encoded: false,
            owes_keyframe: true,
            content: Content::Screen,
            surprises: 0,
        })
    }

    /// Width and height of the video in pixels: the frame's, padded to even numbers and to 16×16.
    #[must_use]
    pub fn coded_size(&self) -> (u32, u32) {
        (self.picture.width(), self.picture.height())
    }

    /// The settings that hold, within the ranges of the encoder.
    #[must_use]
    pub fn settings(&self) -> Settings {
        self.settings
    }

    /// Encodes a frame: rows of 4 bytes a pixel (blue, green, red, unused), `stride` bytes apart. What the video is larger
    /// by repeats the last column and row. `None`: skipped, because the bit rate is used up; the picture is kept and
    /// [`Encoder::encode_again`] sends it when there is room. A skipped keyframe stays owed.
    ///
    /// # Errors
    /// [`Error::Frame`] for too short a frame; [`Error::Codec`] when the library fails, after which the encoder should be
    /// replaced.
    pub fn encode(&mut self, bgrx: &[u8], stride: usize, timestamp: Duration, force_keyframe: bool) -> Result<Option<Encoded>> {
        self.picture.convert(bgrx, stride, self.width, self.height)?;
        self.has_picture = true;
        self.encode_again(timestamp, force_keyframe)
    }

    /// Encodes the last frame once more, without converting it: what a still screen needs to become crisp after motion, or
    /// a new viewer as its keyframe. `None` before any frame, or skipped as in [`Encoder::encode`].
    ///
    /// # Errors
    /// [`Error::Codec`] as in [`Encoder::encode`].
    pub fn encode_again(&mut self, timestamp: Duration, force_keyframe: bool) -> Result<Option<Encoded>> {
        if !self.has_picture {
            return Ok(None);
        }
        self.owes_keyframe |= force_keyframe;
        if self.owes_keyframe {
            self.codec.force_intra_frame();
        }
        let at_ms = u64::try_from(timestamp.as_millis()).unwrap_or(u64::MAX).min(i64::MAX.unsigned_abs());
        let stream = self.codec.encode_at(&self.picture, Timestamp::from_millis(at_ms))?;
        self.has_encoded = true;
        let is_keyframe = match stream.frame_type() {
            FrameType::IDR => true,
            FrameType::I | FrameType::P | FrameType::IPMixed => false,
            FrameType::Skip | FrameType::Invalid => return Ok(None),
        };
        let data = stream.to_vec();
        self.look_for_motion(is_keyframe)?;
        self.owes_keyframe &= !is_keyframe;
        Ok((!data.is_empty()).then_some(Encoded { data, is_keyframe }))
    }

    /// What moved all over a live screen has come to rest: from here on it is a screen again, beginning with a keyframe. Does nothing
    /// where nothing moved like that.
    ///
    /// # Errors
    /// [`Error::Codec`] when the library has no memory.
    pub fn rests(&mut self) -> Result<()> {
        if self.content == Content::Motion { self.expect(Content::Screen) } else { Ok(()) }
    }

    fn look_for_motion(&mut self, is_keyframe: bool) -> Result<()> {
        let is_surprise = is_keyframe && !self.owes_keyframe;
        self.surprises = if is_surprise { self.surprises + 1 } else { 0 };
        if self.surprises >= SURPRISES_MAX && self.settings.purpose == Purpose::Live && self.content == Content::Screen {
            self.expect(Content::Motion)?;
        }
        Ok(())
    }

    fn expect(&mut self, content: Content) -> Result<()> {
        self.codec = codec(self.settings, content)?;
        (self.content, self.surprises) = (content, 0);
        (self.has_encoded, self.owes_keyframe) = (false, true);
        Ok(())
    }

    /// Changes the bit rate and the frame rate, from the next frame on and without a keyframe: on a network that has become slow,
    /// one would come late by seconds. The same rates do nothing.
    ///
    /// # Errors
    /// [`Error::Codec`] when the library refuses; the encoder should be replaced then.
    pub fn set_rate(&mut self, bitrate_bps: u32, fps: u32) -> Result<()> {
        let settings = Settings { bitrate_bps, fps, ..self.settings }.within();
        if settings == self.settings {
            return Ok(());
        }
        if self.has_encoded {
            raw::set_rate(&mut self.codec, (self.settings.bitrate_bps, settings.bitrate_bps), settings.fps)?;
        } else {
            self.codec = codec(settings, self.content)?; // it has no options before its first frame
        }
        self.settings = settings;
        Ok(())
    }
}

impl Settings {
    fn within(self) -> Self {
        Self {
            fps: self.fps.clamp(*FPS.start(), *FPS.end()),
            bitrate_bps: self.bitrate_bps.clamp(*BITRATE_BPS.start(), *BITRATE_BPS.end()),
            ..self
        }
    }
}

fn coded(side: u32) -> u32 {
    side.next_multiple_of(2).max(LEAST_SIDE)
}

/// What the library is told. Its warnings go to stderr before its log level holds, so nothing here may cause one: in
/// screen mode it has neither adaptive quantisation nor background detection.
#[allow(clippy::cast_precision_loss)] // at most 60
fn codec(settings: Settings, content: Content) -> Result<OpenH264> {
    let coarsest = match settings.purpose {
        Purpose::Recording => COARSEST_RECORDED,
        Purpose::Live => COARSEST_LIVE,
    };
    let config = EncoderConfig::new()
        .debug(false)
        .usage_type(match content {
            Content::Screen => UsageType::ScreenContentRealTime,
            Content::Motion => UsageType::CameraVideoRealTime,
        })
        .scene_change_detect(content == Content::Screen) // which can't do without
        .profile(Profile::Baseline)
        .complexity(Complexity::Low)
        // counts by timestamps: frames of a screen come unevenly
        .rate_control_mode(RateControlMode::Timestamp)
        .bitrate(BitRate::from_bps(settings.bitrate_bps))
        .max_frame_rate(FrameRate::from_hz(settings.fps as f32))
        .skip_frames(true)
        .qp(QpRange::new(FINEST, coarsest))
        .adaptive_quantization(false)
        .background_detection(false)
        .intra_frame_period(IntraFramePeriod::from_num_frames(0))
        // in screen mode, threads gain nothing, and the rest of the machine has work to do
        .num_threads(1)
        .vui(VuiConfig::bt709());
    Ok(OpenH264::with_api_config(OpenH264API::from_source(), config)?)
}
