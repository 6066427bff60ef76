//! From the making of a session to its deletion.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::idempotency_key;
use crate::http::extract::{ApiJson, ApiPath, ApiQuery};
use crate::http::problem::ApiError;
use crate::http::{AppState, ProblemDetails, page};
use crate::sessions::{SessionInfo, SessionPatch, SessionSpec};
use crate::store::SessionFilter;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list_sessions, create_session))
        .routes(routes!(get_session, patch_session, delete_session))
        .routes(routes!(close_session))
        .routes(routes!(reopen_session))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// Of this agent.
    agent: Option<String>,
    /// In this working directory.
    cwd: Option<String>,
    /// Carried by this ACP server.
    server_id: Option<String>,
    /// Only closed ones, or only open ones.
    closed: Option<bool>,
    /// `nextCursor` of the page before.
    cursor: Option<String>,
    /// How many: at most `list_page_max`.
    #[param(minimum = 1, default = 50)]
    limit: Option<usize>,
}

/// A page of sessions.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct SessionList {
    /// By last change, newest first.
    sessions: Vec<SessionInfo>,
    /// Present when there are more.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// Lists sessions, of all doors.
#[utoipa::path(get, path = "/v1/sessions", tag = "sessions", operation_id = "list_sessions", params(ListQuery),
    responses((status = 200, body = SessionList), (status = 400, body = ProblemDetails)))]
async fn list_sessions(
    State(state): State<AppState>,
    ApiQuery(query): ApiQuery<ListQuery>,
) -> Result<Json<SessionList>, ApiError> {
    let limit = page::size("limit", query.limit, page::LIST_DEFAULT, state.config.bounds.list_page_max)?;
    let before = query.cursor.as_deref().map(parse_cursor).transpose()?;
    let filter = SessionFilter { agent: query.agent, cwd: query.cwd, server_id: query.server_id, closed: query.closed, before };
    let mut sessions = state.sessions.list(filter, limit + 1).await?;
    let is_more = sessions.len() > limit;
    sessions.truncate(limit);
    let next_cursor = sessions.last().filter(|_| is_more).map(cursor_of);
    Ok(Json(SessionList { sessions, next_cursor }))
}

fn cursor_of(session: &SessionInfo) -> String {
    URL_SAFE_NO_PAD.encode(format!("{} {}", session.updated_at_ms, session.id))
}

fn parse_cursor(cursor: &str) -> Result<(i64, String), ApiError> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok();
    let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    let parsed = text.as_deref().and_then(|text| {
        let (time, id) = text.split_once(' ')?;
        Some((time.parse().ok()?, id.to_owned()))
    });
    parsed.ok_or_else(|| ApiError::invalid("cursor must be the nextCursor of a page before"))
}

/// Makes a session: starts its agent where it doesn't run, opens an ACP session, and sets mode, model and options. A
/// retry with the same `Idempotency-Key` gives the session that was made the first time.
#[utoipa::path(post, path = "/v1/sessions", tag = "sessions", operation_id = "create_session", request_body = SessionSpec,
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key never makes two sessions")),
    responses((status = 201, body = SessionInfo), (status = 200, body = SessionInfo, description = "Made before under this key"),
        (status = 400, body = ProblemDetails), (status = 404, body = ProblemDetails, description = "The agent is not installed"),
        (status = 409, body = ProblemDetails), (status = 413, body = ProblemDetails), (status = 415, body = ProblemDetails),
        (status = 422, body = ProblemDetails, description = "Another shape is asked for, or the agent doesn't offer it"),
        (status = 500, body = ProblemDetails), (status = 502, body = ProblemDetails, description = "The agent refused"),
        (status = 503, body = ProblemDetails), (status = 507, body = ProblemDetails)))]
async fn create_session(
    State(state): State<AppState>,
    headers: HeaderMap,
    ApiJson(spec): ApiJson<SessionSpec>,
) -> Result<Response, ApiError> {
    let key = idempotency_key(&headers)?;
    let (session, is_new) = state.sessions.create(spec, key).await?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(session)).into_response())
}

/// Shows a session.
#[utoipa::path(get, path = "/v1/sessions/{id}", tag = "sessions", operation_id = "get_session",
    params(("id" = String, Path, description = "`ses_…`")),
    responses((status = 200, body = SessionInfo), (status = 404, body = ProblemDetails)))]
async fn get_session(State(state): State<AppState>, ApiPath(id): ApiPath<String>) -> Result<Json<SessionInfo>, ApiError> {
    Ok(Json(state.sessions.get(&id).await?))
}

/// Changes a session; absent members stay.
#[utoipa::path(patch, path = "/v1/sessions/{id}", tag = "sessions", operation_id = "patch_session", request_body = SessionPatch,
    params(("id" = String, Path, description = "`ses_…`")),
    responses((status = 200, body = SessionInfo), (status = 400, body = ProblemDetails), (status = 404, body = ProblemDetails),
        (status = 413, body = ProblemDetails), (status = 415, body = ProblemDetails),
        (status = 422, body = ProblemDetails, description = "Another shape is asked for, or the agent doesn't offer it"),
        (status = 502, body = ProblemDetails, description = "The agent refused")))]
async fn patch_session(
    State(state): State<AppState>,
    ApiPath(id): ApiPath<String>,
    ApiJson(patch): ApiJson<SessionPatch>,
) -> Result<Json<SessionInfo>, ApiError> {
    Ok(Json(state.sessions.change(&id, patch).await?))
}

/// Deletes a session with everything that was said in it, here and at its agent when that can.
#[utoipa::path(delete, path = "/v1/sessions/{id}", tag = "sessions", operation_id = "delete_session",
    params(("id" = String, Path, description = "`ses_…`")),
    responses((status = 204, description = "It is gone"), (status = 404, body = ProblemDetails)))]
async fn delete_session(State(state): State<AppState>, ApiPath(id): ApiPath<String>) -> Result<StatusCode, ApiError> {
    state.sessions.delete(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Ends a session's work; it stays listed and readable, and takes no more messages.
#[utoipa::path(post, path = "/v1/sessions/{id}/close", tag = "sessions", operation_id = "close_session",
    params(("id" = String, Path, description = "`ses_…`")),
    responses((status = 200, body = SessionInfo), (status = 404, body = ProblemDetails)))]
async fn close_session(State(state): State<AppState>, ApiPath(id): ApiPath<String>) -> Result<Json<SessionInfo>, ApiError> {
    Ok(Json(state.sessions.close(&id).await?))
}

/// Lets a closed session take messages again.
#[utoipa::path(post, path = "/v1/sessions/{id}/reopen", tag = "sessions", operation_id = "reopen_session",
    params(("id" = String, Path, description = "`ses_…`")),
    responses((status = 200, body = SessionInfo), (status = 404, body = ProblemDetails)))]
async fn reopen_session(State(state): State<AppState>, ApiPath(id): ApiPath<String>) -> Result<Json<SessionInfo>, ApiError> {
    Ok(Json(state.sessions.reopen(&id).await?))
}
