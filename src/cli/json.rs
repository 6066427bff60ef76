//! Showing JSON to people without changing it.

use std::iter::Peekable;
use std::str::Chars;

use serde::de::IgnoredAny;

/// The same JSON text, indented by two spaces. Numbers, the order of members and even repeated ones stay as they were
/// sent, which they would not as a parsed value. What is no JSON is given back as it is.
pub(super) fn pretty(text: &str) -> String {
    if serde_json::from_str::<IgnoredAny>(text).is_err() {
        return text.trim_end().to_owned();
    }
    let mut out = String::with_capacity(text.len() * 2);
    let mut depth = 0_usize;
    let mut rest = text.chars().peekable();
    while let Some(character) = rest.next() {
        match character {
            '"' => copy_string(&mut rest, &mut out),
            '{' | '[' => {
                out.push(character);
                while rest.next_if(char::is_ascii_whitespace).is_some() {}
                if let Some(close) = rest.next_if(|next| matches!(next, '}' | ']')) {
                    out.push(close);
                } else {
                    depth += 1;
                    new_line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth -= 1; // the text is valid, so this one was opened
                new_line(&mut out, depth);
                out.push(character);
            }
            ',' => {
                out.push(',');
                new_line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            space if space.is_ascii_whitespace() => {}
            other => out.push(other),
        }
    }
    out
}

fn new_line(out: &mut String, depth: usize) {
    out.push('\n');
    out.extend(std::iter::repeat_n("  ", depth));
}

/// Copies a string whose opening quote was taken.
fn copy_string(rest: &mut Peekable<Chars<'_>>, out: &mut String) {
    out.push('"');
    while let Some(character) = rest.next() {
        out.push(character);
        match character {
            '\\' => out.extend(rest.next()),
            '"' => return,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_like_serde_jsons_own() {
        let text = r#" {"a":[1,-2.5,[] , { }],"b":{"c":"x, {\"y\": \\"},"d":[{"e":null}, true]}"#;
        let value: serde_json::Value = serde_json::from_str(text).expect("JSON");
        assert_eq!(pretty(text), serde_json::to_string_pretty(&value).expect("JSON"));
    }

    #[test]
    fn changes_no_value() {
        assert_eq!(
            pretty(r#"{"z":123456789012345678901234567890,"a":1.10,"a":2}"#),
            "{\n  \"z\": 123456789012345678901234567890,\n  \"a\": 1.10,\n  \"a\": 2\n}"
        );
    }

    #[test]
    fn leaves_other_text_alone() {
        assert_eq!(pretty("{not json}\n"), "{not json}");
    }
}
