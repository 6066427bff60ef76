//! The git room: what a repository says of itself, and working trees for sessions. All of it is asked of the git
//! binary, which runs nothing that the repository names (`command`) and is told no path that the caller may not use
//! (`repository`). The room holds nothing between calls.
//!
//! | module | what |
//! |---|---|
//! | `command` | running git, hardened and bounded |
//! | `repository` | the repository of a directory |
//! | `status`, `diff`, `log` | questions |
//! | `worktrees`, `locks` | working trees beside the first |

mod command;
mod diff;
mod error;
mod locks;
mod log;
mod repository;
mod status;
mod text;
mod worktrees;

use std::sync::Arc;

pub use diff::{Diff, DiffFile, DiffSpec};
pub use error::Error;
pub use log::{Commit, Log, LogSpec, Person};
pub use repository::{Allows, Place};
pub use status::{Branch, Status, StatusEntry, StatusSpec, Untracked};
pub use worktrees::{Spot, Worktree, WorktreeSpec};

use crate::config::{Bounds, Env};
use crate::processes::Children;
use command::Commands;

/// The handle on the room.
#[derive(Clone)]
pub struct Git {
    commands: Arc<Commands>,
}

impl Git {
    /// Opens the room. Whether there is a git is seen when it is needed.
    pub fn new(children: Children, env: Env, bounds: Bounds) -> Self {
        Self { commands: Arc::new(Commands::new(children, env, bounds)) }
    }
}
