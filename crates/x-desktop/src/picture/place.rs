//! A picture on a screen of another shape.

use super::{BYTES_PER_PIXEL, Frame, Rect};
use crate::Result;
use crate::backdrop::Colour;

/// How a picture is placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Placing {
    /// Scaled to cover everything; what is too much at two sides is cut off.
    #[default]
    Fill,
    /// Scaled to be seen whole, in the middle.
    Fit,
    /// As it is, again and again, from the upper left corner.
    Tile,
    /// As it is, in the middle.
    Center,
}

impl Frame {
    /// This picture on a screen of that size, at 0,0; where there is none of it, a colour.
    ///
    /// # Errors
    /// As [`Frame::scaled`].
    pub fn placed(&self, width: u32, height: u32, placing: Placing, around: Colour) -> Result<Self> {
        let (w, h) = (self.rect.width, self.rect.height);
        // Wider than the screen is, by its shape.
        let is_wider = u64::from(w) * u64::from(height) > u64::from(h) * u64::from(width);
        let side = |side: u32, by: u32, of: u32| {
            u32::try_from(u64::from(side) * u64::from(by) / u64::from(of.max(1))).unwrap_or(u32::MAX).max(1)
        };
        match placing {
            // Cut first: scaled as a whole, a narrow picture would become huge.
            Placing::Fill => {
                let (cut_w, cut_h) = if is_wider { (side(h, width, height), h) } else { (w, side(w, height, width)) };
                self.middle(cut_w, cut_h)?.scaled(width, height)
            }
            Placing::Fit => {
                let (fit_w, fit_h) = if is_wider { (width, side(width, h, w)) } else { (side(height, w, h), height) };
                self.scaled(fit_w, fit_h)?.centred(width, height, around)
            }
            Placing::Center => self.middle(w.min(width), h.min(height))?.centred(width, height, around),
            Placing::Tile => Ok(self.tiled(width, height)),
        }
    }

    /// The part in the middle that has that size, which is not more than its own.
    fn middle(&self, width: u32, height: u32) -> Result<Self> {
        let (width, height) = (width.min(self.rect.width), height.min(self.rect.height));
        let start = |start: u32, of: u32, part: u32| start + (of - part) / 2;
        let (x, y) = (start(self.rect.x, self.rect.width, width), start(self.rect.y, self.rect.height, height));
        self.crop(Rect { x, y, width, height })
    }

    /// It is not larger than that.
    fn centred(&self, width: u32, height: u32, around: Colour) -> Result<Self> {
        let mut whole = plain(Rect { x: 0, y: 0, width, height }, around);
        let left = width.saturating_sub(self.rect.width) as usize / 2 * BYTES_PER_PIXEL;
        let top = height.saturating_sub(self.rect.height) as usize / 2;
        let row_bytes = whole.row_bytes();
        for (to, from) in whole.data.chunks_exact_mut(row_bytes).skip(top).zip(self.rows()) {
            let there = to.get_mut(left..).unwrap_or_default();
            there.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
        }
        Ok(whole)
    }

    fn tiled(&self, width: u32, height: u32) -> Self {
        let rect = Rect { x: 0, y: 0, width, height };
        let mut data = Vec::with_capacity(rect.pixels() * BYTES_PER_PIXEL);
        for row in self.rows().cycle().take(height as usize) {
            data.extend(row.iter().cycle().take(width as usize * BYTES_PER_PIXEL));
        }
        Self { rect, data }
    }
}

/// All of one colour.
pub(crate) fn plain(rect: Rect, (red, green, blue): Colour) -> Frame {
    Frame { rect, data: [blue, green, red, 0].repeat(rect.pixels()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RED: Colour = (255, 0, 0);
    const BLUE: Colour = (0, 0, 255);
    const GREY: Colour = (9, 9, 9);

    /// Red on the left half, blue on the right.
    fn halves(width: u32, height: u32) -> Frame {
        let rect = Rect { x: 0, y: 0, width, height };
        let pixel = |at: usize| if at % (width as usize) < width as usize / 2 { [0, 0, 255, 0] } else { [255, 0, 0, 0] };
        Frame { rect, data: (0..rect.pixels()).flat_map(pixel).collect() }
    }

    fn seen(picture: &Frame, placing: Placing, size: (u32, u32), places: &[(u32, u32)]) -> Vec<Colour> {
        let placed = picture.placed(size.0, size.1, placing, GREY).expect("a frame");
        assert_eq!(placed.rect, Rect { x: 0, y: 0, width: size.0, height: size.1 });
        assert_eq!(placed.data.len(), placed.rect.pixels() * BYTES_PER_PIXEL);
        places.iter().map(|(x, y)| placed.pixel(*x, *y).expect("a pixel")).collect()
    }

    #[test]
    fn each_way() {
        let wide = halves(40, 10);
        let corners = [(0, 0), (39, 39), (5, 20), (35, 20)];
        assert_eq!(seen(&wide, Placing::Fill, (40, 40), &corners), [RED, BLUE, RED, BLUE]);
        assert_eq!(seen(&wide, Placing::Fit, (40, 40), &corners), [GREY, GREY, RED, BLUE]);
        assert_eq!(seen(&wide, Placing::Center, (60, 40), &[(9, 20), (10, 20), (49, 20), (50, 20)]), [GREY, RED, BLUE, GREY]);
        assert_eq!(seen(&wide, Placing::Center, (20, 4), &[(0, 0), (19, 3)]), [RED, BLUE], "its middle");
        assert_eq!(seen(&wide, Placing::Tile, (90, 15), &[(0, 14), (39, 0), (40, 14), (85, 0)]), [RED, BLUE, RED, RED]);
    }

    #[test]
    fn a_hair_takes_no_more_memory_than_the_screen() {
        let hair = halves(1, 10_000);
        assert_eq!(seen(&hair, Placing::Fill, (50, 50), &[(49, 49)]), [BLUE]);
        assert_eq!(seen(&hair, Placing::Fit, (50, 50), &[(0, 0), (24, 49)]), [GREY, BLUE]);
        assert_eq!(seen(&halves(10_000, 1), Placing::Fill, (50, 50), &[(0, 0), (49, 49)]).len(), 2);
    }
}
