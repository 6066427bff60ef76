//! What a process tree may use, and who sees to it.

use std::time::Duration;

use tokio::time::Instant;

use crate::processes::types::Limits;

/// The limits that the owner itself watches.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) wall_end: Option<Instant>,
    pub(super) output_bytes: u64,
}

impl Watched {
    /// From now on.
    pub(super) fn start(limits: &Limits) -> Self {
        let wall_end = limits.wall_time_ms.map(|ms| Instant::now() + Duration::from_millis(ms));
        Self { wall_end, output_bytes: limits.output_bytes.unwrap_or(u64::MAX) }
    }
}
