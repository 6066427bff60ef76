//! A server is killed and another goes on with its agent: nobody can tell the session from one that was never interrupted.

mod cases;
mod world;

use std::path::Path;

use proptest::prelude::*;
use serde_json::{Value, json};
use world::{Agent, Life, Told};

/// One thing that happens.
#[derive(Debug, Clone)]
enum Step {
    Chunk(String),
    Thought(String),
    /// A call, and how it goes.
    Tool(u8, u8),
    Plan(u8),
    Usage(u8),
    Title(u8),
    Mode(u8),
    Strange,
    Ask(u8),
    Answer,
    /// The owner has read all that was there.
    Flush,
    /// All that was said is in the file.
    Commit,
    /// The turn ends, and another one begins.
    Turn,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => "[a-cé]{0,4}".prop_map(Step::Chunk),
        2 => "[d-f]{0,4}".prop_map(Step::Thought),
        6 => (0u8..4, 0u8..6).prop_map(|(call, phase)| Step::Tool(call, phase)),
        1 => (0u8..3).prop_map(Step::Plan),
        1 => (0u8..9).prop_map(Step::Usage),
        1 => (0u8..9).prop_map(Step::Title),
        1 => (0u8..3).prop_map(Step::Mode),
        1 => Just(Step::Strange),
        2 => (0u8..4).prop_map(Step::Ask),
        2 => Just(Step::Answer),
        4 => Just(Step::Flush),
        2 => Just(Step::Commit),
        1 => Just(Step::Turn),
    ]
}

/// Who acts out steps.
struct Play {
    agent: Agent,
    turns: u32,
    asks: u32,
}

impl Play {
    fn client_id(&self) -> String {
        self.turns.to_string()
    }

    fn act(&mut self, life: &mut Life, step: &Step) {
        match step {
            Step::Chunk(text) => life.update(&chunk("agent_message_chunk", text)),
            Step::Thought(text) => life.update(&chunk("agent_thought_chunk", text)),
            Step::Tool(call, phase) => life.update(&tool(*call, *phase)),
            Step::Plan(n) => {
                let entries: Vec<_> =
                    (0..*n).map(|n| json!({"content": n.to_string(), "status": "pending", "priority": "low"})).collect();
                life.update(&json!({"sessionUpdate": "plan", "entries": entries}));
            }
            Step::Usage(n) => {
                let cost = json!({"amount": f64::from(*n), "currency": "USD"});
                life.update(&json!({"sessionUpdate": "usage_update", "used": n, "size": 100, "cost": cost}));
            }
            Step::Title(n) => life.update(&json!({"sessionUpdate": "session_info_update", "title": format!("t{n}")})),
            Step::Mode(n) => life.update(&json!({"sessionUpdate": "current_mode_update", "currentModeId": format!("m{n}")})),
            Step::Strange => life.update(&json!({"sessionUpdate": "of_tomorrow", "x": 1})),
            Step::Ask(call) => {
                self.asks += 1;
                let id = (900 + self.asks).to_string();
                life.ask(&mut self.agent, &id, &format!("c{call}"));
            }
            Step::Answer => {
                if let Some(id) = self.agent.asked.first().cloned() {
                    life.answer(&mut self.agent, &id);
                }
            }
            Step::Flush => life.flush(),
            Step::Commit => {
                life.flush();
                life.store.no_later();
                life.store.flush();
            }
            Step::Turn => {
                let client_id = self.client_id();
                while let Some(id) = self.agent.asked.first().cloned() {
                    life.answer(&mut self.agent, &id);
                }
                life.end(&mut self.agent, &client_id);
                self.turns += 1;
                let (client_id, text) = (self.client_id(), format!("do {}", self.turns));
                life.prompt(&mut self.agent, &client_id, &text);
            }
        }
    }
}

fn chunk(kind: &str, text: &str) -> Value {
    json!({"sessionUpdate": kind, "content": {"type": "text", "text": text}})
}

fn tool(call: u8, phase: u8) -> Value {
    let kind = if phase == 0 { "tool_call" } else { "tool_call_update" };
    let mut update =
        json!({"sessionUpdate": kind, "toolCallId": format!("c{call}"), "title": format!("call {call}"), "kind": "edit"});
    match phase {
        0 => update["status"] = "in_progress".into(),
        1 => update["rawInput"] = json!({"x": call}),
        2 => update["content"] = json!([{"type": "content", "content": {"type": "text", "text": "out"}}]),
        3 => update["_meta"] = json!({"terminal_output": {"data": "more", "terminal_id": "t"}}),
        4 => update["status"] = "completed".into(),
        _ => update["status"] = "failed".into(),
    }
    update
}

/// One life in a runtime of its own: what it leaves running ends with it.
fn life<T>(dir: &Path, body: impl AsyncFnOnce(&mut Life) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let result = runtime.block_on(async {
        let mut life = Life::begin(dir).await;
        body(&mut life).await
    });
    runtime.shutdown_timeout(std::time::Duration::from_secs(5));
    result
}

/// Kills the server before step `cut`, leaving in the file the first `kept` (of 100) of what was just about to be written.
fn played(steps: &[Step], cut: Option<(usize, usize)>) -> Told {
    let dir = tempfile::tempdir().expect("a folder");
    let mut play = Play { agent: Agent::default(), turns: 1, asks: 0 };
    let cut_at = cut.map_or(steps.len(), |(at, _)| at.min(steps.len()));
    let (before, after) = steps.split_at(cut_at);
    let told = life(dir.path(), async |life| {
        life.open().await;
        life.store.hold_later();
        life.prompt(&mut play.agent, "1", "do 1");
        before.iter().for_each(|step| play.act(life, step));
        match cut {
            Some((_, kept)) => {
                life.flush();
                let held = life.store.held_later();
                life.store.kill(held * kept / 100).await;
                None
            }
            None => Some(finished(life, &mut play).await),
        }
    });
    if let Some(told) = told {
        return told;
    }
    life(dir.path(), async |life| {
        let decided = life.resume(&play.agent).await;
        assert_eq!(decided, [], "nothing was decided twice");
        after.iter().for_each(|step| play.act(life, step));
        finished(life, &mut play).await
    })
}

async fn finished(life: &mut Life, play: &mut Play) -> Told {
    while let Some(id) = play.agent.asked.first().cloned() {
        life.answer(&mut play.agent, &id);
    }
    let client_id = play.client_id();
    life.end(&mut play.agent, &client_id);
    life.flush();
    life.told().await
}

fn same(steps: &[Step], cut: (usize, usize)) {
    let (whole, cut) = (played(steps, None), played(steps, Some(cut)));
    for (whole, cut) in
        [(&whole.events, &cut.events), (&whole.items, &cut.items), (&whole.turns, &cut.turns), (&whole.spans, &cut.spans)]
    {
        for (at, (whole, cut)) in whole.iter().zip(cut).enumerate() {
            assert_eq!(whole, cut, "at {at}");
        }
        assert_eq!(whole.len(), cut.len(), "{:#?}", whole.get(cut.len()..).or(cut.get(whole.len()..)));
    }
    // A state that was over when the server came up again isn't told of.
    let mut states = whole.states.iter();
    assert!(cut.states.iter().all(|state| states.any(|other| other == state)), "{:?} in {:?}", cut.states, whole.states);
    assert_eq!(whole.states.last(), cut.states.last());
    assert!(cut.states.is_sorted_by(|state, next| state != next), "{:?}", cut.states);
    assert_eq!(whole.memory, cut.memory);
    assert_eq!(whole.row, cut.row);
}

#[test]
fn a_turn_goes_on_where_it_was() {
    let steps = [
        Step::Chunk("hel".into()),
        Step::Flush,
        Step::Chunk("lo ".into()),
        Step::Tool(1, 0),
        Step::Tool(1, 3),
        Step::Chunk("and ".into()),
        Step::Usage(3),
        Step::Flush,
        Step::Chunk("more".into()),
        Step::Tool(1, 4),
        Step::Turn,
        Step::Chunk("bye".into()),
    ];
    for at in 0..=steps.len() {
        for kept in [0, 30, 60, 100] {
            same(&steps, (at, kept));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn nobody_can_tell_that_it_was_interrupted(
        steps in prop::collection::vec(step(), 0..40),
        at in 0usize..40,
        kept in 0usize..=100,
    ) {
        same(&steps, (at, kept));
    }
}
