//! `/v1/acp`: agents over HTTP, as clients of `sandbox-agent` 0.4.2 speak it.

use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::acp::{Envelope, Kind, Posted, Status};
use crate::config::{as_duration, as_usize};
use crate::http::extract::{ApiPath, ApiQuery, accepts, is_json, read_body};
use crate::http::problem::{ApiError, ErrorCode};
use crate::http::slow::{self, Pending};
use crate::http::sse;
use crate::http::{AppState, ProblemDetails};

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list_acp_servers)).routes(routes!(post_acp, get_acp_events, delete_acp))
}

/// A server as the list shows it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct AcpServerInfo {
    /// The id the client chose.
    server_id: String,
    /// The agent it runs.
    agent: String,
    /// Unix milliseconds.
    created_at_ms: i64,
    /// `running`, or `stopped` when the agent process is gone: the next request starts one.
    status: &'static str,
}

/// All servers, by id.
#[derive(Debug, Serialize, ToSchema)]
struct AcpServerList {
    servers: Vec<AcpServerInfo>,
}

/// Lists the ACP servers.
#[utoipa::path(get, path = "/v1/acp", tag = "acp", operation_id = "list_acp_servers",
    responses((status = 200, body = AcpServerList)))]
async fn list_acp_servers(State(state): State<AppState>) -> Json<AcpServerList> {
    let servers = state.acp.list().into_iter().map(|info| AcpServerInfo {
        server_id: info.server_id,
        agent: info.agent,
        created_at_ms: info.created_at_ms,
        status: if matches!(info.status, Status::Running { .. }) { "running" } else { "stopped" },
    });
    Json(AcpServerList { servers: servers.collect() })
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct PostQuery {
    /// Which agent; required with the first envelope for a server id.
    agent: Option<String>,
}

/// Sends one JSON-RPC envelope to a server's agent, making the server when its id is free.
///
/// A request (it has `method` and `id`) is answered with the agent's response, however long that takes: after a while
/// headers are sent, then white space until the JSON follows. An agent that exits answers with a JSON-RPC error
/// (code -32603, `data` holds `exitCode` or `signal`, and `stderr`). Anything else is answered 202.
#[utoipa::path(post, path = "/v1/acp/{server_id}", tag = "acp", operation_id = "post_acp",
    params(("server_id" = String, Path, description = "Chosen by the client"), PostQuery),
    request_body(content = serde_json::Value, description = "A JSON-RPC 2.0 object"),
    responses(
        (status = 200, description = "The agent's answer", body = serde_json::Value),
        (status = 202, description = "A notification or an answer to the agent was taken"),
        (status = 400, body = ProblemDetails, description = "No JSON object, no agent named, or an unknown agent"),
        (status = 404, body = ProblemDetails, description = "The agent is not installed"),
        (status = 406, body = ProblemDetails), (status = 408, body = ProblemDetails), (status = 409, body = ProblemDetails), (status = 413, body = ProblemDetails),
        (status = 415, body = ProblemDetails), (status = 500, body = ProblemDetails), (status = 502, body = ProblemDetails),
        (status = 507, body = ProblemDetails)))]
async fn post_acp(
    State(state): State<AppState>,
    ApiPath(server_id): ApiPath<String>,
    ApiQuery(query): ApiQuery<PostQuery>,
    request: Request,
) -> Result<Response, ApiError> {
    if !is_json(request.headers()) {
        return Err(ApiError::with_message(
            ErrorCode::UnsupportedMediaType,
            "unsupported media type",
            "content-type must be application/json",
        ));
    }
    if !accepts(request.headers(), "application", "json") {
        return Err(ApiError::with_message(ErrorCode::NotAcceptable, "not acceptable", "accept must allow application/json"));
    }
    let bounds = &state.config.bounds;
    let idle = as_duration(bounds.http_body_idle_timeout_ms);
    let body = read_body(request.into_body(), as_usize(bounds.acp_body_max_bytes), idle).await?;
    let parsed = Envelope::parse(body);
    if !matches!(parsed, Err(crate::acp::ParseError::NotJson(_))) {
        state.acp.check(&server_id, query.agent.as_deref())?; // the contract names an agent's trouble before the shape's
    }
    let envelope = parsed?;
    let keepalive = as_duration(bounds.acp_post_keepalive_ms);
    let id = (envelope.kind() == Kind::Request).then(|| envelope.id().unwrap_or("null").to_owned());
    let acp = state.acp.clone();
    let posted = async move { acp.post(&server_id, query.agent.as_deref(), envelope).await.map_err(ApiError::from) };
    answer(Box::pin(posted), id, keepalive).await
}

/// Answers at once when the agent is quick, and slowly otherwise.
async fn answer(mut posted: Pending<Posted>, request_id: Option<String>, keepalive: Duration) -> Result<Response, ApiError> {
    let Some(id) = request_id else { return respond(posted.await?) };
    tokio::select! {
        posted = &mut posted => respond(posted?),
        () = tokio::time::sleep(keepalive) => Ok(slow::white_space(posted, keepalive, move |posted| last_chunk(posted, &id))),
    }
}

fn respond(posted: Posted) -> Result<Response, ApiError> {
    Ok(match posted {
        Posted::Accepted => StatusCode::ACCEPTED.into_response(),
        Posted::Response { text, .. } => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
    })
}

/// The status is out already: an error can only be said in JSON-RPC.
fn last_chunk(posted: Result<Posted, ApiError>, id: &str) -> Bytes {
    match posted {
        Ok(Posted::Response { text, .. }) => text,
        Ok(Posted::Accepted) => Bytes::new(),
        Err(error) => {
            let error = serde_json::json!({"code": -32603, "message": error.detail(), "data": error.body()});
            format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#).into()
        }
    }
}

/// Streams what a server's agent wrote, from the beginning or after `Last-Event-ID`, then live.
///
/// Events: `message` (data is one JSON-RPC envelope, id counts from 1), `gap` (`{from,to,reason}`: those can't be had
/// any more), `not_kept` (`{from,to}`: the disk refused the events that follow), `end` (`{reason}`).
#[utoipa::path(get, path = "/v1/acp/{server_id}", tag = "acp", operation_id = "get_acp_events",
    params(("server_id" = String, Path, description = "Chosen by the client"),
           ("Last-Event-ID" = Option<u64>, Header, description = "The last id that was received")),
    responses(
        (status = 200, description = "Server-sent events", content_type = "text/event-stream", body = String),
        (status = 400, body = ProblemDetails), (status = 404, body = ProblemDetails), (status = 406, body = ProblemDetails),
        (status = 503, body = ProblemDetails)))]
async fn get_acp_events(
    State(state): State<AppState>,
    ApiPath(server_id): ApiPath<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    sse::check(&headers)?;
    let server = state.acp.get(&server_id).await?;
    let stream = server.events().clone();
    sse::open(&state, stream, Some(server.readers()), &headers, "deleted")
}

/// Deletes a server: its agent's whole process tree is stopped, its streams end. Idempotent.
#[utoipa::path(delete, path = "/v1/acp/{server_id}", tag = "acp", operation_id = "delete_acp",
    params(("server_id" = String, Path, description = "Chosen by the client")),
    responses((status = 204, description = "Nothing of it runs any more")))]
async fn delete_acp(State(state): State<AppState>, ApiPath(server_id): ApiPath<String>) -> StatusCode {
    state.acp.delete(&server_id).await;
    StatusCode::NO_CONTENT
}
