//! Uploads that go on where they broke off. A client makes its pieces as large as it likes.

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::archive::pass;
use super::conditions;
use super::target::{AuthorQuery, Reached, Target, TargetQuery, path_answer, shown};
use crate::fs::{Completion, Fsync, Sha256Hex, Upload, Validator};
use crate::http::extract::{ApiPath, ApiQuery, OptionalJson, drain};
use crate::http::problem::ApiError;
use crate::http::{AppState, ProblemDetails};

/// How far an upload came, or where a piece begins.
const OFFSET: HeaderName = HeaderName::from_static("upload-offset");
/// Pieces of a body between the connection and the thread that writes.
const PIECES: usize = 4;
const DRAIN_BYTES: usize = 2 * 1024 * 1024;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(begin_upload))
        .routes(routes!(get_upload, append_upload, abort_upload))
        .routes(routes!(complete_upload))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct BeginQuery {
    /// Bytes that the file will have, when that is known: more are refused, and so is completing it with fewer.
    size: Option<u64>,
}

/// An upload under way.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[allow(dead_code)] // describes what is put together
struct FsUpload {
    /// Names it in the other routes.
    id: String,
    /// Where it will be.
    path: String,
    /// Bytes that are here: the next piece begins there.
    offset: u64,
    /// Bytes that it will have.
    size: Option<u64>,
    /// When it goes if nothing more comes, in Unix milliseconds.
    expires_at_ms: i64,
}

/// Begins an upload.
#[utoipa::path(post, path = "/v1/fs/uploads", tag = "fs", operation_id = "post_fs_uploads", params(TargetQuery, BeginQuery),
    responses((status = 201, body = FsUpload), (status = 400, body = ProblemDetails), (status = 403, body = ProblemDetails),
              (status = 413, body = ProblemDetails), (status = 507, body = ProblemDetails)))]
async fn begin_upload(
    State(state): State<AppState>,
    target: Target,
    ApiQuery(query): ApiQuery<BeginQuery>,
) -> Result<Response, ApiError> {
    let upload = state.uploads.begin(&target.reach, target.at, query.size).await?;
    Ok((StatusCode::CREATED, answer(&upload)).into_response())
}

/// Says how far an upload came.
#[utoipa::path(get, path = "/v1/fs/uploads/{id}", tag = "fs", operation_id = "get_fs_upload", params(("id" = String, Path), AuthorQuery),
    responses((status = 200, body = FsUpload), (status = 404, body = ProblemDetails)))]
async fn get_upload(
    State(state): State<AppState>,
    Reached(reach): Reached,
    ApiPath(id): ApiPath<String>,
) -> Result<Response, ApiError> {
    Ok(answer(&state.uploads.get(&reach, &id).await?).into_response())
}

/// Adds a piece, which begins at the header `Upload-Offset`. What came before it broke off stays; the same piece may come
/// again.
#[utoipa::path(patch, path = "/v1/fs/uploads/{id}", tag = "fs", operation_id = "patch_fs_upload",
    params(("id" = String, Path), AuthorQuery, ("Upload-Offset" = u64, Header)),
    request_body(content = String, content_type = "application/octet-stream"),
    responses((status = 200, body = FsUpload), (status = 400, body = ProblemDetails), (status = 404, body = ProblemDetails),
              (status = 408, body = ProblemDetails), (status = 409, body = ProblemDetails), (status = 413, body = ProblemDetails),
              (status = 507, body = ProblemDetails)))]
async fn append_upload(
    State(state): State<AppState>,
    reached: Result<Reached, ApiError>,
    ApiPath(id): ApiPath<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let asked = reached.and_then(|Reached(reach)| Ok((reach, offset_of(request.headers())?)));
    let (reach, offset) = match asked {
        Ok(asked) => asked,
        Err(error) => {
            drain(request.into_body(), DRAIN_BYTES).await;
            return Err(error);
        }
    };
    let (sender, pieces) = mpsc::channel(PIECES);
    let passed = pass(&state, request.into_body(), sender);
    let (passed, appended) = tokio::join!(passed, state.uploads.append(&reach, &id, offset, pieces));
    match passed {
        Ok(rest) => {
            if let Some(rest) = rest {
                drain(rest, DRAIN_BYTES).await;
            }
            Ok(answer(&appended?).into_response())
        }
        Err(error) => Err(error), // why the body ended tells more than that it did
    }
}

fn offset_of(headers: &HeaderMap) -> Result<u64, ApiError> {
    let offset = headers.get(OFFSET).and_then(|offset| offset.to_str().ok()?.trim().parse().ok());
    offset.ok_or_else(|| ApiError::invalid("the header Upload-Offset must say where the piece begins"))
}

/// What the whole must be.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
struct CompleteBody {
    /// The hash of its content (hex): with another one, 409, and the part stays.
    sha256: Option<String>,
    /// True answers once the file is on the disk.
    fsync: bool,
}

/// Puts an upload in its place, under the conditions that a write may have.
#[utoipa::path(post, path = "/v1/fs/uploads/{id}/complete", tag = "fs", operation_id = "post_fs_upload_complete",
    params(("id" = String, Path), AuthorQuery), request_body = CompleteBody,
    responses((status = 200, body = Object), (status = 400, body = ProblemDetails), (status = 404, body = ProblemDetails),
              (status = 409, body = ProblemDetails), (status = 412, body = ProblemDetails)))]
async fn complete_upload(
    State(state): State<AppState>,
    Reached(reach): Reached,
    ApiPath(id): ApiPath<String>,
    headers: HeaderMap,
    OptionalJson(body): OptionalJson<CompleteBody>,
) -> Result<Response, ApiError> {
    let no_hash = || ApiError::invalid("sha256 must be 64 hex digits");
    let hash = body.sha256.map(|hash| Sha256Hex::parse(&hash).ok_or_else(no_hash)).transpose()?;
    let fsync = if body.fsync { Fsync::Yes } else { Fsync::No };
    let how = Completion { hash, expected: conditions::expected(&headers)?, fsync };
    let written = state.uploads.complete(&reach, &id, how).await?;
    let mut answer = path_answer(written.at.path());
    answer["bytesWritten"] = written.size.into();
    answer["sha256"] = written.hash.as_str().into();
    let etag = Validator::Content(written.hash).etag(None);
    Ok(([(http::header::ETAG, etag)], Json(answer)).into_response())
}

/// Ends an upload, and removes what came of it.
#[utoipa::path(delete, path = "/v1/fs/uploads/{id}", tag = "fs", operation_id = "delete_fs_upload", params(("id" = String, Path), AuthorQuery),
    responses((status = 204), (status = 404, body = ProblemDetails), (status = 409, body = ProblemDetails)))]
async fn abort_upload(
    State(state): State<AppState>,
    Reached(reach): Reached,
    ApiPath(id): ApiPath<String>,
) -> Result<StatusCode, ApiError> {
    state.uploads.abort(&reach, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn answer(upload: &Upload) -> ([(HeaderName, HeaderValue); 1], Json<Value>) {
    let mut answer = json!({"id": upload.id});
    shown(&mut answer, "path", upload.at.path());
    answer["offset"] = upload.offset.into();
    answer["size"] = json!(upload.size);
    answer["expiresAtMs"] = upload.expires_at_ms.into();
    ([(OFFSET, HeaderValue::from(upload.offset))], Json(answer))
}
