//! ACP's remote transport, without HTTP: virtual clients of ACP servers, as the proposal "Streamable HTTP & WebSocket
//! Transport" has them.
//!
//! ```text
//! initialize ─▶ connection (home: the server of its agent and capabilities) ─▶ DELETE, or nothing open for too long
//!   ├ the connection's stream: what is about no session       ┐ each a filtered tail of a server's log, with one
//!   └ one stream per session: made here, loaded or looked at  ┘ receiver at a time; a WebSocket receives all of them
//! ```
//! A connection holds no message, so a receiver may leave, come back and read on from any position of the log; the agent
//! and its sessions stay when a connection ends. Sessions that the [`SessionBook`] knows are shown by it: the agent
//! doesn't notice.

mod book;
mod capabilities;
mod connection;
mod error;
mod feed;
mod filter;
mod ids;
mod incoming;
mod initialize;
mod orphans;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

pub use book::{History, Known, SessionBook};
pub use connection::Connection;
pub use error::Error;
pub use feed::{Feed, Page, Shown};
pub use filter::Scope;
pub use ids::Mark;
pub use incoming::Door;
pub use initialize::Target;

use super::{Acp, Server};
use crate::config::{Bounds, as_duration};
use crate::rt::ids::new_id;

/// All connections. Cheap to clone.
#[derive(Clone)]
pub struct Remote {
    inner: Arc<Inner>,
}

struct Inner {
    acp: Acp,
    book: Arc<dyn SessionBook>,
    bounds: Bounds,
    connections: Mutex<BTreeMap<String, Arc<Connection>>>,
    /// Who initializes a server; others that want to wait for it.
    initializing: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
    uses: AtomicU64,
    /// Instances whose requests without a taker are refused.
    watched: Mutex<HashSet<String>>,
}

impl Remote {
    /// No connections yet: those of an earlier run are gone, their sessions are not.
    pub fn start(acp: Acp, book: Arc<dyn SessionBook>, bounds: Bounds) -> Self {
        let inner = Inner {
            acp,
            book,
            bounds,
            connections: Mutex::default(),
            initializing: Mutex::default(),
            uses: AtomicU64::new(1),
            watched: Mutex::default(),
        };
        let remote = Self { inner: Arc::new(inner) };
        remote.watch_known_servers();
        remote
    }

    /// An id for a connection that is about to begin.
    pub fn new_id() -> String {
        new_id("conn")
    }

    /// The connection with this id.
    ///
    /// # Errors
    /// [`Error::UnknownConnection`].
    pub async fn get(&self, id: &str) -> Result<Arc<Connection>, Error> {
        let found = self.connections().get(id).cloned();
        let unknown = || Error::UnknownConnection { id: id.to_owned() };
        let connection = found.ok_or_else(unknown)?;
        if connection.is_idle_for(self.idle()) {
            self.end(id).await;
            return Err(unknown());
        }
        connection.used();
        Ok(connection)
    }

    /// Ends a connection: its streams end, the agent and its sessions stay. False when there is none. What the agent
    /// asked of this client alone is refused.
    pub async fn end(&self, id: &str) -> bool {
        let removed = self.connections().remove(id);
        let Some(connection) = removed else { return false };
        connection.gone.cancel();
        self.refuse_what_it_was_asked(&connection).await;
        true
    }

    /// Receives one of the connection's streams: from `after`, else from where its last receiver was.
    ///
    /// # Errors
    /// [`Error::Taken`] when it has a receiver and `after` is not given; [`Error::TooManySessions`].
    pub async fn open(&self, connection: &Arc<Connection>, scope: Scope, after: Option<&Mark>) -> Result<Feed, Error> {
        if let Scope::Session(session) = &scope {
            self.place_of(connection, session).await?;
        }
        let (lease, is_elsewhere) = connection.take(&scope, after)?;
        Ok(Feed::new(self.clone(), Arc::clone(connection), scope, lease, is_elsewhere))
    }

    /// The one client that is asked for what needs a capability: of those that have it and follow the session, the one
    /// that used it last.
    pub(super) fn holder(&self, server: &Arc<Server>, session: Option<&str>, method: &str) -> Option<String> {
        let (session, idle) = (session?, self.idle());
        let connections = self.connections();
        let able = connections.values().filter(|connection| connection.can.allow(method) && !connection.is_idle_for(idle));
        let following =
            able.filter_map(|connection| Some((connection.last_use(session, server.instance())?, connection.id.clone())));
        following.max().map(|(_, id)| id)
    }

    pub(super) fn next_use(&self) -> u64 {
        self.inner.uses.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn acp(&self) -> &Acp {
        &self.inner.acp
    }

    pub(super) fn book(&self) -> &dyn SessionBook {
        &*self.inner.book
    }

    pub(super) fn bounds(&self) -> &Bounds {
        &self.inner.bounds
    }

    fn idle(&self) -> std::time::Duration {
        as_duration(self.inner.bounds.acp_connection_idle_ms)
    }

    fn connections(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Connection>>> {
        self.inner.connections.lock().unwrap_or_else(PoisonError::into_inner) // a map is whole after each change
    }
}
