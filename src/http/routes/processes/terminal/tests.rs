//! Sessions over real sockets, with a terminal that tests pull the strings of.

#[path = "../../../../../tests/api/ws.rs"]
#[allow(dead_code)] // shared with the tests over the real binary
mod ws;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::ws::WebSocketUpgrade;
use axum::routing::get;
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::ws::{Frame, Ws};
use super::session::{Session, Snapshots, Terminal};
use crate::processes::types::{ProcessId, ProcessInfo, ProcessStatus, TerminalSize};
use crate::processes::{Error, Exit, Owner, TerminalEvent};
use crate::rt::spawn_owned;

const INPUT_MAX: u64 = 100;
const MESSAGE_MAX: usize = 4096;
const NEVER: Duration = Duration::from_secs(3600);

struct Puppet {
    snapshot: Option<Bytes>,
    events: mpsc::Receiver<TerminalEvent>,
    inputs: mpsc::Sender<Bytes>,
}

impl Terminal for Puppet {
    fn size(&self) -> TerminalSize {
        TerminalSize::default()
    }

    fn take_snapshot(&mut self) -> Option<Bytes> {
        self.snapshot.take()
    }

    async fn next(&mut self) -> TerminalEvent {
        match self.events.recv().await {
            Some(event) => event,
            None => std::future::pending().await,
        }
    }

    async fn input(&self, bytes: Bytes) -> Result<usize, Error> {
        if bytes.len() as u64 > INPUT_MAX {
            return Err(Error::InputTooLarge { max: INPUT_MAX });
        }
        let length = bytes.len();
        self.inputs.send(bytes).await.map_err(|_| Error::Stopping)?;
        Ok(length)
    }

    async fn resize(&self, size: TerminalSize) -> Result<(), Error> {
        if size.cols == 0 {
            return Err(Error::Invalid("cols and rows must be 1 to 1000".into()));
        }
        self.inputs.send(format!("{}x{}", size.cols, size.rows).into()).await.map_err(|_| Error::Stopping)
    }
}

/// The other end of a session: its client, and the strings of its terminal.
struct Stage {
    ws: Ws,
    events: mpsc::Sender<TerminalEvent>,
    inputs: mpsc::Receiver<Bytes>,
    stop: CancellationToken,
}

async fn stage(snapshots: Snapshots, snapshot: Option<&'static [u8]>, ping: Duration) -> Stage {
    let (events, puppet_events) = mpsc::channel(8);
    let (puppet_inputs, inputs) = mpsc::channel(1024);
    let puppet = Puppet { snapshot: snapshot.map(Bytes::from_static), events: puppet_events, inputs: puppet_inputs };
    let stop = CancellationToken::new();
    let session = Session::new(puppet, "proc_3".into(), snapshots, ping, stop.clone());
    let session = Arc::new(Mutex::new(Some(session)));
    let attach = move |upgrade: WebSocketUpgrade| {
        let session = session.lock().expect("whole").take().expect("one client");
        std::future::ready(super::bounded(upgrade, MESSAGE_MAX).on_upgrade(|socket| session.run(socket)))
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    spawn_owned("http", async move {
        axum::serve(listener, Router::<()>::new().route("/", get(attach))).await.expect("serves");
    });
    let ws = Ws::connect(port, "/", &[]).await.expect("a WebSocket");
    Stage { ws, events, inputs, stop }
}

/// A stage whose client has been greeted.
async fn greeted() -> Stage {
    let mut stage = stage(Snapshots::Plain, None, NEVER).await;
    assert_eq!(stage.ws.text().await, json!({"type": "ready", "processId": "proc_3"}));
    stage
}

impl Stage {
    async fn tell(&self, event: TerminalEvent) {
        self.events.send(event).await.expect("a session");
    }

    async fn output(&self, text: &'static str) {
        self.tell(TerminalEvent::Output(Bytes::from_static(text.as_bytes()))).await;
    }

    async fn heard(&mut self) -> String {
        let bytes = tokio::time::timeout(Duration::from_secs(30), self.inputs.recv()).await.expect("input in time");
        String::from_utf8(bytes.expect("a session").to_vec()).expect("text")
    }

    async fn refused(&mut self) -> String {
        let frame = self.ws.text().await;
        assert_eq!(frame["type"], "error", "{frame}");
        frame["message"].as_str().expect("a sentence").to_owned()
    }
}

fn exited(exit: Exit) -> TerminalEvent {
    TerminalEvent::Exited(ProcessInfo {
        id: ProcessId(3),
        command: "sh".into(),
        args: Vec::new(),
        cwd: None,
        tty: true,
        interactive: false,
        owner: Owner::User,
        status: ProcessStatus::Exited,
        pid: None,
        exit_code: exit.code(),
        created_at_ms: 1,
        exited_at_ms: Some(2),
        exit: Some(exit.into()),
        exit_reason: None,
        restart: None,
        restarts: 0,
        terminal: None,
        tree: None,
    })
}

fn binary(text: &str) -> Option<Frame> {
    Some(Frame::Binary(text.as_bytes().to_vec()))
}

#[tokio::test]
async fn the_screen_comes_first_unless_it_is_not_wanted() {
    let plain = json!({"type": "ready", "processId": "proc_3"});
    let mut with = stage(Snapshots::Plain, Some(b"screen"), NEVER).await;
    with.output("after").await;
    assert_eq!(with.ws.text().await, plain);
    assert_eq!((with.ws.next().await, with.ws.next().await), (binary("screen"), binary("after")));
    let mut without = stage(Snapshots::None, Some(b"screen"), NEVER).await;
    without.output("after").await;
    assert_eq!((without.ws.text().await, without.ws.next().await), (plain, binary("after")));
    let mut announced = stage(Snapshots::Announced, Some(b"screen"), NEVER).await;
    assert_eq!(announced.ws.text().await, json!({"type": "ready", "processId": "proc_3", "cols": 80, "rows": 24}));
    assert_eq!(announced.ws.text().await, json!({"type": "snapshot", "cols": 80, "rows": 24, "bytes": 6}));
    assert_eq!(announced.ws.next().await, binary("screen"));
}

#[tokio::test]
async fn older_clients_are_told_in_words_they_know_and_newer_ones_in_frames() {
    let redraw = || TerminalEvent::Redraw {
        size: TerminalSize { cols: 91, rows: 31 },
        snapshot: Bytes::from_static(b"now"),
        skipped_bytes: 9,
    };
    let size = TerminalSize { cols: 100, rows: 30 };
    let mut older = greeted().await;
    older.tell(TerminalEvent::Resized(size)).await;
    older.tell(redraw()).await;
    let words = "output was left out: 9 bytes came faster than this client reads; the screen as it is now follows";
    assert_eq!((older.refused().await.as_str(), older.ws.next().await), (words, binary("now")));
    let mut newer = stage(Snapshots::Announced, None, NEVER).await;
    newer.tell(TerminalEvent::Resized(size)).await;
    newer.tell(redraw()).await;
    assert_eq!(newer.ws.text().await["type"], "ready");
    assert_eq!(newer.ws.text().await, json!({"type": "resize", "cols": 100, "rows": 30}));
    assert_eq!(newer.ws.text().await, json!({"type": "lagged", "skippedBytes": 9}));
    assert_eq!(newer.ws.text().await, json!({"type": "snapshot", "cols": 91, "rows": 31, "bytes": 3}));
    assert_eq!(newer.ws.next().await, binary("now"));
}

#[tokio::test]
async fn an_exit_is_told_after_all_output_and_closes_without_a_status() {
    for (exit, code) in [(Exit::Code(5), json!(5)), (Exit::Signal(9), Value::Null)] {
        let mut stage = greeted().await;
        stage.output("last ").await;
        stage.output("words").await;
        stage.tell(exited(exit)).await;
        let output = stage.ws.output(|output| output.len() >= 10).await;
        assert_eq!(output, b"last words");
        assert_eq!(stage.ws.text().await, json!({"type": "exit", "exitCode": code}));
        assert_eq!(stage.ws.next().await, Some(Frame::Close(None)));
    }
}

#[tokio::test]
async fn input_arrives_and_what_is_wrong_with_it_is_said() {
    let mut stage = greeted().await;
    stage.ws.send(&json!({"type": "input", "data": "ls é\n"})).await;
    assert_eq!(stage.heard().await, "ls é\n");
    stage.ws.send(&json!({"type": "input", "data": "aGkK", "encoding": "base64"})).await;
    assert_eq!(stage.heard().await, "hi\n");
    stage.ws.send(&json!({"type": "resize", "cols": 111, "rows": 33})).await;
    assert_eq!(stage.heard().await, "111x33");
    for (frame, words) in [
        (
            json!({"type": "input", "data": "x", "encoding": "hex"}),
            "invalid request: encoding must be one of: base64, utf8, text",
        ),
        (json!({"type": "input", "data": "x", "encoding": "base64"}), "invalid request: invalid base64 input: "),
        (json!({"type": "input", "data": "x".repeat(101)}), "input payload exceeds maxInputBytesPerRequest (100)"),
        (json!({"type": "resize", "cols": 0, "rows": 1}), "cols and rows must be 1 to 1000"),
        (json!({"type": "paste"}), "invalid terminal frame: unknown variant `paste`"),
    ] {
        stage.ws.send(&frame).await;
        let said = stage.refused().await;
        assert!(said.starts_with(words), "{frame}: {said}");
    }
    stage.ws.send_frame(true, ws::BINARY, b"ls\n").await;
    assert_eq!(stage.refused().await, "binary input is not supported; use text JSON frames");
    stage.ws.send_frame(false, ws::TEXT, br#"{"type":"input","#).await;
    stage.ws.send_frame(true, ws::CONTINUATION, br#""data":"still here"}"#).await;
    assert_eq!(stage.heard().await, "still here");
    assert!(stage.inputs.is_empty(), "nothing that was refused was typed");
}

#[tokio::test]
async fn either_side_may_say_goodbye() {
    let mut asks = greeted().await;
    asks.ws.send(&json!({"type": "close"})).await;
    assert_eq!(asks.ws.next().await, Some(Frame::Close(None)));
    let mut closes = greeted().await;
    closes.ws.send_frame(true, 8, &1000u16.to_be_bytes()).await;
    assert!(matches!(closes.ws.next().await, Some(Frame::Close(_))));
    assert_eq!(closes.ws.next().await, None);
    let mut stopped = greeted().await;
    stopped.stop.cancel();
    assert_eq!(stopped.ws.next().await, Some(Frame::Close(Some((1001, "going away".into())))));
    for mut stage in [asks, closes, stopped] {
        assert_eq!(stage.inputs.recv().await, None, "it is detached");
    }
}

#[tokio::test]
async fn what_can_not_be_read_closes_with_its_code() {
    for (opcode, payload, code) in
        [(ws::TEXT, vec![b'x'; MESSAGE_MAX + 1], 1009), (ws::TEXT, vec![0xff, 0xfe], 1007), (3, vec![], 1002)]
    {
        let mut stage = greeted().await;
        stage.ws.send_frame(true, opcode, &payload).await;
        let frame = stage.ws.next().await;
        assert!(matches!(&frame, Some(Frame::Close(Some((got, _)))) if *got == code), "{code}: {frame:?}");
        assert_eq!(stage.inputs.recv().await, None, "it is detached");
    }
}

/// Feeds output until the session takes no more; gives how many pieces went in.
async fn stall(stage: &Stage) -> usize {
    let piece = Bytes::from(vec![b'x'; 32 * 1024]);
    let mut fed = 0;
    while let Ok(sent) =
        tokio::time::timeout(Duration::from_millis(300), stage.events.send(TerminalEvent::Output(piece.clone()))).await
    {
        sent.expect("a session");
        fed += 1;
        assert!(fed < 4096, "the session takes output without end");
    }
    fed
}

#[tokio::test]
async fn a_client_that_does_not_read_can_type_and_costs_a_bundle() {
    let mut stage = greeted().await;
    let fed = stall(&stage).await;
    stage.ws.send(&json!({"type": "input", "data": "\u{3}"})).await;
    assert_eq!(stage.heard().await, "\u{3}");
    stage.ws.send(&json!({"type": "input", "data": "x".repeat(101)})).await;
    let expected = fed * 32 * 1024;
    let mut got = 0;
    let mut refused = 0;
    while got < expected || refused == 0 {
        match stage.ws.next().await {
            Some(Frame::Binary(bytes)) => got += bytes.len(),
            Some(Frame::Text(frame)) if frame["type"] == "error" => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((got, refused), (expected, 1));
}

#[tokio::test]
async fn a_client_that_does_not_read_its_errors_is_no_longer_listened_to() {
    let mut stage = greeted().await;
    stall(&stage).await;
    for _ in 0..100 {
        stage.ws.send(&json!({"type": "paste"})).await;
    }
    stage.ws.send(&json!({"type": "input", "data": "after the errors"})).await;
    let typed = tokio::time::timeout(Duration::from_millis(300), stage.inputs.recv()).await;
    assert!(typed.is_err(), "it was listened to although 64 answers wait");
    let mut errors = 0;
    while errors < 100 {
        match stage.ws.next().await {
            Some(Frame::Binary(_)) => {}
            Some(Frame::Text(frame)) if frame["type"] == "error" => errors += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(stage.heard().await, "after the errors", "nothing is lost");
}

#[tokio::test]
async fn clients_that_answer_pings_stay_and_silent_ones_are_dropped() {
    let ping = Duration::from_millis(50);
    let mut stage = stage(Snapshots::Plain, None, ping).await;
    assert_eq!(stage.ws.text().await["type"], "ready");
    for _ in 0..10 {
        assert_eq!(stage.ws.next().await, Some(Frame::Ping));
        stage.ws.send_frame(true, ws::PONG, b"").await;
    }
    let silent_since = tokio::time::Instant::now();
    while let Some(frame) = stage.ws.next().await {
        assert_eq!(frame, Frame::Ping);
    }
    assert!(silent_since.elapsed() >= ping * 3, "dropped too early: {:?}", silent_since.elapsed());
    assert_eq!(stage.inputs.recv().await, None, "it is detached");
}
