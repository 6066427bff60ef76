//! Frames: pixels as the X server gives them, and what is made of them.

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

    /// Whether all of `other` is within.
    pub fn contains(self, other: Self) -> bool {
        let ends = |rect: Self| (u64::from(rect.x) + u64::from(rect.width), u64::from(rect.y) + u64::from(rect.height));
        let ((right, bottom), (other_right, other_bottom)) = (ends(self), ends(other));
        other.x >= self.x && other.y >= self.y && other_right <= right && other_bottom <= bottom
    }
}

/// Pixels of a part of the screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Which part.
    pub rect: Rect,
    /// Rows from above, without padding: blue, green, red and a byte that says nothing for each pixel.
    pub data: Vec<u8>,
}
