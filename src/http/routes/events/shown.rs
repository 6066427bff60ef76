//! How an event of the log is shown.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer as _, IgnoredAny, MapAccess, Visitor};
use serde_json::json;
use serde_json::value::RawValue;

use crate::store::LogEvent;

/// The event's own members, with its place in the log before them. Its own `type` and `time` win. What is no object, or has
/// a member that says its place, too, is shown whole as `payload`.
pub(super) fn json(event: &LogEvent) -> String {
    let payload = String::from_utf8_lossy(&event.payload);
    let keys = Keys::of(&payload);
    let (sequence, stream_sequence, stream) = (event.seq, event.stream_seq, json!(event.stream));
    let mut out = String::with_capacity(payload.len() + 160);
    out.push_str(&format!("{{\"sequence\":{sequence},\"stream\":{stream},\"streamSequence\":{stream_sequence}"));
    let spreads = keys.as_ref().is_some_and(|keys| !keys.place);
    let has = |own: fn(&Keys) -> bool| spreads && keys.as_ref().is_some_and(own);
    if !has(|keys| keys.kind) {
        out.push_str(&format!(",\"type\":{}", json!(event.kind)));
    }
    if !has(|keys| keys.time) {
        out.push_str(&format!(",\"time\":{}", event.time_ms));
    }
    match payload.trim().strip_prefix('{') {
        Some(members) if spreads => {
            if members.trim_start() != "}" {
                out.push(',');
            }
            out.push_str(members);
        }
        _ => {
            out.push_str(",\"payload\":");
            out.push_str(if keys.is_some() || is_json(&payload) { &payload } else { "null" });
            out.push('}');
        }
    }
    out
}

/// The same as part of a page.
pub(super) fn raw(event: &LogEvent) -> Box<RawValue> {
    RawValue::from_string(json(event)).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// Which members an object has.
#[derive(Default)]
struct Keys {
    kind: bool,
    time: bool,
    place: bool,
}

impl Keys {
    /// `None` for what is no object.
    fn of(payload: &str) -> Option<Self> {
        let mut parser = serde_json::Deserializer::from_str(payload);
        let keys = parser.deserialize_map(KeysVisitor).ok()?;
        parser.end().ok().map(|()| keys)
    }
}

struct KeysVisitor;

impl<'de> Visitor<'de> for KeysVisitor {
    type Value = Keys;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Keys, A::Error> {
        let mut keys = Keys::default();
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            match &*key {
                "type" => keys.kind = true,
                "time" => keys.time = true,
                "sequence" | "stream" | "streamSequence" => keys.place = true,
                _ => {}
            }
            map.next_value::<IgnoredAny>()?;
        }
        Ok(keys)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn shown(payload: &str) -> String {
        let payload = bytes::Bytes::copy_from_slice(payload.as_bytes());
        let (stream, kind) = ("session/s".to_owned(), "turn.started".to_owned());
        json(&LogEvent { seq: 7, stream, stream_seq: 2, time_ms: 1000, kind, payload })
    }

    #[test]
    fn members_are_spread_and_never_twice() {
        let head = r#"{"sequence":7,"stream":"session/s","streamSequence":2"#;
        for (payload, tail) in [
            (r#"{"type":"a","time":5,"data":{"type":1}}"#, r#","type":"a","time":5,"data":{"type":1}}"#),
            (r#"{"data":1.50}"#, r#","type":"turn.started","time":1000,"data":1.50}"#),
            (r#" {"time":5} "#, r#","type":"turn.started","time":5}"#),
            ("{}", r#","type":"turn.started","time":1000}"#),
            (r#"{"stream":"x","time":5}"#, r#","type":"turn.started","time":1000,"payload":{"stream":"x","time":5}}"#),
            ("[1]", r#","type":"turn.started","time":1000,"payload":[1]}"#),
            ("rubbish", r#","type":"turn.started","time":1000,"payload":null}"#),
        ] {
            let text = shown(payload);
            assert_eq!(text, format!("{head}{tail}"));
            assert!(serde_json::from_str::<Value>(&text).is_ok(), "{text}");
        }
    }
}
