//! A new agent process is told what its predecessor knew, one step at a time ([`restore`](crate::acp::restore)).

use std::sync::PoisonError;

use bytes::Bytes;
use serde_json::json;
use tokio::time::Instant;

use super::{Fetching, Held, Running, Waiter};
use crate::acp::agent::Agent;
use crate::acp::envelope::{Envelope, string_member};
use crate::acp::ids::Pending;
use crate::acp::messages;
use crate::acp::restore::{Purpose, Step};
use crate::acp::tap::{Fact, Transcript};
use crate::acp::types::{Launch, LaunchError, Status};
use crate::config::as_duration;
use crate::rt::clock::now_ms;

/// What is shown of an agent's refusal.
const SHOWN_MAX_BYTES: usize = 1024;

impl Running {
    pub(super) fn launch(&mut self) {
        if self.launching.is_none() && self.agent.is_none() {
            self.launching = Some(self.owner.source.launch(&self.owner.agent_name));
        }
    }

    pub(super) fn launched(&mut self, result: Result<Launch, LaunchError>) {
        self.launching = None;
        let agent =
            result.and_then(|launch| Agent::start(&self.owner.children, &launch, &self.owner.agent_name, &self.owner.bounds));
        match agent {
            Ok(agent) => {
                let reason = self.ended.take().unwrap_or_default();
                self.emit(messages::agent_restarted(&reason));
                self.owner.tap.happened(Fact::Started);
                self.agent = Some(agent);
                self.owner.status.send_replace(Status::Running { since_ms: now_ms() });
                self.go_on();
            }
            Err(error) => {
                let why = format!("the agent could not be started again: {error}");
                while let Some(Held { envelope, reply, .. }) = self.next_held() {
                    if let Some(reply) = reply {
                        self.refuse(&envelope, reply, &why);
                    }
                }
            }
        }
    }

    pub(super) fn begin_step(&mut self, step: Step) {
        let Some(agent) = &mut self.agent else { return };
        let (method, params) = (step.method.clone(), step.params.clone());
        self.replaying = (step.purpose == Purpose::Open).then(|| (string_member(&params, "sessionId").unwrap_or_default(), 0));
        let (client_id, waiter) = ("null".to_owned(), Waiter::Step(step));
        let pending = Pending { client_id, method: method.clone(), params: None, session: None, tag: None, waiter };
        let number = self.ids.insert_own(pending);
        self.step_deadline = Some(Instant::now() + as_duration(self.owner.bounds.acp_restore_timeout_ms));
        let request = messages::request(number, &method, &params);
        let request = Envelope::parse(request.clone())
            .map_or(request, |envelope| messages::apply_quirks(envelope, agent.quirks).text().clone());
        if !agent.input.send(&request) {
            self.step_deadline = Some(Instant::now());
        }
    }

    pub(super) fn step_answered(&mut self, envelope: &Envelope, step: &Step) {
        self.step_deadline = None;
        let suppressed = self.replaying.take().map_or(0, |(_, suppressed)| suppressed);
        match envelope.result() {
            Some(result) => self.step_succeeded(step, result, suppressed),
            None => self.step_failed(step, &cut(envelope.text())),
        }
        self.go_on();
    }

    pub(super) fn step_succeeded(&mut self, step: &Step, result: &str, suppressed: u64) {
        let change = self.owner.memory.step_succeeded(step, result).map(|learned| self.row_change(learned));
        let done = json!({"method": step.method, "sessionId": step.session}).to_string();
        self.owner.store.append(&self.owner.inbound, "acp.restored", done.into(), change);
        match (&step.session, step.purpose) {
            (Some(_), Purpose::Open) => self.restored(step, result, None, suppressed),
            (Some(session), Purpose::Fresh) => {
                let transcript = self.owner.tap.transcript(session);
                self.fetching = Some(Fetching { step: step.clone(), result: result.to_owned(), transcript });
            }
            (None, _) if step.purpose == Purpose::Initialize => self.initialized(result),
            _ => {}
        }
    }

    /// The words for a fresh session are there: they go with its next prompt.
    pub(super) fn fetched(&mut self, transcript: Option<Transcript>) {
        let Some(Fetching { step, result, .. }) = self.fetching.take() else { return };
        self.restored(&step, &result, transcript.as_ref(), 0);
        if let (Some(session), Some(transcript)) = (step.session, transcript) {
            self.words.insert(session, transcript.text);
        }
        self.go_on();
    }

    fn restored(&mut self, step: &Step, result: &str, transcript: Option<&Transcript>, suppressed: u64) {
        let Some(session) = &step.session else { return };
        let history = match (step.purpose, transcript) {
            (Purpose::Open, _) => "kept",
            (_, Some(_)) => "transcript",
            _ => "lost",
        };
        self.emit(messages::session_restored(session, &step.method, history, suppressed));
        let transcript = transcript.map(|transcript| (transcript.text.len(), transcript.truncated));
        self.owner.tap.happened(Fact::Restored { session, method: &step.method, transcript, result });
    }

    /// What the agent can do is known to everyone who asks the handle.
    pub(super) fn initialized(&mut self, result: &str) {
        *self.owner.initialized.lock().unwrap_or_else(PoisonError::into_inner) = Some(result.into());
        self.owner.tap.happened(Fact::Initialized { result });
    }

    /// When there is no other way, the envelope that needed the step is answered; those behind it get their own try.
    pub(super) fn step_failed(&mut self, step: &Step, why: &str) {
        tracing::warn!(server = self.owner.server_id, method = step.method, why, "a step of restoring was refused");
        if !self.owner.memory.step_failed(step) {
            self.refuse_front(&format!("the agent was restarted and {} failed: {why}", step.method));
        }
    }

    pub(super) fn refuse_front(&mut self, why: &str) {
        if let Some(Held { envelope, reply: Some(reply), .. }) = self.next_held() {
            self.refuse(&envelope, reply, why);
        }
    }

    pub(super) fn step_timed_out(&mut self) {
        self.step_deadline = None;
        self.replaying = None;
        self.refuse_front("the agent was restarted and did not answer in time");
        self.end_deaf_agent("did not answer while it was being restored");
    }

    /// While a session is loaded into a new process, it repeats what its clients have seen already.
    pub(super) fn is_replay(&mut self, envelope: &Envelope) -> bool {
        let Some((session, suppressed)) = &mut self.replaying else { return false };
        let repeated = envelope.method() == "session/update" && envelope.session_id().as_deref() == Some(session);
        *suppressed += u64::from(repeated);
        repeated
    }
}

/// The beginning of an agent's answer, for messages.
fn cut(text: &Bytes) -> String {
    String::from_utf8_lossy(&text[..text.len().min(SHOWN_MAX_BYTES)]).into_owned()
}
