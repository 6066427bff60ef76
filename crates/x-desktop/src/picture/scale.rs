//! Smaller pictures.

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

use super::{Frame, Rect};
use crate::{Error, Result};

/// Keeps strokes of small text apart; softer filters make them grey.
const FILTER: FilterType = FilterType::CatmullRom;

/// How a picture becomes no larger than a bound, its shape kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fit {
    /// Of the scaled picture, in pixels.
    pub width: u32,
    /// Of the scaled picture, in pixels.
    pub height: u32,
    /// Scaled by original: at most 1. A place in the picture divided by it is one on the screen, from the picture's corner.
    pub factor: f64,
}

/// How a picture of `width`×`height` has at most `max_width`×`max_height`. It never becomes larger than it is.
pub fn fit(width: u32, height: u32, max_width: u32, max_height: u32) -> Fit {
    let ratio = |max: u32, side: u32| f64::from(max.max(1)) / f64::from(side.max(1));
    let factor = ratio(max_width, width).min(ratio(max_height, height)).min(1.0);
    Fit { width: scaled_side(width, factor), height: scaled_side(height, factor), factor }
}

/// The size of a picture scaled by `factor`: each side to the nearest, a half upwards, never under 1.
pub fn scaled_size(width: u32, height: u32, factor: f64) -> (u32, u32) {
    (scaled_side(width, factor), scaled_side(height, factor))
}

fn scaled_side(side: u32, factor: f64) -> u32 {
    // A cast of a float ends at the bounds, and takes NaN for 0.
    ((f64::from(side) * factor).round() as u32).max(1)
}

impl Frame {
    /// This picture at another size, which is then at 0,0.
    ///
    /// # Errors
    /// [`Error::Invalid`] when a side would be 0; [`Error::Encode`] when the frame's bytes are not its pixels.
    pub fn scaled(&self, width: u32, height: u32) -> Result<Self> {
        let rect = Rect { x: 0, y: 0, width, height };
        if rect.pixels() == 0 {
            return Err(Error::Invalid(format!("a picture of {width}x{height} has no pixels")));
        }
        let failed = |error: &dyn std::error::Error| Error::Encode(error.to_string());
        let from = ImageRef::new(self.rect.width, self.rect.height, &self.data, PixelType::U8x4).map_err(|e| failed(&e))?;
        let mut to = Image::new(width, height, PixelType::U8x4);
        // The fourth byte is no alpha.
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FILTER)).use_alpha(false);
        Resizer::new().resize(&from, &mut to, &options).map_err(|e| failed(&e))?;
        Ok(Self { rect, data: to.into_vec() })
    }
}

#[cfg(test)]
mod tests;
