//! The facts that spans are made of.

use serde_json::Value;

/// A prompt that was sent to the agent.
#[derive(Debug, Clone, Copy)]
pub struct TurnSeen<'a> {
    /// `turn_…`.
    pub turn_id: &'a str,
    /// `sessions`, `acp` or `remote`.
    pub origin: &'a str,
    /// Length of the prompt as JSON.
    pub prompt_bytes: usize,
}

/// How a turn ended.
#[derive(Debug, Clone, Copy)]
pub struct TurnEnded<'a> {
    /// `turn_…`.
    pub turn_id: &'a str,
    /// `finished`, `cancelled`, `failed` or `lost`.
    pub outcome: &'a str,
    /// ACP's `stopReason`.
    pub stop_reason: Option<&'a str>,
    /// `usage` of the answer to the prompt (ACP, `PromptResponse`): `inputTokens`, `outputTokens`, ….
    pub usage: Option<&'a Value>,
}

/// A tool call after an update.
#[derive(Debug, Clone, Copy)]
pub struct ToolSeen<'a> {
    /// Ours: it names the span.
    pub item_id: &'a str,
    /// The agent's id of the call.
    pub call_id: &'a str,
    /// The tool's name as a program knows it, when the agent tells it.
    pub name: Option<&'a str>,
    /// What it does, in words.
    pub title: Option<&'a str>,
    /// ACP's category: `read`, `edit`, `execute`, ….
    pub kind: Option<&'a str>,
    /// The call that this one is a part of.
    pub parent_call_id: Option<&'a str>,
    /// What the update did.
    pub phase: ToolPhase,
    /// Length of the arguments as JSON, so far.
    pub arguments_bytes: usize,
    /// Length of the output, so far.
    pub output_bytes: usize,
}

impl<'a> ToolSeen<'a> {
    /// What statistics count it under: few words, whatever the agent writes into titles.
    pub(super) fn shown_name(&self) -> &'a str {
        self.name.or(self.kind).unwrap_or("other")
    }
}

/// Where a tool call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToolPhase {
    /// Seen for the first time.
    Started,
    /// Something changed.
    Progress,
    /// Came after its end.
    Late,
    /// It is over, perhaps also seen for the first time.
    Ended {
        /// The agent says that it failed.
        failed: bool,
    },
}

/// A request for a decision.
#[derive(Debug, Clone, Copy)]
pub struct RequestSeen<'a> {
    /// `req_…`.
    pub request_id: &'a str,
    /// `permission`, `elicitation`, ….
    pub kind: &'a str,
    /// The tool call that waits for it.
    pub call_id: Option<&'a str>,
}

/// Tokens in the context and cost of the session so far (ACP v1, `usage_update`).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct UsageSeen {
    /// Tokens in the context.
    pub used: u64,
    /// Tokens that the context can hold; 0 when it isn't known.
    pub size: u64,
    /// Cost since the session began, in `cost_currency`.
    pub cost_amount: Option<f64>,
    /// ISO 4217, or another unit.
    pub cost_currency: Option<String>,
}
