//! The one encoder of event streams (WHATWG HTML, "Server-sent events"): heartbeats, permits and ends, over a
//! [`Source`] of frames; and the source that most of them have, a tail of a stream of the log.
//!
//! A tail's `message` events carry the log's own positions as ids. What can't be had any more is a `gap
//! {from,to,reason}`; what the disk refused but memory still has is announced by `not_kept {from,to}`. Every stream ends
//! with `end {reason}`, or with `error` and a problem. A reader that doesn't read costs one chunk.

use std::fmt::Write as _;
use std::future::Future;
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

/// What an event stream is made of.
pub trait Source: Send + 'static {
    /// What is there now. Being asked again means that the socket took the last chunk.
    fn read(&mut self) -> impl Future<Output = Read> + Send;

    /// Waits until `read` may have something else to say. Cancel safe.
    fn changed(&mut self) -> impl Future<Output = ()> + Send;

    /// The frame that says why nothing follows: the event `end` or `error`, with its data.
    fn farewell(event: &str, data: &str) -> String {
        format!("event: {event}\ndata: {data}\n\n")
    }
}

/// What a source has.
#[derive(Debug)]
pub enum Read {
    /// Whole frames.
    Frames(Bytes),
    /// No more for now.
    Nothing,
    /// Nothing will follow, and why.
    Over(&'static str),
    /// It can't go on.
    Failed(ApiError),
}

/// An event stream on its way to one client.
pub struct Feed<S> {
    source: S,
    heartbeat: Duration,
    stop: CancellationToken,
    is_over: bool,
    _permit: OwnedSemaphorePermit,
}

impl<S: Source> Feed<S> {
    /// A feed that ends with its source or with the server.
    ///
    /// # Errors
    /// 503 when as many streams are open as `sse_subscribers_max` allows.
    pub fn new(state: &AppState, source: S) -> Result<Self, ApiError> {
        let permit = state.subscribers.clone().try_acquire_owned().map_err(|_| {
            let max = state.config.bounds.sse_subscribers_max;
            ApiError::new(ErrorCode::Busy, format!("{max} event streams are open already: close one that is no longer read"))
        })?;
        let heartbeat = as_duration(state.config.bounds.sse_heartbeat_ms);
        Ok(Self { source, heartbeat, stop: state.stop.clone(), is_over: false, _permit: permit })
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

    async fn next(&mut self) -> Option<Bytes> {
        if self.is_over {
            return None;
        }
        let heartbeat = tokio::time::sleep(self.heartbeat); // of silence towards the client, whatever is read and left out
        tokio::pin!(heartbeat);
        loop {
            let read = tokio::select! {
                biased;
                read = self.source.read() => read,
                () = &mut heartbeat => return Some(Bytes::from_static(b": heartbeat\n\n")),
            };
            match read {
                Read::Frames(chunk) => return Some(chunk),
                // At a shutdown the rooms end their streams, too: nothing was deleted then.
                Read::Over(reason) => return Some(self.end(if self.stop.is_cancelled() { "shutdown" } else { reason })),
                Read::Failed(error) => {
                    self.is_over = true;
                    return Some(S::farewell("error", &error.body().to_string()).into());
                }
                Read::Nothing => {}
            }
            tokio::select! {
                () = self.source.changed() => {}
                () = &mut heartbeat => return Some(Bytes::from_static(b": heartbeat\n\n")),
                () = self.stop.cancelled() => return Some(self.end("shutdown")),
            }
        }
    }

    fn end(&mut self, reason: &str) -> Bytes {
        self.is_over = true;
        S::farewell("end", &format!("{{\"reason\":\"{reason}\"}}")).into()
    }
}

/// What follows a position of a stream of the log.
struct Tail {
    stream: Arc<Stream>,
    /// Kept informed of how far the socket got.
    reader: Option<Arc<Reader>>,
    newest: watch::Receiver<Newest>,
    cursor: u64,
    /// The client's `Last-Event-ID` when it lies beyond what the log has: the disk lost what it names.
    beyond: Option<u64>,
    page_max_events: usize,
    chunk_max_bytes: usize,
    /// Why the stream ends, when it does by itself.
    ended_because: &'static str,
    /// The stream is gone from memory: nothing will be told any more.
    is_gone: bool,
    /// Payloads are objects, and show their position.
    shows_sequence: bool,
}

impl Tail {
    fn new(stream: Arc<Stream>, after: u64, bounds: &Bounds, ended_because: &'static str) -> Self {
        let newest = stream.watch();
        let last = newest.borrow().seq;
        Self {
            stream,
            reader: None,
            newest,
            cursor: after.min(last),
            beyond: (after > last).then_some(after),
            page_max_events: as_usize(bounds.log_page_max_events),
            chunk_max_bytes: as_usize(bounds.sse_chunk_max_bytes),
            ended_because,
            is_gone: false,
            shows_sequence: false,
        }
    }
}

impl Source for Tail {
    async fn read(&mut self) -> Read {
        if let Some(beyond) = self.beyond.take() {
            return Read::Frames(gap(self.cursor + 1, beyond, "not_kept", self.cursor).into());
        }
        let newest = *self.newest.borrow_and_update(); // before reading: what comes after wakes `changed`
        if let Some(reader) = &self.reader {
            reader.reached(self.cursor, newest.seq);
        }
        if self.cursor >= newest.seq || self.is_gone {
            return if newest.ended || self.is_gone { Read::Over(self.ended_because) } else { Read::Nothing };
        }
        match self.stream.read_after(self.cursor, self.page_max_events, self.chunk_max_bytes).await {
            Ok(items) => {
                let Some(last) = items.last() else { return Read::Nothing };
                self.cursor = last.end();
                Read::Frames(encode(&items, self.shows_sequence))
            }
            Err(error) => Read::Failed(error.into()),
        }
    }

    async fn changed(&mut self) {
        self.is_gone = self.newest.changed().await.is_err();
    }
}

/// A stream of the log as an event stream, from where `Last-Event-ID` says.
///
/// # Errors
/// 406 and 400 as [`check`], 503 when too many streams are open.
pub fn open(
    state: &AppState,
    stream: Arc<Stream>,
    readers: Option<&Readers>,
    headers: &HeaderMap,
    ended_because: &'static str,
) -> Result<Response, ApiError> {
    let after = check(headers)?;
    let tail = Tail::new(stream, after, &state.config.bounds, ended_because);
    let mut feed = Feed::new(state, tail)?;
    feed.source.reader = readers.map(|readers| readers.register(after)); // only a stream that is opened is waited for
    Ok(feed.into_response())
}

/// A stream of the log whose payloads are objects: each is shown with its position as `sequence`.
///
/// # Errors
/// 503 when too many streams are open.
pub fn open_decorated(
    state: &AppState,
    stream: Arc<Stream>,
    after: u64,
    ended_because: &'static str,
) -> Result<Response, ApiError> {
    let mut tail = Tail::new(stream, after, &state.config.bounds, ended_because);
    tail.shows_sequence = true;
    Ok(Feed::new(state, tail)?.into_response())
}

/// The same behind a frame of the caller's. `held` is dropped with the stream.
///
/// # Errors
/// 503 when too many streams are open.
pub fn open_behind<H: Send + 'static>(
    state: &AppState,
    stream: Arc<Stream>,
    after: u64,
    first: Bytes,
    held: H,
) -> Result<Response, ApiError> {
    let mut tail = Tail::new(stream, after, &state.config.bounds, "deleted");
    tail.shows_sequence = true;
    Ok(Feed::new(state, Behind { first: Some(first), tail, _held: held })?.into_response())
}

/// A tail behind one frame.
struct Behind<H> {
    first: Option<Bytes>,
    tail: Tail,
    _held: H,
}

impl<H: Send + 'static> Source for Behind<H> {
    async fn read(&mut self) -> Read {
        match self.first.take() {
            Some(first) => Read::Frames(first),
            None => self.tail.read().await,
        }
    }

    async fn changed(&mut self) {
        self.tail.changed().await;
    }
}

/// The JSON object `payload` with its position as its first member, `sequence`.
pub fn with_sequence(seq: u64, payload: &[u8]) -> Vec<u8> {
    let mut out = format!(r#"{{"sequence":{seq}"#).into_bytes();
    let rest = payload.strip_prefix(b"{").unwrap_or(payload);
    if !rest.starts_with(b"}") {
        out.push(b',');
    }
    out.extend_from_slice(rest);
    out
}

/// What a request for events must say; gives its `Last-Event-ID`, 0 without one.
///
/// # Errors
/// 406 when `Accept` excludes event streams, 400 for an id that is no number.
pub fn check(headers: &HeaderMap) -> Result<u64, ApiError> {
    if accepts(headers, "text", "event-stream") {
        return last_event_id(headers).map(Option::unwrap_or_default);
    }
    Err(ApiError::with_message(ErrorCode::NotAcceptable, "not acceptable", "accept must allow text/event-stream"))
}

/// The last id a client says it has received.
///
/// # Errors
/// 400 when it is no number.
pub fn last_event_id(headers: &HeaderMap) -> Result<Option<u64>, ApiError> {
    let Some(value) = headers.get("last-event-id") else { return Ok(None) };
    match value.to_str().map(str::trim) {
        Ok("") => Ok(None),
        Ok(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => {
            text.parse().map(Some).map_err(|_| ApiError::invalid("Last-Event-ID must be a positive integer"))
        }
        _ => Err(ApiError::invalid("Last-Event-ID must be a positive integer")),
    }
}

fn encode(items: &[Item], shows_sequence: bool) -> Bytes {
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
                if shows_sequence {
                    out.extend_from_slice(&with_sequence(event.seq, &event.payload));
                } else {
                    out.extend_from_slice(&event.payload);
                }
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

    /// Says what it was told to say, then nothing.
    struct Script(Vec<Read>);

    impl Source for Script {
        async fn read(&mut self) -> Read {
            self.0.pop().unwrap_or(Read::Nothing)
        }

        async fn changed(&mut self) {
            std::future::pending().await
        }
    }

    async fn said(script: Vec<Read>, heartbeat_ms: u64, stop: CancellationToken) -> Vec<String> {
        let permit = Arc::new(tokio::sync::Semaphore::new(1)).try_acquire_owned().expect("a permit");
        let source = Script(script.into_iter().rev().collect());
        let mut feed = Feed { source, heartbeat: Duration::from_millis(heartbeat_ms), stop, is_over: false, _permit: permit };
        let mut said = Vec::new();
        while let Some(chunk) = feed.next().await {
            said.push(String::from_utf8(chunk.to_vec()).expect("UTF-8"));
        }
        said
    }

    #[tokio::test]
    async fn a_feed_beats_in_silence_and_ends_once() {
        let running = CancellationToken::new();
        let script = vec![Read::Frames("data: 1\n\n".into()), Read::Nothing, Read::Over("exited"), Read::Over("never asked")];
        let expected = ["data: 1\n\n", ": heartbeat\n\n", "event: end\ndata: {\"reason\":\"exited\"}\n\n"];
        assert_eq!(said(script, 1, running.clone()).await, expected);
        let failed = said(vec![Read::Failed(ApiError::invalid("no"))], 1, running.clone()).await;
        assert!(
            failed.len() == 1 && failed[0].starts_with("event: error\ndata: {") && failed[0].ends_with("}\n\n"),
            "{failed:?}"
        );
        running.cancel();
        for script in [vec![], vec![Read::Over("deleted")]] {
            let expected = ["event: end\ndata: {\"reason\":\"shutdown\"}\n\n"];
            assert_eq!(said(script, 3_600_000, running.clone()).await, expected);
        }
    }

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
        let text = String::from_utf8(encode(&items, false).to_vec()).expect("UTF-8");
        let expected = "event: gap\nid: 3\ndata: {\"from\":1,\"to\":3,\"reason\":\"retention\"}\n\n\
                        event: message\nid: 4\ndata: {}\n\n\
                        event: not_kept\ndata: {\"from\":5,\"to\":6}\n\n\
                        event: message\nid: 5\ndata: {}\n\n\
                        event: message\nid: 6\ndata: {}\n\n\
                        event: message\nid: 7\ndata: {}\n\n";
        assert_eq!(text, expected);
    }
}
