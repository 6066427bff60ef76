//! The keeper's one thread: signals, the server's socket, its stderr, and the clock.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, socketpair};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::ending;
use super::policy::{Life, Next, Policy};
use super::program::Program;
use super::protocol::{Ended, FDS_MAX, Inbox, Kind, Message, UPGRADE, placed, send};
use super::relay::{self, Tail};
use super::table::Table;
use super::{KEPT_FLAG, SAFE_MODE_FLAG};
use crate::config::{Bounds, Env};
use crate::rt::ids::new_id;
use crate::rt::sys::{self, Code};

/// A server that isn't ready after this time is ended: it hangs.
const START_MAX: Duration = Duration::from_secs(120);

/// After so long without anything to do, the keeper makes itself small.
const IDLE: Duration = Duration::from_secs(1);

/// What a server that stops gets beyond its own deadline.
const STOP_MARGIN: Duration = Duration::from_secs(1);

/// How container hosts tell an init of the systemd kind to halt: SIGRTMIN+3 as glibc counts (signal(7)).
const HALT: i32 = 34 + 3;

struct Server {
    pid: Pid,
    socket: OwnedFd,
    stderr: Option<OwnedFd>,
    started: Instant,
    /// To be ready, or to have ended.
    deadline: Option<Instant>,
    is_ready: bool,
    is_safe: bool,
}

/// How the last server that died did.
struct Last {
    ended: Ended,
    uptime_ms: u64,
    pid: i32,
    is_upgrade: bool,
}

struct Keeper {
    args: Vec<OsString>,
    program: Program,
    /// A newer one that shall take over, and its time to become ready.
    upgrade: Option<(Program, Duration)>,
    /// The one before, while the newer one hasn't shown that it works.
    before: Option<Program>,
    table: Table,
    tail: Tail,
    /// Of the server before.
    last_tail: Tail,
    policy: Policy,
    run_id: String,
    starts: u64,
    last: Option<Last>,
    is_init: bool,
    stop_time: Duration,
    nofile: Rlimit,
    /// The server has written what our stderr doesn't take right now.
    is_held: bool,
    signals: SignalFd,
    code: Code,
    server: Option<Server>,
    start_at: Option<(Instant, bool)>,
}

/// See [`super::run()`].
pub(super) fn run(args: Vec<OsString>) -> i32 {
    match Keeper::new(args) {
        Ok(mut keeper) => keeper.run(),
        Err(error) => {
            say(format_args!("the keeper can't start: {error}; `--no-keeper` does without it"));
            1
        }
    }
}

/// On stderr, unless nobody reads that: then we must not wait for it.
fn say(words: std::fmt::Arguments<'_>) {
    use std::io::Write as _;
    if !relay::is_free() {
        return;
    }
    let _ = writeln!(std::io::stderr(), "sandboxd keeper: {words}"); // nobody may be reading
}

impl Keeper {
    fn new(args: Vec<OsString>) -> std::io::Result<Self> {
        if args.iter().any(|arg| arg == "--detach") {
            nix::unistd::setsid()?;
        }
        sys::close_inherited();
        let is_init = std::process::id() == 1;
        let signals = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGUSR1, Signal::SIGUSR2];
        let numbers = signals.map(|signal| signal as i32).into_iter().chain([Signal::SIGCHLD as i32]);
        let mask = sys::signal_set(numbers.chain(if is_init { vec![Signal::SIGPWR as i32, HALT] } else { vec![] }));
        mask.thread_set_mask()?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        if let Err(errno) = nix::sys::prctl::set_child_subreaper(true) {
            say(format_args!("not a child subreaper ({errno}): exit codes may be lost over a restart"));
        }
        let bounds = Bounds::from_env(&Env::read()).unwrap_or_default(); // the server says what is wrong with them
        let nofile = getrlimit(Resource::Nofile);
        let program = Program::open(std::env::current_exe()?)?;
        let mut args = args;
        if is_init {
            args.push("--init".into());
        }
        let args_have_init = args.iter().any(|arg| arg == "--init");
        Ok(Self {
            args,
            program,
            upgrade: None,
            before: None,
            table: Table::new(),
            tail: Tail::new(),
            last_tail: Tail::new(),
            policy: Policy::new(bounds.keeper_crashes_max, Duration::from_millis(bounds.keeper_steady_ms)),
            run_id: new_id("run"),
            starts: 0,
            last: None,
            is_init: args_have_init,
            stop_time: Duration::from_millis(bounds.shutdown_deadline_ms) + STOP_MARGIN,
            nofile,
            is_held: false,
            signals,
            code: Code::find(),
            server: None,
            start_at: Some((Instant::now(), false)),
        })
    }

    fn run(&mut self) -> i32 {
        loop {
            if let Some((at, safe)) = self.start_at.filter(|_| self.server.is_none())
                && Instant::now() >= at
            {
                self.start_at = None;
                if let Err(error) = self.start(safe) {
                    let why = format!("can't start {}: {error}", self.program.path.display());
                    self.tail.push(why.as_bytes());
                    say(format_args!("{why}"));
                    if let Some(code) = self.ended(Ended::Code(1)) {
                        return code;
                    }
                }
            }
            self.wait();
            self.listen();
            self.relay();
            let died = self.collect();
            if let Some(code) = self.signalled().or_else(|| died.and_then(|ended| self.ended(ended))) {
                return code;
            }
            let is_late = |server: &&mut Server| server.deadline.is_some_and(|at| at <= Instant::now());
            if let Some(server) = self.server.as_mut().filter(is_late) {
                server.deadline = None;
                let what = if self.policy.is_stopping { "stop" } else { "get ready" };
                say(format_args!("the server doesn't {what} in time and is killed"));
                let _ = kill(server.pid, Signal::SIGKILL); // collected above, next time
            }
        }
    }

    /// Starts a server; its stdin is its socket.
    #[allow(clippy::disallowed_methods)] // the processes room ends its children with the server: this is the server
    fn start(&mut self, safe: bool) -> std::io::Result<()> {
        let time = match self.upgrade.take() {
            Some((program, time)) => {
                self.before = Some(std::mem::replace(&mut self.program, program));
                time
            }
            None => START_MAX,
        };
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let (stderr, writer) = std::io::pipe()?;
        let stderr = OwnedFd::from(stderr);
        rustix::io::ioctl_fionbio(&stderr, true)?;
        let mut command = Command::new(self.program.executable());
        std::os::unix::process::CommandExt::arg0(&mut command, self.args.first().map_or(OsStr::new("sandboxd"), |arg| arg));
        command.args(self.args.iter().skip(1)).arg(KEPT_FLAG);
        if safe {
            command.arg(SAFE_MODE_FLAG);
        }
        command.stdin(Stdio::from(theirs)).stderr(Stdio::from(writer));
        // Its own group: a terminal's Ctrl-C comes to us, and goes on to it once.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        self.starts += 1;
        // The server, and all that it starts, have the limit that we were given.
        let _ = setrlimit(Resource::Nofile, self.nofile);
        let child = command.spawn();
        let _ = setrlimit(Resource::Nofile, Rlimit { current: self.nofile.maximum, ..self.nofile });
        let started = Instant::now();
        let pid = Pid::from_raw(child?.id().cast_signed());
        let (deadline, stderr) = (Some(started + time), Some(stderr));
        self.server = Some(Server { pid, socket: ours, stderr, started, deadline, is_ready: false, is_safe: safe });
        Ok(())
    }

    fn wait(&self) {
        let now = Instant::now();
        let due = [self.start_at.map(|(at, _)| at), self.server.as_ref().and_then(|server| server.deadline)];
        let due = due.into_iter().flatten().min().map(|at| at.saturating_duration_since(now));
        let timeout = due.map(|due| Timespec { tv_sec: due.as_secs().cast_signed(), tv_nsec: i64::from(due.subsec_nanos()) });
        let never = PollFd::new(&self.signals, PollFlags::empty());
        let mut polled = [PollFd::new(&self.signals, PollFlags::IN), never.clone(), never];
        if let Some(server) = &self.server {
            polled[1] = PollFd::new(&server.socket, PollFlags::IN);
            polled[2] = match &server.stderr {
                Some(_) if self.is_held => PollFd::from_borrowed_fd(rustix::stdio::stderr(), PollFlags::OUT),
                Some(stderr) => PollFd::new(stderr, PollFlags::IN),
                None => PollFd::new(&server.socket, PollFlags::empty()),
            };
        }
        // A signal, or the time: both are looked at in any case.
        if due.is_some() {
            let _ = poll(&mut polled, timeout.as_ref());
            return;
        }
        let idle = Timespec { tv_sec: IDLE.as_secs().cast_signed(), tv_nsec: 0 };
        if poll(&mut polled, Some(&idle)) == Ok(0) {
            self.code.give_back();
            let _ = poll(&mut polled, None);
        }
    }

    /// What the server says.
    fn listen(&mut self) {
        let mut inbox = Inbox::new();
        while let Some(server) = &mut self.server {
            let Ok(Some((message, fds))) = inbox.receive(&server.socket, RecvFlags::DONTWAIT) else { return };
            match message.kind {
                Kind::Hello => self.welcome(),
                Kind::Keep => {
                    // Fewer than were sent when we have no descriptor left (unix(7)): each would be at another's place.
                    let are_all = fds.iter().flatten().count() == message.number.count_ones() as usize;
                    if !are_all || !self.table.keep(message.key, placed(fds, message.number)) {
                        self.table.forget(message.key);
                        say(format_args!("no room for {}: it will not outlive the server", message.key));
                    }
                }
                Kind::Started => self.table.started(message.key, message.pid),
                Kind::Forget => self.table.forget(message.key),
                Kind::Close => self.table.close(message.key, message.number),
                Kind::Ready => {
                    server.is_ready = true;
                    if !self.policy.is_stopping {
                        server.deadline = None;
                    }
                    if self.before.take().is_some() {
                        say(format_args!("upgraded to {}", self.program.path.display()));
                    }
                }
                Kind::Upgrade => {
                    let path = PathBuf::from(OsStr::from_bytes(message.text));
                    match Program::open(path.clone()) {
                        Ok(program) => self.upgrade = Some((program, Duration::from_millis(message.number))),
                        Err(error) => say(format_args!("can't open {}: {error}", path.display())),
                    }
                }
                _ => {}
            }
        }
    }

    /// Tells a new server all that is kept.
    fn welcome(&self) {
        let Some(server) = &self.server else { return };
        let tell = |message: &Message<'_>, fds: &[_]| send_patiently(&server.socket, message, fds);
        let pid = std::process::id().cast_signed();
        let mut told = tell(
            &Message { number: self.starts, pid, text: self.run_id.as_bytes(), ..Message::new(Kind::Welcome) },
            &[rustix::stdio::stderr()],
        );
        let path = self.program.path.as_os_str().as_bytes();
        let state = Message { number: self.policy.crashes, text: path, ..Message::new(Kind::State) };
        told = told.and_then(|()| tell(&state, &[]));
        if let Some(Last { ended, uptime_ms, pid, is_upgrade }) = self.last {
            let of = Message::of(Kind::Last, if is_upgrade { UPGRADE } else { "" });
            let last = Message { ended: Some(ended), number: uptime_ms, pid, text: self.last_tail.bytes(), ..of };
            told = told.and_then(|()| tell(&last, &[]));
        }
        for entry in self.table.iter() {
            let fds = entry.fds.each_ref().map(|fd| fd.as_ref().map(AsFd::as_fd));
            let (mut held, mut count, mut places) = ([server.socket.as_fd(); FDS_MAX], 0, 0);
            for (place, fd) in fds.into_iter().enumerate().filter_map(|(place, fd)| Some((place, fd?))) {
                held[count] = fd;
                count += 1;
                places |= 1 << place;
            }
            let kept = Message::of(Kind::Kept, entry.key());
            told =
                told.and_then(|()| tell(&Message { pid: entry.pid, ended: entry.ended, number: places, ..kept }, &held[..count]));
        }
        if let Err(error) = told.and_then(|()| tell(&Message::new(Kind::End), &[])) {
            say(format_args!("the server doesn't take what was kept: {error}"));
        }
    }

    fn relay(&mut self) {
        self.is_held = false;
        let Some(server) = &mut self.server else { return };
        let now = Timespec::default();
        while let Some(from) = &server.stderr {
            let mut waiting = [PollFd::new(from, PollFlags::IN)];
            if !poll(&mut waiting, Some(&now)).is_ok_and(|count| count > 0) {
                return;
            }
            if !relay::is_free() {
                self.is_held = true;
                return;
            }
            if !relay::pass_on(from, &mut self.tail) {
                server.stderr = None;
            }
        }
    }

    /// Collects the dead; gives the server's end.
    fn collect(&mut self) -> Option<Ended> {
        let mut died = None;
        while let Some((pid, ended)) = ending::collected() {
            match &self.server {
                Some(server) if server.pid == pid => {
                    self.listen(); // what it said last comes before the ends of processes that it leaves
                    died = Some(ended);
                }
                Some(_) | None => {
                    // It may have been started since we listened, by a server that is gone by now.
                    self.listen();
                    let Some(entry) = self.table.exited(pid.as_raw(), ended) else { continue };
                    let exited = Message { pid: pid.as_raw(), ended: Some(ended), ..Message::of(Kind::Exited, entry.key()) };
                    if let Some(server) = &self.server {
                        let _ = send_patiently(&server.socket, &exited, &[]); // else the next one is told
                    }
                }
            }
        }
        died
    }

    /// The server is gone, or couldn't be started.
    fn ended(&mut self, ended: Ended) -> Option<i32> {
        let (mut life, mut pid) = (Life { ended, uptime: Duration::ZERO, was_ready: false, was_safe: false }, 0);
        if let Some(mut server) = self.server.take() {
            if let Some(stderr) = server.stderr.take() {
                relay::drain(stderr, &mut self.tail);
            }
            pid = server.pid.as_raw();
            life = Life { ended, uptime: server.started.elapsed(), was_ready: server.is_ready, was_safe: server.is_safe };
        }
        let uptime_ms = u64::try_from(life.uptime.as_millis()).unwrap_or(u64::MAX);
        let last = |is_upgrade| Some(Last { ended, uptime_ms, pid, is_upgrade });
        if !self.policy.is_stopping
            && let Some(before) = self.before.take()
        {
            say(format_args!("{} ended before it was ready ({ended}): going back", self.program.path.display()));
            self.program = before;
            self.last = last(true);
            self.next_tail();
            self.start_at = Some((Instant::now(), false));
            return None;
        }
        let (after, safe) = match self.policy.ended(life) {
            Next::End(code) => {
                ending::end_all(&mut self.table); // nothing, after an orderly stop
                return Some(code);
            }
            Next::Start { after, safe } => (after, safe),
        };
        if ended != Ended::Code(super::RESTART_CODE) {
            self.upgrade = None; // it died on the way there
            let in_words = if safe { "in safe mode: it died too often" } else { "again" };
            say(format_args!("the server ended ({ended}) and is started {in_words}, in {} ms", after.as_millis()));
            self.last = last(false);
            self.next_tail();
        } else {
            self.tail.clear();
            if !life.was_safe {
                self.last = None;
            }
        }
        self.start_at = Some((Instant::now() + after, safe));
        None
    }

    /// What was written belongs to the server before.
    fn next_tail(&mut self) {
        std::mem::swap(&mut self.tail, &mut self.last_tail);
        self.tail.clear();
    }

    /// Passes signals on; a stop while no server runs ends everything. Gives the exit code then.
    fn signalled(&mut self) -> Option<i32> {
        while let Ok(Some(info)) = self.signals.read_signal() {
            let number = info.ssi_signo.cast_signed();
            let signal = if number == HALT { Ok(Signal::SIGTERM) } else { Signal::try_from(number) };
            let Ok(signal) = signal else { continue };
            let stops = matches!(signal, Signal::SIGTERM | Signal::SIGINT | Signal::SIGHUP | Signal::SIGQUIT | Signal::SIGPWR);
            match (&mut self.server, signal) {
                (_, Signal::SIGCHLD) => {}
                (Some(server), _) if stops => {
                    self.policy.is_stopping = true;
                    server.deadline = Some(Instant::now() + self.stop_time);
                    // Only an init knows the other two.
                    let is_known = self.is_init || !matches!(signal, Signal::SIGQUIT | Signal::SIGPWR);
                    let _ = kill(server.pid, if is_known { signal } else { Signal::SIGTERM }); // it ends just now: that is seen
                }
                (Some(server), _) if self.is_init => _ = kill(server.pid, signal),
                (None, _) if stops => {
                    ending::end_all(&mut self.table);
                    return Some(0);
                }
                _ => {}
            }
        }
        None
    }
}

/// Waits a while for a server that doesn't read.
fn send_patiently(socket: &OwnedFd, message: &Message<'_>, fds: &[std::os::fd::BorrowedFd<'_>]) -> std::io::Result<()> {
    let until = Instant::now() + Duration::from_secs(2);
    loop {
        match send(socket, message, fds, SendFlags::DONTWAIT) {
            Err(error) if is_full(&error) && Instant::now() < until => std::thread::sleep(Duration::from_millis(1)),
            sent => return sent,
        }
    }
}

/// Nothing can be sent right now; ETOOMANYREFS: too many descriptors are on their way (unix(7)).
fn is_full(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::WouldBlock || error.raw_os_error() == Some(Errno::ETOOMANYREFS as i32)
}
