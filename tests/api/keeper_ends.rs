//! How keeper and server end: by each other's end, by signals to either, and that nothing is left then.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::pid_one::init_with;
use crate::processes_support::{create, ended, info, sh, until, wrote};
use crate::support::{Home, Options, Server, kill};

/// What a stop may take: `shutdown_deadline_ms`.
const DEADLINE: Duration = Duration::from_secs(4);

/// Of each kind one: a process, a terminal, an agent, and what has left its family.
async fn all_kinds(home: &Home, options: &Options) -> Server {
    home.fake_agent("", "");
    let server = Server::start_with(home, options);
    create(&server, sh("sleep 1000", json!({}))).await;
    create(&server, sh("cat", json!({"tty": true}))).await;
    let wild = create(&server, sh("env -i setsid sh -c 'sleep 1001; :' & echo up; wait", json!({}))).await;
    wrote(&server, &wild, "up").await;
    server.call("a", "amp", 1, "initialize", json!({})).await;
    server
}

/// Nothing is left, not even what has cleared its environment.
fn assert_nothing(home: &Home) {
    home.assert_empty();
}

async fn says(home: &Home, words: &str) {
    until(words, || Server::log(home).contains(words)).await;
}

fn lives(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

async fn status(server: &Server) -> Value {
    let (code, status) = server.get("/v1/status").await;
    assert_eq!(code, 200, "{status}");
    status
}

#[tokio::test]
async fn a_server_whose_keeper_was_killed_goes_on_and_says_so() {
    let home = Home::new();
    let mut server = all_kinds(&home, &Options::kept()).await;
    let script = "echo up; until [ -e $HOME/gate ]; do sleep 0.01; done; echo last words; exit 9";
    let of_the_keeper = create(&server, sh(script, json!({}))).await;
    wrote(&server, &of_the_keeper, "up").await;
    server.crash();
    let id = create(&server, sh("echo up; read line; echo $line; exit 9", json!({}))).await;
    wrote(&server, &id, "up").await;
    let pid = server.server_pid().expect("a server");
    let before = status(&server).await;
    assert_eq!((&before["keeper"]["pid"], &before["keeper"]["lost"]), (&json!(server.pid()), &json!(false)));
    kill(server.pid(), "KILL");
    server.wait();
    says(&home, "the keeper is gone").await; // its stderr is the one that the keeper had
    let after = status(&server).await;
    assert_eq!((&after["pid"], &after["keeper"]["lost"]), (&json!(pid), &json!(true)));
    let (code, problem) = server.send("/v1/server/restart", &json!({})).await;
    assert_eq!((code, &problem["code"]), (409, &json!("no_keeper")), "{problem}");
    let (code, input) = server.send(&format!("/v1/processes/{id}/input"), &json!({"data": "b24K"})).await;
    assert_eq!(code, 200, "{input}");
    let (_, end) = server.send(&format!("/v1/processes/{id}/wait"), &json!({})).await;
    assert_eq!(end["process"]["exitCode"], 9, "{end}");
    // Its exit code went to whoever has it now; that it ended is seen.
    std::fs::write(home.path().join("gate"), "").expect("written");
    wrote(&server, &of_the_keeper, "last words").await;
    ended(&server, &of_the_keeper).await;
    kill(pid, "TERM");
    until("its end", || !lives(pid)).await;
    assert_nothing(&home);
}

#[tokio::test]
async fn term_to_the_keeper_ends_everything() {
    let home = Home::new();
    let mut server = all_kinds(&home, &Options::kept()).await;
    let begun = Instant::now();
    kill(server.pid(), "TERM");
    assert_eq!(server.wait(), Some(0), "{}", Server::log(&home));
    assert!(begun.elapsed() < DEADLINE, "{:?}", begun.elapsed());
    assert_nothing(&home);
}

#[tokio::test]
async fn term_to_the_server_ends_everything_and_the_keeper() {
    let home = Home::new();
    let mut server = all_kinds(&home, &Options::kept()).await;
    server.crash(); // some of it isn't the new one's own child
    status(&server).await;
    kill(server.server_pid().expect("a server"), "TERM");
    assert_eq!(server.wait(), Some(0), "{}", Server::log(&home));
    assert_nothing(&home);
}

#[tokio::test]
async fn an_interrupt_from_the_terminal_stops_once() {
    let home = Home::new();
    let mut server = all_kinds(&home, &Options::kept().under(&["setsid"])).await;
    let sent = Command::new("sh").args(["-c", &format!("kill -INT -{}", server.pid())]).status().expect("sh runs");
    assert!(sent.success(), "it leads its group");
    assert_eq!(server.wait(), Some(0));
    let log = Server::log(&home);
    assert!(log.contains("signal=\"SIGINT\"") && !log.contains("second signal"), "{log}");
    assert_nothing(&home);
}

#[tokio::test]
async fn a_second_signal_reaches_the_server() {
    let home = Home::new();
    home.fake_agent("trap '' TERM", "--ignore-eof");
    let options = Options::kept().env("SANDBOXD_AGENT_STOP_GRACE_MS", "50000").env("SANDBOXD_SHUTDOWN_DEADLINE_MS", "60000");
    let mut server = Server::start_with(&home, &options);
    server.call("a", "amp", 1, "initialize", json!({})).await;
    kill(server.pid(), "TERM");
    says(&home, "stopping").await;
    kill(server.pid(), "TERM");
    assert_eq!(server.wait(), Some(0));
    assert!(Server::log(&home).contains("second signal"));
    assert_nothing(&home);
}

#[tokio::test]
async fn a_server_that_dies_while_it_stops_leaves_nothing() {
    let home = Home::new();
    let options = Options::kept().env("SANDBOXD_AGENT_STOP_GRACE_MS", "50000").env("SANDBOXD_SHUTDOWN_DEADLINE_MS", "60000");
    let mut server = all_kinds(&home, &options.env("SANDBOXD_PROCESS_SHUTDOWN_GRACE_MS", "50000")).await;
    let stubborn = "trap '' TERM; echo up; (trap '' TERM; sleep 1002; :) & while :; do sleep 1; done";
    let id = create(&server, sh(stubborn, json!({}))).await;
    wrote(&server, &id, "up").await;
    let escaped = "env -i setsid sh -c \"trap '' TERM; sleep 1003; sleep 1003\" & echo up";
    let id = create(&server, sh(escaped, json!({}))).await;
    wrote(&server, &id, "up").await;
    let pid = server.server_pid().expect("a server");
    kill(server.pid(), "TERM");
    says(&home, "stopping").await;
    kill(pid, "KILL");
    assert_eq!(server.wait(), Some(1), "it did not end as it should");
    assert_nothing(&home);
}

#[tokio::test]
async fn a_server_that_hangs_at_the_stop_is_killed() {
    let home = Home::new();
    let options = Options::kept().env("SANDBOXD_SHUTDOWN_DEADLINE_MS", "300");
    let mut server = all_kinds(&home, &options).await;
    kill(server.server_pid().expect("a server"), "STOP");
    kill(server.pid(), "TERM");
    assert_eq!(server.wait(), Some(1), "{}", Server::log(&home));
    assert!(Server::log(&home).contains("doesn't stop in time"));
    assert_nothing(&home);
}

#[tokio::test]
async fn pid_one_above_a_server_is_stopped_as_hosts_do() {
    for signal in ["TERM", "QUIT", "37"] {
        let home = Home::new();
        let Some((mut server, init)) = init_with(&home, Options::kept()) else { return };
        let script = "trap 'echo got it' USR1; echo up; while :; do sleep 0.05; done";
        let id = create(&server, sh(script, json!({}))).await;
        wrote(&server, &id, "up").await;
        create(&server, sh("trap '' TERM HUP; sleep 1000; :", json!({"tty": true}))).await;
        kill(init, "USR1");
        wrote(&server, &id, "got it").await;
        let begun = Instant::now();
        kill(init, signal);
        assert_eq!(server.wait(), Some(0), "{signal}: {}", Server::log(&home));
        assert!(begun.elapsed() < DEADLINE, "{signal}: {:?}", begun.elapsed());
        assert_nothing(&home);
    }
}

#[tokio::test]
async fn a_keeper_that_is_no_init_is_not_ended_by_user_signals() {
    let home = Home::new();
    let server = Server::start_with(&home, &Options::kept());
    let id = create(&server, sh("sleep 1000", json!({}))).await;
    let pid = server.server_pid();
    kill(server.pid(), "USR1");
    kill(server.pid(), "USR2");
    assert_eq!(info(&server, &id).await["status"], "running");
    assert_eq!((server.server_pid(), status(&server).await["restarts"].clone()), (pid, json!(0)));
    kill(server.pid(), "QUIT");
    let mut server = server;
    assert_eq!(server.wait(), Some(0), "it stops");
    assert_nothing(&home);
}

#[tokio::test]
async fn a_crash_is_told_in_status_log_and_events_without_secrets() {
    let home = Home::new();
    let options = Options::kept().env("RUST_LOG", "debug").env("MY_SECRET", "s3cr3t-in-the-log");
    let server = Server::start_with(&home, &options);
    assert_eq!(status(&server).await["crashes"], json!([]));
    server.get("/v1/s3cr3t-in-the-log").await;
    let pid = server.server_pid().expect("a server");
    kill(pid, "ABRT");
    until("its end", || !lives(pid)).await;
    let status = status(&server).await;
    let crash = &status["lastCrash"];
    assert_eq!((&status["restarts"], &status["crashes"]), (&json!(1), &json!([crash])));
    assert_eq!((&crash["pid"], &crash["ended"], &crash["upgrade"]), (&json!(pid), &json!({"signal": "SIGABRT"}), &json!(false)));
    assert!(crash["uptimeMs"].is_u64() && crash["stderr"].as_str().is_some_and(|text| text.contains("[redacted]")), "{crash}");
    assert!(!status.to_string().contains("s3cr3t"));
    let (_, events) = server.get("/v1/events?type=server.*").await;
    let event = &events["events"][0];
    assert_eq!((&event["type"], &event["reason"]), (&json!("server.restarted"), &json!("crash")), "{events}");
    assert_eq!((&event["crashId"], &event["starts"]), (&crash["id"], &json!(2)));
    assert!(Server::log(&home).contains("ended unexpectedly"));
    let reports = std::fs::read_dir(home.data().join("crash")).expect("a folder").flatten();
    for report in reports {
        assert!(!std::fs::read_to_string(report.path()).expect("text").contains("s3cr3t"));
    }
    assert_eq!(server.stop(), Some(0));
    let server = Server::start_with(&home, &options);
    let (_, again) = server.get("/v1/status").await;
    assert_eq!((&again["restarts"], &again["lastCrash"]), (&json!(0), crash), "it is kept");
}
