//! One session through two doors: `/v1/sessions` and `/v1/acp`.

use serde_json::{Value, json};

use crate::sessions_support::{create, ended, events, fake, follow, get, outcome, prompts, say, until, until_type, words};
use crate::support::{Home, Server};

fn prompt(session: &Value, text: &str) -> Value {
    json!({"sessionId": session, "prompt": [{"type": "text", "text": text}]})
}

async fn opened(server: &Server, door: &str) -> (Value, String) {
    server.call(door, "amp", 0, "initialize", json!({"protocolVersion": 1})).await;
    let answer = server.call(door, "amp", 1, "session/new", json!({"cwd": "/", "mcpServers": []})).await;
    let acp = answer["result"]["sessionId"].clone();
    let (_, list) = server.get(&format!("/v1/sessions?serverId={door}")).await;
    let found = list["sessions"].as_array().expect("sessions").iter().find(|session| session["acpSessionId"] == acp);
    (acp.clone(), found.expect("it is listed")["id"].as_str().expect("an id").to_owned())
}

#[tokio::test]
async fn a_session_of_an_acp_client_has_turns_and_a_queue() {
    let home = Home::new();
    fake(&home, "");
    let server = Server::start(&home);
    let (acp, id) = opened(&server, "editor").await;
    let now = get(&server, &id).await;
    assert_eq!((&now["origin"], &now["serverId"], &now["cwd"]), (&json!("acp"), &json!("editor"), &json!("/")), "{now}");
    server.call("editor", "amp", 2, "session/prompt", prompt(&acp, "from the editor")).await;
    let (_, list) = server.get(&format!("/v1/sessions/{id}/turns")).await;
    let turn = &list["turns"][0];
    assert_eq!((&turn["origin"], &turn["outcome"], &turn["number"]), (&json!("acp"), &json!("finished"), &json!(1)), "{list}");

    let mut raw = server.events("editor", None).await;
    let ours = say(&server, &id, "from the other door").await;
    assert_eq!(outcome(&server, &id, &ours).await.0, "finished");
    raw.until(|event| event.data["params"]["update"]["content"]["text"] == "from the other door").await;

    // A turn of the editor is under way: ours waits for it.
    let mut live = follow(&server, &id, "", None).await;
    let foreign = server.call("editor", "amp", 3, "session/prompt", prompt(&acp, "stall"));
    let (answer, queued) = tokio::join!(foreign, async {
        let is_it = |data: &Value| data["type"] == "turn.started" && data["data"]["prompt"][0]["text"] == "stall";
        live.until(|event| is_it(&event.data)).await;
        let queued = say(&server, &id, "behind").await;
        assert_eq!(get(&server, &id).await["queuedTurns"], 1);
        let cancel = json!({"jsonrpc": "2.0", "method": "session/cancel", "params": {"sessionId": acp}});
        assert_eq!(server.post("editor", None, &cancel).await.0, 202);
        queued
    });
    assert_eq!(answer["result"]["stopReason"], "cancelled");
    assert_eq!(outcome(&server, &id, &queued).await.0, "finished");
    assert_eq!(prompts(&home), ["from the editor", "from the other door", "stall", "behind"]);
    assert_eq!(server.stop(), Some(0));
}

#[tokio::test]
async fn what_is_loaded_again_is_not_told_again() {
    let home = Home::new();
    fake(&home, "");
    let server = Server::start(&home);
    let (acp, id) = opened(&server, "editor").await;
    server.call("editor", "amp", 2, "session/prompt", prompt(&acp, "once")).await;
    let mut raw = server.events("editor", None).await;
    server.call("editor", "amp", 3, "session/load", json!({"sessionId": acp, "cwd": "/", "mcpServers": []})).await;
    raw.until(|event| event.data["params"]["update"]["content"]["text"] == "replayed").await;
    let turn = say(&server, &id, "twice").await;
    ended(&server, &id, &turn).await;
    assert_eq!(words(&events(&server, &id, "").await), ["once", "twice"], "the client gets the replay, the session doesn't");
    assert_eq!(server.stop(), Some(0));
}

#[tokio::test]
async fn an_acp_client_may_close_and_delete() {
    let home = Home::new();
    fake(&home, "--close --delete");
    let server = Server::start(&home);
    let (acp, id) = opened(&server, "editor").await;
    let mut live = follow(&server, &id, "", None).await;
    let foreign = server.call("editor", "amp", 2, "session/prompt", prompt(&acp, "stall"));
    let (_, ()) = tokio::join!(foreign, async {
        until_type(&mut live, "turn.started").await;
        let queued = say(&server, &id, "never").await;
        server.call("editor", "amp", 3, "session/close", json!({"sessionId": acp})).await;
        assert_eq!(outcome(&server, &id, &queued).await, ("cancelled".into(), Some("closed".into())));
        let cancel = json!({"jsonrpc": "2.0", "method": "session/cancel", "params": {"sessionId": acp}});
        server.post("editor", None, &cancel).await;
    });
    until("the turn has ended", async || {
        let (_, list) = server.get(&format!("/v1/sessions/{id}/turns")).await;
        (list["turns"][0]["outcome"] == "cancelled").then_some(())
    })
    .await;
    assert!(get(&server, &id).await["closedAtMs"].is_number());
    server.call("editor", "amp", 4, "session/delete", json!({"sessionId": acp})).await;
    assert_eq!(live.all().await.pop().map(|event| event.data), Some(json!({"reason": "deleted"})));
    assert_eq!(server.get(&format!("/v1/sessions/{id}")).await.0, 404);
    assert_eq!(server.stop(), Some(0));
}

#[tokio::test]
async fn many_doors_at_once_lose_and_double_nothing() {
    let home = Home::new();
    fake(&home, "");
    let server = Server::start(&home);
    let id = create(&server, json!({"agent": "amp"})).await;
    let acp = get(&server, &id).await["acpSessionId"].clone();
    let ours = futures_util::future::join_all((0..15).map(|at| {
        let (server, id) = (&server, &id);
        async move {
            let turn = say(server, id, &format!("ours {at}")).await;
            ended(server, id, &turn).await["outcome"].clone()
        }
    }));
    let theirs = futures_util::future::join_all((0..15).map(|at| {
        let (server, acp) = (&server, &acp);
        async move { server.call("sessions-amp", "amp", at, "session/prompt", prompt(acp, &format!("theirs {at}"))).await }
    }));
    let (ours, theirs) = tokio::join!(ours, theirs);
    assert!(ours.iter().all(|outcome| outcome == "finished"), "{ours:?}");
    assert!(theirs.iter().all(|answer| answer["result"]["stopReason"] == "end_turn"), "{theirs:?}");
    let mut asked = prompts(&home);
    asked.sort();
    asked.dedup();
    assert_eq!(asked.len(), 30);
    let (_, list) = server.get(&format!("/v1/sessions/{id}/turns")).await;
    let turns = list["turns"].as_array().expect("turns");
    assert_eq!(turns.len(), 30, "{list}");
    assert!(turns.iter().all(|turn| turn["outcome"] == "finished"), "{list}");
    let seen = events(&server, &id, "").await;
    for kind in ["turn.started", "turn.ended"] {
        assert_eq!(seen.iter().filter(|event| event["type"] == kind).count(), 30, "{kind}");
    }
    assert_eq!(server.stop(), Some(0));
}
