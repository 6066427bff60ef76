//! Speaking with a child line by line, over its stdin and stdout, so that the next server goes on where this one was killed.
//!
//! Without a keeper a [`Channel`] is two pipes. With one, what is read comes by a desk and lies on the tape until
//! [`Channel::settled`]; what is sent is written into the tape's journal first, together with what the next server has to
//! know of it.

mod tape;

use std::io;
use std::os::fd::AsFd as _;

use bytes::BytesMut;
use tokio::io::Interest;

pub use tape::Record;

use super::children::{Adopted, Child, Children, Confined, Known, Launch, Wire};
use super::desk::{self, Left};
use super::spool::Stream;
use super::types::ProcessId;
use super::{ChildSpec, Error};
use crate::rt::spawn_owned;
use tape::Tape;

/// What is read at once.
const READ_MAX_BYTES: usize = 64 * 1024;
/// A journal longer than this is worth being written anew.
const JOURNAL_TIDY_BYTES: usize = 32 * 1024;

/// Stdin and stdout of a child.
pub struct Channel {
    process: ProcessId,
    children: Children,
    stdin: Option<Wire>,
    stdout: Option<Wire>,
    tape: Option<Tape>,
    /// What the journal had when it was written anew last.
    tidied_bytes: usize,
}

/// Lines that a child writes to stderr.
pub struct Stderr {
    wire: Wire,
}

/// A child that is spoken with.
pub struct Spoken {
    /// Its stdin and stdout.
    pub channel: Channel,
    /// Its stderr.
    pub stderr: Stderr,
    /// To follow and stop it.
    pub process: Child,
}

/// A child that outlived the server before this one, with what that one left on its tape.
pub struct Outlived {
    /// To go on with.
    pub spoken: Spoken,
    /// It has ended since, or before.
    pub is_over: bool,
    /// The journal.
    pub records: Vec<Record>,
    /// What of the journal's lines hasn't reached it yet.
    pub unsent: Vec<u8>,
    /// What was read and isn't settled.
    pub unsettled: Vec<u8>,
    /// The position of the first byte of that.
    pub read_to: u64,
}

impl Children {
    /// Starts a child to be spoken with. Where there is a keeper it outlives this server; then `about` (at most 4 KiB) tells
    /// the next one whose it is. What is read from it is numbered from `read_to`.
    ///
    /// # Errors
    /// As [`Children::spawn`].
    pub fn speak(&self, spec: &ChildSpec, about: &[u8], read_to: u64) -> Result<Spoken, Error> {
        let refused = |error: io::Error| Error::Refused { program: spec.program.clone(), cause: error.to_string() };
        let id = self.next_id();
        let mut launch = Launch {
            id,
            owner: spec.owner,
            name: spec.program.clone().into_os_string(),
            program: spec.program.clone(),
            args: spec.args.clone(),
            cwd: spec.cwd.clone(),
            env: spec.env.clone(),
            is_kept: false,
        };
        let mut command = launch.command(self.env());
        let (of_child, stdin) = io::pipe().map_err(refused)?;
        command.stdin(of_child);
        let (stdout, of_child) = io::pipe().map_err(refused)?;
        command.stdout(of_child);
        let (stderr, of_child) = io::pipe().map_err(refused)?;
        command.stderr(of_child);
        let stdin = Wire::new(stdin.into(), Interest::WRITABLE).map_err(refused)?;
        let stdout = Wire::new(stdout.into(), Interest::READABLE).map_err(refused)?;
        let stderr = Wire::new(stderr.into(), Interest::READABLE).map_err(refused)?;
        let tape = self.desks().map(|_| Tape::new(about, read_to)).transpose().map_err(refused)?;
        if let Some(tape) = &tape {
            let fds = [Some(stdin.as_fd()), Some(stdout.as_fd()), Some(stderr.as_fd()), Some(tape.fd())];
            let kept = self.keeper().keep_at(&id.to_string(), fds);
            launch.is_kept = kept.inspect_err(|error| tracing::warn!(%id, %error, "an agent ends with this server")).is_ok();
        }
        let is_kept = launch.is_kept;
        let (_, process, exit) = self.launch(launch, command, Confined::default()).inspect_err(|_| {
            if is_kept {
                self.keeper().forget(&id.to_string());
            }
        })?;
        spawn_owned("process", exit.collect());
        let (stdin, stdout, tape) = (Some(stdin), Some(stdout), tape.filter(|_| is_kept));
        let channel = Channel { process: id, children: self.clone(), stdin, stdout, tape, tidied_bytes: 0 };
        Ok(Spoken { channel, stderr: Stderr { wire: stderr }, process })
    }

    /// Children of [`Children::speak`] that an earlier server left, and what it said about each.
    pub fn outlived(&self) -> Vec<(ProcessId, Vec<u8>)> {
        let tape = |id: ProcessId| Tape::open(self.inherited_fd(id)?).ok().map(|tape| tape.about().to_vec());
        self.inherited_ids().into_iter().filter_map(|id| Some((id, tape(id)?))).collect()
    }

    /// Goes on with a child that an earlier server left, reading from position `read_to`, or behind what is settled: what came
    /// last may have needed no entry in any log. `None` when something is missing:
    /// then [`Children::end_unclaimed`] ends it.
    pub fn go_on_with(&self, id: ProcessId, spec: &ChildSpec, created_at_ms: i64, read_to: u64) -> Option<Outlived> {
        let mut tape = Tape::open(self.inherited_fd(id)?).ok()?;
        if tape.is_broken() {
            return None;
        }
        let is_over = self.inherited_end(id).is_some();
        for left in self.left(id) {
            match left {
                Left::Given { position, .. } => tape.set_given(position),
                Left::Taken { base, bytes, .. } if base == tape.taken() => tape.take(&bytes),
                Left::Taken { .. } => {}
            }
        }
        if let Some(desks) = self.desks() {
            desks.release(id);
        }
        let read_to = read_to.max(tape.freed());
        let unsettled = tape.unsettled(read_to)?;
        let known = Known {
            owner: spec.owner,
            program: spec.program.clone(),
            args: spec.args.clone(),
            cwd: spec.cwd.clone(),
            created_at_ms,
            cgroup: None,
            ended: None,
        };
        let Adopted { child, exit, fds: [stdin, stdout, stderr, _], .. } = self.adopt(id, known)?;
        spawn_owned("process", exit.collect());
        let wire = |fd: Option<std::os::fd::OwnedFd>, interest| fd.and_then(|fd| Wire::new(fd, interest).ok());
        let stderr = Stderr { wire: wire(stderr, Interest::READABLE)? };
        let (stdin, stdout) = (wire(stdin, Interest::WRITABLE), wire(stdout, Interest::READABLE));
        let (records, unsent) = tape.records();
        let channel = Channel { process: id, children: self.clone(), stdin, stdout, tape: Some(tape), tidied_bytes: 0 };
        let spoken = Spoken { channel, stderr, process: child };
        Some(Outlived { spoken, is_over, records, unsent, unsettled, read_to })
    }
}

impl Channel {
    /// Resolves when there may be something to read; never after the end. Cancel safe.
    pub async fn readable(&self) {
        match &self.stdout {
            Some(stdout) => stdout.readable().await,
            None => std::future::pending().await,
        }
    }

    /// Reads what is there into `buffer`; at the end, stdout is closed.
    pub fn try_read(&mut self, buffer: &mut BytesMut) {
        let Some(stdout) = &self.stdout else { return };
        let read = match &mut self.tape {
            None => read_plainly(stdout, buffer),
            Some(tape) => take(&self.children, self.process, stdout, tape, buffer),
        };
        match read {
            Ok(1..) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Ok(0) | Err(_) => self.stdout = None,
        }
    }

    /// True once stdout is at its end.
    pub fn is_read_to_its_end(&self) -> bool {
        self.stdout.is_none()
    }

    /// What was read up to this position is in the log, or of no use any more.
    pub fn settled(&mut self, position: u64) {
        if let Some(tape) = &mut self.tape {
            tape.free(position);
        }
    }

    /// True when the next server goes on with this child.
    pub fn is_kept(&self) -> bool {
        self.tape.is_some()
    }

    /// Notes something for the next server, together with the line that is sent because of it. What has no room there makes
    /// that one unable to go on, until all is settled.
    pub fn note(&mut self, kind: u32, about: &[u8], line: &[u8]) {
        if let Some(tape) = &mut self.tape {
            let _ = tape.append(kind, about, line); // it says so itself
        }
    }

    /// The next server can't, or can again, go on from the state that it would find.
    pub fn set_resumable(&self, is_resumable: bool) {
        if let Some(tape) = &self.tape {
            tape.set_busy(!is_resumable);
        }
    }

    /// True when there is so much in the journal that it should be written anew.
    pub fn wants_tidying(&self) -> bool {
        let worth_it = JOURNAL_TIDY_BYTES + 2 * self.tidied_bytes;
        self.tape.as_ref().is_some_and(|tape| tape.lacks_records() || tape.journal_bytes() > worth_it)
    }

    /// Writes the journal anew, with these records and with what was not sent yet (as of `unsent_kind`).
    pub fn tidy<'a>(&mut self, records: impl Iterator<Item = (u32, &'a [u8])>, unsent_kind: u32, unsent: &[u8]) {
        if let Some(tape) = &mut self.tape {
            let _ = tape.rewrite(records, unsent_kind, unsent); // no room: it stays as it is
            self.tidied_bytes = tape.journal_bytes();
        }
    }

    /// Resolves when stdin may take something; never once it is closed. Cancel safe.
    pub async fn writable(&self) {
        match &self.stdin {
            Some(stdin) => stdin.writable().await,
            None => std::future::pending().await,
        }
    }

    /// Writes what the child takes right now of lines that were noted, in their order.
    ///
    /// # Errors
    /// `WouldBlock`, or `BrokenPipe` when nobody reads any more.
    pub fn try_write(&mut self, lines: &[u8]) -> io::Result<usize> {
        let stdin = self.stdin.as_ref().ok_or(io::ErrorKind::BrokenPipe)?;
        let Some(tape) = &self.tape else { return stdin.try_write(lines) };
        let base = tape.given();
        let note = |count: usize| tape.set_given(base + count as u64);
        let owner = desk::Owner { process: self.process, stream: Stream::Stdout, base, carry: 0 };
        let given = self.children.desks().and_then(|desks| desks.with(|desk| desk.give(stdin, owner, lines, note)));
        given.unwrap_or_else(|| stdin.try_write(lines).inspect(|count| tape.set_given(base + *count as u64)))
    }

    /// The child reads to the end of what was written.
    pub fn close_stdin(&mut self) {
        if self.stdin.take().is_some() && self.tape.is_some() {
            self.children.keeper().close(&self.process.to_string(), 0);
        }
    }
}

fn read_plainly(stdout: &Wire, buffer: &mut BytesMut) -> io::Result<usize> {
    let before = buffer.len();
    buffer.resize(before + READ_MAX_BYTES.min(buffer.capacity() - before).max(4096), 0);
    let read = stdout.try_read(&mut buffer[before..]);
    buffer.truncate(before + *read.as_ref().unwrap_or(&0));
    read
}

fn take(children: &Children, process: ProcessId, stdout: &Wire, tape: &mut Tape, buffer: &mut BytesMut) -> io::Result<usize> {
    let owner = desk::Owner { process, stream: Stream::Stdout, base: tape.taken(), carry: 0 };
    let look = |bytes: &[u8]| {
        tape.take(bytes);
        buffer.extend_from_slice(bytes);
    };
    match children.desks().and_then(|desks| desks.with(|desk| desk.take(stdout, owner, look))) {
        Some(taken) => taken,
        None => {
            let before = buffer.len();
            let read = read_plainly(stdout, buffer);
            tape.take(&buffer[before..]);
            read
        }
    }
}

impl Stderr {
    /// Reads what is there; 0 at the end. Cancel safe.
    ///
    /// # Errors
    /// The pipe can't be read: it is at its end.
    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.wire.readable().await;
            match self.wire.try_read(buffer) {
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                read => return read,
            }
        }
    }
}
