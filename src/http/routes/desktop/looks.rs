//! What the screen is divided into, and how it looks.

use axum::Json;
use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::desktop::{BackdropSpec, DisplayList, DisplaysSpec, ThemeInfo, ThemeSpec};
use crate::http::extract::ApiJson;
use crate::http::problem::ApiError;
use crate::http::{AppState, ProblemDetails};

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(get_backdrop, set_backdrop))
        .routes(routes!(get_theme, set_theme))
        .routes(routes!(list_displays, set_displays))
}

/// Says what was chosen to be seen where there is no window.
#[utoipa::path(get, path = "/v1/desktop/backdrop", tag = "desktop", operation_id = "get_desktop_backdrop",
    responses((status = 200, body = BackdropSpec), (status = 503, body = ProblemDetails)))]
async fn get_backdrop(State(state): State<AppState>) -> Result<Json<BackdropSpec>, ApiError> {
    Ok(Json(state.desktop.backdrop().await?))
}

/// Shows a colour or a picture where there is no window, from now on; `{}` brings the usual one back.
#[utoipa::path(put, path = "/v1/desktop/backdrop", tag = "desktop", operation_id = "set_desktop_backdrop", request_body = BackdropSpec,
    responses((status = 200, body = BackdropSpec), (status = 400, body = ProblemDetails), (status = 409, body = ProblemDetails),
              (status = 422, body = ProblemDetails), (status = 503, body = ProblemDetails)))]
async fn set_backdrop(
    State(state): State<AppState>,
    ApiJson(spec): ApiJson<BackdropSpec>,
) -> Result<Json<BackdropSpec>, ApiError> {
    Ok(Json(state.desktop.set_backdrop(spec).await?))
}

/// Says how windows and programs look, and which themes are installed.
#[utoipa::path(get, path = "/v1/desktop/theme", tag = "desktop", operation_id = "get_desktop_theme",
    responses((status = 200, body = ThemeInfo), (status = 503, body = ProblemDetails)))]
async fn get_theme(State(state): State<AppState>) -> Result<Json<ThemeInfo>, ApiError> {
    Ok(Json(state.desktop.theme().await?))
}

/// Has them look otherwise: frames and menus at once, programs of GTK when they start. What is absent stays.
#[utoipa::path(put, path = "/v1/desktop/theme", tag = "desktop", operation_id = "set_desktop_theme", request_body = ThemeSpec,
    responses((status = 200, body = ThemeInfo), (status = 400, body = ProblemDetails),
              (status = 404, description = "It isn't installed: `available` is", body = ProblemDetails),
              (status = 409, body = ProblemDetails), (status = 422, body = ProblemDetails), (status = 503, body = ProblemDetails)))]
async fn set_theme(State(state): State<AppState>, ApiJson(spec): ApiJson<ThemeSpec>) -> Result<Json<ThemeInfo>, ApiError> {
    Ok(Json(state.desktop.set_theme(spec).await?))
}

/// Lists the displays, the primary one first.
#[utoipa::path(get, path = "/v1/desktop/displays", tag = "desktop", operation_id = "list_desktop_displays",
    responses((status = 200, body = DisplayList), (status = 409, body = ProblemDetails), (status = 503, body = ProblemDetails)))]
async fn list_displays(State(state): State<AppState>) -> Result<Json<DisplayList>, ApiError> {
    Ok(Json(state.desktop.displays().await?))
}

/// Divides the screen into displays, and gives it the size that holds them, up to `maxResolution`.
#[utoipa::path(put, path = "/v1/desktop/displays", tag = "desktop", operation_id = "set_desktop_displays", request_body = DisplaysSpec,
    responses((status = 200, body = DisplayList), (status = 400, body = ProblemDetails), (status = 409, body = ProblemDetails),
              (status = 422, body = ProblemDetails), (status = 503, body = ProblemDetails)))]
async fn set_displays(
    State(state): State<AppState>,
    ApiJson(spec): ApiJson<DisplaysSpec>,
) -> Result<Json<DisplayList>, ApiError> {
    Ok(Json(state.desktop.set_displays(spec).await?))
}
