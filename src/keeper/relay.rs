//! The server's stderr on its way through the keeper, which remembers the end of it.

use std::io::Read as _;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::protocol::TEXT_MAX;

/// Passed on at once: a pipe that poll(2) calls writable takes so much without waiting (pipe(7), PIPE_BUF).
const PIECE: usize = 4096;

/// The end of what a server wrote.
pub(super) struct Tail {
    bytes: [u8; TEXT_MAX],
    len: usize,
}

impl Tail {
    pub(super) fn new() -> Self {
        Self { bytes: [0; TEXT_MAX], len: 0 }
    }

    pub(super) fn clear(&mut self) {
        self.len = 0;
    }

    pub(super) fn push(&mut self, piece: &[u8]) {
        let piece = &piece[piece.len().saturating_sub(TEXT_MAX)..];
        let keep = self.len.min(TEXT_MAX - piece.len());
        self.bytes.copy_within(self.len - keep..self.len, 0);
        self.bytes[keep..keep + piece.len()].copy_from_slice(piece);
        self.len = keep + piece.len();
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Passes one piece on. False at the end.
pub(super) fn pass_on(from: &OwnedFd, tail: &mut Tail) -> bool {
    let mut piece = [0; PIECE];
    match rustix::io::read(from, &mut piece) {
        Ok(0) => false,
        Ok(count) => {
            tail.push(&piece[..count]);
            let _ = rustix::io::write(std::io::stderr().as_fd(), &piece[..count]); // nobody reads it: the tail has it
            true
        }
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => true,
        Err(_) => false,
    }
}

/// True when our stderr takes a piece without waiting.
pub(super) fn is_free() -> bool {
    let mut out = [PollFd::from_borrowed_fd(rustix::stdio::stderr(), PollFlags::OUT)];
    !poll(&mut out, Some(&Timespec::default())).is_ok_and(|count| count == 0)
}

/// What is left once the server is gone. Where nobody reads our stderr, only the tail has it: the next server must not wait.
pub(super) fn drain(from: OwnedFd, tail: &mut Tail) {
    let mut rest = std::fs::File::from(from);
    let mut piece = [0; PIECE];
    while let Ok(count @ 1..) = rest.read(&mut piece) {
        tail.push(&piece[..count]);
        if is_free() {
            let _ = rustix::io::write(std::io::stderr().as_fd(), &piece[..count]); // as above
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_the_end() {
        let mut tail = Tail::new();
        tail.push(b"one ");
        tail.push(b"two");
        assert_eq!(tail.bytes(), b"one two");
        tail.push(&[b'x'; TEXT_MAX - 3]);
        assert_eq!((tail.bytes().len(), &tail.bytes()[..4]), (TEXT_MAX, &b"twox"[..]));
        tail.push(&[b'y'; 2 * TEXT_MAX]);
        assert!(tail.bytes().len() == TEXT_MAX && tail.bytes().iter().all(|byte| *byte == b'y'));
    }
}
