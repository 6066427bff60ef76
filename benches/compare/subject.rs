//! One server under test: start it in a home of its own, look at its memory, stop it again.
//!
//! Both subjects get the same treatment: a fresh temporary home and XDG directories, an empty environment apart
//! from `PATH`, their own process group, output into a file. A server is killed by its pid when its value is
//! dropped, and with it what lives in its home; [`kill_all`] does the same when the benchmark is interrupted.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::Result;
use crate::http::Client;

/// A server that is not healthy after this long counts as failed.
const START_LIMIT: Duration = Duration::from_secs(15);
/// Pause between two attempts to connect while starting: it bounds the error of the start time.
const POLL_PAUSE: Duration = Duration::from_micros(200);
/// How long a server may take to leave after SIGTERM before its group is killed.
const STOP_GRACE: Duration = Duration::from_secs(2);
/// How often what a server left behind is looked for: a shell among it may start a program while it is killed.
const STRAY_SWEEPS: usize = 5;

/// Leaders of the process groups that are alive now, each with its home.
static ALIVE: Mutex<BTreeMap<u32, PathBuf>> = Mutex::new(BTreeMap::new());

/// Which of the two programs a value belongs to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Side {
    Ours,
    Reference,
}

impl Side {
    /// Both, in the order in which they take turns.
    pub const BOTH: [Side; 2] = [Side::Ours, Side::Reference];

    /// As it stands in notes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Reference => "reference",
        }
    }
}

/// One value for each side.
#[derive(Clone, Default)]
pub struct Pair<T> {
    pub ours: T,
    pub reference: T,
}

impl<T> Pair<T> {
    /// Makes one value for each side, ours first; stops at the first error.
    pub fn build(mut make: impl FnMut(Side) -> Result<T>) -> Result<Self> {
        Ok(Self { ours: make(Side::Ours)?, reference: make(Side::Reference)? })
    }

    pub fn get(&self, side: Side) -> &T {
        match side {
            Side::Ours => &self.ours,
            Side::Reference => &self.reference,
        }
    }

    pub fn get_mut(&mut self, side: Side) -> &mut T {
        match side {
            Side::Ours => &mut self.ours,
            Side::Reference => &mut self.reference,
        }
    }
}

/// A running server. Dropping it ends its process group.
pub struct Server {
    pub addr: SocketAddr,
    /// Time from just before `spawn` to the end of the first 200 of `GET /v1/health`.
    pub start_time: Duration,
    child: Child,
    launch: Launch,
    /// Held for its removal; declared last so that the process is gone before its files are.
    home: TempDir,
}

/// How a server is started, the first time and again.
struct Launch {
    side: Side,
    program: PathBuf,
    /// Variables beside those that every server gets.
    variables: Vec<(&'static str, &'static str)>,
}

impl Server {
    /// Prepares a home, starts the program with these variables and waits for its first healthy answer.
    pub fn start(side: Side, program: &Path, variables: &[(&'static str, &'static str)]) -> Result<Self> {
        let home = tempfile::Builder::new().prefix("compare-").tempdir()?;
        write_launcher(home.path())?;
        let launch = Launch { side, program: program.to_owned(), variables: variables.to_vec() };
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let (begin, child) = launch.spawn(home.path(), port)?;
        let mut server = Self { addr, start_time: Duration::ZERO, child, launch, home };
        server.wait_healthy(begin)?;
        Ok(server)
    }

    /// Stops the server and starts it again in the same home, on the same port.
    pub fn restart(&mut self) -> Result<()> {
        self.end();
        let (begin, child) = self.launch.spawn(self.home.path(), self.addr.port())?;
        self.child = child;
        self.wait_healthy(begin)
    }

    /// Makes the mock agent available, which the reference wants to be asked for.
    pub async fn with_mock(self) -> Result<Self> {
        let mut client = Client::connect(self.addr).await?;
        let reply = client.call("POST", "/v1/agents/mock/install", b"{}", Duration::from_secs(20)).await?;
        if self.launch.side == Side::Reference && reply.status != 200 {
            return Err(format!("installing mock: status {}", reply.status).into());
        }
        Ok(self)
    }

    /// Kills our server below its keeper; gives the time until the next one answers.
    pub fn kill(&mut self) -> Result<Duration> {
        let pids = self.own();
        let [_, server] = &pids[..] else { return Err("no keeper with a server".into()) };
        let begin = Instant::now();
        signal("KILL", std::slice::from_ref(server));
        while !has_ended(server.parse()?) {
            std::thread::yield_now();
        }
        while begin.elapsed() < START_LIMIT {
            if is_healthy(self.addr) {
                return Ok(begin.elapsed());
            }
        }
        Err(format!("not healthy {START_LIMIT:?} after a kill: {}", self.output_tail()).into())
    }

    fn wait_healthy(&mut self, begin: Instant) -> Result<()> {
        while begin.elapsed() < START_LIMIT {
            if is_healthy(self.addr) {
                self.start_time = begin.elapsed();
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                alive().remove(&self.child.id());
                return Err(format!("server left at start ({status}): {}", self.output_tail()).into());
            }
            std::thread::sleep(POLL_PAUSE);
        }
        Err(format!("not healthy after {START_LIMIT:?}: {}", self.output_tail()).into())
    }

    fn output_tail(&self) -> String {
        let text = fs::read(self.home.path().join("output.log")).unwrap_or_default();
        let tail = &text[text.len().saturating_sub(600)..];
        String::from_utf8_lossy(tail).trim().to_owned()
    }

    /// A field of `/proc/<pid>/status` in MiB: `VmRSS` (resident now) or `VmHWM` (its peak so far). The server's
    /// own processes only (ours has a keeper above it), not its agents.
    pub fn memory_mib(&self, field: &str) -> Result<f64> {
        self.own().iter().map(|pid| memory_mib(pid, field)).sum()
    }

    /// The process that was started, and the server below it where that is its keeper.
    fn own(&self) -> Vec<String> {
        let keeper = self.child.id();
        let children = fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children")).unwrap_or_default();
        let is_server = |pid: &&str| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0).any(|word| word == b"--kept")
        };
        let below = children.split_ascii_whitespace().filter(is_server).map(str::to_owned);
        std::iter::once(keeper.to_string()).chain(below).collect()
    }

    /// Resident memory of each process that lives in the home beside the server, in MiB: its agents.
    pub fn agents_mib(&self) -> Vec<f64> {
        let own = self.own();
        let others = strays(self.home.path()).into_iter().filter(|pid| !own.contains(pid));
        others.filter_map(|pid| memory_mib(&pid, "VmRSS").ok()).collect()
    }

    fn end(&mut self) {
        let pid = self.child.id();
        if !alive().contains_key(&pid) {
            return;
        }
        signal("TERM", &[pid.to_string()]);
        end_group(&mut self.child, STOP_GRACE);
        end_strays(self.home.path());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

impl Launch {
    /// Gives the time just before, too.
    fn spawn(&self, home: &Path, port: u16) -> Result<(Instant, Child)> {
        let mut command = command(self.side, &self.program, home, port)?;
        command.envs(self.variables.iter().copied());
        let begin = Instant::now();
        let child = command.spawn().map_err(|e| format!("{}: {e}", self.program.display()))?;
        alive().insert(child.id(), home.to_owned());
        Ok((begin, child))
    }
}

fn memory_mib(pid: &str, field: &str) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|l| l.strip_prefix(field)?.strip_prefix(':'));
    let kib = line.and_then(|v| v.split_whitespace().next()).ok_or("no memory figure")?;
    Ok(kib.parse::<f64>()? / 1024.0)
}

/// Kills the group of every program that still runs, and removes their homes. For the way out only.
pub fn kill_all() {
    for (pid, home) in alive().iter() {
        signal("KILL", &[format!("-{pid}")]);
        end_strays(home);
        let _ = fs::remove_dir_all(home);
    }
}

/// Runs a program in a group of its own for at most `limit`, kills what is left of the group, and returns what it
/// wrote to stdout and stderr.
pub fn run_bounded(command: &mut Command, limit: Duration) -> Result<String> {
    let home = tempfile::Builder::new().prefix("compare-").tempdir()?;
    let path = home.path().join("output.log");
    let output = File::create(&path)?;
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).process_group(0);
    let mut child = command.spawn().map_err(|e| format!("{}: {e}", command.get_program().display()))?;
    alive().insert(child.id(), home.path().to_owned());
    end_group(&mut child, limit);
    Ok(fs::read_to_string(path)?)
}

/// Waits for the leader to end, kills the group, and only then reaps: until that its number cannot belong to
/// anybody else's group.
fn end_group(child: &mut Child, grace: Duration) {
    let (pid, begin) = (child.id(), Instant::now());
    while begin.elapsed() < grace && !has_ended(pid) {
        std::thread::sleep(Duration::from_millis(5));
    }
    signal("KILL", &[format!("-{pid}")]);
    alive().remove(&pid);
    let _ = child.wait();
}

/// Whether the process is a zombie or gone.
fn has_ended(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return true;
    };
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
}

fn alive() -> std::sync::MutexGuard<'static, BTreeMap<u32, PathBuf>> {
    ALIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Kills what a server left behind outside its group, known by the server's home in its environment. Terminals of the
/// reference are such: each is a session of its own, holds its own controlling end and so survives its server.
fn end_strays(home: &Path) {
    for _ in 0..STRAY_SWEEPS {
        let strays = strays(home);
        if strays.is_empty() {
            return;
        }
        signal("KILL", &strays);
    }
}

/// The numbers of the processes that live in this home, or in one below it, as those of a desktop do.
fn strays(home: &Path) -> Vec<String> {
    let entry = [b"HOME=", home.as_os_str().as_bytes()].concat();
    let numbers = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = numbers.filter_map(|e| e.file_name().into_string().ok()).filter(|n| n.parse::<u32>().is_ok());
    let lives_there = |pid: &String| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let is_below = |rest: &[u8]| rest.is_empty() || rest.starts_with(b"/");
        environment.split(|b| *b == 0).any(|e| e.strip_prefix(&entry[..]).is_some_and(is_below))
    };
    numbers.filter(lives_there).collect()
}

/// Sends a signal through the shell's own `kill`; a negative target is a process group.
fn signal(name: &str, targets: &[String]) {
    let script = format!("kill -s {name} -- {} 2>/dev/null", targets.join(" "));
    let _ = Command::new("sh").args(["-c", &script]).stdin(Stdio::null()).status();
}

fn command(side: Side, program: &Path, home: &Path, port: u16) -> Result<Command> {
    let output = File::create(home.join("output.log"))?;
    let mut command = Command::new(program);
    command.args(["server", "--no-token", "--host", "127.0.0.1", "--port", &port.to_string()]);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("HOME", home).env("TMPDIR", home);
    for (name, below) in XDG {
        command.env(name, home.join(below));
    }
    // The reference may stand on both sides: that shows how much of a difference is noise.
    let name = program.file_name().unwrap_or_default();
    if side == Side::Reference || name == "sandbox-agent" {
        command.arg("--no-telemetry");
        command.env("SANDBOX_AGENT_LOG_HTTP", "0");
        command.env("OPENCODE_COMPAT_DB_PATH", home.join("opencode.db"));
    }
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    command.current_dir(home).process_group(0);
    Ok(command)
}

const XDG: [(&str, &str); 4] = [
    ("XDG_DATA_HOME", ".local/share"),
    ("XDG_STATE_HOME", ".local/state"),
    ("XDG_CONFIG_HOME", ".config"),
    ("XDG_CACHE_HOME", ".cache"),
];

/// Puts the flood agent where each of the programs looks for the launcher of `amp`.
fn write_launcher(home: &Path) -> Result<()> {
    let this = std::env::current_exe()?;
    let script = format!("#!/bin/sh\nexec '{}' --flood-agent\n", this.display());
    for name in ["sandboxd", "sandbox-agent"] {
        let dir = home.join(".local/share").join(name).join("bin/agent_processes");
        fs::create_dir_all(&dir)?;
        let path = dir.join("amp-acp");
        fs::write(&path, &script)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// One attempt at `GET /v1/health` on a new connection; true when the answer is a 200.
fn is_healthy(addr: SocketAddr) -> bool {
    let attempt = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&addr, Duration::from_millis(500))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        let request = format!("GET /v1/health HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut head = [0; 12];
        stream.read_exact(&mut head)?;
        Ok(&head == b"HTTP/1.1 200")
    };
    attempt().unwrap_or(false)
}
