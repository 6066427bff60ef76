//! Working on a session's queue: one turn after another, each with its deadlines.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::Sessions;
use super::live::{Live, State};
use super::turn::Turn;
use crate::acp::{Envelope, Posted};
use crate::config::as_duration;
use crate::rt::clock::now_ms;
use crate::rt::spawn_owned;

/// How often a turn under way is looked at for silence and deadlines.
const LOOK_PAUSE: Duration = Duration::from_millis(250);

impl Sessions {
    /// Sees to it that a task works on the session's queue.
    pub(super) fn work_on(&self, live: &Arc<Live>, state: &mut State) {
        if state.queue.is_empty() || std::mem::replace(&mut state.has_runner, true) {
            return;
        }
        let (sessions, live) = (self.clone(), Arc::clone(live));
        spawn_owned("session-turns", async move { sessions.work(&live).await });
    }

    async fn work(&self, live: &Arc<Live>) {
        loop {
            self.until_free(live).await;
            let next = {
                let mut state = live.lock();
                match state.queue.front().cloned() {
                    Some(turn) => turn,
                    None => {
                        state.has_runner = false;
                        break;
                    }
                }
            };
            self.run(live, next).await;
        }
        live.bump();
    }

    /// Waits while a turn that came through another door is under way.
    async fn until_free(&self, live: &Arc<Live>) {
        let mut changed = live.watch();
        while !live.lock().running.is_empty() {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    /// Sends one turn and waits for its end. What keeps it from being sent ends it, with the reason.
    async fn run(&self, live: &Arc<Live>, turn: Turn) {
        let sending = self.send(live, &turn);
        tokio::pin!(sending);
        let mut watch = Watch::new(self, live, &turn);
        let sent = loop {
            tokio::select! {
                sent = &mut sending => break Some(sent),
                () = tokio::time::sleep(LOOK_PAUSE) => if watch.look().await { break None },
            }
        };
        match sent {
            Some(Err(error)) => live.never_sent(&turn.id, "not_sent", Some(json!({"message": error.to_string()}))),
            // Refused before it reached the agent: the tap knows nothing of it.
            Some(Ok(answer)) => live.never_sent(&turn.id, "not_sent", Some(answer["error"].clone())),
            None => live.give_up(&turn.id, watch.reason.unwrap_or("deadline")),
        }
        self.store().flush();
        // Its end is in the file before the next one begins.
        let mut changed = live.watch();
        while live.lock().unfinished(&turn.id).is_some() {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    async fn send(&self, live: &Arc<Live>, turn: &Turn) -> Result<Value, super::Error> {
        let (server_id, agent, acp_session_id) = live.address();
        self.prepare_server(live).await?;
        let prompt = turn.doc.prompt.as_ref().map_or("[]", |prompt| prompt.get());
        let text = format!(
            r#"{{"jsonrpc":"2.0","id":{},"method":"session/prompt","params":{{"sessionId":{},"prompt":{prompt}}}}}"#,
            json!(turn.id),
            json!(acp_session_id)
        );
        let envelope = Envelope::parse(text.into()).map_err(|error| super::Error::invalid(error.to_string()))?;
        match self.acp()?.post_tagged(&server_id, Some(&agent), envelope, Some(turn.id.clone())).await? {
            Posted::Response { text, .. } => Ok(serde_json::from_slice(&text).unwrap_or_default()),
            Posted::Accepted => Ok(Value::Null),
        }
    }

    /// A server that was deleted, or never knew the session (it was imported), learns of it: the agent is then asked
    /// to resume it, and given the transcript when it can't.
    pub(super) async fn prepare_server(&self, live: &Arc<Live>) -> Result<(), super::Error> {
        let (server_id, agent, acp_session_id) = live.address();
        self.handshake(&server_id, &agent).await?;
        let params = {
            let state = live.lock();
            let opened_with = state.doc.opened_with.as_ref().map(|params| params.get().to_owned());
            opened_with.unwrap_or_else(|| json!({"cwd": state.row.cwd, "mcpServers": []}).to_string())
        };
        self.acp()?.remember(&server_id, &acp_session_id, params).await?;
        Ok(())
    }
}

/// Looks at a turn under way.
struct Watch<'a> {
    sessions: &'a Sessions,
    live: &'a Arc<Live>,
    turn: &'a Turn,
    began: Instant,
    /// Since when its end is waited for, once it was asked to end.
    cancelled: Option<Instant>,
    reason: Option<&'static str>,
}

impl<'a> Watch<'a> {
    fn new(sessions: &'a Sessions, live: &'a Arc<Live>, turn: &'a Turn) -> Self {
        Self { sessions, live, turn, began: Instant::now(), cancelled: None, reason: None }
    }

    /// True when the turn must be given up: it was asked to end, and didn't in time.
    async fn look(&mut self) -> bool {
        let bounds = self.sessions.bounds();
        if let Some(cancelled) = self.cancelled.or_else(|| self.was_cancelled()) {
            self.cancelled = Some(cancelled);
            if cancelled.elapsed() < as_duration(bounds.turn_cancel_grace_ms) {
                return false;
            }
            self.reason.get_or_insert("interrupted");
            self.sessions.end_deaf_agent(self.live, self.reason.unwrap_or("interrupted")).await;
            return true;
        }
        let limits = self.turn.doc.limits;
        let quiet_ms = self.quiet_ms();
        let is_over = |limit: Option<u64>, spent: u64| limit.is_some_and(|limit| limit > 0 && spent >= limit);
        if is_over(limits.inactivity_timeout_ms, quiet_ms) {
            self.cancel("inactivity_timeout").await;
        } else if is_over(limits.timeout_ms, u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)) {
            self.cancel("timeout").await;
        }
        false
    }

    /// Somebody else asked for the turn's end.
    fn was_cancelled(&mut self) -> Option<Instant> {
        let state = self.live.lock();
        let running = state.running.iter().find(|running| running.turn.id == self.turn.id)?;
        self.reason = running.cancelled_because;
        running.cancelled_because.map(|_| Instant::now())
    }

    /// Milliseconds since the agent's last word; 0 while a decision is waited for. Says when it becomes silent.
    fn quiet_ms(&self) -> u64 {
        let mut state = self.live.lock();
        if state.pending_requests > 0 || !state.running.iter().any(|running| running.turn.id == self.turn.id) {
            return 0;
        }
        let quiet_ms = u64::try_from(now_ms() - state.last_word_ms).unwrap_or(0);
        if quiet_ms >= self.sessions.bounds().session_silent_ms && !state.is_silent {
            state.is_silent = true;
            self.live.show(&mut state);
        }
        quiet_ms
    }

    async fn cancel(&mut self, reason: &'static str) {
        self.reason = Some(reason);
        self.cancelled = Some(Instant::now());
        if let Err(error) = self.sessions.cancel_turn(self.live, reason).await {
            tracing::warn!(%error, session = self.live.id, "a turn beyond its deadline could not be cancelled");
        }
    }
}
