//! JSON values made smaller, so that what is kept has a bound and still has its shape.

use serde_json::Value;
use serde_json::value::RawValue;

/// What stands where a text was cut.
const ELLIPSIS: &str = "…";
/// Strings up to this long (types, ids, paths) are kept before longer ones share what is left.
const SHORT: usize = 64;

/// `value` in at most `max_bytes` of JSON: long texts are cut, what does not fit at all is left out.
pub(super) fn shrink(value: &RawValue, max_bytes: usize) -> Option<Box<RawValue>> {
    if value.get().len() <= max_bytes {
        return Some(value.to_owned());
    }
    let mut left = max_bytes;
    let shrunk = smaller(serde_json::from_str(value.get()).ok()?, &mut left)?;
    serde_json::value::to_raw_value(&shrunk).ok().filter(|raw| raw.get().len() <= max_bytes)
}

fn smaller(value: Value, left: &mut usize) -> Option<Value> {
    match value {
        Value::String(text) => string(text, left),
        Value::Array(elements) => {
            pay(2, left)?;
            Some(elements.into_iter().map_while(|element| pay(1, left).and_then(|()| smaller(element, left))).collect())
        }
        Value::Object(members) => {
            pay(2, left)?;
            let (short, long): (Vec<_>, Vec<_>) = members.into_iter().partition(|(_, value)| is_short(value));
            let kept = short.into_iter().chain(long).map_while(|(key, value)| {
                pay(key.chars().map(escaped).sum::<usize>() + 4, left)?; // two quotes, colon, comma
                Some((key, smaller(value, left)?))
            });
            Some(Value::Object(kept.collect()))
        }
        other => pay(other.to_string().len(), left).map(|()| other),
    }
}

fn string(text: String, left: &mut usize) -> Option<Value> {
    pay(2, left)?;
    let whole: usize = text.chars().map(escaped).sum();
    if pay(whole, left).is_some() {
        return Some(Value::String(text));
    }
    pay(ELLIPSIS.len(), left)?;
    let mut cut = 0;
    for (at, c) in text.char_indices() {
        if pay(escaped(c), left).is_none() {
            break;
        }
        cut = at + c.len_utf8();
    }
    *left = 0; // nothing after a cut text: it would read as if it followed
    Some(Value::String(format!("{}{ELLIPSIS}", &text[..cut])))
}

fn pay(price: usize, left: &mut usize) -> Option<()> {
    *left = left.checked_sub(price)?;
    Some(())
}

/// Bytes of a character in a JSON string.
fn escaped(c: char) -> usize {
    match c {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        '\u{0}'..='\u{1f}' => 6,
        other => other.len_utf8(),
    }
}

fn is_short(value: &Value) -> bool {
    match value {
        Value::String(text) => text.len() <= SHORT,
        Value::Array(_) | Value::Object(_) => false,
        Value::Null | Value::Bool(_) | Value::Number(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shrunk(json: &str, max_bytes: usize) -> Option<String> {
        let raw: Box<RawValue> = serde_json::from_str(json).expect("JSON");
        shrink(&raw, max_bytes).map(|raw| raw.get().to_owned())
    }

    #[test]
    fn long_texts_are_cut_and_short_ones_stay() {
        let json = format!(r#"[{{"content":{{"text":"{}","type":"text"}},"type":"content"}}]"#, "x\\n".repeat(100));
        let cut = shrunk(&json, 80).expect("fits");
        assert!(cut.starts_with(r#"[{"content":{"text":"x\n"#), "{cut}");
        assert!(cut.contains("…"), "{cut}");
        assert!(cut.contains(r#""type":"text"},"type":"content""#), "{cut}");
        assert_eq!(shrunk("[1,2]", 5).as_deref(), Some("[1,2]"));
        assert_eq!(shrunk("\"abc\"", 1), None);
    }

    proptest! {
        #[test]
        fn it_fits_and_is_json(text in "\\PC{0,80}", control in "[\\x00-\\x1f]{0,9}", max_bytes in 0..200usize) {
            let json = serde_json::json!({"a": [text, {"type": "x", "t": control}, 1.5, null, true], "b": text}).to_string();
            if let Some(cut) = shrunk(&json, max_bytes) {
                prop_assert!(cut.len() <= max_bytes);
                prop_assert!(serde_json::from_str::<Value>(&cut).is_ok());
            }
        }
    }
}
