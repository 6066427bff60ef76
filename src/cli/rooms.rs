//! The rooms that a verb needs when it works without a server.

use std::path::Path;
use std::sync::Arc;

use super::{Failure, say};
use crate::agents::{Agents, AgentsConfig, InstallEvent, ProgressSink};
use crate::config::{Bounds, Dirs, Env, as_usize, self_exe};
use crate::processes::Children;
use crate::rt::ids::new_id;

/// The agents room, and the one that starts its children.
pub(super) struct Rooms {
    pub(super) agents: Agents,
    pub(super) children: Children,
}

impl Rooms {
    /// Opens the rooms on this machine's own directories. What an installation does is told on stderr.
    ///
    /// # Errors
    /// There is no home directory, a bound is wrong, or the kernel refuses a signal handler.
    pub(super) async fn open(env: Env, data_dir: Option<&Path>) -> Result<Self, Failure> {
        let dirs = Dirs::resolve(&env, data_dir)?;
        let bounds = Bounds::from_env(&env)?;
        // A new store id: what servers on this machine run is none of our business.
        let children = Children::start(&new_id("cli"), env.clone(), as_usize(bounds.processes_max)).await;
        let agents = Agents::new(AgentsConfig {
            dirs,
            env,
            self_exe: self_exe(),
            bounds,
            require_preinstall: false,
            children: children.clone(),
            progress: progress_on_stderr(),
        });
        Ok(Self { agents, children })
    }
}

fn progress_on_stderr() -> ProgressSink {
    Arc::new(|event: InstallEvent| {
        let phase = format!("{:?}", event.phase).to_lowercase();
        say(format_args!("{} {phase}: {}", event.agent, event.detail));
    })
}
