//! Extractors whose rejections are problems, with the statuses of the contract.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use bytes::BytesMut;
use http::{HeaderMap, header, request::Parts};
use http_body_util::BodyExt as _;
use serde::de::DeserializeOwned;

use super::negotiate::{Named, media};
use super::problem::{ApiError, ErrorCode};

/// Of a body that is too long, at least so much is read on. A client that writes when the connection is closed may lose
/// the answer, so a small bound alone must not make that likely.
const DRAIN_MIN_BYTES: usize = 16 * 1024 * 1024;

/// Query parameters; what doesn't fit is a 400 problem.
#[derive(Debug)]
pub struct ApiQuery<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for ApiQuery<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let query = Query::<T>::from_request_parts(parts, state).await;
        query.map(|Query(value)| Self(value)).map_err(|rejection| ApiError::invalid(rejection.body_text()))
    }
}

/// A path parameter; what isn't UTF-8 once decoded is a 400 problem.
#[derive(Debug)]
pub struct ApiPath<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for ApiPath<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = Path::<T>::from_request_parts(parts, state).await;
        path.map(|Path(value)| Self(value)).map_err(|rejection| ApiError::invalid(rejection.body_text()))
    }
}

/// A JSON body of at most `http_body_max_bytes`.
#[derive(Debug)]
pub struct ApiJson<T>(pub T);

/// Gives the bounds to extractors.
pub trait BodyLimit {
    /// Most bytes of a JSON body.
    fn body_max_bytes(&self) -> usize;
    /// Most bytes of a JSON body that carries a message.
    fn large_body_max_bytes(&self) -> usize;
    /// The longest silence in the middle of a body.
    fn body_idle_timeout(&self) -> Duration;
}

impl<T: DeserializeOwned, S: BodyLimit + Send + Sync> FromRequest<S> for ApiJson<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        if !is_json(request.headers()) {
            return Err(not_json());
        }
        let body = read_body(request.into_body(), state.body_max_bytes(), state.body_idle_timeout()).await?;
        parse_json(&body).map(Self)
    }
}

/// As [`ApiJson`], of at most `acp_body_max_bytes`: messages carry images.
#[derive(Debug)]
pub struct LargeJson<T>(pub T);

impl<T: DeserializeOwned, S: BodyLimit + Send + Sync> FromRequest<S> for LargeJson<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        if !is_json(request.headers()) {
            return Err(not_json());
        }
        let body = read_body(request.into_body(), state.large_body_max_bytes(), state.body_idle_timeout()).await?;
        parse_json(&body).map(Self)
    }
}

/// As [`ApiJson`], but an empty body stands for the default, whatever its type.
#[derive(Debug)]
pub struct OptionalJson<T>(pub T);

impl<T: DeserializeOwned + Default, S: BodyLimit + Send + Sync> FromRequest<S> for OptionalJson<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let is_json = is_json(request.headers());
        let body = read_body(request.into_body(), state.body_max_bytes(), state.body_idle_timeout()).await?;
        match (body.is_empty(), is_json) {
            (true, _) => Ok(Self(T::default())),
            (false, true) => parse_json(&body).map(Self),
            (false, false) => Err(not_json()),
        }
    }
}

fn not_json() -> ApiError {
    let why = "Expected request with `Content-Type: application/json`";
    ApiError::with_message(ErrorCode::UnsupportedMediaType, "unsupported media type", why)
}

/// Broken JSON is 400, another shape 422.
fn parse_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    let value: serde_json::Value =
        serde_json::from_slice(body).map_err(|error| ApiError::invalid(format!("invalid JSON body: {error}")))?;
    let typed = serde_json::from_value(value);
    typed.map_err(|error| ApiError::new(ErrorCode::InvalidShape, format!("invalid request: {error}")))
}

/// The body, whole. One that is too long is read on for a while and thrown away, so that the client reads our answer
/// instead of a reset connection.
///
/// Dropping the future drops the body, and with it the connection.
///
/// # Errors
/// 413 beyond `max_bytes`, 408 when nothing comes for `idle`, 400 when the client stops in the middle.
pub async fn read_body(body: Body, max_bytes: usize, idle: Duration) -> Result<Bytes, ApiError> {
    let mut body = body;
    let mut collected = BytesMut::new();
    loop {
        let Ok(frame) = tokio::time::timeout(idle, body.frame()).await else { return Err(too_slow(idle)) };
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| ApiError::invalid(format!("the body ended early: {error}")))?;
        let data = frame.into_data().unwrap_or_default(); // trailers are of no interest
        if collected.len() + data.len() > max_bytes {
            drain(body, max_bytes).await;
            let why = format!("invalid request: the body is longer than {max_bytes} bytes");
            return Err(ApiError::new(ErrorCode::PayloadTooLarge, why));
        }
        collected.extend_from_slice(&data);
    }
    Ok(collected.freeze())
}

/// 408.
pub fn too_slow(idle: Duration) -> ApiError {
    let why = format!("nothing of the request's body came for {} ms: send it again", idle.as_millis());
    ApiError::new(ErrorCode::RequestTimeout, why)
}

/// Reads a body that is refused on for a while and throws it away, so that the client reads our answer instead of a reset
/// connection.
pub async fn drain(body: Body, max_bytes: usize) {
    let mut body = body;
    let mut drained = 0;
    let give_up = tokio::time::sleep(Duration::from_secs(5));
    tokio::pin!(give_up);
    while drained < max_bytes.saturating_mul(8).max(DRAIN_MIN_BYTES) {
        let frame = tokio::select! { frame = body.frame() => frame, () = &mut give_up => return };
        let Some(Ok(frame)) = frame else { return };
        drained += frame.data_ref().map_or(0, Bytes::len);
    }
}

/// True for `application/json`, whatever its parameters and case.
pub fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
}

/// True when `Accept` is absent or covers `kind/subtype` (RFC 9110 section 12.5.1; weights of 0 exclude).
pub fn accepts(headers: &HeaderMap, kind: &str, subtype: &str) -> bool {
    !headers.contains_key(header::ACCEPT) || media(headers, kind, subtype).is_some_and(|(_, weight)| weight > 0)
}

/// True when `Accept` names `text/event-stream` itself, where a route has another answer, too.
pub fn names_events(headers: &HeaderMap) -> bool {
    media(headers, "text", "event-stream").is_some_and(|(named, weight)| named == Named::Itself && weight > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::ACCEPT, value.parse().expect("a header"))])
    }

    #[test]
    fn accept_covers() {
        assert!(accepts(&HeaderMap::new(), "application", "json"));
        for yes in ["*/*", "application/*", "text/html, application/json;q=0.5", "APPLICATION/JSON"] {
            assert!(accepts(&accept(yes), "application", "json"), "{yes}");
        }
        for no in ["", "text/html", "application/json;q=0", "application/json;q=0.0"] {
            assert!(!accepts(&accept(no), "application", "json"), "{no}");
        }
        assert!(names_events(&accept("application/json, Text/Event-Stream;q=0.5")));
        assert!(!names_events(&accept("*/*")) && !names_events(&accept("text/event-stream;q=0")));
    }
}
