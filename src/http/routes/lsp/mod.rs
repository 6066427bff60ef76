//! `/v1/lsp`: language servers.

mod changes;
mod diagnostics;
mod problem;
mod question;
mod questions;
mod servers;

use utoipa_axum::router::OpenApiRouter;

use crate::http::AppState;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().merge(servers::router()).merge(diagnostics::router()).merge(questions::router()).merge(changes::router())
}
