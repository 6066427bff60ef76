//! What is to run, and what came of a run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{ExitInfo, ExitReason, ProcessId, RestartPolicy, Stopped, TerminalSize};
use crate::processes::usage;

/// What a process tree may use. Absent: no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Limits {
    /// Milliseconds from the start; then the tree is ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wall_time_ms: Option<u64>,
    /// Bytes written to all streams together; then the tree is ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_bytes: Option<u64>,
    /// Memory of the whole tree; then it is ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Processes and threads of the whole tree. A cgroup refuses the next one; without it the tree is ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids: Option<u64>,
}

impl Limits {
    /// What a cgroup, or whoever measures in its place, has to hold.
    pub(in crate::processes) fn of_tree(&self) -> usage::Limits {
        usage::Limits { memory_bytes: self.memory_bytes, pids: self.pids }
    }
}

/// A script to run instead of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Script {
    /// Which interpreter.
    pub language: ScriptLanguage,
    /// The text; it is put into a file that is removed when the process ends.
    pub source: String,
}

/// Who runs a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ScriptLanguage {
    /// `sh`.
    Sh,
    /// `python3`, else `python`.
    #[serde(alias = "py")]
    Python,
    /// `node`, else `bun`, else `deno run`.
    #[serde(alias = "javascript")]
    Js,
}

/// How text in JSON stands for bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// RFC 4648 section 4, padded.
    Base64,
    /// As it stands.
    #[serde(alias = "text")]
    Utf8,
}

/// What is to run: the part that a managed process and a run share.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CommandSpec {
    /// A program's name or path; with `shell`, a line for `sh -c`. Not needed with `script`.
    #[serde(default)]
    pub command: String,
    /// Its arguments. With `shell` they are `$1` and so on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Working directory; a relative one counts from the server's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Variables on top of the server's environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// `command` is a line for `sh -c`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shell: bool,
    /// Runs this instead of `command`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<Script>,
    /// What the process reads first on its stdin; a run's stdin ends after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<String>,
    /// How `stdin` is encoded; `utf8` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin_encoding: Option<Encoding>,
    /// What its tree may use.
    #[serde(default)]
    pub limits: Limits,
    /// A repeated request with the same key and the same content starts nothing and gets the first one's answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
}

/// A managed process that is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProcessSpec {
    /// What is to run.
    #[serde(flatten)]
    pub run: CommandSpec,
    /// In a terminal of its own.
    #[serde(default)]
    pub tty: bool,
    /// Kept and shown, without effect.
    #[serde(default)]
    pub interactive: bool,
    /// The terminal's first size; 80 columns and 24 rows when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<TerminalSize>,
    /// What happens when it ends.
    #[serde(default)]
    pub restart: RestartPolicy,
    /// stdin ends after `stdin`, instead of staying open.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub close_stdin: bool,
}

/// A one-shot run that is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunSpec {
    /// What is to run.
    #[serde(flatten)]
    pub run: CommandSpec,
    /// Milliseconds; 0 or absent is the default, above the maximum is the maximum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Bytes of each stream that are kept, at most the configured `maxOutputBytes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_output_bytes: Option<u64>,
}

/// What came of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunResult {
    /// `null` when a signal ended it or it timed out.
    pub exit_code: Option<i32>,
    /// It was ended because its time was over.
    pub timed_out: bool,
    /// The first bytes it wrote; what isn't UTF-8 is replaced.
    pub stdout: String,
    /// As `stdout`.
    pub stderr: String,
    /// It wrote more than is shown.
    pub stdout_truncated: bool,
    /// As `stdoutTruncated`.
    pub stderr_truncated: bool,
    /// From start to end.
    pub duration_ms: u64,
    /// Bytes it wrote in all.
    pub stdout_bytes: u64,
    /// As `stdoutBytes`.
    pub stderr_bytes: u64,
    /// The id it had while it ran.
    #[schema(value_type = String)]
    pub process_id: ProcessId,
    /// How it ended; absent when it timed out before it could be ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit: Option<ExitInfo>,
    /// Why it ended.
    pub exit_reason: ExitReason,
    /// What ending its tree came to, when it was ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tree: Option<Stopped>,
    /// Processes it left in the background; they go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_running: Option<usize>,
}
