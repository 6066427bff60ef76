//! The receiver of one stream of a connection: a filtered tail of a server's log, after the history when one is wanted.
//! A receiver that doesn't read costs one page.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;
use tokio::sync::watch;

use super::book::History;
use super::capabilities::needs_capability;
use super::connection::{Asked, Connection, Place, Step};
use super::error::Error;
use super::filter::{self, Meaning, Scope};
use super::{Remote, ids};
use crate::acp::Server;
use crate::acp::envelope::Envelope;
use crate::config::as_usize;
use crate::store::{Item, Newest};

/// A message for the client.
#[derive(Debug)]
pub struct Shown {
    /// Where the stream is with it, for `Last-Event-ID`; absent for what is not in the log.
    pub id: Option<String>,
    /// A JSON-RPC message on one line.
    pub text: Bytes,
}

/// What a stream has.
#[derive(Debug)]
pub enum Page {
    /// At least one message.
    Messages(Vec<Shown>),
    /// No more for now.
    Nothing,
    /// Nothing will follow, and why: `closed` or `deleted`.
    Over(&'static str),
}

/// A receiver. Dropping it gives the stream back, at the place where it was.
pub struct Feed {
    remote: Remote,
    connection: Arc<Connection>,
    scope: Scope,
    lease: u64,
    server: Arc<Server>,
    newest: watch::Receiver<Newest>,
    moved: watch::Receiver<()>,
    /// The receiver named a place that can't be had.
    is_elsewhere: bool,
}

impl Feed {
    pub(super) fn new(remote: Remote, connection: Arc<Connection>, scope: Scope, lease: u64, is_elsewhere: bool) -> Self {
        let server = Arc::clone(&connection.home.server);
        let (newest, moved) = (server.events().watch(), connection.watch());
        Self { remote, connection, scope, lease, server, newest, moved, is_elsewhere }
    }

    /// The next messages. Being asked again means that the socket took those before. Cancel safe.
    ///
    /// # Errors
    /// [`Error::Store`] when the log can't be read.
    pub async fn read(&mut self) -> Result<Page, Error> {
        if std::mem::take(&mut self.is_elsewhere) {
            return Ok(Page::Messages(vec![Shown { id: None, text: gap(&json!({"reason": "replaced"})) }]));
        }
        loop {
            self.moved.borrow_and_update(); // before the look, so that no change is lost
            let Some(step) = self.connection.step(&self.scope, self.lease) else {
                return Ok(Page::Over("closed"));
            };
            if self.connection.gone.is_cancelled() {
                return Ok(Page::Over("closed"));
            }
            let messages = match &step.replay {
                Some((history, after)) => self.history(&step, history, *after).await,
                None => match self.live(&step).await? {
                    Some(messages) => messages,
                    None => return Ok(self.nothing(&step)),
                },
            };
            if !messages.is_empty() {
                return Ok(Page::Messages(messages));
            }
        }
    }

    /// Waits until [`Feed::read`] may have something else to say. Cancel safe.
    pub async fn changed(&mut self) {
        tokio::select! {
            changed = self.newest.changed() => if changed.is_err() { std::future::pending::<()>().await },
            _ = self.moved.changed() => {}
            () = self.connection.gone.cancelled() => {}
        }
    }

    fn nothing(&self, step: &Step) -> Page {
        let newest = *self.newest.borrow();
        if newest.ended && step.cursor >= newest.seq { Page::Over("deleted") } else { Page::Nothing }
    }

    async fn history(&self, step: &Step, history: &History, after: u64) -> Vec<Shown> {
        let (updates, next) = self.remote.book().history(history, after).await;
        if !self.connection.advance_history(&self.scope, step.version, next) {
            return Vec::new();
        }
        let update = |params: String| format!(r#"{{"jsonrpc":"2.0","method":"session/update","params":{params}}}"#);
        updates.into_iter().map(|params| Shown { id: None, text: update(params).into() }).collect()
    }

    /// `None` when the log has no more.
    async fn live(&mut self, step: &Step) -> Result<Option<Vec<Shown>>, Error> {
        if !Arc::ptr_eq(&self.server, &step.place.server) {
            self.server = Arc::clone(&step.place.server);
            self.newest = self.server.events().watch();
        }
        let newest = self.newest.borrow_and_update().seq; // before reading: what comes after wakes `changed`
        if step.cursor > newest {
            self.connection.advance(&self.scope, step.version, newest);
            let lost = gap(&json!({"from": newest + 1, "to": step.cursor, "reason": "not_kept"}));
            return Ok(Some(vec![Shown { id: Some(ids::mark(self.server.instance(), newest)), text: lost }]));
        }
        if step.cursor == newest {
            return Ok(None);
        }
        let bounds = self.remote.bounds();
        let (max_events, max_bytes) = (as_usize(bounds.log_page_max_events), as_usize(bounds.sse_chunk_max_bytes));
        let items = self.server.events().read_after(step.cursor, max_events, max_bytes).await?;
        let Some(last) = items.last() else { return Ok(None) };
        if !self.connection.advance(&self.scope, step.version, last.end()) {
            return Ok(Some(Vec::new()));
        }
        Ok(Some((0..items.len()).flat_map(|at| self.show(&items[at..], &step.place)).collect()))
    }

    /// The first of these items. Only the last of several messages has an id: who has it has all of them.
    fn show(&self, items: &[Item], place: &Place) -> Vec<Shown> {
        let Some((item, following)) = items.split_first() else { return Vec::new() };
        let texts = match item {
            Item::Gap { from, to, reason } => vec![gap(&json!({"from": from, "to": to, "reason": reason.as_str()}))],
            Item::Event(event) => self.messages(event.seq, &event.payload, following, place),
        };
        let mut shown: Vec<_> = texts.into_iter().map(|text| Shown { id: None, text }).collect();
        if let Some(last) = shown.last_mut() {
            last.id = Some(ids::mark(place.server.instance(), item.end()));
        }
        shown
    }

    fn messages(&self, position: u64, payload: &Bytes, following: &[Item], place: &Place) -> Vec<Bytes> {
        match filter::meaning(payload, &self.connection.id, &self.scope) {
            None => Vec::new(),
            Some(Meaning::Note(text)) => vec![text],
            Some(Meaning::Answer { raw, text, session }) => {
                self.connection.finish(&raw, session, place, position);
                vec![text]
            }
            // Answered by a rule at once, or long ago: nobody need be asked.
            Some(Meaning::Asked(envelope)) if following.iter().any(|item| settles(item, &envelope)) => Vec::new(),
            Some(Meaning::Asked(envelope)) => self.asked(position, &envelope, place).into_iter().collect(),
            Some(Meaning::Settled(raw)) => self.settled(place, Some(&raw)).collect(),
            Some(Meaning::AllSettled(text)) => self.settled(place, None).chain(text).collect(),
        }
    }

    /// Clients that still show such a request to a person are told (ACP v1, "Cancellation").
    fn settled(&self, place: &Place, raw: Option<&str>) -> impl Iterator<Item = Bytes> {
        let ids = self.connection.settle(place.server.instance(), raw, &self.scope).into_iter();
        ids.map(|id| format!(r#"{{"jsonrpc":"2.0","method":"$/cancel_request","params":{{"requestId":{id}}}}}"#).into())
    }

    /// What needs a capability is asked of one client: two would write a file twice.
    fn asked(&self, position: u64, envelope: &Envelope, place: &Place) -> Option<Bytes> {
        let method = envelope.method();
        if needs_capability(method) {
            let holder = self.remote.holder(&place.server, envelope.session_id().as_deref(), method)?;
            (holder == self.connection.id).then_some(())?;
        }
        let (raw, method) = (envelope.id().unwrap_or("null").to_owned(), method.to_owned());
        let asked = Asked { place: place.clone(), raw, scope: self.scope.clone(), method };
        let id = self.connection.ask(position, asked)?;
        Some(envelope.with_id(&id))
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.connection.release(&self.scope, self.lease);
    }
}

/// True when this says that a request of the agent's needs no answer any more.
fn settles(item: &Item, asked: &Envelope) -> bool {
    let Item::Event(event) = item else { return false };
    match filter::meaning(&event.payload, "", &Scope::Connection) {
        Some(Meaning::Settled(raw)) => asked.id() == Some(&raw),
        Some(Meaning::AllSettled(_)) => true,
        _ => false,
    }
}

/// A notification that no client knows, so none is disturbed by it.
fn gap(params: &serde_json::Value) -> Bytes {
    json!({"jsonrpc": "2.0", "method": "_sandboxd/gap", "params": params}).to_string().into()
}
