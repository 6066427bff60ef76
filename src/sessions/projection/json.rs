//! JSON looked into without building values.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The members of an object in their order, values as they are written.
#[derive(Debug)]
pub(super) struct Members<'a>(pub Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Members<'a> {
    /// None when `json` is no object.
    pub fn parse(json: &'a str) -> Option<Self> {
        serde_json::from_str(json).ok()
    }

    /// The value under `key`, unless it is absent or null.
    pub fn get(&self, key: &str) -> Option<&'a RawValue> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| *value).filter(|value| !is_null(value))
    }

    /// The string under `key`.
    pub fn text(&self, key: &str) -> Option<Cow<'a, str>> {
        text(self.get(key)?)
    }
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ReadMembers)
    }
}

struct ReadMembers;

impl<'de> Visitor<'de> for ReadMembers {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::with_capacity(8);
        while let Some(Key(key)) = map.next_key()? {
            members.push((key, map.next_value()?));
        }
        Ok(Members(members))
    }
}

/// A key or value that is borrowed when nothing in it is escaped (plain `Cow<str>` always copies).
#[derive(serde::Deserialize)]
pub(super) struct Key<'a>(#[serde(borrow)] pub Cow<'a, str>);

/// The string that `value` is.
pub(super) fn text(value: &RawValue) -> Option<Cow<'_, str>> {
    serde_json::from_str::<Key<'_>>(value.get()).ok().map(|Key(text)| text)
}

/// The elements of the array that `value` is.
pub(super) fn elements(value: &RawValue) -> Option<Vec<&RawValue>> {
    serde_json::from_str(value.get()).ok()
}

/// Whether it is `null`.
pub(super) fn is_null(value: &RawValue) -> bool {
    value.get() == "null"
}

/// Whether it is an array.
pub(super) fn is_array(value: &RawValue) -> bool {
    value.get().starts_with('[')
}

/// Whether it is a string.
pub(super) fn is_text(value: &RawValue) -> bool {
    value.get().starts_with('"')
}

/// `json` with escaped halves of surrogate pairs that stand alone replaced by U+FFFD. JavaScript writes them where it
/// has cut a string between the two halves; strings of ours can't hold them, so events with them could not be read.
pub(super) fn mended(json: &str) -> Cow<'_, str> {
    mend_surrogates(json).map_or(Cow::Borrowed(json), Cow::Owned)
}

fn mend_surrogates(json: &str) -> Option<String> {
    let mut mended = String::new();
    let (mut from, mut at) = (0, 0);
    let bytes = json.as_bytes();
    while let Some(escape) = memchr::memchr(b'\\', &bytes[at..]).map(|found| at + found) {
        at = match (surrogate(bytes, escape), surrogate(bytes, escape + 6)) {
            (Some(Half::High), Some(Half::Low)) => escape + 12,
            (Some(_), _) => {
                mended.push_str(&json[from..escape]);
                mended.push_str("\\ufffd");
                from = escape + 6;
                from
            }
            (None, _) => (escape + 2).min(bytes.len()),
        };
    }
    if from == 0 {
        return None;
    }
    mended.push_str(&json[from..]);
    Some(mended)
}

enum Half {
    High,
    Low,
}

fn surrogate(bytes: &[u8], at: usize) -> Option<Half> {
    let escape = bytes.get(at..at + 6)?;
    let [b'\\', b'u', b'd' | b'D', third, rest @ ..] = escape else { return None };
    if !rest.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    match third.to_ascii_lowercase() {
        b'8' | b'9' | b'a' | b'b' => Some(Half::High),
        b'c'..=b'f' => Some(Half::Low),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn members_keep_their_text_and_order() {
        let members = Members::parse(r#"{"b":1e400,"a\n":null,"c":"x"}"#).expect("an object");
        assert_eq!(members.0.iter().map(|(key, _)| key.as_ref()).collect::<Vec<_>>(), ["b", "a\n", "c"]);
        assert_eq!(members.get("b").map(RawValue::get), Some("1e400"));
        assert!(members.get("a\n").is_none());
        assert!(matches!(members.text("c"), Some(Cow::Borrowed("x"))));
        assert!(Members::parse("[]").is_none());
    }

    #[test]
    fn halves_that_stand_alone_are_mended() {
        assert_eq!(mend_surrogates(r#"{"a":"\ud83d"}"#).as_deref(), Some(r#"{"a":"\ufffd"}"#));
        assert_eq!(mend_surrogates(r#""\uDE00\ud83d\ud83d\ude00""#).as_deref(), Some(r#""\ufffd\ufffd\ud83d\ude00""#));
        assert_eq!(mend_surrogates(r#""\ud83d\ude00 \\ud83d""#), None);
        assert_eq!(mend_surrogates(r#""\ud8"#), None);
    }

    proptest! {
        #[test]
        fn what_is_mended_parses(pieces in proptest::collection::vec(
            proptest::sample::select(vec![r"\ud83d", r"\ude00", r"\\", r"\n", "é", "x", r#"\""#]), 0..12)
        ) {
            let json = format!("\"{}\"", pieces.concat());
            let mended = mend_surrogates(&json).unwrap_or(json);
            prop_assert!(serde_json::from_str::<String>(&mended).is_ok(), "{}", mended);
        }
    }
}
