//! Sessions that last, over the agents that the ACP room runs.

pub mod gate;
