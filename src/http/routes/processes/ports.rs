//! `/v1/ports`: which ports are open, and whose they are.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::http::problem::ApiError;
use crate::http::{AppState, ProblemDetails};
use crate::processes::types::PortInfo;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list_ports))
}

/// Listening TCP ports, by number.
#[derive(Debug, Serialize, ToSchema)]
struct PortList {
    ports: Vec<PortInfo>,
}

/// Lists the TCP ports that are listened on here, with the process that each belongs to. What changes is told by
/// `/v1/processes/events` as `port.opened` and `port.closed`.
#[utoipa::path(get, path = "/v1/ports", tag = "processes", operation_id = "list_ports",
    responses((status = 200, body = PortList), (status = 400, body = ProblemDetails, description = "They can't be listed here")))]
async fn list_ports(State(state): State<AppState>) -> Result<Json<PortList>, ApiError> {
    Ok(Json(PortList { ports: state.processes.ports().await? }))
}
