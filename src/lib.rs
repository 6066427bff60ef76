//! sandboxd: the agent runtime that lives inside a sandbox. `docs/ARCHITECTURE.md` is the map.

pub mod config;
pub mod processes;
pub mod rt;
pub mod store;
