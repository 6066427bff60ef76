//! What an installation tells while it runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;
use utoipa::ToSchema;

use crate::rt::clock::now_ms;

/// Takes the events; called on the installing task, so it must not block.
pub type ProgressSink = Arc<dyn Fn(InstallEvent) + Send + Sync>;

/// Longest `detail`, in bytes; the rest is cut.
const DETAIL_MAX_BYTES: usize = 512;

/// One step of an installation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct InstallEvent {
    /// The agent's id.
    pub agent: String,
    /// Where the installation is.
    pub phase: InstallPhase,
    /// For people: what is being done, or a line of the installer's output.
    pub detail: String,
    /// Milliseconds since the Unix epoch.
    pub time_ms: i64,
}

/// Where an installation is. `Done` and `Failed` come last, and once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum InstallPhase {
    /// Waits for another one of the same agent.
    Queued,
    /// npm runs.
    Downloading,
    /// The download is compared with what is pinned.
    Verifying,
    /// The new version is put in place.
    Linking,
    /// The agent can be started.
    Done,
    /// Nothing was changed.
    Failed,
}

/// Reports one installation; output lines only up to `agent_install_events_max`.
pub(super) struct Progress {
    agent: String,
    sink: ProgressSink,
    lines_left: AtomicU64,
}

impl Progress {
    pub(super) fn new(agent: &str, sink: &ProgressSink, lines_max: u64) -> Self {
        Self { agent: agent.to_owned(), sink: Arc::clone(sink), lines_left: AtomicU64::new(lines_max) }
    }

    /// Reports a step.
    pub(super) fn step(&self, phase: InstallPhase, detail: impl Into<String>) {
        let mut detail = detail.into();
        detail.truncate(detail.floor_char_boundary(DETAIL_MAX_BYTES));
        (self.sink)(InstallEvent { agent: self.agent.clone(), phase, detail, time_ms: now_ms() });
    }

    /// Reports a line of the installer's output.
    pub(super) fn line(&self, line: &str) {
        let one_less = |left: u64| left.checked_sub(1);
        if self.lines_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok() {
            self.step(InstallPhase::Downloading, line);
        }
    }
}
