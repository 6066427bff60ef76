//! Whatever a process starts is ended with it.

use serde_json::{Value, json};

use crate::processes_support::{Nap, create, delete, ended, info, post, run, sh, until, wrote};
use crate::support::{Home, Options, Server};

/// Ways out of a process's tree. Without limits a tree has a cgroup only once it lived for a moment.
fn escapes(nap: &Nap) -> [(&'static str, String); 5] {
    [
        ("a child", format!("sleep {nap} &")),
        ("its own session", format!("setsid sleep {nap} &")),
        ("a double fork", format!("(setsid sh -c 'sleep {nap} & sleep {nap} & wait' &)")),
        ("a wiped environment", format!("env -i setsid sleep {nap} &")),
        ("a double fork with a wiped environment", format!("sleep 1; (env -i setsid sh -c 'sleep {nap} & exec sleep {nap}' &)")),
    ]
}

#[tokio::test]
async fn a_run_that_takes_too_long_ends_with_all_it_started() {
    let home = Home::new();
    let server = Server::start(&home);
    let nap = Nap::new();
    for (what, escape) in &escapes(&nap)[..3] {
        let script = format!("{escape}\necho begun; echo problem >&2; exec sleep {nap}");
        let result = run(&server, sh(&script, json!({"timeoutMs": 1500}))).await;
        assert_eq!((&result["timedOut"], &result["exitCode"]), (&json!(true), &Value::Null), "{what}: {result}");
        assert_eq!((&result["stdout"], &result["stderr"]), (&json!("begun\n"), &json!("problem\n")), "{what}");
        assert_eq!((&result["tree"]["survived"], &result["exitReason"]), (&json!(0), &json!("wall_time_limit")), "{what}");
        assert!(result["tree"]["killed"].as_u64() >= Some(2), "{what}: {result}");
        assert!(result["durationMs"].as_u64() < Some(10_000), "{what}: {result}");
        assert_eq!(nap.sleepers(), 0, "{what}: the answer comes when all are dead");
    }
}

#[tokio::test]
async fn a_flooding_run_ends_at_its_time() {
    let home = Home::new();
    let server = Server::start(&home);
    let script = "yes out & yes more & yes err >&2 & yes err >&2";
    let result = run(&server, sh(script, json!({"timeoutMs": 500, "maxOutputBytes": 100}))).await;
    assert_eq!((&result["timedOut"], &result["stdoutTruncated"]), (&json!(true), &json!(true)), "{result}");
    assert!(result["durationMs"].as_u64() < Some(10_000), "{result}");
    home_has_only_the_server(&home).await;
}

async fn home_has_only_the_server(home: &Home) {
    until("the end of all others", || home.processes().iter().all(|(_, command)| command.contains("sandboxd"))).await;
}

#[tokio::test]
async fn stop_and_kill_find_all_that_a_process_started() {
    let home = Home::new();
    let server = Server::start(&home);
    let nap = Nap::new();
    for verb in ["stop", "kill"] {
        for (what, escape) in escapes(&nap) {
            let id = create(&server, sh(&format!("{escape}\nsleep {nap}; :"), json!({}))).await;
            nap.until_sleeping(if what.starts_with("a double") { 3 } else { 2 }).await;
            let ended = post(&server, &format!("/v1/processes/{id}/{verb}"), json!({})).await;
            let reason = if verb == "stop" { "stopped" } else { "killed" };
            assert_eq!((&ended["status"], &ended["exitReason"]), (&json!("exited"), &json!(reason)), "{verb}, {what}: {ended}");
            let tree = &ended["tree"];
            assert_eq!(tree["survived"], 0, "{verb}, {what}: {ended}");
            let count = if verb == "stop" { &tree["terminated"] } else { &tree["killed"] };
            assert!(count.as_u64() >= Some(3) && (verb == "stop" || tree["terminated"] == 0), "{verb}, {what}: {ended}");
            assert_eq!(nap.sleepers(), 0, "{verb}, {what}");
        }
    }
}

#[tokio::test]
async fn with_limits_what_escapes_at_once_is_found_nevertheless() {
    let home = Home::new();
    let server = Server::start(&home);
    let nap = Nap::new();
    let script = format!("(env -i setsid sleep {nap} >/dev/null 2>&1 &) ; exec sleep {nap}");
    let limits = json!({"limits": {"pids": 100}}); // with those it starts in its cgroup
    for _ in 0..5 {
        let ids = futures_util::future::join_all((0..12).map(|_| create(&server, sh(&script, limits.clone())))).await;
        nap.until_sleeping(24).await;
        let paths: Vec<_> = ids.iter().map(|id| format!("/v1/processes/{id}/kill")).collect();
        futures_util::future::join_all(paths.iter().map(|path| post(&server, path, json!({})))).await;
        assert_eq!(nap.sleepers(), 0);
    }
}

#[tokio::test]
async fn a_run_doesnt_wait_for_what_it_leaves_in_the_background() {
    let home = Home::new();
    let server = Server::start(&home);
    let nap = Nap::new();
    let script = format!("sleep {nap} & setsid sleep {nap} & echo done; exit 3");
    let result = run(&server, sh(&script, json!({"timeoutMs": 60_000}))).await;
    assert_eq!((&result["exitCode"], &result["stdout"]), (&json!(3), &json!("done\n")), "{result}");
    assert_eq!((&result["leftRunning"], &result["timedOut"]), (&json!(2), &json!(false)), "{result}");
    assert!(result["durationMs"].as_u64() < Some(20_000), "{result}");
    assert_eq!(nap.sleepers(), 2, "they live on");
    assert_eq!(server.stop(), Some(0));
    assert_eq!(nap.sleepers(), 0, "they end with the server");
}

#[tokio::test]
async fn a_flood_from_the_background_delays_no_exit() {
    let home = Home::new();
    let server = Server::start(&home);
    let script = "yes out & yes more & yes err >&2 & yes err >&2 & exit 3";
    let result = run(&server, sh(script, json!({"timeoutMs": 60_000, "maxOutputBytes": 100}))).await;
    assert_eq!((&result["exitCode"], &result["leftRunning"]), (&json!(3), &json!(4)), "{result}");
    assert!(result["durationMs"].as_u64() < Some(10_000), "{result}");
    let id = create(&server, sh(script, json!({}))).await;
    assert_eq!(ended(&server, &id).await["exitCode"], 3);
    let answer = post(&server, &format!("/v1/processes/{id}/kill"), json!({})).await;
    assert_eq!(answer["tree"]["killed"], 4, "{answer}");
    assert_eq!(delete(&server, &id).await, 204);
}

#[tokio::test]
async fn what_an_ended_process_left_behind_can_be_ended() {
    let home = Home::new();
    let server = Server::start(&home);
    for redirected in ["", ">/dev/null 2>&1 </dev/null"] {
        for verb in ["stop", "kill", "delete"] {
            let nap = Nap::new();
            for (what, escape) in escapes(&nap) {
                let script = format!("exec 3>&1; ( {escape} ) 3>&- {redirected}; exit 5");
                let limits = json!({"limits": {"pids": 100}}); // it starts in its cgroup
                let id = create(&server, sh(&script, limits)).await;
                assert_eq!(ended(&server, &id).await["exitCode"], 5);
                nap.until_sleeping(1).await;
                let what = format!("{verb} {redirected}, {what}");
                if verb == "delete" {
                    assert_eq!(delete(&server, &id).await, 204, "{what}");
                    assert_eq!(delete(&server, &id).await, 404, "{what}");
                } else {
                    let answer = post(&server, &format!("/v1/processes/{id}/{verb}"), json!({})).await;
                    assert_eq!((&answer["exitCode"], &answer["exitReason"]), (&json!(5), &json!("exited")), "{what}: {answer}");
                    assert_eq!(answer["tree"]["survived"], 0, "{what}: {answer}");
                }
                assert_eq!(nap.sleepers(), 0, "{what}");
            }
        }
    }
}

#[tokio::test]
async fn what_ignores_term_is_killed_after_the_grace() {
    let home = Home::new();
    let server = Server::start_with(&home, &Options::default().env("SANDBOXD_PROCESS_STOP_GRACE_MS", "300"));
    let nap = Nap::new();
    let script = format!("trap '' TERM; sh -c 'trap \"\" TERM; sleep {nap}; :' & echo ready; while :; do sleep {nap}; done");
    let id = create(&server, sh(&script, json!({}))).await;
    wrote(&server, &id, "ready").await;
    nap.until_sleeping(2).await;
    let answer = post(&server, &format!("/v1/processes/{id}/stop"), json!({})).await;
    assert_eq!((&answer["status"], &answer["exitReason"]), (&json!("exited"), &json!("stopped")), "{answer}");
    assert_eq!(answer["exit"], json!({"signal": "SIGKILL", "number": 9}), "{answer}");
    assert!(answer["tree"]["killed"].as_u64() >= Some(2) && answer["tree"]["survived"] == 0, "{answer}");
    assert_eq!(nap.sleepers(), 0);

    let id = create(&server, sh(&script, json!({}))).await;
    wrote(&server, &id, "ready").await;
    let answer = post(&server, &format!("/v1/processes/{id}/stop?waitMs=0"), json!({})).await;
    assert_eq!(answer["status"], "running", "it answers at once: {answer}");
    let process = ended(&server, &id).await;
    assert_eq!(process["exitReason"], "stopped", "{process}");
    nap.until_none().await;
    assert_eq!(info(&server, &id).await["exit"]["signal"], "SIGKILL");
}
