//! Which language servers there are, and which run.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::fs::target::{PathText, Reached};
use super::question::asked;
use crate::config::as_duration;
use crate::http::extract::{ApiJson, ApiPath};
use crate::http::problem::ApiError;
use crate::http::{AppState, ProblemDetails, slow};
use crate::lsp::{CatalogueEntry, Installed, ServerInfo};

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(catalogue))
        .routes(routes!(install))
        .routes(routes!(list, start))
        .routes(routes!(get_one, stop))
        .routes(routes!(restart))
        .routes(routes!(logs))
        .routes(routes!(capabilities))
        .routes(routes!(request))
        .routes(routes!(notify))
}

/// Language servers that are known.
#[derive(Debug, Serialize, ToSchema)]
struct LspCatalogue {
    servers: Vec<CatalogueEntry>,
    /// Users' manifests that are not used: `{path,reason}`.
    problems: Vec<Value>,
}

/// Lists the language servers that are known, and which are installed.
#[utoipa::path(get, path = "/v1/lsp/catalogue", tag = "lsp", operation_id = "list_language_servers",
    responses((status = 200, body = LspCatalogue)))]
async fn catalogue(State(state): State<AppState>) -> Json<LspCatalogue> {
    let (servers, problems) = state.lsp.catalogue().await;
    Json(LspCatalogue { servers, problems })
}

#[derive(Debug, Deserialize, ToSchema)]
struct LspInstall {
    /// As the catalogue calls it.
    server: String,
    /// Although it is there.
    #[serde(default)]
    reinstall: bool,
}

/// Installs a language server. Sends white space before the JSON while it takes long.
#[utoipa::path(post, path = "/v1/lsp/install", tag = "lsp", operation_id = "install_language_server", request_body = LspInstall,
    responses((status = 200, body = Installed), (status = 404, body = ProblemDetails), (status = 500, body = ProblemDetails)))]
async fn install(State(state): State<AppState>, ApiJson(body): ApiJson<LspInstall>) -> Result<Response, ApiError> {
    let keepalive = as_duration(state.config.bounds.acp_post_keepalive_ms);
    slow::json(async move { Ok(state.lsp.install(&body.server, body.reinstall).await?) }, keepalive).await
}

/// Language servers that run.
#[derive(Debug, Serialize, ToSchema)]
struct LspServers {
    servers: Vec<ServerInfo>,
}

/// Lists the language servers that run.
#[utoipa::path(get, path = "/v1/lsp/servers", tag = "lsp", operation_id = "list_running_language_servers",
    responses((status = 200, body = LspServers)))]
async fn list(State(state): State<AppState>) -> Json<LspServers> {
    Json(LspServers { servers: state.lsp.servers() })
}

#[derive(Debug, Deserialize, ToSchema)]
struct LspStart {
    /// As the catalogue calls it.
    server: String,
    /// The directory that it shall look at.
    root: PathText,
}

/// Starts a language server for a directory, or finds the one that runs there. Questions about files start theirs by themselves.
#[utoipa::path(post, path = "/v1/lsp/servers", tag = "lsp", operation_id = "start_language_server", request_body = LspStart,
    responses((status = 200, body = ServerInfo), (status = 404, body = ProblemDetails), (status = 502, body = ProblemDetails)))]
async fn start(
    State(state): State<AppState>,
    Reached(reach): Reached,
    ApiJson(body): ApiJson<LspStart>,
) -> Result<Json<ServerInfo>, ApiError> {
    let root = asked(&state, &reach, body.root.locate(&reach)?).await?.path;
    if !root.is_dir() {
        return Err(ApiError::invalid(format!("root {} is not a directory", root.display())));
    }
    Ok(Json(state.lsp.start(&body.server, root).await?))
}

/// Tells how it goes with a language server.
#[utoipa::path(get, path = "/v1/lsp/servers/{id}", tag = "lsp", operation_id = "get_language_server",
    params(("id" = String, Path, description = "As the list of servers calls it")),
    responses((status = 200, body = ServerInfo), (status = 404, body = ProblemDetails)))]
async fn get_one(State(state): State<AppState>, ApiPath(id): ApiPath<String>) -> Result<Json<ServerInfo>, ApiError> {
    Ok(Json(state.lsp.server(&id)?))
}

/// Stops a language server.
#[utoipa::path(delete, path = "/v1/lsp/servers/{id}", tag = "lsp", operation_id = "stop_language_server",
    params(("id" = String, Path, description = "As the list of servers calls it")),
    responses((status = 204, description = "It is gone"), (status = 404, body = ProblemDetails)))]
async fn stop(State(state): State<AppState>, ApiPath(id): ApiPath<String>) -> Result<StatusCode, ApiError> {
    state.lsp.stop(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Starts a language server anew; what it had open is opened again.
#[utoipa::path(post, path = "/v1/lsp/servers/{id}/restart", tag = "lsp", operation_id = "restart_language_server",
    params(("id" = String, Path, description = "As the list of servers calls it")),
    responses((status = 200, body = ServerInfo), (status = 404, body = ProblemDetails), (status = 502, body = ProblemDetails)))]
async fn restart(State(state): State<AppState>, ApiPath(id): ApiPath<String>) -> Result<Json<ServerInfo>, ApiError> {
    Ok(Json(state.lsp.restart(&id).await?))
}

/// What a language server had logged, and wrote to stderr: `{log:[{level,message}],stderr}`.
#[utoipa::path(get, path = "/v1/lsp/servers/{id}/logs", tag = "lsp", operation_id = "get_language_server_logs",
    params(("id" = String, Path, description = "As the list of servers calls it")),
    responses((status = 200, description = "The end of both"), (status = 404, body = ProblemDetails)))]
async fn logs(State(state): State<AppState>, ApiPath(id): ApiPath<String>) -> Result<Json<Value>, ApiError> {
    Ok(Json(state.lsp.logs(&id)?))
}

/// What a language server can: `{capabilities,serverInfo,registered}`, as LSP has them.
#[utoipa::path(get, path = "/v1/lsp/servers/{id}/capabilities", tag = "lsp", operation_id = "get_language_server_capabilities",
    params(("id" = String, Path, description = "As the list of servers calls it")),
    responses((status = 200, description = "What it said"), (status = 404, body = ProblemDetails), (status = 502, body = ProblemDetails)))]
async fn capabilities(State(state): State<AppState>, ApiPath(id): ApiPath<String>) -> Result<Json<Value>, ApiError> {
    Ok(Json(state.lsp.capabilities(&id).await?))
}

/// A message of LSP.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct LspMessage {
    /// `textDocument/hover`, for example.
    method: String,
    /// As LSP has them; positions as the server counts them (`positionEncoding`).
    #[schema(value_type = Option<Value>)]
    params: Option<Box<RawValue>>,
    /// `lsp_request_timeout_ms` when absent, and at most that.
    timeout_ms: Option<u64>,
}

/// Methods that belong to whoever owns the connection.
const OURS: [&str; 4] = ["initialize", "initialized", "shutdown", "exit"];

fn check(message: &LspMessage) -> Result<Box<RawValue>, ApiError> {
    if OURS.contains(&message.method.as_str()) || message.method.starts_with("$/") {
        return Err(ApiError::invalid(format!("{} is said by this server alone", message.method)));
    }
    Ok(message.params.clone().unwrap_or_else(|| RawValue::NULL.to_owned()))
}

/// Asks a language server anything, in the words of LSP: `{result}`. Files have to be open for most questions; those that were asked about
/// here are.
#[utoipa::path(post, path = "/v1/lsp/servers/{id}/request", tag = "lsp", operation_id = "request_language_server",
    params(("id" = String, Path, description = "As the list of servers calls it")), request_body = LspMessage,
    responses((status = 200, description = "{result}"), (status = 404, body = ProblemDetails), (status = 502, body = ProblemDetails),
              (status = 504, body = ProblemDetails)))]
async fn request(
    State(state): State<AppState>,
    ApiPath(id): ApiPath<String>,
    ApiJson(message): ApiJson<LspMessage>,
) -> Result<Json<Value>, ApiError> {
    let max = state.config.bounds.lsp_request_timeout_ms;
    let params = check(&message)?;
    let timeout = message.timeout_ms.map(|timeout_ms| Duration::from_millis(timeout_ms.min(max)));
    let result = state.lsp.request(&id, &message.method, params, timeout).await?;
    Ok(Json(json!({"result": result})))
}

/// Tells a language server something, in the words of LSP.
#[utoipa::path(post, path = "/v1/lsp/servers/{id}/notify", tag = "lsp", operation_id = "notify_language_server",
    params(("id" = String, Path, description = "As the list of servers calls it")), request_body = LspMessage,
    responses((status = 204, description = "It is told"), (status = 404, body = ProblemDetails), (status = 502, body = ProblemDetails)))]
async fn notify(
    State(state): State<AppState>,
    ApiPath(id): ApiPath<String>,
    ApiJson(message): ApiJson<LspMessage>,
) -> Result<StatusCode, ApiError> {
    let params = check(&message)?;
    state.lsp.notify(&id, message.method, params).await?;
    Ok(StatusCode::NO_CONTENT)
}
