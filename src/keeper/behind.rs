//! What a keeper that doesn't read has no room for: it is stopped, or the machine is. Words without descriptors wait here in
//! their order, so that nobody waits for it.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use rustix::net::SendFlags;

use super::protocol::{Kind, Message, send};

/// More than is said about all processes that a server may have.
const WORDS_MAX: usize = 16 * 1024;

/// A message without text and descriptors.
struct Word {
    kind: Kind,
    key: String,
    number: u64,
    pid: i32,
}

#[derive(Default)]
pub(super) struct Behind {
    words: VecDeque<Word>,
}

impl Behind {
    pub(super) fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// Sends what the keeper takes right now. True when nothing is left.
    pub(super) fn catch_up(&mut self, socket: &OwnedFd) -> bool {
        while let Some(Word { kind, key, number, pid }) = self.words.front() {
            let message = Message { number: *number, pid: *pid, ..Message::of(*kind, key) };
            match send(socket, &message, &[], SendFlags::DONTWAIT) {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return false,
                _ => _ = self.words.pop_front(), // an error means that it is gone
            }
        }
        true
    }

    /// Sends a word, now or later. False when there are too many.
    pub(super) fn say(&mut self, socket: &OwnedFd, message: &Message<'_>) -> bool {
        if self.words.len() >= WORDS_MAX {
            return false;
        }
        let Message { kind, key, number, pid, .. } = *message;
        self.words.push_back(Word { kind, key: key.to_owned(), number, pid });
        self.catch_up(socket);
        true
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, socketpair};

    use super::super::protocol::Inbox;
    use super::*;

    #[test]
    fn words_come_in_their_order_once_they_are_read() {
        let (a, b) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).expect("a pair");
        let mut behind = Behind::default();
        for number in 0..5000 {
            assert!(behind.say(&a, &Message { number, ..Message::of(Kind::Forget, "proc_1") }));
        }
        assert!(!behind.is_empty(), "a socket's queue isn't so long");
        let (mut inbox, mut expected) = (Inbox::new(), 0);
        loop {
            while let Ok(Some((message, _))) = inbox.receive(&b, RecvFlags::DONTWAIT) {
                assert_eq!((message.kind, message.number, message.key), (Kind::Forget, expected, "proc_1"));
                expected += 1;
            }
            if behind.catch_up(&a) && expected == 5000 {
                return;
            }
        }
    }

    #[test]
    fn there_is_an_end_to_it() {
        let (a, _b) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).expect("a pair");
        let mut behind = Behind::default();
        assert!((0..2 * WORDS_MAX).any(|_| !behind.say(&a, &Message::new(Kind::Ready))));
        assert_eq!(behind.words.len(), WORDS_MAX);
    }
}
