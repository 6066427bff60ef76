//! Messages become turns: in order, once, ended in their time.

use serde_json::{Value, json};

use crate::sessions_support::{
    create, ended, events, fake, follow, get, heard, message, outcome, prompts, request, say, until, until_state, until_type,
};
use crate::support::{Home, Options, Server};

async fn cancel(server: &Server, session: &str, turn: &str) -> (u16, Value) {
    request(server, "DELETE", &format!("/v1/sessions/{session}/turns/{turn}"), None, None).await
}

async fn interrupt(server: &Server, session: &str, body: Value) -> Value {
    let (status, body) = server.send(&format!("/v1/sessions/{session}/interrupt"), &body).await;
    assert_eq!(status, 202, "{body}");
    body
}

#[tokio::test]
async fn turns_wait_in_order_and_one_can_be_taken_out() {
    let home = Home::new();
    fake(&home, "");
    let server = Server::start_with(&home, &Options::default().env("SANDBOXD_TURN_QUEUE_MAX", "3"));
    let id = create(&server, json!({"agent": "amp"})).await;
    let mut live = follow(&server, &id, "", None).await;
    let first = message(&server, &id, json!({"text": "ask"})).await;
    assert_eq!((&first["delivery"], first.get("position")), (&json!("started"), None));
    let first = first["turnId"].as_str().expect("a turn").to_owned();
    until_state(&mut live, "waiting").await;
    let mut queued = Vec::new();
    for at in 0..3 {
        let submitted = message(&server, &id, json!({"text": format!("number {at}")})).await;
        assert_eq!((&submitted["delivery"], &submitted["position"]), (&json!("queued"), &json!(at + 1)), "{submitted}");
        queued.push(submitted["turnId"].as_str().expect("a turn").to_owned());
    }
    let path = format!("/v1/sessions/{id}/messages");
    assert_eq!(server.send(&path, &json!({"text": "too many"})).await.0, 503);
    assert_eq!(server.send(&path, &json!({"text": "no", "whileRunning": "reject"})).await.0, 409);
    assert_eq!(server.send(&path, &json!({})).await.0, 400);
    let (_, shown) = server.get(&format!("/v1/sessions/{id}/turns/{}", queued[1])).await;
    assert_eq!((&shown["state"], &shown["position"]), (&json!("queued"), &json!(2)), "{shown}");
    let now = get(&server, &id).await;
    assert_eq!((&now["queuedTurns"], &now["currentTurnId"], &now["pendingRequests"]), (&json!(3), &json!(first), &json!(1)));

    let (status, taken) = cancel(&server, &id, &queued[1]).await;
    assert_eq!((status, &taken["interrupted"]), (202, &json!(true)));
    assert_eq!(outcome(&server, &id, &queued[1]).await, ("cancelled".into(), Some("interrupted".into())));
    assert_eq!(cancel(&server, &id, &queued[1]).await.1["interrupted"], false);
    assert_eq!(cancel(&server, &id, "turn_none").await.0, 404);
    let asked = server.get(&format!("/v1/sessions/{id}/snapshot")).await.1["requests"][0]["agentRequestId"].clone();
    let result = json!({"outcome": {"outcome": "selected", "optionId": "allow_once"}});
    let answer = json!({"jsonrpc": "2.0", "id": serde_json::from_str::<Value>(asked.as_str().unwrap_or("null")).unwrap_or(asked), "result": result});
    assert_eq!(server.post("sessions-amp", None, &answer).await.0, 202);
    assert_eq!(outcome(&server, &id, &first).await, ("finished".into(), None));
    for turn in [&queued[0], &queued[2]] {
        assert_eq!(outcome(&server, &id, turn).await.0, "finished");
    }
    assert_eq!(prompts(&home), ["ask", "number 0", "number 2"]);
    let seen = events(&server, &id, "").await;
    // The turn under way was not touched by the end of the one that waited.
    let said = seen.iter().filter(|event| event["type"] == "item.completed" && event["data"]["item"]["role"] == "assistant");
    let of_first: Vec<_> = said.filter(|event| event["turnId"] == first.as_str()).collect();
    assert!(of_first.iter().all(|event| event["data"]["item"]["status"] == "completed"), "{of_first:?}");
    assert!(of_first.iter().any(|event| event.to_string().contains("allow_once")), "{of_first:?}");
    let resolved = seen.iter().find(|event| event["type"] == "request.resolved").expect("resolved");
    assert_eq!((&resolved["data"]["outcome"], &resolved["data"]["by"]), (&json!("allowed"), &json!("client")), "{resolved}");
    let ends: Vec<_> = seen.iter().filter(|event| event["type"] == "turn.ended").map(|event| &event["data"]["turnId"]).collect();
    assert_eq!(ends, [&queued[1], &first, &queued[0], &queued[2]], "each ends once");
    assert_eq!(server.stop(), Some(0));
}

#[tokio::test]
async fn a_message_may_interrupt_or_join_what_runs() {
    let home = Home::new();
    fake(&home, "--steer");
    let server = Server::start(&home);
    let id = create(&server, json!({"agent": "amp"})).await;
    let mut live = follow(&server, &id, "", None).await;
    let running = say(&server, &id, "stall").await;
    until_type(&mut live, "turn.started").await;
    let waits = say(&server, &id, "waits").await;
    let steer = json!({"text": "by the way", "whileRunning": "steer"});
    let path = format!("/v1/sessions/{id}/messages");
    for repeated in [Value::Null, json!(true)] {
        let (status, joined) = request(&server, "POST", &path, Some(&steer), Some("steer-1")).await;
        assert_eq!((status, &joined["delivery"], &joined["turnId"]), (202, &json!("steered"), &json!(running)), "{joined}");
        assert_eq!(joined["repeated"], repeated);
    }
    let urgent = message(&server, &id, json!({"text": "urgent", "whileRunning": "interrupt"})).await;
    let urgent = urgent["turnId"].as_str().expect("a turn").to_owned();
    assert_eq!(outcome(&server, &id, &running).await, ("cancelled".into(), Some("interrupted".into())));
    for turn in [&urgent, &waits] {
        assert_eq!(outcome(&server, &id, turn).await.0, "finished");
    }
    assert_eq!(prompts(&home), ["stall", "urgent", "waits"]);
    assert_eq!(heard(&home, "_session/steering").len(), 1, "the same key steers once");
    let late = request(&server, "POST", &path, Some(&steer), Some("steer-1")).await.1;
    assert_eq!(late["repeated"], true, "also when the turn is over: {late}");
    let queued = request(&server, "POST", &path, Some(&steer), Some("steer-2")).await.1;
    assert_eq!(queued["delivery"], "started", "nothing runs: {queued}");
    ended(&server, &id, queued["turnId"].as_str().expect("a turn")).await;

    let mut live = follow(&server, &id, "", None).await;
    let turns = [say(&server, &id, "stall").await, say(&server, &id, "dropped").await];
    let is_ours =
        |event: &crate::support::Event| event.data["type"] == "turn.started" && event.data["turnId"] == turns[0].as_str();
    live.until(is_ours).await;
    assert_eq!(interrupt(&server, &id, json!({"dropQueue": true})).await["interrupted"], true);
    for turn in &turns {
        assert_eq!(outcome(&server, &id, turn).await, ("cancelled".into(), Some("interrupted".into())));
    }
    assert_eq!(interrupt(&server, &id, json!({})).await["interrupted"], false);
    // An agent may end a turn in its own way though it was asked to stop.
    let mut live = follow(&server, &id, "", None).await;
    let turn = say(&server, &id, "late").await;
    live.until(|event| event.data["type"] == "turn.started" && event.data["turnId"] == turn.as_str()).await;
    interrupt(&server, &id, json!({})).await;
    assert_eq!(outcome(&server, &id, &turn).await, ("finished".into(), None));
    assert_eq!(server.stop(), Some(0));
}

#[tokio::test]
async fn an_interrupt_cancels_what_the_turn_waits_for() {
    let home = Home::new();
    fake(&home, "");
    let server = Server::start(&home);
    let id = create(&server, json!({"agent": "amp"})).await;
    let mut live = follow(&server, &id, "", None).await;
    let turn = say(&server, &id, "ask").await;
    let asked = until_type(&mut live, "request.created").await;
    interrupt(&server, &id, json!({})).await;
    assert_eq!(outcome(&server, &id, &turn).await, ("cancelled".into(), Some("interrupted".into())));
    let resolved = until_type(&mut live, "request.resolved").await;
    assert_eq!(
        (&resolved["data"]["requestId"], &resolved["data"]["outcome"]),
        (&asked["data"]["requestId"], &json!("cancelled"))
    );
    assert_eq!(get(&server, &id).await["state"], "idle");
    assert_eq!(server.stop(), Some(0));
}

#[tokio::test]
async fn an_agent_that_ignores_cancel_loses_the_turn() {
    let home = Home::new();
    fake(&home, "");
    let server = Server::start_with(&home, &Options::default().env("SANDBOXD_TURN_CANCEL_GRACE_MS", "200"));
    let id = create(&server, json!({"agent": "amp"})).await;
    for _ in 0..2 {
        let mut live = follow(&server, &id, "", None).await;
        let deaf = say(&server, &id, "deaf").await;
        let next = say(&server, &id, "next").await;
        live.until(|event| event.data["type"] == "turn.started" && event.data["turnId"] == deaf.as_str()).await;
        interrupt(&server, &id, json!({})).await;
        assert_eq!(outcome(&server, &id, &deaf).await, ("cancelled".into(), Some("interrupted".into())));
        assert_eq!(outcome(&server, &id, &next).await, ("finished".into(), None), "the queue goes on");
    }
    // The same for a turn that came through the raw door.
    let acp = get(&server, &id).await["acpSessionId"].clone();
    let params = json!({"sessionId": acp, "prompt": [{"type": "text", "text": "deaf"}]});
    let mut live = follow(&server, &id, "", None).await;
    let (answer, ()) = tokio::join!(server.call("sessions-amp", "amp", 1, "session/prompt", params), async {
        live.until(|event| event.data["type"] == "turn.started" && event.data["data"]["origin"] == "acp").await;
        interrupt(&server, &id, json!({})).await;
    });
    assert!(answer["error"].is_object(), "{answer}");
    let turn = say(&server, &id, "after").await;
    assert_eq!(outcome(&server, &id, &turn).await, ("finished".into(), None));
    assert_eq!(server.stop(), Some(0));
    home.assert_empty();
}

#[tokio::test]
async fn deadlines_end_turns_and_decisions_are_not_counted() {
    let home = Home::new();
    fake(&home, "");
    let options = Options::default().env("SANDBOXD_SESSION_SILENT_MS", "100").env("SANDBOXD_TURN_CANCEL_GRACE_MS", "300");
    let server = Server::start_with(&home, &options);
    let id = create(&server, json!({"agent": "amp", "turnLimits": {"inactivityTimeoutMs": 700}})).await;
    let mut live = follow(&server, &id, "", None).await;
    for (text, limits, reason) in [
        ("stall", json!({}), "inactivity_timeout"),
        ("deaf", json!({}), "inactivity_timeout"),
        ("stall", json!({"timeoutMs": 300, "inactivityTimeoutMs": 0}), "timeout"),
    ] {
        let turn = message(&server, &id, json!({"text": text, "limits": limits})).await["turnId"].clone();
        let turn = turn.as_str().expect("a turn");
        until_state(&mut live, "silent").await;
        assert_eq!(outcome(&server, &id, turn).await, ("cancelled".into(), Some(reason.into())), "{text} {limits}");
    }
    let turn = say(&server, &id, "ask").await;
    until_state(&mut live, "waiting").await;
    let (_, shown) = server.get(&format!("/v1/sessions/{id}/turns/{turn}?waitMs=1500")).await;
    assert_eq!(shown["state"], "running", "somebody's thinking isn't the agent's silence: {shown}");
    interrupt(&server, &id, json!({})).await;
    ended(&server, &id, &turn).await;
    assert_eq!(server.stop(), Some(0));
}

#[tokio::test]
async fn an_agent_that_dies_loses_its_turn_and_comes_back() {
    let home = Home::new();
    fake(&home, "");
    let server = Server::start(&home);
    let id = create(&server, json!({"agent": "amp"})).await;
    let mut live = follow(&server, &id, "", None).await;
    let turn = say(&server, &id, "die 7").await;
    assert_eq!(outcome(&server, &id, &turn).await, ("lost".into(), Some("agent_exited".into())));
    let state = until_state(&mut live, "exited").await;
    let exit = &state["data"]["exit"];
    assert_eq!((&exit["reason"], &exit["exitCode"]), (&json!("agent_exited"), &json!(7)), "{state}");
    assert!(exit["stderr"].as_str().is_some_and(|stderr| stderr.contains("dying in mid-turn")), "{state}");
    assert_eq!(get(&server, &id).await["exit"], *exit);
    let turn = say(&server, &id, "and again").await;
    assert_eq!(outcome(&server, &id, &turn).await.0, "finished");
    let now = get(&server, &id).await;
    assert_eq!((&now["restored"]["method"], &now["restored"]["history"]), (&json!("session/load"), &json!("kept")), "{now}");
    assert_eq!((&now["state"], now.get("exit")), (&json!("idle"), None));
    until_type(&mut live, "session.restored").await;
    assert_eq!(server.stop(), Some(0));
}

#[tokio::test]
async fn one_key_prompts_once() {
    let home = Home::new();
    fake(&home, "");
    let server = Server::start(&home);
    let id = create(&server, json!({"agent": "amp"})).await;
    let path = format!("/v1/sessions/{id}/messages");
    let body = json!({"text": "once"});
    let send = || request(&server, "POST", &path, Some(&body), Some("key"));
    let all = futures_util::future::join_all((0..6).map(|_| send())).await;
    let turn = all[0].1["turnId"].as_str().expect("a turn").to_owned();
    assert!(all.iter().all(|(status, body)| *status == 202 && body["turnId"] == turn.as_str()), "{all:?}");
    assert_eq!(all.iter().filter(|(_, body)| body["repeated"] == true).count(), 5);
    assert_eq!(outcome(&server, &id, &turn).await.0, "finished");
    assert_eq!(request(&server, "POST", &path, Some(&json!({"text": "other"})), Some("key")).await.0, 409);
    server.kill();
    let server = Server::start(&home);
    let (status, again) = request(&server, "POST", &path, Some(&body), Some("key")).await;
    assert_eq!((status, &again["turnId"], &again["repeated"]), (202, &json!(turn), &json!(true)));
    assert_eq!(request(&server, "POST", &path, Some(&json!({"text": "other"})), Some("key")).await.0, 409);
    let last = say(&server, &id, "last").await;
    ended(&server, &id, &last).await;
    assert_eq!(prompts(&home), ["once", "last"]);
    assert_eq!(server.stop(), Some(0));
}

/// A turn that is taken back while its agent is being started never reaches it.
#[tokio::test]
async fn a_turn_on_its_way_can_be_taken_back() {
    let home = Home::new();
    fake(&home, "--initialize-ms 1500");
    let server = Server::start(&home);
    let id = create(&server, json!({"agent": "amp"})).await;
    for text in ["by id", "by interrupt", "by another"] {
        let die = say(&server, &id, "die 1").await;
        assert_eq!(outcome(&server, &id, &die).await.0, "lost");
        let turn = say(&server, &id, text).await;
        until("the agent is being started", async || server.get("/v1/acp").await.1.to_string().contains("running").then_some(()))
            .await;
        match text {
            "by id" => assert_eq!(cancel(&server, &id, &turn).await.1["interrupted"], true),
            "by interrupt" => assert_eq!(interrupt(&server, &id, json!({})).await["interrupted"], true),
            _ => {
                let other = message(&server, &id, json!({"text": "other", "whileRunning": "interrupt"})).await;
                ended(&server, &id, other["turnId"].as_str().expect("a turn")).await;
            }
        }
        assert_eq!(outcome(&server, &id, &turn).await, ("cancelled".into(), Some("interrupted".into())), "{text}");
        let after = say(&server, &id, "after").await;
        assert_eq!(outcome(&server, &id, &after).await.0, "finished");
    }
    let asked = prompts(&home);
    assert!(!asked.iter().any(|text| text.starts_with("by ")), "{asked:?}");
    let (_, list) = server.get(&format!("/v1/sessions/{id}/turns")).await;
    assert!(
        list["turns"].as_array().expect("turns").iter().all(|turn| turn["origin"] == "sessions"),
        "no turn is doubled: {list}"
    );
    assert_eq!(server.stop(), Some(0));
}

/// A turn on its way is taken back, and while that is being written down another message wants to interrupt.
#[tokio::test]
async fn a_message_may_interrupt_what_was_just_taken_back() {
    let home = Home::new();
    fake(&home, "--initialize-ms 1500");
    let server = Server::start(&home);
    let id = create(&server, json!({"agent": "amp"})).await;
    let die = say(&server, &id, "die 1").await;
    assert_eq!(outcome(&server, &id, &die).await.0, "lost");
    let turn = say(&server, &id, "taken back").await;
    until("the agent is being started", async || server.get("/v1/acp").await.1.to_string().contains("running").then_some(()))
        .await;
    let database = rusqlite::Connection::open(home.data().join("sandboxd.db")).expect("a database");
    database.execute_batch("BEGIN IMMEDIATE").expect("nothing can be written now");
    let (path, body) = (format!("/v1/sessions/{id}/messages"), json!({"text": "urgent", "whileRunning": "interrupt"}));
    let send = || request(&server, "POST", &path, Some(&body), Some("key"));
    let (_, (status, urgent), ()) = tokio::join!(
        cancel(&server, &id, &turn),
        async {
            until("it is taken out", async || (get(&server, &id).await["queuedTurns"] == 0).then_some(())).await;
            send().await
        },
        async {
            tokio::time::sleep(std::time::Duration::from_millis(500)).await; // both are under way
            database.execute_batch("ROLLBACK").expect("it can again");
        },
    );
    assert_eq!(status, 202, "{urgent}");
    let urgent = urgent["turnId"].as_str().expect("a turn");
    assert_eq!(outcome(&server, &id, urgent).await.0, "finished");
    let again = send().await.1;
    assert_eq!((&again["turnId"], &again["repeated"]), (&json!(urgent), &json!(true)), "{again}");
    assert_eq!(outcome(&server, &id, &turn).await, ("cancelled".into(), Some("interrupted".into())));
    assert_eq!(prompts(&home), ["die 1", "urgent"]);
    assert_eq!(server.stop(), Some(0));
}

/// A turn's time runs from when it is taken up, not anew from when the agent gets it.
#[tokio::test]
async fn starting_the_agent_counts_for_a_turn() {
    const INITIALIZE_MS: i64 = 2_000;
    const TIMEOUT_MS: i64 = 3_000;
    let home = Home::new();
    fake(&home, &format!("--initialize-ms {INITIALIZE_MS}"));
    let server = Server::start(&home);
    let id = create(&server, json!({"agent": "amp"})).await;
    let die = say(&server, &id, "die 1").await;
    assert_eq!(outcome(&server, &id, &die).await.0, "lost");
    let turn = message(&server, &id, json!({"text": "stall", "limits": {"timeoutMs": TIMEOUT_MS}})).await["turnId"].clone();
    let turn = ended(&server, &id, turn.as_str().expect("a turn")).await;
    assert_eq!((&turn["outcome"], &turn["reason"]), (&json!("cancelled"), &json!("timeout")), "{turn}");
    let at = |key: &str| turn[key].as_i64().unwrap_or_else(|| panic!("no {key}: {turn}"));
    assert!(at("endedAtMs") - at("startedAtMs") < TIMEOUT_MS, "the agent had only the rest of it: {turn}");
    assert_eq!(server.stop(), Some(0));
}
