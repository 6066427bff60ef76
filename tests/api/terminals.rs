//! What attached clients can rely on: the screen, then live bytes from exactly there, whoever else is attached.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Home, Options, Server, kill};
use crate::terminal_client::{Client, lines, screen, start};
use crate::ws::{self, Frame};

async fn sh(server: &Server, script: &str) -> String {
    start(server, "sh", &["-c", script], json!({})).await
}

async fn wait(server: &Server, id: &str, spec: Value) -> Value {
    let (status, result) = server.send(&format!("/v1/processes/{id}/wait"), &spec).await;
    assert_eq!((status, &result["timedOut"]), (200, &json!(false)), "{result}");
    result
}

#[tokio::test]
async fn all_viewers_see_the_same_and_the_last_size_wins() {
    let home = Home::new();
    let server = Server::start(&home);
    let id = sh(&server, "trap 'stty size' WINCH; printf '\\033]2;a title\\007\\033[1;31mred\\033[m\\n'; while :; do read -r line && echo \"$line\"; done").await;
    let mut viewers = Vec::new();
    for _ in 0..3 {
        let mut viewer = Client::attach(&server, &id).await;
        viewer.shows("red").await;
        viewers.push(viewer);
    }
    for (at, (cols, rows)) in [(100, 30), (60, 10), (90, 50)].into_iter().enumerate() {
        viewers[at].write(&format!("from {at}\n")).await;
        viewers[at].resize(cols, rows).await;
        for viewer in &mut viewers {
            viewer.shows(&format!("{rows} {cols}")).await;
            viewer.shows(&format!("from {at}")).await;
            assert_eq!(viewer.news.last().expect("news"), &json!({"type": "resize", "cols": cols, "rows": rows}));
        }
        let (_, info) = server.get(&format!("/v1/processes/{id}")).await;
        assert_eq!(info["terminal"], json!({"cols": cols, "rows": rows}));
    }
    for viewer in &mut viewers {
        viewer.same_as_server(&server, &id).await;
        assert_eq!(viewer.screen.title(), Some("a title"));
    }
    let plain = screen(&server, &id, "?format=plain").await;
    assert!(plain.as_str().expect("text").starts_with("red\nfrom 0\n"), "{plain}");
}

#[tokio::test]
async fn who_reconnects_gets_screen_scrollback_and_cursor() {
    let home = Home::new();
    let server = Server::start(&home);
    let id = sh(&server, "seq 5000; printf 'half a line'; read -r line; echo \"got $line\"; cat").await;
    wait(&server, &id, json!({"output": {"pattern": "half a line", "stream": "pty"}})).await;
    let mut client = Client::attach(&server, &id).await;
    client.shows("half a line").await;
    let text = client.screen.text(true, false);
    let expected: Vec<String> = (5000 - 1000 - 22..=5000).map(|n: u32| n.to_string()).chain(["half a line".to_owned()]).collect();
    assert_eq!(text, expected);
    let cursor = client.screen.cursor_info();
    assert_eq!((cursor.row, cursor.column), (23, "half a line".len()));
    client.same_as_server(&server, &id).await;
    client.write("x\n").await;
    client.shows("half a linex\ngot x").await;
    client.same_as_server(&server, &id).await;
}

#[tokio::test]
async fn live_bytes_go_on_exactly_where_the_snapshot_ends() {
    let home = Home::new();
    let server = Server::start(&home);
    // Colours and cursor movements in between, so that a piece that is missing or doubled can't go unseen.
    let script = "i=0; while :; do i=$((i+1)); printf '\\033[3%dmline %d 漢字\\033[m\\033[K\\r\\n' $((i % 8)) $i; done";
    let id = sh(&server, script).await;
    wait(&server, &id, json!({"output": {"pattern": "line 1500 ", "stream": "pty"}})).await;
    for round in 0..40 {
        let mut client = Client::attach(&server, &id).await;
        client.until("output", |client| client.bytes > 20_000).await;
        let numbers: Vec<u64> = client
            .screen
            .text(true, false)
            .iter()
            .filter_map(|line| line.strip_prefix("line ")?.strip_suffix(" 漢字")?.parse().ok())
            .collect();
        assert!(numbers.len() >= 1000, "round {round}: {}", numbers.len());
        let broken = numbers.windows(2).find(|pair| pair[1] != pair[0] + 1);
        assert_eq!(broken, None, "round {round}: a hole, or twice the same");
    }
    let mut client = Client::attach(&server, &id).await;
    server.send(&format!("/v1/processes/{id}/signal"), &json!({"signal": "STOP"})).await;
    client.same_as_server(&server, &id).await;
}

#[tokio::test]
async fn what_ended_can_be_looked_at_even_by_the_next_server() {
    let home = Home::new();
    let server = Server::start(&home);
    let script = "printf '\\033[?1049h'; stty size; printf '\\033[?1049l'; seq 2000; printf '\\033[7mlast\\033[m words'; exit 3";
    let id = start(&server, "sh", &["-c", script], json!({"terminal": {"cols": 70, "rows": 20}})).await;
    let mut live = Client::attach(&server, &id).await;
    assert_eq!(live.exit().await, json!({"type": "exit", "exitCode": 3, "exit": {"code": 3}}));
    live.end().await;
    live.same_as_server(&server, &id).await;
    let seen = (serde_json::to_value(live.screen.cells()).expect("JSON"), live.screen.text(true, false));
    assert!(live.text().ends_with("\nlast words"), "{}", live.text());
    let (_, page) = server.get(&format!("/v1/processes/{id}/logs?encoding=utf8")).await;
    let last = page["entries"].as_array().and_then(|entries| entries.last()).expect("entries");
    assert!(last["data"].as_str().expect("text").ends_with("\u{1b}[7mlast\u{1b}[m words"), "nothing bogus at the end: {last}");
    let mut servers = vec![server];
    for _ in 0..2 {
        let server = servers.last().expect("one");
        let mut late = Client::attach(server, &id).await;
        late.end().await;
        let kinds: Vec<_> = late.news.iter().map(|news| news["type"].as_str().expect("a type")).collect();
        assert_eq!((kinds.as_slice(), late.bytes), (&["ready", "snapshot", "exit"][..], 0));
        assert_eq!((&late.news[0]["cols"], &late.news[0]["rows"]), (&json!(70), &json!(20)));
        assert_eq!((serde_json::to_value(late.screen.cells()).expect("JSON"), late.screen.text(true, false)), seen);
        late.same_as_server(server, &id).await;
        assert_eq!(servers.pop().expect("one").stop(), Some(0));
        servers.push(Server::start(&home));
    }
}

#[tokio::test]
async fn frames_that_are_wrong_are_answered() {
    let home = Home::new();
    let server = Server::start(&home);
    let id = sh(&server, "stty raw -echo; echo up; exec cat").await;
    let mut client = Client::attach(&server, &id).await;
    client.shows("up").await;
    for (text, words) in [
        ("nonsense", "invalid terminal frame: "),
        ("{}", "invalid terminal frame: "),
        (r#"{"type":"input"}"#, "invalid terminal frame: "),
        (r#"{"type":"input","data":"x","encoding":"rot13"}"#, "invalid request: encoding must be one of: base64, utf8, text"),
        (r#"{"type":"input","data":"x!","encoding":"base64"}"#, "invalid request: invalid base64 input: "),
        (r#"{"type":"resize","cols":1001,"rows":1}"#, "a terminal has 1 to 1000"),
    ] {
        client.ws.send_frame(true, ws::TEXT, text.as_bytes()).await;
        let errors = client.count("error") + 1;
        client.until(text, |client| client.count("error") == errors).await;
        let message = client.news.last().expect("news")["message"].as_str().expect("a message").to_owned();
        assert!(message.contains(words), "{text}: {message}");
    }
    client.ws.send_frame(true, 9, b"are you there").await;
    loop {
        match client.ws.next().await.expect("a frame") {
            Frame::Pong(words) => break assert_eq!(words, b"are you there"),
            Frame::Ping => {}
            other => panic!("{other:?}"),
        }
    }
    // One message in three frames, cut inside a character.
    let text = json!({"type": "input", "data": "漢字"}).to_string();
    let (first, rest) = text.as_bytes().split_at(text.find('漢').expect("there") + 1);
    let (second, third) = rest.split_at(3);
    client.ws.send_frame(false, ws::TEXT, first).await;
    client.ws.send_frame(false, ws::CONTINUATION, second).await;
    client.ws.send_frame(true, ws::CONTINUATION, third).await;
    client.shows("漢字").await;
    client.same_as_server(&server, &id).await;
}

#[tokio::test]
async fn the_whole_of_the_output_comes_before_the_exit() {
    let home = Home::new();
    let server = Server::start(&home);
    for round in 0..20 {
        let id = sh(&server, "stty -opost; read -r go; head -c 300000 /dev/zero | tr '\\0' x; printf end; exit 9").await;
        let mut client = Client::attach(&server, &id).await.recording();
        client.write("\n").await;
        assert_eq!(client.exit().await["exitCode"], 9);
        let record = client.record.take().expect("recorded");
        let crosses = record.iter().filter(|byte| **byte == b'x').count();
        assert_eq!((crosses, record.ends_with(b"end")), (300_000, true), "round {round}");
    }
}

#[tokio::test]
async fn a_terminal_is_nobody_elses_and_hangs_up_with_the_server() {
    let home = Home::new();
    let server = Server::start(&home);
    let note = home.path().join("hung-up");
    let script = format!("trap 'echo yes >{}; exit' HUP; echo up; while :; do sleep 0.1; done", note.display());
    let first = start(&server, "bash", &["-c", &script], json!({})).await;
    wait(&server, &first, json!({"output": {"pattern": "up", "stream": "pty"}})).await;
    let second = sh(&server, "ls -l /proc/self/fd").await;
    wait(&server, &second, json!({})).await;
    let shown = lines(&server, &second).await;
    let open: Vec<&String> = shown.iter().filter(|line| line.contains(" -> ")).collect();
    assert!(!open.iter().any(|line| line.contains("ptmx")), "a master was inherited: {open:?}");
    assert_eq!(open.iter().filter(|line| line.contains("/dev/pts/")).count(), 3, "{open:?}");
    assert_eq!(open.len(), 4, "stdio and the folder itself: {open:?}");
    let (_, listed) = server.send("/v1/processes/run", &json!({"command": "sh", "args": ["-c", "ls -l /proc/self/fd"]})).await;
    let listed = listed["stdout"].as_str().expect("text");
    assert!(!listed.contains("ptmx") && !listed.contains("/dev/pts/"), "{listed}");
    server.kill();
    let deadline = Instant::now() + Duration::from_secs(10);
    while !note.exists() {
        assert!(Instant::now() < deadline, "no hang-up");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn who_asks_with_a_wrong_token_or_from_elsewhere_stays_outside() {
    let home = Home::new();
    let options = Options { args: vec!["--token".into(), "s3cret".into()], ..Options::default() };
    let server = Server::start_with(&home, &options);
    let spec = json!({"command": "cat", "tty": true});
    let created =
        server.http.post(server.url("/v1/processes")).bearer_auth("s3cret").json(&spec).send().await.expect("an answer");
    let info: Value = serde_json::from_str(&created.text().await.expect("a body")).expect("JSON");
    let path = format!("/v1/processes/{}/terminal/ws", info["id"].as_str().expect("an id"));
    for (query, headers, status) in [
        ("", vec![], "401"),
        ("?access_token=wrong", vec![], "401"),
        ("", vec![("authorization", "Bearer wrong")], "401"),
        ("?access_token=s3cret", vec![("origin", "http://evil.test")], "403"),
        ("?access_token=s3cret", vec![("origin", "null")], "403"),
    ] {
        let refused = ws::Ws::connect(server.port(), &format!("{path}{query}"), &headers).await.err();
        let refused = refused.unwrap_or_else(|| panic!("{query} {headers:?} was let in"));
        assert!(refused.starts_with(&format!("HTTP/1.1 {status} ")), "{query} {headers:?}: {refused}");
    }
    let own = format!("http://127.0.0.1:{}", server.port());
    for (query, headers) in
        [("?access_token=s3cret", vec![("origin", own.as_str())]), ("", vec![("authorization", "Bearer s3cret")])]
    {
        let mut inside = ws::Ws::connect(server.port(), &format!("{path}{query}"), &headers).await.expect("a WebSocket");
        assert_eq!(inside.text().await["type"], "ready");
    }
    let (mut leaving, pid) =
        (ws::Ws::connect(server.port(), &format!("{path}?access_token=s3cret"), &[]).await.expect("one"), server.pid());
    leaving.text().await;
    kill(pid, "TERM");
    assert_eq!(leaving.next().await, Some(Frame::Close(Some((1001, "going away".into())))));
}

#[tokio::test]
async fn what_is_typed_arrives_whole() {
    let home = Home::new();
    let server = Server::start(&home);
    let id = sh(&server, "stty raw -echo; printf 'ready\\r\\n'; sleep 0.5; head -c 600000 | cksum; stty sane; read -r end").await;
    let mut client = Client::attach(&server, &id).await;
    client.shows("ready").await;
    let mut typed = String::new();
    for frame in 0..10_u32 {
        // Bytes that a terminal that isn't raw would act on are among them, and the reader starts late.
        let data: String = (0..60_000_u32).map(|at| char::from(u8::try_from((at * 7 + frame) % 127).expect("ASCII"))).collect();
        client.write(&data).await;
        typed.push_str(&data);
    }
    let expected = std::process::Command::new("sh")
        .args(["-c", "cksum"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn();
    let mut child = expected.expect("cksum");
    std::io::Write::write_all(&mut child.stdin.take().expect("piped"), typed.as_bytes()).expect("taken");
    let sum = String::from_utf8(child.wait_with_output().expect("a sum").stdout).expect("text");
    client.shows(sum.trim()).await;
}

#[tokio::test]
async fn who_is_attached_stays_so_over_a_restart() {
    let home = Home::new();
    let server = Server::start(&home);
    let script = "echo run; stty size; read -r code; printf 'left with %s' \"$code\"; exit $code";
    let id = start(&server, "sh", &["-c", script], json!({"restart": "on_failure"})).await;
    let mut client = Client::attach(&server, &id).await;
    client.shows("24 80").await;
    client.resize(70, 20).await;
    client.write("5\n").await;
    client.shows("left with 5run\n20 70").await;
    client.same_as_server(&server, &id).await;
    client.write("0\n").await;
    assert_eq!(client.exit().await["exitCode"], 0);
    client.end().await;
    client.same_as_server(&server, &id).await;
}
