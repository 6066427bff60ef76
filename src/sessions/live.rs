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

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::projection::{Already, Outcome, Projected, Projector, Source, TurnEnd};
use super::turn::Turn;
use super::types::{SessionDoc, SessionState};
use crate::rt::clock::now_ms;
use crate::rt::spawn_owned;
use crate::store::{RowChange, SessionRow, Store, Stream};
use crate::traces::{SpanBook, Traces, TurnEnded};

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
    /// Nothing is written about it any more.
    is_deleted: AtomicBool,
    /// Counts changes that somebody may wait for.
    changed: watch::Sender<u64>,
}

/// What changes of it.
pub(super) struct State {
    /// Its `doc` is empty: see the next.
    pub(super) row: SessionRow,
    pub(super) doc: SessionDoc,
    pub(super) projector: Projector,
    pub(super) spans: SpanBook,
    pub(super) running: Vec<Running>,
    pub(super) queue: VecDeque<Turn>,
    /// Over, but not yet in the file: still shown as what they were.
    ending: Vec<Turn>,
    pub(super) ended: VecDeque<Turn>,
    keys: VecDeque<Key>,
    pub(super) last_number: u64,
    /// True while a task works on the queue.
    pub(super) has_runner: bool,
    /// The turn at the front of the queue that is on its way to the agent, which may have to be started first.
    pub(super) sending: Option<String>,
    /// It met a turn of another door there, and waits again.
    pub(super) is_deferred: bool,
    /// When the agent last said something, or was told something.
    pub(super) last_word: Instant,
    pub(super) is_silent: bool,
    pub(super) agent_runs: bool,
    pub(super) pending_requests: usize,
    pub(super) shown: Option<SessionState>,
    /// While it is taken up after a restart: what the file has of what it says once more.
    pub(super) already: Option<Box<Already>>,
    /// Events that were new then.
    pub(super) news: u64,
}

/// A message that was taken in under an idempotency key.
pub(super) struct Key {
    pub(super) key: String,
    pub(super) turn_id: String,
    /// Of the request.
    pub(super) digest: String,
    pub(super) delivery: &'static str,
}

/// A turn under way.
pub(super) struct Running {
    pub(super) turn: Turn,
    /// Our number of its request.
    pub(super) request: u64,
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
            keys: VecDeque::new(),
            last_number,
            has_runner: false,
            sending: None,
            is_deferred: false,
            last_word: Instant::now(),
            is_silent: false,
            agent_runs: false,
            pending_requests: 0,
            shown: None,
            already: None,
            news: 0,
            row,
        };
        let (id, state) = (state.row.id.clone(), Mutex::new(state));
        let is_deleted = AtomicBool::new(false);
        Arc::new(Self { id, stream, store, traces, state, is_deleted, changed: watch::Sender::new(0) })
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

    /// Waits until a turn is over and its end is in the file. Cancel safe.
    pub(super) async fn until_over(&self, turn_id: &str) {
        let mut changed = self.watch(); // made before the look, so that no change is lost in between
        while self.lock().unfinished(turn_id).is_some() && changed.changed().await.is_ok() {}
    }

    /// Waits until the ends of turns that are told of are in the file. Cancel safe.
    pub(super) async fn until_settled(&self) {
        if self.lock().ending.is_empty() {
            return;
        }
        let mut changed = self.watch(); // as above
        self.store.settle().await;
        while !self.lock().ending.is_empty() && changed.changed().await.is_ok() {}
    }

    /// Appends events in order; they and `change` are committed together. To be called under the lock: what is in order there
    /// is in order in the stream.
    pub(super) fn append(&self, out: Vec<Projected>, change: Option<RowChange>) {
        if let Some(events) = self.to_append(out, change.as_ref()) {
            self.store.append_all_in_order(&self.stream, events, change);
        }
    }

    /// The same for what the agent says, and for what nobody waits for: the raw envelopes don't wait until it is committed.
    pub(super) fn append_later(&self, state: &mut State, out: Vec<Projected>, change: Option<RowChange>) {
        let (out, change) = state.new_of(out, change);
        if let Some(events) = self.to_append(out, change.as_ref()) {
            self.store.append_later(&self.stream, events, change);
        }
    }

    /// The same; resolves once all of it is in the file.
    fn append_later_acked(&self, state: &mut State, out: Vec<Projected>, wanted: bool) -> oneshot::Receiver<u64> {
        let (out, _) = state.new_of(out, None);
        match self.to_append(out, None) {
            Some(events) => self.store.append_later_acked(&self.stream, events, wanted),
            None => oneshot::channel().1,
        }
    }

    /// `None` when there is nothing to append, or the session is deleted.
    fn to_append(&self, out: Vec<Projected>, change: Option<&RowChange>) -> Option<Vec<(&'static str, Bytes)>> {
        if self.is_deleted() {
            return None;
        }
        change.into_iter().for_each(|change| self.tell_spans(change));
        Some(out.into_iter().map(|Projected { kind, payload }| (kind, payload)).collect())
            .filter(|events: &Vec<_>| !events.is_empty())
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
        let last = out.pop().filter(|_| !self.is_deleted());
        self.append(out, None);
        match last {
            Some(Projected { kind, payload }) => self.store.append_in_order(&self.stream, kind, payload, change),
            None => oneshot::channel().1,
        }
    }

    /// Its last word; `None` when that was said before. Turns that are not over have nobody who waits for them any more.
    pub(super) fn deleted(&self, change: RowChange) -> Option<oneshot::Receiver<u64>> {
        let mut state = self.lock();
        if self.is_deleted() {
            return None;
        }
        let data = json!({"reason": "terminated", "terminatedBy": "client", "message": "deleted"});
        let committed = self.say_acked(&mut state, "session.ended", Source::Daemon, &data, Some(change));
        self.is_deleted.store(true, Ordering::Release);
        state.running.clear();
        state.queue.clear();
        drop(state);
        self.bump();
        Some(committed)
    }

    /// Nobody finds it any more.
    pub(super) fn is_deleted(&self) -> bool {
        self.is_deleted.load(Ordering::Acquire)
    }

    /// The session's row as it is now, for the file.
    pub(super) fn save(state: &mut State) -> RowChange {
        state.row.updated_at_ms = now_ms();
        let doc = serde_json::to_string(&state.doc).unwrap_or_else(|_| "{}".to_owned());
        RowChange::PutSession(Box::new(SessionRow { doc, ..state.row.clone() }))
    }

    // ----- what the tap tells -----

    /// A prompt was answered, or nobody will answer it any more.
    pub(super) fn prompt_ended(self: &Arc<Self>, request: u64, answer: Result<&str, &str>) {
        let mut state = self.lock();
        let Some(at) = state.running.iter().position(|running| running.request == request) else { return };
        let Running { mut turn, cancelled_because, .. } = state.running.remove(at);
        turn.answered(answer, cancelled_because);
        self.end_turn(&mut state, turn);
    }

    /// A turn of the queue ends without having been sent; false when it isn't there.
    pub(super) fn never_sent(self: &Arc<Self>, id: &str, reason: &str, error: Option<Value>) -> bool {
        let mut state = self.lock();
        let Some(mut turn) = state.take_queued(id) else { return false };
        turn.failed(reason, error);
        self.end_turn(&mut state, turn);
        true
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
        let shown = std::mem::replace(&mut turn.state, "ended");
        turn.doc.ended_at_ms = Some(now);
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
        if turn.doc.started_at_ms.is_some() {
            state.projector.turn_ended(now, end, &mut out);
        } else {
            state.projector.turn_dropped(now, end, &mut out);
        }
        if let Some(Running { turn, .. }) = state.running.last() {
            state.projector.turn_goes_on(&turn.id, turn.doc.started_at_ms.unwrap_or(now));
        }
        let seen = TurnEnded {
            turn_id: &turn.id,
            outcome: turn.doc.outcome.as_deref().unwrap_or("failed"),
            stop_reason: turn.doc.stop_reason.as_deref(),
            usage: turn.doc.usage.as_ref(),
        };
        let spans = state.spans.turn_ended(now, &seen);
        let mut changes = vec![turn.change(&self.id), Self::save(state)];
        changes.extend(span_changes(spans));
        self.append_later(state, out, Some(RowChange::Many(changes)));
        let (id, turn_is_ours) = (turn.id.clone(), turn.doc.origin == "sessions");
        state.ending.push(Turn { state: shown, ..turn });
        self.show(state);
        // The last word on the turn: once it is in the file, those who wait are told.
        let data = json!({"stats": state.doc.stats, "usage": state.doc.usage});
        let mut out = Vec::new();
        state.projector.event(now, "session.updated", Source::Daemon, &data, &mut out);
        let acked = self.append_later_acked(state, out, turn_is_ours);
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
            state.ended.push_back(Turn { state: "ended", ..turn });
            if state.ended.len() > ENDED_MAX {
                state.ended.pop_front();
            }
        }
        drop(state);
        self.bump();
    }

    /// Rows of spans that are written.
    fn tell_spans(&self, change: &RowChange) {
        match change {
            RowChange::PutSpan(span) => self.traces.ended(span),
            RowChange::Many(changes) => changes.iter().for_each(|change| self.tell_spans(change)),
            _ => {}
        }
    }

    /// Says what the session is doing, when that has changed.
    pub(super) fn show(&self, state: &mut State) {
        let now = state.state();
        if let Some(already) = &state.already {
            if !already.is_over() {
                return;
            }
            state.told_already();
        }
        if state.shown.replace(now) == Some(now) {
            return;
        }
        let mut data = json!({"state": now});
        if let (SessionState::Exited, Some(exit)) = (now, &state.doc.exit) {
            data["exit"] = serde_json::to_value(exit).unwrap_or_default();
        }
        let change = (now == SessionState::Exited).then(|| Self::save(state));
        let mut out = Vec::new();
        state.projector.event(now_ms(), "session.state", Source::Daemon, &data, &mut out);
        self.append_later(state, out, change);
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

    /// The number of a new turn.
    pub(super) fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// The end of a turn is not this run's.
    pub(super) fn forget_ending(&mut self, id: &str) {
        self.ending.retain(|turn| turn.id != id);
    }

    /// A turn that is in memory.
    pub(super) fn knows(&self, id: &str) -> bool {
        self.unfinished(id).is_some() || self.ended.iter().any(|turn| turn.id == id)
    }

    pub(super) fn take_queued(&mut self, id: &str) -> Option<Turn> {
        let at = self.queue.iter().position(|turn| turn.id == id)?;
        self.sending.take_if(|sending| sending.as_str() == id);
        self.queue.remove(at)
    }

    /// How many turns are before one that waits; `None` when it doesn't.
    pub(super) fn position(&self, id: &str) -> Option<usize> {
        self.queue.iter().position(|turn| turn.id == id).map(|at| at + self.running.len())
    }

    /// What was taken in under an idempotency key, as far as memory goes.
    pub(super) fn key(&self, key: &str) -> Option<&Key> {
        self.keys.iter().find(|known| known.key == key)
    }

    /// Remembers an idempotency key until the file surely has it.
    pub(super) fn remember_key(&mut self, key: Key) {
        if self.keys.len() >= KEYS_MAX {
            self.keys.pop_front();
        }
        self.keys.push_back(key);
    }

    /// True when its agent only waits for a prompt.
    pub(super) fn is_ready(&self) -> bool {
        self.agent_runs && self.is_quiet()
    }

    /// True when nothing goes on that memory alone knows.
    pub(super) fn is_quiet(&self) -> bool {
        self.running.is_empty() && self.queue.is_empty() && self.ending.is_empty() && !self.has_runner
    }
}

/// To be made with the event that tells of the same.
pub(super) fn span_changes(spans: Vec<crate::store::SpanRow>) -> impl Iterator<Item = RowChange> {
    spans.into_iter().map(|span| RowChange::PutSpan(Box::new(span)))
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
