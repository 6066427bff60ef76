//! Spans of what ran, as lists, trees, waterfalls and figures.

use std::time::Instant;

use serde_json::{Value, json};

use crate::processes_support::{create, ended, sh};
use crate::support::{Home, PATIENCE, Server};

/// Asks again until the answer fits: spans of processes are gathered for a moment.
async fn until(server: &Server, path: &str, fits: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (status, body) = server.get(path).await;
        assert_eq!(status, 200, "{body}");
        if fits(&body) {
            return body;
        }
        assert!(Instant::now() < deadline, "never: {body}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

fn list<'a>(body: &'a Value, name: &str) -> &'a Vec<Value> {
    body[name].as_array().unwrap_or_else(|| panic!("{name} in {body}"))
}

#[tokio::test]
async fn each_process_is_a_trace_even_when_the_server_is_killed_meanwhile() {
    let home = Home::new();
    let server = Server::start(&home);
    let (status, ran) = server.send("/v1/processes/run", &json!({"command": "sh", "args": ["-c", "exit 3"]})).await;
    assert_eq!(status, 200, "{ran}");
    let done = create(&server, sh("echo hello", json!({}))).await;
    ended(&server, &done).await;
    let living = create(&server, sh("sleep 600", json!({}))).await;
    let is = |trace: &&Value, id: &str| trace["attributes"]["sandboxd.process.id"] == id;
    let traces = until(&server, "/v1/traces?kind=process", |body| {
        let traces = list(body, "traces");
        traces.len() == 3 && traces.iter().any(|trace| is(&trace, &done) && trace["endedAtMs"].is_i64())
    })
    .await;
    let of = |traces: &Value, id: &str| list(traces, "traces").iter().find(|trace| is(trace, id)).expect("a trace").clone();
    let run = of(&traces, ran["processId"].as_str().expect("an id"));
    assert_eq!((&run["outcome"], &run["attributes"]["process.exit.code"]), (&json!("failed"), &json!(3)), "{run}");
    assert_eq!((&run["durationMs"], &run["spans"]), (&ran["durationMs"], &json!(1)), "{run}");
    assert_eq!(of(&traces, &done)["outcome"], "completed");
    assert_eq!(of(&traces, &living).get("endedAtMs"), None, "it still runs");
    server.kill();
    let server = Server::start(&home);
    let traces = until(&server, "/v1/traces", |body| of(body, &living)["outcome"] == "server_lost").await;
    assert_eq!(list(&traces, "traces").len(), 3, "none twice: {traces}");
    let (_, first) = server.get("/v1/traces?limit=2").await;
    let (_, second) = server.get(&format!("/v1/traces?limit=2&cursor={}", first["next"].as_str().expect("a cursor"))).await;
    let paged = [list(&first, "traces").clone(), list(&second, "traces").clone()].concat();
    assert_eq!((&paged, second.get("next")), (list(&traces, "traces"), None));
    assert_eq!(server.stop(), Some(0));
    home.assert_empty();
}

const TRACE: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// A session with a turn of two tool calls and a wait, and many calls outside of turns, as a run that was killed left it.
fn put_session(home: &Home) {
    let database = rusqlite::Connection::open(home.data().join("sandboxd.db")).expect("a database");
    let session = "INSERT INTO sessions (id, server_id, acp_session_id, agent, cwd, created_at_ms, updated_at_ms, doc)
        VALUES ('ses_1', 's', 'a', 'amp', '/', 1, 1, '{}')";
    database.execute(session, []).expect("a session");
    let put =
        |id: String, trace: &str, parent: Option<&str>, kind: &str, name: &str, at: (i64, Option<i64>), outcome: Option<&str>| {
            let doc = json!({"gen_ai.agent.name": "amp"}).to_string();
            let values = rusqlite::params![id, trace, parent, kind, name, at.0, at.1, outcome, doc];
            let sql = "INSERT INTO spans (span_id, trace_id, parent_span_id, session_id, kind, name, started_at_ms, ended_at_ms,
            outcome, doc) VALUES (?1, ?2, ?3, 'ses_1', ?4, ?5, ?6, ?7, ?8, ?9)";
            database.execute(sql, values).expect("a span");
        };
    let id = |n: u64| format!("{n:016x}");
    put(id(1), TRACE, None, "turn", "amp", (1000, None), None);
    put(id(2), TRACE, Some(&id(1)), "tool_call", "read", (1010, Some(1020)), Some("completed"));
    put(id(3), TRACE, Some(&id(1)), "tool_call", "execute", (1030, None), None);
    put(id(4), TRACE, Some(&id(3)), "permission", "permission", (1040, Some(1100)), Some("allowed"));
    for n in 1..=100 {
        let outcome = if n % 10 == 0 { "failed" } else { "completed" };
        put(id(100 + n), &format!("{n:032x}"), None, "tool_call", "grep", (2000, Some(2000 + n as i64)), Some(outcome));
    }
}

#[tokio::test]
async fn a_session_is_seen_as_traces_waterfall_and_figures() {
    let home = Home::new();
    assert_eq!(Server::start(&home).stop(), Some(0));
    put_session(&home);
    let server = Server::start(&home);
    let (_, traces) = server.get("/v1/traces?sessionId=ses_1&kind=turn").await;
    let turn = &list(&traces, "traces")[0];
    assert_eq!((&turn["traceId"], &turn["outcome"], &turn["spans"]), (&json!(TRACE), &json!("lost"), &json!(4)), "{turn}");
    assert_eq!((&turn["toolCalls"], &turn["permissionWaits"], &turn["permissionWaitMs"]), (&json!(2), &json!(1), &json!(60)));
    let (status, trace) = server.get(&format!("/v1/traces/{TRACE}")).await;
    assert_eq!(status, 200, "{trace}");
    let top = &trace["spans"][0];
    assert_eq!((&top["kind"], list(top, "children").len()), (&json!("turn"), 2), "{trace}");
    assert_eq!(top["children"][1]["children"][0]["kind"], "permission", "{trace}");
    assert_eq!(top["children"][1]["attributes"]["error.type"], "lost", "{trace}");

    let (_, first) = server.get("/v1/sessions/ses_1/timeline?limit=3").await;
    let bars = |body: &Value| {
        let spans = list(body, "spans").iter();
        spans
            .map(|span| (span["kind"].as_str().map(str::to_owned), span["offsetMs"].as_i64(), span["depth"].as_u64()))
            .collect::<Vec<_>>()
    };
    let bar = |kind: &str, offset, depth| (Some(kind.to_owned()), Some(offset), Some(depth));
    assert_eq!(bars(&first), [bar("turn", 0, 0), bar("tool_call", 10, 1), bar("tool_call", 30, 1)]);
    let cursor = first["next"].as_str().expect("a cursor");
    let (_, rest) = server.get(&format!("/v1/sessions/ses_1/timeline?cursor={cursor}")).await;
    assert_eq!(
        (list(&rest, "spans").len(), &bars(&rest)[..2]),
        (101, &[bar("permission", 40, 1), bar("tool_call", 1000, 0)][..])
    );

    let (_, stats) = server.get("/v1/stats/tools?sessionId=ses_1").await;
    let grep = json!({"tool": "grep", "agent": "amp", "calls": 100, "failed": 10, "unfinished": 0, "totalMs": 5050, "avgMs": 50,
        "p50Ms": 50, "p95Ms": 95, "maxMs": 100});
    assert_eq!((&stats["tools"][0], list(&stats, "tools").len()), (&grep, 3), "{stats}");
    assert_eq!(stats["tools"][1]["unfinished"], 1, "execute was lost: {stats}");
    let (_, stats) = server.get("/v1/stats/tools?sinceMs=2001").await;
    assert_eq!(list(&stats, "tools").len(), 0);
    for (path, expected) in [
        ("/v1/traces/0123", 404),
        ("/v1/sessions/ses_2/timeline", 404),
        ("/v1/traces?limit=0", 400),
        ("/v1/traces?kind=span", 400),
        ("/v1/traces?cursor=5", 400),
        ("/v1/sessions/ses_1/timeline?limit=5001", 400),
        ("/v1/stats/tools?sinceMs=x", 400),
    ] {
        let (status, problem) = server.get(path).await;
        assert_eq!(status, expected, "{path}: {problem}");
    }
    assert_eq!(server.stop(), Some(0));
}

#[tokio::test]
async fn old_spans_go_beyond_their_bound() {
    let home = Home::new();
    assert_eq!(Server::start(&home).stop(), Some(0));
    put_session(&home);
    let server = Server::start_with(&home, &crate::support::Options::default().env("SANDBOXD_SPANS_MAX", "50"));
    let (_, timeline) = server.get("/v1/sessions/ses_1/timeline").await;
    assert_eq!(list(&timeline, "spans").len(), 50);
    assert!(list(&timeline, "spans").iter().all(|span| span["name"] == "grep"), "the oldest are gone");
    assert_eq!(server.stop(), Some(0));
}
