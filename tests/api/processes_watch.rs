//! Searching, waiting, signalling, and the feed of what happens.

use std::time::Duration;

use serde_json::{Value, json};

use crate::processes_support::{create, ended, info, post, run, sh, wait, wrote};
use crate::support::{Event, Home, Options, Server};

#[tokio::test]
async fn waits_end_with_what_comes_first() {
    let home = Home::new();
    let server = Server::start(&home);
    let id = create(&server, sh("echo starting; printf 'name? '; read name; echo \"hello $name\"; sleep 0.3; exit 3", json!({})))
        .await;
    let met = wait(&server, &id, json!({"output": {"pattern": "name\\? $"}})).await;
    assert_eq!((&met["met"], &met["match"]["line"]), (&json!("output"), &json!("name? ")), "a prompt has no line end: {met}");
    let quiet = wait(&server, &id, json!({"quietMs": 150})).await;
    assert_eq!(quiet["met"], "quiet", "{quiet}");
    assert!(quiet["waitedMs"].as_u64() >= Some(150));
    let late = wait(&server, &id, json!({"output": {"pattern": "never"}, "timeoutMs": 100})).await;
    assert_eq!((&late["timedOut"], late.get("met")), (&json!(true), None), "{late}");
    assert_eq!(late["process"]["status"], "running");
    let path = format!("/v1/processes/{id}/wait");
    let hello = json!({"output": {"pattern": "^name\\? hello (\\w+)$"}, "port": 0, "timeoutMs": 20_000});
    let never = json!({"output": {"pattern": "never"}, "quietMs": 20_000, "port": 1, "timeoutMs": 20_000});
    let input = json!({"data": "you\n", "encoding": "utf8"});
    let (waited, none, _) = tokio::join!(server.send(&path, &hello), server.send(&path, &never), async {
        post(&server, &format!("/v1/processes/{id}/input"), input).await
    },);
    assert_eq!((&waited.1["met"], &waited.1["match"]["line"]), (&json!("output"), &json!("name? hello you")), "{}", waited.1);
    assert_eq!((&none.1["met"], &none.1["process"]["exitCode"]), (&json!("exit"), &json!(3)), "the exit ends every wait");
    let after = wait(&server, &id, json!({"output": {"pattern": "starting"}})).await;
    assert_eq!(after["met"], "output", "what was written before counts: {after}");
    let since = after["match"]["sequence"].as_u64().expect("a sequence");
    let after = wait(&server, &id, json!({"output": {"pattern": "starting", "since": since}})).await;
    assert_eq!(after["met"], "exit", "{after}");
    for (body, status) in
        [(json!({"output": {"pattern": "("}}), 400), (json!({"output": {}}), 422), (json!({"timeoutMs": 3_600_001}), 400)]
    {
        assert_eq!(server.send(&path, &body).await.0, status, "{body}");
    }
}

#[tokio::test]
async fn lines_are_found_whatever_pieces_they_came_in() {
    let home = Home::new();
    let server = Server::start(&home);
    let script = "printf 'nee'; sleep 0.05; printf '\\033[31mdle\\033[0m\\n'; echo other >&2; seq 1 3000; echo needle again";
    let id = create(&server, sh(script, json!({}))).await;
    ended(&server, &id).await;
    let (status, found) = server.get(&format!("/v1/processes/{id}/search?pattern=needle&context=1")).await;
    assert_eq!((status, &found["total"], &found["truncated"]), (200, &json!(2), &json!(false)), "{found}");
    assert_eq!((&found["matches"][0]["content"], &found["matches"][1]["content"]), (&json!("needle"), &json!("needle again")));
    let (_, found) = server.get(&format!("/v1/processes/{id}/search?pattern=5%24&limit=3&stream=stdout")).await;
    assert_eq!((&found["total"], &found["truncated"]), (&json!(300), &json!(true)), "{found}");
    assert_eq!(found["matches"].as_array().map(Vec::len), Some(3));
    let (_, found) = server.get(&format!("/v1/processes/{id}/search?pattern=other&stream=stdout")).await;
    assert_eq!(found["total"], 0);
    assert_eq!(server.get(&format!("/v1/processes/{id}/search?pattern=x&source=screen")).await.0, 409, "it has no screen");
    let id = create(&server, sh("echo on the screen; exec cat", json!({"tty": true}))).await;
    wrote(&server, &id, "on the screen").await;
    let (_, found) = server.get(&format!("/v1/processes/{id}/search?pattern=on+the")).await;
    assert_eq!((&found["total"], &found["matches"][0]["source"]), (&json!(1), &json!("screen")), "{found}");
}

#[tokio::test]
async fn signals_reach_whom_they_are_meant_for() {
    let home = Home::new();
    let server = Server::start(&home);
    // Three members: the process, one of its group, one of another session.
    let member = |name: &str| format!("trap 'echo {name} got it' USR1; echo {name} up; while :; do sleep 0.02; done");
    let script = format!("sh -c \"{}\" & setsid sh -c \"{}\" & {}", member("inner"), member("outer"), member("first"));
    for (scope, reached) in
        [("process", vec!["first"]), ("group", vec!["first", "inner"]), ("tree", vec!["first", "inner", "outer"])]
    {
        let id = create(&server, sh(&script, json!({}))).await;
        for name in ["first", "inner", "outer"] {
            wrote(&server, &id, &format!("{name} up")).await;
        }
        let sent = post(&server, &format!("/v1/processes/{id}/signal"), json!({"signal": "USR1", "scope": scope})).await;
        let count = sent["signalled"].as_u64().expect("a number");
        assert!(if scope == "tree" { count >= 3 } else { count == 1 }, "{scope}: {sent}");
        for name in &reached {
            wrote(&server, &id, &format!("{name} got it")).await;
        }
        wait(&server, &id, json!({"quietMs": 100})).await;
        let (_, found) = server.get(&format!("/v1/processes/{id}/search?pattern=got+it")).await;
        assert_eq!(found["total"], reached.len(), "{scope}: {found}");
        post(&server, &format!("/v1/processes/{id}/kill"), json!({})).await;
    }
    let id = create(&server, sh("echo up; exec sleep 1000", json!({}))).await;
    wrote(&server, &id, "up").await;
    post(&server, &format!("/v1/processes/{id}/signal"), json!({"signal": "INT"})).await;
    let process = ended(&server, &id).await;
    assert_eq!((&process["exit"]["signal"], &process["exitReason"]), (&json!("SIGINT"), &json!("exited")), "{process}");
    let id = create(&server, sh("trap 'echo parent lives' INT; echo up; sleep 1000; echo after", json!({"tty": true}))).await;
    wrote(&server, &id, "up").await;
    post(&server, &format!("/v1/processes/{id}/signal"), json!({"signal": "STOP", "scope": "tree"})).await;
    let stopped = post(&server, &format!("/v1/processes/{id}/stop"), json!({})).await;
    assert_eq!((&stopped["status"], &stopped["tree"]["survived"]), (&json!("exited"), &json!(0)), "{stopped}");
}

const LISTEN: &str = "import socket\ns = socket.socket()\ns.bind(('127.0.0.1', 0))\ns.listen()\n\
    print('port', s.getsockname()[1], flush=True)\ninput()\ns.close()\nprint('closed', flush=True)\ninput()";

#[tokio::test]
async fn ports_are_seen_to_open_and_close() {
    let home = Home::new();
    let server = Server::start_with(&home, &Options::default().env("SANDBOXD_PORTS_POLL_MS", "50"));
    let mut feed = server.stream("/v1/processes/events", None).await;
    let id = create(&server, json!({"command": "python3", "args": ["-c", LISTEN]})).await;
    let met = wait(&server, &id, json!({"port": 0})).await;
    assert_eq!(met["met"], "port", "{met}");
    let port = met["port"].as_u64().expect("a port");
    assert_eq!(wrote(&server, &id, "^port").await["match"]["line"], format!("port {port}"));
    assert_eq!(wait(&server, &id, json!({"port": port})).await["met"], "port");
    let (_, list) = server.get("/v1/ports").await;
    let shown = list["ports"].as_array().expect("ports").iter().find(|shown| shown["port"] == port).expect("the port");
    assert_eq!((&shown["processId"], &shown["owner"]), (&json!(id), &json!("user")), "{shown}");
    assert_eq!(shown["pid"], info(&server, &id).await["pid"], "{shown}");
    let is = move |kind: &'static str| move |event: &Event| event.data["type"] == kind && event.data["port"]["port"] == port;
    feed.until(is("port.opened")).await;
    post(&server, &format!("/v1/processes/{id}/input"), json!({"data": "\n", "encoding": "utf8"})).await;
    feed.until(is("port.closed")).await;
    wrote(&server, &id, "closed").await;
    let (_, list) = server.get("/v1/ports").await;
    assert!(list["ports"].as_array().expect("ports").iter().all(|shown| shown["port"] != port), "{list}");
}

#[tokio::test]
async fn the_feed_tells_what_happened_also_later_and_after_a_restart() {
    let home = Home::new();
    let server = Server::start(&home);
    let id = create(&server, sh("exit 4", json!({}))).await;
    ended(&server, &id).await;
    let ran = run(&server, sh("echo x; exit 5", json!({}))).await;
    let again = create(&server, sh("exit 1", json!({"restart": "on_failure"}))).await;
    while info(&server, &again).await["restarts"].as_u64().is_none() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    post(&server, &format!("/v1/processes/{again}/stop"), json!({})).await;
    assert_eq!(crate::processes_support::delete(&server, &id).await, 204);
    let check = async |server: &Server| {
        let mut feed = server.stream("/v1/processes/events", None).await;
        let events = feed.until(|event| event.data["type"] == "process.deleted").await;
        let of = |kind: &str, id: &Value| {
            let fits =
                |event: &&Event| event.data["type"] == kind && (event.data["process"]["id"] == *id || event.data["id"] == *id);
            events.iter().filter(fits).map(|event| event.data.clone()).collect::<Vec<_>>()
        };
        assert_eq!(of("process.started", &json!(id)).len(), 1);
        let exited = of("process.exited", &json!(id));
        assert_eq!((exited.len(), &exited[0]["process"]["exitCode"]), (1, &json!(4)));
        let runs = of("process.ran", &ran["processId"]);
        assert_eq!((runs.len(), &runs[0]["exit"]["code"], &runs[0]["stdoutBytes"]), (1, &json!(5), &json!(2)));
        assert!(!of("process.restarted", &json!(again)).is_empty());
        assert_eq!(events.last().expect("one").data["ids"], json!([id]));
        let ids: Vec<_> = events.iter().map(|event| event.id.expect("an id")).collect();
        assert!(ids.is_sorted(), "{ids:?}");
        let resumed = server.stream("/v1/processes/events", Some(ids[0])).await.next().await.expect("an event");
        assert_eq!(resumed.id, Some(ids[1]));
    };
    check(&server).await;
    server.kill();
    check(&Server::start(&home)).await;
}
