//! What a session's updates mean: the fold from ACP `session/update` to events with turns and items, and back.
//! Pure: time is an input, nothing is read or written.
//!
//! | module | from | to |
//! |---|---|---|
//! | [`Projector`] | ACP updates of one session | events to append |
//!
//! Source: ACP v1, "Prompt Turn", "Content", "Tool Calls", "Agent Plan", "Session Config Options".

mod diff;
mod event;
mod item;
mod json;
mod message;
mod noted;
mod parts;
mod plan;
mod projector;
mod prompt;

mod session;
mod shrink;

mod tool;
mod tools;

pub use event::{Projected, Source};
pub use noted::{Noted, Phase, ToolNoted, Usage};
pub use projector::{Limits, Outcome, Projector, TurnEnd};
