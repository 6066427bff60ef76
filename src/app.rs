//! Builds every room, joins them, and owns the order of start and stop.

mod files;
mod keeping;
mod restart;
mod safe_mode;
mod signals;
mod worktrees;

use std::io::Write as _;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::acp::remote::Remote;
use crate::acp::{self, Acp, AgentSource, BoxFuture, Launch, LaunchError, Quirks};
use crate::agents::credentials::{DiscoverOptions, discover};
use crate::agents::{self, Agents, AgentsConfig};
use crate::config::{Auth, Config, as_duration, as_usize};
use crate::crashes::Crashes;
use crate::desktop::{self, Desktop, EndReason};
use crate::fs::{Fs, FsConfig, Uploads};
use crate::git::Git;
use crate::http::{self, AppState};
use crate::keeper::{Keeper, Kept};
use crate::lsp::{self, Lsp};
use crate::processes::{self, Children, Processes};
use crate::rt::clock::now_ms;
use crate::rt::redact::Redactor;
use crate::rt::spawn_owned;
use crate::sessions::gate::{Answerer, Gate};
use crate::sessions::{self, Sessions};
use crate::store::{Store, Stream};
use crate::traces::Traces;
use crate::workspace::{Workspace, WorkspaceConfig};
pub use safe_mode::run as run_in_safe_mode;
pub use signals::Role;
pub(crate) use signals::unblock;
use signals::{Asked, Signals};

/// At a shutdown, once nothing runs any more, the time for open requests to be answered.
const ANSWER_TIME: Duration = Duration::from_secs(1);

/// How long the start waits for sessions of agents that outlived the last server.
const TAKE_OVER_TIME: Duration = Duration::from_secs(60);

/// What the keeper keeps for us.
const LISTENER: &str = "listener";
const LOCK: &str = "lock";

/// The time for the log to be committed at the end.
const CLOSE_TIME: Duration = Duration::from_millis(500);

/// Why the server could not start or had to end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address can't be had.
    #[error("can't listen on {address}: {cause}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        cause: std::io::Error,
    },
    /// The database can't be had.
    #[error(transparent)]
    Store(#[from] crate::store::Error),
    /// The processes of the last run can't be taken up.
    #[error(transparent)]
    Processes(#[from] crate::processes::Error),
    /// What took how long in the last run can't be read.
    #[error(transparent)]
    Traces(#[from] crate::traces::Error),
    /// What the last run left can't be taken up.
    #[error(transparent)]
    Acp(#[from] crate::acp::Error),
    /// What waits for a decision can't be taken up.
    #[error(transparent)]
    Gate(#[from] crate::sessions::gate::Error),
    /// A root for files isn't there.
    #[error(transparent)]
    Fs(#[from] crate::fs::Error),
    /// Sessions can't be taken up.
    #[error(transparent)]
    Sessions(#[from] crate::sessions::Error),
    /// The kernel refuses signal handlers.
    #[error("can't handle signals: {0}")]
    Signals(#[from] std::io::Error),
}

/// Runs the server until INT, TERM, HUP or whatever else asks one of this role to stop. A second signal, or the deadline, ends it at once: what still runs is killed, and
/// the log is closed. Dropping the future leaves children running, to be ended by the next run.
///
/// # Errors
/// [`Error`] when it can't start.
pub async fn run(config: Config, role: Role, keeper: Keeper, kept: Vec<Kept>) -> Result<(), Error> {
    let mut signals = Signals::new(role)?;
    signals::keep_ignored_ones_here();
    let mut kept = kept;
    keeper.listen();
    let listener = listen(&config, &keeper, &mut kept).await?;
    let address = listener.local_addr()?;
    let (state, children) = build(Arc::new(config), address.port(), &keeper, kept).await?;
    crate::rt::keep_a_timer_near();
    restart::tell(&state).await?;
    announce(&state, address);
    keeper.ready();
    let stop = state.stop.clone();
    let bounds = state.config.bounds.clone();
    let server = spawn_owned("http", {
        let (router, bounds, stop) = (http::router(state.clone()), bounds.clone(), stop.clone());
        async move { http::serve(listener, router, &bounds, stop).await }
    });
    let signal = loop {
        let asked = tokio::select! {
            asked = signals.next() => asked,
            () = restart::asked(&state) => restart::let_go(&state, server).await,
        };
        match asked {
            Asked::Stop(signal) => break signal,
            Asked::Forward(signal) => {
                let processes = state.processes.clone();
                spawn_owned("signal-forward", async move { processes.forward(signal).await }); // nothing delays a stop
            }
        }
    };
    tracing::info!(signal, "stopping");
    // The last quarter of the time is for what is left then.
    let deadline = as_duration(bounds.shutdown_deadline_ms) * 3 / 4;
    tokio::select! {
        () = shut_down(&state, &children, server) => tracing::info!("stopped"),
        () = tokio::time::sleep(deadline) => tracing::warn!("stopping took too long: ending now"),
        signal = signals.stop() => tracing::warn!(signal, "second signal: ending now"),
    }
    children.end_all().await; // nothing when the stop above got through
    state.processes.log_what_waits();
    let _ = tokio::time::timeout(CLOSE_TIME, state.store.close()).await; // a disk that hangs can't be waited for
    Ok(())
}

/// Store first, since everything is written there; then what starts children; then what uses both.
async fn build(config: Arc<Config>, port: u16, keeper: &Keeper, mut kept: Vec<Kept>) -> Result<(AppState, Children), Error> {
    let fallback = config.dirs.data.join(format!("sandboxd-{port}.db"));
    let lock = take_kept(&mut kept, LOCK);
    let store = Store::open_kept(&config.dirs.database(), &fallback, &config.bounds, lock)?;
    hand_over(keeper, LOCK, store.lock());
    let crashes = open_crashes(&config, port, keeper, &store, secrets(&config).await);
    let traces = Traces::start(store.clone(), &config).await?;
    let children =
        Children::start_kept(store.id(), config.env.clone(), as_usize(config.bounds.processes_max), keeper.clone(), kept).await;
    let processes = Processes::start(children.clone(), store.clone(), config.bounds.clone(), &config.dirs.data).await?;
    let install_events = store.open_stream("agents/install").await?;
    let agents = Agents::new(AgentsConfig {
        dirs: config.dirs.clone(),
        env: config.env.clone(),
        self_exe: config.self_exe.clone(),
        bounds: config.bounds.clone(),
        require_preinstall: config.require_preinstall,
        children: children.clone(),
        progress: progress_into(store.clone(), Arc::clone(&install_events)),
    });
    let workspace = Workspace::new(WorkspaceConfig {
        children: children.clone(),
        env: config.env.clone(),
        copies: config.dirs.data.join("skills").join(store.path().file_stem().unwrap_or_default()),
        bounds: config.bounds.clone(),
    });
    let home = config.dirs.home.clone().unwrap_or_else(|| PathBuf::from("/"));
    let fs = Fs::new(FsConfig {
        home: home.clone(),
        roots: config.fs_roots.clone(),
        data: config.dirs.data.clone(),
        store: store.clone(),
        bounds: config.bounds.clone(),
    })?;
    let uploads = Uploads::start(fs.clone(), config.dirs.data.join("uploads"));
    let git = Git::new(children.clone(), config.env.clone(), config.bounds.clone());
    let source = Arc::new(Catalogue(agents.clone()));
    let gate = Gate::start(store.clone(), config.bounds.clone()).await?;
    let sessions = Sessions::new(sessions::Parts {
        store: store.clone(),
        bounds: config.bounds.clone(),
        gate: gate.clone(),
        traces: traces.clone(),
        workspace: workspace.clone(),
        home: home.clone(),
        data: config.dirs.data.clone(),
        requests: store.open_stream("requests").await?,
    });
    fs.connect(Arc::new(files::ConflictNotices(sessions.clone()))).await?;
    let worktrees = worktrees::Worktrees::new(fs.clone(), git.clone(), store.clone(), sessions.clone(), &config.bounds);
    sessions.kept_by(Arc::new(keeping::Keeping { fs: fs.clone(), worktrees: worktrees.clone() }));
    sessions.witnessed_by(Arc::new(files::Bookkeeper::new(fs.clone(), home, &config.bounds)));
    let acp = Acp::start(store.clone(), children.clone(), source, Arc::new(sessions.clone()), config.bounds.clone()).await?;
    gate.connect(Arc::new(Answers(acp.clone())));
    sessions.join(acp.clone()).await?;
    if tokio::time::timeout(TAKE_OVER_TIME, acp.until_taken_over()).await.is_err() {
        tracing::warn!("agents that outlived the last server are still being taken up");
    }
    worktrees.start();
    let desktop_events = store.open_stream("desktop").await?;
    let desktop = Desktop::start(desktop::Parts::new(processes.clone(), &config, store.clone(), desktop_events));
    children.end_unclaimed();
    let lsp = Lsp::new(lsp::Parts {
        dirs: config.dirs.clone(),
        env: config.env.clone(),
        bounds: config.bounds.clone(),
        children: children.clone(),
        fs: fs.clone(),
        store: store.clone(),
        events: store.open_stream("lsp").await?,
        listener: Arc::new(files::DiagnosticsNotices(sessions.clone())),
    });
    let remote = Remote::start(acp.clone(), Arc::new(sessions.clone()), config.bounds.clone());
    let subscribers = Arc::new(Semaphore::new(as_usize(config.bounds.sse_subscribers_max)));
    let ws_clients = Arc::new(Semaphore::new(as_usize(config.bounds.ws_clients_max)));
    let state = AppState {
        config,
        acp,
        remote,
        agents,
        processes,
        workspace,
        fs,
        uploads,
        git,
        lsp,
        desktop,
        sessions,
        store,
        traces,
        install_events,
        subscribers,
        ws_clients,
        keeper: keeper.clone(),
        crashes,
        restart: CancellationToken::new(),
        stop: CancellationToken::new(),
        started_at_ms: now_ms(),
    };
    Ok((state, children))
}

/// From here on nothing that is written holds these secrets.
fn open_crashes(config: &Config, port: u16, keeper: &Keeper, store: &Store, secrets: Vec<String>) -> Crashes {
    let redactor = Redactor::new(&secrets);
    store.redact(secrets);
    let store = store.clone();
    let crashes = Crashes::open(&config.dirs.data, port, &config.bounds, keeper, Arc::new(move |json| store.redacted(json)));
    crashes.keep_panics(redactor);
    crashes
}

/// The listening socket: the one that is kept, so that whoever connects while no server runs waits and isn't refused.
async fn listen(config: &Config, keeper: &Keeper, kept: &mut Vec<Kept>) -> Result<TcpListener, Error> {
    let refused = |cause| Error::Bind { address: config.bind, cause };
    if let Some(socket) = take_kept(kept, LISTENER) {
        let listener = std::net::TcpListener::from(socket);
        listener.set_nonblocking(true).map_err(refused)?;
        return TcpListener::from_std(listener).map_err(refused);
    }
    let listener = TcpListener::bind(config.bind).await.map_err(refused)?;
    hand_over(keeper, LISTENER, listener.as_fd());
    Ok(listener)
}

fn take_kept(kept: &mut Vec<Kept>, key: &str) -> Option<OwnedFd> {
    let at = kept.iter().position(|entry| entry.key == key)?;
    kept.swap_remove(at).fds.into_iter().flatten().next()
}

fn hand_over(keeper: &Keeper, key: &str, fd: BorrowedFd<'_>) {
    if let Err(error) = keeper.keep(key, &[fd]) {
        tracing::warn!(%error, key, "not kept: a restart of the server has to make it anew");
    }
}

/// What must not be stored: our token, and what environment and agents' files hold of credentials as of now.
async fn secrets(config: &Arc<Config>) -> Vec<String> {
    let config = Arc::clone(config);
    let found = tokio::task::spawn_blocking(move || {
        let token = match &config.auth {
            Auth::Token(token) => Some(token.expose().to_owned()),
            Auth::Open => None,
        };
        let home = config.dirs.home.as_deref();
        let options = DiscoverOptions::new(now_ms(), &config.bounds);
        let credentials = home.map(|home| discover(&config.env, home, options)).unwrap_or_default();
        let credentials = credentials.all().map(|credential| credential.value.expose().to_owned());
        let headers = config.otlp.iter().flat_map(|otlp| &otlp.headers);
        // `Bearer …`: what counts is the last word.
        let headers = headers.filter_map(|(_, value)| value.expose().split_whitespace().next_back()).map(str::to_owned);
        let environment = config.env.secrets().into_iter().map(str::to_owned);
        token.into_iter().chain(environment).chain(credentials).chain(headers).collect()
    });
    found.await.unwrap_or_default() // a panic is in the log
}

/// Streams say goodbye and agents stop in their time. Then what has no owner to wait for, such as an installer or the
/// agent of a client that left, is killed; with that, whoever waits for it is answered.
async fn shut_down(state: &AppState, children: &Children, server: tokio::task::JoinHandle<()>) {
    state.stop.cancel();
    state.desktop.shut_down(EndReason::ServerStopped).await; // before its X server ends
    let grace = as_duration(state.config.bounds.process_shutdown_grace_ms);
    tokio::join!(state.acp.shut_down(), state.processes.shut_down(grace), state.lsp.shut_down());
    children.end_all().await;
    state.processes.log_what_waits();
    state.traces.shut_down().await;
    state.fs.settle().await;
    state.fs.settle().await;
    if tokio::time::timeout(ANSWER_TIME, server).await.is_err() {
        tracing::warn!("requests were not answered in time: their connections are cut");
    }
}

/// One JSON line on stdout, once connections are accepted, with the real address.
fn announce(state: &AppState, address: SocketAddr) {
    let url = format!("http://{address}");
    let database = state.store.path().display().to_string();
    let line = serde_json::json!({"event": "listening", "addr": address.to_string(), "url": url, "database": database, "version": env!("CARGO_PKG_VERSION")});
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{line}"); // nobody reads it: the server works all the same
    let _ = stdout.flush();
    tracing::info!(%address, database, "server listening");
    if state.config.is_exposed() {
        tracing::warn!(%address, "no token on a non-loopback address: everyone who reaches this port can run programs here");
    }
}

fn progress_into(store: Store, stream: Arc<Stream>) -> agents::ProgressSink {
    Arc::new(move |event: agents::InstallEvent| {
        let text = serde_json::to_vec(&event).unwrap_or_default();
        store.append(&stream, "agents.install", Bytes::from(text), None);
        store.flush();
    })
}

/// How the gate's answers reach agents.
struct Answers(Acp);

impl Answerer for Answers {
    fn answer(&self, server_id: &str, request_id: &str, result: String, by: String) -> BoxFuture<Result<bool, acp::Error>> {
        let (acp, server_id, request_id) = (self.0.clone(), server_id.to_owned(), request_id.to_owned());
        Box::pin(async move { acp.answer(&server_id, &request_id, result, by).await })
    }
}

/// The agents room as the ACP room asks for it: rooms don't know each other.
struct Catalogue(Agents);

impl AgentSource for Catalogue {
    fn knows(&self, agent: &str) -> bool {
        self.0.manifest(agent).is_ok()
    }

    fn launch(&self, agent: &str) -> BoxFuture<Result<Launch, LaunchError>> {
        let (agents, agent) = (self.0.clone(), agent.to_owned());
        Box::pin(async move {
            let launch = agents.launch(&agent).await.map_err(|error| launch_error(&agent, error))?;
            let quirks = Quirks {
                protocol_version_number: launch.quirks.protocol_version_number,
                session_new_mcp_servers: launch.quirks.session_new_mcp_servers,
            };
            Ok(Launch { program: launch.program, args: launch.args, env: launch.env, quirks })
        })
    }
}

/// Every variant by name: a new one must say what clients are told. `asked` is the agent that was asked for.
fn launch_error(asked: &str, error: agents::Error) -> LaunchError {
    let text = error.to_string();
    match error {
        agents::Error::UnsupportedAgent { agent } => LaunchError::Unsupported { agent },
        agents::Error::NotInstalled { agent, help } => LaunchError::NotInstalled { agent, help },
        agents::Error::NotExecutable { path, .. } => processes::Error::NotPermitted { program: path }.into(),
        agents::Error::InstallFailed { agent, reason, output_tail } => {
            LaunchError::InstallFailed { agent, reason: with_tail(&reason, &output_tail) }
        }
        agents::Error::BadManifest { .. } | agents::Error::ManifestNotWritten { .. } | agents::Error::TooManyManifests { .. } => {
            LaunchError::InstallFailed { agent: asked.to_owned(), reason: text }
        }
    }
}

/// A sentence, and the installer's last words.
fn with_tail(reason: &dyn std::fmt::Display, tail: &str) -> String {
    if tail.is_empty() { reason.to_string() } else { format!("{reason}\n{tail}") }
}
