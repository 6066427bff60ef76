//! The items of a session as they are now, from its stored events.

use std::borrow::Cow;
use std::collections::VecDeque;

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::event::{Projected, Source, Stamp};
use super::joined::Joined;
use super::json::{Key, Members};
use super::parts::parts;
use super::plan;
use super::stored::{Delta, Stored};
use super::tool::ToolCall;
use super::tools::Kept;

/// How much a snapshot keeps.
#[derive(Debug, Clone, Copy)]
pub struct SnapshotLimits {
    /// The latest so many items.
    pub items_max: usize,
    /// Joined text of a message that goes on.
    pub text_max_bytes: usize,
    /// A tool call that goes on.
    pub tool_call_max_bytes: usize,
    /// A diff in the parts of a tool call's item.
    pub diff_max_bytes: usize,
}

/// Builds the items from events in their order. Events before an item's `item.started` need not be given.
#[derive(Debug)]
pub struct Snapshot {
    limits: SnapshotLimits,
    entries: VecDeque<Entry>,
    left_out: usize,
}

#[derive(Debug)]
struct Entry {
    item_id: String,
    turn_id: Option<String>,
    /// As it was last written whole.
    item: Box<RawValue>,
    ended: bool,
    /// Given to an item whose turn ended without it.
    status: Option<&'static str>,
    grown: Grown,
}

/// What came after the item was written whole.
#[derive(Debug)]
enum Grown {
    Nothing,
    Message(Joined),
    Tool(ToolCall),
    Plan(Box<RawValue>),
}

impl Snapshot {
    /// Without items.
    pub fn new(limits: SnapshotLimits) -> Self {
        Self { limits, entries: VecDeque::new(), left_out: 0 }
    }

    /// The next event, its stored payload.
    pub fn push(&mut self, payload: &str) {
        let Some(stored) = Stored::parse(payload) else { return };
        match stored.kind.0.as_ref() {
            "item.started" => self.whole(&stored, false),
            "item.completed" => self.whole(&stored, true),
            "item.delta" => self.delta(&stored),
            "turn.ended" => self.turn_ended(&stored),
            _ => {}
        }
    }

    /// How many items there were before those that are kept.
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    /// The items as JSON, oldest first; each has its `turnId`.
    pub fn items(&self) -> Vec<Box<RawValue>> {
        let shown = self.entries.iter().filter_map(|entry| Shown::of(entry, self.limits.diff_max_bytes));
        shown.filter_map(|shown| serde_json::value::to_raw_value(&shown).ok()).collect()
    }

    /// The tool calls.
    pub(super) fn calls(&self) -> impl Iterator<Item = Kept> {
        self.entries.iter().filter_map(|entry| {
            let item = Members::parse(entry.item.get())?;
            let written = Members::parse(item.get("toolCall")?.get())?;
            let call_id = written.text("toolCallId")?.into_owned();
            let started_at_ms = item.get("startedAtMs").and_then(|at| at.get().parse().ok()).unwrap_or_default();
            let goes_on = (!entry.ended).then(|| entry.call(self.limits.tool_call_max_bytes));
            Some(Kept { item_id: entry.item_id.clone(), call_id, started_at_ms, goes_on })
        })
    }

    /// Lets go of items that have ended.
    pub fn keep_open(&mut self) {
        self.entries.retain(|entry| !entry.ended);
    }

    /// `item.completed`, as failed, of what a turn left open that is lost.
    pub fn fail_open(&self, now_ms: i64, session_id: &str, turn_id: &str) -> Vec<Projected> {
        let mut stamp = Stamp::new(session_id);
        stamp.turn_id = Some(turn_id.to_owned());
        let open = self.entries.iter().filter(|entry| !entry.ended && entry.turn_id.as_deref() == Some(turn_id));
        let failed = open.filter_map(|entry| {
            let mut item = Shown::of(entry, self.limits.diff_max_bytes)?;
            item.0.retain(|(key, _)| key != "turnId");
            item.set("status", "failed");
            item.set("completedAtMs", now_ms);
            item.set("reason", "the agent ended");
            Some(stamp.concluded(now_ms, "item.completed", Source::Daemon, Lost { item }))
        });
        failed.collect()
    }

    fn whole(&mut self, stored: &Stored<'_>, ended: bool) {
        let Some((raw, item)) = stored.item() else { return };
        if let Some(entry) = self.entry(&item.item_id) {
            (entry.item, entry.ended, entry.status, entry.grown) = (raw.to_owned(), ended, None, Grown::Nothing);
            return;
        }
        // Ids sort by time: an older one than all that are kept was left out before it ended.
        if self.left_out > 0 && self.entries.front().is_some_and(|first| *item.item_id < *first.item_id) {
            return;
        }
        let turn_id = stored.turn_id.as_ref().map(|turn_id| turn_id.0.as_ref().to_owned());
        let (item_id, item) = (item.item_id.into_owned(), raw.to_owned());
        self.entries.push_back(Entry { item_id, turn_id, item, ended, status: None, grown: Grown::Nothing });
        if self.entries.len() > self.limits.items_max {
            self.entries.pop_front();
            self.left_out += 1;
        }
    }

    /// From the end: what changes is new.
    fn entry(&mut self, item_id: &str) -> Option<&mut Entry> {
        self.entries.iter_mut().rev().find(|entry| entry.item_id == item_id)
    }

    fn delta(&mut self, stored: &Stored<'_>) {
        let limits = self.limits;
        let Some(delta) = Delta::parse(stored.data) else { return };
        let Some(entry) = self.entry(&delta.item_id) else { return };
        if let Some(text) = &delta.delta {
            let text_type = if text.kind == "reasoning" { "reasoning" } else { "text" };
            if let (Some(joined), Some(Key(text))) = (entry.message(text_type), &text.text) {
                joined.text(text, limits.text_max_bytes);
            }
        }
        let Some(update) = delta.update.and_then(|update| Members::parse(update.get())) else { return };
        if update.get("toolCallId").is_some() {
            entry.merge(&update, limits.tool_call_max_bytes);
        } else if let Some(entries) = update.get("entries") {
            entry.grown = Grown::Plan(entries.to_owned());
        } else if let (Some(part), Some(joined)) = (update.get("part"), entry.message("text")) {
            joined.block(part, limits.text_max_bytes);
        }
    }

    /// What a turn left open went on with nobody: the daemon ended before it could say so.
    fn turn_ended(&mut self, stored: &Stored<'_>) {
        let data = Members::parse(stored.data.get());
        let finished = data.is_some_and(|data| data.text("outcome").as_deref() == Some("finished"));
        let turn_id = stored.turn_id.as_ref().map(|turn_id| turn_id.0.as_ref());
        for entry in self.entries.iter_mut().filter(|entry| !entry.ended && entry.turn_id.as_deref() == turn_id) {
            entry.ended = true;
            entry.status = Some(if finished { "completed" } else { "failed" });
        }
    }
}

impl Entry {
    fn message(&mut self, text_type: &'static str) -> Option<&mut Joined> {
        if matches!(self.grown, Grown::Nothing) {
            self.grown = Grown::Message(Joined::new(text_type));
        }
        match &mut self.grown {
            Grown::Message(joined) => Some(joined),
            _ => None,
        }
    }

    /// The tool call, with what has grown.
    fn call(&self, max_bytes: usize) -> ToolCall {
        if let Grown::Tool(call) = &self.grown {
            return call.clone();
        }
        let item = Members::parse(self.item.get());
        let before = item.and_then(|item| Members::parse(item.get("toolCall")?.get()));
        let mut call = ToolCall::default();
        before.inspect(|before| call.merge(before, max_bytes));
        call
    }

    /// An update of a tool call, which may say after all how a call went that its turn left open.
    fn merge(&mut self, update: &Members<'_>, max_bytes: usize) {
        if matches!(self.grown, Grown::Nothing) {
            self.grown = Grown::Tool(self.call(max_bytes));
        }
        let Grown::Tool(call) = &mut self.grown else { return };
        call.merge(update, max_bytes);
        if let (true, Some(failed)) = (self.ended, call.ended()) {
            self.status = Some(if failed { "failed" } else { "completed" });
        }
    }
}

/// `data` of `item.completed`.
#[derive(Serialize)]
struct Lost {
    item: Shown,
}

/// An item with what has grown since.
struct Shown(Vec<(String, Box<RawValue>)>);

impl Shown {
    fn of(entry: &Entry, diff_max_bytes: usize) -> Option<Self> {
        let members = Members::parse(entry.item.get())?;
        let mut shown = Self(members.0.into_iter().map(|(key, value)| (Cow::into_owned(key), value.to_owned())).collect());
        if let Some(turn_id) = &entry.turn_id {
            shown.set("turnId", turn_id);
        }
        if let Some(status) = entry.status {
            shown.set("status", status);
            shown.0.retain(|(key, _)| key != "reason" || status == "failed");
        }
        match &entry.grown {
            Grown::Nothing => {}
            Grown::Message(joined) => {
                shown.set("parts", joined);
                if let Some(bytes) = joined.truncated() {
                    shown.set("truncated", true);
                    shown.set("bytes", bytes);
                    shown.set("partsLeftOut", joined.left_out());
                }
            }
            Grown::Tool(call) => {
                shown.set("parts", parts(call, diff_max_bytes));
                shown.set("toolCall", call);
            }
            Grown::Plan(entries) => shown.set("parts", [plan::part(entries)]),
        }
        Some(shown)
    }

    fn set(&mut self, key: &str, value: impl Serialize) {
        let value = serde_json::value::to_raw_value(&value).expect("plain structs and JSON values: every key is a string");
        match self.0.iter_mut().find(|(name, _)| name == key) {
            Some((_, old)) => *old = value,
            None => self.0.push((key.to_owned(), value)),
        }
    }
}

impl Serialize for Shown {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}
