//! Selections.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Done;
use crate::config::{as_duration, as_usize};
use crate::desktop::{ClipboardText, SelectionName, SetSelection};
use crate::http::extract::{ApiQuery, LargeJson, read_body};
use crate::http::problem::ApiError;
use crate::http::{AppState, ProblemDetails};

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(get_clipboard, set_clipboard))
        .routes(routes!(get_clipboard_content, set_clipboard_content))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct SelectionQuery {
    /// `clipboard` (when absent) or `primary`.
    #[serde(default)]
    #[param(inline)]
    selection: SelectionName,
}

/// Reads the text of a selection; empty when there is none.
#[utoipa::path(get, path = "/v1/desktop/clipboard", tag = "desktop", operation_id = "get_desktop_clipboard", params(SelectionQuery),
    responses((status = 200, body = ClipboardText), (status = 400, body = ProblemDetails), (status = 409, body = ProblemDetails),
              (status = 500, body = ProblemDetails), (status = 503, body = ProblemDetails)))]
async fn get_clipboard(
    State(state): State<AppState>,
    ApiQuery(query): ApiQuery<SelectionQuery>,
) -> Result<Json<ClipboardText>, ApiError> {
    Ok(Json(state.desktop.clipboard(query.selection).await?))
}

/// Sets the text of a selection, or of both.
#[utoipa::path(post, path = "/v1/desktop/clipboard", tag = "desktop", operation_id = "set_desktop_clipboard", request_body = SetSelection,
    responses((status = 200, body = Done), (status = 409, body = ProblemDetails), (status = 422, body = ProblemDetails),
              (status = 500, body = ProblemDetails), (status = 503, body = ProblemDetails)))]
async fn set_clipboard(State(state): State<AppState>, LargeJson(set): LargeJson<SetSelection>) -> Result<Json<Done>, ApiError> {
    state.desktop.set_clipboard(set).await?;
    Ok(Done::new())
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ContentQuery {
    /// `clipboard` (when absent), `primary`, or to be set `both`.
    #[serde(default)]
    #[param(inline)]
    selection: SelectionName,
    /// The form that is wanted, such as `image/png` or `text/html`.
    target: String,
}

/// Reads a selection in one of its forms, such as a picture; 204 when it can't be had in that.
#[utoipa::path(get, path = "/v1/desktop/clipboard/content", tag = "desktop", operation_id = "get_desktop_clipboard_content", params(ContentQuery),
    responses((status = 200, description = "The content, of the form that was asked for"), (status = 204, description = "There is none"),
              (status = 400, body = ProblemDetails), (status = 409, body = ProblemDetails), (status = 500, body = ProblemDetails)))]
async fn get_clipboard_content(
    State(state): State<AppState>,
    ApiQuery(query): ApiQuery<ContentQuery>,
) -> Result<Response, ApiError> {
    let Some(content) = state.desktop.clipboard_content(query.selection, query.target.clone()).await? else {
        return Ok(StatusCode::NO_CONTENT.into_response());
    };
    let mut response = Response::new(Body::from(content.bytes.to_vec()));
    let usual = HeaderValue::from_static("application/octet-stream");
    let kind = Some(&query.target).filter(|target| target.contains('/')).and_then(|target| HeaderValue::try_from(target).ok());
    response.headers_mut().insert(header::CONTENT_TYPE, kind.unwrap_or(usual));
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(response)
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct NewContentQuery {
    /// `clipboard` (when absent), `primary` or `both`.
    #[serde(default)]
    #[param(inline)]
    selection: SelectionName,
}

/// Sets a selection to the body, in the form that `Content-Type` names.
#[utoipa::path(put, path = "/v1/desktop/clipboard/content", tag = "desktop", operation_id = "set_desktop_clipboard_content", params(NewContentQuery),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, body = Done), (status = 400, body = ProblemDetails), (status = 409, body = ProblemDetails),
              (status = 413, body = ProblemDetails), (status = 500, body = ProblemDetails)))]
async fn set_clipboard_content(
    State(state): State<AppState>,
    ApiQuery(query): ApiQuery<NewContentQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Done>, ApiError> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let target = kind.ok_or_else(|| ApiError::invalid("Content-Type says what the body is, such as image/png"))?;
    let bounds = &state.config.bounds;
    let body =
        read_body(body, as_usize(bounds.desktop_clipboard_max_bytes), as_duration(bounds.http_body_idle_timeout_ms)).await?;
    state.desktop.set_clipboard_content(query.selection, target, body.to_vec()).await?;
    Ok(Done::new())
}
