//! Why something can't be read or done.

use crate::environment::PACKAGE;

/// Of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why something can't be read or done.
#[derive(Debug, Clone, thiserror::Error)]
#[allow(missing_docs)] // the texts say what each is
pub enum Error {
    #[error("no D-Bus session bus at `{address}`: {why}")]
    NoBus { address: String, why: String },
    #[error("the session has no accessibility bus (install the package {PACKAGE}): {0}")]
    NoAccessibility(String),
    #[error("the accessibility bus has no registry (it belongs to the package {PACKAGE}): {0}")]
    NoRegistry(String),
    #[error("the accessibility bus is gone: {0}")]
    Disconnected(String),
    #[error("no such node: {0}")]
    NoNode(String),
    #[error("the node {node} has no action `{action}`; it has: {}", list(.actions))]
    NoAction { node: String, action: String, actions: Vec<String> },
    #[error("the application refuses: {0}")]
    Refused(String),
    #[error("{what}: no answer within {timeout_ms} ms")]
    TimedOut { what: String, timeout_ms: u64 },
    #[error("{0}")]
    Invalid(String),
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".into() } else { names.join(", ") }
}
