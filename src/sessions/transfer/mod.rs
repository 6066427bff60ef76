//! A session as JSON Lines, to be kept elsewhere or taken in by another server: the session, its turns and requests, its
//! events, and a last line that says it is whole.

mod export;
mod import;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub use export::Export;
pub use import::Import;

/// What stands in the first line.
const FORMAT: &str = "sandboxd.session/1";

/// A line of an export: an object that says what it is by `type`.
enum Line {
    Session(Box<Head>),
    Turn(TurnLine),
    Request(RequestLine),
    Event(EventLine),
    Gap(GapLine),
    End(EndLine),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    format: String,
    exported_at_ms: i64,
    session: SessionLine,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct TurnLine {
    id: String,
    number: u64,
    state: String,
    idempotency_key: Option<String>,
    request_hash: Option<String>,
    doc: Box<RawValue>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RequestLine {
    id: String,
    kind: String,
    state: String,
    created_at_ms: i64,
    resolved_at_ms: Option<i64>,
    doc: Box<RawValue>,
}

#[derive(Serialize, Deserialize)]
struct EventLine {
    sequence: u64,
    event: Box<RawValue>,
}

#[derive(Serialize, Deserialize)]
struct GapLine {
    from: u64,
    to: u64,
    reason: String,
}

#[derive(Serialize, Deserialize)]
struct EndLine {
    events: u64,
}

impl Line {
    fn read(json: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Kind<'a> {
            #[serde(rename = "type", borrow)]
            kind: std::borrow::Cow<'a, str>,
        }
        fn of<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, String> {
            serde_json::from_slice(json).map_err(|error| error.to_string())
        }
        let Kind { kind } = of(json)?;
        Ok(match kind.as_ref() {
            "session" => Self::Session(of(json)?),
            "turn" => Self::Turn(of(json)?),
            "request" => Self::Request(of(json)?),
            "event" => Self::Event(of(json)?),
            "gap" => Self::Gap(of(json)?),
            "end" => Self::End(of(json)?),
            other => return Err(format!("type {other:?} is none of session, turn, request, event, gap, end")),
        })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SessionLine {
    id: String,
    server_id: String,
    acp_session_id: String,
    agent: String,
    cwd: String,
    title: Option<String>,
    created_at_ms: i64,
    updated_at_ms: i64,
    closed_at_ms: Option<i64>,
    doc: Box<RawValue>,
}
