//! What the user said: its item, and how an agent's repetition of it is known.

use serde_json::Value;
use serde_json::value::RawValue;

use super::event::{Projected, Source, Stamp};
use super::item::{Item, Status, Whole};
use super::json::Members;

/// `item.started` and `item.completed` of a prompt. Its parts are the content blocks as they were sent.
pub(super) fn item(now_ms: i64, blocks: &[&RawValue], stamp: &Stamp, out: &mut Vec<Projected>) {
    let (item_id, began_ms) = stamp.item(now_ms);
    let none: &[&RawValue] = &[];
    let started = Item::new(&item_id, "message", "user", began_ms, none);
    out.push(stamp.concluded(now_ms, "item.started", Source::Client, Whole { item: started }));
    let completed = Item::new(&item_id, "message", "user", began_ms, blocks).ended(Status::Completed, now_ms);
    out.push(stamp.concluded(now_ms, "item.completed", Source::Client, Whole { item: completed }));
}

/// What an agent may repeat of a prompt.
#[derive(Debug)]
pub(super) struct Echo {
    text: String,
    /// How much of `text` was repeated.
    seen: usize,
    blocks: Vec<Box<RawValue>>,
}

impl Echo {
    /// Of a prompt's blocks.
    pub fn new(prompt: &[&RawValue]) -> Self {
        let (mut text, mut blocks) = (String::new(), Vec::new());
        for block in prompt {
            match Members::parse(block.get()).and_then(|block| block.text("text").map(std::borrow::Cow::into_owned)) {
                Some(words) => text.push_str(&words),
                None => blocks.push((*block).to_owned()),
            }
        }
        Self { text, seen: 0, blocks }
    }

    /// Whether a chunk repeats what comes next.
    pub fn repeats(&mut self, content: &RawValue, words: Option<&str>) -> bool {
        let Some(words) = words else {
            let value = |raw: &RawValue| serde_json::from_str::<Value>(raw.get()).ok();
            let content = value(content);
            return content.is_some() && self.blocks.iter().any(|block| value(block) == content);
        };
        let repeats = !words.is_empty() && self.text[self.seen..].starts_with(words);
        if repeats {
            self.seen += words.len();
        }
        repeats
    }
}
