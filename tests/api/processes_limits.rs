//! What a process may use, how many may run, and what happens when one ends.

use serde_json::{Value, json};

use crate::processes_support::{Nap, create, ended, info, output, page, post, run, sh, until};
use crate::support::{Home, Server};

#[tokio::test(flavor = "multi_thread")]
async fn as_many_run_as_are_allowed_and_no_more() {
    let home = Home::new();
    let server = Server::start(&home);
    let attempts = async |count: usize| {
        let spec = sh("exec cat", json!({}));
        let all = futures_util::future::join_all((0..count).map(|_| server.send("/v1/processes", &spec))).await;
        for (status, answer) in all.iter().filter(|(status, _)| *status != 200) {
            assert_eq!(*status, 409, "{answer}");
            assert!(answer["detail"].as_str().is_some_and(|words| words.contains("max concurrent process limit")), "{answer}");
        }
        all.into_iter().filter(|(status, _)| *status == 200).map(|(_, info)| info).collect::<Vec<_>>()
    };
    let mut running = attempts(200).await;
    assert_eq!(running.len(), 64);
    assert!(attempts(1).await.is_empty());
    assert_eq!(run(&server, sh("echo runs are not counted", json!({}))).await["exitCode"], 0);
    let mut config = server.get("/v1/processes/config").await.1;
    config["maxConcurrentProcesses"] = json!(70);
    post(&server, "/v1/processes/config", config.clone()).await;
    running.extend(attempts(20).await);
    assert_eq!(running.len(), 70);
    let first = running.remove(0)["id"].as_str().expect("an id").to_owned();
    post(&server, &format!("/v1/processes/{first}/input"), json!({"eof": true})).await;
    ended(&server, &first).await;
    assert_eq!(attempts(10).await.len(), 1, "the place is free once the exit is shown");
    config["maxConcurrentProcesses"] = json!(1);
    post(&server, "/v1/processes/config", config).await;
    assert!(attempts(1).await.is_empty(), "a lower limit ends nobody");
    assert_eq!(server.get("/v1/processes?status=running").await.1["processes"].as_array().map(Vec::len), Some(70));
    let (status, refused) = server.send("/v1/processes", &json!({"command": "no-such-program"})).await;
    assert!(status == 409 || status == 422, "{refused}");
    assert_eq!(server.stop(), Some(0));
    home.assert_empty();
}

/// What breaches each limit, and keeps running otherwise.
fn greedy(nap: &Nap) -> [(&'static str, Value, Value); 4] {
    let hungry =
        "import time; block = bytearray(300 << 20)\nfor at in range(0, len(block), 4096): block[at] = 1\ntime.sleep(1000)";
    [
        ("wall_time_limit", sh(&format!("sleep {nap} & sleep {nap}"), json!({})), json!({"wallTimeMs": 300})),
        ("output_limit", sh(&format!("sleep {nap} & yes"), json!({})), json!({"outputBytes": 100_000})),
        (
            "memory_limit",
            sh(&format!("sleep {nap} & python3 -c '{hungry}'; exit 1"), json!({})),
            json!({"memoryBytes": 64 << 20}),
        ),
        (
            "pids_limit",
            sh(&format!("i=0; while [ $i -lt 60 ]; do sleep {nap} & i=$((i+1)); done; sleep {nap}; exit 1"), json!({})),
            json!({"pids": 20}),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_ends_the_tree_and_is_named() {
    let home = Home::new();
    let server = Server::start(&home);
    let nap = Nap::new();
    for (reason, mut spec, limits) in greedy(&nap) {
        spec["limits"] = limits;
        let id = create(&server, spec.clone()).await;
        let process = ended(&server, &id).await;
        assert_eq!(process["exitReason"], reason, "{process}");
        nap.until_none().await;
        spec["timeoutMs"] = json!(60_000);
        let result = run(&server, spec).await;
        assert_eq!(result["exitReason"], reason, "{result}");
        assert_eq!(result["timedOut"], reason == "wall_time_limit", "{result}");
        nap.until_none().await;
    }
    let limits = json!({"wallTimeMs": 60_000, "outputBytes": 6, "memoryBytes": 256 << 20, "pids": 20});
    let id = create(&server, sh("echo hello", json!({"limits": limits}))).await;
    assert_eq!(ended(&server, &id).await["exitReason"], "exited");
    let result = run(&server, sh("echo hello", json!({"limits": limits}))).await;
    assert_eq!((&result["exitReason"], &result["stdout"]), (&json!("exited"), &json!("hello\n")), "{result}");
    let (status, refused) = server.send("/v1/processes", &sh("true", json!({"limits": {"pids": 0}}))).await;
    assert_eq!(status, 400, "{refused}");
}

#[tokio::test]
async fn what_fails_is_started_again_and_what_succeeds_is_not() {
    let home = Home::new();
    let server = Server::start(&home);
    let marks = home.path().join("starts");
    let script = format!("echo $$ >> {0}; echo attempt; test $(wc -l < {0}) -ge 4", marks.display());
    let id = create(&server, sh(&script, json!({"restart": "on_failure"}))).await;
    let process = ended(&server, &id).await;
    assert_eq!((&process["exitCode"], &process["restarts"]), (&json!(0), &json!(3)), "{process}");
    assert_eq!(output(&page(&server, &id, "").await), b"attempt\n".repeat(4), "one log for all");
    let took = process["exitedAtMs"].as_u64().expect("a time") - process["createdAtMs"].as_u64().expect("a time");
    assert!(took >= 100 + 200 + 400, "the pauses grow: {took} ms");
    let id = create(&server, sh("exit 0", json!({"restart": "on_failure"}))).await;
    let process = ended(&server, &id).await;
    assert!(process.get("restarts").is_none(), "{process}");
    let id = create(&server, sh("exit 7", json!({}))).await;
    assert!(ended(&server, &id).await.get("restarts").is_none());
}

async fn restarted(server: &Server, id: &str, times: u64) {
    while info(server, id).await["restarts"].as_u64() < Some(times) {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn restarts_go_on_until_somebody_ends_them() {
    let home = Home::new();
    let server = Server::start(&home);
    for verb in ["stop", "kill"] {
        let nap = Nap::new();
        let id = create(&server, sh(&format!("setsid sleep {nap} & exit 0"), json!({"restart": "always"}))).await;
        restarted(&server, &id, 2).await;
        while info(&server, &id).await["status"] != "restarting" {}
        assert_eq!(crate::processes_support::delete(&server, &id).await, 409, "it is about to run again");
        let answer = post(&server, &format!("/v1/processes/{id}/{verb}"), json!({})).await;
        assert_eq!(answer["status"], "exited", "{answer}");
        let restarts = answer["restarts"].clone();
        nap.until_none().await;
        // Longer than any pause that was due.
        tokio::time::sleep(std::time::Duration::from_millis(1_000)).await;
        let process = info(&server, &id).await;
        assert_eq!((&process["status"], &process["restarts"]), (&json!("exited"), &restarts), "{verb}: {process}");
    }
    let id = create(&server, sh("exec sleep 1000", json!({"restart": "always"}))).await;
    for _ in 0..2 {
        let pid = info(&server, &id).await["pid"].as_u64().expect("a pid");
        crate::support::kill(u32::try_from(pid).expect("a pid"), "KILL");
        while info(&server, &id).await["pid"].as_u64().is_none_or(|now| now == pid) {}
    }
    let stopped = post(&server, &format!("/v1/processes/{id}/stop"), json!({})).await;
    assert_eq!((&stopped["status"], &stopped["exitReason"]), (&json!("exited"), &json!("stopped")), "{stopped}");
}

#[tokio::test]
async fn a_breach_is_a_failure_and_starts_again() {
    let home = Home::new();
    let server = Server::start(&home);
    for (limits, restart) in [(json!({"wallTimeMs": 100}), "on_failure"), (json!({"outputBytes": 10}), "always")] {
        let id =
            create(&server, sh("echo more than ten bytes; exec sleep 1000", json!({"limits": limits, "restart": restart}))).await;
        restarted(&server, &id, 2).await;
        let stopped = post(&server, &format!("/v1/processes/{id}/stop"), json!({})).await;
        assert_eq!(stopped["status"], "exited", "{stopped}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_starts_one_thing_once() {
    let home = Home::new();
    let server = Server::start(&home);
    let marks = home.path().join("starts");
    for (path, key) in [("/v1/processes", "a"), ("/v1/processes/run", "b")] {
        let spec = sh(&format!("echo x >> {}; sleep 0.3; echo done", marks.display()), json!({"idempotencyKey": key}));
        let _ = std::fs::remove_file(&marks);
        let answers = futures_util::future::join_all((0..20).map(|_| server.send(path, &spec))).await;
        let name = if path.ends_with("run") { "processId" } else { "id" };
        let first = answers[0].1[name].clone();
        for (status, answer) in &answers {
            assert_eq!((*status, &answer[name]), (200, &first), "{answer}");
        }
        until("the start", || marks.exists()).await;
        let (status, refused) = server.send(path, &sh("exit 1", json!({"idempotencyKey": key}))).await;
        assert_eq!(status, 409, "{refused}");
        if name == "id" {
            ended(&server, first.as_str().expect("an id")).await;
        }
        let (status, again) = server.send(path, &spec).await;
        assert_eq!((status, &again[name]), (200, &first), "also when it has ended: {again}");
        assert_eq!(std::fs::read_to_string(&marks).expect("marks"), "x\n");
    }
    for path in ["/v1/processes", "/v1/processes/run"] {
        let (status, _) = server.send(path, &json!({"command": "no-such-program", "idempotencyKey": "c"})).await;
        assert_eq!(status, 422);
        let (status, answer) = server.send(path, &sh("exit 0", json!({"idempotencyKey": "c"}))).await;
        assert_eq!(status, 200, "a failed request leaves the key free: {answer}");
    }
}
