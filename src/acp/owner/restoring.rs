//! A new agent process is told what its predecessor knew, one step at a time ([`restore`](crate::acp::restore)).

use std::sync::PoisonError;

use bytes::Bytes;
use serde_json::json;
use tokio::time::Instant;

use super::kept::LINE;
use super::{Fetching, Held, Restored, Running, Waiter};
use crate::acp::agent::Agent;
use crate::acp::envelope::{Envelope, raw_member, string_member};
use crate::acp::ids::Pending;
use crate::acp::messages;
use crate::acp::restore::{Learned, Purpose, Step};
use crate::acp::server::Handshake;
use crate::acp::tap::{Fact, Transcript};
use crate::acp::types::{Launch, LaunchError, Status};
use crate::config::as_duration;
use crate::rt::clock::now_ms;

/// What is shown of an agent's refusal.
const SHOWN_MAX_BYTES: usize = 1024;

/// ACP v1, "Initialization", authentication: the prompt wasn't looked at.
const AUTH_REQUIRED: &str = "-32000";

impl Running {
    pub(super) fn launch(&mut self) {
        if self.launching.is_none() && self.agent.is_none() {
            self.launching = Some(self.owner.source.launch(&self.owner.agent_name));
        }
    }

    pub(super) fn launched(&mut self, result: Result<Launch, LaunchError>) {
        self.launching = None;
        let names = (&*self.owner.instance, &*self.owner.agent_name);
        let agent =
            result.and_then(|launch| Agent::start(&self.owner.children, &launch, names, self.last_read_to, &self.owner.bounds));
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
        if !agent.send(&request, LINE, Vec::new) {
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
            (Some(session), Purpose::Open | Purpose::Fresh) => {
                let restored = Restored { step: step.clone(), result: result.to_owned(), suppressed };
                if self.owner.memory.owes_words(session) {
                    self.fetch(session, Some(restored));
                } else {
                    self.restored(session, &restored, "kept", None);
                }
            }
            (None, _) if step.purpose == Purpose::Initialize => self.initialized(&step.params, result),
            _ => {}
        }
    }

    /// What was said in a session is read for its next prompt, which waits for it.
    pub(super) fn fetch(&mut self, session: &str, restored: Option<Restored>) {
        let transcript = self.owner.tap.transcript(session);
        self.fetching = Some(Fetching { session: session.to_owned(), restored, transcript });
    }

    /// The words for a fresh session are there: they go with its next prompt.
    pub(super) fn fetched(&mut self, transcript: Option<Transcript>) {
        let Some(Fetching { session, restored, .. }) = self.fetching.take() else { return };
        if let Some(restored) = restored {
            let history = if transcript.is_some() { "transcript" } else { "lost" };
            self.restored(&session, &restored, history, transcript.as_ref());
        }
        self.words.insert(session, transcript.map(|transcript| transcript.text).unwrap_or_default());
        self.go_on();
    }

    fn restored(&mut self, session: &str, restored: &Restored, history: &str, transcript: Option<&Transcript>) {
        let Restored { step, result, suppressed } = restored;
        self.emit(messages::session_restored(session, &step.method, history, *suppressed));
        let transcript = transcript.map(|transcript| (transcript.text.len(), transcript.truncated));
        self.owner.tap.happened(Fact::Restored { session, method: &step.method, history, transcript, result });
    }

    /// A prompt was answered by the agent: it has the words that went with it, unless it wants a login first.
    pub(super) fn words_arrived(&mut self, method: &str, session: Option<&str>, answer: &Envelope) -> Option<Learned> {
        let session = session.filter(|session| method == "session/prompt" && self.owner.memory.owes_words(session))?;
        self.words.remove(session);
        let error = raw_member(std::str::from_utf8(answer.text()).unwrap_or_default(), "error");
        let is_login = error.and_then(|error| raw_member(error, "code")) == Some(AUTH_REQUIRED);
        if is_login { None } else { self.owner.memory.told_words(session) }
    }

    /// What agent and clients can do is known to everyone who asks the handle.
    pub(super) fn initialized(&mut self, params: &str, result: &str) {
        let handshake = Handshake { asked: Some(params.into()), answered: Some(result.into()) };
        *self.owner.handshake.lock().unwrap_or_else(PoisonError::into_inner) = handshake;
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
