//! Starting the server anew, as it is or from another program, while all that runs goes on.

use std::path::Path;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::http::extract::ApiJson;
use crate::http::problem::{ApiError, ErrorCode};
use crate::http::{AppState, ProblemDetails};
use crate::keeper::Keeper;
use crate::rt::files::is_executable;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(restart_server)).routes(routes!(upgrade_server))
}

/// Time for a newer program to get ready, when the request has none.
const TIMEOUT_DEFAULT_MS: u64 = 30_000;

/// The longest such time.
const TIMEOUT_MAX_MS: u64 = 600_000;

/// The process above the server.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeeperStatus {
    pid: u32,
    /// Names the keeper's run: the same over restarts of the server.
    run_id: String,
    /// How often a server was started, with this one.
    starts: u64,
    /// True when the keeper is gone: what runs goes on, and will not outlive this server any more.
    lost: bool,
    /// The program that it starts as the server.
    program: String,
}

impl KeeperStatus {
    /// `None` without one.
    pub fn of(keeper: &Keeper) -> Option<Self> {
        Some(Self {
            pid: keeper.pid()?,
            run_id: keeper.run_id()?.to_owned(),
            starts: keeper.starts(),
            lost: keeper.is_lost(),
            program: keeper.program()?.display().to_string(),
        })
    }
}

/// A restart is under way.
#[derive(Debug, Serialize, ToSchema)]
pub struct Restarting {
    /// `keeper.starts` of the server that comes.
    starts: u64,
}

impl Restarting {
    /// The restart that follows.
    pub fn of(keeper: &Keeper) -> Self {
        Self { starts: keeper.starts() + 1 }
    }
}

impl IntoResponse for Restarting {
    fn into_response(self) -> Response {
        (StatusCode::ACCEPTED, Json(self)).into_response()
    }
}

/// Another program that is to be the server.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UpgradeRequest {
    /// The program's absolute path on the server's machine. It is started with the server's own arguments and rights.
    path: String,
    /// Time for it to get ready; otherwise the present program is started again.
    #[schema(minimum = 1, maximum = 600_000, default = 30_000)]
    timeout_ms: Option<u64>,
}

impl UpgradeRequest {
    /// Tells the keeper, and asks for the restart.
    ///
    /// # Errors
    /// 400 for what can't be executed or waited for, 409 without a keeper.
    pub fn carry_out(self, keeper: &Keeper, restart: &CancellationToken) -> Result<Restarting, ApiError> {
        check_keeper(keeper)?;
        let timeout_ms = self.timeout_ms.unwrap_or(TIMEOUT_DEFAULT_MS);
        if !(1..=TIMEOUT_MAX_MS).contains(&timeout_ms) {
            return Err(ApiError::invalid(format!("timeoutMs must be 1 to {TIMEOUT_MAX_MS}")));
        }
        let path = Path::new(&self.path);
        if !path.is_absolute() || !is_executable(path) {
            let why = format!("{} is no absolute path of a file that may be executed here", self.path);
            return Err(ApiError::invalid(why).member("code", "not_executable"));
        }
        let told = keeper.upgrade(path, Duration::from_millis(timeout_ms));
        told.map_err(|error| no_keeper(&format!("the keeper can't be told: {error}")))?;
        restart.cancel();
        Ok(Restarting::of(keeper))
    }
}

/// Starts the server anew. Agents, processes and terminals go on, connects wait; open requests get a second, event streams
/// end and can be resumed. Needs the keeper (409, `code` `no_keeper`).
#[utoipa::path(post, path = "/v1/server/restart", tag = "server", operation_id = "restart_server",
    responses((status = 202, body = Restarting), (status = 409, body = ProblemDetails)))]
async fn restart_server(State(state): State<AppState>) -> Result<Restarting, ApiError> {
    check_keeper(&state.keeper)?;
    state.restart.cancel();
    Ok(Restarting::of(&state.keeper))
}

/// The same with another program as the server. When that doesn't get ready in time, the present one is started again, and the
/// failure is `lastCrash` in `GET /v1/status` with `upgrade`: true.
#[utoipa::path(post, path = "/v1/server/upgrade", tag = "server", operation_id = "upgrade_server", request_body = UpgradeRequest,
    responses((status = 202, body = Restarting), (status = 400, body = ProblemDetails), (status = 409, body = ProblemDetails)))]
async fn upgrade_server(State(state): State<AppState>, ApiJson(body): ApiJson<UpgradeRequest>) -> Result<Restarting, ApiError> {
    body.carry_out(&state.keeper, &state.restart)
}

fn check_keeper(keeper: &Keeper) -> Result<(), ApiError> {
    let help = "stop the server and start it again by hand; what it runs ends with it";
    match (keeper.is_there(), keeper.is_lost()) {
        (true, _) => Ok(()),
        (false, true) => Err(no_keeper(&format!("the keeper is gone, so nobody would start the server again: {help}"))),
        (false, false) => Err(no_keeper(&format!("the server runs without a keeper, so nobody would start it again: {help}"))),
    }
}

fn no_keeper(why: &str) -> ApiError {
    ApiError::with_message(ErrorCode::Conflict, "conflict", why).member("code", "no_keeper")
}
