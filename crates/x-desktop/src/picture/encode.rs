//! Pictures as files.
//!
//! Chosen for speed, since whoever asks for a picture waits for it; the figures are in `examples/picture_times.rs`.

use image_webp::{ColorType, WebPEncoder};
use jpeg_encoder::SamplingFactor;

use super::{BYTES_PER_PIXEL, Frame};
use crate::{CursorImage, Error, Result};

/// The longest side that a WebP can have (WebP container specification, 14 bits).
pub const WEBP_MAX_SIDE: u32 = 16383;

/// From here on colours have as many pixels as brightness has (4:4:4), below a quarter of them (4:2:0).
const JPEG_FULL_COLOUR_QUALITY: u8 = 90;

/// Bytes of a pixel in what PNG and WebP take: red, green, blue.
const RGB_BYTES: usize = 3;

/// What a picture can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// Lossless, 8 bits each of red, green and blue, whatever is in the picture.
    Png,
    /// Baseline.
    Jpeg,
    /// Lossy (VP8) below quality 100, lossless (VP8L) at 100.
    Webp,
}

impl Format {
    /// The media type of what is made.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Jpeg => "image/jpeg",
            Self::Webp => "image/webp",
        }
    }
}

/// Encodes a frame. `quality`: 1–100; PNG has none. The same pixels give the same bytes.
///
/// Takes memory for some copies of the frame, and gives all of it back.
///
/// # Errors
/// [`Error::Invalid`] for a quality that is none, or a WebP with a side of more than [`WEBP_MAX_SIDE`]; [`Error::Encode`].
pub fn encode(frame: &Frame, format: Format, quality: u8) -> Result<Vec<u8>> {
    if !(1..=100).contains(&quality) {
        return Err(Error::Invalid(format!("quality {quality} is not within 1–100")));
    }
    // The libraries panic or refuse in words of their own.
    if frame.rect.pixels() == 0 || frame.data.len() != frame.rect.pixels() * BYTES_PER_PIXEL {
        return Err(Error::Encode(format!("{} bytes are not the pixels of {}", frame.data.len(), frame.rect)));
    }
    match format {
        Format::Png => png(frame),
        Format::Jpeg => jpeg(frame, quality),
        Format::Webp if frame.rect.width.max(frame.rect.height) > WEBP_MAX_SIDE => {
            Err(Error::Invalid(format!("a WebP has at most {WEBP_MAX_SIDE} pixels a side, this picture is {}", frame.rect)))
        }
        Format::Webp if quality == 100 => webp_lossless(frame),
        Format::Webp => webp_lossy(frame, quality),
    }
}

fn png(frame: &Frame) -> Result<Vec<u8>> {
    let failed = |error: png::EncodingError| Error::Encode(error.to_string());
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, frame.rect.width, frame.rect.height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Fast);
    let mut writer = encoder.write_header().map_err(failed)?;
    writer.write_image_data(&rgb(frame)).map_err(failed)?;
    writer.finish().map_err(failed)?;
    Ok(file)
}

/// A pointer as a PNG of 8 bits each of red, green, blue and alpha.
///
/// # Errors
/// [`Error::Encode`].
pub fn cursor_png(image: &CursorImage) -> Result<Vec<u8>> {
    let failed = |error: png::EncodingError| Error::Encode(error.to_string());
    let straight = |argb: &u32| {
        let [blue, green, red, alpha] = argb.to_le_bytes();
        // what is shown is multiplied by alpha, what a PNG has isn't
        let colour = |colour: u8| (u32::from(colour) * 255).checked_div(alpha.into()).unwrap_or(0).min(255) as u8;
        [colour(red), colour(green), colour(blue), alpha]
    };
    let pixels: Vec<u8> = image.argb.iter().flat_map(straight).collect();
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, image.width.into(), image.height.into());
    encoder.set_color(png::ColorType::Rgba);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header().map_err(failed)?;
    writer.write_image_data(&pixels).map_err(failed)?;
    writer.finish().map_err(failed)?;
    Ok(file)
}

fn jpeg(frame: &Frame, quality: u8) -> Result<Vec<u8>> {
    let side = |side: u32| {
        u16::try_from(side).map_err(|_| Error::Invalid(format!("a JPEG has at most 65535 pixels a side, not {side}")))
    };
    let (width, height) = (side(frame.rect.width)?, side(frame.rect.height)?);
    let full_colour = quality >= JPEG_FULL_COLOUR_QUALITY;
    let mut file = Vec::new();
    let mut encoder = jpeg_encoder::Encoder::new(&mut file, quality);
    encoder.set_sampling_factor(if full_colour { SamplingFactor::R_4_4_4 } else { SamplingFactor::R_4_2_0 });
    encoder
        .encode(&frame.data, width, height, jpeg_encoder::ColorType::Bgra)
        .map_err(|error| Error::Encode(error.to_string()))?;
    Ok(file)
}

fn webp_lossless(frame: &Frame) -> Result<Vec<u8>> {
    let mut file = Vec::new();
    WebPEncoder::new(&mut file)
        .encode(&rgb(frame), frame.rect.width, frame.rect.height, ColorType::Rgb8)
        .map_err(|error| Error::Encode(error.to_string()))?;
    Ok(file)
}

fn webp_lossy(frame: &Frame, quality: u8) -> Result<Vec<u8>> {
    let mut config = webp::WebPConfig::new().map_err(|()| Error::Encode("libwebp has another version".into()))?;
    config.quality = quality.into();
    // The fastest: a third of the time of the default, half as large again.
    config.method = 0;
    let pixels = rgb(frame);
    let file = webp::Encoder::from_rgb(&pixels, frame.rect.width, frame.rect.height)
        .encode_advanced(&config)
        .map_err(|error| Error::Encode(format!("{error:?}")))?;
    Ok(file.to_vec())
}

/// Red, green, blue for each pixel.
fn rgb(frame: &Frame) -> Vec<u8> {
    let mut rgb = vec![0; frame.rect.pixels() * RGB_BYTES];
    let pixels = frame.data.as_chunks::<BYTES_PER_PIXEL>().0;
    for (to, [blue, green, red, _]) in rgb.as_chunks_mut::<RGB_BYTES>().0.iter_mut().zip(pixels) {
        *to = [*red, *green, *blue];
    }
    rgb
}

#[cfg(test)]
mod tests;
