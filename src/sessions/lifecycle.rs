//! Changing, interrupting, closing and deleting sessions.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::oneshot;

use super::live::{Live, State};
use super::projection::Source;
use super::types::{ExitDoc, SessionInfo, SessionPatch};
use super::{Error, Sessions};
use crate::config::as_duration;
use crate::rt::clock::now_ms;

impl Sessions {
    /// Changes a session; absent members stay. Mode, model and options are set at the agent first: what it refuses
    /// changes nothing. Dropping the future may leave it half done.
    ///
    /// # Errors
    /// [`Error::UnknownSession`], [`Error::Invalid`], [`Error::NotOffered`], [`Error::Refused`].
    pub async fn change(&self, id: &str, patch: SessionPatch) -> Result<SessionInfo, Error> {
        if patch.metadata.as_ref().is_some_and(|metadata| !metadata.is_object()) {
            return Err(Error::invalid("metadata must be a JSON object"));
        }
        let live = self.live(id).await?;
        if patch.mode.is_some() || patch.model.is_some() || !patch.config_options.is_empty() {
            self.prepare_server(&live).await?;
            self.settle(&live, patch.mode.as_deref(), patch.model.as_deref(), &patch.config_options).await?;
        }
        let committed = live.patched(patch);
        self.store().flush();
        let _ = committed.await; // a closed store: it is changed for as long as we run
        Ok(self.info(&live, true))
    }

    /// Ends the turn under way (ACP `session/cancel`); false when there is none. An agent that doesn't end it in
    /// `turn_cancel_grace_ms` loses it. Turns that wait stay.
    ///
    /// # Errors
    /// [`Error::UnknownSession`].
    pub async fn interrupt(&self, id: &str, reason: &'static str) -> Result<bool, Error> {
        let live = self.live(id).await?;
        self.cancel_turn(&live, reason).await
    }

    /// The same, and `drop_queue` takes out what waits, too.
    ///
    /// # Errors
    /// [`Error::UnknownSession`].
    pub async fn interrupt_all(&self, id: &str, drop_queue: bool) -> Result<bool, Error> {
        let live = self.live(id).await?;
        if drop_queue {
            self.drop_queue(&live, "interrupted");
            self.store().flush();
        }
        self.cancel_turn(&live, "interrupted").await
    }

    /// The same. Turns of other doors are watched, too, from here on.
    pub(super) async fn cancel_turn(&self, live: &Arc<Live>, reason: &'static str) -> Result<bool, Error> {
        let turns: Vec<String> = {
            let mut state = live.lock();
            let running = state.running.iter_mut();
            running
                .map(|running| {
                    running.cancelled_because.get_or_insert(reason);
                    running.turn.id.clone()
                })
                .collect()
        };
        if turns.is_empty() {
            return Ok(false);
        }
        let (server_id, agent, session) = live.address();
        self.tell(&server_id, &agent, "session/cancel", &json!({"sessionId": session})).await?;
        self.gate().cancel_pending(&live.id).await;
        Ok(true)
    }

    /// Takes turns out of the queue; they end as cancelled.
    pub(super) fn drop_queue(&self, live: &Arc<Live>, reason: &str) {
        loop {
            let next = live.lock().queue.front().map(|turn| turn.id.clone());
            match next {
                Some(id) => live.never_sent(&id, reason, None),
                None => return,
            }
        }
    }

    /// Takes one turn out of the queue, or interrupts it when it is under way. False when it has ended.
    ///
    /// # Errors
    /// [`Error::UnknownSession`], [`Error::UnknownTurn`].
    pub async fn cancel(&self, id: &str, turn_id: &str) -> Result<bool, Error> {
        let live = self.live(id).await?;
        let is_queued = live.lock().queue.iter().any(|turn| turn.id == turn_id);
        if is_queued {
            live.never_sent(turn_id, "interrupted", None);
            self.store().flush();
            return Ok(true);
        }
        let is_running = live.lock().running.iter().any(|running| running.turn.id == turn_id);
        if is_running {
            return self.cancel_turn(&live, "interrupted").await;
        }
        self.turn(id, turn_id, Duration::ZERO).await.map(|_| false)
    }

    /// Ends a session's work: queue, turn, and what the agent holds for it. It stays listed, with everything that was
    /// said; no message is taken any more until it is opened again.
    ///
    /// # Errors
    /// [`Error::UnknownSession`].
    pub async fn close(&self, id: &str) -> Result<SessionInfo, Error> {
        let live = self.live(id).await?;
        live.lock().row.closed_at_ms.get_or_insert_with(now_ms);
        self.stop_work(&live).await?;
        self.close_at_agent(&live, "session/close", "close").await;
        live.closed();
        self.store().flush();
        Ok(self.info(&live, true))
    }

    /// Takes messages again.
    ///
    /// # Errors
    /// [`Error::UnknownSession`].
    pub async fn reopen(&self, id: &str) -> Result<SessionInfo, Error> {
        let live = self.live(id).await?;
        let mut state = live.lock();
        state.row.closed_at_ms = None;
        let change = Live::save(&mut state);
        live.say(&mut state, "session.updated", Source::Client, &json!({"reopened": true}), Some(change));
        drop(state);
        self.store().flush();
        Ok(self.info(&live, true))
    }

    /// Deletes a session with everything that was said in it, here and at its agent when that can.
    ///
    /// # Errors
    /// [`Error::UnknownSession`].
    pub async fn delete(&self, id: &str) -> Result<(), Error> {
        let live = self.live(id).await?;
        live.lock().row.closed_at_ms.get_or_insert_with(now_ms);
        self.stop_work(&live).await?;
        self.close_at_agent(&live, "session/delete", "delete").await;
        let is_known = self.registry().get(id).is_some();
        if is_known {
            self.forget(&live); // the tap did when the agent told of it
        }
        self.store().flush();
        Ok(())
    }

    async fn stop_work(&self, live: &Arc<Live>) -> Result<(), Error> {
        self.drop_queue(live, "closed");
        if !self.cancel_turn(live, "closed").await? {
            return Ok(());
        }
        let mut changed = live.watch();
        let grace = as_duration(self.bounds().turn_cancel_grace_ms);
        let ended =
            tokio::time::timeout(grace, async { while !live.lock().running.is_empty() && changed.changed().await.is_ok() {} });
        if ended.await.is_err() {
            let ids: Vec<_> = live.lock().running.iter().map(|running| running.turn.id.clone()).collect();
            self.end_deaf_agent(live, "closed").await;
            ids.iter().for_each(|id| live.give_up(id, "closed"));
        }
        Ok(())
    }

    /// Only a living agent that says it can is asked: nobody starts one to close something.
    async fn close_at_agent(&self, live: &Arc<Live>, method: &str, capability: &str) {
        let (can, runs) = {
            let state = live.lock();
            let capabilities = state.doc.initialized.as_ref().map(|answer| &answer["agentCapabilities"]["sessionCapabilities"]);
            (capabilities.is_some_and(|all| !all[capability].is_null()), state.agent_runs)
        };
        if !can || !runs {
            return;
        }
        let (server_id, agent, session) = live.address();
        if let Err(error) = self.ask(&server_id, &agent, method, &json!({"sessionId": session}), None).await {
            tracing::info!(%error, session = live.id, "the agent didn't close the session");
        }
    }

    /// An agent that doesn't end a turn is ended, unless other sessions' turns go on in the same process.
    pub(super) async fn end_deaf_agent(&self, live: &Arc<Live>, reason: &str) {
        let (server_id, ..) = live.address();
        let others = self.registry().all().into_iter().filter(|other| !Arc::ptr_eq(other, live));
        let is_shared = others.into_iter().any(|other| {
            let state: std::sync::MutexGuard<'_, State> = other.lock();
            state.row.server_id == server_id && !state.running.is_empty()
        });
        if is_shared {
            tracing::warn!(server_id, reason, "an agent doesn't end a turn; it goes on, because other sessions work in it");
            return;
        }
        let Ok(acp) = self.acp() else { return };
        let grace = as_duration(self.bounds().agent_stop_grace_ms);
        if let Err(error) = acp.stop_agent(&server_id, &format!("a turn did not end: {reason}"), grace).await {
            tracing::warn!(%error, server_id, "an agent that doesn't end a turn could not be ended");
        }
    }
}

impl Live {
    /// What needs no agent is changed.
    fn patched(&self, patch: SessionPatch) -> oneshot::Receiver<u64> {
        let mut data = json!({});
        let mut state = self.lock();
        if let Some(title) = patch.title {
            data["title"] = title.clone().into();
            state.row.title = Some(title).filter(|title| !title.is_empty());
        }
        if let Some(metadata) = patch.metadata {
            data["metadata"] = metadata.clone();
            state.doc.metadata = Some(metadata);
        }
        if let Some(limits) = patch.turn_limits {
            data["turnLimits"] = json!(limits);
            state.doc.turn_limits = limits;
        }
        let change = Self::save(&mut state);
        self.say_acked(&mut state, "session.updated", Source::Client, &data, Some(change))
    }

    /// It is closed: by us, or by a client of ACP.
    pub(super) fn closed(&self) {
        let mut state = self.lock();
        let exit = ExitDoc { reason: "closed".to_owned(), ..ExitDoc::default() };
        let is_new = state.doc.exit.as_ref() != Some(&exit) || state.agent_runs;
        state.row.closed_at_ms.get_or_insert_with(now_ms);
        (state.agent_runs, state.doc.exit) = (false, Some(exit));
        if is_new {
            let change = Self::save(&mut state);
            let data = json!({"reason": "terminated", "terminatedBy": "client", "message": "closed"});
            self.say(&mut state, "session.ended", Source::Client, &data, Some(change));
            self.show(&mut state);
        }
    }
}
