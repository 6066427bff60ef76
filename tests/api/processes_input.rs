//! What is given to a process to read.

use serde_json::{Value, json};

use crate::processes_support::{create, ended, info, output, page, post, run, sh, until, wrote};
use crate::support::{Home, Server};

const PIECE: usize = 64 * 1024;

/// Numbered lines: so what is lost, doubled or out of order shows.
fn numbered(bytes: usize) -> String {
    let mut text: String = (0..).map(|number| format!("{number:08}\n")).take(bytes / 9 + 1).collect();
    text.truncate(bytes);
    text
}

#[tokio::test]
async fn input_waits_for_a_process_that_doesnt_read_up_to_a_bound() {
    let home = Home::new();
    let server = Server::start(&home);
    let config = json!({"maxConcurrentProcesses": 64, "defaultRunTimeoutMs": 30000, "maxRunTimeoutMs": 300_000,
        "maxOutputBytes": 4_194_304, "maxLogBytesPerProcess": 10_485_760, "maxInputBytesPerRequest": 65536});
    post(&server, "/v1/processes/config", config).await;
    let go = home.path().join("go");
    let script = format!("while ! test -e {}; do sleep 0.02; done; cat; echo; echo complete", go.display());
    let id = create(&server, sh(&script, json!({}))).await;
    let path = format!("/v1/processes/{id}/input");
    let text = numbered(40 * PIECE);
    let mut taken = 0;
    let refused = loop {
        let (status, answer) = server.send(&path, &json!({"data": &text[taken..taken + PIECE], "encoding": "utf8"})).await;
        if status != 200 {
            assert_eq!(status, 409, "{answer}");
            break answer;
        }
        assert_eq!(answer["bytesWritten"], PIECE);
        taken += PIECE;
    };
    assert!((1024 * 1024..=1024 * 1024 + 2 * PIECE).contains(&taken), "{taken}");
    assert!(refused["detail"].as_str().is_some_and(|words| words.contains("does not read")), "{refused}");
    assert_eq!(info(&server, &id).await["status"], "running");
    std::fs::write(&go, "").expect("written");
    // It reads now: all of the rest is taken, soon or later.
    while taken < text.len() {
        let (status, answer) = server.send(&path, &json!({"data": &text[taken..taken + PIECE], "encoding": "utf8"})).await;
        match status {
            200 => taken += PIECE,
            409 => tokio::task::yield_now().await,
            _ => panic!("{answer}"),
        }
    }
    post(&server, &path, json!({"eof": true})).await;
    assert_eq!(ended(&server, &id).await["exitCode"], 0);
    let got = String::from_utf8(output(&page(&server, &id, "").await)).expect("text");
    assert!(got == format!("{text}\ncomplete\n"), "{} bytes of {}", got.len(), text.len());
}

#[tokio::test]
async fn a_runs_stdin_is_read_to_its_end() {
    let home = Home::new();
    let server = Server::start(&home);
    let mut config = server.get("/v1/processes/config").await.1;
    config["maxOutputBytes"] = json!(4_194_304);
    post(&server, "/v1/processes/config", config).await;
    let text = numbered(1_800_000);
    let result = run(&server, json!({"command": "cat", "stdin": text})).await;
    assert!(result["stdout"] == text && result["exitCode"] == 0, "{} bytes", result["stdoutBytes"]);
    let result = run(&server, sh("head -c 5; exec 0<&-; echo; echo more than was read", json!({"stdin": text}))).await;
    assert_eq!((&result["stdout"], &result["exitCode"]), (&json!("00000\nmore than was read\n"), &json!(0)), "{result}");
    let result = run(&server, json!({"command": "cat", "stdin": "AAECgP8=", "stdinEncoding": "base64"})).await;
    assert_eq!((&result["stdoutBytes"], &result["exitCode"]), (&json!(5), &json!(0)), "{result}");
    let result = run(&server, json!({"command": "cat"})).await;
    assert_eq!((&result["stdout"], &result["exitCode"]), (&json!(""), &json!(0)), "no stdin is an end at once");
    let id = create(&server, json!({"command": "cat", "stdin": text, "closeStdin": true})).await;
    assert_eq!(ended(&server, &id).await["exitCode"], 0);
    assert!(output(&page(&server, &id, "").await) == text.as_bytes());
}

#[tokio::test]
async fn input_to_what_closed_its_stdin_is_refused_and_ends_nobody() {
    let home = Home::new();
    let server = Server::start(&home);
    let id = create(&server, sh("exec 0<&-; echo closed; exec sleep 1000", json!({}))).await;
    wrote(&server, &id, "closed").await;
    let path = format!("/v1/processes/{id}/input");
    let hi = json!({"data": "hi\n", "encoding": "utf8"});
    let first = server.send(&path, &hi).await.0;
    assert!(first == 200 || first == 409, "it may be found out only now");
    let (status, answer) = server.send(&path, &hi).await;
    assert_eq!(status, 409, "{answer}");
    assert_eq!(info(&server, &id).await["status"], "running");
}

#[tokio::test]
async fn a_terminal_that_nobody_reads_takes_input_up_to_the_bound() {
    let home = Home::new();
    let server = Server::start(&home);
    let id = create(&server, sh("stty raw -echo; echo up; exec sleep 1000", json!({"tty": true}))).await;
    wrote(&server, &id, "up").await;
    let path = format!("/v1/processes/{id}/input");
    let mut taken = 0;
    let (status, answer): (u16, Value) = loop {
        let answer = server.send(&path, &json!({"data": "x".repeat(PIECE), "encoding": "utf8"})).await;
        if answer.0 != 200 {
            break answer;
        }
        taken += PIECE;
        assert!(taken <= 2 * 1024 * 1024, "the queue has no bound");
    };
    assert_eq!(status, 409, "{answer}");
    let killed = post(&server, &format!("/v1/processes/{id}/kill"), json!({})).await;
    assert_eq!(killed["status"], "exited", "{killed}");
    until("the end of all others", || home.processes().iter().all(|(_, command)| command.contains("sandboxd"))).await;
}
