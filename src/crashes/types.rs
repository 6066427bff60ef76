//! What a report says.

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::keeper::Ended;

/// How a server ended that did not want to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CrashReport {
    /// `crash_…`; sorts by time.
    pub id: String,
    /// When the next server noticed it, in Unix milliseconds.
    pub at_ms: i64,
    /// Version of the server that noticed it.
    pub version: String,
    /// The keeper's run; absent without a keeper.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// The process that ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// How it ended; absent when only a panic is known, after which it went on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Ending>,
    /// How long it ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uptime_ms: Option<u64>,
    /// True for a newer program that never got ready: the one before was started in its place.
    #[serde(default, rename = "upgrade")]
    pub is_upgrade: bool,
    /// The end of what it wrote to stderr; at most 4 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr: Option<String>,
    /// Its last panic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub panic: Option<PanicReport>,
}

impl CrashReport {
    /// For the log.
    pub fn in_words(&self) -> String {
        let panic = self.panic.as_ref().map(|panic| format!("panicked at {}: {}", panic.place, panic.message));
        let ended = self.ended.as_ref().map(|ended| match (&ended.signal, ended.code) {
            (Some(signal), _) => format!("ended by {signal}"),
            (None, code) => format!("ended with exit code {}", code.unwrap_or(-1)),
        });
        ended.into_iter().chain(panic).collect::<Vec<_>>().join("; ")
    }
}

/// How a process ended: one of the two.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ending {
    /// Its exit code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// The signal that ended it, as `SIGSEGV`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
}

impl From<Ended> for Ending {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Code(code) => Self { code: Some(code), signal: None },
            Ended::Signal(number) => {
                let name = Signal::try_from(number).map_or_else(|_| number.to_string(), |signal| signal.as_str().to_owned());
                Self { code: None, signal: Some(name) }
            }
        }
    }
}

/// A panic: a bug that ended one task.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PanicReport {
    /// When, in Unix milliseconds.
    pub at_ms: i64,
    /// Version of the server.
    pub version: String,
    /// What it said.
    pub message: String,
    /// Where in the source, as `src/file.rs:12:3`.
    pub place: String,
    /// The thread.
    pub thread: String,
    /// The task, where it was one that has a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// How it came there; only with `RUST_BACKTRACE`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backtrace: Option<String>,
    /// How many there were since the start, with this one.
    pub count: u64,
}
