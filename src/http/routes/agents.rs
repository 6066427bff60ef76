//! `/v1/agents`: what can be run, and installing it.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::acp::Status;
use crate::agents::{AgentInfo, InstallOptions, InstallReport, ListOptions, ServerState, ServerStatus};
use crate::http::extract::{ApiJson, ApiPath, ApiQuery};
use crate::http::problem::ApiError;
use crate::http::sse;
use crate::http::{AppState, ProblemDetails};
use crate::rt::clock::now_ms;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list_agents))
        .routes(routes!(get_agent))
        .routes(routes!(install_agent, get_install_events))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct AgentQuery {
    /// Also gives version, path and config options.
    #[serde(default)]
    config: bool,
    /// Asks the agents for their versions again.
    #[serde(default)]
    no_cache: bool,
}

impl From<AgentQuery> for ListOptions {
    fn from(query: AgentQuery) -> Self {
        Self { config: query.config, no_cache: query.no_cache }
    }
}

/// Every agent there is a manifest for.
#[derive(Debug, Serialize, ToSchema)]
struct AgentList {
    agents: Vec<AgentInfo>,
}

/// Lists the agents: the built-in ones in the contract's order, then those that users added.
#[utoipa::path(get, path = "/v1/agents", tag = "agents", operation_id = "list_agents", params(AgentQuery),
    responses((status = 200, body = AgentList), (status = 400, body = ProblemDetails)))]
async fn list_agents(State(state): State<AppState>, ApiQuery(query): ApiQuery<AgentQuery>) -> Json<AgentList> {
    let mut agents = state.agents.list(query.into()).await;
    for agent in &mut agents {
        agent.server_status = server_status(&state, &agent.id);
    }
    Json(AgentList { agents })
}

/// Shows one agent.
#[utoipa::path(get, path = "/v1/agents/{agent}", tag = "agents", operation_id = "get_agent",
    params(("agent" = String, Path, description = "The agent's id"), AgentQuery),
    responses((status = 200, body = AgentInfo), (status = 400, body = ProblemDetails, description = "Unknown agent")))]
async fn get_agent(
    State(state): State<AppState>,
    ApiPath(id): ApiPath<String>,
    ApiQuery(query): ApiQuery<AgentQuery>,
) -> Result<Json<AgentInfo>, ApiError> {
    let mut agent = state.agents.get(&id, query.into()).await?;
    agent.server_status = server_status(&state, &id);
    Ok(Json(agent))
}

/// Present while an ACP server for the agent exists; running since its oldest living process.
fn server_status(state: &AppState, agent: &str) -> Option<ServerStatus> {
    let servers: Vec<_> = state.acp.list().into_iter().filter(|server| server.agent == agent).collect();
    let since = servers.iter().filter_map(|server| match server.status {
        Status::Running { since_ms } => Some(since_ms),
        Status::Stopped => None,
    });
    match (since.min(), servers.is_empty()) {
        (_, true) => None,
        (Some(since_ms), false) => {
            Some(ServerStatus { status: ServerState::Running, uptime_ms: u64::try_from(now_ms() - since_ms).ok() })
        }
        (None, false) => Some(ServerStatus { status: ServerState::Stopped, uptime_ms: None }),
    }
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct InstallRequest {
    /// Installs again what is there already.
    #[serde(default)]
    reinstall: bool,
    /// Another version of the agent itself than the pinned one.
    agent_version: Option<String>,
    /// Another version of its ACP adapter than the pinned one.
    agent_process_version: Option<String>,
}

/// Installs an agent and answers when it is done. Callers at the same time share one installation; one that leaves
/// doesn't stop it.
#[utoipa::path(post, path = "/v1/agents/{agent}/install", tag = "agents", operation_id = "install_agent",
    params(("agent" = String, Path, description = "The agent's id")), request_body = InstallRequest,
    responses((status = 200, body = InstallReport), (status = 400, body = ProblemDetails), (status = 500, body = ProblemDetails)))]
async fn install_agent(
    State(state): State<AppState>,
    ApiPath(id): ApiPath<String>,
    ApiJson(request): ApiJson<InstallRequest>,
) -> Result<Json<InstallReport>, ApiError> {
    let options = InstallOptions {
        reinstall: request.reinstall,
        agent_version: request.agent_version,
        agent_process_version: request.agent_process_version,
    };
    Ok(Json(state.agents.install(&id, options).await?))
}

/// Streams the progress of installations, of this agent and all others: `message` events whose data is an
/// `InstallEvent`. Resumable by `Last-Event-ID`.
#[utoipa::path(get, path = "/v1/agents/{agent}/install", tag = "agents", operation_id = "get_install_events",
    params(("agent" = String, Path, description = "The agent's id"),
           ("Last-Event-ID" = Option<u64>, Header, description = "The last id that was received")),
    responses((status = 200, description = "Server-sent events", content_type = "text/event-stream", body = String),
              (status = 400, body = ProblemDetails), (status = 503, body = ProblemDetails)))]
async fn get_install_events(
    State(state): State<AppState>,
    ApiPath(id): ApiPath<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    state.agents.manifest(&id)?;
    sse::open(&state, state.install_events.clone(), None, &headers, "closed")
}
