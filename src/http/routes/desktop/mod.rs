//! `/v1/desktop`: an X session.

mod accessibility;
mod clipboard;
mod input;
mod lease;
mod looks;
mod pictures;
mod recordings;
mod session;
mod stream;
mod windows;

use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;

use crate::http::AppState;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .merge(session::router())
        .merge(pictures::router())
        .merge(input::router())
        .merge(windows::router())
        .merge(lease::router())
        .merge(looks::router())
        .merge(clipboard::router())
        .merge(recordings::router())
        .merge(accessibility::router())
        .merge(stream::router())
}

/// It is done.
#[derive(Debug, Serialize, ToSchema)]
struct Done {
    /// True.
    ok: bool,
}

impl Done {
    fn new() -> axum::Json<Self> {
        axum::Json(Self { ok: true })
    }
}
