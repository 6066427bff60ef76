//! `/v1/sessions`: ACP sessions that last. One file per part of the resource.

mod attachments;
mod events;
mod lifecycle;
mod transfer;
mod turns;

use http::HeaderMap;
use utoipa_axum::router::OpenApiRouter;

use crate::http::AppState;
use crate::http::problem::ApiError;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .merge(lifecycle::router())
        .merge(turns::router())
        .merge(events::router())
        .merge(attachments::router())
        .merge(transfer::router())
}

/// Longer keys are refused.
const KEY_MAX_BYTES: usize = 256;

/// The `Idempotency-Key` of a request (draft-ietf-httpapi-idempotency-key-header).
fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    match value.to_str().map(str::trim) {
        Ok(key) if !key.is_empty() && key.len() <= KEY_MAX_BYTES => Ok(Some(key.to_owned())),
        _ => Err(ApiError::invalid(format!("Idempotency-Key must be 1 to {KEY_MAX_BYTES} visible ASCII characters"))),
    }
}
