//! One message, or one stretch of thinking, as it grows by chunks.

use serde::Serialize;
use serde_json::value::RawValue;

use super::event::{Projected, Source, Stamp};
use super::item::{Change, Item, Status, Text, TextDelta, Whole};
use super::joined::Joined;

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
    joined: Joined,
    /// Text that is not in a delta yet.
    pending: String,
    /// A chunk came since the last delta, perhaps an empty one.
    dirty: bool,
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
            joined: Joined::new(voice.text_type()),
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
        stamp.said(now_ms, "item.started", Source::Agent, Whole { item: self.item::<[(); 0]>([]) })
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
            let delta = Text { r#type: self.joined.text_type(), text: piece };
            out.push(stamp.said(now_ms, "item.delta", Source::Agent, TextDelta { item_id: &self.item_id, delta }));
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        let mut pending = std::mem::take(&mut self.pending);
        self.joined.text(&pending, max.text_bytes);
        pending.clear();
        self.pending = pending; // its room is used again
        self.dirty = false;
    }

    /// A content block that isn't text. The caller has flushed.
    pub fn block(&mut self, now_ms: i64, block: &RawValue, stamp: &Stamp, max: Max) -> Projected {
        self.joined.block(block, max.text_bytes);
        let update = Added { part: block };
        stamp.said(now_ms, "item.delta", Source::Agent, Change { item_id: &self.item_id, update, late: false })
    }

    /// `item.completed`. The caller has flushed.
    pub fn completed(&self, now_ms: i64, status: Status, stamp: &Stamp) -> Projected {
        let mut item = self.item(&self.joined).ended(status, now_ms);
        item.bytes = self.joined.truncated();
        item.truncated = item.bytes.is_some();
        item.parts_left_out = self.joined.left_out();
        stamp.concluded(now_ms, "item.completed", Source::Agent, Whole { item })
    }

    fn item<P>(&self, parts: P) -> Item<'_, P> {
        let mut item = Item::new(&self.item_id, "message", self.voice.role(), self.started_at_ms, parts);
        item.message_id = self.message_id.as_deref();
        item.meta = self.meta.as_deref();
        item
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
