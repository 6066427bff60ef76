//! How a connection begins: its agent is told once what its clients can do, and each client gets the answer.

use std::sync::{Arc, PoisonError};

use serde_json::{Value, json};

use super::capabilities::Capabilities;
use super::connection::{Connection, Place};
use super::error::Error;
use super::{Remote, ids};
use crate::acp::envelope::Envelope;
use crate::acp::{self, Posted};
use crate::config::as_usize;

/// Which agent a connection is for.
#[derive(Debug, Clone, Default)]
pub struct Target {
    /// The agent; may be left out when `server` names a server that is there.
    pub agent: Option<String>,
    /// The ACP server, when it isn't the one that fits the client's capabilities.
    pub server: Option<String>,
}

impl Remote {
    /// Begins the connection `id` with a client's `initialize`; gives it, and the answer under the client's id. An agent
    /// that was initialized already isn't asked again; those that ask at once wait for one answer. A refusal by the agent
    /// is an answer, too.
    ///
    /// # Errors
    /// [`Error::NoAgent`], [`Error::TooManyConnections`], or why the agent can't be had.
    pub async fn connect(
        &self,
        id: String,
        target: Target,
        initialize: &Envelope,
    ) -> Result<(Arc<Connection>, bytes::Bytes), Error> {
        self.make_room().await?;
        let can = Capabilities::of(initialize.params());
        let (agent, server_id) = self.resolve(target, &can).await?;
        self.acp().check(&server_id, Some(&agent))?;
        let (place, outcome) = self.initialized(&id, &agent, server_id, initialize).await?;
        self.watch_orphans(&place);
        let bounds = self.bounds();
        let max_open = as_usize(bounds.acp_pending_max_requests);
        let connection = Connection::new(id, agent, place, can, bounds.acp_connection_sessions_max, max_open);
        let connection = Arc::new(connection);
        self.keep(&connection)?;
        let client_id = initialize.id().unwrap_or("null");
        let answer = match outcome {
            Ok(result) => ids::answer(client_id, &with_our_part(&result)),
            Err(refusal) => refusal.with_id(client_id),
        };
        Ok((connection, answer))
    }

    async fn resolve(&self, target: Target, can: &Capabilities) -> Result<(String, String), Error> {
        let agent = match (target.agent, &target.server) {
            (Some(agent), _) => agent,
            (None, Some(server)) => self.acp().get(server).await.map_err(|_| Error::NoAgent)?.agent().to_owned(),
            (None, None) => return Err(Error::NoAgent),
        };
        let server_id = target.server.unwrap_or_else(|| can.server_id(&agent));
        Ok((agent, server_id))
    }

    /// The server, and what its agent answered to `initialize`: a result, or a refusal.
    async fn initialized(
        &self,
        id: &str,
        agent: &str,
        server_id: String,
        initialize: &Envelope,
    ) -> Result<(Place, Result<String, Envelope>), Error> {
        let turn = self.turn_of(&server_id);
        let _turn = turn.lock().await;
        if let Ok(server) = self.acp().get(&server_id).await
            && let Some(result) = server.initialized()
        {
            return Ok((Place { server_id, server }, Ok(result.to_string())));
        }
        let own = ids::own(id, initialize.id().unwrap_or("null"), None);
        let posted = self.acp().post(&server_id, Some(agent), ids::renamed(initialize, &own)).await?;
        let server = self.acp().get(&server_id).await?;
        let Posted::Response { text, .. } = posted else { return Err(acp::Error::Stopping.into()) };
        let answer = Envelope::parse(text).map_err(|_| acp::Error::Stopping)?; // it was parsed when it came
        let outcome = answer.result().map(str::to_owned).ok_or(answer);
        Ok((Place { server_id, server }, outcome))
    }

    fn turn_of(&self, server_id: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.inner.initializing.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = turns.get(server_id).and_then(std::sync::Weak::upgrade) {
            return turn;
        }
        let turn = Arc::default();
        turns.insert(server_id.to_owned(), Arc::downgrade(&turn));
        turn
    }

    /// Connections that nobody uses make room for another one.
    async fn make_room(&self) -> Result<(), Error> {
        let idle = self.idle();
        let unused: Vec<_> = {
            let connections = self.connections();
            connections
                .values()
                .filter(|connection| connection.is_idle_for(idle))
                .map(|connection| connection.id.clone())
                .collect()
        };
        for id in unused {
            self.end(&id).await;
        }
        self.check_count(self.connections().len())
    }

    /// Others may have begun meanwhile: initializing can take long.
    fn keep(&self, connection: &Arc<Connection>) -> Result<(), Error> {
        let mut connections = self.connections();
        self.check_count(connections.len())?;
        connections.insert(connection.id.clone(), Arc::clone(connection));
        Ok(())
    }

    fn check_count(&self, count: usize) -> Result<(), Error> {
        let max = self.bounds().acp_connections_max;
        if count as u64 >= max { Err(Error::TooManyConnections { max }) } else { Ok(()) }
    }
}

/// What we do ourselves is added to what the agent can do.
fn with_our_part(result: &str) -> String {
    let mut result: Value = serde_json::from_str(result).unwrap_or_default();
    if !result.is_object() {
        result = json!({});
    }
    let capabilities = member(&mut result, "agentCapabilities");
    capabilities["loadSession"] = true.into();
    let sessions = member(capabilities, "sessionCapabilities");
    for what in ["list", "resume", "close", "delete"] {
        if !sessions[what].is_object() {
            sessions[what] = json!({});
        }
    }
    result.to_string()
}

/// The object under a key, made when there is none.
fn member<'a>(value: &'a mut Value, key: &str) -> &'a mut Value {
    if !value[key].is_object() {
        value[key] = json!({});
    }
    &mut value[key]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_part_is_added_and_nothing_else_changes() {
        let agents = r#"{"protocolVersion":1,"agentCapabilities":{"loadSession":false,"promptCapabilities":{"image":true},"sessionCapabilities":{"fork":{},"list":null,"close":{"x":1}}}}"#;
        let result: Value = serde_json::from_str(&with_our_part(agents)).expect("JSON");
        let sessions = json!({"fork": {}, "list": {}, "resume": {}, "close": {"x": 1}, "delete": {}});
        let capabilities = json!({"loadSession": true, "promptCapabilities": {"image": true}, "sessionCapabilities": sessions});
        assert_eq!(result, json!({"protocolVersion": 1, "agentCapabilities": capabilities}));
        assert!(with_our_part("null").contains("loadSession"));
    }
}
