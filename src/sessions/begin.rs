//! A turn goes to its agent.

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::live::{Live, Running, State, span_changes};
use super::turn::Turn;
use super::types::{Stats, UsageDoc};
use crate::acp::Prompted;
use crate::rt::clock::now_ms;
use crate::store::RowChange;
use crate::traces::TurnSeen;

/// Where a turn began: enough to fold what the agent has said since once more, for a server that takes it up.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Sent {
    /// The id of its request as its client wrote it: the answer in the agent's stream has it.
    pub client_id: String,
    /// The last position in the agent's stream before it.
    pub events_after: u64,
    /// The last position in the session's stream before it.
    pub session_after: u64,
    /// Turns and tool calls of the session before it.
    pub stats: Stats,
    /// Tokens and cost before it.
    pub usage: Option<UsageDoc>,
    /// Where that says nothing: it is known that there was none.
    pub is_usage_known: bool,
}

impl Live {
    /// A prompt goes to the agent; its tag is the id of a turn of ours. Gives the turn; `None` when it must not be sent: it
    /// was taken out of the queue, or a turn of another door is under way, behind which it waits.
    pub(super) fn prompted(&self, prompt: Prompted<'_>, events_after: u64) -> Option<String> {
        let Prompted { number: request, client_id, params, tag, .. } = prompt;
        let mut state = self.lock();
        let (state, now) = (&mut *state, now_ms());
        if tag.is_some() && !state.running.is_empty() {
            state.is_deferred = true;
            state.queue.iter_mut().filter(|turn| Some(turn.id.as_str()) == tag).for_each(|turn| turn.taken_up = None);
            return None;
        }
        let mut turn = match tag {
            None => Turn::of_acp(state.next_number(), params, now),
            Some(tag) => state.take_queued(tag)?,
        };
        turn.sent(self.place(state, client_id, events_after), now);
        let id = turn.id.clone();
        self.begin(state, turn, request, now);
        Some(id)
    }

    /// True when this is of a turn that has begun long ago ([`Sessions::send_late`](super::Sessions::send_late)): now the agent
    /// gets it.
    pub(super) fn prompted_late(&self, prompt: &Prompted<'_>) -> bool {
        let mut state = self.lock();
        let unsent =
            state.running.iter_mut().find(|running| running.request == 0 && Some(running.turn.id.as_str()) == prompt.tag);
        unsent.map(|running| running.request = prompt.number).is_some()
    }

    /// True of a turn that has begun, and that no agent has got.
    pub(super) fn is_unsent(&self, id: &str) -> bool {
        self.lock().running.iter().any(|running| running.request == 0 && running.turn.id == id)
    }

    /// Where a turn begins that is sent now.
    pub(super) fn place(&self, state: &State, client_id: &str, events_after: u64) -> Sent {
        Sent {
            client_id: client_id.to_owned(),
            events_after,
            session_after: self.stream.appended(),
            stats: state.doc.stats,
            usage: state.doc.usage.clone(),
            is_usage_known: state.spans.is_usage_known(),
        }
    }

    /// A turn is with the agent, as our request of this number.
    pub(super) fn begin(&self, state: &mut State, turn: Turn, request: u64, now: i64) {
        state.doc.stats.turns += 1;
        state.doc.exit = None;
        (state.agent_runs, state.is_silent, state.last_word) = (true, false, Instant::now());
        let mut out = Vec::new();
        let prompt = turn.doc.prompt.as_ref().map_or("[]", |prompt| prompt.get());
        state.projector.turn_started(now, &turn.id, &turn.doc.origin, prompt, &mut out);
        let seen = TurnSeen { turn_id: &turn.id, origin: &turn.doc.origin, prompt_bytes: prompt.len() };
        let spans = state.spans.turn_started(now, &seen);
        let mut changes = vec![turn.change(&self.id)];
        changes.extend(span_changes(spans));
        state.running.push(Running { turn, request, cancelled_because: None });
        self.append_later(state, out, Some(RowChange::Many(changes)));
        self.show(state);
    }
}
