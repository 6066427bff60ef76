//! A client attached to a terminal.

use bytes::Bytes;

use super::Error;
use super::managed::{Attached, Command, Handle, Next, Piece, Viewer};
use super::types::{ProcessInfo, TerminalSize, check_size};

/// What an attached client is told.
#[derive(Debug, Clone)]
pub enum TerminalEvent {
    /// What the terminal wrote.
    Output(Bytes),
    /// The client was too slow: what follows starts from this picture of the screen.
    Redraw {
        /// The terminal's size, which may be another one by now.
        size: TerminalSize,
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
pub struct Attachment {
    size: TerminalSize,
    snapshot: Option<Bytes>,
    input_max_bytes: u64,
    live: Live,
}

enum Live {
    Following {
        handle: Handle,
        viewer: Viewer,
        /// The owner has to be asked for the screen.
        is_slow: bool,
    },
    /// The process had ended already.
    Over(ProcessInfo),
}

impl Attachment {
    pub(super) fn following(handle: Handle, attached: Attached, input_max_bytes: u64) -> Self {
        let Attached { viewer, size, snapshot } = attached;
        Self { size, snapshot, input_max_bytes, live: Live::Following { handle, viewer, is_slow: false } }
    }

    pub(super) fn over(info: ProcessInfo, snapshot: Option<Bytes>) -> Self {
        Self { size: info.terminal.unwrap_or_default(), snapshot, input_max_bytes: 0, live: Live::Over(info) }
    }

    /// The terminal's size at the moment of attaching.
    pub fn size(&self) -> TerminalSize {
        self.size
    }

    /// Bytes that draw the screen as it was at the moment of attaching; absent when nothing had been written.
    pub fn take_snapshot(&mut self) -> Option<Bytes> {
        self.snapshot.take()
    }

    /// What comes next, without a hole to the snapshot. Cancel safe.
    pub async fn next(&mut self) -> TerminalEvent {
        let (handle, viewer, is_slow) = match &mut self.live {
            Live::Following { handle, viewer, is_slow } => (handle, viewer, is_slow),
            Live::Over(info) => return TerminalEvent::Exited(info.clone()),
        };
        loop {
            if *is_slow {
                // An owner that is gone has sent the screen before it went.
                let _ = handle.mailbox.send(Command::Redraw { viewer: viewer.key() }).await;
                *is_slow = false;
            }
            let next = tokio::select! {
                biased;
                next = viewer.next() => next,
                () = handle.mailbox.closed() => return TerminalEvent::Exited(ProcessInfo::clone(&handle.info())),
            };
            match next {
                Next::Piece(Piece::Output(bytes)) => return TerminalEvent::Output(bytes),
                Next::Piece(Piece::Redraw { size, snapshot, skipped_bytes }) => {
                    return TerminalEvent::Redraw { size, snapshot, skipped_bytes };
                }
                Next::Piece(Piece::Resized(size)) => return TerminalEvent::Resized(size),
                Next::Piece(Piece::Exited(info)) => return TerminalEvent::Exited(ProcessInfo::clone(&info)),
                Next::Slow => *is_slow = true,
            }
        }
    }

    /// Types into the terminal; gives the number of bytes taken.
    ///
    /// # Errors
    /// [`Error::NotRunning`], [`Error::InputTooLarge`], [`Error::InputQueueFull`].
    pub async fn input(&self, bytes: Bytes) -> Result<usize, Error> {
        let Live::Following { handle, .. } = &self.live else { return Err(self.not_running()) };
        if bytes.len() as u64 > self.input_max_bytes {
            return Err(Error::InputTooLarge { max: self.input_max_bytes });
        }
        let taken = handle.ask(|reply| Command::Input { bytes, reply }).await;
        taken.unwrap_or_else(|| Err(self.not_running()))
    }

    /// Changes the terminal's size, for everyone who is attached: the last one to say wins.
    ///
    /// # Errors
    /// [`Error::NotRunning`], [`Error::Invalid`].
    pub async fn resize(&self, size: TerminalSize) -> Result<(), Error> {
        check_size(size)?;
        let Live::Following { handle, .. } = &self.live else { return Err(self.not_running()) };
        let resized = handle.ask(|reply| Command::Resize { size, reply }).await;
        resized.unwrap_or_else(|| Err(self.not_running()))
    }

    fn not_running(&self) -> Error {
        match &self.live {
            Live::Following { handle, .. } => Error::NotRunning { id: handle.id, exit: handle.info().exit },
            Live::Over(info) => Error::NotRunning { id: info.id, exit: info.exit },
        }
    }
}
