use std::io::Cursor;

use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;

use super::super::Rect;
use super::*;

const SIZES: [(u32, u32); 7] = [(1, 1), (2, 1), (1, 2), (33, 31), (3, 5000), (1440, 900), (257, 16)];

/// Something between a photo and a text: soft colours, and some sharp grey bars. `unused` is what says nothing.
fn busy(width: u32, height: u32, unused: u8) -> Frame {
    let rect = Rect { x: 7, y: 9, width, height };
    let mut data = Vec::with_capacity(rect.pixels() * BYTES_PER_PIXEL);
    for y in 0..height {
        for x in 0..width {
            match (x / 5 + y / 9) % 7 {
                0 => data.extend([200, 200, 200, unused]),
                _ => data.extend([(x / 8 % 256) as u8, (y / 4 % 256) as u8, ((x + y) / 16 % 256) as u8, unused]),
            }
        }
    }
    Frame { rect, data }
}

/// Width, height, and red, green, blue for each pixel.
fn decoded(format: Format, file: &[u8]) -> (u32, u32, Vec<u8>) {
    match format {
        Format::Png => {
            let mut reader = png::Decoder::new(Cursor::new(file)).read_info().unwrap();
            let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
            let info = reader.next_frame(&mut pixels).unwrap();
            assert_eq!((info.color_type, info.bit_depth), (png::ColorType::Rgb, png::BitDepth::Eight));
            (info.width, info.height, pixels)
        }
        Format::Jpeg => {
            let mut decoder = JpegDecoder::new(ZCursor::new(file));
            let pixels = decoder.decode().unwrap();
            let info = decoder.info().unwrap();
            (info.width.into(), info.height.into(), pixels)
        }
        Format::Webp => {
            let mut decoder = image_webp::WebPDecoder::new(Cursor::new(file)).unwrap();
            assert!(!decoder.has_alpha());
            let (width, height) = decoder.dimensions();
            let mut pixels = vec![0; decoder.output_buffer_size().unwrap()];
            decoder.read_image(&mut pixels).unwrap();
            (width, height, pixels)
        }
    }
}

/// Peak signal to noise, in dB.
fn psnr(a: &[u8], b: &[u8]) -> f64 {
    let squares: f64 = a.iter().zip(b).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum();
    10.0 * (255.0 * 255.0 / (squares / a.len() as f64)).log10()
}

#[test]
fn lossless_pictures_have_every_pixel() {
    for (width, height) in SIZES {
        let frame = busy(width, height, 0);
        for (format, quality) in [(Format::Png, 1), (Format::Png, 100), (Format::Webp, 100)] {
            let file = encode(&frame, format, quality).unwrap();
            assert!(decoded(format, &file) == (width, height, rgb(&frame)), "{format:?} {width}x{height}");
        }
    }
}

#[test]
fn lossy_pictures_look_the_same() {
    for (width, height) in SIZES {
        let frame = busy(width, height, 0);
        for (format, quality, least_db) in
            [(Format::Jpeg, 85, 25.0), (Format::Jpeg, 95, 33.0), (Format::Webp, 85, 25.0), (Format::Webp, 99, 30.0)]
        {
            let file = encode(&frame, format, quality).unwrap();
            let (decoded_width, decoded_height, pixels) = decoded(format, &file);
            assert_eq!((decoded_width, decoded_height), (width, height));
            let db = psnr(&pixels, &rgb(&frame));
            assert!(db >= least_db, "{format:?} {quality} {width}x{height}: {db:.1} dB");
        }
    }
}

#[test]
fn less_quality_is_less_data() {
    let frame = busy(640, 480, 0);
    for format in [Format::Jpeg, Format::Webp] {
        let sizes: Vec<usize> = [1, 40, 85, 99].map(|quality| encode(&frame, format, quality).unwrap().len()).into();
        assert!(sizes.is_sorted() && sizes[0] * 2 < sizes[3], "{format:?}: {sizes:?}");
    }
}

#[test]
fn files_are_of_the_kind_that_was_agreed() {
    let frame = busy(64, 48, 0);
    for (quality, sampling) in [(50, 0x22), (85, 0x22), (89, 0x22), (90, 0x11), (95, 0x11), (100, 0x11)] {
        let file = encode(&frame, Format::Jpeg, quality).unwrap();
        // SOF0: length, precision, height, width, components, and of each its id, sampling and table (ITU T.81, B.2.2).
        let frame_header = file.windows(2).position(|marker| marker == [0xff, 0xc0]).expect("baseline");
        assert_eq!(file[frame_header + 11], sampling, "quality {quality}");
    }
    assert_eq!(&encode(&frame, Format::Webp, 99).unwrap()[12..16], b"VP8 ");
    assert_eq!(&encode(&frame, Format::Webp, 100).unwrap()[12..16], b"VP8L");
}

#[test]
fn what_says_nothing_changes_nothing() {
    for (format, quality) in [(Format::Png, 85), (Format::Jpeg, 85), (Format::Webp, 85), (Format::Webp, 100)] {
        let files = [0, 1, 255].map(|unused| encode(&busy(100, 70, unused), format, quality).unwrap());
        assert!(files[0] == files[1] && files[1] == files[2], "{format:?} {quality}");
    }
}

#[test]
fn what_cannot_be_encoded_is_said() {
    let frame = busy(8, 8, 0);
    for quality in [0, 101, 255] {
        assert!(matches!(encode(&frame, Format::Png, quality), Err(Error::Invalid(_))));
    }
    let torn = Frame { data: frame.data[..100].to_vec(), ..frame };
    let empty = Frame { rect: Rect { x: 0, y: 0, width: 0, height: 8 }, data: Vec::new() };
    for format in [Format::Png, Format::Jpeg, Format::Webp] {
        assert!(matches!(encode(&torn, format, 85), Err(Error::Encode(_))));
        assert!(matches!(encode(&empty, format, 85), Err(Error::Encode(_))));
    }
    for quality in [85, 100] {
        assert!(encode(&busy(WEBP_MAX_SIDE, 1, 0), Format::Webp, quality).is_ok());
        assert!(matches!(encode(&busy(1, WEBP_MAX_SIDE + 1, 0), Format::Webp, quality), Err(Error::Invalid(_))));
    }
}
