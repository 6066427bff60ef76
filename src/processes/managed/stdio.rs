//! A child's stdin and output, as pipes or as a terminal.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Stdio as StdStdio;

use tokio::io::Interest;

use crate::processes::Error;
use crate::processes::children::{Child, Children, Confined, Launch, SLATE, Tty, Uncollected, Wire};
use crate::processes::slate::Slate;
use crate::processes::spool::Stream;
use crate::processes::types::{ProcessId, TerminalSize};

/// The place of stdin at the keeper; stdout and stderr follow. A terminal's master has the first place.
pub(super) const STDIN: usize = 0;

/// What is open towards a child.
#[derive(Debug)]
pub(in crate::processes) enum Stdio {
    Pipes { stdin: Option<Wire>, stdout: Option<Wire>, stderr: Option<Wire> },
    Terminal(Option<Tty>),
}

/// How a child is started.
pub(in crate::processes) struct How<'a> {
    /// In a terminal of this size; else with pipes.
    pub(in crate::processes) terminal: Option<TerminalSize>,
    /// Without it, it reads from `/dev/null`.
    pub(in crate::processes) stdin: bool,
    /// It outlives this server, with this besides.
    pub(in crate::processes) kept_with: Option<&'a Slate>,
}

impl Stdio {
    /// Starts a child. What has to outlive us is handed over before there is a child that could write.
    pub(in crate::processes) fn start(
        children: &Children,
        launch: Launch,
        how: &How<'_>,
        mut confined: Confined,
    ) -> Result<(Self, Child, Uncollected), Error> {
        let mut launch = launch;
        let program = launch.program.clone();
        let refused = |error: io::Error| Error::Refused { program: program.clone(), cause: error.to_string() };
        let mut command = launch.command(children.env());
        let stdio = if let Some(size) = how.terminal {
            let (tty, slave) = Tty::open(size).map_err(refused)?;
            let of_child = |slave: &OwnedFd| slave.try_clone().map(StdStdio::from);
            command.stdin(of_child(&slave).map_err(refused)?).stdout(of_child(&slave).map_err(refused)?).stderr(slave);
            confined.before_exec.get_or_insert_default().terminal = true;
            Self::Terminal(Some(tty))
        } else {
            Self::piped(&mut command, how.stdin).map_err(refused)?
        };
        launch.is_kept = how.kept_with.is_some_and(|slate| stdio.hand_over(children, launch.id, slate));
        let id = launch.id;
        let is_kept = launch.is_kept;
        let started = children.launch(launch, command, confined);
        if is_kept && started.is_err() {
            children.keeper().forget(&id.to_string());
        }
        let (_, handle, exit) = started?;
        Ok((stdio, handle, exit))
    }

    fn piped(command: &mut std::process::Command, with_stdin: bool) -> io::Result<Self> {
        let stdin = if with_stdin {
            let (of_child, ours) = io::pipe()?;
            command.stdin(of_child);
            Some(Wire::new(ours.into(), Interest::WRITABLE)?)
        } else {
            command.stdin(StdStdio::null());
            None
        };
        let (stdout, of_child) = io::pipe()?;
        command.stdout(of_child);
        let (stderr, of_child) = io::pipe()?;
        command.stderr(of_child);
        let output = |ours: io::PipeReader| Wire::new(ours.into(), Interest::READABLE);
        Ok(Self::Pipes { stdin, stdout: Some(output(stdout)?), stderr: Some(output(stderr)?) })
    }

    /// False when the keeper doesn't take it.
    fn hand_over(&self, children: &Children, id: ProcessId, slate: &Slate) -> bool {
        let mut fds = match self {
            Self::Pipes { stdin, stdout, stderr } => [stdin.as_ref(), stdout.as_ref(), stderr.as_ref(), None],
            Self::Terminal(tty) => [tty.as_ref().map(|tty| &tty.master), None, None, None],
        }
        .map(|wire| wire.map(AsFd::as_fd));
        fds[SLATE] = Some(slate.fd());
        let kept = children.keeper().keep_at(&id.to_string(), fds);
        if let Err(error) = &kept {
            tracing::warn!(%id, %error, "the keeper doesn't take a process: it ends with this server");
        }
        kept.is_ok()
    }

    /// What an earlier server left of a child.
    ///
    /// # Errors
    /// A descriptor can't be watched.
    pub(in crate::processes) fn adopt(is_terminal: bool, fds: [Option<OwnedFd>; 4]) -> io::Result<Self> {
        let [first, stdout, stderr, _] = fds;
        if is_terminal {
            return Ok(Self::Terminal(first.map(Tty::of).transpose()?));
        }
        let output = |fd: Option<OwnedFd>| fd.map(|fd| Wire::new(fd, Interest::READABLE)).transpose();
        let stdin = first.map(|fd| Wire::new(fd, Interest::WRITABLE)).transpose()?;
        Ok(Self::Pipes { stdin, stdout: output(stdout)?, stderr: output(stderr)? })
    }

    /// Nothing can be read any more.
    pub(in crate::processes) fn is_read_to_its_end(&self) -> bool {
        match self {
            Self::Pipes { stdout, stderr, .. } => stdout.is_none() && stderr.is_none(),
            Self::Terminal(tty) => tty.is_none(),
        }
    }

    /// Resolves with a stream that may have something to read; never when all are closed. Cancel safe.
    pub(in crate::processes) async fn readable(&self) -> Stream {
        match self {
            Self::Pipes { stdout, stderr, .. } => tokio::select! {
                () = pipe_readable(stdout.as_ref()) => Stream::Stdout,
                () = pipe_readable(stderr.as_ref()) => Stream::Stderr,
            },
            Self::Terminal(Some(tty)) => {
                tty.master.readable().await;
                Stream::Pty
            }
            Self::Terminal(None) => std::future::pending().await,
        }
    }

    /// Reads what is there right now, as much as fits. `None`: nothing was there. `Some(0)`: the stream has ended, and is
    /// closed.
    pub(in crate::processes) fn try_read(&mut self, stream: Stream, buffer: &mut [u8]) -> Option<usize> {
        let mut filled = 0;
        loop {
            match self.output(stream)?.try_read(&mut buffer[filled..]) {
                Ok(0) if filled > 0 => return Some(filled), // the end is found again next time
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return (filled > 0).then_some(filled),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    tracing::warn!(%error, "a process's output could not be read any further");
                    break;
                }
            }
            // A terminal gives 4 KiB at a time, a pipe all it has.
            if filled == buffer.len() || stream != Stream::Pty {
                return Some(filled);
            }
        }
        self.close_stream(stream);
        Some(0)
    }

    /// Reads nothing any more: who still writes gets SIGPIPE, or is hung up.
    pub(in crate::processes) fn close(&mut self) {
        *self = Self::Terminal(None);
    }

    /// Where input goes.
    pub(super) fn input(&self) -> Option<&Wire> {
        match self {
            Self::Pipes { stdin, .. } => stdin.as_ref(),
            Self::Terminal(tty) => tty.as_ref().map(|tty| &tty.master),
        }
    }

    /// Where a stream comes from.
    pub(super) fn output(&self, stream: Stream) -> Option<&Wire> {
        match (self, stream) {
            (Self::Pipes { stdout, .. }, Stream::Stdout) => stdout.as_ref(),
            (Self::Pipes { stderr, .. }, Stream::Stderr) => stderr.as_ref(),
            (Self::Terminal(tty), Stream::Pty) => tty.as_ref().map(|tty| &tty.master),
            _ => None,
        }
    }

    pub(super) fn close_stream(&mut self, stream: Stream) {
        match (self, stream) {
            (Self::Pipes { stdout, .. }, Stream::Stdout) => *stdout = None,
            (Self::Pipes { stderr, .. }, Stream::Stderr) => *stderr = None,
            (Self::Terminal(tty), _) => *tty = None,
            (Self::Pipes { .. }, Stream::Pty) => {}
        }
    }

    /// Resolves when stdin may take something; never when it is closed. Cancel safe.
    pub(in crate::processes) async fn writable(&self) {
        match self.input() {
            Some(wire) => wire.writable().await,
            None => std::future::pending().await,
        }
    }

    /// Writes what is taken right now.
    ///
    /// # Errors
    /// `WouldBlock`, or `BrokenPipe` when nobody reads any more.
    pub(in crate::processes) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.input().ok_or(io::ErrorKind::BrokenPipe)?.try_write(bytes)
    }

    /// False once stdin is closed.
    pub(in crate::processes) fn has_stdin(&self) -> bool {
        matches!(self, Self::Pipes { stdin: Some(_), .. } | Self::Terminal(Some(_)))
    }

    /// The child reads to the end of what was written. A terminal has no such end: it gets Ctrl-D instead.
    pub(in crate::processes) fn close_stdin(&mut self) {
        if let Self::Pipes { stdin, .. } = self {
            *stdin = None;
        }
    }

    /// Its terminal.
    pub(in crate::processes) fn tty(&self) -> Option<&Tty> {
        match self {
            Self::Terminal(tty) => tty.as_ref(),
            Self::Pipes { .. } => None,
        }
    }
}

async fn pipe_readable(pipe: Option<&Wire>) {
    match pipe {
        Some(pipe) => pipe.readable().await,
        None => std::future::pending().await,
    }
}
