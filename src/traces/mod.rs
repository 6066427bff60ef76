//! What took how long: spans of turns, tool calls, waits for decisions and processes.

pub mod ids;
pub mod spans;

pub use spans::{RequestSeen, SpanBook, ToolPhase, ToolSeen, TurnEnded, TurnSeen, UsageSeen};

/// Where spans that have ended go besides the file.
#[derive(Debug, Clone, Default)]
pub struct Traces;

impl Traces {
    /// A span was written; cheap.
    pub fn ended(&self, _span: &crate::store::SpanRow) {}
}
