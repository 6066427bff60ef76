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

mod from_agent;
mod kept;
mod restoring;
mod towards_agent;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::agent::{Agent, AgentEvent, Taken};
use super::envelope::Envelope;
use super::ids::Ids;
use super::messages;
use super::restore::{Memory, Step};
use super::server::Handshake;
use super::tap::{Fact, Tap, Transcript};
use super::types::{AgentSource, BoxFuture, Launch, LaunchError, Status};
use crate::config::{Bounds, as_duration, as_usize};
use crate::processes::{Children, Exit};
use crate::rt::spawn_owned;
use crate::store::{Store, Stream};

/// Log types of the two directions.
const FROM_CLIENT: &str = "acp.client";
const FROM_AGENT: &str = "acp.agent";

/// An envelope from a client.
pub(super) struct Post {
    pub(super) envelope: Envelope,
    /// What its sender gives along.
    pub(super) tag: Option<String>,
    /// An earlier server wrote it into the log.
    pub(super) is_logged: bool,
}

/// What the owner is asked.
pub(super) enum Command {
    /// An envelope from a client.
    Post { post: Post, reply: Reply },
    /// A result for a request of the agent's. The reply says whether it was the first.
    Answer { id: String, result: String, by: String, reply: oneshot::Sender<bool> },
    /// A session that another server carried before; see [`Acp::remember`](super::Acp::remember).
    Remember { session_id: String, params: String, settings: Vec<(String, String)> },
    /// `first` is called, then `look` with the newest position of the events, when all that passed and what `first` appended
    /// is in the file; nothing passes meanwhile.
    Look { first: Box<dyn FnOnce() + Send>, look: Box<dyn FnOnce(u64) + Send> },
    /// The agent process shall end; the next request starts another. The reply comes when nothing of it is left.
    StopAgent { reason: String, grace: Duration, only_idle: bool, reply: oneshot::Sender<()> },
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
    pub(super) children: Children,
    pub(super) source: Arc<dyn AgentSource>,
    pub(super) bounds: Bounds,
    pub(super) mailbox: mpsc::Receiver<Command>,
    pub(super) status: watch::Sender<Status>,
    pub(super) memory: Memory,
    pub(super) tap: Box<dyn Tap>,
    /// For those who ask the handle.
    pub(super) handshake: Arc<Mutex<Handshake>>,
    pub(super) stop: CancellationToken,
    /// How far the stdout of its agents was read with what is in the log.
    pub(super) read_to: u64,
}

/// The agent that a server begins with.
pub(super) enum First {
    /// Just started.
    New(Box<Agent>),
    /// It outlived the server before this one. Who waits is told when it goes on.
    Taken(Box<Taken>, oneshot::Sender<()>),
    /// None: the next request starts one.
    None,
}

/// The owner with what changes while it runs.
struct Running {
    owner: Owner,
    ids: Ids<Waiter>,
    agent: Option<Agent>,
    launching: Option<BoxFuture<Result<Launch, LaunchError>>>,
    /// What waits for the agent to be ready, in order; a notification has nobody who waits.
    held: VecDeque<Held>,
    held_bytes: usize,
    /// The session whose repeated updates are left out, and how many were.
    replaying: Option<(String, u64)>,
    step_deadline: Option<Instant>,
    /// Set when the process is gone but its stdout is not yet read to the end.
    exit: Option<(Exit, Instant)>,
    /// How the last process ended, when there was one.
    ended: Option<String>,
    /// Words for a session that was opened afresh are being fetched.
    fetching: Option<Fetching>,
    /// Set while the process is ending: so many of what is held, from the front, go down with it. What came later
    /// waits for the next process.
    doomed: Option<usize>,
    /// A turn of a queue is about to be sent.
    sends_turn: bool,
    /// Sessions of the agent's open requests, by its id for them.
    asked_in: HashMap<String, String>,
    /// How far the stdout of agents was read that are gone.
    last_read_to: u64,
    /// What was read and isn't committed yet: the position of the last event of it, and how far it was read.
    unsettled: VecDeque<(u64, u64)>,
    /// How far was read with the last event: what came later and made none is read again by the next server.
    noted_to: u64,
    /// Answers to requests of ours that made no event: where each ends in the agent's stdout, by the request's number.
    own_done: HashMap<u64, u64>,
    /// Of the agent's knowledge that was noted for the next server.
    noted_version: u64,
    /// Requests of the agent's that are read again, and were answered under the last server.
    answered_already: HashSet<String>,
    /// Words that go with the next prompt, by session as clients call it; empty once they are on their way.
    words: HashMap<String, String>,
}

/// An envelope that waits for the agent.
struct Held {
    envelope: Envelope,
    tag: Option<String>,
    /// Nobody waits for an answer to a notification.
    reply: Option<Reply>,
    /// Its position in the inbound stream.
    in_seq: u64,
}

/// What was said in a session is being read, for the agent's fresh one.
struct Fetching {
    session: String,
    /// Set when the session was restored just now, which is told then.
    restored: Option<Restored>,
    transcript: BoxFuture<Option<Transcript>>,
}

/// A step that opened a session again.
struct Restored {
    step: Step,
    result: String,
    /// Repeated updates that were left out.
    suppressed: u64,
}

impl Owner {
    /// Runs until the server is deleted or shut down.
    pub(super) async fn run(self, first: First) {
        let ids = Ids::new(as_usize(self.bounds.acp_pending_max_requests));
        let ended = matches!(first, First::None).then(|| "the server was restarted".to_owned());
        let (agent, taken) = match first {
            First::New(agent) => (Some(*agent), None),
            First::Taken(taken, goes_on) => (None, Some((taken, goes_on))),
            First::None => (None, None),
        };
        let last_read_to = self.read_to;
        let mut running = Running {
            owner: self,
            ids,
            agent,
            launching: None,
            held: VecDeque::new(),
            held_bytes: 0,
            replaying: None,
            step_deadline: None,
            exit: None,
            ended,
            fetching: None,
            doomed: None,
            sends_turn: false,
            asked_in: HashMap::new(),
            last_read_to,
            unsettled: VecDeque::new(),
            noted_to: last_read_to,
            own_done: HashMap::new(),
            noted_version: 0,
            answered_already: HashSet::new(),
            words: HashMap::new(),
        };
        if let Some((taken, goes_on)) = taken {
            running.take_over(*taken).await;
            let _ = goes_on.send(()); // nobody waits
        }
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
                    Some(Command::Post { post, reply }) => {
                        if let Some(session) = post.envelope.session_id() {
                            self.load(&session).await;
                        }
                        self.post(post, reply);
                        may_wait = true;
                    }
                    Some(Command::Answer { id, result, by, reply }) => {
                        let _ = reply.send(self.answer_agent(&id, &result, &by)); // who asked may have left
                    }
                    Some(Command::Remember { session_id, params, settings }) => self.remember(&session_id, params, settings),
                    Some(Command::Look { first, look }) => {
                        first();
                        self.owner.store.settle().await;
                        look(self.owner.outbound.newest().seq);
                    }
                    Some(Command::StopAgent { only_idle: true, reply, .. }) if self.is_busy() => {
                        let _ = reply.send(()); // who asked may have left
                    }
                    Some(Command::StopAgent { reason, grace, reply, .. }) => self.stop_agent(reason, grace, reply),
                    Some(Command::Delete { reply }) => return Some(reply),
                    None => return None,
                },
                result = launched(&mut self.launching) => self.launched(result),
                transcript = fetched(&mut self.fetching) => self.fetched(transcript),
                () = until(self.step_deadline) => self.step_timed_out(),
                event = event_of(self.agent.as_mut(), &self.owner.store, exited) => self.agent_event(event),
                () = until(self.exit.map(|(_, deadline)| deadline)) => self.agent_gone().await,
            }
            if self.exit.is_some() && self.agent.as_ref().is_some_and(|agent| agent.has_ended()) {
                self.agent_gone().await;
            }
            if std::mem::take(&mut self.sends_turn) {
                // Were we killed before the file says that it has begun, the next run would send it once more, and would not know
                // whose message it is. So the agent's journal hears of it only then. A disk that is full keeps nobody from
                // working.
                self.owner.store.settle().await;
            }
            if let Some(agent) = &mut self.agent {
                agent.write_some(); // before the commit: the agent works meanwhile
            }
            self.keep().await;
            self.owner.tap.flush();
            if !may_wait {
                self.owner.store.flush();
            }
        }
    }

    /// The process is gone and its output is read: everyone who waits is told, and what it left behind is ended.
    async fn agent_gone(&mut self) {
        let (Some((exit, _)), Some(mut agent)) = (self.exit.take(), self.agent.take()) else { return };
        if let Some(rest) = agent.lines.rest() {
            self.line(rest);
        }
        self.last_read_to = agent.lines.position();
        let (process, store) = (agent.process.clone(), self.owner.store.clone());
        let stderr = agent.stderr_tail(Duration::from_millis(100)).await;
        self.owner.status.send_replace(Status::Stopped);
        self.owner.memory.forget_process();
        (self.step_deadline, self.replaying, self.fetching) = (None, None, None);
        let stopped = self.ended.clone();
        self.ended.get_or_insert_with(|| exit.to_string());
        self.emit(messages::agent_exited(exit, &stderr));
        let message = format!("agent process exited: {} ({exit})", self.owner.agent_name);
        let doomed = self.doomed.take().unwrap_or(self.held.len());
        self.fail_all(&message, &messages::exit_data(&self.owner.agent_name, exit, &stderr), doomed);
        self.asked_in.clear();
        self.own_done.clear();
        self.words.clear();
        self.owner.tap.happened(Fact::Exited { exit, stderr: &stderr, stopped: stopped.as_deref() });
        spawn_owned("agent-leftovers", async move {
            process.stop(Duration::ZERO).await;
            store.settle().await; // before that, another server would have to tell of its end
            process.forget();
        });
        self.start_again().await;
    }

    /// What came while the process was ending waits for the next one.
    async fn start_again(&mut self) {
        if !self.held.iter().any(|held| held.reply.is_some()) {
            while self.next_held().is_some() {} // notifications for a process that is gone
            return;
        }
        // The tap has forgotten what it knew.
        let sessions: Vec<_> = self.held.iter().filter_map(|held| held.envelope.session_id()).collect();
        for session in sessions {
            self.load(&session).await;
        }
        self.launch();
    }

    /// What is known of a session that was not touched since the start is fetched before its envelope is looked at.
    async fn load(&mut self, session: &str) {
        if !self.owner.tap.wants(session) {
            return;
        }
        self.owner.tap.load(session).await;
        if !self.owner.memory.knows(session)
            && let Some((params, settings)) = self.owner.tap.opened_with(session)
        {
            self.remember(session, params, settings);
        }
    }

    fn remember(&mut self, session_id: &str, params: String, settings: Vec<(String, String)>) {
        if let Some(learned) = self.owner.memory.remember(session_id, params, settings) {
            let change = self.row_change(learned);
            let said = json!({"sessionId": session_id}).to_string();
            self.owner.store.append(&self.owner.inbound, "acp.remembered", said.into(), Some(change));
        }
    }

    /// Its exit then takes the usual way.
    fn stop_agent(&mut self, reason: String, grace: Duration, reply: oneshot::Sender<()>) {
        let Some(agent) = self.agent.as_mut().filter(|_| self.exit.is_none()) else {
            let _ = reply.send(()); // who asked may have left
            return;
        };
        agent.close_input();
        self.doomed.get_or_insert(0); // it isn't their fault
        self.ended = Some(reason);
        let process = agent.process.clone();
        spawn_owned("agent-stop", async move {
            process.stop(grace).await;
            let _ = reply.send(()); // the same
        });
    }

    /// A request is under way, in either direction, or waits for the agent.
    fn is_busy(&self) -> bool {
        !self.held.is_empty() || self.ids.are_any()
    }

    /// Answers every request in flight, and the first `held` of those that are held.
    fn fail_all(&mut self, message: &str, data: &serde_json::Value, held: usize) {
        for (number, pending) in self.ids.drain() {
            if let Waiter::Client(reply) = pending.waiter {
                let text = messages::error_response(&pending.client_id, message, data);
                self.prompt_failed(number, pending.session.as_deref(), &pending.method, &text);
                self.answer(text, reply);
            }
        }
        for _ in 0..held {
            if let Some(Held { envelope, reply: Some(reply), .. }) = self.next_held() {
                self.answer(messages::error_response(envelope.id().unwrap_or("null"), message, data), reply);
            }
        }
    }

    /// Deleted or shut down: the agent's tree is stopped, every waiter answered, and the streams end.
    async fn finish(mut self, deleted: Option<oneshot::Sender<()>>) {
        let (message, reason) = match deleted {
            Some(_) => ("the ACP server was deleted", "server_deleted"),
            None => ("the server is shutting down", "server_stopped"),
        };
        self.fail_all(message, &json!({"agent": self.owner.agent_name, "reason": reason}), self.held.len());
        self.owner.mailbox.close();
        while let Ok(command) = self.owner.mailbox.try_recv() {
            if let Command::Delete { reply } | Command::StopAgent { reply, .. } = command {
                let _ = reply.send(());
            } // a dropped Post reply is answered by the handle
        }
        if let Some(mut agent) = self.agent.take() {
            agent.close_input();
            let stopped = agent.process.stop(as_duration(self.owner.bounds.agent_stop_grace_ms)).await;
            agent.process.forget();
            tracing::info!(server = self.owner.server_id, ?stopped, "agent stopped");
        }
        self.owner.status.send_replace(Status::Stopped);
        self.owner.tap.happened(Fact::Ended { deleted: deleted.is_some() });
        self.owner.tap.flush();
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

async fn fetched(fetching: &mut Option<Fetching>) -> Option<Transcript> {
    match fetching {
        Some(fetching) => (&mut fetching.transcript).await,
        None => std::future::pending().await,
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
