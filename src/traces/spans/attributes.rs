//! The attributes of spans and their names.

use serde_json::{Map, Value, json};

use super::seen::{RequestSeen, ToolSeen, TurnEnded, TurnSeen, UsageSeen};

pub(super) const OUTPUT_BYTES: &str = "sandboxd.output_bytes";
pub(super) const REQUEST_BY: &str = "sandboxd.request.by";
const SESSION_COST: &str = "sandboxd.session.cost";
pub(super) const TOOL_CALLS: &str = "sandboxd.tool_calls";
pub(super) const TOOL_FAILURES: &str = "sandboxd.tool_calls_failed";
const INPUT_BYTES: &str = "sandboxd.input_bytes";

/// Longest title in an attribute, in characters.
const TITLE_MAX_CHARS: usize = 200;

/// Members of ACP's `usage`, and what OpenTelemetry calls them.
const TOKENS: [(&str, &str); 6] = [
    ("inputTokens", "gen_ai.usage.input_tokens"),
    ("outputTokens", "gen_ai.usage.output_tokens"),
    ("cachedReadTokens", "gen_ai.usage.cache_read.input_tokens"),
    ("cachedWriteTokens", "gen_ai.usage.cache_creation.input_tokens"),
    ("thoughtTokens", "sandboxd.usage.thought_tokens"),
    ("totalTokens", "sandboxd.usage.total_tokens"),
];

type Attributes = Map<String, Value>;

fn base(session_id: &str, agent: &str) -> Attributes {
    Attributes::from_iter([
        ("gen_ai.agent.name".to_owned(), agent.into()),
        ("gen_ai.conversation.id".to_owned(), session_id.into()),
    ])
}

fn set(attributes: &mut Attributes, name: &str, value: impl Into<Value>) {
    attributes.insert(name.to_owned(), value.into());
}

fn set_some(attributes: &mut Attributes, name: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        set(attributes, name, value);
    }
}

pub(super) fn of_turn(session_id: &str, agent: &str, turn: &TurnSeen<'_>) -> Attributes {
    let mut attributes = base(session_id, agent);
    set(&mut attributes, "gen_ai.operation.name", "invoke_agent");
    set(&mut attributes, "sandboxd.turn.id", turn.turn_id);
    set(&mut attributes, "sandboxd.turn.origin", turn.origin);
    set(&mut attributes, INPUT_BYTES, turn.prompt_bytes);
    attributes
}

pub(super) fn of_tool(session_id: &str, agent: &str, tool: &ToolSeen<'_>) -> Attributes {
    let mut attributes = base(session_id, agent);
    set(&mut attributes, "gen_ai.operation.name", "execute_tool");
    set(&mut attributes, "gen_ai.tool.call.id", tool.call_id);
    attributes
}

/// What later updates may change.
pub(super) fn refresh_tool(attributes: &mut Attributes, tool: &ToolSeen<'_>) {
    set(attributes, "gen_ai.tool.name", tool.shown_name());
    set_some(attributes, "sandboxd.tool.kind", tool.kind);
    let title = tool.title.map(|title| title.chars().take(TITLE_MAX_CHARS).collect::<String>());
    set_some(attributes, "sandboxd.tool.title", title);
    set(attributes, INPUT_BYTES, tool.arguments_bytes);
    set(attributes, OUTPUT_BYTES, tool.output_bytes);
}

pub(super) fn of_request(session_id: &str, agent: &str, request: &RequestSeen<'_>) -> Attributes {
    let mut attributes = base(session_id, agent);
    set(&mut attributes, "sandboxd.request.id", request.request_id);
    set(&mut attributes, "sandboxd.request.kind", request.kind);
    set_some(&mut attributes, "gen_ai.tool.call.id", request.call_id);
    attributes
}

/// Adds to a number.
pub(super) fn count(attributes: &mut Attributes, name: &str, more: u64) {
    match attributes.get_mut(name) {
        Some(count) => *count = (count.as_u64().unwrap_or(0) + more).into(),
        None => set(attributes, name, more),
    }
}

/// Stop reason, tokens, context and cost.
pub(super) fn end_turn(attributes: &mut Attributes, turn: &TurnEnded<'_>, usage: Option<&UsageSeen>, cost_before: Option<f64>) {
    set_some(attributes, "gen_ai.response.finish_reasons", turn.stop_reason.map(|reason| json!([reason])));
    for (acp, name) in TOKENS {
        set_some(attributes, name, turn.usage.and_then(|usage| usage.get(acp)).and_then(Value::as_u64));
    }
    let Some(usage) = usage else { return };
    if usage.size > 0 {
        set(attributes, "sandboxd.context.used_tokens", usage.used);
        set(attributes, "sandboxd.context.size_tokens", usage.size);
    }
    let Some(cost) = usage.cost_amount else { return };
    set(attributes, SESSION_COST, cost);
    // Agents count from the session's start, or from their own: then the count begins again.
    let of_turn = cost_before.map(|before| if cost < before { cost } else { cost - before });
    set_some(attributes, "sandboxd.cost", of_turn);
    set_some(attributes, "sandboxd.cost.currency", usage.cost_currency.as_deref());
}

/// `error.type` (semantic conventions, "Recording errors") of what did not end well.
pub(super) fn end(attributes: &mut Attributes, outcome: &str) {
    if matches!(outcome, "failed" | "lost") {
        set(attributes, "error.type", outcome);
    }
}
