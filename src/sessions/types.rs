//! What the sessions room speaks of: the documents that rows carry, and what routes show.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::ground::{Root, SessionWorktree};
use crate::rt::raw_json::RawJson;

/// Everything of a session that no query looks for: `doc` of its row.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SessionDoc {
    /// Through which door it came: `sessions` or `acp`.
    pub origin: String,
    /// Params of session/new, for a server that must open it again: JSON text.
    pub opened_with: Option<Box<RawValue>>,
    /// Whatever its creator keeps with it: a JSON object.
    pub metadata: Option<Value>,
    /// The id of the mode that is on.
    pub mode: Option<String>,
    /// The model's id.
    pub model: Option<String>,
    /// ACP's `modes` of the last answer that opened it.
    pub modes: Option<RawJson>,
    /// ACP's `configOptions`, as they are now.
    pub config_options: Option<RawJson>,
    /// What the agent answered to `initialize`.
    pub initialized: Option<RawJson>,
    /// Tokens and cost.
    pub usage: Option<UsageDoc>,
    /// Turns and tool calls so far.
    pub stats: Stats,
    /// How its agent came to know it again the last time.
    pub restored: Option<Restored>,
    /// Why no agent runs for it, once one ended.
    pub exit: Option<ExitDoc>,
    /// Which MCP servers and skills it got.
    pub workspace: Option<Value>,
    /// Deadlines of turns that don't name their own.
    pub turn_limits: TurnLimits,
    /// Messages with an idempotency key that joined a turn, the latest few.
    pub steered: Vec<Steered>,
    /// Where paths in its name may lead; `None`: wherever the server lets.
    pub roots: Option<Vec<Root>>,
}

impl SessionDoc {
    /// As its row has it. One that can't be read leads nowhere, for what its roots were isn't known.
    pub(super) fn of(doc: &str) -> Self {
        serde_json::from_str(doc).unwrap_or_else(|_| Self { roots: Some(Vec::new()), ..Self::default() })
    }
}

/// A message with an idempotency key that joined a turn.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Steered {
    /// Its key.
    pub key: String,
    /// Of the request.
    pub digest: String,
    /// The turn.
    pub turn_id: String,
}

/// Tokens and cost (ACP v1, `usage_update`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UsageDoc {
    /// Tokens in the context.
    pub used: u64,
    /// Tokens that fit.
    pub size: u64,
    /// Cost of the session so far.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cost: Option<Cost>,
}

/// An amount of money (ACP v1, `Cost`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Cost {
    /// How much.
    pub amount: f64,
    /// ISO 4217, or another unit.
    pub currency: String,
}

/// Counts over a session's life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Stats {
    /// Turns that went to the agent.
    pub turns: u64,
    /// Tool calls that were seen.
    pub tool_calls: u64,
}

/// How a session came back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Restored {
    /// `session/resume`, `session/load`, or `session/new`: a fresh one took its place.
    pub method: String,
    /// `kept`; `transcript`: the fresh one is told in words what was said; or `lost`.
    pub history: String,
    /// Size of the words.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub transcript_bytes: Option<usize>,
    /// True when the oldest part of them was left out.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub truncated: bool,
    /// Unix milliseconds.
    pub at_ms: i64,
}

/// How an agent process ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExitDoc {
    /// `agent_exited`, `server_stopped`, `server_restarted`, `server_deleted`, `idle`, `deadline`, `closed` or `imported`.
    pub reason: String,
    /// What it returned.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub exit_code: Option<i32>,
    /// What ended it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub signal: Option<String>,
    /// Its last words.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub stderr: Option<String>,
}

/// How long a turn may take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TurnLimits {
    /// Milliseconds without a word from the agent, waiting for decisions not counted; 0 or absent: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inactivity_timeout_ms: Option<u64>,
    /// Milliseconds altogether, from when the turn is taken out of the queue to be sent: starting its agent counts,
    /// waiting behind others doesn't; 0 or absent: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// Everything of a turn that no query looks for: `doc` of its row.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TurnDoc {
    /// Through which door it came.
    pub origin: String,
    /// ACP content blocks, as they are sent.
    pub prompt: Option<Box<RawValue>>,
    /// `started` or `queued`.
    pub delivery: String,
    /// Unix milliseconds.
    pub created_at_ms: i64,
    /// Unix milliseconds.
    pub started_at_ms: Option<i64>,
    /// Unix milliseconds.
    pub ended_at_ms: Option<i64>,
    /// `finished`, `cancelled`, `failed` or `lost`.
    pub outcome: Option<String>,
    /// ACP's stop reason.
    pub stop_reason: Option<String>,
    /// Why, when the agent didn't finish it.
    pub reason: Option<String>,
    /// The JSON-RPC error.
    pub error: Option<Value>,
    /// What the agent told of tokens with its answer.
    pub usage: Option<Value>,
    /// How long it may take.
    pub limits: TurnLimits,
    /// Where it began, once it was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sent: Option<super::begin::Sent>,
}

/// A turn as routes show it.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TurnInfo {
    /// `turn_…`.
    pub id: String,
    /// The session.
    pub session_id: String,
    /// Its place among the session's turns, from 1.
    pub number: u64,
    /// `queued`, `running` or `ended`.
    pub state: String,
    /// Turns before it, the one under way included, while it is queued.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<usize>,
    /// Through which door it came: `sessions` or `acp`.
    pub origin: String,
    /// `started`: at once; `queued`: behind others.
    pub delivery: String,
    /// ACP content blocks.
    #[schema(value_type = Vec<Object>)]
    pub prompt: Option<Box<RawValue>>,
    /// Unix milliseconds.
    pub created_at_ms: i64,
    /// Unix milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at_ms: Option<i64>,
    /// Unix milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at_ms: Option<i64>,
    /// `finished`, `cancelled`, `failed` or `lost`: nobody knows how it would have ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// ACP's stop reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_reason: Option<String>,
    /// Why, when the agent didn't finish it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The JSON-RPC error.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Object)]
    pub error: Option<Value>,
    /// What the agent told of tokens with its answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Object)]
    pub usage: Option<Value>,
}

/// What a session is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SessionState {
    /// Its agent runs and waits for a prompt.
    Idle,
    /// A turn is under way.
    Running,
    /// A turn waits for somebody's decision.
    Waiting,
    /// A turn is under way, but the agent has said nothing for a while.
    Silent,
    /// No agent runs for it; the next message starts one.
    Exited,
}

/// A session as routes show it.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionInfo {
    /// `ses_…`.
    pub id: String,
    /// The agent's id.
    pub agent: String,
    /// The ACP server that carries it: `/v1/acp/{serverId}`.
    pub server_id: String,
    /// The id that ACP clients use.
    pub acp_session_id: String,
    /// Its working directory.
    pub cwd: String,
    /// What people call it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Directories that files are beneath which are asked for in its name; absent: wherever the server lets.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "super::ground::show")]
    #[schema(value_type = Option<Vec<String>>)]
    pub roots: Option<Vec<Root>>,
    /// What it is doing.
    pub state: SessionState,
    /// Why no agent runs for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit: Option<ExitDoc>,
    /// Unix milliseconds.
    pub created_at_ms: i64,
    /// Unix milliseconds of the last turn or change.
    pub updated_at_ms: i64,
    /// Unix milliseconds, once it is closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closed_at_ms: Option<i64>,
    /// Through which door it came: `sessions` or `acp`.
    pub origin: String,
    /// The id of the mode that is on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// The model's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Whatever its creator keeps with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Object)]
    pub metadata: Option<Value>,
    /// Tokens and cost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<UsageDoc>,
    /// Turns and tool calls so far.
    pub stats: Stats,
    /// Turns that wait.
    pub queued_turns: usize,
    /// The turn under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current_turn_id: Option<String>,
    /// Decisions that are waited for.
    pub pending_requests: usize,
    /// How its agent came to know it again the last time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restored: Option<Restored>,
    /// What only a single session's answer shows.
    #[serde(flatten)]
    pub details: Option<SessionDetails>,
}

/// What a list leaves out.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionDetails {
    /// ACP's session modes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Object)]
    pub modes: Option<RawJson>,
    /// ACP's configuration options, as they are now.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Object)]
    pub config_options: Option<RawJson>,
    /// What the agent answered to `initialize`: `agentCapabilities`, `agentInfo`, ….
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Object)]
    pub initialized: Option<RawJson>,
    /// Which MCP servers and skills it got, and which not and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Object)]
    pub workspace: Option<Value>,
    /// Deadlines of turns that don't name their own.
    pub turn_limits: TurnLimits,
}

/// What a new session shall be.
#[derive(Debug, Clone, Default, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SessionSpec {
    /// The agent's id, as in `/v1/agents`.
    pub agent: String,
    /// Its working directory, absolute or relative to the home; the home when absent.
    #[serde(default)]
    pub cwd: Option<String>,
    /// Calls on files and repositories with this session's id are confined to these directories: absolute paths, or `~/…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roots: Option<Vec<String>>,
    /// Instead of `cwd`: a working tree that is made for it, and goes some time after its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worktree: Option<SessionWorktree>,
    /// More folders it may work in (ACP additional directories).
    #[serde(default)]
    pub additional_directories: Vec<String>,
    /// The ACP server that shall carry it, made when it isn't there; `sessions-<agent>` when absent, which the
    /// sessions of an agent share.
    #[serde(default)]
    pub server_id: Option<String>,
    /// What people call it.
    #[serde(default)]
    pub title: Option<String>,
    /// The id of the mode to start in.
    #[serde(default)]
    pub mode: Option<String>,
    /// The model's id.
    #[serde(default)]
    pub model: Option<String>,
    /// ACP configuration options by id.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub config_options: BTreeMap<String, Value>,
    /// ACP `McpServer` objects, beside those of `/v1/config/mcp` for the directory.
    #[serde(default)]
    #[schema(value_type = Vec<Object>)]
    pub mcp_servers: Vec<Value>,
    /// What to do when an MCP server isn't ready: `degrade` (go on without it and say so), `fail`, or `skip` (don't check).
    #[serde(default)]
    pub mcp_policy: McpPolicy,
    /// Whatever shall be kept with it: a JSON object.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub metadata: Option<Value>,
    /// Deadlines of its turns.
    #[serde(default)]
    pub turn_limits: TurnLimits,
}

/// What to do when an MCP server isn't ready.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum McpPolicy {
    /// Go on without it, and say so.
    #[default]
    Degrade,
    /// Make no session.
    Fail,
    /// Don't check.
    Skip,
}

/// What a session shall become; absent members stay.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SessionPatch {
    /// What people call it.
    pub title: Option<String>,
    /// Replaces what is kept with it.
    #[schema(value_type = Object)]
    pub metadata: Option<Value>,
    /// The id of a mode.
    pub mode: Option<String>,
    /// The model's id.
    pub model: Option<String>,
    /// ACP configuration options by id.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub config_options: BTreeMap<String, Value>,
    /// Deadlines of turns from now on.
    pub turn_limits: Option<TurnLimits>,
    /// Other directories that calls on files are confined to, from the next call on.
    pub roots: Option<Vec<String>>,
}

/// A message for a session.
#[derive(Debug, Clone, Default, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MessageSpec {
    /// The message as text; or `content`, or both.
    #[serde(default)]
    pub text: Option<String>,
    /// ACP content blocks.
    #[serde(default)]
    #[schema(value_type = Vec<Object>)]
    pub content: Vec<Value>,
    /// Files to go with it, as ACP `resource_link` blocks.
    #[serde(default)]
    pub attachments: Vec<AttachmentRef>,
    /// What to do when a turn is under way.
    #[serde(default)]
    pub while_running: WhileRunning,
    /// How long this turn may take, instead of the session's limits.
    #[serde(default)]
    pub limits: Option<TurnLimits>,
}

/// A file that goes with a message: one that was uploaded, or any that the agent can read.
#[derive(Debug, Clone, Default, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AttachmentRef {
    /// `att_…`, as its upload was answered.
    #[serde(default)]
    pub id: Option<String>,
    /// An absolute path in the sandbox.
    #[serde(default)]
    pub path: Option<String>,
    /// Any other URI.
    #[serde(default)]
    pub uri: Option<String>,
    /// What to call it.
    #[serde(default)]
    pub name: Option<String>,
    /// Its media type.
    #[serde(default)]
    pub mime_type: Option<String>,
}

/// What a message does while a turn is under way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum WhileRunning {
    /// It waits in the queue.
    #[default]
    Queue,
    /// It joins the turn where the agent can do that, and waits in the queue where it can't; the answer says which.
    Steer,
    /// It ends the turn and comes next.
    Interrupt,
    /// It is refused.
    Reject,
}

/// What became of a message.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Submitted {
    /// The turn it is, or that it joined.
    pub turn_id: String,
    /// `started`, `queued`, or `steered`: it joined the turn under way.
    pub delivery: String,
    /// Turns before it, the one under way included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<usize>,
    /// True when this key was submitted before: nothing was sent now.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub repeated: bool,
}
