//! Errors of language servers as problems.

use crate::http::problem::{ApiError, ErrorCode};
use crate::lsp::Error;

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        let (text, code) = (error.to_string(), error.code());
        let problem = match error {
            Error::Fs(error) => return error.into(),
            Error::Stopping => Self::new(ErrorCode::Stopping, "the server is stopping: try again once it is back"),
            Error::Invalid(_) | Error::NoServer { .. } | Error::Unsupported { .. } | Error::NotText { .. } => Self::invalid(text),
            Error::UnknownServer { .. } | Error::NotRunning { .. } => {
                Self::new(ErrorCode::NotFound, format!("not found: {text}"))
            }
            Error::NotInstalled { .. } => Self::new(ErrorCode::LanguageServerNotInstalled, text),
            Error::InstallFailed { output_tail, .. } => {
                Self::new(ErrorCode::InstallFailed, text).member("outputTail", output_tail)
            }
            Error::Down { stderr_tail, .. } => {
                Self::with_message(ErrorCode::AgentStartFailed, "stream error", &text).member("stderrTail", stderr_tail)
            }
            Error::TooMany { .. } | Error::Client(language_client::Error::Busy(_)) => Self::new(ErrorCode::Busy, text),
            Error::TooLarge { .. } => Self::new(ErrorCode::PayloadTooLarge, format!("invalid request: {text}")),
            Error::Client(language_client::Error::Timeout { .. }) => Self::new(ErrorCode::LanguageServerTimeout, text),
            Error::Client(_) => Self::with_message(ErrorCode::AgentStartFailed, "stream error", &text),
        };
        problem.member("code", code)
    }
}
