//! What the tap tells a session beside its turns: updates, settings, requests for decisions, the coming and going of its
//! agent.

use serde_json::{Value, json};
use tokio::time::Instant;

use super::gate;
use super::live::{Live, State, span_changes};
use super::projection::{Noted, Outcome, Phase, Source, ToolNoted};
use super::types::{Cost, ExitDoc, Restored, UsageDoc};
use super::witness::{self, Touch};
use crate::rt::clock::now_ms;
use crate::store::RowChange;
use crate::traces::{RequestSeen, ToolPhase, ToolSeen, UsageSeen};

impl Live {
    /// The agent told something of the session. Gives what that says of files.
    pub(super) fn update(&self, update: &str) -> Vec<Touch> {
        self.updated(&mut self.lock(), update)
    }

    pub(super) fn updated(&self, state: &mut State, update: &str) -> Vec<Touch> {
        let (now, mut out) = (now_ms(), Vec::new());
        let noted = state.projector.update(now, update, &mut out);
        state.last_word = Instant::now();
        let changes = Self::noted(state, noted, now);
        let change = (!changes.is_empty()).then_some(RowChange::Many(changes));
        if out.is_empty() && change.is_some() {
            state.projector.flush(now, &mut out);
        }
        let touches = out.iter().filter_map(witness::touch).collect();
        self.append_later(state, out, change);
        if std::mem::take(&mut state.is_silent) {
            self.show(state);
        }
        touches
    }

    fn noted(state: &mut State, noted: Noted, now: i64) -> Vec<RowChange> {
        match noted {
            Noted::Title(title) => state.row.title = title,
            Noted::Mode(mode) => state.doc.mode = Some(mode),
            Noted::ConfigOptions { json, model, mode } => {
                state.doc.config_options = serde_json::from_str(&json).ok();
                state.doc.model = model.or_else(|| state.doc.model.take());
                state.doc.mode = mode.or_else(|| state.doc.mode.take());
            }
            Noted::Usage(usage) => {
                let (cost, currency) = (usage.cost_amount, usage.cost_currency);
                state.spans.usage(UsageSeen {
                    used: usage.used,
                    size: usage.size,
                    cost_amount: cost,
                    cost_currency: currency.clone(),
                });
                let cost = cost.map(|amount| Cost { amount, currency: currency.unwrap_or_default() });
                state.doc.usage = Some(UsageDoc { used: usage.used, size: usage.size, cost });
                return Vec::new(); // often: saved when the turn ends
            }
            Noted::Tool(tool) => {
                let before = state.spans.open_count();
                let spans = state.spans.tool(now, &seen(&tool));
                let began = state.spans.open_count() > before;
                let came_and_went =
                    matches!(tool.phase, Phase::Ended { .. }) && state.spans.open_count() == before && !spans.is_empty();
                state.doc.stats.tool_calls += u64::from(began || came_and_went);
                return span_changes(spans).collect();
            }
            Noted::Text { bytes } => {
                state.spans.said(bytes);
                return Vec::new();
            }
            Noted::Nothing | Noted::AvailableCommands(_) | Noted::Unparsed => return Vec::new(),
        }
        vec![Self::save(state)]
    }

    /// What was joined over several updates is appended.
    pub(super) fn flush(&self) {
        let mut out = Vec::new();
        let mut state = self.lock();
        state.projector.flush(now_ms(), &mut out);
        self.append_later(&mut state, out, None);
    }

    /// What the agent says between turns is ended, so that the history has it.
    pub(super) fn end_message(&self) {
        let mut state = self.lock();
        if state.running.is_empty() {
            let mut out = Vec::new();
            state.projector.end_message(now_ms(), &mut out);
            self.append_later(&mut state, out, None);
        }
    }

    /// A mode or an option was set by a client.
    pub(super) fn set(&self, method: &str, params: &str, result: &str) {
        let mut state = self.lock();
        let (params, result): (Value, Value) =
            (serde_json::from_str(params).unwrap_or_default(), serde_json::from_str(result).unwrap_or_default());
        let data = if method == "session/set_mode" {
            state.doc.mode = params["modeId"].as_str().map(str::to_owned);
            json!({"mode": state.doc.mode})
        } else {
            if result["configOptions"].is_array() {
                state.doc.learn_options(&result["configOptions"]);
            }
            json!({"configOptions": state.doc.config_options, "mode": state.doc.mode, "model": state.doc.model})
        };
        let change = Self::save(&mut state);
        self.say(&mut state, "session.updated", Source::Client, &data, Some(change));
    }

    /// A new agent process knows the session.
    pub(super) fn restored(&self, method: &str, history: &str, transcript: Option<(usize, bool)>, result: &str) {
        let mut state = self.lock();
        let history = if history == "lost" && state.doc.stats.turns == 0 { "kept" } else { history }; // there was none
        let restored = Restored {
            method: method.to_owned(),
            history: history.to_owned(),
            transcript_bytes: transcript.map(|(bytes, _)| bytes),
            truncated: transcript.is_some_and(|(_, truncated)| truncated),
            at_ms: now_ms(),
        };
        let data = serde_json::to_value(&restored).unwrap_or_default();
        state.doc.restored = Some(restored);
        state.doc.learn(result);
        (state.agent_runs, state.doc.exit) = (true, None);
        let change = Self::save(&mut state);
        self.say(&mut state, "session.restored", Source::Daemon, &data, Some(change));
        self.show(&mut state);
    }

    /// The agent process that knew the session is gone, or the session was closed.
    pub(super) fn exited(&self, exit: ExitDoc) {
        let mut state = self.lock();
        if !state.agent_runs && state.doc.exit.as_ref() == Some(&exit) {
            return;
        }
        // What went on outside of turns ends with the agent.
        let (now, mut out) = (now_ms(), Vec::new());
        state.projector.close(now, Outcome::Lost, &mut out);
        let spans = state.spans.ended(now, "lost");
        let changes: Vec<_> = span_changes(spans).collect();
        self.append(out, (!changes.is_empty()).then_some(RowChange::Many(changes)));
        state.agent_runs = false;
        state.pending_requests = 0;
        state.doc.exit = Some(exit);
        self.show(&mut state);
    }

    /// The agent asks for a decision.
    pub(super) fn request_created(&self, opened: &gate::Opened) {
        let mut state = self.lock();
        let now = now_ms();
        let mut changes = opened.changes.clone();
        let call_id = opened.created["params"]["toolCall"]["toolCallId"].as_str();
        let seen = RequestSeen { request_id: &opened.request_id, kind: opened.kind.as_str(), call_id };
        let spans = state.spans.request_created(now, &seen);
        changes.extend(span_changes(spans));
        let Some(resolved) = &opened.resolved else {
            state.pending_requests += 1;
            state.is_silent = false;
            self.say(&mut state, "request.created", Source::Agent, &opened.created, Some(RowChange::Many(changes)));
            return self.show(&mut state);
        };
        // A rule has decided it: both events, and the rows with the second.
        let (outcome, by) = (resolved["outcome"].as_str().unwrap_or("resolved"), resolved["by"].as_str().unwrap_or("rule"));
        let spans = state.spans.request_resolved(now, &opened.request_id, outcome, by);
        changes.extend(span_changes(spans));
        self.say(&mut state, "request.created", Source::Agent, &opened.created, None);
        self.say(&mut state, "request.resolved", Source::Daemon, resolved, Some(RowChange::Many(changes)));
    }

    /// A decision was made, by whomever.
    pub(super) fn request_resolved(&self, closed: &gate::Closed) {
        let mut state = self.lock();
        let now = now_ms();
        let mut changes = closed.changes.clone();
        let by = closed.resolved["by"].as_str().unwrap_or("client").to_owned();
        let spans = state.spans.request_resolved(now, &closed.request_id, closed.outcome.as_str(), &by);
        changes.extend(span_changes(spans));
        state.pending_requests = state.pending_requests.saturating_sub(1);
        state.last_word = Instant::now(); // the time that somebody took to decide is not the agent's
        self.say(&mut state, "request.resolved", Source::Client, &closed.resolved, Some(RowChange::Many(changes)));
        self.show(&mut state);
    }
}

fn seen(tool: &ToolNoted) -> ToolSeen<'_> {
    ToolSeen {
        item_id: &tool.item_id,
        call_id: &tool.call_id,
        name: tool.name.as_deref(),
        title: tool.title.as_deref(),
        kind: tool.kind.as_deref(),
        parent_call_id: tool.parent_call_id.as_deref(),
        phase: match tool.phase {
            Phase::Started => ToolPhase::Started,
            Phase::Progress => ToolPhase::Progress,
            Phase::Late => ToolPhase::Late,
            Phase::Ended { failed } => ToolPhase::Ended { failed },
        },
        arguments_bytes: tool.arguments_bytes,
        output_bytes: tool.output_bytes,
    }
}
