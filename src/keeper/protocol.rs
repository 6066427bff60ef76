//! What keeper and server say to each other: datagrams on a pair of Unix sockets (SOCK_SEQPACKET), descriptors beside them
//! (unix(7), SCM_RIGHTS).
//!
//! The server's first word is [`Kind::Hello`]; the keeper answers with [`Kind::Welcome`], [`Kind::State`], [`Kind::Last`] when
//! a server has died before, one [`Kind::Kept`] for each entry, and [`Kind::End`]. From then on each says what there is to say. Each
//! message has the sender's version: kinds are only ever added, and whoever doesn't know one leaves it out, so that an old
//! keeper serves a new server.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// Of what this binary speaks.
pub(super) const VERSION: u16 = 1;
/// Bytes of a key.
pub(super) const KEY_MAX: usize = 64;
/// Descriptors of one entry.
pub(super) const FDS_MAX: usize = 4;
/// Bytes of a text.
pub(super) const TEXT_MAX: usize = 4096;
/// Says of a [`Kind::Last`] that an upgrade failed.
pub(super) const UPGRADE: &str = "upgrade";

const HEAD: usize = 24;
const MESSAGE_MAX: usize = HEAD + KEY_MAX + TEXT_MAX;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// exit(2) with this code.
    Code(i32),
    /// A signal, by number.
    Signal(i32),
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// Server: here I am.
    Hello = 1,
    /// Server: keep these descriptors, at the places that the bits of `number` name, under this key; an entry of that name
    /// is replaced.
    Keep = 2,
    /// Server: the process of this entry has this pid.
    Started = 3,
    /// Server: this entry isn't needed any more.
    Forget = 4,
    /// Server: requests are answered.
    Ready = 5,
    /// Server: close the descriptor at place `number` of this entry.
    Close = 7,
    /// Server: `text` is the path of the program to start next; it has `number` ms to become ready.
    Upgrade = 6,
    /// Keeper: `text` is the run's id, `number` counts the starts of servers, `pid` is the keeper.
    Welcome = 101,
    /// Keeper: how the last server ended; `number` is how long it ran in ms, `pid` which it was, `text` the end of its
    /// stderr. The key is [`UPGRADE`] when it was a newer program that never got ready.
    Last = 102,
    /// Keeper: an entry with its descriptors (bit n of `number`: there is one at place n), its pid (0: none) and its end
    /// when it ended.
    Kept = 103,
    /// Keeper: that was all.
    End = 104,
    /// Keeper: the process of this entry ended.
    Exited = 105,
    /// Keeper: `number` counts the servers that died in a row, `text` is the path of the program that is started.
    State = 106,
}

const KINDS: [Kind; 13] = [
    Kind::Hello,
    Kind::Keep,
    Kind::Started,
    Kind::Forget,
    Kind::Ready,
    Kind::Close,
    Kind::Upgrade,
    Kind::Welcome,
    Kind::Last,
    Kind::Kept,
    Kind::End,
    Kind::Exited,
    Kind::State,
];

/// One message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Message<'a> {
    pub(super) kind: Kind,
    pub(super) version: u16,
    pub(super) pid: i32,
    pub(super) ended: Option<Ended>,
    pub(super) number: u64,
    pub(super) key: &'a str,
    pub(super) text: &'a [u8],
}

impl<'a> Message<'a> {
    /// One that says no more than its kind.
    pub(super) fn new(kind: Kind) -> Self {
        Self { kind, version: VERSION, pid: 0, ended: None, number: 0, key: "", text: b"" }
    }

    /// One about an entry.
    pub(super) fn of(kind: Kind, key: &'a str) -> Self {
        Self { key, ..Self::new(kind) }
    }

    fn head(&self) -> [u8; HEAD] {
        let (flag, value) = match self.ended {
            None => (0, 0),
            Some(Ended::Code(code)) => (1, code),
            Some(Ended::Signal(signal)) => (2, signal),
        };
        let mut head = [0; HEAD];
        (head[0], head[1]) = (self.kind as u8, flag);
        head[2..4].copy_from_slice(&self.version.to_le_bytes());
        head[4..8].copy_from_slice(&self.pid.to_le_bytes());
        head[8..12].copy_from_slice(&value.to_le_bytes());
        head[12..20].copy_from_slice(&self.number.to_le_bytes());
        head[20..22].copy_from_slice(&(self.key.len().min(KEY_MAX) as u16).to_le_bytes());
        head[22..24].copy_from_slice(&(self.text.len().min(TEXT_MAX) as u16).to_le_bytes());
        head
    }

    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let four = |at: usize| Some(i32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let two = |at: usize| Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
        let kind = *bytes.first()?;
        let (key_end, value) = (HEAD + usize::from(two(20)?), four(8)?);
        let text_end = key_end + usize::from(two(22)?);
        Some(Self {
            kind: KINDS.into_iter().find(|known| *known as u8 == kind)?,
            version: two(2)?,
            pid: four(4)?,
            ended: match bytes.get(1)? {
                1 => Some(Ended::Code(value)),
                2 => Some(Ended::Signal(value)),
                _ => None,
            },
            number: u64::from_le_bytes(bytes.get(12..20)?.try_into().ok()?),
            key: std::str::from_utf8(bytes.get(HEAD..key_end)?).ok()?,
            text: bytes.get(key_end..text_end)?,
        })
    }
}

/// Sends one message. What is too long is cut: keys are ours, texts are tails.
///
/// # Errors
/// `WouldBlock` when the other side doesn't read, `BrokenPipe` when it is gone.
pub(super) fn send(socket: impl AsFd, message: &Message<'_>, fds: &[BorrowedFd<'_>], flags: SendFlags) -> io::Result<()> {
    let head = message.head();
    let key = &message.key.as_bytes()[..message.key.len().min(KEY_MAX)];
    let text = &message.text[..message.text.len().min(TEXT_MAX)];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut rights = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !rights.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let parts = [IoSlice::new(&head), IoSlice::new(key), IoSlice::new(text)];
    loop {
        match sendmsg(&socket, &parts, &mut rights, flags | SendFlags::NOSIGNAL) {
            Err(rustix::io::Errno::INTR) => {}
            sent => return Ok(sent.map(|_| ())?),
        }
    }
}

/// Descriptors at the places that the bits of `places` name.
pub(super) fn placed(fds: [Option<OwnedFd>; FDS_MAX], places: u64) -> [Option<OwnedFd>; FDS_MAX] {
    let mut fds = fds.into_iter().flatten();
    std::array::from_fn(|place| if places >> place & 1 == 1 { fds.next() } else { None })
}

/// Where messages are received: on the stack, of a fixed size.
pub(super) struct Inbox {
    bytes: [u8; MESSAGE_MAX],
}

impl Inbox {
    pub(super) fn new() -> Self {
        Self { bytes: [0; MESSAGE_MAX] }
    }

    /// Receives one message with its descriptors, closed on exec. `None`: the other side is gone. A message of a kind
    /// that isn't known is left out.
    ///
    /// # Errors
    /// `WouldBlock` with [`RecvFlags::DONTWAIT`] when there is nothing.
    pub(super) fn receive(
        &mut self,
        socket: impl AsFd,
        flags: RecvFlags,
    ) -> io::Result<Option<(Message<'_>, [Option<OwnedFd>; FDS_MAX])>> {
        loop {
            let mut fds = [const { None }; FDS_MAX];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
            let mut rights = RecvAncillaryBuffer::new(&mut space);
            let mut parts = [IoSliceMut::new(&mut self.bytes)];
            let received = match recvmsg(&socket, &mut parts, &mut rights, flags | RecvFlags::CMSG_CLOEXEC) {
                Err(rustix::io::Errno::INTR) => continue,
                Err(rustix::io::Errno::CONNRESET) => return Ok(None),
                received => received?.bytes,
            };
            let sent = rights.drain().filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(fds) => Some(fds),
                _ => None,
            });
            for (slot, fd) in fds.iter_mut().zip(sent.flatten()) {
                *slot = Some(fd);
            }
            if received == 0 {
                return Ok(None);
            }
            if Message::parse(&self.bytes[..received]).is_some() {
                return Ok(Message::parse(&self.bytes[..received]).map(|message| (message, fds))); // the checker can't follow a loan out of a loop
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    #[test]
    fn messages_arrive_with_their_descriptors() {
        let (a, b) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).expect("a pair");
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let sent = Message {
            pid: 42,
            ended: Some(Ended::Signal(9)),
            number: u64::MAX,
            text: b"the end",
            ..Message::of(Kind::Kept, "proc_1")
        };
        send(&a, &sent, &[reader.as_fd(), writer.as_fd()], SendFlags::empty()).expect("sent");
        let mut inbox = Inbox::new();
        let (message, fds) = inbox.receive(&b, RecvFlags::empty()).expect("received").expect("a message");
        assert_eq!(message, sent);
        assert_eq!(fds.iter().flatten().count(), 2);
        rustix::io::write(fds[1].as_ref().expect("the writer"), b"x").expect("written");
        drop(a);
        assert!(inbox.receive(&b, RecvFlags::empty()).expect("an end").is_none());
    }

    #[test]
    fn what_is_not_known_or_torn_is_left_out() {
        let (a, b) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).expect("a pair");
        for bytes in [&[77u8; 40][..], &[2, 0, 1], &[3; 23]] {
            rustix::io::write(&a, bytes).expect("written");
        }
        send(&a, &Message::new(Kind::End), &[], SendFlags::empty()).expect("sent");
        let mut inbox = Inbox::new();
        let (message, _) = inbox.receive(&b, RecvFlags::empty()).expect("received").expect("a message");
        assert_eq!(message.kind, Kind::End);
    }
}
