//! Working on a session's queue: one turn after another is sent to the agent.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::live::{Live, State};
use super::turn::Turn;
use super::watch::{LOOK_PAUSE, is_over};
use super::{Error, Sessions};
use crate::acp::{self, Envelope, Posted};
use crate::rt::spawn_owned;

/// How often a turn is sent whose server was deleted just then.
const TRIES: usize = 3;

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
        let mut tries = 0;
        loop {
            self.until_free(live).await;
            let next = {
                let mut state = live.lock();
                let next = state.queue.front_mut().filter(|_| !self.is_stopping()).map(|turn| {
                    turn.taken_up.get_or_insert_with(Instant::now);
                    turn.clone()
                });
                state.sending = next.as_ref().map(|turn| turn.id.clone());
                state.has_runner = next.is_some();
                next
            };
            let Some(turn) = next else { break };
            tries += 1;
            self.run(live, &turn, tries).await;
            if live.lock().position(&turn.id).is_none() {
                tries = 0; // the next one is another one
            }
        }
        live.bump();
    }

    /// Waits while a turn that came through another door is under way.
    async fn until_free(&self, live: &Arc<Live>) {
        let mut changed = live.watch();
        while !live.lock().running.is_empty() && changed.changed().await.is_ok() {}
    }

    /// Sends one turn and waits for its end. What keeps it from being sent ends it, with the reason; or it stays in the
    /// queue, to be tried again.
    async fn run(&self, live: &Arc<Live>, turn: &Turn, tries: usize) {
        let began = turn.taken_up.unwrap_or_else(Instant::now);
        let sending = self.send(live, turn, false);
        tokio::pin!(sending);
        let sent = loop {
            tokio::select! {
                sent = &mut sending => break sent,
                () = live.until_over(&turn.id) => return, // taken out, or given up: if it comes by later, it isn't sent
                () = tokio::time::sleep(LOOK_PAUSE) => if is_over(turn.doc.limits.timeout_ms, began.elapsed()) {
                    live.never_sent(&turn.id, "timeout", None); // nothing when the agent has it
                    self.store().flush();
                },
            }
        };
        let is_deferred = std::mem::take(&mut live.lock().is_deferred);
        let why = match sent {
            _ if self.is_stopping() && live.lock().position(&turn.id).is_some() => return, // the next run takes it up
            Ok(_) if is_deferred => return,
            Err(Error::Acp(acp::Error::Deleted { .. } | acp::Error::UnknownServer { .. })) if tries < TRIES => return,
            // What reached the agent has ended with its answer; the rest was refused before.
            Ok(answer) => answer["error"].clone(),
            Err(error) => json!({"message": error.to_string()}),
        };
        live.never_sent(&turn.id, "not_sent", Some(why));
        self.store().flush();
        live.until_over(&turn.id).await; // its end is in the file before the next one begins
    }

    /// Sends a turn that has begun for all who read of it, and that no agent has got, as the server died in between. Goes on
    /// in the background.
    pub(super) fn send_late(&self, live: &Arc<Live>, turn: Turn) {
        let (sessions, live) = (self.clone(), Arc::clone(live));
        spawn_owned("session-turns", async move {
            if let Err(error) = sessions.send(&live, &turn, true).await {
                tracing::warn!(%error, turn = turn.id, "a turn could not be sent after a restart");
            }
            // What reached the agent has ended with its answer.
            if !sessions.is_stopping() && live.is_unsent(&turn.id) {
                live.give_up(&turn.id, "not_sent");
            }
        });
    }

    /// `is_late`: an earlier server was about to.
    async fn send(&self, live: &Arc<Live>, turn: &Turn, is_late: bool) -> Result<Value, Error> {
        let (server_id, agent, acp_session_id) = live.address();
        // A server that is being deleted fails its turns before its agent has ended.
        if !live.lock().agent_runs || self.acp()?.initialized(&server_id).is_none() {
            self.prepare_server(live).await?;
        }
        let prompt = turn.doc.prompt.as_ref().map_or("[]", |prompt| prompt.get());
        let text = format!(
            r#"{{"jsonrpc":"2.0","id":{},"method":"session/prompt","params":{{"sessionId":{},"prompt":{prompt}}}}}"#,
            json!(turn.id),
            json!(acp_session_id)
        );
        let envelope = Envelope::parse(text.into()).map_err(|error| Error::invalid(error.to_string()))?;
        let (acp, tag) = (self.acp()?, turn.id.clone());
        let posted = match is_late {
            true => acp.post_late(&server_id, &agent, envelope, tag).await,
            false => acp.post_tagged(&server_id, Some(&agent), envelope, Some(tag)).await,
        };
        match posted? {
            Posted::Response { text, .. } => Ok(serde_json::from_slice(&text).unwrap_or_default()),
            Posted::Accepted => Ok(Value::Null),
        }
    }

    /// A server that was deleted, or never knew the session (it was imported), learns of it: the agent is then asked
    /// to resume it, and given the transcript when it can't.
    pub(super) async fn prepare_server(&self, live: &Arc<Live>) -> Result<(), Error> {
        let (server_id, agent, acp_session_id) = live.address();
        self.handshake(&server_id, &agent).await?;
        let (params, settings) = live.opened_with();
        self.acp()?.remember(&server_id, &acp_session_id, params, settings).await?;
        Ok(())
    }
}
