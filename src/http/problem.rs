//! The one error format of the edge: RFC 9457 `application/problem+json`, with the URN types that clients of
//! `sandbox-agent` know.

use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};

use crate::acp::{self, LaunchError};
use crate::{agents, desktop, fs, git, processes, sessions, store, traces, workspace};

tokio::task_local! {
    /// The id of the request being answered; every problem names it.
    pub static REQUEST_ID: String;
}

macro_rules! codes {
    ($($name:ident = $slug:literal, $title:literal, $status:ident;)+) => {
        /// Every kind of error on the wire: the last part of its URN, its title, and its status.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(missing_docs)] // slug and title say what each is
        pub enum ErrorCode { $($name,)+ }

        impl ErrorCode {
            /// All of them, for the documentation.
            pub const ALL: &'static [ErrorCode] = &[$(Self::$name,)+];

            /// The last part of the URN, its title, and its status.
            pub fn parts(self) -> (&'static str, &'static str, StatusCode) {
                match self { $(Self::$name => ($slug, $title, StatusCode::$status),)+ }
            }
        }
    };
}

codes! {
    InvalidRequest = "invalid_request", "Invalid Request", BAD_REQUEST;
    UnsupportedAgent = "unsupported_agent", "Unsupported Agent", BAD_REQUEST;
    TokenInvalid = "token_invalid", "Token Invalid", UNAUTHORIZED;
    PermissionDenied = "permission_denied", "Permission Denied", FORBIDDEN;
    EndpointNotFound = "invalid_request", "Not Found", NOT_FOUND;
    NotFound = "not_found", "Not Found", NOT_FOUND;
    SessionNotFound = "session_not_found", "Session Not Found", NOT_FOUND;
    AgentNotInstalled = "agent_not_installed", "Agent Not Installed", NOT_FOUND;
    LanguageServerNotInstalled = "language_server_not_installed", "Language Server Not Installed", NOT_FOUND;
    MethodNotAllowed = "method_not_allowed", "Method Not Allowed", METHOD_NOT_ALLOWED;
    NotAcceptable = "not_acceptable", "Not Acceptable", NOT_ACCEPTABLE;
    RequestTimeout = "timeout", "Request Timeout", REQUEST_TIMEOUT;
    PreconditionFailed = "precondition_failed", "Precondition Failed", PRECONDITION_FAILED;
    RangeNotSatisfiable = "invalid_request", "Range Not Satisfiable", RANGE_NOT_SATISFIABLE;
    Conflict = "conflict", "Conflict", CONFLICT;
    PayloadTooLarge = "invalid_request", "Payload Too Large", PAYLOAD_TOO_LARGE;
    UpgradeRequired = "upgrade_required", "Upgrade Required", UPGRADE_REQUIRED;
    UnsupportedMediaType = "unsupported_media_type", "Unsupported Media Type", UNSUPPORTED_MEDIA_TYPE;
    ExecutableNotFound = "executable_not_found", "Executable Not Found", UNPROCESSABLE_ENTITY;
    CwdNotFound = "cwd_not_found", "Working Directory Not Found", UNPROCESSABLE_ENTITY;
    InvalidShape = "invalid_request", "Invalid Request", UNPROCESSABLE_ENTITY;
    DesktopInvalidAction = "desktop_invalid_action", "Desktop Invalid Action", BAD_REQUEST;
    WindowNotFound = "window_not_found", "Window Not Found", NOT_FOUND;
    NoFocusedWindow = "no_focused_window", "No Focused Window", NOT_FOUND;
    NodeNotFound = "node_not_found", "Node Not Found", NOT_FOUND;
    AppNotFound = "app_not_found", "App Not Found", NOT_FOUND;
    DesktopRuntimeInactive = "desktop_runtime_inactive", "Desktop Runtime Inactive", CONFLICT;
    DesktopRuntimeStarting = "desktop_runtime_starting", "Desktop Runtime Starting", CONFLICT;
    DesktopLeased = "desktop_leased", "Desktop Leased", CONFLICT;
    NodeAmbiguous = "node_ambiguous", "Node Ambiguous", CONFLICT;
    NodeRefused = "node_refused", "Node Refused", CONFLICT;
    ClipboardFailed = "clipboard_failed", "Clipboard Failed", INTERNAL_SERVER_ERROR;
    DesktopScreenshotFailed = "desktop_screenshot_failed", "Desktop Screenshot Failed", BAD_GATEWAY;
    DesktopInputFailed = "desktop_input_failed", "Desktop Input Failed", BAD_GATEWAY;
    DesktopDependenciesMissing = "desktop_dependencies_missing", "Desktop Dependencies Missing", SERVICE_UNAVAILABLE;
    DesktopRuntimeFailed = "desktop_runtime_failed", "Desktop Runtime Failed", SERVICE_UNAVAILABLE;
    AccessibilityUnavailable = "accessibility_unavailable", "Accessibility Unavailable", SERVICE_UNAVAILABLE;
    LanguageServerTimeout = "timeout", "Language Server Timeout", GATEWAY_TIMEOUT;
    ApplicationSilent = "application_silent", "Application Silent", GATEWAY_TIMEOUT;
    InstallFailed = "install_failed", "Install Failed", INTERNAL_SERVER_ERROR;
    Internal = "internal", "Internal Server Error", INTERNAL_SERVER_ERROR;
    GitUnavailable = "git_unavailable", "Git Unavailable", NOT_IMPLEMENTED;
    AgentStartFailed = "stream_error", "Stream Error", BAD_GATEWAY;
    Stopping = "stopping", "Server Stopping", SERVICE_UNAVAILABLE;
    Busy = "busy", "Server Busy", SERVICE_UNAVAILABLE;
    SafeMode = "safe_mode", "Safe Mode", SERVICE_UNAVAILABLE;
    StorageUnavailable = "storage_unavailable", "Storage Unavailable", INSUFFICIENT_STORAGE;
}

/// An error on its way to a client.
#[derive(Debug, Clone)]
pub struct ApiError {
    code: ErrorCode,
    detail: String,
    members: Map<String, Value>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl ApiError {
    /// An error of this kind; `detail` says what happened and what to do.
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), members: Map::new(), headers: Vec::new() }
    }

    /// 400 with the contract's wording.
    pub fn invalid(why: impl std::fmt::Display) -> Self {
        Self::new(ErrorCode::InvalidRequest, format!("invalid request: {why}"))
    }

    /// A kind whose message the contract repeats under `details.message`.
    pub fn with_message(code: ErrorCode, prefix: &str, message: &str) -> Self {
        Self::new(code, format!("{prefix}: {message}")).member("details", json!({"message": message}))
    }

    /// 404 for something that an id names.
    fn not_found(resource: &str, id: String, text: &str) -> Self {
        Self::new(ErrorCode::NotFound, format!("not found: {text}")).member("details", json!({"resource": resource, "id": id}))
    }

    /// An extra member (RFC 9457 section 3.2).
    #[must_use]
    pub fn member(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.insert(name.to_owned(), value.into());
        self
    }

    /// An extra response header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// A sentence for people and logs.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The problem as JSON.
    pub fn body(&self) -> Value {
        let (slug, title, status) = self.code.parts();
        let mut body = json!({
            "type": format!("urn:sandbox-agent:error:{slug}"),
            "title": title,
            "status": status.as_u16(),
            "detail": self.detail,
        });
        if let Ok(id) = REQUEST_ID.try_with(Clone::clone) {
            body["instance"] = format!("urn:sandboxd:request:{id}").into();
        }
        for (name, value) in &self.members {
            body[name] = value.clone();
        }
        body
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (_, _, status) = self.code.parts();
        if status.is_server_error() {
            let id = REQUEST_ID.try_with(Clone::clone).unwrap_or_default();
            tracing::error!(id, %status, detail = self.detail, "request failed");
        }
        let body = self.body().to_string();
        let mut response = (status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response();
        response.headers_mut().extend(self.headers);
        response
    }
}

impl From<acp::Error> for ApiError {
    fn from(error: acp::Error) -> Self {
        let text = error.to_string();
        match error {
            acp::Error::UnknownServer { id } => Self::new(ErrorCode::SessionNotFound, text).member("sessionId", id),
            acp::Error::MissingAgent { .. } => Self::invalid(text),
            acp::Error::AgentMismatch { .. } | acp::Error::TooMany { .. } | acp::Error::Deleted { .. } => {
                Self::with_message(ErrorCode::Conflict, "conflict", &text)
            }
            acp::Error::Launch(error) => error.into(),
            acp::Error::Store(error) => error.into(),
            acp::Error::Stopping => Self::new(ErrorCode::Stopping, "the server is stopping: try again once it is back"),
        }
    }
}

impl From<traces::Error> for ApiError {
    fn from(error: traces::Error) -> Self {
        let text = error.to_string();
        match error {
            traces::Error::NoTrace { id } => {
                Self::new(ErrorCode::NotFound, text).member("details", json!({"resource": "trace", "id": id}))
            }
            traces::Error::NoSession { id } => Self::new(ErrorCode::SessionNotFound, text).member("sessionId", id),
            traces::Error::Store(error) => error.into(),
        }
    }
}

impl From<acp::remote::Error> for ApiError {
    fn from(error: acp::remote::Error) -> Self {
        use acp::remote::Error;
        let text = error.to_string();
        match error {
            Error::UnknownConnection { id } => Self::new(ErrorCode::NotFound, format!("not found: {text}"))
                .member("details", json!({"resource": "connection", "id": id})),
            Error::TooManyConnections { .. } | Error::TooManySessions { .. } => Self::new(ErrorCode::Busy, text),
            Error::Taken => Self::with_message(ErrorCode::Conflict, "conflict", &text),
            Error::MissingSession | Error::MismatchedSession | Error::InitializedAlready | Error::NoAgent => Self::invalid(text),
            Error::Acp(error) => error.into(),
            Error::Store(error) => error.into(),
        }
    }
}

impl From<acp::ParseError> for ApiError {
    fn from(error: acp::ParseError) -> Self {
        Self::invalid(error)
    }
}

impl From<LaunchError> for ApiError {
    fn from(error: LaunchError) -> Self {
        let text = error.to_string();
        match error {
            LaunchError::Unsupported { agent } => Self::new(ErrorCode::UnsupportedAgent, text).member("agent", agent),
            LaunchError::NotInstalled { agent, help } => {
                Self::new(ErrorCode::AgentNotInstalled, text).member("agent", agent).member("details", json!({"message": help}))
            }
            LaunchError::InstallFailed { agent, reason } => {
                Self::new(ErrorCode::InstallFailed, text).member("agent", agent).member("details", json!({"stderr": reason}))
            }
            LaunchError::Spawn(processes::Error::TooMany { max }) => processes::Error::TooMany { max }.into(),
            LaunchError::Spawn(error) => {
                let text = format!("failed to start agent process: {error}");
                Self::with_message(ErrorCode::AgentStartFailed, "stream error", &text)
            }
        }
    }
}

impl From<processes::Error> for ApiError {
    fn from(error: processes::Error) -> Self {
        use processes::Error;
        let text = error.to_string();
        match error {
            Error::ExecutableNotFound { program } => {
                let help = "give a path, or a name that is in the PATH of the server or of `env`; for a shell line set `shell`";
                Self::new(ErrorCode::ExecutableNotFound, format!("{text}: {help}"))
                    .member("command", program.display().to_string())
            }
            Error::NotPermitted { .. } => Self::new(ErrorCode::PermissionDenied, text),
            Error::BadCwd { cwd } => Self::new(ErrorCode::CwdNotFound, text).member("cwd", cwd.display().to_string()),
            Error::Refused { .. } => Self::with_message(ErrorCode::AgentStartFailed, "stream error", &text),
            Error::Invalid(_) => Self::invalid(text),
            Error::NotFound { id } => Self::not_found("process", id, &text),
            Error::InputTooLarge { .. } => Self::new(ErrorCode::PayloadTooLarge, format!("invalid request: {text}")),
            Error::NotRunning { exit, .. } => {
                Self::with_message(ErrorCode::Conflict, "conflict", &text).member("exit", json!(exit))
            }
            Error::StillRunning { .. }
            | Error::NoTerminal { .. }
            | Error::StdinClosed { .. }
            | Error::InputQueueFull { .. }
            | Error::KeyReused { .. }
            | Error::LimitReached { .. }
            | Error::TooMany { .. } => Self::with_message(ErrorCode::Conflict, "conflict", &text),
            Error::LogUnreadable { .. } => Self::new(ErrorCode::Internal, text),
            Error::TooManyViewers { .. } => Self::new(ErrorCode::Busy, format!("{text}: detach one that is no longer needed")),
            Error::Store(error) => error.into(),
            Error::Stopping => Self::new(ErrorCode::Stopping, "the server is stopping: try again once it is back"),
        }
    }
}

impl From<desktop::Error> for ApiError {
    fn from(error: desktop::Error) -> Self {
        use desktop::Error;
        let (text, word) = (error.to_string(), error.code());
        let of = |code| Self::new(code, text.clone()).member("code", word);
        match error {
            Error::DependenciesMissing { missing, install } => {
                of(ErrorCode::DesktopDependenciesMissing).member("missingDependencies", missing).member("installCommand", install)
            }
            Error::Inactive => of(ErrorCode::DesktopRuntimeInactive),
            Error::Changing(_) => of(ErrorCode::DesktopRuntimeStarting),
            Error::Failed { processes, .. } => of(ErrorCode::DesktopRuntimeFailed).member("processes", json!(processes)),
            Error::Home(_) => of(ErrorCode::DesktopRuntimeFailed),
            Error::Invalid(_) => of(ErrorCode::DesktopInvalidAction),
            Error::Screenshot(_) => of(ErrorCode::DesktopScreenshotFailed),
            Error::Input(_) | Error::TimedOut { .. } => of(ErrorCode::DesktopInputFailed),
            Error::WindowNotFound(_) => of(ErrorCode::WindowNotFound),
            Error::NoFocusedWindow => of(ErrorCode::NoFocusedWindow),
            Error::AppNotFound(_) => of(ErrorCode::AppNotFound),
            Error::Clipboard(_) => of(ErrorCode::ClipboardFailed),
            Error::Conflict(_) | Error::NoStream => Self::with_message(ErrorCode::Conflict, "conflict", &text),
            Error::TooManyViewers(_) => Self::new(ErrorCode::Busy, text),
            Error::ViewerNotFound(id) => Self::not_found("desktop_viewer", id, "no such viewer"),
            Error::TicketInvalid(_) => {
                Self::new(ErrorCode::TokenInvalid, "token invalid").member("details", json!({"message": text}))
            }
            Error::Leased { holder, expires_at } => {
                of(ErrorCode::DesktopLeased).member("holder", holder).member("expiresAt", expires_at)
            }
            Error::ThemeNotFound { name, available, .. } => {
                Self::not_found("desktop_theme", name, &text).member("code", word).member("available", available)
            }
            Error::NodeNotFound(_) => of(ErrorCode::NodeNotFound),
            Error::NodeAmbiguous(nodes) => of(ErrorCode::NodeAmbiguous).member("nodes", json!(nodes)),
            Error::NodeRefused { actions, .. } => of(ErrorCode::NodeRefused).member("actions", actions),
            Error::ApplicationSilent(_) => of(ErrorCode::ApplicationSilent),
            Error::AccessibilityUnavailable(_) => of(ErrorCode::AccessibilityUnavailable),
            Error::RecordingNotFound(id) => Self::not_found("desktop_recording", id, "no such recording"),
            Error::RecordingFileGone(id) => Self::not_found("desktop_recording_file", id, "its file is gone"),
            Error::Process(error) => error.into(),
            Error::Store(error) => error.into(),
            Error::Stopping => Self::new(ErrorCode::Stopping, "the server is stopping: try again once it is back"),
        }
    }
}

impl From<store::Error> for ApiError {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Write(cause) => Self::new(
                ErrorCode::StorageUnavailable,
                format!("the database refused the write ({cause}): free some disk space and try again; what runs goes on"),
            ),
            store::Error::Open { .. } | store::Error::Read(_) => Self::new(ErrorCode::Internal, error.to_string()),
            store::Error::Closed => Self::new(ErrorCode::Stopping, "the server is stopping: try again once it is back"),
        }
    }
}

impl From<sessions::gate::Error> for ApiError {
    fn from(error: sessions::gate::Error) -> Self {
        use sessions::gate::Error;
        let text = error.to_string();
        match error {
            Error::NotFound { id } => Self::not_found("request", id, &text),
            Error::NoRule { id } => Self::not_found("rule", id, &text),
            Error::Resolved(request) => {
                Self::with_message(ErrorCode::Conflict, "conflict", &text).member("request", json!(request))
            }
            Error::AgentGone => Self::with_message(ErrorCode::Conflict, "conflict", &text),
            Error::Invalid(_) | Error::TooManyRules { .. } => Self::invalid(text),
            Error::BadRule { number, id, field, .. } => {
                Self::invalid(text).member("rule", number).member("id", id).member("field", field)
            }
            Error::Acp(error) => error.into(),
            Error::Store(error) => error.into(),
            Error::Starting => Self::new(ErrorCode::Busy, text),
        }
    }
}

impl From<agents::Error> for ApiError {
    fn from(error: agents::Error) -> Self {
        let text = error.to_string();
        let of = |code, text: String, agent: String| Self::new(code, text).member("agent", agent);
        match error {
            agents::Error::UnsupportedAgent { agent } => of(ErrorCode::UnsupportedAgent, text, agent),
            agents::Error::NotInstalled { agent, help } => {
                of(ErrorCode::AgentNotInstalled, text, agent).member("details", json!({"message": help}))
            }
            agents::Error::NotExecutable { agent, .. } => of(ErrorCode::AgentStartFailed, text, agent),
            agents::Error::InstallFailed { agent, reason, output_tail } => {
                let said = format!("{reason}\n{output_tail}");
                of(ErrorCode::InstallFailed, format!("install failed: {agent}"), agent)
                    .member("details", json!({"stderr": said.trim_end()}))
            }
            agents::Error::BadManifest { .. } => Self::invalid(text),
            agents::Error::ManifestNotWritten { .. } => Self::new(ErrorCode::StorageUnavailable, text),
            agents::Error::TooManyManifests { .. } => Self::with_message(ErrorCode::Conflict, "conflict", &text),
        }
    }
}

impl From<sessions::Error> for ApiError {
    fn from(error: sessions::Error) -> Self {
        use sessions::Error;
        let text = error.to_string();
        match error {
            Error::UnknownSession { id } => Self::new(ErrorCode::SessionNotFound, text).member("sessionId", id),
            Error::UnknownTurn { id } => Self::new(ErrorCode::NotFound, format!("not found: {text}"))
                .member("details", json!({"resource": "turn", "id": id})),
            Error::Invalid { why } => Self::invalid(why),
            Error::BadRoot { path, .. } => Self::invalid(text).member("code", "bad_root").member("path", path),
            Error::BadWorktree { code, .. } => {
                let problem = match code {
                    "outside" | "denied" => Self::new(ErrorCode::PermissionDenied, format!("permission denied: {text}")),
                    "destination_exists" | "in_use" => Self::with_message(ErrorCode::Conflict, "conflict", &text),
                    "git_unavailable" => Self::new(ErrorCode::GitUnavailable, text),
                    "busy" | "too_many" | "stopping" => Self::new(ErrorCode::Busy, text),
                    "git_failed" | "timed_out" | "os" => Self::with_message(ErrorCode::AgentStartFailed, "stream error", &text),
                    _ => Self::invalid(text),
                };
                problem.member("code", code)
            }
            Error::Closed { .. } | Error::Busy { .. } | Error::KeyReused { .. } => {
                Self::with_message(ErrorCode::Conflict, "conflict", &text)
            }
            Error::QueueFull { .. } => Self::new(ErrorCode::Busy, text),
            Error::Refused { error, .. } => {
                Self::with_message(ErrorCode::AgentStartFailed, "stream error", &text).member("error", error)
            }
            Error::NotOffered { .. } => Self::new(ErrorCode::InvalidShape, format!("invalid request: {text}")),
            Error::McpNotReady { .. } => Self::with_message(ErrorCode::AgentStartFailed, "stream error", &text),
            Error::TooLarge { why } => Self::new(ErrorCode::PayloadTooLarge, format!("invalid request: {why}")),
            Error::UnknownAttachment { id } => {
                Self::new(ErrorCode::InvalidShape, format!("invalid request: {text}: upload it first"))
                    .member("details", json!({"resource": "attachment", "id": id}))
            }
            Error::Acp(error) => error.into(),
            Error::Store(error) => error.into(),
            Error::File { .. } => Self::new(ErrorCode::StorageUnavailable, text),
        }
    }
}

impl From<fs::Error> for ApiError {
    fn from(error: fs::Error) -> Self {
        use fs::Error;
        let text = error.to_string();
        match error {
            Error::Invalid(_)
            | Error::NotFound(_)
            | Error::NotAFile(_)
            | Error::NotADirectory(_)
            | Error::DestinationExists(_)
            | Error::BrokeOff(_) => Self::invalid(text).member("code", error.code()),
            Error::Outside(path) => Self::new(ErrorCode::PermissionDenied, format!("permission denied: {text}"))
                .member("code", "outside")
                .member("path", path.to_string_lossy()),
            Error::Denied { path, .. } => Self::new(ErrorCode::PermissionDenied, format!("permission denied: {text}"))
                .member("code", "denied")
                .member("path", path.to_string_lossy()),
            Error::NoSpace { .. } => {
                Self::new(ErrorCode::StorageUnavailable, format!("{text}: free some and try again; what was there is as it was"))
            }
            Error::Changed { path, found } => Self::with_message(ErrorCode::PreconditionFailed, "precondition failed", &text)
                .member("path", path.to_string_lossy())
                .member("sha256", json!(found)),
            Error::Mismatch { path, why, found } => {
                let problem = Self::with_message(ErrorCode::Conflict, "conflict", &text)
                    .member("code", "mismatch")
                    .member("path", path.to_string_lossy())
                    .member("sha256", json!(found.map(|found| found.as_str().to_owned())));
                match why {
                    fs::Mismatch::Ambiguous { count, lines } => problem.member("count", count).member("lines", lines),
                    fs::Mismatch::NoOccurrence { count, .. } => problem.member("count", count),
                    fs::Mismatch::NoLines { has, .. } => problem.member("lineCount", has),
                    fs::Mismatch::Hunk { number, line } => problem.member("hunk", number).member("line", line),
                    fs::Mismatch::Missing | fs::Mismatch::Nothing | fs::Mismatch::Something => problem,
                }
            }
            Error::Stale(stale) => {
                let problem = Self::with_message(ErrorCode::Conflict, "conflict", &text)
                    .member("code", "stale")
                    .member("path", stale.path.to_string_lossy())
                    .member("baseSha256", stale.base)
                    .member("yourSha256", json!(stale.yours))
                    .member("currentSha256", json!(stale.current));
                match stale.merged {
                    None => problem,
                    Some(merged) => problem
                        .member("theirDiff", json!(merged.theirs))
                        .member("yourDiff", json!(merged.yours))
                        .member("merged", json!(merged.merged))
                        .member("mergesCleanly", merged.is_clean),
                }
            }
            Error::Conflicts(conflicts) => {
                let shown: Vec<_> = conflicts.iter().map(fs::Conflict::to_json).collect();
                Self::with_message(ErrorCode::Conflict, "conflict", &text).member("code", "conflicts").member("conflicts", shown)
            }
            Error::Leased(lease) => Self::with_message(ErrorCode::Conflict, "conflict", &text)
                .member("code", "leased")
                .member("leaseId", lease.id)
                .member("sessionId", lease.session_id)
                .member("endsAtMs", lease.ends_at_ms),
            Error::UnknownEdit { id } => Self::not_found("edit", id, &text),
            Error::Settled { status, .. } => {
                Self::with_message(ErrorCode::Conflict, "conflict", &text).member("code", "settled").member("editStatus", status)
            }
            Error::MovedOn(edits) => {
                let of =
                    |moved: fs::MovedOn| json!({"editId": moved.edit_id, "path": moved.path.to_string_lossy(), "why": moved.why});
                let shown: Vec<_> = edits.into_iter().map(of).collect();
                Self::with_message(ErrorCode::Conflict, "conflict", &text).member("code", "moved_on").member("movedOn", shown)
            }
            Error::Store(error) => error.into(),
            Error::Os { errno, path, .. } => Self::with_message(ErrorCode::AgentStartFailed, "stream error", &text)
                .member("errno", errno)
                .member("path", path.to_string_lossy()),
            Error::TooMuch { .. } => Self::new(ErrorCode::PayloadTooLarge, format!("invalid request: {text}")),
            Error::Busy { .. } => Self::new(ErrorCode::Busy, text),
            Error::TooMany { .. } => Self::new(ErrorCode::Busy, text),
            Error::Root { .. } => Self::new(ErrorCode::Internal, text),
            Error::RootGone(path) => Self::with_message(ErrorCode::Conflict, "conflict", &text)
                .member("code", "root_gone")
                .member("path", path.to_string_lossy()),
            Error::NoUpload(id) => Self::not_found("upload", id, &text),
            Error::BadOffset { offset } => {
                Self::with_message(ErrorCode::Conflict, "conflict", &text).member("code", "bad_offset").member("offset", offset)
            }
            Error::BadHash { expected, found } => Self::with_message(ErrorCode::Conflict, "conflict", &text)
                .member("code", "bad_hash")
                .member("expected", expected)
                .member("found", found),
            Error::InUse(_) => Self::with_message(ErrorCode::Conflict, "conflict", &text).member("code", "in_use"),
            Error::Stopping => Self::new(ErrorCode::Stopping, "the server is stopping: try again once it is back"),
        }
    }
}

impl From<git::Error> for ApiError {
    fn from(error: git::Error) -> Self {
        use git::Error;
        let (text, code) = (error.to_string(), error.code());
        match error {
            Error::Missing => Self::new(ErrorCode::GitUnavailable, text),
            Error::NotARepository(path) | Error::NoWorkTree(path) | Error::NotAWorktree(path) => {
                Self::invalid(text).member("code", code).member("path", path.to_string_lossy())
            }
            Error::Invalid(_) | Error::UnknownRevision(_) | Error::Refused(_) => Self::invalid(text).member("code", code),
            Error::Outside(path) => Self::new(ErrorCode::PermissionDenied, format!("permission denied: {text}"))
                .member("code", code)
                .member("path", path.to_string_lossy()),
            Error::Exists(_) | Error::InUse(_) | Error::Dirty { .. } | Error::Locked { .. } => {
                Self::with_message(ErrorCode::Conflict, "conflict", &text).member("code", code)
            }
            Error::TimedOut { .. } | Error::Failed { .. } => {
                Self::with_message(ErrorCode::AgentStartFailed, "stream error", &text).member("code", code)
            }
            Error::Busy { .. } => Self::new(ErrorCode::Busy, text),
            Error::Process(error) => error.into(),
            Error::Stopping => Self::new(ErrorCode::Stopping, "the server is stopping: try again once it is back"),
        }
    }
}

impl From<workspace::Error> for ApiError {
    fn from(error: workspace::Error) -> Self {
        use workspace::Error;
        let text = error.to_string();
        match error {
            Error::InvalidFile { .. } | Error::NameTooLong { .. } => Self::invalid(text),
            Error::NotFound { kind, name } => {
                Self::new(ErrorCode::SessionNotFound, text).member("sessionId", format!("{kind}:{name}"))
            }
            Error::TooManyEntries { .. } => Self::with_message(ErrorCode::Conflict, "conflict", &text),
            Error::TooLarge { .. } => Self::new(ErrorCode::PayloadTooLarge, format!("invalid request: {text}")),
            Error::NotWritten { .. } => Self::new(ErrorCode::StorageUnavailable, text),
        }
    }
}
