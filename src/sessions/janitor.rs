//! What is done from time to time: agents that nobody uses are stopped, and what retention no longer keeps is deleted.

use std::collections::HashMap;
use std::time::Duration;

use super::Sessions;
use super::tap::IDLE;
use crate::acp::Status;
use crate::config::as_duration;
use crate::rt::clock::now_ms;
use crate::rt::spawn_owned;

/// Between two rounds.
const PAUSE: Duration = Duration::from_secs(30);
/// The same, when agents are stopped after a short time.
const PAUSE_MIN: Duration = Duration::from_millis(200);

impl Sessions {
    pub(super) fn start_janitor(&self) {
        let sessions = self.clone();
        let pause = PAUSE.min(as_duration(self.bounds().session_agent_idle_ms / 2)).max(PAUSE_MIN);
        spawn_owned("session-janitor", async move {
            loop {
                tokio::time::sleep(pause).await;
                sessions.let_go_of_logs();
                sessions.stop_idle_agents().await;
                sessions.retain().await;
            }
        });
    }

    /// What quiet sessions said is in the file.
    fn let_go_of_logs(&self) {
        for live in self.registry().all() {
            let is_quiet = live.lock().is_quiet();
            if is_quiet {
                live.stream.let_go();
            }
        }
    }

    /// An agent process costs a hundred megabytes and more; a session that is asleep costs a row.
    async fn stop_idle_agents(&self) {
        let Ok(acp) = self.acp() else { return };
        let idle = as_duration(self.bounds().session_agent_idle_ms);
        let mut quiet_for: HashMap<String, Duration> = HashMap::new();
        let all = self.registry().all();
        for live in &all {
            let state = live.lock();
            let is_quiet = state.is_quiet() && state.doc.origin == "sessions";
            let quiet = if is_quiet { state.last_word.elapsed() } else { Duration::ZERO };
            let least = quiet_for.entry(state.row.server_id.clone()).or_insert(quiet);
            *least = quiet.min(*least);
        }
        drop(all);
        for server in acp.list() {
            let is_idle = quiet_for.get(&server.server_id).is_some_and(|quiet| *quiet >= idle);
            if is_idle && matches!(server.status, Status::Running { .. }) && !self.is_watched(&server.server_id).await {
                tracing::info!(server = server.server_id, "its sessions are idle: the agent is stopped until the next message");
                let grace = as_duration(self.bounds().agent_stop_grace_ms);
                let stopped = acp.stop_agent(&server.server_id, IDLE, grace, true).await; // a message may just have come
                if let Err(error) = stopped {
                    tracing::debug!(%error, "an idle agent could not be stopped");
                }
            }
        }
    }

    /// Somebody reads its raw events: they may be about to send something.
    async fn is_watched(&self, server_id: &str) -> bool {
        match self.acp() {
            Ok(acp) => acp.get(server_id).await.is_ok_and(|server| server.readers().count() > 0),
            Err(_) => false,
        }
    }

    /// Closed sessions beyond age or number go, oldest change first.
    async fn retain(&self) {
        let bounds = self.bounds();
        let oldest_ms = now_ms().saturating_sub(i64::try_from(bounds.session_closed_max_age_ms).unwrap_or(i64::MAX));
        let Ok(ids) = self.store().sessions_beyond(bounds.session_closed_max, oldest_ms).await else { return };
        for id in ids {
            tracing::info!(session = id, "a closed session is deleted by retention");
            let _ = self.delete(&id).await; // gone already: the same
        }
    }
}
