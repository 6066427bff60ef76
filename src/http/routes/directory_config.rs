//! `/v1/config/mcp` and `/v1/config/skills`: what is configured per directory.

use std::path::Path;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::http::extract::{ApiJson, ApiQuery};
use crate::http::problem::ApiError;
use crate::http::{AppState, ProblemDetails};
use crate::workspace::{McpServerConfig, SkillsConfig};

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(get_mcp_config, put_mcp_config, delete_mcp_config)).routes(routes!(
        get_skills_config,
        put_skills_config,
        delete_skills_config
    ))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
struct McpConfigQuery {
    /// The directory; a relative one is relative to the server's working directory.
    directory: String,
    /// The entry's name.
    mcp_name: String,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
struct SkillsConfigQuery {
    /// The directory; a relative one is relative to the server's working directory.
    directory: String,
    /// The entry's name.
    skill_name: String,
}

impl McpConfigQuery {
    fn check(&self) -> Result<(&Path, &str), ApiError> {
        check(&self.directory, "mcpName", &self.mcp_name)
    }
}

impl SkillsConfigQuery {
    fn check(&self) -> Result<(&Path, &str), ApiError> {
        check(&self.directory, "skillName", &self.skill_name)
    }
}

fn check<'a>(directory: &'a str, parameter: &str, name: &'a str) -> Result<(&'a Path, &'a str), ApiError> {
    match [("directory", directory), (parameter, name)].into_iter().find(|(_, value)| value.trim().is_empty()) {
        Some((parameter, _)) => Err(ApiError::invalid(format!("missing required '{parameter}' query parameter"))),
        None => Ok((Path::new(directory), name)),
    }
}

/// Shows an MCP server of a directory.
#[utoipa::path(get, path = "/v1/config/mcp", tag = "config", operation_id = "get_mcp_config", params(McpConfigQuery),
    responses((status = 200, body = McpServerConfig), (status = 400, body = ProblemDetails), (status = 404, body = ProblemDetails)))]
async fn get_mcp_config(
    State(state): State<AppState>,
    ApiQuery(query): ApiQuery<McpConfigQuery>,
) -> Result<Json<McpServerConfig>, ApiError> {
    let (directory, name) = query.check()?;
    Ok(Json(state.workspace.mcp_config(directory, name).await?))
}

/// Adds or replaces an MCP server of a directory, which is made when it isn't there.
#[utoipa::path(put, path = "/v1/config/mcp", tag = "config", operation_id = "put_mcp_config", params(McpConfigQuery),
    request_body = McpServerConfig,
    responses((status = 204), (status = 400, body = ProblemDetails), (status = 409, body = ProblemDetails),
              (status = 413, body = ProblemDetails), (status = 422, body = ProblemDetails), (status = 507, body = ProblemDetails)))]
async fn put_mcp_config(
    State(state): State<AppState>,
    ApiQuery(query): ApiQuery<McpConfigQuery>,
    ApiJson(config): ApiJson<McpServerConfig>,
) -> Result<StatusCode, ApiError> {
    let (directory, name) = query.check()?;
    state.workspace.set_mcp_config(directory, name, &config).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Removes an MCP server of a directory, if it is there.
#[utoipa::path(delete, path = "/v1/config/mcp", tag = "config", operation_id = "delete_mcp_config", params(McpConfigQuery),
    responses((status = 204), (status = 400, body = ProblemDetails), (status = 507, body = ProblemDetails)))]
async fn delete_mcp_config(
    State(state): State<AppState>,
    ApiQuery(query): ApiQuery<McpConfigQuery>,
) -> Result<StatusCode, ApiError> {
    let (directory, name) = query.check()?;
    state.workspace.delete_mcp_config(directory, name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Shows skills of a directory.
#[utoipa::path(get, path = "/v1/config/skills", tag = "config", operation_id = "get_skills_config", params(SkillsConfigQuery),
    responses((status = 200, body = SkillsConfig), (status = 400, body = ProblemDetails), (status = 404, body = ProblemDetails)))]
async fn get_skills_config(
    State(state): State<AppState>,
    ApiQuery(query): ApiQuery<SkillsConfigQuery>,
) -> Result<Json<SkillsConfig>, ApiError> {
    let (directory, name) = query.check()?;
    Ok(Json(state.workspace.skills_config(directory, name).await?))
}

/// Adds or replaces skills of a directory, which is made when it isn't there.
#[utoipa::path(put, path = "/v1/config/skills", tag = "config", operation_id = "put_skills_config", params(SkillsConfigQuery),
    request_body = SkillsConfig,
    responses((status = 204), (status = 400, body = ProblemDetails), (status = 409, body = ProblemDetails),
              (status = 413, body = ProblemDetails), (status = 422, body = ProblemDetails), (status = 507, body = ProblemDetails)))]
async fn put_skills_config(
    State(state): State<AppState>,
    ApiQuery(query): ApiQuery<SkillsConfigQuery>,
    ApiJson(config): ApiJson<SkillsConfig>,
) -> Result<StatusCode, ApiError> {
    let (directory, name) = query.check()?;
    state.workspace.set_skills_config(directory, name, &config).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Removes skills of a directory, if they are there.
#[utoipa::path(delete, path = "/v1/config/skills", tag = "config", operation_id = "delete_skills_config",
    params(SkillsConfigQuery),
    responses((status = 204), (status = 400, body = ProblemDetails), (status = 507, body = ProblemDetails)))]
async fn delete_skills_config(
    State(state): State<AppState>,
    ApiQuery(query): ApiQuery<SkillsConfigQuery>,
) -> Result<StatusCode, ApiError> {
    let (directory, name) = query.check()?;
    state.workspace.delete_skills_config(directory, name).await?;
    Ok(StatusCode::NO_CONTENT)
}
