//! What can go wrong with a question about spans.

use crate::store;

/// Why there is no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// Nothing is known of this trace.
    #[error("no trace {id}: it never was, or its spans were removed with its session or for their age")]
    NoTrace {
        /// As asked for.
        id: String,
    },
    /// There is no such session.
    #[error("no session {id}")]
    NoSession {
        /// As asked for.
        id: String,
    },
    /// The file can't be read.
    #[error(transparent)]
    Store(#[from] store::Error),
}
