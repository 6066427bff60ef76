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

mod cgroup;
mod errand;
mod ports;
mod reap;
mod scan;
mod stderr_tail;
mod tree;
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

pub use cgroup::{Cgroup, CgroupRoot, Enforcement};
pub use ports::{Listening, Owners, PORTS_MAX, Port, PortEvent, PortScan, PortTable, listening};
pub use scan::{cookie_owner, started_at_ticks};
pub use stderr_tail::StderrTail;
pub use usage::{Breach, Limits, TreeUsage, breach, rlimits};

use scan::Scanner;
use tree::Target;

use crate::config::Env;
use crate::rt::ids::new_id;
use crate::rt::spawn_owned;

/// Marks every child and what it starts.
pub const COOKIE_VARIABLE: &str = "SANDBOXD_COOKIE";

/// Why a child could not be started.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// No such program, or not a program.
    #[error("executable not found: {}", program.display())]
    ExecutableNotFound {
        /// What was asked for.
        program: PathBuf,
    },
    /// The program may not be executed.
    #[error("not permitted to execute {}", program.display())]
    NotPermitted {
        /// What was asked for.
        program: PathBuf,
    },
    /// The working directory isn't there or isn't a directory.
    #[error("not a directory: {}", cwd.display())]
    BadCwd {
        /// What was asked for.
        cwd: PathBuf,
    },
    /// As many children as `processes_max` run already.
    #[error("{max} processes run already")]
    TooMany {
        /// The bound.
        max: usize,
    },
    /// The system refused for another reason.
    #[error("failed to start {}: {cause}", program.display())]
    Refused {
        /// What was asked for.
        program: PathBuf,
        /// What the system said.
        cause: String,
    },
}

/// Who a process belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// A coding agent.
    Agent,
    /// The server's own errands, such as installs.
    System,
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct ProcessSpec {
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

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It returned this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

impl Exit {
    /// The signal's name, such as `SIGKILL`.
    pub fn signal_name(self) -> Option<&'static str> {
        match self {
            Self::Code(_) => None,
            Self::Signal(number) => {
                Some(nix::sys::signal::Signal::try_from(number).map_or("SIGRT", nix::sys::signal::Signal::as_str))
            }
        }
    }

    /// The exit code, when it returned one.
    pub fn code(self) -> Option<i32> {
        match self {
            Self::Code(code) => Some(code),
            Self::Signal(_) => None,
        }
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(number) => write!(f, "killed by {} ({number})", self.signal_name().unwrap_or("signal")),
        }
    }
}

impl From<std::process::ExitStatus> for Exit {
    fn from(status: std::process::ExitStatus) -> Self {
        use std::os::unix::process::ExitStatusExt as _;
        status.code().map_or_else(|| Self::Signal(status.signal().unwrap_or(0)), Self::Code)
    }
}

/// What a stop did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stopped {
    /// Processes that got TERM.
    pub terminated: usize,
    /// Processes that outlived the grace period and got KILL.
    pub killed: usize,
    /// Processes of the tree that are still there: only such as the kernel won't end now (uninterruptible sleep).
    pub survived: usize,
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
    pub fn spawn(&self, spec: &ProcessSpec) -> Result<Started, Error> {
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
    fn command(&self, spec: &ProcessSpec, cookie: &str) -> Command {
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

fn refused(spec: &ProcessSpec, error: &std::io::Error) -> Error {
    let program = spec.program.clone();
    match error.kind() {
        std::io::ErrorKind::NotFound => Error::ExecutableNotFound { program },
        std::io::ErrorKind::PermissionDenied => Error::NotPermitted { program },
        _ => Error::Refused { program, cause: error.to_string() },
    }
}

/// Held by each unit test that has children of its own: all run in one process, whose children [`Processes::end_all`] ends
/// and the reaper collects, whoever started them.
#[cfg(test)]
pub(crate) static TEST_CHILDREN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
