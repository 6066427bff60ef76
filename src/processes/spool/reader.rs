//! The reading end. See [`SpoolReader`].

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, MutexGuard};

use super::frame::{FRAME_HEADER_BYTES, FrameHeader, Kind, decode_control, decode_position};
use super::index::{Point, Segment, SpoolIndex, State};
use super::segment;
use super::types::{Control, Entry, Gap, GapReason, Item, Position, Stream, Streams};
use super::walk::Walk;

/// Reads a spool in order, also while it is written. Stays where it is between two calls, with the file open.
///
/// Begins before the first entry. One that is overtaken by deletions still reads the file it has open to its end, gets a
/// [`Gap`], and goes on.
pub struct SpoolReader {
    index: Arc<SpoolIndex>,
    /// Only what comes after this sequence is handed out.
    after: u64,
    /// Where the walk stands, or where the hole before the next segment begins.
    here: Position,
    open: Option<Open>,
    ready: Option<Item>,
}

struct Open {
    segment: u64,
    walk: Walk,
    /// Whole frames end here, as far as is known.
    len: u64,
    /// No longer listed: nothing is added any more.
    deleted: bool,
}

/// What is to be opened, as the index told.
struct Place {
    segment: u64,
    first: Position,
    len: u64,
    size: Option<(i64, Control)>,
    point: Point,
}

enum Step {
    Item(Item),
    /// The next entry doesn't fit.
    Full,
    /// Nothing to hand out, but more to look at.
    Again,
    End,
}

impl SpoolReader {
    /// A reader before the first entry.
    pub fn new(index: Arc<SpoolIndex>) -> Self {
        Self { index, after: 0, here: Position::START, open: None, ready: None }
    }

    /// Goes behind an entry, kept or not; 0 is the beginning. Behind the end, entries up to the sequence are left out when
    /// they come.
    pub fn seek_after(&mut self, sequence: u64) {
        (self.after, self.here, self.open, self.ready) = (sequence, Position::START, None, None);
    }

    /// The last sequence handed out or skipped, entries and gaps alike.
    pub fn position(&self) -> u64 {
        self.after
    }

    /// The next items, of at most `max_bytes` together: an entry counts its bytes and a header's. The first is always
    /// given. None: that is all for now.
    ///
    /// # Errors
    /// A file can't be opened or read. The reader stays where it is; what it had read before is given first.
    pub fn read(&mut self, max_bytes: usize) -> io::Result<Vec<Item>> {
        let mut items = Vec::new();
        let mut room = max_bytes;
        loop {
            match self.step(if items.is_empty() { usize::MAX } else { room }) {
                Ok(Step::Item(item)) => {
                    let body = if let Item::Entry(entry) = &item { entry.bytes.len() } else { 0 };
                    room = room.saturating_sub(FRAME_HEADER_BYTES + body);
                    items.push(item);
                }
                Ok(Step::Again) => {}
                Ok(Step::Full) => return Ok(items),
                Ok(Step::End) => {
                    if let Some(open) = &mut self.open {
                        open.walk.rest();
                    }
                    return Ok(items);
                }
                Err(error) if items.is_empty() => return Err(error),
                Err(_) => return Ok(items), // the next call meets it again
            }
        }
    }

    /// Goes to where the last `n` kept entries of these streams follow, or to the beginning when there are fewer. Gives
    /// the new position.
    ///
    /// Looks at segments from the last backwards, no further than needed.
    ///
    /// # Errors
    /// A file can't be opened or read. The reader stays where it is.
    pub fn tail(&mut self, n: u64, streams: Streams) -> io::Result<u64> {
        let state = self.index.state();
        let last = state.end.next - 1;
        let segments: Vec<(u64, u64)> = state.segments.iter().rev().map(|segment| (segment.index, segment.len)).collect();
        drop(state);
        let mut wanted = n;
        let mut after = if n == 0 { last } else { 0 };
        for (segment, len) in segments {
            if wanted == 0 {
                break;
            }
            let path = segment::path(&self.index.dir, self.index.number, segment);
            let counted = count(&path, len, streams, u64::MAX)?.0;
            if counted >= wanted {
                after = count(&path, len, streams, counted - wanted + 1)?.1.saturating_sub(1);
            }
            wanted = wanted.saturating_sub(counted);
        }
        self.seek_after(after);
        Ok(after)
    }

    fn step(&mut self, room: usize) -> io::Result<Step> {
        if room < FRAME_HEADER_BYTES {
            return Ok(Step::Full);
        }
        if let Some(item) = self.ready.take() {
            return Ok(Step::Item(item));
        }
        let Some(open) = &mut self.open else { return self.go_on() };
        match open.walk.peek(open.len)? {
            None => self.go_on(),
            Some(header) => match header.kind {
                Kind::Output(stream) => self.output(&header, stream, room),
                Kind::Resize | Kind::Lost => self.control(&header),
            },
        }
    }

    fn output(&mut self, header: &FrameHeader, stream: Stream, room: usize) -> io::Result<Step> {
        let FrameHeader { sequence, offset, len, time_ms, .. } = *header;
        if sequence > self.here.next {
            let to = Position { next: sequence, ..self.here.after(sequence, stream, offset, 0) };
            return Ok(self.gap(to, GapReason::NotKept).map_or(Step::Again, Step::Item));
        }
        let Some(open) = &mut self.open else { return Ok(Step::Again) };
        let wanted = sequence > self.after && sequence == self.here.next;
        if wanted && FRAME_HEADER_BYTES + len > room {
            return Ok(Step::Full);
        }
        let mut step = Step::Again;
        if wanted {
            let Some(body) = open.walk.body(header, open.len)? else {
                open.walk.pass(header); // `here` stays: what follows shows the gap
                return Ok(Step::Again);
            };
            step = Step::Item(Item::Entry(Entry { sequence, stream, time_ms, offset, bytes: body.to_vec() }));
            self.after = sequence;
        }
        open.walk.pass(header);
        if sequence == self.here.next {
            self.here = self.here.after(sequence, stream, offset, len);
        }
        Ok(step)
    }

    fn control(&mut self, header: &FrameHeader) -> io::Result<Step> {
        let Some(open) = &mut self.open else { return Ok(Step::Again) };
        let body = open.walk.body(header, open.len)?.unwrap_or_default();
        let (control, lost_until) = (decode_control(body), decode_position(body));
        open.walk.pass(header);
        let item = match (header.kind, control, lost_until) {
            (Kind::Lost, _, Some(until)) => self.gap(until, GapReason::NotKept),
            (Kind::Resize, Some(control), _) if header.sequence > self.after => {
                Some(Item::Control { time_ms: header.time_ms, control })
            }
            _ => None,
        };
        Ok(item.map_or(Step::Again, Step::Item))
    }

    /// What follows the last whole frame: more of the same file, the next one, or nothing yet.
    fn go_on(&mut self) -> io::Result<Step> {
        let index = Arc::clone(&self.index);
        let state = index.state();
        let Some(open) = &mut self.open else { return self.begin(state) };
        open.walk.give_up(open.len);
        match state.segments.iter().find(|segment| segment.index == open.segment) {
            Some(listed) if listed.len > open.len => {
                open.len = listed.len;
                return Ok(Step::Again);
            }
            None if !open.deleted => {
                open.len = open.len.max(open.walk.file_bytes()?); // it was written to its end before it was deleted
                open.deleted = true;
                return Ok(Step::Again);
            }
            _ => {}
        }
        let (segment, deleted) = (open.segment, open.deleted);
        match state.segments.iter().find(|next| next.index > segment) {
            Some(next) => {
                let place = Place::of(next, self.after);
                drop(state);
                let reason = if next_to(segment, &place) { GapReason::NotKept } else { GapReason::Truncated };
                self.enter(&place, Some(reason))
            }
            None => Ok(self.end(&state, if deleted { GapReason::Truncated } else { GapReason::NotKept })),
        }
    }

    /// Finds the segment to begin with.
    fn begin(&mut self, state: MutexGuard<'_, State>) -> io::Result<Step> {
        let began = state.segments.iter().rev().find(|segment| segment.first.next <= self.after);
        let Some(segment) = began.or(state.segments.front()) else { return Ok(self.end(&state, GapReason::Truncated)) };
        let (place, before) = (Place::of(segment, self.after), began.is_none().then_some(GapReason::Truncated));
        drop(state);
        self.enter(&place, before)
    }

    /// Goes into a segment, over the hole before it; with no reason for one, to the place sought.
    fn enter(&mut self, place: &Place, reason: Option<GapReason>) -> io::Result<Step> {
        let file = match File::open(segment::path(&self.index.dir, self.index.number, place.segment)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.index.is_gone(place.segment) => return Ok(Step::Again),
            other => other?,
        };
        let walk = Walk::new(file, place.point.at);
        self.open = Some(Open { segment: place.segment, walk, len: place.len, deleted: false });
        let gap = reason.and_then(|reason| self.gap(place.first, reason));
        if place.point.position.next > self.here.next {
            self.here = place.point.position; // never back: what was told as lost before there was a file stays told
        }
        if gap.is_some() && reason == Some(GapReason::Truncated) {
            self.ready = place.size.map(|(time_ms, control)| Item::Control { time_ms, control });
        }
        Ok(gap.map_or(Step::Again, Step::Item))
    }

    /// Behind all frames: what has none is missing.
    fn end(&mut self, state: &State, reason: GapReason) -> Step {
        let stored = self.gap(state.stored, reason);
        stored.or_else(|| self.gap(state.end, GapReason::NotKept)).map_or(Step::End, Step::Item)
    }

    /// Goes forward over a hole. `None` when there is none, or the reader is to begin behind it.
    fn gap(&mut self, to: Position, reason: GapReason) -> Option<Item> {
        if to.next <= self.here.next {
            return None;
        }
        let bytes = to.bytes.since(self.here.bytes);
        let (from_sequence, to_sequence) = (self.here.next.max(self.after.saturating_add(1)), to.next - 1);
        self.here = to;
        if to_sequence < from_sequence {
            return None;
        }
        self.after = to_sequence;
        Some(Item::Gap(Gap { from_sequence, to_sequence, bytes, reason }))
    }
}

impl Place {
    fn of(segment: &Segment, after: u64) -> Self {
        let size = segment.size.map(|size| (segment.time_ms, size));
        let point = segment.point_before(after);
        Self { segment: segment.index, first: segment.first, len: segment.len, size, point }
    }
}

fn next_to(segment: u64, place: &Place) -> bool {
    segment.checked_add(1) == Some(place.segment)
}

/// Counts the entries of these streams in a segment up to so many. Gives their number, and the last one's sequence. A
/// segment that is gone has none.
fn count(path: &Path, len: u64, streams: Streams, most: u64) -> io::Result<(u64, u64)> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((0, 0)),
        other => other?,
    };
    let (mut walk, mut counted, mut last) = (Walk::new(file, 0), 0, 0);
    while counted < most
        && let Some(header) = walk.peek(len)?
    {
        if let Kind::Output(stream) = header.kind
            && streams.contains(stream)
        {
            (counted, last) = (counted + 1, header.sequence);
        }
        walk.pass(&header);
    }
    Ok((counted, last))
}
