//! A child's stdin and output, as pipes or as a terminal.

use std::io;
use std::os::fd::OwnedFd;
use std::process::Stdio as StdStdio;
use std::time::Duration;

use tokio::net::unix::pipe::{Receiver, Sender};

use crate::processes::Error;
use crate::processes::children::{Child, Children, Confined, Launch, Tty, Uncollected};
use crate::processes::spool::Stream;
use crate::processes::types::TerminalSize;
use crate::rt::spawn_owned;

/// What is open towards a child.
#[derive(Debug)]
pub(in crate::processes) enum Stdio {
    Pipes { stdin: Option<Sender>, stdout: Option<Receiver>, stderr: Option<Receiver> },
    Terminal(Option<Tty>),
}

impl Stdio {
    /// Starts a child with pipes, or in a terminal of this size. Without `stdin` it reads from `/dev/null`.
    pub(in crate::processes) fn start(
        children: &Children,
        launch: Launch,
        terminal: Option<TerminalSize>,
        stdin: bool,
        mut confined: Confined,
    ) -> Result<(Self, Child, Uncollected), Error> {
        let program = launch.program.clone();
        let refused = |error: io::Error| Error::Refused { program: program.clone(), cause: error.to_string() };
        let mut command = launch.command(children.env());
        let Some(size) = terminal else {
            command.stdin(if stdin { StdStdio::piped() } else { StdStdio::null() });
            command.stdout(StdStdio::piped()).stderr(StdStdio::piped());
            let (child, handle, exit) = children.launch(launch, command, confined)?;
            return match Self::pipes(child) {
                Ok(pipes) => Ok((pipes, handle, exit)),
                Err(error) => {
                    // Nobody could read it: it ends, and is collected all the same.
                    spawn_owned("process", async move {
                        handle.stop(Duration::ZERO).await;
                        exit.collect().await
                    });
                    Err(refused(error))
                }
            };
        };
        let (tty, slave) = Tty::open(size).map_err(refused)?;
        let of_child = |slave: &OwnedFd| slave.try_clone().map(StdStdio::from);
        command.stdin(of_child(&slave).map_err(refused)?).stdout(of_child(&slave).map_err(refused)?).stderr(slave);
        confined.before_exec.get_or_insert_default().terminal = true;
        let (_, handle, exit) = children.launch(launch, command, confined)?;
        Ok((Self::Terminal(Some(tty)), handle, exit))
    }

    fn pipes(child: std::process::Child) -> io::Result<Self> {
        let stdin = child.stdin.map(|pipe| Sender::from_owned_fd(pipe.into())).transpose()?;
        let stdout = child.stdout.map(|pipe| Receiver::from_owned_fd(pipe.into())).transpose()?;
        let stderr = child.stderr.map(|pipe| Receiver::from_owned_fd(pipe.into())).transpose()?;
        Ok(Self::Pipes { stdin, stdout, stderr })
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
                tty.readable().await;
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
            let read = match (&*self, stream) {
                (Self::Pipes { stdout: Some(pipe), .. }, Stream::Stdout)
                | (Self::Pipes { stderr: Some(pipe), .. }, Stream::Stderr) => pipe.try_read(&mut buffer[filled..]),
                (Self::Terminal(Some(tty)), Stream::Pty) => tty.try_read(&mut buffer[filled..]),
                _ => return None,
            };
            match read {
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

    fn close_stream(&mut self, stream: Stream) {
        match (self, stream) {
            (Self::Pipes { stdout, .. }, Stream::Stdout) => *stdout = None,
            (Self::Pipes { stderr, .. }, Stream::Stderr) => *stderr = None,
            (Self::Terminal(tty), _) => *tty = None,
            (Self::Pipes { .. }, Stream::Pty) => {}
        }
    }

    /// Resolves when stdin may take something; never when it is closed. Cancel safe.
    pub(in crate::processes) async fn writable(&self) {
        match self {
            Self::Pipes { stdin: Some(stdin), .. } => {
                let _ = stdin.writable().await; // the write says what is wrong
            }
            Self::Terminal(Some(tty)) => tty.writable().await,
            _ => std::future::pending().await,
        }
    }

    /// Writes what is taken right now.
    ///
    /// # Errors
    /// `WouldBlock`, or `BrokenPipe` when nobody reads any more.
    pub(in crate::processes) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Pipes { stdin: Some(stdin), .. } => stdin.try_write(bytes),
            Self::Terminal(Some(tty)) => tty.try_write(bytes),
            _ => Err(io::ErrorKind::BrokenPipe.into()),
        }
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

async fn pipe_readable(pipe: Option<&Receiver>) {
    match pipe {
        Some(pipe) => {
            let _ = pipe.readable().await; // the read says what is wrong
        }
        None => std::future::pending().await,
    }
}
