//! Why the remote transport refuses.

use crate::{acp, store};

/// Why a call failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// No connection has this id: it ended, was idle for too long, or the server was restarted.
    #[error("unknown Acp-Connection-Id: {id}")]
    UnknownConnection {
        /// The id as the client gave it.
        id: String,
    },
    /// As many connections as the bound allows.
    #[error("there are {max} ACP connections already: DELETE one that is no longer used")]
    TooManyConnections {
        /// The bound.
        max: u64,
    },
    /// As many sessions on one connection as the bound allows.
    #[error("this connection has {max} sessions already: close one, or open another connection")]
    TooManySessions {
        /// The bound.
        max: u64,
    },
    /// The stream has a receiver.
    #[error("this stream already has a receiver: end that one first, or send Last-Event-ID to take its place")]
    Taken,
    /// A message about a session must name it in the header, too.
    #[error("missing Acp-Session-Id: a message about a session names it in this header")]
    MissingSession,
    /// The header and the message name different sessions.
    #[error("mismatched Acp-Session-Id: the message is about another session")]
    MismatchedSession,
    /// `initialize` is the beginning of a connection.
    #[error("initialize is not allowed on an existing connection: send it without Acp-Connection-Id to open another one")]
    InitializedAlready,
    /// Nothing says which agent.
    #[error("name the agent: /acp?agent=ID or /acp/ID")]
    NoAgent,
    /// The agent's server refuses.
    #[error(transparent)]
    Acp(#[from] acp::Error),
    /// The log can't be read.
    #[error(transparent)]
    Store(#[from] store::Error),
}
