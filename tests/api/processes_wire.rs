//! Processes as they look on the wire.

use serde_json::{Value, json};

use crate::support::{Event, Home, Server};

/// Starts `sh -c` and gives the process's id.
async fn shell(server: &Server, script: &str, more: Value) -> String {
    let mut spec = json!({"command": "sh", "args": ["-c", script]});
    spec.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
    let (status, info) = server.send("/v1/processes", &spec).await;
    assert_eq!(status, 200, "{info}");
    info["id"].as_str().expect("an id").to_owned()
}

/// Waits for the exit; gives the process.
async fn ended(server: &Server, id: &str) -> Value {
    let (status, result) = server.send(&format!("/v1/processes/{id}/wait"), &json!({})).await;
    assert_eq!((status, &result["met"], &result["timedOut"]), (200, &json!("exit"), &json!(false)), "{result}");
    result["process"].clone()
}

async fn logs(server: &Server, id: &str, query: &str) -> Value {
    let (status, page) = server.get(&format!("/v1/processes/{id}/logs?{query}")).await;
    assert_eq!((status, &page["processId"]), (200, &json!(id)), "{page}");
    page
}

fn text(page: &Value) -> String {
    let entries = page["entries"].as_array().expect("entries").iter();
    entries.map(|entry| entry["data"].as_str().expect("text")).collect()
}

fn sequences(page: &Value) -> Vec<u64> {
    let entries = page["entries"].as_array().expect("entries").iter();
    entries.map(|entry| entry["sequence"].as_u64().expect("a number")).collect()
}

async fn delete(server: &Server, id: &str) -> u16 {
    server.http.delete(server.url(&format!("/v1/processes/{id}"))).send().await.expect("an answer").status().as_u16()
}

#[tokio::test]
async fn a_process_from_start_to_deletion() {
    let home = Home::new();
    let server = Server::start(&home);
    let folder = home.path().display().to_string();
    let id = shell(&server, "echo out; read line; exit 3", json!({"cwd": folder, "interactive": true, "owner": "desktop"})).await;
    let (status, info) = server.get(&format!("/v1/processes/{id}")).await;
    assert_eq!(status, 200);
    assert_eq!((&info["id"], &info["command"], &info["cwd"]), (&json!(id), &json!("sh"), &json!(folder)));
    assert_eq!(info["args"], json!(["-c", "echo out; read line; exit 3"]));
    assert_eq!((&info["tty"], &info["interactive"]), (&json!(false), &json!(true)));
    assert_eq!((&info["owner"], &info["status"]), (&json!("user"), &json!("running")), "a client's owner is ignored");
    assert!(info["pid"].is_u64() && info["createdAtMs"].is_u64(), "{info}");
    assert!(info.get("exitCode").is_none() && info.get("exitedAtMs").is_none(), "{info}");
    assert_eq!(delete(&server, &id).await, 409);
    let (_, wrote) = server.send(&format!("/v1/processes/{id}/input"), &json!({"data": "aGkK"})).await;
    assert_eq!(wrote, json!({"bytesWritten": 3}));
    let info = ended(&server, &id).await;
    assert_eq!((&info["status"], &info["exitCode"], &info["exit"]), (&json!("exited"), &json!(3), &json!({"code": 3})));
    assert!(info.get("pid").is_none() && info["exitedAtMs"].is_u64(), "{info}");
    let (status, refused) = server.send(&format!("/v1/processes/{id}/input"), &json!({"data": "aGkK"})).await;
    assert_eq!((status, &refused["details"]["message"]), (409, &json!("process is not running")));
    assert_eq!(server.send(&format!("/v1/processes/{id}/stop"), &json!({})).await.0, 200, "stopping what ended changes nothing");
    assert_eq!(delete(&server, &id).await, 204);
    assert_eq!(delete(&server, &id).await, 404);
}

#[tokio::test]
async fn a_list_shows_what_is_asked_for() {
    let home = Home::new();
    let server = Server::start(&home);
    server.call("m", "mock", 1, "initialize", json!({})).await;
    let plain = shell(&server, "exit 0", json!({})).await;
    let terminal = shell(&server, "cat", json!({"tty": true})).await;
    ended(&server, &plain).await;
    for (query, expected) in [
        ("", vec![&plain, &terminal]),
        ("?owner=user", vec![&plain, &terminal]),
        ("?owner=desktop", vec![]),
        ("?tty=true", vec![&terminal]),
        ("?status=exited", vec![&plain]),
        ("?status=exited&tty=true", vec![]),
    ] {
        let (status, list) = server.get(&format!("/v1/processes{query}")).await;
        let ids: Vec<_> = list["processes"].as_array().expect("a list").iter().map(|info| &info["id"]).collect();
        assert_eq!((status, json!(ids)), (200, json!(expected)), "{query}");
    }
}

#[tokio::test]
async fn limits_are_replaced_as_a_whole() {
    let home = Home::new();
    let server = Server::start(&home);
    let (_, config) = server.get("/v1/processes/config").await;
    let defaults = json!({"maxConcurrentProcesses": 64, "defaultRunTimeoutMs": 30000, "maxRunTimeoutMs": 300_000,
        "maxOutputBytes": 1_048_576, "maxLogBytesPerProcess": 10_485_760, "maxInputBytesPerRequest": 65536});
    assert_eq!(config, defaults);
    for (field, words) in [
        ("maxConcurrentProcesses", "maxConcurrentProcesses must be greater than 0"),
        ("maxRunTimeoutMs", "timeouts must be greater than 0"),
        ("maxInputBytesPerRequest", "byte limits must be greater than 0"),
    ] {
        let mut zero = defaults.clone();
        zero[field] = json!(0);
        let (status, refused) = server.send("/v1/processes/config", &zero).await;
        assert_eq!((status, &refused["detail"]), (400, &json!(format!("invalid request: {words}"))));
    }
    let mut changed = defaults.clone();
    changed["maxInputBytesPerRequest"] = json!(3);
    assert_eq!(server.send("/v1/processes/config", &changed).await, (200, changed.clone()));
    let id = shell(&server, "cat", json!({})).await;
    let (status, refused) = server.send(&format!("/v1/processes/{id}/input"), &json!({"data": "four", "encoding": "utf8"})).await;
    assert_eq!((status, &refused["title"]), (413, &json!("Payload Too Large")));
    assert_eq!(refused["detail"], "invalid request: input payload exceeds maxInputBytesPerRequest (3)");
}

#[tokio::test]
async fn a_run_gives_the_contracts_answer() {
    let home = Home::new();
    let server = Server::start(&home);
    let spec = json!({"command": "sh", "args": ["-c", "echo out; echo err >&2; exit 3"]});
    let (status, result) = server.send("/v1/processes/run", &spec).await;
    assert_eq!((status, &result["exitCode"], &result["timedOut"]), (200, &json!(3), &json!(false)), "{result}");
    assert_eq!((&result["stdout"], &result["stderr"]), (&json!("out\n"), &json!("err\n")));
    assert_eq!((&result["stdoutTruncated"], &result["stderrTruncated"]), (&json!(false), &json!(false)));
    let spec = json!({"command": "sh", "args": ["-c", "echo x; sleep 60"], "timeoutMs": 200});
    let (status, result) = server.send("/v1/processes/run", &spec).await;
    assert_eq!((status, &result["exitCode"], &result["timedOut"]), (200, &Value::Null, &json!(true)), "{result}");
    assert_eq!(result["stdout"], "x\n");
    assert!(result.get("exitCode").is_some(), "null, not absent");
    let (status, refused) = server.send("/v1/processes/run", &json!({"command": " "})).await;
    assert_eq!((status, &refused["detail"]), (400, &json!("invalid request: command must not be empty")));
}

#[tokio::test]
async fn stdin_can_be_ended_and_signals_sent() {
    let home = Home::new();
    let server = Server::start(&home);
    let reader = shell(&server, "cat; exit 4", json!({})).await;
    let input = format!("/v1/processes/{reader}/input");
    let (status, wrote) = server.send(&input, &json!({"data": "hé", "encoding": "utf8", "eof": true})).await;
    assert_eq!((status, wrote), (200, json!({"bytesWritten": 3})));
    assert_eq!(ended(&server, &reader).await["exitCode"], 4);
    assert_eq!(text(&logs(&server, &reader, "encoding=utf8").await), "hé");
    for signal in [json!("INT"), json!("SIGINT"), json!(2)] {
        let trap = shell(&server, "trap 'exit 9' INT; echo ready; while :; do sleep 0.05; done", json!({})).await;
        let ready = json!({"output": {"pattern": "ready"}});
        assert_eq!(server.send(&format!("/v1/processes/{trap}/wait"), &ready).await.1["met"], "output");
        let (status, sent) = server.send(&format!("/v1/processes/{trap}/signal"), &json!({"signal": signal})).await;
        assert_eq!((status, sent), (200, json!({"signalled": 1})));
        assert_eq!(ended(&server, &trap).await["exitCode"], 9);
    }
    let killed = shell(&server, "sleep 60", json!({})).await;
    let (status, info) = server.send(&format!("/v1/processes/{killed}/kill"), &json!({})).await;
    assert_eq!((status, &info["status"]), (200, &json!("exited")), "{info}");
    assert_eq!(info["exit"], json!({"signal": "SIGKILL", "number": 9}));
    assert!(info.get("exitCode").is_none(), "{info}");
}

#[tokio::test]
async fn a_log_is_paged_and_filtered() {
    let home = Home::new();
    let server = Server::start(&home);
    let script = "echo one; sleep 0.1; echo two >&2; sleep 0.1; echo three";
    let id = shell(&server, script, json!({})).await;
    ended(&server, &id).await;
    let page = logs(&server, &id, "").await;
    assert_eq!((&page["stream"], sequences(&page)), (&json!("combined"), vec![1, 2, 3]), "{page}");
    let entry = &page["entries"][1];
    assert_eq!((&entry["stream"], &entry["data"], &entry["encoding"]), (&json!("stderr"), &json!("dHdvCg=="), &json!("base64")));
    assert!(entry["timestampMs"].is_u64() && entry["offset"] == 0, "{entry}");
    assert_eq!(page["entries"][2]["offset"], 4, "offsets count within a stream");
    assert_eq!((&page["lastSequence"], &page["nextSince"], &page["hasMore"]), (&json!(3), &json!(3), &json!(false)));
    assert!(page.get("gaps").is_none(), "{page}");
    assert_eq!(text(&logs(&server, &id, "encoding=utf8&stream=stdout").await), "one\nthree\n");
    assert_eq!(text(&logs(&server, &id, "encoding=text&since=1").await), "two\nthree\n");
    assert_eq!(text(&logs(&server, &id, "encoding=utf8&stream=stdout&tail=1").await), "three\n");
    let first = logs(&server, &id, "limit=2").await;
    assert_eq!((sequences(&first), &first["hasMore"], &first["nextSince"]), (vec![1, 2], &json!(true), &json!(2)));
    let rest = logs(&server, &id, "limit=2&since=2").await;
    assert_eq!((sequences(&rest), &rest["hasMore"], &rest["nextSince"]), (vec![3], &json!(false), &json!(3)));
    assert_eq!(logs(&server, &id, "stream=pty").await["entries"], json!([]));
}

#[tokio::test]
async fn a_long_log_comes_whole() {
    let home = Home::new();
    let server = Server::start(&home);
    let id = shell(&server, "seq 1 400000", json!({})).await;
    ended(&server, &id).await;
    let expected: String = (1..=400_000).map(|number| format!("{number}\n")).collect();
    let page = logs(&server, &id, "encoding=utf8").await;
    assert!(text(&page) == expected, "something of {} bytes is missing", expected.len());
    let followed = server.stream(&format!("/v1/processes/{id}/logs?follow=true&encoding=utf8"), None).await.all().await;
    let (end, entries) = followed.split_last().expect("events");
    assert_eq!((end.name.as_str(), &end.data), ("end", &json!({"reason": "exited"})));
    let text: String = entries.iter().map(|event| event.data["data"].as_str().expect("text")).collect();
    assert!(text == expected, "something is missing from what was followed");
}

#[tokio::test]
async fn what_retention_removed_is_named() {
    let home = Home::new();
    let server = Server::start(&home);
    let (_, mut config) = server.get("/v1/processes/config").await;
    config["maxLogBytesPerProcess"] = json!(100_000);
    assert_eq!(server.send("/v1/processes/config", &config).await.0, 200);
    let id = shell(&server, "seq 1 200000", json!({})).await;
    ended(&server, &id).await;
    let page = logs(&server, &id, "encoding=utf8").await;
    assert!(text(&page).ends_with("200000\n") && page["gaps"][0]["reason"] == "truncated", "{}", page["gaps"]);
    let missing: u64 = page["gaps"].as_array().expect("gaps").iter().filter_map(|gap| gap["bytes"].as_u64()).sum();
    let written: usize = (1..=200_000).map(|number: u32| number.to_string().len() + 1).sum();
    assert_eq!(usize::try_from(missing).expect("a size") + text(&page).len(), written, "nothing is missing unsaid");
    let mut followed = server.stream(&format!("/v1/processes/{id}/logs?follow=true"), None).await;
    let seen = followed.until(|event| event.name == "gap").await;
    let gap = seen.last().expect("the gap");
    assert_eq!((gap.id, &gap.data), (gap.data["toSequence"].as_u64(), &page["gaps"][0]));
}

fn said(events: &[Event]) -> Vec<(&str, Option<u64>, String)> {
    let shown = |event: &Event| event.data["data"].as_str().unwrap_or_default().to_owned();
    events.iter().map(|event| (event.name.as_str(), event.id, shown(event))).collect()
}

#[tokio::test]
async fn a_log_is_followed_to_its_end_and_resumed() {
    let home = Home::new();
    let server = Server::start(&home);
    let id = shell(&server, "while read line; do echo \"$line\"; done", json!({})).await;
    let path = format!("/v1/processes/{id}/logs?follow=true&encoding=utf8");
    let mut live = server.stream(&path, None).await;
    for line in ["one", "two"] {
        let typed = json!({"data": format!("{line}\n"), "encoding": "utf8"});
        assert_eq!(server.send(&format!("/v1/processes/{id}/input"), &typed).await.0, 200);
        let event = live.next().await.expect("an event");
        assert_eq!((event.name.as_str(), &event.data["data"]), ("log", &json!(format!("{line}\n"))));
    }
    let resumed = server.stream(&format!("{path}&since=0"), Some(1)).await.next().await.expect("an event");
    assert_eq!((resumed.id, &resumed.data["data"]), (Some(2), &json!("two\n")), "Last-Event-ID wins over since");
    assert_eq!(server.send(&format!("/v1/processes/{id}/input"), &json!({"eof": true})).await.0, 200);
    assert_eq!(said(&live.all().await), [("end", None, String::new())]);
    let late = server.stream(&path, None).await.all().await;
    let expected = [("log", Some(1), "one\n".to_owned()), ("log", Some(2), "two\n".to_owned()), ("end", None, String::new())];
    assert_eq!(said(&late), expected);
    assert_eq!(late[2].data, json!({"reason": "exited"}));
}

#[tokio::test]
async fn streams_say_goodbye_when_the_server_stops() {
    let home = Home::new();
    let server = Server::start(&home);
    let id = shell(&server, "echo up; cat", json!({})).await;
    let mut log = server.stream(&format!("/v1/processes/{id}/logs?follow=true"), None).await;
    let mut events = server.stream("/v1/processes/events", None).await;
    assert_eq!(log.next().await.expect("an event").name, "log");
    assert_eq!(events.next().await.expect("an event").name, "message");
    assert_eq!(server.stop(), Some(0));
    for mut stream in [log, events] {
        let end = stream.until(|event| event.name == "end").await;
        assert_eq!(end.last().expect("an end").data, json!({"reason": "shutdown"}));
    }
    home.assert_empty();
}

#[tokio::test]
async fn output_is_searched_and_waited_for() {
    let home = Home::new();
    let server = Server::start(&home);
    let id = shell(&server, "seq 1 20; sleep 0.2; echo; echo ready on 4711; cat", json!({})).await;
    let wait = json!({"output": {"pattern": "ready on (\\d+)"}});
    let (status, result) = server.send(&format!("/v1/processes/{id}/wait"), &wait).await;
    assert_eq!((status, &result["met"], &result["match"]["line"]), (200, &json!("output"), &json!("ready on 4711")), "{result}");
    let (status, result) = server.send(&format!("/v1/processes/{id}/wait"), &json!({"timeoutMs": 50})).await;
    assert_eq!((status, &result["timedOut"], result.get("met")), (200, &json!(true), None), "{result}");
    let (status, found) = server.get(&format!("/v1/processes/{id}/search?pattern=%5E1&limit=2&context=1")).await;
    assert_eq!((status, &found["total"], &found["truncated"]), (200, &json!(11), &json!(true)), "{found}");
    let first = &found["matches"][1];
    assert_eq!(
        (&first["content"], &first["contextBefore"], &first["contextAfter"]),
        (&json!("10"), &json!(["9"]), &json!(["11"]))
    );
    let (status, refused) = server.get(&format!("/v1/processes/{id}/search?pattern=%28")).await;
    assert_eq!(status, 400, "{refused}");
}
