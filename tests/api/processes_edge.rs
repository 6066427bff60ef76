//! What the edge of processes and terminals refuses before it asks for any process.

use serde_json::{Value, json};

use crate::support::{Home, Options, Server};
use crate::ws::Ws;

async fn refused(request: reqwest::RequestBuilder, status: u16) -> String {
    let response = request.send().await.expect("an answer");
    let (got, kind) = (response.status().as_u16(), response.headers()["content-type"].clone());
    let body: Value = response.json().await.expect("JSON");
    assert_eq!((got, kind.to_str().expect("text")), (status, "application/problem+json"), "{body}");
    body["detail"].as_str().expect("a sentence").to_owned()
}

#[tokio::test]
async fn an_unknown_process_is_not_found_whatever_is_asked_of_it() {
    let home = Home::new();
    let server = Server::start(&home);
    let (get, post) = (|path: &str| server.http.get(server.url(path)), |path: &str| server.http.post(server.url(path)));
    let requests = [
        get("/v1/processes/proc_9"),
        server.http.delete(server.url("/v1/processes/proc_9")),
        post("/v1/processes/proc_9/stop?waitMs=0"),
        post("/v1/processes/proc_9/kill"),
        post("/v1/processes/proc_9/signal").json(&json!({"signal": "INT"})),
        post("/v1/processes/proc_9/input").json(&json!({"data": "aGkK"})),
        post("/v1/processes/proc_9/input").json(&json!({"eof": true})),
        post("/v1/processes/proc_9/terminal/resize").json(&json!({"cols": 80, "rows": 24})),
        get("/v1/processes/proc_9/logs"),
        get("/v1/processes/proc_9/logs?follow=true"),
        get("/v1/processes/proc_9/search?pattern=x"),
        post("/v1/processes/proc_9/wait"),
        post("/v1/processes/proc_9/wait").json(&json!({})),
    ];
    for request in requests {
        let response = request.send().await.expect("an answer");
        let (status, url) = (response.status().as_u16(), response.url().to_string());
        let body: Value = response.json().await.expect("JSON");
        assert_eq!((status, &body["title"]), (404, &json!("Not Found")), "{url}: {body}");
        assert_eq!(body["type"], "urn:sandbox-agent:error:not_found", "{url}");
        assert_eq!(body["detail"], "not found: process proc_9", "{url}");
        assert_eq!(body["details"], json!({"id": "proc_9", "resource": "process"}), "{url}");
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_said_before_the_process_is_looked_for() {
    let home = Home::new();
    let server = Server::start(&home);
    let (get, post) = (|path: &str| server.http.get(server.url(path)), |path: &str| server.http.post(server.url(path)));
    let input = |body: Value| post("/v1/processes/proc_9/input").json(&body);
    for (request, status, words) in [
        (get("/v1/processes?owner=nobody"), 400, "owner must be one of"),
        (get("/v1/processes?tty=yes"), 400, "tty"),
        (get("/v1/processes?status=dead"), 400, "status"),
        (get("/v1/processes?owner=user&owner=run"), 400, "owner"),
        (post("/v1/processes/proc_9/stop?waitMs=-1"), 400, "waitMs"),
        (input(json!({"data": "aGkK", "encoding": "hex"})), 400, "invalid request: encoding must be one of: base64, utf8, text"),
        (input(json!({"data": "aGk"})), 400, "invalid request: invalid base64 input: "),
        (input(json!({"encoding": "utf8"})), 422, "missing field `data`"),
        (input(json!({"data": 1})), 422, "invalid request: "),
        (post("/v1/processes/proc_9/input").body("{}"), 415, "application/json"),
        (post("/v1/processes/proc_9/signal").json(&json!({"signal": "NOPE"})), 400, "unknown signal \"NOPE\""),
        (post("/v1/processes/proc_9/signal").json(&json!({})), 422, "signal"),
        (post("/v1/processes/proc_9/terminal/resize").json(&json!({"cols": 65536, "rows": 1})), 422, "invalid request: "),
        (get("/v1/processes/proc_9/logs?stream=stdin"), 400, "stream"),
        (get("/v1/processes/proc_9/logs?limit=0"), 400, "limit must be at least 1"),
        (get("/v1/processes/proc_9/logs?limit=1&follow=true"), 400, "limit is for pages"),
        (get("/v1/processes/proc_9/logs?encoding=hex"), 400, "encoding must be one of: base64, utf8, text"),
        (get("/v1/processes/proc_9/logs?follow=true").header("last-event-id", "x"), 400, "Last-Event-ID"),
        (get("/v1/processes/proc_9/search"), 400, "pattern"),
        (get("/v1/processes/proc_9/search?pattern=x&limit=501"), 400, "limit must be 1 to 500"),
        (post("/v1/processes/proc_9/wait").body("x"), 415, "application/json"),
        (post("/v1/processes/proc_9/wait").json(&json!({"quietMs": -1})), 422, "invalid request: "),
        (post("/v1/processes/config").json(&json!({"maxConcurrentProcesses": 1})), 422, "missing field"),
        (post("/v1/processes/run").json(&json!({"command": "true", "args": null})), 422, "invalid request: "),
        (post("/v1/processes").json(&json!({"command": "true", "env": null})), 422, "invalid request: "),
        (get("/v1/processes/events").header("accept", "application/json"), 406, "text/event-stream"),
        (get("/v1/processes/%FF"), 400, "invalid request: "),
        (get("/v1/processes/proc_9/terminal/ws"), 400, "upgrade"),
    ] {
        let said = refused(request, status).await;
        assert!(said.contains(words), "{words}: {said}");
    }
}

#[tokio::test]
async fn terminals_ask_for_a_token_and_for_pages_of_ours() {
    let home = Home::new();
    let options = Options { args: vec!["--token".into(), "s3cr+t".into()], ..Options::default() };
    let server = Server::start_with(&home, &options);
    let path = "/v1/processes/proc_9/terminal/ws";
    let with_token = format!("{path}?access_token=s3cr%2Bt");
    let origin = format!("http://127.0.0.1:{}", server.port());
    for (path, headers, status) in [
        (path, vec![], 401),
        (&format!("{path}?access_token=other"), vec![], 401),
        (&with_token, vec![], 404),
        (&with_token, vec![("origin", origin.as_str())], 404),
        (&with_token, vec![("origin", "http://evil.test")], 403),
        (&format!("{path}?access_token=other"), vec![("authorization", "Bearer s3cr+t")], 404),
    ] {
        let answer = Ws::connect(server.port(), path, &headers).await.err().expect("a refusal");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path} {headers:?}: {answer}");
    }
    let plain = server.http.get(server.url(&with_token)).send().await.expect("an answer");
    assert_eq!(plain.status(), 401, "a query token is for WebSockets");
    assert!(!Server::log(&home).contains("s3cr"), "the token is never logged");
}
