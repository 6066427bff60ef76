//! The rules of the fold, one by one.

use super::*;
use crate::sessions::projection::{Phase, Source, Usage};

#[test]
fn a_turn_begins_with_the_users_message() {
    let mut bench = Bench::new(LIMITS);
    let prompt =
        json!([{"type": "text", "text": "Hi", "_meta": {"a": 1}}, {"type": "resource_link", "uri": "file:///a", "name": "a"}]);
    bench.turn("turn_1", prompt.clone());
    assert_eq!(bench.kinds(), ["turn.started", "item.started", "item.completed"]);
    let events = bench.take();
    assert_eq!(events[0]["data"], json!({"turnId": "turn_1", "origin": "sessions", "prompt": prompt}));
    assert_eq!(events[0]["time"], 1001);
    assert_eq!(events[0]["sessionId"], "ses_1");
    assert_eq!(events[0]["turnId"], "turn_1");
    assert_eq!(events[0]["source"], "client");
    let item = &events[2]["data"]["item"];
    assert_eq!((&item["kind"], &item["role"], &item["status"]), (&json!("message"), &json!("user"), &json!("completed")));
    assert_eq!(item["parts"], prompt);
}

#[test]
fn chunks_between_two_flushes_are_one_delta() {
    let mut bench = Bench::in_turn();
    assert_eq!(bench.chunk("Hel"), Noted::Text { bytes: 3 });
    bench.chunk("lo \"you\"\n");
    assert_eq!(bench.kinds(), ["item.started"]);
    bench.flush();
    bench.flush();
    bench.chunk("there");
    bench.flush();
    assert_eq!(bench.kinds(), ["item.started", "item.delta", "item.delta"]);
    bench.end("turn_1", Outcome::Finished);
    let events = bench.take();
    assert_eq!(events[1]["data"]["delta"], json!({"type": "text", "text": "Hello \"you\"\n"}));
    assert_eq!(events[1]["data"]["itemId"], events[0]["data"]["item"]["itemId"]);
    let item = &events[3]["data"]["item"];
    assert_eq!(item["parts"], json!([{"type": "text", "text": "Hello \"you\"\nthere"}]));
    assert_eq!(item["status"], "completed");
    assert!(item.get("truncated").is_none());
    assert_eq!(events[3]["synthetic"], true);
    let end = &events[4]["data"];
    assert_eq!((&end["outcome"], &end["stopReason"]), (&json!("finished"), &json!("end_turn")));
    assert_eq!(end["durationMs"], 7);
}

#[test]
fn another_message_id_or_voice_begins_another_item() {
    let mut bench = Bench::in_turn();
    let chunk = |kind: &str, id: Value| json!({"sessionUpdate": kind, "messageId": id, "content": {"type": "text", "text": "x"}});
    bench.update(chunk("agent_thought_chunk", json!("m1")));
    bench.update(chunk("agent_thought_chunk", json!("m1")));
    bench.update(chunk("agent_message_chunk", json!("m1")));
    bench.update(chunk("agent_message_chunk", json!("m2")));
    bench.update(chunk("agent_message_chunk", Value::Null));
    bench.update(chunk("agent_message_chunk", json!(7))); // of a wrong type: as if absent
    bench.end("turn_1", Outcome::Finished);
    let events = bench.take();
    let completed: Vec<_> = events.iter().filter(|event| event["type"] == "item.completed").collect();
    let parts: Vec<_> = completed.iter().map(|event| event["data"]["item"]["parts"][0].clone()).collect();
    let text = |text: &str| json!({"type": "text", "text": text});
    assert_eq!(parts, [json!({"type": "reasoning", "text": "xx", "visibility": "public"}), text("x"), text("x"), text("xx")]);
    assert_eq!(completed[2]["data"]["item"]["messageId"], "m2");
}

#[test]
fn other_blocks_are_parts_in_their_place() {
    let mut bench = Bench::in_turn();
    bench.chunk("before");
    let image = json!({"type": "image", "mimeType": "image/png", "data": "AAAA"});
    bench.update(json!({"sessionUpdate": "agent_message_chunk", "content": image}));
    bench.chunk("after");
    bench.end("turn_1", Outcome::Finished);
    assert_eq!(bench.kinds()[..4], ["item.started", "item.delta", "item.delta", "item.delta"]);
    let events = bench.take();
    assert_eq!(events[2]["data"]["update"], json!({"part": image}));
    let parts = json!([{"type": "text", "text": "before"}, image, {"type": "text", "text": "after"}]);
    assert_eq!(events[4]["data"]["item"]["parts"], parts);
}

#[test]
fn text_is_kept_up_to_its_limit_and_deltas_have_it_all() {
    let mut bench = Bench::new(Limits { text_max_bytes: 5, delta_max_bytes: 4, ..LIMITS });
    bench.chunk("aéé");
    bench.chunk("éé");
    bench.update(json!({"sessionUpdate": "agent_message_chunk", "content": {"type": "audio", "data": "", "mimeType": "a/b"}}));
    bench.end("turn_1", Outcome::Finished);
    let events = bench.take();
    let deltas = events.iter().filter_map(|event| event["data"]["delta"]["text"].as_str());
    assert_eq!(deltas.clone().collect::<String>(), "aéééé");
    assert!(deltas.clone().all(|delta| delta.len() <= 4));
    let item = &events[events.len() - 2]["data"]["item"];
    assert_eq!(item["parts"], json!([{"type": "text", "text": "aéé"}]));
    assert_eq!((&item["truncated"], &item["bytes"], &item["partsLeftOut"]), (&json!(true), &json!(9), &json!(1)));
}

#[test]
fn a_repeated_prompt_is_no_second_message() {
    let user = |content: Value| json!({"sessionUpdate": "user_message_chunk", "content": content});
    let text = |text: &str| json!({"type": "text", "text": text});
    let image = json!({"type": "image", "mimeType": "image/png", "data": "AAAA"});
    let mut bench = Bench::new(LIMITS);
    bench.turn("turn_1", json!([text("Hello "), image, text("you")]));
    bench.out.clear();
    assert_eq!(bench.update(user(text("Hello "))), Noted::Nothing);
    bench.update(user(json!({"data": "AAAA", "mimeType": "image/png", "type": "image"})));
    bench.flush();
    bench.update(user(text("yo")));
    bench.update(user(text("u")));
    bench.flush();
    assert_eq!(bench.kinds(), [""; 0]);
    bench.update(user(text("you")));
    assert_eq!(bench.kinds(), ["item.started"]);
    assert_eq!(bench.take()[0]["data"]["item"]["role"], "user");

    bench.turn("turn_2", json!([text("Hi")]));
    bench.chunk("x");
    bench.out.clear();
    bench.update(user(text("Hi")));
    assert_eq!(bench.kinds(), ["item.delta", "item.completed", "item.started"]); // the agent had spoken already
}

#[test]
fn an_event_of_others_keeps_its_place() {
    let mut bench = Bench::in_turn();
    bench.chunk("a");
    bench.projector.event(5, "request.created", Source::Daemon, json!({"requestId": "req_1"}), &mut bench.out);
    bench.chunk("b");
    bench.flush();
    assert_eq!(bench.kinds(), ["item.started", "item.delta", "request.created", "item.delta"]);
    let events = bench.take();
    assert_eq!((&events[2]["source"], &events[2]["synthetic"]), (&json!("daemon"), &json!(true)));
    assert_eq!(events[2]["turnId"], "turn_1");
}

#[test]
fn an_update_outside_of_turns_is_told_too() {
    let mut bench = Bench::new(LIMITS);
    bench.chunk("a");
    bench.turn("turn_1", json!([]));
    assert_eq!(bench.kinds()[..4], ["item.started", "item.delta", "item.completed", "turn.started"]);
    assert!(bench.take()[..3].iter().all(|event| event.get("turnId").is_none()));
}

#[test]
fn what_cannot_be_read_is_told_as_it_is() {
    let mut bench = Bench::in_turn();
    let cases = [
        r#"{"sessionUpdate":"plan_update","plan":{"x":1e400}}"#,
        r#"{"sessionUpdate":5}"#,
        r#"{"content":{}}"#,
        r#"{"sessionUpdate":"agent_message_chunk"}"#,
        r#"{"sessionUpdate":"agent_message_chunk","content":{"type":"text"}}"#,
        r#"{"sessionUpdate":"agent_message_chunk","content":"text"}"#,
        r#"{"sessionUpdate":"tool_call","title":"x"}"#,
        r#"{"sessionUpdate":"plan","entries":3}"#,
        r#"{"sessionUpdate":"usage_update","used":-1,"size":2}"#,
        r#"{"sessionUpdate":"current_mode_update"}"#,
        "[1]",
        "null",
    ];
    for case in cases {
        bench.chunk("x");
        bench.out.clear();
        assert_eq!(bench.raw(case), Noted::Unparsed, "{case}");
        assert_eq!(bench.kinds(), ["item.delta", "agent.unparsed"], "{case}");
        let text = text_of(&bench.out[1]);
        assert!(text.contains(&format!("\"update\":{case}")), "{text}");
    }
    bench.out.clear();
    bench.raw("{no JSON");
    assert_eq!(bench.take()[0]["data"]["raw"], "{no JSON");
}

#[test]
fn half_a_character_is_mended() {
    let mut bench = Bench::in_turn();
    bench.raw(r#"{"sessionUpdate":"agent_message_chunk","content":{"type":"text","text":"a\ud83d"}}"#);
    bench.raw(r#"{"sessionUpdate":"tool_call","toolCallId":"c","title":"t","rawOutput":"\udead"}"#);
    bench.end("turn_1", Outcome::Finished);
    let events = bench.take();
    assert_eq!(events[1]["data"]["delta"]["text"], "a\u{fffd}");
    assert_eq!(events[3]["data"]["item"]["toolCall"]["rawOutput"], "\u{fffd}");
}

#[test]
fn updates_about_the_session_say_what_changed() {
    let mut bench = Bench::in_turn();
    let mut told = |update: Value| {
        let noted = bench.update(update);
        let event = bench.take().remove(0);
        assert_eq!(event["type"], "session.updated");
        (noted, event["data"].clone())
    };
    let info = |title: Value| json!({"sessionUpdate": "session_info_update", "title": title});
    assert_eq!(told(info(json!("T"))), (Noted::Title(Some("T".into())), json!({"title": "T"})));
    assert_eq!(told(info(Value::Null)), (Noted::Title(None), json!({"title": null})));
    let meta = json!({"sessionUpdate": "session_info_update", "_meta": {"air": 1}});
    assert_eq!(told(meta), (Noted::Nothing, json!({"metadata": {"air": 1}})));
    let mode = json!({"sessionUpdate": "current_mode_update", "currentModeId": "plan"});
    assert_eq!(told(mode), (Noted::Mode("plan".into()), json!({"mode": "plan"})));
    let usage = json!({"sessionUpdate": "usage_update", "used": 5, "size": 10, "cost": {"amount": 0.5, "currency": "USD"}});
    let noted = Usage { used: 5, size: 10, cost_amount: Some(0.5), cost_currency: Some("USD".into()) };
    let data = json!({"usage": {"used": 5, "size": 10, "cost": {"amount": 0.5, "currency": "USD"}}});
    assert_eq!(told(usage), (Noted::Usage(noted), data));
    let options = json!([
        {"id": "m", "name": "Model", "category": "model", "type": "select", "currentValue": "opus", "options": []},
        {"id": "o", "name": "Mode", "category": "mode", "type": "select", "currentValue": "ask", "options": []},
    ]);
    let (noted, data) = told(json!({"sessionUpdate": "config_option_update", "configOptions": options}));
    assert_eq!(data, json!({"configOptions": options, "model": "opus", "mode": "ask"}));
    assert!(matches!(noted, Noted::ConfigOptions { model: Some(model), mode: Some(_), .. } if model == "opus"));
    let commands = json!([{"name": "init", "description": "d"}]);
    let (noted, data) = told(json!({"sessionUpdate": "available_commands_update", "availableCommands": commands}));
    assert_eq!(data, json!({"availableCommands": commands}));
    assert_eq!(noted, Noted::AvailableCommands(commands.to_string()));
}

#[test]
fn a_plan_is_one_item_of_its_turn() {
    let mut bench = Bench::in_turn();
    let plan = |status: &str| json!([{"content": "a", "priority": "high", "status": status}]);
    bench.update(json!({"sessionUpdate": "plan", "entries": plan("pending")}));
    bench.chunk("x");
    bench.update(json!({"sessionUpdate": "plan", "entries": plan("completed")}));
    bench.chunk("y");
    bench.end("turn_1", Outcome::Cancelled);
    let kinds = [
        "item.started",
        "item.started",
        "item.delta",
        "item.delta",
        "item.delta",
        "item.completed",
        "item.completed",
        "turn.ended",
    ];
    assert_eq!(bench.kinds(), kinds);
    let events = bench.take();
    assert_eq!(events[3]["data"]["update"], json!({"entries": plan("completed")}));
    let item = &events[6]["data"]["item"];
    assert_eq!((&item["kind"], &item["status"]), (&json!("status"), &json!("failed")));
    let part = json!({"type": "status", "label": "plan", "detail": "1 of 1 done", "entries": plan("completed")});
    assert_eq!(item["parts"], json!([part]));
}

#[test]
fn a_tool_call_that_the_turn_leaves_open_ends_with_it() {
    let mut bench = Bench::in_turn();
    bench.update(json!({"sessionUpdate": "tool_call_update", "toolCallId": "c", "status": "in_progress"}));
    bench.end("turn_1", Outcome::Lost);
    let events = bench.take();
    let item = &events[1]["data"]["item"];
    assert_eq!((&item["status"], &item["reason"]), (&json!("failed"), &json!("the agent ended")));
    assert_eq!(item["toolCall"]["status"], "in_progress");
    assert_eq!(events[2]["source"], "daemon");
    // and what comes of it later changes it no more than by a late delta
    let noted = bench.update(json!({"sessionUpdate": "tool_call_update", "toolCallId": "c", "status": "completed"}));
    assert!(matches!(noted, Noted::Tool(tool) if tool.phase == Phase::Late));
    assert_eq!(bench.take()[0]["data"]["late"], true);
    // but another call may have its id
    bench.update(json!({"sessionUpdate": "tool_call", "toolCallId": "c", "title": "t"}));
    assert_eq!(bench.kinds(), ["item.started"]);
}

#[test]
fn tool_calls_have_bounds() {
    let mut bench = Bench::new(Limits { tool_call_max_bytes: 2_000, open_items_max: 2, ..LIMITS });
    for id in ["a", "b", "c"] {
        bench.update(json!({"sessionUpdate": "tool_call", "toolCallId": id, "title": "t"}));
    }
    assert_eq!(bench.kinds(), ["item.started", "item.started", "item.completed", "item.started"]);
    assert_eq!(bench.take()[2]["data"]["item"]["toolCall"]["toolCallId"], "a");
    let text = "x".repeat(10_000);
    let content = json!([{"type": "content", "content": {"type": "text", "text": text}}]);
    bench.update(
        json!({"sessionUpdate": "tool_call_update", "toolCallId": "b", "content": content, "rawOutput": {"output": text}}),
    );
    for _ in 0..10 {
        let meta = json!({"terminal_output": {"terminal_id": "b", "data": "y".repeat(300)}});
        bench.update(json!({"sessionUpdate": "tool_call_update", "toolCallId": "b", "_meta": meta}));
    }
    let delta = &bench.take()[0];
    assert_eq!(delta["data"]["update"]["rawOutput"]["output"], json!(text));
    bench.update(json!({"sessionUpdate": "tool_call_update", "toolCallId": "b", "status": "completed"}));
    let item = bench.take().remove(1)["data"]["item"].take();
    assert_eq!(item["truncated"], true);
    assert!(item["toolCall"].to_string().len() < 2_300, "{}", item["toolCall"]);
    assert_eq!(item["toolCall"]["content"][0]["type"], "content");
}

#[test]
fn a_call_with_much_output_still_ends() {
    let mut bench = Bench::new(Limits { tool_call_max_bytes: 2_000, ..LIMITS });
    bench.update(json!({"sessionUpdate": "tool_call", "toolCallId": "a", "title": "t", "rawInput": {"command": "yes"}}));
    for _ in 0..10 {
        let meta = json!({"terminal_output_delta": {"terminal_id": "a", "data": "y\n".repeat(300)}});
        bench.update(json!({"sessionUpdate": "tool_call_update", "toolCallId": "a", "_meta": meta}));
    }
    bench.out.clear();
    let meta = json!({"terminal_exit": {"exit_code": 0}, "large": "z".repeat(5_000)});
    bench.update(json!({"sessionUpdate": "tool_call_update", "toolCallId": "a", "status": "completed", "_meta": meta}));
    assert_eq!(bench.kinds(), ["item.delta", "item.completed"]);
    let item = bench.take().remove(1)["data"]["item"].take();
    assert_eq!((&item["status"], &item["truncated"]), (&json!("completed"), &json!(true)));
    assert_eq!(item["toolCall"]["rawInput"], json!({"command": "yes"}));
    assert_eq!(item["toolCall"]["_meta"]["terminal_exit"], json!({"exit_code": 0}));
    assert_eq!(item["toolCall"]["_meta"]["terminal_output_delta"]["data"], "y\n".repeat(500));
}
