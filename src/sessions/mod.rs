//! Sessions: ACP sessions that last.

pub mod gate;
pub mod projection;
