//! What is drawn onto a frame: the pointer, or a mark where it is.
//!
//! Both take places of the screen, and draw what of them is in the frame. They come before scaling.

use super::{BYTES_PER_PIXEL, Frame, Rect};
use crate::cursor::{CursorImage, Pointer};

/// From the place to the end of an arm, in pixels.
pub const CROSSHAIR_ARM: i32 = 10;
/// Half as wide as an arm is, in pixels.
const CROSSHAIR_HALF: i32 = 1;

/// Blue, green, red, and one that says nothing.
const RED: [u8; BYTES_PER_PIXEL] = [0, 0, 255, 255];

impl Frame {
    /// Marks a place with a red cross: arms of [`CROSSHAIR_ARM`] pixels, 2 wide, around the upper left corner of the pixel.
    pub fn draw_crosshair(&mut self, x: i32, y: i32) {
        let arm = |left: i32, up: i32| (x.saturating_sub(left), y.saturating_sub(up), left * 2, up * 2);
        for (left, top, width, height) in [arm(CROSSHAIR_ARM, CROSSHAIR_HALF), arm(CROSSHAIR_HALF, CROSSHAIR_ARM)] {
            self.draw(left, top, width as u32, height as u32, |_, pixel| *pixel = RED);
        }
    }

    /// Draws the pointer's picture, its hotspot at the pointer's place. Nothing when it has none.
    pub fn draw_pointer(&mut self, pointer: &Pointer) {
        if let Some(image) = &pointer.image {
            let left = pointer.x.saturating_sub(image.hot_x.into());
            let top = pointer.y.saturating_sub(image.hot_y.into());
            self.draw_cursor(image, left, top);
        }
    }

    fn draw_cursor(&mut self, image: &CursorImage, left: i32, top: i32) {
        self.draw(left, top, image.width.into(), image.height.into(), |at, pixel| {
            if let Some(&argb) = image.argb.get(at) {
                let [blue, green, red, alpha] = argb.to_le_bytes();
                for (to, from) in pixel.iter_mut().zip([blue, green, red]) {
                    // Rounded; what isn't premultiplied as it should be ends at 255.
                    let below = (u32::from(*to) * u32::from(255 - alpha) + 127) / 255;
                    *to = (below + u32::from(from)).min(255) as u8;
                }
            }
        });
    }

    /// Calls `draw` for the pixels of a rectangle that are in the frame, with each one's index within the rectangle.
    fn draw(&mut self, left: i32, top: i32, width: u32, height: u32, mut draw: impl FnMut(usize, &mut [u8; BYTES_PER_PIXEL])) {
        let Some((drawn, skip_x, skip_y)) = visible(self.rect, left.into(), top.into(), width, height) else { return };
        let row_bytes = self.row_bytes();
        let first = (drawn.x - self.rect.x) as usize;
        let rows = self.data.chunks_exact_mut(row_bytes).skip((drawn.y - self.rect.y) as usize);
        for (row, y) in rows.take(drawn.height as usize).zip(skip_y as usize..) {
            let pixels = &mut row.as_chunks_mut::<BYTES_PER_PIXEL>().0[first..first + drawn.width as usize];
            for (pixel, x) in pixels.iter_mut().zip(skip_x as usize..) {
                draw(y * width as usize + x, pixel);
            }
        }
    }
}

/// What of a rectangle that may begin left of or above the screen is in `frame`, and how much of it is cut at its left and top.
fn visible(frame: Rect, left: i64, top: i64, width: u32, height: u32) -> Option<(Rect, u32, u32)> {
    let span = |start: i64, length: u32, frame_start: u32, frame_length: u32| {
        let from = start.max(frame_start.into());
        let to = (start + i64::from(length)).min(i64::from(frame_start) + i64::from(frame_length));
        let visible = u32::try_from(to - from).ok().filter(|&length| length > 0)?;
        Some((u32::try_from(from).ok()?, visible, u32::try_from(from - start).ok()?))
    };
    let (x, width, skip_x) = span(left, width, frame.x, frame.width)?;
    let (y, height, skip_y) = span(top, height, frame.y, frame.height)?;
    Some((Rect { x, y, width, height }, skip_x, skip_y))
}

#[cfg(test)]
mod tests;
