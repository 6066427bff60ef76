//! Why an MCP server isn't ready.

use crate::processes;
use crate::rt::http_client::{self, ClientError};

/// Why an MCP server isn't ready.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    /// Its command can't be started.
    #[error("{0}")]
    NotStarted(String),
    /// It closed its output before it answered, or the connection ended.
    #[error("its output ended before it answered")]
    Ended,
    /// It didn't answer in time.
    #[error("no answer within {0} ms")]
    TimedOut(u64),
    /// It answered with an error.
    #[error("{method} was answered with the error {code}: {message}")]
    Refused { method: &'static str, code: i64, message: String },
    /// It answered with something else.
    #[error("{0}")]
    Strange(String),
    /// One of its messages is longer than `mcp_message_max_bytes`.
    #[error("a message is longer than {0} bytes")]
    TooLong(usize),
    /// Its tools have more pages than are read.
    #[error("its list of tools has more than {0} pages")]
    TooManyPages(usize),
    /// It can't be reached.
    #[error("can't be reached: {0}")]
    Unreachable(String),
    /// It answered with this HTTP status.
    #[error("answered with HTTP status {0}")]
    Status(reqwest::StatusCode),
    /// Its configuration can't be sent.
    #[error("its {0} can't be used")]
    Unusable(String),
}

impl From<processes::Error> for Failure {
    fn from(error: processes::Error) -> Self {
        Self::NotStarted(error.to_string())
    }
}

impl From<reqwest::Error> for Failure {
    fn from(error: reqwest::Error) -> Self {
        Self::Unreachable(http_client::cause(&error))
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::Unusable(error.to_string())
    }
}
