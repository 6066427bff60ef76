//! Making an index from the files of a spool.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use super::frame::{Kind, decode_control, decode_position};
use super::index::{Point, Segment, SpoolIndex, State, note};
use super::segment::{self, Found, SEGMENT_HEADER_BYTES, SegmentHeader};
use super::types::{Control, Count, Position};
use super::walk::Walk;

impl SpoolIndex {
    /// The index of a process whose writer is gone. A spool without files is one without output.
    ///
    /// Stops at the last whole frame that follows the one before it; files that don't begin as a segment are left out.
    /// Reads no more than the headers and, whole, the last segment before each hole.
    ///
    /// # Errors
    /// The folder or a file in it can't be read.
    pub fn load(dir: &Path, number: u64) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self::read(dir, number)?))
    }

    pub(super) fn read(dir: &Path, number: u64) -> io::Result<Self> {
        let mut files: Vec<Found> = segment::list(dir)?.into_iter().filter(|file| file.number == number).collect();
        files.sort_by_key(|file| file.index);
        let mut state = State::empty();
        let mut segments = files.iter().map(open).filter_map(Result::transpose).peekable();
        while let Some(opened) = segments.next() {
            let (segment, file) = opened?;
            if segment.first.next < state.stored.next {
                continue; // goes back: not of the same writer
            }
            let next = segments.peek().and_then(|next| next.as_ref().ok()).map(|(next, _)| next);
            take(&mut state, segment, file, next)?;
        }
        state.end = state.stored;
        Ok(Self::new(dir, number, state))
    }
}

fn open(found: &Found) -> io::Result<Option<(Segment, File)>> {
    let file = File::open(&found.path)?;
    let mut bytes = [0; SEGMENT_HEADER_BYTES];
    match file.read_exact_at(&mut bytes, 0) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let header = SegmentHeader::decode(&bytes).filter(|header| (header.number, header.index) == (found.number, found.index));
    let Some(header) = header else { return Ok(None) };
    let len = file.metadata()?.len();
    let segment = Segment::begun_by(&header, len);
    Ok(Some((segment, file)))
}

/// Adds a segment behind the others. Where it ends is what the next says, if that was begun right after it.
fn take(state: &mut State, mut segment: Segment, file: File, next: Option<&Segment>) -> io::Result<()> {
    let hole = segment.first.since(state.stored);
    let lost = segment.lost_before.minus(state.not_kept);
    state.truncated = state.truncated.plus(hole.minus(lost));
    let adjacent = next.filter(|next| next.index == segment.index + 1 && next.first.next >= segment.first.next);
    if let Some(next) = adjacent {
        (segment.end, segment.lost_until, state.size) = (next.first, next.lost_before, next.size);
    } else {
        let scanned = scan(file, &segment)?;
        (segment.end, segment.lost_until, segment.len) = (scanned.end, scanned.lost, scanned.len);
        (segment.points, state.size) = (scanned.points, scanned.size);
    }
    (state.stored, state.not_kept) = (segment.end, segment.lost_until);
    state.segments.push_back(segment);
    Ok(())
}

struct Scanned {
    end: Position,
    lost: Count,
    len: u64,
    size: Option<Control>,
    points: Vec<Point>,
}

fn scan(file: File, segment: &Segment) -> io::Result<Scanned> {
    let mut walk = Walk::new(file, 0);
    let (mut end, mut lost, mut size) = (segment.first, segment.lost_before, segment.size);
    let mut points = Vec::new();
    while let Some(header) = walk.peek(segment.disk)? {
        if header.sequence != end.next {
            break;
        }
        let point = Point { at: walk.at(), position: end };
        let Some(body) = walk.body(&header, segment.disk)? else { break };
        match header.kind {
            Kind::Output(stream) => end = end.after(header.sequence, stream, header.offset, header.len),
            Kind::Resize => size = decode_control(body),
            Kind::Lost => {
                let after = decode_position(body).unwrap_or(end);
                lost = lost.plus(after.since(end));
                end = after;
            }
        }
        note(&mut points, point, segment.disk);
        walk.pass(&header);
    }
    Ok(Scanned { end, lost, len: walk.at(), size, points })
}
