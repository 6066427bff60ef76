//! The daemon's process: starting it, and ending it.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, UNIX_EPOCH};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::{Instant, sleep};

use super::super::Failure;
use super::record::Record;
use super::{Daemon, Probe};
use crate::config::{Auth, SECRET_VARIABLES, as_duration, self_exe};

/// From starting the process to a healthy answer.
const START_DEADLINE: Duration = Duration::from_secs(15);
/// What a server gets beyond its own deadline before KILL, and the kernel to take it away after that.
const STOP_MARGIN: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(40);
/// How much of the log is searched for the reason of an early end.
const LOG_TAIL_MAX_BYTES: usize = 64 * 1024;

/// This build: the version, and when the executable was written.
pub(super) fn build() -> String {
    let written = std::fs::metadata(self_exe()).and_then(|metadata| metadata.modified()).ok();
    let since = written.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    format!("{}-{}", env!("CARGO_PKG_VERSION"), since.as_nanos())
}

/// Starts the server and waits until it answers; gives its process id.
///
/// # Errors
/// It can't be started, ends early, or isn't ready within [`START_DEADLINE`]; then it is ended, and nothing is left but
/// its log.
pub(super) async fn launch(daemon: &Daemon) -> Result<u32, Failure> {
    let mut child = spawn(daemon)?;
    let pid = child.id();
    // Remembered before it is ready: if we are killed meanwhile, `daemon stop` still finds it.
    let ready = match Record::of(pid) {
        Some(record) => daemon.files.write(&record, &build()),
        None => Ok(()), // it has ended already, and the next step says why
    };
    let ready = match ready {
        Ok(()) => wait_until_ready(daemon, &mut child).await,
        Err(failure) => Err(failure),
    };
    if let Err(failure) = ready {
        if let Some(record) = Record::of(pid) {
            end(record, daemon.config.bounds.shutdown_deadline_ms).await?;
        }
        daemon.files.remove();
        return Err(failure);
    }
    Ok(pid)
}

/// Starts our own executable, which leaves our session first thing (`--detach`). The token goes by the environment: an
/// argument could be read by everyone on the machine.
#[allow(clippy::disallowed_methods)] // the processes room ends its children with us, and this one must outlive us
fn spawn(daemon: &Daemon) -> Result<Child, Failure> {
    let program = self_exe();
    let failed = |error: std::io::Error| Failure::failed(format_args!("can't start {}: {error}", program.display()));
    let log = daemon.files.new_log()?;
    let bind = daemon.config.bind;
    let mut command = Command::new(&program);
    command.args(["server", "--detach", "--host", &bind.ip().to_string(), "--port", &bind.port().to_string()]);
    if let Some(dir) = &daemon.data_dir {
        command.arg("--data-dir").arg(dir);
    }
    for variable in SECRET_VARIABLES {
        command.env_remove(variable);
    }
    match &daemon.config.auth {
        Auth::Token(token) => command.env("SANDBOXD_TOKEN", token.expose()),
        Auth::Open => command.arg("--no-token"),
    };
    command.stdin(Stdio::null()).stdout(log.try_clone().map_err(failed)?).stderr(log);
    command.spawn().map_err(failed)
}

/// Its own ready line counts, not only an answer: another server may have been faster to bind the port.
async fn wait_until_ready(daemon: &Daemon, child: &mut Child) -> Result<(), Failure> {
    let deadline = Instant::now() + START_DEADLINE;
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            let why = last_words(daemon).unwrap_or_else(|| format!("see {}", daemon.files.log.display()));
            return Err(Failure::failed(format_args!("sandboxd exited before becoming healthy ({status}): {why}")));
        }
        if says_listening(daemon) && matches!(daemon.probe(true).await?, Probe::Healthy) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let (limit, log) = (START_DEADLINE.as_secs(), daemon.files.log.display());
            return Err(Failure::failed(format_args!("sandboxd was not healthy within {limit} s and was ended: see {log}")));
        }
        sleep(POLL).await;
    }
}

fn says_listening(daemon: &Daemon) -> bool {
    log_tail(daemon).lines().any(|line| line.starts_with('{') && line.contains(r#""event":"listening""#))
}

/// The line in which a server says why it ends.
fn last_words(daemon: &Daemon) -> Option<String> {
    let log = log_tail(daemon);
    let line = log.lines().rev().find(|line| !line.trim().is_empty())?;
    Some(line.strip_prefix("sandboxd: ").unwrap_or(line).to_owned())
}

fn log_tail(daemon: &Daemon) -> String {
    let log = std::fs::read(&daemon.files.log).unwrap_or_default();
    String::from_utf8_lossy(&log[log.len().saturating_sub(LOG_TAIL_MAX_BYTES)..]).into_owned()
}

/// Ends exactly this process: TERM, its own deadline and a margin, KILL. True when it had to be killed.
///
/// # Errors
/// It belongs to another user, or is still there after KILL.
pub(super) async fn end(record: Record, shutdown_deadline_ms: u64) -> Result<bool, Failure> {
    for (sent, patience) in [(Signal::SIGTERM, as_duration(shutdown_deadline_ms) + STOP_MARGIN), (Signal::SIGKILL, STOP_MARGIN)] {
        let deadline = Instant::now() + patience;
        // A keeper that is killed ends nobody any more: first it, so that it starts no other server, then its server.
        let server = if sent == Signal::SIGKILL { record.server() } else { None };
        signal(&record, sent)?;
        let both = || record.lives() || server.as_ref().is_some_and(Record::lives);
        if let Some(server) = &server {
            signal(server, sent)?;
        }
        while both() && Instant::now() < deadline {
            sleep(POLL).await;
        }
        if !both() {
            return Ok(sent == Signal::SIGKILL);
        }
    }
    Err(Failure::failed(format_args!("the daemon (PID {}) does not end, not even by KILL: it waits for a device", record.pid)))
}

fn signal(record: &Record, signal: Signal) -> Result<(), Failure> {
    let pid = Pid::from_raw(i32::try_from(record.pid).unwrap_or(i32::MAX));
    match if record.lives() { kill(pid, signal) } else { Ok(()) } {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => {
            Err(Failure::failed(format_args!("can't end the daemon (PID {pid}): {errno}; it was started by another user")))
        }
    }
}
