//! The handle on one ACP server.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::owner::Command;
use super::readers::Readers;
use super::types::Status;
use crate::store::Stream;

/// How its agent was initialized last, now or in an earlier run: JSON texts.
#[derive(Debug, Clone, Default)]
pub(super) struct Handshake {
    /// The params.
    pub(super) asked: Option<Arc<str>>,
    /// The result.
    pub(super) answered: Option<Arc<str>>,
}

/// The handle on one server.
pub struct Server {
    pub(super) agent: String,
    pub(super) instance: String,
    pub(super) created_at_ms: i64,
    pub(super) mailbox: mpsc::Sender<Command>,
    pub(super) outbound: Arc<Stream>,
    pub(super) readers: Readers,
    pub(super) status: watch::Receiver<Status>,
    pub(super) handshake: Arc<Mutex<Handshake>>,
    pub(super) task: Mutex<Option<JoinHandle<()>>>,
}

impl Server {
    /// The stream of everything the agent wrote.
    pub fn events(&self) -> &Arc<Stream> {
        &self.outbound
    }

    /// The agent's id.
    pub fn agent(&self) -> &str {
        &self.agent
    }

    /// Ours; names its streams.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// Whether its agent lives.
    pub fn status(&self) -> Status {
        *self.status.borrow()
    }

    /// What the agent answered to `initialize` last, now or in an earlier run: JSON text.
    pub fn initialized(&self) -> Option<Arc<str>> {
        self.handshake().answered
    }

    /// What it was asked then: the params of `initialize`.
    pub fn initialized_with(&self) -> Option<Arc<str>> {
        self.handshake().asked
    }

    fn handshake(&self) -> Handshake {
        self.handshake.lock().unwrap_or_else(PoisonError::into_inner).clone() // one value: always whole
    }

    /// Who reads that stream live.
    pub fn readers(&self) -> &Readers {
        &self.readers
    }
}
