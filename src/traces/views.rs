//! Spans as clients see them.

use std::collections::{HashMap, HashSet};

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::store::{SpanRow, ToolRow, TraceRow};

/// Something that took time.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SpanInfo {
    /// 16 hex digits.
    pub span_id: String,
    /// 32 hex digits.
    pub trace_id: String,
    /// The span around it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_span_id: Option<String>,
    /// The session, when it belongs to one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// The turn, when it belongs to one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub turn_id: Option<String>,
    /// `turn`, `tool_call`, `permission` or `process`.
    pub kind: String,
    /// The agent of a turn, the tool of a call, the kind of a wait, the command of a process.
    pub name: String,
    /// Unix milliseconds.
    pub started_at_ms: i64,
    /// Unix milliseconds; absent while it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at_ms: Option<i64>,
    /// Milliseconds; absent while it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<i64>,
    /// How it ended: `finished`, `completed`, `failed`, `cancelled`, `lost`, or a word of its kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// By OpenTelemetry's names where there are some.
    #[schema(value_type = serde_json::Value)]
    pub attributes: Value,
}

impl From<SpanRow> for SpanInfo {
    fn from(row: SpanRow) -> Self {
        Self {
            duration_ms: row.ended_at_ms.map(|ended_at_ms| ended_at_ms - row.started_at_ms),
            attributes: serde_json::from_str(&row.doc).unwrap_or_default(),
            span_id: row.span_id,
            trace_id: row.trace_id,
            parent_span_id: row.parent_span_id,
            session_id: row.session_id,
            turn_id: row.turn_id,
            kind: row.kind,
            name: row.name,
            started_at_ms: row.started_at_ms,
            ended_at_ms: row.ended_at_ms,
            outcome: row.outcome,
        }
    }
}

/// A span and those within it.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct SpanNode {
    /// The span.
    #[serde(flatten)]
    pub span: SpanInfo,
    /// In the order in which they began.
    #[schema(no_recursion)]
    pub children: Vec<SpanNode>,
}

/// One trace.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Trace {
    /// 32 hex digits.
    pub trace_id: String,
    /// True when it has more spans than are shown (`trace_spans_max`).
    pub truncated: bool,
    /// Those without a parent here: one, unless old spans were removed.
    pub spans: Vec<SpanNode>,
}

/// Traces, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct TraceList {
    /// By their first span.
    pub traces: Vec<TraceSummary>,
    /// `cursor` of the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A trace's first span, and what is in the trace.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TraceSummary {
    /// The span without a parent.
    #[serde(flatten)]
    pub root: SpanInfo,
    /// All of its spans, the first included.
    pub spans: u64,
    /// Tool calls among them.
    pub tool_calls: u64,
    /// Those that failed.
    pub tool_calls_failed: u64,
    /// Waits for decisions.
    pub permission_waits: u64,
    /// Milliseconds of these together, as far as they are over.
    pub permission_wait_ms: u64,
}

impl From<TraceRow> for TraceSummary {
    fn from(row: TraceRow) -> Self {
        Self {
            root: row.root.into(),
            spans: row.spans,
            tool_calls: row.tool_calls,
            tool_calls_failed: row.tool_failures,
            permission_waits: row.waits,
            permission_wait_ms: row.waited_ms,
        }
    }
}

/// A session's spans as a waterfall.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Timeline {
    /// `ses_…`.
    pub session_id: String,
    /// When the session's first span began, in Unix milliseconds; absent while there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at_ms: Option<i64>,
    /// In the order in which they began.
    pub spans: Vec<TimelineSpan>,
    /// `cursor` of the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// One bar of the waterfall.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TimelineSpan {
    /// The span.
    #[serde(flatten)]
    pub span: SpanInfo,
    /// Milliseconds from the start of the session's first span.
    pub offset_ms: i64,
    /// How many spans are around it; 1 at least when it is within one that is on another page.
    pub depth: u32,
}

/// How tools did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ToolStats {
    /// The most used first.
    pub tools: Vec<ToolStat>,
    /// True when there are more than are shown (`stats_tools_max`).
    pub truncated: bool,
}

/// How one tool did with one agent. Only calls that are over count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ToolStat {
    /// Its name when the agent tells it, else ACP's category of the call (`read`, `edit`, …), else `other`.
    pub tool: String,
    /// The agent's id.
    pub agent: String,
    /// Calls.
    pub calls: u64,
    /// Those that failed.
    pub failed: u64,
    /// Those that were cancelled, or never said to have ended.
    pub unfinished: u64,
    /// Milliseconds of all.
    pub total_ms: u64,
    /// Mean milliseconds.
    pub avg_ms: u64,
    /// Half of the calls took at most so many milliseconds.
    pub p50_ms: u64,
    /// 95 of 100 calls took at most so many milliseconds.
    pub p95_ms: u64,
    /// Milliseconds of the longest.
    pub max_ms: u64,
}

impl From<ToolRow> for ToolStat {
    fn from(row: ToolRow) -> Self {
        Self {
            avg_ms: row.total_ms / row.calls.max(1),
            tool: row.tool,
            agent: row.agent,
            calls: row.calls,
            failed: row.failed,
            unfinished: row.unfinished,
            total_ms: row.total_ms,
            p50_ms: row.p50_ms,
            p95_ms: row.p95_ms,
            max_ms: row.max_ms,
        }
    }
}

/// Names a span's place in lists that go by start.
pub fn cursor(row: &SpanRow) -> String {
    format!("{}_{}", row.started_at_ms, row.span_id)
}

/// What [`cursor`] made; `None` for anything else.
pub fn parse_cursor(text: &str) -> Option<(i64, String)> {
    let (at_ms, span_id) = text.rsplit_once('_')?;
    let is_id = span_id.len() == 16 && span_id.bytes().all(|byte| byte.is_ascii_hexdigit());
    at_ms.parse().ok().filter(|_| is_id).map(|at_ms| (at_ms, span_id.to_owned()))
}

/// Spans in the order in which they began, as a tree. What has no parent among them stands at the top.
pub fn tree(rows: Vec<SpanRow>) -> Vec<SpanNode> {
    let known: HashSet<String> = rows.iter().map(|row| row.span_id.clone()).collect();
    let mut tops = Vec::new();
    let mut below: HashMap<String, Vec<SpanRow>> = HashMap::new();
    for row in rows {
        match row.parent_span_id.clone().filter(|parent| known.contains(parent) && *parent != row.span_id) {
            Some(parent) => below.entry(parent).or_default().push(row),
            None => tops.push(row),
        }
    }
    tops.into_iter().map(|row| node(row, &mut below)).collect()
}

/// As deep as calls of subagents go; parents are written before their children, so there are no circles.
fn node(row: SpanRow, below: &mut HashMap<String, Vec<SpanRow>>) -> SpanNode {
    let children = below.remove(&row.span_id).unwrap_or_default();
    SpanNode { span: row.into(), children: children.into_iter().map(|child| node(child, below)).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(span_id: &str, parent: Option<&str>) -> SpanRow {
        SpanRow {
            span_id: span_id.into(),
            trace_id: "t".into(),
            parent_span_id: parent.map(Into::into),
            session_id: None,
            turn_id: None,
            kind: "tool_call".into(),
            name: "x".into(),
            started_at_ms: 5,
            ended_at_ms: Some(7),
            outcome: None,
            doc: "{}".into(),
        }
    }

    fn shape(nodes: &[SpanNode]) -> String {
        nodes.iter().map(|node| format!("{}({})", node.span.span_id, shape(&node.children))).collect()
    }

    #[test]
    fn spans_make_a_tree_even_when_some_are_gone() {
        let rows = vec![row("a", None), row("b", Some("a")), row("c", Some("b")), row("d", Some("gone")), row("e", Some("a"))];
        assert_eq!(shape(&tree(rows)), "a(b(c())e())d()");
    }

    #[test]
    fn cursors_come_back() {
        let row = SpanRow { started_at_ms: -3, ..row("0123456789abcdef", None) };
        assert_eq!(parse_cursor(&cursor(&row)), Some((-3, row.span_id)));
        for bad in ["", "5", "5_", "x_0123456789abcdef", "5_0123456789abcde'"] {
            assert_eq!(parse_cursor(bad), None, "{bad}");
        }
    }
}
