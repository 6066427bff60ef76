//! What was said in a session, read in every way.

use serde_json::{Value, json};

use crate::sessions_support::{
    create, ended, events, fake, follow, get, message, outcome, prompts, request, say, until_type, words,
};
use crate::support::{Home, Options, Server};

fn sequences(events: &[Value]) -> Vec<u64> {
    events.iter().map(|event| event["sequence"].as_u64().expect("a position")).collect()
}

#[tokio::test]
async fn a_reader_goes_on_where_it_was_over_restarts() {
    let home = Home::new();
    let server = Server::start(&home);
    let id = create(&server, json!({"agent": "mock"})).await;
    let mut live = follow(&server, &id, "", None).await;
    let turn = say(&server, &id, "/stream 50\nsome words\n/stderr x").await;
    ended(&server, &id, &turn).await;
    let seen = live.until(|event| event.data["type"] == "turn.ended").await;
    assert!(seen.iter().all(|event| event.name == "message" && event.id == event.data["sequence"].as_u64()), "{seen:?}");
    let middle = seen[seen.len() / 2].id;
    let mut again = follow(&server, &id, "", middle).await;
    let rest = again.until(|event| event.data["type"] == "turn.ended").await;
    assert_eq!(rest, seen[seen.len() / 2 + 1..]);
    let paged = events(&server, &id, "").await;
    assert_eq!(sequences(&paged), (1..=paged.len() as u64).collect::<Vec<_>>(), "no gap, none twice");
    let shown: Vec<_> = seen.iter().map(|event| event.data.clone()).collect();
    assert_eq!(paged[..shown.len()], shown);
    server.kill();

    let server = Server::start(&home);
    assert_eq!(events(&server, &id, "").await[..paged.len()], paged);
    let mut resumed = follow(&server, &id, "", middle).await;
    let turn = say(&server, &id, "after the restart").await;
    ended(&server, &id, &turn).await;
    let more = resumed.until(|event| event.data["type"] == "turn.ended" && event.data["turnId"] == turn.as_str()).await;
    let from = middle.expect("an id");
    let got: Vec<_> = more.iter().filter_map(|event| event.id).collect();
    assert_eq!(got, (from + 1..=from + got.len() as u64).collect::<Vec<_>>());
    let kinds: Vec<_> = more.iter().filter_map(|event| event.data["type"].as_str()).collect();
    assert!(kinds.contains(&"session.restored"), "{kinds:?}");
    for (query, status) in [("?view=other", 400), ("?limit=0", 400), ("?after=x", 400)] {
        assert_eq!(server.get(&format!("/v1/sessions/{id}/events{query}")).await.0, status, "{query}");
    }
    assert_eq!(server.stop(), Some(0));
    let end = resumed.all().await.pop().expect("an end");
    assert_eq!((end.name.as_str(), &end.data["reason"]), ("end", &json!("shutdown")));
}

#[tokio::test]
async fn a_snapshot_and_what_follows_is_everything() {
    let home = Home::new();
    let server = Server::start(&home);
    let id = create(&server, json!({"agent": "mock"})).await;
    for text in ["first", "second"] {
        let turn = say(&server, &id, text).await;
        ended(&server, &id, &turn).await;
    }
    let mut live = follow(&server, &id, "", None).await;
    let running = say(&server, &id, "said before\n/stall").await;
    live.until(|event| event.data["type"] == "item.delta" && event.data["turnId"] == running.as_str()).await;
    let queued = say(&server, &id, "waits").await;
    let (status, snapshot) = server.get(&format!("/v1/sessions/{id}/snapshot")).await;
    assert_eq!(status, 200, "{snapshot}");
    let at = snapshot["sequence"].as_u64().expect("a position");
    let ids: Vec<_> = snapshot["turns"].as_array().expect("turns").iter().map(|turn| turn["id"].clone()).collect();
    assert_eq!(ids, [json!(running), json!(queued)]);
    let items = snapshot["items"].as_array().expect("items");
    assert_eq!(items.len(), 6, "three messages and three answers: {snapshot}");
    assert_eq!((&items[1]["parts"][0]["text"], &items[1]["status"]), (&json!("first"), &json!("completed")));
    assert!(items[5]["parts"][0]["text"].as_str().is_some_and(|text| text.starts_with("said ")), "{snapshot}");
    assert_eq!((&items[5]["status"], &snapshot["session"]["state"]), (&json!("in_progress"), &json!("running")));
    let mut rest = follow(&server, &id, "", Some(at)).await;
    assert_eq!(server.send(&format!("/v1/sessions/{id}/interrupt"), &json!({})).await.0, 202);
    ended(&server, &id, &queued).await;
    let seen = rest.until(|event| event.data["type"] == "turn.ended" && event.data["turnId"] == queued.as_str()).await;
    assert_eq!(seen[0].id, Some(at + 1), "exactly the rest");
    let (_, few) = server.get(&format!("/v1/sessions/{id}/snapshot?itemsMax=2")).await;
    assert_eq!((few["items"].as_array().map(Vec::len), &few["itemsLeftOut"]), (Some(2), &json!(6)), "{few}");
    server.kill();
    let server = Server::start(&home);
    let (_, again) = server.get(&format!("/v1/sessions/{id}/snapshot")).await;
    assert_eq!(again["items"].as_array().map(Vec::len), Some(8), "{again}");
    assert!(again["items"].as_array().expect("items").iter().all(|item| item["status"] != "in_progress"), "{again}");
    assert_eq!(server.stop(), Some(0));
}

#[tokio::test]
async fn the_raw_view_shows_both_directions_of_one_session() {
    let home = Home::new();
    let server = Server::start(&home);
    let id = create(&server, json!({"agent": "mock"})).await;
    let other = create(&server, json!({"agent": "mock"})).await;
    let mut live = follow(&server, &id, "?view=raw", None).await;
    for (session, text) in [(&id, "mine"), (&other, "others"), (&id, "mine too")] {
        let turn = say(&server, session, text).await;
        ended(&server, session, &turn).await;
    }
    let is_last = |envelope: &Value| envelope["params"]["update"]["content"]["text"] == "too";
    let seen = live.until(|event| is_last(&event.data["envelope"])).await;
    let count = |direction: &str, method: &str| {
        let fits =
            |event: &&crate::support::Event| event.data["direction"] == direction && event.data["envelope"]["method"] == method;
        seen.iter().filter(fits).count()
    };
    assert_eq!(count("client", "session/prompt"), 2, "{seen:?}");
    assert_eq!(count("agent", "session/update"), 3, "{seen:?}");
    assert!(!seen.iter().any(|event| event.data.to_string().contains("others")), "{seen:?}");
    let shown: Vec<_> = seen.iter().map(|event| event.data.clone()).collect();
    let paged = events(&server, &id, "&view=raw").await;
    assert_eq!(paged[..shown.len()], shown);
    // Without its server there is nothing raw, until a message makes it anew.
    assert_eq!(server.delete("sessions-mock").await, 204);
    assert_eq!(events(&server, &id, "&view=raw").await, Vec::<Value>::new());
    let turn = say(&server, &id, "healed").await;
    ended(&server, &id, &turn).await;
    live.until(|event| event.data["envelope"]["params"]["update"]["content"]["text"] == "healed").await;
    assert_eq!(server.stop(), Some(0));
}

#[tokio::test]
async fn a_gap_is_said_and_a_reader_that_sleeps_costs_little() {
    let home = Home::new();
    fake(&home, "");
    let server = Server::start_with(&home, &Options::default().env("SANDBOXD_LOG_STREAM_MAX_EVENTS", "100"));
    let id = create(&server, json!({"agent": "amp"})).await;
    let asleep = follow(&server, &id, "", None).await;
    let memory = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("a process");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a size").to_owned();
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number")
    };
    let turn = say(&server, &id, "flood 100 300000").await;
    ended(&server, &id, &turn).await;
    let before = memory();
    for _ in 0..3 {
        let turn = say(&server, &id, "flood 100 300000").await;
        ended(&server, &id, &turn).await;
    }
    assert!(memory() < before + 60_000, "90 MB were said: {before} KiB, then {} KiB", memory());
    drop(asleep);
    let (_, page) = server.get(&format!("/v1/sessions/{id}/events?limit=10")).await;
    assert_eq!((&page["gaps"][0]["from"], &page["gaps"][0]["reason"]), (&json!(1), &json!("retention")), "{page}");
    let first = follow(&server, &id, "", None).await.next().await.expect("a gap");
    assert_eq!((first.name.as_str(), &first.data["from"]), ("gap", &json!(1)));
    assert_eq!(server.stop(), Some(0));
}

#[tokio::test]
async fn rubbish_and_decisions_of_rules_are_told() {
    let home = Home::new();
    let server = Server::start(&home);
    let id = create(&server, json!({"agent": "mock"})).await;
    let mut live = follow(&server, &id, "", None).await;
    let path = home.path().join("written");
    let turn =
        message(&server, &id, json!({"content": [{"type": "text", "text": format!("/rubbish\n/tool {}", path.display())}]}))
            .await;
    until_type(&mut live, "agent.unparsed").await;
    let asked = until_type(&mut live, "request.created").await;
    assert_eq!(asked["data"]["kind"], "permission", "{asked}");
    let acp = serde_json::from_str::<Value>(asked["data"]["agentRequestId"].as_str().expect("an id")).expect("JSON");
    let result = json!({"outcome": {"outcome": "selected", "optionId": "reject_once"}});
    server.post("sessions-mock", None, &json!({"jsonrpc": "2.0", "id": acp, "result": result})).await;
    let resolved = until_type(&mut live, "request.resolved").await;
    assert_eq!(resolved["data"]["outcome"], "denied", "{resolved}");
    ended(&server, &id, turn["turnId"].as_str().expect("a turn")).await;
    assert!(!path.exists());
    assert!(words(&events(&server, &id, "").await).contains(&"refused".to_owned()));
    assert_eq!(server.stop(), Some(0));
}

async fn export(server: &Server, session: &str) -> String {
    let response = server.http.get(server.url(&format!("/v1/sessions/{session}/export"))).send().await.expect("an answer");
    response.text().await.expect("a body")
}

async fn import(server: &Server, lines: String) -> (u16, Value) {
    let response = server.http.post(server.url("/v1/sessions/import")).body(lines).send().await.expect("an answer");
    (response.status().as_u16(), response.json::<Value>().await.expect("JSON"))
}

#[tokio::test]
async fn an_exported_session_lives_on_elsewhere() {
    let home = Home::new();
    let server = Server::start(&home);
    let id = create(&server, json!({"agent": "mock", "title": "Moves"})).await;
    for text in ["the word is heron", "and so on"] {
        let turn = say(&server, &id, text).await;
        ended(&server, &id, &turn).await;
    }
    let lines = export(&server, &id).await;
    let last: Value = serde_json::from_str(lines.lines().last().expect("lines")).expect("JSON");
    assert_eq!(last["type"], "end", "{last}");

    let (status, copy) = import(&server, lines.clone()).await;
    assert_eq!((status, &copy["title"]), (201, &json!("Moves")), "{copy}");
    let other = copy["id"].as_str().expect("an id");
    assert_ne!(other, id, "the id is taken here");
    let texts = |all: &[Value]| {
        let whole = all.iter().filter(|event| event["type"] == "item.completed");
        whole.map(|event| event["data"]["item"]["parts"][0]["text"].clone()).collect::<Vec<_>>()
    };
    let (first, second) = (events(&server, &id, "").await, events(&server, other, "").await);
    assert_eq!(texts(&first), texts(&second));
    let (_, turns) = server.get(&format!("/v1/sessions/{other}/turns")).await;
    let listed: Vec<_> = turns["turns"].as_array().into_iter().flatten().map(|turn| turn["id"].clone()).collect();
    let told: Vec<_> =
        second.iter().filter(|event| event["type"] == "turn.ended").map(|event| event["data"]["turnId"].clone()).collect();
    assert_eq!(listed, told, "turns are called the same everywhere");

    let cut = lines.lines().take(4).map(|line| format!("{line}\n")).collect::<String>();
    let (_, before) = server.get("/v1/sessions").await;
    for (body, what) in [
        (cut, "isn't whole"),
        (lines.replacen("\"type\":\"event\"", "\"type\":\"odd\"", 1), "odd"),
        (
            lines
                .lines()
                .map(|line| {
                    if line.contains("\"type\":\"event\"") {
                        "{\"type\":\"event\",\"sequence\":1,\"event\":5}\n".to_owned()
                    } else {
                        format!("{line}\n")
                    }
                })
                .collect(),
            "line",
        ),
        ("{}\n".to_owned(), "line 1"),
        (lines.replace(&id, "ses_other"), "a turn of another session"),
    ] {
        let (status, problem) = import(&server, body).await;
        assert_eq!(status, 400, "{problem}");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(what)), "{problem}");
    }
    let (_, after) = server.get("/v1/sessions").await;
    assert_eq!(before["sessions"].as_array().map(Vec::len), after["sessions"].as_array().map(Vec::len), "nothing half stays");
    let (_, kept) = server.get(&format!("/v1/sessions/{id}/turns")).await;
    assert!(kept["turns"].as_array().expect("turns").iter().all(|turn| turn["outcome"] == "finished"), "{kept}");
    assert_eq!(kept["turns"].as_array().map(Vec::len), Some(2), "{kept}");

    let elsewhere = Home::new();
    let there = Server::start(&elsewhere);
    let (status, moved) = import(&there, lines).await;
    assert_eq!((status, moved["id"].as_str()), (201, Some(id.as_str())), "{moved}");
    let turn = say(&there, &id, "what was the word?").await;
    assert_eq!(ended(&there, &id, &turn).await["outcome"], "finished");
    assert_eq!((server.stop(), there.stop()), (Some(0), Some(0)));
}

/// A copy beside its original is another session for the agent, too, which is told what was said.
#[tokio::test]
async fn a_copy_and_its_original_both_go_on() {
    let home = Home::new();
    fake(&home, "--strict");
    let server = Server::start(&home);
    let id = create(&server, json!({"agent": "amp"})).await;
    let turn = say(&server, &id, "the word is heron").await;
    ended(&server, &id, &turn).await;
    let (status, copy) = import(&server, export(&server, &id).await).await;
    assert_eq!(status, 201, "{copy}");
    let copy = copy["id"].as_str().expect("an id").to_owned();
    assert_ne!(get(&server, &copy).await["acpSessionId"], get(&server, &id).await["acpSessionId"]);
    for (session, text) in [(&copy, "to the copy"), (&id, "to the original"), (&copy, "again")] {
        let turn = say(&server, session, text).await;
        assert_eq!(outcome(&server, session, &turn).await, ("finished".into(), None), "{text}");
        assert_eq!(words(&events(&server, session, "").await).last().map(String::as_str), Some(text));
    }
    let asked = prompts(&home);
    assert!(asked[1].contains("heron") && asked[1].ends_with("|to the copy"), "{asked:?}");
    assert_eq!(asked[2..], ["to the original", "again"]);
    assert_eq!(get(&server, &copy).await["restored"]["history"], "transcript");
    assert_eq!(get(&server, &id).await.get("restored"), None);
    // Deleted and taken in again: the agent that knew it still runs.
    let lines = export(&server, &id).await;
    assert_eq!(request(&server, "DELETE", &format!("/v1/sessions/{id}"), None, None).await.0, 204);
    let (_, back) = import(&server, lines).await;
    let back = back["id"].as_str().expect("an id");
    let turn = say(&server, back, "back").await;
    assert_eq!(outcome(&server, back, &turn).await, ("finished".into(), None));
    assert_eq!(server.stop(), Some(0));
}

#[tokio::test]
async fn what_was_under_way_in_an_export_is_lost() {
    let home = Home::new();
    let server = Server::start(&home);
    let id = create(&server, json!({"agent": "mock"})).await;
    let mut live = follow(&server, &id, "", None).await;
    let running = say(&server, &id, "said before\n/stall").await;
    until_type(&mut live, "item.delta").await;
    let queued = say(&server, &id, "never sent").await;
    let lines = export(&server, &id).await;
    server.kill();
    let elsewhere = Home::new();
    let there = Server::start(&elsewhere);
    let (status, moved) = import(&there, lines).await;
    assert_eq!((status, &moved["state"], &moved["exit"]["reason"]), (201, &json!("exited"), &json!("imported")), "{moved}");
    let all = events(&there, &id, "").await;
    for (turn, outcome) in [(&running, "lost"), (&queued, "failed")] {
        let shown = ended(&there, &id, turn).await;
        assert_eq!((&shown["outcome"], &shown["reason"]), (&json!(outcome), &json!("exported")), "{shown}");
        assert!(shown["endedAtMs"].is_number(), "{shown}");
        let ends = |event: &&Value| event["type"] == "turn.ended" && event["turnId"] == turn.as_str();
        assert_eq!(all.iter().filter(ends).count(), 1, "{all:?}");
    }
    let (_, snapshot) = there.get(&format!("/v1/sessions/{id}/snapshot")).await;
    assert!(snapshot["items"].as_array().expect("items").iter().all(|item| item["status"] != "in_progress"), "{snapshot}");
    assert!(words(&all).iter().any(|text| text.starts_with("said")), "{all:?}");
    let turn = say(&there, &id, "goes on").await;
    assert_eq!(ended(&there, &id, &turn).await["outcome"], "finished");
    assert_eq!(there.stop(), Some(0));
}
