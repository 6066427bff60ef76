//! Terminals as they look on the wire.

use serde_json::{Value, json};

use crate::support::{Home, Server};
use crate::ws::{self, Frame, Ws};

async fn terminal(server: &Server, script: &str) -> String {
    let spec = json!({"command": "sh", "args": ["-c", script], "tty": true});
    let (status, info) = server.send("/v1/processes", &spec).await;
    assert_eq!((status, &info["tty"]), (200, &json!(true)), "{info}");
    info["id"].as_str().expect("an id").to_owned()
}

/// Attaches, and reads the first frame.
async fn attach(server: &Server, id: &str, query: &str) -> (Ws, Value) {
    let path = format!("/v1/processes/{id}/terminal/ws{query}");
    let mut ws = Ws::connect(server.port(), &path, &[]).await.expect("a WebSocket");
    let ready = ws.text().await;
    assert_eq!((&ready["type"], &ready["processId"]), (&json!("ready"), &json!(id)));
    (ws, ready)
}

fn shows(words: &'static str) -> impl Fn(&[u8]) -> bool {
    move |output| String::from_utf8_lossy(output).contains(words)
}

async fn refused(server: &Server, id: &str) -> String {
    let path = format!("/v1/processes/{id}/terminal/ws");
    Ws::connect(server.port(), &path, &[]).await.err().expect("a refusal")
}

#[tokio::test]
async fn a_terminal_is_typed_into_and_ends() {
    let home = Home::new();
    let server = Server::start(&home);
    let id = terminal(&server, "stty -echo; echo up; read line; echo \"got $line\"; stty size; exit 5").await;
    let (mut ws, ready) = attach(&server, &id, "").await;
    assert_eq!(ready, json!({"type": "ready", "processId": id}));
    ws.output(shows("up")).await;
    ws.send(&json!({"type": "resize", "cols": 111, "rows": 33})).await;
    ws.send(&json!({"type": "input", "data": "hi\n"})).await;
    let output = ws.output(shows("33 111\r\n")).await;
    assert!(shows("got hi\r\n")(&output), "{:?}", String::from_utf8_lossy(&output));
    assert_eq!(ws.text().await, json!({"type": "exit", "exitCode": 5}));
    assert_eq!(ws.next().await, Some(Frame::Close(None)));
    let (mut late, _) = attach(&server, &id, "?snapshot=false").await;
    assert_eq!(late.text().await["type"], "exit", "what ended can be attached to");
    assert_eq!(late.next().await, Some(Frame::Close(None)));
    let (_, page) = server.get(&format!("/v1/processes/{id}/logs?encoding=utf8")).await;
    assert_eq!(page["stream"], "pty");
    assert!(!page.to_string().contains("error"), "{page}");
    let size = json!({"cols": 80, "rows": 24});
    let (status, answer) = server.send(&format!("/v1/processes/{id}/terminal/resize"), &size).await;
    assert_eq!((status, &answer["details"]["message"]), (409, &json!("PTY resize handle unavailable")));
}

#[tokio::test]
async fn who_attaches_later_sees_the_screen() {
    let home = Home::new();
    let server = Server::start(&home);
    let id = terminal(&server, "echo earlier; cat").await;
    let (mut first, _) = attach(&server, &id, "").await;
    first.output(shows("earlier")).await;
    let (mut second, _) = attach(&server, &id, "").await;
    second.output(shows("earlier")).await;
    let (mut third, ready) = attach(&server, &id, "?snapshot=true").await;
    assert_eq!((&ready["cols"], &ready["rows"]), (&json!(80), &json!(24)));
    let announced = third.text().await;
    assert_eq!((&announced["type"], &announced["cols"], &announced["rows"]), (&json!("snapshot"), &json!(80), &json!(24)));
    let Some(Frame::Binary(snapshot)) = third.next().await else { panic!("no snapshot") };
    assert_eq!(announced["bytes"], snapshot.len());
    assert!(shows("earlier")(&snapshot), "{:?}", String::from_utf8_lossy(&snapshot));
    let (status, size) = server.send(&format!("/v1/processes/{id}/terminal/resize"), &json!({"cols": 90, "rows": 30})).await;
    assert_eq!((status, size), (200, json!({"cols": 90, "rows": 30})));
    assert_eq!(third.text().await, json!({"type": "resize", "cols": 90, "rows": 30}));
    first.send(&json!({"type": "input", "data": "bGF0ZXIK", "encoding": "base64"})).await;
    for client in [&mut first, &mut second, &mut third] {
        let output = client.output(shows("later")).await;
        assert!(!shows("earlier")(&output), "each client gets everything once");
    }
}

#[tokio::test]
async fn what_is_wrong_is_said_and_the_connection_stays() {
    let home = Home::new();
    let server = Server::start(&home);
    let id = terminal(&server, "stty -echo; echo up; cat").await;
    let (mut ws, _) = attach(&server, &id, "").await;
    ws.output(shows("up\r\n")).await;
    ws.send_frame(true, ws::BINARY, b"x").await;
    assert_eq!(ws.text().await["message"], "binary input is not supported; use text JSON frames");
    ws.send(&json!({"type": "input", "data": "x".repeat(65537)})).await;
    assert_eq!(ws.text().await["message"], "input payload exceeds maxInputBytesPerRequest (65536)");
    ws.send(&json!({"type": "resize", "cols": 0, "rows": 1})).await;
    assert_eq!(ws.text().await["type"], "error");
    ws.send(&json!({"type": "input", "data": "still here\n"})).await;
    ws.output(shows("still here")).await;
    ws.send(&json!({"type": "close"})).await;
    assert_eq!(ws.next().await, Some(Frame::Close(None)));
    assert_eq!(server.get(&format!("/v1/processes/{id}")).await.1["status"], "running", "leaving ends nothing");
    for (cols, rows) in [(0, 24), (80, 0), (1001, 24)] {
        let size = json!({"cols": cols, "rows": rows});
        assert_eq!(server.send(&format!("/v1/processes/{id}/terminal/resize"), &size).await.0, 400, "{size}");
    }
    let (status, info) = server.send("/v1/processes", &json!({"command": "cat"})).await;
    assert_eq!(status, 200, "{info}");
    let plain = info["id"].as_str().expect("an id");
    let answer = refused(&server, plain).await;
    assert!(answer.starts_with("HTTP/1.1 409 ") && answer.contains("process is not running in tty mode"), "{answer}");
    assert!(refused(&server, "proc_999").await.starts_with("HTTP/1.1 404 "));
}

#[tokio::test]
async fn a_client_that_does_not_read_is_redrawn_for_and_can_interrupt() {
    let home = Home::new();
    let server = Server::start(&home);
    let id = terminal(&server, "trap 'exit 7' INT; seq 1 1500000; echo done; while :; do sleep 0.05; done").await;
    let (mut ws, _) = attach(&server, &id, "?snapshot=true").await;
    let path = format!("/v1/processes/{id}/wait");
    let done = json!({"output": {"pattern": "^done$"}, "timeoutMs": 20_000});
    let (status, result) = server.send(&path, &done).await;
    assert_eq!((status, &result["met"]), (200, &json!("output")), "a client that doesn't read holds nobody up: {result}");
    ws.send(&json!({"type": "input", "data": "\u{3}"})).await;
    let (_, result) = server.send(&path, &json!({"timeoutMs": 20_000})).await;
    assert_eq!(result["met"], "exit", "{result}");
    let mut kinds = Vec::new();
    loop {
        match ws.next().await {
            Some(Frame::Text(frame)) => kinds.push(frame["type"].as_str().expect("a type").to_owned()),
            Some(Frame::Close(_)) => break,
            Some(_) => {}
            None => panic!("cut off after {kinds:?}"),
        }
    }
    assert!(kinds.contains(&"lagged".to_owned()) && kinds.last().is_some_and(|last| last == "exit"), "{kinds:?}");
}

#[tokio::test]
async fn terminals_say_goodbye_when_the_server_stops() {
    let home = Home::new();
    let server = Server::start(&home);
    let id = terminal(&server, "echo up; cat").await;
    let (mut ws, _) = attach(&server, &id, "").await;
    ws.output(shows("up")).await;
    assert_eq!(server.stop(), Some(0));
    assert_eq!(ws.next().await, Some(Frame::Close(Some((1001, "going away".into())))));
    home.assert_empty();
}
