//! The owner of one managed process.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use tokio::task::coop::consume_budget;
use tokio::time::Instant;

use super::commands::END_OF_TRANSMISSION;
use super::input::Input;
use super::limits::{self, Watched};
use super::output::{Output, read_now};
use super::stdio::{How, STDIN, Stdio};
use super::terminal::Terminal;
use super::{Command, Handle};
use crate::config::{as_duration, as_usize};
use crate::processes::Error;
use crate::processes::children::Child;
use crate::processes::desk::{self, pack};
use crate::processes::kept::Kept;
use crate::processes::prepare::Prepared;
use crate::processes::room::{Finished, Room, Slot};
use crate::processes::slate::Slate;
use crate::processes::spool::Stream;
use crate::processes::types::{Exit, ExitReason, Owner, ProcessId, ProcessInfo, ProcessSpec, ProcessStatus};
use crate::rt::clock::now_ms;
use crate::rt::spawn_owned;

/// After an exit, how much longer output is read at most when slow viewers hold that up.
const HELD_MAX: Duration = Duration::from_secs(5);

/// A tree that lives so long is put into a cgroup. Not at once: moving into one makes the kernel wait for a quiet moment,
/// in which nobody starts or ends, and most processes are gone by then.
pub(super) const GATHER_AFTER: Duration = Duration::from_millis(100);

/// Reads of 64 KiB of each stream at the end of a drain: no pipe holds more by default (1 MiB, pipe(7)), and whoever floods
/// from the background is not read for ever.
const LAST_READS: usize = 16;

/// Answers of the terminal itself that wait for a process to read them.
const REPLIES_MAX_BYTES: usize = 4096;

/// The owner's state.
pub(super) struct Task {
    pub(super) room: Arc<Room>,
    pub(super) spec: ProcessSpec,
    pub(super) kept: Kept,
    /// `None` of one that an earlier server started and that isn't started again.
    pub(super) prepared: Option<Prepared>,
    pub(super) info: ProcessInfo,
    pub(super) publish: watch::Sender<Arc<ProcessInfo>>,
    pub(super) mailbox: mpsc::Receiver<Command>,
    pub(super) own_mailbox: mpsc::WeakSender<Command>,
    pub(super) child: Child,
    pub(super) stdio: Stdio,
    /// Input that the process hasn't taken yet.
    pub(super) input: Input,
    /// stdin ends once `input` is empty.
    pub(super) close_stdin: bool,
    pub(super) output: Output,
    pub(super) terminal: Option<Terminal>,
    pub(super) phase: Phase,
    /// Why it is being ended, when it is.
    pub(super) ending: Option<ExitReason>,
    pub(super) watched: Watched,
    /// Measures the tree where the kernel doesn't bound it.
    pub(super) sampler: Option<AbortOnDrop>,
    /// It ended, and something in the background holds its output.
    pub(super) lingers: Option<OwnedSemaphorePermit>,
    /// When its tree is put into a cgroup.
    pub(super) gather_at: Option<Instant>,
    pub(super) started_at: Instant,
    pub(super) restarts_in_a_row: u32,
    /// The disk is slow: the end is shown, and not in the file yet.
    pub(super) uncommitted: Option<oneshot::Receiver<u64>>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Phase {
    Running,
    /// It exited; what is still in the pipes is read.
    Draining {
        exit: Exit,
        until: Instant,
        latest: Instant,
    },
    /// It is started again then.
    Pausing {
        until: Instant,
    },
    /// The end is published.
    Ended,
}

/// Ends a task with its owner.
pub(super) struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

enum Event {
    Command(Command),
    /// Nobody can ask any more.
    Alone,
    Exited(Exit),
    Readable(Stream),
    Writable,
    Timer,
}

async fn emptied(terminal: Option<&Terminal>) {
    match terminal {
        Some(terminal) => terminal.viewers.emptied().await,
        None => std::future::pending().await,
    }
}

/// What a task is made with.
pub(in crate::processes) struct Beginning {
    pub(in crate::processes) room: Arc<Room>,
    pub(in crate::processes) id: ProcessId,
    pub(in crate::processes) owner: Owner,
    pub(in crate::processes) spec: ProcessSpec,
    pub(in crate::processes) prepared: Prepared,
    pub(in crate::processes) kept: Kept,
    /// Its place among those that run.
    pub(in crate::processes) slot: Slot,
    /// It ran under an earlier server: its log goes on.
    pub(in crate::processes) predecessor: Option<ProcessInfo>,
}

/// Starts a process and its owner, and enters it in the room.
///
/// # Errors
/// As [`Children::launch`](crate::processes::children::Children::launch).
pub(in crate::processes) fn start(beginning: Beginning) -> Result<Handle, Error> {
    let Beginning { room, id, owner, mut spec, prepared, kept, slot, predecessor } = beginning;
    let size = spec.tty.then(|| spec.terminal.unwrap_or_default());
    let confined = room.confine(id, &spec.run.limits);
    let row = kept.row_json(id, owner, &spec, now_ms());
    let mut input = Input::new(id, slate(&room, prepared.stdin.len(), &row));
    input.push(&prepared.stdin);
    input.set_closes(spec.close_stdin);
    let how = How { terminal: size, stdin: true, kept_with: input.slate.as_ref() };
    let (stdio, child, exit) = Stdio::start(&room.children, prepared.launch(), &how, confined)?;
    spawn_owned("process", exit.collect());
    let mut info = describe(id, owner, &spec, &child);
    let is_again = predecessor.is_some();
    if let Some(before) = predecessor {
        (info.created_at_ms, info.restarts) = (before.created_at_ms, before.restarts + 1);
    }
    let info = Arc::new(info);
    let (publish, watcher) = watch::channel(Arc::clone(&info));
    let (mailbox_tx, mailbox) = mpsc::channel(as_usize(room.bounds.process_mailbox_max_messages));
    let mut output = Output::new(&room.spool_dir, id.0, room.config().max_log_bytes_per_process, is_again);
    let terminal = size.map(|size| Terminal::new(size, &room.bounds));
    if let Some(size) = size {
        output.resized(size);
    }
    let handle = Handle { id, mailbox: mailbox_tx, info: watcher, log: output.log() };
    let watched = Watched::start(&spec.run.limits);
    (spec.run.stdin, spec.run.script) = (None, None); // `prepared` has them
    let close_stdin = spec.close_stdin;
    let task = Task {
        room,
        spec,
        kept,
        prepared: Some(prepared),
        info: ProcessInfo::clone(&info),
        publish,
        mailbox,
        own_mailbox: handle.mailbox.downgrade(),
        child,
        stdio,
        input,
        close_stdin,
        output,
        terminal,
        phase: Phase::Running,
        ending: None,
        watched,
        sampler: None,
        lingers: None,
        gather_at: Some(Instant::now() + GATHER_AFTER),
        started_at: Instant::now(),
        restarts_in_a_row: 0,
        uncommitted: None,
    };
    task.room.enter(slot, handle.clone()); // before its owner runs, which may be at its end at once
    spawn_owned("process-owner", task.run());
    Ok(handle)
}

/// Into the log, to viewers and soon onto the screen.
fn taken(output: &mut Output, terminal: Option<&mut Terminal>, stream: Stream, bytes: &[u8]) {
    output.take(stream, bytes);
    if let Some(terminal) = terminal {
        terminal.take(bytes);
    }
}

/// Where what must outlive us is kept; `None` without a keeper.
fn slate(room: &Room, stdin_bytes: usize, row: &[u8]) -> Option<Slate> {
    room.children.desks()?;
    let max = as_usize(room.bounds.process_input_queue_max_bytes).max(stdin_bytes) + REPLIES_MAX_BYTES;
    Slate::new(row, max).inspect_err(|error| tracing::warn!(%error, "a process ends with this server")).ok()
}

fn describe(id: ProcessId, owner: Owner, spec: &ProcessSpec, child: &Child) -> ProcessInfo {
    let boxed = |text: &String| text.as_str().into();
    let script = spec.run.script.as_ref().map(|_| Box::from(&*child.record().program.to_string_lossy()));
    ProcessInfo {
        id,
        command: script.unwrap_or_else(|| boxed(&spec.run.command)),
        args: spec.run.args.iter().map(boxed).collect(),
        cwd: spec.run.cwd.as_ref().map(boxed),
        tty: spec.tty,
        interactive: spec.interactive,
        owner,
        status: ProcessStatus::Running,
        pid: Some(child.pid()),
        exit_code: None,
        created_at_ms: child.record().created_at_ms,
        exited_at_ms: None,
        exit: None,
        exit_reason: None,
        restart: Some(spec.restart).filter(|policy| *policy != Default::default()),
        restarts: 0,
        terminal: spec.tty.then(|| spec.terminal.unwrap_or_default()),
        tree: None,
    }
}

impl Task {
    async fn run(mut self) {
        self.write_input();
        self.watch_limits();
        drop(self.room.log_change("process.started", &self.info, &self.kept, 0));
        self.go_on().await;
    }

    /// To the end.
    pub(super) async fn go_on(mut self) {
        while !self.is_finished() {
            consume_budget().await; // waiting for a descriptor that is ready never yields by itself
            match self.next_event().await {
                Event::Command(command) => self.handle(command),
                Event::Alone => break,
                Event::Exited(exit) => {
                    let now = Instant::now();
                    let until = now + as_duration(self.room.bounds.process_exit_drain_ms);
                    self.phase = Phase::Draining { exit, until, latest: until + HELD_MAX };
                }
                Event::Readable(stream) => _ = self.read(stream),
                Event::Writable => self.write_input(),
                Event::Timer => self.on_time(),
            }
            self.advance().await;
        }
        let cgroup = self.child.cgroup().cloned();
        let is_populated = cgroup.as_ref().is_some_and(|cgroup| cgroup.pids().is_ok_and(|pids| !pids.is_empty()));
        let left = cgroup.clone().filter(|_| is_populated);
        self.forget_child();
        let (info, log_bytes, unsaved_log) = (Arc::new(self.info), self.output.disk_bytes(), self.output.unsaved());
        self.room.finished(Finished { info, log_bytes, unsaved_log, cgroup: left });
        if let Some(cgroup) = cgroup.filter(|_| !is_populated) {
            _ = tokio::task::spawn_blocking(move || cgroup.remove()).await;
        }
    }

    /// The end is published and nothing can write into the log any more.
    fn is_finished(&self) -> bool {
        self.phase == Phase::Ended && self.stdio.is_read_to_its_end()
    }

    /// What happens next. Commands come first, so that a flood of output doesn't delay them.
    async fn next_event(&mut self) -> Event {
        let viewer = self.terminal.as_mut().and_then(|terminal| terminal.viewers.held_until());
        let follower = self.output.held_until(as_duration(self.room.bounds.terminal_viewer_patience_ms));
        let held = viewer.into_iter().chain(follower).max();
        if let (Some(held), Phase::Draining { until, latest, .. }) = (held, &mut self.phase) {
            // Nothing is read meanwhile: without more time, the end would be told before the last output.
            let drain = as_duration(self.room.bounds.process_exit_drain_ms);
            *until = (*until).max(Instant::from_std(held) + drain).min(*latest);
        }
        let timer = self.timer().into_iter().chain(held.map(Instant::from_std)).min();
        let running = self.phase == Phase::Running;
        let Self { mailbox, child, stdio, terminal, input, close_stdin, output, .. } = self;
        let is_held = held.is_some();
        tokio::select! {
            biased;
            command = mailbox.recv() => command.map_or(Event::Alone, Event::Command),
            exit = child.exited(), if running => Event::Exited(exit),
            () = async { tokio::time::sleep_until(timer.unwrap_or_else(Instant::now)).await }, if timer.is_some() => Event::Timer,
            () = stdio.writable(), if !input.is_empty() || *close_stdin => Event::Writable,
            stream = stdio.readable(), if !is_held => Event::Readable(stream),
            () = emptied(terminal.as_ref()), if is_held => Event::Timer,
            () = output.followers.moved(), if is_held => Event::Timer,
        }
    }

    /// The nearest of what is due.
    fn timer(&self) -> Option<Instant> {
        let phase = match self.phase {
            Phase::Draining { until, .. } | Phase::Pausing { until } => Some(until),
            Phase::Running | Phase::Ended => self.watched.wall_end,
        };
        let phase = phase.into_iter().chain(self.gather_at).min();
        let feed = self.terminal.as_ref().and_then(Terminal::feed_at).map(Instant::from_std);
        phase.into_iter().chain(feed).min()
    }

    fn on_time(&mut self) {
        let now = Instant::now();
        if self.terminal.as_ref().and_then(Terminal::feed_at).is_some_and(|at| Instant::from_std(at) <= now) {
            self.feed_screen();
        }
        if self.gather_at.is_some_and(|at| at <= now) {
            self.gather_at = None;
            if self.phase == Phase::Running {
                self.room.gather(self.child.clone());
            }
        }
        if self.watched.wall_end.is_some_and(|end| end <= now) {
            self.breach(ExitReason::WallTimeLimit);
        }
    }

    fn feed_screen(&mut self) {
        let Some(terminal) = &mut self.terminal else { return };
        terminal.feed();
        let replies = terminal.take_replies();
        // A program that asks without ever reading the answers must not fill the queue.
        if !replies.is_empty() && self.input.len() < REPLIES_MAX_BYTES {
            self.input.push(&replies);
            self.write_input();
        }
    }

    /// What waits right now: on a busy machine the owner may not have come to it in all of the drain's time.
    pub(super) fn read_what_waits(&mut self) {
        for stream in Stream::ALL {
            let mut reads = 0;
            while reads < LAST_READS && self.read(stream) {
                reads += 1;
            }
        }
    }

    /// True when there was something.
    fn read(&mut self, stream: Stream) -> bool {
        let was_open = self.stdio.output(stream).is_some();
        let any = if self.input.slate.is_some() { self.read_kept(stream) } else { self.read_plain(stream) };
        if stream == Stream::Pty && was_open && self.stdio.output(stream).is_none() {
            self.child.close_kept(STDIN); // else the terminal isn't hung up, and who opens it again writes to nobody
        }
        if self.output.bytes > self.watched.output_bytes {
            self.breach(ExitReason::OutputLimit);
        }
        any
    }

    fn read_plain(&mut self, stream: Stream) -> bool {
        let Self { stdio, output, terminal, .. } = self;
        let mut any = false;
        read_now(stdio, stream, |bytes| {
            if bytes.is_empty() {
                return output.finish(stream);
            }
            any = true;
            taken(output, terminal.as_mut(), stream, bytes);
        });
        any
    }

    /// By way of a desk: a SIGKILL loses nothing.
    fn read_kept(&mut self, stream: Stream) -> bool {
        let Self { stdio, output, terminal, input, room, info, .. } = self;
        let (Some(slate), Some(wire)) = (&input.slate, stdio.output(stream)) else { return false };
        let (base, carry) = (output.logged(stream), pack(output.held(stream)));
        let owner = desk::Owner { process: info.id, stream, base, carry };
        let look = |bytes: &[u8]| {
            taken(output, terminal.as_mut(), stream, bytes);
            slate.set_carry(stream, output.held(stream), output.logged(stream));
        };
        match room.children.desks().and_then(|desks| desks.with(|desk| desk.take(wire, owner, look))) {
            None => return self.read_plain(stream), // more threads than desks
            Some(Ok(1..)) => return true,
            Some(Err(error)) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return false,
            Some(Ok(0)) => {}
            Some(Err(error)) => tracing::warn!(%error, "a process's output could not be read any further"),
        }
        output.finish(stream);
        stdio.close_stream(stream);
        false
    }

    pub(super) fn watch_limits(&mut self) {
        let Some(limits) = limits::unbounded(&self.child, &self.spec.run.limits) else { return };
        let (child, mailbox) = (self.child.clone(), self.own_mailbox.clone());
        let task = spawn_owned("process-limits", async move {
            let reason = limits::exceeded(&child, limits).await;
            if let Some(mailbox) = mailbox.upgrade() {
                let _ = mailbox.send(Command::Breach { reason }).await; // gone: so is the process
            }
        });
        self.sampler = Some(AbortOnDrop(task.abort_handle()));
    }

    /// Gives the process as much input as it takes.
    pub(super) fn write_input(&mut self) {
        while !self.input.is_empty() {
            match self.input.write(&self.stdio, self.room.children.desks()) {
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.input.clear(); // nobody reads any more
                    self.close_stdin();
                }
            }
        }
        if std::mem::take(&mut self.close_stdin) {
            if self.terminal.is_some() && self.stdio.has_stdin() {
                self.queue_input(&Bytes::from_static(END_OF_TRANSMISSION));
                self.input.set_closes(false); // the next server would write one more
            }
            self.close_stdin();
        }
    }

    fn close_stdin(&mut self) {
        if self.terminal.is_none() && self.stdio.has_stdin() {
            self.stdio.close_stdin();
            self.child.close_kept(STDIN); // else it would see no end
        }
    }

    /// How much input may still be queued.
    pub(super) fn input_room(&self) -> usize {
        as_usize(self.room.bounds.process_input_queue_max_bytes).saturating_sub(self.input.len())
    }

    pub(super) fn is_running(&self) -> bool {
        self.phase == Phase::Running
    }

    pub(super) fn queue_input(&mut self, bytes: &Bytes) {
        self.input.push(bytes);
        self.write_input();
    }

    /// Shows a small change; its row is written with the next event.
    pub(super) fn shown_later(&mut self) {
        self.publish.send_replace(Arc::new(self.info.clone()));
    }
}
