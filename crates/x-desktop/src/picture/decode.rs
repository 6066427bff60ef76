//! Files as pictures: PNG, JPEG, WebP.

use std::io::Cursor;

use image_webp::WebPDecoder;
use png::{ColorType, Transformations};
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::{BYTES_PER_PIXEL, Frame, Rect};
use crate::backdrop::Colour;
use crate::{Error, Result};

/// A picture of at most `max_pixels` from a file, over a colour where one can look through it. Of a moving one, the first
/// picture. Takes memory for two copies of it.
///
/// # Errors
/// [`Error::Invalid`]: no such file, damaged, or too many pixels, which is found before memory is taken for them.
pub fn decode(file: &[u8], max_pixels: u64, under: Colour) -> Result<Frame> {
    match file {
        [0x89, b'P', b'N', b'G', ..] => png(file, max_pixels, under),
        [0xff, 0xd8, ..] => jpeg(file, max_pixels, under),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => webp(file, max_pixels, under),
        _ => Err(Error::Invalid("the file is neither PNG, JPEG nor WebP".into())),
    }
}

fn damaged(error: impl std::fmt::Display) -> Error {
    Error::Invalid(format!("the picture can't be read: {error}"))
}

/// How many bytes the pixels have, of `channels` each.
fn room(width: u32, height: u32, channels: usize, max_pixels: u64) -> Result<usize> {
    let pixels = u64::from(width) * u64::from(height);
    if pixels == 0 || pixels > max_pixels {
        return Err(Error::Invalid(format!("a picture of {width}x{height} has more than {max_pixels} pixels, or none")));
    }
    usize::try_from(pixels).ok().and_then(|pixels| pixels.checked_mul(channels)).ok_or_else(|| damaged("too large"))
}

fn png(file: &[u8], max_pixels: u64, under: Colour) -> Result<Frame> {
    let mut decoder = png::Decoder::new(Cursor::new(file));
    decoder.set_transformations(Transformations::normalize_to_color8());
    let (width, height) = decoder.read_header_info().map_err(damaged)?.size();
    room(width, height, BYTES_PER_PIXEL, max_pixels)?;
    let mut reader = decoder.read_info().map_err(damaged)?;
    let mut data = vec![0; reader.output_buffer_size().ok_or_else(|| damaged("too large"))?];
    let kind = reader.next_frame(&mut data).map_err(damaged)?.color_type;
    let channels = match kind {
        ColorType::Grayscale => 1,
        ColorType::GrayscaleAlpha => 2,
        ColorType::Rgb => 3,
        ColorType::Rgba => 4,
        ColorType::Indexed => return Err(damaged("its palette")),
    };
    Ok(frame(width, height, &data, channels, under))
}

fn jpeg(file: &[u8], max_pixels: u64, under: Colour) -> Result<Frame> {
    let options = DecoderOptions::default().jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(file), options);
    decoder.decode_headers().map_err(damaged)?;
    let info = decoder.info().ok_or_else(|| damaged("its header"))?;
    let (width, height) = (u32::from(info.width), u32::from(info.height));
    let bytes = room(width, height, 3, max_pixels)?;
    let data = decoder.decode().map_err(damaged)?;
    if data.len() != bytes {
        return Err(damaged("its colours"));
    }
    Ok(frame(width, height, &data, 3, under))
}

fn webp(file: &[u8], max_pixels: u64, under: Colour) -> Result<Frame> {
    let mut decoder = WebPDecoder::new(Cursor::new(file)).map_err(damaged)?;
    let (width, height) = decoder.dimensions();
    let channels = if decoder.has_alpha() { 4 } else { 3 };
    let mut data = vec![0; room(width, height, channels, max_pixels)?];
    decoder.read_image(&mut data).map_err(damaged)?;
    Ok(frame(width, height, &data, channels, under))
}

/// From grey (1), grey and alpha (2), red, green and blue (3), or those and alpha (4).
fn frame(width: u32, height: u32, data: &[u8], channels: usize, under: Colour) -> Frame {
    let mut bgrx = Vec::with_capacity(data.len() / channels * BYTES_PER_PIXEL);
    for pixel in data.chunks_exact(channels) {
        let (red, green, blue, alpha) = match *pixel {
            [grey] => (grey, grey, grey, u8::MAX),
            [grey, alpha] => (grey, grey, grey, alpha),
            [red, green, blue] => (red, green, blue, u8::MAX),
            [red, green, blue, alpha, ..] => (red, green, blue, alpha),
            [] => continue,
        };
        let over = |above: u8, below: u8| {
            let (above, below, alpha) = (u32::from(above), u32::from(below), u32::from(alpha));
            ((above * alpha + below * (255 - alpha) + 127) / 255) as u8
        };
        bgrx.extend([over(blue, under.2), over(green, under.1), over(red, under.0), 0]);
    }
    Frame { rect: Rect { x: 0, y: 0, width, height }, data: bgrx }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::picture::{Format, encode};

    fn sample() -> Frame {
        let rect = Rect { x: 0, y: 0, width: 40, height: 30 };
        let pixel = |at: usize| if at % 40 < 20 { [10, 20, 200, 0] } else { [220, 30, 10, 0] };
        Frame { rect, data: (0..rect.pixels()).flat_map(pixel).collect() }
    }

    #[test]
    fn what_is_encoded_comes_back() {
        for (format, quality, off) in
            [(Format::Png, 85, 0), (Format::Webp, 100, 0), (Format::Webp, 95, 12), (Format::Jpeg, 95, 12)]
        {
            let file = encode(&sample(), format, quality).expect("a file");
            let back = decode(&file, 1200, (0, 0, 0)).expect("a picture");
            assert_eq!(back.rect, sample().rect);
            for (x, y) in [(3, 3), (36, 25)] {
                let (red, green, blue) = back.pixel(x, y).expect("a pixel");
                let (r, g, b) = sample().pixel(x, y).expect("a pixel");
                assert!(red.abs_diff(r) <= off && green.abs_diff(g) <= off && blue.abs_diff(b) <= off, "{format:?}");
            }
            assert!(matches!(decode(&file, 1199, (0, 0, 0)), Err(Error::Invalid(text)) if text.contains("40x30")));
            assert!(matches!(decode(&file[..file.len() / 3], 1200, (0, 0, 0)), Err(Error::Invalid(_))), "{format:?} cut off");
        }
        assert!(matches!(decode(b"GIF89a", 1200, (0, 0, 0)), Err(Error::Invalid(_))));
        assert!(decode(b"", 1200, (0, 0, 0)).is_err());
    }

    #[test]
    fn one_looks_through_to_the_colour() {
        let file = |kind: ColorType, data: &[u8]| {
            let mut bytes = Vec::new();
            let mut encoder = png::Encoder::new(&mut bytes, 2, 1);
            encoder.set_color(kind);
            encoder.write_header().and_then(|mut writer| writer.write_image_data(data)).expect("a file");
            bytes
        };
        let looked = |bytes: &[u8]| {
            let frame = decode(bytes, 10, (0, 100, 200)).expect("a picture");
            (frame.pixel(0, 0).expect("a pixel"), frame.pixel(1, 0).expect("a pixel"))
        };
        assert_eq!(looked(&file(ColorType::Rgba, &[9, 9, 9, 0, 255, 0, 0, 255])), ((0, 100, 200), (255, 0, 0)));
        assert_eq!(looked(&file(ColorType::GrayscaleAlpha, &[7, 255, 200, 128])), ((7, 7, 7), (100, 150, 200)));
        assert_eq!(looked(&file(ColorType::Grayscale, &[7, 8])), ((7, 7, 7), (8, 8, 8)));
    }
}
