//! Everything that is decided outside the code: flags, environment and bounds, read once and here only.
//!
//! [`Env`] is a snapshot of the process environment. [`Config`] is what the server runs with. [`Bounds`] is the one
//! table of limits: each has a name with its unit, a default, and an environment variable `SANDBOXD_<NAME>`; the same
//! table is printed into `docs/OPERATIONS.md`, and a test compares the two.

mod bounds;
mod credentials;
mod env;
mod otel;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

pub use bounds::{BoundRow, Bounds, as_duration, as_usize};
pub use credentials::may_be_secret;
pub use env::{Env, SECRET_VARIABLES};
pub use otel::Otlp;

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
    /// An address in the environment isn't one.
    #[error("{MEDIA_ADDRESSES} is IP addresses with commas between them; {0:?} is none")]
    BadAddress(String),
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

/// Addresses at which viewers of the desktop find this machine, through NAT.
const MEDIA_ADDRESSES: &str = "SANDBOXD_MEDIA_ADDRESSES";

fn addresses(list: &str) -> Result<Vec<IpAddr>, ConfigError> {
    let words = list.split(',').map(str::trim).filter(|word| !word.is_empty());
    words.map(|word| word.parse().map_err(|_| ConfigError::BadAddress(word.to_owned()))).collect()
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
    /// Where viewers of the desktop find this machine besides its own addresses, through NAT.
    pub media_addresses: Vec<IpAddr>,
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
    /// Directories that routes for files may not lead out of; none: anywhere.
    pub fs_roots: Vec<PathBuf>,
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
            media_addresses: addresses(env.get(MEDIA_ADDRESSES).unwrap_or_default())?,
            auth: resolve_auth(flags, &env)?,
            cors: resolve_cors(flags)?,
            dirs: Dirs::resolve(&env, flags.data_dir.as_deref())?,
            bounds: Bounds::from_env(&env)?,
            self_exe: self_exe(),
            require_preinstall,
            fs_roots: env.get("SANDBOXD_FS_ROOTS").map(|roots| std::env::split_paths(roots).collect()).unwrap_or_default(),
            otlp: Otlp::from_env(&env),
            env,
        })
    }

    /// True when anyone who can reach a non-loopback address may call.
    pub fn is_exposed(&self) -> bool {
        matches!(self.auth, Auth::Open) && !self.bind.ip().is_loopback()
    }
}

/// Our own executable: what lies at its path now, when it was replaced since; `/proc/self/exe` when nothing does.
pub fn self_exe() -> PathBuf {
    let exe = std::env::current_exe().unwrap_or_default();
    let replaced = exe.to_str().and_then(|path| path.strip_suffix(" (deleted)")).map(PathBuf::from); // proc_pid_exe(5)
    [Some(exe), replaced].into_iter().flatten().find(|path| path.is_file()).unwrap_or_else(|| PathBuf::from("/proc/self/exe"))
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
