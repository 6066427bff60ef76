//! What took how long: spans of turns, tool calls, waits for decisions and processes.

pub mod ids;
pub mod spans;
