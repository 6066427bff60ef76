//! `/v1/processes`: processes, their logs and their terminals, as clients of `sandbox-agent` 0.4.2 know them, and more.

mod encode;
mod input;
mod lifecycle;
mod logs;
mod ports;
mod query;
mod screen;
mod terminal;

use utoipa_axum::router::OpenApiRouter;

use crate::http::AppState;

pub(super) fn router() -> OpenApiRouter<AppState> {
    lifecycle::router()
        .merge(input::router())
        .merge(logs::router())
        .merge(query::router())
        .merge(terminal::router())
        .merge(screen::router())
        .merge(ports::router())
}
