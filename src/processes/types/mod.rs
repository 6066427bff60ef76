//! What the room is asked for and what it shows: the same types for HTTP and for whatever else calls it.

mod query;
mod spec;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use query::{MatchedLine, SearchMatch, SearchResult, SearchSource, SearchSpec, WaitMet, WaitOutput, WaitResult, WaitSpec};
pub use spec::{CommandSpec, Encoding, Limits, ProcessSpec, RunResult, RunSpec, Script, ScriptLanguage};
pub use terminal_screen::TerminalSize;

/// Names a process: `proc_<n>`, counted over the life of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId(pub u64);

impl std::fmt::Display for ProcessId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "proc_{}", self.0)
    }
}

impl std::str::FromStr for ProcessId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let digits = text.strip_prefix("proc_").ok_or(())?;
        let is_number = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
        if is_number { digits.parse().map(Self).map_err(|_| ()) } else { Err(()) }
    }
}

impl Serialize for ProcessId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ProcessId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(|()| serde::de::Error::custom("a process id looks like proc_1"))
    }
}

/// Who a process belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Owner {
    /// Made through the API.
    User,
    /// The desktop's own processes.
    Desktop,
    /// The server's own errands, such as installs.
    System,
    /// A coding agent.
    Agent,
    /// A one-shot run.
    Run,
    /// A language server.
    Lsp,
    /// A browser.
    Browser,
}

impl Owner {
    /// All of them.
    pub const ALL: [Self; 7] = [Self::User, Self::Desktop, Self::System, Self::Agent, Self::Run, Self::Lsp, Self::Browser];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Desktop => "desktop",
            Self::System => "system",
            Self::Agent => "agent",
            Self::Run => "run",
            Self::Lsp => "lsp",
            Self::Browser => "browser",
        }
    }

    /// Whether a list shows it that doesn't ask for a certain owner: agents, runs and errands are only shown on request,
    /// so that a client that cleans up what it sees does not end them.
    pub fn is_listed(self) -> bool {
        matches!(self, Self::User | Self::Desktop | Self::Browser)
    }
}

/// Where a process is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProcessStatus {
    /// It runs.
    Running,
    /// It ended, and is about to be started again by its restart policy.
    Restarting,
    /// It ended. Everything it wrote is in its log.
    Exited,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It returned this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

impl Exit {
    /// The signal's name, such as `SIGKILL`.
    pub fn signal_name(self) -> Option<&'static str> {
        match self {
            Self::Code(_) => None,
            Self::Signal(number) => {
                Some(nix::sys::signal::Signal::try_from(number).map_or("SIGRT", nix::sys::signal::Signal::as_str))
            }
        }
    }

    /// The exit code, when it returned one.
    pub fn code(self) -> Option<i32> {
        match self {
            Self::Code(code) => Some(code),
            Self::Signal(_) => None,
        }
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(number) => write!(f, "killed by {} ({number})", self.signal_name().unwrap_or("signal")),
        }
    }
}

impl From<std::process::ExitStatus> for Exit {
    fn from(status: std::process::ExitStatus) -> Self {
        use std::os::unix::process::ExitStatusExt as _;
        status.code().map_or_else(|| Self::Signal(status.signal().unwrap_or(0)), Self::Code)
    }
}

/// The end as clients see it: `{"code":0}` or `{"signal":"SIGKILL","number":9}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(untagged)]
pub enum ExitInfo {
    /// It returned.
    Code {
        /// What it returned, 0 to 255.
        code: i32,
    },
    /// A signal ended it.
    Signal {
        /// Its name, such as `SIGKILL`.
        signal: &'static str,
        /// Its number (signal(7)).
        number: i32,
    },
}

impl From<Exit> for ExitInfo {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Code(code) => Self::Code { code },
            Exit::Signal(number) => Self::Signal { signal: exit.signal_name().unwrap_or("SIGRT"), number },
        }
    }
}

impl From<ExitInfo> for Exit {
    fn from(exit: ExitInfo) -> Self {
        match exit {
            ExitInfo::Code { code } => Self::Code(code),
            ExitInfo::Signal { number, .. } => Self::Signal(number),
        }
    }
}

/// Why a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExitReason {
    /// By itself, or by a signal that did not come from here.
    Exited,
    /// `stop` was called.
    Stopped,
    /// `kill` was called.
    Killed,
    /// It ran longer than `limits.wallTimeMs` (or a run's `timeoutMs`).
    WallTimeLimit,
    /// It wrote more than `limits.outputBytes`.
    OutputLimit,
    /// Its tree used more than `limits.memoryBytes`.
    MemoryLimit,
    /// Its tree had more than `limits.pids` processes.
    PidsLimit,
    /// The server was stopped.
    ServerStopped,
    /// The server died, and the process was ended by the next one: how it would have ended isn't known.
    ServerLost,
    /// A restart could not start it.
    StartFailed,
}

impl ExitReason {
    /// The reason that a word of [`ExitReason::as_str`] stands for; `ServerLost` for an unknown one.
    pub fn from_word(word: &str) -> Self {
        let value = serde::de::value::StrDeserializer::<serde::de::value::Error>::new(word);
        Self::deserialize(value).unwrap_or(Self::ServerLost)
    }

    /// The word on the wire and in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exited => "exited",
            Self::Stopped => "stopped",
            Self::Killed => "killed",
            Self::WallTimeLimit => "wall_time_limit",
            Self::OutputLimit => "output_limit",
            Self::MemoryLimit => "memory_limit",
            Self::PidsLimit => "pids_limit",
            Self::ServerStopped => "server_stopped",
            Self::ServerLost => "server_lost",
            Self::StartFailed => "start_failed",
        }
    }
}

/// When a process that ended is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RestartPolicy {
    /// Not at all.
    #[default]
    Never,
    /// When it returned anything but 0, or a signal or limit ended it.
    OnFailure,
    /// Whenever it ends, unless it was stopped or killed through the API.
    Always,
}

/// What ending or signalling a tree did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, ToSchema)]
pub struct Stopped {
    /// Processes that got TERM.
    pub terminated: usize,
    /// Processes that got KILL.
    pub killed: usize,
    /// Processes of the tree that are still there: only such as the kernel won't end now (uninterruptible sleep).
    pub survived: usize,
}

/// A process as clients see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProcessInfo {
    /// `proc_<n>`.
    #[schema(value_type = String)]
    pub id: ProcessId,
    /// As asked for.
    pub command: Box<str>,
    /// As asked for.
    pub args: Vec<Box<str>>,
    /// As asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cwd: Option<Box<str>>,
    /// It runs in a terminal.
    pub tty: bool,
    /// As asked for.
    pub interactive: bool,
    /// Who it belongs to.
    pub owner: Owner,
    /// Where it is in its life.
    pub status: ProcessStatus,
    /// While it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// What it returned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Unix milliseconds.
    pub created_at_ms: i64,
    /// Unix milliseconds; set with the status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exited_at_ms: Option<i64>,
    /// How it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit: Option<ExitInfo>,
    /// Why it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_reason: Option<ExitReason>,
    /// Its restart policy, when it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart: Option<RestartPolicy>,
    /// How often it was started again.
    #[serde(skip_serializing_if = "is_zero")]
    pub restarts: u32,
    /// The terminal's size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminal: Option<TerminalSize>,
    /// What ending its tree came to: in the answers to stop and kill.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tree: Option<Stopped>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde asks for a reference
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl ProcessInfo {
    /// True while it runs or is about to run again.
    pub fn is_alive(&self) -> bool {
        self.status != ProcessStatus::Exited
    }
}

/// The limits that clients may change while the server runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProcessConfig {
    /// Managed processes that run at once.
    pub max_concurrent_processes: u64,
    /// A run's time when it asks for none.
    pub default_run_timeout_ms: u64,
    /// The longest time a run may ask for.
    pub max_run_timeout_ms: u64,
    /// Bytes of each stream that a run's answer may hold.
    pub max_output_bytes: u64,
    /// Bytes of output kept on disk for each process.
    pub max_log_bytes_per_process: u64,
    /// Bytes of input that one request may carry.
    pub max_input_bytes_per_request: u64,
}

/// Which streams of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogStream {
    /// Its standard output.
    Stdout,
    /// Its standard error.
    Stderr,
    /// Both, in the order of arrival.
    Combined,
    /// A terminal's output.
    Pty,
}

/// A listening TCP port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PortInfo {
    /// The port.
    pub port: u16,
    /// Where it listens, such as `127.0.0.1` or `::`.
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<std::net::IpAddr>,
    /// The process that listens; absent when that can't be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The process here that it belongs to; absent when it is none of ours.
    #[schema(value_type = Option<String>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process_id: Option<ProcessId>,
    /// Who that belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
}

/// # Errors
/// [`Error::Invalid`](crate::processes::Error::Invalid) outside of 1 to 1000 columns and rows.
pub(in crate::processes) fn check_size(size: TerminalSize) -> Result<(), crate::processes::Error> {
    if size.is_valid() {
        return Ok(());
    }
    Err(crate::processes::Error::Invalid(format!(
        "a terminal has 1 to 1000 columns and rows, not {} by {}",
        size.cols, size.rows
    )))
}

/// Signals that clients may name: `TERM`, `SIGTERM` or `15`.
pub fn parse_signal(name: &str) -> Option<nix::sys::signal::Signal> {
    use nix::sys::signal::Signal;
    if let Ok(number) = name.parse::<i32>() {
        return Signal::try_from(number).ok();
    }
    let upper = name.to_ascii_uppercase();
    let full = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    full.parse().ok()
}

/// Whom a signal goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SignalScope {
    /// The process alone.
    #[default]
    Process,
    /// Its process group; of a terminal, the group in the foreground.
    Group,
    /// Everything that descends from it.
    Tree,
}
