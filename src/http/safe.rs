//! What a server in safe mode answers: why it is there, to whom has the token.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use super::extract::{ApiJson, BodyLimit};
use super::problem::{ApiError, ErrorCode};
use super::routes::{KeeperStatus, Restarting, UpgradeRequest};
use crate::config::{Config, as_duration, as_usize};
use crate::crashes::{CrashReport, Crashes};
use crate::keeper::Keeper;
use crate::rt::clock::now_ms;

/// What there is in safe mode.
#[derive(Clone)]
pub struct SafeMode {
    /// What the server runs with.
    pub config: Arc<Config>,
    /// How the servers before ended.
    pub crashes: Crashes,
    /// Who starts the next.
    pub keeper: Keeper,
    /// Asks for a normal start at once.
    pub restart: CancellationToken,
    /// When a normal start is tried, in Unix milliseconds.
    pub retry_at_ms: i64,
    /// When this server started, in Unix milliseconds.
    pub started_at_ms: i64,
}

impl BodyLimit for SafeMode {
    fn body_max_bytes(&self) -> usize {
        as_usize(self.config.bounds.http_body_max_bytes)
    }

    fn large_body_max_bytes(&self) -> usize {
        self.body_max_bytes()
    }

    fn body_idle_timeout(&self) -> Duration {
        as_duration(self.config.bounds.http_body_idle_timeout_ms)
    }
}

impl SafeMode {
    /// Why it is there, in words.
    pub fn reason(&self) -> String {
        let count = self.keeper.crashes();
        let last = self.crashes.list().into_iter().next();
        let stderr = last.as_ref().and_then(|last| last.stderr.as_deref()).unwrap_or_default();
        let line = stderr.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
        let line = line.strip_prefix("sandboxd: ").unwrap_or(line);
        let (how, said) = (last.as_ref().map(CrashReport::in_words).unwrap_or_default(), if line.is_empty() { "" } else { ": " });
        format!("the server died {count} times in a row soon after its start; the last one {how}{said}{line}")
    }

    /// Time until a normal start is tried.
    pub fn retry_in_ms(&self) -> u64 {
        u64::try_from(self.retry_at_ms - now_ms()).unwrap_or(0)
    }

    fn health(&self) -> SafeModeHealth {
        SafeModeHealth {
            status: "safe_mode",
            reason: self.reason(),
            crash_count: self.keeper.crashes(),
            retry_in_ms: self.retry_in_ms(),
        }
    }
}

/// Why the server only answers this.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SafeModeHealth {
    /// Always `safe_mode`.
    #[schema(example = "safe_mode")]
    status: &'static str,
    /// In words.
    reason: String,
    /// How many servers died in a row, each soon after its start.
    crash_count: u64,
    /// Time until a normal start is tried; `POST /v1/server/restart` tries it at once.
    retry_in_ms: u64,
}

/// The status of a server in safe mode.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SafeModeStatus {
    #[serde(flatten)]
    health: SafeModeHealth,
    version: &'static str,
    /// Milliseconds since the start.
    uptime_ms: i64,
    pid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    keeper: Option<KeeperStatus>,
    /// How the last server died.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_crash: Option<CrashReport>,
    /// The reports that are kept, newest first.
    crashes: Vec<CrashReport>,
}

/// The service in safe mode, with the rules of the normal one about who may come in.
pub fn safe_router(state: SafeMode) -> Router {
    let config = Arc::clone(&state.config);
    let routes = Router::new()
        .route("/v1/health", get(health))
        .route("/v1/status", get(status))
        .route("/v1/server/restart", post(restart))
        .route("/v1/server/upgrade", post(upgrade))
        .fallback(refused)
        .method_not_allowed_fallback(refused)
        .with_state(state);
    super::dressed(routes, &config)
}

async fn health(State(state): State<SafeMode>) -> Response {
    unavailable(&state, Json(state.health()))
}

async fn status(State(state): State<SafeMode>) -> Response {
    let crashes = state.crashes.list();
    let status = SafeModeStatus {
        health: state.health(),
        version: env!("CARGO_PKG_VERSION"),
        uptime_ms: now_ms() - state.started_at_ms,
        pid: std::process::id(),
        keeper: KeeperStatus::of(&state.keeper),
        last_crash: crashes.first().cloned(),
        crashes,
    };
    unavailable(&state, Json(status))
}

async fn restart(State(state): State<SafeMode>) -> Response {
    state.restart.cancel();
    Restarting::of(&state.keeper).into_response()
}

async fn upgrade(State(state): State<SafeMode>, ApiJson(asked): ApiJson<UpgradeRequest>) -> Result<Restarting, ApiError> {
    asked.carry_out(&state.keeper, &state.restart)
}

async fn refused(State(state): State<SafeMode>, request: Request) -> Response {
    let detail = format!(
        "{} {} has to wait, for the server is in safe mode: {}. What runs lives on. Remove the cause; a normal start is tried in {} ms, \
         or at once by POST /v1/server/restart. GET /v1/status has the last crash",
        request.method(),
        request.uri().path(),
        state.reason(),
        state.retry_in_ms()
    );
    unavailable(&state, ApiError::new(ErrorCode::SafeMode, detail))
}

fn unavailable(state: &SafeMode, body: impl IntoResponse) -> Response {
    let after = HeaderValue::from(state.retry_in_ms().div_ceil(1000));
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, after)], body).into_response()
}
