//! ACP's remote transport on a WebSocket, alone and together with the other doors.

use serde_json::{Value, json};

use crate::acp_remote_client::{Remote, text_of};
use crate::support::{Home, Options, Server};
use crate::ws::{BINARY, Frame, TEXT, Ws};

/// A connection on a WebSocket, initialized.
struct Socket {
    ws: Ws,
    next: u64,
}

impl Socket {
    async fn open(server: &Server, path: &str) -> Self {
        let ws = Ws::connect(server.port(), path, &[]).await.expect("a WebSocket");
        assert!(ws.head.to_ascii_lowercase().contains("acp-connection-id: conn_"), "{}", ws.head);
        let mut socket = Self { ws, next: 0 };
        let answer = socket.call("initialize", json!({"protocolVersion": 1})).await.pop().expect("an answer");
        assert_eq!(answer["result"]["agentCapabilities"]["loadSession"], true, "{answer}");
        socket
    }

    async fn send(&mut self, method: &str, params: Value) -> Value {
        let id = json!(format!("r{}", self.next));
        self.next += 1;
        self.ws.send(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})).await;
        id
    }

    /// A request and all that came up to its answer.
    async fn call(&mut self, method: &str, params: Value) -> Vec<Value> {
        let id = self.send(method, params).await;
        self.until(|message| message.get("method").is_none() && message["id"] == id).await
    }

    async fn prompt(&mut self, session: &str, text: &str) -> Vec<Value> {
        self.call("session/prompt", json!({"sessionId": session, "prompt": [{"type": "text", "text": text}]})).await
    }

    async fn new_session(&mut self) -> String {
        let answer = self.call("session/new", json!({"cwd": "/", "mcpServers": []})).await.pop().expect("an answer");
        answer["result"]["sessionId"].as_str().expect("a session").to_owned()
    }

    async fn until(&mut self, fits: impl Fn(&Value) -> bool) -> Vec<Value> {
        let mut seen = Vec::new();
        loop {
            match self.ws.next().await {
                Some(Frame::Text(message)) => seen.push(message),
                Some(Frame::Ping) => continue,
                other => panic!("no message: {other:?} after {seen:?}"),
            }
            if fits(seen.last().expect("just pushed")) {
                return seen;
            }
        }
    }
}

fn text(messages: &[Value]) -> String {
    text_of(&messages.iter().map(|message| (None, message.clone())).collect::<Vec<_>>())
}

#[tokio::test]
async fn a_connection_on_one_socket() {
    let home = Home::new();
    let server = Server::start(&home);
    let mut socket = Socket::open(&server, "/acp?agent=mock").await;
    let (one, two) = (socket.new_session().await, socket.new_session().await);
    for (session, words) in [(&one, "first words"), (&two, "other words"), (&one, "more words")] {
        let seen = socket.prompt(session, words).await;
        assert_eq!(text(&seen), words, "everything that was said comes before the answer: {seen:?}");
    }
    let file = home.path().join("made");
    let prompt = json!({"sessionId": one, "prompt": [{"type": "text", "text": format!("/tool {}", file.display())}]});
    let id = socket.send("session/prompt", prompt).await;
    let question = socket.until(|message| message["method"] == "session/request_permission").await.pop().expect("a question");
    let yes = json!({"outcome": {"outcome": "selected", "optionId": "allow_once"}});
    socket.ws.send(&json!({"jsonrpc": "2.0", "id": question["id"], "result": yes})).await;
    let answer = socket.until(|message| message["id"] == id).await.pop().expect("an answer");
    assert_eq!((&answer["result"]["stopReason"], file.exists()), (&json!("end_turn"), true));
    let seen = socket.call("session/close", json!({"sessionId": two})).await;
    assert_eq!(seen.last().expect("an answer")["result"], json!({}));
    assert_eq!(text(&socket.prompt(&one, "goes on").await), "goes on");
    drop(socket);
    assert_eq!(server.stop(), Some(0));
    home.assert_empty();
}

#[tokio::test]
async fn what_is_no_message_is_answered_as_such() {
    let home = Home::new();
    let server = Server::start(&home);
    let mut socket = Socket::open(&server, "/acp/mock").await;
    let ws = &mut socket.ws;
    for (bad, code) in [("{", -32700), ("[]", -32600), ("7", -32600)] {
        ws.send_frame(true, TEXT, bad.as_bytes()).await;
        let answer = ws.text().await;
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&Value::Null, &json!(code)), "{answer}");
    }
    ws.send_frame(true, BINARY, b"{}").await; // ignored
    ws.send(&json!({"jsonrpc": "2.0", "id": 5, "method": "initialize", "params": {}})).await;
    let answer = ws.text().await;
    assert_eq!((&answer["id"], answer["error"].is_object()), (&json!(5), true), "{answer}");
    assert_eq!(
        text(&{
            let id = socket.new_session().await;
            socket.prompt(&id, "usable").await
        }),
        "usable"
    );
    for first in [json!({"jsonrpc": "2.0", "id": 1, "method": "session/new"}), json!({"jsonrpc": "2.0", "method": "initialize"})]
    {
        let mut ws = Ws::connect(server.port(), "/acp?agent=mock", &[]).await.expect("a WebSocket");
        ws.send(&first).await;
        assert!(matches!(ws.next().await, Some(Frame::Close(Some((1002, _))))), "{first}");
    }
    let mut ws = Ws::connect(server.port(), "/acp?agent=nobody", &[]).await.expect("a WebSocket");
    ws.send(&json!({"jsonrpc": "2.0", "id": 1, "method": "initialize"})).await;
    assert!(ws.text().await["error"]["message"].as_str().is_some_and(|why| why.contains("nobody")));
    assert!(matches!(ws.next().await, Some(Frame::Close(Some((1011, _))))));
}

#[tokio::test]
async fn what_comes_before_initialize_is_answered_has_a_bound() {
    let home = Home::new();
    home.fake_agent("", "--initialize-ms 600000"); // no answer while the test runs
    let options = Options::default().env("SANDBOXD_ACP_CONNECTION_EARLY_MAX_MESSAGES", "2");
    let server = Server::start_with(&home, &options.env("SANDBOXD_ACP_BODY_MAX_BYTES", "10000"));
    for (count, bytes) in [(3, 10), (2, 6_000)] {
        let mut ws = Ws::connect(server.port(), "/acp?agent=amp", &[]).await.expect("a WebSocket");
        ws.send(&json!({"jsonrpc": "2.0", "id": 1, "method": "initialize"})).await;
        for _ in 0..count {
            ws.send(&json!({"jsonrpc": "2.0", "method": "early", "params": {"text": "x".repeat(bytes)}})).await;
        }
        assert!(matches!(ws.next().await, Some(Frame::Close(Some((1008, _))))), "{count} of {bytes}");
    }
}

#[tokio::test]
async fn a_token_may_stand_in_the_query() {
    let home = Home::new();
    let options = Options { args: vec!["--token".into(), "s3cret".into()], ..Options::default() };
    let server = Server::start_with(&home, &options);
    let refused = Ws::connect(server.port(), "/acp?agent=mock", &[]).await.map(drop).expect_err("no token");
    assert!(refused.starts_with("HTTP/1.1 401"), "{refused}");
    Socket::open(&server, "/acp?agent=mock&access_token=s3cret").await;
    let page = [("origin", "http://evil.test"), ("authorization", "Bearer s3cret")];
    let refused = Ws::connect(server.port(), "/acp?agent=mock", &page).await.map(drop).expect_err("another page");
    assert!(refused.starts_with("HTTP/1.1 403"), "{refused}");
}

#[tokio::test]
async fn one_session_is_seen_through_three_doors() {
    let home = Home::new();
    let server = Server::start(&home);
    let mut socket = Socket::open(&server, "/acp?agent=mock").await;
    let session = socket.new_session().await;
    let posts = Remote::connect(&server, "?agent=mock").await;
    let mut updates = posts.stream(Some(&session), None).await;
    let mut raw = server.events("sessions-mock", None).await;
    let seen = socket.prompt(&session, "for everyone").await;
    assert_eq!(text(&seen), "for everyone");
    let theirs = updates.until(|message| message["params"]["update"]["content"]["text"] == "everyone").await;
    assert_eq!(text_of(&theirs), "for everyone");
    let events = raw.until(|event| event.data["result"]["stopReason"] == "end_turn").await;
    let events: Vec<_> = events.into_iter().map(|event| (None, event.data)).collect();
    assert_eq!(text_of(&events), "for everyone");
    let (_, sessions) = server.get("/v1/sessions").await;
    let lasting = sessions["sessions"].as_array().expect("sessions").iter().find(|known| known["acpSessionId"] == session);
    let id = lasting.expect("it lasts")["id"].as_str().expect("an id").to_owned();
    let mut lasting = server.stream(&format!("/v1/sessions/{id}/events"), None).await;
    let ended = lasting.until(|event| event.data["type"] == "turn.ended").await;
    assert!(ended.iter().any(|event| event.data["type"] == "item.completed"), "{ended:?}");
    // And what is said through the raw door is seen by the others.
    let prompt = json!({"sessionId": session, "prompt": [{"type": "text", "text": "back"}]});
    server.call("sessions-mock", "mock", 1, "session/prompt", prompt).await;
    let chunk = |message: &Value| message["params"]["update"]["content"]["text"] == "back";
    socket.until(chunk).await;
    updates.until(chunk).await;
    lasting.until(|event| event.data["type"] == "turn.ended").await;
}
