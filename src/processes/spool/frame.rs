//! The frame: one entry, or one control, as it lies in a segment. Pure.
//!
//! ```text
//! kind u8 │ mark u8 │ len u16 │ check u16 │ body check u16 │ sequence u64 │ time_ms i64 │ offset u64 │ len bytes
//! ```
//!
//! Little-endian. `check` covers the other header fields, so that zeros, garbage or half a header are told from a frame,
//! and frames can be counted without their bodies. With the consecutive sequences that is a strong test; the body's own
//! check finds a body whose end never came to the disk.

use super::types::{Control, Position, Stream, StreamBytes};

/// The bytes a frame adds to its body.
pub const FRAME_HEADER_BYTES: usize = 32;
/// The most bytes one entry holds.
pub const MAX_ENTRY_BYTES: usize = 8192;

pub(super) const RESIZE_BODY_BYTES: usize = 4;
pub(super) const LOST_BODY_BYTES: usize = 32;

const MARK: u8 = 0xB5;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Output(Stream),
    /// Body: cols, rows. `sequence` is that of the next entry.
    Resize,
    /// Entries that could not be written. `sequence` is the first of them; body: the [`Position`] after the last.
    Lost,
}

impl Kind {
    fn code(self) -> u8 {
        match self {
            Self::Output(Stream::Stdout) => 1,
            Self::Output(Stream::Stderr) => 2,
            Self::Output(Stream::Pty) => 3,
            Self::Resize => 16,
            Self::Lost => 17,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        let all = [Self::Resize, Self::Lost];
        Stream::ALL.into_iter().map(Self::Output).chain(all).find(|kind| kind.code() == code)
    }

    fn may_have(self, len: usize) -> bool {
        match self {
            Self::Output(_) => (1..=MAX_ENTRY_BYTES).contains(&len),
            Self::Resize => len == RESIZE_BODY_BYTES,
            Self::Lost => len == LOST_BODY_BYTES,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameHeader {
    pub kind: Kind,
    pub len: usize,
    pub sequence: u64,
    pub time_ms: i64,
    pub offset: u64,
    pub body_check: u16,
}

impl FrameHeader {
    pub fn of(kind: Kind, sequence: u64, time_ms: i64, offset: u64, body: &[u8]) -> Self {
        Self { kind, len: body.len(), sequence, time_ms, offset, body_check: body_check(body) }
    }

    /// Whether the body is the one that was written.
    pub fn fits(&self, body: &[u8]) -> bool {
        self.body_check == body_check(body)
    }

    /// Header and body together.
    pub fn frame_bytes(&self) -> u64 {
        (FRAME_HEADER_BYTES + self.len) as u64
    }

    pub fn encode(&self) -> [u8; FRAME_HEADER_BYTES] {
        let mut out = [0; FRAME_HEADER_BYTES];
        out[0] = self.kind.code();
        out[1] = MARK;
        let len = u16::try_from(self.len).unwrap_or(u16::MAX); // bodies end at 8192, as decode() demands
        out[2..4].copy_from_slice(&len.to_le_bytes());
        out[6..8].copy_from_slice(&self.body_check.to_le_bytes());
        out[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        out[16..24].copy_from_slice(&self.time_ms.to_le_bytes());
        out[24..32].copy_from_slice(&self.offset.to_le_bytes());
        let check = header_check(&out);
        out[4..6].copy_from_slice(&check.to_le_bytes());
        out
    }

    /// The header, unless it is none.
    pub fn decode(bytes: &[u8; FRAME_HEADER_BYTES]) -> Option<Self> {
        let mut unchecked = *bytes;
        unchecked[4..6].fill(0);
        if bytes[1] != MARK || bytes[4..6] != header_check(&unchecked).to_le_bytes() {
            return None;
        }
        let kind = Kind::from_code(bytes[0])?;
        let len = usize::from(u16::from_le_bytes([bytes[2], bytes[3]]));
        kind.may_have(len).then(|| Self {
            kind,
            len,
            sequence: u64_at(bytes, 8),
            time_ms: u64_at(bytes, 16).cast_signed(),
            offset: u64_at(bytes, 24),
            body_check: u16::from_le_bytes([bytes[6], bytes[7]]),
        })
    }
}

pub(super) fn encode_control(control: Control) -> [u8; RESIZE_BODY_BYTES] {
    let Control::Resize { cols, rows } = control;
    let ([a, b], [c, d]) = (cols.to_le_bytes(), rows.to_le_bytes());
    [a, b, c, d]
}

/// The control of a [`Kind::Resize`] frame; `None` for a body of another length.
pub(super) fn decode_control(body: &[u8]) -> Option<Control> {
    let &[a, b, c, d] = body else { return None };
    Some(Control::Resize { cols: u16::from_le_bytes([a, b]), rows: u16::from_le_bytes([c, d]) })
}

pub(super) fn encode_position(position: Position) -> [u8; 32] {
    let mut out = [0; 32];
    let [stdout, stderr, pty] = position.bytes.to_array();
    for (slot, value) in [position.next, stdout, stderr, pty].into_iter().enumerate() {
        out[slot * 8..slot * 8 + 8].copy_from_slice(&value.to_le_bytes());
    }
    out
}

/// The position in the first 32 bytes; `None` when there are fewer.
pub(super) fn decode_position(body: &[u8]) -> Option<Position> {
    let body = body.first_chunk::<32>()?;
    let bytes = StreamBytes::from_array([u64_at(body, 8), u64_at(body, 16), u64_at(body, 24)]);
    Some(Position { next: u64_at(body, 0), bytes })
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut out = [0; 8];
    out.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(out)
}

/// Tells a header from other bytes; no defence against whoever can write the file. The length is a multiple of 8.
pub(super) fn check(bytes: &[u8]) -> u32 {
    (bytes.chunks_exact(8).fold(SEED, |mixed, word| mix(mixed, u64_at(word, 0))) >> 32) as u32
}

fn header_check(bytes: &[u8; FRAME_HEADER_BYTES]) -> u16 {
    (check(bytes) >> 16) as u16
}

fn body_check(body: &[u8]) -> u16 {
    let blocks = body.chunks_exact(32);
    let rest = blocks.remainder();
    let mut last = [0; 32];
    last[..rest.len()].copy_from_slice(rest);
    // four sums beside each other: one alone would wait for its own multiplication
    let sums = blocks.chain([last.as_slice()]).fold([SEED; 4], |sums, block| {
        let word = |lane: usize| u64_at(block, lane * 8);
        [mix(sums[0], word(0)), mix(sums[1], word(1)), mix(sums[2], word(2)), mix(sums[3], word(3))]
    });
    (sums.into_iter().fold(SEED, mix) >> 48) as u16
}

const SEED: u64 = 0x243F_6A88_85A3_08D3;

fn mix(mixed: u64, word: u64) -> u64 {
    (mixed.rotate_left(23) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(kind: Kind, len: usize) -> FrameHeader {
        FrameHeader { kind, len, sequence: 7, time_ms: -3, offset: u64::MAX, body_check: 0xABCD }
    }

    #[test]
    fn a_header_survives_the_disk_and_nothing_else_is_one() {
        for (kind, len) in [
            (Kind::Output(Stream::Stdout), 1),
            (Kind::Output(Stream::Stderr), 500),
            (Kind::Output(Stream::Pty), MAX_ENTRY_BYTES),
            (Kind::Resize, RESIZE_BODY_BYTES),
            (Kind::Lost, LOST_BODY_BYTES),
        ] {
            let encoded = header(kind, len).encode();
            assert_eq!(FrameHeader::decode(&encoded), Some(header(kind, len)));
            for bit in 0..FRAME_HEADER_BYTES * 8 {
                let mut damaged = encoded;
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(FrameHeader::decode(&damaged), None, "bit {bit} of {kind:?}");
            }
        }
        assert_eq!(FrameHeader::decode(&[0; FRAME_HEADER_BYTES]), None);
    }

    #[test]
    fn a_length_that_the_kind_cannot_have_is_refused() {
        for (kind, len) in [(Kind::Output(Stream::Pty), 0), (Kind::Output(Stream::Pty), 8193), (Kind::Resize, 5), (Kind::Lost, 0)]
        {
            assert_eq!(FrameHeader::decode(&header(kind, len).encode()), None);
        }
    }

    #[test]
    fn a_body_that_was_not_written_to_its_end_is_seen() {
        let body: Vec<u8> = (0..100).map(|at| b'a' + at % 26).collect();
        let header = FrameHeader::of(Kind::Output(Stream::Pty), 1, 0, 0, &body);
        assert!(header.fits(&body));
        for cut in 0..body.len() {
            let mut zeros_follow = body.clone();
            zeros_follow[cut..].fill(0);
            assert!(!header.fits(&zeros_follow), "cut at {cut}");
        }
    }

    proptest! {
        #[test]
        fn random_bytes_are_no_header(bytes: [u8; FRAME_HEADER_BYTES]) {
            prop_assert_eq!(FrameHeader::decode(&bytes), None);
        }

        #[test]
        fn positions_survive(next: u64, bytes: [u64; 3]) {
            let position = Position { next, bytes: StreamBytes::from_array(bytes) };
            prop_assert_eq!(decode_position(&encode_position(position)), Some(position));
        }
    }
}
