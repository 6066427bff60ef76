//! What the gate speaks of.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::acp::{self, BoxFuture, Verdict};
use crate::store::{RequestRow, RowChange};

/// How an answer reaches the agent: `Acp::answer`, given by the app.
pub trait Answerer: Send + Sync + 'static {
    /// Answers the agent's request with this JSON-RPC result. True when nobody had answered it before.
    fn answer(&self, server_id: &str, request_id: &str, result: String, by: String) -> BoxFuture<Result<bool, acp::Error>>;
}

/// Where a request comes from.
#[derive(Debug, Clone, Copy)]
pub struct Where<'a> {
    /// `ses_…`; none for a request of the whole connection.
    pub session_id: Option<&'a str>,
    /// The ACP server.
    pub server_id: &'a str,
    /// The agent's id.
    pub agent: &'a str,
    /// The session's directory; empty when there is none.
    pub cwd: &'a str,
    /// The turn that runs.
    pub turn_id: Option<&'a str>,
}

/// A request was taken in.
#[derive(Debug, Clone)]
pub struct Opened {
    /// `req_…`.
    pub request_id: String,
    /// What is asked for.
    pub kind: RequestKind,
    /// What becomes of it.
    pub verdict: Verdict,
    /// Data of `request.created`.
    pub created: Value,
    /// Data of `request.resolved`, when it was decided at once.
    pub resolved: Option<Value>,
    /// To be made with the event.
    pub changes: Vec<RowChange>,
    /// One that waited under the same id of the agent's, and is over with this.
    pub replaced: Option<Box<Closed>>,
}

/// A request is over.
#[derive(Debug, Clone)]
pub struct Closed {
    /// `req_…`.
    pub request_id: String,
    /// The session it belongs to.
    pub session_id: Option<String>,
    /// The turn it belongs to.
    pub turn_id: Option<String>,
    /// What was asked for.
    pub kind: RequestKind,
    /// How it ended.
    pub outcome: Outcome,
    /// Data of `request.resolved`.
    pub resolved: Value,
    /// To be made with the event.
    pub changes: Vec<RowChange>,
    /// Milliseconds that it waited.
    pub waited_ms: i64,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum RequestKind {
    /// `session/request_permission`.
    Permission,
    /// `elicitation/create`.
    Elicitation,
    /// Any other request of the agent's that a person may have to answer.
    Question,
}

impl RequestKind {
    /// Of a method; `None` for what programs answer: files, terminals, MCP, and what belongs to no session.
    pub(super) fn of(method: &str, has_session: bool) -> Option<Self> {
        let of_programs = ["fs/", "terminal/", "mcp/"].iter().any(|start| method.starts_with(start));
        match method {
            "session/request_permission" => Some(Self::Permission),
            "elicitation/create" => Some(Self::Elicitation),
            _ => (has_session && !of_programs).then_some(Self::Question),
        }
    }

    /// The word on the wire and in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Permission => "permission",
            Self::Elicitation => "elicitation",
            Self::Question => "question",
        }
    }
}

/// Whether it waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum RequestState {
    /// It waits for a decision.
    Pending,
    /// It is over.
    Resolved,
}

impl RequestState {
    /// The word on the wire and in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Resolved => "resolved",
        }
    }
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// A permission was given.
    Allowed,
    /// A permission was refused.
    Denied,
    /// Whoever was asked stepped back from it, as when the turn was cancelled.
    Cancelled,
    /// An elicitation was answered.
    Accepted,
    /// An elicitation was not answered.
    Declined,
    /// The agent has an answer that only it understands.
    Answered,
    /// It was answered with a JSON-RPC error.
    Failed,
    /// The agent took it back.
    Withdrawn,
    /// The agent that asked is gone.
    Lost,
}

impl Outcome {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Cancelled => "cancelled",
            Self::Accepted => "accepted",
            Self::Declined => "declined",
            Self::Answered => "answered",
            Self::Failed => "failed",
            Self::Withdrawn => "withdrawn",
            Self::Lost => "lost",
        }
    }
}

/// ACP v1, `PermissionOption`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PermissionOption {
    /// Names it in an answer.
    pub option_id: String,
    /// What people read.
    #[serde(default)]
    pub name: String,
    /// `allow_once`, `allow_always`, `reject_once` or `reject_always`.
    #[serde(default)]
    pub kind: String,
}

/// How a request ended, and who decided it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resolution {
    /// How it ended.
    pub outcome: Outcome,
    /// The option that was chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub option_id: Option<String>,
    /// Who: `client` (over ACP), `api` or `api:<name>`, `rule:<id>`, `deadline`, `limit`, `cancel`, `agent`, `server`.
    pub by: String,
    /// The rule that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// What the one who decided said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Why nobody decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The rule that was made of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remembered: Option<String>,
    /// What the agent was answered, unless it is long.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub result: Option<Box<RawValue>>,
    /// Unix milliseconds.
    pub at_ms: i64,
}

/// A request for a decision.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RequestInfo {
    /// `req_…`.
    pub request_id: String,
    /// What is asked for.
    pub kind: RequestKind,
    /// Whether it waits.
    pub state: RequestState,
    /// The session (`ses_…`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// The turn (`turn_…`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub turn_id: Option<String>,
    /// The ACP server.
    pub server_id: String,
    /// The agent's id.
    pub agent: String,
    /// The agent's id for it, as JSON text: an envelope on the ACP stream has it.
    pub agent_request_id: String,
    /// Its ACP method.
    pub method: String,
    /// A line for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Of a permission: ACP's kind of tool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_kind: Option<String>,
    /// Of a permission: what may be chosen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<PermissionOption>,
    /// Its params, unless they are long.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub params: Option<Box<RawValue>>,
    /// Length of the params that are left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub params_bytes: Option<usize>,
    /// Unix milliseconds.
    pub created_at_ms: i64,
    /// Unix milliseconds: then it is decided as `default` says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_at_ms: Option<i64>,
    /// What it comes to when nobody decides: `denied`, `declined` or `cancelled`.
    pub default: Outcome,
    /// The rule that says that somebody must decide.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asked_by_rule: Option<String>,
    /// How it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolution: Option<Resolution>,
}

impl RequestInfo {
    pub(super) fn row(&self) -> RowChange {
        RowChange::PutRequest(Box::new(RequestRow {
            id: self.request_id.clone(),
            session_id: self.session_id.clone(),
            server_id: self.server_id.clone(),
            kind: self.kind.as_str().to_owned(),
            state: self.state.as_str().to_owned(),
            created_at_ms: self.created_at_ms,
            resolved_at_ms: self.resolution.as_ref().map(|resolution| resolution.at_ms),
            doc: serde_json::to_string(self).unwrap_or_else(|_| "{}".to_owned()), // strings and numbers always serialise
        }))
    }

    /// Data of `request.created`.
    pub(super) fn created(&self) -> Value {
        let mut data = serde_json::to_value(self).unwrap_or_default();
        if let Some(members) = data.as_object_mut() {
            ["state", "resolution", "sessionId", "turnId"].iter().for_each(|key| drop(members.remove(*key)));
        }
        data
    }

    /// Data of `request.resolved`.
    pub(super) fn resolved(&self) -> Value {
        let mut data = serde_json::to_value(&self.resolution).unwrap_or_default();
        if let Some(members) = data.as_object_mut() {
            members.remove("result");
            members.insert("requestId".to_owned(), json!(self.request_id));
            members.insert("kind".to_owned(), json!(self.kind));
            members.insert("waitedMs".to_owned(), json!(self.waited_ms()));
        }
        data
    }

    pub(super) fn waited_ms(&self) -> i64 {
        self.resolution.as_ref().map_or(0, |resolution| (resolution.at_ms - self.created_at_ms).max(0))
    }

    pub(super) fn closed(&self, changes: Vec<RowChange>) -> Closed {
        Closed {
            request_id: self.request_id.clone(),
            session_id: self.session_id.clone(),
            turn_id: self.turn_id.clone(),
            kind: self.kind,
            outcome: self.resolution.as_ref().map_or(Outcome::Lost, |resolution| resolution.outcome),
            resolved: self.resolved(),
            changes,
            waited_ms: self.waited_ms(),
        }
    }
}

/// What a client decides. One of `decision`, `optionId` and `result` says it.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Answer {
    /// In words.
    pub decision: Option<DecisionWord>,
    /// Of a permission: one of its options.
    pub option_id: Option<String>,
    /// The JSON-RPC result for the agent, as it is.
    #[schema(value_type = Option<Object>)]
    pub result: Option<Box<RawValue>>,
    /// Of an elicitation that is allowed: the values of its form.
    #[schema(value_type = Option<Object>)]
    pub content: Option<serde_json::Map<String, Value>>,
    /// Why; kept with the request.
    pub message: Option<String>,
    /// Makes a rule of it. `always` and `never` make one for the session by themselves.
    pub remember: Option<Scope>,
    /// Who decides, in your own words; kept with the request as `api:<by>`.
    pub by: Option<String>,
}

/// A decision in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum DecisionWord {
    /// This time.
    Allow,
    /// Not this time.
    Deny,
    /// This time, and from now on.
    Always,
    /// Not this time, and no more.
    Never,
    /// Neither: the agent is told that nobody decided.
    Cancel,
}

/// How long a decision is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// In this session.
    Session,
    /// In every session of the agent.
    Always,
}

/// A request after an answer to it.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resolved {
    /// The request.
    #[serde(flatten)]
    #[schema(value_type = RequestInfo)]
    pub request: Arc<RequestInfo>,
    /// True when somebody had decided the same before.
    pub already_resolved: bool,
}
