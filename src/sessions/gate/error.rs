//! What can go wrong at the gate.

use std::sync::Arc;

use super::types::RequestInfo;
use crate::{acp, store};

/// Why the gate refuses.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such request.
    #[error("no request has the id {id:?}")]
    NotFound {
        /// The id as given.
        id: String,
    },
    /// No such rule.
    #[error("no rule that was remembered has the id {id:?}: rules of the policy change with the whole policy")]
    NoRule {
        /// The id as given.
        id: String,
    },
    /// Somebody decided it otherwise before.
    #[error("the request {} was resolved before", .0.request_id)]
    Resolved(Arc<RequestInfo>),
    /// An answer that doesn't fit the request.
    #[error("{0}")]
    Invalid(String),
    /// A rule of a policy that can't be used.
    #[error("rule {number} ({id:?}), field {field}: {problem}")]
    BadRule {
        /// Its place in the list, from 1.
        number: usize,
        /// Its id, when it has one.
        id: String,
        /// The field.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A policy that is too long.
    #[error("a policy may have {max} rules (bound permission_rules_max)")]
    TooManyRules {
        /// The bound.
        max: u64,
    },
    /// The agent waits no longer, though nobody told us why.
    #[error("the agent no longer waits for an answer to it")]
    AgentGone,
    /// Agents can't be reached yet.
    #[error("the server is starting: try again")]
    Starting,
    /// The agent can't be reached.
    #[error(transparent)]
    Acp(#[from] acp::Error),
    /// The database can't be had.
    #[error(transparent)]
    Store(#[from] store::Error),
}
