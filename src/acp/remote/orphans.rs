//! Requests of agents that only a client with a capability could answer, and no such client is there: they are refused,
//! so that the agent doesn't wait for ever.

use std::sync::{Arc, PoisonError, Weak};

use bytes::Bytes;
use serde_json::json;

use super::capabilities::{Capabilities, needs_capability};
use super::connection::{Connection, Place};
use super::{Inner, Remote};
use crate::acp::envelope::{Envelope, Kind};
use crate::config::as_usize;
use crate::rt::spawn_owned;
use crate::store::Item;

impl Remote {
    /// Servers of an earlier run, whose agents were told of capabilities that no client may have now.
    pub(super) fn watch_known_servers(&self) {
        let (remote, known) = (self.clone(), self.acp().list());
        spawn_owned("acp-orphans", async move {
            for info in known {
                if let Ok(server) = remote.acp().get(&info.server_id).await {
                    remote.watch_orphans(&Place { server_id: info.server_id, server });
                }
            }
        });
    }

    /// Watches a server until it ends, once, when its agent was told of such capabilities.
    pub(super) fn watch_orphans(&self, place: &Place) {
        if !Capabilities::of(place.server.initialized_with().as_deref()).are_special() {
            return;
        }
        let mut watched = self.inner.watched.lock().unwrap_or_else(PoisonError::into_inner);
        if watched.insert(place.server.instance().to_owned()) {
            spawn_owned("acp-orphans", watch(Arc::downgrade(&self.inner), place.clone()));
        }
    }

    /// What only a connection that has just ended could have answered.
    pub(super) async fn refuse_what_it_was_asked(&self, connection: &Connection) {
        for asked in connection.drain_asked().into_iter().filter(|asked| needs_capability(&asked.method)) {
            self.refuse(&asked.place, &asked.raw, &asked.method).await;
        }
    }

    async fn refuse(&self, place: &Place, raw: &str, method: &str) {
        let message = format!("no client that can do {method} follows this session");
        let error = json!({"code": -32603, "message": message});
        let text: Bytes = format!(r#"{{"jsonrpc":"2.0","id":{raw},"error":{error}}}"#).into();
        if let Ok(envelope) = Envelope::parse(text) {
            let _ = self.acp().submit(&place.server_id, &place.server, envelope).await; // a server that is gone asks nothing
        }
    }
}

async fn watch(remote: Weak<Inner>, place: Place) {
    let stream = place.server.events();
    let mut newest = stream.watch();
    let mut cursor = newest.borrow().seq;
    loop {
        let now = *newest.borrow_and_update();
        if cursor >= now.seq {
            if now.ended || newest.changed().await.is_err() {
                break;
            }
            continue;
        }
        let Some(remote) = remote.upgrade().map(|inner| Remote { inner }) else { return };
        let bounds = remote.bounds();
        let page = stream.read_after(cursor, as_usize(bounds.log_page_max_events), as_usize(bounds.sse_chunk_max_bytes)).await;
        let Ok(items) = page else { break };
        for item in &items {
            cursor = item.end();
            refuse_orphan(&remote, &place, item).await;
        }
    }
    if let Some(inner) = remote.upgrade() {
        inner.watched.lock().unwrap_or_else(PoisonError::into_inner).remove(place.server.instance());
    }
}

async fn refuse_orphan(remote: &Remote, place: &Place, item: &Item) {
    let Item::Event(event) = item else { return };
    let Ok(envelope) = Envelope::parse(event.payload.clone()) else { return };
    let is_asked = envelope.kind() == Kind::Request && needs_capability(envelope.method());
    // Clients of `/v1/acp` say what they can do to servers that they named, and answer what they read there.
    let is_theirs = !place.server_id.starts_with("sessions-") && place.server.readers().count() > 0;
    if is_asked && !is_theirs && remote.holder(&place.server, envelope.session_id().as_deref(), envelope.method()).is_none() {
        remote.refuse(place, envelope.id().unwrap_or("null"), envelope.method()).await;
    }
}
