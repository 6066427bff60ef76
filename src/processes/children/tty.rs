//! A pseudo-terminal's master (pty(7)).

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::pty::OpenptFlags;
use rustix::termios::{InputModes, OptionalActions, Winsize, tcgetattr, tcsetattr, tcsetwinsize};
use tokio::io::Interest;

use super::Wire;
use crate::processes::types::TerminalSize;

/// The master's side. Dropping it hangs the terminal up, unless the keeper has it, too: its session gets SIGHUP.
#[derive(Debug)]
pub(in crate::processes) struct Tty {
    pub(in crate::processes) master: Wire,
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
        Ok((Self::of(master)?, slave))
    }

    /// One that is there.
    ///
    /// # Errors
    /// It can't be watched.
    pub(in crate::processes) fn of(master: OwnedFd) -> io::Result<Self> {
        Ok(Self { master: Wire::new(master, Interest::READABLE | Interest::WRITABLE)? })
    }

    /// Changes the size; the foreground group gets SIGWINCH.
    pub(in crate::processes) fn resize(&self, size: TerminalSize) -> io::Result<()> {
        Ok(tcsetwinsize(self.master.as_fd(), winsize(size))?)
    }

    /// The process group in the foreground.
    pub(in crate::processes) fn foreground(&self) -> Option<nix::unistd::Pid> {
        let group = rustix::termios::tcgetpgrp(self.master.as_fd()).ok()?;
        Some(nix::unistd::Pid::from_raw(group.as_raw_nonzero().get()))
    }
}

fn winsize(size: TerminalSize) -> Winsize {
    Winsize { ws_col: size.cols, ws_row: size.rows, ws_xpixel: 0, ws_ypixel: 0 }
}
