//! Terminals over WebSockets: the door. What is said behind it is in [`frames`], who says it in [`session`].

mod frames;
mod outbox;
mod session;
#[cfg(test)]
mod tests;

use axum::extract::State;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::response::Response;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::config::{as_duration, as_usize};
use crate::http::extract::{ApiPath, ApiQuery};
use crate::http::problem::{ApiError, ErrorCode};
use crate::http::{AppState, ProblemDetails};
use session::{Session, Snapshots};

/// Input comes in small frames; output is flushed as it comes.
const SOCKET_BUFFER_BYTES: usize = 16 * 1024;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(attach_terminal))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct AttachQuery {
    /// Absent: output begins with bytes that draw the screen as it is. `false`: only output from now on. `true`: as
    /// absent, and size changes and left out output are told of in frames that older clients don't know.
    snapshot: Option<bool>,
    /// The token, for browsers, which can't give a WebSocket a header.
    #[allow(dead_code)] // the guard reads it
    access_token: Option<String>,
}

/// Attaches to a process's terminal over a WebSocket. Leaving ends nothing.
///
/// The server sends text `{"type":"ready","processId"}`, then binary frames of output, `{"type":"error","message"}`, and
/// at the process's end `{"type":"exit","exitCode"}` and a close frame. With `snapshot=true`, `ready` has `cols` and
/// `rows`, `exit` has `exit` (code or signal), and there are `{"type":"snapshot","cols","rows","bytes"}` before the frame that draws the screen,
/// `{"type":"resize","cols","rows"}` and `{"type":"lagged","skippedBytes"}`. The client sends text
/// `{"type":"input","data","encoding"?}` (verbatim unless `encoding` is `base64`), `{"type":"resize","cols","rows"}` and
/// `{"type":"close"}`.
#[utoipa::path(get, path = "/v1/processes/{id}/terminal/ws", tag = "processes", operation_id = "attach_terminal",
    params(("id" = String, Path, description = "`proc_<n>`"), AttachQuery),
    responses((status = 101, description = "A WebSocket"), (status = 400, body = ProblemDetails, description = "No WebSocket is asked for"),
        (status = 403, body = ProblemDetails, description = "A page of another origin"), (status = 404, body = ProblemDetails),
        (status = 409, body = ProblemDetails, description = "It has no terminal"),
        (status = 503, body = ProblemDetails, description = "Too many are attached")))]
async fn attach_terminal(
    State(state): State<AppState>,
    ApiPath(id): ApiPath<String>,
    ApiQuery(query): ApiQuery<AttachQuery>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let upgrade = upgrade.map_err(|rejection| ApiError::invalid(rejection.body_text()))?;
    let terminal = state.processes.attach(&id).await?;
    let bounds = &state.config.bounds;
    let permit = state.ws_clients.clone().try_acquire_owned().map_err(|_| {
        let max = bounds.ws_clients_max;
        ApiError::new(ErrorCode::Busy, format!("{max} terminal clients are attached already: close one that is no longer needed"))
    })?;
    let snapshots = match query.snapshot {
        None => Snapshots::Plain,
        Some(false) => Snapshots::None,
        Some(true) => Snapshots::Announced,
    };
    let session = Session::new(terminal, id, snapshots, as_duration(bounds.ws_ping_ms), state.stop.clone());
    let upgrade = bounded(upgrade, as_usize(bounds.ws_message_max_bytes));
    Ok(upgrade.on_upgrade(|socket| async move {
        session.run(socket).await;
        drop(permit);
    }))
}

fn bounded(upgrade: WebSocketUpgrade, message_max_bytes: usize) -> WebSocketUpgrade {
    let upgrade = upgrade.max_message_size(message_max_bytes).max_frame_size(message_max_bytes);
    upgrade.read_buffer_size(SOCKET_BUFFER_BYTES).write_buffer_size(SOCKET_BUFFER_BYTES)
}
