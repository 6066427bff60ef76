//! Sessions as JSON Lines, out and in.

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use futures_util::StreamExt as _;
use http::{StatusCode, header};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::http::extract::ApiPath;
use crate::http::problem::ApiError;
use crate::http::{AppState, ProblemDetails};
use crate::sessions::SessionInfo;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(export_session)).routes(routes!(import_session))
}

/// Exports a session as JSON Lines: the session, its turns, requests and events. The last line, of type `end`, says that
/// it is whole.
#[utoipa::path(get, path = "/v1/sessions/{id}/export", tag = "sessions", operation_id = "export_session",
    params(("id" = String, Path, description = "`ses_…`")),
    responses((status = 200, content_type = "application/jsonl", body = String), (status = 404, body = ProblemDetails)))]
async fn export_session(State(state): State<AppState>, ApiPath(id): ApiPath<String>) -> Result<Response, ApiError> {
    let export = state.sessions.export(&id).await?;
    let lines = futures_util::stream::unfold(Some(export), |export| async move {
        let mut export = export?;
        match export.next().await {
            Ok(Some(lines)) => Some((Ok(lines), Some(export))),
            Ok(None) => None,
            Err(error) => Some((Err(std::io::Error::other(error)), None)), // the connection breaks off: it isn't whole
        }
    });
    let name = format!("attachment; filename=\"{id}.jsonl\"");
    let headers = [(header::CONTENT_TYPE, "application/jsonl".to_owned()), (header::CONTENT_DISPOSITION, name)];
    Ok((headers, Body::from_stream(lines)).into_response())
}

/// Takes an exported session in. It keeps its id where that is free; what was under way is told as lost. The next message
/// has its agent restore it, or be told the transcript.
#[utoipa::path(post, path = "/v1/sessions/import", tag = "sessions", operation_id = "import_session",
    request_body(content = String, content_type = "application/jsonl"),
    responses((status = 201, body = SessionInfo), (status = 400, body = ProblemDetails), (status = 507, body = ProblemDetails)))]
async fn import_session(State(state): State<AppState>, request: Request) -> Result<Response, ApiError> {
    let mut import = state.sessions.import();
    let mut body = request.into_body().into_data_stream();
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|error| ApiError::invalid(format!("the import broke off: {error}")))?;
        import.push(&chunk).await?;
    }
    Ok((StatusCode::CREATED, Json(import.finish().await?)).into_response())
}
