//! The real binary, driven over HTTP.
#![allow(clippy::disallowed_methods, missing_docs)] // a test starts processes and reads its environment itself

mod acp;
mod acp_remote;
mod acp_remote_client;
mod acp_remote_socket;
mod chaos;
mod directory_config;
mod edge;
mod events;
mod fs;
mod fs_support;
mod fs_watch;
mod lifecycle;
mod otlp;
mod pid_one;
mod processes_edge;
mod processes_failures;
mod processes_input;
mod processes_limits;
mod processes_output;
mod processes_rest;
mod processes_restarts;
mod processes_support;
mod processes_trees;
mod processes_watch;
mod processes_wire;
mod redaction;
mod requests;
mod sessions;
mod sessions_doors;
mod sessions_events;
mod sessions_limits;
mod sessions_mcp;
mod sessions_restart;
mod sessions_support;
mod sessions_turns;
mod storage;
mod support;
mod terminal_client;
mod terminal_floods;
mod terminal_programs;
mod terminals;
mod terminals_wire;
mod traces;
#[allow(dead_code)] // shared with the tests beside the code
mod ws;
