//! A terminal client as a terminal would be one: it keeps a screen of its own from what it is sent.

use std::time::Duration;

use sandboxd::processes::Screen;
use sandboxd::processes::types::TerminalSize;
use serde_json::{Value, json};

use crate::support::{PATIENCE, Server};
use crate::ws::{Frame, Ws};

/// As many lines as the server keeps.
pub const SCROLLBACK: usize = 1_000;

/// Starts a program in a terminal and gives its id.
pub async fn start(server: &Server, command: &str, args: &[&str], more: Value) -> String {
    let env = json!({"LANG": "C.UTF-8", "PS1": "$ ", "ENV": "", "LESS": "", "VIMINIT": ""});
    let mut spec = json!({"command": command, "args": args, "tty": true, "env": env});
    spec.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
    let (status, info) = server.send("/v1/processes", &spec).await;
    assert_eq!((status, &info["tty"]), (200, &json!(true)), "{info}");
    info["id"].as_str().expect("an id").to_owned()
}

/// The server's screen, in one of its formats.
pub async fn screen(server: &Server, id: &str, query: &str) -> Value {
    let (status, shown) = server.get(&format!("/v1/processes/{id}/terminal/screen{query}")).await;
    assert_eq!(status, 200, "{shown}");
    shown
}

/// The lines of the server's screen, scrollback included.
pub async fn lines(server: &Server, id: &str) -> Vec<String> {
    let shown = screen(server, id, "?scrollback=true").await;
    shown["lines"].as_array().expect("lines").iter().map(|line| line.as_str().expect("text").to_owned()).collect()
}

/// An attached client.
pub struct Client {
    pub ws: Ws,
    pub screen: Screen,
    /// Bytes of output, snapshots not counted.
    pub bytes: u64,
    /// Text frames, `ready` first.
    pub news: Vec<Value>,
    /// The connection was closed by the server.
    pub closed: bool,
    /// All output, when it is to be looked at.
    pub record: Option<Vec<u8>>,
    /// It answers the program's questions, as the one real terminal of several should.
    answers: bool,
    snapshot_follows: bool,
}

impl Client {
    /// Attaches with `snapshot=true`.
    pub async fn attach(server: &Server, id: &str) -> Self {
        let path = format!("/v1/processes/{id}/terminal/ws?snapshot=true");
        let mut ws = Ws::connect(server.port(), &path, &[]).await.expect("a WebSocket");
        let ready = ws.text().await;
        assert_eq!((&ready["type"], &ready["processId"]), (&json!("ready"), &json!(id)));
        let screen = Screen::new(size(&ready), SCROLLBACK);
        let news = vec![ready];
        Self { ws, screen, bytes: 0, news, closed: false, record: None, answers: false, snapshot_follows: false }
    }

    pub fn answering(mut self) -> Self {
        self.answers = true;
        self
    }

    pub fn recording(mut self) -> Self {
        self.record = Some(Vec::new());
        self
    }

    /// Takes one frame; false when there is none any more.
    pub async fn step(&mut self) -> bool {
        let Some(frame) = self.ws.next().await else {
            self.closed = true;
            return false;
        };
        match frame {
            Frame::Binary(bytes) if std::mem::take(&mut self.snapshot_follows) => {
                let announced = self.news.last().expect("announced");
                assert_eq!(announced["bytes"], bytes.len(), "as announced");
                self.screen = Screen::new(size(announced), SCROLLBACK);
                self.screen.feed(&bytes);
                assert!(self.screen.take_replies().is_empty(), "a snapshot asks nothing");
            }
            Frame::Binary(bytes) => self.take(&bytes).await,
            Frame::Text(news) => {
                match news["type"].as_str().expect("a type") {
                    "snapshot" => self.snapshot_follows = true,
                    "resize" => self.screen.resize(size(&news)),
                    "error" | "exit" | "lagged" => {}
                    other => panic!("an unknown frame: {other}"),
                }
                self.news.push(news);
            }
            Frame::Close(_) => self.closed = true,
            Frame::Ping | Frame::Pong(_) => {}
        }
        !self.closed
    }

    async fn take(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.screen.feed(bytes);
        if let Some(record) = &mut self.record {
            record.extend_from_slice(bytes);
        }
        let replies = self.screen.take_replies();
        if self.answers && !replies.is_empty() {
            self.write(&String::from_utf8(replies).expect("ASCII")).await;
        }
    }

    /// Reads until the client is as wanted.
    pub async fn until(&mut self, what: &str, wanted: impl Fn(&Self) -> bool) {
        let all = async {
            while !wanted(self) {
                if !self.step().await {
                    return wanted(self);
                }
            }
            true
        };
        let met = tokio::time::timeout(PATIENCE, all).await.unwrap_or(false);
        assert!(met, "not met: {what}; news {:?}; screen:\n{}", self.news, self.text());
    }

    /// Reads until the screen shows these words.
    pub async fn shows(&mut self, words: &str) {
        self.until(words, |client| client.text().contains(words)).await;
    }

    /// Reads until the line with the cursor, up to the cursor, is this.
    pub async fn prompts(&mut self, line: &str) {
        self.until(line, |client| client.cursor_line() == line).await;
    }

    /// Reads until the exit; gives its frame.
    pub async fn exit(&mut self) -> Value {
        self.until("an exit", |client| client.news.last().is_some_and(|news| news["type"] == "exit")).await;
        self.news.last().cloned().expect("just seen")
    }

    /// Reads to the end of the connection.
    pub async fn end(&mut self) {
        self.until("a close", |client| client.closed).await;
    }

    pub async fn write(&mut self, text: &str) {
        self.ws.send(&json!({"type": "input", "data": text})).await;
    }

    pub async fn resize(&mut self, cols: u16, rows: u16) {
        self.ws.send(&json!({"type": "resize", "cols": cols, "rows": rows})).await;
        self.until("the new size", |client| client.screen.size() == TerminalSize { cols, rows }).await;
    }

    pub fn text(&self) -> String {
        self.screen.text(false, false).join("\n")
    }

    /// How often a kind of frame came.
    pub fn count(&self, kind: &str) -> usize {
        self.news.iter().filter(|news| news["type"] == kind).count()
    }

    fn cursor_line(&self) -> String {
        let cursor = self.screen.cursor_info();
        let lines = self.screen.text(false, false);
        let line = lines.get(cursor.row).map(String::as_str).unwrap_or_default();
        let width = cursor.column;
        let shown: String = line.chars().take(width).collect();
        format!("{shown:<width$}")
    }

    /// What it shows and knows: cells, cursor, modes, and all lines.
    fn state(&mut self) -> (Value, Vec<String>) {
        let cells = serde_json::to_value(self.screen.cells()).expect("JSON");
        (cells, self.screen.text(true, false))
    }

    /// Fails unless this client's screen becomes the server's, and its scrollback, too.
    pub async fn same_as_server(&mut self, server: &Server, id: &str) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            while !self.closed && tokio::time::timeout(Duration::from_millis(100), self.step()).await.is_ok() {}
            let before = self.state();
            let served = (screen(server, id, "?format=cells").await, lines(server, id).await);
            if before == served {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "another screen:\n{before:#?}\nserver:\n{served:#?}");
        }
    }
}

fn size(frame: &Value) -> TerminalSize {
    serde_json::from_value(json!({"cols": frame["cols"], "rows": frame["rows"]})).expect("a size")
}
