//! What passes between this server and a child that it speaks with line by line, in memory that the keeper holds, too:
//! what was read from it and isn't settled yet, and a journal of what is sent to it, with what the next server has to know
//! of that.
//!
//! Bytes read are numbered from the first of all; the byte at position p lies at p modulo the ring's size. The journal has
//! two halves, of which one is in use: to leave out what is settled it is written anew into the other one. A record is
//! there once the journal's length is stored; everything before is then whole.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::{Acquire, Release};

use crate::rt::sys::SharedMemory;

const VERSION: u64 = 0x7461_7065_0001;

// Places in the memory.
const AT_VERSION: usize = 0;
/// Read up to here.
const AT_TAKEN: usize = 8;
/// Settled up to here.
const AT_FREED: usize = 16;
/// Bytes of lines that reached the child.
const AT_GIVEN: usize = 24;
/// Bit 63: which half. The rest: its length.
const AT_JOURNAL: usize = 32;
/// Bits that say why nobody can go on with the child.
const AT_BROKEN: usize = 40;
/// Of what was read something is missing.
const RING_BROKEN: u64 = 1;
/// Of the journal something is missing.
const JOURNAL_BROKEN: u64 = 2;
/// The owner is in the middle of something that the journal doesn't tell.
const OWNER_BUSY: u64 = 4;
const AT_ABOUT_LEN: usize = 48;
/// How far was read when the ring's memory was given back last.
const AT_GIVEN_BACK: usize = 56;
const AT_ABOUT: usize = 64;
const ABOUT_MAX_BYTES: usize = 4096 - AT_ABOUT;
const AT_RING: usize = 4096;
const RING_BYTES: usize = 1024 * 1024;
const AT_HALVES: usize = AT_RING + RING_BYTES;
const HALF_BYTES: usize = 2 * 1024 * 1024;
const HALF_BIT: u64 = 1 << 63;

/// After so much was read, the ring's memory is given back as soon as nothing is in it.
const GIVE_BACK_BYTES: u64 = 256 * 1024;

/// Of a record: length of what is known, length of the line, kind.
const HEAD: usize = 12;
/// The first record of a half: where its lines begin, as a position of [`AT_GIVEN`].
const KIND_BASE: u32 = 0;

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The writer's own number for what it is; at least 1.
    pub kind: u32,
    /// What the next server has to know.
    pub about: Vec<u8>,
    /// What is sent with it, if anything.
    pub line: Vec<u8>,
}

/// One child's.
#[derive(Debug)]
pub(super) struct Tape {
    memory: SharedMemory,
}

impl Tape {
    /// A new one. `about` names the child for the next server; positions of what is read begin at `read_to`.
    ///
    /// # Errors
    /// No memory or descriptor, or `about` is longer than 4 KiB.
    pub(super) fn new(about: &[u8], read_to: u64) -> io::Result<Self> {
        if about.len() > ABOUT_MAX_BYTES {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let memory = SharedMemory::new("sandboxd-tape", AT_HALVES + 2 * HALF_BYTES)?;
        let mut tape = Self { memory };
        tape.set(AT_GIVEN_BACK, read_to);
        tape.memory.bytes_mut(AT_ABOUT, about.len()).copy_from_slice(about);
        tape.set(AT_ABOUT_LEN, about.len() as u64);
        tape.set(AT_TAKEN, read_to);
        tape.set(AT_FREED, read_to);
        let len = tape.put(0, 0, KIND_BASE, &0u64.to_le_bytes(), b"").unwrap_or(0); // an empty half has room
        tape.set(AT_JOURNAL, len as u64);
        tape.set(AT_VERSION, VERSION);
        Ok(tape)
    }

    /// An earlier server's.
    ///
    /// # Errors
    /// It is none.
    pub(super) fn open(fd: OwnedFd) -> io::Result<Self> {
        let memory = SharedMemory::open(fd)?;
        let is_tape = memory.len() == AT_HALVES + 2 * HALF_BYTES && memory.number(AT_VERSION).load(Acquire) == VERSION;
        if is_tape { Ok(Self { memory }) } else { Err(io::ErrorKind::InvalidData.into()) }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.memory.fd()
    }

    fn get(&self, place: usize) -> u64 {
        self.memory.number(place).load(Acquire)
    }

    fn set(&self, place: usize, value: u64) {
        self.memory.number(place).store(value, Release);
    }

    pub(super) fn about(&self) -> &[u8] {
        self.memory.bytes(AT_ABOUT, as_usize(self.get(AT_ABOUT_LEN)).min(ABOUT_MAX_BYTES))
    }

    fn flag(&self, bit: u64, is_set: bool) {
        let flags = self.get(AT_BROKEN);
        let now = if is_set { flags | bit } else { flags & !bit };
        if now != flags {
            self.set(AT_BROKEN, now);
        }
    }

    /// Whether nobody can go on.
    pub(super) fn is_broken(&self) -> bool {
        self.get(AT_BROKEN) != 0
    }

    /// Whether the journal lacks something, until it is written anew.
    pub(super) fn lacks_records(&self) -> bool {
        self.get(AT_BROKEN) & JOURNAL_BROKEN != 0
    }

    /// The owner is in the middle of something that the journal doesn't tell.
    pub(super) fn set_busy(&self, is_busy: bool) {
        self.flag(OWNER_BUSY, is_busy);
    }

    // ----- what is read -----

    /// How far was read.
    pub(super) fn taken(&self) -> u64 {
        self.get(AT_TAKEN)
    }

    /// Bytes that the ring still takes.
    pub(super) fn room(&self) -> usize {
        RING_BYTES.saturating_sub(as_usize(self.get(AT_TAKEN).saturating_sub(self.get(AT_FREED))))
    }

    /// More was read. What doesn't fit is missing.
    pub(super) fn take(&mut self, bytes: &[u8]) {
        let taken = self.taken();
        if bytes.len() > self.room() {
            self.flag(RING_BROKEN, true);
        } else {
            let at = as_usize(taken % RING_BYTES as u64);
            let first = bytes.len().min(RING_BYTES - at);
            self.memory.bytes_mut(AT_RING + at, first).copy_from_slice(&bytes[..first]);
            self.memory.bytes_mut(AT_RING, bytes.len() - first).copy_from_slice(&bytes[first..]);
        }
        self.set(AT_TAKEN, taken + bytes.len() as u64);
    }

    /// How far what was read is settled.
    pub(super) fn freed(&self) -> u64 {
        self.get(AT_FREED)
    }

    /// What was read up to here is settled. Once all is, nothing is missing any more.
    pub(super) fn free(&mut self, position: u64) {
        self.set(AT_FREED, position);
        if position < self.taken() {
            return;
        }
        self.flag(RING_BROKEN, false);
        if position.saturating_sub(self.get(AT_GIVEN_BACK)) >= GIVE_BACK_BYTES {
            self.set(AT_GIVEN_BACK, position);
            self.memory.give_back(AT_RING, RING_BYTES);
        }
    }

    /// What was read from `position` on; `None` when it isn't there.
    pub(super) fn unsettled(&self, position: u64) -> Option<Vec<u8>> {
        let (taken, freed) = (self.taken(), self.get(AT_FREED));
        if position < freed.min(taken.saturating_sub(RING_BYTES as u64)) || position > taken || position < freed {
            return None;
        }
        let len = as_usize(taken - position);
        let at = as_usize(position % RING_BYTES as u64);
        let first = len.min(RING_BYTES - at);
        Some([self.memory.bytes(AT_RING + at, first), self.memory.bytes(AT_RING, len - first)].concat())
    }

    // ----- what is sent -----

    pub(super) fn given(&self) -> u64 {
        self.get(AT_GIVEN)
    }

    pub(super) fn set_given(&self, position: u64) {
        self.set(AT_GIVEN, position);
    }

    /// Bytes of the journal.
    pub(super) fn journal_bytes(&self) -> usize {
        as_usize(self.get(AT_JOURNAL) & !HALF_BIT).min(HALF_BYTES)
    }

    fn half(&self) -> usize {
        usize::from(self.get(AT_JOURNAL) & HALF_BIT != 0)
    }

    /// One more record, all or nothing; without room for it, the journal lacks something.
    pub(super) fn append(&mut self, kind: u32, about: &[u8], line: &[u8]) -> bool {
        let (half, len) = (self.half(), self.journal_bytes());
        let end = self.put(half, len, kind, about, line);
        match end {
            Some(end) => self.set(AT_JOURNAL, end as u64 | if half == 1 { HALF_BIT } else { 0 }),
            None => self.flag(JOURNAL_BROKEN, true),
        }
        end.is_some()
    }

    /// Writes a record at a place of a half; gives its end.
    fn put(&mut self, half: usize, at: usize, kind: u32, about: &[u8], line: &[u8]) -> Option<usize> {
        let (about_len, line_len) = (u32::try_from(about.len()).ok()?, u32::try_from(line.len()).ok()?);
        let end = at + HEAD + about.len() + line.len();
        if end > HALF_BYTES {
            return None;
        }
        let space = self.memory.bytes_mut(AT_HALVES + half * HALF_BYTES + at, end - at);
        space[..4].copy_from_slice(&about_len.to_le_bytes());
        space[4..8].copy_from_slice(&line_len.to_le_bytes());
        space[8..12].copy_from_slice(&kind.to_le_bytes());
        space[HEAD..HEAD + about.len()].copy_from_slice(about);
        space[HEAD + about.len()..].copy_from_slice(line);
        Some(end)
    }

    /// Writes the journal anew: `records` without lines, then what the child has not got yet. False when there is no room.
    pub(super) fn rewrite<'a>(
        &mut self,
        records: impl Iterator<Item = (u32, &'a [u8])>,
        unsent_kind: u32,
        unsent: &[u8],
    ) -> bool {
        let half = 1 - self.half();
        let base = self.given().to_le_bytes();
        let mut end = self.put(half, 0, KIND_BASE, &base, b"");
        for (kind, about) in records {
            end = end.and_then(|end| self.put(half, end, kind, about, b""));
        }
        if !unsent.is_empty() {
            end = end.and_then(|end| self.put(half, end, unsent_kind, b"", unsent));
        }
        let Some(end) = end else { return false };
        self.set(AT_JOURNAL, end as u64 | if half == 1 { HALF_BIT } else { 0 });
        self.flag(JOURNAL_BROKEN, false);
        true
    }

    /// All records, and what of their lines the child has not got yet.
    pub(super) fn records(&self) -> (Vec<Record>, Vec<u8>) {
        let journal = self.memory.bytes(AT_HALVES + self.half() * HALF_BYTES, self.journal_bytes());
        let (mut records, mut unsent) = (Vec::new(), Vec::new());
        let (mut at, mut position) = (0, 0);
        let number = |at: usize| Some(u32::from_le_bytes(journal.get(at..at + 4)?.try_into().ok()?));
        while let (Some(about_len), Some(line_len), Some(kind)) = (number(at), number(at + 4), number(at + 8)) {
            let (about_end, line_end) = (at + HEAD + about_len as usize, at + HEAD + about_len as usize + line_len as usize);
            let (Some(about), Some(line)) = (journal.get(at + HEAD..about_end), journal.get(about_end..line_end)) else { break };
            at = line_end;
            if kind == KIND_BASE {
                position = about.try_into().map(u64::from_le_bytes).unwrap_or(0);
                continue;
            }
            let reached = as_usize(self.given().saturating_sub(position)).min(line.len());
            unsent.extend_from_slice(&line[reached..]);
            position += line.len() as u64;
            records.push(Record { kind, about: about.to_vec(), line: line.to_vec() });
        }
        (records, unsent)
    }
}

fn as_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(tape: &Tape) -> Tape {
        Tape::open(tape.fd().try_clone_to_owned().expect("a descriptor")).expect("a tape")
    }

    #[test]
    fn what_was_read_and_not_settled_is_there_for_the_next() {
        let mut tape = Tape::new(b"about", 100).expect("a tape");
        tape.take(b"one\ntwo\n");
        tape.free(104);
        let found = next(&tape);
        assert_eq!((found.about(), found.taken()), (&b"about"[..], 108));
        assert_eq!(found.unsettled(104).as_deref(), Some(&b"two\n"[..]));
        assert_eq!((found.unsettled(108).as_deref(), found.unsettled(103), found.unsettled(109)), (Some(&b""[..]), None, None));
        // Around the end of the ring.
        for _ in 0..3 {
            let taken = tape.taken();
            tape.free(taken);
            tape.take(&vec![b'x'; RING_BYTES - 1]);
            assert_eq!(tape.unsettled(taken).map(|bytes| bytes.len()), Some(RING_BYTES - 1));
        }
        assert!(!tape.is_broken());
        tape.take(b"too much");
        assert!(next(&tape).is_broken());
        tape.free(tape.taken());
        assert!(!next(&tape).is_broken());
    }

    #[test]
    fn lines_that_did_not_reach_the_child_are_there_for_the_next() {
        let mut tape = Tape::new(b"", 0).expect("a tape");
        assert!(tape.append(1, b"first", b"abc\n") && tape.append(2, b"second", b"") && tape.append(1, b"third", b"defg\n"));
        tape.set_given(6);
        let (records, unsent) = next(&tape).records();
        assert_eq!(
            records.iter().map(|record| (record.kind, &record.about[..])).collect::<Vec<_>>(),
            [(1, &b"first"[..]), (2, b"second"), (1, b"third")]
        );
        assert_eq!(unsent, b"fg\n");
        assert!(tape.rewrite([(1, &b"third"[..])].into_iter(), 9, b"fg\n"));
        assert!(tape.append(1, b"fourth", b"h\n"));
        tape.set_given(7);
        let (records, unsent) = next(&tape).records();
        assert_eq!(records.iter().map(|record| record.kind).collect::<Vec<_>>(), [1, 9, 1]);
        assert_eq!(unsent, b"g\nh\n");
        assert!(!tape.append(1, b"", &vec![b'x'; HALF_BYTES]), "no room");
        assert_eq!(next(&tape).records().0.len(), 3);
    }
}
