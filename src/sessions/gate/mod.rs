//! The one gate: whatever waits for a decision from outside. A request is told to it when the agent asks ([`Gate::asked`])
//! and when somebody, at whatever door, was first to answer ([`Gate::answered`]); in between it can be found, waited for
//! and resolved here. Rules ([`Rule`]) decide before anybody is asked. When nobody decides in time, the answer is no.
//!
//! ```text
//! agent asks → rules → allow/deny: answered at once
//!                    → ask: pending → client over ACP | resolve | deadline | agent gone → resolved
//! ```
//!
//! Rows ride along with the events that the caller appends ([`Opened`], [`Closed`]), so one is never seen without the other.

mod answers;
mod core;
mod deadlines;
mod error;
mod left;
mod policy;
mod resolve;
mod rules;
mod shell;
mod subject;
#[cfg(test)]
mod tests;
mod types;

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::Notify;

use crate::acp::Asked;
use crate::config::Bounds;
use crate::rt::spawn_owned;
use crate::store::{RequestFilter, RowChange, Store};
pub use error::Error;
pub use policy::{Effect, Rule};
pub use resolve::{ListFilter, RequestPage, RuleInfo};
pub use types::{
    Answer, Answerer, Closed, DecisionWord, Opened, Outcome, PermissionOption, RequestInfo, RequestKind, RequestState,
    Resolution, Resolved, Scope, Where,
};

use self::core::State;
use rules::RuleBook;

/// Rows read at a time when the gate starts.
const START_PAGE: usize = 500;

/// A cheap handle on the gate.
#[derive(Clone)]
pub struct Gate {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    bounds: Bounds,
    state: Mutex<State>,
    answerer: OnceLock<Arc<dyn Answerer>>,
    /// An earlier deadline than those before, or the end.
    wake: Arc<Notify>,
    /// Held while rules are written, so that the file and memory have the same ones.
    rules: tokio::sync::Mutex<()>,
}

impl Gate {
    /// Reads the rules, and what an earlier run left pending, see [`Gate::take_lost`] and [`Gate::resume`]. Starts the task that
    /// watches deadlines; it ends with the last handle.
    ///
    /// # Errors
    /// [`Error::Store`] when the file can't be read.
    pub async fn start(store: Store, bounds: Bounds) -> Result<Self, Error> {
        let mut state = State::default();
        state.book = RuleBook::load(store.permission_rules().await?);
        let mut filter = RequestFilter { state: Some(RequestState::Pending.as_str().to_owned()), ..RequestFilter::default() };
        loop {
            let rows = store.requests(filter.clone(), START_PAGE).await?;
            let Some(last) = rows.last() else { break };
            filter.before = Some(last.id.clone());
            rows.iter().filter_map(resolve::read_row).for_each(|info| state.left_over(info));
        }
        let wake = Arc::new(Notify::new());
        let inner = Inner {
            store,
            bounds,
            state: Mutex::new(state),
            answerer: OnceLock::new(),
            wake: Arc::clone(&wake),
            rules: tokio::sync::Mutex::default(),
        };
        let gate = Self { inner: Arc::new(inner) };
        spawn_owned("gate", deadlines::run(Arc::downgrade(&gate.inner), wake));
        Ok(gate)
    }

    /// Says how answers reach agents. The first call counts.
    pub fn connect(&self, answerer: Arc<dyn Answerer>) {
        let _ = self.inner.answerer.set(answerer); // a second one is no use
    }

    /// The agent asks. `None` for what no person answers (files, terminals, MCP); it isn't kept here then.
    pub fn asked(&self, at: Where<'_>, asked: &Asked<'_>, now_ms: i64) -> Option<Opened> {
        let opened = self.lock().asked(at, asked, now_ms, &self.inner.bounds);
        self.inner.wake.notify_one();
        opened
    }

    /// The agent's request was answered, by a client or through us. `None` when it doesn't wait here.
    pub fn answered(
        &self,
        server_id: &str,
        agent_request_id: &str,
        result: Option<&str>,
        by: &str,
        now_ms: i64,
    ) -> Option<Closed> {
        self.lock().answered(server_id, agent_request_id, result, by, now_ms, &self.inner.bounds)
    }

    /// The agent took its request back.
    pub fn withdrawn(&self, server_id: &str, agent_request_id: &str, now_ms: i64) -> Option<Closed> {
        self.lock().withdrawn(server_id, agent_request_id, now_ms)
    }

    /// The server's agent is gone: what it asked is lost.
    pub fn server_gone(&self, server_id: &str, reason: &str, now_ms: i64) -> Vec<Closed> {
        self.lock().server_gone(server_id, reason, now_ms)
    }

    /// A session is deleted: what was remembered for it goes, too. To be made with the event.
    pub fn forget_session(&self, session_id: &str) -> Vec<RowChange> {
        self.lock().book.forget_session(session_id)
    }

    /// What waits in a session, newest first.
    pub fn pending_in(&self, session_id: &str) -> Vec<Arc<RequestInfo>> {
        let mut pending = self.lock().all_pending();
        pending.retain(|info| info.session_id.as_deref() == Some(session_id));
        pending
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.inner.lock()
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner) // each change of it is whole
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.wake.notify_one();
    }
}
