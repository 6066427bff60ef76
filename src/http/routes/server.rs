//! The server itself: what it is, whether it works, how it is spoken to.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::response::{Html, IntoResponse, Response};
use http::{HeaderValue, header};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::KeeperStatus;
use crate::crashes::{CrashReport, PanicReport};
use crate::http::{AppState, ProblemDetails, SafeModeHealth, SafeModeStatus, docs};
use crate::rt::clock::now_ms;
use crate::store;
use crate::traces::ExportStatus;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(get_root))
        .routes(routes!(get_health))
        .routes(routes!(get_status))
        .routes(routes!(get_openapi))
        .routes(routes!(get_docs))
}

/// What answers at this address.
#[derive(Debug, Serialize, ToSchema)]
struct Root {
    /// Where the API is described.
    docs: &'static str,
    name: &'static str,
    version: &'static str,
}

/// Says what this is.
#[utoipa::path(get, path = "/", tag = "server", operation_id = "get_root", security(()), responses((status = 200, body = Root)))]
async fn get_root() -> Json<Root> {
    Json(Root { docs: "/docs", name: "sandboxd", version: env!("CARGO_PKG_VERSION") })
}

/// Answers as long as the server does.
#[derive(Debug, Serialize, ToSchema)]
struct Health {
    /// Always `ok`.
    #[schema(example = "ok")]
    status: &'static str,
}

/// Says that the server answers.
#[utoipa::path(get, path = "/v1/health", tag = "server", operation_id = "get_health",
    responses((status = 200, body = Health), (status = 401, body = ProblemDetails),
        (status = 503, body = SafeModeHealth, description = "Safe mode: the server died too often and only says why")))]
async fn get_health() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// The server and what it runs on.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ServerStatus {
    version: &'static str,
    /// Milliseconds since the start.
    uptime_ms: i64,
    pid: u32,
    /// The user's home directory, when there is one.
    home: Option<String>,
    /// `linux`.
    os: &'static str,
    /// As `x86_64` or `aarch64`.
    arch: &'static str,
    storage: StorageStatus,
    /// The process above the server; absent without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    keeper: Option<KeeperStatus>,
    /// How often the keeper started a server again.
    restarts: u64,
    /// How the last server ended that did not want to: the first of `crashes`.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_crash: Option<CrashReport>,
    /// The reports that are kept, newest first, over all runs.
    crashes: Vec<CrashReport>,
    /// The last panic of this very server, which ended one of its tasks.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_panic: Option<PanicReport>,
    /// What became of spans that are sent to a collector; absent when none is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    span_export: Option<ExportStatus>,
}

/// The database.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct StorageStatus {
    /// `healthy`, `degraded` while the disk refuses writes (events then live in memory only), or `damaged`.
    status: &'static str,
    /// The file.
    path: String,
    /// Why it is degraded or damaged.
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<String>,
    /// Events that could not be kept since it is degraded.
    #[serde(skip_serializing_if = "Option::is_none")]
    events_not_kept: Option<u64>,
    /// Since when, in Unix milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    since_ms: Option<i64>,
    /// `sound` when the file was closed in order or checked, `checking` while that goes on after a kill, or `damaged`.
    integrity: &'static str,
    /// The damaged file that was set aside last, as long as it is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    set_aside: Option<SetAsideInfo>,
}

/// A damaged database that was set aside.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct SetAsideInfo {
    /// Where it lies.
    path: String,
    /// When, in Unix milliseconds.
    at_ms: i64,
    /// What was wrong.
    cause: String,
    /// Rows that were kept, by table.
    rows: BTreeMap<String, u64>,
    /// Tables of which rows are missing, or all.
    incomplete: Vec<String>,
    /// What to do.
    help: &'static str,
}

impl From<&store::SetAside> for SetAsideInfo {
    fn from(aside: &store::SetAside) -> Self {
        Self {
            path: aside.path.display().to_string(),
            at_ms: aside.at_ms,
            cause: aside.cause.clone(),
            rows: aside.rows.clone(),
            incomplete: aside.incomplete.clone(),
            help: "Stop the server and put a backup back (sandboxd state restore FILE), or remove the file that was set aside.",
        }
    }
}

impl From<&store::Store> for StorageStatus {
    fn from(store: &store::Store) -> Self {
        let healthy = Self {
            status: "healthy",
            path: store.path().display().to_string(),
            cause: None,
            events_not_kept: None,
            since_ms: None,
            integrity: "sound",
            set_aside: store.set_aside().map(Into::into),
        };
        let known = match store.integrity() {
            store::Integrity::Sound => healthy,
            store::Integrity::Checking => Self { integrity: "checking", ..healthy },
            store::Integrity::Damaged { cause, since_ms } => {
                Self { status: "damaged", integrity: "damaged", cause: Some(cause), since_ms: Some(since_ms), ..healthy }
            }
        };
        match store.health() {
            store::Health::Healthy => known,
            store::Health::Degraded { cause, events_not_kept, since_ms } => Self {
                status: "degraded",
                cause: Some(cause),
                events_not_kept: Some(events_not_kept),
                since_ms: Some(since_ms),
                ..known
            },
        }
    }
}

/// Shows the server, its machine and its storage.
#[utoipa::path(get, path = "/v1/status", tag = "server", operation_id = "get_status",
    responses((status = 200, body = ServerStatus), (status = 503, body = SafeModeStatus, description = "Safe mode")))]
async fn get_status(State(state): State<AppState>) -> Json<ServerStatus> {
    let crashes = state.crashes.list();
    Json(ServerStatus {
        version: env!("CARGO_PKG_VERSION"),
        uptime_ms: now_ms() - state.started_at_ms,
        pid: std::process::id(),
        home: state.config.dirs.home.as_ref().map(|home| home.display().to_string()),
        os: std::env::consts::OS,
        arch: std::env::consts::ARCH,
        storage: (&state.store).into(),
        keeper: KeeperStatus::of(&state.keeper),
        restarts: state.keeper.starts() - 1,
        last_crash: crashes.first().cloned(),
        crashes,
        last_panic: state.crashes.last_panic(),
        span_export: state.traces.export_status(),
    })
}

/// This document.
#[utoipa::path(get, path = "/v1/openapi.json", tag = "server", operation_id = "get_openapi",
    responses((status = 200, description = "OpenAPI 3.1", body = serde_json::Value)))]
async fn get_openapi() -> Response {
    Json(super::openapi()).into_response()
}

/// The same for people.
#[utoipa::path(get, path = "/docs", tag = "server", operation_id = "get_docs", security(()),
    responses((status = 200, description = "A page", content_type = "text/html", body = String)))]
async fn get_docs() -> Response {
    let policy = HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'");
    ([(header::CONTENT_SECURITY_POLICY, policy)], Html(docs::page(&super::openapi()))).into_response()
}
