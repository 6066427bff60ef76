//! What clients send: passed on under ids that say whose it is, or answered from the book.

use std::sync::Arc;

use serde_json::Value;

use super::connection::{Connection, Pending, Place};
use super::error::Error;
use super::filter::Scope;
use super::{Remote, ids};
use crate::acp;
use crate::acp::envelope::{Envelope, Kind};
use crate::config::as_duration;
use crate::rt::spawn_owned;

/// Messages about a session; over HTTP they name it in the header, too.
const SESSION_METHODS: &[&str] = &[
    "session/cancel",
    "session/close",
    "session/delete",
    "session/fork",
    "session/load",
    "session/prompt",
    "session/resume",
    "session/set_config_option",
    "session/set_mode",
    "session/set_model",
];

/// How a message came.
#[derive(Debug, Clone, Copy)]
pub enum Door<'a> {
    /// A POST, with its `Acp-Session-Id`.
    Post(Option<&'a str>),
    /// A WebSocket, where the message says it all.
    Socket,
}

impl Remote {
    /// Takes a message. What is answered comes on the connection's streams. Messages are passed on in the order of these
    /// calls. Cancel safe: dropped, the message may or may not have been passed on.
    ///
    /// # Errors
    /// [`Error`]; nothing was passed on then.
    pub async fn receive(&self, connection: &Arc<Connection>, envelope: Envelope, door: Door<'_>) -> Result<(), Error> {
        connection.used();
        let taken = match (envelope.kind(), envelope.method()) {
            (Kind::Response, _) => self.client_answered(connection, &envelope, door).await,
            (_, "initialize") => Err(Error::InitializedAlready),
            (Kind::Notification, "$/cancel_request") => self.cancel(connection, &envelope).await,
            _ => self.method(connection, envelope, door).await,
        };
        match taken {
            // Its home is gone for good: so is the connection.
            Err(Error::Acp(acp::Error::Deleted { id })) if id == connection.home.server_id => {
                self.end(&connection.id).await;
                Err(Error::UnknownConnection { id: connection.id.clone() })
            }
            taken => taken,
        }
    }

    async fn client_answered(&self, connection: &Connection, envelope: &Envelope, door: Door<'_>) -> Result<(), Error> {
        let asked = envelope.id().and_then(|id| Some((id.to_owned(), connection.asked(id)?)));
        let Some((id, asked)) = asked else { return Ok(()) }; // answered already, here or elsewhere
        if let (Door::Post(header), Scope::Session(session)) = (door, &asked.scope) {
            match header {
                None => return Err(Error::MissingSession),
                Some(header) if header != session => return Err(Error::MismatchedSession),
                Some(_) => {}
            }
        }
        connection.forget_asked(&id); // before: the news that it is settled is then no news here
        let Some(result) = envelope.result() else {
            let refusal = ids::renamed(envelope, &asked.raw);
            return Ok(self.acp().submit(&asked.place.server_id, &asked.place.server, refusal).await?);
        };
        let there = self.acp().get(&asked.place.server_id).await;
        if there.is_ok_and(|server| Arc::ptr_eq(&server, &asked.place.server)) {
            let by = format!("acp:{}", connection.id);
            self.acp().answer(&asked.place.server_id, &asked.raw, result.to_owned(), by).await?; // who is first is told to all
        }
        Ok(())
    }

    async fn cancel(&self, connection: &Connection, envelope: &Envelope) -> Result<(), Error> {
        let pending = envelope.request_id().and_then(|raw| connection.pending(raw));
        let Some(Pending { place, own_id, .. }) = pending else { return Ok(()) }; // answered already
        let envelope = envelope.with_param("requestId", &own_id);
        Ok(self.acp().submit(&place.server_id, &place.server, envelope).await?)
    }

    async fn method(&self, connection: &Arc<Connection>, envelope: Envelope, door: Door<'_>) -> Result<(), Error> {
        let session = door.session(&envelope)?;
        let is_request = envelope.kind() == Kind::Request;
        if is_request && matches!(envelope.method(), "session/new" | "session/fork") {
            connection.check_room_for_one()?;
        }
        let Some(session) = session else {
            return match envelope.method() {
                "session/list" if is_request => self.list(connection, &envelope).await,
                _ => self.forward(connection, connection.home.clone(), envelope, None).await,
            };
        };
        let place = match envelope.method() {
            "session/load" | "session/resume" if is_request => match self.reattach(connection, &envelope, &session).await? {
                Some(place) => place,
                None => return Ok(()),
            },
            _ => self.place_of(connection, &session).await?,
        };
        connection.note_use(&session, self.next_use());
        match envelope.method() {
            "session/close" | "session/delete" if is_request => self.close(connection, place, envelope, session).await,
            _ => self.forward(connection, place, envelope, Some(session)).await,
        }
    }

    /// Where a session lives: where this client opened it, or where the book says, else at home.
    pub(super) async fn place_of(&self, connection: &Connection, session: &str) -> Result<Place, Error> {
        let (here, is_opened) = connection.place_of(session)?;
        if is_opened {
            return Ok(here);
        }
        let Some(known) = self.book().find(&connection.agent, session).await else { return Ok(here) };
        let place = self.place(&known.server_id).await?;
        if Arc::ptr_eq(&here.server, &place.server) {
            connection.opened(session);
            return Ok(here);
        }
        let newest = place.server.events().newest().seq;
        drop(connection.attach(session, place.clone(), newest, None));
        Ok(place)
    }

    /// A session that the book knows is shown to this client without disturbing the agent. Gives where to ask when the
    /// book doesn't know it.
    async fn reattach(&self, connection: &Arc<Connection>, envelope: &Envelope, session: &str) -> Result<Option<Place>, Error> {
        let (here, was_opened) = connection.place_of(session)?;
        let Some(known) = self.book().find(&connection.agent, session).await else {
            connection.opened(session);
            return Ok(Some(here));
        };
        let place = self.place(&known.server_id).await?;
        let is_load = envelope.method() == "session/load";
        let history = is_load.then_some(known.history);
        let follows_it = was_opened && !is_load && Arc::ptr_eq(&here.server, &place.server);
        let shown = (!follows_it).then(|| connection.attach(session, place.clone(), known.position, history));
        connection.note_use(session, self.next_use());
        let raw = envelope.id().unwrap_or("null");
        let (place, session) = if is_load { (connection.home.clone(), None) } else { (place, Some(session)) };
        let answer = ids::answer(&ids::own(&connection.id, raw, session), &known.opened);
        let (remote, gone) = (self.clone(), connection.gone.clone());
        spawn_owned("acp-attach", async move {
            let patience = tokio::time::sleep(as_duration(remote.bounds().acp_load_patience_ms));
            if let Some(shown) = shown {
                tokio::select! {
                    _ = shown => {} // all of it was read, or there is nothing to show
                    () = patience => {}
                    () = gone.cancelled() => return,
                }
            }
            remote.acp().say(&place.server, answer).await;
        });
        Ok(None)
    }

    async fn list(&self, connection: &Connection, envelope: &Envelope) -> Result<(), Error> {
        let result = self.book().list(&connection.agent, envelope.params().unwrap_or("{}")).await;
        let id = ids::own(&connection.id, envelope.id().unwrap_or("null"), None);
        self.acp().say(&connection.home.server, ids::answer(&id, &result)).await;
        Ok(())
    }

    async fn close(&self, connection: &Connection, place: Place, envelope: Envelope, session: String) -> Result<(), Error> {
        let deletes = envelope.method() == "session/delete";
        if can(&place, if deletes { "delete" } else { "close" }) {
            return self.forward(connection, place, envelope, Some(session)).await;
        }
        if let Some(known) = self.book().find(&connection.agent, &session).await {
            self.book().closed(&known.history.session_id, deletes).await;
        }
        let raw = envelope.id().unwrap_or("null");
        let pending = pending(connection, &place, &envelope, Some(&session));
        let answer = ids::answer(&pending.own_id, "{}");
        connection.begin(raw, pending);
        self.acp().say(&place.server, answer).await;
        Ok(())
    }

    async fn forward(
        &self,
        connection: &Connection,
        place: Place,
        envelope: Envelope,
        session: Option<String>,
    ) -> Result<(), Error> {
        if envelope.kind() != Kind::Request {
            return Ok(self.acp().submit(&place.server_id, &place.server, envelope).await?);
        }
        let raw = envelope.id().unwrap_or("null").to_owned();
        // As clients expect it: what was said comes on the session's stream, that it is all on the connection's.
        let is_load = envelope.method() == "session/load" && Arc::ptr_eq(&place.server, &connection.home.server);
        let pending = pending(connection, &place, &envelope, session.as_deref().filter(|_| !is_load));
        let renamed = ids::renamed(&envelope, &pending.own_id);
        connection.begin(&raw, pending);
        let sent = self.acp().submit(&place.server_id, &place.server, renamed).await;
        if sent.is_err() {
            connection.abandon(&raw);
        }
        Ok(sent?)
    }

    async fn place(&self, server_id: &str) -> Result<Place, Error> {
        Ok(Place { server_id: server_id.to_owned(), server: self.acp().get(server_id).await? })
    }
}

fn pending(connection: &Connection, place: &Place, envelope: &Envelope, session: Option<&str>) -> Pending {
    let raw = envelope.id().unwrap_or("null");
    let ends = matches!(envelope.method(), "session/close" | "session/delete");
    Pending {
        place: place.clone(),
        own_id: ids::own(&connection.id, raw, session),
        start: place.server.events().newest().seq,
        closes: session.filter(|_| ends).map(str::to_owned),
    }
}

/// ACP v1, "Initialization": an absent or null member of `sessionCapabilities` means no.
fn can(place: &Place, what: &str) -> bool {
    let initialized = place.server.initialized().and_then(|result| serde_json::from_str::<Value>(&result).ok());
    initialized.is_some_and(|result| !result["agentCapabilities"]["sessionCapabilities"][what].is_null())
}

impl Door<'_> {
    /// The session that a message is about.
    fn session(self, envelope: &Envelope) -> Result<Option<String>, Error> {
        let named = envelope.session_id();
        match self {
            Self::Socket => Ok(named),
            Self::Post(None) if named.is_some() || SESSION_METHODS.contains(&envelope.method()) => Err(Error::MissingSession),
            Self::Post(Some(header)) if named.as_deref().is_some_and(|named| named != header) => Err(Error::MismatchedSession),
            Self::Post(header) => Ok(header.map(str::to_owned)),
        }
    }
}
