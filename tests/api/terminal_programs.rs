//! Programs that people use in terminals, as they look there.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Home, PATIENCE, Server};
use crate::terminal_client::{Client, lines, screen, start};

const BASH: &[&str] = &["--norc", "--noprofile", "-i"];

async fn bash(server: &Server) -> (String, Client) {
    let id = start(server, "bash", BASH, json!({})).await;
    let mut client = Client::attach(server, &id).await;
    client.prompts("$ ").await;
    (id, client)
}

async fn resize(server: &Server, id: &str, cols: u16, rows: u16) -> u16 {
    server.send(&format!("/v1/processes/{id}/terminal/resize"), &json!({"cols": cols, "rows": rows})).await.0
}

fn needs(program: &str) {
    let found = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).any(|folder| folder.join(program).exists());
    assert!(found, "{program} is missing: scripts/install-tools.sh test");
}

#[tokio::test]
async fn bash_controls_its_jobs() {
    let home = Home::new();
    let server = Server::start(&home);
    let (id, mut client) = bash(&server).await;
    client.write("sleep 1000\n").await;
    client.shows("sleep 1000").await;
    tokio::time::sleep(Duration::from_millis(300)).await; // the shell has to start it first
    client.write("\u{3}").await;
    client.shows("^C").await;
    client.prompts("$ ").await;
    client.write("echo ended with $?\n").await;
    client.shows("ended with 130").await;
    client.write("sleep 7 | cat; echo over\n").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    client.write("\u{1a}").await;
    client.shows("Stopped").await;
    client.write("clear; jobs; bg; sleep 0.2; jobs\n").await;
    client.shows("Running").await;
    client.write("fg\n").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    client.write("\u{3}").await;
    client.write("clear; (exit 41)\n").await;
    client.until("an empty screen", |client| client.screen.text(false, false)[0] == "$").await;
    client.same_as_server(&server, &id).await;
    client.write("\u{4}").await;
    assert_eq!(client.exit().await["exitCode"], 41, "Ctrl-D: the last status");
    client.end().await;
    home_is_left_alone(server, &home);
}

fn home_is_left_alone(server: Server, home: &Home) {
    assert_eq!(server.stop(), Some(0));
    home.assert_empty();
}

#[tokio::test]
async fn bash_knows_its_terminal() {
    let home = Home::new();
    let server = Server::start(&home);
    let (id, mut client) = bash(&server).await;
    assert_eq!(screen(&server, &id, "?format=cells").await["modes"]["bracketedPaste"], true);
    client
        .write("trap 'echo winch; stty size' WINCH; echo \"$TERM\"; tty; stty size; echo $COLUMNS; stty -a | grep -o ' iutf8'\n")
        .await;
    client.shows("\n iutf8").await;
    let text = client.text();
    let has = |line: &str| assert!(text.lines().any(|shown| shown == line), "{line}: {text}");
    has("xterm-256color");
    has("24 80");
    assert!(text.lines().any(|line| line.starts_with("/dev/pts/")), "{text}");
    client.resize(132, 50).await;
    client.write("clear; echo; stty size; echo $COLUMNS x $LINES\n").await;
    client.shows("50 132\n132 x 50").await;
    client.same_as_server(&server, &id).await;
    for (cols, rows, status) in
        [(0, 24, 400), (80, 0, 400), (1001, 24, 400), (80, 1001, 400), (1000, 1000, 200), (1, 1, 200), (80, 24, 200)]
    {
        assert_eq!(resize(&server, &id, cols, rows).await, status, "{cols}x{rows}");
        if (status, cols) == (200, 1000) {
            client.write("clear; printf '%1000s%s\\n' x y; stty size\n").await;
            client.until("a wide screen", |client| client.screen.text(false, false).contains(&"1000 1000".to_owned())).await;
            client.same_as_server(&server, &id).await;
        }
    }
    client.write("clear; seq 3\n").await;
    client.shows("1\n2\n3\n$").await;
    client.same_as_server(&server, &id).await;
    let (status, _) =
        server.send("/v1/processes", &json!({"command": "cat", "tty": true, "terminal": {"cols": 0, "rows": 9}})).await;
    assert_eq!(status, 400);
}

#[tokio::test]
async fn wide_characters_are_typed_and_erased() {
    let home = Home::new();
    let server = Server::start(&home);
    // The line discipline's own editing: erasing takes the whole character with IUTF8, and both its columns.
    let id = start(&server, "sh", &["-c", "stty echoe; echo go; while read -r line; do echo \"[$line]\"; done"], json!({})).await;
    let mut client = Client::attach(&server, &id).await;
    client.shows("go").await;
    client.write("ab漢字🎉\u{7f}\u{7f}\u{7f}c\n").await;
    client.shows("[abc]").await;
    client.write("é漢🎉👩‍💻\n").await;
    client.shows("[é漢🎉👩‍💻]").await;
    client.same_as_server(&server, &id).await;
    let (_, mut client) = bash(&server).await;
    client.write("printf '<%s>\\n' 漢字🎉\u{7f}x").await;
    client.shows("漢字x").await;
    client.write("\n").await;
    client.shows("<漢字x>").await;
    let cells = serde_json::to_value(client.screen.cells()).expect("JSON");
    let mut runs = cells["rows"].as_array().expect("rows").iter().flat_map(|row| row.as_array().expect("runs"));
    let run = runs.rfind(|run| run["text"].as_str().expect("text").contains("<漢字x>")).expect("a run");
    assert_eq!(run["width"], 7, "two columns each: {run}");
}

#[tokio::test]
async fn vim_edits_a_file_while_others_attach() {
    needs("vim");
    let home = Home::new();
    let server = Server::start(&home);
    let (id, client) = bash(&server).await;
    let mut client = client.answering();
    let path = home.path().join("notes.txt");
    client.write("clear; seq 100 110; echo beneath\n").await;
    client.shows("beneath\n$").await;
    client.write(&format!("vim -u NONE -N --cmd 'set enc=utf-8 showmode' {}\n", path.display())).await;
    client.until("the other screen", |client| client.screen.is_alternate()).await;
    client.shows("[New]").await;
    client.write("iplain 漢字 🎉 é\r第二 line").await;
    client.shows("第二 line").await;
    client.same_as_server(&server, &id).await;
    let mut second = Client::attach(&server, &id).await;
    second.shows("第二 line").await;
    assert!(second.screen.is_alternate());
    second.same_as_server(&server, &id).await;
    client.resize(100, 30).await;
    client.write("\u{1b}:w\r").await;
    client.shows("written").await;
    second.shows("written").await;
    for viewer in [&mut client, &mut second] {
        viewer.same_as_server(&server, &id).await;
    }
    let mut third = Client::attach(&server, &id).await;
    client.write("dd:q!\r").await;
    for viewer in [&mut client, &mut second, &mut third] {
        viewer.until("the main screen", |client| !client.screen.is_alternate() && client.text().contains("beneath")).await;
        viewer.same_as_server(&server, &id).await;
    }
    assert_eq!(std::fs::read_to_string(&path).expect("saved"), "plain 漢字 🎉 é\n第二 line\n");
    client.write("exit\n").await;
    assert_eq!(client.exit().await["exitCode"], 0);
}

#[tokio::test]
async fn less_scrolls_and_searches() {
    needs("less");
    let home = Home::new();
    let server = Server::start(&home);
    let (id, mut client) = bash(&server).await;
    client.write("clear; echo before; seq 1 500 | less\n").await;
    client.until("the other screen", |client| client.screen.is_alternate() && client.text().starts_with("1\n2\n")).await;
    client.write(" ").await;
    client.until("the next page", |client| client.text().starts_with("24\n")).await;
    client.write("G").await;
    client.shows("\n500\n").await;
    client.write("g/^250$\r").await;
    client.until("what is searched for", |client| client.text().starts_with("250\n")).await;
    client.same_as_server(&server, &id).await;
    Client::attach(&server, &id).await.same_as_server(&server, &id).await;
    client.write("q").await;
    client.until("the main screen", |client| !client.screen.is_alternate() && client.text().contains("before")).await;
    client.same_as_server(&server, &id).await;
}

#[tokio::test]
async fn htop_draws_and_follows_the_size() {
    needs("htop");
    let home = Home::new();
    let server = Server::start(&home);
    let id = start(&server, "htop", &["-d", "3"], json!({"terminal": {"cols": 120, "rows": 40}})).await;
    let mut client = Client::attach(&server, &id).await.answering();
    client.shows("F10").await;
    client.shows("PID").await;
    assert!(client.screen.is_alternate());
    let frames = client.bytes;
    client.until("it draws again and again", |client| client.bytes > frames + 2000).await;
    client.resize(90, 20).await;
    client.until("the last row", |client| client.screen.text(false, false)[19].contains("Quit")).await;
    // It changes all the time: a stopped one can be compared.
    server.send(&format!("/v1/processes/{id}/signal"), &json!({"signal": "STOP"})).await;
    client.same_as_server(&server, &id).await;
    Client::attach(&server, &id).await.same_as_server(&server, &id).await;
    server.send(&format!("/v1/processes/{id}/signal"), &json!({"signal": "CONT"})).await;
    client.write("q").await;
    assert_eq!(client.exit().await["exitCode"], 0);
    client.end().await;
    assert!(!client.screen.is_alternate());
    client.same_as_server(&server, &id).await;
}

#[tokio::test]
async fn tmux_splits_and_detaches() {
    needs("tmux");
    let home = Home::new();
    let server = Server::start(&home);
    let (id, client) = bash(&server).await;
    let mut client = client.answering();
    let socket = home.path().join("tmux").display().to_string();
    let config = home.path().join("tmux.conf");
    std::fs::write(&config, "set -g assume-paste-time 0\n").expect("written"); // we type fast
    client.write(&format!("export SHELL=/bin/sh TMUX=; tmux -u -f {} -S {socket}\n", config.display())).await;
    client.until("its line", |client| client.text().lines().last().is_some_and(|last| last.starts_with("[0]"))).await;
    client.write("\u{2}%").await;
    client.shows("│").await;
    client.write("echo right $((40 + 2))\r").await;
    client.shows("right 42").await;
    client.write("\u{2}o").await;
    client.write("echo left $((50 + 2))\r").await;
    client.shows("left 52").await;
    client.write("\u{2}\"").await;
    client.shows("──").await;
    client.write("stty size\r").await;
    client.shows("11 40").await;
    client.same_as_server(&server, &id).await;
    client.resize(100, 40).await;
    client
        .until("a wider one", |client| {
            client.text().lines().count() == 40 && client.text().lines().last().is_some_and(|last| last.starts_with("[0]"))
        })
        .await;
    let mut second = Client::attach(&server, &id).await;
    second.same_as_server(&server, &id).await;
    client.write("\u{2}d").await;
    for viewer in [&mut client, &mut second] {
        viewer.shows("[detached").await;
        viewer.same_as_server(&server, &id).await;
    }
    // The session is in the background, and goes with the process it came from.
    let (_, stopped): (u16, Value) = server.send(&format!("/v1/processes/{id}/stop"), &json!({})).await;
    assert_eq!(stopped["status"], "exited", "{stopped}");
    let deadline = Instant::now() + PATIENCE;
    while home.processes().iter().any(|(_, line)| line.contains("tmux")) {
        assert!(Instant::now() < deadline, "tmux is left: {:?}", home.processes());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(lines(&server, &id).await.iter().any(|line| line.contains("[detached")), "its last screen is kept");
}
