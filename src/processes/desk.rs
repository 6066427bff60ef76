//! Moving bytes between a kept child and us so that a SIGKILL at any moment loses and doubles none.
//!
//! read(2) takes bytes out of the kernel and tells only the dying process how many. A *desk* is a pipe of our own, which
//! nobody else touches, and memory that outlives us, both held by the keeper, too. Bytes go from the child into our pipe
//! by splice(2), which is one step for the kernel; how many are there can be asked afterwards (FIONREAD). From there
//! they are read into the memory, and noted as done only once they are where they belong. Towards the child the same the
//! other way round. Whoever comes next reads from the desk where the bytes are ([`Desk::recover`]):
//!
//! ```text
//! taking:  note whose ─▶ splice child→pipe ─▶ note n ─▶ read pipe→memory ─▶ append to log or ring ─▶ idle
//!          nothing, or in the pipe             in pipe or memory              `base` tells whether it was appended
//! giving:  note whose ─▶ write →pipe ─▶ note n ─▶ splice pipe→child ─▶ note the new position ─▶ idle
//!          not sent                     n − what is in the pipe was sent
//! ```

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::{Mutex, PoisonError};

use rustix::pipe::{SpliceFlags, splice};

use super::children::Wire;
use super::spool::Stream;
use super::types::ProcessId;
use crate::keeper::{Keeper, Kept};
use crate::rt::sys::SharedMemory;

/// What is moved at once: a pipe holds so much (pipe(7)).
pub(super) const DESK_BYTES: usize = 64 * 1024;

/// A terminal gives no more at a time, and the kernel takes pages for all that is asked for.
const TERMINAL_BYTES: usize = 4096;

/// So many at most are in use at the same time: one for each thread that runs tasks.
const DESKS: usize = 4;

const KEY_PREFIX: &str = "desk_";
const VERSION: u64 = 1;

// Places in the memory.
const AT_VERSION: usize = 0;
const AT_STATE: usize = 8;
const AT_PROCESS: usize = 16;
const AT_STREAM: usize = 24;
const AT_COUNT: usize = 32;
const AT_BASE: usize = 40;
const AT_CARRY: usize = 48;
const AT_BYTES: usize = 4096;

const IDLE: u64 = 0;
const TAKING: u64 = 1;
const GIVING: u64 = 2;

/// One desk.
pub(super) struct Desk {
    reader: OwnedFd,
    writer: OwnedFd,
    memory: SharedMemory,
}

/// What lay on a desk when its server died.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// Output that may not be where it belongs: it does if more than `base` bytes are there, as many as are more.
    Taken { process: ProcessId, stream: Stream, base: u64, carry: u64, bytes: Vec<u8> },
    /// Input up to this position has reached the process.
    Given { process: ProcessId, position: u64 },
}

impl Left {
    pub(super) fn process(&self) -> ProcessId {
        match self {
            Self::Taken { process, .. } | Self::Given { process, .. } => *process,
        }
    }
}

/// All desks of a server.
pub(super) struct Desks {
    free: Mutex<Vec<Desk>>,
    /// With something that an earlier server left: it lies there until it is where it belongs, as this server may be killed, too.
    held: Mutex<Vec<(ProcessId, Desk)>>,
}

impl Desks {
    /// Takes the desks of an earlier server, or makes new ones; gives what lay on them. `None` without a keeper, or where
    /// there can't be any: then a SIGKILL may lose what was just being read.
    pub(super) fn new(keeper: &Keeper, kept: Vec<Kept>) -> (Option<Self>, Vec<Left>) {
        if !keeper.is_there() {
            return (None, Vec::new());
        }
        let (mut free, mut held, mut left, mut used) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for entry in kept {
            let key = entry.key.clone();
            let Some(mut desk) = Desk::of(entry) else { continue };
            used.push(key);
            match desk.recover() {
                Some(what) => {
                    held.push((what.process(), desk));
                    left.push(what);
                }
                None => free.push(desk),
            }
        }
        // As many as are held come on top, each time at most one for each thread that was reading.
        let mut keys = (0..).map(|number| format!("{KEY_PREFIX}{number}")).filter(|key| !used.contains(key));
        while free.len() < DESKS
            && let Some(key) = keys.next()
        {
            match Desk::make(keeper, &key) {
                Ok(desk) => free.push(desk),
                Err(error) => {
                    tracing::warn!(%error, "no desks: if the server is killed, output that it is just reading is lost");
                    return (None, left);
                }
            }
        }
        (Some(Self { free: Mutex::new(free), held: Mutex::new(held) }), left)
    }

    /// What was left of this process is where it belongs, or of no use.
    pub(super) fn release(&self, process: ProcessId) {
        self.release_where(|of| of == process);
    }

    /// What nobody took up is of no use.
    pub(super) fn release_all(&self) {
        self.release_where(|_| true);
    }

    fn release_where(&self, is_it: impl Fn(ProcessId) -> bool) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let (done, others) = std::mem::take(&mut *held).into_iter().partition(|(process, _)| is_it(*process));
        *held = others;
        drop(held);
        for (_, mut desk) in done {
            desk.clear();
            self.free.lock().unwrap_or_else(PoisonError::into_inner).push(desk);
        }
    }

    /// True of what [`Desks::new`] wants.
    pub(super) fn owns(kept: &Kept) -> bool {
        kept.key.starts_with(KEY_PREFIX)
    }

    /// With a desk, when one is free. Must not wait meanwhile.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Desk) -> T) -> Option<T> {
        let mut desk = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
        let done = work(&mut desk);
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(desk);
        Some(done)
    }
}

/// Whose bytes are moved.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner {
    pub(super) process: ProcessId,
    pub(super) stream: Stream,
    /// How many bytes are where they belong already, or have been given.
    pub(super) base: u64,
    /// Bytes of the stream that were taken before and are not appended yet: see [`pack`].
    pub(super) carry: u64,
}

impl Desk {
    fn make(keeper: &Keeper, key: &str) -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        let (reader, writer) = (OwnedFd::from(reader), OwnedFd::from(writer));
        rustix::io::ioctl_fionbio(&reader, true)?;
        rustix::io::ioctl_fionbio(&writer, true)?;
        let memory = SharedMemory::new("sandboxd-desk", AT_BYTES + DESK_BYTES)?;
        memory.number(AT_VERSION).store(VERSION, Release);
        keeper.keep(key, &[reader.as_fd(), writer.as_fd(), memory.fd()])?;
        Ok(Self { reader, writer, memory })
    }

    fn of(kept: Kept) -> Option<Self> {
        let [reader, writer, memory, _] = kept.fds;
        let memory = SharedMemory::open(memory?).ok()?;
        let is_known = memory.len() == AT_BYTES + DESK_BYTES && memory.number(AT_VERSION).load(Acquire) == VERSION;
        is_known.then_some(Self { reader: reader?, writer: writer?, memory })
    }

    fn get(&self, place: usize) -> u64 {
        self.memory.number(place).load(Acquire)
    }

    fn set(&self, place: usize, value: u64) {
        self.memory.number(place).store(value, Release);
    }

    fn begin(&self, state: u64, owner: Owner) {
        self.set(AT_COUNT, 0);
        self.set(AT_PROCESS, owner.process.0);
        self.set(AT_STREAM, stream_number(owner.stream));
        self.set(AT_BASE, owner.base);
        self.set(AT_CARRY, owner.carry);
        self.set(AT_STATE, state);
    }

    /// Takes what a child has written, and shows it to `look`, which puts it where it belongs. Gives how much it was; 0 at the
    /// stream's end.
    ///
    /// # Errors
    /// `WouldBlock` when there is nothing.
    pub(super) fn take(&mut self, wire: &Wire, owner: Owner, look: impl FnOnce(&[u8])) -> io::Result<usize> {
        self.begin(TAKING, owner);
        let moved = wire.try_take(|from| match owner.stream {
            Stream::Pty => moved_in_pieces(from, self.writer.as_fd()),
            Stream::Stdout | Stream::Stderr => moved(from, self.writer.as_fd(), DESK_BYTES),
        });
        if is_impossible(&moved) {
            return self.take_by_reading(wire, look);
        }
        let taken = moved.and_then(|count| {
            self.set(AT_COUNT, count as u64);
            read_exactly(&self.reader, self.memory.bytes_mut(AT_BYTES, count))?;
            Ok(count)
        });
        if let Ok(count @ 1..) = taken {
            look(self.memory.bytes(AT_BYTES, count));
        }
        self.set(AT_STATE, IDLE);
        taken
    }

    /// Where there is no splice(2) from this: what is just being read when the server is killed is lost.
    fn take_by_reading(&mut self, wire: &Wire, look: impl FnOnce(&[u8])) -> io::Result<usize> {
        self.set(AT_STATE, IDLE);
        let taken = wire.try_read(self.memory.bytes_mut(AT_BYTES, DESK_BYTES));
        if let Ok(count @ 1..) = taken {
            look(self.memory.bytes(AT_BYTES, count));
        }
        taken
    }

    /// Gives a child what it takes right now of `bytes`; `note` is told how much that was before anything can go wrong.
    ///
    /// # Errors
    /// `WouldBlock`, or `BrokenPipe` when nobody reads any more.
    pub(super) fn give(&mut self, wire: &Wire, owner: Owner, bytes: &[u8], note: impl FnOnce(usize)) -> io::Result<usize> {
        self.begin(GIVING, owner);
        let piece = &bytes[..bytes.len().min(DESK_BYTES)];
        let given = rustix::io::write(&self.writer, piece).map_err(io::Error::from).and_then(|count| {
            self.set(AT_COUNT, count as u64);
            let given = wire.try_give(|to| moved(self.reader.as_fd(), to, count));
            if is_impossible(&given) { wire.try_write(&piece[..count]) } else { given }
        });
        if let Ok(count) = given {
            note(count);
        }
        self.set(AT_STATE, IDLE);
        self.empty();
        given
    }

    /// Throws away what is in the pipe.
    fn empty(&mut self) {
        while let Ok(waiting @ 1..) = rustix::io::ioctl_fionread(&self.reader) {
            let count = usize::try_from(waiting).unwrap_or(DESK_BYTES).min(DESK_BYTES);
            if rustix::io::read(&self.reader, self.memory.bytes_mut(AT_BYTES, count)).is_err() {
                return;
            }
        }
    }

    /// Nothing lies here any more.
    fn clear(&mut self) {
        self.set(AT_STATE, IDLE);
        self.empty();
    }

    /// What an earlier server left here. It stays until [`Desk::clear`], and is found again by whoever looks again.
    fn recover(&mut self) -> Option<Left> {
        let waiting = rustix::io::ioctl_fionread(&self.reader).ok().and_then(|count| usize::try_from(count).ok()).unwrap_or(0);
        let (process, base) = (ProcessId(self.get(AT_PROCESS)), self.get(AT_BASE));
        let count = usize::try_from(self.get(AT_COUNT)).unwrap_or(0).min(DESK_BYTES);
        let left = match self.get(AT_STATE) {
            TAKING => {
                // Not noted yet: all that was moved is in the pipe.
                let count = if count == 0 { waiting.min(DESK_BYTES) } else { count };
                let read = count.saturating_sub(waiting);
                self.set(AT_COUNT, count as u64); // before anything of it leaves the pipe
                let rest = self.memory.bytes_mut(AT_BYTES + read, count - read);
                let is_whole = read_exactly(&self.reader, rest).is_ok();
                let stream = Stream::ALL.into_iter().find(|stream| stream_number(*stream) == self.get(AT_STREAM));
                let carry = self.get(AT_CARRY);
                let bytes = self.memory.bytes(AT_BYTES, count).to_vec();
                stream.filter(|_| is_whole && count > 0).map(|stream| Left::Taken { process, stream, base, carry, bytes })
            }
            // What is left in the pipe was not given; nor anything, before the count is noted.
            GIVING if count > 0 => Some(Left::Given { process, position: base + count.saturating_sub(waiting) as u64 }),
            _ => None,
        };
        if left.is_none() {
            self.clear();
        }
        left
    }
}

fn moved(from: BorrowedFd<'_>, to: BorrowedFd<'_>, most: usize) -> io::Result<usize> {
    loop {
        match splice(from, None, to, None, most, SpliceFlags::NONBLOCK | SpliceFlags::MOVE) {
            Err(rustix::io::Errno::INTR) => {}
            moved => return Ok(moved?),
        }
    }
}

/// This kernel, or what stands for one, can't splice(2) here: Linux 5.10 from terminals, for one.
fn is_impossible(moved: &io::Result<usize>) -> bool {
    use nix::errno::Errno;
    let errno = moved.as_ref().err().and_then(io::Error::raw_os_error).map(Errno::from_raw);
    matches!(errno, Some(Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP))
}

/// From a terminal: as many pieces as there are and the pipe has places for.
fn moved_in_pieces(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<usize> {
    let mut count = 0;
    for _ in 0..DESK_BYTES / TERMINAL_BYTES {
        match moved(from, to, TERMINAL_BYTES) {
            Ok(0) => break,
            Ok(more) => count += more,
            Err(error) if count == 0 => return Err(error),
            Err(_) => break, // it is found again next time
        }
    }
    Ok(count)
}

/// Of a pipe that surely has so much.
fn read_exactly(from: &OwnedFd, into: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < into.len() {
        match rustix::io::read(from, &mut into[filled..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn stream_number(stream: Stream) -> u64 {
    match stream {
        Stream::Stdout => 0,
        Stream::Stderr => 1,
        Stream::Pty => 2,
    }
}

/// Up to seven bytes as a number.
pub(super) fn pack(bytes: &[u8]) -> u64 {
    let mut packed = [0; 8];
    let len = bytes.len().min(7);
    packed[..len].copy_from_slice(&bytes[..len]);
    packed[7] = len as u8;
    u64::from_le_bytes(packed)
}

/// The inverse of [`pack`].
pub(super) fn unpack(packed: u64) -> Vec<u8> {
    let packed = packed.to_le_bytes();
    packed[..usize::from(packed[7]).min(7)].to_vec()
}

#[cfg(test)]
mod tests {
    use tokio::io::Interest;

    use super::*;

    /// A desk as the next server finds it.
    fn found(desk: &Desk) -> Desk {
        let clone = |fd: &OwnedFd| fd.try_clone().expect("a descriptor");
        let memory = SharedMemory::open(desk.memory.fd().try_clone_to_owned().expect("a descriptor")).expect("memory");
        Desk { reader: clone(&desk.reader), writer: clone(&desk.writer), memory }
    }

    /// What the next server finds; and the one after it, when that one was killed before it had put it where it belongs.
    fn recovered(desk: &Desk) -> Option<Left> {
        let first = found(desk).recover();
        let mut next = found(desk);
        assert_eq!(next.recover(), first);
        next.clear();
        assert_eq!(found(desk).recover(), None);
        first
    }

    fn owner(base: u64) -> Owner {
        Owner { process: ProcessId(7), stream: Stream::Stdout, base, carry: pack(b"\xc3") }
    }

    fn taken(bytes: &[u8]) -> Option<Left> {
        Some(Left::Taken { process: ProcessId(7), stream: Stream::Stdout, base: 10, carry: pack(b"\xc3"), bytes: bytes.to_vec() })
    }

    #[test]
    fn packed_bytes_come_back() {
        for bytes in [&b""[..], b"a", b"\0\0", b"\xf0\x9f\x98", b"1234567"] {
            assert_eq!(unpack(pack(bytes)), bytes);
        }
    }

    #[tokio::test]
    async fn whatever_step_a_kill_comes_after_nothing_taken_is_lost() {
        let desk = Desk::make(&Keeper::none(), "desk").expect("a desk");
        let (from, mut to) = io::pipe().expect("a pipe");
        assert_eq!(recovered(&desk), None, "nothing was done");
        desk.begin(TAKING, owner(10));
        assert_eq!(recovered(&desk), None, "nothing was moved");
        // Moved, and not noted.
        io::Write::write_all(&mut to, b"hello").expect("written");
        desk.begin(TAKING, owner(10));
        moved(from.as_fd(), desk.writer.as_fd(), DESK_BYTES).expect("moved");
        assert_eq!(recovered(&desk), taken(b"hello"));
        assert_eq!(recovered(&desk), None, "once");
        // Noted, and not read.
        io::Write::write_all(&mut to, b"again").expect("written");
        desk.begin(TAKING, owner(10));
        moved(from.as_fd(), desk.writer.as_fd(), DESK_BYTES).expect("moved");
        desk.set(AT_COUNT, 5);
        assert_eq!(recovered(&desk), taken(b"again"));
        // Read in part, and read whole.
        for read in [2, 5] {
            let mut desk = found(&desk);
            io::Write::write_all(&mut to, b"parts").expect("written");
            desk.begin(TAKING, owner(10));
            moved(from.as_fd(), desk.writer.as_fd(), DESK_BYTES).expect("moved");
            desk.set(AT_COUNT, 5);
            read_exactly(&desk.reader, desk.memory.bytes_mut(AT_BYTES, read)).expect("read");
            assert_eq!(recovered(&desk), taken(b"parts"));
        }
        // All of it, without a kill.
        let wire = Wire::new(from.into(), Interest::READABLE).expect("a wire");
        io::Write::write_all(&mut to, b"done").expect("written");
        wire.readable().await;
        let mut desk = found(&desk);
        let mut seen = Vec::new();
        assert_eq!(desk.take(&wire, owner(10), |bytes| seen = bytes.to_vec()).expect("taken"), 4);
        assert_eq!((seen.as_slice(), recovered(&desk)), (&b"done"[..], None));
        drop(to);
        wire.readable().await;
        assert_eq!(desk.take(&wire, owner(14), |_| panic!("nothing comes")).expect("the end"), 0);
    }

    #[tokio::test]
    async fn whatever_step_a_kill_comes_after_nothing_is_given_twice() {
        let mut desk = Desk::make(&Keeper::none(), "desk").expect("a desk");
        let (mut from, to) = io::pipe().expect("a pipe");
        let given = |position| Some(Left::Given { process: ProcessId(7), position });
        desk.begin(GIVING, owner(10));
        rustix::io::write(&desk.writer, b"abc").expect("written");
        assert_eq!(recovered(&desk), None, "nothing was sent");
        desk.begin(GIVING, owner(10));
        rustix::io::write(&desk.writer, b"abcd").expect("written");
        desk.set(AT_COUNT, 4);
        assert_eq!(recovered(&desk), given(10), "nor here");
        desk.begin(GIVING, owner(10));
        rustix::io::write(&desk.writer, b"abcd").expect("written");
        desk.set(AT_COUNT, 4);
        moved(desk.reader.as_fd(), to.as_fd(), 3).expect("moved");
        assert_eq!(recovered(&desk), given(13));
        let wire = Wire::new(to.into(), Interest::WRITABLE).expect("a wire");
        wire.writable().await;
        let mut noted = 0;
        assert_eq!(desk.give(&wire, owner(13), b"def", |count| noted = count).expect("given"), 3);
        assert_eq!((noted, recovered(&desk)), (3, None));
        let mut read = [0; 6];
        io::Read::read_exact(&mut from, &mut read).expect("read");
        assert_eq!(&read, b"abcdef");
        // A reader that doesn't read: what doesn't fit stays ours, and the desk is clean.
        let mut sent = 0;
        while desk.give(&wire, owner(0), &[b'x'; DESK_BYTES], |count| sent += count).is_ok() {}
        assert_eq!((sent, rustix::io::ioctl_fionread(&desk.reader).expect("a count")), (DESK_BYTES, 0));
    }

    #[tokio::test]
    async fn where_splice_is_impossible_bytes_move_all_the_same() {
        use rustix::event::{EventfdFlags, eventfd};
        // An eventfd(2) can be read and written, eight bytes at a time, and not spliced.
        let mut desk = Desk::make(&Keeper::none(), "desk").expect("a desk");
        let end = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).expect("an eventfd");
        let into = Wire::new(end.try_clone().expect("a descriptor"), Interest::WRITABLE).expect("a wire");
        into.writable().await;
        let mut noted = 0;
        let number = 7_u64.to_ne_bytes();
        assert_eq!(desk.give(&into, owner(0), &number, |count| noted = count).expect("given"), 8);
        assert_eq!((noted, rustix::io::ioctl_fionread(&desk.reader).expect("a count")), (8, 0));
        let from = Wire::new(end, Interest::READABLE).expect("a wire");
        from.readable().await;
        let mut seen = Vec::new();
        assert_eq!(desk.take(&from, owner(0), |bytes| seen = bytes.to_vec()).expect("taken"), 8);
        assert_eq!((seen.as_slice(), recovered(&desk)), (&number[..], None));
        let nothing = desk.take(&from, owner(8), |_| panic!("nothing comes")).expect_err("empty");
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
    }
}
