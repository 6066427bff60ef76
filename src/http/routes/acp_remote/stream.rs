//! A connection's stream as server-sent events. Clients parse every `data`, so all that isn't a message is a comment.

use std::fmt::Write as _;

use axum::body::Bytes;
use axum::response::Response;

use crate::acp::remote::{Feed, Page, Shown};
use crate::http::AppState;
use crate::http::problem::ApiError;
use crate::http::sse::{self, Read, Source};

/// The response.
///
/// # Errors
/// 503 when too many streams are open.
pub(super) fn respond(state: &AppState, feed: Feed) -> Result<Response, ApiError> {
    Ok(sse::Feed::new(state, Messages(feed))?.into_response())
}

struct Messages(Feed);

impl Source for Messages {
    async fn read(&mut self) -> Read {
        match self.0.read().await {
            Ok(Page::Messages(messages)) => Read::Frames(frames(&messages)),
            Ok(Page::Nothing) => Read::Nothing,
            Ok(Page::Over(reason)) => Read::Over(reason),
            Err(error) => Read::Failed(error.into()),
        }
    }

    async fn changed(&mut self) {
        self.0.changed().await;
    }

    fn farewell(event: &str, data: &str) -> String {
        format!(": {event} {data}\n\n")
    }
}

fn frames(messages: &[Shown]) -> Bytes {
    let size: usize = messages.iter().map(|message| message.text.len() + 64).sum();
    let mut out = Vec::with_capacity(size);
    for Shown { id, text } in messages {
        if let Some(id) = id {
            let mut head = String::with_capacity(64);
            let _ = writeln!(head, "id: {id}"); // writing to a String can't fail
            out.extend_from_slice(head.as_bytes());
        }
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(text);
        out.extend_from_slice(b"\n\n");
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_have_ids_where_they_can_be_read_on_from() {
        let message = |id: Option<&str>| Shown { id: id.map(str::to_owned), text: "{}".into() };
        assert_eq!(frames(&[message(None), message(Some("a/1"))]), "data: {}\n\nid: a/1\ndata: {}\n\n");
        assert_eq!(Messages::farewell("end", "{}"), ": end {}\n\n");
    }
}
