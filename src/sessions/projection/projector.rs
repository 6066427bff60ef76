//! The fold: one per session that is in memory.

use std::borrow::Cow;
use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::event::{Projected, Source, Stamp};
use super::item::Status;
use super::json::{Key, Members, elements, is_array, is_text, mended, text};
use super::message::{self, Message, Voice};
use super::noted::Noted;
use super::plan::Plan;
use super::prompt::Echo;
use super::session;
use super::snapshot::Snapshot;
use super::tools::{self, At, Tools};
use super::turn::{Outcome, TurnEnd, TurnEnded, TurnStarted, Verbatim};

/// How much a session's fold keeps and writes.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Joined text (and other parts) that one message keeps for its `item.completed`. Deltas have all of it.
    pub text_max_bytes: usize,
    /// A tool call with everything its updates brought: half for output that comes in pieces, half for the rest.
    /// Also a plan.
    pub tool_call_max_bytes: usize,
    /// A diff in the parts of a tool call's item.
    pub diff_max_bytes: usize,
    /// Tool calls that go on at once; beyond, the oldest is ended as failed. As many ended ones are remembered.
    pub open_items_max: usize,
    /// Text in one `item.delta`.
    pub delta_max_bytes: usize,
}

/// Folds a session's updates to events. Whoever appends the events calls [`Projector::flush`] before.
#[derive(Debug)]
pub struct Projector {
    stamp: Stamp,
    limits: Limits,
    turn_started_at_ms: Option<i64>,
    /// What the agent may repeat of the prompt, until it says something else.
    echo: Option<Echo>,
    message: Option<Message>,
    tools: Tools,
    plan: Option<Plan>,
}

#[derive(Serialize)]
struct Unparsed<'a> {
    error: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    update: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    raw: Option<&'a str>,
}

/// What is looked at of any update: enough for chunks, which must be cheap.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow, rename = "sessionUpdate")]
    kind: Key<'a>,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    #[serde(borrow, rename = "messageId")]
    message_id: Option<&'a RawValue>,
    #[serde(borrow, rename = "_meta")]
    meta: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Block<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    text: Option<&'a RawValue>,
}

impl Projector {
    /// For a session that has no turn under way.
    pub fn new(session_id: &str, limits: Limits) -> Self {
        let stamp = Stamp::new(session_id);
        Self { stamp, limits, turn_started_at_ms: None, echo: None, message: None, tools: Tools::default(), plan: None }
    }

    /// The same, for one whose `before` has the tool calls, and whose next items have these ids.
    pub fn again(session_id: &str, limits: Limits, before: &Snapshot, ids: VecDeque<String>) -> Self {
        let mut fold = Self::new(session_id, limits);
        fold.tools = Tools::of(before.calls(), limits.open_items_max);
        fold.stamp.give(ids);
        fold
    }

    /// One without anything that goes on.
    pub fn anew(&self) -> Self {
        Self::new(&self.stamp.session_id, self.limits)
    }

    /// From here on items are new.
    pub fn is_up_to_date(&mut self) {
        self.stamp.give(VecDeque::new());
    }

    /// A prompt goes to the agent: `turn.started`, and the user's message as an item. `prompt` is the array of
    /// ContentBlocks as JSON text, `origin` the door it came by (`sessions`, `acp`, `remote`).
    pub fn turn_started(&mut self, now_ms: i64, turn_id: &str, origin: &str, prompt: &str, out: &mut Vec<Projected>) {
        let prompt = &*mended(prompt);
        self.close_spoken(now_ms, Status::Completed, out);
        self.stamp.turn_id = Some(turn_id.to_owned());
        self.turn_started_at_ms = Some(now_ms);
        let started = TurnStarted { turn_id, origin, prompt: Verbatim::of(prompt) };
        out.push(self.stamp.said(now_ms, "turn.started", Source::Client, started));
        let blocks: Vec<&RawValue> = serde_json::from_str(prompt).unwrap_or_default();
        super::prompt::item(now_ms, &blocks, &self.stamp, out);
        self.echo = Some(Echo::new(&blocks));
    }

    /// One update, the JSON of `params.update`. Text of chunks waits for [`Projector::flush`]; anything else is in
    /// `out` at once. What can't be read becomes `agent.unparsed`.
    pub fn update(&mut self, now_ms: i64, update: &str, out: &mut Vec<Projected>) -> Noted {
        let update = mended(update);
        self.try_update(now_ms, &update, out).unwrap_or_else(|error| self.unparsed(now_ms, &update, error, out))
    }

    /// Writes the text of chunks that waits, as one `item.delta`.
    pub fn flush(&mut self, now_ms: i64, out: &mut Vec<Projected>) {
        if let Some(message) = &mut self.message {
            message.flush(now_ms, &self.stamp, message_max(self.limits), out);
        }
    }

    /// Ends what goes on, then the turn. Items that the agent left open are completed when the turn finished, else
    /// failed.
    pub fn turn_ended(&mut self, now_ms: i64, end: TurnEnd<'_>, out: &mut Vec<Projected>) {
        self.close(now_ms, end.outcome, out);
        self.stamp.turn_id = Some(end.turn_id.to_owned());
        let (error, usage) = (end.error.map(mended), end.usage.map(mended));
        let ended = TurnEnded {
            turn_id: end.turn_id,
            outcome: end.outcome,
            stop_reason: end.stop_reason,
            error: error.as_deref().map(Verbatim::of),
            reason: end.reason,
            usage: usage.as_deref().map(Verbatim::of),
            duration_ms: self.turn_started_at_ms.take().map(|started| (now_ms - started).max(0)),
        };
        let event = match end.outcome {
            Outcome::Lost => self.stamp.concluded(now_ms, "turn.ended", Source::Daemon, ended),
            _ => self.stamp.said(now_ms, "turn.ended", Source::Agent, ended),
        };
        out.push(event);
        self.stamp.turn_id = None;
        self.echo = None;
    }

    /// A turn ends that never went to the agent: whatever goes on isn't touched.
    pub fn turn_dropped(&mut self, now_ms: i64, end: TurnEnd<'_>, out: &mut Vec<Projected>) {
        self.flush(now_ms, out);
        let error = end.error.map(mended);
        let ended = TurnEnded {
            turn_id: end.turn_id,
            outcome: end.outcome,
            stop_reason: None,
            error: error.as_deref().map(Verbatim::of),
            reason: end.reason,
            usage: None,
            duration_ms: None,
        };
        let under_way = self.stamp.turn_id.replace(end.turn_id.to_owned());
        out.push(self.stamp.concluded(now_ms, "turn.ended", Source::Daemon, ended));
        self.stamp.turn_id = under_way;
    }

    /// A turn that was begun before another one that has ended now is the one under way again.
    pub fn turn_goes_on(&mut self, turn_id: &str, started_at_ms: i64) {
        self.stamp.turn_id = Some(turn_id.to_owned());
        self.turn_started_at_ms = Some(started_at_ms);
    }

    /// Ends all items that go on, as the end of a turn does. For the end of a session outside of turns.
    pub fn close(&mut self, now_ms: i64, outcome: Outcome, out: &mut Vec<Projected>) {
        let (status, reason) = match outcome {
            Outcome::Finished => (Status::Completed, None),
            Outcome::Cancelled => (Status::Failed, Some("the turn was cancelled")),
            Outcome::Failed => (Status::Failed, Some("the turn failed")),
            Outcome::Lost => (Status::Failed, Some("the agent ended")),
        };
        self.close_spoken(now_ms, status, out);
        self.tools.close(At { now_ms, stamp: &self.stamp, max: tools_max(self.limits) }, status, reason, out);
    }

    /// Any other event of the session, in its place among the updates: text that waits is written before. What the
    /// daemon says is `synthetic`.
    pub fn event(&mut self, now_ms: i64, kind: &'static str, source: Source, data: impl Serialize, out: &mut Vec<Projected>) {
        self.flush(now_ms, out);
        let event = match source {
            Source::Daemon => self.stamp.concluded(now_ms, kind, source, data),
            Source::Agent | Source::Client => self.stamp.said(now_ms, kind, source, data),
        };
        out.push(event);
    }

    fn try_update(&mut self, now_ms: i64, update: &str, out: &mut Vec<Projected>) -> Result<Noted, &'static str> {
        let head: Head<'_> = serde_json::from_str(update).map_err(|_| "no object with a sessionUpdate")?;
        let voice = match head.kind.0.as_ref() {
            "agent_message_chunk" => Voice::Agent,
            "agent_thought_chunk" => Voice::Thought,
            "user_message_chunk" => Voice::User,
            kind => return self.other(now_ms, kind, update, out),
        };
        self.chunk(now_ms, voice, &head, out)
    }

    fn chunk(&mut self, now_ms: i64, voice: Voice, head: &Head<'_>, out: &mut Vec<Projected>) -> Result<Noted, &'static str> {
        let content = head.content.ok_or("a chunk without content")?;
        let block: Block<'_> = serde_json::from_str(content.get()).map_err(|_| "a chunk whose content is no ContentBlock")?;
        let words = if block.kind == "text" { Some(block.text.and_then(text).ok_or("a text block without text")?) } else { None };
        if self.is_echo(voice, content, words.as_deref()) {
            return Ok(Noted::Nothing);
        }
        let message_id = head.message_id.filter(|id| is_text(id));
        let max = message_max(self.limits);
        let message = self.message_for(now_ms, voice, message_id, head.meta, out);
        let bytes = words.as_ref().map_or(content.get().len(), |words| words.len());
        match words {
            Some(words) if !message.push(&words, max.delta_bytes) => {}
            Some(_) => self.flush(now_ms, out),
            None => {
                self.flush(now_ms, out);
                if let Some(message) = &mut self.message {
                    out.push(message.block(now_ms, content, &self.stamp, max));
                }
            }
        }
        Ok(Noted::Text { bytes })
    }

    /// Some agents repeat the prompt as user_message_chunk when a turn starts. The user's message is an item already,
    /// so chunks that go on with the prompt's text (or equal one of its other blocks) are dropped, until the agent says
    /// anything else in this turn. All that is dropped stands in `turn.started`.
    fn is_echo(&mut self, voice: Voice, content: &RawValue, words: Option<&str>) -> bool {
        let is_echo = voice == Voice::User && self.echo.as_mut().is_some_and(|echo| echo.repeats(content, words));
        if !is_echo {
            self.echo = None;
        }
        is_echo
    }

    fn message_for(
        &mut self,
        now_ms: i64,
        voice: Voice,
        message_id: Option<&RawValue>,
        meta: Option<&RawValue>,
        out: &mut Vec<Projected>,
    ) -> &mut Message {
        if !self.message.as_ref().is_some_and(|message| message.goes_on(voice, message_id)) {
            self.close_message(now_ms, Status::Completed, out);
        }
        let (stamp, message) = (&self.stamp, &mut self.message);
        message.get_or_insert_with(|| {
            let (item_id, began_ms) = stamp.item(now_ms);
            let message = Message::new(item_id, voice, message_id, meta, began_ms);
            out.push(message.started(now_ms, stamp));
            message
        })
    }

    fn other(&mut self, now_ms: i64, kind: &str, update: &str, out: &mut Vec<Projected>) -> Result<Noted, &'static str> {
        let members = Members::parse(update).ok_or("no object")?;
        match kind {
            "tool_call" | "tool_call_update" => self.tool(now_ms, kind == "tool_call_update", &members, out),
            "plan" => {
                let entries = members.get("entries").filter(|value| is_array(value) && elements(value).is_some());
                self.planned(now_ms, entries.ok_or("a plan without entries")?, out);
                Ok(Noted::Nothing)
            }
            "session_info_update"
            | "current_mode_update"
            | "config_option_update"
            | "available_commands_update"
            | "usage_update" => {
                self.flush(now_ms, out);
                let stamp = &self.stamp;
                let told = session::changed(kind, &members, |changed, noted| {
                    out.push(stamp.said(now_ms, "session.updated", Source::Agent, changed));
                    noted
                });
                told.ok_or("an update about the session lacks what it must have")
            }
            _ => Err("an update of a kind that is not known"),
        }
    }

    fn tool(
        &mut self,
        now_ms: i64,
        is_update: bool,
        update: &Members<'_>,
        out: &mut Vec<Projected>,
    ) -> Result<Noted, &'static str> {
        let call_id = update.text("toolCallId").ok_or("a tool call without toolCallId")?;
        self.echo = None;
        let known = self.tools.known(&call_id, is_update);
        if known == tools::Known::New {
            self.close_message(now_ms, Status::Completed, out);
        } else {
            self.flush(now_ms, out);
        }
        let at = At { now_ms, stamp: &self.stamp, max: tools_max(self.limits) };
        Ok(self.tools.update(at, known, &call_id, update, out))
    }

    fn planned(&mut self, now_ms: i64, entries: &RawValue, out: &mut Vec<Projected>) {
        self.echo = None;
        let max_bytes = self.limits.tool_call_max_bytes;
        if let Some(plan) = &mut self.plan {
            if let Some(message) = &mut self.message {
                message.flush(now_ms, &self.stamp, message_max(self.limits), out);
            }
            out.push(plan.changed(now_ms, entries, &self.stamp, max_bytes));
            return;
        }
        self.close_message(now_ms, Status::Completed, out);
        let (item_id, began_ms) = self.stamp.item(now_ms);
        let plan = Plan::new(item_id, began_ms, entries, max_bytes);
        out.push(plan.started(now_ms, &self.stamp));
        self.plan = Some(plan);
    }

    fn unparsed(&mut self, now_ms: i64, update: &str, error: &str, out: &mut Vec<Projected>) -> Noted {
        let (update, raw) = match Verbatim::of(update) {
            Verbatim::Json(json) => (Some(json), None),
            Verbatim::Text(text) => (None, Some(text)),
        };
        self.flush(now_ms, out);
        out.push(self.stamp.said(now_ms, "agent.unparsed", Source::Agent, Unparsed { error, update, raw }));
        Noted::Unparsed
    }

    /// Ends the message that goes on, when there is one: what follows is another.
    pub fn end_message(&mut self, now_ms: i64, out: &mut Vec<Projected>) {
        self.close_message(now_ms, Status::Completed, out);
    }

    fn close_message(&mut self, now_ms: i64, status: Status, out: &mut Vec<Projected>) {
        self.flush(now_ms, out);
        if let Some(message) = self.message.take() {
            out.push(message.completed(now_ms, status, &self.stamp));
        }
    }

    /// The message and the plan: they belong to a turn. Tool calls may go on in the background.
    fn close_spoken(&mut self, now_ms: i64, status: Status, out: &mut Vec<Projected>) {
        self.close_message(now_ms, status, out);
        if let Some(plan) = self.plan.take() {
            out.push(plan.completed(now_ms, status, &self.stamp));
        }
    }
}

fn message_max(limits: Limits) -> message::Max {
    message::Max { text_bytes: limits.text_max_bytes, delta_bytes: limits.delta_max_bytes }
}

fn tools_max(limits: Limits) -> tools::Max {
    tools::Max { call_bytes: limits.tool_call_max_bytes, diff_bytes: limits.diff_max_bytes, open: limits.open_items_max }
}
