//! What of one managed process must not be lost with the server and isn't in a file: input that was accepted and not yet
//! given to it, half characters of its output, and its row until that is committed. Memory that the keeper holds, too.
//!
//! Positions of input count from the process's beginning; the byte at position p lies at p modulo the ring's size.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::{Acquire, Release};

use super::spool::Stream;
use crate::rt::sys::SharedMemory;

const VERSION: u64 = 1;

// Places in the memory.
const AT_VERSION: usize = 0;
/// Input up to here was given to the process.
const AT_GIVEN: usize = 8;
/// Input up to here was accepted.
const AT_ACCEPTED: usize = 16;
/// 1: stdin ends after what was accepted.
const AT_CLOSES: usize = 24;
/// Half characters, one for each stream.
const AT_CARRIES: usize = 32;
const AT_ROW_LEN: usize = 56;
const AT_ROW: usize = 64;
/// A longer row has to be committed before anybody hears of its process.
pub(super) const ROW_MAX_BYTES: usize = 16 * 1024 - AT_ROW;
const AT_RING: usize = 16 * 1024;

/// One process's.
#[derive(Debug)]
pub(super) struct Slate {
    memory: SharedMemory,
}

impl Slate {
    /// For a process with so much input at most that waits.
    ///
    /// # Errors
    /// No memory, or no descriptor.
    pub(super) fn new(input_max_bytes: usize) -> io::Result<Self> {
        let memory = SharedMemory::new("sandboxd-process", AT_RING + input_max_bytes.max(1))?;
        memory.number(AT_VERSION).store(VERSION, Release);
        Ok(Self { memory })
    }

    /// An earlier server's.
    ///
    /// # Errors
    /// It is none, or of another version.
    pub(super) fn open(fd: OwnedFd) -> io::Result<Self> {
        let memory = SharedMemory::open(fd)?;
        if memory.len() <= AT_RING || memory.number(AT_VERSION).load(Acquire) != VERSION {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(Self { memory })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.memory.fd()
    }

    /// Keeps the row as JSON; false when it is too long.
    pub(super) fn keep_row(&mut self, json: &[u8]) -> bool {
        if json.len() > ROW_MAX_BYTES {
            return false;
        }
        self.memory.bytes_mut(AT_ROW, json.len()).copy_from_slice(json);
        self.memory.number(AT_ROW_LEN).store(json.len() as u64, Release);
        true
    }

    /// The row as it was kept.
    pub(super) fn row(&self) -> &[u8] {
        let len = self.get(AT_ROW_LEN).min(ROW_MAX_BYTES);
        self.memory.bytes(AT_ROW, len)
    }

    fn get(&self, place: usize) -> usize {
        usize::try_from(self.memory.number(place).load(Acquire)).unwrap_or(0)
    }

    fn capacity(&self) -> usize {
        self.memory.len() - AT_RING
    }

    /// Bytes of input that wait.
    pub(super) fn waiting(&self) -> usize {
        self.get(AT_ACCEPTED).saturating_sub(self.get(AT_GIVEN))
    }

    /// Accepts input; false when there is no room for it.
    pub(super) fn accept(&mut self, bytes: &[u8]) -> bool {
        let (capacity, accepted) = (self.capacity(), self.get(AT_ACCEPTED));
        if bytes.len() > capacity - self.waiting().min(capacity) {
            return false;
        }
        let at = accepted % capacity;
        let first = bytes.len().min(capacity - at);
        self.memory.bytes_mut(AT_RING + at, first).copy_from_slice(&bytes[..first]);
        self.memory.bytes_mut(AT_RING, bytes.len() - first).copy_from_slice(&bytes[first..]);
        self.memory.number(AT_ACCEPTED).store((accepted + bytes.len()) as u64, Release); // from here on it is accepted
        true
    }

    /// The next input, as much as lies in one piece; and its position.
    pub(super) fn next(&self) -> (&[u8], u64) {
        let (capacity, given) = (self.capacity(), self.get(AT_GIVEN));
        let at = given % capacity;
        (self.memory.bytes(AT_RING + at, self.waiting().min(capacity - at)), given as u64)
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

    /// Bytes of a stream that were read and are not in its log yet, as [`pack`](super::desk::pack) writes them.
    pub(super) fn carry(&self, stream: Stream) -> u64 {
        self.memory.number(place_of(stream)).load(Acquire)
    }

    pub(super) fn set_carry(&self, stream: Stream, packed: u64) {
        self.memory.number(place_of(stream)).store(packed, Release);
    }
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
        let mut slate = Slate::new(8).expect("memory");
        assert!(slate.accept(b"abcde") && !slate.accept(b"fghi"));
        assert_eq!(slate.next(), (&b"abcde"[..], 0));
        slate.given(3);
        assert!(slate.accept(b"fghi"));
        slate.set_carry(Stream::Pty, 7);
        slate.set_closes(true);
        assert!(slate.keep_row(b"{}") && !slate.keep_row(&[b' '; ROW_MAX_BYTES + 1]));
        let next = Slate::open(slate.fd().try_clone_to_owned().expect("a descriptor")).expect("a slate");
        drop(slate);
        assert_eq!(next.next(), (&b"defgh"[..], 3));
        next.given(8);
        assert_eq!((next.next(), next.waiting()), ((&b"i"[..], 8), 1));
        assert_eq!((next.carry(Stream::Pty), next.carry(Stream::Stdout), next.closes(), next.row()), (7, 0, true, &b"{}"[..]));
        let (reader, _) = std::io::pipe().expect("a pipe");
        assert!(Slate::open(reader.as_fd().try_clone_to_owned().expect("a descriptor")).is_err());
    }
}
