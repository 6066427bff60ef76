//! The writing end. See [`Spool`].

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::batch::Batch;
use super::disk::{Disk, Files, SegmentFile};
use super::frame::{FRAME_HEADER_BYTES, FrameHeader, Kind, LOST_BODY_BYTES, MAX_ENTRY_BYTES, RESIZE_BODY_BYTES};
use super::frame::{encode_control, encode_position};
use super::index::{Point, Segment, SpoolIndex, State, note};
use super::segment::{self, MIN_SEGMENT_BYTES, SEGMENT_HEADER_BYTES, SegmentHeader, segment_bytes};
use super::types::{Control, Count, Position, Stream};
use super::utf8::piece_len;

/// What the buffer may keep between two appends.
const BUFFER_KEPT_BYTES: usize = 256 * 1024;

/// Writes the output of one process. There is one for each process; whoever holds it waits for the disk.
///
/// Nothing it does fails: what can't be written is counted, told to readers as a gap, and the next append tries again.
pub struct Spool {
    index: Arc<SpoolIndex>,
    disk: Box<dyn Disk>,
    max_bytes: u64,
    current: Option<Current>,
    next_segment: u64,
    /// Waits for the next write: a size set before the first output, or one that could not be written.
    held: Option<(i64, Control)>,
    // as in the index, which only this writer moves
    stored: Position,
    end: Position,
    not_kept: Count,
    size: Option<Control>,
    batch: Batch,
}

struct Current {
    segment: u64,
    file: Box<dyn SegmentFile>,
    len: u64,
}

impl Spool {
    /// A spool for a process that has written nothing. The folder must be there; files are made with the first output.
    /// Files that another process of this number left are deleted then.
    ///
    /// `max_bytes` bounds the files together, headers included; less than [`MIN_SEGMENT_BYTES`] is taken as that. Of less
    /// than three times as much, only the latest output is kept.
    pub fn create(dir: &Path, number: u64, max_bytes: u64) -> Self {
        Self::with_disk(SpoolIndex::new(dir, number, State::empty()), max_bytes, 0, Box::new(Files))
    }

    /// Goes on after the last whole frame of what lies on disk, in a new segment. Cuts off what a killed writer left half
    /// written.
    ///
    /// # Errors
    /// The folder or a file in it can't be read, or not be cut.
    pub fn reopen(dir: &Path, number: u64, max_bytes: u64) -> io::Result<Self> {
        let index = SpoolIndex::read(dir, number)?;
        let mut next_segment = 0;
        for file in segment::list(dir)?.into_iter().filter(|file| file.number == number) {
            next_segment = next_segment.max(file.index.saturating_add(1));
            let mut state = index.state();
            let Some(segment) = state.segments.iter_mut().find(|segment| segment.index == file.index) else {
                std::fs::remove_file(&file.path)?; // no segment
                continue;
            };
            if segment.disk > segment.len {
                std::fs::File::options().write(true).open(&file.path)?.set_len(segment.len)?;
                segment.disk = segment.len;
            }
        }
        let mut spool = Self::with_disk(index, max_bytes, next_segment, Box::new(Files));
        spool.set_max_bytes(max_bytes);
        Ok(spool)
    }

    pub(super) fn with_disk(index: SpoolIndex, max_bytes: u64, next_segment: u64, disk: Box<dyn Disk>) -> Self {
        let state = index.state();
        let (stored, end, not_kept, size) = (state.stored, state.end, state.not_kept, state.size);
        drop(state);
        Self {
            index: Arc::new(index),
            disk,
            max_bytes: max_bytes.max(MIN_SEGMENT_BYTES),
            current: None,
            next_segment,
            held: None,
            stored,
            end,
            not_kept,
            size,
            batch: Batch::default(),
        }
    }

    /// For readers.
    pub fn index(&self) -> Arc<SpoolIndex> {
        Arc::clone(&self.index)
    }

    /// Sets another bound. What is too much for it is deleted at once, but for the segment written last; that follows with
    /// the next output, if it must. Segment 0 goes too when it is longer than a bound so small allows.
    pub fn set_max_bytes(&mut self, max_bytes: u64) {
        self.max_bytes = max_bytes.max(MIN_SEGMENT_BYTES);
        let last = self.index.state().segments.back().map(|segment| segment.index);
        if let Err(error) = self.make_room(0, last) {
            let mut state = self.index.state();
            (state.degraded, state.error) = (true, Some(error.to_string()));
        }
    }

    /// Adds output, in entries of at most 8 KiB that cut no character. Gives their sequences, also of those that could not
    /// be written.
    ///
    /// One write(2), and one more for each segment that it fills.
    pub fn append(&mut self, stream: Stream, time_ms: i64, mut bytes: &[u8]) -> Range<u64> {
        let first = self.end.next;
        while !bytes.is_empty() {
            let mut piece = piece_len(bytes, MAX_ENTRY_BYTES);
            let mut room = self.begin(time_ms, FRAME_HEADER_BYTES + piece);
            while piece > 0 && FRAME_HEADER_BYTES + piece <= room {
                let (entry, rest) = bytes.split_at(piece);
                self.push_output(stream, time_ms, entry);
                room -= FRAME_HEADER_BYTES + piece;
                bytes = rest;
                piece = piece_len(bytes, MAX_ENTRY_BYTES);
            }
            self.flush();
        }
        first..self.end.next
    }

    /// Adds what happened between two entries. Before the first output, and while writing fails, only the latest is kept.
    pub fn append_control(&mut self, time_ms: i64, control: Control) {
        self.held = Some((time_ms, control));
        if self.end != Position::START || self.next_segment > 0 {
            self.begin(time_ms, 0);
            self.flush();
        }
    }

    /// Starts a batch, in a new segment if the current one hasn't room for `need` bytes. Gives the room left.
    fn begin(&mut self, time_ms: i64, need: usize) -> usize {
        self.batch.clear();
        let lost = if self.stored == self.end { 0 } else { FRAME_HEADER_BYTES + LOST_BODY_BYTES };
        let held = if self.held.is_none() { 0 } else { FRAME_HEADER_BYTES + RESIZE_BODY_BYTES };
        let limit = segment_bytes(self.max_bytes);
        let room = self.current.as_ref().map_or(0, |current| limit.saturating_sub(current.len));
        let mut room = usize::try_from(room).unwrap_or(usize::MAX);
        if room < lost + held + need {
            self.current = None;
            self.begin_segment(time_ms);
            room = usize::try_from(limit).unwrap_or(usize::MAX) - SEGMENT_HEADER_BYTES; // MIN_SEGMENT_BYTES has room for all
        }
        if lost > 0 {
            let body = encode_position(self.end);
            let header = FrameHeader::of(Kind::Lost, self.stored.next, time_ms, 0, &body);
            self.batch.push(&header, &body, self.end, None);
        }
        if let Some((time_ms, control)) = self.held {
            let body = encode_control(control);
            let header = FrameHeader::of(Kind::Resize, self.end.next, time_ms, 0, &body);
            self.batch.push(&header, &body, self.end, Some(control));
        }
        room - lost - held
    }

    fn begin_segment(&mut self, time_ms: i64) {
        let pending = self.end.since(self.stored);
        let header = SegmentHeader {
            number: self.index.number,
            index: self.next_segment,
            first: self.stored,
            lost_before: self.not_kept.minus(pending),
            time_ms,
            size: self.size,
        };
        self.batch.bytes.extend_from_slice(&header.encode());
        self.batch.header = Some(header);
    }

    fn push_output(&mut self, stream: Stream, time_ms: i64, entry: &[u8]) {
        let before = self.batch.after(self.end);
        let (sequence, offset) = (before.next, before.bytes.get(stream));
        let header = FrameHeader::of(Kind::Output(stream), sequence, time_ms, offset, entry);
        self.batch.push(&header, entry, before.after(sequence, stream, offset, entry.len()), None);
    }

    fn flush(&mut self) {
        let (written, outcome) = match self.prepare() {
            Ok(()) => self.write(),
            Err(error) => (0, Err(error)),
        };
        self.settle(written, outcome.err().as_ref());
    }

    /// Makes room, and the file of a new segment.
    fn prepare(&mut self) -> io::Result<()> {
        let writing = self.current.as_ref().map(|current| current.segment);
        self.make_room(self.batch.bytes.len() as u64, writing)?;
        let Some(header) = self.batch.header else { return Ok(()) };
        let path = segment::path(&self.index.dir, self.index.number, header.index);
        let created = match self.disk.create(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && self.stored == Position::START => {
                segment::remove(&self.index.dir, self.index.number)?; // of an earlier process of this number
                self.disk.create(&path)
            }
            other => other,
        };
        self.next_segment = header.index + 1; // used up even if the file can't be made: it may be there
        self.current = Some(Current { segment: header.index, file: created?, len: 0 });
        Ok(())
    }

    /// Deletes what is too much for `need` more bytes. Never the segment named.
    fn make_room(&mut self, need: u64, except: Option<u64>) -> io::Result<()> {
        loop {
            let mut state = self.index.state();
            let Some(victim) = victim(&state, self.max_bytes, need, except) else { return Ok(()) };
            let taken = state.take(victim); // first: a reader doesn't look for a file that is going
            drop(state);
            match self.disk.remove(&segment::path(&self.index.dir, self.index.number, victim)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    taken.into_iter().for_each(|segment| self.index.state().put_back(segment));
                    return Err(error);
                }
                _ => {}
            }
        }
    }

    fn write(&mut self) -> (usize, io::Result<()>) {
        let Some(current) = &self.current else { return (0, Ok(())) };
        let mut written = 0;
        while written < self.batch.bytes.len() {
            match current.file.write_at(&self.batch.bytes[written..], current.len + written as u64) {
                Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
                Ok(wrote) => written += wrote,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return (written, Err(error)),
            }
        }
        (written, Ok(()))
    }

    /// Counts what was written and what was lost, cuts off half a frame, and tells the readers.
    fn settle(&mut self, written: usize, error: Option<&io::Error>) {
        let kept = self.batch.marks.partition_point(|mark| mark.end <= written);
        let (stored_before, end_before) = (self.stored, self.end);
        self.end = self.batch.after(self.end);
        for mark in &self.batch.marks[..kept] {
            self.stored = mark.after;
            if mark.control.is_some() {
                (self.size, self.held) = (mark.control, None);
            }
        }
        let reached = if self.stored.next > end_before.next { self.stored } else { end_before };
        self.not_kept = self.not_kept.plus(self.end.since(reached));
        let kept_bytes = kept.checked_sub(1).map_or(0, |last| self.batch.marks[last].end);
        let torn_bytes = self.cut(written, kept_bytes);
        self.publish(stored_before, kept_bytes as u64, torn_bytes as u64, error);
        if torn_bytes > 0 {
            self.current = None; // nothing is written behind half a frame
        } else if let Some(current) = &mut self.current {
            current.len += kept_bytes as u64;
        }
        self.batch.clear();
        self.batch.bytes.shrink_to(BUFFER_KEPT_BYTES);
    }

    /// Takes back what was written behind the last whole frame. Gives what could not be taken back.
    fn cut(&mut self, written: usize, kept_bytes: usize) -> usize {
        let Some(current) = &self.current else { return 0 };
        if kept_bytes == 0 && self.batch.header.is_some() {
            let path = segment::path(&self.index.dir, self.index.number, current.segment);
            self.current = None;
            let _ = self.disk.remove(&path); // a file without a frame: whatever lists it passes over it
            return 0;
        }
        if written == kept_bytes || current.file.set_len(current.len + kept_bytes as u64).is_ok() {
            return 0;
        }
        written - kept_bytes
    }

    /// One lock for all of it: a reader that saw the new end without the new length would take the rest for lost.
    fn publish(&self, stored_before: Position, kept_bytes: u64, torn_bytes: u64, error: Option<&io::Error>) {
        let mut state = self.index.state();
        if let Some(header) = self.batch.header.filter(|_| kept_bytes > 0) {
            state.segments.push_back(Segment::begun_by(&header, 0));
        }
        if kept_bytes + torn_bytes > 0
            && let Some(segment) = state.segments.back_mut()
        {
            if self.batch.header.is_none() {
                let point = Point { at: segment.len, position: stored_before };
                note(&mut segment.points, point, segment_bytes(self.max_bytes));
            }
            segment.len += kept_bytes;
            segment.disk = segment.len + torn_bytes;
            segment.end = self.stored;
            segment.lost_until = self.not_kept.minus(self.end.since(self.stored));
        }
        (state.stored, state.end, state.not_kept, state.size) = (self.stored, self.end, self.not_kept, self.size);
        state.degraded = error.is_some();
        if let Some(error) = error {
            state.error = Some(error.to_string());
        }
    }
}

/// What has to go before `need` bytes fit: the oldest segment but the head, or the head when the bound is too small for it.
fn victim(state: &State, max_bytes: u64, need: u64, except: Option<u64>) -> Option<u64> {
    if state.disk_bytes() + need <= max_bytes {
        return None;
    }
    let beside_head = max_bytes.saturating_sub(2 * segment_bytes(max_bytes));
    let is_kept = |segment: &Segment| segment.index == 0 && segment.disk <= beside_head;
    let mut candidates = state.segments.iter().filter(|segment| Some(segment.index) != except);
    let victim = candidates.clone().find(|segment| !is_kept(segment)).or_else(|| candidates.next());
    victim.map(|segment| segment.index)
}
