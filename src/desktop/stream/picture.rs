//! What viewers get: frames of H.264, or the picture itself for those who make JPEG rectangles of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use screen_video::{Encoder, Purpose, Settings};
use webrtc_peers::Sound;
use x_desktop::picture::{BYTES_PER_PIXEL, Format, Tiles, encode};
use x_desktop::{Frame, Pointer, Rect};

use super::rate::Rate;

/// Of rectangles; text stays legible.
const JPEG_QUALITY: u8 = 80;

/// The screen at a moment.
#[derive(Clone)]
pub(super) struct Picture {
    pub(super) frame: Arc<Frame>,
    /// That is drawn in it.
    pub(super) pointer: Option<Pointer>,
    /// Counts pictures, from 1.
    pub(super) number: u64,
    /// When it was taken, since the beginning of the stream.
    pub(super) at: Duration,
}

/// An encoded frame of the whole screen.
pub(super) struct Packet {
    pub(super) data: Arc<[u8]>,
    pub(super) is_keyframe: bool,
    pub(super) number: u64,
    pub(super) at: Duration,
    pub(super) taken: Instant,
    /// Of the picture, in pixels.
    pub(super) size: (u32, u32),
}

/// Encodes for all.
pub(super) struct Coder {
    encoder: Option<(Encoder, (u32, u32))>,
}

impl Coder {
    pub(super) fn new() -> Self {
        Self { encoder: None }
    }

    /// What was all in motion rests: the next picture is encoded as a screen again.
    ///
    /// # Errors
    /// Why it can't be encoded.
    pub(super) fn rests(&mut self) -> Result<(), String> {
        self.encoder.as_mut().map_or(Ok(()), |(encoder, ..)| encoder.rests()).map_err(|error| error.to_string())
    }

    /// Encodes a picture. `None`: the rate control left it out, it has to come again. Blocks.
    ///
    /// # Errors
    /// Why it can't be encoded; the next one begins anew.
    pub(super) fn encode(
        &mut self,
        picture: &Picture,
        rate: Rate,
        is_keyframe: bool,
        taken: Instant,
    ) -> Result<Option<Packet>, String> {
        let encoded = self.try_encode(picture, rate, is_keyframe, taken);
        if encoded.is_err() {
            self.encoder = None;
        }
        encoded
    }

    fn try_encode(&mut self, picture: &Picture, rate: Rate, is_keyframe: bool, taken: Instant) -> Result<Option<Packet>, String> {
        let whole = &picture.frame;
        let smaller = (rate.shrink > 1).then(|| {
            let side = |side: u32| (side / rate.shrink).max(1);
            whole.scaled(side(whole.rect.width), side(whole.rect.height))
        });
        let smaller = smaller.transpose().map_err(|error| error.to_string())?;
        let frame = smaller.as_ref().unwrap_or(whole);
        let size = (frame.rect.width, frame.rect.height);
        let encoder = self.encoder(size, rate)?;
        let stride = size.0 as usize * BYTES_PER_PIXEL;
        let encoded = encoder.encode(&frame.data, stride, picture.at, is_keyframe).map_err(|error| error.to_string())?;
        Ok(encoded.map(|encoded| Packet {
            data: encoded.data.into(),
            is_keyframe: encoded.is_keyframe,
            number: picture.number,
            at: picture.at,
            taken,
            size,
        }))
    }

    fn encoder(&mut self, size: (u32, u32), rate: Rate) -> Result<&mut Encoder, String> {
        match &mut self.encoder {
            Some((encoder, of)) if *of == size => {
                encoder.set_rate(rate.bitrate_bps, rate.fps).map_err(|error| error.to_string())?;
            }
            encoder => {
                let settings = Settings { fps: rate.fps, bitrate_bps: rate.bitrate_bps, purpose: Purpose::Live };
                let new = Encoder::new(size.0, size.1, settings).map_err(|error| error.to_string())?;
                *encoder = Some((new, size));
            }
        }
        self.encoder.as_mut().map(|(encoder, ..)| encoder).ok_or_else(|| "no encoder".to_owned())
    }
}

/// What one viewer has on its screen, when it gets rectangles.
#[derive(Default)]
pub(super) struct Rectangles {
    shown: Option<(Tiles, (u32, u32))>,
}

/// A part of a picture.
pub(super) struct Rectangle {
    pub(super) rect: Rect,
    pub(super) jpeg: Vec<u8>,
}

impl Rectangles {
    /// What is different in this picture from what the viewer has; all of it at first. Blocks.
    ///
    /// # Errors
    /// Why it can't be encoded.
    pub(super) fn of(&mut self, picture: &Picture) -> Result<Vec<Rectangle>, String> {
        let frame = &picture.frame;
        let (tiles, size) = (Tiles::of(frame), (frame.rect.width, frame.rect.height));
        let rects = match &self.shown {
            Some((shown, of)) if *of == size => tiles.changed_rects(shown),
            _ => vec![Rect { x: 0, y: 0, width: size.0, height: size.1 }],
        };
        self.shown = Some((tiles, size));
        let rectangle = |rect: Rect| {
            let part = frame.crop(rect).map_err(|error| error.to_string())?;
            let jpeg = encode(&part, Format::Jpeg, JPEG_QUALITY).map_err(|error| error.to_string())?;
            Ok(Rectangle { rect, jpeg })
        };
        rects.into_iter().map(rectangle).collect()
    }
}

/// A message with a frame or rectangle, big-endian: `u8` 1 for H.264 or 2 for JPEG; `u8` bit 0: keyframe, or the last rectangle of
/// its picture; `u16` 0; `u64` the number of the picture; `u64` microseconds since the stream began; `u16` x, y, width and
/// height of what it shows; then the data.
pub(super) fn message(kind: Kind, number: u64, at: Duration, rect: (u32, u32, u32, u32), data: &[u8]) -> Vec<u8> {
    let (kind, flags) = match kind {
        Kind::H264 { is_keyframe } => (1_u8, u8::from(is_keyframe)),
        Kind::Jpeg { is_last } => (2_u8, u8::from(is_last)),
    };
    let mut message = Vec::with_capacity(28 + data.len());
    message.extend([kind, flags, 0, 0]);
    message.extend(number.to_be_bytes());
    message.extend(u64::try_from(at.as_micros()).unwrap_or(u64::MAX).to_be_bytes());
    for side in [rect.0, rect.1, rect.2, rect.3] {
        message.extend(u16::try_from(side).unwrap_or(u16::MAX).to_be_bytes());
    }
    message.extend(data);
    message
}

/// A message with neko's binary message: `u8` 3, three bytes of nothing, then that.
pub(super) fn pointer_message(neko: &[u8]) -> Vec<u8> {
    [&[3, 0, 0, 0], neko].concat()
}

/// A message with 20 ms of sound, big-endian: `u8` 4, three bytes of nothing, `u64` samples of each channel before it, then a packet of
/// Opus, 48 kHz, stereo.
pub(super) fn sound_message(sound: &Sound) -> Vec<u8> {
    [&[4, 0, 0, 0][..], &sound.at_sample.to_be_bytes(), &sound.data].concat()
}

/// What a message holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    H264 { is_keyframe: bool },
    Jpeg { is_last: bool },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(number: u64, paint: impl Fn(&mut [u8])) -> Picture {
        let rect = Rect { x: 0, y: 0, width: 320, height: 200 };
        let mut data = vec![200; 320 * 200 * BYTES_PER_PIXEL];
        paint(&mut data);
        Picture { frame: Arc::new(Frame { rect, data }), pointer: None, number, at: Duration::from_millis(number * 33) }
    }

    #[test]
    fn a_stream_begins_with_a_keyframe_and_again_when_its_size_changes() {
        let mut coder = Coder::new();
        let best = Rate { bitrate_bps: 1_000_000, fps: 30, shrink: 1 };
        let mut next = |number, rate| {
            let paint = |data: &mut [u8]| data[..40_000].fill(u8::try_from(number * 20).unwrap_or(0));
            coder.encode(&picture(number, paint), rate, false, Instant::now()).expect("encoded").expect("not left out")
        };
        assert!(next(1, best).is_keyframe);
        assert!(!next(2, best).is_keyframe);
        let small = next(3, Rate { shrink: 2, ..best });
        assert_eq!((small.is_keyframe, small.size), (true, (160, 100)));
    }

    #[test]
    fn rectangles_are_what_is_different() {
        let mut rectangles = Rectangles::default();
        let all = rectangles.of(&picture(1, |_| ())).expect("encoded");
        assert_eq!(all.iter().map(|part| (part.rect.width, part.rect.height)).collect::<Vec<_>>(), [(320, 200)]);
        assert!(rectangles.of(&picture(2, |_| ())).expect("encoded").is_empty());
        let some = rectangles.of(&picture(3, |data| data[..40].fill(9))).expect("encoded");
        assert!(some.len() == 1 && some[0].rect.width < 320 && some[0].jpeg.starts_with(&[0xff, 0xd8]));
    }

    #[test]
    fn a_message_says_what_it_holds() {
        let text = message(Kind::H264 { is_keyframe: true }, 258, Duration::from_micros(3), (0, 1, 640, 480), b"data");
        assert_eq!(text[..12], [1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(text[12..28], [0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 1, 2, 128, 1, 224]);
        assert_eq!(text[28..], *b"data");
    }
}
