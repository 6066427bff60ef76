//! Contents of files: reading with ranges and conditions, writing whole or not at all.

use std::ops::Range;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body_util::BodyExt as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::mpsc;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::conditions::{self, Read};
use super::representation;
use super::target::{Target, TargetQuery, path_answer};
use crate::fs::{Coding, Content, Draft, Expected, Fsync, HASHED_MAX_BYTES, Opened, Validator, Written};
use crate::http::extract::{ApiQuery, BodyLimit as _, drain, read_body, too_slow};
use crate::http::negotiate::Peer;
use crate::http::problem::{ApiError, ErrorCode};
use crate::http::{AppState, ProblemDetails};

/// A body up to this size is taken in before a file is made for it.
const SMALL_BYTES: u64 = 256 * 1024;
/// So much of a larger one is handed over at a time.
const PIECE_BYTES: usize = 1024 * 1024;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(read_file, write_file, delete_file))
}

/// Reads a file, or a part of it.
///
/// Its type is `application/octet-stream`, unless `Accept` names the one that it has by its name. It comes as gzip or zstd
/// where `Accept-Encoding` asks for that.
#[utoipa::path(get, path = "/v1/fs/file", tag = "fs", operation_id = "get_fs_file", params(TargetQuery),
    responses((status = 200, content((Vec<u8> = "application/octet-stream"), (Vec<u8> = "*/*")),
               headers(("etag" = String, description = "The hash of the content, with its coding behind it; weak while that isn't known."),
                       ("content-encoding" = Option<String>, description = "`gzip` or `zstd`; then there may be no length."),
                       ("vary" = String, description = "`accept, accept-encoding`."))),
              (status = 206), (status = 304),
              (status = 400, body = ProblemDetails), (status = 403, body = ProblemDetails), (status = 412, body = ProblemDetails),
              (status = 416, body = ProblemDetails)))]
async fn read_file(
    State(state): State<AppState>,
    target: Target,
    peer: Option<Extension<Peer>>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let mut opened = state.fs.open(&target.reach, target.at).await?;
    let is_head = method == Method::HEAD;
    let is_short = opened.meta.size <= HASHED_MAX_BYTES;
    // A weak tag never fits `If-Match`; otherwise reading much twice isn't worth it.
    if headers.contains_key(header::IF_MATCH) || is_short && (is_head || conditions::are_there(&headers)) {
        opened = state.fs.hashed(opened).await?;
    }
    let etags = if conditions::are_there(&headers) { opened.etags() } else { Vec::new() };
    let (status, part) = match conditions::read(&headers, &etags, opened.meta.size)? {
        Read::All => (StatusCode::OK, None),
        Read::Part(part) => (StatusCode::PARTIAL_CONTENT, Some(part)),
        Read::NotModified(etag) => return Ok((StatusCode::NOT_MODIFIED, describing(&etag)).into_response()),
    };
    let coding = representation::coding(&state.fs, &headers, peer.map(|peer| peer.0), &opened).await?;
    let mut described = describing(&opened.validator.etag(coding));
    described.insert(header::CONTENT_TYPE, representation::content_type(&headers, &opened));
    if let Some(part) = &part {
        let range = format!("bytes {}-{}/{}", part.start, part.end - 1, opened.meta.size);
        described.extend(HeaderValue::from_str(&range).map(|range| (header::CONTENT_RANGE, range)));
    }
    described.extend(coding.map(|coding| (header::CONTENT_ENCODING, HeaderValue::from_static(coding.as_str()))));
    let content = match coding {
        _ if is_head => head(&opened, part, coding),
        Some(coding) => state.fs.read_encoded(&opened, coding).await?,
        None => state.fs.read(&opened, part).await?,
    };
    let body = match content {
        Content::Whole(content) => Body::from(content),
        Content::Pieces(length, pieces) => {
            described.extend(length.map(|length| (header::CONTENT_LENGTH, HeaderValue::from(length))));
            super::body_of(pieces)
        }
    };
    Ok((status, described, body).into_response())
}

/// Nothing, and how long it would be, as far as that is known without reading it.
fn head(opened: &Opened, part: Option<Range<u64>>, coding: Option<Coding>) -> Content {
    let length = part.map_or(opened.meta.size, |part| part.end - part.start);
    let (_, nothing) = mpsc::channel(1);
    let is_known = coding.is_none() && opened.is_sized();
    Content::Pieces(is_known.then_some(length), nothing)
}

/// What is said of a content beside it.
fn describing(etag: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.extend(HeaderValue::from_str(etag).map(|etag| (header::ETAG, etag)));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::VARY, representation::VARY);
    // A browser asks again each time, and takes no file for a page of ours.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
    headers
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
struct WriteQuery {
    /// `replace`, or `fail` with 412 when the file is there.
    #[serde(default)]
    if_exists: IfExists,
    /// True answers once the file is on the disk.
    #[serde(default)]
    fsync: bool,
}

/// What to do with a file that is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum IfExists {
    #[default]
    Replace,
    Fail,
}

/// A file that was written.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[allow(dead_code)] // describes what is put together
struct FsWriteResult {
    /// Its path.
    path: String,
    /// Its size now.
    bytes_written: u64,
    /// The hash of its content: hex.
    sha256: String,
    /// What the history calls the change: `GET /v1/fs/edits/{id}`.
    edit_id: Option<String>,
}

/// Writes a file whole: readers see the old content or the new. Directories above it are made.
#[utoipa::path(put, path = "/v1/fs/file", tag = "fs", operation_id = "put_fs_file", params(TargetQuery, WriteQuery),
    request_body(content = String, content_type = "application/octet-stream"),
    responses((status = 200, body = FsWriteResult), (status = 400, body = ProblemDetails), (status = 403, body = ProblemDetails),
              (status = 408, body = ProblemDetails), (status = 409, body = ProblemDetails), (status = 412, body = ProblemDetails), (status = 415, body = ProblemDetails),
              (status = 507, body = ProblemDetails)))]
async fn write_file(
    State(state): State<AppState>,
    target: Target,
    ApiQuery(query): ApiQuery<WriteQuery>,
    request: Request,
) -> Result<Response, ApiError> {
    let expected = expected_of(request.headers(), query.if_exists)?;
    let fsync = if query.fsync { Fsync::Yes } else { Fsync::No };
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let idle = state.body_idle_timeout();
    let written = if length.is_some_and(|length| length <= SMALL_BYTES) {
        let content = read_body(request.into_body(), PIECE_BYTES, idle).await?;
        state.fs.write(&target.reach, target.at, content, expected, fsync).await?
    } else {
        match state.fs.begin_write(&target.reach, target.at, fsync, &expected).await {
            Ok(draft) => {
                let draft = receive(&state, draft, request.into_body()).await?;
                state.fs.commit(draft, expected).await?
            }
            Err(error) => {
                drain(request.into_body(), 0).await;
                return Err(error.into());
            }
        }
    };
    Ok(answer(&written))
}

fn expected_of(headers: &HeaderMap, if_exists: IfExists) -> Result<Expected, ApiError> {
    if headers.contains_key(header::CONTENT_RANGE) {
        return Err(ApiError::invalid("Content-Range: a file is written whole")); // RFC 9110 section 14.5
    }
    let coding = headers.get(header::CONTENT_ENCODING).map_or(&b"identity"[..], HeaderValue::as_bytes);
    if !coding.eq_ignore_ascii_case(b"identity") {
        let why = "a file is sent as it is: leave Content-Encoding out";
        return Err(ApiError::with_message(ErrorCode::UnsupportedMediaType, "unsupported media type", why));
    }
    match (conditions::expected(headers)?, if_exists) {
        (Expected::Anything, IfExists::Fail) => Ok(Expected::Nothing),
        (expected, _) => Ok(expected),
    }
}

/// Takes a body in as it comes. What breaks off leaves nothing.
pub(super) async fn receive(state: &AppState, draft: Draft, body: Body) -> Result<Draft, ApiError> {
    let (mut body, mut draft, idle) = (body, draft, state.body_idle_timeout());
    let (mut pieces, mut bytes): (Vec<Bytes>, usize) = (Vec::new(), 0);
    loop {
        let frame = tokio::time::timeout(idle, body.frame()).await.map_err(|_| too_slow(idle))?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| ApiError::invalid(format!("the body ended early: {error}")))?;
        let data = frame.into_data().unwrap_or_default(); // trailers are of no interest
        bytes += data.len();
        pieces.push(data);
        if bytes >= PIECE_BYTES {
            draft = match state.fs.push(draft, std::mem::take(&mut pieces)).await {
                Ok(draft) => draft,
                Err(error) => {
                    drain(body, 0).await;
                    return Err(error.into());
                }
            };
            bytes = 0;
        }
    }
    if pieces.is_empty() { Ok(draft) } else { Ok(state.fs.push(draft, pieces).await?) }
}

fn answer(written: &Written) -> Response {
    let mut answer = path_answer(written.at.path());
    answer["bytesWritten"] = written.size.into();
    answer["sha256"] = written.hash.as_str().into();
    if let Some(id) = &written.edit_id {
        answer["editId"] = id.as_str().into();
    }
    let etag = Validator::Content(written.hash.clone()).etag(None);
    ([(header::ETAG, etag)], Json(answer)).into_response()
}

/// Removes a file.
#[utoipa::path(delete, path = "/v1/fs/file", tag = "fs", operation_id = "delete_fs_file", params(TargetQuery),
    responses((status = 200, body = Object), (status = 400, body = ProblemDetails), (status = 403, body = ProblemDetails)))]
async fn delete_file(State(state): State<AppState>, target: Target) -> Result<Json<Value>, ApiError> {
    let answer = path_answer(target.at.path());
    state.fs.remove(&target.reach, target.at, false).await?;
    Ok(Json(answer))
}
