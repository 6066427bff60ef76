//! sandboxd: the agent runtime that lives inside a sandbox. `docs/ARCHITECTURE.md` is the map.

pub mod acp;
pub mod agents;
pub mod app;
pub mod cli;
pub mod config;
pub mod crashes;
pub mod desktop;
pub mod fs;
pub mod git;
pub mod http;
pub mod keeper;
pub mod lsp;
pub mod mock;
pub mod processes;
pub mod rt;
pub mod sessions;
pub mod store;
pub mod traces;
pub mod workspace;
