//! The owner of one ACP server: the only one that touches its agent, its ids and its streams.
//!
//! ```text
//!            POST, no agent                launched             exit, stdout read to its end
//!  absent ───────────────────▶ launching ───────────▶ running ───────────────────────────────▶ absent
//!                                  │ failed: everything held is answered with the reason
//! ```
//! While running, a request may be *held*: the agent process is new and must first be told what the client told its
//! predecessor ([`restore`](super::restore)). Held envelopes go on in order. Exit, deletion and shutdown answer every
//! waiter at once. Dropping a client's end of a reply drops nothing else.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::agent::{Agent, AgentEvent};
use super::envelope::{Envelope, Kind, string_member};
use super::ids::{Ids, Pending};
use super::line::Line;
use super::restore::{Learned, Memory, Purpose, Step};
use super::types::{AgentSource, BoxFuture, Launch, LaunchError, Status};
use super::{envelope, messages};
use crate::config::{Bounds, as_duration, as_usize};
use crate::processes::{Exit, Processes};
use crate::rt::clock::now_ms;
use crate::rt::spawn_owned;
use crate::store::{RowChange, Store, Stream};

/// Log types of the two directions.
const FROM_CLIENT: &str = "acp.client";
const FROM_AGENT: &str = "acp.agent";

/// What the owner is asked.
pub(super) enum Command {
    /// An envelope from a client.
    Post { envelope: Envelope, reply: Reply },
    /// The server is deleted; the reply comes when its processes are gone.
    Delete { reply: oneshot::Sender<()> },
}

/// What an envelope came to.
pub(super) enum Answer {
    /// Taken; nothing will answer it.
    Accepted,
    /// The answer under the client's id, and when it is in the log and the event stream, at which position.
    Response { text: Bytes, committed: oneshot::Receiver<u64> },
}

type Reply = oneshot::Sender<Answer>;

/// Who waits for an agent's answer.
enum Waiter {
    Client(Reply),
    /// A step of ours, for the envelope at the front of `held`.
    Step(Step),
}

/// Everything the owner is made of; see [`Owner::run`].
pub(super) struct Owner {
    pub(super) server_id: String,
    pub(super) instance: String,
    pub(super) agent_name: String,
    pub(super) inbound: Arc<Stream>,
    pub(super) outbound: Arc<Stream>,
    pub(super) store: Store,
    pub(super) processes: Processes,
    pub(super) source: Arc<dyn AgentSource>,
    pub(super) bounds: Bounds,
    pub(super) mailbox: mpsc::Receiver<Command>,
    pub(super) status: watch::Sender<Status>,
    pub(super) memory: Memory,
    pub(super) stop: CancellationToken,
}

/// The owner with what changes while it runs.
struct Running {
    owner: Owner,
    ids: Ids<Waiter>,
    agent: Option<Agent>,
    launching: Option<BoxFuture<Result<Launch, LaunchError>>>,
    held: VecDeque<(Envelope, Reply)>,
    /// The session whose repeated updates are left out, and how many were.
    replaying: Option<(String, u64)>,
    step_deadline: Option<Instant>,
    /// Set when the process is gone but its stdout is not yet read to the end.
    exit: Option<(Exit, Instant)>,
    /// How the last process ended, when there was one.
    ended: Option<String>,
}

impl Owner {
    /// Runs until the server is deleted or shut down. `first` is the agent of a server just made; a server from an
    /// earlier run starts without one.
    pub(super) async fn run(self, first: Option<Agent>) {
        let ids = Ids::new(as_usize(self.bounds.acp_pending_max_requests));
        let ended = first.is_none().then(|| "the server was restarted".to_owned());
        let mut running = Running {
            owner: self,
            ids,
            agent: first,
            launching: None,
            held: VecDeque::new(),
            replaying: None,
            step_deadline: None,
            exit: None,
            ended,
        };
        let deleted = running.serve().await;
        running.finish(deleted).await;
    }
}

impl Running {
    /// The loop. Gives the reply to a deletion; `None` on shutdown.
    async fn serve(&mut self) -> Option<oneshot::Sender<()>> {
        let stop = self.owner.stop.clone();
        loop {
            let exited = self.exit.is_some();
            // Nobody waits to see an envelope from a client in the log: one transaction takes it and its answer.
            let mut may_wait = false;
            tokio::select! {
                () = stop.cancelled() => return None,
                command = self.owner.mailbox.recv() => match command {
                    Some(Command::Post { envelope, reply }) => {
                        self.post(envelope, reply);
                        may_wait = true;
                    }
                    Some(Command::Delete { reply }) => return Some(reply),
                    None => return None,
                },
                result = launched(&mut self.launching) => self.launched(result),
                () = until(self.step_deadline) => self.step_timed_out(),
                event = event_of(self.agent.as_mut(), &self.owner.store, exited) => self.agent_event(event),
                () = until(self.exit.map(|(_, deadline)| deadline)) => self.agent_gone().await,
            }
            if self.exit.is_some() && self.agent.as_ref().is_some_and(|agent| agent.output.ended()) {
                self.agent_gone().await;
            }
            if let Some(agent) = &mut self.agent {
                agent.input.write_now(); // before the commit: the agent works meanwhile
            }
            if !may_wait {
                self.owner.store.flush();
            }
        }
    }

    // ---- towards the agent ------------------------------------------------------------------------------------

    fn post(&mut self, envelope: Envelope, reply: Reply) {
        self.owner.store.append(&self.owner.inbound, FROM_CLIENT, envelope.text().clone(), None);
        let is_request = envelope.kind() == Kind::Request;
        if self.agent.is_none() || self.exit.is_some() {
            if !is_request {
                let _ = reply.send(Answer::Accepted); // nobody is there to be told, and nothing to be cancelled
                return;
            }
            self.hold(envelope, reply);
            self.launch();
        } else if is_request {
            self.hold(envelope, reply);
            self.go_on();
        } else {
            self.forward_unanswered(&envelope);
            let _ = reply.send(Answer::Accepted);
        }
    }

    fn hold(&mut self, envelope: Envelope, reply: Reply) {
        if self.held.len() < as_usize(self.owner.bounds.acp_pending_max_requests) {
            self.held.push_back((envelope, reply));
        } else {
            self.refuse(&envelope, reply, "too many requests wait for this agent");
        }
    }

    /// Notifications and answers to the agent's own requests.
    fn forward_unanswered(&mut self, envelope: &Envelope) {
        let line = match (envelope.kind(), envelope.id()) {
            (Kind::Response, Some(id)) if !self.ids.client_answered(id) => {
                return tracing::info!(server = self.owner.server_id, "an answer for an agent process that is gone was dropped");
            }
            (Kind::Notification, _) if envelope.method() == "$/cancel_request" => {
                let number = envelope.request_id().and_then(|id| self.ids.number_of(id));
                match number {
                    Some(number) => envelope.with_param("requestId", &number.to_string()).text().clone(),
                    None => return, // answered already: nothing to cancel
                }
            }
            _ => self.towards_agent(envelope.clone()).text().clone(),
        };
        if self.agent.as_mut().is_some_and(|agent| !agent.input.send(&line)) {
            tracing::warn!(server = self.owner.server_id, "the agent doesn't read its stdin: a notification was dropped");
        }
    }

    /// Sends on what is held, as far as the agent has been told what it needs.
    fn go_on(&mut self) {
        while self.step_deadline.is_none() && self.exit.is_none() && self.agent.is_some() {
            let Some((envelope, _)) = self.held.front() else { return };
            match self.owner.memory.step_before(envelope) {
                Some(step) => self.begin_step(step),
                None => {
                    let Some((envelope, reply)) = self.held.pop_front() else { return };
                    self.forward_request(envelope, reply);
                }
            }
        }
    }

    fn forward_request(&mut self, envelope: Envelope, reply: Reply) {
        self.owner.memory.heard(envelope.method());
        let pending = Pending {
            client_id: envelope.id().unwrap_or("null").to_owned(),
            method: envelope.method().to_owned(),
            params: Memory::wants_params(envelope.method()).then(|| envelope.params().unwrap_or("{}").to_owned()),
            waiter: Waiter::Client(reply),
        };
        let number = match self.ids.insert(pending) {
            Ok(number) => number,
            Err(Pending { waiter: Waiter::Client(reply), .. }) => {
                return self.refuse(&envelope, reply, "too many requests are in flight towards this agent");
            }
            Err(_) => return,
        };
        let envelope = self.towards_agent(envelope);
        let Some(agent) = &mut self.agent else { return };
        let envelope = messages::apply_quirks(envelope, agent.quirks);
        let number = number.to_string();
        if !agent.input.send(&envelope.with_id(&number))
            && let Some(Pending { waiter: Waiter::Client(reply), .. }) = self.ids.take(&number)
        {
            self.refuse(&envelope, reply, "the agent doesn't read its stdin");
        }
    }

    /// A session that was opened afresh has another id on the agent's side.
    fn towards_agent(&self, envelope: Envelope) -> Envelope {
        let Some(session) = envelope.session_id().filter(|_| self.owner.memory.renames()) else { return envelope };
        match self.owner.memory.agent_session(&session) {
            Some(agent_id) => envelope.with_param("sessionId", &json!(agent_id).to_string()),
            None => envelope,
        }
    }

    /// And the other way round.
    fn towards_clients(&self, envelope: &Envelope) -> Bytes {
        if !self.owner.memory.renames() {
            return envelope.text().clone();
        }
        let session = envelope.session_id();
        match session.as_deref().and_then(|session| self.owner.memory.client_session(session)) {
            Some(client_id) => envelope.with_param("sessionId", &json!(client_id).to_string()).text().clone(),
            None => envelope.text().clone(),
        }
    }

    /// Answers a request that never reached the agent.
    fn refuse(&mut self, envelope: &Envelope, reply: Reply, why: &str) {
        let data = json!({"agent": self.owner.agent_name});
        self.answer(messages::error_response(envelope.id().unwrap_or("null"), why, &data), reply);
    }

    /// An answer reaches the log and the event stream first, then the POST.
    fn answer(&self, text: Bytes, reply: Reply) {
        self.answer_with(text, reply, None);
    }

    /// The same, with what was learned from it in one transaction: a session that a client knows can be restored.
    fn answer_with(&self, text: Bytes, reply: Reply, change: Option<RowChange>) {
        let committed = self.owner.store.append_acked(&self.owner.outbound, FROM_AGENT, text.clone(), change);
        let _ = reply.send(Answer::Response { text, committed }); // the client may have left: the stream has it
    }

    // ---- from the agent ---------------------------------------------------------------------------------------

    fn agent_event(&mut self, event: AgentEvent) {
        match event {
            AgentEvent::Read => self.read_lines(),
            AgentEvent::Written => {}
            AgentEvent::StdinClosed => {
                if let Some(agent) = &mut self.agent {
                    agent.input.close();
                    self.end_deaf_agent("closed its stdin");
                }
            }
            AgentEvent::Exited(exit) => {
                self.exit = Some((exit, Instant::now() + as_duration(self.owner.bounds.acp_exit_drain_ms)));
            }
        }
    }

    fn read_lines(&mut self) {
        while let Some(line) = self.agent.as_mut().and_then(|agent| agent.output.lines.next_line()) {
            self.line(line);
        }
        if self.agent.as_ref().is_some_and(|agent| agent.output.ended()) {
            if let Some(rest) = self.agent.as_mut().and_then(|agent| agent.output.lines.rest()) {
                self.line(rest);
            }
            if self.exit.is_none() {
                self.end_deaf_agent("closed its stdout");
            }
        }
    }

    /// An agent that can't be spoken with any more is ended: its exit then answers every waiter.
    fn end_deaf_agent(&mut self, what: &str) {
        if let Some(agent) = &mut self.agent {
            tracing::warn!(server = self.owner.server_id, pid = agent.process.pid(), "the agent {what} and is stopped");
            agent.input.close();
            let (process, grace) = (agent.process.clone(), as_duration(self.owner.bounds.agent_stop_grace_ms));
            spawn_owned("agent-stop", async move { process.stop(grace).await });
        }
    }

    fn line(&mut self, line: Line) {
        let shown = as_usize(self.owner.bounds.acp_raw_shown_max_bytes);
        match line {
            Line::TooLong { head, bytes } => self.line_too_long(&head, bytes),
            Line::Whole(line) if line.iter().all(u8::is_ascii_whitespace) => {}
            Line::Whole(line) => match Envelope::parse(line.clone()) {
                Ok(envelope) => self.envelope(&envelope),
                // Arrays and scalars are passed on unchanged, as the contract has it.
                Err(envelope::ParseError::NotObject) => self.emit(trimmed(&line)),
                Err(error) => self.emit(messages::invalid_stdout(&error.to_string(), &line, line.len() as u64, shown)),
            },
        }
    }

    fn envelope(&mut self, envelope: &Envelope) {
        match envelope.kind() {
            Kind::Response => {
                let pending = envelope.id().and_then(|id| self.ids.take(id));
                match pending {
                    Some(pending) => self.answered(envelope, pending),
                    None => self.emit(envelope.text().clone()), // unknown or a second answer: only to the stream
                }
            }
            Kind::Request => {
                self.ids.agent_asked(envelope.id().unwrap_or("null"));
                self.emit(self.towards_clients(envelope));
            }
            Kind::Notification if self.is_replay(envelope) => {}
            Kind::Notification => self.emit(self.towards_clients(envelope)),
        }
    }

    fn answered(&mut self, envelope: &Envelope, pending: Pending<Waiter>) {
        let reply = match pending.waiter {
            Waiter::Client(reply) => reply,
            Waiter::Step(step) => return self.step_answered(envelope, &step),
        };
        let learned = match (&pending.params, envelope.result()) {
            (Some(params), Some(result)) => self.owner.memory.succeeded(&pending.method, params, result),
            _ => None,
        };
        let change = learned.map(|learned| self.row_change(learned));
        self.answer_with(envelope.with_id(&pending.client_id), reply, change);
    }

    fn row_change(&self, learned: Learned) -> RowChange {
        let (server_id, instance) = (self.owner.server_id.clone(), self.owner.instance.clone());
        match learned {
            Learned::Initialize(params) => RowChange::SetInitialize { server_id, instance, params },
            Learned::Authenticate(params) => RowChange::SetAuthenticate { server_id, instance, params },
            Learned::Session { row, forget } => RowChange::PutAcpSession { server_id, instance, session: row, forget },
        }
    }

    fn emit(&self, text: Bytes) {
        self.owner.store.append(&self.owner.outbound, FROM_AGENT, text, None);
    }

    fn line_too_long(&mut self, head: &[u8], bytes: u64) {
        let max = self.owner.bounds.acp_line_max_bytes;
        let error = format!("a line of {bytes} bytes exceeds acp_line_max_bytes ({max}) and was dropped");
        self.emit(messages::invalid_stdout(&error, head, bytes, as_usize(self.owner.bounds.acp_raw_shown_max_bytes)));
        let answered = envelope::id_in_head(head).and_then(|id| self.ids.take(&id.to_string()));
        if let Some(Pending { client_id, waiter: Waiter::Client(reply), .. }) = answered {
            self.answer(messages::error_response(&client_id, &error, &json!({"agent": self.owner.agent_name})), reply);
        }
    }

    // ---- restoring --------------------------------------------------------------------------------------------

    fn launch(&mut self) {
        if self.launching.is_none() && self.agent.is_none() {
            self.launching = Some(self.owner.source.launch(&self.owner.agent_name));
        }
    }

    fn launched(&mut self, result: Result<Launch, LaunchError>) {
        self.launching = None;
        let agent =
            result.and_then(|launch| Agent::start(&self.owner.processes, &launch, &self.owner.agent_name, &self.owner.bounds));
        match agent {
            Ok(agent) => {
                let reason = self.ended.take().unwrap_or_default();
                self.emit(messages::agent_restarted(&reason));
                self.agent = Some(agent);
                self.owner.status.send_replace(Status::Running { since_ms: now_ms() });
                self.go_on();
            }
            Err(error) => {
                let why = format!("the agent could not be started again: {error}");
                for (envelope, reply) in std::mem::take(&mut self.held) {
                    self.refuse(&envelope, reply, &why);
                }
            }
        }
    }

    fn begin_step(&mut self, step: Step) {
        let Some(agent) = &mut self.agent else { return };
        let (method, params) = (step.method.clone(), step.params.clone());
        self.replaying = (step.purpose == Purpose::Open).then(|| (string_member(&params, "sessionId").unwrap_or_default(), 0));
        let pending = Pending { client_id: "null".into(), method: method.clone(), params: None, waiter: Waiter::Step(step) };
        let Ok(number) = self.ids.insert(pending) else { return };
        self.step_deadline = Some(Instant::now() + as_duration(self.owner.bounds.acp_restore_timeout_ms));
        if !agent.input.send(&messages::request(number, &method, &params)) {
            self.step_deadline = Some(Instant::now());
        }
    }

    fn step_answered(&mut self, envelope: &Envelope, step: &Step) {
        self.step_deadline = None;
        let suppressed = self.replaying.take().map_or(0, |(_, suppressed)| suppressed);
        match envelope.result() {
            Some(result) => self.step_succeeded(step, result, suppressed),
            None => self.step_failed(step, &String::from_utf8_lossy(envelope.text())),
        }
        self.go_on();
    }

    fn step_succeeded(&mut self, step: &Step, result: &str, suppressed: u64) {
        let change = self.owner.memory.step_succeeded(step, result).map(|learned| self.row_change(learned));
        if let (Some(session), Purpose::Open | Purpose::Fresh) = (&step.session, step.purpose) {
            let text = messages::session_restored(session, &step.method, step.purpose == Purpose::Open, suppressed);
            self.owner.store.append(&self.owner.outbound, FROM_AGENT, text, change);
        }
    }

    /// When there is no other way, the envelope that needed the step is answered; those behind it get their own try.
    fn step_failed(&mut self, step: &Step, why: &str) {
        tracing::warn!(server = self.owner.server_id, method = step.method, why, "a step of restoring was refused");
        if !self.owner.memory.step_failed(step) {
            self.refuse_front(&format!("the agent was restarted and {} failed: {why}", step.method));
        }
    }

    fn refuse_front(&mut self, why: &str) {
        if let Some((envelope, reply)) = self.held.pop_front() {
            self.refuse(&envelope, reply, why);
        }
    }

    fn step_timed_out(&mut self) {
        self.step_deadline = None;
        self.replaying = None;
        self.refuse_front("the agent was restarted and did not answer in time");
        self.end_deaf_agent("did not answer while it was being restored");
    }

    /// While a session is loaded into a new process, it repeats what its clients have seen already.
    fn is_replay(&mut self, envelope: &Envelope) -> bool {
        let Some((session, suppressed)) = &mut self.replaying else { return false };
        let repeated = envelope.method() == "session/update" && envelope.session_id().as_deref() == Some(session);
        *suppressed += u64::from(repeated);
        repeated
    }

    // ---- ends -------------------------------------------------------------------------------------------------

    /// The process is gone and its output is read: everyone who waits is told, and what it left behind is ended.
    async fn agent_gone(&mut self) {
        let (Some((exit, _)), Some(mut agent)) = (self.exit.take(), self.agent.take()) else { return };
        if let Some(rest) = agent.output.lines.rest() {
            self.line(rest);
        }
        let process = agent.process.clone();
        spawn_owned("agent-leftovers", async move { process.stop(Duration::ZERO).await });
        let stderr = agent.stderr_tail(Duration::from_millis(100)).await;
        self.owner.status.send_replace(Status::Stopped);
        self.owner.memory.forget_process();
        (self.step_deadline, self.replaying) = (None, None);
        self.ended = Some(exit.to_string());
        self.emit(messages::agent_exited(exit, &stderr));
        let message = format!("agent process exited: {} ({exit})", self.owner.agent_name);
        self.fail_all(&message, &messages::exit_data(&self.owner.agent_name, exit, &stderr));
    }

    fn fail_all(&mut self, message: &str, data: &serde_json::Value) {
        for pending in self.ids.drain() {
            if let Waiter::Client(reply) = pending.waiter {
                self.answer(messages::error_response(&pending.client_id, message, data), reply);
            }
        }
        for (envelope, reply) in std::mem::take(&mut self.held) {
            self.answer(messages::error_response(envelope.id().unwrap_or("null"), message, data), reply);
        }
    }

    /// Deleted or shut down: the agent's tree is stopped, every waiter answered, and the streams end.
    async fn finish(mut self, deleted: Option<oneshot::Sender<()>>) {
        let message = if deleted.is_some() { "the ACP server was deleted" } else { "the server is shutting down" };
        self.fail_all(message, &json!({"agent": self.owner.agent_name}));
        self.owner.mailbox.close();
        while let Ok(command) = self.owner.mailbox.try_recv() {
            if let Command::Delete { reply } = command {
                let _ = reply.send(());
            } // a dropped Post reply is answered by the handle
        }
        if let Some(mut agent) = self.agent.take() {
            agent.input.close();
            let stopped = agent.process.stop(as_duration(self.owner.bounds.agent_stop_grace_ms)).await;
            tracing::info!(server = self.owner.server_id, ?stopped, "agent stopped");
        }
        self.owner.status.send_replace(Status::Stopped);
        // Its commit shows that everything before it is committed and shown: only then do the streams end.
        let mark = if deleted.is_some() { "acp.deleted" } else { "acp.stopped" };
        let marked = self.owner.store.append_acked(&self.owner.inbound, mark, Bytes::from_static(b"{}"), None);
        self.owner.store.flush();
        let _ = marked.await; // a closed store: nothing more can be shown
        self.owner.outbound.end();
        self.owner.inbound.end();
        if let Some(reply) = deleted {
            let _ = reply.send(());
        }
    }
}

/// Waits for ever when there is no agent. Cancel safe.
async fn event_of(agent: Option<&mut Agent>, store: &Store, exited: bool) -> AgentEvent {
    match agent {
        Some(agent) => agent.event(store, exited).await,
        None => std::future::pending().await,
    }
}

async fn launched(launching: &mut Option<BoxFuture<Result<Launch, LaunchError>>>) -> Result<Launch, LaunchError> {
    match launching {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn trimmed(line: &Bytes) -> Bytes {
    line.slice_ref(line.trim_ascii())
}
