//! Sessions: ACP sessions that last.

pub mod projection;
