//! A session in memory: its fold, its turns and its queue. The tap of its ACP server and the room's calls change it, each
//! for a moment under one lock that is never held across an await; everything that changes is appended to its stream at
//! once, with the rows in the same transaction.
//!
//! ```text
//!            prompt sent               request created
//!  idle ─────────────────▶ running ◀──────────────────▶ waiting
//!    ▲  ◀───────────────────  │ ▲                          turns end from any of them
//!    │       turn ended       ▼ │ nothing said for a while / a word
//!    │                       silent
//!    └── exited: no agent runs; the next prompt restores it
//! ```

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};

use super::gate;
use super::projection::{Noted, Outcome, Phase, Projected, Projector, Source, ToolNoted, TurnEnd};
use super::turn::Turn;
use super::types::{ExitDoc, Restored, SessionDoc, SessionState, UsageDoc};
use crate::rt::clock::now_ms;
use crate::rt::spawn_owned;
use crate::store::{RowChange, SessionRow, Store, Stream};
use crate::traces::{RequestSeen, SpanBook, ToolPhase, ToolSeen, Traces, TurnEnded, TurnSeen, UsageSeen};

/// Turns that are remembered after their end, so that waiting for one needs no file.
const ENDED_MAX: usize = 16;
/// Idempotency keys that are remembered before they are in the file, and for some time after.
const KEYS_MAX: usize = 256;

/// A session in memory.
pub(super) struct Live {
    pub(super) id: String,
    pub(super) stream: Arc<Stream>,
    store: Store,
    traces: Traces,
    state: Mutex<State>,
    /// Counts changes that somebody may wait for.
    changed: watch::Sender<u64>,
}

/// What changes of it.
pub(super) struct State {
    pub(super) row: SessionRow,
    pub(super) doc: SessionDoc,
    pub(super) projector: Projector,
    pub(super) spans: SpanBook,
    pub(super) running: Vec<Running>,
    pub(super) queue: VecDeque<Turn>,
    /// Over, but not yet in the file: still shown as running.
    ending: Vec<Turn>,
    pub(super) ended: VecDeque<Turn>,
    /// By idempotency key: turn and digest of the request.
    pub(super) keys: HashMap<String, (String, String)>,
    pub(super) last_number: u64,
    /// True while a task works on the queue.
    pub(super) has_runner: bool,
    /// When the agent last said something, or was told something.
    pub(super) last_word_ms: i64,
    pub(super) is_silent: bool,
    pub(super) agent_runs: bool,
    pub(super) pending_requests: usize,
    shown: Option<SessionState>,
}

/// A turn under way.
pub(super) struct Running {
    pub(super) turn: Turn,
    /// Our number of its request.
    pub(super) request: u64,
    /// How far the server's events had come when it began.
    pub(super) events_before: u64,
    /// Somebody asked for its end.
    pub(super) cancelled_because: Option<&'static str>,
}

impl Live {
    pub(super) fn new(
        row: SessionRow,
        doc: SessionDoc,
        stream: Arc<Stream>,
        last_number: u64,
        parts: (Projector, SpanBook),
        store: Store,
        traces: Traces,
    ) -> Arc<Self> {
        let state = State {
            projector: parts.0,
            spans: parts.1,
            doc,
            running: Vec::new(),
            queue: VecDeque::new(),
            ending: Vec::new(),
            ended: VecDeque::new(),
            keys: HashMap::new(),
            last_number,
            has_runner: false,
            last_word_ms: now_ms(),
            is_silent: false,
            agent_runs: false,
            pending_requests: 0,
            shown: None,
            row,
        };
        let (id, state) = (state.row.id.clone(), Mutex::new(state));
        Arc::new(Self { id, stream, store, traces, state, changed: watch::Sender::new(0) })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner) // each change leaves it whole
    }

    /// Follows changes of turns and state.
    pub(super) fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub(super) fn bump(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    /// Appends events in order; `change` is made with the last one.
    pub(super) fn append(&self, out: Vec<Projected>, change: Option<RowChange>) {
        let last = out.len().saturating_sub(1);
        let mut change = change;
        for (at, Projected { kind, payload }) in out.into_iter().enumerate() {
            self.store.append(&self.stream, kind, payload, if at == last { change.take() } else { None });
        }
    }

    /// One event of ours.
    pub(super) fn say(&self, state: &mut State, kind: &'static str, source: Source, data: &Value, change: Option<RowChange>) {
        let mut out = Vec::new();
        state.projector.event(now_ms(), kind, source, data, &mut out);
        self.append(out, change);
    }

    /// The same; resolves with its position once it is in the file.
    pub(super) fn say_acked(
        &self,
        state: &mut State,
        kind: &'static str,
        source: Source,
        data: &Value,
        change: Option<RowChange>,
    ) -> oneshot::Receiver<u64> {
        let mut out = Vec::new();
        state.projector.event(now_ms(), kind, source, data, &mut out);
        let last = out.pop();
        self.append(out, None);
        match last {
            Some(Projected { kind, payload }) => self.store.append_acked(&self.stream, kind, payload, change),
            None => oneshot::channel().1,
        }
    }

    /// The session's row as it is now, for the file.
    pub(super) fn save(state: &mut State) -> RowChange {
        state.row.updated_at_ms = now_ms();
        state.row.doc = serde_json::to_string(&state.doc).unwrap_or_else(|_| "{}".to_owned());
        RowChange::PutSession(Box::new(state.row.clone()))
    }

    // ----- what the tap tells -----

    /// A prompt went to the agent. `tag` is the id of a turn of ours.
    pub(super) fn prompted(&self, request: u64, params: &str, tag: Option<&str>, events_before: u64) {
        let mut state = self.lock();
        let (state, now) = (&mut *state, now_ms());
        let mut turn = self.turn_of(state, tag, params, now);
        turn.doc.started_at_ms = Some(now);
        turn.state = "running";
        state.doc.stats.turns += 1;
        state.doc.exit = None;
        (state.agent_runs, state.is_silent, state.last_word_ms) = (true, false, now);
        let mut out = Vec::new();
        let prompt = turn.doc.prompt.as_ref().map_or("[]", |prompt| prompt.get());
        state.projector.turn_started(now, &turn.id, &turn.doc.origin, prompt, &mut out);
        let seen = TurnSeen { turn_id: &turn.id, origin: &turn.doc.origin, prompt_bytes: prompt.len() };
        let spans = state.spans.turn_started(now, &seen);
        let mut changes = vec![turn.change(&self.id), Self::save(state)];
        changes.extend(self.span_changes(spans));
        state.running.push(Running { turn, request, events_before, cancelled_because: None });
        self.append(out, Some(RowChange::Many(changes)));
        self.show(state);
    }

    /// The turn that waits under this id, or a new one of a client of ACP.
    fn turn_of(&self, state: &mut State, tag: Option<&str>, params: &str, now: i64) -> Turn {
        let waiting = tag.and_then(|tag| state.queue.iter().position(|turn| turn.id == tag));
        if let Some(turn) = waiting.and_then(|at| state.queue.remove(at)) {
            return turn;
        }
        state.last_number += 1;
        Turn::of_acp(state.last_number, params, now)
    }

    /// A prompt was answered, or nobody will answer it any more.
    pub(super) fn prompt_ended(self: &Arc<Self>, request: u64, answer: Result<&str, &str>) {
        let mut state = self.lock();
        let Some(at) = state.running.iter().position(|running| running.request == request) else { return };
        let Running { mut turn, cancelled_because, .. } = state.running.remove(at);
        turn.answered(answer, cancelled_because);
        self.end_turn(&mut state, turn);
    }

    /// A turn of the queue ends without having been sent.
    pub(super) fn never_sent(self: &Arc<Self>, id: &str, reason: &str, error: Option<Value>) {
        let mut state = self.lock();
        let Some(at) = state.queue.iter().position(|turn| turn.id == id) else { return };
        let Some(mut turn) = state.queue.remove(at) else { return };
        turn.failed(reason, error);
        self.end_turn(&mut state, turn);
    }

    /// The agent doesn't end a turn: we do.
    pub(super) fn give_up(self: &Arc<Self>, id: &str, reason: &str) {
        let mut state = self.lock();
        let Some(at) = state.running.iter().position(|running| running.turn.id == id) else { return };
        let mut turn = state.running.remove(at).turn;
        turn.failed(reason, None);
        self.end_turn(&mut state, turn);
    }

    /// Writes a turn's end down; it is shown once the file has it.
    pub(super) fn end_turn(self: &Arc<Self>, state: &mut State, mut turn: Turn) {
        let now = now_ms();
        (turn.state, turn.doc.ended_at_ms) = ("ended", Some(now));
        let mut out = Vec::new();
        let error = turn.doc.error.as_ref().map(Value::to_string);
        let usage = turn.doc.usage.as_ref().map(Value::to_string);
        let end = TurnEnd {
            turn_id: &turn.id,
            outcome: turn.outcome(),
            stop_reason: turn.doc.stop_reason.as_deref(),
            error: error.as_deref(),
            reason: turn.doc.reason.as_deref(),
            usage: usage.as_deref(),
        };
        state.projector.turn_ended(now, end, &mut out);
        let seen = TurnEnded {
            turn_id: &turn.id,
            outcome: turn.doc.outcome.as_deref().unwrap_or("failed"),
            stop_reason: turn.doc.stop_reason.as_deref(),
            usage: turn.doc.usage.as_ref(),
        };
        let spans = state.spans.turn_ended(now, &seen);
        let mut changes = vec![turn.change(&self.id), Self::save(state)];
        changes.extend(self.span_changes(spans));
        self.append(out, None);
        let id = turn.id.clone();
        state.ending.push(turn);
        self.show(state);
        // The last word on the turn: once it is in the file, those who wait are told.
        let mut last = Vec::new();
        state.projector.event(
            now,
            "session.updated",
            Source::Daemon,
            json!({"stats": state.doc.stats, "usage": state.doc.usage}),
            &mut last,
        );
        let Some(Projected { kind, payload }) = last.pop() else { return };
        let acked = self.store.append_acked(&self.stream, kind, payload, Some(RowChange::Many(changes)));
        let live = Arc::clone(self);
        spawn_owned("turn-end", async move {
            let _ = acked.await; // a closed store: nothing more is written, and nobody is told otherwise
            live.ended(&id);
        });
    }

    fn ended(&self, id: &str) {
        let mut state = self.lock();
        if let Some(at) = state.ending.iter().position(|turn| turn.id == id) {
            let turn = state.ending.remove(at);
            state.ended.push_back(turn);
            if state.ended.len() > ENDED_MAX {
                state.ended.pop_front();
            }
        }
        drop(state);
        self.bump();
    }

    /// The agent told something of the session.
    pub(super) fn update(&self, update: &str) {
        let mut state = self.lock();
        let (state, now) = (&mut *state, now_ms());
        let mut out = Vec::new();
        let noted = state.projector.update(now, update, &mut out);
        state.last_word_ms = now;
        let changes = self.noted(state, noted, now);
        let change = (!changes.is_empty()).then(|| RowChange::Many(changes));
        if out.is_empty() && change.is_some() {
            state.projector.flush(now, &mut out);
        }
        self.append(out, change);
        if std::mem::take(&mut state.is_silent) {
            self.show(state);
        }
    }

    fn noted(&self, state: &mut State, noted: Noted, now: i64) -> Vec<RowChange> {
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
                state.doc.usage = Some(UsageDoc { used: usage.used, size: usage.size, cost, currency });
                return Vec::new(); // often: saved when the turn ends
            }
            Noted::Tool(tool) => {
                let before = state.spans.open_count();
                let spans = state.spans.tool(now, &seen(&tool));
                let began = state.spans.open_count() > before;
                let came_and_went =
                    matches!(tool.phase, Phase::Ended { .. }) && state.spans.open_count() == before && !spans.is_empty();
                state.doc.stats.tool_calls += u64::from(began || came_and_went);
                return self.span_changes(spans);
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
        self.lock().projector.flush(now_ms(), &mut out);
        self.append(out, None);
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
    pub(super) fn restored(&self, method: &str, transcript: Option<(usize, bool)>, result: &str) {
        let mut state = self.lock();
        let history = match (method, transcript) {
            ("session/new", Some(_)) => "transcript",
            ("session/new", None) if state.doc.stats.turns == 0 => "kept", // there was none
            ("session/new", None) => "lost",
            _ => "kept",
        };
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
        changes.extend(self.span_changes(spans));
        let is_decided = opened.resolved.is_some();
        let change = Some(RowChange::Many(changes));
        let (first, second) = if is_decided { (None, change) } else { (change, None) };
        self.say(&mut state, "request.created", Source::Agent, &opened.created, first);
        if let Some(resolved) = &opened.resolved {
            self.say(&mut state, "request.resolved", Source::Daemon, resolved, second);
            state.spans.request_resolved(now, &opened.request_id, resolved["outcome"].as_str().unwrap_or("resolved"), "rule");
        } else {
            state.pending_requests += 1;
            self.show(&mut state);
        }
    }

    /// A decision was made, by whomever.
    pub(super) fn request_resolved(&self, closed: &gate::Closed) {
        let mut state = self.lock();
        let now = now_ms();
        let mut changes = closed.changes.clone();
        let by = closed.resolved["by"].as_str().unwrap_or("client").to_owned();
        let spans = state.spans.request_resolved(now, &closed.request_id, closed.outcome.as_str(), &by);
        changes.extend(self.span_changes(spans));
        state.pending_requests = state.pending_requests.saturating_sub(1);
        state.last_word_ms = now; // the time that somebody took to decide is not the agent's
        self.say(&mut state, "request.resolved", Source::Client, &closed.resolved, Some(RowChange::Many(changes)));
        self.show(&mut state);
    }

    fn span_changes(&self, spans: Vec<crate::store::SpanRow>) -> Vec<RowChange> {
        spans.into_iter().inspect(|span| self.traces.ended(span)).map(|span| RowChange::PutSpan(Box::new(span))).collect()
    }

    /// Says what the session is doing, when that has changed.
    pub(super) fn show(&self, state: &mut State) {
        let now = state.state();
        if state.shown.replace(now) == Some(now) {
            return;
        }
        let mut data = json!({"state": now});
        if let (SessionState::Exited, Some(exit)) = (now, &state.doc.exit) {
            data["exit"] = serde_json::to_value(exit).unwrap_or_default();
        }
        let change = (now == SessionState::Exited).then(|| Self::save(state));
        self.say(state, "session.state", Source::Daemon, &data, change);
        self.bump();
    }
}

impl State {
    /// What it is doing.
    pub(super) fn state(&self) -> SessionState {
        match (self.running.is_empty(), self.pending_requests, self.is_silent) {
            (false, 0, true) => SessionState::Silent,
            (false, 0, false) => SessionState::Running,
            (false, ..) => SessionState::Waiting,
            (true, ..) if self.agent_runs => SessionState::Idle,
            (true, ..) => SessionState::Exited,
        }
    }

    /// A turn that isn't over for those who look.
    pub(super) fn unfinished(&self, id: &str) -> Option<&Turn> {
        let running = self.running.iter().map(|running| &running.turn);
        running.chain(&self.queue).chain(&self.ending).find(|turn| turn.id == id)
    }

    /// Remembers an idempotency key until the file has it.
    pub(super) fn remember_key(&mut self, key: &str, turn_id: &str, digest: &str) {
        if self.keys.len() >= KEYS_MAX {
            self.keys.clear(); // all of them are in the file by now
        }
        self.keys.insert(key.to_owned(), (turn_id.to_owned(), digest.to_owned()));
    }

    /// True when nothing goes on that memory alone knows.
    pub(super) fn is_quiet(&self) -> bool {
        self.running.is_empty() && self.queue.is_empty() && self.ending.is_empty() && !self.has_runner
    }
}

/// What a turn's outcome is called.
pub(super) fn outcome_word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Finished => "finished",
        Outcome::Cancelled => "cancelled",
        Outcome::Failed => "failed",
        Outcome::Lost => "lost",
    }
}

fn seen(tool: &ToolNoted) -> ToolSeen<'_> {
    ToolSeen {
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
