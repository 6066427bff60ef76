//! What callers ask of the room: HTTP routes, and whatever else takes typed requests.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use nix::sys::signal::Signal;
use tokio::sync::oneshot;

use super::children::Child;
use super::kept::{Kept, digest};
use super::logs::{blocking, load, log_of};
use super::managed::{self, Beginning, Command, Handle};
use super::prepare::Prepared;
use super::room::{Found, KeyUse, Room};
use super::spool::SpoolReader;
use super::types::{
    CommandSpec, ExitReason, Owner, PortInfo, ProcessConfig, ProcessId, ProcessInfo, ProcessSpec, ProcessStatus, RunResult,
    RunSpec, SearchResult, SearchSpec, SignalScope, Stopped, TerminalSize, WaitResult, WaitSpec, check_size,
};
use super::{Attachment, Error, LogQuery, LogReader, open_ports, run, search, wait};
use crate::config::{as_duration, as_usize};
use crate::rt::clock::now_ms;
use crate::rt::spawn_owned;
use crate::store::Stream;
use terminal_screen::Screen;

/// After KILL, how long an exit may take to be shown.
const EXIT_PATIENCE: Duration = Duration::from_secs(3);

/// A request with a key that is being answered by its twin is looked at so often.
const TWIN_POLL: Duration = Duration::from_millis(5);

/// The room as clients see it. A cheap handle.
#[derive(Clone)]
pub struct Processes {
    pub(super) room: Arc<Room>,
}

impl Processes {
    pub(super) fn prepare(&self, spec: &CommandSpec, id: ProcessId, owner: Owner, tty: bool) -> Result<Prepared, Error> {
        Prepared::new(spec, id, owner, tty, self.room.children.env(), &self.room.script_dir)
    }

    /// Starts a managed process. Dropping the future leaves it running.
    ///
    /// # Errors
    /// What is wrong with the request or the program; [`Error::LimitReached`]; [`Error::KeyReused`].
    pub async fn create(&self, spec: ProcessSpec, owner: Owner) -> Result<ProcessInfo, Error> {
        let id = self.room.children.next_id();
        let Some(key) = spec.run.idempotency_key.clone() else { return self.make(id, spec, owner, None) };
        let digest = digest(&spec);
        loop {
            match self.room.use_key(&key, &digest, id) {
                KeyUse::Free => break,
                KeyUse::Other => return Err(Error::KeyReused { key }),
                KeyUse::Same(first) => match self.room.find(first) {
                    Some(found) => return Ok((*found.info()).clone()),
                    None => tokio::time::sleep(TWIN_POLL).await, // it is just being started
                },
            }
        }
        let made = self.make(id, spec, owner, Some(digest));
        if made.is_err() {
            self.room.free_key(&key);
        }
        made
    }

    fn make(&self, id: ProcessId, spec: ProcessSpec, owner: Owner, digest: Option<String>) -> Result<ProcessInfo, Error> {
        if let Some(size) = spec.terminal {
            check_size(size)?;
        }
        let slot = self.room.slot()?;
        let prepared = self.prepare(&spec.run, id, owner, spec.tty)?;
        let kept = Kept::new(&spec, digest, &prepared.program());
        let room = Arc::clone(&self.room);
        let handle = managed::start(Beginning { room, id, owner, spec, prepared, kept, slot, predecessor: None })?;
        Ok((*handle.info()).clone())
    }

    /// Runs a command to its end, or to its timeout. Dropping the future leaves it running until then.
    ///
    /// # Errors
    /// What is wrong with the request or the program.
    pub async fn run(&self, spec: RunSpec) -> Result<Arc<RunResult>, Error> {
        run::run(&self.room, spec).await
    }

    /// The processes by id: those of one owner; or all, agents, runs and errands included; or those that clients made.
    pub fn list(&self, owner: Option<Owner>, all: bool) -> Vec<Arc<ProcessInfo>> {
        let is_wanted = |its: Owner| owner.map_or(all || its.is_listed(), |owner| owner == its);
        let mut infos = self.room.infos();
        infos.retain(|info| is_wanted(info.owner));
        if all || owner.is_some_and(|owner| !owner.is_listed()) {
            let known: std::collections::HashSet<ProcessId> = infos.iter().map(|info| info.id).collect();
            let others = self.room.children.running().into_iter().filter(|child| !known.contains(&child.id()));
            infos.extend(others.map(|child| Arc::new(of_child(&child))).filter(|info| is_wanted(info.owner)));
            infos.sort_by_key(|info| info.id);
        }
        infos
    }

    fn find(&self, id: &str) -> Result<Found, Error> {
        let unknown = || Error::NotFound { id: id.to_owned() };
        self.room.find(id.parse().map_err(|()| unknown())?).ok_or_else(unknown)
    }

    /// Resolves with the process once it has ended. Cancel safe.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn ended(&self, id: &str) -> Result<Arc<ProcessInfo>, Error> {
        match self.find(id)? {
            Found::Alive(handle) => Ok(handle.exited().await),
            Found::Finished(finished) => Ok(Arc::clone(&finished.info)),
        }
    }

    /// The process that a pid belongs to, or belonged to before it went into the background. Reads `/proc`.
    pub fn process_of(&self, pid: u32) -> Option<ProcessId> {
        self.room.children.owner_of(pid).map(|(id, _)| id)
    }

    /// An agent, a run or an errand.
    fn child(&self, id: &str) -> Option<Child> {
        let id: ProcessId = id.parse().ok()?;
        self.room.children.running().into_iter().find(|child| child.id() == id)
    }

    /// One process.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn get(&self, id: &str) -> Result<Arc<ProcessInfo>, Error> {
        match self.find(id) {
            Ok(found) => Ok(found.info()),
            Err(error) => self.child(id).map(|child| Arc::new(of_child(&child))).ok_or(error),
        }
    }

    /// TERM to the whole tree, KILL to what is left after the grace period. Waits for the end, at most `wait` when given;
    /// the end comes all the same. An ended process's tree may still have members: they are ended, too.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn stop(&self, id: &str, wait: Option<Duration>) -> Result<ProcessInfo, Error> {
        let grace = as_duration(self.room.bounds.process_stop_grace_ms).max(wait.unwrap_or_default());
        self.end(id, ExitReason::Stopped, grace, wait).await
    }

    /// KILL to the whole tree. Waits as [`Processes::stop`].
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn kill(&self, id: &str, wait: Option<Duration>) -> Result<ProcessInfo, Error> {
        self.end(id, ExitReason::Killed, Duration::ZERO, wait).await
    }

    async fn end(&self, id: &str, reason: ExitReason, grace: Duration, wait: Option<Duration>) -> Result<ProcessInfo, Error> {
        let ending = match (self.find(id), self.child(id)) {
            (Ok(Found::Alive(handle)), _) => handle,
            (Ok(Found::Finished(finished)), _) => {
                let (room, id) = (Arc::clone(&self.room), finished.info.id);
                let rest = spawn_owned("process-end", async move { room.end_rest(id, grace).await });
                let tree = rest.await.ok().filter(|tree| *tree != Stopped::default());
                return Ok(ProcessInfo { tree, ..(*finished.info).clone() });
            }
            (Err(_), Some(child)) => return Ok(end_child(child, grace, wait).await),
            (Err(error), None) => return Err(error),
        };
        let task = spawn_owned("process-end", {
            let (handle, room) = (ending.clone(), Arc::clone(&self.room));
            async move {
                match end_managed(&handle, reason, grace).await {
                    Some(stopped) => stopped,
                    None => room.end_rest(handle.id, grace).await, // its owner went meanwhile
                }
            }
        });
        let tree = match wait {
            None => task.await.ok(),
            // What KILL does at the end of the grace is still waited for.
            Some(wait) if wait >= grace => tokio::time::timeout(wait + EXIT_PATIENCE, task).await.ok().and_then(Result::ok),
            Some(wait) => tokio::time::timeout(wait, task).await.ok().and_then(Result::ok),
        };
        let tree = tree.filter(|tree| *tree != Stopped::default());
        Ok(ProcessInfo { tree, ..(*ending.info()).clone() })
    }

    /// Sends a signal; gives how many processes it went to (a group counts as one).
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotRunning`].
    pub async fn signal(&self, id: &str, signal: Signal, scope: SignalScope) -> Result<usize, Error> {
        match (self.find(id), self.child(id)) {
            (Ok(found), _) => {
                let handle = alive(found)?;
                let sent = handle.ask(|reply| Command::Signal { signal, scope, reply }).await;
                sent.unwrap_or_else(|| Err(not_running(&handle.info())))
            }
            (Err(_), Some(child)) => Ok(child.signal(signal, scope).await),
            (Err(error), None) => Err(error),
        }
    }

    /// Forgets a process that ended, with its log. What its tree left in the background is ended. Dropping the future
    /// leaves that going on.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::StillRunning`].
    pub async fn delete(&self, id: &str) -> Result<(), Error> {
        let found = self.find(id)?;
        if found.info().is_alive() {
            return Err(Error::StillRunning { id: found.info().id });
        }
        let room = Arc::clone(&self.room);
        spawn_owned("process-delete", delete(room, found)).await.unwrap_or(Err(Error::Stopping))
    }

    /// Gives input to a process; gives the number of bytes taken.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotRunning`], [`Error::StdinClosed`], [`Error::InputTooLarge`],
    /// [`Error::InputQueueFull`].
    pub async fn input(&self, id: &str, bytes: Bytes) -> Result<usize, Error> {
        let max = self.room.config().max_input_bytes_per_request;
        if bytes.len() as u64 > max {
            return Err(Error::InputTooLarge { max });
        }
        let handle = alive(self.find(id)?)?;
        let taken = handle.ask(|reply| Command::Input { bytes, reply }).await;
        taken.unwrap_or_else(|| Err(not_running(&handle.info())))
    }

    /// Ends a process's stdin after what it was given; a terminal gets Ctrl-D.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotRunning`].
    pub async fn close_stdin(&self, id: &str) -> Result<(), Error> {
        let handle = alive(self.find(id)?)?;
        let closed = handle.ask(|reply| Command::CloseStdin { reply }).await;
        closed.unwrap_or_else(|| Err(not_running(&handle.info())))
    }

    /// Changes a terminal's size.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NoTerminal`], [`Error::NotRunning`], [`Error::Invalid`].
    pub async fn resize(&self, id: &str, size: TerminalSize) -> Result<(), Error> {
        let found = self.find(id)?;
        let info = found.info();
        if !info.tty {
            return Err(Error::NoTerminal { id: info.id });
        }
        let handle = alive(found)?;
        check_size(size)?;
        let resized = handle.ask(|reply| Command::Resize { size, reply }).await;
        resized.unwrap_or_else(|| Err(not_running(&handle.info())))
    }

    /// Opens a log.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::LogUnreadable`].
    pub async fn logs(&self, id: &str, query: LogQuery) -> Result<LogReader, Error> {
        LogReader::open(&self.room, &self.find(id)?, query).await
    }

    /// Attaches a client to a terminal; to one whose process ended, to see its last screen.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NoTerminal`], [`Error::TooManyViewers`], [`Error::LogUnreadable`].
    pub async fn attach(&self, id: &str) -> Result<Attachment, Error> {
        let found = self.find(id)?;
        let info = found.info();
        if !info.tty {
            return Err(Error::NoTerminal { id: info.id });
        }
        if let Found::Alive(handle) = &found
            && let Some(attached) = handle.ask(|reply| Command::Attach { reply }).await
        {
            match attached {
                Ok(attached) => {
                    let max = self.room.config().max_input_bytes_per_request;
                    return Ok(Attachment::following(handle.clone(), attached, max));
                }
                Err(Error::NotRunning { .. }) => {} // it ended just now
                Err(error) => return Err(error),
            }
        }
        let found = self.find(id)?;
        let lines = as_usize(self.room.bounds.terminal_scrollback_max_lines);
        let snapshot = screen(&self.room, &found, move |screen| screen.snapshot(lines)).await?;
        Ok(Attachment::over((*found.info()).clone(), Some(snapshot.into()).filter(|_| found.info().terminal.is_some())))
    }

    /// Looks at a terminal's screen as it is, or as it was at the end.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NoTerminal`], [`Error::LogUnreadable`].
    pub async fn screen<T: Send + 'static>(
        &self,
        id: &str,
        look: impl FnOnce(&mut Screen) -> T + Send + 'static,
    ) -> Result<T, Error> {
        screen(&self.room, &self.find(id)?, look).await
    }

    /// Searches a process's log and screen.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Invalid`], [`Error::NoTerminal`], [`Error::LogUnreadable`].
    pub async fn search(&self, id: &str, spec: SearchSpec) -> Result<SearchResult, Error> {
        search::search(&self.room, &self.find(id)?, spec).await
    }

    /// Waits for what a process does. Cancel safe.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Invalid`], [`Error::LogUnreadable`].
    pub async fn wait(&self, id: &str, spec: WaitSpec) -> Result<WaitResult, Error> {
        wait::wait(&self.room, &self.find(id)?, spec).await
    }

    /// The TCP ports that are open now, and whose they are. Costs the kernel some milliseconds.
    ///
    /// # Errors
    /// [`Error::Invalid`] where `/proc/net` can't be read.
    pub async fn ports(&self) -> Result<Vec<PortInfo>, Error> {
        open_ports::look(&self.room).await
    }

    /// The limits that clients may change.
    pub fn config(&self) -> ProcessConfig {
        self.room.config()
    }

    /// Changes them; gives what is in force now.
    ///
    /// # Errors
    /// [`Error::Invalid`].
    pub fn set_config(&self, mut config: ProcessConfig) -> Result<ProcessConfig, Error> {
        if config.max_concurrent_processes == 0 {
            return Err(Error::Invalid("maxConcurrentProcesses must be greater than 0".to_owned()));
        }
        if config.default_run_timeout_ms == 0 || config.max_run_timeout_ms == 0 {
            return Err(Error::Invalid("timeouts must be greater than 0".to_owned()));
        }
        if [config.max_output_bytes, config.max_log_bytes_per_process, config.max_input_bytes_per_request].contains(&0) {
            return Err(Error::Invalid("byte limits must be greater than 0".to_owned()));
        }
        config.default_run_timeout_ms = config.default_run_timeout_ms.min(config.max_run_timeout_ms);
        self.room.set_config(config);
        Ok(config)
    }

    /// Events of processes and ports.
    pub fn events(&self) -> Arc<Stream> {
        Arc::clone(&self.room.events)
    }

    /// Passes a signal on to the main process of each managed process that clients made. Gives how many got it.
    pub async fn forward(&self, signal: Signal) -> usize {
        let all = self.room.alive();
        let users = all.iter().filter(|handle| handle.info().owner == Owner::User);
        let sent = users.map(|handle| handle.ask(|reply| Command::Signal { signal, scope: SignalScope::Process, reply }));
        let sent = futures_util::future::join_all(sent).await;
        let count = sent.into_iter().flatten().flatten().sum();
        tracing::info!(%signal, processes = count, "signal passed on");
        count
    }

    /// Ends all processes: nothing is started or restarted any more, and each is shown as ended. At most about `grace`
    /// and a little more.
    pub async fn shut_down(&self, grace: Duration) {
        self.room.stop_starting();
        let all = self.room.alive();
        let ends = all.iter().map(|handle| async move {
            end_managed(handle, ExitReason::ServerStopped, grace).await;
            handle.exited().await;
        });
        futures_util::future::join_all(ends).await;
    }

    /// Hands the store what waits for a common commit: before the store is closed.
    pub fn log_what_waits(&self) {
        self.room.log_gathered();
    }
}

async fn delete(room: Arc<Room>, found: Found) -> Result<(), Error> {
    let id = found.info().id;
    if let Found::Alive(handle) = found {
        end_managed(&handle, ExitReason::Killed, Duration::ZERO).await;
        if tokio::time::timeout(EXIT_PATIENCE, handle.mailbox.closed()).await.is_err() {
            return Err(Error::StillRunning { id }); // something can't be killed, and holds its output
        }
    }
    room.end_rest(id, Duration::ZERO).await;
    room.delete(id);
    Ok(())
}

/// Ends a tree and waits until the exit is shown.
async fn end_managed(handle: &Handle, reason: ExitReason, grace: Duration) -> Option<Stopped> {
    let stopped = handle.ask(|reply| Command::End { reason, grace, reply }).await?;
    let _ = tokio::time::timeout(EXIT_PATIENCE, handle.exited()).await;
    Some(stopped)
}

async fn end_child(child: Child, grace: Duration, wait: Option<Duration>) -> ProcessInfo {
    let before = of_child(&child);
    let task = spawn_owned("process-end", async move {
        let stopped = child.stop(grace).await;
        (stopped, child.exited().await)
    });
    match tokio::time::timeout(wait.unwrap_or(grace + EXIT_PATIENCE) + EXIT_PATIENCE, task).await {
        Ok(Ok((stopped, exit))) => ProcessInfo {
            status: ProcessStatus::Exited,
            pid: None,
            exit_code: exit.code(),
            exit: Some(exit.into()),
            exited_at_ms: Some(now_ms()),
            tree: Some(stopped),
            ..before
        },
        _ => before,
    }
}

fn alive(found: Found) -> Result<Handle, Error> {
    match found {
        Found::Alive(handle) => Ok(handle),
        Found::Finished(finished) => Err(not_running(&finished.info)),
    }
}

fn not_running(info: &ProcessInfo) -> Error {
    Error::NotRunning { id: info.id, exit: info.exit }
}

/// Looks at a screen: the owner's, or one that is made again from the log.
pub(super) async fn screen<T: Send + 'static>(
    room: &Room,
    found: &Found,
    look: impl FnOnce(&mut Screen) -> T + Send + 'static,
) -> Result<T, Error> {
    let info = found.info();
    if !info.tty {
        return Err(Error::NoTerminal { id: info.id });
    }
    let look = Arc::new(Mutex::new(Some(look)));
    let take = |look: &Mutex<Option<_>>| look.lock().unwrap_or_else(PoisonError::into_inner).take();
    let index = match found {
        Found::Alive(handle) => {
            let (answer, answered) = oneshot::channel();
            let look = Arc::clone(&look);
            let seen = move |screen: &mut Screen| {
                if let Some(look) = take(&look) {
                    let _ = answer.send(look(screen));
                }
            };
            if let Some(error) = handle.ask(|reply| Command::Screen { look: Box::new(seen), reply }).await {
                return Err(error);
            }
            if let Ok(answer) = answered.await {
                return Ok(answer);
            }
            load(room, info.id).await? // its owner went before it looked
        }
        Found::Finished(finished) => log_of(room, finished).await?,
    };
    let lines = as_usize(room.bounds.terminal_scrollback_max_lines);
    let size = info.terminal.unwrap_or_default();
    blocking(info.id, move || {
        let mut screen = managed::screen_from_log(SpoolReader::new(index), size, lines)?;
        Ok(take(&look).map(|look| look(&mut screen)))
    })
    .await?
    .ok_or_else(|| not_running(&info))
}

/// A child that another room speaks to.
fn of_child(child: &Child) -> ProcessInfo {
    let record = child.record();
    let text = |text: &std::ffi::OsStr| Box::from(&*text.to_string_lossy());
    ProcessInfo {
        id: record.id,
        command: text(record.program.as_os_str()),
        args: record.args.iter().map(|arg| text(arg)).collect(),
        cwd: record.cwd.as_ref().map(|cwd| text(cwd.as_os_str())),
        tty: false,
        interactive: false,
        owner: record.owner,
        status: ProcessStatus::Running,
        pid: Some(record.pid),
        exit_code: None,
        created_at_ms: record.created_at_ms,
        exited_at_ms: None,
        exit: None,
        exit_reason: None,
        restart: None,
        restarts: 0,
        terminal: None,
        tree: None,
    }
}
