//! Texts by lines, and places in them as clients and servers count them.

use std::path::Path;
use std::sync::Arc;

use language_client::{Client, Encoding, Lines, uri_of};
use serde_json::Value;

use super::error::Error;
use super::server::read;
use super::types::{Position, Range};

/// Of a line that is shown.
const LINE_MAX_CHARS: usize = 200;

/// A text that positions are looked up in.
#[derive(Debug, Clone)]
pub(super) struct Text {
    text: Arc<str>,
    lines: Lines,
}

impl Text {
    pub(super) fn new(text: Arc<str>) -> Self {
        let lines = Lines::of(&text);
        Self { text, lines }
    }

    /// What a server has of a file, or else the disk.
    pub(super) async fn of(client: &Client, path: &Path, max_bytes: u64) -> Result<Self, Error> {
        let text = match client.text(&uri_of(path)).await {
            Some(text) => text,
            None => read(path.to_owned(), max_bytes).await?,
        };
        Ok(Self::new(text))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// A line as it is shown.
    pub(super) fn line_shown(&self, line: u32) -> Option<String> {
        Some(self.line(line)?.chars().take(LINE_MAX_CHARS).collect())
    }

    pub(super) fn line(&self, line: u32) -> Option<&str> {
        self.lines.line(&self.text, usize::try_from(line).ok()?)
    }

    /// The same place in another encoding.
    pub(super) fn convert(&self, position: Position, from: Encoding, to: Encoding) -> Position {
        let Some(line) = self.line(position.line) else { return position };
        let character = from.convert(line, usize::try_from(position.character).unwrap_or(usize::MAX), to);
        Position { line: position.line, character: u32::try_from(character).unwrap_or(u32::MAX) }
    }

    pub(super) fn convert_range(&self, range: Range, from: Encoding, to: Encoding) -> Range {
        Range { start: self.convert(range.start, from, to), end: self.convert(range.end, from, to) }
    }

    /// The byte of a place.
    pub(super) fn byte_of(&self, position: Position, encoding: Encoding) -> usize {
        let place =
            (usize::try_from(position.line).unwrap_or(usize::MAX), usize::try_from(position.character).unwrap_or(usize::MAX));
        self.lines.byte_of(&self.text, place, encoding)
    }

    /// Every `{line,character}` within a value is counted in another encoding.
    pub(super) fn convert_all(&self, value: &mut Value, from: Encoding, to: Encoding) {
        if from == to {
            return;
        }
        match value {
            Value::Array(items) => items.iter_mut().for_each(|item| self.convert_all(item, from, to)),
            Value::Object(map) => match serde_json::from_value::<Position>(Value::Object(map.clone())) {
                Ok(position) if map.len() == 2 => *value = serde_json::json!(self.convert(position, from, to)),
                _ => map.values_mut().for_each(|item| self.convert_all(item, from, to)),
            },
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn places_anywhere_in_an_answer_are_counted_anew() {
        let text = Text::new("x\nä🦀b\n".into());
        let mut value =
            json!([{"range": {"start": {"line": 1, "character": 6}, "end": {"line": 1, "character": 7}}, "name": "b"}]);
        text.convert_all(&mut value, Encoding::Utf8, Encoding::Utf16);
        assert_eq!(value[0]["range"], json!({"start": {"line": 1, "character": 3}, "end": {"line": 1, "character": 4}}));
        let position = Position { line: 1, character: 3 };
        assert_eq!(&text.as_str()[text.byte_of(position, Encoding::Utf16)..][..1], "b");
        assert_eq!(text.line_shown(1).as_deref(), Some("ä🦀b"));
        assert_eq!(
            text.convert(Position { line: 9, character: 1 }, Encoding::Utf8, Encoding::Utf16).line,
            9,
            "there is no such line"
        );
    }
}
