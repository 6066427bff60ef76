//! `sandboxd upgrade`: another program for a running server of this machine, which keeps what it runs.
//!
//! ```text
//! new one says its version ─▶ lies at the server's path, the old one beside it ─▶ server restarts into it ─▶ it answers
//!                                    ▲ old one is put back ◀── it never got ready: the keeper went back ──┘
//! ```

mod placed;

use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use clap::Args;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::api::Endpoint;
use super::client::Client;
use super::{Failure, TokenFlags, block_on, print, say};
use crate::config::Env;
use crate::rt::files::is_executable;
use crate::store::back_up;
use placed::Placed;

/// A program that doesn't say its version in this time is broken.
const VERSION_TIME: Duration = Duration::from_secs(10);
/// What a server has beyond the time to get ready: to end, and to start the old one again.
const MARGIN: Duration = Duration::from_secs(30);
/// Time for it to get ready.
const TIMEOUT_DEFAULT_MS: u64 = 30_000;
const POLL: Duration = Duration::from_millis(100);
/// How long one question may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(super) struct UpgradeArgs {
    /// The new program [default: what lies at the server's own path now, as after a reinstallation].
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Time for it to get ready.
    #[arg(long, value_name = "MS", default_value_t = TIMEOUT_DEFAULT_MS, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    timeout_ms: u64,
    /// Makes no copy of the database before.
    #[arg(long)]
    no_backup: bool,
    #[command(flatten)]
    endpoint: Endpoint,
}

pub(super) fn run(args: UpgradeArgs, token: &TokenFlags, env: &Env) -> Result<(), Failure> {
    let client = Client::new(&args.endpoint.endpoint, token.resolve(env)?, env)?;
    block_on(upgrade(&client, &args))
}

/// A server, as `GET /v1/status` tells.
struct Running {
    pid: u64,
    version: String,
    program: PathBuf,
    starts: u64,
    /// Its database; `None` in safe mode, where it has none open.
    database: Option<PathBuf>,
    crashes: Vec<Value>,
    /// Why it is in safe mode, if it is.
    reason: Option<String>,
}

impl Running {
    async fn ask(client: &Client) -> Result<Self, Failure> {
        let request = client.request(Method::GET, &["v1", "status"], &[]).timeout(ASK_TIMEOUT);
        // In safe mode the status comes with 503.
        let status = match request.send().await {
            Ok(response) if response.status() == StatusCode::SERVICE_UNAVAILABLE => response.json().await.unwrap_or_default(),
            Ok(response) => serde_json::from_str(&client.accept(response).await?).unwrap_or_default(),
            Err(error) => return Err(client.unreachable(&error)),
        };
        let status: Value = status;
        let keeper = &status["keeper"];
        let (Some(program), Some(starts), false) =
            (keeper["program"].as_str(), keeper["starts"].as_u64(), keeper["lost"] == true)
        else {
            return Err(Failure::failed("the server has no keeper: stop it, replace its program, and start it again"));
        };
        Ok(Self {
            pid: status["pid"].as_u64().unwrap_or(0),
            version: status["version"].as_str().unwrap_or("unknown").to_owned(),
            program: program.into(),
            starts,
            database: status["storage"]["path"].as_str().map(PathBuf::from),
            crashes: status["crashes"].as_array().cloned().unwrap_or_default(),
            reason: status["reason"].as_str().map(str::to_owned),
        })
    }

    /// Copies the database to `<name>.before-upgrade.db` beside it, in the place of the copy before: a newer program may
    /// change it so that the old one can't open it.
    fn back_up(&self) -> Result<(), Failure> {
        let Some(database) = &self.database else {
            say("note: the database isn't copied before, for the server has not opened it");
            return Ok(());
        };
        let copy = database.with_extension("before-upgrade.db");
        back_up(database, &copy, true)
            .map_err(|error| Failure::failed(format_args!("{error}: nothing was changed; --no-backup does without a copy")))?;
        say(format_args!("the database was copied to {}", copy.display()));
        Ok(())
    }

    fn exe(&self) -> PathBuf {
        format!("/proc/{}/exe", self.pid).into()
    }
}

async fn upgrade(client: &Client, args: &UpgradeArgs) -> Result<(), Failure> {
    let old = Running::ask(client).await?;
    let binary = args.binary.as_deref().unwrap_or(&old.program);
    let version = version_of(binary).await?;
    if is_same(binary, &old.exe()) {
        say(format_args!("nothing to do: {} ({version}) is what runs", binary.display()));
        return Ok(());
    }
    if !args.no_backup {
        old.back_up()?;
    }
    let placed = Placed::put(binary, &old.program, &old.exe())
        .map_err(|error| Failure::failed(format_args!("can't put the program at {}: {error}", old.program.display())))?;
    let upgraded = restart_into(client, &old, args.timeout_ms).await;
    match upgraded {
        Ok(new) => print(format_args!(
            "upgraded {} ({} -> {}, PID {}); the program before is {}",
            old.program.display(),
            old.version,
            new.version,
            new.pid,
            placed.previous().display()
        )),
        Err(failure) => {
            if let Err(error) = placed.take_back() {
                say(format_args!("can't put {} back: {error}", placed.previous().display()));
            }
            Err(failure)
        }
    }
}

/// The same for a program that lies where it shall stay. False when the server has no keeper.
pub(super) async fn in_place(client: &Client, program: &Path) -> Result<bool, Failure> {
    let Ok(running) = Running::ask(client).await else { return Ok(false) };
    let old = Running { program: program.to_owned(), ..running };
    old.back_up()?;
    restart_into(client, &old, TIMEOUT_DEFAULT_MS).await.map(|_| true)
}

/// Resolves once a server answers that was started since.
async fn restart_into(client: &Client, old: &Running, timeout_ms: u64) -> Result<Running, Failure> {
    let body = json!({"path": old.program, "timeoutMs": timeout_ms});
    client.send(client.request(Method::POST, &["v1", "server", "upgrade"], &[]).json(&body)).await?;
    let until = Instant::now() + Duration::from_millis(timeout_ms) + MARGIN;
    loop {
        let asked = Running::ask(client).await;
        let is_late = Instant::now() >= until;
        match asked {
            Ok(new) if new.starts > old.starts => match failure(old, &new) {
                Some(failure) => return Err(failure),
                None if new.reason.is_none() => return Ok(new),
                None if is_late => {
                    return Err(Failure::failed(format_args!("it is in safe mode: {}", new.reason.unwrap_or_default())));
                }
                None => sleep(POLL).await,
            },
            Ok(_) if is_late => return Err(Failure::failed("the server did not restart")),
            Err(failure) if is_late => return Err(failure),
            _ => sleep(POLL).await, // it is on its way
        }
    }
}

/// What became of the new one, when the keeper went back to the old one.
fn failure(old: &Running, new: &Running) -> Option<Failure> {
    let is_new = |crash: &&Value| crash["upgrade"] == true && old.crashes.iter().all(|known| known["id"] != crash["id"]);
    let crash = new.crashes.iter().find(is_new)?;
    let stderr = crash["stderr"].as_str().unwrap_or_default().trim_end().to_owned();
    let how = match (&crash["ended"]["signal"], &crash["ended"]["code"]) {
        (Value::String(signal), _) => signal.clone(),
        (_, code) => format!("exit code {code}"),
    };
    let text = format!("the new program did not get ready ({how}): the old one runs again (version {})", new.version);
    Some(Failure::failed(text).with_body(stderr))
}

/// What `FILE --version` prints; that is how a broken one is known before anything is touched.
async fn version_of(binary: &Path) -> Result<String, Failure> {
    let broken = |why: &dyn std::fmt::Display| Failure::failed(format_args!("{} can't be used: {why}", binary.display()));
    if !is_executable(binary) {
        return Err(broken(&"it isn't there, or may not be executed"));
    }
    let mut child = start(binary).map_err(|error| broken(&error))?;
    let until = Instant::now() + VERSION_TIME;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < until => sleep(POLL / 10).await,
            _ => {
                let _ = child.kill(); // it has just ended, then
                let _ = child.wait();
                return Err(broken(&format_args!("it says no version within {} s", VERSION_TIME.as_secs())));
            }
        }
    };
    let mut said = String::new();
    let read = child.stdout.take().map(|stdout| stdout.take(1024).read_to_string(&mut said));
    match said.trim().strip_prefix("sandboxd ") {
        Some(version) if status.success() && matches!(read, Some(Ok(_))) => Ok(version.to_owned()),
        _ => Err(broken(&format_args!(
            "`--version` ends with {status} and says {:?}, which is no version of sandboxd",
            said.trim()
        ))),
    }
}

#[allow(clippy::disallowed_methods)] // the processes room is the server's
fn start(binary: &Path) -> std::io::Result<std::process::Child> {
    Command::new(binary).arg("--version").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()
}

fn is_same(a: &Path, b: &Path) -> bool {
    matches!((a.metadata(), b.metadata()), (Ok(a), Ok(b)) if (a.dev(), a.ino()) == (b.dev(), b.ino()))
}
