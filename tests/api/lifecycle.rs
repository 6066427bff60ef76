//! Stopping the server: nothing it started is left, however busy it is.

use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Home, Options, PATIENCE, Server, kill};

/// Well above `shutdown_deadline_ms`.
const STOP_TIME: Duration = Duration::from_secs(8);

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what} did not come");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn assert_nothing_left(home: &Home, server: Server) {
    let started = Instant::now();
    assert_eq!(server.stop(), Some(0), "{}", Server::log(home));
    assert!(started.elapsed() < STOP_TIME, "{:?}", started.elapsed());
    assert_eq!(home.processes(), Vec::new(), "processes were left behind");
}

/// `PATH` with an npm that installs for ever and ignores TERM, as its child does.
fn slow_npm(home: &Home) -> Options {
    let tools = home.path().join("tools");
    std::fs::create_dir_all(&tools).expect("a folder");
    for (name, body) in [
        ("node", "echo v24.0.0"),
        (
            "npm",
            "case $1 in --version) echo 11.0.0; exit;; esac; trap '' TERM; sh -c 'trap \"\" TERM; sleep 3601; :' & sleep 3602; :",
        ),
    ] {
        let path = tools.join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).expect("a script");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("executable");
    }
    Options::default().env("PATH", &format!("{}:/usr/bin:/bin", tools.display()))
}

fn runs(home: &Home, part: &str) -> usize {
    home.processes().iter().filter(|(_, command)| command.contains(part)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installation_ends_with_the_server() {
    let home = Home::new();
    let server = Server::start_with(&home, &slow_npm(&home));
    let post =
        server.http.post(server.url("/v1/acp/a?agent=pi")).json(&json!({"jsonrpc": "2.0", "id": 1, "method": "initialize"}));
    let waiting = tokio::spawn(post.send());
    until("npm", || runs(&home, "sleep 360") >= 2).await;
    tokio::task::block_in_place(|| assert_nothing_left(&home, server));
    let answer = waiting.await.expect("no panic").expect("an answer although the server stops");
    assert!(answer.status().is_server_error(), "{}", answer.status());
}

#[tokio::test]
async fn a_second_signal_and_the_deadline_leave_nothing() {
    for (deadline_ms, signals) in [("60000", 2), ("400", 1)] {
        let home = Home::new();
        home.fake_agent("trap '' TERM", "--ignore-eof");
        let options = Options::default().env("SANDBOXD_SHUTDOWN_DEADLINE_MS", deadline_ms);
        let mut server = Server::start_with(&home, &options.env("SANDBOXD_AGENT_STOP_GRACE_MS", "50000"));
        server.call("a", "amp", 1, "initialize", json!({})).await;
        kill(server.pid(), "TERM");
        // Two signals that come before the first is handled are one (signal(7)): the second waits for the first.
        while !Server::log(&home).contains("stopping") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if signals == 2 {
            kill(server.pid(), "TERM");
        }
        let started = Instant::now();
        assert_eq!(server.wait(), Some(0), "{}", Server::log(&home));
        assert!(started.elapsed() < STOP_TIME, "{:?}", started.elapsed());
        assert_eq!(home.processes(), Vec::new(), "processes were left behind");
    }
}

#[tokio::test]
async fn what_a_client_that_left_deletes_is_ended() {
    let home = Home::new();
    home.fake_agent("trap '' TERM", "--ignore-eof");
    let server = Server::start_with(&home, &Options::default().env("SANDBOXD_AGENT_STOP_GRACE_MS", "3000"));
    server.call("a", "amp", 1, "initialize", json!({})).await;
    let delete = server.http.delete(server.url("/v1/acp/a")).send();
    assert!(tokio::time::timeout(Duration::from_millis(300), delete).await.is_err(), "the agent takes its time");
    assert_nothing_left(&home, server);
}

#[tokio::test(flavor = "multi_thread")]
async fn forty_stubborn_agents_end_with_the_server() {
    let home = Home::new();
    home.fake_agent("trap '' TERM", "--ignore-eof");
    let server = Server::start(&home);
    let names: Vec<_> = (0..40).map(|at| format!("s{at}")).collect();
    let calls = names.iter().map(|name| server.call(name, "amp", 1, "initialize", json!({})));
    futures_util::future::join_all(calls).await;
    assert_eq!(runs(&home, "fake-agent"), 40);
    assert_nothing_left(&home, server);
}

#[tokio::test]
async fn an_event_stream_says_that_the_server_stops() {
    let home = Home::new();
    let server = Server::start(&home);
    server.call("a", "mock", 1, "initialize", json!({})).await;
    let mut events = server.events("a", None).await;
    events.until_answer(1).await;
    kill(server.pid(), "TERM");
    let last = events.until(|event| event.name == "end").await;
    assert_eq!(last.last().expect("one").data["reason"], "shutdown");
}
