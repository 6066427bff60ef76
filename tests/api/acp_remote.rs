//! ACP's remote transport at `/acp`: its statuses, its streams, and what several clients see of one session.

use serde_json::{Value, json};

use crate::acp_remote_client::{Message, Remote, text_of, within};
use crate::support::{Home, Options, Server};

async fn problem(request: reqwest::RequestBuilder, status: u16) -> Value {
    let response = within(request.send()).await.expect("an answer");
    assert_eq!(response.status().as_u16(), status);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    within(response.json()).await.expect("JSON")
}

#[tokio::test]
async fn a_turn_over_posts_and_streams() {
    let home = Home::new();
    let server = Server::start(&home);
    let mut client = Remote::connect(&server, "?agent=mock").await;
    let capabilities = &client.initialized["result"]["agentCapabilities"];
    assert_eq!((&client.initialized["id"], &capabilities["loadSession"]), (&json!(0), &json!(true)));
    for ours in ["list", "resume", "close", "delete"] {
        assert!(capabilities["sessionCapabilities"][ours].is_object(), "{ours}: {capabilities}");
    }
    let mut stream = client.stream(None, None).await;
    let session = client.new_session(&mut stream).await;
    let mut updates = client.stream(Some(&session), None).await;
    let id = client.prompt(&session, "hello brave world").await;
    let seen = updates.until_answer(&id).await;
    assert_eq!(text_of(&seen), "hello brave world");
    assert_eq!(seen.last().expect("the answer").1["result"]["stopReason"], "end_turn");
    assert!(seen.iter().all(|(id, _)| id.is_some()), "each can be read on from: {seen:?}");
    assert_eq!(client.delete().await, 202);
    assert!(updates.next().await.is_none() && stream.until_end().await, "streams end with their connection");
    assert_eq!(client.delete().await, 404);
    let (_, servers) = server.get("/v1/acp").await;
    assert_eq!(servers["servers"][0]["serverId"], "sessions-mock", "the agent stays");
    assert_eq!(server.stop(), Some(0));
    home.assert_empty();
}

#[tokio::test]
async fn requests_that_make_no_sense_are_refused() {
    let home = Home::new();
    let server = Server::start(&home);
    let client = Remote::connect(&server, "/mock").await;
    let url = server.url("/acp");
    let post_to = |query: &str, body: &'static str| {
        server.http.post(format!("{url}{query}")).header("content-type", "application/json").body(body)
    };
    let post = |body: &'static str| post_to("", body);
    let ours = |body: &'static str| post(body).header("acp-connection-id", &client.id);
    problem(server.http.post(&url).body("{}"), 415).await;
    for bad in ["", "{", "[]", "[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"initialize\"}]", "1"] {
        problem(post(bad), 400).await;
    }
    problem(post(r#"{"jsonrpc":"2.0","id":1,"method":"session/new"}"#), 400).await;
    problem(post(r#"{"jsonrpc":"2.0","id":1,"method":"initialize"}"#), 400).await; // no agent
    problem(post_to("?agent=mock", r#"{"jsonrpc":"2.0","method":"initialize"}"#), 400).await;
    problem(post_to("?agent=nobody", r#"{"jsonrpc":"2.0","id":1,"method":"initialize"}"#), 400).await;
    problem(ours(r#"{"jsonrpc":"2.0","id":1,"method":"initialize"}"#), 400).await;
    let unknown = problem(post("{}").header("acp-connection-id", "conn_gone"), 404).await;
    assert_eq!(unknown["details"], json!({"resource": "connection", "id": "conn_gone"}));
    let prompt = r#"{"jsonrpc":"2.0","id":1,"method":"session/prompt","params":{"sessionId":"s"}}"#;
    assert!(problem(ours(prompt), 400).await["detail"].as_str().is_some_and(|detail| detail.contains("missing Acp-Session-Id")));
    problem(ours(r#"{"jsonrpc":"2.0","method":"session/cancel"}"#), 400).await;
    problem(ours(prompt).header("acp-session-id", "t"), 400).await;

    let get = || server.http.get(&url);
    let events = || get().header("accept", "text/event-stream");
    problem(get().header("acp-connection-id", &client.id), 406).await;
    problem(get().header("acp-connection-id", &client.id).header("accept", "application/json"), 406).await;
    problem(events(), 400).await;
    problem(events().header("acp-connection-id", "conn_gone"), 404).await;
    problem(events().header("acp-connection-id", &client.id).header("last-event-id", "seven"), 400).await;
    problem(get().header("upgrade", "websocket"), 426).await;
    let _held = client.stream(None, None).await;
    assert_eq!(client.get(None, None).await.status(), 409);
    let _held = client.stream(Some("s"), None).await;
    assert_eq!(client.get(Some("s"), None).await.status(), 409);

    problem(server.http.delete(&url), 400).await;
    problem(server.http.delete(&url).header("acp-connection-id", "conn_gone"), 404).await;
    assert_eq!(server.http.put(&url).send().await.expect("an answer").status(), 405);
}

#[tokio::test]
async fn a_stream_reads_on_after_it_was_cut() {
    let home = Home::new();
    let server = Server::start(&home);
    let mut client = Remote::connect(&server, "?agent=mock").await;
    let mut stream = client.stream(None, None).await;
    let session = client.new_session(&mut stream).await;
    let mut updates = client.stream(Some(&session), None).await;
    let id = client.prompt(&session, "one two three four").await;
    let seen = updates.until_answer(&id).await;
    let second = seen[1].0.clone();
    // Whoever knows where it was takes the stream over, even from a receiver that still seems to be there.
    let mut again = client.stream(Some(&session), second.as_deref()).await;
    assert_eq!(again.until_answer(&id).await, seen[2..]);
    assert!(updates.until_end().await, "the other receiver's stream is over");
    drop(again);
    // Without an id the next receiver gets what the last one didn't.
    let id = client.prompt(&session, "five six").await;
    let mut next = client.stream_when_free(Some(&session)).await;
    assert_eq!(text_of(&next.until_answer(&id).await), "five six");
    // Another connection may read the session from where the first one was.
    let other = Remote::connect(&server, "?agent=mock").await;
    let mut other_updates = other.stream(Some(&session), second.as_deref()).await;
    let theirs = other_updates.until(|message| message["params"]["update"]["content"]["text"] == "six").await;
    assert_eq!(text_of(&theirs), "three fourfive six");
    let mut lost = other.stream(None, Some("acp_other/7")).await;
    let gap = lost.next().await.expect("a message").1;
    assert_eq!((&gap["method"], &gap["params"]["reason"]), (&json!("_sandboxd/gap"), &json!("replaced")));
}

#[tokio::test]
async fn two_connections_share_a_session_and_its_questions() {
    let home = Home::new();
    let server = Server::start(&home);
    let mut one = Remote::connect(&server, "?agent=mock").await;
    let mut two = Remote::connect(&server, "?agent=mock").await;
    assert_ne!(one.id, two.id);
    let mut stream = one.stream(None, None).await;
    let mut other_stream = two.stream(None, None).await;
    let session = one.new_session(&mut stream).await;
    let mut first = one.stream(Some(&session), None).await;
    let mut second = two.stream(Some(&session), None).await;
    let file = home.path().join("made");
    let id = one.prompt(&session, &format!("/tool {}", file.display())).await;
    let question = first.until_method("session/request_permission").await;
    let same = second.until_method("session/request_permission").await;
    assert_eq!(question["id"], same["id"], "one question has one id");
    assert!(question["id"].as_str().is_some_and(|id| id.starts_with("acp_")), "{question}");
    let yes = json!({"outcome": {"outcome": "selected", "optionId": "allow_once"}});
    let no_header = json!({"jsonrpc": "2.0", "id": same["id"], "result": yes});
    assert_eq!((two.post(None, &no_header).await, two.post(Some("t"), &no_header).await), (400, 400));
    assert_eq!(two.answer(&session, &same["id"], yes.clone()).await, 202);
    let seen = first.until_answer(&id).await;
    assert_eq!(seen.last().expect("an answer").1["result"]["stopReason"], "end_turn");
    assert!(file.exists());
    let settled = |message: &Value| message["method"] == "$/cancel_request" && message["params"]["requestId"] == question["id"];
    assert!(seen.iter().any(|(_, message)| settled(message)), "the other one need not ask any more: {seen:?}");
    assert_eq!(one.answer(&session, &question["id"], yes).await, 202, "a late answer is taken and forgotten");
    // The other one's own requests are its own, whatever ids it gives them.
    let (mine, theirs) = (one.prompt(&session, "mine").await, two.prompt(&session, "theirs").await);
    let echoed = |seen: &[Message]| seen.last().expect("an answer").1["result"]["echoed"]["params"]["prompt"][0]["text"].clone();
    assert_eq!(echoed(&first.until_answer(&mine).await), "mine");
    let seen = second.until_answer(&theirs).await;
    assert_eq!(echoed(&seen), "theirs");
    assert!(!seen.iter().any(|(_, message)| settled(message)), "whoever answered isn't told: {seen:?}");
    let elsewhere = two.new_session(&mut other_stream).await;
    assert_ne!(elsewhere, session);
    assert_eq!(one.delete().await, 202);
    let id = two.prompt(&session, "still here").await;
    // What the first one's turn said may have come behind the answer to the other's.
    assert!(text_of(&second.until_answer(&id).await).ends_with("still here"));
}

#[tokio::test]
async fn cancels_reach_the_right_request() {
    let home = Home::new();
    let server = Server::start(&home);
    let mut client = Remote::connect(&server, "?agent=mock").await;
    let mut stream = client.stream(None, None).await;
    let session = client.new_session(&mut stream).await;
    let mut updates = client.stream(Some(&session), None).await;
    let id = client.prompt(&session, "/stall").await;
    let cancel = json!({"jsonrpc": "2.0", "method": "session/cancel", "params": {"sessionId": session}});
    assert_eq!(client.post(Some(&session), &cancel).await, 202);
    assert_eq!(updates.until_answer(&id).await.pop().expect("an answer").1["result"]["stopReason"], "cancelled");
    let id = client.prompt(&session, "/sleep 300").await;
    let cancel = json!({"jsonrpc": "2.0", "method": "$/cancel_request", "params": {"requestId": id}});
    assert_eq!(client.post(None, &cancel).await, 202);
    let heard = stream.until(|message| message["params"]["message"]["method"] == "$/cancel_request").await;
    let prompted = updates.until_answer(&id).await.pop().expect("an answer").1["result"]["echoed"]["id"].clone();
    assert_eq!(heard.last().expect("found").1["params"]["message"]["params"]["requestId"], prompted, "as the agent knows it");
}

#[tokio::test]
async fn sessions_are_listed_closed_and_deleted_whatever_the_agent_can() {
    let home = Home::new();
    let server = Server::start(&home);
    let mut client = Remote::connect(&server, "?agent=mock").await;
    let mut stream = client.stream(None, None).await;
    let session = client.new_session(&mut stream).await;
    let id = client.request(None, "session/list", json!({})).await;
    let list = stream.until_answer(&id).await.pop().expect("an answer").1;
    assert!(list["result"]["sessions"].is_array(), "{list}");
    let mut updates = client.stream(Some(&session), None).await;
    let id = client.request(Some(&session), "session/close", json!({"sessionId": session})).await;
    assert_eq!(updates.until_answer(&id).await.pop().expect("an answer").1["result"], json!({}));
    assert!(updates.until_end().await, "a closed session has no stream");
}

#[tokio::test]
async fn a_token_guards_it() {
    let home = Home::new();
    let options = Options { args: vec!["--token".into(), "s3cret".into()], ..Options::default() };
    let server = Server::start_with(&home, &options);
    let message = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {"protocolVersion": 1}});
    for path in ["/acp?agent=mock", "/acp/mock"] {
        problem(server.http.post(server.url(path)).json(&message), 401).await;
        let allowed = server.http.post(server.url(path)).bearer_auth("s3cret").json(&message);
        assert_eq!(within(allowed.send()).await.expect("an answer").status(), 200);
    }
    problem(server.http.get(server.url("/acp?access_token=s3cret")), 401).await;
}

#[tokio::test]
async fn pages_may_read_the_headers() {
    let home = Home::new();
    let options = Options {
        args: vec!["--no-token".into(), "--cors-allow-origin".into(), "https://app.example".into()],
        ..Options::default()
    };
    let server = Server::start_with(&home, &options);
    let message = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {"protocolVersion": 1}});
    let request = server.http.post(server.url("/acp/mock")).header("origin", "https://app.example").json(&message);
    let response = within(request.send()).await.expect("an answer");
    assert_eq!(response.status(), 200);
    let exposed = response.headers()["access-control-expose-headers"].to_str().expect("text").to_ascii_lowercase();
    assert!(exposed.contains("acp-connection-id") && exposed.contains("acp-session-id"), "{exposed}");
}

#[tokio::test]
async fn a_receiver_that_does_not_read_holds_nobody_up() {
    let home = Home::new();
    let server = Server::start(&home);
    let mut client = Remote::connect(&server, "?agent=mock").await;
    let mut stream = client.stream(None, None).await;
    let session = client.new_session(&mut stream).await;
    let mut slow = client.stream(Some(&session), None).await;
    let other = Remote::connect(&server, "?agent=mock").await;
    let mut quick = other.stream(Some(&session), None).await;
    let id = client.prompt(&session, "/stream 20000").await;
    let last = |message: &Value| message["params"]["update"]["content"]["text"] == "chunk 19999 ";
    assert_eq!(quick.until(last).await.len(), 20_000);
    let seen = slow.until_answer(&id).await;
    assert_eq!(seen.len(), 20_001, "every message, and the answer");
}

#[tokio::test]
async fn connections_are_bounded_and_idle_ones_go() {
    let home = Home::new();
    let options = Options::default().env("SANDBOXD_ACP_CONNECTIONS_MAX", "2").env("SANDBOXD_ACP_CONNECTION_IDLE_MS", "400");
    let server = Server::start_with(&home, &options.env("SANDBOXD_ACP_CONNECTION_SESSIONS_MAX", "1"));
    let mut kept = Remote::connect(&server, "?agent=mock").await;
    let mut stream = kept.stream(None, None).await;
    let idle = Remote::connect(&server, "?agent=mock").await;
    let message = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {"protocolVersion": 1}});
    let third = server.http.post(server.url("/acp?agent=mock")).json(&message);
    problem(third, 503).await;
    tokio::time::sleep(std::time::Duration::from_millis(600)).await;
    assert_eq!(idle.post(None, &json!({"jsonrpc": "2.0", "id": 1, "method": "session/list"})).await, 404);
    let session = kept.new_session(&mut stream).await;
    let second = json!({"jsonrpc": "2.0", "id": 9, "method": "session/new", "params": {"cwd": "/", "mcpServers": []}});
    assert_eq!(kept.post(None, &second).await, 503);
    assert_eq!(kept.get(Some("another"), None).await.status(), 503);
    assert_eq!(kept.get(Some(&session), None).await.status(), 200);
}

#[tokio::test]
async fn only_clients_with_the_capability_are_asked_for_files() {
    let home = Home::new();
    home.fake_agent("", "");
    let server = Server::start(&home);
    let can = json!({"fs": {"readTextFile": true}});
    let mut able = Remote::connect_with(&server, "?agent=amp", can.clone()).await;
    let mut stream = able.stream(None, None).await;
    let session = able.new_session(&mut stream).await;
    let place = server.get("/v1/acp").await.1["servers"][0]["serverId"].as_str().expect("an id").to_owned();
    assert!(place.starts_with("sessions-amp-"), "{place}");
    let watching = Remote::connect(&server, &format!("?server={place}")).await;
    let mut updates = able.stream(Some(&session), None).await;
    let mut other = watching.stream(Some(&session), None).await;
    let ask = |method: &str| json!({"sessionId": session, "id": 1, "method": method});
    able.request(Some(&session), "fake/ask_about", ask("fs/read_text_file")).await;
    let question = updates.until_method("fs/read_text_file").await;
    assert_eq!(able.answer(&session, &question["id"], json!({"content": "x"})).await, 202);
    let answered = stream.until_method("fake/client_answered").await;
    assert_eq!((&answered["params"]["id"], &answered["params"]["result"]["content"]), (&json!(1), &json!("x")));
    // What nobody can do is refused at once; and so is what a client leaves behind.
    able.request(Some(&session), "fake/ask_about", ask("terminal/create")).await;
    let refused = stream.until_method("fake/client_answered").await;
    assert_eq!(refused["params"], json!({"id": 1, "result": null}));
    able.request(Some(&session), "fake/ask_about", ask("fs/read_text_file")).await;
    updates.until_method("fs/read_text_file").await;
    let mut raw = server.events(&place, None).await;
    assert_eq!(able.delete().await, 202);
    let answers = |event: &crate::support::Event| event.data["method"] == "fake/client_answered";
    for _ in 0..3 {
        raw.until(answers).await;
    }
    let last = server.call(&place, "amp", "end", "fake/say", json!({"sessionId": session, "method": "fake/said"})).await;
    assert_eq!(last["id"], "end");
    let seen = other.until(|message| message["method"] == "fake/said").await;
    assert!(seen.iter().all(|(_, message)| !message["method"].as_str().unwrap_or_default().starts_with("fs/")), "{seen:?}");
}

#[tokio::test]
async fn files_that_nobody_can_give_are_refused_on_a_named_server_too() {
    let home = Home::new();
    home.fake_agent("", "");
    let server = Server::start(&home);
    let mut able = Remote::connect_with(&server, "?agent=amp&server=mine", json!({"fs": {"readTextFile": true}})).await;
    let mut stream = able.stream(None, None).await;
    let session = able.new_session(&mut stream).await;
    let watching = Remote::connect(&server, "?server=mine").await;
    let mut seen = watching.stream(None, None).await;
    assert_eq!(able.delete().await, 202);
    let ask = |id: u64| json!({"sessionId": session, "id": id, "method": "fs/read_text_file"});
    server.call("mine", "amp", "first", "fake/ask_about", ask(7)).await;
    assert_eq!(seen.until_method("fake/client_answered").await["params"], json!({"id": 7, "result": null}));
    // Who follows the events of a server at the other door may be the one that can.
    let mut raw = server.events("mine", None).await;
    server.call("mine", "amp", "second", "fake/ask_about", ask(8)).await;
    raw.until(|event| event.data["method"] == "fs/read_text_file").await;
    let answer = json!({"jsonrpc": "2.0", "id": 8, "result": {"content": "x"}});
    assert_eq!(server.post("mine", None, &answer).await.0, 202);
    assert_eq!(seen.until_method("fake/client_answered").await["params"]["result"], json!({"content": "x"}));
}

#[tokio::test]
async fn questions_of_an_agent_that_is_gone_are_withdrawn() {
    let home = Home::new();
    home.fake_agent("", "");
    let server = Server::start(&home);
    let mut client = Remote::connect(&server, "?agent=amp").await;
    let mut stream = client.stream(None, None).await;
    let session = client.new_session(&mut stream).await;
    let mut updates = client.stream(Some(&session), None).await;
    let ask = json!({"sessionId": session, "id": 0, "method": "session/request_permission"});
    client.request(Some(&session), "fake/ask_about", ask.clone()).await;
    let first = updates.until_method("session/request_permission").await["id"].clone();
    let id = client.request(Some(&session), "fake/die", json!({"code": 3})).await;
    let seen = updates.until_answer(&id).await;
    assert_eq!(seen.last().expect("an answer").1["error"]["data"]["exitCode"], 3);
    let withdrawn = |(_, message): &Message| message["method"] == "$/cancel_request" && message["params"]["requestId"] == first;
    assert!(seen.iter().any(withdrawn), "{seen:?}");
    stream.until_method("_adapter/agent_exited").await;
    // The next process counts from the beginning, too, and is asked about by another name.
    client.request(Some(&session), "fake/ask_about", ask).await;
    let second = updates.until_method("session/request_permission").await["id"].clone();
    assert_ne!(first, second);
    assert_eq!(client.answer(&session, &first, json!({"old": true})).await, 202);
    assert_eq!(client.answer(&session, &second, json!({"new": true})).await, 202);
    assert_eq!(stream.until_method("fake/client_answered").await["params"]["result"], json!({"new": true}));
}
