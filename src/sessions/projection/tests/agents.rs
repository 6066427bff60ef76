//! Updates in the shapes that adapters send.

use super::*;
use crate::sessions::projection::Phase;

fn tool(noted: Noted) -> crate::sessions::projection::ToolNoted {
    let Noted::Tool(tool) = noted else { panic!("{noted:?}") };
    *tool
}

/// Claude Code's adapter: streaming start, the whole input, the hook's diff, the result; a subagent's parent.
#[test]
fn claude_code_edits_a_file() {
    let mut bench = Bench::in_turn();
    bench.update(
        json!({"sessionUpdate": "agent_thought_chunk", "messageId": "msg_1", "content": {"type": "text", "text": "Hm."}}),
    );
    let started = tool(bench.update(json!({
        "_meta": {"claudeCode": {"toolName": "Edit", "parentToolUseId": "toolu_0"}}, "toolCallId": "toolu_1",
        "sessionUpdate": "tool_call", "rawInput": {}, "status": "pending", "title": "Edit", "kind": "edit",
        "content": [], "locations": []
    })));
    assert_eq!((started.phase, started.name.as_deref()), (Phase::Started, Some("Edit")));
    assert_eq!(started.parent_call_id.as_deref(), Some("toolu_0"));
    let input = json!({"file_path": "/w/a.rs", "old_string": "one", "new_string": "two"});
    let diff = |old: Value| json!([{"type": "diff", "path": "/w/a.rs", "oldText": old, "newText": "a\ntwo\n"}]);
    let refined = tool(bench.update(json!({
        "_meta": {"claudeCode": {"toolName": "Edit"}}, "toolCallId": "toolu_1", "sessionUpdate": "tool_call_update",
        "rawInput": input, "title": "Edit /w/a.rs", "kind": "edit", "content": diff(Value::Null),
        "locations": [{"path": "/w/a.rs"}]
    })));
    assert_eq!((refined.phase, refined.paths), (Phase::Progress, vec!["/w/a.rs".to_owned()]));
    assert_eq!(refined.arguments_bytes, input.to_string().len());
    bench.update(json!({
        "_meta": {"claudeCode": {"toolResponse": {"x": 1}, "toolName": "Edit"}}, "toolCallId": "toolu_1",
        "sessionUpdate": "tool_call_update", "content": diff(json!("a\none\n")), "locations": [{"path": "/w/a.rs", "line": 2}]
    }));
    let ended = tool(bench.update(json!({
        "_meta": {"claudeCode": {"toolName": "Edit"}}, "toolCallId": "toolu_1", "sessionUpdate": "tool_call_update",
        "status": "completed", "rawOutput": "The file was changed"
    })));
    assert_eq!(ended.phase, Phase::Ended { failed: false });
    assert_eq!(bench.kinds()[3..], ["item.started", "item.delta", "item.delta", "item.delta", "item.completed"]);
    let item = bench.take().pop().expect("an event")["data"]["item"].take();
    let parts = json!([
        {"type": "tool_call", "callId": "toolu_1", "name": "Edit", "arguments": input},
        {"type": "file_ref", "path": "/w/a.rs", "action": "patch", "diff": "@@ -2 +2 @@\n-one\n+two\n"},
        {"type": "tool_result", "callId": "toolu_1", "output": "The file was changed"},
    ]);
    assert_eq!(item["parts"], parts);
    assert_eq!((&item["kind"], &item["role"], &item["status"]), (&json!("tool_call"), &json!("tool"), &json!("completed")));
    assert_eq!(item["toolCall"]["locations"][0]["line"], 2);
    assert_eq!(item["toolCall"]["title"], "Edit /w/a.rs");
}

/// Claude Code's adapter towards a client that shows terminals: output and exit in `_meta`.
#[test]
fn claude_code_runs_a_command() {
    let mut bench = Bench::in_turn();
    let terminal = json!([{"type": "terminal", "terminalId": "toolu_1"}]);
    let update = |meta: Value, rest: Value| {
        let mut update = json!({"toolCallId": "toolu_1", "sessionUpdate": "tool_call_update", "_meta": meta});
        update.as_object_mut().expect("an object").extend(rest.as_object().expect("an object").clone());
        update
    };
    bench.update(json!({
        "_meta": {"claudeCode": {"toolName": "Bash"}, "terminal_info": {"terminal_id": "toolu_1"}}, "toolCallId": "toolu_1",
        "sessionUpdate": "tool_call", "rawInput": {"command": "ls"}, "status": "pending", "title": "ls", "kind": "execute",
        "content": terminal
    }));
    bench.update(update(json!({"terminal_output": {"terminal_id": "toolu_1", "data": "a\nb\n"}}), json!({})));
    let exit =
        json!({"claudeCode": {"toolName": "Bash"}, "terminal_exit": {"terminal_id": "toolu_1", "exit_code": 1, "signal": null}});
    let noted = tool(bench.update(update(exit, json!({"status": "failed", "content": terminal}))));
    assert_eq!(noted.phase, Phase::Ended { failed: true });
    let item = bench.take().pop().expect("an event")["data"]["item"].take();
    let parts = json!([
        {"type": "tool_call", "callId": "toolu_1", "name": "Bash", "arguments": {"command": "ls"}},
        {"type": "terminal", "terminalId": "toolu_1"},
        {"type": "tool_result", "callId": "toolu_1", "output": "a\nb\n"},
    ]);
    assert_eq!((&item["parts"], &item["status"]), (&parts, &json!("failed")));
    assert_eq!(item["toolCall"]["_meta"]["terminal_exit"]["exit_code"], 1);
}

/// Codex's adapter: a command's output comes in pieces, each in `_meta`; messages have ids.
#[test]
fn codex_streams_the_output_of_a_command() {
    let mut bench = Bench::in_turn();
    bench.update(json!({
        "sessionUpdate": "tool_call", "toolCallId": "call_1", "kind": "execute", "title": "cargo test", "status": "in_progress",
        "rawInput": {"command": "cargo test", "cwd": "/w"}, "content": [{"type": "terminal", "terminalId": "call_1"}],
        "_meta": {"terminal_info": {"cwd": "/w", "terminal_id": "call_1"}}
    }));
    for data in ["one\n", "two\n"] {
        let meta = json!({"terminal_output_delta": {"data": data, "terminal_id": "call_1"}});
        let noted = tool(bench.update(json!({"sessionUpdate": "tool_call_update", "toolCallId": "call_1", "_meta": meta})));
        assert_eq!(noted.phase, Phase::Progress);
    }
    bench.update(json!({
        "sessionUpdate": "tool_call_update", "toolCallId": "call_1", "status": "completed",
        "_meta": {"terminal_exit": {"exit_code": 0, "signal": null, "terminal_id": "call_1"}}
    }));
    let item = bench.take().pop().expect("an event")["data"]["item"].take();
    assert_eq!(item["toolCall"]["_meta"]["terminal_output_delta"], json!({"data": "one\ntwo\n", "terminal_id": "call_1"}));
    assert_eq!(item["parts"][2], json!({"type": "tool_result", "callId": "call_1", "output": "one\ntwo\n"}));
}

/// OpenCode: title changes with the result, which comes as content and as raw output.
#[test]
fn opencode_reads_a_file() {
    let mut bench = Bench::in_turn();
    bench.update(json!({
        "sessionUpdate": "tool_call", "toolCallId": "call_9", "title": "read", "kind": "read", "status": "pending",
        "locations": [], "rawInput": {}
    }));
    bench.update(json!({
        "sessionUpdate": "tool_call_update", "toolCallId": "call_9", "status": "in_progress", "kind": "read", "title": "read",
        "locations": [{"path": "/w/a"}], "rawInput": {"filePath": "/w/a"}
    }));
    bench.update(json!({
        "sessionUpdate": "tool_call_update", "toolCallId": "call_9", "status": "completed", "kind": "read", "title": "a",
        "content": [{"type": "content", "content": {"type": "text", "text": "1: x"}}], "rawInput": {"filePath": "/w/a"},
        "rawOutput": {"output": "1: x", "metadata": {"preview": "x"}}
    }));
    let item = bench.take().pop().expect("an event")["data"]["item"].take();
    let parts = json!([
        {"type": "tool_call", "callId": "call_9", "name": "a", "arguments": {"filePath": "/w/a"}},
        {"type": "text", "text": "1: x"},
        {"type": "file_ref", "path": "/w/a", "action": "read"},
        {"type": "tool_result", "callId": "call_9", "output": {"output": "1: x", "metadata": {"preview": "x"}}},
    ]);
    assert_eq!(item["parts"], parts);
}

/// Members of a wrong type change nothing; what is no known content stays as JSON.
#[test]
fn an_agent_with_odd_tool_calls() {
    let mut bench = Bench::in_turn();
    bench.update(json!({
        "sessionUpdate": "tool_call", "toolCallId": "c", "title": "t", "kind": "other",
        "content": [7, {"type": "x"}, {"type": "diff"}]
    }));
    bench.update(json!({
        "sessionUpdate": "tool_call_update", "toolCallId": "c", "title": 5, "status": {}, "content": "x", "locations": null
    }));
    bench.end("turn_1", Outcome::Finished);
    let events = bench.take();
    let item = &events[2]["data"]["item"];
    assert_eq!(item["toolCall"]["title"], "t");
    let json = |json: Value| json!({"type": "json", "json": json});
    assert_eq!(
        item["parts"].as_array().expect("parts")[1..],
        [json(json!(7)), json(json!({"type": "x"})), json(json!({"type": "diff"}))]
    );
    assert_eq!(item["status"], "completed");
}
