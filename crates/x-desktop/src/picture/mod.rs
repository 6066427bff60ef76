//! Frames: pixels as the X server gives them, and what is made of them.
//!
//! | module | what |
//! |---|---|
//! | `draw` | the pointer and the mark where it is |
//! | `scale` | smaller pictures |
//! | `place` | pictures on a screen of another shape |
//! | `encode`, `decode` | PNG, JPEG, WebP |
//! | `changes` | what is different from an earlier frame |

mod changes;
mod decode;
mod draw;
mod encode;
pub(crate) mod place;
mod scale;

pub use changes::{FRAMES_KEPT, MAX_RECTS, Seen, TILE, Tiles};
pub use decode::decode;
pub use encode::{Format, WEBP_MAX_SIDE, cursor_png, encode};
pub use place::Placing;
pub use scale::{Fit, fit, scaled_size};

use crate::{Error, Result};

/// Blue, green, red, and one that says nothing.
pub const BYTES_PER_PIXEL: usize = 4;

/// A rectangle of the screen, in pixels from its upper left corner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Rect {
    pub x: u32,
    pub y: u32,
    pub width: u32,
    pub height: u32,
}

impl std::fmt::Display for Rect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}+{}+{}", self.width, self.height, self.x, self.y)
    }
}

impl Rect {
    /// The whole of a screen.
    pub fn of_size(size: crate::Size) -> Self {
        Self { x: 0, y: 0, width: size.width.into(), height: size.height.into() }
    }

    /// How many pixels.
    pub fn pixels(self) -> usize {
        self.width as usize * self.height as usize
    }

    /// Where it ends: the first column and the first row that are not in it.
    fn ends(self) -> (u64, u64) {
        (u64::from(self.x) + u64::from(self.width), u64::from(self.y) + u64::from(self.height))
    }

    /// Whether all of `other` is within.
    pub fn contains(self, other: Self) -> bool {
        let ((right, bottom), (other_right, other_bottom)) = (self.ends(), other.ends());
        other.x >= self.x && other.y >= self.y && other_right <= right && other_bottom <= bottom
    }

    /// What both have. `None` when that is no pixel.
    pub fn intersection(self, other: Self) -> Option<Self> {
        let ((right, bottom), (other_right, other_bottom)) = (self.ends(), other.ends());
        let (x, y) = (self.x.max(other.x), self.y.max(other.y));
        // Both differences fit: neither is wider than a side of `self`.
        let width = u32::try_from(right.min(other_right).saturating_sub(x.into())).ok()?;
        let height = u32::try_from(bottom.min(other_bottom).saturating_sub(y.into())).ok()?;
        (width > 0 && height > 0).then_some(Self { x, y, width, height })
    }

    /// The part of it that is on the screen.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it has no pixel there.
    pub fn clipped(self, screen: Self) -> Result<Self> {
        self.intersection(screen).ok_or_else(|| {
            Error::Invalid(format!("{self} has no pixel on the screen, which has {}x{}", screen.width, screen.height))
        })
    }

    /// The smallest one that has both.
    fn union(self, other: Self) -> Self {
        let ((right, bottom), (other_right, other_bottom)) = (self.ends(), other.ends());
        let (x, y) = (self.x.min(other.x), self.y.min(other.y));
        let side = |end: u64, other: u64, start: u32| u32::try_from(end.max(other) - u64::from(start)).unwrap_or(u32::MAX);
        Self { x, y, width: side(right, other_right, x), height: side(bottom, other_bottom, y) }
    }
}

/// Pixels of a part of the screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Which part. A scaled frame is at 0,0 and has its own size.
    pub rect: Rect,
    /// Rows from above, without padding: blue, green, red and a byte that says nothing for each pixel.
    pub data: Vec<u8>,
}

impl Frame {
    /// The part of it in `region`, which is given as on the screen.
    ///
    /// # Errors
    /// [`Error::Invalid`] when not all of `region` is in the frame, or it is empty.
    pub fn crop(&self, region: Rect) -> Result<Self> {
        if region.pixels() == 0 || !self.rect.contains(region) {
            return Err(Error::Invalid(format!("{region} is not within {}", self.rect)));
        }
        let mut data = Vec::with_capacity(region.pixels() * BYTES_PER_PIXEL);
        let left = (region.x - self.rect.x) as usize * BYTES_PER_PIXEL;
        let row_bytes = region.width as usize * BYTES_PER_PIXEL;
        for row in self.rows().skip((region.y - self.rect.y) as usize).take(region.height as usize) {
            data.extend_from_slice(&row[left..left + row_bytes]);
        }
        Ok(Self { rect: region, data })
    }

    /// Red, green and blue at a place of the screen. `None` when it isn't in the frame.
    pub fn pixel(&self, x: u32, y: u32) -> Option<(u8, u8, u8)> {
        if !self.rect.contains(Rect { x, y, width: 1, height: 1 }) {
            return None;
        }
        let at = ((y - self.rect.y) as usize * self.rect.width as usize + (x - self.rect.x) as usize) * BYTES_PER_PIXEL;
        let pixel = self.data.get(at..at + BYTES_PER_PIXEL)?;
        Some((pixel[2], pixel[1], pixel[0]))
    }

    /// Rows from above, of bytes.
    fn rows(&self) -> std::slice::ChunksExact<'_, u8> {
        self.data.chunks_exact(self.row_bytes())
    }

    /// At least 1: chunks of none can't be.
    fn row_bytes(&self) -> usize {
        (self.rect.width as usize * BYTES_PER_PIXEL).max(1)
    }
}

#[cfg(test)]
mod tests;
