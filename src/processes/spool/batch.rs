//! What one write takes to the disk. Pure.

use super::frame::FrameHeader;
use super::segment::SegmentHeader;
use super::types::{Control, Position};

/// Frames that go to the disk with one write.
#[derive(Default)]
pub(super) struct Batch {
    pub bytes: Vec<u8>,
    pub marks: Vec<Mark>,
    /// The segment it begins, with a header in front.
    pub header: Option<SegmentHeader>,
}

/// The end of a frame in the batch, and where the spool stands there.
#[derive(Clone, Copy)]
pub(super) struct Mark {
    pub end: usize,
    pub after: Position,
    pub control: Option<Control>,
}

impl Batch {
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.marks.clear();
        self.header = None;
    }

    pub fn push(&mut self, header: &FrameHeader, body: &[u8], after: Position, control: Option<Control>) {
        self.bytes.extend_from_slice(&header.encode());
        self.bytes.extend_from_slice(body);
        self.marks.push(Mark { end: self.bytes.len(), after, control });
    }

    /// Where the spool will stand; `before` if there is no frame.
    pub fn after(&self, before: Position) -> Position {
        self.marks.last().map_or(before, |mark| mark.after)
    }
}
