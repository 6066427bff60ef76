//! What can go wrong.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::frame::FrameError;

/// What the crate's calls give.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The server answered with an error.
    #[error("the language server refused {method}: {} (code {})", .error.message, .error.code)]
    Refused {
        /// What was asked.
        method: String,
        /// What it said.
        error: ResponseError,
    },
    /// It didn't answer in time, and was told that nobody waits any more.
    #[error("the language server didn't answer {method} within {} ms", .after.as_millis())]
    Timeout {
        /// What was asked.
        method: String,
        /// How long it had.
        after: Duration,
    },
    /// It has too much to do, or doesn't read.
    #[error("the language server has too much to do: {0}")]
    Busy(String),
    /// It is gone.
    #[error("the language server is gone: {0}")]
    Gone(String),
    /// What it said isn't what the protocol has.
    #[error("the language server's answer to {method} makes no sense: {why}")]
    Nonsense {
        /// What was asked.
        method: String,
        /// What is wrong.
        why: String,
    },
}

impl From<FrameError> for Error {
    fn from(error: FrameError) -> Self {
        Self::Gone(error.to_string())
    }
}

/// An error of JSON-RPC 2.0, 5.1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResponseError {
    /// LSP 3.17, `ErrorCodes`.
    pub code: i64,
    /// For people.
    #[serde(default)]
    pub message: String,
    /// Anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
}

/// The document changed meanwhile: it is worth asking again.
pub(crate) const CONTENT_MODIFIED: i64 = -32801;
/// The server cancelled it.
pub(crate) const SERVER_CANCELLED: i64 = -32802;
/// JSON-RPC 2.0.
pub(crate) const METHOD_NOT_FOUND: i64 = -32601;
