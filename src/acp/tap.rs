//! What another room is told of everything that passes through a server, in order, within its owner's task and before it
//! is committed: what a tap appends to the log follows the envelope it was told of, and nobody sees one without the other
//! for longer than a commit takes.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::processes::Exit;
use crate::store::Stream;

/// Makes one tap per server. Implemented by the sessions room: rooms don't know each other.
pub trait TapSource: Send + Sync + 'static {
    /// A tap for a server that was just made or taken up.
    fn tap(&self, server: TapServer) -> Box<dyn Tap>;
}

/// The server a tap is for.
#[derive(Clone)]
pub struct TapServer {
    /// The id clients use.
    pub server_id: String,
    /// The agent's id.
    pub agent: String,
    /// Ours; names its streams.
    pub instance: String,
    /// What clients read.
    pub events: Arc<Stream>,
}

/// One server's tap. Its calls never wait but [`Tap::resume`], [`Tap::load`] and [`Tap::transcript`].
pub trait Tap: Send {
    /// The agent outlived the run of ours before this one, and goes on talking once this is done: called at most once, before
    /// anything else. All that it has said up to the newest of [`TapServer::events`] is in the log; what the tap made of that may
    /// be missing there, and is made up for. Gives the answers to its requests that were decided: they may not have reached
    /// it.
    fn resume(&mut self, outlived: Outlived) -> BoxFuture<'_, Vec<Decided>>;

    /// True when what is known of a session must be fetched before its next envelope passes.
    fn wants(&self, session: &str) -> bool;

    /// Fetches what is known of a session.
    fn load<'a>(&'a mut self, session: &'a str) -> BoxFuture<'a, ()>;

    /// Params that a session which was fetched can be opened with, and its settings (method and params) since; `None` for
    /// one that isn't known. Asked of a server that doesn't remember it (any more).
    fn opened_with(&self, session: &str) -> Option<(String, Vec<(String, String)>)>;

    /// Something happened.
    fn happened(&mut self, fact: Fact<'_>);

    /// A prompt is about to be sent to the agent. False when nobody wants it any more: it is refused then.
    fn prompted(&mut self, prompt: Prompted<'_>) -> bool;

    /// The agent asks something. The tap may answer in its clients' place.
    fn asked(&mut self, asked: Asked<'_>) -> Verdict;

    /// All that was read at once has been told: what is joined over several envelopes is appended now.
    fn flush(&mut self);

    /// What was said in a session so far, for a fresh one of the agent's that takes its place; `None` when nothing was.
    fn transcript(&mut self, session: &str) -> BoxFuture<'static, Option<Transcript>>;
}

/// What was said in a session, as text for an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transcript {
    /// The text, with an introduction.
    pub text: String,
    /// True when the oldest part was left out.
    pub truncated: bool,
}

/// What an agent that outlived the run of ours before this one was in the middle of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outlived {
    /// Its prompts that no answer was logged for, in the order in which they were sent.
    pub underway: Vec<Underway>,
    /// Its ids, as written, of requests that nobody answered.
    pub asked: Vec<String>,
    /// Its ids of requests that were answered of late, each with the result: the log doesn't have all that was said.
    pub answered: Vec<(String, String)>,
}

/// A prompt that is under way at an agent which outlived the run of ours that sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Underway {
    /// The session as clients call it.
    pub session: String,
    /// Our number of the request, by which its end will be told ([`Fact::PromptEnded`]).
    pub number: u64,
    /// The request's id as its client wrote it.
    pub client_id: String,
    /// The prompt's params, without what was added to it.
    pub params: String,
    /// What the sender gave along: the turn's id when it came from the sessions room.
    pub tag: Option<String>,
}

/// An answer to a request of the agent's, as [`Verdict::Answer`] has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    /// The agent's id for it, as written.
    pub id: String,
    /// The JSON-RPC result.
    pub result: String,
    /// Who decided.
    pub by: String,
}

/// A prompt on its way to the agent.
#[derive(Debug, Clone, Copy)]
pub struct Prompted<'a> {
    /// The session as clients call it.
    pub session: &'a str,
    /// Our number of the request: unique within this run of the server.
    pub number: u64,
    /// The request's id as its client wrote it.
    pub client_id: &'a str,
    /// The prompt's params, without what we add to it.
    pub params: &'a str,
    /// What the sender gave along: the turn's id when it comes from the sessions room.
    pub tag: Option<&'a str>,
}

/// A request of the agent's on its way to clients.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The session as clients call it; `None` for a request of the whole connection.
    pub session: Option<&'a str>,
    /// The agent's id for it, as written.
    pub id: &'a str,
    /// For instance `session/request_permission`.
    pub method: &'a str,
    /// As written, with the clients' session id.
    pub params: &'a str,
}

/// What becomes of a request of the agent's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Clients decide.
    Ask,
    /// It is answered at once: `result` as JSON text; clients see question and outcome.
    Answer {
        /// The JSON-RPC result.
        result: String,
        /// Who decided, such as `rule:rule_…`.
        by: String,
    },
}

/// What happened. Session ids are those of the clients; JSON is as written.
#[derive(Debug, Clone, Copy)]
pub enum Fact<'a> {
    /// The agent answered `initialize`.
    Initialized {
        /// Its result.
        result: &'a str,
    },
    /// A client opened a session: `session/new`, `session/load`, `session/resume` or `session/fork` succeeded.
    Opened {
        /// Which of them.
        method: &'a str,
        /// The request's params.
        params: &'a str,
        /// The answer's result.
        result: &'a str,
        /// The session.
        session: &'a str,
        /// What the sender gave along with [`Acp::post_tagged`](super::Acp::post_tagged).
        tag: Option<&'a str>,
    },
    /// A setting of a session was accepted: `session/set_mode`, `session/set_config_option`.
    Set {
        /// The session.
        session: &'a str,
        /// Which of them.
        method: &'a str,
        /// The request's params.
        params: &'a str,
        /// The answer's result.
        result: &'a str,
    },
    /// A session was closed or deleted: `session/close` or `session/delete` succeeded.
    Closed {
        /// The session.
        session: &'a str,
        /// Which of them.
        method: &'a str,
    },
    /// A prompt ([`Tap::prompted`]) was answered, by the agent or in its place.
    PromptEnded {
        /// The session.
        session: &'a str,
        /// Our number of the request.
        number: u64,
        /// The result, or the error object.
        answer: Result<&'a str, &'a str>,
    },
    /// The agent sent `session/update`.
    Update {
        /// The session.
        session: &'a str,
        /// Its `params.update`.
        update: &'a str,
    },
    /// A request of the agent's was answered by a client or in its place; told once, to whoever was first.
    Answered {
        /// The agent's id for it.
        id: &'a str,
        /// The result; `None` for an error.
        result: Option<&'a str>,
        /// Who: `client`, or what [`Acp::answer`](super::Acp::answer) was given.
        by: &'a str,
    },
    /// The agent took a request back (`$/cancel_request`).
    Withdrawn {
        /// The agent's id for it.
        id: &'a str,
    },
    /// A new agent process was told of a session.
    Restored {
        /// The session.
        session: &'a str,
        /// `session/resume`, `session/load` or `session/new`.
        method: &'a str,
        /// `kept`, `transcript` (it will be told in words) or `lost`.
        history: &'a str,
        /// Bytes of the transcript that will go with the next prompt, and whether it was cut.
        transcript: Option<(usize, bool)>,
        /// The answer's result.
        result: &'a str,
    },
    /// An agent process was started.
    Started,
    /// The agent process is gone, its output read to the end; open prompts and requests were told before.
    Exited {
        /// How.
        exit: Exit,
        /// The last lines of its stderr.
        stderr: &'a str,
        /// Why we ended it, when we did.
        stopped: Option<&'a str>,
    },
    /// The server is deleted, or stops with ours: no agent runs any more.
    Ended {
        /// True when it was deleted.
        deleted: bool,
    },
    /// The agent wrote something that is no envelope.
    Unreadable {
        /// Why.
        error: &'a str,
        /// Its beginning.
        head: &'a [u8],
    },
}

/// Taps that listen to nothing.
#[derive(Debug, Clone, Copy)]
pub struct NoTaps;

impl TapSource for NoTaps {
    fn tap(&self, _: TapServer) -> Box<dyn Tap> {
        Box::new(Self)
    }
}

impl Tap for NoTaps {
    fn resume(&mut self, _: Outlived) -> BoxFuture<'_, Vec<Decided>> {
        Box::pin(std::future::ready(Vec::new()))
    }

    fn wants(&self, _: &str) -> bool {
        false
    }

    fn load<'a>(&'a mut self, _: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(std::future::ready(()))
    }

    fn opened_with(&self, _: &str) -> Option<(String, Vec<(String, String)>)> {
        None
    }

    fn happened(&mut self, _: Fact<'_>) {}

    fn prompted(&mut self, _: Prompted<'_>) -> bool {
        true
    }

    fn asked(&mut self, _: Asked<'_>) -> Verdict {
        Verdict::Ask
    }

    fn flush(&mut self) {}

    fn transcript(&mut self, _: &str) -> BoxFuture<'static, Option<Transcript>> {
        Box::pin(std::future::ready(None))
    }
}
