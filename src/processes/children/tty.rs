//! A pseudo-terminal: its master, as asynchronous reads and writes (pty(7)).

use std::io;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pty::OpenptFlags;
use rustix::termios::{InputModes, OptionalActions, Winsize, tcgetattr, tcsetattr, tcsetwinsize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::sys;
use crate::processes::types::TerminalSize;

/// The master's side. Dropping it hangs the terminal up: its session gets SIGHUP.
#[derive(Debug)]
pub(in crate::processes) struct Tty {
    master: AsyncFd<OwnedFd>,
}

impl Tty {
    /// A new terminal, and the slave's side for the child's stdio. Both are closed on exec.
    ///
    /// # Errors
    /// No `/dev/ptmx`, or no terminal is left.
    pub(in crate::processes) fn open(size: TerminalSize) -> io::Result<(Self, OwnedFd)> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = rustix::pty::openpt(flags)?;
        rustix::pty::unlockpt(&master)?;
        let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
        let mut modes = tcgetattr(&slave)?;
        modes.input_modes |= InputModes::IUTF8; // erasing takes whole characters
        tcsetattr(&slave, OptionalActions::Now, &modes)?;
        tcsetwinsize(&master, winsize(size))?;
        rustix::io::ioctl_fionbio(&master, true)?;
        Ok((Self { master: sys::watched(master, Interest::READABLE | Interest::WRITABLE)? }, slave))
    }

    /// Changes the size; the foreground group gets SIGWINCH.
    pub(in crate::processes) fn resize(&self, size: TerminalSize) -> io::Result<()> {
        Ok(tcsetwinsize(self.master.get_ref(), winsize(size))?)
    }

    /// The process group in the foreground.
    pub(in crate::processes) fn foreground(&self) -> Option<nix::unistd::Pid> {
        let group = rustix::termios::tcgetpgrp(self.master.get_ref()).ok()?;
        Some(nix::unistd::Pid::from_raw(group.as_raw_nonzero().get()))
    }

    /// Resolves when there may be something to read. Cancel safe.
    pub(in crate::processes) async fn readable(&self) {
        if let Ok(mut ready) = self.master.readable().await {
            ready.retain_ready();
        }
    }

    /// Resolves when there may be room to write. Cancel safe.
    pub(in crate::processes) async fn writable(&self) {
        if let Ok(mut ready) = self.master.writable().await {
            ready.retain_ready();
        }
    }

    /// What is there right now; `WouldBlock` when nothing is. The end is `Ok(0)`: after the last slave is closed the
    /// kernel says EIO.
    pub(in crate::processes) fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        end_of_terminal(self.master.try_io(Interest::READABLE, |fd| Ok(rustix::io::read(fd, buffer)?)))
    }

    /// Writes what the terminal takes right now; `WouldBlock` when that is nothing, `BrokenPipe` when it never will: once
    /// nobody has the slave's side open, a full terminal stays full, and still counts as writable.
    pub(in crate::processes) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self.master.try_io(Interest::WRITABLE, |fd| Ok(rustix::io::write(fd, bytes)?)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && self.is_hung_up() => Err(io::ErrorKind::BrokenPipe.into()),
            written => written,
        }
    }

    fn is_hung_up(&self) -> bool {
        let mut polled = [PollFd::new(self.master.get_ref(), PollFlags::empty())]; // hanging up is told unasked (poll(2))
        poll(&mut polled, Some(&Timespec::default())).is_ok() && polled[0].revents().contains(PollFlags::HUP)
    }
}

fn end_of_terminal(read: io::Result<usize>) -> io::Result<usize> {
    match read {
        Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EIO as i32) => Ok(0),
        other => other,
    }
}

fn winsize(size: TerminalSize) -> Winsize {
    Winsize { ws_col: size.cols, ws_row: size.rows, ws_xpixel: 0, ws_ypixel: 0 }
}
