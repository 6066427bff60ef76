//! What a process writes arrives, whole and in order, whoever reads it and however.

use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use crate::processes_support::{bytes, create, delete, ended, followed, info, output, page, post, run, sh, until, wait, wrote};
use crate::storage::SmallDisk;
use crate::support::{Home, Options, Server};
use crate::ws::Ws;

const LINES: &str = "echo first; echo second >&2; i=0; while [ $i -lt 20 ]; do echo line $i; i=$((i+1)); done;";

#[tokio::test(flavor = "multi_thread")]
async fn whoever_sees_an_exit_sees_the_last_line() {
    let home = Home::new();
    let server = Server::start_with(&home, &Options::default().env("SANDBOXD_PROCESSES_FINISHED_MAX", "1000"));
    let check = async |number: usize| {
        let tty = number % 5 == 4;
        let id = create(&server, sh(&format!("{LINES} echo last-{number}"), json!({"tty": tty}))).await;
        while info(&server, &id).await["status"] != "exited" {}
        let page = page(&server, &id, if tty { "tail=3" } else { "tail=3&stream=stdout" }).await;
        let text = String::from_utf8(output(&page)).expect("text");
        assert!(text.trim_end().ends_with(&format!("last-{number}")), "{id}: {text:?}");
    };
    futures_util::stream::iter(0..500).map(check).buffer_unordered(16).for_each(async |()| {}).await;
    let check = async |number: usize| {
        let result = run(&server, sh(&format!("{LINES} echo last-{number}"), json!({}))).await;
        let text = result["stdout"].as_str().expect("text");
        assert!(text.ends_with(&format!("line 19\nlast-{number}\n")), "{text:?}");
        assert_eq!(result["stderr"], "second\n");
    };
    futures_util::stream::iter(0..200).map(check).buffer_unordered(16).for_each(async |()| {}).await;
}

/// Each value a few times, in an order that no encoding allows.
fn every_byte() -> Vec<u8> {
    (0..40_000_u32).map(|at| u8::try_from(at.wrapping_mul(2_654_435_761) >> 24).expect("a byte")).collect()
}

#[tokio::test]
async fn bytes_come_as_they_were_written() {
    let home = Home::new();
    let server = Server::start(&home);
    let data = every_byte();
    assert!((0..=255).all(|byte| data.contains(&byte)));
    let file = home.path().join("data");
    std::fs::write(&file, &data).expect("written");
    let script = format!("cat {}", file.display());
    let id = create(&server, sh(&script, json!({}))).await;
    ended(&server, &id).await;
    assert!(output(&page(&server, &id, "").await) == data, "through pipes");
    let live = server.stream(&format!("/v1/processes/{id}/logs?follow=true"), None).await.all().await;
    assert!(followed(&live) == data, "followed");
    let id = create(&server, sh(&format!("stty raw -echo; {script}"), json!({"tty": true}))).await;
    ended(&server, &id).await;
    assert!(output(&page(&server, &id, "").await) == data, "through a terminal");
    for script in ["printf unfinished", "printf unfinished >&2"] {
        let id = create(&server, sh(script, json!({}))).await;
        ended(&server, &id).await;
        assert_eq!(output(&page(&server, &id, "").await), b"unfinished");
    }
}

#[tokio::test]
async fn characters_are_not_split() {
    let home = Home::new();
    let server = Server::start(&home);
    let text = "aé€😀 ß→𝄞";
    let octal: Vec<_> = text.bytes().map(|byte| format!("\\{byte:03o}")).collect();
    let script = format!("for b in '{}'; do printf \"$b\"; sleep 0.02; done", octal.join("' '"));
    for tty in [false, true] {
        let id = create(&server, sh(&script, json!({"tty": tty}))).await;
        ended(&server, &id).await;
        let page = page(&server, &id, "").await;
        let entries = page["entries"].as_array().expect("entries");
        for entry in entries {
            assert!(String::from_utf8(bytes(entry)).is_ok(), "{entry}");
        }
        assert!(entries.len() > 3, "it came in pieces: {page}");
        assert_eq!(output(&page), text.as_bytes(), "tty: {tty}");
    }
    // Half a character at the end is kept all the same, though something in the background has the pipes.
    let id = create(&server, sh("sleep 1000 & printf 'x\\303'", json!({}))).await;
    ended(&server, &id).await;
    assert_eq!(output(&page(&server, &id, "").await), b"x\xc3");
}

#[tokio::test]
async fn who_follows_sees_what_was_written_before_the_kill_and_the_end() {
    let home = Home::new();
    let server = Server::start(&home);
    let script = "i=0; while :; do i=$((i+1)); echo line $i; done";
    let id = create(&server, sh(script, json!({}))).await;
    let mut live = server.stream(&format!("/v1/processes/{id}/logs?follow=true"), None).await;
    wrote(&server, &id, "^line 2000$").await;
    let killed = post(&server, &format!("/v1/processes/{id}/kill"), json!({})).await;
    assert_eq!((&killed["status"], &killed["exit"]["signal"]), (&json!("exited"), &json!("SIGKILL")), "{killed}");
    let events = live.all().await;
    let last = events.last().expect("an end");
    assert_eq!((last.name.as_str(), &last.data), ("end", &json!({"reason": "exited"})));
    let text = String::from_utf8(followed(&events)).expect("text");
    let count = text.lines().count();
    assert!(text.lines().take(count - 1).enumerate().all(|(at, line)| line == format!("line {}", at + 1)), "in order");
    assert!(count >= 2000);
    assert!(output(&page(&server, &id, "").await) == text.as_bytes(), "no more is in the log");
}

fn kilobytes(server: &Server, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("its status");
    let value = status.lines().find_map(|line| line.strip_prefix(field)).expect("a field");
    value.trim_start_matches(':').trim().trim_end_matches(" kB").parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn who_never_reads_costs_nothing_and_holds_nobody_up() {
    const BYTES: usize = 50_000_000;
    let home = Home::new();
    let server = Server::start_with(&home, &Options::default().env("SANDBOXD_PROCESS_LOG_MAX_BYTES", "67108864"));
    let id = create(&server, sh(&format!("read go; yes | tr '\\n' x | head -c {BYTES}"), json!({}))).await;
    let path = format!("/v1/processes/{id}/logs?follow=true&encoding=utf8");
    let mut deaf = Vec::new();
    for _ in 0..4 {
        let mut socket = tokio::net::TcpStream::connect(("127.0.0.1", server.port())).await.expect("a connection");
        let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
        socket.write_all(request.as_bytes()).await.expect("sent");
        deaf.push(socket);
    }
    let mut response = server.http.get(server.url(&path)).send().await.expect("an answer");
    let before = kilobytes(&server, "VmHWM");
    post(&server, &format!("/v1/processes/{id}/input"), json!({"data": "go\n", "encoding": "utf8"})).await;
    let mut text = Vec::new();
    while let Some(chunk) = response.chunk().await.expect("a chunk") {
        text.extend_from_slice(&chunk);
    }
    let text = String::from_utf8(text).expect("text");
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    let entries = data.map(|data| serde_json::from_str::<Value>(data).expect("JSON"));
    let got: usize = entries.map(|entry| entry["data"].as_str().map_or(0, str::len)).sum();
    assert_eq!(got, BYTES);
    assert!(text.contains("event: end"));
    let after = kilobytes(&server, "VmHWM");
    assert!(after < before + 40_000, "from {before} kB to {after} kB");
    drop(deaf);
}

#[tokio::test]
async fn on_a_full_disk_processes_run_on_and_what_is_missing_is_said() {
    let home = Home::new();
    let disk = SmallDisk::new(&home, "3M");
    let server = Server::start(&home);
    let id = create(&server, json!({"command": "cat"})).await;
    let terminal = create(&server, sh("stty -echo; echo up; cat", json!({"tty": true}))).await;
    let mut ws = Ws::connect(server.port(), &format!("/v1/processes/{terminal}/terminal/ws"), &[]).await.expect("a WebSocket");
    ws.text().await;
    ws.output(|seen| seen.windows(2).any(|two| two == b"up")).await;
    let mut live = server.stream(&format!("/v1/processes/{id}/logs?follow=true"), None).await;
    let say = async |id: &str, text: String| {
        post(&server, &format!("/v1/processes/{id}/input"), json!({"data": text, "encoding": "utf8"})).await;
    };
    say(&id, "before\n".into()).await;
    live.until(|event| event.name == "log").await;
    let filler = disk.0.join("filler");
    assert!(std::fs::write(&filler, vec![0; 4_000_000]).is_err(), "the filler takes all that is left");
    // What is left of the last page of the file still fits.
    for _ in 0..10 {
        say(&id, "during\n".repeat(1000)).await;
    }
    let told = live.until(|event| event.name == "gap").await;
    assert_eq!(told.last().expect("a gap").data["reason"], "not_kept");
    say(&terminal, "live\n".repeat(2000)).await;
    say(&terminal, "to the end\n".into()).await;
    ws.output(|seen| seen.windows(10).any(|ten| ten == b"to the end")).await;
    assert_eq!(run(&server, sh("echo unaffected", json!({}))).await["stdout"], "unaffected\n");
    let (status, answer) = server.send("/v1/processes", &sh("echo x", json!({}))).await;
    assert!(status == 200 || status == 507, "{answer}");
    if status == 200 {
        let ended = ended(&server, answer["id"].as_str().expect("an id")).await;
        assert_eq!(ended["exitCode"], 0);
    }
    std::fs::remove_file(&filler).expect("removed");
    say(&id, "after\n".into()).await;
    let seen = live.until(|event| event.name == "log" && bytes(&event.data).ends_with(b"after\n")).await;
    assert!(seen.iter().all(|event| event.name != "end"));
    post(&server, &format!("/v1/processes/{id}/input"), json!({"eof": true})).await;
    assert_eq!(ended(&server, &id).await["exitCode"], 0);
    let page = page(&server, &id, "").await;
    let missing: u64 = page["gaps"].as_array().expect("gaps").iter().map(|gap| gap["bytes"].as_u64().expect("a number")).sum();
    let kept = output(&page);
    assert_eq!(kept.len() as u64 + missing, 7 + 70_000 + 6, "{}", page["gaps"]);
    assert!(kept.starts_with(b"before\n") && kept.ends_with(b"after\n") && missing > 50_000);
}

fn spool_files(home: &Home) -> usize {
    std::fs::read_dir(home.data().join("spool/sandboxd")).map_or(0, |folder| folder.flatten().count())
}

#[tokio::test]
async fn the_oldest_finished_go_with_their_rows_and_files() {
    let home = Home::new();
    let server = Server::start_with(&home, &Options::default().env("SANDBOXD_PROCESSES_FINISHED_MAX", "5"));
    let mut ids = Vec::new();
    for number in 0..12 {
        let id = create(&server, sh(&format!("echo {number}"), json!({}))).await;
        ended(&server, &id).await;
        ids.push(id);
    }
    let kept = || async {
        let (_, list) = server.get("/v1/processes").await;
        list["processes"].as_array().expect("a list").iter().map(|info| info["id"].clone()).collect::<Vec<_>>()
    };
    let mut left = kept().await;
    while left.len() > 5 {
        left = kept().await; // its owner ends a moment after its exit is shown
    }
    assert_eq!(json!(left), json!(ids[7..]));
    let database = rusqlite::Connection::open(home.data().join("sandboxd.db")).expect("a database");
    let rows = || database.query_row("SELECT count(*) FROM processes", [], |row| row.get::<_, i64>(0)).expect("a count");
    until("the rows' end", || rows() == 5).await;
    until("the files' end", || spool_files(&home) == 5).await;
    assert_eq!(server.get(&format!("/v1/processes/{}", ids[0])).await.0, 404);
    assert_eq!(server.get(&format!("/v1/processes/{}/logs", ids[0])).await.0, 404);
    for id in &ids[7..] {
        assert_eq!(delete(&server, id).await, 204);
    }
    until("all files' end", || spool_files(&home) == 0 && rows() == 0).await;
}

#[tokio::test]
async fn a_long_log_keeps_its_first_and_latest_bytes() {
    let home = Home::new();
    let server = Server::start_with(&home, &Options::default().env("SANDBOXD_PROCESS_LOG_MAX_BYTES", "262144"));
    let written: usize = (1..=700_000).map(|number: u32| number.to_string().len() + 1).sum();
    let id = create(&server, sh("seq 1 700000", json!({}))).await;
    ended(&server, &id).await;
    let page = page(&server, &id, "").await;
    let kept = output(&page);
    let gaps = page["gaps"].as_array().expect("gaps");
    let missing: u64 = gaps.iter().map(|gap| gap["bytes"].as_u64().expect("a number")).sum();
    assert_eq!(kept.len() as u64 + missing, written as u64, "{gaps:?}");
    assert!(gaps.iter().all(|gap| gap["reason"] == "truncated"), "{gaps:?}");
    assert!(kept.starts_with(b"1\n2\n3\n") && kept.ends_with(b"699999\n700000\n"));
    let disk: u64 = std::fs::read_dir(home.data().join("spool/sandboxd"))
        .expect("the folder")
        .flatten()
        .map(|entry| entry.metadata().expect("a size").len())
        .sum();
    assert!(disk <= 262_144 && kept.len() > 100_000, "{disk} on disk, {} shown", kept.len());
}

/// Terminals that a server has open.
fn terminals(server: &Server) -> usize {
    let open = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).expect("its descriptors").flatten();
    open.filter(|entry| std::fs::read_link(entry.path()).is_ok_and(|to| to.ends_with("ptmx"))).count()
}

#[tokio::test]
async fn a_viewer_who_doesnt_read_keeps_nothing_out_of_the_log() {
    let home = Home::new();
    // The terminal pauses for it longer than output is waited for after an exit.
    let options = Options::default().env("SANDBOXD_TERMINAL_VIEWER_PATIENCE_MS", "3000");
    let server = Server::start_with(&home, &options);
    let id = create(&server, sh("exec yes", json!({"tty": true}))).await;
    let path = format!("/v1/processes/{id}/terminal/ws");
    let mut deaf = Ws::connect(server.port(), &path, &[]).await.expect("a WebSocket");
    deaf.text().await;
    let paused = wait(&server, &id, json!({"quietMs": 300})).await;
    assert_eq!(paused["met"], "quiet", "{paused}");
    assert_eq!(terminals(&server), 1);
    let killed = post(&server, &format!("/v1/processes/{id}/kill"), json!({})).await;
    assert_eq!(killed["status"], "exited", "{killed}");
    let at_exit = page(&server, &id, "tail=1").await["lastSequence"].clone();
    until("the terminal's end", || terminals(&server) == 0).await;
    assert_eq!(page(&server, &id, "tail=1").await["lastSequence"], at_exit, "it was all there when the exit was shown");
}
