//! Terminals that write more than anybody can read.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Home, Options, Server};
use crate::terminal_client::{Client, start};
use crate::ws::{self, Frame, Ws};

const LINE: &str = "all work and no play makes a long line of plain text\r\n";
const FLOOD_BYTES: usize = 200_000_000;

/// What the server may take on top for a flood, whoever reads.
const MEMORY_MAX_KIB: u64 = 60 * 1024;

/// A terminal that writes exactly so many bytes once a line was typed, and then ends.
async fn flood(server: &Server, bytes: usize) -> String {
    let words = LINE.trim_end();
    let script = format!("stty raw -echo; printf ready; read -r go; yes '{words}\r' | head -c {bytes}; exit 4");
    start(server, "bash", &["-c", &script], json!({})).await
}

fn peak_kib(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("a status");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("a peak");
    line.split_ascii_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}

async fn ended(server: &Server, id: &str) -> Value {
    let (status, result) = server.send(&format!("/v1/processes/{id}/wait"), &json!({"timeoutMs": 120_000})).await;
    assert_eq!((status, &result["met"]), (200, &json!("exit")), "{result}");
    result
}

/// Attaches without any news, and reads until the terminal is ready for its line.
async fn attach(server: &Server, id: &str) -> Ws {
    let path = format!("/v1/processes/{id}/terminal/ws");
    let mut ws = Ws::connect(server.port(), &path, &[]).await.expect("a WebSocket");
    assert_eq!(ws.text().await["type"], "ready");
    ws.output(|output| output.windows(5).any(|five| five == b"ready")).await;
    ws
}

async fn go(ws: &mut Ws) {
    ws.send(&json!({"type": "input", "data": "\n"})).await;
}

/// Reads to the exit; each byte has to be the right one. Gives their number, and the exit.
async fn read_all(ws: &mut Ws) -> (usize, Value) {
    let pattern = LINE.repeat(40_000);
    let mut count = 0;
    loop {
        match ws.next().await.expect("a frame") {
            Frame::Binary(bytes) => {
                let start = count % LINE.len();
                assert!(pattern.as_bytes()[start..start + bytes.len()] == bytes, "other bytes than written after {count}");
                count += bytes.len();
            }
            Frame::Text(news) => return (count, news),
            Frame::Ping => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quick_reader_gets_every_byte_and_a_slow_one_the_screen() {
    let home = Home::new();
    let server = Server::start(&home);
    let base = peak_kib(&server);
    let id = flood(&server, FLOOD_BYTES).await;
    let mut quick = attach(&server, &id).await;
    let begun = Instant::now();
    go(&mut quick).await;
    let (count, exit) = read_all(&mut quick).await;
    let alone = begun.elapsed();
    assert_eq!((count, &exit["exitCode"]), (FLOOD_BYTES, &json!(4)), "{exit}");

    let id = flood(&server, FLOOD_BYTES).await;
    let mut quick = attach(&server, &id).await;
    let mut slow = Client::attach(&server, &id).await;
    let mut older = attach(&server, &id).await; // slow, and without news
    let begun = Instant::now();
    go(&mut quick).await;
    slow.until("a megabyte", |client| client.bytes > 1_000_000).await;
    let (count, exit) = read_all(&mut quick).await;
    let together = begun.elapsed();
    assert_eq!((count, &exit["exitCode"]), (FLOOD_BYTES, &json!(4)), "{exit}");
    assert!(together < alone * 2 + Duration::from_secs(3), "held up by the slow ones: {together:?} instead of {alone:?}");
    ended(&server, &id).await;

    assert_eq!(slow.exit().await["exitCode"], 4);
    slow.end().await;
    let kinds: Vec<_> = slow.news.iter().skip(2).map(|news| news["type"].as_str().expect("a type")).collect();
    assert_eq!(kinds, ["lagged", "snapshot", "exit"]);
    let skipped =
        slow.news.iter().find(|news| news["type"] == "lagged").expect("told")["skippedBytes"].as_u64().expect("a count");
    assert_eq!(skipped + slow.bytes, FLOOD_BYTES as u64, "what came and what didn't");
    slow.same_as_server(&server, &id).await;

    let (mut count, mut last) = (0, Vec::new());
    let told = loop {
        match older.next().await.expect("a frame") {
            Frame::Binary(bytes) => count += bytes.len(),
            Frame::Text(news) => break news,
            _ => {}
        }
    };
    let message = told["message"].as_str().expect("an error").to_owned();
    assert_eq!(message.split(' ').nth(4).expect("a number"), (FLOOD_BYTES - count).to_string(), "{message}");
    while let Some(frame) = older.next().await {
        match frame {
            Frame::Binary(bytes) => last.extend(bytes),
            Frame::Text(news) => assert_eq!(news["exitCode"], 4),
            _ => {}
        }
    }
    assert!(last.starts_with(b"\x18\x1bc"), "a snapshot");
    let peak = peak_kib(&server);
    assert!(peak < base + MEMORY_MAX_KIB, "{base} KiB before, {peak} KiB at the most");
    println!("alone {alone:?}, with slow ones {together:?}; {base} KiB, at most {peak} KiB");
}

#[tokio::test]
async fn a_slow_reader_learns_the_size_that_it_missed() {
    let home = Home::new();
    let server = Server::start(&home);
    let id = start(&server, "sh", &["-c", "read -r go; seq 3000000; read -r go; exit 6"], json!({})).await;
    let mut slow = Client::attach(&server, &id).await;
    slow.write("\n").await;
    let path = format!("/v1/processes/{id}/wait");
    let (_, result) = server.send(&path, &json!({"output": {"pattern": "^2500000", "stream": "pty"}})).await;
    assert_eq!(result["met"], "output", "{result}");
    let size = json!({"cols": 91, "rows": 31});
    assert_eq!(server.send(&format!("/v1/processes/{id}/terminal/resize"), &size).await.0, 200);
    let (_, result) = server.send(&path, &json!({"output": {"pattern": "^3000000", "stream": "pty"}})).await;
    assert_eq!(result["met"], "output", "{result}");
    slow.shows("3000000").await;
    assert_eq!(slow.count("lagged"), 1, "{:?}", slow.news);
    slow.same_as_server(&server, &id).await;
    slow.write("\n").await;
    assert_eq!(slow.exit().await["exitCode"], 6);
}

/// A terminal that is written to until nothing more fits, since nobody reads; then its process ends.
async fn clogged(server: &Server, before: &str) -> (String, Client) {
    let script = format!("{before} read -r go; timeout 1 seq 1 1000000000; exit 8");
    let id = start(server, "bash", &["-c", &script], json!({})).await;
    let mut client = Client::attach(server, &id).await;
    client.write("\n").await;
    (id, client)
}

#[tokio::test]
async fn a_slow_reader_gets_the_rest_that_was_written_before_the_exit() {
    let home = Home::new();
    let server = Server::start_with(&home, &Options::default().env("SANDBOXD_TERMINAL_VIEWER_PATIENCE_MS", "4000"));
    let (id, mut slow) = clogged(&server, "").await;
    tokio::time::sleep(Duration::from_millis(2500)).await; // the process ended, and the time to drain it would be over
    assert_eq!(slow.exit().await["exitCode"], 8);
    slow.end().await;
    assert_eq!(slow.count("lagged"), 0, "{:?}", slow.news);
    slow.same_as_server(&server, &id).await;
}

#[tokio::test]
async fn a_slow_reader_sees_the_end_though_something_stays_behind() {
    let home = Home::new();
    let server = Server::start_with(&home, &Options::default().env("SANDBOXD_TERMINAL_VIEWER_PATIENCE_MS", "1800"));
    let (id, mut slow) = clogged(&server, "trap '' HUP; sleep 1000 &").await;
    ended(&server, &id).await;
    tokio::time::sleep(Duration::from_millis(2500)).await; // longer than a terminal waits for anybody
    assert_eq!(slow.exit().await["exitCode"], 8);
    slow.end().await;
    slow.same_as_server(&server, &id).await;
}

#[tokio::test]
async fn nothing_is_cut_off_though_somebody_reads_slowly() {
    let home = Home::new();
    let server = Server::start(&home);
    let bytes = 12_000_000;
    let id = flood(&server, bytes).await;
    let mut reader = attach(&server, &id).await;
    go(&mut reader).await;
    let (mut count, mut next) = (0, Instant::now());
    loop {
        match reader.next().await.expect("a frame") {
            Frame::Binary(output) => count += output.len(),
            Frame::Text(news) => break assert_eq!((count, &news["exitCode"]), (bytes, &json!(4)), "{news}"),
            _ => {}
        }
        if count > 3_000_000 && next < Instant::now() {
            // Slower than it is written, but never so slow that it would be left out.
            tokio::time::sleep(Duration::from_millis(60)).await;
            next = Instant::now() + Duration::from_millis(5);
        }
    }
}

#[tokio::test]
async fn who_reads_on_and_answers_pings_is_not_taken_for_gone() {
    let home = Home::new();
    let server = Server::start_with(&home, &Options::default().env("SANDBOXD_WS_PING_MS", "1000"));
    let id = start(&server, "sh", &["-c", "printf ready; read -r go; exec yes"], json!({})).await;
    let mut reader = attach(&server, &id).await;
    go(&mut reader).await;
    let (mut count, mut pings, begun) = (0, 0, Instant::now());
    while begun.elapsed() < Duration::from_secs(7) {
        match reader.next().await.unwrap_or_else(|| panic!("dropped after {count} bytes, {pings} pings, {:?}", begun.elapsed())) {
            Frame::Binary(bytes) if count / 100_000 != (count + bytes.len()) / 100_000 => {
                count += bytes.len();
                tokio::time::sleep(Duration::from_millis(15)).await; // always slower than it is written
            }
            Frame::Binary(bytes) => count += bytes.len(),
            Frame::Ping => {
                pings += 1;
                reader.send_frame(true, ws::PONG, b"").await;
            }
            _ => {}
        }
    }
    assert!(pings > 0, "never asked");
}
