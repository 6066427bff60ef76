//! Starting, finding and ending children with all that comes of them.
//!
//! A child leads its own process group (with a terminal: its own session), inherits no descriptor of ours and the
//! environment without our secrets, and carries a cookie in its environment (`SANDBOXD_COOKIE=<store>/<run>/proc_<n>`),
//! by which descendants are found even after they double-forked or called `setsid`. One task owns each child: it alone
//! waits for it, and publishes the exit. The server is a child subreaper, so orphans come to it and are reaped
//! ([`reap`]).
//!
//! ```text
//! running ──exit──▶ exited(code | signal)
//!    └─stop─▶ TERM to the whole tree ─grace─▶ KILL to the whole tree ─▶ exited, and the answer says what survived
//! ```

mod adopt;
mod child;
mod errand;
mod launch;
mod numbers;
mod reap;
mod scan;
mod stderr_tail;
mod tree;
mod tty;
mod wire;

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use tokio::process::{ChildStderr, ChildStdin, ChildStdout};
use tokio::sync::watch;

pub(super) use crate::rt::sys::BeforeExec;
pub(super) use adopt::{Adopted, Known, SLATE};
pub use child::Child;
pub(super) use child::Uncollected;
pub(super) use launch::{Launch, resolve};
#[cfg(test)]
pub(super) use scan::cookie_owner;
pub use scan::started_at_ticks;
pub(super) use scan::{Stat, read_stat};
pub use stderr_tail::StderrTail;
pub(super) use tty::Tty;
pub(super) use wire::Wire;

use child::{Record, Way};
use numbers::Numbers;
use scan::Scanner;
use tree::Target;

use super::Error;
use super::cgroup::Cgroup;
use super::desk::{Desks, Left};
use super::types::{Owner, ProcessId, Stopped};
use crate::config::Env;
use crate::keeper::{Keeper, Kept};
use crate::rt::clock::now_ms;
use crate::rt::ids::new_id;
use crate::rt::{spawn_owned, sys};

/// Marks every child and what it starts.
pub const COOKIE_VARIABLE: &str = "SANDBOXD_COOKIE";

/// A child that another room speaks to through its pipes.
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
    pub process: Child,
}

/// What holds a child together with all that comes of it.
#[derive(Debug, Default)]
pub(super) struct Confined {
    /// What has to be done before it runs. Makes the start slower (fork instead of vfork): only where it is needed.
    pub(super) before_exec: Option<BeforeExec>,
    /// Its own cgroup, where cgroups can be written.
    pub(super) cgroup: Option<Arc<Cgroup>>,
}

/// Starts children and knows which are its own.
#[derive(Clone)]
pub struct Children {
    inner: Arc<Inner>,
}

struct Inner {
    env: Env,
    /// `<store>/<run>`: the cookie's beginning.
    cookie_prefix: String,
    numbers: Numbers,
    /// Held for reading while a child is being started and for writing while orphans are collected: so the reaper never
    /// takes a child that isn't in `known` yet.
    starting: RwLock<()>,
    /// Children whose exit their owner task collects, by pid.
    known: Mutex<BTreeMap<u32, Child>>,
    max: usize,
    scanner: Arc<Scanner>,
    /// Nothing is started any more. Set while `starting` is held for writing.
    closed: AtomicBool,
    /// Holds what has to outlive this server.
    keeper: Keeper,
    /// What an earlier server left there and nobody has taken up yet, by its number.
    inherited: Mutex<BTreeMap<u64, Kept>>,
    /// Where bytes lie while they move to and from what outlives this server.
    desks: Option<Desks>,
    /// What lay there when the last server died.
    left: Mutex<Vec<Left>>,
    /// Children that ended and stay until their end is in the file, by pid.
    unreleased: Mutex<HashSet<u32>>,
}

impl Inner {
    fn cookie(&self, id: ProcessId) -> String {
        format!("{}/{id}", self.cookie_prefix)
    }

    fn inherited(&self) -> MutexGuard<'_, BTreeMap<u64, Kept>> {
        self.inherited.lock().unwrap_or_else(PoisonError::into_inner) // as below
    }

    fn unreleased(&self) -> MutexGuard<'_, HashSet<u32>> {
        self.unreleased.lock().unwrap_or_else(PoisonError::into_inner) // as below
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<u32, Child>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner) // a map is whole after each change
    }
}

impl Children {
    /// Becomes the subreaper, starts the reaper, and ends what an earlier run of a server on this store left behind.
    /// Dropping the future leaves some of that.
    pub async fn start(store_id: &str, env: Env, max: usize) -> Self {
        Self::start_kept(store_id, env, max, Keeper::none(), Vec::new()).await
    }

    /// The same under a keeper. What an earlier server left with it lives on: it has to be taken up before
    /// [`Children::end_unclaimed`].
    pub async fn start_kept(store_id: &str, env: Env, max: usize, keeper: Keeper, kept: Vec<Kept>) -> Self {
        if let Err(errno) = nix::sys::prctl::set_child_subreaper(true) {
            tracing::warn!(%errno, "not a child subreaper: processes that daemonise are found by their cookie only");
        }
        sys::keep_inherited();
        let (desks, kept): (Vec<Kept>, Vec<Kept>) = kept.into_iter().partition(Desks::owns);
        let (desks, left) = Desks::new(&keeper, desks);
        let (mut numbers, kept): (Vec<Kept>, Vec<Kept>) = kept.into_iter().partition(Numbers::owns);
        let run = keeper.run_id().map_or_else(|| new_id("run"), str::to_owned);
        let number = |kept: &Kept| kept.key.parse::<ProcessId>().ok().map(|id| id.0);
        let inherited: BTreeMap<u64, Kept> = kept.into_iter().filter_map(|kept| Some((number(&kept)?, kept))).collect();
        let least = inherited.last_key_value().map_or(1, |(last, _)| last + 1);
        let numbers = Numbers::new(&keeper, numbers.pop(), least);
        let inner = Inner {
            env,
            cookie_prefix: format!("{store_id}/{run}"),
            numbers,
            starting: RwLock::default(),
            known: Mutex::default(),
            max,
            scanner: Arc::default(),
            closed: AtomicBool::new(false),
            keeper,
            inherited: Mutex::new(inherited),
            desks,
            left: Mutex::new(left),
            unreleased: Mutex::default(),
        };
        let children = Self { inner: Arc::new(inner) };
        reap::start(&children.inner);
        let (store, spared) = (format!("{store_id}/"), children.inherited_ids());
        if children.inner.keeper.starts() > 1 {
            // Clients wait, and what the last server's clients had asked for is in nobody's way.
            let all = children.clone();
            spawn_owned("leftovers", async move { all.end_leftovers(&store, spared).await });
        } else {
            children.end_leftovers(&store, spared).await;
        }
        children
    }

    /// Ends what carries a cookie of this store, but for those that are to live on.
    async fn end_leftovers(&self, store: &str, spared: Vec<ProcessId>) {
        let spared = spared.into_iter().map(|id| self.inner.cookie(id)).collect();
        let own = (format!("{}/", self.inner.cookie_prefix), self.inner.numbers.first);
        let leftovers = Target::Leftovers { store: store.to_owned(), spared, own };
        let grace = Duration::from_millis(500);
        let left = tree::end(&self.inner.scanner, leftovers, grace, tree::KILL_WAIT).await.terminated;
        if left > 0 {
            tracing::warn!(processes = left, "ended processes that an earlier run left behind");
        }
    }

    /// Starts a child with three pipes, leading its own process group.
    ///
    /// # Errors
    /// Each reason has its own [`Error`].
    pub fn spawn(&self, spec: &ChildSpec) -> Result<Started, Error> {
        self.spawn_in(&self.inner.env, spec)
    }

    /// The same, but the child inherits no variable: it has those of `spec`, and the cookie.
    ///
    /// # Errors
    /// As [`Children::spawn`].
    pub fn spawn_bare(&self, spec: &ChildSpec) -> Result<Started, Error> {
        self.spawn_in(&Env::default(), spec)
    }

    fn spawn_in(&self, env: &Env, spec: &ChildSpec) -> Result<Started, Error> {
        let launch = Launch {
            id: self.next_id(),
            owner: spec.owner,
            name: spec.program.clone().into_os_string(),
            program: spec.program.clone(),
            args: spec.args.clone(),
            cwd: spec.cwd.clone(),
            env: spec.env.clone(),
            is_kept: false,
        };
        let mut command = launch.command(env);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let (mut child, process, exit) = self.launch(launch, command, Confined::default())?;
        spawn_owned("process", exit.collect());
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else { unreachable!("all three are piped above") };
        let own = |error: std::io::Error| Error::Refused { program: spec.program.clone(), cause: error.to_string() };
        Ok(Started {
            stdin: ChildStdin::from_std(stdin).map_err(own)?,
            stdout: ChildStdout::from_std(stdout).map_err(own)?,
            stderr: ChildStderr::from_std(stderr).map_err(own)?,
            process,
        })
    }

    /// The next process's number.
    pub(super) fn next_id(&self) -> ProcessId {
        ProcessId(self.inner.numbers.take())
    }

    /// Numbers go on after `last`.
    pub(super) fn count_from(&self, last: u64) {
        self.inner.numbers.count_from(last + 1);
    }

    /// Who holds what has to outlive this server.
    pub(super) fn keeper(&self) -> &Keeper {
        &self.inner.keeper
    }

    /// Where bytes are moved so that none is lost with this server.
    pub(super) fn desks(&self) -> Option<&Desks> {
        self.inner.desks.as_ref()
    }

    /// What children inherit.
    pub(super) fn env(&self) -> &Env {
        &self.inner.env
    }

    /// Starts what is prepared. Somebody has to collect its exit.
    ///
    /// # Errors
    /// Each reason has its own [`Error`].
    pub(super) fn launch(
        &self,
        launch: Launch,
        mut command: std::process::Command,
        confined: Confined,
    ) -> Result<(std::process::Child, Child, Uncollected), Error> {
        let Confined { before_exec, cgroup } = confined;
        let cookie: Arc<str> = self.inner.cookie(launch.id).into();
        command.env(COOKIE_VARIABLE, &*cookie);
        match before_exec {
            Some(plan) => sys::apply(&mut command, plan),
            None => {
                std::os::unix::process::CommandExt::process_group(&mut command, 0);
            }
        }
        let starting = self.inner.starting.read().unwrap_or_else(PoisonError::into_inner);
        if self.inner.closed.load(Ordering::Relaxed) {
            return Err(Error::Stopping);
        }
        if self.inner.known().len() >= self.inner.max {
            return Err(Error::TooMany { max: self.inner.max });
        }
        let child = launch.spawn(&mut command)?;
        let pid = child.id();
        let (publish, exit) = watch::channel(None);
        let created_at_ms = now_ms();
        let Launch { id, owner, program, args, cwd, is_kept, .. } = launch;
        let record = Arc::new(Record { id, owner, pid, program, args, cwd, created_at_ms });
        let cgroup = Arc::new(cgroup.map_or_else(OnceLock::new, OnceLock::from));
        let handle = Child { record, cookie, cgroup, is_kept, inner: Arc::clone(&self.inner), exit };
        self.inner.known().insert(pid, handle.clone());
        drop(starting);
        if is_kept {
            self.inner.keeper.started(&id.to_string(), pid);
        }
        tracing::debug!(pid, %id, ?owner, "process started");
        let way = if is_kept { Way::Seen } else { Way::Collected };
        Ok((child, handle, Uncollected { inner: Arc::clone(&self.inner), pid, id, publish, way }))
    }

    /// The children that run, in the order of their ids.
    pub(super) fn running(&self) -> Vec<Child> {
        let mut all: Vec<_> = self.inner.known().values().cloned().collect();
        all.sort_by_key(|child| child.record.id);
        all
    }

    /// Ends what is left of a process that exited and has no owner any more. Looks no further when nothing was in its
    /// cgroup and no orphan has come to this server: then nothing can be left.
    pub(super) async fn end_rest(&self, id: ProcessId, cgroup: Option<Arc<Cgroup>>, grace: Duration) -> Stopped {
        if cgroup.is_none() && !reap::has_orphans(&self.inner) {
            return Stopped::default();
        }
        let cookie = self.inner.cookie(id);
        let target = Target::Tree { root: 0, is_over: true, cookie, cgroup };
        tree::end(&self.inner.scanner, target, grace, tree::KILL_WAIT).await
    }

    /// The process here that a pid belongs to, and its owner when it still runs. Reads `/proc`, and blocks.
    pub(super) fn owner_of(&self, pid: u32) -> Option<(ProcessId, Option<Owner>)> {
        let cookie = scan::cookie_owner(pid)?;
        let id: ProcessId = cookie.strip_prefix(&self.inner.cookie_prefix)?.strip_prefix('/')?.parse().ok()?;
        let owner = self.inner.known().values().find(|child| child.record.id == id).map(|child| child.record.owner);
        Some((id, owner))
    }

    /// Starts nothing any more, and kills whatever this run has started with all that came of it. For an end that can't
    /// wait for each owner to stop its own; takes at most about a second. Gives how many there were.
    ///
    /// Dropping the future leaves what it has not come to.
    pub async fn end_all(&self) -> usize {
        {
            // Whoever is just starting a child holds it: that child is seen below.
            let _none = self.inner.starting.write().unwrap_or_else(PoisonError::into_inner);
            self.inner.closed.store(true, Ordering::Relaxed);
        }
        let run = Target::Run { run: format!("{}/", self.inner.cookie_prefix) };
        let stopped = tree::end(&self.inner.scanner, run, Duration::ZERO, Duration::from_secs(1)).await;
        if stopped.survived > 0 {
            tracing::error!(survived = stopped.survived, "processes could not be killed");
        }
        stopped.killed
    }
}

/// True when `path` is a file that this process may execute.
fn is_executable(path: &Path) -> bool {
    path.is_file() && nix::unistd::access(path, nix::unistd::AccessFlags::X_OK).is_ok()
}
