//! What happens to every request: an id, one log line, CORS headers.

use std::time::Instant;

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderName, HeaderValue};
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, CorsLayer};
use tracing::Instrument as _;

use super::problem::REQUEST_ID;
use super::routes::acp_remote::{CONNECTION_ID, SESSION_ID};
use crate::config::Cors;
use crate::rt::ids::new_id;

const REQUEST_ID_HEADER: HeaderName = HeaderName::from_static("x-request-id");
const CLIENT_ID_MAX_BYTES: usize = 128;

/// Gives the request its id (the client's own when it sends a usable one), runs it, and writes one log line. Queries
/// are never logged: a WebSocket's may hold the token.
pub(super) async fn observe(request: Request, next: Next) -> Response {
    let id = client_id(&request).unwrap_or_else(|| new_id("req"));
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let span = tracing::debug_span!("request", id);
    let started = Instant::now();
    let mut response = REQUEST_ID.scope(id.clone(), next.run(request)).instrument(span).await;
    let latency_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
    tracing::debug!(id, %method, path, status = response.status().as_u16(), latency_us, "request answered");
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID_HEADER, value);
    }
    response
}

fn client_id(request: &Request) -> Option<String> {
    let id = request.headers().get(REQUEST_ID_HEADER)?.to_str().ok()?;
    let usable = !id.is_empty() && id.len() <= CLIENT_ID_MAX_BYTES && id.bytes().all(|byte| byte.is_ascii_graphic());
    usable.then(|| id.to_owned())
}

/// CORS as the flags say. With credentials, a wildcard is not allowed (Fetch standard, "CORS protocol and
/// credentials"), so what the browser asks for is mirrored instead.
pub(super) fn cors(cors: &Cors) -> CorsLayer {
    let origin = match (cors.any_origin, cors.credentials) {
        (true, true) => AllowOrigin::mirror_request(),
        (true, false) => AllowOrigin::any(),
        (false, _) => AllowOrigin::list(cors.origins.clone()),
    };
    let methods = match (cors.methods.is_empty(), cors.credentials) {
        (true, true) => AllowMethods::mirror_request(),
        (true, false) => AllowMethods::any(),
        (false, _) => AllowMethods::list(cors.methods.clone()),
    };
    let headers = match (cors.headers.is_empty(), cors.credentials) {
        (true, true) => AllowHeaders::mirror_request(),
        (true, false) => AllowHeaders::any(),
        (false, _) => AllowHeaders::list(cors.headers.clone()),
    };
    CorsLayer::new()
        .allow_origin(origin)
        .allow_methods(methods)
        .allow_headers(headers)
        .allow_credentials(cors.credentials)
        .expose_headers([CONNECTION_ID, SESSION_ID])
}
