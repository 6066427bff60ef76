//! A picture as the encoder takes it: a plane of luma, two of chroma at half the size, BT.709 in limited range.

use openh264::formats::YUVSource;
use yuv::{BufferStoreMut, YuvConversionMode, YuvPlanarImageMut, YuvRange, YuvStandardMatrix};

use crate::error::{Error, Result};

/// Bytes of a pixel of a frame: blue, green, red, unused.
const PIXEL_BYTES: usize = 4;

/// Planes of an even size, filled anew by each frame.
pub(crate) struct I420 {
    width: usize,
    height: usize,
    y: Vec<u8>,
    u: Vec<u8>,
    v: Vec<u8>,
    /// Rows of a frame that must be padded; empty when none had to be.
    padded: Vec<u8>,
}

impl I420 {
    /// A black picture of even width and height.
    pub(crate) fn black(width: u32, height: u32) -> Self {
        let (width, height) = (width as usize, height as usize);
        let chroma = vec![128; width / 2 * (height / 2)];
        Self { width, height, y: vec![16; width * height], u: chroma.clone(), v: chroma, padded: Vec::new() }
    }

    pub(crate) fn width(&self) -> u32 {
        u32::try_from(self.width).unwrap_or(u32::MAX)
    }

    pub(crate) fn height(&self) -> u32 {
        u32::try_from(self.height).unwrap_or(u32::MAX)
    }

    /// Fills the planes from `width`×`height` pixels of BGRX, at most this picture's size.
    pub(crate) fn convert(&mut self, bgrx: &[u8], stride: usize, width: u32, height: u32) -> Result<()> {
        let (width, height) = (width as usize, height as usize);
        let row_bytes = width * PIXEL_BYTES;
        let needed = stride.checked_mul(height - 1).and_then(|before| before.checked_add(row_bytes));
        let Some(needed) = needed.filter(|needed| stride >= row_bytes && bgrx.len() >= *needed) else {
            return Err(Error::Frame { bytes: bgrx.len(), stride, width, height });
        };
        if (width, height) == (self.width, self.height) {
            return self.fill(&bgrx[..needed], stride);
        }
        let mut padded = std::mem::take(&mut self.padded);
        pad(&mut padded, bgrx, stride, (width, height), (self.width, self.height));
        let done = self.fill(&padded, self.width * PIXEL_BYTES);
        self.padded = padded;
        done
    }

    fn fill(&mut self, bgrx: &[u8], stride: usize) -> Result<()> {
        let (width, height) = (self.width(), self.height());
        let mut planes = YuvPlanarImageMut {
            y_plane: BufferStoreMut::Borrowed(&mut self.y),
            y_stride: width,
            u_plane: BufferStoreMut::Borrowed(&mut self.u),
            u_stride: width / 2,
            v_plane: BufferStoreMut::Borrowed(&mut self.v),
            v_stride: width / 2,
            width,
            height,
        };
        let stride = u32::try_from(stride).map_err(|_| Error::Conversion)?;
        // the source ends with its last pixel; the library wants whole rows
        let whole = stride as usize * self.height;
        let mut owned;
        let rows = if bgrx.len() >= whole {
            bgrx
        } else {
            owned = bgrx.to_vec();
            owned.resize(whole, 0);
            &owned
        };
        yuv::bgra_to_yuv420(&mut planes, rows, stride, YuvRange::Limited, YuvStandardMatrix::Bt709, YuvConversionMode::Balanced)
            .map_err(|_| Error::Conversion)
    }
}

/// Copies `from` pixels of `bgrx` into `into`, `to` pixels large, repeating the last column and the last row.
fn pad(into: &mut Vec<u8>, bgrx: &[u8], stride: usize, from: (usize, usize), to: (usize, usize)) {
    into.clear();
    for row in 0..to.1 {
        let start = row.min(from.1 - 1) * stride;
        let pixels = &bgrx[start..start + from.0 * PIXEL_BYTES];
        into.extend_from_slice(pixels);
        let last = &pixels[pixels.len() - PIXEL_BYTES..];
        for _ in from.0..to.0 {
            into.extend_from_slice(last);
        }
    }
}

impl YUVSource for I420 {
    fn dimensions(&self) -> (usize, usize) {
        (self.width, self.height)
    }

    fn strides(&self) -> (usize, usize, usize) {
        (self.width, self.width / 2, self.width / 2)
    }

    fn y(&self) -> &[u8] {
        &self.y
    }

    fn u(&self) -> &[u8] {
        &self.u
    }

    fn v(&self) -> &[u8] {
        &self.v
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_column_and_row_are_repeated() {
        let mut padded = Vec::new();
        let pixels: Vec<u8> = (1..=6).flat_map(|n| [n, n, n, 0]).collect();
        pad(&mut padded, &pixels, 12, (3, 2), (4, 4));
        let seen: Vec<u8> = padded.chunks(4).map(|pixel| pixel[0]).collect();
        assert_eq!(seen, [1, 2, 3, 3, 4, 5, 6, 6, 4, 5, 6, 6, 4, 5, 6, 6]);
    }

    #[test]
    fn grey_is_grey_in_limited_range() {
        let mut picture = I420::black(16, 16);
        picture.convert(&[255; 16 * 16 * 4], 64, 16, 16).unwrap();
        assert!(picture.y.iter().all(|luma| luma.abs_diff(235) <= 1), "{:?}", &picture.y[..4]);
        assert!(picture.u.iter().chain(&picture.v).all(|chroma| chroma.abs_diff(128) <= 1));
    }

    #[test]
    fn a_stride_longer_than_a_row_is_skipped_over_and_the_last_row_may_end_early() {
        let mut picture = I420::black(16, 16);
        let stride = 16 * 4 + 8;
        let mut frame = vec![255; stride * 15 + 64];
        for row in 0..15 {
            frame[row * stride + 64..(row + 1) * stride].fill(0);
        }
        picture.convert(&frame, stride, 16, 16).unwrap();
        assert!(picture.y.iter().all(|luma| luma.abs_diff(235) <= 1));
    }

    #[test]
    fn a_frame_that_is_too_short_is_refused() {
        let mut picture = I420::black(16, 16);
        assert!(matches!(picture.convert(&[0; 16 * 16 * 4 - 1], 64, 16, 16), Err(Error::Frame { .. })));
        assert!(matches!(picture.convert(&[0; 16 * 16 * 4], 60, 16, 16), Err(Error::Frame { .. })));
        assert!(matches!(picture.convert(&[0; 64], usize::MAX, 16, 16), Err(Error::Frame { .. })));
    }
}
