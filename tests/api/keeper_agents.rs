//! Agents and their turns outlive the server.

use std::time::Duration;

use serde_json::{Value, json};

use crate::sessions_support::{create, ended, events, fake, get, prompts, say};
use crate::support::{Home, Options, Server};

/// A shell script of a turn: it says the numbers one after another.
fn counting(to: usize, pause_s: &str) -> String {
    let update = r#"{\"sessionUpdate\":\"agent_message_chunk\",\"content\":{\"type\":\"text\",\"text\":\"%s \"}}\n"#;
    format!("sh for i in $(seq 1 {to}); do printf \"{update}\" $i; sleep {pause_s}; done")
}

fn numbers(to: usize) -> String {
    (1..=to).map(|number| format!("{number} ")).collect()
}

/// What the agent said in a turn, as its deltas have it.
fn said(events: &[Value], turn: &str) -> String {
    let deltas = events.iter().filter(|event| event["type"] == "item.delta" && event["turnId"] == turn);
    deltas.filter_map(|event| event["data"]["delta"]["text"].as_str()).collect()
}

async fn agent_pids(server: &Server) -> Vec<Value> {
    let (status, list) = server.get("/v1/processes?owner=agent").await;
    assert_eq!(status, 200, "{list}");
    list["processes"].as_array().expect("a list").iter().map(|process| process["pid"].clone()).collect()
}

/// The raw events of the one ACP server.
async fn raw(server: &Server, id: &str) -> Vec<Value> {
    let (_, session) = server.get(&format!("/v1/sessions/{id}")).await;
    let acp = session["acp"]["serverId"].as_str().or(session["serverId"].as_str()).expect("a server").to_owned();
    let mut stream = server.events(&acp, None).await;
    let mut seen = Vec::new();
    while let Ok(Some(event)) = tokio::time::timeout(Duration::from_millis(500), stream.next()).await {
        seen.push(event.data);
    }
    seen
}

#[tokio::test]
async fn a_turn_in_flight_ends_normally_whatever_becomes_of_the_server() {
    let home = Home::new();
    fake(&home, "");
    let server = Server::start_with(&home, &Options::kept());
    let id = create(&server, json!({"agent": "amp"})).await;
    let first = say(&server, &id, "hello").await;
    ended(&server, &id, &first).await;
    let pids = agent_pids(&server).await;
    let turn = say(&server, &id, &counting(150, "0.01")).await;
    let queued = say(&server, &id, "after it").await;
    for kill in 0..6 {
        tokio::time::sleep(Duration::from_millis(120 + kill * 17)).await;
        server.crash();
    }
    let end = ended(&server, &id, &turn).await;
    assert_eq!((&end["outcome"], &end["stopReason"]), (&json!("finished"), &json!("end_turn")), "{end}");
    assert_eq!(ended(&server, &id, &queued).await["outcome"], "finished");
    assert_eq!(agent_pids(&server).await, pids, "the same process");
    let all = events(&server, &id, "").await;
    assert_eq!(said(&all, &turn), numbers(150));
    let ends = all.iter().filter(|event| event["type"] == "turn.ended" && event["data"]["turnId"] == turn.as_str());
    assert_eq!(ends.count(), 1);
    assert_eq!(prompts(&home).len(), 3, "each prompt was sent once");
    let chunks = raw(&server, &id).await;
    let chunks = chunks.iter().filter_map(|event| event["params"]["update"]["content"]["text"].as_str());
    let counted: String = chunks.filter(|text| text.trim().parse::<u32>().is_ok()).collect();
    assert_eq!(counted, numbers(150), "no envelope is lost or doubled");
    assert_eq!(get(&server, &id).await["state"], "idle");
    assert_eq!(server.stop(), Some(0));
    home.assert_empty();
}

#[tokio::test]
async fn a_request_that_waits_for_a_decision_waits_on() {
    let home = Home::new();
    fake(&home, "");
    let server = Server::start_with(&home, &Options::kept());
    let id = create(&server, json!({"agent": "amp"})).await;
    let turn = say(&server, &id, "ask").await;
    let pending = async || {
        loop {
            let (_, list) = server.get("/v1/requests?state=pending").await;
            if let Some(request) = list["requests"].as_array().and_then(|all| all.first()) {
                return request.clone();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let asked = pending().await;
    for _ in 0..3 {
        server.crash();
        let again = pending().await;
        assert_eq!((&again["requestId"], &again["deadlineAtMs"]), (&asked["requestId"], &asked["deadlineAtMs"]), "{again}");
    }
    let request = asked["requestId"].as_str().expect("an id");
    let (status, resolved) = server.send(&format!("/v1/requests/{request}/resolve"), &json!({"decision": "allow"})).await;
    assert_eq!(status, 200, "{resolved}");
    server.crash();
    let end = ended(&server, &id, &turn).await;
    assert_eq!(end["outcome"], "finished", "{end}");
    let all = events(&server, &id, "").await;
    let count = |kind: &str| all.iter().filter(|event| event["type"] == kind).count();
    assert_eq!((count("request.created"), count("request.resolved"), count("turn.ended")), (1, 1, 1));
}

#[tokio::test]
async fn a_second_answer_to_an_agent_does_not_reach_it_after_a_restart_either() {
    let home = Home::new();
    home.fake_agent("", "");
    let server = Server::start_with(&home, &Options::kept());
    server.call("s1", "amp", 1, "initialize", json!({"protocolVersion": 1})).await;
    server.call("s1", "amp", 2, "fake/ask_about", json!({"id": "asks", "method": "fake/question"})).await;
    let answer = json!({"jsonrpc": "2.0", "id": "asks", "result": {"yes": true}});
    for _ in 0..3 {
        let (status, body) = server.send("/v1/acp/s1", &answer).await; // as a client does that was cut off
        assert_eq!(status, 202, "{body}");
        server.call("s1", "amp", 3, "fake/anything", json!({})).await;
        server.crash();
    }
    server.call("s1", "amp", 4, "fake/anything", json!({})).await;
    let mut stream = server.events("s1", None).await;
    let mut heard = 0;
    while let Ok(Some(event)) = tokio::time::timeout(Duration::from_millis(500), stream.next()).await {
        heard += usize::from(event.data["method"] == "fake/client_answered");
    }
    assert_eq!(heard, 1);
}

#[tokio::test]
async fn an_answer_comes_under_its_clients_id_after_the_restart() {
    let home = Home::new();
    fake(&home, "");
    let server = Server::start_with(&home, &Options::kept());
    server.call("s1", "amp", 1, "initialize", json!({"protocolVersion": 1})).await;
    let session = server.call("s1", "amp", 2, "session/new", json!({"cwd": "/tmp", "mcpServers": []})).await;
    let session = session["result"]["sessionId"].clone();
    let prompt = json!({"sessionId": session, "prompt": [{"type": "text", "text": counting(400, "0.015")}]});
    let envelope = json!({"jsonrpc": "2.0", "id": "my own id", "method": "session/prompt", "params": prompt});
    let request = server.http.post(server.url("/v1/acp/s1?agent=amp")).json(&envelope);
    let posted = tokio::spawn(request.send());
    let mut stream = server.events("s1", None).await;
    let mut seen = Vec::new();
    for kills in 0..4 {
        for _ in 0..6 + kills {
            seen.push(stream.next().await.expect("an event"));
        }
        server.crash();
        while let Some(event) = stream.next().await {
            seen.push(event); // what was on its way
        }
        stream = server.events("s1", seen.last().expect("events").id).await;
    }
    let _ = posted.await; // its connection is gone
    seen.extend(stream.until_answer("my own id").await);
    let ids: Vec<u64> = seen.iter().filter_map(|event| event.id).collect();
    assert!(ids.windows(2).all(|pair| pair[1] == pair[0] + 1), "without a gap: {ids:?}");
    let texts = seen.iter().filter_map(|event| event.data["params"]["update"]["content"]["text"].as_str());
    assert_eq!(texts.collect::<String>(), numbers(400));
    assert_eq!(seen.last().expect("an answer").data["result"]["stopReason"], "end_turn");
    // What the agent knows is known of it: nothing is restored.
    let again = json!({"sessionId": session, "prompt": [{"type": "text", "text": "again"}]});
    assert_eq!(server.call("s1", "amp", 9, "session/prompt", again).await["result"]["stopReason"], "end_turn");
    let restored =
        seen.iter().filter(|event| event.data["method"].as_str().is_some_and(|method| method.starts_with("_adapter/")));
    assert_eq!(restored.count(), 0);
}

#[tokio::test]
async fn an_agent_that_dies_while_no_server_runs_is_told_of_once() {
    let home = Home::new();
    fake(&home, "");
    let server = Server::start_with(&home, &Options::kept());
    let id = create(&server, json!({"agent": "amp"})).await;
    let turn = say(&server, &id, "stall").await;
    crate::processes_support::until("the prompt", || prompts(&home).len() == 1).await;
    let pid = agent_pids(&server).await[0].as_u64().expect("a pid");
    let below = server.server_pid().expect("a server");
    crate::support::kill(below, "STOP");
    crate::support::kill(u32::try_from(pid).expect("a pid"), "KILL");
    server.crash();
    let end = ended(&server, &id, &turn).await;
    assert_eq!((&end["outcome"], &end["reason"]), (&json!("lost"), &json!("agent_exited")), "{end}");
    let next = say(&server, &id, "next").await;
    assert_eq!(ended(&server, &id, &next).await["outcome"], "finished");
    let exits = raw(&server, &id).await.iter().filter(|event| event["method"] == "_adapter/agent_exited").count();
    assert_eq!(exits, 1);
}

/// As when the sandbox itself stops: nothing survives but the files.
#[tokio::test]
async fn when_nothing_survives_what_can_comes_back_and_the_rest_is_told_as_lost() {
    let home = Home::new();
    fake(&home, "");
    let server = Server::start_with(&home, &Options::kept());
    let id = create(&server, json!({"agent": "amp"})).await;
    let first = say(&server, &id, "hello").await;
    ended(&server, &id, &first).await;
    let turn = say(&server, &id, "stall").await;
    crate::processes_support::until("the prompt", || prompts(&home).len() == 2).await;
    let process = async |restart: &str| {
        let spec = json!({"command": "sleep", "args": ["4242"], "restart": restart});
        crate::processes_support::create(&server, spec).await
    };
    let (never, always) = (process("never").await, process("always").await);
    let was = crate::processes_support::info(&server, &always).await["pid"].clone();
    let below = server.server_pid().expect("a server");
    crate::support::kill(server.pid(), "KILL");
    crate::support::kill(below, "KILL");
    for (pid, _) in home.processes() {
        crate::support::kill(pid, "KILL");
    }
    drop(server);
    let server = Server::start_with(&home, &Options::kept());
    let lost = crate::processes_support::info(&server, &never).await;
    assert_eq!((&lost["status"], &lost["exitReason"]), (&json!("exited"), &json!("server_lost")), "{lost}");
    let back = crate::processes_support::info(&server, &always).await;
    assert_eq!((&back["status"], &back["restarts"]), (&json!("running"), &json!(1)), "{back}");
    assert_ne!(back["pid"], was);
    let end = ended(&server, &id, &turn).await;
    assert_eq!((&end["outcome"], &end["reason"]), (&json!("lost"), &json!("server_restarted")), "{end}");
    let next = say(&server, &id, "goes on").await;
    assert_eq!(ended(&server, &id, &next).await["outcome"], "finished");
    assert_eq!(server.stop(), Some(0));
    home.assert_empty();
}

#[tokio::test]
async fn lines_that_say_nothing_are_no_hindrance() {
    let home = Home::new();
    fake(&home, "| sed -u G"); // an empty line after each
    let server = Server::start_with(&home, &Options::kept());
    let id = create(&server, json!({"agent": "amp"})).await;
    let first = say(&server, &id, "hello").await;
    ended(&server, &id, &first).await;
    let pids = agent_pids(&server).await;
    for _ in 0..3 {
        server.crash();
        assert_eq!(agent_pids(&server).await, pids);
    }
    let next = say(&server, &id, "again").await;
    assert_eq!(ended(&server, &id, &next).await["outcome"], "finished");
    assert_eq!(raw(&server, &id).await.iter().filter(|event| event["method"] == "_adapter/agent_restarted").count(), 0);
}
