//! How a verb fails: an exit code and one line that says what to do.

use std::fmt::Display;

use super::{ExitCode, fail, say};
use crate::agents;
use crate::config::ConfigError;

/// Why a verb did not do what it was asked for.
#[derive(Debug)]
pub(super) struct Failure {
    code: ExitCode,
    /// What a server said about it, printed before the line.
    body: Option<String>,
    text: String,
}

impl Failure {
    /// It went wrong: exit code 1.
    pub(super) fn failed(text: impl Display) -> Self {
        Self { code: ExitCode::Failed, body: None, text: text.to_string() }
    }

    /// It was asked for in a way that can't work: exit code 2.
    pub(super) fn usage(text: impl Display) -> Self {
        Self { code: ExitCode::Usage, ..Self::failed(text) }
    }

    /// Adds what a server said about it.
    pub(super) fn with_body(self, body: String) -> Self {
        Self { body: Some(body).filter(|body| !body.is_empty()), ..self }
    }

    /// Prints it on stderr and gives the exit code.
    pub(super) fn report(self) -> ExitCode {
        if let Some(body) = &self.body {
            say(body);
        }
        fail(self.code, &self.text)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::usage(error)
    }
}

impl From<agents::Error> for Failure {
    fn from(error: agents::Error) -> Self {
        Self::failed(error) // an installer's output was printed as it came
    }
}
