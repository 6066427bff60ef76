//! The accessibility tree of a desktop over AT-SPI 2 (the D-Bus interfaces `org.a11y.atspi.*` of at-spi2-core): what a screen
//! reader sees, for agents. Read the tree, find nodes by role, name, state or text, and act on them without a pointer.
//!
//! Applications answer for themselves, each as well as its toolkit can, and any of them may hang. So each call waits no longer
//! than its bound, a silent application is reported beside the rest, and every list and text has a bound.
//!
//! Everything is async and runs on the caller's tokio runtime. Reads may be dropped at any time. An act that was sent is done
//! by the application whether or not its answer is awaited.
//!
//! | module | what |
//! |---|---|
//! | `handle` | the connection: found, lost, found again |
//! | `bus` | one call and its bound; errors of D-Bus told as ours |
//! | `id` | ids of nodes |
//! | `names` | roles and states by their standard names |
//! | `node` | what a node says of itself |
//! | `cache` | what an application says of all its nodes at once |
//! | `walk` | the nodes of one application |
//! | `tree` | the tree of the desktop, and finding in it |
//! | `act` | actions, texts, values, focus |
//! | `environment` | what programs need so that they show their tree |

mod act;
mod bus;
mod cache;
mod environment;
mod error;
mod handle;
mod id;
mod names;
mod node;
mod tree;
mod walk;

pub use act::{Action, TextRange};
pub use environment::{ENVIRONMENT, ENVIRONMENT_NEUTRAL, PACKAGE};
pub use error::{Error, Result};
pub use handle::{Accessibility, has_launcher};
pub use id::NodeId;
pub use names::{is_role, is_state};
pub use node::{Bounds, Node, Value};
pub use tree::{Application, Cut, CutReason, Found, MAX_NODES, MAX_TEXT_CHARS, Match, Query, Silent, TextMatch, Tree};
