//! What an earlier run left pending. Until it is known whether the agent that asked lives, it waits like any other request:
//! then it is lost ([`Gate::take_lost`]), or goes on waiting ([`Gate::resume`]) under its id and with its deadline.

use std::sync::Arc;

use super::core::{Pending, State, gone, read};
use super::types::{Closed, Outcome, RequestInfo, Where};
use super::{Gate, rules};
use crate::config::Bounds;
use crate::rt::clock::now_ms;

impl State {
    /// A request that the file has as pending.
    pub(super) fn left_over(&mut self, info: RequestInfo) {
        let id = info.request_id.clone();
        self.by_agent.insert((info.server_id.clone(), info.agent_request_id.clone()), id.clone());
        self.deadlines.extend(info.deadline_at_ms.map(|at_ms| (at_ms, id.clone())));
        self.pending.insert(id.clone(), Pending::new(info, None));
        self.left.insert(id);
    }

    /// Ends those of servers that `lives` doesn't name.
    fn take_lost(&mut self, lives: impl Fn(&str) -> bool, now_ms: i64) -> Vec<Closed> {
        let mut lost: Vec<_> =
            self.left_infos().filter(|info| !lives(&info.server_id)).map(|info| info.request_id.clone()).collect();
        lost.sort_unstable();
        let reason = "the server was restarted, and the agent that asked is gone";
        lost.iter().rev().filter_map(|id| self.close(id, gone(Outcome::Lost, "server", reason, now_ms))).collect()
    }

    fn left_infos(&self) -> impl Iterator<Item = &Arc<RequestInfo>> {
        self.left.iter().filter_map(|id| self.pending.get(id)).map(|pending| &pending.info)
    }

    fn resume(&mut self, server_id: &str, cwd: impl Fn(&str) -> String, bounds: &Bounds) -> Vec<Arc<RequestInfo>> {
        let mut taken: Vec<_> = self.left_infos().filter(|info| info.server_id == server_id).cloned().collect();
        taken.sort_unstable_by(|a, b| a.request_id.cmp(&b.request_id));
        for info in &taken {
            self.left.remove(&info.request_id);
            let (Some(pending), Some(params)) = (self.pending.get_mut(&info.request_id), &info.params) else { continue };
            let cwd = info.session_id.as_deref().map(&cwd).unwrap_or_default();
            let (session_id, turn_id) = (info.session_id.as_deref(), info.turn_id.as_deref());
            let at = Where { session_id, server_id, agent: &info.agent, cwd: &cwd, turn_id };
            let subject = read(info.kind, at, params.get()).subject;
            pending.lasting = subject.and_then(|subject| rules::lasting(&subject, bounds.permission_rule_max_bytes));
        }
        taken
    }
}

impl Gate {
    /// Ends what an earlier run left pending of servers that `lives` doesn't name, to be appended to the log: newest first.
    pub fn take_lost(&self, lives: impl Fn(&str) -> bool) -> Vec<Closed> {
        self.lock().take_lost(lives, now_ms())
    }

    /// The agent of this server outlived the run that asked. Gives what waits of its requests, oldest first: the caller says of
    /// each whether it has been answered meanwhile. `cwd` knows the sessions' directories.
    pub fn resume(&self, server_id: &str, cwd: impl Fn(&str) -> String) -> Vec<Arc<RequestInfo>> {
        self.lock().resume(server_id, cwd, &self.inner.bounds)
    }

    /// True while what the agent asked under this id waits.
    pub fn waits(&self, server_id: &str, agent_request_id: &str) -> bool {
        self.lock().by_agent.contains_key(&(server_id.to_owned(), agent_request_id.to_owned()))
    }

    /// The agent will ask this again: we were killed before its question was in the log.
    pub fn expect_again(&self, info: &RequestInfo) {
        self.lock().again.insert(info.request_id.clone());
    }

    /// True, once, when the agent asks what it was expected to ask again: that is pending as it was.
    pub fn is_again(&self, server_id: &str, agent_request_id: &str, method: &str) -> bool {
        let mut state = self.lock();
        if state.again.is_empty() {
            return false;
        }
        let Some(id) = state.by_agent.get(&(server_id.to_owned(), agent_request_id.to_owned())).cloned() else { return false };
        state.pending(&id).is_some_and(|pending| pending.info.method == method) && state.again.remove(&id)
    }
}
