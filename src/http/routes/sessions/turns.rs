//! Messages and the turns that they become.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::idempotency_key;
use crate::http::extract::{ApiPath, ApiQuery, LargeJson, OptionalJson};
use crate::http::problem::ApiError;
use crate::http::{AppState, ProblemDetails, page, slow};
use crate::sessions::{MessageSpec, Submitted, TurnInfo};

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(submit_message))
        .routes(routes!(interrupt_session))
        .routes(routes!(list_turns))
        .routes(routes!(get_turn, cancel_turn))
}

/// Submits a message: it becomes a turn, at once or behind those that wait. Answered when the turn is in the file, long
/// before it ends. A retry with the same `Idempotency-Key` never prompts twice.
#[utoipa::path(post, path = "/v1/sessions/{id}/messages", tag = "sessions", operation_id = "submit_message",
    request_body = MessageSpec,
    params(("id" = String, Path, description = "`ses_…`"),
           ("Idempotency-Key" = Option<String>, Header, description = "The same key never prompts twice")),
    responses((status = 202, body = Submitted), (status = 400, body = ProblemDetails), (status = 404, body = ProblemDetails),
        (status = 409, body = ProblemDetails, description = "The session is closed or busy, or the key was used for something else"),
        (status = 413, body = ProblemDetails), (status = 415, body = ProblemDetails), (status = 422, body = ProblemDetails),
        (status = 503, body = ProblemDetails, description = "Too many turns wait")))]
async fn submit_message(
    State(state): State<AppState>,
    ApiPath(id): ApiPath<String>,
    headers: HeaderMap,
    LargeJson(message): LargeJson<MessageSpec>,
) -> Result<Response, ApiError> {
    let key = idempotency_key(&headers)?;
    let submitted = state.sessions.submit(&id, message, key).await?;
    Ok((StatusCode::ACCEPTED, Json(submitted)).into_response())
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct InterruptSpec {
    /// Also take out what waits in the queue.
    drop_queue: bool,
}

/// What an interrupt came to.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Interrupted {
    /// False when no turn was under way.
    interrupted: bool,
}

/// Ends the turn under way. An agent that doesn't end it in its time loses it, and is ended when nothing else goes on in
/// its process.
#[utoipa::path(post, path = "/v1/sessions/{id}/interrupt", tag = "sessions", operation_id = "interrupt_session",
    request_body = Option<InterruptSpec>, params(("id" = String, Path, description = "`ses_…`")),
    responses((status = 202, body = Interrupted), (status = 400, body = ProblemDetails), (status = 404, body = ProblemDetails),
        (status = 415, body = ProblemDetails), (status = 422, body = ProblemDetails)))]
async fn interrupt_session(
    State(state): State<AppState>,
    ApiPath(id): ApiPath<String>,
    OptionalJson(spec): OptionalJson<InterruptSpec>,
) -> Result<Response, ApiError> {
    let interrupted = state.sessions.interrupt(&id, spec.drop_queue).await?;
    Ok((StatusCode::ACCEPTED, Json(Interrupted { interrupted })).into_response())
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct TurnsQuery {
    /// Turns after this number.
    #[serde(default)]
    after: u64,
    /// How many: at most `list_page_max`.
    #[param(minimum = 1, default = 50)]
    limit: Option<usize>,
}

/// Turns by number.
#[derive(Debug, Serialize, ToSchema)]
struct TurnList {
    turns: Vec<TurnInfo>,
}

/// Lists a session's turns, of all doors, those that wait included.
#[utoipa::path(get, path = "/v1/sessions/{id}/turns", tag = "sessions", operation_id = "list_turns",
    params(("id" = String, Path, description = "`ses_…`"), TurnsQuery),
    responses((status = 200, body = TurnList), (status = 400, body = ProblemDetails), (status = 404, body = ProblemDetails)))]
async fn list_turns(
    State(state): State<AppState>,
    ApiPath(id): ApiPath<String>,
    ApiQuery(query): ApiQuery<TurnsQuery>,
) -> Result<Json<TurnList>, ApiError> {
    let limit = page::size("limit", query.limit, page::LIST_DEFAULT, state.config.bounds.list_page_max)?;
    Ok(Json(TurnList { turns: state.sessions.turns(&id, query.after, limit).await? }))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
struct TurnQuery {
    /// Wait so long for its end, in milliseconds; at most `long_poll_max_ms`.
    #[serde(default)]
    wait_ms: u64,
}

/// Shows a turn; with `waitMs` once it has ended, or as it is when the time is over.
#[utoipa::path(get, path = "/v1/sessions/{id}/turns/{turn_id}", tag = "sessions", operation_id = "get_turn",
    params(("id" = String, Path, description = "`ses_…`"), ("turn_id" = String, Path, description = "`turn_…`"), TurnQuery),
    responses((status = 200, body = TurnInfo), (status = 400, body = ProblemDetails), (status = 404, body = ProblemDetails)))]
async fn get_turn(
    State(state): State<AppState>,
    ApiPath((id, turn_id)): ApiPath<(String, String)>,
    ApiQuery(query): ApiQuery<TurnQuery>,
) -> Result<Json<TurnInfo>, ApiError> {
    let wait = slow::wait(query.wait_ms, &state.config.bounds)?;
    tokio::select! {
        turn = state.sessions.turn(&id, &turn_id, wait) => Ok(Json(turn?)),
        () = state.stop.cancelled() => Ok(Json(state.sessions.turn(&id, &turn_id, Duration::ZERO).await?)),
    }
}

/// Takes a turn out of the queue, or interrupts it when it is under way.
#[utoipa::path(delete, path = "/v1/sessions/{id}/turns/{turn_id}", tag = "sessions", operation_id = "cancel_turn",
    params(("id" = String, Path, description = "`ses_…`"), ("turn_id" = String, Path, description = "`turn_…`")),
    responses((status = 202, body = Interrupted, description = "`interrupted` is false when it had ended"),
        (status = 404, body = ProblemDetails)))]
async fn cancel_turn(
    State(state): State<AppState>,
    ApiPath((id, turn_id)): ApiPath<(String, String)>,
) -> Result<Response, ApiError> {
    let interrupted = state.sessions.cancel(&id, &turn_id).await?;
    Ok((StatusCode::ACCEPTED, Json(Interrupted { interrupted })).into_response())
}
