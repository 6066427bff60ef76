//! `sandboxd daemon`: the server in the background, in a session of its own.
//!
//! ```text
//! nothing ──start──▶ starting ──ready line and health──▶ running ──stop: TERM, deadline, KILL──▶ nothing
//!                       └──exit or 15 s──▶ nothing, and the log says why
//! ```
//!
//! Only a process that `daemon start` has started, known by its number and start time, is ever signalled: a number in a
//! file may be a stranger's by now. A lock keeps two starts or stops of one address apart. All output is on stderr.

mod child;
mod record;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use reqwest::{Method, StatusCode};

use super::client::Client;
use super::{Failure, TokenFlags, block_on, say, upgrade};
use crate::config::{Auth, Config, ConfigError, Env, ServerFlags, self_exe};
use record::{Files, Record};

/// How long a server may take to say whether it is well.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Subcommand)]
pub(super) enum DaemonCommand {
    /// Starts the server unless it runs already; returns once it answers.
    Start {
        #[command(flatten)]
        address: Address,
        /// Restarts a server that another build has started.
        #[arg(long)]
        upgrade: bool,
    },
    /// Stops the server that `daemon start` has started.
    Stop(Address),
    /// Says whether the server runs. The exit code is 0 either way.
    Status(Address),
}

#[derive(Debug, Args)]
pub(super) struct Address {
    /// Address that the server binds.
    #[arg(short = 'H', long, default_value = "127.0.0.1")]
    host: String,
    /// Port that the server binds.
    #[arg(short, long, default_value_t = 2468, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// Where state, and the daemon's own files, live [default: $XDG_DATA_HOME/sandboxd].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

pub(super) fn run(command: DaemonCommand, token: TokenFlags, env: Env) -> Result<(), Failure> {
    match command {
        DaemonCommand::Start { address, upgrade } => {
            let daemon = Daemon::new(address, token, env)?;
            block_on(daemon.start(upgrade))
        }
        DaemonCommand::Stop(address) => block_on(Daemon::new(address, token, env)?.stop()),
        DaemonCommand::Status(address) => block_on(Daemon::new(address, token, env)?.status()),
    }
}

/// What answers at the address.
enum Probe {
    /// A server, and it takes our token.
    Healthy,
    /// A server that doesn't take our token.
    WrongToken,
    /// A server that died too often, for this reason, and takes our token.
    SafeMode(String),
    /// Something else, in these words.
    Foreign(String),
    Nothing,
}

/// One address, and what is known of the daemon there.
struct Daemon {
    config: Config,
    files: Files,
    url: String,
    no_token: bool,
    /// As given on the command line: the server works it out for itself otherwise.
    data_dir: Option<PathBuf>,
}

impl Daemon {
    fn new(address: Address, token: TokenFlags, env: Env) -> Result<Self, Failure> {
        let flags = ServerFlags {
            host: address.host,
            port: address.port,
            token: token.token,
            token_file: token.token_file,
            no_token: true, // whether that was said matters only to a start
            data_dir: address.data_dir.clone(),
            ..ServerFlags::default()
        };
        let config = Config::resolve(&flags, env)?;
        let files = Files::new(&config.dirs, config.bind);
        let mut reachable = config.bind;
        if reachable.ip().is_unspecified() {
            reachable.set_ip(if reachable.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() });
        }
        let data_dir = address.data_dir.map(|_| config.dirs.data.clone());
        Ok(Self { files, url: format!("http://{reachable}"), no_token: token.no_token, data_dir, config })
    }

    async fn start(&self, upgrades: bool) -> Result<(), Failure> {
        let _lock = self.files.lock()?;
        let (probe, running) = (self.probe(true).await?, self.running().await);
        match (probe, running) {
            (Probe::Healthy, running) => {
                let outdated = self.files.build().filter(|build| upgrades && *build != child::build());
                if upgrades && running.is_none() {
                    return Err(self.not_ours("restarted"));
                }
                match (running, outdated) {
                    (Some(record), Some(build)) => self.restart(record, &build).await,
                    _ => self.already_running().await,
                }
            }
            (Probe::WrongToken, _) => Err(Failure::failed(format_args!(
                "a server runs at {} but does not take this token: give the one it was started with (SANDBOXD_TOKEN or --token-file)",
                self.url
            ))),
            (Probe::SafeMode(reason), _) => {
                Err(Failure::failed(format_args!("the server at {} is in safe mode: {reason}", self.url)))
            }
            (Probe::Foreign(what), _) => {
                Err(Failure::failed(format_args!("{} is taken ({what}): choose another --port", self.url)))
            }
            (Probe::Nothing, Some(record)) => Err(Failure::failed(format_args!(
                "the daemon runs (PID {}) but nothing answers at {}: see {}, or end it with sandboxd daemon stop",
                record.pid,
                self.url,
                self.files.log.display()
            ))),
            (Probe::Nothing, None) => self.launch().await,
        }
    }

    async fn restart(&self, record: Record, build: &str) -> Result<(), Failure> {
        self.check_protection()?; // before anything is stopped
        say(format_args!("daemon outdated (build {build} -> {}), restarting...", child::build()));
        // What it runs goes on, where there is a keeper.
        if upgrade::in_place(&self.client(true)?, &self_exe()).await? {
            return self.files.write(&record, &child::build());
        }
        self.end(record).await?;
        self.launch().await
    }

    async fn already_running(&self) -> Result<(), Failure> {
        say(format_args!("daemon already running at {}", self.url));
        let asked_for_token = matches!(self.config.auth, Auth::Token(_));
        if asked_for_token && matches!(self.probe(false).await?, Probe::Healthy) {
            say("note: it was started without a token, so it lets everyone in: stop it first to start it with yours");
        }
        Ok(())
    }

    async fn launch(&self) -> Result<(), Failure> {
        self.check_protection()?;
        let pid = child::launch(self).await?;
        say(format_args!("daemon started (PID {pid}, logs: {})", self.files.log.display()));
        Ok(())
    }

    /// The daemon, when it runs: the process that was started, or the server that it left when it was killed.
    async fn running(&self) -> Option<Record> {
        let known = self.files.known()?;
        if known.lives() {
            return Some(known);
        }
        let client = self.client(true).ok()?;
        let asked = client.request(Method::GET, &["v1", "status"], &[]).timeout(PROBE_TIMEOUT).send().await;
        let status: serde_json::Value = asked.ok()?.json().await.ok()?;
        let is_ours = status["keeper"]["lost"] == true && status["keeper"]["pid"] == known.pid;
        let pid = status["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
        pid.filter(|_| is_ours).and_then(Record::of)
    }

    fn client(&self, with_token: bool) -> Result<Client, Failure> {
        let token = match &self.config.auth {
            Auth::Token(token) if with_token => Some(token.clone()),
            _ => None,
        };
        Client::new(&self.url, token, &self.config.env)
    }

    /// An open server is only started when that was said.
    fn check_protection(&self) -> Result<(), ConfigError> {
        let said = self.no_token || matches!(self.config.auth, Auth::Token(_));
        if said { Ok(()) } else { Err(ConfigError::NoAuthChosen) }
    }

    async fn stop(&self) -> Result<(), Failure> {
        let _lock = self.files.lock()?;
        if let Some(record) = self.running().await {
            let killed = self.end(record).await?;
            say(if killed { "daemon stopped (it did not end by itself in time, and was killed)" } else { "daemon stopped" });
            return Ok(());
        }
        let stale = self.files.remove();
        match self.probe(true).await? {
            Probe::Healthy | Probe::WrongToken | Probe::SafeMode(_) => Err(self.not_ours("stopped")),
            Probe::Foreign(_) | Probe::Nothing => {
                say(format_args!("daemon is not running ({})", if stale { "stale PID file" } else { "no PID file" }));
                Ok(())
            }
        }
    }

    /// Ends the daemon and forgets it; true when it had to be killed.
    async fn end(&self, record: Record) -> Result<bool, Failure> {
        let killed = child::end(record, self.config.bounds.shutdown_deadline_ms).await?;
        self.files.remove();
        Ok(killed)
    }

    fn not_ours(&self, what: &str) -> Failure {
        Failure::failed(format_args!(
            "the server at {} was not started by sandboxd daemon start and is not {what}: whoever started it can end it",
            self.url
        ))
    }

    async fn status(&self) -> Result<(), Failure> {
        let (probe, running) = (self.probe(true).await?, self.running().await);
        let logs = self.files.log.display();
        match (probe, running) {
            (probe, Some(record)) => {
                let build = self.files.build().unwrap_or_else(|| "unknown".to_owned());
                let outdated = if build == child::build() { "" } else { " [outdated, restart recommended]" };
                let silent = match &probe {
                    Probe::Nothing => " [not answering]".to_owned(),
                    Probe::SafeMode(reason) => format!(" [safe mode: {reason}]"),
                    _ => String::new(),
                };
                say(format_args!("Daemon running (PID {}, build {build}, logs: {logs}){outdated}{silent}", record.pid));
            }
            (Probe::Healthy | Probe::WrongToken | Probe::SafeMode(_), None) => {
                say(format_args!("Daemon running (PID 0, build unknown, logs: {logs})"))
            }
            (Probe::Foreign(_) | Probe::Nothing, None) => say("Daemon not running"),
        }
        Ok(())
    }

    /// Asks for the health of whatever listens there.
    async fn probe(&self, with_token: bool) -> Result<Probe, Failure> {
        let answer = self.client(with_token)?.request(Method::GET, &["v1", "health"], &[]).timeout(PROBE_TIMEOUT).send().await;
        let response = match answer {
            Ok(response) => response,
            Err(error) if error.is_connect() => return Ok(Probe::Nothing),
            Err(error) if error.is_timeout() => return Ok(Probe::Foreign("it takes connections but does not answer".to_owned())),
            Err(_) => return Ok(Probe::Foreign("what answers there does not speak HTTP".to_owned())),
        };
        let status = response.status();
        let health: serde_json::Value = response.json().await.unwrap_or_default();
        Ok(match status {
            StatusCode::OK if health["status"] == "ok" => Probe::Healthy,
            StatusCode::UNAUTHORIZED => Probe::WrongToken,
            StatusCode::SERVICE_UNAVAILABLE if health["status"] == "safe_mode" => {
                Probe::SafeMode(health["reason"].as_str().unwrap_or_default().to_owned())
            }
            other => Probe::Foreign(format!("what answers there is no such server: {other}")),
        })
    }
}
