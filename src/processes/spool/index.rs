//! What writer and readers of one spool share: which segments there are, and how far they are written.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::segment::{SEGMENT_HEADER_BYTES, SegmentHeader};
use super::types::{Control, Count, Position, StreamBytes};

/// Where a spool stands. Cheap to ask; held by readers on any thread.
#[derive(Debug)]
pub struct SpoolIndex {
    pub(super) dir: PathBuf,
    pub(super) number: u64,
    state: Mutex<State>,
}

/// How far a spool has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// The last sequence given, kept or not; 0 before the first.
    pub last_sequence: u64,
    /// What the process has written to each stream, kept or not.
    pub bytes: StreamBytes,
    /// What was deleted to stay within the bound, and could be read before.
    pub truncated: Count,
    /// What could not be written.
    pub not_kept: Count,
    /// The bytes the files take.
    pub disk_bytes: u64,
    /// The last attempt to write failed: output is being lost.
    pub degraded: bool,
    /// The last failure, also when writing works again.
    pub error: Option<String>,
}

#[derive(Debug)]
pub(super) struct State {
    /// By index; holes are what was deleted.
    pub segments: VecDeque<Segment>,
    /// After the last frame on disk.
    pub stored: Position,
    /// After the last entry. What lies between could not be written and has no frame on disk yet.
    pub end: Position,
    pub not_kept: Count,
    pub truncated: Count,
    pub degraded: bool,
    pub error: Option<String>,
    /// The terminal's size after the last frame on disk.
    pub size: Option<Control>,
}

#[derive(Debug)]
pub(super) struct Segment {
    pub index: u64,
    pub first: Position,
    /// After its last frame.
    pub end: Position,
    /// What had not been kept before `first`, and before `end`.
    pub lost_before: Count,
    pub lost_until: Count,
    pub time_ms: i64,
    pub size: Option<Control>,
    /// Whole frames end here.
    pub len: u64,
    /// The file's length: more, when a torn frame could not be cut off.
    pub disk: u64,
    /// Some of its frames, to begin a search at.
    pub points: Vec<Point>,
}

/// Where in a file a frame begins, and what comes before it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Point {
    pub at: u64,
    pub position: Position,
}

impl State {
    pub fn empty() -> Self {
        Self {
            segments: VecDeque::new(),
            stored: Position::START,
            end: Position::START,
            not_kept: Count::default(),
            truncated: Count::default(),
            degraded: false,
            error: None,
            size: None,
        }
    }

    pub fn disk_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.disk).sum()
    }

    /// Takes a segment off the list, and counts what is in it as truncated.
    pub fn take(&mut self, index: u64) -> Option<Segment> {
        let at = self.segments.iter().position(|segment| segment.index == index)?;
        let segment = self.segments.remove(at)?;
        self.truncated = self.truncated.plus(segment.kept());
        Some(segment)
    }

    /// Puts back what could not be deleted.
    pub fn put_back(&mut self, segment: Segment) {
        self.truncated = self.truncated.minus(segment.kept());
        let at = self.segments.partition_point(|other| other.index < segment.index);
        self.segments.insert(at, segment);
    }
}

impl Segment {
    /// With nothing in it yet.
    pub fn begun_by(header: &SegmentHeader, bytes: u64) -> Self {
        Self {
            index: header.index,
            first: header.first,
            end: header.first,
            lost_before: header.lost_before,
            lost_until: header.lost_before,
            time_ms: header.time_ms,
            size: header.size,
            len: bytes,
            disk: bytes,
            points: Vec::new(),
        }
    }

    /// The entries in it.
    fn kept(&self) -> Count {
        self.end.since(self.first).minus(self.lost_until.minus(self.lost_before))
    }

    /// Where to begin in order to come to the frame after `sequence`.
    pub fn point_before(&self, sequence: u64) -> Point {
        let later = self.points.partition_point(|point| point.position.next <= sequence);
        let start = Point { at: SEGMENT_HEADER_BYTES as u64, position: self.first };
        later.checked_sub(1).map_or(start, |at| self.points[at])
    }
}

/// Remembers a frame's place, if the last one remembered is far enough away: about 32 for each segment.
pub(super) fn note(points: &mut Vec<Point>, point: Point, segment_bytes: u64) {
    let last = points.last().map_or(0, |point| point.at);
    if point.at - last >= (segment_bytes / 32).max(64 * 1024) {
        points.push(point);
    }
}

impl SpoolIndex {
    pub(super) fn new(dir: &Path, number: u64, state: State) -> Self {
        Self { dir: dir.to_owned(), number, state: Mutex::new(state) }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner) // counters and a list, whole after each change
    }

    /// Whether a file that was not there need not be: it has been deleted since, or someone took it away and others
    /// follow. Not so for the last: then the spool was removed.
    pub(super) fn is_gone(&self, segment: u64) -> bool {
        let mut state = self.state();
        if state.segments.back().is_some_and(|last| last.index == segment) {
            return false;
        }
        state.take(segment);
        true
    }

    /// The process's number.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Where the spool stands now.
    pub fn end(&self) -> End {
        let state = self.state();
        End {
            last_sequence: state.end.next - 1,
            bytes: state.end.bytes,
            truncated: state.truncated,
            not_kept: state.not_kept,
            disk_bytes: state.disk_bytes(),
            degraded: state.degraded,
            error: state.error.clone(),
        }
    }
}
