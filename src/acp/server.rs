//! The handle on one ACP server.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::owner::Command;
use super::readers::Readers;
use super::types::Status;
use crate::store::Stream;

/// The handle on one server.
pub struct Server {
    pub(super) agent: String,
    pub(super) instance: String,
    pub(super) created_at_ms: i64,
    pub(super) mailbox: mpsc::Sender<Command>,
    pub(super) outbound: Arc<Stream>,
    pub(super) readers: Readers,
    pub(super) status: watch::Receiver<Status>,
    pub(super) initialized: Arc<Mutex<Option<Arc<str>>>>,
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
        self.initialized.lock().unwrap_or_else(PoisonError::into_inner).clone() // one value: always whole
    }

    /// Who reads that stream live.
    pub fn readers(&self) -> &Readers {
        &self.readers
    }
}
