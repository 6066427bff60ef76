//! A descriptor towards a child, as asynchronous reads and writes: an end of a pipe, or a terminal's master.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::rt::sys;

/// The server's end. Dropping it closes it.
#[derive(Debug)]
pub(in crate::processes) struct Wire {
    fd: AsyncFd<OwnedFd>,
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.get_ref().as_fd()
    }
}

impl Wire {
    /// Has it watched; it doesn't block from now on.
    ///
    /// # Errors
    /// epoll can't watch it.
    pub(in crate::processes) fn new(fd: OwnedFd, interest: Interest) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        Ok(Self { fd: sys::watched(fd, interest)? })
    }

    /// Resolves when there may be something to read. Cancel safe.
    pub(in crate::processes) async fn readable(&self) {
        if let Ok(mut ready) = self.fd.readable().await {
            ready.retain_ready();
        }
    }

    /// Resolves when there may be room to write. Cancel safe.
    pub(in crate::processes) async fn writable(&self) {
        if let Ok(mut ready) = self.fd.writable().await {
            ready.retain_ready();
        }
    }

    /// What is there right now; `WouldBlock` when nothing is. The end is `Ok(0)`: of a terminal, the kernel says EIO once the
    /// last slave is closed.
    pub(in crate::processes) fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.try_take(|fd| Ok(rustix::io::read(fd, &mut *buffer)?))
    }

    /// The same by another call than read(2).
    pub(in crate::processes) fn try_take(&self, take: impl FnMut(BorrowedFd<'_>) -> io::Result<usize>) -> io::Result<usize> {
        let mut take = take;
        match self.fd.try_io(Interest::READABLE, |fd| take(fd.as_fd())) {
            Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EIO as i32) => Ok(0),
            taken => taken,
        }
    }

    /// Writes what is taken right now; `WouldBlock` when that is nothing, `BrokenPipe` when it never will: once nobody has
    /// the other side of a terminal open, a full one stays full, and still counts as writable.
    pub(in crate::processes) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.try_give(|fd| Ok(rustix::io::write(fd, bytes)?))
    }

    /// The same by another call than write(2).
    pub(in crate::processes) fn try_give(&self, give: impl FnMut(BorrowedFd<'_>) -> io::Result<usize>) -> io::Result<usize> {
        let mut give = give;
        match self.fd.try_io(Interest::WRITABLE, |fd| give(fd.as_fd())) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && self.is_hung_up() => Err(io::ErrorKind::BrokenPipe.into()),
            written => written,
        }
    }

    fn is_hung_up(&self) -> bool {
        let mut polled = [PollFd::new(&self.fd, PollFlags::empty())]; // hanging up is told unasked (poll(2))
        poll(&mut polled, Some(&Timespec::default())).is_ok() && polled[0].revents().contains(PollFlags::HUP)
    }
}
