//! What clients are told.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::manifest::{Language, Role};

/// A place in a text, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct Position {
    /// The line.
    pub line: u32,
    /// The character in it, in the encoding that was asked for.
    pub character: u32,
}

/// A part of a text; its end isn't in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Range {
    /// Where it begins.
    pub start: Position,
    /// Where it ends.
    pub end: Position,
}

/// How it goes with a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum ServerState {
    Starting,
    Running,
    /// It ended, and is started again soon.
    Waiting,
    /// It ended too often.
    Failed,
    Stopped,
}

/// A language server of one root.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerInfo {
    /// What it is called in paths of the API.
    pub id: String,
    /// Which one it is, as the catalogue calls it.
    pub server: String,
    /// For people.
    pub name: String,
    /// What it is for.
    pub languages: Vec<String>,
    /// The directory that it looks at.
    pub root: String,
    /// How it goes.
    pub state: ServerState,
    /// Why it doesn't run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// When it is started again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_start_at: Option<String>,
    /// What it wrote to stderr last, when it doesn't run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stderr_tail: Option<String>,
    /// Its process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<i64>,
    /// Of all its processes, about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<i64>,
    /// How often it ended by itself.
    pub restarts: i64,
    /// When its process started.
    pub started_at: String,
    /// Files that it has open.
    pub open_files: usize,
    /// What it counts characters in: `utf-8`, `utf-16` or `utf-32`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position_encoding: Option<String>,
    /// What it says it is doing: `{title,message?,percentage?}`.
    pub progress: Vec<Value>,
}

/// A language server that is known.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CatalogueEntry {
    /// The id that requests use.
    pub server: String,
    /// For people.
    pub name: String,
    /// What of a language it looks after.
    pub role: Role,
    /// Languages and their files.
    pub languages: Vec<Language>,
    /// It can be started.
    pub installed: bool,
    /// Its executable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// How it is had, when it can't be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

/// Something that a server has to say of a place in a file.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Diagnostic {
    /// Who says so, as the catalogue calls it.
    pub server: String,
    /// Where.
    pub range: Range,
    /// `error`, `warning`, `info` or `hint`.
    pub severity: &'static str,
    /// What.
    pub message: String,
    /// The rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The part of the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// About the rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code_href: Option<String>,
    /// `unnecessary`, `deprecated`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<&'static str>,
    /// The line, cut at 200 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line_text: Option<String>,
    /// Other places that belong to it: `{path,range,message}`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub related: Vec<Value>,
}
