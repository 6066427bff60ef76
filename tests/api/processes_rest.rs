//! What goes on after a process ended, and what a restart or a reconnection must not lose.

use serde_json::{Value, json};

use crate::processes_support::{Nap, bytes, create, ended, info, output, page, post, run, sh, until, wrote};
use crate::support::{Home, Options, PATIENCE, Server};

#[tokio::test]
async fn limits_hold_for_what_is_left_in_the_background() {
    let home = Home::new();
    let server = Server::start(&home);
    let nap = Nap::new();
    let late = create(&server, sh(&format!("sleep {nap} & exit 0"), json!({"limits": {"wallTimeMs": 1000}}))).await;
    let loud = create(&server, sh("(sleep 1; exec yes) & exit 0", json!({"limits": {"outputBytes": 100_000}}))).await;
    for id in [&late, &loud] {
        let process = ended(&server, id).await;
        assert_eq!((&process["exitCode"], &process["exitReason"]), (&json!(0), &json!("exited")), "{process}");
    }
    nap.until_none().await;
    until("the end of yes", || home.processes().iter().all(|(_, command)| !command.starts_with("yes"))).await;
    assert_eq!(info(&server, &late).await["exitReason"], "exited", "what was shown stays");
}

#[tokio::test]
async fn more_in_the_background_than_allowed_is_not_read_on() {
    let home = Home::new();
    let server = Server::start_with(&home, &Options::default().env("SANDBOXD_PROCESSES_LINGERING_MAX", "2"));
    let nap = Nap::new();
    let script = format!("(while sleep 0.05; do echo still here; done; sleep {nap}) & exit 0");
    for _ in 0..4 {
        let id = create(&server, sh(&script, json!({}))).await;
        assert_eq!(ended(&server, &id).await["exitCode"], 0);
    }
    let loops = || home.processes().iter().filter(|(_, command)| command.contains("still here")).count();
    until("only two of them, as the others write to nobody", || loops() == 2).await;
    assert!(Server::log(&home).contains("too much goes on in the background"));
}

#[tokio::test]
async fn who_resumes_a_log_gets_all_that_came_since() {
    let home = Home::new();
    let server = Server::start(&home);
    let id = create(&server, sh("for i in $(seq 50); do echo $i; sleep 0.005; done", json!({}))).await;
    ended(&server, &id).await;
    let newest = page(&server, &id, "").await["lastSequence"].as_u64().expect("a number");
    let mut events = server.stream(&format!("/v1/processes/{id}/logs?follow=true&tail=3"), Some(2)).await;
    let all = events.until(|event| event.name == "end").await;
    let ids: Vec<u64> = all.iter().filter_map(|event| event.id).collect();
    assert_eq!(ids, (3..=newest).collect::<Vec<_>>());
}

#[tokio::test]
async fn who_follows_gets_far_more_than_the_log_holds() {
    let home = Home::new();
    // Beside many other tests this one may not run for longer than a follower is waited for.
    let server = Server::start_with(&home, &Options::default().env("SANDBOXD_TERMINAL_VIEWER_PATIENCE_MS", "20000"));
    let mut config = server.get("/v1/processes/config").await.1;
    config["maxLogBytesPerProcess"] = json!(1_000_000);
    post(&server, "/v1/processes/config", config).await;
    let id = create(&server, sh("read line; yes 0123456789 | head -c 20000000", json!({}))).await;
    let mut events = server.stream(&format!("/v1/processes/{id}/logs?follow=true"), None).await;
    post(&server, &format!("/v1/processes/{id}/input"), json!({"data": "go\n", "encoding": "utf8"})).await;
    let mut received = 0;
    loop {
        let event = events.next().await.expect("an event");
        match &*event.name {
            "log" => received += bytes(&event.data).len(),
            "end" => break,
            _ => panic!("nothing is missing: {event:?}"),
        }
    }
    assert_eq!(received, 20_000_000);
}

#[tokio::test]
async fn a_stream_that_leaves_everything_out_has_its_heartbeat() {
    let home = Home::new();
    let server = Server::start_with(&home, &Options::default().env("SANDBOXD_SSE_HEARTBEAT_MS", "300"));
    let id = create(&server, sh("while sleep 0.02; do echo out; done", json!({}))).await;
    let path = format!("/v1/processes/{id}/logs?follow=true&stream=stderr");
    let mut response = server.http.get(server.url(&path)).send().await.expect("an answer");
    let first = tokio::time::timeout(PATIENCE, response.chunk()).await.expect("something in time").expect("a chunk");
    assert_eq!(first.as_deref(), Some(&b": heartbeat\n\n"[..]));
}

#[tokio::test]
async fn a_terminals_input_may_end_at_once() {
    let home = Home::new();
    let server = Server::start(&home);
    let spec = json!({"command": "cat", "tty": true, "stdin": "hello\n", "closeStdin": true});
    let id = create(&server, spec).await;
    assert_eq!(ended(&server, &id).await["exitCode"], 0);
    assert!(String::from_utf8_lossy(&output(&page(&server, &id, "").await)).contains("hello"));
}

#[tokio::test]
async fn a_program_is_looked_for_in_the_working_directory() {
    let home = Home::new();
    let server = Server::start(&home);
    let folder = home.path().join("sub");
    std::fs::create_dir(&folder).expect("a folder");
    std::fs::write(folder.join("x"), "#!/bin/sh\npwd\n").expect("a script");
    std::fs::set_permissions(folder.join("x"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("executable");
    let here = std::env::current_dir().expect("a working directory"); // the server's, too
    let up = here.components().skip(1).map(|_| "..").collect::<Vec<_>>().join("/");
    let relative = format!("{up}{}", folder.display());
    let result = run(&server, json!({"command": "./x", "cwd": relative})).await;
    assert_eq!((&result["exitCode"], &result["stderr"]), (&json!(0), &json!("")), "{result}");
}

#[tokio::test]
async fn two_servers_in_one_home_have_scripts_of_their_own() {
    let home = Home::new();
    let (one, other) = (Server::start(&home), Server::start(&home));
    let script = |words: &str| json!({"script": {"language": "sh", "source": format!("read line\necho {words}\nexit 4\n")}});
    let ids = [create(&one, script("one")).await, create(&other, script("other")).await];
    assert_eq!(ids[0], ids[1], "the same number, so the same name");
    for (server, id, words) in [(&one, &ids[0], "one\n"), (&other, &ids[1], "other\n")] {
        post(server, &format!("/v1/processes/{id}/input"), json!({"data": "go\n", "encoding": "utf8"})).await;
        assert_eq!(ended(server, id).await["exitCode"], 4);
        assert_eq!(String::from_utf8_lossy(&output(&page(server, id, "").await)), words);
    }
}

#[tokio::test]
async fn a_killed_servers_scripts_are_gone_and_a_script_keeps_its_command() {
    let home = Home::new();
    let server = Server::start(&home);
    let id = create(&server, json!({"script": {"language": "sh", "source": "echo secret; exec sleep 1000"}})).await;
    wrote(&server, &id, "secret").await;
    let command = info(&server, &id).await["command"].clone();
    let scripts = || walk(&home.data().join("scripts"));
    assert_eq!(scripts(), 1);
    server.kill();
    let server = Server::start(&home);
    assert_eq!(scripts(), 0);
    assert_eq!(info(&server, &id).await["command"], command);
    assert_ne!(command, Value::from(""));
}

fn walk(folder: &std::path::Path) -> usize {
    let entries = std::fs::read_dir(folder).map(|entries| entries.flatten().collect::<Vec<_>>()).unwrap_or_default();
    entries.iter().map(|entry| if entry.path().is_dir() { walk(&entry.path()) } else { 1 }).sum()
}

#[tokio::test]
async fn stopping_an_ended_process_gives_its_rest_time() {
    let home = Home::new();
    let server = Server::start(&home);
    let mark = home.path().join("mark");
    let rest =
        format!("trap 'echo bye > {}; exit' TERM; echo armed > {}; while :; do sleep 0.05; done", mark.display(), mark.display());
    let id = create(&server, sh("sh -c \"$REST\" >/dev/null 2>&1 </dev/null & exit 0", json!({"env": {"REST": rest}}))).await;
    assert_eq!(ended(&server, &id).await["exitCode"], 0);
    let said = || std::fs::read_to_string(&mark).unwrap_or_default();
    until("the rest", || said() == "armed\n").await;
    let answer = post(&server, &format!("/v1/processes/{id}/stop"), json!({})).await;
    assert!(answer["tree"]["terminated"].as_u64() >= Some(1) && answer["tree"]["survived"] == 0, "{answer}");
    assert_eq!(said(), "bye\n");
}

#[tokio::test]
async fn finished_processes_go_when_their_logs_are_too_large_together_or_they_are_too_old() {
    let (large, old) = ("SANDBOXD_PROCESS_LOGS_MAX_BYTES", "SANDBOXD_PROCESSES_FINISHED_MAX_AGE_MS");
    for (bound, value) in [(large, "100000"), (old, "500")] {
        let home = Home::new();
        let server = Server::start_with(&home, &Options::default().env(bound, value));
        let first = create(&server, sh("head -c 60000 /dev/zero", json!({}))).await;
        ended(&server, &first).await;
        let second = create(&server, sh("sleep 1; head -c 60000 /dev/zero", json!({}))).await;
        ended(&server, &second).await;
        while server.get(&format!("/v1/processes/{first}")).await.0 != 404 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await; // its owner ends a moment after its exit is shown
        }
        until("the end of its log", || !home.data().join("spool/sandboxd/p1.0.spool").exists()).await;
    }
}
