//! The tool calls of a session: those that go on, and the ids of those that have ended lately.

use std::borrow::Cow;
use std::collections::VecDeque;

use serde::{Serialize, Serializer};

use super::event::{Projected, Source, Stamp};
use super::item::{Change, Item, Status, Whole};
use super::json::Members;
use super::noted::{Noted, Phase, ToolNoted};
use super::parts::{Part, parts};
use super::tool::ToolCall;

/// Tool calls by the agent's ids.
#[derive(Debug, Default)]
pub(super) struct Tools {
    open: Vec<Open>,
    /// Call and item ids. An agent may tell more of a call that has ended: Claude Code's hooks do, after edits.
    ended: VecDeque<(String, String)>,
}

#[derive(Debug)]
struct Open {
    item_id: String,
    call_id: String,
    started_at_ms: i64,
    call: ToolCall,
}

/// The limits that tool calls obey.
#[derive(Debug, Clone, Copy)]
pub(super) struct Max {
    pub call_bytes: usize,
    pub diff_bytes: usize,
    pub open: usize,
}

/// Whether an update is of a call that goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    Open(usize),
    Ended(usize),
    New,
}

/// A call that was stored. Without `goes_on` it has ended.
#[derive(Debug)]
pub(super) struct Kept {
    pub item_id: String,
    pub call_id: String,
    pub started_at_ms: i64,
    pub goes_on: Option<ToolCall>,
}

impl Tools {
    /// As they were stored, oldest first; `max` that go on, and as many that have ended.
    pub fn of(calls: impl Iterator<Item = Kept>, max: usize) -> Self {
        let mut tools = Self::default();
        for Kept { item_id, call_id, started_at_ms, goes_on } in calls {
            match goes_on {
                Some(call) => tools.open.push(Open { item_id, call_id, started_at_ms, call }),
                None => tools.ended.push_back((call_id, item_id)),
            }
        }
        tools.open.drain(..tools.open.len().saturating_sub(max));
        tools.ended.drain(..tools.ended.len().saturating_sub(max));
        tools
    }

    /// What is known of a call. `tool_call` with the id of a call that has ended is another call.
    pub fn known(&self, call_id: &str, is_update: bool) -> Known {
        let ended = || self.ended.iter().position(|(id, _)| is_update && id == call_id).map_or(Known::New, Known::Ended);
        self.open.iter().position(|open| open.call_id == call_id).map_or_else(ended, Known::Open)
    }

    /// A call's update: `item.started` or `item.delta`, and `item.completed` when it says so.
    pub fn update(&mut self, at: At<'_>, known: Known, call_id: &str, update: &Members<'_>, out: &mut Vec<Projected>) -> Noted {
        match known {
            Known::New => self.started(at, call_id, update, out),
            Known::Open(index) => self.changed(at, index, update, out),
            Known::Ended(index) => {
                let item_id = self.ended[index].1.clone();
                out.push(delta(at, &item_id, update, true));
                let mut call = ToolCall::default();
                call.merge(update, at.max.call_bytes);
                noted(&item_id, call_id, &call, Phase::Late)
            }
        }
    }

    fn started(&mut self, at: At<'_>, call_id: &str, update: &Members<'_>, out: &mut Vec<Projected>) -> Noted {
        if self.open.len() >= at.max.open.max(1) {
            let oldest = self.open.remove(0);
            out.push(self.complete(at, oldest, Status::Failed, true, Some("too many tool calls go on at once")));
        }
        let mut call = ToolCall::default();
        call.merge(update, at.max.call_bytes);
        let (item_id, started_at_ms) = at.stamp.item(at.now_ms);
        let open = Open { item_id, call_id: call_id.to_owned(), started_at_ms, call };
        out.push(at.stamp.said(at.now_ms, "item.started", Source::Agent, Whole { item: item(&open, at.max) }));
        self.open.push(open);
        self.ended_by_agent(at, self.open.len() - 1, Phase::Started, out)
    }

    fn changed(&mut self, at: At<'_>, index: usize, update: &Members<'_>, out: &mut Vec<Projected>) -> Noted {
        let open = &mut self.open[index];
        open.call.merge(update, at.max.call_bytes);
        out.push(delta(at, &open.item_id, update, false));
        self.ended_by_agent(at, index, Phase::Progress, out)
    }

    fn ended_by_agent(&mut self, at: At<'_>, index: usize, otherwise: Phase, out: &mut Vec<Projected>) -> Noted {
        let open = &self.open[index];
        let Some(failed) = open.call.ended() else { return noted(&open.item_id, &open.call_id, &open.call, otherwise) };
        let noted = noted(&open.item_id, &open.call_id, &open.call, Phase::Ended { failed });
        let status = if failed { Status::Failed } else { Status::Completed };
        let open = self.open.remove(index);
        out.push(self.complete(at, open, status, false, None));
        noted
    }

    /// Ends all that go on.
    pub fn close(&mut self, at: At<'_>, status: Status, reason: Option<&str>, out: &mut Vec<Projected>) {
        for open in std::mem::take(&mut self.open) {
            out.push(self.complete(at, open, status, true, reason));
        }
    }

    fn complete(&mut self, at: At<'_>, open: Open, status: Status, concluded: bool, reason: Option<&str>) -> Projected {
        let mut item = item(&open, at.max).ended(status, at.now_ms);
        item.reason = reason;
        let whole = Whole { item };
        let event = if concluded {
            at.stamp.concluded(at.now_ms, "item.completed", Source::Agent, whole)
        } else {
            at.stamp.said(at.now_ms, "item.completed", Source::Agent, whole)
        };
        if self.ended.len() >= at.max.open {
            self.ended.pop_front();
        }
        self.ended.push_back((open.call_id, open.item_id));
        event
    }
}

/// When and where, for one update.
#[derive(Debug, Clone, Copy)]
pub(super) struct At<'a> {
    pub now_ms: i64,
    pub stamp: &'a Stamp,
    pub max: Max,
}

fn item(open: &Open, max: Max) -> Item<'_, Vec<Part<'_>>> {
    let mut item = Item::new(&open.item_id, "tool_call", "tool", open.started_at_ms, parts(&open.call, max.diff_bytes));
    item.truncated = open.call.truncated;
    item.tool_call = Some(&open.call);
    item
}

fn delta(at: At<'_>, item_id: &str, update: &Members<'_>, late: bool) -> Projected {
    at.stamp.said(at.now_ms, "item.delta", Source::Agent, Change { item_id, update: Told(update), late })
}

/// An update as the agent wrote it, without what the event says already.
struct Told<'a>(&'a Members<'a>);

impl Serialize for Told<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let told = self.0.0.iter().filter(|(key, _)| key != "sessionUpdate");
        serializer.collect_map(told.map(|(key, value)| (key, value)))
    }
}

fn noted(item_id: &str, call_id: &str, call: &ToolCall, phase: Phase) -> Noted {
    Noted::Tool(Box::new(ToolNoted {
        item_id: item_id.to_owned(),
        call_id: call_id.to_owned(),
        name: call.name().map(Cow::into_owned),
        title: call.text("title").map(Cow::into_owned),
        kind: call.text("kind").map(Cow::into_owned),
        parent_call_id: call.parent_call_id().map(Cow::into_owned),
        phase,
        arguments_bytes: call.arguments_bytes(),
        output_bytes: call.output_bytes(),
        paths: call.paths(),
    }))
}
