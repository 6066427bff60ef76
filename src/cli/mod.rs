//! The command line, with the verbs and flags of `sandbox-agent` 0.4.2. Everything but `server` and the mock agent is
//! an HTTP client like any other, or works on files.
//!
//! What was asked for goes to stdout; progress and errors go to stderr, an error as one line that says what to do.

mod add_agent;
mod api;
mod client;
mod credentials;
mod daemon;
mod failure;
mod install;
mod install_desktop;
mod json;
mod report;
mod rooms;
mod server;
mod state;
mod upgrade;

use std::ffi::OsString;
use std::fmt::Display;
use std::future::Future;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};

use crate::config::{ConfigError, Env, Secret, resolve_token};
use failure::Failure;

/// What the process ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitCode {
    /// It worked.
    Ok = 0,
    /// It failed.
    Failed = 1,
    /// The command line or configuration was wrong.
    Usage = 2,
}

/// The agent runtime that lives inside a sandbox: coding agents, processes, files and a desktop over HTTP on one port.
#[derive(Debug, Parser)]
#[command(name = "sandboxd", version, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    token: TokenFlags,
    #[command(subcommand)]
    command: Command,
}

/// How a server is protected, or how a client gets in.
#[derive(Debug, Clone, Default, Args)]
struct TokenFlags {
    /// Bearer token. Visible to everyone who can list processes: better SANDBOXD_TOKEN or --token-file.
    #[arg(short = 't', long, global = true)]
    token: Option<String>,
    /// File that holds the bearer token.
    #[arg(long, global = true, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// No token: everyone who reaches the port may call.
    #[arg(short = 'n', long, global = true)]
    no_token: bool,
}

impl TokenFlags {
    /// The token, when there is one; it wins over `--no-token`, as everywhere.
    fn resolve(&self, env: &Env) -> Result<Option<Secret>, ConfigError> {
        resolve_token(self.token.as_deref(), self.token_file.as_deref(), env)
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the server in the foreground.
    Server(server::ServerArgs),
    /// Calls a running server.
    #[command(subcommand)]
    Api(api::ApiCommand),
    /// Installs coding agents on this machine, without a server.
    InstallAgent(install::InstallArgs),
    /// Installs what parts of the server need.
    #[command(subcommand)]
    Install(install_desktop::InstallCommand),
    /// Adds an agent of your own: any program that speaks ACP on stdin and stdout.
    AddAgent(add_agent::AddArgs),
    /// Shows which credentials agents will find.
    #[command(subcommand)]
    Credentials(credentials::CredentialsCommand),
    /// Runs the server in the background.
    #[command(subcommand)]
    Daemon(daemon::DaemonCommand),
    /// Backs up, restores and checks the database.
    #[command(subcommand)]
    State(state::StateCommand),
    /// Replaces a running server's program by another one; agents, processes and terminals go on.
    Upgrade(upgrade::UpgradeArgs),
    /// The built-in mock agent on stdin and stdout.
    #[command(hide = true)]
    MockAgentProcess,
}

/// Parses the arguments, runs the verb, and gives the exit code. Errors were printed on stderr by then.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print(); // nobody reads it: the exit code says it too
            return if error.use_stderr() { ExitCode::Usage } else { ExitCode::Ok };
        }
    };
    let env = Env::read();
    match cli.command {
        Command::Server(args) => server::run(args, cli.token, env),
        Command::Api(command) => finish(api::run(command, &cli.token, &env)),
        Command::InstallAgent(args) => finish(install::run(&args, env)),
        Command::Install(command) => finish(install_desktop::run(&command, &env)),
        Command::AddAgent(args) => finish(add_agent::run(args, env)),
        Command::Credentials(command) => finish(credentials::run(&command, &env)),
        Command::Daemon(command) => finish(daemon::run(command, cli.token, env)),
        Command::State(command) => finish(state::run(&command, &env)),
        Command::Upgrade(args) => finish(upgrade::run(args, &cli.token, &env)),
        Command::MockAgentProcess => {
            if crate::mock::run() == 0 {
                ExitCode::Ok
            } else {
                ExitCode::Failed
            }
        }
    }
}

fn finish(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::Ok,
        Err(failure) => failure.report(),
    }
}

/// Says what failed, in one line on stderr.
fn fail(code: ExitCode, error: &dyn Display) -> ExitCode {
    say(format_args!("sandboxd: {error}"));
    code
}

/// One line on stderr. Nobody may be reading it any more, which changes nothing.
fn say(line: impl Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// One line on stdout.
fn print(line: impl Display) -> Result<(), Failure> {
    write_out(format!("{line}\n").as_bytes()).map(|_| ())
}

/// Writes to stdout at once; false when the reader is gone, as after `| head`, which is no failure.
fn write_out(bytes: &[u8]) -> Result<bool, Failure> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::failed(format_args!("can't write to stdout: {error}"))),
    }
}

/// The content of a file; `-` is stdin.
fn read_input(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut content = Vec::new();
    let read = if path == Path::new("-") {
        std::io::Read::read_to_end(&mut std::io::stdin().lock(), &mut content).map(|_| content)
    } else {
        std::fs::read(path)
    };
    read.map_err(|error| Failure::failed(format_args!("can't read {}: {error}", path.display())))
}

/// Runs a verb to its end on a runtime of its own.
fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::failed(format_args!("can't start: {error}")))?;
    let result = runtime.block_on(work);
    runtime.shutdown_background(); // nothing that still blocks may hold up the end
    result
}
