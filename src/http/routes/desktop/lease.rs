//! Who has the desktop, where several use it.

use axum::Json;
use axum::extract::{FromRequestParts, State};
use http::{HeaderName, StatusCode, request::Parts};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::desktop::{LeaseInfo, LeaseSpec};
use crate::http::extract::{ApiJson, ApiQuery};
use crate::http::problem::ApiError;
use crate::http::{AppState, ProblemDetails};

/// Says whose an input is.
const HOLDER_HEADER: HeaderName = HeaderName::from_static("x-desktop-holder");

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(get_lease, take_lease, give_back_lease))
}

/// The lease doesn't speak against this call. Its handler takes it first.
#[derive(Debug)]
pub(super) struct Admitted;

impl FromRequestParts<AppState> for Admitted {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let who = parts.headers.get(HOLDER_HEADER).map(|value| value.to_str());
        let who = who.transpose().map_err(|_| ApiError::invalid("X-Desktop-Holder has characters that are no ASCII"))?;
        state.desktop.lease().admit(who)?;
        Ok(Self)
    }
}

/// For the description of calls that take [`Admitted`].
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code)] // only described
pub(super) struct HolderHeader {
    /// Who does this: 409 `desktop_leased` while somebody else has the lease.
    #[param(rename = "X-Desktop-Holder")]
    holder: Option<String>,
}

/// Says who has the desktop.
#[utoipa::path(get, path = "/v1/desktop/lease", tag = "desktop", operation_id = "get_desktop_lease",
    responses((status = 200, body = LeaseInfo)))]
async fn get_lease(State(state): State<AppState>) -> Json<LeaseInfo> {
    Json(state.desktop.lease().info())
}

/// Takes the desktop for some time, or renews that. Advisory: input that doesn't say whose it is (`X-Desktop-Holder`) is still
/// made, and told as event `desktop.control`.
#[utoipa::path(post, path = "/v1/desktop/lease", tag = "desktop", operation_id = "take_desktop_lease", request_body = LeaseSpec,
    responses((status = 200, body = LeaseInfo), (status = 400, body = ProblemDetails),
              (status = 409, description = "Somebody else has it (`desktop_leased`, with `holder` and `expiresAt`)", body = ProblemDetails),
              (status = 422, body = ProblemDetails)))]
async fn take_lease(State(state): State<AppState>, ApiJson(spec): ApiJson<LeaseSpec>) -> Result<Json<LeaseInfo>, ApiError> {
    Ok(Json(state.desktop.lease().take(spec).await?))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct GiveBackQuery {
    /// Whose it is.
    holder: String,
}

/// Gives the desktop back. 204 also when it isn't this one's: then it stays as it is.
#[utoipa::path(delete, path = "/v1/desktop/lease", tag = "desktop", operation_id = "give_back_desktop_lease", params(GiveBackQuery),
    responses((status = 204, description = "It is not this one's"), (status = 400, body = ProblemDetails)))]
async fn give_back_lease(
    State(state): State<AppState>,
    ApiQuery(query): ApiQuery<GiveBackQuery>,
) -> Result<StatusCode, ApiError> {
    state.desktop.lease().give_back(query.holder).await?;
    Ok(StatusCode::NO_CONTENT)
}
