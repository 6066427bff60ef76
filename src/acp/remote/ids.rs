//! Ids on the two sides of a connection. Pure.
//!
//! On its server's streams a client's request is called `["<connection>",<its id>,<its session or null>]` (as a JSON
//! string): whoever reads the stream sees whose answer an answer is and where it belongs, so nothing about answers has
//! to be remembered, whenever a stream is read again. An agent's request is called `<instance>/<position>` towards
//! clients: agents count from 0 in each process, and one connection may reach several of them.

use serde_json::value::RawValue;

use crate::acp::envelope::Envelope;

/// Whose a request is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Own {
    /// The client's id as it is written.
    pub(super) raw: String,
    /// The session on whose stream it is answered; `None` for the connection's.
    pub(super) session: Option<String>,
}

/// What a client's request is called on its server's streams, as JSON text.
pub(super) fn own(connection: &str, raw: &str, session: Option<&str>) -> String {
    let text = format!("[{},{raw},{}]", quoted(connection), session.map_or_else(|| "null".into(), quoted));
    quoted(&text)
}

/// Reads it back; `None` when it isn't this connection's.
pub(super) fn parse_own(connection: &str, id: &str) -> Option<Own> {
    if !id.contains(connection) {
        return None; // the common case on a shared server
    }
    let text: String = serde_json::from_str(id).ok()?;
    let (owner, raw, session): (String, Box<RawValue>, Option<String>) = serde_json::from_str(&text).ok()?;
    (owner == connection).then(|| Own { raw: raw.get().to_owned(), session })
}

/// What an agent's request is called towards clients, as JSON text.
pub(super) fn asked(instance: &str, position: u64) -> String {
    quoted(&mark(instance, position))
}

/// A position of a server's stream that no other server has.
pub(super) fn mark(instance: &str, position: u64) -> String {
    format!("{instance}/{position}")
}

/// Where a reader says that it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// The server's instance.
    pub(super) instance: String,
    /// The last position it has.
    pub(super) position: u64,
}

impl Mark {
    /// Reads the id of an event.
    pub fn parse(text: &str) -> Option<Self> {
        let (instance, position) = text.trim().rsplit_once('/')?;
        let is_number = !position.is_empty() && position.bytes().all(|byte| byte.is_ascii_digit());
        (is_number && !instance.is_empty()).then_some(())?;
        Some(Self { instance: instance.to_owned(), position: position.parse().ok()? })
    }
}

/// An answer of our own under this id (as JSON text), to be found by the reader of the stream.
pub(super) fn answer(id: &str, result: &str) -> bytes::Bytes {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#).into()
}

/// The same envelope under another id.
pub(super) fn renamed(envelope: &Envelope, id: &str) -> Envelope {
    Envelope::parse(envelope.with_id(id)).unwrap_or_else(|_| envelope.clone())
}

pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn whose_an_answer_is() {
        let id = own("conn_1", "7", Some("s/\"1\""));
        assert_eq!(parse_own("conn_1", &id), Some(Own { raw: "7".into(), session: Some("s/\"1\"".into()) }));
        assert_eq!(parse_own("conn_2", &id), None);
        assert_eq!(parse_own("conn_1", "\"conn_1\""), None);
        assert_eq!(parse_own("conn_1", "7"), None);
    }

    #[test]
    fn marks_are_read_back() {
        let there = Mark { instance: "acp_1_2".into(), position: 12 };
        assert_eq!(Mark::parse(&mark("acp_1_2", 12)), Some(there));
        for bad in ["", "12", "a/", "/1", "a/-1", "a/+1", "a/99999999999999999999999"] {
            assert_eq!(Mark::parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_id_comes_back(text in ".{0,12}", number in any::<f64>(), session in proptest::option::of(".{0,12}")) {
            for raw in [quoted(&text), "null".to_owned(), serde_json::json!({"n": number}).to_string()] {
                let id = own("conn_1", &raw, session.as_deref());
                prop_assert_eq!(parse_own("conn_1", &id), Some(Own { raw, session: session.clone() }));
            }
        }
    }
}
