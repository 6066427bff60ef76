//! The server goes, and comes back: what ran, what was written, what runs again.

use serde_json::{Value, json};

use crate::processes_support::{Nap, create, ended, followed, info, output, page, post, run, sh, until, wrote};
use crate::support::{Home, Server};

const COUNTER: &str = "i=0; while :; do i=$((i+1)); echo line $i; [ $i -lt 500 ] || sleep 0.01; done";

#[tokio::test]
async fn after_a_kill_logs_are_there_and_trees_are_gone() {
    let home = Home::new();
    let server = Server::start(&home);
    let nap = Nap::new();
    let finished = create(&server, sh("echo all of it; exit 4", json!({}))).await;
    ended(&server, &finished).await;
    let stubborn = format!("trap '' TERM HUP PIPE; setsid sleep {nap} & sleep 1; (env -i setsid sleep {nap} &); {COUNTER}");
    let running = create(&server, sh(&stubborn, json!({}))).await;
    let terminal =
        create(&server, sh(&format!("setsid sleep {nap} & echo on a terminal; exec sleep {nap}"), json!({"tty": true}))).await;
    wrote(&server, &terminal, "on a terminal").await;
    let mut live = server.stream(&format!("/v1/processes/{running}/logs?follow=true"), None).await;
    let mut seen = Vec::new();
    while !followed(&seen).windows(9).any(|nine| nine == b"line 600\n") {
        seen.push(live.next().await.expect("an event"));
    }
    nap.until_sleeping(4).await;
    server.kill();
    while let Some(event) = live.next().await {
        seen.push(event);
    }
    let server = Server::start(&home);
    nap.until_none().await;
    until("the end of all others", || home.processes().iter().all(|(_, command)| command.contains("sandboxd"))).await;
    let process = info(&server, &finished).await;
    assert_eq!((&process["exitCode"], &process["exitReason"]), (&json!(4), &json!("exited")), "{process}");
    assert_eq!(output(&page(&server, &finished, "").await), b"all of it\n");
    for id in [&running, &terminal] {
        let process = info(&server, id).await;
        assert_eq!((&process["status"], &process["exitReason"]), (&json!("exited"), &json!("server_lost")), "{process}");
        assert!(process["exitedAtMs"].is_u64() && process.get("pid").is_none(), "{process}");
    }
    let kept = output(&page(&server, &running, "").await);
    assert!(kept.starts_with(&followed(&seen)), "what a follower saw is there");
    assert!(String::from_utf8(output(&page(&server, &terminal, "").await)).expect("text").contains("on a terminal"));
    let again = create(&server, sh("exit 0", json!({}))).await;
    let number = |id: &str| id.strip_prefix("proc_").and_then(|number| number.parse::<u64>().ok()).expect("an id");
    assert!(number(&again) > number(&terminal), "{again}");
    assert_eq!(post(&server, &format!("/v1/processes/{running}/stop"), json!({})).await["exitReason"], "server_lost");
    assert_eq!(crate::processes_support::delete(&server, &running).await, 204);
    assert_eq!(server.stop(), Some(0));
    let server = Server::start(&home);
    assert_eq!(server.get(&format!("/v1/processes/{running}")).await.0, 404, "what is deleted stays so");
    assert_eq!(info(&server, &terminal).await["exitReason"], "server_lost");
    assert_eq!(run(&server, sh("echo fine", json!({}))).await["exitCode"], 0);
}

#[tokio::test]
async fn what_should_always_run_runs_again_with_its_log() {
    let home = Home::new();
    let mut server = Server::start(&home);
    let nap = Nap::new();
    let spec = json!({"restart": "always", "env": {"GREETING": "hello"}, "stdin": "first words\n", "idempotencyKey": "k"});
    let script = format!("read words; echo $GREETING, $words; exec sleep {nap}");
    let always = create(&server, sh(&script, spec.clone())).await;
    let on_failure = create(&server, sh(&format!("echo up; exec sleep {nap}"), json!({"restart": "on_failure"}))).await;
    let stopped = create(&server, sh(&format!("exec sleep {nap}"), json!({"restart": "always"}))).await;
    post(&server, &format!("/v1/processes/{stopped}/stop"), json!({})).await;
    let created = info(&server, &always).await["createdAtMs"].clone();
    let greeting = b"hello, first words\n".to_vec();
    for (round, kill) in [true, false, true].into_iter().enumerate() {
        wrote(&server, &on_failure, "up").await;
        let expected = greeting.repeat(round + 1);
        while output(&page(&server, &always, "").await) != expected {
            assert_eq!(info(&server, &always).await["status"], "running");
        }
        nap.until_sleeping(if round < 2 { 2 } else { 1 }).await;
        if kill {
            server.kill()
        } else {
            assert_eq!(server.stop(), Some(0))
        }
        server = Server::start(&home);
        let process = info(&server, &always).await;
        assert_eq!((&process["status"], &process["createdAtMs"]), (&json!("running"), &created), "{process}");
        assert_eq!(process["restarts"], round + 1, "{process}");
        let process = info(&server, &on_failure).await;
        let expected = if round == 0 { "running" } else { "exited" };
        assert_eq!(process["status"], expected, "a stop of the server is no failure: {process}");
        assert_eq!(info(&server, &stopped).await["status"], "exited", "what was stopped stays so");
        if round == 1 {
            assert_eq!(process["exitReason"], "server_stopped", "{process}");
        }
    }
    let (status, answer) = server.send("/v1/processes", &sh(&script, spec)).await;
    assert_eq!((status, &answer["id"]), (200, &Value::from(always)), "the key still holds");
    assert_eq!(server.stop(), Some(0));
    assert_eq!(nap.sleepers(), 0);
    home.assert_empty();
}
