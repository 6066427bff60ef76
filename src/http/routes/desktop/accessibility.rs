//! The accessibility tree. Ids of nodes have a `/`, so they are in queries and bodies.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::lease::{Admitted, HolderHeader};
use crate::desktop::{ActSpec, Acted, FindSpec, FoundNodes, TreeAnswer, TreeNode, TreeScope};
use crate::http::extract::{ApiJson, ApiQuery};
use crate::http::problem::ApiError;
use crate::http::{AppState, ProblemDetails};

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(get_tree))
        .routes(routes!(find_nodes))
        .routes(routes!(get_node))
        .routes(routes!(act_on_node))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct RoleQuery {
    /// Only nodes of this role; several are divided by commas. What is below others is still visited.
    role: Option<String>,
}

/// Tells what is on the screen by role, name, text and state, with its place in pixels of the screen. A program that doesn't
/// answer is named, and what a bound left out.
#[utoipa::path(get, path = "/v1/desktop/accessibility/tree", tag = "desktop", operation_id = "get_desktop_accessibility_tree",
    params(TreeScope, RoleQuery),
    responses((status = 200, body = TreeAnswer), (status = 400, body = ProblemDetails), (status = 404, body = ProblemDetails),
              (status = 409, body = ProblemDetails), (status = 503, body = ProblemDetails), (status = 504, body = ProblemDetails)))]
async fn get_tree(
    State(state): State<AppState>,
    ApiQuery(scope): ApiQuery<TreeScope>,
    ApiQuery(RoleQuery { role }): ApiQuery<RoleQuery>,
) -> Result<Json<TreeAnswer>, ApiError> {
    Ok(Json(state.desktop.tree(&scope, role.as_deref()).await?))
}

/// Finds nodes by role, name, text and states; with `timeoutMs`, waits for the first. None is an empty list.
#[utoipa::path(post, path = "/v1/desktop/accessibility/find", tag = "desktop", operation_id = "find_desktop_accessibility_nodes",
    request_body = FindSpec,
    responses((status = 200, body = FoundNodes), (status = 400, body = ProblemDetails), (status = 404, body = ProblemDetails),
              (status = 409, body = ProblemDetails), (status = 415, body = ProblemDetails), (status = 422, body = ProblemDetails),
              (status = 503, body = ProblemDetails), (status = 504, body = ProblemDetails)))]
async fn find_nodes(State(state): State<AppState>, ApiJson(spec): ApiJson<FindSpec>) -> Result<Json<FoundNodes>, ApiError> {
    Ok(Json(state.desktop.find_nodes(&spec).await?))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct NodeQuery {
    /// As the tree tells it, such as `1.4/149@9f86d081`.
    id: String,
}

/// Tells one node, with up to 10 000 characters of its text.
#[utoipa::path(get, path = "/v1/desktop/accessibility/node", tag = "desktop", operation_id = "get_desktop_accessibility_node",
    params(NodeQuery),
    responses((status = 200, body = TreeNode), (status = 400, body = ProblemDetails), (status = 404, body = ProblemDetails),
              (status = 409, body = ProblemDetails), (status = 503, body = ProblemDetails), (status = 504, body = ProblemDetails)))]
async fn get_node(
    State(state): State<AppState>,
    ApiQuery(NodeQuery { id }): ApiQuery<NodeQuery>,
) -> Result<Json<TreeNode>, ApiError> {
    Ok(Json(state.desktop.node(&id).await?))
}

/// Does something with a node, without the pointer: clicks it, focuses it, sets its text or number.
#[utoipa::path(post, path = "/v1/desktop/accessibility/act", tag = "desktop", operation_id = "act_on_desktop_accessibility_node",
    params(HolderHeader), request_body = ActSpec,
    responses((status = 200, body = Acted), (status = 400, body = ProblemDetails), (status = 404, body = ProblemDetails),
              (status = 409, body = ProblemDetails), (status = 415, body = ProblemDetails), (status = 422, body = ProblemDetails),
              (status = 503, body = ProblemDetails), (status = 504, body = ProblemDetails)))]
async fn act_on_node(
    _: Admitted,
    State(state): State<AppState>,
    ApiJson(spec): ApiJson<ActSpec>,
) -> Result<Json<Acted>, ApiError> {
    Ok(Json(state.desktop.act_on_node(&spec).await?))
}
