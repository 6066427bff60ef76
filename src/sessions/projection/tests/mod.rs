//! The fold and its inverses, with updates as agents send them.

use serde_json::{Value, json};

use super::{Limits, Noted, Outcome, Projected, Projector, TurnEnd};

mod agents;
mod any;
mod fold;
mod readers;
mod speed;

pub(super) const LIMITS: Limits = Limits {
    text_max_bytes: 1 << 20,
    tool_call_max_bytes: 1 << 20,
    diff_max_bytes: 1 << 13,
    open_items_max: 64,
    delta_max_bytes: 1 << 16,
};

/// A projector and what came out of it. The time goes on by one with each call.
pub(super) struct Bench {
    pub projector: Projector,
    pub out: Vec<Projected>,
    now_ms: i64,
}

impl Bench {
    pub fn new(limits: Limits) -> Self {
        Self { projector: Projector::new("ses_1", limits), out: Vec::new(), now_ms: 1_000 }
    }

    /// In a turn with the prompt "Hi".
    pub fn in_turn() -> Self {
        let mut bench = Self::new(LIMITS);
        bench.turn("turn_1", json!([{"type": "text", "text": "Hi"}]));
        bench.out.clear();
        bench
    }

    fn now(&mut self) -> i64 {
        self.now_ms += 1;
        self.now_ms
    }

    pub fn turn(&mut self, turn_id: &str, prompt: Value) {
        let now_ms = self.now();
        self.projector.turn_started(now_ms, turn_id, "sessions", &prompt.to_string(), &mut self.out);
    }

    pub fn update(&mut self, update: Value) -> Noted {
        self.raw(&update.to_string())
    }

    pub fn raw(&mut self, update: &str) -> Noted {
        let now_ms = self.now();
        self.projector.update(now_ms, update, &mut self.out)
    }

    pub fn chunk(&mut self, text: &str) -> Noted {
        self.update(json!({"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": text}}))
    }

    pub fn flush(&mut self) {
        let now_ms = self.now();
        self.projector.flush(now_ms, &mut self.out);
    }

    pub fn end(&mut self, turn_id: &str, outcome: Outcome) {
        let now_ms = self.now();
        let end = TurnEnd { turn_id, outcome, stop_reason: Some("end_turn"), error: None, reason: None, usage: None };
        self.projector.turn_ended(now_ms, end, &mut self.out);
    }

    /// What came out since the last call.
    pub fn take(&mut self) -> Vec<Value> {
        std::mem::take(&mut self.out).iter().map(value).collect()
    }

    pub fn kinds(&self) -> Vec<&'static str> {
        self.out.iter().map(|event| event.kind).collect()
    }
}

pub(super) fn text_of(event: &Projected) -> &str {
    std::str::from_utf8(&event.payload).expect("JSON is UTF-8")
}

pub(super) fn value(event: &Projected) -> Value {
    let value: Value = serde_json::from_str(text_of(event)).expect("an event is JSON");
    assert_eq!(value["type"], event.kind);
    assert!(!event.payload.contains(&b'\n'));
    value
}
