//! What waits to be sent to one WebSocket client.

use std::collections::VecDeque;

use axum::extract::ws::{Message, WebSocket};
use bytes::Bytes;
use futures_util::stream::SplitSink;
use futures_util::{Sink as _, SinkExt as _};

/// With so many answers waiting, a client that doesn't read them is not listened to.
const REPLIES_MAX: usize = 64;

/// A bundle of output that is sent together has at most so many bytes, and so many frames.
const BUNDLE_BYTES: usize = 64 * 1024;
const BUNDLE_FRAMES: usize = 64;

/// Messages in the order they are sent. Bounded by whoever fills it: output is added only while there is room for it,
/// answers only while the client is listened to.
pub(super) struct Outbox {
    sink: SplitSink<WebSocket, Message>,
    waiting: VecDeque<Message>,
    /// Answers among what waits.
    replies: usize,
    /// Bytes of the bundle that is being made.
    bytes: usize,
    /// Something was handed to the socket that it has not taken yet.
    is_unflushed: bool,
}

impl Outbox {
    pub(super) fn new(sink: SplitSink<WebSocket, Message>) -> Self {
        Self { sink, waiting: VecDeque::new(), replies: 0, bytes: 0, is_unflushed: false }
    }

    /// Adds output, or news about it.
    pub(super) fn push(&mut self, message: impl Into<Message>) {
        let message = message.into();
        self.bytes += if let Message::Binary(bytes) = &message { bytes.len() } else { 0 };
        self.waiting.push_back(message);
    }

    /// Adds an answer to what the client sent.
    pub(super) fn reply(&mut self, message: impl Into<Message>) {
        self.replies += 1;
        self.waiting.push_back(message.into());
    }

    /// Asks whether the client is there, unless it is about to be asked anyway.
    pub(super) fn ping(&mut self) {
        if !self.waiting.iter().any(|message| matches!(message, Message::Ping(_))) {
            self.waiting.push_back(Message::Ping(Bytes::new()));
        }
    }

    /// True when the socket has taken everything.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && !self.is_unflushed
    }

    /// True while more output fits into the bundle.
    pub(super) fn has_room(&self) -> bool {
        self.bytes < BUNDLE_BYTES && self.waiting.len() < BUNDLE_FRAMES
    }

    /// True while there is room for the answers to what the client may send.
    pub(super) fn may_listen(&self) -> bool {
        self.replies < REPLIES_MAX
    }

    /// Sends all that waits. Cancel safe: what the socket has taken is not sent again.
    ///
    /// # Errors
    /// The connection is gone.
    pub(super) async fn write(&mut self) -> Result<(), axum::Error> {
        while !self.waiting.is_empty() {
            std::future::poll_fn(|context| std::pin::Pin::new(&mut self.sink).poll_ready(context)).await?;
            if let Some(message) = self.waiting.pop_front() {
                self.is_unflushed = true;
                self.sink.start_send_unpin(message)?;
            }
        }
        self.sink.flush().await?;
        (self.replies, self.bytes, self.is_unflushed) = (0, 0, false);
        Ok(())
    }

    /// Sends this last; what waits is dropped.
    ///
    /// # Errors
    /// The connection is gone.
    pub(super) async fn close(&mut self, message: Message) -> Result<(), axum::Error> {
        self.sink.send(message).await
    }
}
