//! A session's fold is made once more, up to where its agent is now.

use std::sync::Arc;

use super::plan::Op;
use crate::rt::clock::now_ms;
use crate::sessions::live::{Live, Running, State};
use crate::sessions::projection::{Already, Projected, Projector};
use crate::sessions::types::{Stats, UsageDoc};
use crate::sessions::witness::Touch;
use crate::store::RowChange;
use crate::traces::{RequestSeen, SpanBook, TurnSeen};

/// Where the fold begins.
pub(super) struct Start {
    pub(super) projector: Projector,
    pub(super) spans: SpanBook,
    pub(super) stats: Stats,
    pub(super) usage: Option<UsageDoc>,
    /// What the file has from there on.
    pub(super) already: Already,
    /// The file has another beginning, or not all: then nothing is made up for.
    pub(super) is_unknown: bool,
    /// Of a session without a turn under way: what was said before (Unix milliseconds) is in the file, or nobody's.
    pub(super) late_from_ms: i64,
}

/// What to do besides.
#[derive(Default)]
pub(super) struct Again {
    /// What tool calls that are told of now say of files.
    pub(super) touches: Vec<Touch>,
    /// Turns that are under way.
    pub(super) running: Vec<String>,
    /// Spans that go on.
    pub(super) spans: Vec<String>,
}

/// What an update that is in the file must not change.
type Kept = (Option<String>, Option<String>, Option<String>, Option<crate::rt::raw_json::RawJson>);

impl Live {
    /// Does once more what happened since a turn began, and appends what is missing of it in the file. Under one lock:
    /// nobody says anything in between.
    pub(super) fn again(self: &Arc<Self>, start: Start, ops: Vec<Op>, pending: &[RequestSeen<'_>]) -> Again {
        let mut state = self.lock();
        let state = &mut *state;
        (state.projector, state.spans) = (start.projector, start.spans);
        (state.doc.stats, state.doc.usage) = (start.stats, start.usage);
        (state.agent_runs, state.pending_requests) = (true, pending.len());
        state.already = Some(Box::new(start.already));
        if start.is_unknown {
            self.give_up_comparing(state);
        }
        let mut again = Again::default();
        for op in ops {
            self.once_more(state, op, start.late_from_ms, &mut again.touches);
            if state.already.as_ref().is_some_and(|already| already.is_other()) {
                self.give_up_comparing(state);
            }
        }
        // A turn that ended without the agent's answer; what ended it stands in the file alone.
        state.running.retain(|running| running.turn.doc.ended_at_ms.is_none());
        let mut out = Vec::new();
        state.projector.flush(now_ms(), &mut out);
        self.append_later(state, out, None);
        if state.already.as_ref().is_some_and(|already| !already.is_over()) {
            self.give_up_comparing(state);
        }
        state.told_already();
        state.already = None;
        state.projector.is_up_to_date();
        for seen in pending {
            state.spans.request_created(now_ms(), seen); // the file has them
        }
        self.show(state);
        again.running = state.running.iter().map(|running| running.turn.id.clone()).collect();
        again.spans = state.spans.open_ids();
        again
    }

    fn once_more(self: &Arc<Self>, state: &mut State, op: Op, late_from_ms: i64, touches: &mut Vec<Touch>) {
        match op {
            Op::Begin { turn, request, sent } => {
                let (mut turn, now, is_new) = (*turn, now_ms(), sent.is_some());
                if let Some((client_id, events_after)) = sent {
                    turn.sent(self.place(state, &client_id, events_after), now);
                }
                let is_unknown = |already: &Already| !already.is_over() && !already.has_begun(&turn.id);
                if is_new && state.already.as_deref().is_some_and(is_unknown) {
                    self.give_up_comparing(state);
                }
                let started = turn.doc.started_at_ms.unwrap_or(now);
                turn.sent_ago(now - started);
                if is_new || state.already.is_some() {
                    self.begin(state, turn, request, started);
                } else {
                    state.doc.stats.turns += 1;
                    let prompt_bytes = turn.doc.prompt.as_ref().map_or(0, |prompt| prompt.get().len());
                    let seen = TurnSeen { turn_id: &turn.id, origin: &turn.doc.origin, prompt_bytes };
                    state.spans.turn_started(started, &seen); // the file has it
                    state.projector.turn_goes_on(&turn.id, started);
                    state.running.push(Running { turn, request, cancelled_because: None });
                }
            }
            Op::Update { update, time_ms } => {
                let Some(already) = &state.already else { return };
                if already.is_over() && state.running.is_empty() && time_ms < late_from_ms {
                    return;
                }
                let (before, kept) = (state.news, state.kept());
                let touched = self.updated(state, &update);
                if state.news == before {
                    state.keep(kept);
                } else {
                    touches.extend(touched);
                }
            }
            Op::End { turn_id, answer } => {
                let Some(at) = state.running.iter().position(|running| running.turn.id == turn_id) else { return };
                let mut turn = state.running.remove(at).turn;
                let is_over = turn.doc.ended_at_ms.is_some();
                if !is_over {
                    turn.answered(answer.as_deref().map_err(String::as_str), None);
                } else if state.already.is_none() {
                    return;
                }
                self.end_turn(state, turn.clone());
                if !is_over && state.already.as_ref().is_some_and(|already| already.is_other()) {
                    state.forget_ending(&turn_id);
                    self.give_up_comparing(state);
                    self.end_turn(state, turn); // this one counts
                }
                if is_over {
                    state.forget_ending(&turn_id); // the file's is as it was
                }
            }
        }
    }

    /// What was folded can't be told from what wasn't: what is known to be in the file is not said again, the rest is. What was
    /// open stays so to the end of its turn, and the fold goes on anew.
    fn give_up_comparing(&self, state: &mut State) {
        let stored = state.already.as_ref().map(|already| already.next_in_short()).unwrap_or_default();
        tracing::warn!(session = self.id, stored, "the fold of a session differs from the one in the file: it goes on from here");
        state.told_already();
        state.already = None;
        let mut fold = state.projector.anew();
        if let Some(Running { turn, .. }) = state.running.last() {
            fold.turn_goes_on(&turn.id, turn.doc.started_at_ms.unwrap_or_else(now_ms));
        }
        state.projector = fold;
    }
}

impl State {
    /// What is missing in the file. A change is made with the last event of its own.
    pub(in crate::sessions) fn new_of(
        &mut self,
        out: Vec<Projected>,
        change: Option<RowChange>,
    ) -> (Vec<Projected>, Option<RowChange>) {
        let Some(already) = &mut self.already else { return (out, change) };
        let (mut new, mut is_last_new) = (Vec::with_capacity(out.len()), false);
        for event in out {
            let missing = already.missing(event);
            is_last_new = missing.is_some();
            new.extend(missing);
        }
        self.news += new.len() as u64;
        (new, change.filter(|_| is_last_new))
    }

    /// What the file has told of what it is doing.
    pub(in crate::sessions) fn told_already(&mut self) {
        if let Some(word) = self.already.as_mut().and_then(|already| already.take_state()) {
            self.shown = serde_json::from_value(word.into()).ok();
        }
    }

    fn kept(&self) -> Kept {
        let doc = &self.doc;
        (self.row.title.clone(), doc.mode.clone(), doc.model.clone(), doc.config_options.clone())
    }

    fn keep(&mut self, kept: Kept) {
        (self.row.title, self.doc.mode, self.doc.model, self.doc.config_options) = kept;
    }
}
