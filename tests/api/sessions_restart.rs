//! Sessions outlive their server and their agents.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::sessions_support::{
    create, ended, events, fake, follow, get, heard, outcome, prompts, request, say, until, until_state, until_type, words,
};
use crate::support::{Home, Options, Server};

/// Some moments at which the server is killed, without a clock: after so many events.
const MOMENTS: [usize; 4] = [3, 7, 12, 18];

#[tokio::test]
async fn a_kill_loses_one_turn_and_nothing_that_was_seen() {
    let home = Home::new();
    fake(&home, "");
    let mut server = Server::start(&home);
    let id = create(&server, json!({"agent": "amp"})).await;
    let mut seen: BTreeMap<u64, Value> = BTreeMap::new();
    let mut queued = Vec::new();
    for (round, moment) in MOMENTS.into_iter().enumerate() {
        let mut live = follow(&server, &id, "", seen.keys().last().copied()).await;
        for at in 0..6 {
            queued.push((say(&server, &id, &format!("round {round} turn {at}")).await, format!("round {round} turn {at}")));
        }
        for _ in 0..moment {
            let event = live.next().await.expect("an event");
            assert_eq!(event.name, "message", "{event:?}");
            assert_eq!(seen.insert(event.id.expect("a position"), event.data), None, "none twice");
        }
        server.kill();
        server = Server::start(&home);
        let last = &queued.last().expect("turns").0;
        ended(&server, &id, last).await;
    }
    assert_eq!(server.get("/v1/sessions").await.1["sessions"][0]["id"], id.as_str());
    let all = events(&server, &id, "").await;
    let now: BTreeMap<u64, Value> =
        all.iter().map(|event| (event["sequence"].as_u64().expect("a position"), event.clone())).collect();
    assert_eq!(now.keys().copied().collect::<Vec<_>>(), (1..=all.len() as u64).collect::<Vec<_>>());
    for (at, event) in &seen {
        assert_eq!(now.get(at), Some(event), "what a watcher saw is there");
    }
    let asked = prompts(&home);
    for (turn, text) in &queued {
        let (outcome, reason) = outcome(&server, &id, turn).await;
        let ends = all.iter().filter(|event| event["type"] == "turn.ended" && event["data"]["turnId"] == turn.as_str());
        assert_eq!(ends.count(), 1, "{turn} ends once");
        let times = asked.iter().filter(|asked| *asked == text).count();
        match outcome.as_str() {
            "finished" => assert_eq!(times, 1, "{text}"),
            "lost" => {
                assert_eq!(reason.as_deref(), Some("server_restarted"));
                assert!(times <= 1, "{text}");
            }
            _ => panic!("{text} {outcome}"),
        }
    }
    let turn = say(&server, &id, "goes on").await;
    assert_eq!(self::outcome(&server, &id, &turn).await.0, "finished");
    assert_eq!(server.stop(), Some(0));
    home.assert_empty();
}

#[tokio::test]
async fn a_stop_keeps_the_queue_for_the_next_run() {
    let home = Home::new();
    fake(&home, "");
    let server = Server::start(&home);
    let id = create(&server, json!({"agent": "amp"})).await;
    let mut live = follow(&server, &id, "", None).await;
    let running = say(&server, &id, "stall").await;
    until_type(&mut live, "turn.started").await;
    let queued = [say(&server, &id, "one").await, say(&server, &id, "two").await];
    assert_eq!(server.stop(), Some(0));
    let server = Server::start(&home);
    assert_eq!(outcome(&server, &id, &running).await, ("lost".into(), Some("server_stopped".into())));
    for turn in &queued {
        assert_eq!(outcome(&server, &id, turn).await, ("finished".into(), None));
    }
    assert_eq!(prompts(&home), ["stall", "one", "two"]);
    let all = events(&server, &id, "").await;
    let ends = all.iter().filter(|event| event["type"] == "turn.ended").count();
    assert_eq!(ends, 3, "{all:?}");
    assert_eq!(server.stop(), Some(0));
}

#[tokio::test]
async fn an_agent_learns_again_what_was_said() {
    for (args, method, history) in [
        ("--resume", "session/resume", "kept"),
        ("", "session/load", "kept"),
        ("--resume --forgets", "session/new", "transcript"),
        ("--no-load", "session/new", "transcript"),
    ] {
        let home = Home::new();
        fake(&home, args);
        let options = Options::default().env("SANDBOXD_TRANSCRIPT_MAX_BYTES", "600");
        let server = Server::start_with(&home, &options);
        let id = create(&server, json!({"agent": "amp"})).await;
        for text in ["the secret word is heron", &"long ".repeat(60), "last words"] {
            let turn = say(&server, &id, text).await;
            ended(&server, &id, &turn).await;
        }
        server.kill();
        let server = Server::start_with(&home, &options);
        let mut live = follow(&server, &id, "", None).await;
        let turn = say(&server, &id, "do you remember?").await;
        let restored = until_type(&mut live, "session.restored").await;
        assert_eq!((&restored["data"]["method"], &restored["data"]["history"]), (&json!(method), &json!(history)), "{args}");
        assert_eq!(outcome(&server, &id, &turn).await.0, "finished");
        let now = get(&server, &id).await;
        assert_eq!((&now["restored"]["method"], &now["restored"]["history"]), (&json!(method), &json!(history)), "{args}: {now}");
        let asked = prompts(&home);
        let last = asked.last().expect("a prompt");
        if history == "transcript" {
            assert!(
                last.contains("<transcript>") && last.contains("last words") && last.ends_with("|do you remember?"),
                "{last}"
            );
            assert!(!last.contains("heron"), "the oldest is left out: {last}");
            assert_eq!(now["restored"]["truncated"], true, "{now}");
            let said =
                last.split("<transcript>").nth(1).and_then(|rest| rest.split("</transcript>").next()).expect("a transcript");
            assert!(said.trim().len() <= 600, "{} bytes", said.trim().len());
        } else {
            assert_eq!(last, "do you remember?");
        }
        // What we added is no part of the session; and it is said once.
        assert!(!events(&server, &id, "").await.iter().any(|event| event.to_string().contains("<transcript>")));
        let turn = say(&server, &id, "and now?").await;
        ended(&server, &id, &turn).await;
        assert_eq!(prompts(&home).last().map(String::as_str), Some("and now?"));
        assert!(!words(&events(&server, &id, "").await).contains(&"replayed".to_owned()), "{args}");
        assert_eq!(server.stop(), Some(0));
    }
}

/// A kill leaves no item open: who loads the session, and the agent's fresh one, know what was said until then.
#[tokio::test]
async fn what_a_lost_turn_had_said_is_kept() {
    let home = Home::new();
    fake(&home, "--resume --forgets");
    let server = Server::start(&home);
    let id = create(&server, json!({"agent": "amp"})).await;
    let mut live = follow(&server, &id, "", None).await;
    let lost = say(&server, &id, "ask").await;
    until_type(&mut live, "request.created").await;
    server.kill();
    let server = Server::start(&home);
    let all = events(&server, &id, "").await;
    let at = |kind: &str| {
        let fits = |event: &Value| event["type"] == kind && event["turnId"] == lost.as_str();
        all.iter().rposition(fits).unwrap_or_else(|| panic!("no {kind}: {all:?}"))
    };
    let item = &all[at("item.completed")]["data"]["item"];
    assert_eq!((&item["parts"][0]["text"], &item["status"]), (&json!("may I?"), &json!("failed")), "{item}");
    assert!(at("item.completed") < at("turn.ended"), "{all:?}");
    assert_eq!(words(&all), ["may I?"], "once");
    let turn = say(&server, &id, "go on").await;
    ended(&server, &id, &turn).await;
    let last = prompts(&home).pop().expect("a prompt");
    assert!(last.contains("Assistant: may I?"), "{last}");
    assert_eq!(server.stop(), Some(0));
}

#[tokio::test]
async fn a_transcript_is_owed_until_the_agent_has_answered_it() {
    let home = Home::new();
    let kept = home.path().join("kept");
    fake(&home, &format!("--resume --keeps '{}'", kept.display()));
    let server = Server::start(&home);
    let id = create(&server, json!({"agent": "amp"})).await;
    let session = get(&server, &id).await["acpSessionId"].clone();
    let turn = say(&server, &id, "the secret word is heron").await;
    ended(&server, &id, &turn).await;
    server.kill();
    std::fs::remove_file(&kept).expect("removed"); // the agent loses what it knew
    let server = Server::start(&home);
    let said = json!({"sessionId": session, "method": "fake/said"});
    server.call("sessions-amp", "amp", "touch", "fake/say", said).await;
    let restored = |now: &Value| (now["restored"]["method"].clone(), now["restored"]["history"].clone());
    assert_eq!(restored(&get(&server, &id).await), (json!("session/new"), json!("transcript")));
    // Its fresh session is there, and knows nothing yet: whatever ends the agent, the words are still owed.
    server.kill();
    let server = Server::start(&home);
    let turn = say(&server, &id, "die 1").await;
    assert_eq!(outcome(&server, &id, &turn).await.0, "lost");
    let told = |text: &str| prompts(&home).iter().any(|prompt| prompt.contains("heron") && prompt.ends_with(text));
    assert!(told("|die 1"), "{:?}", prompts(&home));
    let turn = say(&server, &id, "do you remember?").await;
    assert_eq!(outcome(&server, &id, &turn).await.0, "finished");
    assert!(told("|do you remember?"), "{:?}", prompts(&home));
    assert_eq!(restored(&get(&server, &id).await), (json!("session/resume"), json!("transcript")));
    server.kill();
    let server = Server::start(&home);
    let turn = say(&server, &id, "and now?").await;
    ended(&server, &id, &turn).await;
    assert_eq!(prompts(&home).last().map(String::as_str), Some("and now?"), "it was told once");
    assert_eq!(restored(&get(&server, &id).await), (json!("session/resume"), json!("kept")));
    assert_eq!(server.stop(), Some(0));
}

#[tokio::test]
async fn a_session_that_its_server_forgot_is_restored_at_every_door() {
    let home = Home::new();
    fake(&home, "");
    let options = Options::default().env("SANDBOXD_ACP_SESSIONS_MAX", "1");
    let server = Server::start_with(&home, &options);
    let mut forgotten = Value::Null;
    for _ in 0..2 {
        let id = create(&server, json!({"agent": "amp"})).await;
        let turn = say(&server, &id, "hello").await;
        ended(&server, &id, &turn).await;
        let session = get(&server, &id).await["acpSessionId"].clone();
        forgotten = if forgotten.is_null() { json!([id, session]) } else { forgotten };
    }
    server.kill();
    let server = Server::start_with(&home, &options);
    let prompt = json!({"sessionId": forgotten[1], "prompt": [{"type": "text", "text": "again"}]});
    let answer = server.call("sessions-amp", "amp", 1, "session/prompt", prompt).await;
    assert_eq!(answer["result"]["stopReason"], "end_turn", "{answer}");
    let loaded: Vec<_> = heard(&home, "session/load").iter().map(|load| load["params"]["sessionId"].clone()).collect();
    assert_eq!(json!(loaded), json!([forgotten[1]]));
    let now = get(&server, forgotten[0].as_str().expect("an id")).await;
    assert_eq!(now["restored"]["history"], "kept", "{now}");
    assert_eq!(server.stop(), Some(0));
}

#[tokio::test]
async fn a_deleted_server_is_made_again_by_the_next_message() {
    let home = Home::new();
    fake(&home, "");
    let server = Server::start(&home);
    let id = create(&server, json!({"agent": "amp"})).await;
    let mut live = follow(&server, &id, "", None).await;
    let running = say(&server, &id, "stall").await;
    until_type(&mut live, "turn.started").await;
    let queued = say(&server, &id, "behind").await;
    assert_eq!(server.delete("sessions-amp").await, 204);
    assert_eq!(outcome(&server, &id, &running).await, ("lost".into(), Some("server_deleted".into())));
    assert_eq!(outcome(&server, &id, &queued).await, ("finished".into(), None), "the queue heals it");
    assert_eq!(heard(&home, "session/load").len(), 1);
    assert_eq!(server.delete("sessions-amp").await, 204);
    until_state(&mut live, "exited").await;
    let (status, patched) =
        request(&server, "PATCH", &format!("/v1/sessions/{id}"), Some(&json!({"title": "still"})), None).await;
    assert_eq!((status, &patched["title"]), (200, &json!("still")));
    let turn = say(&server, &id, "more").await;
    assert_eq!(outcome(&server, &id, &turn).await, ("finished".into(), None));
    assert_eq!(server.stop(), Some(0));
}

#[tokio::test]
async fn idle_agents_are_stopped_and_come_back() {
    let home = Home::new();
    fake(&home, "");
    let server = Server::start_with(&home, &Options::default().env("SANDBOXD_SESSION_AGENT_IDLE_MS", "300"));
    let id = create(&server, json!({"agent": "amp"})).await;
    let mut live = follow(&server, &id, "", None).await;
    let path = format!("/v1/sessions/{id}/messages");
    for round in 0..3 {
        let state = until_state(&mut live, "exited").await;
        assert_eq!(state["data"]["exit"]["reason"], "idle", "{state}");
        let agents = home.processes().into_iter().filter(|(_, line)| line.contains("fake-agent")).count();
        assert_eq!(agents, 0, "its process is gone");
        let (status, body) = server.send(&path, &json!({"text": format!("wake {round}")})).await;
        assert_eq!(status, 202, "{body}");
        assert_eq!(outcome(&server, &id, body["turnId"].as_str().expect("a turn")).await, ("finished".into(), None));
    }
    // Messages that come just when the agent is being stopped are not lost either.
    for round in 0..10 {
        let turn = say(&server, &id, &format!("again {round}")).await;
        assert_eq!(outcome(&server, &id, &turn).await, ("finished".into(), None));
        let stops = round % 3;
        if stops == 0 {
            until_state(&mut live, "exited").await;
        }
    }
    let working = say(&server, &id, "stall").await;
    until("it stays while it works", async || {
        let looked = tokio::time::timeout(std::time::Duration::from_millis(900), until_state(&mut live, "exited")).await;
        assert!(looked.is_err(), "it was stopped in mid-turn");
        Some(())
    })
    .await;
    server.send(&format!("/v1/sessions/{id}/interrupt"), &json!({})).await;
    ended(&server, &id, &working).await;
    assert_eq!(server.stop(), Some(0));
}
