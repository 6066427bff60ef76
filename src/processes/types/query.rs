//! What is waited and searched for, and what was found.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{LogStream, ProcessInfo};

/// What is waited for; whatever comes first. The exit ends every wait.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WaitSpec {
    /// Its output has a line that matches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<WaitOutput>,
    /// It wrote nothing for so many milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quiet_ms: Option<u64>,
    /// One of its processes listens on this TCP port; 0: on any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The longest time to wait, in milliseconds; 30 000 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// Output that is waited for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WaitOutput {
    /// A regular expression (the syntax of Rust's `regex`: no look-around, linear time), tried on each line without
    /// escape sequences, and on the last line before it ends.
    pub pattern: String,
    /// Which streams; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<LogStream>,
    /// Only output after this sequence number; 0, from the beginning, when absent.
    #[serde(default)]
    pub since: u64,
}

/// What a wait came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WaitResult {
    /// What came: `exit`, `output`, `quiet`, `port`; absent when the time was over first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub met: Option<WaitMet>,
    /// The time was over first.
    pub timed_out: bool,
    /// How long it took, in milliseconds.
    pub waited_ms: u64,
    /// The line that matched.
    #[serde(rename = "match", skip_serializing_if = "Option::is_none")]
    pub matched: Option<MatchedLine>,
    /// The port that is open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Bytes of output that were gone before they could be looked at: the log's bound, or a full disk.
    #[serde(skip_serializing_if = "is_zero_bytes")]
    pub missed_bytes: u64,
    /// The process as it is now.
    pub process: ProcessInfo,
}

/// What ended a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum WaitMet {
    /// It ended.
    Exit,
    /// A line matched.
    Output,
    /// It was quiet for long enough.
    Quiet,
    /// The port is open.
    Port,
}

/// A line of output that matched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct MatchedLine {
    /// Where the line began: a log entry's sequence number.
    pub sequence: u64,
    /// The line without escape sequences.
    pub line: String,
}

/// What is searched for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchSpec {
    /// A regular expression (the syntax of Rust's `regex`), 1 to 200 characters.
    pub pattern: String,
    /// Matches at most, 1 to 500.
    pub limit: usize,
    /// Lines before and after each, 0 to 50.
    pub context: usize,
    /// Which streams; all when absent.
    pub stream: Option<LogStream>,
    /// Where; both when absent.
    pub source: Option<SearchSource>,
}

/// Where lines are searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SearchSource {
    /// A terminal's screen and scrollback, as it is now.
    Screen,
    /// What was written, without escape sequences.
    Log,
}

/// What a search found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SearchResult {
    /// The matches: those on the screen first.
    pub matches: Vec<SearchMatch>,
    /// Lines that match, shown or not.
    pub total: usize,
    /// More match than are shown.
    pub truncated: bool,
    /// Lines that were searched.
    pub total_lines: u64,
    /// Bytes of output that the log no longer has.
    pub bytes_missing: u64,
}

/// One match.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SearchMatch {
    /// 1-based within its source, counting what is kept.
    pub line: u64,
    /// The line.
    pub content: String,
    /// Lines before it.
    pub context_before: Vec<String>,
    /// Lines after it.
    pub context_after: Vec<String>,
    /// Where it was found.
    pub source: SearchSource,
    /// In the log: where the line began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde asks for a reference
fn is_zero_bytes(bytes: &u64) -> bool {
    *bytes == 0
}
