//! What holds for any sequence of updates.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::sessions::projection::{Snapshot, SnapshotLimits, Source, Transcriber, replay};

const SMALL: Limits =
    Limits { text_max_bytes: 8, tool_call_max_bytes: 120, diff_max_bytes: 50, open_items_max: 2, delta_max_bytes: 5 };

#[derive(Debug, Clone)]
enum Step {
    Update(String),
    Flush,
    Turn(String),
    End(Outcome),
    Event,
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
        select(vec!["text", "diff", "content", "terminal", "completed", "failed", "pending", "c1"]).prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        let key = select(vec!["type", "text", "content", "path", "newText", "data", "terminal_output", "status", "a"]);
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(key, inner, 0..4)
                .prop_map(|map| map.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
        ]
    })
}

fn chunk() -> impl Strategy<Value = Value> {
    let kind = select(vec!["agent_message_chunk", "agent_thought_chunk", "user_message_chunk"]);
    let id = select(vec![Value::Null, json!("m1"), json!("m2")]);
    let text = "[a-zé\n\"\u{1F600}]{0,6}".prop_map(|text| json!({"type": "text", "text": text}));
    let image = Just(json!({"type": "image", "mimeType": "a/b", "data": "AAAA"}));
    let content = prop_oneof![8 => text, 1 => image, 1 => any_json()];
    (kind, id, content).prop_map(|(kind, id, content)| json!({"sessionUpdate": kind, "messageId": id, "content": content}))
}

fn tool() -> impl Strategy<Value = Value> {
    let kind = select(vec!["tool_call", "tool_call_update"]);
    let status = select(vec![Value::Null, json!("pending"), json!("in_progress"), json!("completed"), json!("failed")]);
    (kind, select(vec!["c1", "c2", "c3"]), status, any_json(), any_json()).prop_map(|(kind, id, status, content, meta)| {
        json!({"sessionUpdate": kind, "toolCallId": id, "status": status, "title": "t", "content": [content], "_meta": meta})
    })
}

fn other() -> impl Strategy<Value = Value> {
    let kinds = ["plan", "usage_update", "session_info_update", "current_mode_update", "config_option_update", "x", "tool_call"];
    (select(kinds.to_vec()), any_json(), any_json()).prop_map(|(kind, one, two)| {
        let entries = [json!({"content": "a", "status": "pending"}), one.clone()];
        json!({
            "sessionUpdate": kind, "entries": entries, "title": two, "currentModeId": one, "used": two, "size": 7,
            "configOptions": [one], "toolCallId": two
        })
    })
}

fn step() -> impl Strategy<Value = Step> {
    let update =
        prop_oneof![6 => chunk(), 4 => tool(), 2 => other(), 1 => any_json()].prop_map(|update| Step::Update(update.to_string()));
    let outcome = select(vec![Outcome::Finished, Outcome::Cancelled, Outcome::Failed, Outcome::Lost]);
    prop_oneof![
        20 => update,
        4 => Just(Step::Flush),
        1 => "[ab]{0,3}".prop_map(Step::Turn),
        1 => outcome.prop_map(Step::End),
        1 => Just(Step::Event),
        1 => "\\PC{0,20}".prop_map(Step::Update),
    ]
}

/// Runs all steps and ends the last turn. With `each`, flushes after each update, which must have been told by then.
fn run(limits: Limits, each: bool, steps: &[Step]) -> Vec<Projected> {
    let mut bench = Bench::new(limits);
    for step in steps {
        match step {
            Step::Update(update) => {
                let before = bench.out.len();
                let noted = bench.raw(update);
                if each {
                    bench.flush();
                    assert!(bench.out.len() > before || is_echo(update, &noted), "{update}");
                }
            }
            Step::Flush => bench.flush(),
            Step::Turn(text) => bench.turn("turn_1", json!([{"type": "text", "text": text}])),
            Step::End(outcome) => bench.end("turn_1", *outcome),
            Step::Event => bench.projector.event(7, "session.state", Source::Daemon, json!({"state": "idle"}), &mut bench.out),
        }
    }
    bench.end("turn_1", Outcome::Finished);
    bench.out
}

fn is_echo(update: &str, noted: &Noted) -> bool {
    *noted == Noted::Nothing && update.contains("user_message_chunk")
}

/// By item: deltas joined, and the completed text of messages.
struct Told {
    deltas: BTreeMap<String, String>,
    completed: BTreeMap<String, String>,
}

fn told(events: &[Projected]) -> Told {
    let (mut deltas, mut completed) = (BTreeMap::<String, String>::new(), BTreeMap::new());
    let mut started = BTreeSet::new();
    for event in events.iter().map(value) {
        let data = &event["data"];
        let item = &data["item"];
        let item_id = item["itemId"].as_str().or(data["itemId"].as_str()).unwrap_or_default().to_owned();
        match event["type"].as_str() {
            Some("item.started") => assert!(started.insert(item_id), "started twice"),
            Some("item.delta") => {
                assert!(started.contains(&item_id), "a delta of nothing");
                deltas.entry(item_id).or_default().push_str(data["delta"]["text"].as_str().unwrap_or_default());
            }
            Some("item.completed") => {
                assert!(started.contains(&item_id), "completed before it started");
                assert_ne!(item["status"], "in_progress");
                let text = if item["kind"] == "message" && event["source"] == "agent" { text_parts(item) } else { String::new() };
                assert!(completed.insert(item_id, text).is_none(), "completed twice");
            }
            _ => {}
        }
    }
    assert_eq!(started, completed.keys().cloned().collect());
    Told { deltas, completed }
}

fn text_parts(item: &Value) -> String {
    let parts = item["parts"].as_array().expect("parts").iter();
    let ours = parts.filter(|part| matches!(part["type"].as_str(), Some("text" | "reasoning")));
    ours.filter_map(|part| part["text"].as_str()).collect()
}

/// All texts of agent messages and thoughts among replayed updates.
fn replayed_text(events: &[Projected]) -> String {
    let updates = events.iter().flat_map(|event| replay::updates(text_of(event), "a"));
    let updates = updates.map(|update| serde_json::from_str::<Value>(&update).expect("JSON")["update"].take());
    let chunks = updates.filter(|update| update["sessionUpdate"].as_str().is_some_and(|kind| kind.starts_with("agent_")));
    chunks.filter_map(|chunk| chunk["content"]["text"].as_str().map(str::to_owned)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn every_item_completes_once_with_what_its_deltas_said(steps in proptest::collection::vec(step(), 0..40)) {
        for events in [run(LIMITS, true, &steps), run(LIMITS, false, &steps)] {
            let told = told(&events);
            for (item_id, text) in &told.completed {
                prop_assert_eq!(told.deltas.get(item_id).map_or("", String::as_str), text);
            }
        }
    }

    #[test]
    fn under_small_limits_a_beginning_is_kept(steps in proptest::collection::vec(step(), 0..40)) {
        let told = told(&run(SMALL, false, &steps));
        for (item_id, text) in &told.completed {
            prop_assert!(told.deltas.get(item_id).map_or("", String::as_str).starts_with(text.as_str()));
        }
    }

    #[test]
    fn replayed_and_folded_again_it_says_the_same(steps in proptest::collection::vec(step(), 0..40)) {
        let events = run(LIMITS, false, &steps);
        let again = events.iter().flat_map(|event| replay::updates(text_of(event), "a"));
        let again = again.map(|params| Step::Update(serde_json::from_str::<Value>(&params).expect("JSON")["update"].to_string()));
        let again = run(LIMITS, false, &again.collect::<Vec<_>>());
        prop_assert!(again.iter().all(|event| event.kind != "agent.unparsed"));
        prop_assert_eq!(replayed_text(&again), replayed_text(&events));
    }

    #[test]
    fn a_snapshot_agrees_with_the_events(steps in proptest::collection::vec(step(), 0..40), upto in 0..80usize) {
        let events = run(LIMITS, false, &steps);
        let shown = |events: &[Projected]| {
            let limits = SnapshotLimits { items_max: 99, text_max_bytes: 1 << 20, tool_call_max_bytes: 1 << 20, diff_max_bytes: 1 << 13 };
            let mut snapshot = Snapshot::new(limits);
            events.iter().for_each(|event| snapshot.push(text_of(event)));
            snapshot.items().iter().map(|item| serde_json::from_str(item.get()).expect("JSON")).collect::<Vec<Value>>()
        };
        let whole = told(&events);
        for item in shown(&events) {
            prop_assert_ne!(&item["status"], "in_progress");
        }
        let part = &events[..upto.min(events.len())];
        let completed: BTreeSet<_> = part.iter().filter(|event| event.kind == "item.completed").map(value)
            .map(|event| event["data"]["item"]["itemId"].to_string()).collect();
        for item in shown(part).iter().filter(|item| item["kind"] == "message" && item["role"] == "assistant") {
            let id = item["itemId"].as_str().expect("an id");
            let said = part.iter().map(value).filter(|event| event["data"]["itemId"] == id)
                .filter_map(|event| event["data"]["delta"]["text"].as_str().map(str::to_owned)).collect::<String>();
            prop_assert_eq!(text_parts(item), said);
            prop_assert!(completed.contains(&item["itemId"].to_string()) || whole.completed.contains_key(id));
        }
    }

    #[test]
    fn a_transcript_fits(steps in proptest::collection::vec(step(), 0..40), max_bytes in 0..400usize) {
        let mut transcriber = Transcriber::new(max_bytes);
        run(LIMITS, false, &steps).iter().for_each(|event| transcriber.push(text_of(event)));
        prop_assert!(transcriber.finish().text.len() <= max_bytes);
    }
}
