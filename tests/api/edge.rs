//! The edge: tokens, origins, problems, CORS, the API description.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Home, Options, Server};

fn with_args(args: &[&str]) -> Options {
    Options { args: args.iter().map(|arg| (*arg).to_owned()).collect(), ..Options::default() }
}

async fn problem(response: reqwest::Response, status: u16, kind: &str) -> Value {
    assert_eq!(response.status().as_u16(), status);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let id = response.headers()["x-request-id"].to_str().expect("text").to_owned();
    let body: Value = response.json().await.expect("JSON");
    assert_eq!((&body["type"], &body["status"]), (&json!(format!("urn:sandbox-agent:error:{kind}")), &json!(status)), "{body}");
    assert_eq!(body["instance"], format!("urn:sandboxd:request:{id}"));
    assert!(body["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{body}");
    body
}

#[tokio::test]
async fn pages_and_waits_have_bounds_that_are_named() {
    let home = Home::new();
    let options = ["LIST_PAGE_MAX", "LOG_PAGE_MAX_EVENTS", "SNAPSHOT_ITEMS_MAX", "TRACE_SPANS_MAX", "LONG_POLL_MAX_MS"];
    let options = options.iter().fold(Options::default(), |options, name| options.env(&format!("SANDBOXD_{name}"), "7"));
    let server = Server::start_with(&home, &options);
    for path in [
        "/v1/sessions?limit",
        "/v1/sessions/ses_9/turns?limit",
        "/v1/sessions/ses_9/events?limit",
        "/v1/sessions/ses_9/snapshot?itemsMax",
        "/v1/sessions/ses_9/timeline?limit",
        "/v1/processes/proc_9/search?pattern=x&limit",
        "/v1/requests?limit",
        "/v1/traces?limit",
        "/v1/events?limit",
    ] {
        let (_, name) = path.rsplit_once(['?', '&']).expect("a parameter");
        for wrong in [0, 8] {
            let response = server.http.get(server.url(&format!("{path}={wrong}"))).send().await.expect("an answer");
            let body = problem(response, 400, "invalid_request").await;
            assert_eq!(body["detail"], format!("invalid request: {name} must be 1 to 7"), "{path}={wrong}");
        }
        assert_ne!(server.get(&format!("{path}=7")).await.0, 400, "{path}");
        assert_ne!(server.get(path.trim_end_matches(name)).await.0, 400, "{path}: the default obeys the bound");
    }
    for path in ["/v1/sessions/ses_9/turns/turn_9", "/v1/requests/req_9"] {
        let (status, body) = server.get(&format!("{path}?waitMs=8")).await;
        assert_eq!((status, &body["detail"]), (400, &json!("invalid request: waitMs must be at most 7")), "{path}");
        assert_eq!(server.get(&format!("{path}?waitMs=7")).await.0, 404, "{path}");
    }
}

#[test]
fn without_a_choice_the_server_does_not_start() {
    let home = Home::new();
    for (args, words) in
        [(&["server"][..], "--no-token"), (&["server", "--token", ""], "empty"), (&["server", "-n", "-H", "nowhere"], "--host")]
    {
        let output = Command::new(env!("CARGO_BIN_EXE_sandboxd")).args(args).env("HOME", home.path()).output().expect("it runs");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(words), "{stderr}");
    }
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let home = Home::new();
    let server = Server::start(&home);
    let other = Home::new();
    let options = Options { port: server.port(), ..Options::default() };
    let mut child = Server::spawn(&other, &options);
    assert_eq!(child.wait().expect("it ends").code(), Some(1));
    assert!(Server::log(&other).contains("can't listen on 127.0.0.1"), "{}", Server::log(&other));
}

#[tokio::test]
async fn two_servers_share_a_home() {
    let home = Home::new();
    let first = Server::start(&home);
    let second = Server::start(&home);
    first.call("a", "mock", 1, "initialize", json!({})).await;
    second.call("a", "mock", 1, "initialize", json!({})).await;
    assert_ne!(first.get("/v1/status").await.1["storage"]["path"], second.get("/v1/status").await.1["storage"]["path"]);
}

#[tokio::test]
async fn the_token_is_asked_for_wherever_the_contract_says() {
    let home = Home::new();
    let file = home.path().join("token");
    std::fs::write(&file, "s3cret\n").expect("written");
    let server = Server::start_with(&home, &with_args(&["--token-file", file.to_str().expect("UTF-8")]));
    let get = |path: &str| server.http.get(server.url(path));
    for path in ["/v1/health", "/v1/acp", "/v1/agents", "/v1/acp/x", "/v1/nothing"] {
        let body = problem(get(path).send().await.expect("an answer"), 401, "token_invalid").await;
        assert_eq!(
            (&body["detail"], &body["details"]["message"]),
            (&json!("token invalid"), &json!("missing or invalid bearer token"))
        );
    }
    for header in ["Basic s3cret", "s3cret", "bearer s3cret", "Bearer  s3cret", "Bearer s3cre", "Bearer s3cret2", "Bearer "] {
        assert_eq!(get("/v1/health").header("authorization", header).send().await.expect("an answer").status(), 401, "{header}");
    }
    assert_eq!(
        get("/v1/health?access_token=s3cret").send().await.expect("an answer").status(),
        401,
        "a query token is for WebSockets"
    );
    let health = get("/v1/health").bearer_auth("s3cret").send().await.expect("an answer");
    assert_eq!(health.json::<Value>().await.expect("JSON"), json!({"status": "ok"}));
    for open in ["/", "/docs"] {
        assert_eq!(get(open).send().await.expect("an answer").status(), 200, "{open}");
    }
    assert!(!Server::log(&home).contains("s3cret"), "the token is never logged");
}

#[tokio::test]
async fn agents_never_see_the_token() {
    let home = Home::new();
    let options =
        Options { args: vec!["--host".into(), "127.0.0.1".into()], ..Options::default() }.env("SANDBOXD_TOKEN", "s3cret");
    let server = Server::start_with(&home, &options);
    let envelope = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}});
    let request = server.http.post(server.url("/v1/acp/m?agent=mock")).bearer_auth("s3cret").json(&envelope);
    assert_eq!(request.send().await.expect("an answer").status(), 200);
    let (pid, _) = home.processes().into_iter().find(|(_, command)| command.contains("mock-agent-process")).expect("the agent");
    let mut environ = Vec::new();
    std::fs::File::open(format!("/proc/{pid}/environ")).expect("there").read_to_end(&mut environ).expect("read");
    assert!(!String::from_utf8_lossy(&environ).contains("s3cret"));
}

#[tokio::test]
async fn every_refusal_is_a_problem() {
    let home = Home::new();
    let server = Server::start_with(&home, &Options::default().env("SANDBOXD_ACP_BODY_MAX_BYTES", "100000"));
    let http = &server.http;
    let send = |request: reqwest::RequestBuilder| async { request.send().await.expect("an answer") };
    let json_post =
        |path: &str, body: &'static str| http.post(server.url(path)).header("content-type", "application/json").body(body);
    problem(send(http.get(server.url("/nowhere"))).await, 404, "invalid_request").await;
    problem(send(http.get(server.url("/v1/acp/"))).await, 404, "invalid_request").await;
    let not_allowed = send(http.put(server.url("/v1/acp"))).await;
    assert!(not_allowed.headers().contains_key("allow"));
    problem(not_allowed, 405, "method_not_allowed").await;
    for path in ["/v1/acp/%FF", "/v1/agents/%FF", "/v1/agents/%FF/install"] {
        problem(send(http.get(server.url(path))).await, 400, "invalid_request").await;
    }
    problem(send(http.delete(server.url("/v1/acp/%FF"))).await, 400, "invalid_request").await;
    problem(send(json_post("/v1/acp/%FF", "{}")).await, 400, "invalid_request").await;
    problem(send(http.get(server.url("/v1/agents?config=maybe"))).await, 400, "invalid_request").await;
    problem(send(json_post("/v1/agents/mock/install", "{")).await, 400, "invalid_request").await;
    problem(send(json_post("/v1/agents/mock/install", "{\"reinstall\":1}")).await, 422, "invalid_request").await;
    problem(send(http.post(server.url("/v1/agents/mock/install")).body("{}")).await, 415, "unsupported_media_type").await;
    problem(send(http.get(server.url("/v1/agents/nope"))).await, 400, "unsupported_agent").await;
    problem(send(http.post(server.url("/v1/acp/a?agent=mock")).body("{}")).await, 415, "unsupported_media_type").await;
    let html = json_post("/v1/acp/a?agent=mock", "{}").header("accept", "text/html");
    problem(send(html).await, 406, "not_acceptable").await;
    problem(send(json_post("/v1/acp/a?agent=mock", "{\"id\":")).await, 400, "invalid_request").await;
    problem(send(json_post("/v1/acp/a?agent=mock", "[]")).await, 400, "invalid_request").await;
    let missing = problem(send(json_post("/v1/acp/a", "{}")).await, 400, "invalid_request").await;
    assert_eq!(missing["detail"], "invalid request: missing required 'agent' query parameter for first POST to /v1/acp/a");
    let unknown = problem(send(json_post("/v1/acp/a?agent=nope", "{}")).await, 400, "unsupported_agent").await;
    assert_eq!(unknown["agent"], "nope");
    assert_eq!(server.get("/v1/acp").await.1, json!({"servers": []}), "a refused envelope starts nothing");
    let lost = problem(send(http.get(server.url("/v1/acp/a"))).await, 404, "session_not_found").await;
    assert_eq!(lost["sessionId"], "a");
    server.call("a", "mock", 1, "initialize", json!({})).await;
    problem(send(http.get(server.url("/v1/acp/a")).header("last-event-id", "-1")).await, 400, "invalid_request").await;
    problem(send(http.get(server.url("/v1/acp/a")).header("accept", "application/json")).await, 406, "not_acceptable").await;
    let conflict = problem(send(json_post("/v1/acp/a?agent=claude", "{}")).await, 409, "conflict").await;
    assert_eq!(conflict["details"]["message"], "server 'a' already exists for agent 'mock'; requested 'claude'");
    for size in [100_001, 700_000, 5_000_000] {
        let body = format!("{{\"method\":\"{}\"}}", "x".repeat(size));
        let request = http.post(server.url("/v1/acp/a")).header("content-type", "application/json").body(body);
        problem(send(request).await, 413, "invalid_request").await;
    }
}

#[tokio::test]
async fn an_agent_that_is_missing_is_named_when_nothing_may_be_installed() {
    let home = Home::new();
    let server =
        Server::start_with(&home, &Options::default().env("SANDBOX_AGENT_REQUIRE_PREINSTALL", "1").env("PATH", "/usr/bin:/bin"));
    let (status, body) = server.post("a", Some("cursor"), &json!({"id": 1, "method": "initialize"})).await;
    assert_eq!((status, &body["type"]), (404, &json!("urn:sandbox-agent:error:agent_not_installed")), "{body}");
    assert!(body["details"]["message"].as_str().is_some_and(|help| help.contains("install-agent cursor")), "{body}");
    server.call("m", "mock", 1, "initialize", json!({})).await;
}

#[tokio::test]
async fn foreign_pages_may_read_nothing_and_change_nothing() {
    let home = Home::new();
    let server = Server::start(&home);
    let envelope = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize"});
    let post = |origin: &str| {
        server.http.post(server.url("/v1/acp/a?agent=mock")).header("origin", origin.to_owned()).json(&envelope).send()
    };
    problem(post("http://evil.test").await.expect("an answer"), 403, "permission_denied").await;
    assert_eq!(post(&server.url).await.expect("an answer").status(), 200, "our own pages may");
    let delete = server.http.delete(server.url("/v1/acp/a")).header("origin", "null").send().await.expect("an answer");
    problem(delete, 403, "permission_denied").await;
    let upgrade = server.http.get(server.url("/v1/acp/a")).header("origin", "http://evil.test").header("upgrade", "websocket");
    problem(upgrade.send().await.expect("an answer"), 403, "permission_denied").await;
    let rebound = server.http.get(server.url("/v1/acp")).header("host", "evil.test:2468").send().await.expect("an answer");
    problem(rebound, 403, "permission_denied").await;
    let read = server.http.get(server.url("/v1/acp")).header("origin", "http://evil.test").send().await.expect("an answer");
    assert!(read.headers().get("access-control-allow-origin").is_none());
}

#[tokio::test]
async fn foreign_names_are_refused_over_http2_too() {
    let home = Home::new();
    let server = Server::start(&home);
    let status = |authority: &str| {
        let mut curl = Command::new("curl");
        curl.args(["-s", "--noproxy", "*", "--http2-prior-knowledge", "-o", "/dev/null", "-w", "%{http_code} %{http_version}"]);
        curl.args(["--connect-to", &format!("::127.0.0.1:{}", server.port()), &format!("http://{authority}/v1/acp")]);
        let output = curl.env_remove("http_proxy").output().expect("curl is needed");
        String::from_utf8(output.stdout).expect("text")
    };
    assert_eq!(status(&format!("localhost:{}", server.port())), "200 2");
    assert_eq!(status("evil.test:2468"), "403 2");
}

#[tokio::test]
async fn cors_flags_make_the_contracts_headers() {
    let home = Home::new();
    let preflight = |server: &Server, origin: &str| {
        let request = server.http.request(reqwest::Method::OPTIONS, server.url("/v1/health")).header("origin", origin.to_owned());
        request.header("access-control-request-method", "POST").header("access-control-request-headers", "x-foo").send()
    };
    let header = |response: &reqwest::Response, name: &str| {
        response.headers().get(name).map(|value| value.to_str().expect("text").to_owned())
    };
    let server = Server::start_with(&home, &with_args(&["--no-token", "-O", "http://a.test"]));
    let answer = preflight(&server, "http://a.test").await.expect("an answer");
    assert_eq!(answer.status(), 200);
    assert_eq!(header(&answer, "access-control-allow-origin").as_deref(), Some("http://a.test"));
    assert_eq!(header(&answer, "access-control-allow-methods").as_deref(), Some("*"));
    assert_eq!(header(&preflight(&server, "http://b.test").await.expect("an answer"), "access-control-allow-origin"), None);
    let envelope = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize"});
    let post = server
        .http
        .post(server.url("/v1/acp/a?agent=mock"))
        .header("origin", "http://a.test")
        .json(&envelope)
        .send()
        .await
        .expect("an answer");
    assert_eq!(header(&post, "access-control-allow-origin").as_deref(), Some("http://a.test"));
    drop(server);
    for args in [&["--no-token", "-O", "*"][..], &["--no-token", "-O", "*", "-C"], &["--no-token", "-C"]] {
        let server = Server::start_with(&home, &with_args(args));
        assert_eq!(preflight(&server, "http://a.test").await.expect("an answer").status(), 200, "{args:?} doesn't crash");
    }
    let server =
        Server::start_with(&home, &with_args(&["-n", "-O", "http://a.test", "-M", "GET", "-M", "POST", "-A", "x-foo", "-C"]));
    let answer = preflight(&server, "http://a.test").await.expect("an answer");
    assert_eq!(header(&answer, "access-control-allow-methods").as_deref(), Some("GET,POST"));
    assert_eq!(header(&answer, "access-control-allow-headers").as_deref(), Some("x-foo"));
    assert_eq!(header(&answer, "access-control-allow-credentials").as_deref(), Some("true"));
}

#[tokio::test]
async fn an_exposed_server_says_so() {
    let home = Home::new();
    let _server = Server::start_with(&home, &with_args(&["--no-token", "--host", "0.0.0.0"]));
    assert!(Server::log(&home).contains("no token on a non-loopback address"), "{}", Server::log(&home));
}

#[tokio::test]
async fn the_api_description_is_served_and_golden() {
    let home = Home::new();
    let server = Server::start(&home);
    let (status, served) = server.get("/v1/openapi.json").await;
    assert_eq!((status, &served["openapi"]), (200, &json!("3.1.0")));
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/schemas/openapi.json");
    let text = format!("{}\n", serde_json::to_string_pretty(&served).expect("JSON"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, &text).expect("written");
    }
    let golden = std::fs::read_to_string(path).expect("schemas/openapi.json");
    assert!(golden == text, "schemas/openapi.json is out of date: run make gen");
    let page = server.http.get(server.url("/docs")).send().await.expect("an answer").text().await.expect("a body");
    assert!(page.contains("/v1/acp/{server_id}"));
}

#[tokio::test]
async fn head_works_and_health_is_exact() {
    let home = Home::new();
    let server = Server::start(&home);
    assert_eq!(server.get("/v1/health").await, (200, json!({"status": "ok"})));
    let head = server.http.head(server.url("/v1/health")).header("x-request-id", "mine-1").send().await.expect("an answer");
    assert_eq!((head.status().as_u16(), head.headers()["x-request-id"].to_str().expect("text")), (200, "mine-1"));
}

#[tokio::test]
async fn clients_that_fall_silent_are_let_go() {
    let home = Home::new();
    let options = Options::default().env("SANDBOXD_HTTP_HEADER_TIMEOUT_MS", "300");
    let server = Server::start_with(&home, &options.env("SANDBOXD_HTTP_BODY_IDLE_TIMEOUT_MS", "300"));
    let post = "POST /v1/acp/a?agent=mock HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    let half_sent = format!("{post}Content-Length: 100\r\n\r\n{{\"id\":1");
    for (said, answer) in [("", ""), ("P", ""), ("PRI * HT", ""), ("GET / HTT", ""), (&half_sent, "HTTP/1.1 408 ")] {
        let started = Instant::now();
        let mut socket = TcpStream::connect(("127.0.0.1", server.port())).expect("a connection");
        socket.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
        socket.write_all(said.as_bytes()).expect("sent");
        let mut got = Vec::new();
        let end = socket.read_to_end(&mut got).map_err(|error| error.kind());
        let reset = Err(std::io::ErrorKind::ConnectionReset); // closed with something unread
        assert!(end.is_ok() || (end == reset && answer.is_empty()), "{said:?}: {end:?}");
        assert!(started.elapsed() >= Duration::from_millis(250), "{said:?}: too early");
        let got = String::from_utf8_lossy(&got);
        assert!(got.starts_with(answer) && got.is_empty() == answer.is_empty(), "{said:?}: {got}");
        assert!(answer.is_empty() || got.contains("urn:sandbox-agent:error:timeout"), "{got}");
    }
}
