//! What the agent writes: lines, envelopes, answers; and those that can't be read.

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::kept::LINE;
use super::{FROM_AGENT, Running, Waiter};
use crate::acp::agent::AgentEvent;
use crate::acp::envelope::{self, Envelope, Fragment, Kind, raw_member, string_member};
use crate::acp::ids::Pending;
use crate::acp::line::Line;
use crate::acp::messages;
use crate::acp::restore::Learned;
use crate::acp::tap::{Asked, Fact, Verdict};
use crate::config::{as_duration, as_usize};
use crate::rt::spawn_owned;
use crate::store::RowChange;

/// What is read of an update.
#[derive(serde::Deserialize)]
struct UpdateParams<'a> {
    #[serde(rename = "sessionId", borrow)]
    session_id: Cow<'a, str>,
    #[serde(borrow)]
    update: &'a RawValue,
}

impl Running {
    pub(super) fn agent_event(&mut self, event: AgentEvent) {
        match event {
            AgentEvent::Read => self.read_lines(),
            AgentEvent::Written => {}
            AgentEvent::StdinClosed => {
                if let Some(agent) = &mut self.agent {
                    agent.close_input();
                    self.end_deaf_agent("closed its stdin");
                }
            }
            AgentEvent::Exited(exit) => {
                self.doomed.get_or_insert(self.held.len());
                self.exit = Some((exit, Instant::now() + as_duration(self.owner.bounds.acp_exit_drain_ms)));
            }
        }
    }

    pub(super) fn read_lines(&mut self) {
        while let Some(line) = self.agent.as_mut().and_then(|agent| agent.lines.next_line()) {
            self.line(line);
        }
        if self.agent.as_ref().is_some_and(|agent| agent.has_ended()) {
            if let Some(rest) = self.agent.as_mut().and_then(|agent| agent.lines.rest()) {
                self.line(rest);
            }
            if self.exit.is_none() {
                self.end_deaf_agent("closed its stdout");
            }
        }
    }

    /// An agent that can't be spoken with any more is ended: its exit then answers every waiter.
    pub(super) fn end_deaf_agent(&mut self, what: &str) {
        if let Some(agent) = &mut self.agent {
            self.doomed.get_or_insert(self.held.len());
            tracing::warn!(server = self.owner.server_id, pid = agent.process.pid(), "the agent {what} and is stopped");
            agent.close_input();
            let (process, grace) = (agent.process.clone(), as_duration(self.owner.bounds.agent_stop_grace_ms));
            spawn_owned("agent-stop", async move { process.stop(grace).await });
        }
    }

    pub(super) fn line(&mut self, line: Line) {
        match line {
            Line::TooLong { head, bytes } => {
                let max = self.owner.bounds.acp_line_max_bytes;
                self.unreadable(
                    &format!("a line of {bytes} bytes exceeds acp_line_max_bytes ({max}) and was dropped"),
                    &head,
                    bytes,
                );
            }
            Line::Whole(line) if line.iter().all(u8::is_ascii_whitespace) => {}
            Line::Whole(line) => match Envelope::parse(line.clone()) {
                Ok(envelope) => self.envelope(&envelope),
                // Arrays and scalars are passed on unchanged, as the contract has it.
                Err(envelope::ParseError::NotObject) => self.emit(envelope::on_one_line(trimmed(&line))),
                Err(error) => self.unreadable(&error.to_string(), &line, line.len() as u64),
            },
        }
    }

    pub(super) fn envelope(&mut self, envelope: &Envelope) {
        match envelope.kind() {
            Kind::Response => {
                let pending = envelope.id().and_then(|id| self.ids.take(id));
                match pending {
                    Some(pending) => self.answered(envelope, pending),
                    None if self.is_own_again(envelope) => {}
                    None => self.emit(envelope.text().clone()), // unknown or a second answer: only to the stream
                }
            }
            Kind::Request => self.asked(envelope),
            Kind::Notification if self.is_replay(envelope) => {}
            Kind::Notification => self.notified(envelope),
        }
    }

    /// A request of the agent's: a rule may answer it, otherwise clients do.
    fn asked(&mut self, envelope: &Envelope) {
        let id = envelope.id().unwrap_or("null").to_owned();
        self.ids.agent_asked(&id);
        let text = self.towards_clients(envelope);
        let shown = Envelope::parse(text.clone()).unwrap_or_else(|_| envelope.clone());
        let session = shown.session_id();
        self.note_asked(&id, session.as_deref());
        let asked =
            Asked { session: session.as_deref(), id: &id, method: shown.method(), params: shown.params().unwrap_or("null") };
        let verdict = self.owner.tap.asked(asked);
        if let Some(session) = session.filter(|_| self.asked_in.len() < as_usize(self.owner.bounds.acp_pending_max_requests)) {
            self.asked_in.insert(id.clone(), session);
        }
        match verdict {
            Verdict::Ask => self.emit(text),
            Verdict::Answer { result, by } => drop(self.answer_agent(&id, &result, &by)),
        }
    }

    fn notified(&mut self, envelope: &Envelope) {
        let text = self.towards_clients(envelope);
        self.emit(text.clone());
        match envelope.method() {
            "session/update" => {
                let Some(params) = envelope.params().and_then(|params| serde_json::from_str::<UpdateParams<'_>>(params).ok())
                else {
                    return;
                };
                let renamed = self.owner.memory.renames().then(|| self.owner.memory.client_session(&params.session_id)).flatten();
                let session = renamed.unwrap_or(&params.session_id);
                // A client that loads a session is told again what was said in it: that didn't happen now.
                if self.ids.any(|pending| pending.method == "session/load" && pending.session.as_deref() == Some(session)) {
                    return;
                }
                self.owner.tap.happened(Fact::Update { session, update: params.update.get() });
            }
            "$/cancel_request" => {
                let id = envelope.request_id().unwrap_or_default();
                if self.ids.withdrawn(id) {
                    self.note_withdrawn(id);
                    self.asked_in.remove(id);
                    self.owner.tap.happened(Fact::Withdrawn { id });
                }
            }
            _ => {}
        }
    }

    /// Tells of a prompt that is answered in the agent's place; `text` is the error answer.
    pub(super) fn prompt_failed(&mut self, number: u64, session: Option<&str>, method: &str, text: &Bytes) {
        let text = std::str::from_utf8(text).unwrap_or_default();
        if let (Some(session), "session/prompt") = (session, method) {
            let error = raw_member(text, "error").unwrap_or("null");
            self.owner.tap.happened(Fact::PromptEnded { session, number, answer: Err(error) });
        }
    }

    /// Tells of what an answer says about a session.
    fn told_of(&mut self, number: u64, pending: &Pending<()>, answer: &Envelope) {
        let (params, method) = (pending.params.as_deref().unwrap_or("null"), pending.method.as_str());
        let text = std::str::from_utf8(answer.text()).unwrap_or_default();
        let result = answer.result();
        match (method, result, pending.session.as_deref()) {
            ("initialize", Some(result), _) => self.initialized(params, result),
            ("session/prompt", result, Some(session)) => {
                let answer = result.ok_or_else(|| raw_member(text, "error").unwrap_or("null"));
                self.owner.tap.happened(Fact::PromptEnded { session, number, answer });
            }
            ("session/close" | "session/delete", Some(_), Some(session)) => {
                self.owner.memory.closed(session);
                self.words.remove(session);
                self.owner.tap.happened(Fact::Closed { session, method });
            }
            ("session/set_mode" | "session/set_config_option", Some(result), Some(session)) => {
                self.owner.tap.happened(Fact::Set { session, method, params, result });
            }
            ("session/new" | "session/fork", Some(result), _) => {
                if let Some(session) = string_member(result, "sessionId") {
                    let tag = pending.tag.as_deref();
                    self.owner.tap.happened(Fact::Opened { method, params, result, session: &session, tag });
                }
            }
            ("session/load" | "session/resume", Some(result), _) => {
                if let Some(session) = string_member(params, "sessionId") {
                    let tag = pending.tag.as_deref();
                    self.owner.tap.happened(Fact::Opened { method, params, result, session: &session, tag });
                }
            }
            _ => {}
        }
    }

    pub(super) fn answered(&mut self, envelope: &Envelope, pending: Pending<Waiter>) {
        let number = envelope.id().and_then(|id| id.parse().ok()).unwrap_or_default();
        self.note_done(number);
        let (waiter, pending) = pending.without_waiter();
        // A turn ends with its answer: were its end in the file and the answer not in the log, the next server would take it
        // for one that goes on. The rest is in the file before a client is told.
        let is_prompt = pending.method == "session/prompt";
        if !is_prompt {
            self.told_of(number, &pending, envelope);
        }
        let reply = match waiter {
            Waiter::Client(reply) => reply,
            Waiter::Step(step) => {
                self.own_done.insert(number, self.read_to());
                return self.step_answered(envelope, &step);
            }
        };
        let learned = match (&pending.params, envelope.result()) {
            (Some(params), Some(result)) => self.owner.memory.succeeded(&pending.method, params, result),
            _ => self.words_arrived(&pending.method, pending.session.as_deref(), envelope),
        };
        if envelope.result().is_none() {
            self.owner.memory.refused(&pending.method);
        }
        let change = learned.map(|learned| self.row_change(learned));
        let answer = self.log_answer(envelope.with_id(&pending.client_id), change);
        if is_prompt {
            self.told_of(number, &pending, envelope);
        }
        let _ = reply.send(answer); // the client may have left: the stream has it
        self.go_on(); // something may have waited for just this answer
    }

    pub(super) fn row_change(&self, learned: Learned) -> RowChange {
        let (server_id, instance) = (self.owner.server_id.clone(), self.owner.instance.clone());
        match learned {
            Learned::Initialize { params, result } => RowChange::SetInitialize { server_id, instance, params, result },
            Learned::Authenticate(params) => RowChange::SetAuthenticate { server_id, instance, params },
            Learned::Session { row, forget } => RowChange::PutAcpSession { server_id, instance, session: row, forget },
        }
    }

    pub(super) fn emit(&mut self, text: Bytes) {
        self.noted_to = self.read_to();
        self.owner.store.append_read(&self.owner.outbound, FROM_AGENT, text, None, self.noted_to);
    }

    /// A line that is no JSON, or too long, is reported; and whoever waits for it must not wait for ever.
    pub(super) fn unreadable(&mut self, error: &str, head: &[u8], bytes: u64) {
        self.owner.tap.happened(Fact::Unreadable { error, head });
        self.emit(messages::invalid_stdout(error, head, bytes, as_usize(self.owner.bounds.acp_raw_shown_max_bytes)));
        let data = json!({"agent": self.owner.agent_name});
        match Fragment::read(head) {
            Fragment { id: Some(id), has_method: true } => {
                let refusal = messages::error_response(&id, error, &data);
                if let Some(agent) = &mut self.agent {
                    agent.send(&refusal, LINE, Vec::new); // it doesn't read: then it can't be told
                }
            }
            Fragment { id: Some(id), has_method: false } => match self.ids.take(&id) {
                Some(Pending { client_id, session, method, waiter: Waiter::Client(reply), .. }) => {
                    self.note_done(id.parse().unwrap_or_default());
                    let text = messages::error_response(&client_id, error, &data);
                    self.prompt_failed(id.parse().unwrap_or_default(), session.as_deref(), &method, &text);
                    self.answer(text, reply);
                }
                Some(Pending { waiter: Waiter::Step(step), .. }) => {
                    (self.step_deadline, self.replaying) = (None, None);
                    self.step_failed(&step, error);
                    self.go_on();
                }
                None => {}
            },
            Fragment { id: None, .. } => {}
        }
    }
}

fn trimmed(line: &Bytes) -> Bytes {
    line.slice_ref(line.trim_ascii())
}
