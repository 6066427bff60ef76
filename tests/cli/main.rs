//! The real binary, driven by its command line.
#![allow(clippy::disallowed_methods, missing_docs)] // a test starts processes and reads its environment itself

mod api;
mod credentials;
mod daemon;
mod install;
mod state;
mod support;
