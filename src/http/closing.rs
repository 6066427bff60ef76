//! How a WebSocket is told why it ends (RFC 6455, section 7.4.1).

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, close_code};
use futures_util::{Sink, SinkExt as _};

/// After a frame that can't be read, more may still come that nobody reads: a connection that is closed with that is reset, and takes
/// the close frame along. So long it is left open.
pub(crate) const LINGER: Duration = Duration::from_millis(250);

/// A close code and what it means here.
pub(crate) type Closing = (u16, &'static str);

/// The server ends.
pub(crate) const GOING_AWAY: Closing = (close_code::AWAY, "going away");

/// Why a client's frame can't be read, if it is the client's doing. What the library found wrong is known by its words only.
pub(crate) fn unreadable(error: &axum::Error) -> Option<Closing> {
    let why = error.to_string();
    tracing::debug!(why, "a WebSocket client's frame can't be read");
    match why.to_ascii_lowercase() {
        why if why.contains("too long") => Some((close_code::SIZE, "the message is too long")),
        why if why.contains("utf-8") || why.contains("utf8") => Some((close_code::INVALID, "text must be UTF-8")),
        why if why.contains("protocol") => Some((close_code::PROTOCOL, "not a WebSocket frame")),
        _ => None,
    }
}

/// As a frame.
pub(crate) fn frame((code, reason): Closing) -> CloseFrame {
    CloseFrame { code, reason: reason.into() }
}

/// Says goodbye, and waits for a client that may still be sending.
pub(crate) async fn part(sink: &mut (impl Sink<Message> + Unpin), closing: Closing) {
    let is_told = sink.send(Message::Close(Some(frame(closing)))).await.is_ok();
    if is_told && !matches!(closing.0, close_code::AWAY | close_code::NORMAL) {
        tokio::time::sleep(LINGER).await;
    }
}
