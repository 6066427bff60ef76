//! What the raw log has of an agent, read once more.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::acp::{Envelope, Kind};
use crate::store::{Error, LogEvent, Store};

/// Read at a time.
const PAGE_EVENTS: usize = 2_000;
const PAGE_BYTES: usize = 1 << 20;

/// An envelope in a stream of the raw log.
pub(super) struct Heard {
    /// Its place in the whole log.
    pub(super) seq: u64,
    /// Its place in the stream.
    pub(super) at: u64,
    /// Unix milliseconds.
    pub(super) time_ms: i64,
    pub(super) what: What,
}

/// What is of interest.
pub(super) enum What {
    /// `session/update`: the session as clients call it, and the update as JSON text.
    Update { session: String, update: String },
    /// An answer under its client's id: the result, or the error object.
    Answer { id: String, answer: Result<String, String> },
    /// The agent asks; or, of what clients wrote, a request of theirs.
    Asked { id: String, method: String, params: String, session: Option<String> },
    /// A request of the agent's was answered.
    Answered { id: String, by: String, outcome: Option<String> },
    /// It took one back.
    Withdrawn { id: String },
    /// Another agent process took over.
    Restarted,
    /// Anything else.
    Other,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Resolved<'a> {
    #[serde(borrow)]
    request_id: &'a RawValue,
    by: String,
    #[serde(borrow)]
    outcome: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Update<'a> {
    #[serde(borrow)]
    update: &'a RawValue,
}

impl Heard {
    fn of(event: LogEvent) -> Self {
        let other = Self::other(&event);
        let what = Envelope::parse(event.payload).map_or(What::Other, |envelope| what(&envelope));
        Self { what, ..other }
    }

    fn other(event: &LogEvent) -> Self {
        Self { seq: event.seq, at: event.stream_seq, time_ms: event.time_ms, what: What::Other }
    }
}

fn what(envelope: &Envelope) -> What {
    let params = envelope.params().unwrap_or("null");
    let id = || envelope.id().unwrap_or("null").to_owned();
    match envelope.kind() {
        Kind::Response => {
            let text = std::str::from_utf8(envelope.text()).unwrap_or_default();
            let error = || crate::acp::raw_member(text, "error").unwrap_or("null").to_owned();
            What::Answer { id: id(), answer: envelope.result().map(str::to_owned).ok_or_else(error) }
        }
        Kind::Request => {
            let (method, params) = (envelope.method().to_owned(), params.to_owned());
            What::Asked { id: id(), method, params, session: envelope.session_id() }
        }
        Kind::Notification => match envelope.method() {
            "session/update" => match (envelope.session_id(), serde_json::from_str::<Update<'_>>(params)) {
                (Some(session), Ok(Update { update })) => What::Update { session, update: update.get().to_owned() },
                _ => What::Other,
            },
            "_adapter/request_resolved" => match serde_json::from_str::<Resolved<'_>>(params) {
                Ok(Resolved { request_id, by, outcome }) => {
                    let outcome = outcome.map(|outcome| outcome.get().to_owned());
                    What::Answered { id: request_id.get().to_owned(), by, outcome }
                }
                Err(_) => What::Other,
            },
            "$/cancel_request" => What::Withdrawn { id: envelope.request_id().unwrap_or_default().to_owned() },
            "_adapter/agent_restarted" => What::Restarted,
            _ => What::Other,
        },
    }
}

impl What {
    /// Without what takes room.
    fn forget_text(&mut self) {
        match self {
            Self::Update { update, .. } => *update = String::new(),
            Self::Answer { answer, .. } => *answer = Ok(String::new()),
            _ => {}
        }
    }
}

/// Everything in a stream of the raw log behind a position, as far as `keep` wants it. `None` when the beginning of that isn't
/// there any more.
///
/// # Errors
/// The file can't be read.
pub(super) async fn read(
    store: &Store,
    stream: &str,
    after: u64,
    keep: impl Fn(&Heard) -> bool,
) -> Result<Option<Vec<Heard>>, Error> {
    pages(store, stream, after, |event| Some(Heard::of(event)).filter(&keep)).await
}

/// The same without texts, for a look at what it is about; empty when its beginning isn't there. What is without `word`, however
/// it is written, isn't looked at.
///
/// # Errors
/// The file can't be read.
pub(super) async fn look(
    store: &Store,
    stream: &str,
    after: u64,
    word: &str,
    keep: impl Fn(&Heard) -> bool,
) -> Result<Vec<Heard>, Error> {
    let of = |event: LogEvent| match session_told_of(&event.payload) {
        Some(session) => Some(Heard { what: What::Update { session, update: String::new() }, ..Heard::other(&event) }),
        None if memchr::memmem::find(&event.payload, word.as_bytes()).is_some() => {
            let mut heard = Heard::of(event);
            heard.what.forget_text();
            Some(heard)
        }
        None => None,
    };
    Ok(pages(store, stream, after, |event| of(event).filter(&keep)).await?.unwrap_or_default())
}

/// The session of an update as most agents write it: there are thousands, and a look at one is a tenth of reading it.
fn session_told_of(payload: &[u8]) -> Option<String> {
    const BEGINNING: &[u8] = br#"{"jsonrpc":"2.0","method":"session/update","params":{"sessionId":""#;
    let rest = payload.strip_prefix(BEGINNING)?;
    let id = &rest[..memchr::memchr(b'"', rest)?];
    let id = String::from_utf8(id.to_owned()).ok()?;
    (!id.contains('\\')).then_some(id)
}

async fn pages(
    store: &Store,
    stream: &str,
    after: u64,
    of: impl Fn(LogEvent) -> Option<Heard>,
) -> Result<Option<Vec<Heard>>, Error> {
    let (mut heard, mut at) = (Vec::new(), after);
    loop {
        let page = store.stream_page(stream, at, PAGE_EVENTS, PAGE_BYTES).await?;
        let Some(last) = page.last() else { return Ok(Some(heard)) };
        if page.first().is_some_and(|first| first.stream_seq != at + 1) {
            return Ok(None);
        }
        at = last.stream_seq;
        heard.extend(page.into_iter().filter_map(&of));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_session_of_an_update_is_seen_where_it_is_certain() {
        let update =
            |id: &str| format!(r#"{{"jsonrpc":"2.0","method":"session/update","params":{{"sessionId":"{id}","update":{{}}}}}}"#);
        assert_eq!(session_told_of(update("ses/1 é").as_bytes()).as_deref(), Some("ses/1 é"));
        assert_eq!(session_told_of(update(r"a\\b").as_bytes()), None, "it has to be read");
        assert_eq!(session_told_of(br#"{"method":"session/update","jsonrpc":"2.0","params":{"sessionId":"a"}}"#), None);
        assert_eq!(session_told_of(br#"{"jsonrpc":"2.0","id":1,"result":{}}"#), None);
    }
}
