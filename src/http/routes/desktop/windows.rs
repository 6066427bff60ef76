//! Windows.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Done;
use super::lease::{Admitted, HolderHeader};
use crate::desktop::types::Window;
use crate::desktop::{Error, WindowChange};
use crate::http::extract::{ApiJson, ApiPath, ApiQuery};
use crate::http::problem::ApiError;
use crate::http::{AppState, ProblemDetails};

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list_windows))
        .routes(routes!(get_focused_window))
        .routes(routes!(focus_window))
        .routes(routes!(move_window))
        .routes(routes!(resize_window))
        .routes(routes!(change_window))
        .routes(routes!(set_workspace))
}

/// Windows, lowest first.
#[derive(Debug, Serialize, ToSchema)]
struct WindowList {
    windows: Vec<Window>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct WindowsQuery {
    /// True tells minimised windows, and those of other workspaces, too.
    #[serde(default)]
    hidden: bool,
}

/// Lists windows, lowest first.
#[utoipa::path(get, path = "/v1/desktop/windows", tag = "desktop", operation_id = "list_desktop_windows", params(WindowsQuery),
    responses((status = 200, body = WindowList), (status = 409, body = ProblemDetails), (status = 503, body = ProblemDetails)))]
async fn list_windows(
    State(state): State<AppState>,
    ApiQuery(query): ApiQuery<WindowsQuery>,
) -> Result<Json<WindowList>, ApiError> {
    Ok(Json(WindowList { windows: state.desktop.windows(query.hidden).await? }))
}

/// Says which window has the keyboard.
#[utoipa::path(get, path = "/v1/desktop/windows/focused", tag = "desktop", operation_id = "get_desktop_focused_window",
    responses((status = 200, body = Window), (status = 404, body = ProblemDetails), (status = 409, body = ProblemDetails),
              (status = 503, body = ProblemDetails)))]
async fn get_focused_window(State(state): State<AppState>) -> Result<Json<Window>, ApiError> {
    Ok(Json(state.desktop.focused_window().await?))
}

/// What can't be done without the window.
async fn changed(state: &AppState, id: &str, change: WindowChange) -> Result<Json<Window>, ApiError> {
    let window = state.desktop.change_window(id, change).await?;
    Ok(Json(window.ok_or_else(|| Error::WindowNotFound(id.to_owned()))?))
}

async fn change(state: &AppState, id: &str, change: WindowChange) -> Result<Response, ApiError> {
    Ok(match state.desktop.change_window(id, change).await? {
        Some(window) => Json(window).into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    })
}

/// Gives a window the keyboard, and brings it back when it is minimised.
#[utoipa::path(post, path = "/v1/desktop/windows/{id}/focus", tag = "desktop", operation_id = "focus_desktop_window",
    params(("id" = String, Path, description = "X id, decimal"), HolderHeader),
    responses((status = 200, body = Window), (status = 404, body = ProblemDetails), (status = 409, body = ProblemDetails),
              (status = 503, body = ProblemDetails)))]
async fn focus_window(
    _: Admitted,
    State(state): State<AppState>,
    ApiPath(id): ApiPath<String>,
) -> Result<Json<Window>, ApiError> {
    changed(&state, &id, WindowChange::Focus).await
}

/// Where to.
#[derive(Debug, Deserialize, ToSchema)]
struct PlaceBody {
    /// Of the frame, pixels from the left; may be negative.
    x: i32,
    /// Of the frame, pixels from above; may be negative.
    y: i32,
}

/// Moves a window.
#[utoipa::path(post, path = "/v1/desktop/windows/{id}/move", tag = "desktop", operation_id = "move_desktop_window", request_body = PlaceBody,
    params(("id" = String, Path, description = "X id, decimal"), HolderHeader),
    responses((status = 200, body = Window), (status = 404, body = ProblemDetails), (status = 409, body = ProblemDetails),
              (status = 422, body = ProblemDetails), (status = 503, body = ProblemDetails)))]
async fn move_window(
    _: Admitted,
    State(state): State<AppState>,
    ApiPath(id): ApiPath<String>,
    ApiJson(body): ApiJson<PlaceBody>,
) -> Result<Json<Window>, ApiError> {
    changed(&state, &id, WindowChange::Move { x: body.x, y: body.y }).await
}

/// How large.
#[derive(Debug, Deserialize, ToSchema)]
struct SizeBody {
    /// Of the content, pixels; 0 leaves it.
    width: u32,
    /// Of the content, pixels; 0 leaves it.
    height: u32,
}

/// Gives a window another size.
#[utoipa::path(post, path = "/v1/desktop/windows/{id}/resize", tag = "desktop", operation_id = "resize_desktop_window", request_body = SizeBody,
    params(("id" = String, Path, description = "X id, decimal"), HolderHeader),
    responses((status = 200, body = Window), (status = 404, body = ProblemDetails), (status = 409, body = ProblemDetails),
              (status = 422, body = ProblemDetails), (status = 503, body = ProblemDetails)))]
async fn resize_window(
    _: Admitted,
    State(state): State<AppState>,
    ApiPath(id): ApiPath<String>,
    ApiJson(body): ApiJson<SizeBody>,
) -> Result<Json<Window>, ApiError> {
    changed(&state, &id, WindowChange::Resize { width: body.width, height: body.height }).await
}

/// What a window is to become.
#[derive(Debug, Deserialize, ToSchema)]
struct ChangeBody {
    /// One change: `"minimize"`, `"close"`, `{"workspace": {"index": 1}}` and so on.
    change: WindowChange,
}

/// Raises, lowers, minimises, restores, maximises or closes a window, or puts it on another workspace. 204 when it is no more.
#[utoipa::path(post, path = "/v1/desktop/windows/{id}/change", tag = "desktop", operation_id = "change_desktop_window", request_body = ChangeBody,
    params(("id" = String, Path, description = "X id, decimal"), HolderHeader),
    responses((status = 200, body = Window), (status = 204, description = "It is no more"), (status = 404, body = ProblemDetails),
              (status = 409, body = ProblemDetails), (status = 422, body = ProblemDetails), (status = 503, body = ProblemDetails)))]
async fn change_window(
    _: Admitted,
    State(state): State<AppState>,
    ApiPath(id): ApiPath<String>,
    ApiJson(body): ApiJson<ChangeBody>,
) -> Result<Response, ApiError> {
    change(&state, &id, body.change).await
}

/// Which workspace.
#[derive(Debug, Deserialize, ToSchema)]
struct WorkspaceBody {
    /// From 0.
    index: u32,
}

/// Shows another workspace.
#[utoipa::path(post, path = "/v1/desktop/workspace", tag = "desktop", operation_id = "set_desktop_workspace", params(HolderHeader), request_body = WorkspaceBody,
    responses((status = 200, body = Done), (status = 400, body = ProblemDetails), (status = 409, body = ProblemDetails),
              (status = 422, body = ProblemDetails), (status = 503, body = ProblemDetails)))]
async fn set_workspace(
    _: Admitted,
    State(state): State<AppState>,
    ApiJson(body): ApiJson<WorkspaceBody>,
) -> Result<Json<Done>, ApiError> {
    state.desktop.set_workspace(body.index).await?;
    Ok(Done::new())
}
