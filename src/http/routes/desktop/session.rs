//! Its life, its size, and the programs in it.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::desktop::types::{DesktopStatus, DisplayInfo, Launched, StartSpec};
use crate::http::extract::ApiJson;
use crate::http::problem::ApiError;
use crate::http::{AppState, ProblemDetails};

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(start_desktop))
        .routes(routes!(stop_desktop))
        .routes(routes!(get_desktop_status))
        .routes(routes!(get_display_info))
        .routes(routes!(resize_display))
        .routes(routes!(launch_app))
        .routes(routes!(open_target))
}

/// Starts the desktop: Xvfb, openbox and a D-Bus session. One that is active stays as it is.
#[utoipa::path(post, path = "/v1/desktop/start", tag = "desktop", operation_id = "start_desktop", request_body = StartSpec,
    responses((status = 200, body = DesktopStatus), (status = 400, body = ProblemDetails), (status = 415, body = ProblemDetails),
              (status = 422, body = ProblemDetails), (status = 503, body = ProblemDetails)))]
async fn start_desktop(
    State(state): State<AppState>,
    ApiJson(spec): ApiJson<StartSpec>,
) -> Result<Json<DesktopStatus>, ApiError> {
    Ok(Json(state.desktop.begin(spec).await?))
}

/// Stops the desktop, and everything that runs in it.
#[utoipa::path(post, path = "/v1/desktop/stop", tag = "desktop", operation_id = "stop_desktop",
    responses((status = 200, body = DesktopStatus)))]
async fn stop_desktop(State(state): State<AppState>) -> Result<Json<DesktopStatus>, ApiError> {
    Ok(Json(state.desktop.stop().await?))
}

/// Says how the desktop is, and what is missing for it.
#[utoipa::path(get, path = "/v1/desktop/status", tag = "desktop", operation_id = "get_desktop_status",
    responses((status = 200, body = DesktopStatus)))]
async fn get_desktop_status(State(state): State<AppState>) -> Json<DesktopStatus> {
    Json(state.desktop.status().await)
}

/// Names the display and its size.
#[utoipa::path(get, path = "/v1/desktop/display/info", tag = "desktop", operation_id = "get_display_info",
    responses((status = 200, body = DisplayInfo), (status = 409, body = ProblemDetails), (status = 503, body = ProblemDetails)))]
async fn get_display_info(State(state): State<AppState>) -> Result<Json<DisplayInfo>, ApiError> {
    Ok(Json(state.desktop.display_info().await?))
}

/// Another size of the screen.
#[derive(Debug, Deserialize, ToSchema)]
struct ResizeBody {
    /// Pixels.
    width: u32,
    /// Pixels.
    height: u32,
}

/// Gives the screen another size while it runs, up to `maxResolution`.
#[utoipa::path(post, path = "/v1/desktop/display/resize", tag = "desktop", operation_id = "resize_display",
    request_body = ResizeBody,
    responses((status = 200, body = DisplayInfo), (status = 400, body = ProblemDetails), (status = 409, body = ProblemDetails),
              (status = 422, body = ProblemDetails), (status = 503, body = ProblemDetails)))]
async fn resize_display(
    State(state): State<AppState>,
    ApiJson(body): ApiJson<ResizeBody>,
) -> Result<Json<DisplayInfo>, ApiError> {
    Ok(Json(state.desktop.resize(body.width, body.height).await?))
}

/// A program to start.
#[derive(Debug, Deserialize, ToSchema)]
struct LaunchBody {
    /// Its name in the server's PATH, or its path.
    app: String,
    /// Its arguments.
    #[serde(default)]
    args: Option<Vec<String>>,
    /// Waits up to 5 s for its first window.
    #[serde(default)]
    wait: Option<bool>,
}

/// Starts a program in the desktop; it is a process of owner `desktop`.
#[utoipa::path(post, path = "/v1/desktop/launch", tag = "desktop", operation_id = "launch_desktop_app", request_body = LaunchBody,
    responses((status = 200, body = Launched), (status = 404, body = ProblemDetails), (status = 409, body = ProblemDetails),
              (status = 422, body = ProblemDetails), (status = 503, body = ProblemDetails)))]
async fn launch_app(State(state): State<AppState>, ApiJson(body): ApiJson<LaunchBody>) -> Result<Json<Launched>, ApiError> {
    let (args, wait) = (body.args.unwrap_or_default(), body.wait.unwrap_or(false));
    Ok(Json(state.desktop.launch(&body.app, args, wait).await?))
}

/// A file or a URL.
#[derive(Debug, Deserialize, ToSchema)]
struct OpenBody {
    /// A path or a URL.
    target: String,
}

/// Opens a file or a URL with the program that is set for it.
#[utoipa::path(post, path = "/v1/desktop/open", tag = "desktop", operation_id = "open_desktop_target", request_body = OpenBody,
    responses((status = 200, body = Launched), (status = 409, body = ProblemDetails), (status = 422, body = ProblemDetails),
              (status = 503, body = ProblemDetails)))]
async fn open_target(State(state): State<AppState>, ApiJson(body): ApiJson<OpenBody>) -> Result<Json<Launched>, ApiError> {
    Ok(Json(state.desktop.open(body.target).await?))
}
