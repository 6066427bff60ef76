//! What outlives the server: with a keeper, as users have it.

use std::time::Duration;

use base64::Engine as _;
use serde_json::{Value, json};

use crate::support::{Home, Options, Server, patient};

async fn create(server: &Server, body: Value) -> Value {
    let (status, process) = server.send("/v1/processes", &body).await;
    assert_eq!(status, 200, "{process}");
    process
}

async fn output(server: &Server, id: &str) -> String {
    let (status, logs) = server.get(&format!("/v1/processes/{id}/logs?encoding=utf8")).await;
    assert_eq!(status, 200, "{logs}");
    logs["entries"].as_array().expect("entries").iter().map(|entry| entry["data"].as_str().expect("text")).collect()
}

async fn ended(server: &Server, id: &str) -> Value {
    patient(async || {
        let (_, process) = server.get(&format!("/v1/processes/{id}")).await;
        (process["status"] == "exited").then_some(process)
    })
    .await
}

#[tokio::test]
async fn processes_outlive_the_server_with_output_and_exit_code() {
    let home = Home::new();
    let server = Server::start_with(&home, &Options::kept());
    let script = "for i in $(seq 1 40); do echo line $i; sleep 0.02; done; exit 7";
    let process = create(&server, json!({"command": "sh", "args": ["-c", script]})).await;
    let id = process["id"].as_str().expect("an id");
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        server.crash();
        let (_, again) = server.get(&format!("/v1/processes/{id}")).await;
        assert_eq!((&again["pid"], &again["status"]), (&process["pid"], &json!("running")), "{again}");
    }
    let end = ended(&server, id).await;
    assert_eq!((&end["exitCode"], &end["exitReason"]), (&json!(7), &json!("exited")), "{end}");
    let expected: String = (1..=40).map(|number| format!("line {number}\n")).collect();
    assert_eq!(output(&server, id).await, expected);
    assert_eq!(server.stop(), Some(0));
    home.assert_empty();
}

#[tokio::test]
async fn an_exit_while_no_server_runs_is_told_right() {
    let home = Home::new();
    let server = Server::start_with(&home, &Options::kept());
    let gate = home.path().join("gate");
    let script = format!("until [ -e {} ]; do sleep 0.01; done; echo last words; exit 42", gate.display());
    let waits = create(&server, json!({"command": "sh", "args": ["-c", script]})).await;
    let dies = create(
        &server,
        json!({"command": "sh", "args": ["-c", format!("until [ -e {} ]; do sleep 0.01; done; kill -KILL $$", gate.display())]}),
    )
    .await;
    let pid = server.server_pid().expect("a server");
    crate::support::kill(pid, "STOP"); // it learns of nothing more
    std::fs::write(&gate, "").expect("written");
    tokio::time::sleep(Duration::from_millis(200)).await;
    crate::support::kill(pid, "KILL");
    let end = ended(&server, waits["id"].as_str().expect("an id")).await;
    assert_eq!(end["exitCode"], 42, "{end}");
    assert_eq!(output(&server, waits["id"].as_str().expect("an id")).await, "last words\n");
    let end = ended(&server, dies["id"].as_str().expect("an id")).await;
    assert_eq!(end["exit"]["signal"], "SIGKILL", "{end}");
}

#[tokio::test]
async fn a_terminal_goes_on_with_its_screen() {
    let home = Home::new();
    let server = Server::start_with(&home, &Options::kept());
    let body = json!({"command": "sh", "args": ["-c", "printf 'before\\n'; while read line; do echo \"got $line\"; done"], "tty": true, "interactive": true});
    let process = create(&server, body).await;
    let id = process["id"].as_str().expect("an id");
    let typed = |text: &str| json!({"data": base64::engine::general_purpose::STANDARD.encode(text)});
    for number in 0..3 {
        let (status, body) = server.send(&format!("/v1/processes/{id}/input"), &typed(&format!("word{number}\n"))).await;
        assert_eq!(status, 200, "{body}");
        patient(async || output(&server, id).await.contains(&format!("got word{number}\r\n")).then_some(())).await;
        server.crash();
    }
    let (status, screen) = server.get(&format!("/v1/processes/{id}/terminal/screen?format=text")).await;
    assert_eq!(status, 200, "{screen}");
    let text = screen.to_string();
    for word in ["before", "got word0", "got word1", "got word2"] {
        assert!(text.contains(word), "{text}");
    }
    let (status, _) = server.send(&format!("/v1/processes/{id}/terminal/resize"), &json!({"cols": 100, "rows": 30})).await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn stdin_ends_for_a_kept_process_too() {
    let home = Home::new();
    let server = Server::start_with(&home, &Options::kept());
    let process = create(&server, json!({"command": "cat", "stdin": "all of it", "closeStdin": true})).await;
    let id = process["id"].as_str().expect("an id");
    assert_eq!(ended(&server, id).await["exitCode"], 0);
    assert_eq!(output(&server, id).await, "all of it");
}

#[tokio::test]
async fn connects_wait_while_no_server_runs() {
    let home = Home::new();
    let server = Server::start_with(&home, &Options::kept());
    for _ in 0..5 {
        server.crash();
        for _ in 0..10 {
            let (status, _) = crate::support::client_get(&server.url("/v1/health")).await;
            assert_eq!(status, 200);
        }
    }
}

#[tokio::test]
async fn what_the_background_holds_goes_on_being_logged() {
    let home = Home::new();
    let server = Server::start_with(&home, &Options::kept());
    let script = "(sleep 1; echo late; sleep 1; echo later) & echo early";
    let process = create(&server, json!({"command": "sh", "args": ["-c", script]})).await;
    let id = process["id"].as_str().expect("an id");
    assert_eq!(ended(&server, id).await["exitCode"], 0);
    server.crash();
    patient(async || (output(&server, id).await == "early\nlate\nlater\n").then_some(())).await;
}
