//! Pictures of the screen, by shared memory.

use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use x11rb::connection::Connection;
use x11rb::protocol::shm::{self, ConnectionExt as _};
use x11rb::protocol::xproto::ImageFormat;

use crate::picture::{BYTES_PER_PIXEL, Frame, Rect};
use crate::{Display, Error, Result};

/// All planes of a pixel (X11 protocol, GetImage).
const ALL_PLANES: u32 = !0;

/// Memory that the X server writes pictures into. It is read with pread(2), so nobody sees half of a picture through a mapping.
pub(crate) struct Shared {
    memory: OwnedFd,
    segment: shm::Seg,
    bytes: usize,
}

impl Display {
    /// A picture of `region`, without the pointer.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the region isn't wholly on the screen; the server refuses or is gone.
    pub fn capture(&mut self, region: Rect) -> Result<Frame> {
        let bytes = region.pixels() * BYTES_PER_PIXEL;
        if bytes == 0 || !Rect::of_size(self.size).contains(region) {
            return Err(Error::Invalid(format!(
                "{region} is not on the screen, which has {}x{}",
                self.size.width, self.size.height
            )));
        }
        self.make_room(bytes)?;
        let shared = self.shared.as_ref().ok_or(Error::Missing("MIT-SHM"))?;
        let (x, y) = (as_i16(region.x)?, as_i16(region.y)?);
        let (width, height) = (as_u16(region.width)?, as_u16(region.height)?);
        let format = ImageFormat::Z_PIXMAP.into();
        let image = self.conn.shm_get_image(self.root, x, y, width, height, ALL_PLANES, format, shared.segment, 0)?;
        image.reply()?;
        let mut data = vec![0; bytes];
        let mut filled = 0;
        while filled < bytes {
            let offset = filled as u64;
            match rustix::io::pread(&shared.memory, &mut data[filled..], offset) {
                Ok(0) => return Err(Error::Gone("the shared memory ended".into())),
                Ok(count) => filled += count,
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(Error::Gone(errno.to_string())),
            }
        }
        Ok(Frame { rect: region, data })
    }

    fn make_room(&mut self, bytes: usize) -> Result<()> {
        if self.shared.as_ref().is_some_and(|shared| shared.bytes >= bytes) {
            return Ok(());
        }
        if let Some(old) = self.shared.take() {
            self.conn.shm_detach(old.segment)?;
        }
        // The whole screen at least: regions come and go.
        let bytes = bytes.max(Rect::of_size(self.size).pixels() * BYTES_PER_PIXEL);
        let failed = |errno: rustix::io::Errno| Error::Refused(format!("shared memory: {errno}"));
        let memory = memfd_create("sandboxd-screen", MemfdFlags::CLOEXEC).map_err(failed)?;
        ftruncate(&memory, bytes as u64).map_err(failed)?;
        let segment = self.conn.generate_id()?;
        let theirs = memory.try_clone().map_err(|error| Error::Refused(error.to_string()))?;
        self.conn.shm_attach_fd(segment, theirs, false)?.check()?;
        self.shared = Some(Shared { memory, segment, bytes });
        Ok(())
    }
}

fn as_i16(value: u32) -> Result<i16> {
    i16::try_from(value).map_err(|_| Error::Invalid(format!("{value} is beyond what X knows (32767)")))
}

fn as_u16(value: u32) -> Result<u16> {
    u16::try_from(value).map_err(|_| Error::Invalid(format!("{value} is beyond what X knows (65535)")))
}
