//! What outlives the server: with a keeper, as users have it.

use std::time::Duration;

use base64::Engine as _;
use serde_json::json;

use crate::processes_support::{create, ended, info, output, page, sh, wrote};
use crate::support::{Home, Options, Server, kill};

async fn text(server: &Server, id: &str) -> String {
    String::from_utf8(output(&page(server, id, "").await)).expect("UTF-8")
}

#[tokio::test]
async fn processes_outlive_the_server_with_output_and_exit_code() {
    let home = Home::new();
    let server = Server::start_with(&home, &Options::kept());
    let gate = home.path().join("gate");
    let wait = format!("until [ -e {} ]; do sleep 0.01; done", gate.display());
    let script = format!("for i in $(seq 1 40); do echo line $i; sleep 0.02; done; {wait}; exit 7");
    let id = create(&server, sh(&script, json!({}))).await;
    let pid = info(&server, &id).await["pid"].clone();
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        server.crash();
        let again = info(&server, &id).await;
        assert_eq!((&again["pid"], &again["status"]), (&pid, &json!("running")), "{again}");
    }
    std::fs::write(&gate, "").expect("written");
    let end = ended(&server, &id).await;
    assert_eq!((&end["exitCode"], &end["exitReason"]), (&json!(7), &json!("exited")), "{end}");
    let expected: String = (1..=40).map(|number| format!("line {number}\n")).collect();
    assert_eq!(text(&server, &id).await, expected);
    assert_eq!(server.stop(), Some(0));
    home.assert_empty();
}

#[tokio::test]
async fn an_exit_while_no_server_runs_is_told_right() {
    let home = Home::new();
    let server = Server::start_with(&home, &Options::kept());
    let gate = home.path().join("gate");
    let wait = format!("until [ -e {} ]; do sleep 0.01; done", gate.display());
    let exits = create(&server, sh(&format!("{wait}; echo last words; exit 42"), json!({}))).await;
    let dies = create(&server, sh(&format!("{wait}; kill -KILL $$"), json!({}))).await;
    let pid = server.server_pid().expect("a server");
    kill(pid, "STOP"); // it learns of nothing more
    std::fs::write(&gate, "").expect("written");
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(server.crash(), pid);
    let end = ended(&server, &exits).await;
    assert_eq!(end["exitCode"], 42, "{end}");
    assert_eq!(text(&server, &exits).await, "last words\n");
    let end = ended(&server, &dies).await;
    assert_eq!(end["exit"]["signal"], "SIGKILL", "{end}");
}

#[tokio::test]
async fn a_terminal_goes_on_with_its_screen() {
    let home = Home::new();
    let server = Server::start_with(&home, &Options::kept());
    let script = "printf 'before\\n'; while read line; do echo \"got $line\"; done";
    let id = create(&server, sh(script, json!({"tty": true, "interactive": true}))).await;
    for number in 0..3 {
        let typed = base64::engine::general_purpose::STANDARD.encode(format!("word{number}\n"));
        let (status, body) = server.send(&format!("/v1/processes/{id}/input"), &json!({"data": typed})).await;
        assert_eq!(status, 200, "{body}");
        wrote(&server, &id, &format!("got word{number}")).await;
        server.crash();
    }
    let (status, screen) = server.get(&format!("/v1/processes/{id}/terminal/screen")).await;
    assert_eq!(status, 200, "{screen}");
    for word in ["before", "got word0", "got word1", "got word2"] {
        assert!(screen.to_string().contains(word), "{screen}");
    }
    let (status, _) = server.send(&format!("/v1/processes/{id}/terminal/resize"), &json!({"cols": 100, "rows": 30})).await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn stdin_ends_for_a_kept_process_too() {
    let home = Home::new();
    let server = Server::start_with(&home, &Options::kept());
    let id = create(&server, json!({"command": "cat", "stdin": "all of it", "closeStdin": true})).await;
    assert_eq!(ended(&server, &id).await["exitCode"], 0);
    assert_eq!(text(&server, &id).await, "all of it");
}

#[tokio::test]
async fn connects_wait_while_no_server_runs() {
    let home = Home::new();
    let server = Server::start_with(&home, &Options::kept());
    for _ in 0..5 {
        server.crash();
        for _ in 0..10 {
            assert_eq!(server.get("/v1/health").await.0, 200);
        }
    }
}

#[tokio::test]
async fn what_the_background_holds_goes_on_being_logged() {
    let home = Home::new();
    let server = Server::start_with(&home, &Options::kept());
    let id = create(&server, sh("(sleep 1; echo late; sleep 1; echo later) & echo early", json!({}))).await;
    assert_eq!(ended(&server, &id).await["exitCode"], 0);
    server.crash();
    let deadline = std::time::Instant::now() + crate::support::PATIENCE;
    while text(&server, &id).await != "early\nlate\nlater\n" && std::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(text(&server, &id).await, "early\nlate\nlater\n");
}

#[tokio::test]
async fn what_nobody_can_go_on_with_ends_with_the_server() {
    let home = Home::new();
    let server = Server::start_with(&home, &Options::kept());
    let url = server.url("/v1/processes/run");
    let http = server.http.clone();
    let run = tokio::spawn(async move { http.post(url).json(&json!({"command": "sleep", "args": ["4711"]})).send().await });
    crate::processes_support::until("the run", || home.processes().iter().any(|(_, line)| line.contains("4711"))).await;
    server.crash();
    assert!(run.await.expect("a task").is_err(), "its client is told by the end of the connection");
    crate::processes_support::until("its end", || !home.processes().iter().any(|(_, line)| line.contains("4711"))).await;
}

/// Kills the server again and again while `work` goes on.
async fn under_kills(server: &Server, kills: usize, pause_ms: u64) {
    for kill in 0..kills {
        tokio::time::sleep(Duration::from_millis(pause_ms + (kill as u64 * 7) % 23)).await;
        server.crash();
    }
}

async fn whole_log(server: &Server, id: &str) -> Vec<u8> {
    let mut all = Vec::new();
    let mut after = 0;
    loop {
        let page = page(server, id, &format!("since={after}&limit=1000")).await;
        let entries = page["entries"].as_array().expect("entries").clone();
        let Some(last) = entries.last() else { return all };
        after = last["sequence"].as_u64().expect("a sequence");
        all.extend(output(&page));
    }
}

#[tokio::test]
async fn no_byte_of_a_flood_is_lost_or_doubled() {
    let home = Home::new();
    let server = Server::start_with(&home, &Options::kept());
    // Both at the pace of a reader that is killed; characters of several bytes, so that reads end within some.
    let script = "import sys,time\nfor n in range(60000):\n    sys.stdout.write('%d €ä\\n' % n)\n    n % 500 or (sys.stdout.flush(), time.sleep(0.004))";
    let piped = create(&server, json!({"script": {"language": "python", "source": script}})).await;
    let typed = create(&server, json!({"script": {"language": "python", "source": script}, "tty": true})).await;
    under_kills(&server, 8, 25).await;
    let expected: String = (0..60_000).map(|number| format!("{number} €ä\n")).collect();
    for (id, expected) in [(&piped, expected.clone()), (&typed, expected.replace('\n', "\r\n"))] {
        assert_eq!(ended(&server, id).await["exitCode"], 0);
        let log = String::from_utf8(whole_log(&server, id).await).expect("UTF-8");
        let wrong = log.lines().zip(expected.lines()).position(|(a, b)| a != b);
        assert!(log == expected, "{} bytes of {}, the first wrong line is {wrong:?}", log.len(), expected.len());
    }
}

#[tokio::test]
async fn no_input_is_lost_or_doubled() {
    let home = Home::new();
    let server = Server::start_with(&home, &Options::kept());
    let (piped, typed) = (home.path().join("piped"), home.path().join("typed"));
    // They read slowly: input waits.
    let reader = |to: &std::path::Path| {
        format!("stty -echo 2>/dev/null; while read line; do echo $line >> {}; sleep 0.002; done", to.display())
    };
    let ids = [
        create(&server, sh(&reader(&piped), json!({"interactive": true}))).await,
        create(&server, sh(&reader(&typed), json!({"interactive": true, "tty": true}))).await,
    ];
    let mut acked = [Vec::new(), Vec::new()];
    for number in 0..300 {
        if number % 40 == 39 {
            server.crash();
        }
        for (id, acked) in ids.iter().zip(&mut acked) {
            let data = base64::engine::general_purpose::STANDARD.encode(format!("{number}\n"));
            let request = server.http.post(server.url(&format!("/v1/processes/{id}/input"))).json(&json!({"data": data})).send();
            if request.await.is_ok_and(|answer| answer.status() == 200) {
                acked.push(number.to_string());
            }
        }
    }
    for (file, acked) in [piped, typed].iter().zip(&acked) {
        let read = || std::fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect::<Vec<_>>();
        crate::processes_support::until("the last input", || read().last() == acked.last()).await;
        assert_eq!(&read(), acked, "{}", file.display());
    }
}
