//! Changing, interrupting, closing and deleting sessions.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::oneshot;

use super::ground::{Root, named};
use super::live::Live;
use super::projection::Source;
use super::types::{ExitDoc, SessionInfo, SessionPatch};
use super::{Error, Sessions};
use crate::rt::clock::now_ms;
use crate::rt::raw_json::RawJson;
use crate::rt::spawn_owned;

/// Methods that end a session at its agent for good, best first, and the capabilities that say that it has them.
pub(super) const DELETE_OR_CLOSE: &[(&str, &str)] = &[("session/delete", "delete"), ("session/close", "close")];

/// The first of the methods that an agent says it has, in its answer to `initialize`.
pub(super) fn method_of(initialized: Option<&RawJson>, methods: &[(&'static str, &str)]) -> Option<&'static str> {
    let answer = initialized.map(RawJson::parse).unwrap_or_default();
    let capabilities = &answer["agentCapabilities"]["sessionCapabilities"];
    methods.iter().find(|(_, capability)| !capabilities[capability].is_null()).map(|(method, _)| *method)
}

impl Sessions {
    /// Changes a session; absent members stay. Mode, model and options are set at the agent first: what it refuses
    /// changes nothing. Dropping the future may leave it half done.
    ///
    /// # Errors
    /// [`Error::UnknownSession`], [`Error::Invalid`], [`Error::BadRoot`], [`Error::NotOffered`], [`Error::Refused`].
    pub async fn change(&self, id: &str, patch: SessionPatch) -> Result<SessionInfo, Error> {
        if patch.metadata.as_ref().is_some_and(|metadata| !metadata.is_object()) {
            return Err(Error::invalid("metadata must be a JSON object"));
        }
        let live = self.live(id).await?;
        let roots = self.roots(patch.roots.as_deref()).await?;
        if patch.mode.is_some() || patch.model.is_some() || !patch.config_options.is_empty() {
            self.prepare_server(&live).await?;
            self.settle(&live, patch.mode.as_deref(), patch.model.as_deref(), &patch.config_options).await?;
        }
        let committed = live.patched(patch, roots);
        self.store().flush();
        let _ = committed.await; // a closed store: it is changed for as long as we run
        Ok(self.info(&live, true))
    }

    /// Ends the turn under way (ACP `session/cancel`); false when there is none. An agent that doesn't end it in
    /// `turn_cancel_grace_ms` loses it. Turns that wait stay, but with `drop_queue`.
    ///
    /// # Errors
    /// [`Error::UnknownSession`].
    pub async fn interrupt(&self, id: &str, drop_queue: bool) -> Result<bool, Error> {
        let live = self.live(id).await?;
        if drop_queue {
            self.drop_queue(&live, "interrupted");
            self.store().flush();
        }
        Ok(self.cancel_turn(&live, "interrupted").await)
    }

    /// Takes turns out of the queue; they end as cancelled.
    pub(super) fn drop_queue(&self, live: &Arc<Live>, reason: &str) {
        loop {
            let next = live.lock().queue.front().map(|turn| turn.id.clone());
            match next {
                Some(id) => drop(live.never_sent(&id, reason, None)),
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
        if live.never_sent(turn_id, "interrupted", None) {
            self.store().flush();
            return Ok(true);
        }
        let is_running = live.lock().running.iter().any(|running| running.turn.id == turn_id);
        if is_running {
            return Ok(self.cancel_turn(&live, "interrupted").await);
        }
        self.turn(id, turn_id, Duration::ZERO).await.map(|_| false)
    }

    /// Ends a session's work: queue, turn, and what the agent holds for it. It stays listed, with everything that was
    /// said; no message is taken any more until it is opened again. Dropping the future doesn't stop it.
    ///
    /// # Errors
    /// [`Error::UnknownSession`].
    pub async fn close(&self, id: &str) -> Result<SessionInfo, Error> {
        let live = self.live(id).await?;
        let sessions = self.clone();
        let closing = spawn_owned("session-close", async move {
            live.lock().row.closed_at_ms.get_or_insert_with(now_ms);
            sessions.stop_work(&live).await;
            sessions.close_at_agent(&live, &[("session/close", "close")]).await;
            live.closed();
            sessions.tell_end(&live.id);
            sessions.store().flush();
            sessions.info(&live, true)
        });
        closing.await.map_err(|_| Error::Acp(crate::acp::Error::Stopping))
    }

    /// Takes messages again.
    ///
    /// # Errors
    /// [`Error::UnknownSession`].
    pub async fn reopen(&self, id: &str) -> Result<SessionInfo, Error> {
        let live = self.live(id).await?;
        let mut state = live.lock();
        if state.row.closed_at_ms.take().is_some() {
            let change = Live::save(&mut state);
            live.say(&mut state, "session.updated", Source::Client, &json!({"reopened": true}), Some(change));
        }
        drop(state);
        if let Some(custodian) = self.custodian() {
            custodian.reopened(&live.id);
        }
        self.store().flush();
        Ok(self.info(&live, true))
    }

    /// Deletes a session with everything that was said in it, here and at its agent when that can. Resolves once it is gone
    /// from the file; dropping the future doesn't stop it.
    ///
    /// # Errors
    /// [`Error::UnknownSession`].
    pub async fn delete(&self, id: &str) -> Result<(), Error> {
        let live = self.live(id).await?;
        let sessions = self.clone();
        let deleting = spawn_owned("session-delete", async move {
            live.lock().row.closed_at_ms.get_or_insert_with(now_ms);
            sessions.stop_work(&live).await;
            sessions.close_at_agent(&live, DELETE_OR_CLOSE).await;
            let _ = sessions.forget(&live).await; // a panic in it is logged
        });
        deleting.await.map_err(|_| Error::Acp(crate::acp::Error::Stopping))
    }

    /// What doesn't end when it is asked to is given up in its time.
    async fn stop_work(&self, live: &Arc<Live>) {
        self.drop_queue(live, "closed");
        self.store().flush();
        if self.cancel_turn(live, "closed").await {
            let mut changed = live.watch();
            while !live.lock().running.is_empty() && changed.changed().await.is_ok() {}
        }
        self.gate().cancel_pending(&live.id).await; // what was asked between turns
    }

    /// The first of the methods that the agent says it has. Only a living agent is asked: nobody starts one to close
    /// something.
    pub(super) async fn close_at_agent(&self, live: &Arc<Live>, methods: &[(&'static str, &str)]) {
        let method = {
            let state = live.lock();
            method_of(state.doc.initialized.as_ref().filter(|_| state.agent_runs), methods)
        };
        let Some(method) = method else { return };
        let (server_id, agent, session) = live.address();
        if let Err(error) = self.ask(&server_id, &agent, method, &json!({"sessionId": session}), None).await {
            tracing::info!(%error, session = live.id, "the agent didn't close the session");
        }
    }
}

impl Live {
    /// What needs no agent is changed.
    fn patched(&self, patch: SessionPatch, roots: Option<Vec<Root>>) -> oneshot::Receiver<u64> {
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
        if let Some(roots) = roots {
            data["roots"] = json!(named(&roots));
            state.doc.roots = Some(roots);
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
