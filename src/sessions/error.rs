//! Why a call on a session fails.

use crate::{acp, store};

/// What can go wrong.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// No session has this id.
    #[error("session not found: {id}")]
    UnknownSession {
        /// As it was given.
        id: String,
    },
    /// The session has no such turn.
    #[error("turn not found: {id}")]
    UnknownTurn {
        /// As it was given.
        id: String,
    },
    /// The request can't be understood.
    #[error("{why}")]
    Invalid {
        /// What is wrong and what would be right.
        why: String,
    },
    /// A directory can't be one of a session's roots.
    #[error("{path} can't be a root of a session: {why}")]
    BadRoot {
        /// As it was given.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// A working tree could not be made for it.
    #[error("a worktree for the session: {why}")]
    BadWorktree {
        /// As a word, that of the room that refused.
        code: &'static str,
        /// What is wrong.
        why: String,
    },
    /// The session is closed.
    #[error("the session {id} is closed: it takes no more messages")]
    Closed {
        /// The session.
        id: String,
    },
    /// A turn is under way, and the message was to be refused then.
    #[error("a turn is under way in {id}")]
    Busy {
        /// The session.
        id: String,
    },
    /// As many turns wait as may.
    #[error("{max} turns wait in this session already: wait for one to end, or interrupt")]
    QueueFull {
        /// The bound.
        max: u64,
    },
    /// An idempotency key came with another request than the first time.
    #[error("the Idempotency-Key {key:?} was used for another request")]
    KeyReused {
        /// The key.
        key: String,
    },
    /// The agent refused a step.
    #[error("the agent refused {method}: {message}")]
    Refused {
        /// The ACP method.
        method: String,
        /// What it said.
        message: String,
        /// Its JSON-RPC error.
        error: serde_json::Value,
    },
    /// The agent has no such mode, model or option.
    #[error("{what} {wanted:?} isn't offered by the agent; it offers: {offered}")]
    NotOffered {
        /// `mode`, `model` or `option`.
        what: &'static str,
        /// What was asked for.
        wanted: String,
        /// What there is.
        offered: String,
    },
    /// An MCP server isn't ready, and the session was not to be made then.
    #[error("MCP servers are not ready: {which}")]
    McpNotReady {
        /// Their names and what is wrong.
        which: String,
    },
    /// An upload that is too long, or one too many.
    #[error("{why}")]
    TooLarge {
        /// Which bound.
        why: String,
    },
    /// A file that was to go with a message isn't there.
    #[error("attachment not found: {id}")]
    UnknownAttachment {
        /// Its id or path.
        id: String,
    },
    /// The agent or its server can't be had.
    #[error(transparent)]
    Acp(#[from] acp::Error),
    /// The database can't be had.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A file can't be written or read.
    #[error("{what}: {cause}")]
    File {
        /// What was tried.
        what: String,
        /// What the system said.
        cause: String,
    },
}

impl Error {
    /// A request that can't be understood.
    pub fn invalid(why: impl Into<String>) -> Self {
        Self::Invalid { why: why.into() }
    }
}
