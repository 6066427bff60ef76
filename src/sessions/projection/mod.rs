//! What a session's updates mean: the fold from ACP `session/update` to events with turns and items, and back.
//! Pure: time is an input, nothing is read or written.
//!
//! | from | by | to |
//! |---|---|---|
//! | ACP updates of one session | [`Projector`] | events to append |
//! | the same updates and their stored events | [`Already`] | the events that are missing |
//! | stored events | [`Snapshot`] | the items as they are now |
//! | stored events | [`replay`] | ACP updates for a client that loads the session |
//! | stored events | [`Transcriber`] | a text for a fresh agent session |
//!
//! An event is `synthetic` when nobody said it, but it follows from what was said: a message is complete because a tool
//! call begins.
//!
//! Source: ACP v1, "Prompt Turn", "Content", "Tool Calls", "Agent Plan", "Session Config Options".

mod already;
mod diff;
mod event;
mod item;
mod joined;
mod json;
mod message;
mod noted;
mod parts;
mod plan;
mod projector;
mod prompt;
pub mod replay;
mod session;
mod shrink;
mod snapshot;
mod stored;
#[cfg(test)]
mod tests;
mod tool;
mod tools;
mod transcript;
mod turn;

pub use already::Already;
pub use event::{Projected, Source};
pub use noted::{Noted, Phase, ToolNoted, Usage};
pub use projector::{Limits, Projector};
pub use snapshot::{Snapshot, SnapshotLimits};
pub use transcript::{Transcriber, Transcript};
pub use turn::{Outcome, TurnEnd};
