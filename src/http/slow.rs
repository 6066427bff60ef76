//! Answers that may take long: the status is sent, and white space keeps the connection busy until the JSON follows
//! (RFC 8259 section 2 allows it before the value), so that no client or proxy takes the request for dead.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::response::{IntoResponse as _, Response};
use http::header;
use serde::Serialize;

use super::problem::ApiError;
use crate::config::{Bounds, as_duration};

/// What will be answered.
pub type Pending<T> = Pin<Box<dyn Future<Output = Result<T, ApiError>> + Send>>;

/// How long `waitMs` asks to wait.
///
/// # Errors
/// 400 when that is longer than the bound.
pub fn wait(wait_ms: u64, bounds: &Bounds) -> Result<Duration, ApiError> {
    let max_ms = bounds.long_poll_max_ms;
    if wait_ms > max_ms {
        return Err(ApiError::invalid(format!("waitMs must be at most {max_ms}")));
    }
    Ok(as_duration(wait_ms))
}

/// The answer as JSON. One that comes within `keepalive` has its own status. After that the status is 200 whatever comes:
/// an error is then the body.
pub async fn json<T: Serialize + Send + 'static>(
    pending: impl Future<Output = Result<T, ApiError>> + Send + 'static,
    keepalive: Duration,
) -> Result<Response, ApiError> {
    let mut pending: Pending<T> = Box::pin(pending);
    tokio::select! {
        answer = &mut pending => Ok(axum::Json(answer?).into_response()),
        () = tokio::time::sleep(keepalive) => Ok(white_space(pending, keepalive, |answer| match answer {
            Ok(value) => serde_json::to_vec(&value).unwrap_or_default().into(),
            Err(error) => error.body().to_string().into(),
        })),
    }
}

/// 200 and white space now, `last` once there is an answer.
pub fn white_space<T: Send + 'static>(
    pending: Pending<T>,
    keepalive: Duration,
    last: impl FnOnce(Result<T, ApiError>) -> Bytes + Send + 'static,
) -> Response {
    let chunks = futures_util::stream::unfold(Some((pending, last)), move |waiting| async move {
        let (mut pending, last) = waiting?;
        tokio::select! {
            answer = &mut pending => Some((Ok::<_, Infallible>(last(answer)), None)),
            () = tokio::time::sleep(keepalive) => Some((Ok(Bytes::from_static(b" ")), Some((pending, last)))),
        }
    });
    let first = futures_util::stream::once(std::future::ready(Ok(Bytes::from_static(b" "))));
    let body = Body::from_stream(futures_util::StreamExt::chain(first, chunks));
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}
