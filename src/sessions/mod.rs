//! Sessions: ACP sessions that last. A row, a stream of events, turns and requests, over one ACP server.
//!
//! Who changes what:
//! * the tap of a session's ACP server ([`tap`]), in that server's owner task, folds everything that passes into events
//!   ([`projection`]), turns and spans;
//! * task `session-turns`, one per session with a queue ([`run`]), sends queued turns one after another; it ends when the
//!   queue is empty;
//! * task `turn-watch`, one per turn under way ([`watch`]), looks at its deadlines; `turn-cancel` gives up what doesn't end;
//! * the gate ([`gate`]) decides or asks when agents want permission.
//!
//! All meet in [`live::Live`], the session in memory: from when it is touched until its agent ends. Other sessions are
//! rows in the file and cost no memory; their state is read when it is wanted.

mod adopt;
mod attach;
mod begin;
mod book;
mod create;
mod custodian;
mod error;
mod events;
pub mod gate;
mod ground;
mod janitor;
mod lifecycle;
mod live;
mod message;
pub mod projection;
mod read;
mod registry;
mod restart;
mod resume;
mod run;
mod steer;
mod submit;
mod tap;
mod told;
mod transcript;
mod transfer;
mod turn;
mod types;
mod watch;
mod witness;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use serde_json::Value;

pub use attach::Attachment;
pub use custodian::{BadRoot, BadWorktree, Custodian};
pub use error::Error;
pub use events::{RawEvent, Snapshot};
pub use ground::{Root, SessionWorktree};
pub use transfer::{Export, Import};
pub use types::{
    AttachmentRef, Cost, ExitDoc, McpPolicy, MessageSpec, Restored, SessionDetails, SessionInfo, SessionPatch, SessionSpec,
    SessionState, Stats, Submitted, TurnInfo, TurnLimits, UsageDoc, WhileRunning,
};
pub use witness::{Diff, Touch, Witness};

use crate::acp::Acp;
use crate::config::{Bounds, as_usize};
use crate::rt::clock::now_ms;
use crate::rt::keyed::Keyed;
use crate::store::{Store, Stream};
use crate::traces::Traces;
use crate::workspace::Workspace;
use create::Creating;
use gate::Gate;
use projection::Limits;
use registry::Registry;

/// The room.
#[derive(Clone)]
pub struct Sessions {
    inner: Arc<Inner>,
}

/// What the room is made of.
pub struct Parts {
    /// The log and the rows.
    pub store: Store,
    /// Every limit.
    pub bounds: Bounds,
    /// Who decides.
    pub gate: Gate,
    /// Where spans go.
    pub traces: Traces,
    /// What is configured per directory.
    pub workspace: Workspace,
    /// Sessions work here when nothing else is said.
    pub home: PathBuf,
    /// Attachments lie below.
    pub data: PathBuf,
    /// Requests that belong to no session are told here.
    pub requests: Arc<Stream>,
}

struct Inner {
    parts: Parts,
    acp: OnceLock<Acp>,
    registry: Mutex<Registry>,
    creating: Mutex<Creating>,
    /// Held while an import looks for a free id.
    importing: tokio::sync::Mutex<()>,
    /// One at a time may say `initialize` to a server; by server id.
    handshakes: Keyed,
    /// One at a time may use an idempotency key.
    retries: Keyed,
    /// One at a time reads a session from the file; by its id.
    loads: Keyed,
    /// Keeps book of files.
    witness: OnceLock<Arc<dyn Witness>>,
    /// Keeps what sessions have elsewhere.
    custodian: OnceLock<Arc<dyn Custodian>>,
}

impl Sessions {
    /// The room, not yet joined with the agents' room: see [`Sessions::join`].
    pub fn new(parts: Parts) -> Self {
        let inner = Inner {
            parts,
            acp: OnceLock::new(),
            registry: Mutex::default(),
            creating: Mutex::default(),
            importing: tokio::sync::Mutex::default(),
            handshakes: Keyed::default(),
            retries: Keyed::default(),
            loads: Keyed::default(),
            witness: OnceLock::new(),
            custodian: OnceLock::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Joins it with the agents' room, ends what an earlier run left undone, and goes on with what waited.
    ///
    /// # Errors
    /// [`Error::Store`] when the rows can't be read.
    pub async fn join(&self, acp: Acp) -> Result<(), Error> {
        let _ = self.inner.acp.set(acp); // app joins once
        self.take_up().await?;
        self.start_janitor();
        Ok(())
    }

    fn acp(&self) -> Result<&Acp, Error> {
        self.inner.acp.get().ok_or(Error::Acp(crate::acp::Error::Stopping))
    }

    /// True while everything ends: what waits is left for the next run.
    fn is_stopping(&self) -> bool {
        self.inner.acp.get().is_some_and(Acp::is_stopping)
    }

    fn store(&self) -> &Store {
        &self.inner.parts.store
    }

    fn bounds(&self) -> &Bounds {
        &self.inner.parts.bounds
    }

    /// Who decides what agents ask.
    pub fn gate(&self) -> &Gate {
        &self.inner.parts.gate
    }

    fn registry(&self) -> std::sync::MutexGuard<'_, Registry> {
        self.inner.registry.lock().unwrap_or_else(PoisonError::into_inner) // maps are whole after each change
    }

    fn limits(&self) -> Limits {
        let bounds = self.bounds();
        Limits {
            text_max_bytes: as_usize(bounds.item_text_max_bytes),
            tool_call_max_bytes: as_usize(bounds.item_tool_call_max_bytes),
            diff_max_bytes: as_usize(bounds.item_diff_max_bytes),
            open_items_max: as_usize(bounds.session_open_items_max),
            delta_max_bytes: as_usize(bounds.item_delta_max_bytes),
        }
    }

    /// A request of an agent's that belongs to no session we know.
    fn log_request(&self, opened: &gate::Opened) {
        let change = Some(crate::store::RowChange::Many(opened.changes.clone()));
        self.log("request.created", &opened.created, change);
        if let Some(resolved) = &opened.resolved {
            self.log("request.resolved", resolved, None);
        }
    }

    /// The end of a request whose session isn't in memory.
    fn log_resolution(&self, closed: &gate::Closed) {
        self.log("request.resolved", &closed.resolved, Some(crate::store::RowChange::Many(closed.changes.clone())));
    }

    fn log(&self, kind: &'static str, data: &Value, change: Option<crate::store::RowChange>) {
        let event = serde_json::json!({"time": now_ms(), "source": "daemon", "synthetic": false, "type": kind, "data": data});
        self.store().append(&self.inner.parts.requests, kind, event.to_string().into(), change);
        self.store().flush();
    }
}
