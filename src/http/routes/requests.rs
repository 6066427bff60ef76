//! `/v1/requests`: what waits for a decision, and the rules that decide.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::config::as_duration;
use crate::http::extract::{ApiJson, ApiPath, ApiQuery};
use crate::http::problem::ApiError;
use crate::http::{AppState, ProblemDetails, page, slow};
use crate::sessions::gate::{Answer, ListFilter, RequestInfo, RequestKind, RequestPage, RequestState, Resolved, Rule, RuleInfo};

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list_requests))
        .routes(routes!(get_request_policy, set_request_policy))
        .routes(routes!(list_request_rules))
        .routes(routes!(delete_request_rule))
        .routes(routes!(get_request))
        .routes(routes!(resolve_request))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// Only those that are `pending`, or `resolved`. `status` is the same.
    #[serde(alias = "status")]
    #[param(inline)]
    state: Option<RequestState>,
    /// Only those of this session.
    #[serde(alias = "session_id")]
    session_id: Option<String>,
    /// Only those of this kind.
    #[param(inline)]
    kind: Option<RequestKind>,
    /// How many: at most `list_page_max`.
    #[param(minimum = 1, default = 50)]
    limit: Option<usize>,
    /// `nextCursor` of the page before.
    cursor: Option<String>,
}

/// Lists requests, newest first. Those that are resolved say who, or which rule, decided.
#[utoipa::path(get, path = "/v1/requests", tag = "requests", operation_id = "list_requests", params(ListQuery),
    responses((status = 200, body = RequestPage), (status = 400, body = ProblemDetails)))]
async fn list_requests(
    State(state): State<AppState>,
    ApiQuery(query): ApiQuery<ListQuery>,
) -> Result<Json<RequestPage>, ApiError> {
    let limit = page::size("limit", query.limit, page::LIST_DEFAULT, state.config.bounds.list_page_max)?;
    let filter = ListFilter { state: query.state, session_id: query.session_id, kind: query.kind, before: query.cursor };
    Ok(Json(state.sessions.gate().list(filter, limit).await?))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
struct GetQuery {
    /// While it is pending, how long to wait for its end, in milliseconds; at most `long_poll_max_ms`.
    #[serde(default)]
    wait_ms: u64,
}

/// Shows a request; with `waitMs` as soon as it is resolved, or when that time is over. A long wait sends white space
/// before the JSON.
#[utoipa::path(get, path = "/v1/requests/{id}", tag = "requests", operation_id = "get_request",
    params(("id" = String, Path, description = "`req_…`"), GetQuery),
    responses((status = 200, body = RequestInfo), (status = 400, body = ProblemDetails), (status = 404, body = ProblemDetails)))]
async fn get_request(
    State(state): State<AppState>,
    ApiPath(id): ApiPath<String>,
    ApiQuery(query): ApiQuery<GetQuery>,
) -> Result<Response, ApiError> {
    let bounds = &state.config.bounds;
    let wait = slow::wait(query.wait_ms, bounds)?;
    state.sessions.gate().get(&id, Duration::ZERO).await?; // one that isn't there has its own status, however long the wait
    let keepalive = as_duration(bounds.acp_post_keepalive_ms);
    slow::json(async move { Ok(state.sessions.gate().get(&id, wait).await?) }, keepalive).await
}

/// Decides a request. The first answer counts, from whatever door; the same decision again is no error.
#[utoipa::path(post, path = "/v1/requests/{id}/resolve", tag = "requests", operation_id = "resolve_request",
    params(("id" = String, Path, description = "`req_…`")), request_body = Answer,
    responses((status = 200, body = Resolved),
        (status = 400, body = ProblemDetails, description = "The answer doesn't fit the request"),
        (status = 404, body = ProblemDetails),
        (status = 409, body = ProblemDetails, description = "It was decided otherwise before; `request` says by whom"),
        (status = 413, body = ProblemDetails), (status = 415, body = ProblemDetails), (status = 422, body = ProblemDetails),
        (status = 503, body = ProblemDetails)))]
async fn resolve_request(
    State(state): State<AppState>,
    ApiPath(id): ApiPath<String>,
    ApiJson(answer): ApiJson<Answer>,
) -> Result<Json<Resolved>, ApiError> {
    Ok(Json(state.sessions.gate().resolve(&id, answer).await?))
}

/// The rules that decide before anybody is asked, in their order.
#[derive(Debug, Serialize, ToSchema)]
struct Policy {
    rules: Vec<Rule>,
}

/// Shows the policy.
#[utoipa::path(get, path = "/v1/requests/policy", tag = "requests", operation_id = "get_request_policy",
    responses((status = 200, body = Policy)))]
async fn get_request_policy(State(state): State<AppState>) -> Json<Policy> {
    Json(Policy { rules: state.sessions.gate().policy() })
}

/// A policy as it is set.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewPolicy {
    /// All of its rules; the first that matches decides.
    #[schema(value_type = Vec<Rule>)]
    rules: Vec<Value>,
}

/// Replaces the policy, whole. It holds for what is asked from now on, over restarts, too.
#[utoipa::path(put, path = "/v1/requests/policy", tag = "requests", operation_id = "set_request_policy", request_body = NewPolicy,
    responses((status = 200, body = Policy),
        (status = 400, body = ProblemDetails, description = "A rule can't be used: `rule`, `id` and `field` say which"),
        (status = 413, body = ProblemDetails), (status = 415, body = ProblemDetails), (status = 422, body = ProblemDetails),
        (status = 507, body = ProblemDetails)))]
async fn set_request_policy(
    State(state): State<AppState>,
    ApiJson(policy): ApiJson<NewPolicy>,
) -> Result<Json<Policy>, ApiError> {
    Ok(Json(Policy { rules: state.sessions.gate().set_policy(policy.rules).await? }))
}

/// All rules that hold.
#[derive(Debug, Serialize, ToSchema)]
struct RuleList {
    rules: Vec<RuleInfo>,
}

/// Lists the rules in force: the policy's, then the decisions that are remembered.
#[utoipa::path(get, path = "/v1/requests/rules", tag = "requests", operation_id = "list_request_rules",
    responses((status = 200, body = RuleList)))]
async fn list_request_rules(State(state): State<AppState>) -> Json<RuleList> {
    Json(RuleList { rules: state.sessions.gate().rules() })
}

/// Forgets a decision that is remembered. Rules of the policy change with the policy.
#[utoipa::path(delete, path = "/v1/requests/rules/{id}", tag = "requests", operation_id = "delete_request_rule",
    params(("id" = String, Path, description = "`rule_…`")),
    responses((status = 204), (status = 404, body = ProblemDetails), (status = 507, body = ProblemDetails)))]
async fn delete_request_rule(State(state): State<AppState>, ApiPath(id): ApiPath<String>) -> Result<StatusCode, ApiError> {
    state.sessions.gate().forget(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}
