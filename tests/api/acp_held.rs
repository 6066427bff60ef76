//! Agents that don't read or can't be understood, and requests that are held meanwhile.

use serde_json::json;

use crate::acp::method;
use crate::support::{Home, Options, Server, kill};

#[tokio::test]
async fn an_agent_that_stops_reading_blocks_nobody() {
    let home = Home::new();
    home.fake_agent("", "");
    let server = Server::start_with(&home, &Options::default().env("SANDBOXD_ACP_STDIN_QUEUE_MAX_BYTES", "1000000"));
    server.call("a", "amp", 0, "fake/stop_reading", json!({})).await;
    let large = json!({"text": "z".repeat(400_000)});
    let sends = (1..=6).map(|id| server.call("a", "amp", id, "echo", large.clone()));
    let (answer, _, _) = futures_util::future::select_all(sends.map(Box::pin)).await;
    assert!(answer["error"]["message"].as_str().is_some_and(|text| text.contains("doesn't read")), "{answer}");
    assert_eq!(server.delete("a").await, 204);
}

#[tokio::test]
async fn a_stopped_agent_is_ended_by_delete() {
    let home = Home::new();
    home.fake_agent("", "");
    let server = Server::start(&home);
    server.call("a", "amp", 0, "echo", json!({})).await;
    let agent = home.processes().into_iter().find(|(_, command)| command.contains("fake-agent")).expect("the agent");
    kill(agent.0, "STOP");
    assert_eq!(server.delete("a").await, 204);
    assert_eq!(home.processes().len(), 1, "only the server");
}

#[tokio::test]
async fn an_unreadable_answer_fails_its_request() {
    let home = Home::new();
    home.fake_agent("", "");
    let server = Server::start(&home);
    let answer = server.call("a", "amp", "mine", "fake/unreadable_answer", json!({})).await;
    assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!("mine"), &json!(-32603)), "{answer}");
}

#[tokio::test]
async fn a_long_question_of_the_agent_fails_the_question_not_a_clients_request() {
    let home = Home::new();
    home.fake_agent("", "");
    let server = Server::start_with(&home, &Options::default().env("SANDBOXD_ACP_LINE_MAX_BYTES", "200000"));
    let asking = server.call("a", "amp", 1, "fake/long_ask", json!({"bytes": 300_000}));
    let looking = async {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        let mut events = server.events("a", None).await;
        let told = events.until(|event| method(event) == "fake/client_answered").await;
        server.delete("a").await;
        told
    };
    let (answer, told) = tokio::join!(asking, looking);
    assert!(
        answer["error"]["message"].as_str().is_some_and(|text| text.contains("deleted")),
        "it waited until the end: {answer}"
    );
    assert!(told.iter().any(|event| method(event) == "_adapter/invalid_stdout"), "{told:?}");
}

#[tokio::test]
async fn a_cancel_waits_its_turn_behind_the_prompt_that_is_held() {
    let home = Home::new();
    home.fake_agent("", "--tell --initialize-ms 300");
    let server = Server::start(&home);
    server.call("a", "amp", 0, "initialize", json!({"protocolVersion": 1})).await;
    let session = server.call("a", "amp", 1, "session/new", json!({"cwd": "/"})).await["result"]["sessionId"].clone();
    let last = server.events("a", None).await.until_answer(1).await.last().and_then(|event| event.id);
    server.call("a", "amp", 2, "fake/die", json!({"code": 1})).await;
    let prompting = server.call("a", "amp", 3, "session/prompt", json!({"sessionId": session}));
    let cancelling = async {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        let cancel = json!({"jsonrpc": "2.0", "method": "session/cancel", "params": {"sessionId": session}});
        assert_eq!(server.post("a", None, &cancel).await.0, 202);
    };
    tokio::join!(prompting, cancelling);
    let mut events = server.events("a", last).await;
    let seen = events.until(|event| event.data["params"]["method"] == "session/cancel").await;
    let heard: Vec<_> = seen
        .iter()
        .filter(|event| method(event) == "fake/heard")
        .filter_map(|event| event.data["params"]["method"].as_str())
        .collect();
    assert_eq!(heard, ["fake/die", "initialize", "session/load", "session/prompt", "session/cancel"]);
}

#[tokio::test]
async fn a_session_is_restored_behind_the_clients_own_initialize() {
    let home = Home::new();
    home.fake_agent("", "--tell --initialize-ms 300");
    let server = Server::start(&home);
    server.call("a", "amp", 0, "initialize", json!({"protocolVersion": 1})).await;
    let session = server.call("a", "amp", 1, "session/new", json!({"cwd": "/"})).await["result"]["sessionId"].clone();
    server.call("a", "amp", 2, "fake/die", json!({"code": 1})).await;
    let last = server.events("a", None).await.until_answer(2).await.last().and_then(|event| event.id);
    let initialize = server.call("a", "amp", 3, "initialize", json!({"protocolVersion": 1}));
    let prompt = async {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        server.call("a", "amp", 4, "session/prompt", json!({"sessionId": session})).await
    };
    tokio::join!(initialize, prompt);
    let seen = server.events("a", last).await.until_answer(4).await;
    let heard: Vec<_> = seen
        .iter()
        .filter(|event| method(event) == "fake/heard")
        .filter_map(|event| event.data["params"]["method"].as_str())
        .collect();
    assert_eq!(heard, ["initialize", "session/load", "session/prompt"], "{seen:?}");
}

#[tokio::test]
async fn a_full_table_of_requests_hinders_no_restore() {
    let home = Home::new();
    home.fake_agent("", "");
    let server = Server::start_with(&home, &Options::default().env("SANDBOXD_ACP_PENDING_MAX_REQUESTS", "2"));
    server.call("a", "amp", 0, "initialize", json!({"protocolVersion": 1})).await;
    let session = server.call("a", "amp", 1, "session/new", json!({"cwd": "/"})).await["result"]["sessionId"].clone();
    server.call("a", "amp", 2, "fake/die", json!({})).await;
    let stalled = futures_util::future::join_all((10..12).map(|id| server.call("a", "amp", id, "fake/stall", json!({}))));
    let prompting = async {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        let answer = server.call("a", "amp", 3, "session/prompt", json!({"sessionId": session})).await;
        assert!(answer["error"]["message"].as_str().is_some_and(|text| text.contains("too many requests")), "{answer}");
        assert_eq!(server.delete("a").await, 204);
    };
    tokio::join!(stalled, prompting);
}

#[tokio::test]
async fn making_and_deleting_one_id_over_and_over_leaves_what_is_listed() {
    let home = Home::new();
    let server = Server::start(&home);
    for _ in 0..40 {
        let making = server.call_any("a");
        let deleting = server.delete("a");
        tokio::join!(making, deleting);
        server.call_any("a").await;
    }
    server.call("a", "mock", 1, "initialize", json!({})).await;
    let before = server.get("/v1/acp").await.1["servers"][0]["createdAtMs"].clone();
    server.kill();
    let server = Server::start(&home);
    let listed = server.get("/v1/acp").await.1;
    assert_eq!(
        (&listed["servers"][0]["createdAtMs"], listed["servers"].as_array().map(Vec::len)),
        (&before, Some(1)),
        "{listed}"
    );
    assert_eq!(server.stop(), Some(0));
    home.assert_empty();
}

impl Server {
    /// A request whose outcome doesn't matter.
    async fn call_any(&self, id: &str) {
        self.post(id, Some("mock"), &json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}})).await;
    }
}
