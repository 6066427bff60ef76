//! Stored events read back: replay, snapshot, transcript.

use super::*;
use crate::sessions::projection::{Snapshot, SnapshotLimits, Transcriber, replay};

const SNAPSHOT: SnapshotLimits =
    SnapshotLimits { items_max: 100, text_max_bytes: 1 << 20, tool_call_max_bytes: 1 << 20, diff_max_bytes: 1 << 13 };

fn replayed(events: &[Projected]) -> Vec<Value> {
    let updates = events.iter().flat_map(|event| replay::updates(text_of(event), "acp-1"));
    let params = updates.map(|update| serde_json::from_str::<Value>(&update).expect("JSON"));
    params.map(|mut params| if params["sessionId"] == "acp-1" { params["update"].take() } else { panic!("{params}") }).collect()
}

fn items(events: &[Projected], limits: SnapshotLimits) -> (Vec<Value>, usize) {
    let mut snapshot = Snapshot::new(limits);
    events.iter().for_each(|event| snapshot.push(text_of(event)));
    let items = snapshot.items().iter().map(|item| serde_json::from_str(item.get()).expect("JSON")).collect();
    (items, snapshot.left_out())
}

fn transcript(events: &[Projected], max_bytes: usize) -> crate::sessions::projection::Transcript {
    let mut transcriber = Transcriber::new(max_bytes);
    events.iter().for_each(|event| transcriber.push(text_of(event)));
    transcriber.finish()
}

/// A turn with a thought, an answer, a tool call and a plan.
fn a_turn(bench: &mut Bench, turn_id: &str) {
    bench.turn(turn_id, json!([{"type": "text", "text": "Do it"}, {"type": "resource_link", "uri": "file:///a", "name": "a"}]));
    bench.update(json!({"sessionUpdate": "agent_thought_chunk", "content": {"type": "text", "text": "Hm."}}));
    for text in ["I will ", "do it."] {
        let content = json!({"type": "text", "text": text});
        bench.update(json!({"sessionUpdate": "agent_message_chunk", "messageId": "m1", "content": content}));
        bench.flush();
    }
    bench.update(json!({"sessionUpdate": "plan", "entries": [{"content": "do it", "priority": "low", "status": "pending"}]}));
    bench.update(json!({
        "sessionUpdate": "tool_call", "toolCallId": "c1", "title": "ls", "kind": "execute", "rawInput": {"command": "ls"}
    }));
    let content = json!([{"type": "content", "content": {"type": "text", "text": "a\n  b\n"}}]);
    let done = json!({"sessionUpdate": "tool_call_update", "toolCallId": "c1", "status": "completed", "content": content});
    bench.update(done);
    bench.update(json!({"sessionUpdate": "session_info_update", "title": "T"}));
    bench.update(json!({"sessionUpdate": "tool_call", "toolCallId": "c2", "title": "left open"}));
    bench.end(turn_id, Outcome::Cancelled);
    bench.update(json!({"sessionUpdate": "tool_call_update", "toolCallId": "c1", "_meta": {"x": 1}}));
}

#[test]
fn a_diff_that_is_shown_has_a_bound() {
    let mut bench = Bench::new(Limits { diff_max_bytes: 100, ..LIMITS });
    let content = json!([{"type": "diff", "path": "/w/a", "oldText": null, "newText": "line\n".repeat(100)}]);
    bench.update(json!({"sessionUpdate": "tool_call", "toolCallId": "c1", "title": "Write"}));
    bench.update(json!({"sessionUpdate": "tool_call_update", "toolCallId": "c1", "content": content}));
    let shown = |events: &[Projected]| {
        let (items, _) = items(events, SnapshotLimits { diff_max_bytes: 50, ..SNAPSHOT });
        let file = items[0]["parts"][1].clone();
        assert_eq!((&file["action"], &file["truncated"]), (&json!("write"), &json!(true)), "{file}");
        assert_eq!(items[0]["toolCall"]["content"], content, "the whole texts are here");
        file["diff"].as_str().expect("a diff").len()
    };
    assert!(shown(&bench.out) <= 50, "of a call that goes on");
    bench.update(json!({"sessionUpdate": "tool_call_update", "toolCallId": "c1", "status": "completed"}));
    assert!((51..=100).contains(&shown(&bench.out)), "as it was written whole");
}

#[test]
fn what_a_lost_turn_left_open_is_ended_as_failed() {
    let mut bench = Bench::new(LIMITS);
    a_turn(&mut bench, "turn_1");
    bench.turn("turn_2", json!([{"type": "text", "text": "More"}]));
    bench.update(json!({"sessionUpdate": "tool_call", "toolCallId": "c3", "title": "make", "kind": "execute"}));
    bench.update(json!({"sessionUpdate": "tool_call_update", "toolCallId": "c3", "status": "in_progress"}));
    bench.chunk("said so far");
    bench.flush();
    let mut open = Snapshot::new(SNAPSHOT);
    for event in &bench.out {
        open.push(text_of(event));
        open.keep_open();
    }
    assert_eq!(open.fail_open(1, "ses_1", "turn_1"), [], "it has ended");
    let before = replayed(&bench.out).len();
    bench.out.extend(open.fail_open(9_999, "ses_1", "turn_2"));
    let told = replayed(&bench.out).split_off(before);
    assert_eq!(
        told,
        [
            json!({"sessionUpdate": "tool_call", "toolCallId": "c3", "title": "make", "kind": "execute", "status": "failed"}),
            json!({"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": "said so far"}}),
        ]
    );
    assert!(transcript(&bench.out, 10_000).text.ends_with("Assistant: said so far\n"));
    let last = value(bench.out.last().expect("events"));
    assert_eq!((&last["turnId"], &last["synthetic"], &last["source"]), (&json!("turn_2"), &json!(true), &json!("daemon")));
    let item = &last["data"]["item"];
    assert_eq!((&item["status"], &item["completedAtMs"], item.get("turnId")), (&json!("failed"), &json!(9_999), None));
}

#[test]
fn a_client_that_loads_the_session_sees_it_whole() {
    let mut bench = Bench::new(LIMITS);
    a_turn(&mut bench, "turn_1");
    let content = json!([{"type": "content", "content": {"type": "text", "text": "a\n  b\n"}}]);
    let expected = [
        json!({"sessionUpdate": "user_message_chunk", "content": {"type": "text", "text": "Do it"}}),
        json!({"sessionUpdate": "user_message_chunk", "content": {"type": "resource_link", "uri": "file:///a", "name": "a"}}),
        json!({"sessionUpdate": "agent_thought_chunk", "content": {"type": "text", "text": "Hm."}}),
        json!({"sessionUpdate": "agent_message_chunk", "messageId": "m1", "content": {"type": "text", "text": "I will do it."}}),
        json!({
            "sessionUpdate": "tool_call", "toolCallId": "c1", "title": "ls", "kind": "execute", "rawInput": {"command": "ls"},
            "status": "completed", "content": content
        }),
        json!({"sessionUpdate": "session_info_update", "title": "T"}),
        json!({"sessionUpdate": "plan", "entries": [{"content": "do it", "priority": "low", "status": "pending"}]}),
        json!({"sessionUpdate": "tool_call", "toolCallId": "c2", "title": "left open", "status": "failed"}),
        json!({"sessionUpdate": "tool_call_update", "toolCallId": "c1", "_meta": {"x": 1}}),
    ];
    assert_eq!(replayed(&bench.out), expected);
}

#[test]
fn what_was_cut_says_so_when_replayed() {
    let mut bench = Bench::new(Limits { text_max_bytes: 3, ..LIMITS });
    bench.chunk("abcdef");
    bench.end("turn_1", Outcome::Finished);
    assert_eq!(replayed(&bench.out)[0]["content"]["text"], "abc\n[cut: it had 6 bytes of text]");
}

#[test]
fn updates_about_the_session_come_back_as_they_were() {
    let updates = [
        json!({"sessionUpdate": "session_info_update", "title": null}),
        json!({"sessionUpdate": "session_info_update", "_meta": {"a": 1}}),
        json!({"sessionUpdate": "session_info_update"}),
        json!({"sessionUpdate": "current_mode_update", "currentModeId": "plan"}),
        json!({"sessionUpdate": "usage_update", "used": 5, "size": 10, "cost": {"amount": 0.5, "currency": "USD"}}),
        json!({"sessionUpdate": "available_commands_update", "availableCommands": []}),
        json!({"sessionUpdate": "config_option_update", "configOptions": [{"id": "m", "category": "mode", "currentValue": "x"}]}),
    ];
    let mut bench = Bench::new(LIMITS);
    for update in &updates {
        bench.update(update.clone());
    }
    assert_eq!(replayed(&bench.out), updates);
    assert!(replay::updates("no JSON", "a").is_empty());
    assert!(replay::updates(r#"{"type":"item.completed","data":{"item":7}}"#, "a").is_empty());
}

#[test]
fn a_snapshot_shows_items_that_go_on() {
    let mut bench = Bench::in_turn();
    bench.chunk("one ");
    bench.flush();
    bench.update(json!({"sessionUpdate": "agent_message_chunk", "content": {"type": "image", "mimeType": "a/b", "data": "AA"}}));
    bench.chunk("two");
    bench.update(json!({"sessionUpdate": "plan", "entries": [{"content": "a", "status": "pending"}]}));
    bench.update(json!({"sessionUpdate": "plan", "entries": [{"content": "a", "status": "completed"}]}));
    bench.update(json!({"sessionUpdate": "tool_call", "toolCallId": "c", "title": "t"}));
    bench.update(json!({"sessionUpdate": "tool_call_update", "toolCallId": "c", "rawInput": {"a": 1}}));
    bench.update(json!({"sessionUpdate": "agent_thought_chunk", "content": {"type": "text", "text": "Hm"}}));
    bench.flush();
    let (shown, left_out) = items(&bench.out, SNAPSHOT);
    assert_eq!((shown.len(), left_out), (4, 0));
    let image = json!({"type": "image", "mimeType": "a/b", "data": "AA"});
    let parts = json!([{"type": "text", "text": "one "}, image, {"type": "text", "text": "two"}]);
    assert_eq!((&shown[0]["parts"], &shown[0]["status"]), (&parts, &json!("completed")));
    assert_eq!((&shown[1]["parts"][0]["detail"], &shown[1]["status"]), (&json!("1 of 1 done"), &json!("in_progress")));
    assert_eq!(shown[2]["toolCall"]["rawInput"], json!({"a": 1}));
    assert_eq!(shown[2]["parts"][0]["arguments"], json!({"a": 1}));
    assert_eq!(shown[3]["parts"], json!([{"type": "reasoning", "text": "Hm", "visibility": "public"}]));
    assert!(shown.iter().all(|item| item["turnId"] == "turn_1"));
}

#[test]
fn a_turn_that_is_over_leaves_nothing_going_on() {
    let mut before = Bench::in_turn();
    before.chunk("half");
    before.flush();
    let mut after = Bench::new(LIMITS); // the daemon began anew and knows of no item
    after.end("turn_1", Outcome::Lost);
    before.out.append(&mut after.out);
    let (shown, _) = items(&before.out, SNAPSHOT);
    assert_eq!((&shown[0]["status"], &shown[0]["parts"][0]["text"]), (&json!("failed"), &json!("half")));
}

#[test]
fn a_snapshot_keeps_the_latest() {
    let mut bench = Bench::in_turn();
    bench.update(json!({"sessionUpdate": "tool_call", "toolCallId": "c", "title": "t"}));
    for text in ["a", "b", "c"] {
        let content = json!({"type": "text", "text": text});
        bench.update(json!({"sessionUpdate": "agent_message_chunk", "messageId": text, "content": content}));
    }
    bench.update(json!({"sessionUpdate": "tool_call_update", "toolCallId": "c", "status": "completed"}));
    bench.end("turn_1", Outcome::Finished);
    let (shown, left_out) = items(&bench.out, SnapshotLimits { items_max: 2, ..SNAPSHOT });
    let texts: Vec<_> = shown.iter().map(|item| item["parts"][0]["text"].clone()).collect();
    assert_eq!((texts, left_out), (vec![json!("b"), json!("c")], 2));
}

#[test]
fn a_late_update_is_in_the_snapshot() {
    let mut bench = Bench::new(LIMITS);
    a_turn(&mut bench, "turn_1");
    let (shown, _) = items(&bench.out, SNAPSHOT);
    let call = shown.iter().find(|item| item["toolCall"]["toolCallId"] == "c1").expect("the call");
    assert_eq!((&call["toolCall"]["_meta"], &call["status"]), (&json!({"x": 1}), &json!("completed")));
    // one that went on in the background, and ended after its turn was cancelled
    bench.update(json!({"sessionUpdate": "tool_call_update", "toolCallId": "c2", "status": "completed", "entries": [1]}));
    let (shown, _) = items(&bench.out, SNAPSHOT);
    let call = shown.iter().find(|item| item["toolCall"]["toolCallId"] == "c2").expect("the call");
    assert_eq!((&call["toolCall"]["status"], &call["status"]), (&json!("completed"), &json!("completed")));
}

#[test]
fn a_transcript_tells_the_session_in_words() {
    let mut bench = Bench::new(LIMITS);
    a_turn(&mut bench, "turn_1");
    bench.turn("turn_2", json!([{"type": "text", "text": "Thanks"}]));
    bench.end("turn_2", Outcome::Finished);
    let told = transcript(&bench.out, 10_000);
    let expected = "User: Do it[resource_link file:///a]\nAssistant: I will do it.\nTool: ls [completed] → a b\n\
        Plan: [ ] do it;\nTool: left open [failed]\n\nUser: Thanks\n";
    assert_eq!((told.text.as_str(), told.truncated, told.turns), (expected, false, 2));
}

#[test]
fn a_transcript_drops_old_turns_first() {
    let mut bench = Bench::new(LIMITS);
    for turn in 1..=5 {
        let turn_id = format!("turn_{turn}");
        bench.turn(&turn_id, json!([{"type": "text", "text": format!("Question {turn}")}]));
        bench.chunk(&format!("Answer {turn}"));
        bench.end(&turn_id, Outcome::Finished);
    }
    let told = transcript(&bench.out, 90);
    let expected = "User: Question 4\nAssistant: Answer 4\n\nUser: Question 5\nAssistant: Answer 5\n";
    assert_eq!((told.text.as_str(), told.truncated, told.turns), (expected, true, 2));
}

#[test]
fn of_one_long_turn_the_question_and_the_end_are_kept() {
    let mut bench = Bench::new(LIMITS);
    bench.turn("turn_1", json!([{"type": "text", "text": "Q"}]));
    for number in 0..100 {
        let (id, title) = (format!("c{number}"), format!("tool {number}"));
        bench.update(json!({"sessionUpdate": "tool_call", "toolCallId": id, "title": title, "status": "completed"}));
    }
    bench.chunk(&"long ".repeat(100));
    bench.end("turn_1", Outcome::Finished);
    let told = transcript(&bench.out, 300);
    assert!(told.text.starts_with("User: Q\n"), "{}", told.text);
    assert!(told.text.contains("Tool: tool 99 [completed]") && told.text.contains("[…]"), "{}", told.text);
    assert!(told.truncated && told.text.len() <= 300);
}
