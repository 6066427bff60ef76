//! One JSON-RPC message as text, taken apart only as far as routing needs. What we don't change stays byte for byte:
//! unknown members, big numbers and key order pass through.
//!
//! Source: JSON-RPC 2.0; ACP v1, "Overview". Classification is by the presence of keys, as clients of the reference
//! rely on.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use serde::de::{Deserializer as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Why a text is no envelope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Not JSON; says where.
    #[error("invalid JSON body: {0}")]
    NotJson(String),
    /// JSON, but not an object (a batch counts as not an object: ACP has none).
    #[error("request body must be a JSON-RPC object")]
    NotObject,
    /// A member that routing needs stands there twice, so that readers could disagree about it.
    #[error("the envelope has the member {0:?} twice")]
    Doubled(&'static str),
}

/// What an envelope is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `method` and `id` (also `id: null`): wants an answer.
    Request,
    /// `method` without `id`.
    Notification,
    /// No `method`: an answer.
    Response,
}

/// A parsed envelope: its text on one line, and where its parts lie.
#[derive(Debug, Clone)]
pub struct Envelope {
    text: Bytes,
    kind: Kind,
    method: Option<String>,
    id: Option<Range<usize>>,
    params: Option<Range<usize>>,
    result: Option<Range<usize>>,
}

impl Envelope {
    /// Parses one JSON text. Line breaks in it can only be white space between tokens (RFC 8259 section 7), so they
    /// become spaces: an envelope is one line towards agents and in event streams.
    ///
    /// # Errors
    /// [`ParseError`], in words for the sender.
    pub fn parse(text: Bytes) -> Result<Self, ParseError> {
        let json = std::str::from_utf8(&text).map_err(|error| ParseError::NotJson(error.to_string()))?;
        let parts = scan(json)?;
        let range = |part: Option<&RawValue>| part.map(|raw| range_in(json, raw.get()));
        let kind = match (&parts.method, parts.id) {
            (Some(_), Some(_)) => Kind::Request,
            (Some(_), None) => Kind::Notification,
            (None, _) => Kind::Response,
        };
        let (id, params, result) = (range(parts.id), range(parts.params), range(parts.result));
        let method = parts.method.map(Cow::into_owned);
        Ok(Self { kind, method, id, params, result, text: on_one_line(text) }) // the same length: ranges stay right
    }

    /// The envelope on one line, without a line break.
    pub fn text(&self) -> &Bytes {
        &self.text
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The method; empty for an answer.
    pub fn method(&self) -> &str {
        self.method.as_deref().unwrap_or_default()
    }

    /// The id as it is written, for instance `7` or `"7"`.
    pub fn id(&self) -> Option<&str> {
        self.part(self.id.as_ref())
    }

    /// `params` as it is written.
    pub fn params(&self) -> Option<&str> {
        self.part(self.params.as_ref())
    }

    /// `result` as it is written.
    pub fn result(&self) -> Option<&str> {
        self.part(self.result.as_ref())
    }

    /// `params.sessionId`, when it is a string.
    pub fn session_id(&self) -> Option<String> {
        string_member(self.params()?, "sessionId")
    }

    /// The same envelope under another id.
    pub fn with_id(&self, id: &str) -> Bytes {
        self.id.clone().map_or_else(|| self.text.clone(), |range| splice(&self.text, range, id))
    }

    /// The same envelope with other params.
    pub fn with_params(&self, params: &str) -> Self {
        let Some(range) = self.params.clone() else { return self.clone() };
        Self::parse(splice(&self.text, range, params)).unwrap_or_else(|_| self.clone())
    }

    /// The same envelope with another value (JSON text) for a member of `params` that is there.
    pub fn with_param(&self, key: &'static str, value: &str) -> Self {
        let Some(raw) = self.params().and_then(|params| raw_member(params, key)) else { return self.clone() };
        Self::parse(splice(&self.text, range_in(self.str(), raw), value)).unwrap_or_else(|_| self.clone())
    }

    /// `params.requestId` as it is written (ACP `$/cancel_request`).
    pub fn request_id(&self) -> Option<&str> {
        raw_member(self.params()?, "requestId")
    }

    fn str(&self) -> &str {
        std::str::from_utf8(&self.text).expect("checked by parse, never changed")
    }

    fn part(&self, range: Option<&Range<usize>>) -> Option<&str> {
        range.map(|range| &self.str()[range.clone()])
    }
}

/// The string under `key` of a JSON object.
pub fn string_member(object: &str, key: &'static str) -> Option<String> {
    serde_json::from_str(raw_member(object, key)?).ok()
}

/// The value under `key` of a JSON object, as it is written.
pub fn raw_member<'a>(object: &'a str, key: &'static str) -> Option<&'a str> {
    let mut deserializer = serde_json::Deserializer::from_str(object);
    deserializer.deserialize_map(FindMember(key)).ok().flatten().map(RawValue::get)
}

/// What can be told of a line that can't be read whole: from its beginning, up to where it stops being JSON.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Fragment {
    /// The id as JSON text.
    pub id: Option<String>,
    /// It has a method, so it is no answer.
    pub has_method: bool,
}

impl Fragment {
    /// Reads as far as it goes.
    pub fn read(head: &[u8]) -> Self {
        let text = std::str::from_utf8(head)
            .unwrap_or_else(|error| std::str::from_utf8(&head[..error.valid_up_to()]).unwrap_or_default());
        let mut found = Self::default();
        let _ = serde_json::Deserializer::from_str(text).deserialize_map(ReadFragment(&mut found)); // it may break off
        found
    }
}

/// A valid JSON text without line breaks, of the same length.
pub fn on_one_line(text: Bytes) -> Bytes {
    if memchr::memchr2(b'\n', b'\r', &text).is_none() {
        return text;
    }
    text.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }).collect()
}

/// Where `part`, a slice of `whole`, begins and ends.
fn range_in(whole: &str, part: &str) -> Range<usize> {
    let start = part.as_ptr() as usize - whole.as_ptr() as usize;
    start..start + part.len()
}

fn splice(text: &Bytes, range: Range<usize>, new: &str) -> Bytes {
    let mut spliced = Vec::with_capacity(text.len() + new.len());
    spliced.extend_from_slice(&text[..range.start]);
    spliced.extend_from_slice(new.as_bytes());
    spliced.extend_from_slice(&text[range.end..]);
    spliced.into()
}

#[derive(Default)]
struct Parts<'a> {
    id: Option<&'a RawValue>,
    method: Option<Cow<'a, str>>,
    params: Option<&'a RawValue>,
    result: Option<&'a RawValue>,
    doubled: Option<&'static str>,
}

fn scan(json: &str) -> Result<Parts<'_>, ParseError> {
    let first = json.bytes().find(|byte| !byte.is_ascii_whitespace());
    if first != Some(b'{') {
        return Err(match serde_json::from_str::<IgnoredAny>(json) {
            Ok(_) => ParseError::NotObject,
            Err(error) => ParseError::NotJson(error.to_string()),
        });
    }
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let parts = deserializer.deserialize_map(PartsVisitor).and_then(|parts| deserializer.end().map(|()| parts));
    let parts = parts.map_err(|error| ParseError::NotJson(error.to_string()))?;
    parts.doubled.map_or(Ok(parts), |member| Err(ParseError::Doubled(member)))
}

struct PartsVisitor;

impl<'de> Visitor<'de> for PartsVisitor {
    type Value = Parts<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON-RPC object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut parts = Parts::default();
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            let name = match key.as_ref() {
                "id" => "id",
                "method" => "method",
                "params" => "params",
                "result" => "result",
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            let value: &'de RawValue = map.next_value()?;
            let before = match name {
                "id" => parts.id.replace(value).is_some(),
                "method" => parts.method.replace(method_text(value)).is_some(),
                "params" => parts.params.replace(value).is_some(),
                _ => parts.result.replace(value).is_some(),
            };
            if before {
                parts.doubled = Some(name);
            }
        }
        Ok(parts)
    }
}

/// A method that isn't a string is kept as it is written: it matches no method we know.
fn method_text(value: &RawValue) -> Cow<'_, str> {
    serde_json::from_str::<String>(value.get()).map_or(Cow::Borrowed(value.get()), Cow::Owned)
}

struct FindMember(&'static str);

impl<'de> Visitor<'de> for FindMember {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            if key == self.0 {
                found = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

struct ReadFragment<'f>(&'f mut Fragment);

impl<'de> Visitor<'de> for ReadFragment<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            match key.as_ref() {
                "id" => self.0.id = Some(map.next_value::<&RawValue>()?.get().to_owned()),
                "method" => {
                    self.0.has_method = true;
                    map.next_value::<IgnoredAny>()?;
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Envelope, ParseError> {
        Envelope::parse(Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn kinds_follow_the_keys() {
        let kind = |text| parse(text).expect("an envelope").kind();
        assert_eq!(kind(r#"{"id":null,"method":"a"}"#), Kind::Request);
        assert_eq!(kind(r#"{"method":"a"}"#), Kind::Notification);
        assert_eq!(kind(r#"{"id":1,"result":{}}"#), Kind::Response);
        assert_eq!(kind("{}"), Kind::Response);
    }

    #[test]
    fn the_id_is_replaced_and_nothing_else() {
        let text = r#"{ "params":{"id":1,"n":123456789012345678901234567890}, "id" : "x\"1" ,"method":"m", "extra":1e400}"#;
        let envelope = parse(text).expect("an envelope");
        assert_eq!(envelope.id(), Some(r#""x\"1""#));
        assert_eq!(envelope.with_id("42"), text.replace(r#""x\"1""#, "42"));
    }

    #[test]
    fn line_breaks_between_tokens_become_spaces() {
        let envelope = parse("{\n\"id\":1,\r\n\"method\":\"m\"}\n").expect("an envelope");
        assert_eq!(envelope.text(), "{ \"id\":1,  \"method\":\"m\"} ");
    }

    #[test]
    fn what_is_no_object_is_refused() {
        assert_eq!(parse("[]").map(|_| ()), Err(ParseError::NotObject));
        assert_eq!(parse("12").map(|_| ()), Err(ParseError::NotObject));
        assert!(matches!(parse(""), Err(ParseError::NotJson(_))));
        assert!(matches!(parse("{\"a\":1} {}"), Err(ParseError::NotJson(_))));
        assert!(matches!(parse(r#"{"id":1,"id":2}"#), Err(ParseError::Doubled("id"))));
        assert!(matches!(Envelope::parse(Bytes::from_static(&[b'{', 0xc3, b'}'])), Err(ParseError::NotJson(_))));
    }

    #[test]
    fn cancel_names_another_request() {
        let envelope = parse(r#"{"method":"$/cancel_request","params":{"requestId":"a","x":1}}"#).expect("an envelope");
        assert_eq!(envelope.request_id(), Some(r#""a""#));
        assert_eq!(
            envelope.with_param("requestId", "7").text(),
            r#"{"method":"$/cancel_request","params":{"requestId":7,"x":1}}"#
        );
    }

    #[test]
    fn an_id_is_found_in_a_cut_text() {
        let read = |head: &[u8]| Fragment::read(head);
        let answer = Fragment { id: Some("17".into()), has_method: false };
        assert_eq!(read(br#"{"jsonrpc":"2.0","id":17,"result":{"a":"xxxx"#), answer);
        assert_eq!(read(b"{\"id\":17,\"result\":\"\xc3\"}"), answer);
        assert_eq!(
            read(br#"{"id":"q","method":"fs/write","params":{"x"#),
            Fragment { id: Some("\"q\"".into()), has_method: true }
        );
        assert_eq!(read(br#"{"result":{"id":3},"#), Fragment::default());
        assert_eq!(read(b"\xff\xfe"), Fragment::default());
    }

    #[test]
    fn a_line_break_inside_a_string_is_no_json() {
        assert!(matches!(parse("{\"method\":\"a\nb\"}"), Err(ParseError::NotJson(_))));
    }

    proptest! {
        #[test]
        fn parsing_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Envelope::parse(Bytes::from(bytes.clone()));
            let _ = Fragment::read(&bytes);
        }

        #[test]
        fn renumbering_and_back_is_the_identity(id in "[a-z0-9]{0,8}", before in 0..3u8, number in any::<u64>()) {
            let pad = ["", r#""a":{"id":5},"#, r#""z":[1,{"id":"q"}], "#][usize::from(before)];
            let text = format!(r#"{{{pad}"id":"{id}","result":{{"id":1}}}}"#);
            let there = parse(&text).expect("an envelope").with_id(&number.to_string());
            let back = Envelope::parse(there).expect("an envelope");
            let number = number.to_string();
            prop_assert_eq!(back.id(), Some(number.as_str()));
            prop_assert_eq!(back.with_id(&format!("\"{id}\"")), text);
        }
    }
}
