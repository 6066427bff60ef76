//! The agent's plan: one item of kind status per turn. Source: ACP v1, "Agent Plan": each update brings all entries.

use serde::Serialize;
use serde_json::value::RawValue;

use super::event::{Projected, Source, Stamp};
use super::item::{Change, Item, Status, Whole};
use super::json::{Members, elements};
use super::shrink::shrink;

/// A plan that has been told.
#[derive(Debug)]
pub(super) struct Plan {
    item_id: String,
    started_at_ms: i64,
    entries: Box<RawValue>,
    truncated: bool,
}

/// A plan as the one part of its item.
#[derive(Serialize)]
pub(super) struct Part<'a> {
    r#type: &'static str,
    label: &'static str,
    detail: String,
    entries: &'a RawValue,
}

#[derive(Serialize)]
struct Entries<'a> {
    entries: &'a RawValue,
}

impl Plan {
    /// Its first entries, an array.
    pub fn new(item_id: String, now_ms: i64, entries: &RawValue, max_bytes: usize) -> Self {
        let mut plan = Self { item_id, started_at_ms: now_ms, entries: entries.to_owned(), truncated: false };
        plan.keep(entries, max_bytes);
        plan
    }

    /// `item.started`.
    pub fn started(&self, now_ms: i64, stamp: &Stamp) -> Projected {
        stamp.said(now_ms, "item.started", Source::Agent, Whole { item: self.item() })
    }

    /// Other entries: `item.delta`.
    pub fn changed(&mut self, now_ms: i64, entries: &RawValue, stamp: &Stamp, max_bytes: usize) -> Projected {
        self.keep(entries, max_bytes);
        let change = Change { item_id: &self.item_id, update: Entries { entries }, late: false };
        stamp.said(now_ms, "item.delta", Source::Agent, change)
    }

    /// `item.completed`.
    pub fn completed(&self, now_ms: i64, status: Status, stamp: &Stamp) -> Projected {
        stamp.concluded(now_ms, "item.completed", Source::Agent, Whole { item: self.item().ended(status, now_ms) })
    }

    fn keep(&mut self, entries: &RawValue, max_bytes: usize) {
        self.truncated = entries.get().len() > max_bytes;
        self.entries = shrink(entries, max_bytes).unwrap_or_default();
    }

    fn item(&self) -> Item<'_, [Part<'_>; 1]> {
        let mut item = Item::new(&self.item_id, "status", "assistant", self.started_at_ms, [part(&self.entries)]);
        item.truncated = self.truncated;
        item
    }
}

/// How far it is, in words, and all entries.
pub(super) fn part(entries: &RawValue) -> Part<'_> {
    let all = elements(entries).unwrap_or_default();
    let is_done = |entry: &&&RawValue| {
        Members::parse(entry.get()).is_some_and(|entry| entry.text("status").as_deref() == Some("completed"))
    };
    let detail = format!("{} of {} done", all.iter().filter(is_done).count(), all.len());
    Part { r#type: "status", label: "plan", detail, entries }
}
