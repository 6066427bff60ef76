//! What tests of sessions share.

use serde_json::{Value, json};

use crate::support::{Events, Home, PATIENCE, Server};

/// The fake agent with sessions, as `amp`; what it hears of sessions is recorded.
pub fn fake(home: &Home, args: &str) {
    home.fake_agent("", &format!("--sessions --record '{}' {args}", home.path().join("heard").display()));
}

/// What the fake agents heard so far with this method.
pub fn heard(home: &Home, method: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(home.path().join("heard")).unwrap_or_default();
    let all = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    all.filter(|message| message["method"] == method).collect()
}

/// The texts of all prompts that the fake agents got.
pub fn prompts(home: &Home) -> Vec<String> {
    let texts = |message: Value| {
        let blocks = message["params"]["prompt"].as_array().cloned().unwrap_or_default();
        blocks.iter().map(|block| block["text"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>().join("|")
    };
    heard(home, "session/prompt").into_iter().map(texts).collect()
}

/// A request with any method and headers; gives status and body.
pub async fn request(server: &Server, method: &str, path: &str, body: Option<&Value>, key: Option<&str>) -> (u16, Value) {
    let mut request = server.http.request(method.parse().expect("a method"), server.url(path));
    if let Some(body) = body {
        request = request.json(body);
    }
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    let response = tokio::time::timeout(PATIENCE, request.send()).await.expect("an answer in time").expect("an answer");
    let status = response.status().as_u16();
    let text = response.text().await.expect("a body");
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// A new session; gives its id.
pub async fn create(server: &Server, spec: Value) -> String {
    let (status, session) = server.send("/v1/sessions", &spec).await;
    assert_eq!(status, 201, "{session}");
    session["id"].as_str().expect("an id").to_owned()
}

pub async fn get(server: &Server, session: &str) -> Value {
    let (status, body) = server.get(&format!("/v1/sessions/{session}")).await;
    assert_eq!(status, 200, "{body}");
    body
}

/// A message that must be taken in; gives what became of it.
pub async fn message(server: &Server, session: &str, body: Value) -> Value {
    let (status, submitted) = server.send(&format!("/v1/sessions/{session}/messages"), &body).await;
    assert_eq!(status, 202, "{submitted}");
    submitted
}

/// The same with text only; gives the turn.
pub async fn say(server: &Server, session: &str, text: &str) -> String {
    message(server, session, json!({"text": text})).await["turnId"].as_str().expect("a turn").to_owned()
}

/// A turn once it has ended.
pub async fn ended(server: &Server, session: &str, turn: &str) -> Value {
    let (status, body) = server.get(&format!("/v1/sessions/{session}/turns/{turn}?waitMs=30000")).await;
    assert_eq!((status, &body["state"]), (200, &json!("ended")), "{body}");
    body
}

/// Outcome and reason of a turn once it has ended.
pub async fn outcome(server: &Server, session: &str, turn: &str) -> (String, Option<String>) {
    let turn = ended(server, session, turn).await;
    (turn["outcome"].as_str().expect("an outcome").to_owned(), turn["reason"].as_str().map(str::to_owned))
}

/// A session's events as they come.
pub async fn follow(server: &Server, session: &str, query: &str, after: Option<u64>) -> Events {
    let path = format!("/v1/sessions/{session}/events{query}");
    let mut request = server.http.get(server.url(&path)).header("accept", "text/event-stream");
    if let Some(after) = after {
        request = request.header("last-event-id", after);
    }
    let response = request.send().await.expect("an answer");
    assert_eq!(response.status(), 200);
    Events::of(response)
}

/// All events of a session so far, page by page.
pub async fn events(server: &Server, session: &str, query: &str) -> Vec<Value> {
    let (mut after, mut all) = (0, Vec::new());
    loop {
        let (status, page) = server.get(&format!("/v1/sessions/{session}/events?limit=20&after={after}{query}")).await;
        assert_eq!(status, 200, "{page}");
        all.extend(page["events"].as_array().expect("events").iter().cloned());
        after = page["next"].as_u64().expect("a cursor");
        if page["hasMore"] == false {
            return all;
        }
    }
}

/// Waits for an event of a type.
pub async fn until_type(events: &mut Events, kind: &str) -> Value {
    let seen = events.until(|event| event.data["type"] == kind).await;
    seen.last().expect("just seen").data.clone()
}

/// Waits until the session says that it is in a state.
pub async fn until_state(events: &mut Events, state: &str) -> Value {
    let fits = |data: &Value| data["type"] == "session.state" && data["data"]["state"] == state;
    let seen = events.until(|event| fits(&event.data)).await;
    seen.last().expect("just seen").data.clone()
}

/// Waits for something that no event tells of.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(std::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

/// Said by the assistant, joined, of a session's completed items.
pub fn words(events: &[Value]) -> Vec<String> {
    let completed = events.iter().filter(|event| event["type"] == "item.completed");
    let said = completed.filter(|event| event["data"]["item"]["role"] == "assistant");
    said.map(|event| event["data"]["item"]["parts"][0]["text"].as_str().unwrap_or_default().to_owned()).collect()
}
