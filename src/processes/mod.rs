//! The only room that starts a child (rule 2: one executor).
//!
//! A child leads its own process group, inherits the environment without our secrets, and carries a cookie in its
//! environment (`SANDBOXD_COOKIE=<store>/<run>/<process>`), by which descendants are found even after they double-forked
//! or called `setsid`. One task owns each child: it alone waits for it, and publishes the exit. The server is a child
//! subreaper, so orphans come to it and are reaped ([`reap`]).
//!
//! ```text
//! running ──exit──▶ exited(code | signal)
//!    └─stop─▶ TERM to the whole tree ─grace─▶ KILL to the whole tree ─▶ exited, and the answer says what survived
//! ```

mod api;
#[allow(dead_code, unused_imports)] // nobody uses it yet
mod cgroup;
mod errand;
mod error;
mod logs;
mod reap;
mod scan;
#[allow(dead_code, unused_imports)] // nobody uses it yet
mod screen;
#[allow(dead_code, unused_imports)] // nobody uses it yet
mod spool;
mod stderr_tail;
mod terminal;
mod tree;
pub mod types;
#[allow(dead_code, unused_imports)] // nobody uses it yet
mod usage;

use std::collections::HashSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::watch;

pub use error::Error;
pub use logs::{LogEntry, LogItem, LogQuery, LogReader, LogState};
pub use scan::started_at_ticks;
pub use stderr_tail::StderrTail;
pub use terminal::{Attachment, TerminalEvent};
pub use types::{Exit, Owner, Stopped};

use scan::Scanner;
use tree::Target;

use crate::config::Env;
use crate::rt::ids::new_id;
use crate::rt::spawn_owned;

/// Marks every child and what it starts.
pub const COOKIE_VARIABLE: &str = "SANDBOXD_COOKIE";

/// What is asked for.
#[derive(Debug, Clone)]
pub struct ChildSpec {
    /// The executable; a path, not looked up on `PATH`.
    pub program: PathBuf,
    /// Its arguments, without the program itself.
    pub args: Vec<OsString>,
    /// Working directory; the server's own when absent.
    pub cwd: Option<PathBuf>,
    /// Variables on top of the server's environment.
    pub env: Vec<(OsString, OsString)>,
    /// Who it belongs to.
    pub owner: Owner,
}

/// A started child: its pipes, and the handle on it.
pub struct Started {
    /// Towards the child.
    pub stdin: ChildStdin,
    /// From the child.
    pub stdout: ChildStdout,
    /// From the child.
    pub stderr: ChildStderr,
    /// To follow and stop it.
    pub process: Process,
}

/// A cheap handle on a child. Dropping it stops nothing.
#[derive(Clone)]
pub struct Process {
    pid: u32,
    cookie: Arc<str>,
    scanner: Arc<Scanner>,
    exit: watch::Receiver<Option<Exit>>,
}

/// The room: starts children and knows which are its own.
#[derive(Clone)]
pub struct Processes {
    inner: Arc<Inner>,
}

struct Inner {
    env: Env,
    /// `<store>/<run>`: the cookie's beginning.
    cookie_prefix: String,
    /// Children whose exit their owner task collects. Held while a child is being started, so that the reaper never
    /// takes one that std is still waiting for.
    known: Mutex<HashSet<u32>>,
    max: usize,
    scanner: Arc<Scanner>,
    /// Nothing is started any more. Set and read while `known` is held.
    closed: AtomicBool,
}

impl Inner {
    fn known(&self) -> MutexGuard<'_, HashSet<u32>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner) // a set is whole after each change
    }
}

impl Processes {
    /// Becomes the subreaper, starts the reaper, and ends what an earlier run of a server on this store left behind.
    /// Dropping the future leaves some of that.
    ///
    /// # Errors
    /// The kernel refuses the SIGCHLD handler.
    pub async fn start(store_id: &str, env: Env, max: usize) -> std::io::Result<Self> {
        if let Err(errno) = nix::sys::prctl::set_child_subreaper(true) {
            tracing::warn!(%errno, "not a child subreaper: processes that daemonise are found by their cookie only");
        }
        let run = new_id("run");
        let (scanner, closed) = (Arc::default(), AtomicBool::new(false));
        let inner = Inner { env, cookie_prefix: format!("{store_id}/{run}"), known: Mutex::default(), max, scanner, closed };
        let processes = Self { inner: Arc::new(inner) };
        reap::start(&processes.inner)?;
        let leftovers = Target::Leftovers { store: format!("{store_id}/"), run: processes.inner.cookie_prefix.clone() };
        let grace = Duration::from_millis(500);
        let left = tree::end(&processes.inner.scanner, leftovers, grace, tree::KILL_WAIT).await.terminated;
        if left > 0 {
            tracing::warn!(processes = left, "ended processes that an earlier run left behind");
        }
        Ok(processes)
    }

    /// Starts a child with three pipes, leading its own process group.
    ///
    /// # Errors
    /// Each reason has its own [`Error`].
    pub fn spawn(&self, spec: &ChildSpec) -> Result<Started, Error> {
        if let Some(cwd) = spec.cwd.as_ref().filter(|cwd| !cwd.is_dir()) {
            return Err(Error::BadCwd { cwd: cwd.clone() });
        }
        let cookie: Arc<str> = format!("{}/{}", self.inner.cookie_prefix, new_id("proc")).into();
        let mut command = self.command(spec, &cookie);
        let mut known = self.inner.known();
        if self.inner.closed.load(Ordering::Relaxed) {
            return Err(Error::Refused { program: spec.program.clone(), cause: "the server is stopping".to_owned() });
        }
        if known.len() >= self.inner.max {
            return Err(Error::TooMany { max: self.inner.max });
        }
        let mut child = command.spawn().map_err(|error| refused(spec, &error))?;
        let pid = child.id().expect("a child that was not waited for has a pid");
        known.insert(pid);
        drop(known);
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else { unreachable!("all three are piped above") };
        let exit = self.own(child, pid);
        tracing::debug!(pid, owner = ?spec.owner, program = %spec.program.display(), "process started");
        Ok(Started { stdin, stdout, stderr, process: Process { pid, cookie, scanner: Arc::clone(&self.inner.scanner), exit } })
    }

    /// Starts nothing any more, and kills whatever this run has started with all that came of it. For an end that can't
    /// wait for each owner to stop its own; takes at most about a second. Gives how many there were.
    ///
    /// Dropping the future leaves what it has not come to.
    pub async fn end_all(&self) -> usize {
        let known = self.inner.known(); // whoever is just starting a child holds it: that child is seen below
        self.inner.closed.store(true, Ordering::Relaxed);
        drop(known);
        let run = Target::Run { run: format!("{}/", self.inner.cookie_prefix) };
        let stopped = tree::end(&self.inner.scanner, run, Duration::ZERO, Duration::from_secs(1)).await;
        if stopped.survived > 0 {
            tracing::error!(survived = stopped.survived, "processes could not be killed");
        }
        stopped.killed
    }

    #[allow(clippy::disallowed_methods)] // the one place that makes a command
    fn command(&self, spec: &ChildSpec, cookie: &str) -> Command {
        let mut command = Command::new(&spec.program);
        command.args(&spec.args).env_clear().envs(self.inner.env.for_children());
        command.envs(spec.env.iter().map(|(key, value)| (key, value))).env(COOKIE_VARIABLE, cookie);
        if let Some(cwd) = &spec.cwd {
            command.current_dir(cwd);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        command
    }

    /// The owner task: it alone waits for the child, and publishes the exit.
    fn own(&self, mut child: Child, pid: u32) -> watch::Receiver<Option<Exit>> {
        let (publish, exit) = watch::channel(None);
        let inner = Arc::clone(&self.inner);
        spawn_owned("process", async move {
            let outcome = child.wait().await.map_or(Exit::Code(-1), Exit::from);
            inner.known().remove(&pid);
            tracing::debug!(pid, %outcome, "process exited");
            publish.send_replace(Some(outcome));
        });
        exit
    }
}

impl Process {
    /// The child's process id, which is also its group's.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The exit, once there is one. Cancel safe.
    pub async fn exited(&self) -> Exit {
        let mut exit = self.exit.clone();
        let known = exit.wait_for(Option::is_some).await.map(|exit| *exit);
        known.ok().flatten().unwrap_or(Exit::Code(-1)) // the owner task is gone: only when the runtime ends
    }

    /// Ends the whole tree: TERM, then KILL after `grace`. Also finds what the child left after its own exit.
    ///
    /// Returns when nothing is left, or what is left can't be killed. Dropping the future stops the escalation.
    pub async fn stop(&self, grace: Duration) -> Stopped {
        let root = i32::try_from(self.pid).unwrap_or(i32::MAX);
        let target = Target::Tree { root, cookie: self.cookie.to_string() };
        let stopped = tree::end(&self.scanner, target, grace, tree::KILL_WAIT).await;
        if stopped.survived > 0 {
            tracing::error!(pid = self.pid, survived = stopped.survived, "processes could not be killed");
        }
        stopped
    }
}

fn refused(spec: &ChildSpec, error: &std::io::Error) -> Error {
    let program = spec.program.clone();
    match error.kind() {
        std::io::ErrorKind::NotFound => Error::ExecutableNotFound { program },
        std::io::ErrorKind::PermissionDenied => Error::NotPermitted { program },
        _ => Error::Refused { program, cause: error.to_string() },
    }
}
