//! The command line, with the verbs and flags of `sandbox-agent` 0.4.2. Everything but `server` and the mock agent is
//! an HTTP client like any other, or works on files.

mod server;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config::Env;

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

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the server in the foreground.
    Server(server::ServerArgs),
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
        Command::MockAgentProcess => {
            if crate::mock::run() == 0 { ExitCode::Ok } else { ExitCode::Failed }
        }
    }
}

/// Says what failed, in one line on stderr.
fn fail(code: ExitCode, error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("sandboxd: {error}");
    code
}
