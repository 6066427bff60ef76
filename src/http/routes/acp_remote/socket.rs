//! A whole connection on one WebSocket: text frames are JSON-RPC messages, both ways. It ends with its socket.
//!
//! One task reads the socket and the streams of all sessions in turn, and asks for more only when the socket has taken
//! what came before. While the agent is being initialized, what the client sends waits.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code};
use axum::response::Response;
use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _, select_all};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use http::HeaderValue;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::CONNECTION_ID;
use crate::acp::remote::{Connection, Door, Feed, Page, Remote, Target};
use crate::acp::{Envelope, Kind, ParseError};
use crate::config::{as_duration, as_usize};
use crate::http::AppState;
use crate::http::closing::{self, Closing};
use crate::http::problem::{ApiError, ErrorCode};

/// The time for a close frame to be sent.
const CLOSE_TIME: Duration = Duration::from_secs(1);
/// So many pings may stay without any word; and for so long a frame may be on its way.
const PINGS_MISSED: u32 = 4;

/// Takes the upgrade.
///
/// # Errors
/// 503 when too many WebSockets are open.
pub(super) fn accept(state: &AppState, target: Target, upgrade: WebSocketUpgrade) -> Result<Response, ApiError> {
    let bounds = &state.config.bounds;
    let permit = state.ws_clients.clone().try_acquire_owned().map_err(|_| {
        let max = bounds.ws_clients_max;
        ApiError::new(ErrorCode::Busy, format!("{max} WebSockets are open already: close one that is no longer needed"))
    })?;
    let id = Remote::new_id();
    let header = HeaderValue::from_str(&id).map_err(ApiError::invalid)?;
    let max_bytes = as_usize(bounds.acp_body_max_bytes);
    let socket = Socket {
        remote: state.remote.clone(),
        target: Some(target),
        id,
        ping: as_duration(bounds.ws_ping_ms),
        early_max: as_usize(bounds.acp_connection_early_max_messages),
        early_max_bytes: max_bytes,
        stop: state.stop.clone(),
    };
    let upgrade = upgrade.max_message_size(max_bytes).max_frame_size(max_bytes);
    let mut response = upgrade.on_upgrade(|stream| async move {
        socket.run(stream).await;
        drop(permit);
    });
    response.headers_mut().insert(CONNECTION_ID, header);
    Ok(response)
}

/// A JSON-RPC error for a request whose id is given as written.
pub(super) fn refusal(id: &str, error: &ApiError) -> Bytes {
    error_answer(id, -32603, error.detail(), Some(&error.body()))
}

fn error_answer(id: &str, code: i32, message: &str, data: Option<&serde_json::Value>) -> Bytes {
    let mut error = serde_json::json!({"code": code, "message": message});
    if let Some(data) = data {
        error["data"] = data.clone();
    }
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#).into()
}

type Sink = SplitSink<WebSocket, Message>;
type Begun = Result<(Arc<Connection>, Bytes), (String, ApiError)>;

struct Socket {
    remote: Remote,
    /// Taken by `initialize`.
    target: Option<Target>,
    id: String,
    ping: Duration,
    /// Messages that may wait until `initialize` is answered.
    early_max: usize,
    early_max_bytes: usize,
    stop: CancellationToken,
}

/// How it ends; `None` when nobody is there any more.
type Ending = Option<Closing>;

/// What the loop keeps.
#[derive(Default)]
struct Talk {
    connection: Option<Arc<Connection>>,
    /// The agent is being initialized.
    beginning: Option<BoxFuture<'static, Begun>>,
    /// What came meanwhile.
    early: VecDeque<Envelope>,
    early_bytes: usize,
    feeds: Vec<Feed>,
}

impl Socket {
    async fn run(mut self, socket: WebSocket) {
        let (mut sink, mut incoming) = socket.split();
        let ending = self.talk(&mut sink, &mut incoming).await;
        tracing::debug!(connection = self.id, ?ending, "ACP client gone");
        self.remote.end(&self.id).await;
        if let Some(why) = ending {
            let _ = tokio::time::timeout(CLOSE_TIME, closing::part(&mut sink, why)).await; // whoever is gone needs no goodbye
        }
    }

    async fn talk(&mut self, sink: &mut Sink, incoming: &mut SplitStream<WebSocket>) -> Ending {
        let mut ping = tokio::time::interval_at(Instant::now() + self.ping, self.ping);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut heard, mut talk) = (Instant::now(), Talk::default());
        loop {
            let outcome = tokio::select! {
                () = self.stop.cancelled() => Err(Some(closing::GOING_AWAY)),
                _ = ping.tick() => match heard.elapsed() >= self.ping * PINGS_MISSED {
                    true => Err(None),
                    false => self.send(sink, Message::Ping(Bytes::new())).await,
                },
                message = incoming.next() => {
                    heard = Instant::now();
                    match message {
                        Some(Ok(message)) => self.hear(&mut talk, message, sink).await,
                        Some(Err(error)) => Err(closing::unreadable(&error)),
                        None => Err(None),
                    }
                }
                begun = begun(&mut talk.beginning) => self.begun(&mut talk, begun, sink).await,
                page = self.next_page(talk.connection.as_ref(), &mut talk.feeds) => self.show(page, sink).await,
            };
            if let Err(ending) = outcome {
                return ending;
            }
        }
    }

    async fn hear(&mut self, talk: &mut Talk, message: Message, sink: &mut Sink) -> Result<(), Ending> {
        let text = match message {
            Message::Text(text) => text,
            Message::Close(_) => return Err(Some((close_code::NORMAL, ""))),
            Message::Binary(_) | Message::Ping(_) | Message::Pong(_) => return Ok(()), // binary frames are ignored
        };
        match Envelope::parse(Bytes::from(text)) {
            Err(ParseError::NotJson(why)) => self.send_text(sink, error_answer("null", -32700, &why, None)).await,
            Err(error) => self.send_text(sink, error_answer("null", -32600, &error.to_string(), None)).await,
            Ok(envelope) if let Some(connection) = talk.connection.clone() => self.receive(&connection, envelope, sink).await,
            Ok(envelope) if talk.beginning.is_some() => {
                talk.early_bytes += envelope.text().len();
                talk.early.push_back(envelope);
                let has_room = talk.early.len() <= self.early_max && talk.early_bytes <= self.early_max_bytes;
                if has_room { Ok(()) } else { Err(Some((close_code::POLICY, "too much came before initialize was answered"))) }
            }
            Ok(envelope) => self.begin(talk, envelope),
        }
    }

    fn begin(&mut self, talk: &mut Talk, envelope: Envelope) -> Result<(), Ending> {
        let is_request = envelope.kind() == Kind::Request && envelope.id() != Some("null");
        let Some(target) = self.target.take().filter(|_| is_request && envelope.method() == "initialize") else {
            return Err(Some((close_code::PROTOCOL, "the first message must be initialize, with an id")));
        };
        let (remote, id) = (self.remote.clone(), self.id.clone());
        talk.beginning = Some(
            async move {
                let begun = remote.connect(id, target, &envelope).await;
                begun.map_err(|error| (envelope.id().unwrap_or("null").to_owned(), error.into()))
            }
            .boxed(),
        );
        Ok(())
    }

    async fn begun(&mut self, talk: &mut Talk, begun: Begun, sink: &mut Sink) -> Result<(), Ending> {
        talk.beginning = None;
        match begun {
            Err((id, error)) => {
                self.send_text(sink, refusal(&id, &error)).await?;
                Err(Some((close_code::ERROR, "initialize failed")))
            }
            Ok((connection, answer)) => {
                talk.connection = Some(Arc::clone(&connection));
                self.send_text(sink, answer).await?;
                while let Some(envelope) = talk.early.pop_front() {
                    self.receive(&connection, envelope, sink).await?;
                }
                Ok(())
            }
        }
    }

    async fn receive(&self, connection: &Arc<Connection>, envelope: Envelope, sink: &mut Sink) -> Result<(), Ending> {
        let id = (envelope.kind() == Kind::Request).then(|| envelope.id().unwrap_or("null").to_owned());
        match (self.remote.receive(connection, envelope, Door::Socket).await, id) {
            (Err(error), Some(id)) => self.send_text(sink, refusal(&id, &error.into())).await,
            (Ok(()) | Err(_), _) => Ok(()), // nobody waits for an answer
        }
    }

    /// The next page of any stream; streams that are new are received, too. Cancel safe.
    async fn next_page(&self, connection: Option<&Arc<Connection>>, feeds: &mut Vec<Feed>) -> Result<Page, ApiError> {
        let Some(connection) = connection else { return std::future::pending().await };
        loop {
            for scope in connection.untaken() {
                feeds.push(self.remote.open(connection, scope, None).await?);
            }
            let mut at = 0;
            while at < feeds.len() {
                match feeds[at].read().await? {
                    Page::Messages(messages) => {
                        feeds.rotate_left(at + 1); // each has its turn
                        return Ok(Page::Messages(messages));
                    }
                    Page::Over(reason) if connection.is_over() || feeds.len() == 1 => return Ok(Page::Over(reason)),
                    Page::Over(_) => drop(feeds.swap_remove(at)),
                    Page::Nothing => at += 1,
                }
            }
            let changes = feeds.iter_mut().map(|feed| feed.changed().boxed());
            select_all(changes).await;
        }
    }

    async fn send_text(&self, sink: &mut Sink, text: Bytes) -> Result<(), Ending> {
        self.send(sink, text_frame(text)).await
    }

    async fn send(&self, sink: &mut Sink, message: Message) -> Result<(), Ending> {
        self.in_time(sink.send(message)).await
    }

    /// A client that doesn't read for so long is taken for gone.
    async fn in_time(&self, sending: impl Future<Output = Result<(), axum::Error>>) -> Result<(), Ending> {
        tokio::select! {
            sent = sending => sent.map_err(|_| None),
            () = tokio::time::sleep(self.ping * PINGS_MISSED) => Err(None),
            () = self.stop.cancelled() => Err(Some(closing::GOING_AWAY)),
        }
    }

    async fn show(&self, page: Result<Page, ApiError>, sink: &mut Sink) -> Result<(), Ending> {
        match page {
            Ok(Page::Messages(messages)) => {
                let mut frames = futures_util::stream::iter(messages.into_iter().map(|message| Ok(text_frame(message.text))));
                self.in_time(sink.send_all(&mut frames)).await
            }
            Ok(Page::Nothing) => Ok(()),
            Ok(Page::Over(_)) => Err(Some((close_code::NORMAL, "the connection is over"))),
            Err(_) => Err(Some((close_code::ERROR, "the log can't be read"))),
        }
    }
}

fn text_frame(text: Bytes) -> Message {
    Message::Text(Utf8Bytes::try_from(text).unwrap_or_default()) // envelopes are UTF-8
}

/// Waits for ever when nothing begins.
async fn begun(beginning: &mut Option<BoxFuture<'static, Begun>>) -> Begun {
    match beginning {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}
