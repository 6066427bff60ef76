//! What can go wrong in the room.

use std::path::PathBuf;

use super::types::{ExitInfo, ProcessId};

/// Why the room can't do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// No such program, or not a program.
    #[error("executable not found: {}", program.display())]
    ExecutableNotFound {
        /// What was asked for.
        program: PathBuf,
    },
    /// The program may not be executed.
    #[error("not permitted to execute {}", program.display())]
    NotPermitted {
        /// What was asked for.
        program: PathBuf,
    },
    /// The working directory isn't there or isn't a directory.
    #[error("not a directory: {}", cwd.display())]
    BadCwd {
        /// What was asked for.
        cwd: PathBuf,
    },
    /// As many children as `processes_max` run already.
    #[error("{max} processes run already")]
    TooMany {
        /// The bound.
        max: usize,
    },
    /// The system refused for another reason.
    #[error("failed to start {}: {cause}", program.display())]
    Refused {
        /// What was asked for.
        program: PathBuf,
        /// What the system said.
        cause: String,
    },
    /// A request that can't be right, in words for whoever made it.
    #[error("{0}")]
    Invalid(String),
    /// No process has this id.
    #[error("process {id}")]
    NotFound {
        /// What was asked for, as it was written.
        id: String,
    },
    /// As many managed processes run as `maxConcurrentProcesses` allows.
    #[error("max concurrent process limit reached ({max})")]
    LimitReached {
        /// The limit.
        max: u64,
    },
    /// It ended: there is nothing to write to or to resize.
    #[error("process is not running")]
    NotRunning {
        /// Which.
        id: ProcessId,
        /// How it ended, when that is known.
        exit: Option<ExitInfo>,
    },
    /// It still runs: it can't be deleted.
    #[error("process is still running; stop or kill it before delete")]
    StillRunning {
        /// Which.
        id: ProcessId,
    },
    /// It has no terminal.
    #[error("process is not running in tty mode")]
    NoTerminal {
        /// Which.
        id: ProcessId,
    },
    /// Its stdin has ended.
    #[error("the stdin of process {id} is closed")]
    StdinClosed {
        /// Which.
        id: ProcessId,
    },
    /// More input than one request may carry.
    #[error("input payload exceeds maxInputBytesPerRequest ({max})")]
    InputTooLarge {
        /// The limit.
        max: u64,
    },
    /// It doesn't read, and its input queue is full.
    #[error("process {id} does not read: {queued} bytes of input wait already")]
    InputQueueFull {
        /// Which.
        id: ProcessId,
        /// Bytes that wait.
        queued: usize,
    },
    /// The idempotency key was used for something else.
    #[error("the idempotency key {key:?} was used for another request")]
    KeyReused {
        /// The key.
        key: String,
    },
    /// The log on disk can't be read.
    #[error("the log of process {id} can't be read: {cause}")]
    LogUnreadable {
        /// Which.
        id: ProcessId,
        /// What the system said.
        cause: String,
    },
    /// As many clients as allowed are attached to this terminal.
    #[error("{max} clients are attached to this terminal already")]
    TooManyViewers {
        /// The bound.
        max: usize,
    },
    /// The store refused.
    #[error(transparent)]
    Store(#[from] crate::store::Error),
    /// The server is stopping.
    #[error("the server is stopping")]
    Stopping,
}
