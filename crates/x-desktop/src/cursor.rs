//! The pointer: where it is, and what it looks like.

use std::sync::Arc;

use x11rb::errors::ReplyError;
use x11rb::protocol::ErrorKind;
use x11rb::protocol::xfixes::ConnectionExt as _;
use x11rb::protocol::xproto::ConnectionExt as _;

use crate::{Display, Result};

/// A picture of the pointer (XFIXES 4, GetCursorImageAndName).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CursorImage {
    /// The same number means the same picture, as long as the server runs.
    pub serial: u32,
    /// What its theme calls it (`left_ptr`, `xterm`); often empty.
    pub name: String,
    /// In pixels.
    pub width: u16,
    /// In pixels.
    pub height: u16,
    /// The pixel that points, from the left.
    pub hot_x: u16,
    /// The pixel that points, from above.
    pub hot_y: u16,
    /// Rows from above: alpha, red, green, blue from the highest byte; the colours are multiplied by alpha.
    pub argb: Vec<u32>,
}

/// The pointer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer {
    /// Where it points to.
    pub x: i32,
    /// Where it points to.
    pub y: i32,
    /// `None` when the server shows none (`Xvfb -nocursor`).
    pub image: Option<Arc<CursorImage>>,
}

impl Display {
    /// Where the pointer is, and its picture, which is kept and shared as long as it is the same. One round trip.
    ///
    /// # Errors
    /// The server is gone.
    pub fn pointer(&mut self) -> Result<Pointer> {
        let reply = match self.conn.xfixes_get_cursor_image_and_name()?.reply() {
            Ok(reply) => reply,
            Err(ReplyError::X11Error(error)) if error.error_kind == ErrorKind::Cursor => return self.pointer_without_image(),
            Err(error) => return Err(error.into()),
        };
        let image = match &self.cursor {
            Some(known) if known.serial == reply.cursor_serial => Arc::clone(known),
            _ => Arc::new(CursorImage {
                serial: reply.cursor_serial,
                name: String::from_utf8_lossy(&reply.name).into_owned(),
                width: reply.width,
                height: reply.height,
                hot_x: reply.xhot,
                hot_y: reply.yhot,
                argb: reply.cursor_image,
            }),
        };
        self.cursor = Some(Arc::clone(&image));
        Ok(Pointer { x: reply.x.into(), y: reply.y.into(), image: Some(image) })
    }

    fn pointer_without_image(&self) -> Result<Pointer> {
        let reply = self.conn.query_pointer(self.root)?.reply()?;
        Ok(Pointer { x: reply.root_x.into(), y: reply.root_y.into(), image: None })
    }
}
