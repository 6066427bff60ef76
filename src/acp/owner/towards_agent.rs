//! Clients' envelopes on their way to the agent: held until it is ready, renumbered, sent.

use bytes::Bytes;

use super::kept::{LINE, REPLIED, Replied, SENT, Said, json};
use super::{Answer, FROM_AGENT, FROM_CLIENT, Held, Post, Reply, Running, Waiter};
use crate::acp::envelope::{Envelope, Kind};
use crate::acp::ids::{Pending, Taken};
use crate::acp::messages;
use crate::acp::tap::{Fact, Prompted};
use crate::config::as_usize;
use crate::store::RowChange;

/// Methods whose answers say something about the session that their params name.
const ANSWERS_TELL: &[&str] =
    &["session/prompt", "session/load", "session/close", "session/delete", "session/set_mode", "session/set_config_option"];

impl Running {
    pub(super) fn post(&mut self, post: Post, reply: Reply) {
        let Post { envelope, tag, is_logged } = post;
        let in_seq = if is_logged {
            0
        } else {
            self.owner.store.append(&self.owner.inbound, FROM_CLIENT, envelope.text().clone(), None);
            self.owner.inbound.appended()
        };
        let reply = match envelope.kind() {
            Kind::Request => Some(reply),
            Kind::Notification | Kind::Response => {
                let _ = reply.send(Answer::Accepted); // the client may have left
                None
            }
        };
        match envelope.kind() {
            // An agent that is being restored may itself wait for it.
            Kind::Response => self.forward_unanswered(&envelope, in_seq),
            // With nothing before it there is nobody to be told, and nothing to be cancelled.
            Kind::Notification if self.agent.is_none() && self.held.is_empty() => {}
            Kind::Notification | Kind::Request => self.hold(Held { envelope, tag, reply, in_seq }),
        }
        if self.agent.is_none() && !self.held.is_empty() {
            self.launch();
        }
        self.go_on();
    }

    pub(super) fn hold(&mut self, held: Held) {
        let bytes = self.held_bytes + held.envelope.text().len();
        let bounds = &self.owner.bounds;
        if self.held.len() < as_usize(bounds.acp_pending_max_requests) && bytes <= as_usize(bounds.acp_stdin_queue_max_bytes) {
            self.held_bytes = bytes;
            self.held.push_back(held);
        } else if let Some(reply) = held.reply {
            self.refuse(&held.envelope, reply, "too much waits for this agent");
        }
    }

    pub(super) fn next_held(&mut self) -> Option<Held> {
        let next = self.held.pop_front();
        self.held_bytes -= next.as_ref().map_or(0, |held| held.envelope.text().len());
        self.doomed = self.doomed.map(|doomed| doomed.saturating_sub(1));
        next
    }

    /// Notifications and answers to the agent's own requests.
    pub(super) fn forward_unanswered(&mut self, envelope: &Envelope, in_seq: u64) {
        let mut replied = None;
        let line = match (envelope.kind(), envelope.id()) {
            (Kind::Response, Some(id)) => match self.ids.answered(id) {
                Taken::Late => {
                    return tracing::info!(
                        server = self.owner.server_id,
                        "a second answer, or one for an agent process that is gone, was dropped"
                    );
                }
                Taken::First => {
                    replied = Some(self.told_of_answer(id, envelope.result(), "client", Some(in_seq)));
                    self.towards_agent(envelope.clone()).text().clone()
                }
                Taken::Unknown => self.towards_agent(envelope.clone()).text().clone(),
            },
            (Kind::Notification, _) if envelope.method() == "$/cancel_request" => {
                let number = envelope.request_id().and_then(|id| self.ids.number_of(id));
                match number {
                    Some(number) => envelope.with_param("requestId", &number.to_string()).text().clone(),
                    None => return, // answered already: nothing to cancel
                }
            }
            _ => self.towards_agent(envelope.clone()).text().clone(),
        };
        let kind = if replied.is_some() { REPLIED } else { LINE };
        let about = || replied.as_ref().map_or_else(|| json(&Said { in_seq }), json);
        if self.agent.as_mut().is_some_and(|agent| !agent.send(&line, kind, about)) {
            tracing::warn!(server = self.owner.server_id, "the agent doesn't read its stdin: a notification was dropped");
        }
    }

    /// Sends on what is held, as far as the agent has been told what it needs.
    pub(super) fn go_on(&mut self) {
        // An agent that closed its stdin is on its way out: what is held learns of its exit.
        while self.step_deadline.is_none()
            && self.fetching.is_none()
            && self.exit.is_none()
            && self.agent.as_ref().is_some_and(|agent| !agent.is_input_closed())
        {
            let Some(Held { envelope, reply, .. }) = self.held.front() else { return };
            if reply.is_some() && self.owner.memory.must_wait(envelope) {
                return;
            }
            let needs_words = reply.as_ref().and_then(|_| self.needs_words(envelope));
            match (self.owner.memory.step_before(envelope).filter(|_| reply.is_some()), needs_words) {
                (Some(step), _) => self.begin_step(step),
                (None, Some(session)) => self.fetch(&session, None),
                (None, None) => match self.next_held() {
                    Some(Held { envelope, tag, reply: Some(reply), in_seq }) => {
                        self.forward_request(envelope, tag, reply, in_seq);
                    }
                    Some(Held { envelope, reply: None, in_seq, .. }) => self.forward_unanswered(&envelope, in_seq),
                    None => return,
                },
            }
        }
    }

    /// The session of a prompt with which the agent must be told what was said before, and the words aren't there.
    fn needs_words(&self, envelope: &Envelope) -> Option<String> {
        let session = envelope.session_id().filter(|_| envelope.method() == "session/prompt")?;
        (self.owner.memory.owes_words(&session) && !self.words.contains_key(&session)).then_some(session)
    }

    pub(super) fn forward_request(&mut self, envelope: Envelope, tag: Option<String>, reply: Reply, in_seq: u64) {
        self.owner.memory.heard(envelope.method());
        let is_of_session = ANSWERS_TELL.contains(&envelope.method());
        let session = envelope.session_id().filter(|_| is_of_session);
        let pending = Pending {
            client_id: envelope.id().unwrap_or("null").to_owned(),
            method: envelope.method().to_owned(),
            params: envelope
                .params()
                .filter(|params| self.owner.memory.wants_params(envelope.method(), params))
                .map(str::to_owned),
            session: session.clone(),
            tag: tag.clone(),
            waiter: Waiter::Client(reply),
        };
        let number = match self.ids.insert(pending) {
            Ok(number) => number,
            Err(Pending { waiter: Waiter::Client(reply), .. }) => {
                return self.refuse(&envelope, reply, "too many requests are in flight towards this agent");
            }
            Err(_) => return,
        };
        let prompted = session.filter(|_| envelope.method() == "session/prompt");
        if let Some(session) = &prompted {
            self.owner.memory.used(session);
        }
        let client_id = envelope.id().unwrap_or("null");
        if let (Some(session), Some(params)) = (&prompted, envelope.params())
            && !self.owner.tap.prompted(Prompted { session, number, client_id, params, tag: tag.as_deref() })
        {
            if let Some(Pending { waiter: Waiter::Client(reply), .. }) = self.ids.take(&number.to_string()) {
                self.refuse(&envelope, reply, "the prompt was taken back before it was sent");
            }
            return;
        }
        self.sends_turn |= prompted.is_some() && tag.is_some();
        let words = prompted.as_ref().and_then(|session| self.words.get_mut(session)).map(std::mem::take);
        let words = words.filter(|words| !words.is_empty());
        let sent = self.towards_agent(envelope.clone());
        let sent = words.as_ref().map_or_else(|| sent.clone(), |words| messages::with_words_before(&sent, words));
        let Some(agent) = &mut self.agent else { return };
        let sent = messages::apply_quirks(sent, agent.quirks);
        let note = || self.ids.get(number).map(|pending| Self::sent_note(number, pending, in_seq)).unwrap_or_default();
        if agent.send(&sent.with_id(&number.to_string()), SENT, note) {
            return;
        }
        if let (Some(session), Some(words)) = (&prompted, words) {
            self.words.insert(session.clone(), words); // for the next try
        }
        if let Some(Pending { waiter: Waiter::Client(reply), method, .. }) = self.ids.take(&number.to_string()) {
            let data = serde_json::json!({"agent": self.owner.agent_name});
            let id = envelope.id().unwrap_or("null");
            let text = messages::error_response(id, "the agent doesn't read its stdin", &data);
            self.prompt_failed(number, prompted.as_deref(), &method, &text);
            self.answer(text, reply);
        }
    }

    /// Answers a request of the agent's in its clients' place. False when somebody was first.
    pub(super) fn answer_agent(&mut self, id: &str, result: &str, by: &str) -> bool {
        if self.ids.answered(id) != Taken::First {
            return false;
        }
        let replied = self.told_of_answer(id, Some(result), by, None);
        if self.answered_already.remove(id) {
            return true; // it has that
        }
        let line = messages::result_response(id, result);
        if self.agent.as_mut().is_some_and(|agent| !agent.send(&line, REPLIED, || json(&replied))) {
            tracing::warn!(server = self.owner.server_id, "the agent doesn't read its stdin: an answer was dropped");
        }
        true
    }

    /// Everybody learns of the first answer.
    pub(super) fn told_of_answer(&mut self, id: &str, result: Option<&str>, by: &str, in_seq: Option<u64>) -> Replied {
        self.owner.tap.happened(Fact::Answered { id, result, by });
        let session = self.asked_in.remove(id);
        self.emit(messages::request_resolved(id, session.as_deref(), by, result));
        let (id, by, result) = (id.to_owned(), by.to_owned(), result.map(str::to_owned));
        Replied { id, by, result, session, out_seq: self.owner.outbound.appended(), in_seq }
    }

    /// A session that was opened afresh has another id on the agent's side.
    pub(super) fn towards_agent(&self, envelope: Envelope) -> Envelope {
        let Some(session) = envelope.session_id().filter(|_| self.owner.memory.renames()) else { return envelope };
        match self.owner.memory.agent_session(&session) {
            Some(agent_id) => envelope.with_param("sessionId", &serde_json::json!(agent_id).to_string()),
            None => envelope,
        }
    }

    /// And the other way round.
    pub(super) fn towards_clients(&self, envelope: &Envelope) -> Bytes {
        if !self.owner.memory.renames() {
            return envelope.text().clone();
        }
        let session = envelope.session_id();
        match session.as_deref().and_then(|session| self.owner.memory.client_session(session)) {
            Some(client_id) => envelope.with_param("sessionId", &serde_json::json!(client_id).to_string()).text().clone(),
            None => envelope.text().clone(),
        }
    }

    /// Answers a request that never reached the agent.
    pub(super) fn refuse(&mut self, envelope: &Envelope, reply: Reply, why: &str) {
        let data = serde_json::json!({"agent": self.owner.agent_name});
        self.answer(messages::error_response(envelope.id().unwrap_or("null"), why, &data), reply);
    }

    /// An answer reaches the log and the event stream first, then the POST.
    pub(super) fn answer(&mut self, text: Bytes, reply: Reply) {
        let answer = self.log_answer(text, None);
        let _ = reply.send(answer); // the client may have left: the stream has it
    }

    /// What a client is answered, on its way into the log, with what was learned from it in one transaction: a session that a
    /// client knows can be restored.
    pub(super) fn log_answer(&mut self, text: Bytes, change: Option<RowChange>) -> Answer {
        self.noted_to = self.read_to();
        let committed = self.owner.store.append_read_acked(&self.owner.outbound, FROM_AGENT, text.clone(), change, self.noted_to);
        Answer::Response { text, committed }
    }
}
