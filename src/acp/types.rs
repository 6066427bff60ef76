//! What the ACP room speaks of.

use std::ffi::OsString;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;

use bytes::Bytes;

use crate::{processes, store};

/// How to start an agent, as its manifest and this machine say.
#[derive(Debug, Clone, Default)]
pub struct Launch {
    /// The executable.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Variables on top of the server's environment.
    pub env: Vec<(OsString, OsString)>,
    /// Where this agent needs other envelopes than clients send.
    pub quirks: Quirks,
}

/// Where an agent departs from what clients send.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quirks {
    /// `initialize.params.protocolVersion` as a string of digits becomes a number.
    pub protocol_version_number: bool,
    /// `session/new.params.mcpServers` becomes `[]` when absent.
    pub session_new_mcp_servers: bool,
}

/// Why an agent can't be started.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LaunchError {
    /// No manifest has this id.
    #[error("unsupported agent: {agent}")]
    Unsupported {
        /// The id.
        agent: String,
    },
    /// It isn't here, and installing on first use is switched off or impossible.
    #[error("agent not installed: {agent}")]
    NotInstalled {
        /// The id.
        agent: String,
        /// What to run.
        help: String,
    },
    /// Installing it on first use failed.
    #[error("install failed: {agent}")]
    InstallFailed {
        /// The id.
        agent: String,
        /// What is missing and what to run, with the installer's last words.
        reason: String,
    },
    /// It is there but can't be executed.
    #[error(transparent)]
    Spawn(#[from] processes::Error),
}

/// A future that owns what it needs.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Where agents come from. The app implements it over the agents room: rooms don't know each other.
pub trait AgentSource: Send + Sync + 'static {
    /// True when this id has a manifest.
    fn knows(&self, agent: &str) -> bool;
    /// Finds the agent, installing it when that is allowed. Dropping the future doesn't stop an installation.
    fn launch(&self, agent: &str) -> BoxFuture<Result<Launch, LaunchError>>;
}

/// Why a call failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// No server has this id.
    #[error("session not found: {id}")]
    UnknownServer {
        /// The id as the client gave it.
        id: String,
    },
    /// The first POST must say which agent.
    #[error("missing required 'agent' query parameter for first POST to /v1/acp/{id}")]
    MissingAgent {
        /// The id as the client gave it.
        id: String,
    },
    /// The id is taken by another agent's server.
    #[error("server '{id}' already exists for agent '{has}'; requested '{wants}'")]
    AgentMismatch {
        /// The id as the client gave it.
        id: String,
        /// The agent it runs.
        has: String,
        /// The agent that was asked for.
        wants: String,
    },
    /// As many servers as the bound allows.
    #[error("there are {max} ACP servers already: DELETE one that is no longer used")]
    TooMany {
        /// The bound.
        max: u64,
    },
    /// The agent can't be started.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// The log can't take a new server.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// It was deleted while the call was under way.
    #[error("the ACP server '{id}' was deleted meanwhile")]
    Deleted {
        /// The id as the client gave it.
        id: String,
    },
    /// The server is shutting down.
    #[error("the server is stopping")]
    Stopping,
}

/// What a POST comes to.
#[derive(Debug)]
pub enum Posted {
    /// Taken; nothing will answer it.
    Accepted,
    /// The answer to a request.
    Response {
        /// A JSON-RPC object under the client's id.
        text: Bytes,
        /// Its position in the server's events; `None` when the log took no more.
        position: Option<u64>,
    },
}

/// Whether a server has a living agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The agent runs, since this time in Unix milliseconds.
    Running {
        /// Unix milliseconds.
        since_ms: i64,
    },
    /// No agent process: it exited, or the server restarted. The next request starts one.
    Stopped,
}

/// A server as lists show it.
#[derive(Debug, Clone)]
pub struct ServerInfo {
    /// The id the client chose.
    pub server_id: String,
    /// The agent.
    pub agent: String,
    /// Unix milliseconds.
    pub created_at_ms: i64,
    /// Whether its agent lives.
    pub status: Status,
}
