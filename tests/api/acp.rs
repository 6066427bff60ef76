//! ACP over HTTP, with the mock agent and one that misbehaves.

use serde_json::{Value, json};

use crate::support::{Event, Home, Options, Server};

pub(crate) fn method(event: &Event) -> &str {
    event.data["method"].as_str().unwrap_or_default()
}

fn assert_contiguous(events: &[Event], first: u64) {
    let ids: Vec<_> = events.iter().filter_map(|event| event.id).collect();
    let expected: Vec<_> = (first..first + ids.len() as u64).collect();
    assert_eq!(ids, expected);
}

#[tokio::test]
async fn the_mock_completes_a_turn_on_a_fresh_home() {
    let home = Home::new();
    let server = Server::start(&home);
    let answer = server.call("m", "mock", 0, "initialize", json!({"protocolVersion": 1})).await;
    assert_eq!(answer["result"]["protocolVersion"], 1);
    let session =
        server.call("m", "mock", 1, "session/new", json!({"cwd": "/", "mcpServers": []})).await["result"]["sessionId"].clone();
    let prompt = json!({"sessionId": session, "prompt": [{"type": "text", "text": "hello brave world"}]});
    let answer = server.call("m", "mock", "two", "session/prompt", prompt).await;
    assert_eq!((&answer["id"], &answer["result"]["stopReason"]), (&json!("two"), &json!("end_turn")));
    let events = server.events("m", None).await.until_answer("two").await;
    assert_contiguous(&events, 1);
    let chunks = events.iter().filter(|event| event.data["params"]["update"]["sessionUpdate"] == "agent_message_chunk");
    let text: String = chunks.filter_map(|event| event.data["params"]["update"]["content"]["text"].as_str()).collect();
    assert_eq!(text, "hello brave world");
    assert_eq!(server.stop(), Some(0));
    home.assert_empty();
}

#[tokio::test]
async fn permission_is_asked_and_the_tool_writes_or_not() {
    let home = Home::new();
    let server = Server::start(&home);
    for (name, option, there) in [("yes", json!("allow_once"), true), ("no", json!("reject_once"), false)] {
        let path = home.path().join(name);
        let prompt = json!({"sessionId": "s", "prompt": [{"type": "text", "text": format!("/tool {}", path.display())}]});
        let mut events = server.events_when_there("m", &server, prompt.clone()).await;
        let asked = events.until(|event| method(event) == "session/request_permission").await.pop().expect("a question");
        let outcome = json!({"outcome": {"outcome": "selected", "optionId": option}});
        let (status, _) = server.post("m", None, &json!({"jsonrpc": "2.0", "id": asked.data["id"], "result": outcome})).await;
        assert_eq!(status, 202);
        let seen = events.until(|event| event.data["result"]["stopReason"] == "end_turn").await;
        assert!(seen.iter().any(|event| event.data["params"]["update"]["sessionUpdate"] == "tool_call_update"), "{seen:?}");
        assert_eq!(path.exists(), there, "{name}");
        assert_eq!(server.delete("m").await, 204);
    }
    assert_eq!(server.stop(), Some(0));
    home.assert_empty();
}

#[tokio::test]
async fn two_clients_may_use_one_id_at_once() {
    let home = Home::new();
    home.fake_agent("", "");
    let server = Server::start(&home);
    server.call("a", "amp", 9, "hello", json!({})).await;
    let slow = |ms: u64| server.call("a", "amp", 1, "fake/slow", json!({"ms": ms}));
    let (first, second, third) = tokio::join!(slow(300), slow(100), slow(200));
    for (answer, ms) in [(first, 300), (second, 100), (third, 200)] {
        assert_eq!((answer["id"].clone(), answer["result"]["slept"].clone()), (json!(1), json!(ms)));
    }
}

#[tokio::test]
async fn ids_of_any_kind_come_back_as_they_were() {
    let home = Home::new();
    home.fake_agent("", "");
    let server = Server::start(&home);
    for id in [json!("1"), json!(1), json!(1.5), json!(null), json!(true), json!({"a": [1]})] {
        assert_eq!(server.call("a", "amp", id.clone(), "echo", json!({"n": 1})).await["id"], id);
    }
    let big = r#"{"jsonrpc":"2.0","id":7,"method":"echo","params":{"n":123456789012345678901234567890}}"#;
    let request = server.http.post(server.url("/v1/acp/a")).header("content-type", "application/json").body(big);
    let text = request.send().await.expect("an answer").text().await.expect("a body");
    assert!(text.contains("\"id\":7"), "{text}");
}

#[tokio::test]
async fn cancel_reaches_the_request_it_names() {
    let home = Home::new();
    home.fake_agent("", "");
    let server = Server::start(&home);
    server.call("a", "amp", "warm", "echo", json!({})).await;
    let mut events = server.events("a", None).await;
    let waiting = server.call("a", "amp", "mine", "fake/slow", json!({"ms": 1000}));
    let cancelling = async {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        let cancel = json!({"jsonrpc": "2.0", "method": "$/cancel_request", "params": {"requestId": "mine"}});
        assert_eq!(server.post("a", None, &cancel).await.0, 202);
        let seen = events.until(|event| method(event) == "fake/notified").await;
        seen.last().expect("an event").data["params"]["params"]["requestId"].clone()
    };
    let (answer, cancelled) = tokio::join!(waiting, cancelling);
    assert_eq!(answer["id"], "mine");
    assert_eq!(cancelled, json!(2), "the agent knows the second request by the number 2");
}

#[tokio::test]
async fn an_exit_answers_everyone_at_once_and_the_next_request_starts_anew() {
    let home = Home::new();
    home.fake_agent("", "");
    let server = Server::start(&home);
    server.call("a", "amp", 0, "initialize", json!({"protocolVersion": 1})).await;
    let stalled = server.call("a", "amp", 1, "fake/stall", json!({}));
    let dying = async {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        server.call("a", "amp", 2, "fake/die", json!({"code": 7})).await
    };
    let (stalled, dying) = tokio::join!(stalled, dying);
    for answer in [&stalled, &dying] {
        assert_eq!((&answer["error"]["code"], &answer["error"]["data"]["exitCode"]), (&json!(-32603), &json!(7)), "{answer}");
        assert!(answer["error"]["data"]["stderr"].as_str().is_some_and(|text| text.contains("dying in mid-turn")), "{answer}");
    }
    let again = server.call("a", "amp", 3, "echo", json!({"x": 1})).await;
    assert_eq!(again["result"]["echo"]["x"], 1);
    let seen = server.events("a", None).await.until_answer(3).await;
    assert_contiguous(&seen, 1);
    let position =
        |name: &str| seen.iter().position(|event| method(event) == name).unwrap_or_else(|| panic!("{name} is missing: {seen:?}"));
    assert!(position("_adapter/agent_exited") < position("_adapter/agent_restarted"));
}

#[tokio::test]
async fn a_signal_is_named() {
    let home = Home::new();
    home.fake_agent("", "");
    let server = Server::start(&home);
    let answer = server.call("a", "amp", 1, "fake/abort", json!({})).await;
    assert_eq!(answer["error"]["data"]["signal"], "SIGABRT", "{answer}");
}

#[tokio::test]
async fn an_agent_that_never_starts_says_why() {
    let home = Home::new();
    home.fake_agent("", "--exit 3");
    let server = Server::start(&home);
    let answer = server.call("a", "amp", 1, "initialize", json!({})).await;
    assert_eq!(answer["error"]["data"]["exitCode"], 3, "{answer}");
    assert!(answer["error"]["data"]["stderr"].as_str().is_some_and(|text| text.contains("last words")), "{answer}");
    let broken = home.data().join("bin/agent_processes/amp-acp");
    std::fs::write(&broken, "#!/no/such/interpreter\n").expect("a file");
    let (status, body) = server.post("b", Some("amp"), &json!({"id": 1, "method": "x"})).await;
    assert_eq!((status, body["type"].as_str()), (502, Some("urn:sandbox-agent:error:stream_error")), "{body}");
    assert_eq!(
        server.get("/v1/acp").await.1["servers"].as_array().map(Vec::len),
        Some(1),
        "a server that never was is not listed"
    );
}

#[tokio::test]
async fn rubbish_half_characters_and_long_lines_are_survived_and_reported() {
    let home = Home::new();
    home.fake_agent("", "");
    let server = Server::start_with(&home, &Options::default().env("SANDBOXD_ACP_LINE_MAX_BYTES", "1000000"));
    server.call("a", "amp", 1, "fake/rubbish", json!({})).await;
    server.call("a", "amp", 2, "fake/half_character", json!({})).await;
    let long = server.call("a", "amp", 3, "fake/long_answer", json!({"bytes": 60_000_000})).await;
    assert!(long["error"]["message"].as_str().is_some_and(|text| text.contains("acp_line_max_bytes")), "{long}");
    let fits = server.call("a", "amp", 4, "fake/long_answer", json!({"bytes": 900_000})).await;
    assert_eq!(fits["result"]["text"].as_str().map(str::len), Some(900_000));
    server.call("a", "amp", 5, "fake/half_line", json!({})).await;
    let seen = server.events("a", None).await.until_answer(5).await;
    let reports: Vec<_> = seen.iter().filter(|event| method(event) == "_adapter/invalid_stdout").collect();
    assert_eq!(reports.len(), 4, "{reports:?}");
    assert!(seen.iter().any(|event| event.data == json!([1, 2])), "an array passes unchanged");
    assert!(reports[2].data["params"]["bytes"].as_u64().is_some_and(|bytes| bytes > 60_000_000));
}

#[tokio::test]
async fn a_sixty_megabyte_line_passes_whole_within_the_default_bound() {
    let home = Home::new();
    home.fake_agent("", "");
    let server = Server::start(&home);
    let answer = server.call("a", "amp", 1, "fake/long_answer", json!({"bytes": 60_000_000})).await;
    assert_eq!(answer["result"]["text"].as_str().map(str::len), Some(60_000_000));
}

#[tokio::test]
async fn a_second_answer_goes_to_the_stream_only() {
    let home = Home::new();
    home.fake_agent("", "");
    let server = Server::start(&home);
    assert_eq!(server.call("a", "amp", 1, "fake/twice", json!({})).await["result"]["answer"], 1);
    server.call("a", "amp", 2, "echo", json!({})).await;
    let seen = server.events("a", None).await.until_answer(2).await;
    assert!(seen.iter().any(|event| event.data["result"]["answer"] == 2), "{seen:?}");
}

#[tokio::test]
async fn delete_ends_the_whole_family_and_the_stream() {
    let home = Home::new();
    home.fake_agent("trap '' TERM", "--ignore-eof");
    let server = Server::start(&home);
    let family = server.call("a", "amp", 1, "fake/family", json!({})).await;
    assert!(home.processes().len() >= 5, "{family} {:?}", home.processes());
    let mut events = server.events("a", None).await;
    assert_eq!(server.delete("a").await, 204);
    let left: Vec<_> = home.processes().into_iter().filter(|(pid, _)| *pid != server.pid()).collect();
    assert_eq!(left, Vec::new(), "204 means that nothing of it runs");
    let last = events.until(|event| event.name == "end").await.pop().expect("the end");
    assert_eq!(last.data["reason"], "deleted");
    assert!(events.next().await.is_none());
    assert_eq!(server.delete("a").await, 204, "deleting twice is fine");
    assert_eq!(server.get("/v1/acp/a").await.0, 404);
    let (status, body) = server.post("a", None, &json!({"id": 1, "method": "x"})).await;
    assert_eq!(status, 400, "{body}");
    server.call("a", "amp", 1, "echo", json!({})).await;
    assert_eq!(server.events("a", None).await.next().await.and_then(|event| event.id), Some(1), "ids begin again");
}

#[tokio::test]
async fn a_waiting_request_is_answered_when_its_server_is_deleted() {
    let home = Home::new();
    home.fake_agent("", "");
    let server = Server::start(&home);
    server.call("a", "amp", 0, "echo", json!({})).await;
    let deleting = async {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        server.delete("a").await
    };
    let (stalled, deleted) = tokio::join!(server.call("a", "amp", 1, "fake/stall", json!({})), deleting);
    assert_eq!(deleted, 204);
    assert!(stalled["error"]["message"].as_str().is_some_and(|text| text.contains("deleted")), "{stalled}");
}

#[tokio::test]
async fn term_ends_server_and_stubborn_agents() {
    let home = Home::new();
    home.fake_agent("trap '' TERM", "--ignore-eof");
    let server = Server::start(&home);
    server.call("a", "amp", 1, "fake/family", json!({})).await;
    server.call("b", "mock", 1, "initialize", json!({})).await;
    let mut events = server.events("a", None).await;
    assert_eq!(server.stop(), Some(0));
    events.until(|event| event.name == "end").await;
    home.assert_empty();
}

#[tokio::test]
async fn what_a_killed_server_left_is_ended_by_the_next() {
    let home = Home::new();
    home.fake_agent("trap '' TERM", "--ignore-eof");
    let server = Server::start(&home);
    server.call("a", "amp", 1, "fake/family", json!({})).await;
    server.kill();
    assert!(!home.processes().is_empty(), "the family outlives a SIGKILL of the server");
    let server = Server::start(&home);
    assert_eq!(server.stop(), Some(0));
    home.assert_empty();
}

#[tokio::test]
async fn a_client_that_leaves_loses_only_its_reply() {
    let home = Home::new();
    home.fake_agent("", "");
    let server = Server::start(&home);
    server.call("a", "amp", 0, "echo", json!({})).await;
    let leaving = server.call("a", "amp", 1, "fake/slow", json!({"ms": 400}));
    assert!(tokio::time::timeout(std::time::Duration::from_millis(100), leaving).await.is_err());
    let seen = server.events("a", None).await.until_answer(1).await;
    assert_eq!(seen.last().map(|event| event.data["result"]["slept"].clone()), Some(json!(400)));
}

#[tokio::test]
async fn a_slow_turn_keeps_its_connection_busy() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let home = Home::new();
    home.fake_agent("", "");
    let server = Server::start_with(&home, &Options::default().env("SANDBOXD_ACP_POST_KEEPALIVE_MS", "50"));
    server.call("a", "amp", 0, "echo", json!({})).await;
    let mut socket = tokio::net::TcpStream::connect(("127.0.0.1", server.port())).await.expect("a connection");
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"fake/slow","params":{"ms":600}}"#;
    let head = format!(
        "POST /v1/acp/a HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all(format!("{head}{body}").as_bytes()).await.expect("written");
    let mut text = String::new();
    socket.read_to_string(&mut text).await.expect("an answer");
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    assert!(text.matches("1\r\n \r\n").count() >= 3, "white space comes while the agent works: {text:?}");
    assert!(text.contains(r#""slept":600"#), "{text}");
}

#[tokio::test]
async fn replay_and_live_join_without_a_gap_or_a_double() {
    let home = Home::new();
    home.fake_agent("", "");
    let server = Server::start(&home);
    server.call("a", "amp", 0, "echo", json!({})).await;
    let flooding = server.call("a", "amp", 1, "fake/flood", json!({"count": 20000, "bytes": 50}));
    let reading = async {
        let mut seen = Vec::new();
        let mut after = None;
        // Comes and goes while the flood runs, and goes on where it stopped.
        loop {
            let mut events = server.events("a", after).await;
            for _ in 0..3000 {
                let event = events.next().await.expect("the stream goes on");
                after = event.id;
                seen.push(event);
                if seen.last().is_some_and(|event| event.data["id"] == 1) {
                    return seen;
                }
            }
        }
    };
    let (_, seen) = tokio::join!(flooding, reading);
    assert_contiguous(&seen, 1);
    let numbers: Vec<_> = seen.iter().filter_map(|event| event.data["params"]["n"].as_u64()).collect();
    assert_eq!(numbers, (0..20000).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_retention_removed_is_a_gap() {
    let home = Home::new();
    home.fake_agent("", "");
    let options = Options::default().env("SANDBOXD_LOG_STREAM_MAX_EVENTS", "2000").env("SANDBOXD_LOG_RING_MAX_EVENTS", "100");
    let server = Server::start_with(&home, &options);
    server.call("a", "amp", 1, "fake/flood", json!({"count": 10000, "bytes": 20})).await;
    let seen = server.events("a", Some(5)).await.until_answer(1).await;
    let gap = &seen[0];
    assert_eq!((gap.name.as_str(), &gap.data["from"], &gap.data["reason"]), ("gap", &json!(6), &json!("retention")), "{gap:?}");
    let next = gap.data["to"].as_u64().expect("a number") + 1;
    assert_eq!(gap.id, Some(next - 1));
    assert_contiguous(&seen[1..], next);
    assert!(seen.len() > 1500 && seen.len() < 3000, "{}", seen.len());
}

#[tokio::test]
async fn a_reader_that_does_not_read_costs_little_and_misses_nothing() {
    let home = Home::new();
    home.fake_agent("", "");
    let server = Server::start(&home);
    server.call("a", "amp", 0, "echo", json!({})).await;
    let mut slow = server.events("a", None).await;
    slow.next().await;
    let before = resident_kib(server.pid());
    server.call("a", "amp", 1, "fake/flood", json!({"count": 100, "bytes": 1_000_000})).await;
    let grown = resident_kib(server.pid()).saturating_sub(before);
    assert!(grown < 80_000, "100 MB passed a reader that stands still; memory grew by {grown} KiB");
    let seen = slow.until_answer(1).await;
    assert_contiguous(&seen, 2);
}

fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let line = status.lines().find(|line| line.starts_with("VmRSS")).expect("VmRSS");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}

#[tokio::test]
async fn a_restart_of_the_server_keeps_events_and_sessions() {
    let home = Home::new();
    home.fake_agent("", "");
    for with_kill in [false, true] {
        let server = Server::start(&home);
        server.call("a", "amp", 0, "initialize", json!({"protocolVersion": 1})).await;
        let session = server.call("a", "amp", 1, "session/new", json!({"cwd": "/"})).await["result"]["sessionId"].clone();
        let before = server.events("a", None).await.until_answer(1).await;
        if with_kill {
            server.kill()
        } else {
            assert_eq!(server.stop(), Some(0))
        }
        let server = Server::start(&home);
        let listed = server.get("/v1/acp").await.1;
        assert_eq!((&listed["servers"][0]["serverId"], &listed["servers"][0]["status"]), (&json!("a"), &json!("stopped")));
        let after = server.events("a", None).await.until_answer(1).await;
        assert_eq!(after, before, "the same events under the same ids");
        let last = before.last().and_then(|event| event.id).expect("an id");
        let answer = server.call("a", "amp", 2, "echo", json!({"sessionId": session})).await;
        assert_eq!(answer["result"]["echo"]["sessionId"], session);
        let seen = server.events("a", Some(last)).await.until_answer(2).await;
        assert_contiguous(&seen, last + 1);
        let methods: Vec<_> = seen.iter().map(method).collect();
        assert_eq!(methods, ["_adapter/agent_restarted", "_adapter/session_restored", ""], "{seen:?}");
        assert_eq!(seen[1].data["params"]["suppressedUpdates"], 3, "{seen:?}");
        server.delete("a").await;
    }
}

impl Server {
    /// Sends a prompt that asks something and opens the events.
    async fn events_when_there(&self, id: &str, server: &Server, prompt: Value) -> crate::support::Events {
        server.call(id, "mock", 0, "initialize", json!({})).await;
        let (http, url) = (self.http.clone(), self.url(&format!("/v1/acp/{id}")));
        let envelope = json!({"jsonrpc": "2.0", "id": 1, "method": "session/prompt", "params": prompt});
        tokio::spawn(async move { http.post(url).json(&envelope).send().await });
        self.events(id, None).await
    }
}
