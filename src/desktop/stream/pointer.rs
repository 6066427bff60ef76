//! The pointer for viewers that show it themselves, in neko's binary messages.
//!
//! Big-endian: `u8` what, `u16` length of all, the rest (neko v3, data channel).

use x_desktop::picture::cursor_png;
use x_desktop::{CursorImage, Pointer};

const POSITION: u8 = 1;
const IMAGE: u8 = 2;
const HEAD_BYTES: u16 = 3;

/// What a viewer knows of the pointer.
#[derive(Default)]
pub(super) struct Told {
    image: Option<u32>,
    position: Option<(i32, i32)>,
}

impl Told {
    /// What is new to it. Whoever moves the pointer itself doesn't have to hear where it is.
    pub(super) fn of(&mut self, pointer: &Pointer, with_position: bool) -> Vec<Vec<u8>> {
        let mut messages = Vec::new();
        if let Some(shape) = pointer.image.as_deref().filter(|shape| self.image != Some(shape.serial)) {
            self.image = Some(shape.serial);
            messages.extend(image(shape));
        }
        let place = (pointer.x, pointer.y);
        if with_position && self.position != Some(place) {
            self.position = Some(place);
            messages.push(position(place));
        }
        messages
    }
}

fn position((x, y): (i32, i32)) -> Vec<u8> {
    let side = |at: i32| u16::try_from(at.max(0)).unwrap_or(u16::MAX);
    [&[POSITION][..], &7_u16.to_be_bytes(), &side(x).to_be_bytes(), &side(y).to_be_bytes()].concat()
}

/// None for a picture that no message holds.
fn image(shape: &CursorImage) -> Option<Vec<u8>> {
    let CursorImage { width, height, hot_x, hot_y, .. } = shape;
    let png = cursor_png(shape).inspect_err(|error| tracing::debug!(%error, "the pointer's picture")).ok()?;
    let length = u16::try_from(png.len()).ok()?.checked_add(HEAD_BYTES + 8)?;
    let numbers = [length, *width, *height, *hot_x, *hot_y];
    let head = [IMAGE].into_iter().chain(numbers.into_iter().flat_map(u16::to_be_bytes));
    Some(head.chain(png).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_viewer_is_told_what_is_new() {
        let argb = vec![0x80_40_20_00; 6];
        let shape = CursorImage { serial: 7, name: String::new(), width: 3, height: 2, hot_x: 1, hot_y: 0, argb };
        let pointer = Pointer { x: 640, y: -1, image: Some(Arc::new(shape)) };
        let mut told = Told::default();
        let first = told.of(&pointer, true);
        assert_eq!(first.len(), 2);
        let length = u16::try_from(first[0].len()).expect("short");
        assert_eq!(first[0][..3], [&[2][..], &length.to_be_bytes()].concat());
        assert_eq!(first[0][3..11], [0, 3, 0, 2, 0, 1, 0, 0]);
        assert_eq!(first[0][11..15], *b"\x89PNG");
        assert_eq!(first[1], [1, 0, 7, 2, 128, 0, 0]);
        assert!(told.of(&pointer, true).is_empty());
        let moved = Pointer { x: 1, ..pointer };
        assert!(told.of(&moved, false).is_empty());
        assert_eq!(told.of(&moved, true), [[1, 0, 7, 0, 1, 0, 0]]);
    }
}
