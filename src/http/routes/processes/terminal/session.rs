//! One client of one terminal.
//!
//! ```text
//! ready ─▶ (snapshot) ─▶ output, errors, news … ─▶ exit ─▶ close
//!                              └ close asked for, server stops, frame too long ─▶ close
//!                              └ client gone, or silent for four pings ─▶ dropped
//! ```
//!
//! One task selects over the socket's two halves and the terminal. Output is asked for only when the socket has taken
//! what came before: a client that doesn't read costs one bundle here, and its terminal redraws for it later. What such a
//! client sends is handled all the same.

use std::future::Future;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use bytes::Bytes;
use futures_util::stream::SplitStream;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::super::input::decode;
use super::frames::{ClientFrame, ServerFrame};
use super::outbox::Outbox;
use crate::http::closing;
use crate::processes::types::{Encoding, TerminalSize};
use crate::processes::{Attachment, Error, TerminalEvent};

/// The time for a client to answer a close frame.
const CLOSE_TIME: Duration = Duration::from_secs(1);

/// So many pings may stay without any word.
const PINGS_MISSED: u32 = 4;

/// The terminal as a session uses it: [`Attachment`], or a pretended one in tests.
pub(super) trait Terminal: Send + Sync + 'static {
    fn size(&self) -> TerminalSize;
    fn take_snapshot(&mut self) -> Option<Bytes>;
    /// Cancel safe.
    fn next(&mut self) -> impl Future<Output = TerminalEvent> + Send;
    fn input(&self, bytes: Bytes) -> impl Future<Output = Result<usize, Error>> + Send;
    fn resize(&self, size: TerminalSize) -> impl Future<Output = Result<(), Error>> + Send;
}

impl Terminal for Attachment {
    fn size(&self) -> TerminalSize {
        Attachment::size(self)
    }

    fn take_snapshot(&mut self) -> Option<Bytes> {
        Attachment::take_snapshot(self)
    }

    async fn next(&mut self) -> TerminalEvent {
        Attachment::next(self).await
    }

    async fn input(&self, bytes: Bytes) -> Result<usize, Error> {
        Attachment::input(self, bytes).await
    }

    async fn resize(&self, size: TerminalSize) -> Result<(), Error> {
        Attachment::resize(self, size).await
    }
}

/// How a client is shown the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Snapshots {
    /// Not when it attaches.
    None,
    /// As if it were output.
    Plain,
    /// After a frame that says so; such a client also understands news about sizes and left out output.
    Announced,
}

/// How a session ends.
#[derive(Debug)]
enum Ending {
    /// We say goodbye.
    Close(Option<CloseFrame>),
    /// The client sent something that can't be read on from.
    Unreadable(CloseFrame),
    /// The client said goodbye.
    Answer,
    /// Nobody is there any more.
    Gone,
}

/// A client that is attached. Dropping it detaches.
pub(super) struct Session<T> {
    terminal: T,
    /// As far as the client knows.
    size: TerminalSize,
    process_id: String,
    snapshots: Snapshots,
    ping: Duration,
    stop: CancellationToken,
}

impl<T: Terminal> Session<T> {
    /// A session that pings its client every `ping`, and ends with `stop` at the latest.
    pub(super) fn new(terminal: T, process_id: String, snapshots: Snapshots, ping: Duration, stop: CancellationToken) -> Self {
        Self { size: terminal.size(), terminal, process_id, snapshots, ping, stop }
    }

    /// Until either side closes.
    pub(super) async fn run(mut self, socket: WebSocket) {
        let (sink, mut incoming) = socket.split();
        let mut outbox = Outbox::new(sink);
        self.greet(&mut outbox);
        let ending = self.talk(&mut outbox, &mut incoming).await;
        tracing::debug!(process = self.process_id, ?ending, "terminal client detached");
        drop(self.terminal); // a goodbye that takes its time keeps nothing attached
        let _ = tokio::time::timeout(CLOSE_TIME, part(ending, &mut outbox, &mut incoming)).await;
    }

    fn greet(&mut self, outbox: &mut Outbox) {
        let size = (self.snapshots == Snapshots::Announced).then_some(self.size);
        outbox.push(ServerFrame::Ready { process_id: &self.process_id, size });
        if self.snapshots != Snapshots::None
            && let Some(snapshot) = self.terminal.take_snapshot()
        {
            self.show(snapshot, outbox);
        }
    }

    fn show(&self, snapshot: Bytes, outbox: &mut Outbox) {
        if self.snapshots == Snapshots::Announced {
            outbox.push(ServerFrame::Snapshot { size: self.size, bytes: snapshot.len() });
        }
        outbox.push(Message::Binary(snapshot));
    }

    async fn talk(&mut self, outbox: &mut Outbox, incoming: &mut SplitStream<WebSocket>) -> Ending {
        let mut ping = tokio::time::interval_at(Instant::now() + self.ping, self.ping);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        let mut exited = false;
        loop {
            let is_idle = outbox.is_idle();
            if exited && is_idle {
                return Ending::Close(None);
            }
            tokio::select! {
                () = self.stop.cancelled() => return going_away(),
                _ = ping.tick() => {
                    if heard.elapsed() >= self.ping * PINGS_MISSED {
                        return Ending::Gone;
                    }
                    // Behind a flood, too: whoever reads it is there, but is only heard when it is asked.
                    outbox.ping();
                }
                message = incoming.next(), if outbox.may_listen() => {
                    heard = Instant::now();
                    match message {
                        None => return Ending::Gone,
                        Some(Err(error)) => return unreadable(&error),
                        Some(Ok(message)) => if let Some(ending) = self.hear(message, outbox).await { return ending },
                    }
                }
                written = outbox.write(), if !is_idle => if written.is_err() { return Ending::Gone },
                event = self.terminal.next(), if is_idle && !exited => exited = self.tell_all(event, outbox),
            }
        }
    }

    /// Puts an event and what is there already after it into the outbox; true when that was the exit.
    fn tell_all(&mut self, event: TerminalEvent, outbox: &mut Outbox) -> bool {
        let mut next = Some(event);
        while let Some(event) = next {
            if self.tell(event, outbox) {
                return true;
            }
            next = if outbox.has_room() { self.terminal.next().now_or_never() } else { None };
        }
        false
    }

    fn tell(&mut self, event: TerminalEvent, outbox: &mut Outbox) -> bool {
        let announced = self.snapshots == Snapshots::Announced;
        match event {
            TerminalEvent::Output(bytes) => outbox.push(Message::Binary(bytes)),
            TerminalEvent::Redraw { size, snapshot, skipped_bytes } => {
                self.size = size;
                if announced {
                    outbox.push(ServerFrame::Lagged { skipped_bytes });
                } else {
                    let message = format!(
                        "output was left out: {skipped_bytes} bytes came faster than this client reads; the screen as it is now follows"
                    );
                    outbox.push(ServerFrame::Error { message: &message });
                }
                self.show(snapshot, outbox);
            }
            TerminalEvent::Resized(size) => {
                self.size = size;
                if announced {
                    outbox.push(ServerFrame::Resize(size));
                }
            }
            TerminalEvent::Exited(info) => {
                outbox.push(ServerFrame::Exit { exit_code: info.exit_code, exit: info.exit.filter(|_| announced) });
                return true;
            }
        }
        false
    }

    async fn hear(&self, message: Message, outbox: &mut Outbox) -> Option<Ending> {
        let outcome = match message {
            Message::Text(text) => match ClientFrame::parse(&text) {
                Ok(ClientFrame::Input { data, encoding }) => self.input(data, encoding.as_deref()).await,
                Ok(ClientFrame::Resize(size)) => self.terminal.resize(size).await.map_err(|error| error.to_string()),
                Ok(ClientFrame::Close) => return Some(Ending::Close(None)),
                Err(why) => Err(why),
            },
            Message::Binary(_) => Err("binary input is not supported; use text JSON frames".to_owned()),
            Message::Close(_) => return Some(Ending::Answer),
            Message::Ping(_) | Message::Pong(_) => Ok(()), // the library answers pings
        };
        if let Err(message) = outcome {
            outbox.reply(ServerFrame::Error { message: &message });
        }
        None
    }

    async fn input(&self, data: String, encoding: Option<&str>) -> Result<(), String> {
        let bytes = decode(data, encoding, Encoding::Utf8).map_err(|why| format!("invalid request: {why}"))?;
        self.terminal.input(bytes).await.map(drop).map_err(|error| error.to_string())
    }
}

/// Says goodbye, and reads on until the client has done so, too.
async fn part(ending: Ending, outbox: &mut Outbox, incoming: &mut SplitStream<WebSocket>) {
    let (frame, linger) = match ending {
        Ending::Gone => return,
        Ending::Answer => (None, None),
        Ending::Close(frame) => (Some(Message::Close(frame)), None),
        Ending::Unreadable(frame) => (Some(Message::Close(Some(frame))), Some(closing::LINGER)),
    };
    if let Some(frame) = frame
        && outbox.close(frame).await.is_err()
    {
        return;
    }
    if let Some(linger) = linger {
        return tokio::time::sleep(linger).await;
    }
    while let Some(Ok(_)) = incoming.next().await {}
}

fn going_away() -> Ending {
    Ending::Close(Some(closing::frame(closing::GOING_AWAY)))
}

fn unreadable(error: &axum::Error) -> Ending {
    closing::unreadable(error).map_or(Ending::Gone, |why| Ending::Unreadable(closing::frame(why)))
}
