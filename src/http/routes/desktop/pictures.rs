//! Pictures of the screen, and waiting for it.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::desktop::{CursorStyle, Picture, PictureFormat, Shot, Space, WaitFor, Waited};
use crate::http::extract::{ApiJson, ApiQuery};
use crate::http::problem::ApiError;
use crate::http::{AppState, ProblemDetails};

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(take_screenshot)).routes(routes!(take_region_screenshot)).routes(routes!(wait_for_screen))
}

/// How the pointer is shown.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum CursorWord {
    /// Not at all.
    None,
    /// A red cross.
    Crosshair,
    /// As it looks.
    Real,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
struct ShotQuery {
    /// `png` (when absent), `jpeg` or `webp`.
    #[serde(default)]
    #[param(inline)]
    format: PictureFormat,
    /// 1 to 100 (85 when absent); without effect on PNG. A WebP of 100 is lossless.
    quality: Option<u32>,
    /// 0.1 to 1.
    scale: Option<f32>,
    /// True marks the pointer by a red cross.
    #[serde(alias = "show_cursor")]
    show_cursor: Option<bool>,
    /// `none`, `crosshair` or `real`; goes before `showCursor`.
    #[param(inline)]
    cursor: Option<CursorWord>,
    /// The picture is made to fit into so many pixels; the same in an input's body scales its coordinates back.
    max_width: Option<u32>,
    /// As `maxWidth`.
    max_height: Option<u32>,
    /// Only this display (`GET /v1/desktop/displays`); a region counts from its corner.
    display: Option<String>,
    /// A frame id (`x-frame-id`): only the rectangle that is different since then; 204 when nothing is.
    since: Option<u64>,
}

impl ShotQuery {
    fn shot(&self) -> Shot {
        let cursor = match (self.cursor, self.show_cursor) {
            (Some(CursorWord::Real), _) => CursorStyle::Real,
            (Some(CursorWord::Crosshair), _) | (None, Some(true)) => CursorStyle::Crosshair,
            _ => CursorStyle::None,
        };
        let space = Space { max_width: self.max_width, max_height: self.max_height, display: self.display.clone() };
        let (format, quality, scale, since) = (self.format.into(), self.quality, self.scale, self.since);
        Shot { format, quality, scale, space, cursor, region: None, since }
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct RegionQuery {
    /// Pixels of the screen or display, not negative.
    x: i32,
    /// Pixels of the screen or display, not negative.
    y: i32,
    /// Pixels, not 0; what is beyond the screen is left out.
    width: u32,
    /// Pixels, not 0; what is beyond the screen is left out.
    height: u32,
}

/// Takes a picture of the screen. Headers say what it shows: `x-frame-id`, `x-frame-hash`, `x-region` (x, y, width and height on the
/// screen), `x-picture` (its size), `x-screen`.
#[utoipa::path(get, path = "/v1/desktop/screenshot", tag = "desktop", operation_id = "take_desktop_screenshot", params(ShotQuery),
    responses((status = 200, description = "The picture", content((Vec<u8> = "image/png"), (Vec<u8> = "image/jpeg"), (Vec<u8> = "image/webp"))),
              (status = 204, description = "Nothing is different"), (status = 400, body = ProblemDetails),
              (status = 409, body = ProblemDetails), (status = 502, body = ProblemDetails), (status = 503, body = ProblemDetails)))]
async fn take_screenshot(State(state): State<AppState>, ApiQuery(query): ApiQuery<ShotQuery>) -> Result<Response, ApiError> {
    Ok(answer(state.desktop.shot(query.shot()).await?))
}

/// Takes a picture of a part of the screen.
#[utoipa::path(get, path = "/v1/desktop/screenshot/region", tag = "desktop", operation_id = "take_desktop_region_screenshot",
    params(RegionQuery, ShotQuery),
    responses((status = 200, description = "The picture", content((Vec<u8> = "image/png"), (Vec<u8> = "image/jpeg"), (Vec<u8> = "image/webp"))),
              (status = 400, body = ProblemDetails), (status = 409, body = ProblemDetails), (status = 502, body = ProblemDetails),
              (status = 503, body = ProblemDetails)))]
async fn take_region_screenshot(
    State(state): State<AppState>,
    ApiQuery(region): ApiQuery<RegionQuery>,
    ApiQuery(query): ApiQuery<ShotQuery>,
) -> Result<Response, ApiError> {
    let shot = Shot { region: Some((region.x, region.y, region.width, region.height)), ..query.shot() };
    Ok(answer(state.desktop.shot(shot).await?))
}

fn answer(picture: Picture) -> Response {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    let mut set = |name: &'static str, text: String| {
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(name, value);
        }
    };
    let (x, y, width, height) = picture.region;
    set("x-region", format!("{x},{y},{width},{height}"));
    set("x-picture", format!("{},{}", picture.width, picture.height));
    set("x-screen", format!("{},{}", picture.screen.0, picture.screen.1));
    set("x-frame-hash", format!("{:016x}", picture.hash));
    if let Some(id) = picture.frame_id {
        set("x-frame-id", id.to_string());
    }
    set("cache-control", "no-store".to_owned());
    match picture.bytes {
        None => *response.status_mut() = StatusCode::NO_CONTENT,
        Some(bytes) => {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(picture.media_type));
            *response.body_mut() = Body::from(bytes);
        }
    }
    response
}

/// Waits until the screen is still, or changes, or a window is there.
#[utoipa::path(post, path = "/v1/desktop/wait", tag = "desktop", operation_id = "wait_for_desktop", request_body = WaitFor,
    responses((status = 200, body = Waited), (status = 400, body = ProblemDetails), (status = 409, body = ProblemDetails),
              (status = 422, body = ProblemDetails), (status = 503, body = ProblemDetails)))]
async fn wait_for_screen(State(state): State<AppState>, ApiJson(what): ApiJson<WaitFor>) -> Result<Json<Waited>, ApiError> {
    Ok(Json(state.desktop.wait(what).await?))
}
