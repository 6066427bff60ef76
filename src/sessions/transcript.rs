//! What was said, in words, for a fresh session of the agent's that takes the place of one it lost.

use std::sync::Arc;

use super::Sessions;
use super::live::Live;
use super::projection::Transcriber;
use crate::acp::Transcript;
use crate::config::as_usize;

/// What stands before the transcript.
const INTRODUCTION: &str = "The conversation below took place before you were restarted; your own memory of it is lost. \
     Go on from where it ends. Newest parts come last";

impl Sessions {
    /// The transcript within `transcript_max_bytes`; `None` when nothing was said yet, or the log can't be read.
    pub(super) async fn transcript(&self, live: &Arc<Live>) -> Option<Transcript> {
        let mut transcriber = Transcriber::new(as_usize(self.bounds().transcript_max_bytes));
        if let Err(error) = self.fold(live, 0, |payload| transcriber.push(payload)).await {
            tracing::error!(%error, session = live.id, "the transcript could not be read: the agent's fresh session knows nothing");
            return None;
        }
        let said = transcriber.finish();
        if said.text.trim().is_empty() {
            return None;
        }
        let cut = if said.truncated { "; the oldest parts are left out" } else { "" };
        let text = format!(
            "{INTRODUCTION}{cut}.\n\n<transcript>\n{}\n</transcript>\n\nThe next message follows.\n",
            said.text.trim_end()
        );
        Some(Transcript { text, truncated: said.truncated })
    }
}
