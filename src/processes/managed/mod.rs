//! A managed process: one task owns it, others hold a [`Handle`].
//!
//! ```text
//!            exit                 output read to its end,        policy says so
//!  running ───────▶ draining ───────────────────────────▶ ended ────────────────▶ pausing ──▶ running
//!                                or the drain's time is over │ otherwise
//!                                                            ▼
//!                                   lingering (the exit is published; something in the background still
//!                                   holds the pipes, and what it writes goes into the log) ──▶ finished
//! ```
//! Only the owner ([`task`]) moves these states. The exit is published after the last output is in the log and the event
//! is committed. A client that leaves drops its reply and nothing else.

mod adopt;
mod commands;
pub(super) mod core;
mod followers;
mod input;
mod life;
pub(super) mod limits;
mod output;
mod stdio;
mod task;
mod terminal;
mod viewers;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nix::sys::signal::Signal;
use tokio::sync::{mpsc, oneshot, watch};

pub(super) use adopt::{Adoption, adopt};
pub(super) use followers::{Follower, Followers};
pub(super) use output::read_now;
pub(super) use stdio::{How, Stdio};
pub(super) use task::{Beginning, start};
pub(super) use terminal::screen_from_log;
pub(super) use viewers::{Next, Piece, Viewer, ViewerKey};

use super::Error;
use super::spool::SpoolIndex;
use super::types::{ExitReason, ProcessId, ProcessInfo, SignalScope, Stopped, TerminalSize};
use terminal_screen::Screen;

/// What can be done with a screen while it holds still.
pub(super) type OnScreen = Box<dyn FnOnce(&mut Screen) + Send>;

/// What an owner is asked.
pub(super) enum Command {
    /// Type this; the answer is the number of bytes taken.
    Input { bytes: Bytes, reply: oneshot::Sender<Result<usize, Error>> },
    /// stdin ends after what is queued.
    CloseStdin { reply: oneshot::Sender<Result<(), Error>> },
    /// Another size.
    Resize { size: TerminalSize, reply: oneshot::Sender<Result<(), Error>> },
    /// A signal; the answer is how many processes it went to.
    Signal { signal: Signal, scope: SignalScope, reply: oneshot::Sender<Result<usize, Error>> },
    /// TERM to the tree, KILL after `grace`; the answer comes when nothing is left.
    End { reason: ExitReason, grace: Duration, reply: oneshot::Sender<Stopped> },
    /// One more viewer.
    Attach { reply: oneshot::Sender<Result<Attached, Error>> },
    /// A viewer was slow and needs the screen.
    Redraw { viewer: ViewerKey },
    /// Looks at the screen.
    Screen { look: OnScreen, reply: oneshot::Sender<Error> },
    /// The tree uses more than it may.
    Breach { reason: ExitReason },
    /// The log's bound is another one.
    BoundLog { max_bytes: u64 },
}

/// A viewer at the moment of attaching.
pub(super) struct Attached {
    pub(super) viewer: Viewer,
    pub(super) size: TerminalSize,
    /// The screen; `None` when nothing was written yet.
    pub(super) snapshot: Option<Bytes>,
}

/// A cheap handle on a managed process.
#[derive(Clone)]
pub(super) struct Handle {
    pub(super) id: ProcessId,
    pub(super) mailbox: mpsc::Sender<Command>,
    pub(super) info: watch::Receiver<Arc<ProcessInfo>>,
    pub(super) log: LiveLog,
}

/// A log that may grow.
#[derive(Clone)]
pub(super) struct LiveLog {
    pub(super) index: Arc<SpoolIndex>,
    /// Changes with each piece of output; closed when nothing can follow.
    pub(super) grown: watch::Receiver<u64>,
    pub(super) followers: Arc<Followers>,
}

impl Handle {
    /// The process now.
    pub(super) fn info(&self) -> Arc<ProcessInfo> {
        Arc::clone(&self.info.borrow())
    }

    /// Asks the owner; `None` when it is gone, since the process is finished. Dropping the future drops the answer only.
    pub(super) async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.mailbox.send(command(reply)).await.ok()?;
        answer.await.ok()
    }

    /// Resolves with the process once it ended. Cancel safe.
    pub(super) async fn exited(&self) -> Arc<ProcessInfo> {
        let mut info = self.info.clone();
        match info.wait_for(|info| !info.is_alive()).await {
            Ok(info) => Arc::clone(&info),
            Err(_) => self.info(), // the owner published the end before it went
        }
    }
}
