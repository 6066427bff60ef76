//! Looking after turns that are under way, whichever door they came by: silence, deadlines, and ends that don't come.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::Sessions;
use super::live::{Live, Running};
use super::types::TurnLimits;
use crate::config::as_duration;
use crate::rt::spawn_owned;

/// How often a turn under way is looked at for silence and deadlines.
pub(super) const LOOK_PAUSE: Duration = Duration::from_millis(250);

impl Sessions {
    /// Looks at a turn until it is over.
    pub(super) fn watch_turn(&self, live: &Arc<Live>, turn_id: String) {
        let (sessions, live) = (self.clone(), Arc::clone(live));
        spawn_owned("turn-watch", async move {
            sessions.look_after(&live, &turn_id).await;
            live.until_over(&turn_id).await;
            if let Some(witness) = sessions.witness() {
                witness.turn_ended(&live.id, &turn_id);
            }
        });
    }

    async fn look_after(&self, live: &Arc<Live>, turn_id: &str) {
        loop {
            tokio::select! {
                () = live.until_over(turn_id) => return,
                () = tokio::time::sleep(LOOK_PAUSE) => {}
            }
            let Some((limits, spent, quiet)) = live.quiet(turn_id, as_duration(self.bounds().session_silent_ms)) else {
                continue; // its end is being written
            };
            let reason = if is_over(limits.inactivity_timeout_ms, quiet) {
                "inactivity_timeout"
            } else if is_over(limits.timeout_ms, spent) {
                "timeout"
            } else {
                continue;
            };
            self.cancel_turn(live, reason).await;
            return;
        }
    }

    /// Asks the agent to end what is under way in a session (ACP v1, "Cancellation"), and takes back what is just on its way
    /// to it. True when there was something. What doesn't end in `turn_cancel_grace_ms` is given up.
    pub(super) async fn cancel_turn(&self, live: &Arc<Live>, reason: &'static str) -> bool {
        self.cancel_but(live, reason, None).await
    }

    /// The same, but for one turn: that of a message that interrupts may be sent already.
    pub(super) async fn cancel_but(&self, live: &Arc<Live>, reason: &'static str, spared: Option<&str>) -> bool {
        let sending = live.lock().sending.clone().filter(|id| Some(id.as_str()) != spared);
        // False when it went to the agent meanwhile: then it is among those that run.
        let taken_back = sending.is_some_and(|id| live.never_sent(&id, reason, None));
        if taken_back {
            self.store().flush();
        }
        let (asked, is_any) = {
            let mut state = live.lock();
            let ours = |running: &&mut Running| Some(running.turn.id.as_str()) != spared;
            let running: Vec<_> = state.running.iter_mut().filter(ours).collect();
            let is_any = !running.is_empty();
            let mut asked = Vec::new();
            for running in running.into_iter().filter(|running| running.cancelled_because.is_none()) {
                running.cancelled_because = Some(reason);
                asked.push(running.turn.id.clone());
            }
            (asked, is_any)
        };
        if !is_any {
            return taken_back;
        }
        if !asked.is_empty() {
            self.give_up_later(live, asked, reason);
        }
        let (server_id, _, session) = live.address();
        if let Err(error) = self.tell(&server_id, "session/cancel", &json!({"sessionId": session})).await {
            tracing::warn!(%error, session = live.id, "the agent could not be told to end a turn");
        }
        self.gate().cancel_pending(&live.id).await;
        true
    }

    fn give_up_later(&self, live: &Arc<Live>, turns: Vec<String>, reason: &'static str) {
        let (sessions, live) = (self.clone(), Arc::clone(live));
        spawn_owned("turn-cancel", async move {
            let ended = async {
                for id in &turns {
                    live.until_over(id).await;
                }
            };
            let grace = as_duration(sessions.bounds().turn_cancel_grace_ms);
            if tokio::time::timeout(grace, ended).await.is_ok() {
                return;
            }
            if turns.iter().any(|id| live.is_under_way(id)) {
                sessions.end_deaf_agent(&live, reason).await;
            }
            turns.iter().for_each(|id| live.give_up(id, reason));
            sessions.store().flush();
        });
    }

    /// An agent that doesn't end a turn is ended, unless other sessions' turns go on in the same process.
    async fn end_deaf_agent(&self, live: &Arc<Live>, reason: &str) {
        let (server_id, ..) = live.address();
        let all = self.registry().all();
        let is_shared = all.iter().filter(|other| !Arc::ptr_eq(other, live)).any(|other| {
            let state = other.lock();
            state.row.server_id == server_id && !state.running.is_empty()
        });
        if is_shared {
            tracing::warn!(server_id, reason, "an agent doesn't end a turn; it goes on, because other sessions work in it");
            return;
        }
        let Ok(acp) = self.acp() else { return };
        let grace = as_duration(self.bounds().agent_stop_grace_ms);
        if let Err(error) = acp.stop_agent(&server_id, &format!("a turn did not end: {reason}"), grace, false).await {
            tracing::warn!(%error, server_id, "an agent that doesn't end a turn could not be ended");
        }
    }
}

impl Live {
    /// True while the agent works on a turn.
    fn is_under_way(&self, turn_id: &str) -> bool {
        self.lock().running.iter().any(|running| running.turn.id == turn_id)
    }

    /// A turn's limits, how long ago it was taken up, and how long its agent has said nothing: no time at all while a decision is waited for. Says when
    /// the session becomes silent. `None` when the turn isn't under way.
    fn quiet(&self, turn_id: &str, silent_after: Duration) -> Option<(TurnLimits, Duration, Duration)> {
        let mut state = self.lock();
        let turn = &state.running.iter().find(|running| running.turn.id == turn_id)?.turn;
        let (limits, spent) = (turn.doc.limits, turn.taken_up.map_or(Duration::ZERO, |taken_up| taken_up.elapsed()));
        if state.pending_requests > 0 {
            return Some((limits, spent, Duration::ZERO));
        }
        let quiet = state.last_word.elapsed();
        if quiet >= silent_after && !state.is_silent {
            state.is_silent = true;
            self.show(&mut state);
        }
        Some((limits, spent, quiet))
    }
}

/// 0 is no limit.
pub(super) fn is_over(limit_ms: Option<u64>, spent: Duration) -> bool {
    limit_ms.is_some_and(|limit_ms| limit_ms > 0 && spent >= as_duration(limit_ms))
}
