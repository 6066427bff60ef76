//! Why something about language servers can't be done.

use std::path::PathBuf;

use crate::fs;

/// Why something about language servers can't be done.
#[derive(Debug, Clone, thiserror::Error)]
#[allow(missing_docs)] // the texts say what each is
pub enum Error {
    #[error("{0}")]
    Invalid(String),
    #[error("there is no language server {server:?}: GET /v1/lsp/catalogue lists those that are known")]
    UnknownServer { server: String },
    #[error("no language server {id:?} runs here: GET /v1/lsp/servers lists those that do")]
    NotRunning { id: String },
    #[error("no language server is known for {}: put a manifest into {}", path.display(), manifests.display())]
    NoServer { path: PathBuf, manifests: PathBuf },
    #[error("no language server for {what} is installed: {help}")]
    NotInstalled { what: String, help: String },
    #[error("installing {server} failed: {why}")]
    InstallFailed { server: String, why: String, output_tail: String },
    #[error("language server {server} doesn't run: {why}")]
    Down { server: String, why: String, stderr_tail: String },
    #[error("language server {server} can't do {method}")]
    Unsupported { server: String, method: String },
    #[error("{max} language servers run already")]
    TooMany { max: u64 },
    #[error("{} has {size} bytes, and language servers get at most {max} (lsp_file_max_bytes)", path.display())]
    TooLarge { path: PathBuf, size: u64, max: u64 },
    #[error("{} is no text: {why}", path.display())]
    NotText { path: PathBuf, why: String },
    #[error(transparent)]
    Client(#[from] language_client::Error),
    #[error(transparent)]
    Fs(#[from] fs::Error),
    #[error("the server is stopping")]
    Stopping,
}

impl Error {
    /// The word that clients tell it by.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "invalid_request",
            Self::UnknownServer { .. } | Self::NotRunning { .. } => "not_found",
            Self::NoServer { .. } => "no_language_server",
            Self::NotInstalled { .. } => "language_server_not_installed",
            Self::InstallFailed { .. } => "install_failed",
            Self::Down { .. } | Self::Client(language_client::Error::Gone(_)) => "language_server_down",
            Self::Unsupported { .. } => "language_server_unsupported",
            Self::TooMany { .. } | Self::Client(language_client::Error::Busy(_)) => "too_many",
            Self::TooLarge { .. } => "too_large",
            Self::NotText { .. } => "not_text",
            Self::Client(language_client::Error::Timeout { .. }) => "timeout",
            Self::Client(_) => "language_server_error",
            Self::Fs(error) => error.code(),
            Self::Stopping => "stopping",
        }
    }
}
