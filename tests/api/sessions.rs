//! Making, finding, changing and ending sessions.

use serde_json::{Value, json};

use crate::sessions_support::{create, ended, events, fake, follow, get, heard, outcome, request, say, until, until_type};
use crate::support::{Home, Options, Server};

#[tokio::test]
async fn a_session_is_what_its_creator_wants_and_can_be_changed() {
    let home = Home::new();
    std::fs::create_dir(home.path().join("project")).expect("a folder");
    let server = Server::start(&home);
    let spec = json!({"agent": "mock", "cwd": "project", "title": "First", "mode": "plan", "model": "mock-fast",
        "configOptions": {"thought_level": "high"}, "metadata": {"ticket": 7}, "turnLimits": {"timeoutMs": 60000},
        "additionalDirectories": [home.path()], "mcpPolicy": "skip"});
    let (status, made) = server.send("/v1/sessions", &spec).await;
    assert_eq!(status, 201, "{made}");
    let id = made["id"].as_str().expect("an id");
    let cwd = home.path().join("project");
    for (key, value) in [
        ("agent", json!("mock")),
        ("cwd", json!(cwd)),
        ("title", json!("First")),
        ("mode", json!("plan")),
        ("model", json!("mock-fast")),
        ("metadata", json!({"ticket": 7})),
        ("origin", json!("sessions")),
        ("state", json!("idle")),
        ("serverId", json!("sessions-mock")),
        ("turnLimits", json!({"timeoutMs": 60000})),
    ] {
        assert_eq!(made[key], value, "{key} of {made}");
    }
    let level = made["configOptions"].as_array().and_then(|all| all.iter().find(|option| option["id"] == "thought_level"));
    assert_eq!(level.map(|option| &option["currentValue"]), Some(&json!("high")), "{made}");
    assert_eq!(get(&server, id).await, made);
    let turn = say(&server, id, "hello there").await;
    assert_eq!(ended(&server, id, &turn).await["stopReason"], "end_turn");

    let patch = json!({"title": "Second", "metadata": {"a": 1}, "mode": "normal", "model": "mock"});
    let path = format!("/v1/sessions/{id}");
    let (status, changed) = request(&server, "PATCH", &path, Some(&patch), None).await;
    assert_eq!(status, 200, "{changed}");
    for (key, value) in patch.as_object().expect("an object") {
        assert_eq!(changed[key], *value, "{changed}");
    }
    let (status, refused) = request(&server, "PATCH", &path, Some(&json!({"mode": "wild"})), None).await;
    assert_eq!(status, 422, "{refused}");
    assert!(refused["detail"].as_str().is_some_and(|detail| detail.contains("normal, plan")), "{refused}");
    server.kill();
    let server = Server::start(&home);
    let again = get(&server, id).await;
    assert_eq!((&again["title"], &again["mode"], &again["state"]), (&json!("Second"), &json!("normal"), &json!("exited")));
    assert_eq!(server.stop(), Some(0));
}

#[tokio::test]
async fn what_cannot_be_made_is_explained_and_leaves_nothing() {
    let home = Home::new();
    fake(&home, "--close");
    let server = Server::start_with(&home, &Options::default().env("SANDBOXD_SESSION_CALL_TIMEOUT_MS", "500"));
    let cases = [
        (json!({"agent": "nobody"}), 400, "nobody"),
        (json!({"agent": "mock", "cwd": "no/such/folder"}), 400, "no/such/folder"),
        (json!({"agent": "mock", "metadata": [1]}), 400, "metadata"),
        (json!({"agent": "mock", "mode": "wild"}), 422, "normal, plan"),
        (json!({"agent": "mock", "model": "large"}), 422, "mock, mock-fast"),
        (json!({"agent": "mock", "configOptions": {"colour": "red"}}), 422, "thought_level"),
        (json!({"agent": "mock", "configOptions": {"thought_level": "none"}}), 422, "low, medium, high"),
        (json!({"agent": "amp", "mode": "plan"}), 422, "no choice of modes"),
        (json!({"agent": "amp", "model": "m"}), 422, "no choice of models"),
        (json!({"agent": "mock", "colour": "red"}), 422, "colour"),
    ];
    for (spec, status, word) in cases {
        let (got, problem) = server.send("/v1/sessions", &spec).await;
        assert_eq!(got, status, "{spec}: {problem}");
        assert!(problem.to_string().contains(word), "{spec}: {problem}");
    }
    let (_, list) = server.get("/v1/sessions").await;
    assert_eq!(list["sessions"], json!([]), "nothing half made is left");
    assert_eq!(heard(&home, "session/close").len(), 2, "the agent was told to let go of both");
    for path in ["", "/events", "/snapshot", "/turns", "/turns/turn_1"] {
        assert_eq!(server.get(&format!("/v1/sessions/ses_none{path}")).await.0, 404, "{path}");
    }
    for path in ["close", "reopen", "interrupt", "attachments"] {
        assert_eq!(request(&server, "POST", &format!("/v1/sessions/ses_none/{path}"), None, None).await.0, 404, "{path}");
    }
    home.fake_agent("", "--silent");
    assert_eq!(server.delete("sessions-amp").await, 204);
    let (status, problem) = server.send("/v1/sessions", &json!({"agent": "amp"})).await;
    assert_eq!(status, 502, "{problem}");
    assert!(problem.to_string().contains("session_call_timeout_ms"), "an agent that never answers isn't waited for: {problem}");
    assert_eq!(server.stop(), Some(0));
}

#[tokio::test]
async fn one_key_makes_one_session() {
    let home = Home::new();
    let server = Server::start(&home);
    let spec = json!({"agent": "mock", "title": "once"});
    let make = || request(&server, "POST", "/v1/sessions", Some(&spec), Some("key-1"));
    let all = futures_util::future::join_all((0..5).map(|_| make())).await;
    let id = all[0].1["id"].clone();
    assert!(all.iter().all(|(_, session)| session["id"] == id), "{all:?}");
    let mut codes: Vec<_> = all.iter().map(|(status, _)| *status).collect();
    codes.sort_unstable();
    assert_eq!(codes, [200, 200, 200, 200, 201]);
    let other = json!({"agent": "mock", "title": "twice"});
    assert_eq!(request(&server, "POST", "/v1/sessions", Some(&other), Some("key-1")).await.0, 409);
    server.kill();
    let server = Server::start(&home);
    let (status, again) = request(&server, "POST", "/v1/sessions", Some(&spec), Some("key-1")).await;
    assert_eq!((status, &again["id"]), (200, &id));
    let (_, list) = server.get("/v1/sessions").await;
    assert_eq!(list["sessions"].as_array().map(Vec::len), Some(1), "{list}");
    assert_eq!(server.get("/v1/status").await.1["storage"]["status"], "healthy");
    assert_eq!(server.stop(), Some(0));
}

#[tokio::test]
async fn many_sessions_are_listed_in_pages_and_filtered() {
    let home = Home::new();
    fake(&home, "");
    let server = Server::start(&home);
    let mut made = Vec::new();
    for number in 0..25 {
        let agent = if number % 5 == 0 { "amp" } else { "mock" };
        made.push(create(&server, json!({"agent": agent, "title": number.to_string()})).await);
    }
    let close = format!("/v1/sessions/{}/close", made[1]);
    assert_eq!(request(&server, "POST", &close, None, None).await.0, 200);
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let (status, page) = server.get(&format!("/v1/sessions?limit=10{cursor}")).await;
        assert_eq!(status, 200, "{page}");
        seen.extend(page["sessions"].as_array().expect("sessions").iter().map(|session| session["id"].clone()));
        match page["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen.len(), 25, "each once");
    assert_eq!(seen[0], made[1].as_str(), "the one changed last is first");
    seen.sort_by_key(|id| id.as_str().map(str::to_owned));
    made.sort();
    assert_eq!(seen, made.iter().map(|id| json!(id)).collect::<Vec<_>>());
    let count = async |query: &str| server.get(&format!("/v1/sessions?{query}")).await.1["sessions"].as_array().map(Vec::len);
    assert_eq!(count("agent=amp").await, Some(5));
    assert_eq!(count("closed=true").await, Some(1));
    assert_eq!(count("closed=false&serverId=sessions-mock").await, Some(19));
    assert_eq!(count(&format!("cwd={}", home.path().display())).await, Some(25));
    for query in ["limit=0", "limit=9999", "cursor=abc", "closed=maybe"] {
        assert_eq!(server.get(&format!("/v1/sessions?{query}")).await.0, 400, "{query}");
    }
    assert_eq!(server.stop(), Some(0));
}

#[tokio::test]
async fn a_closed_session_ends_its_turns_and_can_be_opened_again() {
    let home = Home::new();
    fake(&home, "--close");
    let server = Server::start(&home);
    let id = create(&server, json!({"agent": "amp"})).await;
    let mut live = follow(&server, &id, "", None).await;
    let running = say(&server, &id, "stall").await;
    until_type(&mut live, "turn.started").await;
    let queued = say(&server, &id, "never").await;
    let (status, closed) = request(&server, "POST", &format!("/v1/sessions/{id}/close"), None, None).await;
    assert_eq!((status, &closed["state"], &closed["exit"]["reason"]), (200, &json!("exited"), &json!("closed")), "{closed}");
    assert!(closed["closedAtMs"].is_number(), "{closed}");
    for turn in [&running, &queued] {
        assert_eq!(outcome(&server, &id, turn).await, ("cancelled".into(), Some("closed".into())));
    }
    until_type(&mut live, "session.ended").await;
    assert_eq!(heard(&home, "session/close").len(), 1);
    let path = format!("/v1/sessions/{id}/messages");
    assert_eq!(server.send(&path, &json!({"text": "x"})).await.0, 409);
    assert_eq!(request(&server, "POST", &format!("/v1/sessions/{id}/reopen"), None, None).await.0, 200);
    let turn = say(&server, &id, "again").await;
    assert_eq!(outcome(&server, &id, &turn).await.0, "finished");
    assert_eq!(get(&server, &id).await["closedAtMs"], Value::Null);
    assert_eq!(server.stop(), Some(0));
}

#[tokio::test]
async fn a_deleted_session_is_gone_everywhere() {
    let home = Home::new();
    fake(&home, "--delete");
    let server = Server::start(&home);
    let id = create(&server, json!({"agent": "amp"})).await;
    let acp = get(&server, &id).await["acpSessionId"].clone();
    let mut live = follow(&server, &id, "", None).await;
    say(&server, &id, "stall").await;
    until_type(&mut live, "turn.started").await;
    assert_eq!(request(&server, "DELETE", &format!("/v1/sessions/{id}"), None, None).await.0, 204);
    let rest = live.all().await;
    let last = rest.last().expect("an end");
    assert_eq!((last.name.as_str(), &last.data["reason"]), ("end", &json!("deleted")), "{rest:?}");
    assert!(rest.iter().any(|event| event.data["type"] == "session.ended"), "{rest:?}");
    assert_eq!(heard(&home, "session/delete").len(), 1, "the agent was told");
    assert_eq!(server.get(&format!("/v1/sessions/{id}")).await.0, 404);
    assert_eq!(request(&server, "DELETE", &format!("/v1/sessions/{id}"), None, None).await.0, 404);
    // What an ACP client still does with it is not ours any more.
    let prompt = json!({"sessionId": acp, "prompt": [{"type": "text", "text": "still here"}]});
    server.call("sessions-amp", "amp", 1, "session/prompt", prompt).await;
    server.kill();
    let server = Server::start(&home);
    assert_eq!(server.get("/v1/sessions").await.1["sessions"], json!([]), "it doesn't come back");
    let other = create(&server, json!({"agent": "amp"})).await;
    let turn = say(&server, &other, "fine").await;
    assert_eq!(outcome(&server, &other, &turn).await.0, "finished");
    assert!(!events(&server, &other, "").await.is_empty());
    assert_eq!(server.stop(), Some(0));
}

/// What an agent asks between turns waits no longer than its session.
#[tokio::test]
async fn requests_end_with_their_session() {
    let home = Home::new();
    fake(&home, "--close --delete");
    let server = Server::start(&home);
    for door in ["close", "delete", "session/close", "session/delete"] {
        let id = create(&server, json!({"agent": "amp"})).await;
        let acp = get(&server, &id).await["acpSessionId"].clone();
        let mut live = follow(&server, &id, "", None).await;
        let turn = say(&server, &id, "asks later").await;
        ended(&server, &id, &turn).await;
        let asked = until_type(&mut live, "request.created").await["data"]["requestId"].clone();
        match door {
            "close" => assert_eq!(request(&server, "POST", &format!("/v1/sessions/{id}/close"), None, None).await.0, 200),
            "delete" => assert_eq!(request(&server, "DELETE", &format!("/v1/sessions/{id}"), None, None).await.0, 204),
            method => {
                server.call("sessions-amp", "amp", 1, method, json!({"sessionId": acp})).await;
            }
        }
        let waits = async || {
            let (_, page) = server.get("/v1/requests?state=pending").await;
            (page["requests"] == json!([])).then_some(())
        };
        until(&format!("nothing waits after {door}"), waits).await;
        if door.contains("close") {
            let (_, shown) = server.get(&format!("/v1/requests/{}", asked.as_str().expect("an id"))).await;
            assert_eq!((&shown["resolution"]["outcome"], &shown["resolution"]["by"]), (&json!("cancelled"), &json!("cancel")));
            assert_eq!(get(&server, &id).await["pendingRequests"], 0, "{door}");
        }
    }
    assert_eq!(server.stop(), Some(0));
}

/// Nobody waits for it any more: the agent needn't keep it.
#[tokio::test]
async fn a_session_that_comes_too_late_is_closed_at_its_agent() {
    let home = Home::new();
    fake(&home, "--close --new-ms 1500");
    let server = Server::start_with(&home, &Options::default().env("SANDBOXD_SESSION_CALL_TIMEOUT_MS", "1000"));
    let (status, problem) = server.send("/v1/sessions", &json!({"agent": "amp"})).await;
    assert!(status >= 400, "{problem}");
    let closed = until("it is closed", async || heard(&home, "session/close").pop()).await;
    assert!(closed["params"]["sessionId"].as_str().is_some_and(|session| session.starts_with("fake-")), "{closed}");
    assert_eq!(server.get("/v1/sessions").await.1["sessions"], json!([]));
    assert_eq!(server.stop(), Some(0));
}
