//! Walking the frames of one segment file.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use super::frame::{FRAME_HEADER_BYTES, FrameHeader};
use super::segment::SEGMENT_HEADER_BYTES;

/// What one read takes from the file.
const WINDOW_BYTES: u64 = 64 * 1024;

/// A place in a segment file, and a piece of the file in memory. Bytes before a limit never change, so they may be kept.
pub(super) struct Walk {
    file: File,
    at: u64,
    window: Vec<u8>,
    window_at: u64,
}

impl Walk {
    /// Begins at a frame, or behind the segment header.
    pub fn new(file: File, at: u64) -> Self {
        Self { file, at: at.max(SEGMENT_HEADER_BYTES as u64), window: Vec::new(), window_at: 0 }
    }

    /// Where the next frame begins.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// The header of the next frame, when that lies wholly before `limit` and is one.
    pub fn peek(&mut self, limit: u64) -> io::Result<Option<FrameHeader>> {
        let Some(bytes) = self.bytes(self.at, FRAME_HEADER_BYTES, limit)? else { return Ok(None) };
        let header = bytes.first_chunk().and_then(FrameHeader::decode);
        Ok(header.filter(|header| self.at.saturating_add(header.frame_bytes()) <= limit))
    }

    /// The body of the frame that `peek` showed; `None` when it is damaged, or the file ends in it.
    pub fn body(&mut self, header: &FrameHeader, limit: u64) -> io::Result<Option<&[u8]>> {
        let body = self.bytes(self.at + FRAME_HEADER_BYTES as u64, header.len, limit)?;
        Ok(body.filter(|body| header.fits(body)))
    }

    /// Goes behind the frame that `peek` showed.
    pub fn pass(&mut self, header: &FrameHeader) {
        self.at += header.frame_bytes();
    }

    /// Goes to the limit, over what is no frame.
    pub fn give_up(&mut self, limit: u64) {
        self.at = self.at.max(limit);
    }

    /// Lets go of the piece in memory, for a reader that waits.
    pub fn rest(&mut self) {
        self.window = Vec::new();
    }

    pub fn file_bytes(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn bytes(&mut self, from: u64, len: usize, limit: u64) -> io::Result<Option<&[u8]>> {
        let to = from.saturating_add(len as u64);
        if to > limit {
            return Ok(None);
        }
        let held = self.window_at..=self.window_at + self.window.len() as u64;
        if !(held.contains(&from) && held.contains(&to)) {
            // from the frame's beginning, so that a header and its body come with one read
            let wanted = (limit - self.at).min(WINDOW_BYTES.max(to - self.at));
            self.fill(wanted as usize)?;
        }
        let start = (from - self.window_at) as usize;
        Ok(self.window.get(start..start + len))
    }

    fn fill(&mut self, wanted: usize) -> io::Result<()> {
        self.window.resize(wanted, 0);
        self.window_at = self.at;
        let mut filled = 0;
        while filled < wanted {
            match self.file.read_at(&mut self.window[filled..], self.at + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.window.clear();
                    return Err(error);
                }
            }
        }
        self.window.truncate(filled);
        Ok(())
    }
}
