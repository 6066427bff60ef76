//! What a message on a server's stream means to one stream of one connection. Pure.
//!
//! A session's stream shows what names the session, and the answers to this connection's requests about it; the
//! connection's stream shows what names no session, and the other answers. Source: ACP's remote transport proposal.

use bytes::Bytes;

use super::ids::{self, Own};
use crate::acp::envelope::{Envelope, Kind, string_member};

/// Which of a connection's streams.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Whatever is about no session.
    Connection,
    /// What is about the session with this id.
    Session(String),
}

impl Scope {
    fn fits(&self, session: Option<&str>) -> bool {
        match self {
            Self::Connection => session.is_none(),
            Self::Session(id) => session == Some(id),
        }
    }
}

/// A message that may be shown.
#[derive(Debug)]
pub(super) enum Meaning {
    /// The answer to a request of this connection's.
    Answer {
        /// The client's id as written.
        raw: String,
        /// Under the client's id.
        text: Bytes,
        /// A session that it names.
        session: Option<String>,
    },
    /// The agent asks something.
    Asked(Envelope),
    /// A request of the agent's needs no answer any more; the agent's id for it as written.
    Settled(String),
    /// Nor does any other: the agent process is gone; with the message, where that is shown.
    AllSettled(Option<Bytes>),
    /// Anything else.
    Note(Bytes),
}

/// What `payload` means there; `None` when it isn't shown. What was [`Meaning::Settled`] belongs where it was asked.
pub(super) fn meaning(payload: &Bytes, connection: &str, scope: &Scope) -> Option<Meaning> {
    let envelope = Envelope::parse(payload.clone()).ok()?; // an agent's arrays and scalars are no ACP
    match envelope.kind() {
        Kind::Response => answer(&envelope, ids::parse_own(connection, envelope.id()?)?, scope),
        Kind::Notification if matches!(envelope.method(), "$/cancel_request" | "_adapter/request_resolved") => {
            Some(Meaning::Settled(envelope.request_id()?.to_owned()))
        }
        Kind::Notification if envelope.method() == "_adapter/agent_exited" => {
            Some(Meaning::AllSettled(scope.fits(None).then(|| payload.clone())))
        }
        _ if !scope.fits(envelope.session_id().as_deref()) => None,
        Kind::Request => Some(Meaning::Asked(envelope)),
        Kind::Notification => Some(Meaning::Note(payload.clone())),
    }
}

fn answer(envelope: &Envelope, own: Own, scope: &Scope) -> Option<Meaning> {
    if !scope.fits(own.session.as_deref()) {
        return None;
    }
    let session = envelope.result().and_then(|result| string_member(result, "sessionId"));
    Some(Meaning::Answer { text: envelope.with_id(&own.raw), raw: own.raw, session })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, scope: &Scope) -> Option<String> {
        let text = match meaning(&Bytes::copy_from_slice(text.as_bytes()), "conn_1", scope)? {
            Meaning::Answer { text, .. } | Meaning::Note(text) => text,
            Meaning::Asked(envelope) => envelope.text().clone(),
            Meaning::AllSettled(text) => text?,
            Meaning::Settled(id) => id.into(),
        };
        Some(String::from_utf8(text.to_vec()).expect("UTF-8"))
    }

    #[test]
    fn each_message_has_one_place() {
        let (all, one, other) = (Scope::Connection, Scope::Session("s".into()), Scope::Session("t".into()));
        let own = |session| format!(r#"{{"id":{},"result":{{"sessionId":"n"}}}}"#, ids::own("conn_1", "7", session));
        let cases = [
            (r#"{"method":"session/update","params":{"sessionId":"s"}}"#.to_owned(), [false, true, false]),
            (r#"{"method":"_adapter/agent_exited","params":{}}"#.to_owned(), [true, false, false]),
            (r#"{"id":0,"method":"session/request_permission","params":{"sessionId":"s"}}"#.to_owned(), [false, true, false]),
            (own(None), [true, false, false]),
            (own(Some("t")), [false, false, true]),
            (r#"{"id":7,"result":{}}"#.to_owned(), [false, false, false]),
            ("[1,2]".to_owned(), [false, false, false]),
        ];
        for (text, expected) in cases {
            assert_eq!([&all, &one, &other].map(|scope| shown(&text, scope).is_some()), expected, "{text}");
        }
    }

    #[test]
    fn an_answer_has_the_clients_id_and_names_its_session() {
        let text = format!(r#"{{"id":{},"result":{{"sessionId":"n"}}}}"#, ids::own("conn_1", "\"x\"", None));
        let Some(Meaning::Answer { raw, text, session }) = meaning(&text.into(), "conn_1", &Scope::Connection) else {
            panic!("an answer")
        };
        assert_eq!((raw.as_str(), session.as_deref()), ("\"x\"", Some("n")));
        assert_eq!(text, r#"{"id":"x","result":{"sessionId":"n"}}"#);
    }
}
