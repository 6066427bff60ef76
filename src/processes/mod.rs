//! The only room that starts a child (rule 2: one executor).
//!
//! [`Children`] starts, finds and ends process trees; rooms that speak to a child through its pipes use it directly.
//! [`Processes`] is what clients see: managed processes with terminals, logs on disk and restart policies, and one-shot
//! runs. Each managed process has one owner task ([`managed`]); [`room`] knows them all.

mod api;
mod cgroup;
pub mod channel;
mod children;
mod confine;
mod desk;
mod error;
mod kept;
mod logs;
mod managed;
mod open_ports;
mod ports;
mod prepare;
mod room;
mod run;

mod search;
mod slate;
mod spool;
mod take_up;
mod terminal;
pub mod types;
mod usage;
mod wait;

pub use api::Processes;
pub use children::{COOKIE_VARIABLE, Child, ChildSpec, Children, Started, StderrTail, started_at_ticks};
pub use error::Error;
pub use logs::{LogEntry, LogItem, LogQuery, LogReader, LogState};
pub use search::PATTERN_MAX_CHARS;
pub use terminal::{Attachment, TerminalEvent};
pub use terminal_screen::{CursorInfo, Screen, ScreenCells};
pub use types::{Exit, Owner, ProcessId, Stopped};

/// Tests that start children do it one after the other: the reaper of one room would collect another room's.
#[cfg(test)]
static TEST_CHILDREN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
