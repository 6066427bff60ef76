//! Parts of a message joined from its chunks, within a bound.

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

/// Text and other content blocks in their order.
#[derive(Debug)]
pub(super) struct Joined {
    /// `text` or `reasoning`.
    text_type: &'static str,
    parts: Vec<Part>,
    /// Bytes in `parts`.
    kept: usize,
    /// Bytes of text so far, kept or not.
    bytes: usize,
    /// Text did not fit: nothing after it is kept, so that what is kept has no hole.
    cut: bool,
    left_out: usize,
}

#[derive(Debug)]
enum Part {
    Text(String),
    /// A content block as the agent wrote it.
    Block(Box<RawValue>),
}

impl Joined {
    /// Nothing yet.
    pub fn new(text_type: &'static str) -> Self {
        Self { text_type, parts: Vec::new(), kept: 0, bytes: 0, cut: false, left_out: 0 }
    }

    /// `text` or `reasoning`.
    pub fn text_type(&self) -> &'static str {
        self.text_type
    }

    /// More text.
    pub fn text(&mut self, text: &str, max_bytes: usize) {
        self.bytes += text.len();
        let room = max_bytes.saturating_sub(self.kept);
        let fits = if self.cut { "" } else { &text[..text.floor_char_boundary(room)] };
        self.cut |= fits.len() < text.len();
        if fits.is_empty() {
            return;
        }
        self.kept += fits.len();
        if let Some(Part::Text(last)) = self.parts.last_mut() {
            last.push_str(fits);
        } else {
            self.parts.push(Part::Text(fits.to_owned()));
        }
    }

    /// A content block that isn't text.
    pub fn block(&mut self, block: &RawValue, max_bytes: usize) {
        let size = block.get().len();
        if self.cut || self.kept.saturating_add(size) > max_bytes {
            self.left_out += 1;
            return;
        }
        self.kept += size;
        self.parts.push(Part::Block(block.to_owned()));
    }

    /// Bytes of the whole text, when something did not fit.
    pub fn truncated(&self) -> Option<usize> {
        (self.cut || self.left_out > 0).then_some(self.bytes)
    }

    /// How many blocks did not fit.
    pub fn left_out(&self) -> usize {
        self.left_out
    }
}

#[derive(Serialize)]
#[serde(untagged)]
enum Shown<'a> {
    Text {
        r#type: &'static str,
        text: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        visibility: Option<&'static str>,
    },
    Block(&'a RawValue),
}

impl Serialize for Joined {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let visibility = (self.text_type == "reasoning").then_some("public");
        serializer.collect_seq(self.parts.iter().map(|part| match part {
            Part::Text(text) => Shown::Text { r#type: self.text_type, text, visibility },
            Part::Block(block) => Shown::Block(block),
        }))
    }
}
