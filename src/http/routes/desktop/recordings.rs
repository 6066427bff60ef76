//! Recordings of the screen.

use std::io::SeekFrom;
use std::path::Path;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Serialize;
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::desktop::{Error, Recording, RecordingSpec, RecordingStatus};
use crate::http::extract::{ApiJson, ApiPath};
use crate::http::problem::ApiError;
use crate::http::routes::fs::conditions::{self, Read};
use crate::http::{AppState, ProblemDetails};

/// So much is read at a time.
const PIECE_BYTES: usize = 256 * 1024;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(start_recording))
        .routes(routes!(stop_recording))
        .routes(routes!(pause_recording))
        .routes(routes!(resume_recording))
        .routes(routes!(list_recordings))
        .routes(routes!(get_recording, delete_recording))
        .routes(routes!(download_recording))
        .routes(routes!(get_recording_poster))
}

/// Starts a recording of the screen: H.264 in an MP4 that plays at any moment, also while it grows. One at a time.
#[utoipa::path(post, path = "/v1/desktop/recording/start", tag = "desktop", operation_id = "start_desktop_recording",
    request_body = RecordingSpec,
    responses((status = 200, body = Recording), (status = 400, body = ProblemDetails), (status = 409, body = ProblemDetails),
              (status = 415, body = ProblemDetails), (status = 422, body = ProblemDetails), (status = 503, body = ProblemDetails)))]
async fn start_recording(
    State(state): State<AppState>,
    ApiJson(spec): ApiJson<RecordingSpec>,
) -> Result<Json<Recording>, ApiError> {
    Ok(Json(state.desktop.recording_start(spec).await?))
}

/// Ends the recording that is under way; its file is whole then.
#[utoipa::path(post, path = "/v1/desktop/recording/stop", tag = "desktop", operation_id = "stop_desktop_recording",
    responses((status = 200, body = Recording), (status = 409, body = ProblemDetails)))]
async fn stop_recording(State(state): State<AppState>) -> Result<Json<Recording>, ApiError> {
    Ok(Json(state.desktop.recording_stop().await?))
}

/// Stops the time of the recording that is under way.
#[utoipa::path(post, path = "/v1/desktop/recording/pause", tag = "desktop", operation_id = "pause_desktop_recording",
    responses((status = 200, body = Recording), (status = 409, body = ProblemDetails)))]
async fn pause_recording(State(state): State<AppState>) -> Result<Json<Recording>, ApiError> {
    Ok(Json(state.desktop.recording_pause().await?))
}

/// Lets a paused recording go on.
#[utoipa::path(post, path = "/v1/desktop/recording/resume", tag = "desktop", operation_id = "resume_desktop_recording",
    responses((status = 200, body = Recording), (status = 409, body = ProblemDetails)))]
async fn resume_recording(State(state): State<AppState>) -> Result<Json<Recording>, ApiError> {
    Ok(Json(state.desktop.recording_resume().await?))
}

/// Recordings, the oldest first.
#[derive(Debug, Serialize, ToSchema)]
struct RecordingList {
    recordings: Vec<Recording>,
}

/// Lists recordings, the oldest first; those of earlier servers, too.
#[utoipa::path(get, path = "/v1/desktop/recordings", tag = "desktop", operation_id = "list_desktop_recordings",
    responses((status = 200, body = RecordingList)))]
async fn list_recordings(State(state): State<AppState>) -> Json<RecordingList> {
    Json(RecordingList { recordings: state.desktop.recordings().await })
}

/// Tells one recording.
#[utoipa::path(get, path = "/v1/desktop/recordings/{id}", tag = "desktop", operation_id = "get_desktop_recording",
    params(("id" = String, Path, description = "`rec_<n>`")),
    responses((status = 200, body = Recording), (status = 404, body = ProblemDetails)))]
async fn get_recording(State(state): State<AppState>, ApiPath(id): ApiPath<String>) -> Result<Json<Recording>, ApiError> {
    Ok(Json(state.desktop.recording(&id).await?))
}

/// Removes a recording with its file. One that is under way is 409.
#[utoipa::path(delete, path = "/v1/desktop/recordings/{id}", tag = "desktop", operation_id = "delete_desktop_recording",
    params(("id" = String, Path, description = "`rec_<n>`")),
    responses((status = 204, description = "It is gone"), (status = 404, body = ProblemDetails), (status = 409, body = ProblemDetails)))]
async fn delete_recording(State(state): State<AppState>, ApiPath(id): ApiPath<String>) -> Result<StatusCode, ApiError> {
    state.desktop.recording_delete(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Downloads a recording, or a part of it (`Range`). While it is under way, this is what is on the disk by now, and plays; it
/// has an `etag` once it ended.
#[utoipa::path(get, path = "/v1/desktop/recordings/{id}/download", tag = "desktop", operation_id = "download_desktop_recording",
    params(("id" = String, Path, description = "`rec_<n>`")),
    responses((status = 200, content((Vec<u8> = "video/mp4"))), (status = 206, content((Vec<u8> = "video/mp4"))), (status = 304),
              (status = 404, body = ProblemDetails), (status = 412, body = ProblemDetails), (status = 416, body = ProblemDetails)))]
async fn download_recording(
    State(state): State<AppState>,
    ApiPath(id): ApiPath<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (path, recording) = state.desktop.recording_file(&id).await?;
    let (file, size) = opened(&path, &id).await?;
    // Its head is written again when it ends: until then no tag would hold.
    let is_over = recording.status != RecordingStatus::Recording;
    let etags: Vec<String> = is_over.then(|| format!("\"{id}-{size}\"")).into_iter().collect();
    let mut described = HeaderMap::new();
    described.extend(etags.first().and_then(|etag| Some((header::ETAG, HeaderValue::from_str(etag).ok()?))));
    described.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    let (status, part) = match conditions::read(&headers, &etags, size)? {
        Read::All => (StatusCode::OK, 0..size),
        Read::Part(part) => (StatusCode::PARTIAL_CONTENT, part),
        Read::NotModified(_) => return Ok((StatusCode::NOT_MODIFIED, described).into_response()),
    };
    described.insert(header::CONTENT_TYPE, HeaderValue::from_static("video/mp4"));
    described.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    described.insert(header::CONTENT_LENGTH, HeaderValue::from(part.end - part.start));
    described.extend(
        HeaderValue::from_str(&format!("inline; filename=\"{}\"", recording.file_name))
            .map(|name| (header::CONTENT_DISPOSITION, name)),
    );
    if status == StatusCode::PARTIAL_CONTENT {
        let range = format!("bytes {}-{}/{size}", part.start, part.end - 1);
        described.extend(HeaderValue::from_str(&range).map(|range| (header::CONTENT_RANGE, range)));
    }
    let body = body_of(file, part.start, part.end - part.start).await.map_err(|_| Error::RecordingFileGone(id))?;
    Ok((status, described, body).into_response())
}

/// The first frame of a recording.
#[utoipa::path(get, path = "/v1/desktop/recordings/{id}/poster", tag = "desktop", operation_id = "get_desktop_recording_poster",
    params(("id" = String, Path, description = "`rec_<n>`")),
    responses((status = 200, content((Vec<u8> = "image/png"))), (status = 404, body = ProblemDetails)))]
async fn get_recording_poster(State(state): State<AppState>, ApiPath(id): ApiPath<String>) -> Result<Response, ApiError> {
    let path = state.desktop.recording_poster(&id).await?;
    let (file, size) = opened(&path, &id).await?;
    let body = body_of(file, 0, size).await.map_err(|_| Error::RecordingFileGone(id))?;
    let mut described = HeaderMap::new();
    described.insert(header::CONTENT_TYPE, HeaderValue::from_static("image/png"));
    described.insert(header::CONTENT_LENGTH, HeaderValue::from(size));
    described.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok((described, body).into_response())
}

/// A file and its size by now.
async fn opened(path: &Path, id: &str) -> Result<(File, u64), ApiError> {
    let gone = |_| Error::RecordingFileGone(id.to_owned());
    let file = File::open(path).await.map_err(gone)?;
    let size = file.metadata().await.map_err(gone)?.len();
    Ok((file, size))
}

/// So many bytes of it. A file that became shorter cuts the connection, so that nobody takes a part for the whole.
async fn body_of(mut file: File, start: u64, length: u64) -> std::io::Result<Body> {
    file.seek(SeekFrom::Start(start)).await?;
    Ok(Body::from_stream(stream::try_unfold((file, length), |(mut file, left)| async move {
        if left == 0 {
            return Ok::<Option<(Bytes, (File, u64))>, std::io::Error>(None);
        }
        let wanted = usize::try_from(left).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
        let mut piece = BytesMut::zeroed(wanted);
        file.read_exact(&mut piece).await?;
        Ok(Some((piece.freeze(), (file, left - wanted as u64))))
    })))
}
