//! A client attached to a terminal.

use bytes::Bytes;

use super::Error;
use super::types::{ProcessInfo, TerminalSize};

/// What an attached client is told.
#[derive(Debug, Clone)]
pub enum TerminalEvent {
    /// What the terminal wrote.
    Output(Bytes),
    /// The client was too slow: what follows starts from this picture of the screen.
    Redraw {
        /// Bytes that draw the screen as it is now.
        snapshot: Bytes,
        /// Bytes of output that were left out.
        skipped_bytes: u64,
    },
    /// Somebody changed the terminal's size.
    Resized(TerminalSize),
    /// The process ended; nothing follows.
    Exited(ProcessInfo),
}

/// An attached client. Dropping it detaches; the process goes on.
#[derive(Debug)]
pub struct Attachment {
    size: TerminalSize,
}

impl Attachment {
    /// The terminal's size at the moment of attaching.
    pub fn size(&self) -> TerminalSize {
        self.size
    }

    /// Bytes that draw the screen as it was at the moment of attaching; absent when nothing had been written.
    pub fn take_snapshot(&mut self) -> Option<Bytes> {
        None
    }

    /// What comes next, without a hole to the snapshot. Cancel safe.
    #[allow(clippy::unused_async)]
    pub async fn next(&mut self) -> TerminalEvent {
        std::future::pending().await
    }

    /// Types into the terminal; gives the number of bytes taken.
    ///
    /// # Errors
    /// [`Error::NotRunning`], [`Error::InputTooLarge`], [`Error::InputQueueFull`].
    #[allow(clippy::unused_async)]
    pub async fn input(&self, bytes: Bytes) -> Result<usize, Error> {
        let _ = bytes;
        Err(Error::Stopping)
    }

    /// Changes the terminal's size, for everyone who is attached: the last one to say wins.
    ///
    /// # Errors
    /// [`Error::NotRunning`], [`Error::Invalid`].
    #[allow(clippy::unused_async)]
    pub async fn resize(&self, size: TerminalSize) -> Result<(), Error> {
        let _ = size;
        Err(Error::Stopping)
    }
}
