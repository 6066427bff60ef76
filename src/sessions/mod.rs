//! Sessions: ACP sessions that last.

pub mod projection;
//! Sessions that last, over the agents that the ACP room runs.

pub mod gate;
