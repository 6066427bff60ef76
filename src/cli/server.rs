//! `sandboxd server`.

use std::path::PathBuf;

use clap::Args;
use tracing_subscriber::EnvFilter;

use super::{ExitCode, TokenFlags, fail};
use crate::app;
use crate::config::{Config, Env, ServerFlags};
use crate::crashes;
use crate::keeper::Keeper;
use crate::rt::sys;

/// Threads of the runtime: the work is waiting, so two are enough wherever there are two processors.
const WORKER_THREADS_MAX: usize = 4;

#[derive(Debug, Args)]
pub(super) struct ServerArgs {
    /// Address to bind.
    #[arg(short = 'H', long, default_value = "127.0.0.1")]
    host: String,
    /// Port to bind; 0 lets the system choose (the line on stdout says which).
    #[arg(short, long, default_value_t = 2468)]
    port: u16,
    /// Where state and installed agents live [default: $XDG_DATA_HOME/sandboxd].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Browser origin that may call, or '*'; repeatable.
    #[arg(short = 'O', long, value_name = "ORIGIN")]
    cors_allow_origin: Vec<String>,
    /// Method that such pages may use; repeatable [default: all].
    #[arg(short = 'M', long, value_name = "METHOD")]
    cors_allow_method: Vec<String>,
    /// Header that such pages may send; repeatable [default: all].
    #[arg(short = 'A', long, value_name = "HEADER")]
    cors_allow_header: Vec<String>,
    /// Such pages may send credentials.
    #[arg(short = 'C', long)]
    cors_allow_credentials: bool,
    /// Accepted for compatibility: there is no telemetry.
    #[arg(long)]
    no_telemetry: bool,
    /// Acts as the init of a container: further signals stop the server, or are passed on to processes [default: when
    /// it is PID 1].
    #[arg(long)]
    init: bool,
    /// Leaves the caller's session first, as `daemon start` needs it.
    #[arg(long, hide = true)]
    detach: bool,
    /// Runs without the keeper, the small process that lets agents, terminals and processes outlive the server.
    #[arg(long)]
    no_keeper: bool,
    /// stdin is the keeper's socket.
    #[arg(long, hide = true)]
    kept: bool,
    /// Only says why the server doesn't run.
    #[arg(long, hide = true)]
    safe_mode: bool,
}

pub(super) fn run(args: ServerArgs, token: TokenFlags, env: Env) -> ExitCode {
    let _ = args.no_telemetry;
    let _ = args.no_keeper; // `main` has seen it
    if args.detach
        && !args.kept
        && let Err(error) = detach()
    {
        return fail(ExitCode::Failed, &format_args!("can't leave the caller's session: {error}"));
    }
    sys::close_inherited();
    app::unblock();
    start_logging(&env);
    crashes::watch();
    let (keeper, kept) = match args.kept.then(Keeper::connect).transpose() {
        Ok(connected) => connected.unwrap_or_else(|| (Keeper::none(), Vec::new())),
        Err(error) => return fail(ExitCode::Failed, &format_args!("the keeper can't be heard: {error}")),
    };
    let flags = ServerFlags {
        host: args.host,
        port: args.port,
        token: token.token,
        token_file: token.token_file,
        no_token: token.no_token,
        data_dir: args.data_dir,
        cors_allow_origin: args.cors_allow_origin,
        cors_allow_method: args.cors_allow_method,
        cors_allow_header: args.cors_allow_header,
        cors_allow_credentials: args.cors_allow_credentials,
    };
    let config = match Config::resolve(&flags, env) {
        Ok(config) => config,
        Err(error) => return fail(ExitCode::Usage, &error),
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).clamp(1, WORKER_THREADS_MAX);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(ExitCode::Failed, &error),
    };
    let role = if args.init || std::process::id() == 1 { app::Role::Init } else { app::Role::Service };
    let result = if args.safe_mode {
        runtime.block_on(app::run_in_safe_mode(config, role, keeper, kept))
    } else {
        runtime.block_on(app::run(config, role, keeper, kept))
    };
    runtime.shutdown_background(); // nothing that still blocks may hold up the end
    match result {
        Ok(()) => ExitCode::Ok,
        Err(error) => fail(ExitCode::Failed, &error),
    }
}

/// Leaves the caller's session and process group (setsid(2)), so that neither its terminal nor its end reaches us.
fn detach() -> Result<(), nix::errno::Errno> {
    nix::unistd::setsid()?;
    Ok(())
}

/// Logs go to stderr: stdout has the one line that says where the server listens. `RUST_LOG` sets the level.
fn start_logging(env: &Env) {
    let filter = EnvFilter::try_new(env.get("RUST_LOG").unwrap_or("info")).unwrap_or_else(|_| EnvFilter::new("info"));
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).try_init();
}
