//! Files that go with messages.

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use http::{StatusCode, header};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::http::extract::{ApiPath, ApiQuery};
use crate::http::problem::ApiError;
use crate::http::{AppState, ProblemDetails};
use crate::sessions::Attachment;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(upload_attachment))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct UploadQuery {
    /// What the file is called.
    name: Option<String>,
}

/// Uploads a file for a session's messages; it lies in the sandbox until the session is deleted.
#[utoipa::path(post, path = "/v1/sessions/{id}/attachments", tag = "sessions", operation_id = "upload_attachment",
    request_body(content = String, content_type = "application/octet-stream"),
    params(("id" = String, Path, description = "`ses_…`"), UploadQuery),
    responses((status = 201, body = Attachment), (status = 400, body = ProblemDetails), (status = 404, body = ProblemDetails),
        (status = 413, body = ProblemDetails, description = "Too long, or one too many"),
        (status = 507, body = ProblemDetails)))]
async fn upload_attachment(
    State(state): State<AppState>,
    ApiPath(id): ApiPath<String>,
    ApiQuery(query): ApiQuery<UploadQuery>,
    request: Request,
) -> Result<Response, ApiError> {
    let mime_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let body = request.into_body().into_data_stream();
    let attachment = state.sessions.attach(&id, query.name.as_deref(), mime_type, body).await?;
    Ok((StatusCode::CREATED, Json(attachment)).into_response())
}
