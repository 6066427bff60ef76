//! Why a call on the desktop can't be done.

use super::tree::TreeNode;
use super::types::ProcessStatus;

/// Why a call on the desktop can't be done.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the texts say what each is
pub enum Error {
    #[error("desktop dependencies are missing: {}; install them: {install}", .missing.join(", "))]
    DependenciesMissing { missing: Vec<String>, install: String },
    #[error("the desktop is not running: start it first (POST /v1/desktop/start)")]
    Inactive,
    #[error("the desktop is {0}: try again in a moment")]
    Changing(&'static str),
    #[error("the desktop failed: {why}")]
    Failed { why: String, processes: Vec<ProcessStatus> },
    #[error("{0}")]
    Invalid(String),
    #[error("no picture of the screen: {0}")]
    Screenshot(String),
    #[error("the input was not made: {0}")]
    Input(String),
    #[error("no window has the id {0}")]
    WindowNotFound(String),
    #[error("no window has the focus")]
    NoFocusedWindow,
    #[error("no program {0:?} in the PATH of the server")]
    AppNotFound(String),
    #[error("clipboard: {0}")]
    Clipboard(String),
    #[error("{what} did not end within {timeout_ms} ms: the display is busy")]
    TimedOut { what: &'static str, timeout_ms: u64 },
    #[error("{0}")]
    Conflict(String),
    #[error("the stream is off: switch it on first (POST /v1/desktop/stream/start)")]
    NoStream,
    #[error("{0} viewers watch already: close one that is no longer needed")]
    TooManyViewers(usize),
    #[error("not found: no viewer has the id {0}")]
    ViewerNotFound(String),
    #[error("{0}")]
    TicketInvalid(String),
    #[error("{0}")]
    NodeNotFound(String),
    #[error("more than one node fits: name one of them by its id, or say more of it")]
    NodeAmbiguous(Vec<TreeNode>),
    #[error("{why}")]
    NodeRefused { why: String, actions: Vec<String> },
    #[error("{0}: its program doesn't answer; what was asked of it may come all the same")]
    ApplicationSilent(String),
    #[error("no accessibility tree: {0}")]
    AccessibilityUnavailable(String),
    #[error("not found: no recording has the id {0}")]
    RecordingNotFound(String),
    #[error("not found: the file of the recording {0} is gone")]
    RecordingFileGone(String),
    #[error(
        "{holder} has the desktop until {expires_at}: wait for the event desktop.control, or take it over (POST /v1/desktop/lease with takeOver)"
    )]
    Leased { holder: String, expires_at: String },
    #[error("no {kind} theme {name:?} is installed: there are {}", .available.join(", "))]
    ThemeNotFound { kind: &'static str, name: String, available: Vec<String> },
    #[error(transparent)]
    Process(#[from] crate::processes::Error),
    #[error(transparent)]
    Store(#[from] crate::store::Error),
    #[error("the desktop's directory can't be used: {0}")]
    Home(String),
    #[error("the server is stopping")]
    Stopping,
}

impl Error {
    /// The desktop failed, for this reason.
    pub(super) fn failed(why: String) -> Self {
        Self::Failed { why, processes: Vec::new() }
    }

    /// Nothing of the X server's is to be had any more.
    pub(super) fn gone() -> Self {
        Self::failed("the connection to the X server is gone".to_owned())
    }

    /// Which it is, as a word that programs look for.
    pub fn code(&self) -> &'static str {
        match self {
            Self::DependenciesMissing { .. } => "desktop_dependencies_missing",
            Self::Inactive => "desktop_runtime_inactive",
            Self::Changing(_) => "desktop_runtime_starting",
            Self::Failed { .. } | Self::Home(_) | Self::Process(_) | Self::Store(_) | Self::Stopping => "desktop_runtime_failed",
            Self::Invalid(_) => "desktop_invalid_action",
            Self::Screenshot(_) => "desktop_screenshot_failed",
            Self::Input(_) | Self::TimedOut { .. } => "desktop_input_failed",
            Self::WindowNotFound(_) => "window_not_found",
            Self::NoFocusedWindow => "no_focused_window",
            Self::AppNotFound(_) => "app_not_found",
            Self::Clipboard(_) => "clipboard_failed",
            Self::Conflict(_) | Self::NoStream => "conflict",
            Self::TooManyViewers(_) => "busy",
            Self::ViewerNotFound(_) => "viewer_not_found",
            Self::TicketInvalid(_) => "ticket_invalid",
            Self::NodeNotFound(_) => "node_not_found",
            Self::NodeAmbiguous(_) => "node_ambiguous",
            Self::NodeRefused { .. } => "node_refused",
            Self::ApplicationSilent(_) => "application_silent",
            Self::AccessibilityUnavailable(_) => "accessibility_unavailable",
            Self::RecordingNotFound(_) => "recording_not_found",
            Self::RecordingFileGone(_) => "recording_file_gone",
            Self::Leased { .. } => "desktop_leased",
            Self::ThemeNotFound { .. } => "theme_not_found",
        }
    }

    /// What an error of X means where `what` was asked for.
    pub(super) fn of_x(error: x_desktop::Error, what: fn(String) -> Self) -> Self {
        match error {
            x_desktop::Error::NoWindow(id) => Self::WindowNotFound(id.to_string()),
            x_desktop::Error::Invalid(why) => Self::Invalid(why),
            x_desktop::Error::TimedOut { what, timeout_ms } => Self::TimedOut { what, timeout_ms },
            error @ (x_desktop::Error::Gone(_) | x_desktop::Error::Connect(_)) => Self::failed(error.to_string()),
            error => what(error.to_string()),
        }
    }
}
