//! Pages for people.

use axum::response::{IntoResponse as _, Response};
use http::header;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::http::extract::ApiPath;
use crate::http::problem::{ApiError, ErrorCode};
use crate::http::{AppState, ProblemDetails};

/// Nothing of another host's, and nothing inline; the page itself talks to this server only.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob: \
                      mediastream:; connect-src 'self' ws: wss:; base-uri 'none'; form-action 'self'; frame-ancestors 'self'";

/// The page's parts: name, media type, text.
const DESKTOP: [(&str, &str, &str); 6] = [
    ("main.js", "text/javascript", include_str!("../../../inspector/desktop/main.js")),
    ("keys.js", "text/javascript", include_str!("../../../inspector/desktop/keys.js")),
    ("players.js", "text/javascript", include_str!("../../../inspector/desktop/players.js")),
    ("pointer.js", "text/javascript", include_str!("../../../inspector/desktop/pointer.js")),
    ("sound.js", "text/javascript", include_str!("../../../inspector/desktop/sound.js")),
    ("style.css", "text/css", include_str!("../../../inspector/desktop/style.css")),
];

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(desktop_page)).routes(routes!(desktop_part))
}

/// The desktop, live, as a page. It asks for the token, or takes a ticket from behind `#ticket=`.
#[utoipa::path(get, path = "/ui/desktop", tag = "server", operation_id = "get_desktop_page", security(()),
    responses((status = 200, description = "A page", content_type = "text/html")))]
async fn desktop_page() -> Response {
    part("text/html", include_str!("../../../inspector/desktop/index.html"))
}

/// A part of that page.
#[utoipa::path(get, path = "/ui/desktop/{part}", tag = "server", operation_id = "get_desktop_page_part", security(()),
    params(("part" = String, Path, description = "As the page names it")),
    responses((status = 200, description = "A script or a style sheet"), (status = 404, body = ProblemDetails)))]
async fn desktop_part(ApiPath(name): ApiPath<String>) -> Result<Response, ApiError> {
    let found = DESKTOP.iter().find(|(known, ..)| *known == name);
    let (_, media_type, text) =
        found.ok_or_else(|| ApiError::new(ErrorCode::EndpointNotFound, format!("endpoint not found: /ui/desktop/{name}")))?;
    Ok(part(media_type, text))
}

/// Not kept by browsers: the next server may have another one.
fn part(media_type: &str, text: &'static str) -> Response {
    let media_type = format!("{media_type}; charset=utf-8");
    let headers = [
        (header::CONTENT_TYPE, media_type.as_str()),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::CACHE_CONTROL, "no-cache"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, text).into_response()
}
