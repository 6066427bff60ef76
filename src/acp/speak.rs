//! Speaking with a server's agent: envelopes of clients, our own answers, and what its owner is told to do.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::envelope::Envelope;
use super::owner::{Answer, Command, Post};
use super::server::Server;
use super::types::{Error, Posted};
use super::{Acp, Made};
use crate::config::as_duration;
use crate::rt::spawn_owned;

/// Log type of what we say in an agent's place.
const FROM_US: &str = "acp.daemon";

impl Acp {
    /// Sends an envelope to a server, making it when the id is free and `agent` says of what.
    ///
    /// A request resolves when the agent answered, however long that takes. Dropping the future loses that reply only:
    /// the envelope is still sent, and its answer reaches the event stream and the log.
    ///
    /// # Errors
    /// [`Error`], before anything was sent.
    pub async fn post(&self, server_id: &str, agent: Option<&str>, envelope: Envelope) -> Result<Posted, Error> {
        self.send(server_id, agent, Post { envelope, tag: None, is_logged: false }).await
    }

    /// The same with something for the server's [`Tap`](super::Tap) to know the request by.
    ///
    /// # Errors
    /// As [`Acp::post`].
    pub async fn post_tagged(
        &self,
        server_id: &str,
        agent: Option<&str>,
        envelope: Envelope,
        tag: Option<String>,
    ) -> Result<Posted, Error> {
        self.send(server_id, agent, Post { envelope, tag, is_logged: false }).await
    }

    /// The same of an envelope that an earlier server wrote into the log, and never sent.
    ///
    /// # Errors
    /// As [`Acp::post`].
    pub async fn post_late(&self, server_id: &str, agent: &str, envelope: Envelope, tag: String) -> Result<Posted, Error> {
        self.send(server_id, Some(agent), Post { envelope, tag: Some(tag), is_logged: true }).await
    }

    async fn send(&self, server_id: &str, agent: Option<&str>, post: Post) -> Result<Posted, Error> {
        self.check(server_id, agent)?;
        let (reply, answer) = oneshot::channel();
        let command = Command::Post { post, reply };
        let server = match self.ready(server_id) {
            Some((server, room)) => {
                room.send(command);
                server
            }
            None => {
                let (acp, server_id, agent) = (self.clone(), server_id.to_owned(), agent.map(str::to_owned));
                let sent =
                    spawn_owned("acp-post", async move { acp.send_when_possible(&server_id, agent.as_deref(), command).await });
                sent.await.map_err(|_| Error::Stopping)??
            }
        };
        match answer.await.map_err(|_| self.gone(server_id))? {
            Answer::Accepted => Ok(Posted::Accepted),
            Answer::Response { text, committed } => {
                let position = committed.await.ok();
                if let Some(seq) = position {
                    server.readers.reached(seq, as_duration(self.inner.bounds.acp_answer_patience_ms)).await;
                } // else the store is closed: the answer still goes out
                Ok(Posted::Response { text, position })
            }
        }
    }

    /// Hands an envelope to this server's owner. What is answered reaches the event stream only. Cancel safe: when
    /// dropped, nothing was sent.
    ///
    /// # Errors
    /// [`Error::Deleted`], [`Error::Stopping`].
    pub async fn submit(&self, server_id: &str, server: &Server, envelope: Envelope) -> Result<(), Error> {
        self.inner.store.room().await;
        let (reply, _) = oneshot::channel();
        server
            .mailbox
            .send(Command::Post { post: Post { envelope, tag: None, is_logged: false }, reply })
            .await
            .map_err(|_| self.gone(server_id))
    }

    /// Puts an answer of our own on a server's event stream. Cancel safe.
    pub async fn say(&self, server: &Server, text: Bytes) {
        self.inner.store.room().await;
        self.inner.store.append(&server.outbound, FROM_US, text, None);
        self.inner.store.flush();
    }

    /// Answers a request of the agent's (`request_id` as the agent wrote it) with a JSON-RPC result. False when somebody
    /// answered it before, or the agent process that asked is gone. Dropping the future takes nothing back.
    ///
    /// # Errors
    /// [`Error::UnknownServer`], or that it was deleted meanwhile.
    pub async fn answer(&self, server_id: &str, request_id: &str, result: String, by: String) -> Result<bool, Error> {
        let server = self.get(server_id).await?;
        let (reply, first) = oneshot::channel();
        let command = Command::Answer { id: request_id.to_owned(), result, by, reply };
        server.mailbox.send(command).await.map_err(|_| self.gone(server_id))?;
        first.await.map_err(|_| self.gone(server_id))
    }

    /// Ends a server's agent process, keeping the server: the next request starts another and restores its sessions.
    /// Resolves when nothing of it is left. `reason` is what clients are told then. With `only_idle` nothing happens while
    /// a request is under way.
    ///
    /// # Errors
    /// As [`Acp::answer`].
    pub async fn stop_agent(&self, server_id: &str, reason: &str, grace: Duration, only_idle: bool) -> Result<(), Error> {
        let server = self.get(server_id).await?;
        let (reply, gone) = oneshot::channel();
        let command = Command::StopAgent { reason: reason.to_owned(), grace, only_idle, reply };
        server.mailbox.send(command).await.map_err(|_| self.gone(server_id))?;
        gone.await.map_err(|_| self.gone(server_id))
    }

    /// What the agent of a server answered to `initialize` last: JSON text. `None` for an unknown server, too.
    pub fn initialized(&self, server_id: &str) -> Option<Arc<str>> {
        let made = self.inner.servers().get(server_id).and_then(|slot| slot.made.borrow().clone());
        made.and_then(Result::ok)?.initialized()
    }

    /// Tells a server of a session that it doesn't know (it was carried by another one before), with the params it was
    /// opened with, and its settings (method and params) since: the next request for it restores it. Nothing changes when the server knows it.
    ///
    /// # Errors
    /// As [`Acp::answer`].
    pub async fn remember(
        &self,
        server_id: &str,
        session_id: &str,
        params: String,
        settings: Vec<(String, String)>,
    ) -> Result<(), Error> {
        let server = self.get(server_id).await?;
        let command = Command::Remember { session_id: session_id.to_owned(), params, settings };
        server.mailbox.send(command).await.map_err(|_| self.gone(server_id))
    }

    /// Gives what `look` sees when all that passed through a server is in the file, also what `first` appended, and nothing
    /// passes meanwhile; it is given the newest position of the server's events. Both must not wait. Cancel safe.
    ///
    /// # Errors
    /// As [`Acp::answer`].
    pub async fn look<T: Send + 'static>(
        &self,
        server_id: &str,
        first: impl FnOnce() + Send + 'static,
        look: impl FnOnce(u64) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let server = self.get(server_id).await?;
        let (reply, seen) = oneshot::channel();
        let look = Box::new(move |newest| drop(reply.send(look(newest)))); // who asked may have left
        server.mailbox.send(Command::Look { first: Box::new(first), look }).await.map_err(|_| self.gone(server_id))?;
        seen.await.map_err(|_| self.gone(server_id))
    }

    /// The common case: the server is there, and its mailbox and the log have room.
    fn ready(&self, server_id: &str) -> Option<(Arc<Server>, mpsc::OwnedPermit<Command>)> {
        let made = self.inner.servers().get(server_id).and_then(|slot| slot.made.borrow().clone());
        let server = made.and_then(Result::ok).filter(|_| self.inner.store.has_room())?;
        let room = server.mailbox.clone().try_reserve_owned().ok()?;
        Some((server, room))
    }

    /// Why an owner answers no more.
    fn gone(&self, server_id: &str) -> Error {
        if self.inner.stop.is_cancelled() { Error::Stopping } else { Error::Deleted { id: server_id.to_owned() } }
    }

    async fn send_when_possible(&self, server_id: &str, agent: Option<&str>, command: Command) -> Made {
        let server = self.find_or_make(server_id, agent).await?;
        self.inner.store.room().await;
        server.mailbox.send(command).await.map_err(|_| self.gone(server_id))?;
        Ok(server)
    }
}
