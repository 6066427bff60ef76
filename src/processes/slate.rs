//! What of one managed process must not be lost with the server and isn't in a file: input that was accepted and not yet
//! given to it, half characters of its output, and its row until that is committed. Memory that the keeper holds, too.
//!
//! Positions of input count from the process's beginning; the byte at position p lies at p modulo the ring's size.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::{Acquire, Release};

use super::spool::Stream;
use crate::rt::sys::SharedMemory;

const VERSION: u64 = 2;

// Places in the memory.
const AT_VERSION: usize = 0;
/// Input up to here was given to the process.
const AT_GIVEN: usize = 8;
/// Input up to here was accepted.
const AT_ACCEPTED: usize = 16;
/// 1: stdin ends after what was accepted.
const AT_CLOSES: usize = 24;
/// Half characters, one for each stream: up to three bytes, how many, and the low half of how much is in the log.
const AT_CARRIES: usize = 32;
const AT_ROW_LEN: usize = 56;
const AT_ROW: usize = 64;
/// The ring begins at the next page behind the row.
const PAGE: usize = 4096;

/// One process's.
#[derive(Debug)]
pub(super) struct Slate {
    memory: SharedMemory,
}

impl Slate {
    /// For a process with this row, as JSON, and so much input at most that waits.
    ///
    /// # Errors
    /// No memory, or no descriptor.
    pub(super) fn new(row: &[u8], input_max_bytes: usize) -> io::Result<Self> {
        let mut memory = SharedMemory::new("sandboxd-process", ring_behind(row.len()) + input_max_bytes.max(1))?;
        memory.bytes_mut(AT_ROW, row.len()).copy_from_slice(row);
        memory.number(AT_ROW_LEN).store(row.len() as u64, Release);
        memory.number(AT_VERSION).store(VERSION, Release);
        Ok(Self { memory })
    }

    /// An earlier server's.
    ///
    /// # Errors
    /// It is none, or of another version.
    pub(super) fn open(fd: OwnedFd) -> io::Result<Self> {
        let slate = Self { memory: SharedMemory::open(fd)? };
        let is_one = slate.memory.len() > PAGE
            && slate.memory.number(AT_VERSION).load(Acquire) == VERSION
            && slate.memory.len() > slate.ring();
        if is_one { Ok(slate) } else { Err(io::ErrorKind::InvalidData.into()) }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.memory.fd()
    }

    /// The row as it was kept.
    pub(super) fn row(&self) -> &[u8] {
        self.memory.bytes(AT_ROW, self.get(AT_ROW_LEN).min(self.memory.len() - AT_ROW))
    }

    fn ring(&self) -> usize {
        ring_behind(self.get(AT_ROW_LEN).min(self.memory.len()))
    }

    fn get(&self, place: usize) -> usize {
        usize::try_from(self.memory.number(place).load(Acquire)).unwrap_or(0)
    }

    fn capacity(&self) -> usize {
        self.memory.len() - self.ring()
    }

    /// Bytes of input that wait.
    pub(super) fn waiting(&self) -> usize {
        self.get(AT_ACCEPTED).saturating_sub(self.get(AT_GIVEN))
    }

    /// Accepts input; false when there is no room for it.
    pub(super) fn accept(&mut self, bytes: &[u8]) -> bool {
        let (ring, capacity, accepted) = (self.ring(), self.capacity(), self.get(AT_ACCEPTED));
        if bytes.len() > capacity - self.waiting().min(capacity) {
            return false;
        }
        let at = accepted % capacity;
        let first = bytes.len().min(capacity - at);
        self.memory.bytes_mut(ring + at, first).copy_from_slice(&bytes[..first]);
        self.memory.bytes_mut(ring, bytes.len() - first).copy_from_slice(&bytes[first..]);
        self.memory.number(AT_ACCEPTED).store((accepted + bytes.len()) as u64, Release); // from here on it is accepted
        true
    }

    /// The next input, as much as lies in one piece; and its position.
    pub(super) fn next(&self) -> (&[u8], u64) {
        let (capacity, given) = (self.capacity(), self.get(AT_GIVEN));
        let at = given % capacity;
        (self.memory.bytes(self.ring() + at, self.waiting().min(capacity - at)), given as u64)
    }

    /// Input up to this position was given.
    pub(super) fn given(&self, position: u64) {
        self.memory.number(AT_GIVEN).store(position, Release);
    }

    /// Nobody reads what waits.
    pub(super) fn drop_input(&self) {
        self.given(self.memory.number(AT_ACCEPTED).load(Acquire));
    }

    /// Whether stdin ends after what was accepted.
    pub(super) fn closes(&self) -> bool {
        self.get(AT_CLOSES) == 1
    }

    pub(super) fn set_closes(&self, closes: bool) {
        self.memory.number(AT_CLOSES).store(u64::from(closes), Release);
    }

    /// Bytes of a stream that were read and aren't in its log, which has `logged` bytes. Nothing when the log has grown since
    /// they were noted: they are in it.
    pub(super) fn carry(&self, stream: Stream, logged: u64) -> Vec<u8> {
        let packed = self.memory.number(place_of(stream)).load(Acquire).to_le_bytes();
        let is_current = packed[4..] == logged.to_le_bytes()[..4];
        packed[..usize::from(packed[3]).min(3)].iter().copied().filter(|_| is_current).collect()
    }

    pub(super) fn set_carry(&self, stream: Stream, held: &[u8], logged: u64) {
        let mut packed = [0; 8];
        let len = held.len().min(3);
        packed[..len].copy_from_slice(&held[..len]);
        packed[3] = len as u8;
        packed[4..].copy_from_slice(&logged.to_le_bytes()[..4]);
        self.memory.number(place_of(stream)).store(u64::from_le_bytes(packed), Release);
    }
}

fn ring_behind(row_len: usize) -> usize {
    (AT_ROW + row_len).next_multiple_of(PAGE)
}

fn place_of(stream: Stream) -> usize {
    AT_CARRIES
        + match stream {
            Stream::Stdout => 0,
            Stream::Stderr => 8,
            Stream::Pty => 16,
        }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn what_was_accepted_is_found_by_the_next() {
        let mut slate = Slate::new(b"{}", 8).expect("memory");
        assert!(slate.accept(b"abcde") && !slate.accept(b"fghi"));
        assert_eq!(slate.next(), (&b"abcde"[..], 0));
        slate.given(3);
        assert!(slate.accept(b"fghi"));
        slate.set_carry(Stream::Pty, b"\xe2\x82", 1 << 40 | 9);
        slate.set_closes(true);
        let next = Slate::open(slate.fd().try_clone_to_owned().expect("a descriptor")).expect("a slate");
        drop(slate);
        assert_eq!(next.next(), (&b"defgh"[..], 3));
        next.given(8);
        assert_eq!((next.next(), next.waiting()), ((&b"i"[..], 8), 1));
        assert_eq!((next.carry(Stream::Pty, 1 << 40 | 9), next.carry(Stream::Stdout, 0)), (b"\xe2\x82".to_vec(), vec![]));
        assert_eq!(next.carry(Stream::Pty, 1 << 40 | 11), b"", "they are in the log");
        assert_eq!((next.closes(), next.row()), (true, &b"{}"[..]));
        let long = Slate::new(&[b' '; 3 * PAGE], 8).expect("memory");
        assert_eq!((long.row().len(), long.capacity()), (3 * PAGE, 8));
        let (reader, _) = std::io::pipe().expect("a pipe");
        assert!(Slate::open(reader.as_fd().try_clone_to_owned().expect("a descriptor")).is_err());
    }
}
