//! Why something on the desktop can't be done.

use x11rb::errors::{ConnectError, ConnectionError, ReplyError, ReplyOrIdError};
use x11rb::protocol::ErrorKind;

/// Of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why something on the desktop can't be done.
#[derive(Debug, Clone, thiserror::Error)]
#[allow(missing_docs)] // the texts say what each is
pub enum Error {
    #[error("no connection to the display: {0}")]
    Connect(String),
    #[error("the X server is gone: {0}")]
    Gone(String),
    #[error("the X server lacks the extension {0}")]
    Missing(&'static str),
    #[error("no such window: {0}")]
    NoWindow(u32),
    #[error("the X server refuses: {0}")]
    Refused(String),
    #[error("{0}")]
    Invalid(String),
    #[error("a picture could not be encoded: {0}")]
    Encode(String),
    #[error("{what} is more than {limit_bytes} bytes")]
    TooLarge { what: &'static str, limit_bytes: usize },
    #[error("{what} took more than {timeout_ms} ms")]
    TimedOut { what: &'static str, timeout_ms: u64 },
}

impl From<ConnectError> for Error {
    fn from(error: ConnectError) -> Self {
        Self::Connect(error.to_string())
    }
}

impl From<ConnectionError> for Error {
    fn from(error: ConnectionError) -> Self {
        Self::Gone(error.to_string())
    }
}

impl From<ReplyError> for Error {
    fn from(error: ReplyError) -> Self {
        match error {
            ReplyError::ConnectionError(error) => error.into(),
            ReplyError::X11Error(error) if error.error_kind == ErrorKind::Window => Self::NoWindow(error.bad_value),
            ReplyError::X11Error(error) => {
                let request = error.request_name.unwrap_or("a request");
                Self::Refused(format!("{request}: {:?}, value {}", error.error_kind, error.bad_value))
            }
        }
    }
}

impl From<ReplyOrIdError> for Error {
    fn from(error: ReplyOrIdError) -> Self {
        match error {
            ReplyOrIdError::ConnectionError(error) => error.into(),
            ReplyOrIdError::X11Error(error) => ReplyError::X11Error(error).into(),
            ReplyOrIdError::IdsExhausted => Self::Refused("no more ids".into()),
        }
    }
}
