//! Terminals over WebSockets.

use utoipa_axum::router::OpenApiRouter;

use crate::http::AppState;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
}
