//! What the remote transport asks about sessions.

use crate::acp::types::BoxFuture;

/// A session that lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Which one, and how far its history is told.
    pub history: History,
    /// The ACP server it lives on.
    pub server_id: String,
    /// The result of `session/load` or `session/resume`: a JSON object with its modes and options as they are now.
    pub opened: String,
    /// The position of the server's stream up to which the history tells; live events follow after it.
    pub position: u64,
}

/// What was said in a session before a client came to it. What a turn under way said is not in it but for its prompt:
/// the client gets that live, from the turn's beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// Ours.
    pub session_id: String,
    /// Its last event.
    pub until: u64,
    /// The turn under way.
    pub open_turn: Option<String>,
}

/// The sessions that are known, whoever opened them. Implemented over the sessions room: rooms don't know each other.
pub trait SessionBook: Send + Sync + 'static {
    /// The agent's session that ACP clients call `acp_session_id`.
    fn find(&self, agent: &str, acp_session_id: &str) -> BoxFuture<Option<Known>>;
    /// What was said in a session after its event `after`, oldest first: params of `session/update` as JSON text, and
    /// from where to ask for more, `None` at the end.
    fn history(&self, history: &History, after: u64) -> BoxFuture<(Vec<String>, Option<u64>)>;
    /// The result of `session/list` with these params, as JSON text.
    fn list(&self, agent: &str, params: &str) -> BoxFuture<String>;
    /// A client closed or deleted a session whose agent can't do that itself.
    fn closed(&self, session_id: &str, deleted: bool) -> BoxFuture<()>;
}
