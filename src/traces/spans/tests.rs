use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn book() -> SpanBook {
    SpanBook::new("ses_1", "amp", Some(UsageSeen::default()), 8)
}

fn turn(turn_id: &str) -> TurnSeen<'_> {
    TurnSeen { turn_id, origin: "acp", prompt_bytes: 7 }
}

fn ended<'a>(turn_id: &'a str, outcome: &'a str) -> TurnEnded<'a> {
    TurnEnded { turn_id, outcome, stop_reason: None, usage: None }
}

fn tool(call_id: &str, phase: ToolPhase) -> ToolSeen<'_> {
    let (name, title, kind) = (None, Some("Reads a file"), Some("read"));
    ToolSeen { item_id: call_id, call_id, name, title, kind, parent_call_id: None, phase, arguments_bytes: 3, output_bytes: 5 }
}

fn doc(row: &SpanRow) -> Value {
    serde_json::from_str(&row.doc).expect("JSON")
}

#[test]
fn a_turn_holds_its_tool_calls_and_waits() {
    let mut book = book();
    let started = book.turn_started(1000, &turn("turn_1")).remove(0);
    assert_eq!((started.kind.as_str(), started.name.as_str(), started.ended_at_ms), ("turn", "amp", None));
    let call = book.tool(1010, &tool("c1", ToolPhase::Started)).remove(0);
    assert_eq!((&call.trace_id, call.parent_span_id.as_ref()), (&started.trace_id, Some(&started.span_id)));
    let asked = RequestSeen { request_id: "req_1", kind: "permission", call_id: Some("c1") };
    let wait = book.request_created(1020, &asked).remove(0);
    assert_eq!(wait.parent_span_id.as_ref(), Some(&call.span_id));
    let wait = book.request_resolved(1030, "req_1", "allowed", "rule:rule_1").remove(0);
    assert_eq!((wait.started_at_ms, wait.ended_at_ms, wait.outcome.as_deref()), (1020, Some(1030), Some("allowed")));
    assert!(book.tool(1035, &tool("c1", ToolPhase::Progress)).is_empty());
    let done = book.tool(1040, &tool("c1", ToolPhase::Ended { failed: true })).remove(0);
    assert_eq!((&done.span_id, done.name.as_str(), done.outcome.as_deref()), (&call.span_id, "read", Some("failed")));
    assert_eq!(doc(&done)["error.type"], "failed");
    assert!(book.tool(1050, &tool("c1", ToolPhase::Late)).is_empty());
    book.said(11);
    book.usage(UsageSeen { used: 10, size: 100, cost_amount: Some(0.5), cost_currency: Some("USD".into()) });
    let usage = json!({"inputTokens": 9, "outputTokens": 8, "cachedReadTokens": 1});
    let end = TurnEnded { stop_reason: Some("end_turn"), usage: Some(&usage), ..ended("turn_1", "finished") };
    let rows = book.turn_ended(1100, &end);
    assert_eq!((rows.len(), rows[0].ended_at_ms, book.open_count()), (1, Some(1100), 0));
    let doc = doc(&rows[0]);
    for (name, value) in [
        ("gen_ai.operation.name", json!("invoke_agent")),
        ("gen_ai.conversation.id", json!("ses_1")),
        ("gen_ai.response.finish_reasons", json!(["end_turn"])),
        ("gen_ai.usage.input_tokens", json!(9)),
        ("gen_ai.usage.cache_read.input_tokens", json!(1)),
        ("sandboxd.tool_calls", json!(1)),
        ("sandboxd.tool_calls_failed", json!(1)),
        ("sandboxd.input_bytes", json!(7)),
        ("sandboxd.output_bytes", json!(11)),
        ("sandboxd.cost", json!(0.5)),
    ] {
        assert_eq!(doc[name], value, "{name}");
    }
}

#[test]
fn what_is_open_ends_with_its_turn() {
    for (outcome, expected) in [("cancelled", "cancelled"), ("finished", "lost"), ("lost", "lost")] {
        let mut book = book();
        book.turn_started(0, &turn("turn_1"));
        book.tool(1, &tool("c1", ToolPhase::Started));
        book.request_created(2, &RequestSeen { request_id: "req_1", kind: "permission", call_id: None });
        let rows = book.turn_ended(9, &ended("turn_1", outcome));
        let outcomes: Vec<_> = rows.iter().map(|row| (row.kind.as_str(), row.outcome.as_deref().unwrap_or(""))).collect();
        assert_eq!(outcomes, [("permission", expected), ("tool_call", expected), ("turn", outcome)]);
    }
}

#[test]
fn turns_at_once_end_alone() {
    let mut book = book();
    book.turn_started(0, &turn("turn_1"));
    book.turn_started(1, &turn("turn_2"));
    let call = book.tool(2, &tool("c1", ToolPhase::Started)).remove(0);
    assert_eq!(call.turn_id.as_deref(), Some("turn_2"));
    assert_eq!(book.turn_ended(3, &ended("turn_1", "finished")).len(), 1);
    assert_eq!(book.turn_ended(4, &ended("turn_2", "finished")).len(), 2);
    assert!(book.turn_ended(5, &ended("turn_2", "finished")).is_empty(), "told twice");
}

#[test]
fn outside_of_a_turn_a_call_is_a_trace_of_its_own_and_may_come_again() {
    let mut book = book();
    let first = book.tool(1, &tool("c1", ToolPhase::Ended { failed: false })).remove(0);
    let other = ToolSeen { item_id: "item_2", ..tool("c1", ToolPhase::Ended { failed: false }) };
    let again = book.tool(2, &other).remove(0);
    assert_eq!((first.parent_span_id.as_ref(), first.turn_id.as_ref(), first.ended_at_ms), (None, None, Some(1)));
    assert!(first.span_id != again.span_id && first.trace_id != again.trace_id);
}

#[test]
fn a_subagents_call_hangs_below_the_call_that_began_it() {
    let mut book = book();
    book.turn_started(0, &turn("turn_1"));
    let outer = book.tool(1, &tool("task", ToolPhase::Started)).remove(0);
    let inner = ToolSeen { parent_call_id: Some("task"), name: Some("Grep"), ..tool("c2", ToolPhase::Started) };
    let inner = book.tool(2, &inner).remove(0);
    assert_eq!((inner.parent_span_id, inner.name.as_str()), (Some(outer.span_id), "Grep"));
}

#[test]
fn costs_are_counted_per_turn_also_when_the_agent_counts_anew() {
    let mut book = SpanBook::new("ses_1", "amp", None, 8);
    let mut cost_of = |turn_id: &str, total: f64| {
        book.turn_started(0, &turn(turn_id));
        book.usage(UsageSeen { cost_amount: Some(total), ..UsageSeen::default() });
        doc(&book.turn_ended(1, &ended(turn_id, "finished")).remove(0))["sandboxd.cost"].clone()
    };
    assert_eq!(cost_of("turn_1", 3.0), Value::Null, "what it had cost before isn't known");
    assert_eq!(cost_of("turn_2", 3.5), json!(0.5));
    assert_eq!(cost_of("turn_3", 0.25), json!(0.25));
}

#[derive(Debug, Clone)]
enum Step {
    Turn(u8),
    Ended(u8),
    Tool(u8, u8),
    Asked(u8),
    Answered(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0u8..4).prop_map(Step::Turn),
        (0u8..4).prop_map(Step::Ended),
        (0u8..20, 0u8..4).prop_map(|(call, phase)| Step::Tool(call, phase)),
        (0u8..9).prop_map(Step::Asked),
        (0u8..9).prop_map(Step::Answered),
    ]
}

fn take(book: &mut SpanBook, now_ms: i64, step: &Step) -> Vec<SpanRow> {
    match step {
        Step::Turn(n) => book.turn_started(now_ms, &turn(&format!("turn_{n}_{now_ms}"))),
        Step::Ended(n) => {
            let turns = book.open.iter().filter(|open| open.row.kind == "turn").map(|open| open.key.clone());
            let id = turns.into_iter().nth(usize::from(*n)).unwrap_or_default();
            book.turn_ended(now_ms, &ended(&id, "finished"))
        }
        Step::Tool(call, phase) => {
            let phase = [ToolPhase::Started, ToolPhase::Progress, ToolPhase::Late, ToolPhase::Ended { failed: false }]
                [usize::from(*phase)];
            let (call_id, item_id) = (format!("c{call}"), format!("item_{now_ms}"));
            book.tool(now_ms, &ToolSeen { item_id: &item_id, ..tool(&call_id, phase) })
        }
        Step::Asked(n) => {
            let request_id = format!("req_{n}_{now_ms}");
            book.request_created(now_ms, &RequestSeen { request_id: &request_id, kind: "permission", call_id: Some("c1") })
        }
        Step::Answered(n) => {
            let asked = book.open.iter().filter(|open| open.row.kind == "permission").map(|open| open.key.clone());
            let id = asked.into_iter().nth(usize::from(*n)).unwrap_or_default();
            book.request_resolved(now_ms, &id, "allowed", "client")
        }
    }
}

proptest! {
    /// Whatever happens in whatever order: what began ends once, within its bound, and rows hang together.
    #[test]
    fn what_began_ends_once(steps in prop::collection::vec(step(), 0..120)) {
        let mut book = book();
        let mut rows = std::collections::BTreeMap::<String, SpanRow>::new();
        let mut put = |row: SpanRow| {
            let before = rows.insert(row.span_id.clone(), row.clone());
            prop_assert!(before.is_none_or(|before| before.ended_at_ms.is_none() && before.trace_id == row.trace_id));
            if let Some(parent) = &row.parent_span_id {
                prop_assert_eq!(&rows.get(parent).expect("the parent was written before").trace_id, &row.trace_id);
            }
            Ok(())
        };
        for (at, step) in steps.iter().enumerate() {
            for row in take(&mut book, at as i64, step) {
                put(row)?;
            }
            prop_assert!(book.open_count() <= 8);
        }
        for row in book.ended(1000, "lost") {
            put(row)?;
        }
        prop_assert!(rows.values().all(|row| row.ended_at_ms.is_some() && row.outcome.is_some()));
    }
}
