//! What happens in a session as spans: a turn, and the tool calls and waits for decisions within it. Pure: time and facts
//! come in, rows go out, to be written with the events that tell of the same facts.
//!
//! ```text
//! turn ─┬─ tool_call ─┬─ tool_call (a subagent's)
//!       │             └─ permission
//!       └─ permission
//! ```
//!
//! One turn is one trace. What happens outside of a turn is a trace of its own. A span is written when it begins and when
//! it ends, so that what still runs is seen, too. Attributes have the names of OpenTelemetry's semantic conventions for
//! generative AI (v1.41.0) where there are some, else names below `sandboxd.`.

mod attributes;
mod seen;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value};

use super::ids;
use crate::store::SpanRow;
use attributes::{TOOL_CALLS, TOOL_FAILURES};
pub use seen::{RequestSeen, ToolPhase, ToolSeen, TurnEnded, TurnSeen, UsageSeen};

/// The spans of one session that have not ended. Belongs to whoever sees the session's facts in order.
#[derive(Debug)]
pub struct SpanBook {
    session_id: String,
    agent: String,
    open_max: usize,
    open: Vec<Open>,
    /// Spans that had to make room: one of them may begin once more.
    evicted: u64,
    /// The last usage that the agent told.
    usage: Option<UsageSeen>,
}

/// A span that has not ended. Its row's `doc` is empty until it is written.
#[derive(Debug)]
struct Open {
    key: String,
    row: SpanRow,
    attributes: Map<String, Value>,
    /// Of a turn: what the session had cost when it began.
    cost_before: Option<f64>,
}

impl SpanBook {
    /// The book of one session, `ses_…`. `usage` is what was known of its usage so far: `UsageSeen::default()` for one that
    /// was just made, `None` when it isn't known. At most `open_max` spans are open; beyond that the oldest end as lost, turns last.
    pub fn new(session_id: &str, agent: &str, usage: Option<UsageSeen>, open_max: usize) -> Self {
        let (session_id, agent) = (session_id.to_owned(), agent.to_owned());
        Self { session_id, agent, open_max: open_max.max(1), open: Vec::new(), evicted: 0, usage }
    }

    /// True when it is known what the session has cost.
    pub fn is_usage_known(&self) -> bool {
        self.usage.is_some()
    }

    /// Ids of the spans that have not ended.
    pub fn open_ids(&self) -> Vec<String> {
        self.open.iter().map(|open| open.row.span_id.clone()).collect()
    }

    /// What was begun once more began when its row says.
    pub fn as_written(&mut self, rows: &[SpanRow]) {
        for open in &mut self.open {
            if let Some(row) = rows.iter().find(|row| row.span_id == open.row.span_id) {
                open.row.started_at_ms = row.started_at_ms;
                open.row.trace_id.clone_from(&row.trace_id);
                open.row.parent_span_id.clone_from(&row.parent_span_id);
                open.row.turn_id.clone_from(&row.turn_id);
            }
        }
    }

    /// How many spans have not ended.
    pub fn open_count(&self) -> usize {
        self.open.len()
    }

    /// A prompt was sent to the agent.
    pub fn turn_started(&mut self, now_ms: i64, turn: &TurnSeen<'_>) -> Vec<SpanRow> {
        let row = SpanRow {
            span_id: ids::span_id(&["turn", turn.turn_id]),
            trace_id: ids::trace_id(&["turn", turn.turn_id]),
            parent_span_id: None,
            turn_id: Some(turn.turn_id.to_owned()),
            ..self.row("turn", &self.agent, now_ms)
        };
        let attributes = attributes::of_turn(&self.session_id, &self.agent, turn);
        let cost_before = self.usage.as_ref().map(|usage| usage.cost_amount.unwrap_or(0.0));
        self.begin(now_ms, Open { key: turn.turn_id.to_owned(), row, attributes, cost_before })
    }

    /// A tool call began, went on or ended. One that is seen for the first time at its end has no duration.
    pub fn tool(&mut self, now_ms: i64, tool: &ToolSeen<'_>) -> Vec<SpanRow> {
        let mut rows = Vec::new();
        if self.find("tool_call", tool.call_id).is_none() {
            if tool.phase == ToolPhase::Late {
                return rows; // it ended before
            }
            rows = self.begin_tool(now_ms, tool);
        }
        let Some(at) = self.find("tool_call", tool.call_id) else { return rows };
        let open = &mut self.open[at];
        open.row.name = tool.shown_name().to_owned();
        attributes::refresh_tool(&mut open.attributes, tool);
        if let ToolPhase::Ended { failed } = tool.phase {
            let row = self.end_tool(at, now_ms, if failed { "failed" } else { "completed" });
            rows.retain(|began| began.span_id != row.span_id); // it came and went at once
            rows.push(row);
        }
        rows
    }

    /// The agent waits for a decision.
    pub fn request_created(&mut self, now_ms: i64, request: &RequestSeen<'_>) -> Vec<SpanRow> {
        let call = request.call_id.and_then(|call| self.find("tool_call", call));
        let row = self.child("permission", request.request_id, request.kind, now_ms, call);
        let attributes = attributes::of_request(&self.session_id, &self.agent, request);
        self.begin(now_ms, Open { key: request.request_id.to_owned(), row, attributes, cost_before: None })
    }

    /// It was decided: `outcome` as the event `request.resolved` has it, `by` whom.
    pub fn request_resolved(&mut self, now_ms: i64, request_id: &str, outcome: &str, by: &str) -> Vec<SpanRow> {
        let Some(at) = self.find("permission", request_id) else { return Vec::new() };
        self.open[at].attributes.insert(attributes::REQUEST_BY.into(), by.into());
        vec![self.end(at, now_ms, outcome)]
    }

    /// The agent told how full the context is and what the session has cost (ACP v1, `usage_update`).
    pub fn usage(&mut self, usage: UsageSeen) {
        self.usage = Some(usage);
    }

    /// The agent said something: bytes of a message or thought.
    pub fn said(&mut self, bytes: usize) {
        if let Some(turn) = self.open.iter_mut().rfind(|open| open.row.kind == "turn") {
            attributes::count(&mut turn.attributes, attributes::OUTPUT_BYTES, bytes as u64);
        }
    }

    /// A prompt was answered, or never will be. What is open within the turn ends, too: as cancelled when the turn was,
    /// else as lost.
    pub fn turn_ended(&mut self, now_ms: i64, turn: &TurnEnded<'_>) -> Vec<SpanRow> {
        let outcome = if turn.outcome == "cancelled" { "cancelled" } else { "lost" };
        let mut rows = Vec::new();
        while let Some(at) = self.open.iter().rposition(|open| open.is_within(turn.turn_id)) {
            rows.push(if self.open[at].row.kind == "tool_call" {
                self.end_tool(at, now_ms, outcome)
            } else {
                self.end(at, now_ms, outcome)
            });
        }
        if let Some(at) = self.find("turn", turn.turn_id) {
            let (open, usage) = (&mut self.open[at], self.usage.as_ref());
            attributes::end_turn(&mut open.attributes, turn, usage, open.cost_before);
            rows.push(self.end(at, now_ms, turn.outcome));
        }
        rows
    }

    /// The agent is gone, or the session ends: nothing that is open will end by itself.
    pub fn ended(&mut self, now_ms: i64, outcome: &str) -> Vec<SpanRow> {
        let mut rows = Vec::new();
        while let Some(last) = self.open.len().checked_sub(1) {
            rows.push(self.end(last, now_ms, outcome));
        }
        rows
    }

    fn begin_tool(&mut self, now_ms: i64, tool: &ToolSeen<'_>) -> Vec<SpanRow> {
        let parent = tool.parent_call_id.and_then(|call| self.find("tool_call", call));
        let row = self.child("tool_call", tool.item_id, tool.shown_name(), now_ms, parent); // agents may use the id of a call again
        let mut attributes = attributes::of_tool(&self.session_id, &self.agent, tool);
        attributes::refresh_tool(&mut attributes, tool);
        self.begin(now_ms, Open { key: tool.call_id.to_owned(), row, attributes, cost_before: None })
    }

    /// A span below the one at `parent`, named by what nothing else has, else below the turn that began last, else a trace of its own.
    fn child(&self, kind: &str, key: &str, name: &str, now_ms: i64, parent: Option<usize>) -> SpanRow {
        let turn = || self.open.iter().rposition(|open| open.row.kind == "turn");
        let parent = parent.or_else(turn).map(|at| &self.open[at].row);
        let turn_id = parent.and_then(|parent| parent.turn_id.as_deref());
        let evicted = self.evicted.to_string();
        let names = [kind, &self.session_id, key, &evicted];
        SpanRow {
            span_id: ids::span_id(&names),
            trace_id: parent.map_or_else(|| ids::trace_id(&names), |parent| parent.trace_id.clone()),
            parent_span_id: parent.map(|parent| parent.span_id.clone()),
            turn_id: turn_id.map(str::to_owned),
            ..self.row(kind, name, now_ms)
        }
    }

    fn row(&self, kind: &str, name: &str, now_ms: i64) -> SpanRow {
        SpanRow {
            span_id: String::new(),
            trace_id: String::new(),
            parent_span_id: None,
            session_id: Some(self.session_id.clone()),
            turn_id: None,
            kind: kind.to_owned(),
            name: name.to_owned(),
            started_at_ms: now_ms,
            ended_at_ms: None,
            outcome: None,
            doc: String::new(),
        }
    }

    /// The new span's row, after that of the one that had to make room.
    fn begin(&mut self, now_ms: i64, open: Open) -> Vec<SpanRow> {
        let mut rows = Vec::new();
        if self.open.len() >= self.open_max {
            let least = self.open.iter().position(|open| open.row.kind != "turn"); // turns hold the others together
            rows.push(self.end(least.unwrap_or(0), now_ms, "lost"));
            self.evicted += 1;
        }
        rows.push(open.written());
        self.open.push(open);
        rows
    }

    fn end_tool(&mut self, at: usize, now_ms: i64, outcome: &str) -> SpanRow {
        let turn_id = self.open[at].row.turn_id.clone();
        if let Some(turn) = turn_id.and_then(|turn_id| self.find("turn", &turn_id)) {
            let attributes = &mut self.open[turn].attributes;
            attributes::count(attributes, TOOL_CALLS, 1);
            attributes::count(attributes, TOOL_FAILURES, u64::from(outcome == "failed"));
        }
        self.end(at, now_ms, outcome)
    }

    fn end(&mut self, at: usize, now_ms: i64, outcome: &str) -> SpanRow {
        let mut open = self.open.remove(at);
        open.row.ended_at_ms = Some(now_ms.max(open.row.started_at_ms)); // clocks are set back
        open.row.outcome = Some(outcome.to_owned());
        attributes::end(&mut open.attributes, outcome);
        open.written()
    }

    fn find(&self, kind: &str, key: &str) -> Option<usize> {
        self.open.iter().rposition(|open| open.row.kind == kind && open.key == key)
    }
}

impl Open {
    /// True for what is part of this turn, but not the turn itself.
    fn is_within(&self, turn_id: &str) -> bool {
        self.row.kind != "turn" && self.row.turn_id.as_deref() == Some(turn_id)
    }

    fn written(&self) -> SpanRow {
        SpanRow { doc: Value::Object(self.attributes.clone()).to_string(), ..self.row.clone() }
    }
}
