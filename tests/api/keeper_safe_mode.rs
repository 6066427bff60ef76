//! A server that dies again and again: safe mode, and the way out of it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::processes_support::{create, info, sh};
use crate::support::{Home, Options, PATIENCE, Server, kill};

/// A server that can't start once its only root for files is gone.
fn start(home: &Home, retry_ms: &str, token: Option<&str>) -> Server {
    let root = home.path().join("root");
    std::fs::create_dir_all(&root).expect("a folder");
    let options = Options::kept().env("SANDBOXD_KEEPER_CRASHES_MAX", "2").env("SANDBOXD_SAFE_MODE_RETRY_MS", retry_ms);
    let mut options = options.env("SANDBOXD_FS_ROOTS", root.to_str().expect("UTF-8"));
    if let Some(token) = token {
        options.args = vec!["--token".to_owned(), token.to_owned()];
    }
    Server::start_with(home, &options)
}

fn break_it(home: &Home, server: &Server) {
    std::fs::rename(home.path().join("root"), home.path().join("gone")).expect("renamed");
    server.crash();
}

fn mend_it(home: &Home) {
    std::fs::rename(home.path().join("gone"), home.path().join("root")).expect("renamed");
}

/// Connects wait until somebody answers: the next normal server, or the one in safe mode.
async fn health(server: &Server) -> (u16, Value) {
    server.get("/v1/health").await
}

/// The server that was asked to go may answer for a moment.
async fn until_health(server: &Server, fits: impl Fn(u16, &Value) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (code, health) = health(server).await;
        if fits(code, &health) {
            return;
        }
        assert!(Instant::now() < deadline, "{code}: {health}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_crash_loop_ends_in_safe_mode_and_what_runs_lives_on() {
    let home = Home::new();
    let server = start(&home, "600000", None);
    let id = create(&server, sh("sleep 1000", json!({}))).await;
    let pid = info(&server, &id).await["pid"].clone();
    break_it(&home, &server);
    let (code, safe) = health(&server).await;
    assert_eq!((code, &safe["status"], &safe["crashCount"]), (503, &json!("safe_mode"), &json!(3)), "{safe}");
    assert!(safe["reason"].as_str().is_some_and(|reason| reason.contains("can't be a root for files")), "{safe}");
    assert!(safe["retryInMs"].as_u64().is_some_and(|ms| ms <= 600_000), "{safe}");
    let (code, status) = server.get("/v1/status").await;
    assert_eq!((code, &status["status"], &status["lastCrash"]["ended"]), (503, &json!("safe_mode"), &json!({"code": 1})));
    assert_eq!(status["crashes"].as_array().map(Vec::len), Some(3), "{status}");
    let (code, problem) = server.get("/v1/processes").await;
    assert_eq!((code, &problem["type"]), (503, &json!("urn:sandbox-agent:error:safe_mode")));
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("POST /v1/server/restart")), "{problem}");
    assert!(std::path::Path::new(&format!("/proc/{pid}")).exists());
    assert!(Server::log(&home).contains("safe mode: nothing works but this explanation"));
    // A try that comes too early ends there again.
    assert_eq!(server.send("/v1/server/restart", &json!({})).await.0, 202);
    until_health(&server, |code, health| code == 503 && health["crashCount"] == 4).await;
    mend_it(&home);
    assert_eq!(server.send("/v1/server/restart", &json!({})).await.0, 202);
    until_health(&server, |code, health| code == 200 && *health == json!({"status": "ok"})).await;
    let process = info(&server, &id).await;
    assert_eq!((&process["pid"], &process["status"]), (&pid, &json!("running")), "{process}");
    assert_eq!(server.stop(), Some(0));
    home.assert_empty();
}

#[tokio::test]
async fn a_normal_start_is_tried_after_a_while() {
    let home = Home::new();
    let server = start(&home, "200", None);
    break_it(&home, &server);
    crate::processes_support::until("safe mode", || Server::log(&home).contains("safe mode: nothing works")).await;
    mend_it(&home);
    until_health(&server, |code, _| code == 200).await;
    assert!(Server::log(&home).contains("leaving safe mode"));
    assert_eq!(server.stop(), Some(0));
}

#[tokio::test]
async fn safe_mode_asks_for_the_token_and_a_stop_ends_all() {
    let home = Home::new();
    let mut server = start(&home, "600000", Some("t0psecret"));
    let http = server.http.clone();
    let send = async |request: reqwest::RequestBuilder| request.bearer_auth("t0psecret").send().await.expect("an answer");
    for script in ["sleep 1000", "trap '' TERM; sleep 1001; sleep 1001", "env -i setsid sleep 1002 & wait"] {
        let created = send(http.post(server.url("/v1/processes")).json(&sh(script, json!({})))).await;
        assert_eq!(created.status(), 200);
    }
    break_it(&home, &server);
    assert_eq!(send(http.get(server.url("/v1/health"))).await.status(), 503);
    for path in ["/v1/health", "/v1/status", "/v1/processes"] {
        assert_eq!(server.get(path).await.0, 401, "{path}");
    }
    assert_eq!(server.send("/v1/server/restart", &json!({})).await.0, 401);
    kill(server.pid(), "TERM");
    assert_eq!(server.wait(), Some(0), "{}", Server::log(&home));
    home.assert_empty();
}
