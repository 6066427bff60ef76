//! Spans on their way to a collector.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use crate::sessions_support::{create, follow, say, until_type};
use crate::support::{Home, Options, PATIENCE, Server};

/// A collector on loopback: what it got, and what it answers first.
#[derive(Clone, Default)]
struct Collector {
    got: Arc<Mutex<Vec<(HeaderMap, Value)>>>,
    answers: Arc<Mutex<Vec<u16>>>,
}

impl Collector {
    async fn start(answers: &[u16]) -> (Self, String) {
        let collector = Self::default();
        *collector.answers.lock().expect("whole") = answers.iter().rev().copied().collect();
        let of = collector.clone();
        let post = move |headers: HeaderMap, body: String| async move {
            of.got.lock().expect("whole").push((headers, serde_json::from_str(&body).expect("JSON")));
            let status = of.answers.lock().expect("whole").pop().unwrap_or(200);
            (StatusCode::from_u16(status).expect("a status"), [("content-type", "application/json"), ("retry-after", "0")], "{}")
        };
        let router = axum::Router::new().route("/base/v1/traces", axum::routing::post(post));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/base", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        (collector, url)
    }

    fn requests(&self) -> usize {
        self.got.lock().expect("whole").len()
    }

    /// Of all that it got, also what it refused.
    fn names(&self, from: usize) -> Vec<String> {
        let got = self.got.lock().expect("whole");
        let spans = got[from..]
            .iter()
            .flat_map(|(_, body)| body["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().expect("spans"));
        spans.map(|span| span["name"].as_str().expect("a name").to_owned()).collect()
    }
}

async fn until(what: &str, is: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is().await {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn run(server: &Server, command: &str) {
    let (status, ran) = server.send("/v1/processes/run", &json!({"command": command})).await;
    assert_eq!(status, 200, "{ran}");
}

async fn exported(server: &Server) -> (Value, Value) {
    let export = server.get("/v1/status").await.1["spanExport"].clone();
    (export["exported"].clone(), export["dropped"].clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)] // to wait for the server's end must not stop the collector
async fn ended_spans_reach_the_collector_which_may_be_away_for_a_while() {
    let (collector, url) = Collector::start(&[503, 429]).await;
    let home = Home::new();
    let options = Options::default()
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &url)
        .env("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20collector-key-1")
        .env("OTEL_SERVICE_NAME", "box-7");
    let server = Server::start_with(&home, &options);
    run(&server, "true").await;
    until("it is taken", async || exported(&server).await == (json!(1), json!(0))).await;
    assert_eq!(collector.requests(), 3, "twice it was tried again");
    let (headers, body) = collector.got.lock().expect("whole")[2].clone();
    assert_eq!(headers["authorization"], "Bearer collector-key-1");
    assert_eq!(headers["content-type"], "application/json");
    let of = &body["resourceSpans"][0];
    assert_eq!(of["resource"]["attributes"][0]["value"]["stringValue"], "box-7", "{body}");
    let span = &of["scopeSpans"][0]["spans"][0];
    let (_, traces) = server.get("/v1/traces").await;
    let known = &traces["traces"][0];
    assert_eq!((&span["traceId"], &span["spanId"]), (&known["traceId"], &known["spanId"]), "{span}");
    let started = format!("{}000000", known["startedAtMs"]);
    assert_eq!((&span["name"], &span["startTimeUnixNano"]), (&json!("true"), &json!(started)));
    run(&server, "pwd").await;
    assert_eq!(server.stop(), Some(0));
    assert_eq!(collector.names(3), ["pwd"], "the last ones are sent at a stop");
}

#[tokio::test]
async fn what_a_collector_refuses_is_counted_and_holds_nobody_up() {
    let (collector, url) = Collector::start(&[400]).await;
    let home = Home::new();
    let server = Server::start_with(&home, &Options::default().env("OTEL_EXPORTER_OTLP_ENDPOINT", &url));
    run(&server, "true").await;
    until("it is counted", async || exported(&server).await == (json!(0), json!(1))).await;
    assert_eq!((collector.requests(), Server::log(&home).contains("the collector answered 400")), (1, true));
    assert_eq!(server.stop(), Some(0));

    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", silent.local_addr().expect("an address"));
    let options = Options::default().env("OTEL_EXPORTER_OTLP_ENDPOINT", &url).env("SANDBOXD_OTLP_QUEUE_MAX_SPANS", "1");
    let server = Server::start_with(&home, &options);
    for _ in 0..3 {
        futures_util::future::join_all((0..8).map(|_| run(&server, "true"))).await;
    }
    until("the queue overflows", async || exported(&server).await.1.as_u64() > Some(0)).await;
    assert_eq!(server.stop(), Some(0), "a collector that never answers delays no stop beyond its time");
    let server = Server::start(&home);
    assert_eq!(server.get("/v1/status").await.1.get("spanExport"), None);
    assert_eq!(server.stop(), Some(0));
}

#[tokio::test]
async fn what_a_kill_left_open_is_exported_as_lost() {
    let (collector, url) = Collector::start(&[]).await;
    let home = Home::new();
    let options = Options::default().env("OTEL_EXPORTER_OTLP_ENDPOINT", &url);
    let server = Server::start_with(&home, &options);
    let id = create(&server, json!({"agent": "mock"})).await;
    let mut live = follow(&server, &id, "", None).await;
    say(&server, &id, "/stall").await;
    until_type(&mut live, "turn.started").await;
    server.kill();
    let server = Server::start_with(&home, &options);
    until("it is taken", async || exported(&server).await.0.as_u64() >= Some(1)).await;
    let (_, traces) = server.get(&format!("/v1/traces?sessionId={id}")).await;
    let known = &traces["traces"][0];
    assert_eq!(known["outcome"], "lost", "{traces}");
    let got = collector.got.lock().expect("whole").clone();
    let spans = got.iter().flat_map(|(_, body)| body["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().expect("spans"));
    let turns: Vec<_> = spans.filter(|span| span["spanId"] == known["spanId"]).collect();
    assert_eq!(turns.len(), 1, "{got:?}");
    assert_eq!(turns[0]["endTimeUnixNano"], format!("{}000000", known["endedAtMs"]), "{turns:?}");
    assert_eq!(server.stop(), Some(0));
}
