//! The text that a server was given, and what changed of it.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::position::{Encoding, Lines};

/// How a server wants to be told of changes (LSP 3.17, `TextDocumentSyncKind`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SyncKind {
    None,
    Full,
    Incremental,
}

/// An open document.
#[derive(Debug, Clone)]
pub(crate) struct Document {
    pub(crate) version: i32,
    pub(crate) text: Arc<str>,
}

/// `contentChanges` that make `new` of `old`: the part that differs, or all of it.
pub(crate) fn changes(old: &str, new: &str, kind: SyncKind, encoding: Encoding) -> Value {
    if kind != SyncKind::Incremental {
        return json!([{"text": new}]);
    }
    let (from, old_to, new_to) = difference(old, new);
    let lines = Lines::of(old);
    let position = |byte: usize| {
        let (line, offset) = lines.place_of(byte);
        let content = &old[byte - offset..byte];
        json!({"line": line, "character": encoding.character_of(content, offset)})
    };
    json!([{"range": {"start": position(from), "end": position(old_to)}, "text": &new[from..new_to]}])
}

/// Where they begin to differ, and where the part that differs ends in each, on whole characters and not between `\r` and `\n`.
fn difference(old: &str, new: &str) -> (usize, usize, usize) {
    let (one, other) = (old.as_bytes(), new.as_bytes());
    let mut from = one.iter().zip(other).take_while(|(one, other)| one == other).count();
    while !is_cut(old, from) || !is_cut(new, from) {
        from -= 1;
    }
    let rest = one.len().min(other.len()) - from;
    let mut same = one.iter().rev().zip(other.iter().rev()).take(rest).take_while(|(one, other)| one == other).count();
    while !is_cut(old, old.len() - same) || !is_cut(new, new.len() - same) {
        same -= 1;
    }
    (from, old.len() - same, new.len() - same)
}

fn is_cut(text: &str, at: usize) -> bool {
    let bytes = text.as_bytes();
    text.is_char_boundary(at) && !(at > 0 && bytes[at - 1] == b'\r' && bytes.get(at) == Some(&b'\n'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_what_differs_is_told() {
        let told = changes("a\nbäc\nd", "a\nbä🦀c\nd", SyncKind::Incremental, Encoding::Utf16);
        assert_eq!(
            told,
            json!([{"range": {"start": {"line": 1, "character": 2}, "end": {"line": 1, "character": 2}}, "text": "🦀"}])
        );
        assert_eq!(changes("a", "b", SyncKind::Full, Encoding::Utf16), json!([{"text": "b"}]));
    }

    proptest! {
        /// What a server does with it.
        #[test]
        fn a_change_applied_gives_the_new_text(old in "[abä🦀\r\n]{0,30}", new in "[abä🦀\r\n]{0,30}") {
            for encoding in [Encoding::Utf8, Encoding::Utf16] {
                let told = changes(&old, &new, SyncKind::Incremental, encoding);
                let lines = Lines::of(&old);
                let byte = |position: &Value| {
                    let part = |name: &str| position[name].as_u64().unwrap() as usize;
                    lines.byte_of(&old, (part("line"), part("character")), encoding)
                };
                let (from, to) = (byte(&told[0]["range"]["start"]), byte(&told[0]["range"]["end"]));
                prop_assert_eq!(format!("{}{}{}", &old[..from], told[0]["text"].as_str().unwrap(), &old[to..]), new.clone());
            }
        }
    }
}
