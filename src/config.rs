//! Everything that is decided outside the code: flags, environment and bounds, read once and here only.
//!
//! [`Env`] is a snapshot of the process environment. [`Config`] is what the server runs with. [`Bounds`] is the one
//! table of limits: each has a name with its unit, a default, and an environment variable `SANDBOXD_<NAME>`; the same
//! table is printed into `docs/OPERATIONS.md`, and a test compares the two.

mod credentials;
mod otel;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

pub use credentials::may_be_secret;
pub use otel::Otlp;

/// Variables that carry our own secrets. No child ever sees them: an agent that knew the token could approve its own
/// permission requests.
pub const SECRET_VARIABLES: &[&str] = &["SANDBOXD_TOKEN", "SANDBOXD_TOKEN_FILE"];

/// A configuration that can't be used, in words for the person who wrote it.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Neither a token nor `--no-token` was given.
    #[error(
        "choose how the server is protected: pass --token-file FILE (or set SANDBOXD_TOKEN) to require a bearer token, \
         or pass --no-token to let everyone in who can reach the port"
    )]
    NoAuthChosen,
    /// A token was given, but it is empty.
    #[error("the token is empty: nothing could ever authenticate; give a token of at least one character or --no-token")]
    EmptyToken,
    /// A token has characters that can't stand in an HTTP header.
    #[error("the token holds control characters or spaces: an Authorization header can't carry it")]
    BadToken,
    /// The token file can't be read.
    #[error("can't read the token file {path}: {source}")]
    TokenFile {
        /// The file as given.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// `--host` is neither an address nor a name we resolve ourselves.
    #[error("--host {0:?} is not an IP address (use 127.0.0.1, 0.0.0.0, ::1, :: or localhost)")]
    BadHost(String),
    /// No data directory can be derived.
    #[error("no data directory: set HOME or XDG_DATA_HOME, or pass --data-dir DIR")]
    NoDataDir,
    /// A bound in the environment isn't a whole number of at least one.
    #[error("{variable}={value:?} is not a whole number of at least 1")]
    BadBound {
        /// The variable's name.
        variable: String,
        /// Its value.
        value: String,
    },
    /// An origin or method that no header can carry.
    #[error("--cors-allow-{flag} {value:?}: {help}")]
    BadCors {
        /// The flag's last word.
        flag: &'static str,
        /// The value as given.
        value: String,
        /// What would be right.
        help: &'static str,
    },
}

/// A snapshot of the environment, taken once at start.
#[derive(Debug, Clone, Default)]
pub struct Env(BTreeMap<OsString, OsString>);

impl Env {
    /// Reads the process environment.
    #[allow(clippy::disallowed_methods)] // the one place that reads it
    pub fn read() -> Self {
        Self(std::env::vars_os().collect())
    }

    /// An environment made of the given pairs, for tests.
    pub fn from_pairs<K: Into<OsString>, V: Into<OsString>>(pairs: impl IntoIterator<Item = (K, V)>) -> Self {
        Self(pairs.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
    }

    /// The variable's value, when it is set, not empty, and UTF-8.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(std::ffi::OsStr::new(name)).and_then(|value| value.to_str()).filter(|value| !value.is_empty())
    }

    /// The variable's value as a path, when it is set and not empty.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.0.get(std::ffi::OsStr::new(name)).filter(|value| !value.is_empty()).map(PathBuf::from)
    }

    /// True when the variable is `1` or `true`.
    pub fn flag(&self, name: &str) -> bool {
        matches!(self.get(name), Some("1" | "true"))
    }

    /// What a child inherits: everything but our own secrets.
    pub fn for_children(&self) -> impl Iterator<Item = (&OsString, &OsString)> {
        self.0.iter().filter(|(key, _)| !SECRET_VARIABLES.iter().any(|secret| key.as_os_str() == *secret))
    }

    /// The directories of `PATH`, in order.
    pub fn search_path(&self) -> Vec<PathBuf> {
        let path = self.0.get(std::ffi::OsStr::new("PATH")).cloned().unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
        std::env::split_paths(&path).filter(|dir| dir.is_absolute()).collect()
    }
}

/// A secret that never shows itself in logs or debug output.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value that must not be printed.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself, for comparing or sending; never for printing.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Who may call.
#[derive(Debug, Clone)]
pub enum Auth {
    /// Everyone who reaches the port (`--no-token`).
    Open,
    /// Whoever brings `Authorization: Bearer` with this token.
    Token(Secret),
}

/// The server's flags as the command line gives them, before they are checked.
#[derive(Debug, Clone, Default)]
pub struct ServerFlags {
    /// `--host`.
    pub host: String,
    /// `--port`; 0 lets the system choose.
    pub port: u16,
    /// `--token`; visible in `ps`, so a file or the environment is better.
    pub token: Option<String>,
    /// `--token-file`.
    pub token_file: Option<PathBuf>,
    /// `--no-token`.
    pub no_token: bool,
    /// `--data-dir`.
    pub data_dir: Option<PathBuf>,
    /// `--cors-allow-origin`, repeatable.
    pub cors_allow_origin: Vec<String>,
    /// `--cors-allow-method`, repeatable.
    pub cors_allow_method: Vec<String>,
    /// `--cors-allow-header`, repeatable.
    pub cors_allow_header: Vec<String>,
    /// `--cors-allow-credentials`.
    pub cors_allow_credentials: bool,
}

/// Which browser origins may call, checked and ready for headers.
#[derive(Debug, Clone, Default)]
pub struct Cors {
    /// Allowed origins; `any_origin` makes this list irrelevant.
    pub origins: Vec<http::HeaderValue>,
    /// `--cors-allow-origin '*'` was given.
    pub any_origin: bool,
    /// Allowed methods; empty means any.
    pub methods: Vec<http::Method>,
    /// Allowed request headers; empty means any.
    pub headers: Vec<http::HeaderName>,
    /// Whether credentials may be sent.
    pub credentials: bool,
}

/// Where things lie. All paths are absolute.
#[derive(Debug, Clone)]
pub struct Dirs {
    /// The user's home, when there is one.
    pub home: Option<PathBuf>,
    /// State and installed agents: `$XDG_DATA_HOME/sandboxd`.
    pub data: PathBuf,
    /// Manifests that users add: `$XDG_CONFIG_HOME/sandboxd`.
    pub config: PathBuf,
}

impl Dirs {
    /// The directories for this environment.
    ///
    /// # Errors
    /// [`ConfigError::NoDataDir`] when neither a flag, `XDG_DATA_HOME` nor `HOME` says where.
    pub fn resolve(env: &Env, data_dir: Option<&Path>) -> Result<Self, ConfigError> {
        let home = env.path("HOME").filter(|path| path.is_absolute());
        let xdg = |variable: &str, below_home: &str| {
            env.path(variable)
                .filter(|path| path.is_absolute()) // XDG base directory specification: relative paths are ignored
                .or_else(|| home.as_ref().map(|home| home.join(below_home)))
                .map(|path| path.join("sandboxd"))
        };
        let data = match data_dir {
            Some(dir) => std::path::absolute(dir).map_err(|_| ConfigError::NoDataDir)?,
            None => xdg("XDG_DATA_HOME", ".local/share").ok_or(ConfigError::NoDataDir)?,
        };
        let config = xdg("XDG_CONFIG_HOME", ".config").unwrap_or_else(|| data.join("config"));
        Ok(Self { home, data, config })
    }

    /// Installed agents: native binaries here, adapters in `agent_processes/` below.
    pub fn bin(&self) -> PathBuf {
        self.data.join("bin")
    }

    /// The SQLite file.
    pub fn database(&self) -> PathBuf {
        self.data.join("sandboxd.db")
    }
}

/// What the server runs with.
#[derive(Debug, Clone)]
pub struct Config {
    /// The address to bind.
    pub bind: SocketAddr,
    /// Who may call.
    pub auth: Auth,
    /// Browser origins.
    pub cors: Cors,
    /// Where things lie.
    pub dirs: Dirs,
    /// Every limit.
    pub bounds: Bounds,
    /// Where spans are sent.
    pub otlp: Option<Otlp>,
    /// The environment as it was at start.
    pub env: Env,
    /// Our own executable, for the built-in mock agent.
    pub self_exe: PathBuf,
    /// Missing agents are an error instead of being installed on first use.
    pub require_preinstall: bool,
}

impl Config {
    /// Checks flags and environment.
    ///
    /// # Errors
    /// The first [`ConfigError`] found; the process should then end with exit code 2.
    pub fn resolve(flags: &ServerFlags, env: Env) -> Result<Self, ConfigError> {
        let host = match flags.host.as_str() {
            "localhost" => IpAddr::from([127, 0, 0, 1]),
            other => {
                other.trim_matches(|c| c == '[' || c == ']').parse().map_err(|_| ConfigError::BadHost(flags.host.clone()))?
            }
        };
        let require_preinstall = env.flag("SANDBOXD_REQUIRE_PREINSTALL") || env.flag("SANDBOX_AGENT_REQUIRE_PREINSTALL");
        Ok(Self {
            bind: SocketAddr::new(host, flags.port),
            auth: resolve_auth(flags, &env)?,
            cors: resolve_cors(flags)?,
            dirs: Dirs::resolve(&env, flags.data_dir.as_deref())?,
            bounds: Bounds::from_env(&env)?,
            self_exe: self_exe(),
            require_preinstall,
            otlp: Otlp::from_env(&env),
            env,
        })
    }

    /// True when anyone who can reach a non-loopback address may call.
    pub fn is_exposed(&self) -> bool {
        matches!(self.auth, Auth::Open) && !self.bind.ip().is_loopback()
    }
}

/// Our own executable. `/proc/self/exe` stays right when the file was replaced while we run.
pub fn self_exe() -> PathBuf {
    std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/proc/self/exe"))
}

/// The token that flags, environment or file give, when any does.
///
/// # Errors
/// The token file can't be read, or the token is unusable.
pub fn resolve_token(token: Option<&str>, token_file: Option<&Path>, env: &Env) -> Result<Option<Secret>, ConfigError> {
    let file = token_file.map(Path::to_path_buf).or_else(|| env.path("SANDBOXD_TOKEN_FILE"));
    let raw = if let Some(token) = token {
        token.to_owned()
    } else if let Some(path) = file.filter(|_| token_file.is_some() || env.get("SANDBOXD_TOKEN").is_none()) {
        std::fs::read_to_string(&path).map_err(|source| ConfigError::TokenFile { path, source })?.trim().to_owned()
    } else if let Some(token) = env.get("SANDBOXD_TOKEN") {
        token.to_owned()
    } else {
        return Ok(None);
    };
    if raw.is_empty() {
        return Err(ConfigError::EmptyToken);
    }
    if raw.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(ConfigError::BadToken);
    }
    Ok(Some(Secret::new(raw)))
}

fn resolve_auth(flags: &ServerFlags, env: &Env) -> Result<Auth, ConfigError> {
    match resolve_token(flags.token.as_deref(), flags.token_file.as_deref(), env)? {
        Some(token) => Ok(Auth::Token(token)), // a token wins over --no-token, as the contract has it
        None if flags.no_token => Ok(Auth::Open),
        None => Err(ConfigError::NoAuthChosen),
    }
}

fn resolve_cors(flags: &ServerFlags) -> Result<Cors, ConfigError> {
    let bad = |flag, value: &String, help| ConfigError::BadCors { flag, value: value.clone(), help };
    let mut cors = Cors { credentials: flags.cors_allow_credentials, ..Cors::default() };
    for origin in &flags.cors_allow_origin {
        if origin == "*" {
            cors.any_origin = true;
        } else {
            let value =
                origin.parse().map_err(|_| bad("origin", origin, "give it as a browser sends it: https://app.example"))?;
            cors.origins.push(value);
        }
    }
    for method in flags.cors_allow_method.iter().filter(|method| *method != "*") {
        cors.methods.push(method.parse().map_err(|_| bad("method", method, "give an HTTP method such as GET"))?);
    }
    for header in flags.cors_allow_header.iter().filter(|header| *header != "*") {
        cors.headers.push(header.parse().map_err(|_| bad("header", header, "give a header name such as authorization"))?);
    }
    Ok(cors)
}

/// One row of the table of bounds, for the documentation.
#[derive(Debug, Clone, Copy)]
pub struct BoundRow {
    /// The field's name; the unit is its last word.
    pub name: &'static str,
    /// The default.
    pub default: u64,
    /// What it limits and what happens there.
    pub meaning: &'static str,
}

macro_rules! bounds {
    ($($name:ident = $default:expr, $meaning:literal;)+) => {
        /// Every limit of the server. Changed only through the environment, never at run time.
        #[derive(Debug, Clone, PartialEq, Eq)]
        #[allow(missing_docs)] // each field is documented by its row in TABLE
        pub struct Bounds { $(#[doc = $meaning] pub $name: u64,)+ }

        impl Default for Bounds {
            fn default() -> Self { Self { $($name: $default,)+ } }
        }

        impl Bounds {
            /// The bounds with their defaults and meanings, in the order of the documentation.
            pub const TABLE: &'static [BoundRow] = &[
                $(BoundRow { name: stringify!($name), default: $default, meaning: $meaning },)+
            ];

            /// The defaults, changed by `SANDBOXD_<NAME>` where it is set.
            ///
            /// # Errors
            /// [`ConfigError::BadBound`] when a value isn't a whole number of at least 1.
            pub fn from_env(env: &Env) -> Result<Self, ConfigError> {
                Ok(Self { $($name: read_bound(env, stringify!($name), $default)?,)+ })
            }
        }
    };
}

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;

bounds! {
    http_body_max_bytes = 2 * MIB, "Body of a JSON request other than an ACP envelope; more is 413.";
    http_header_timeout_ms = 30_000, "Time for a client to send its request line and headers; then the connection is closed.";
    http_body_idle_timeout_ms = 30_000, "Silence in the middle of a request's body; then it is 408 and the connection is closed.";
    http_connections_max = 4096, "Connections at once; further ones wait in the kernel's accept queue.";
    sse_subscribers_max = 1024, "Event streams open at once over all servers; one more is 503.";
    sse_heartbeat_ms = 15_000, "Silence on an event stream before a comment line is sent.";
    sse_chunk_max_bytes = 64 * KIB, "Events handed to one reader's socket at a time: what a slow reader costs in memory.";
    ws_clients_max = 256, "WebSockets open at once, of terminals and of /acp; one more is 503.";
    ws_ping_ms = 15_000, "How often a WebSocket client is pinged; one that says nothing for four times as long is dropped.";
    ws_message_max_bytes = MIB, "One message from a WebSocket client; a longer one closes the connection with code 1009.";
    acp_servers_max = 512, "ACP servers that exist at once, exited ones included; one more is 409.";
    acp_body_max_bytes = 64 * MIB, "One ACP envelope from a client; more is 413.";
    acp_line_max_bytes = 64 * MIB, "One line from an agent; a longer one is dropped and reported as _adapter/invalid_stdout, and a request it answered fails.";
    acp_raw_shown_max_bytes = 4 * KIB, "How much of an unreadable line _adapter/invalid_stdout shows.";
    acp_mailbox_max_messages = 256, "Commands that wait for one ACP server's owner; senders wait.";
    acp_pending_max_requests = 1024, "Requests in flight towards one agent; one more is answered with a JSON-RPC error.";
    acp_stdin_queue_max_bytes = 128 * MIB, "Bytes that wait for an agent that doesn't read; more is answered with a JSON-RPC error.";
    acp_sessions_max = 1024, "Sessions per ACP server that are remembered for restoring; the one that was prompted longest ago is forgotten.";
    turn_queue_max = 100, "Turns that wait in one session; one more is 503.";
    turn_cancel_grace_ms = 15_000, "Time for an agent to end a turn that was interrupted; then the turn is given up, and the agent ended when nothing else goes on in its process.";
    session_call_timeout_ms = 120_000, "The longest wait for an agent's answer to what `/v1/sessions` asks of it beside prompts (initialize, session/new, settings, steering, close); then the call fails.";
    session_silent_ms = 60_000, "A turn without a word from its agent for so long makes its session `silent`.";
    session_agent_idle_ms = 1_800_000, "An agent whose sessions are all idle for so long is stopped until the next message; 0 keeps it. Only agents of `/v1/sessions` whose raw events nobody reads.";
    session_closed_max = 10_000, "Closed sessions that are kept; the ones changed longest ago are deleted.";
    session_closed_max_age_ms = 2_592_000_000, "Closed sessions that were not changed for so long (30 days) are deleted.";
    session_open_items_max = 256, "Tool calls and spans that go on at once in one session; beyond, the oldest is ended.";
    item_text_max_bytes = MIB, "Joined text that `item.completed` and a snapshot repeat of one message; its deltas have all of it.";
    item_tool_call_max_bytes = MIB, "A tool call with everything its updates brought, as `item.completed` repeats it.";
    item_delta_max_bytes = 256 * KIB, "Text in one `item.delta`.";
    transcript_max_bytes = 64 * KIB, "What a fresh agent session is told of what was said before, when the agent could not restore it.";
    snapshot_items_max = 2000, "Items in a snapshot.";
    attachment_max_bytes = 256 * MIB, "One uploaded attachment.";
    attachments_max = 256, "Attachments of one session; one more is 413.";
    list_page_max = 500, "Entries in a page of a list.";
    long_poll_max_ms = 600_000, "The longest time that a request with `waitMs` waits.";
    acp_post_keepalive_ms = 10_000, "How long a POST to an agent, a run or a wait stays in silence before it sends headers and then white space, so that no proxy or client cuts the turn.";
    acp_answer_patience_ms = 50, "How long a POST's answer waits for event readers that keep up to get the same events first.";
    acp_restore_timeout_ms = 60_000, "Time a new agent process has for initialize and session/load when a server is restored.";
    acp_exit_drain_ms = 500, "After an agent's exit, how long its stdout is still read when a grandchild keeps the pipe open.";
    acp_connections_max = 1024, "Connections of ACP's remote transport (/acp) at once; one more is 503.";
    acp_connection_idle_ms = 300_000, "How long such a connection is kept while no stream of it is open and nothing is sent.";
    acp_connection_sessions_max = 256, "Sessions that one such connection follows; one more is 503.";
    acp_load_patience_ms = 10_000, "How long the answer to session/load waits until the client has read the session's history.";
    agent_stop_grace_ms = 1_000, "From closing stdin and TERM to KILL for the agent's whole process tree.";
    shutdown_deadline_ms = 4_000, "From SIGTERM or SIGINT to the server's exit; what is left then is killed.";
    stderr_tail_max_lines = 16, "Lines of an agent's stderr kept for error reports.";
    stderr_line_max_bytes = 4 * KIB, "Length of such a line; the rest of it is dropped.";
    store_queue_max_bytes = 4 * MIB, "Events that wait for the disk; agents aren't read meanwhile.";
    store_batch_max_events = 4096, "Events in one transaction (group commit).";
    log_ring_max_events = 1024, "Latest events of a stream kept in memory for its readers; older ones are read from the file.";
    log_ring_max_bytes = MIB, "The same, in bytes.";
    log_ring_unwatched_max_bytes = 4 * KIB, "The same, of a stream that nobody follows.";
    log_page_max_events = 512, "Events read from the file at a time for one reader.";
    events_page_max_bytes = 4 * MIB, "Events in one page of the whole log; the rest is on the next page.";
    spans_max = 200_000, "Spans that are kept; the oldest beyond that go, looked for once in a thousand new ones.";
    trace_spans_max = 5_000, "Spans of one trace, or of one page of a timeline, that are shown; more is said (truncated, next).";
    otlp_queue_max_spans = 4_096, "Ended spans that wait for the collector; further ones are dropped and counted.";
    otlp_flush_ms = 500, "At a stop, the time for the last spans to be taken by the collector.";
    stats_tools_max = 500, "Tools in statistics, the most used first; more is said (truncated).";
    log_stream_max_events = 1_000_000, "Events kept per stream; older ones go, and a reader gets a gap event.";
    log_deleted_streams_max = 2000, "Streams of deleted ACP servers that are kept (two per server); the oldest beyond that are removed.";
    log_stream_max_bytes = GIB, "Payload bytes kept per stream; older events go, and a reader gets a gap event.";
    agent_install_timeout_ms = 900_000, "Time for one agent's installation; then it is stopped.";
    agent_install_output_max_bytes = 64 * KIB, "Tail of an installer's output kept for its error message.";
    agent_version_timeout_ms = 5_000, "Time for an agent's --version; then the version is left out.";
    agent_install_events_max = 2_000, "Lines of an installer's output that are reported as its progress; further ones only end up in the tail.";
    credential_file_max_bytes = 16 * MIB, "Size of a file in which credentials are looked for; a larger one is skipped.";
    agent_manifests_max = 256, "Agent manifests that are read; further files are reported and ignored.";
    agent_manifest_max_bytes = 256 * KIB, "Size of one manifest; a larger one is reported and ignored.";
    processes_max = 1024, "Children at once over all owners; one more is refused.";
    processes_concurrent_max = 64, "Managed processes that run at once, until a client changes it; one more is 409.";
    processes_lingering_max = 128, "Ended processes and runs whose output is read on because something in the background holds it; beyond that it is closed.";
    processes_finished_max = 10_000, "Finished processes that are kept with their logs; beyond that the oldest go.";
    processes_finished_max_age_ms = 7 * 24 * 3_600_000, "How long a finished process is kept; looked at when another one finishes.";
    process_logs_max_bytes = 2 * GIB, "Logs of all finished processes on disk; beyond that the oldest processes go.";
    process_log_max_bytes = 10 * MIB, "Output of one process kept on disk, until a client changes it: the first eighth and the latest bytes; readers get a gap with counts.";
    process_input_max_bytes = 64 * KIB, "Input in one request or terminal frame, until a client changes it; more is 413.";
    process_input_queue_max_bytes = MIB, "Input that waits for a process that doesn't read; more is 409.";
    process_mailbox_max_messages = 64, "Commands that wait for one process's owner; senders wait.";
    process_exit_drain_ms = 300, "After an exit, how long output is still waited for when something in the background holds the pipes.";
    process_stop_grace_ms = 1_500, "From TERM to KILL for the whole tree of a process that is stopped (or waitMs, when that is longer).";
    process_shutdown_grace_ms = 1_000, "The same when the server stops.";
    process_restart_max_delay_ms = 30_000, "Longest pause before a restart; the first is 100 ms and each doubles it.";
    process_wait_timeout_default_ms = 30_000, "How long a wait waits when it doesn't say.";
    process_wait_timeout_max_ms = 3_600_000, "The longest time that a wait may ask for.";
    ports_poll_ms = 2_000, "How often listening ports are looked at while any process runs; somebody who asks gets them at once.";
    search_line_max_bytes = 2 * KIB, "Length of a line that a search shows; what is behind is searched, too.";
    search_answer_max_bytes = 2 * MIB, "Lines that one search shows in all; further matches are only counted (truncated).";
    run_keys_max = 256, "Answers of runs kept for their idempotency keys; the oldest go, but none that still runs.";
    run_keys_max_bytes = 16 * MIB, "The same, in bytes of output.";
    run_timeout_default_ms = 30_000, "Time for a run that asks for none, until a client changes it.";
    run_timeout_max_ms = 300_000, "The longest time for a run, until a client changes it.";
    run_output_max_bytes = MIB, "Each stream of a run that its answer holds, until a client changes it; the rest is counted.";
    terminal_scrollback_max_lines = 1_000, "Lines above a terminal's screen that are kept in memory; older ones are in its log.";
    terminal_viewers_max = 64, "Clients attached to one terminal; one more is 503.";
    terminal_viewer_queue_max_bytes = MIB, "Output that waits for one attached client; then the terminal pauses.";
    directory_config_max_bytes = MIB, "Size of a directory's mcp.json or skills.json; a larger one is not read, and not written.";
    directory_config_entries_max = 256, "Entries in such a file; one more is 409.";
    directory_config_name_max_bytes = 256, "Length of such an entry's name; a longer one is 400.";
    mcp_checks_max = 8, "MCP servers of one session that are checked at the same time; further ones wait.";
    mcp_check_timeout_ms = 10_000, "Time for an MCP server to list its tools, unless its configuration has a timeout; then it isn't ready.";
    mcp_check_timeout_max_ms = 120_000, "The longest such time that a configuration may ask for.";
    mcp_message_max_bytes = 4 * MIB, "One message of an MCP server that is checked; with a longer one it isn't ready.";
    skills_max = 20, "Skills of a directory; further ones are named and not copied.";
    skill_files_max = 256, "Files and folders of one skill; a skill with more is not copied.";
    skill_file_max_bytes = 256 * KIB, "One file of a skill; a skill with a larger one is not copied.";
    skills_total_max_bytes = MIB, "All files of a directory's skills; a skill beyond that is not copied.";
    skills_git_timeout_ms = 60_000, "Time to get a repository with skills; then its last copy is used, if there is one.";
    skills_git_fresh_ms = 600_000, "How long a copy of such a repository is used before it is asked for again.";
    skills_git_copies_max = 32, "Copies of such repositories that are kept; the oldest go.";
    terminal_viewer_patience_ms = 250, "How long a terminal pauses for a client that doesn't read; then that client gets the screen instead of what it missed.";
    requests_pending_max = 1024, "Requests for a decision that wait at once over all sessions; one more is denied at once.";
    request_params_max_bytes = 256 * KIB, "Params of such a request that its row and events show; longer ones are only in the raw ACP stream.";
    request_wait_max_ms = 3_600_000, "The longest time that one wait for a decision may ask for.";
    permission_deadline_ms = 24 * 3_600_000, "Time for somebody to decide a permission; then it is denied. A rule may set another.";
    elicitation_deadline_ms = 24 * 3_600_000, "Time for somebody to answer an elicitation or another question; then it is declined.";
    permission_rules_max = 500, "Rules of the permission policy, and decisions that are remembered: as many each. A longer policy is refused; the oldest decision is forgotten.";
    permission_rule_max_bytes = 16 * KIB, "One rule as JSON; a longer one is refused, and a decision that would need it isn't remembered.";
}

fn read_bound(env: &Env, name: &str, default: u64) -> Result<u64, ConfigError> {
    let variable = format!("SANDBOXD_{}", name.to_ascii_uppercase());
    match env.get(&variable) {
        None => Ok(default),
        Some(value) => value
            .parse()
            .ok()
            .filter(|number| *number >= 1)
            .ok_or_else(|| ConfigError::BadBound { variable, value: value.to_owned() }),
    }
}

/// Bounds that count things in memory are used as `usize`.
pub fn as_usize(bound: u64) -> usize {
    usize::try_from(bound).unwrap_or(usize::MAX)
}

/// Bounds in milliseconds as a duration.
pub fn as_duration(bound_ms: u64) -> std::time::Duration {
    std::time::Duration::from_millis(bound_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags() -> ServerFlags {
        ServerFlags { host: "127.0.0.1".into(), port: 0, ..ServerFlags::default() }
    }

    fn env(pairs: &[(&str, &str)]) -> Env {
        Env::from_pairs(pairs.iter().map(|(key, value)| (*key, *value)))
    }

    #[test]
    fn refuses_to_choose_for_the_user() {
        let result = Config::resolve(&flags(), env(&[("HOME", "/h")]));
        assert!(matches!(result, Err(ConfigError::NoAuthChosen)));
    }

    #[test]
    fn a_token_wins_over_no_token() {
        let config = Config::resolve(&ServerFlags { no_token: true, ..flags() }, env(&[("HOME", "/h"), ("SANDBOXD_TOKEN", "t")]));
        assert!(matches!(config.expect("valid").auth, Auth::Token(_)));
    }

    #[test]
    fn an_empty_token_is_refused() {
        let result = Config::resolve(&ServerFlags { token: Some(String::new()), ..flags() }, env(&[("HOME", "/h")]));
        assert!(matches!(result, Err(ConfigError::EmptyToken)));
    }

    #[test]
    fn children_never_see_the_token() {
        let env = env(&[("SANDBOXD_TOKEN", "t"), ("SANDBOXD_TOKEN_FILE", "/f"), ("A", "b")]);
        let names: Vec<_> = env.for_children().map(|(key, _)| key.clone()).collect();
        assert_eq!(names, ["A"]);
    }

    #[test]
    fn bounds_come_from_the_environment_and_are_checked() {
        let bounds = Bounds::from_env(&env(&[("SANDBOXD_ACP_LINE_MAX_BYTES", "7")])).expect("valid");
        assert_eq!(bounds.acp_line_max_bytes, 7);
        for bad in ["0", "-1", "many"] {
            assert!(Bounds::from_env(&env(&[("SANDBOXD_ACP_LINE_MAX_BYTES", bad)])).is_err(), "{bad}");
        }
    }

    #[test]
    fn relative_xdg_directories_are_ignored() {
        let dirs = Dirs::resolve(&env(&[("HOME", "/h"), ("XDG_DATA_HOME", "rel")]), None).expect("home");
        assert_eq!(dirs.data, Path::new("/h/.local/share/sandboxd"));
    }
}
