//! What is seen where there is no window: a picture behind everything, and the pointer over it.

use x11rb::connection::Connection;
use x11rb::protocol::xproto::{ChangeWindowAttributesAux, ConnectionExt as _, CreateGCAux, ImageFormat, Window};

use crate::picture::place::plain;
use crate::picture::{BYTES_PER_PIXEL, Frame, Placing, Rect};
use crate::{Display, Result};

/// Bytes of pixels in one request: X takes 256 KiB at least without BIG-REQUESTS.
const STRIPE_BYTES: usize = 192 * 1024;

/// The arrow in the X server's own font of cursors (`X11/cursorfont.h`); its mask is the next one.
const LEFT_PTR: u16 = 68;

/// A colour: red, green, blue.
pub type Colour = (u8, u8, u8);

/// What the root window shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backdrop {
    /// From one colour above to another below.
    Gradient(Colour, Colour),
    /// One colour.
    Plain(Colour),
    /// A picture, and what is around it where it doesn't cover the screen.
    Picture(Frame, Placing, Colour),
}

impl Default for Backdrop {
    fn default() -> Self {
        Self::Gradient((0x24, 0x3b, 0x55), (0x14, 0x1e, 0x30))
    }
}

impl Display {
    /// Shows it on the whole screen, and an arrow for the pointer. To be called again when the screen has another size.
    ///
    /// # Errors
    /// The picture can't be scaled; the server refuses or is gone.
    pub fn set_backdrop(&mut self, backdrop: &Backdrop) -> Result<()> {
        let screen = Rect::of_size(self.size);
        let frame = match backdrop {
            Backdrop::Gradient(above, below) => gradient(screen, *above, *below),
            Backdrop::Plain(colour) => plain(screen, *colour),
            Backdrop::Picture(picture, placing, around) => picture.placed(screen.width, screen.height, *placing, *around)?,
        };
        let (conn, root) = (&self.conn, self.root);
        let depth = conn.get_geometry(root)?.reply()?.depth;
        let (pixmap, gc) = (conn.generate_id()?, conn.generate_id()?);
        let (width, height) = (self.size.width, self.size.height);
        conn.create_pixmap(depth, pixmap, root, width, height)?.check()?;
        conn.create_gc(gc, pixmap, &CreateGCAux::new())?;
        let row_bytes = screen.width as usize * BYTES_PER_PIXEL;
        let rows = (STRIPE_BYTES / row_bytes.max(1)).max(1);
        for (stripe, pixels) in (0_u16..).zip(frame.data.chunks(rows * row_bytes)) {
            let lines = u16::try_from(pixels.len() / row_bytes).unwrap_or(u16::MAX);
            let y = i16::try_from(usize::from(stripe) * rows).unwrap_or(i16::MAX);
            conn.put_image(ImageFormat::Z_PIXMAP, pixmap, gc, width, lines, 0, y, 0, depth, pixels)?;
        }
        conn.change_window_attributes(root, &ChangeWindowAttributesAux::new().background_pixmap(pixmap))?;
        conn.clear_area(false, root, 0, 0, 0, 0)?;
        // The window keeps the picture.
        conn.free_pixmap(pixmap)?;
        conn.free_gc(gc)?;
        self.set_arrow(root)?;
        self.sync()
    }

    fn set_arrow(&self, root: Window) -> Result<()> {
        let (font, cursor) = (self.conn.generate_id()?, self.conn.generate_id()?);
        self.conn.open_font(font, b"cursor")?;
        let white = u16::MAX;
        self.conn.create_glyph_cursor(cursor, font, font, LEFT_PTR, LEFT_PTR + 1, 0, 0, 0, white, white, white)?;
        self.conn.change_window_attributes(root, &ChangeWindowAttributesAux::new().cursor(cursor))?;
        self.conn.free_cursor(cursor)?;
        self.conn.close_font(font)?;
        Ok(())
    }
}

fn gradient(screen: Rect, above: Colour, below: Colour) -> Frame {
    let mut data = Vec::with_capacity(screen.pixels() * BYTES_PER_PIXEL);
    let span = screen.height.max(2) - 1;
    let mix = |from: u8, to: u8, y: u32| ((u32::from(from) * (span - y.min(span)) + u32::from(to) * y.min(span)) / span) as u8;
    for y in 0..screen.height {
        let pixel = [mix(above.2, below.2, y), mix(above.1, below.1, y), mix(above.0, below.0, y), 0];
        (0..screen.width).for_each(|_| data.extend_from_slice(&pixel));
    }
    Frame { rect: screen, data }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gradient_goes_from_one_colour_to_the_other() {
        let screen = Rect { x: 0, y: 0, width: 3, height: 100 };
        let frame = gradient(screen, (200, 100, 0), (0, 100, 200));
        assert_eq!((frame.pixel(0, 0), frame.pixel(2, 99)), (Some((200, 100, 0)), Some((0, 100, 200))));
        assert_eq!(gradient(Rect { height: 1, ..screen }, (1, 2, 3), (4, 5, 6)).pixel(1, 0), Some((1, 2, 3)));
    }
}
