//! One message, or one stretch of thinking, as it grows by chunks.

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::event::{Projected, Source, Stamp};
use super::item::{Change, Item, Status, Text, TextDelta, Whole};

/// Longest `_meta` that an item keeps of its first chunk.
const META_MAX_BYTES: usize = 4096;

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Voice {
    User,
    Agent,
    Thought,
}

impl Voice {
    fn role(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Agent | Self::Thought => "assistant",
        }
    }

    fn text_type(self) -> &'static str {
        match self {
            Self::Thought => "reasoning",
            Self::User | Self::Agent => "text",
        }
    }
}

/// An item of kind message that has begun.
#[derive(Debug)]
pub(super) struct Message {
    item_id: String,
    voice: Voice,
    message_id: Option<Box<RawValue>>,
    meta: Option<Box<RawValue>>,
    started_at_ms: i64,
    parts: Vec<Part>,
    /// Bytes in `parts`.
    kept: usize,
    /// Bytes of text so far, kept or not.
    bytes: usize,
    /// Text that did not fit: nothing after it is kept, so that what is kept has no hole.
    cut: bool,
    left_out: usize,
    /// Text that is not in a delta yet.
    pending: String,
    /// A chunk came since the last delta, perhaps an empty one.
    dirty: bool,
}

#[derive(Debug)]
enum Part {
    Text(String),
    /// A content block as the agent wrote it.
    Block(Box<RawValue>),
}

impl Message {
    /// Begins with nothing in it.
    pub fn new(item_id: String, voice: Voice, message_id: Option<&RawValue>, meta: Option<&RawValue>, now_ms: i64) -> Self {
        Self {
            item_id,
            voice,
            message_id: message_id.map(ToOwned::to_owned),
            meta: meta.filter(|meta| meta.get().len() <= META_MAX_BYTES).map(ToOwned::to_owned),
            started_at_ms: now_ms,
            parts: Vec::new(),
            kept: 0,
            bytes: 0,
            cut: false,
            left_out: 0,
            pending: String::new(),
            dirty: false,
        }
    }

    /// Whether a chunk goes on with it. Chunks without a message id go on with one without.
    pub fn goes_on(&self, voice: Voice, message_id: Option<&RawValue>) -> bool {
        self.voice == voice && self.message_id.as_deref().map(RawValue::get) == message_id.map(RawValue::get)
    }

    /// `item.started`.
    pub fn started(&self, now_ms: i64, stamp: &Stamp) -> Projected {
        stamp.said(now_ms, "item.started", self.source(), Whole { item: self.item(&[]) })
    }

    /// More text; true when so much waits that it should be flushed.
    pub fn push(&mut self, text: &str, delta_max_bytes: usize) -> bool {
        self.pending.push_str(text);
        self.dirty = true;
        self.pending.len() >= delta_max_bytes
    }

    /// Writes what waits as deltas of at most `delta_max_bytes`.
    pub fn flush(&mut self, now_ms: i64, stamp: &Stamp, max: Max, out: &mut Vec<Projected>) {
        if !self.dirty {
            return;
        }
        let mut rest = self.pending.as_str();
        loop {
            let (piece, after) = rest.split_at(rest.floor_char_boundary(max.delta_bytes.max(4)));
            let delta = Text { r#type: self.voice.text_type(), text: piece };
            out.push(stamp.said(now_ms, "item.delta", self.source(), TextDelta { item_id: &self.item_id, delta }));
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        let mut pending = std::mem::take(&mut self.pending);
        self.keep(&pending, max.text_bytes);
        pending.clear();
        self.pending = pending; // its room is used again
        self.dirty = false;
    }

    /// A content block that isn't text. The caller has flushed.
    pub fn block(&mut self, now_ms: i64, block: &RawValue, stamp: &Stamp, max: Max) -> Projected {
        let size = block.get().len();
        if self.kept.saturating_add(size) <= max.text_bytes {
            self.kept += size;
            self.parts.push(Part::Block(block.to_owned()));
        } else {
            self.left_out += 1;
        }
        let update = Added { part: block };
        stamp.said(now_ms, "item.delta", self.source(), Change { item_id: &self.item_id, update, late: false })
    }

    /// `item.completed`. The caller has flushed.
    pub fn completed(&self, now_ms: i64, status: Status, stamp: &Stamp) -> Projected {
        let item = self.item(&self.parts).ended(status, now_ms);
        stamp.concluded(now_ms, "item.completed", self.source(), Whole { item })
    }

    fn keep(&mut self, text: &str, max_bytes: usize) {
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

    fn item<'a>(&'a self, parts: &'a [Part]) -> Item<'a, Parts<'a>> {
        let parts = Parts { parts, voice: self.voice };
        let mut item = Item::new(&self.item_id, "message", self.voice.role(), self.started_at_ms, parts);
        item.message_id = self.message_id.as_deref();
        item.meta = self.meta.as_deref();
        item.truncated = self.cut || self.left_out > 0;
        item.bytes = item.truncated.then_some(self.bytes);
        item.parts_left_out = self.left_out;
        item
    }

    fn source(&self) -> Source {
        Source::Agent // also when it repeats the user's words
    }
}

/// The limits that a message obeys.
#[derive(Debug, Clone, Copy)]
pub(super) struct Max {
    pub text_bytes: usize,
    pub delta_bytes: usize,
}

#[derive(Serialize)]
struct Added<'a> {
    part: &'a RawValue,
}

struct Parts<'a> {
    parts: &'a [Part],
    voice: Voice,
}

impl Serialize for Parts<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.parts.iter().map(|part| match part {
            Part::Text(text) => Shown::Text {
                r#type: self.voice.text_type(),
                text,
                visibility: (self.voice == Voice::Thought).then_some("public"),
            },
            Part::Block(block) => Shown::Block(block),
        }))
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
