//! What took how long.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::http::extract::{ApiPath, ApiQuery};
use crate::http::problem::ApiError;
use crate::http::{AppState, ProblemDetails, page};
use crate::store::TraceFilter;
use crate::traces::views::{Timeline, ToolStats, Trace, TraceList, parse_cursor};

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list_traces))
        .routes(routes!(get_trace))
        .routes(routes!(get_session_timeline))
        .routes(routes!(get_tool_stats))
}

/// Kinds of spans.
const KINDS: [&str; 4] = ["turn", "tool_call", "permission", "process"];

#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
struct TracesQuery {
    /// Of this session.
    session_id: Option<String>,
    /// Whose first span is a `turn`, `process`, `tool_call` or `permission` (the latter two outside of any turn).
    kind: Option<String>,
    /// That began then or later, in Unix milliseconds.
    since_ms: Option<i64>,
    /// Traces in a page: at most `list_page_max`.
    #[param(minimum = 1, default = 50)]
    limit: Option<usize>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// Lists traces, newest first: one for each turn, and one for each process.
#[utoipa::path(get, path = "/v1/traces", tag = "traces", operation_id = "list_traces", params(TracesQuery),
    responses((status = 200, body = TraceList), (status = 400, body = ProblemDetails)))]
async fn list_traces(State(state): State<AppState>, ApiQuery(query): ApiQuery<TracesQuery>) -> Result<Json<TraceList>, ApiError> {
    let limit = page::size("limit", query.limit, page::LIST_DEFAULT, state.config.bounds.list_page_max)?;
    if let Some(kind) = query.kind.as_deref().filter(|kind| !KINDS.contains(kind)) {
        return Err(ApiError::invalid(format!("kind {kind:?} must be one of: {}", KINDS.join(", "))));
    }
    let TracesQuery { session_id, kind, since_ms, .. } = query;
    let filter = TraceFilter { session_id, kind, since_ms, before: check_cursor(query.cursor.as_deref())? };
    Ok(Json(state.traces.list(filter, limit).await?))
}

/// Shows a trace as a tree of spans.
#[utoipa::path(get, path = "/v1/traces/{trace_id}", tag = "traces", operation_id = "get_trace",
    params(("trace_id" = String, Path, description = "32 hex digits")),
    responses((status = 200, body = Trace), (status = 404, body = ProblemDetails)))]
async fn get_trace(State(state): State<AppState>, ApiPath(trace_id): ApiPath<String>) -> Result<Json<Trace>, ApiError> {
    Ok(Json(state.traces.trace(&trace_id).await?))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct TimelineQuery {
    /// Spans in a page; absent: `trace_spans_max`, which is also the most.
    #[param(minimum = 1)]
    limit: Option<usize>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// Shows what happened in a session as a waterfall: spans in the order in which they began, with their offsets.
#[utoipa::path(get, path = "/v1/sessions/{session_id}/timeline", tag = "traces", operation_id = "get_session_timeline",
    params(("session_id" = String, Path, description = "`ses_…`"), TimelineQuery),
    responses((status = 200, body = Timeline), (status = 400, body = ProblemDetails), (status = 404, body = ProblemDetails)))]
async fn get_session_timeline(
    State(state): State<AppState>,
    ApiPath(session_id): ApiPath<String>,
    ApiQuery(query): ApiQuery<TimelineQuery>,
) -> Result<Json<Timeline>, ApiError> {
    let limit = page::size("limit", query.limit, usize::MAX, state.config.bounds.trace_spans_max)?;
    let after = check_cursor(query.cursor.as_deref())?;
    Ok(Json(state.traces.timeline(&session_id, after, limit).await?))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
struct StatsQuery {
    /// Of this session.
    session_id: Option<String>,
    /// Calls that began then or later, in Unix milliseconds.
    since_ms: Option<i64>,
}

/// Shows how often tools were called, how often they failed, and how long they took, by tool and agent.
#[utoipa::path(get, path = "/v1/stats/tools", tag = "traces", operation_id = "get_tool_stats", params(StatsQuery),
    responses((status = 200, body = ToolStats), (status = 400, body = ProblemDetails)))]
async fn get_tool_stats(
    State(state): State<AppState>,
    ApiQuery(query): ApiQuery<StatsQuery>,
) -> Result<Json<ToolStats>, ApiError> {
    Ok(Json(state.traces.tools(query.session_id.as_deref(), query.since_ms).await?))
}

fn check_cursor(cursor: Option<&str>) -> Result<Option<(i64, String)>, ApiError> {
    let parse = |text| parse_cursor(text).ok_or_else(|| ApiError::invalid("cursor must be the next of the page before"));
    cursor.map(parse).transpose()
}
