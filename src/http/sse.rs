//! The one encoder of event streams (WHATWG HTML, "Server-sent events"): a tail of a stream of the log.
//!
//! `message` events carry the log's own positions as ids. What can't be had any more is a `gap {from,to,reason}`;
//! what the disk refused but memory still has is announced by `not_kept {from,to}`; the end of the stream is
//! `end {reason}`. A reader that doesn't read costs one chunk.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, header};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio_util::sync::CancellationToken;

use super::AppState;
use super::extract::accepts;
use super::problem::{ApiError, ErrorCode};
use crate::acp::{Reader, Readers};
use crate::config::{Bounds, as_duration, as_usize};
use crate::store::{Item, Newest, Stream};

/// What a feed needs.
pub struct Feed {
    stream: Arc<Stream>,
    reader: Option<Arc<Reader>>,
    newest: watch::Receiver<Newest>,
    cursor: u64,
    /// The client's `Last-Event-ID` when it lies beyond what the log has: the disk lost what it names.
    beyond: Option<u64>,
    heartbeat: Duration,
    page_max_events: usize,
    chunk_max_bytes: usize,
    stop: CancellationToken,
    /// Why the stream ends, when it does by itself.
    ended_because: &'static str,
    state: State,
    _permit: OwnedSemaphorePermit,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Live,
    Over,
}

impl Feed {
    /// A feed of what follows `after`, ending with the stream or with `stop`. `reader` is kept informed of how far
    /// the socket got.
    pub fn new(
        stream: Arc<Stream>,
        reader: Option<Arc<Reader>>,
        after: u64,
        bounds: &Bounds,
        stop: CancellationToken,
        ended_because: &'static str,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        let newest = stream.watch();
        let last = newest.borrow().seq;
        Self {
            stream,
            reader,
            newest,
            cursor: after.min(last),
            beyond: (after > last).then_some(after),
            heartbeat: as_duration(bounds.sse_heartbeat_ms),
            page_max_events: as_usize(bounds.log_page_max_events),
            chunk_max_bytes: as_usize(bounds.sse_chunk_max_bytes),
            stop,
            ended_because,
            state: State::Live,
            _permit: permit,
        }
    }

    /// The response.
    pub fn into_response(self) -> Response {
        let frames = futures_util::stream::unfold(self, |mut feed| async move {
            let chunk = feed.next().await?;
            Some((Ok::<_, std::convert::Infallible>(chunk), feed))
        });
        let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-cache")];
        (headers, Body::from_stream(frames)).into_response()
    }

    /// The next chunk. Being asked again means that the socket took the last one.
    async fn next(&mut self) -> Option<Bytes> {
        if self.state == State::Over {
            return None;
        }
        if let Some(beyond) = self.beyond.take() {
            return Some(gap(self.cursor + 1, beyond, "not_kept", self.cursor).into());
        }
        loop {
            let newest = *self.newest.borrow_and_update(); // before reading: what comes after wakes `changed`
            if let Some(reader) = &self.reader {
                reader.reached(self.cursor, newest.seq);
            }
            if self.cursor < newest.seq {
                match self.read().await {
                    Ok(Some(chunk)) => return Some(chunk),
                    Ok(None) => {}
                    Err(chunk) => return Some(chunk),
                }
            } else if newest.ended {
                // At a shutdown the rooms end their streams, too: nothing was deleted then.
                return Some(self.end(if self.stop.is_cancelled() { "shutdown" } else { self.ended_because }));
            }
            tokio::select! {
                changed = self.newest.changed() => if changed.is_err() { return Some(self.end(self.ended_because)) },
                () = tokio::time::sleep(self.heartbeat) => return Some(Bytes::from_static(b": heartbeat\n\n")),
                () = self.stop.cancelled() => return Some(self.end("shutdown")),
            }
        }
    }

    async fn read(&mut self) -> Result<Option<Bytes>, Bytes> {
        let items = self.stream.read_after(self.cursor, self.page_max_events, self.chunk_max_bytes).await;
        let items = items.map_err(|error| {
            self.state = State::Over;
            Bytes::from(format!("event: error\ndata: {}\n\n", ApiError::from(error).body()))
        })?;
        let Some(last) = items.last() else { return Ok(None) };
        self.cursor = last.end();
        Ok(Some(encode(&items)))
    }

    fn end(&mut self, reason: &str) -> Bytes {
        self.state = State::Over;
        format!("event: end\ndata: {{\"reason\":\"{reason}\"}}\n\n").into()
    }
}

/// A stream of the log as an event stream, from where `Last-Event-ID` says.
pub fn open(
    state: &AppState,
    stream: Arc<Stream>,
    readers: Option<&Readers>,
    headers: &HeaderMap,
    ended_because: &'static str,
) -> Result<Response, ApiError> {
    let after = check(headers)?;
    let permit = state.subscribers.clone().try_acquire_owned().map_err(|_| {
        let max = state.config.bounds.sse_subscribers_max;
        ApiError::new(ErrorCode::Busy, format!("{max} event streams are open already: close one that is no longer read"))
    })?;
    let reader = readers.map(|readers| readers.register(after));
    Ok(Feed::new(stream, reader, after, &state.config.bounds, state.stop.clone(), ended_because, permit).into_response())
}

/// What a request for events must say; gives its `Last-Event-ID`.
pub fn check(headers: &HeaderMap) -> Result<u64, ApiError> {
    if accepts(headers, "text", "event-stream") {
        return last_event_id(headers);
    }
    Err(ApiError::with_message(ErrorCode::NotAcceptable, "not acceptable", "accept must allow text/event-stream"))
}

fn last_event_id(headers: &HeaderMap) -> Result<u64, ApiError> {
    let Some(value) = headers.get("last-event-id") else { return Ok(0) };
    match value.to_str().map(str::trim) {
        Ok("") => Ok(0),
        Ok(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => {
            text.parse().map_err(|_| ApiError::invalid("Last-Event-ID must be a positive integer"))
        }
        _ => Err(ApiError::invalid("Last-Event-ID must be a positive integer")),
    }
}

fn encode(items: &[Item]) -> Bytes {
    let size: usize = items.iter().map(|item| if let Item::Event(event) = item { event.payload.len() + 48 } else { 96 }).sum();
    let mut out = Vec::with_capacity(size);
    let mut announced = 0;
    for (at, item) in items.iter().enumerate() {
        match item {
            Item::Gap { from, to, reason } => out.extend_from_slice(gap(*from, *to, reason.as_str(), *to).as_bytes()),
            Item::Event(event) => {
                if !event.kept && event.seq > announced {
                    announced = run_not_kept(&items[at..]);
                    let note = format!("event: not_kept\ndata: {{\"from\":{},\"to\":{announced}}}\n\n", event.seq);
                    out.extend_from_slice(note.as_bytes());
                }
                let mut head = String::with_capacity(40);
                let _ = write!(head, "event: message\nid: {}\ndata: ", event.seq); // writing to a String can't fail
                out.extend_from_slice(head.as_bytes());
                out.extend_from_slice(&event.payload);
                out.extend_from_slice(b"\n\n");
            }
        }
    }
    out.into()
}

/// The last position of the unkept events at the beginning.
fn run_not_kept(items: &[Item]) -> u64 {
    let run = items.iter().map_while(|item| match item {
        Item::Event(event) if !event.kept => Some(event.seq),
        _ => None,
    });
    run.last().unwrap_or_default()
}

fn gap(from: u64, to: u64, reason: &str, id: u64) -> String {
    format!("event: gap\nid: {id}\ndata: {{\"from\":{from},\"to\":{to},\"reason\":\"{reason}\"}}\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Event, GapReason};

    fn event(seq: u64, kept: bool) -> Item {
        Item::Event(Event { seq, payload: Bytes::from_static(b"{}"), kept })
    }

    #[test]
    fn frames_name_gaps_and_what_was_not_kept() {
        let items = [
            Item::Gap { from: 1, to: 3, reason: GapReason::Retention },
            event(4, true),
            event(5, false),
            event(6, false),
            event(7, true),
        ];
        let text = String::from_utf8(encode(&items).to_vec()).expect("UTF-8");
        let expected = "event: gap\nid: 3\ndata: {\"from\":1,\"to\":3,\"reason\":\"retention\"}\n\n\
                        event: message\nid: 4\ndata: {}\n\n\
                        event: not_kept\ndata: {\"from\":5,\"to\":6}\n\n\
                        event: message\nid: 5\ndata: {}\n\n\
                        event: message\nid: 6\ndata: {}\n\n\
                        event: message\nid: 7\ndata: {}\n\n";
        assert_eq!(text, expected);
    }
}
