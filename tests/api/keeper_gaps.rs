//! What a kill of the server finds in the middle of something.

use std::time::Duration;

use base64::Engine as _;
use serde_json::json;

use crate::processes_support::{create, ended, info, output, page, sh, until, wrote};
use crate::support::{Home, Options, Server, kill};

async fn text(server: &Server, id: &str) -> Vec<u8> {
    output(&page(server, id, "").await)
}

#[tokio::test]
async fn what_the_next_server_starts_is_not_taken_for_a_leftover() {
    let home = Home::new();
    let server = Server::start_with(&home, &Options::kept());
    let (url, http) = (server.url("/v1/processes/run"), server.http.clone());
    let stubborn = sh("trap '' TERM; : stubborn; while :; do sleep 0.1; done", json!({}));
    let run = tokio::spawn(async move { http.post(url).json(&stubborn).send().await });
    until("the run", || home.processes().iter().any(|(_, line)| line.contains(": stubborn"))).await;
    server.crash();
    let next = create(&server, sh("sleep 2; exit 5", json!({}))).await;
    let end = ended(&server, &next).await;
    assert_eq!((&end["exitCode"], &end["exitReason"]), (&json!(5), &json!("exited")), "{end}");
    assert!(run.await.expect("a task").is_err());
    until("the run's end", || !home.processes().iter().any(|(_, line)| line.contains(": stubborn"))).await;
}

#[tokio::test]
async fn what_waits_to_be_started_again_is_started_by_the_next_server() {
    let home = Home::new();
    let server = Server::start_with(&home, &Options::kept());
    let runs = home.path().join("runs");
    let script = format!("echo run >> {}; exit 1", runs.display());
    let id = create(&server, sh(&script, json!({"restart": "always"}))).await;
    let count = || std::fs::read_to_string(&runs).unwrap_or_default().lines().count();
    for _ in 0..3 {
        let before = count().max(4); // pauses grow: by then there is time to be killed in one
        until("some runs", || count() >= before).await;
        let mut process = info(&server, &id).await;
        while process["status"] != "restarting" {
            process = info(&server, &id).await;
        }
        let before = count();
        server.crash();
        until("one more run", || count() > before).await;
    }
}

#[tokio::test]
async fn a_terminals_stdin_ends_once() {
    let home = Home::new();
    let server = Server::start_with(&home, &Options::kept());
    let script = "cat; echo first; cat; echo second";
    let id = create(&server, sh(script, json!({"tty": true, "interactive": true, "closeStdin": true}))).await;
    wrote(&server, &id, "first").await;
    server.crash();
    let typed = base64::engine::general_purpose::STANDARD.encode("typed\n");
    let (status, body) = server.send(&format!("/v1/processes/{id}/input"), &json!({"data": typed})).await;
    assert_eq!(status, 200, "{body}");
    wrote(&server, &id, "typed").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!String::from_utf8_lossy(&text(&server, &id).await).contains("second"));
}

#[tokio::test]
async fn half_a_character_at_the_end_is_logged_once() {
    let home = Home::new();
    let server = Server::start_with(&home, &Options::kept());
    // The first goes on in the background, and never ends the character.
    let id = create(&server, sh(": half; sleep 1 & printf 'a\\303'", json!({}))).await;
    ended(&server, &id).await;
    let before = text(&server, &id).await;
    server.crash();
    until("the end of the background", || !home.processes().iter().any(|(_, line)| line == "sleep 1")).await;
    tokio::time::sleep(Duration::from_millis(100)).await; // its pipes are at their end
    assert_eq!(text(&server, &id).await, before);
    assert_eq!(before, b"a\xc3");
}

#[tokio::test]
async fn a_terminal_that_is_left_by_all_is_hung_up() {
    for options in [Options::default(), Options::kept()] {
        let home = Home::new();
        let server = Server::start_with(&home, &options);
        let script = "trap 'exit 3' HUP; exec <&- >&- 2>&-; i=0; while [ $i -lt 50 ]; do sleep 0.1; i=$((i+1)); done; exit 9";
        let id = create(&server, sh(script, json!({"tty": true}))).await;
        assert_eq!(ended(&server, &id).await["exitCode"], 3);
    }
}

#[tokio::test]
async fn an_agent_goes_on_after_a_line_that_says_nothing() {
    let home = Home::new();
    home.fake_agent("", "");
    let server = Server::start_with(&home, &Options::kept());
    server.call("s1", "amp", 1, "fake/blank", json!({})).await;
    tokio::time::sleep(Duration::from_millis(300)).await; // it is read
    let pid = async || server.get("/v1/processes?owner=agent").await.1["processes"][0]["pid"].clone();
    let before = pid().await;
    server.crash();
    assert_eq!(pid().await, before, "the same process");
    let answer = server.call("s1", "amp", 2, "fake/any", json!({"n": 1})).await;
    assert_eq!(answer["result"]["echo"]["n"], 1, "{answer}");
}

#[tokio::test]
async fn a_keeper_that_stands_still_holds_nothing_up_for_long() {
    let home = Home::new();
    let server = Server::start_with(&home, &Options::kept());
    let waits = create(&server, json!({"command": "cat", "interactive": true})).await;
    kill(server.pid(), "STOP");
    let began = std::time::Instant::now();
    let mut ids = Vec::new();
    for _ in 0..200 {
        ids.push(create(&server, sh("exit 0", json!({}))).await);
    }
    let (status, body) = server.send(&format!("/v1/processes/{waits}/input"), &json!({"eof": true})).await;
    let took = began.elapsed();
    kill(server.pid(), "CONT");
    assert_eq!(status, 200, "{body}");
    assert!(took < Duration::from_secs(30), "{took:?}");
    assert_eq!(ended(&server, &waits).await["exitCode"], 0, "it sees the end of its stdin");
    for id in &ids {
        assert_eq!(ended(&server, id).await["exitCode"], 0);
    }
    let kept = create(&server, sh("exec sleep 60", json!({}))).await;
    server.crash();
    assert_eq!(info(&server, &kept).await["status"], "running");
}

#[tokio::test]
async fn a_process_with_a_long_request_is_known_from_its_first_moment() {
    let home = Home::new();
    let server = Server::start_with(&home, &Options::kept());
    let mut ids = Vec::new();
    for round in 0..4 {
        let long = format!("{round}{}", "x".repeat(40_000));
        ids.push(create(&server, json!({"command": "sh", "args": ["-c", "exec sleep 60", long]})).await);
        server.crash();
    }
    for id in &ids {
        assert_eq!(info(&server, id).await["status"], "running");
    }
}
