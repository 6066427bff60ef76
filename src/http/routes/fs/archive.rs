//! Whole trees at once: archives up and down.

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::{HeaderMap, header};
use http_body_util::BodyExt as _;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::target::{OptionalTarget, OptionalTargetQuery, Target};
use crate::fs::{Extracted, Extraction, Failed, Format};
use crate::http::extract::{ApiQuery, BodyLimit as _, drain, too_slow};
use crate::http::problem::ApiError;
use crate::http::{AppState, ProblemDetails};

/// Media types of archives; which compression one has, its first bytes say.
const ARCHIVES: [&str; 5] =
    ["application/x-tar", "application/gzip", "application/x-gzip", "application/zstd", "application/x-zstd"];
/// Pieces of a body between the connection and the thread that unpacks.
const PIECES: usize = 4;
/// Behind what is of interest, at least so much of a body is read on.
const DRAIN_BYTES: usize = 2 * 1024 * 1024;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(upload_batch)).routes(routes!(download_archive))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct DownloadQuery {
    /// `tar`, `tar.gz`, `tar.zst` or `zip`.
    #[serde(default)]
    format: ArchiveFormat,
}

/// The format of an archive.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
enum ArchiveFormat {
    #[default]
    #[serde(rename = "tar")]
    Tar,
    #[serde(rename = "tar.gz")]
    TarGz,
    #[serde(rename = "tar.zst")]
    TarZst,
    #[serde(rename = "zip")]
    Zip,
}

impl ArchiveFormat {
    /// The format, its media type, and what is put behind the name.
    fn parts(self) -> (Format, &'static str, &'static str) {
        match self {
            Self::Tar => (Format::Tar, "application/x-tar", "tar"),
            Self::TarGz => (Format::TarGz, "application/gzip", "tar.gz"),
            Self::TarZst => (Format::TarZst, "application/zstd", "tar.zst"),
            Self::Zip => (Format::Zip, "application/zip", "zip"),
        }
    }
}

/// Packs a directory with all that it holds, or a file. What was left out is told in a last entry, when there is anything.
#[utoipa::path(get, path = "/v1/fs/archive", tag = "fs", operation_id = "get_fs_archive", params(OptionalTargetQuery, DownloadQuery),
    responses((status = 200, body = Vec<u8>, content_type = "application/x-tar"), (status = 400, body = ProblemDetails),
              (status = 403, body = ProblemDetails)))]
async fn download_archive(
    State(state): State<AppState>,
    OptionalTarget(target): OptionalTarget,
    ApiQuery(query): ApiQuery<DownloadQuery>,
) -> Result<Response, ApiError> {
    let (format, media, suffix) = query.format.parts();
    let Target { reach, at } = target;
    let name = at.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
    let pieces = state.fs.pack(&reach, at, format).await?;
    let headers = [
        (header::CONTENT_TYPE, media.to_owned()),
        (header::CONTENT_DISPOSITION, disposition(&name, suffix)),
        (header::CACHE_CONTROL, "no-store".to_owned()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
    ];
    Ok((headers, super::body_of(pieces)).into_response())
}

/// What a value of RFC 8187 holds as it is: `attr-char`.
const OTHERS: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

/// A name for the file that a browser makes, for old ones in ASCII (RFC 6266 section 4.3).
fn disposition(name: &str, suffix: &str) -> String {
    let name = if name.is_empty() { "files" } else { name };
    let is_plain = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ' ');
    let plain: String = name.chars().map(|c| if is_plain(&c) { c } else { '_' }).collect();
    let exact = utf8_percent_encode(name, OTHERS);
    format!("attachment; filename=\"{plain}.{suffix}\"; filename*=UTF-8''{exact}.{suffix}")
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
struct UploadQuery {
    /// True: all or nothing. The destination must be new or empty, and has everything at once.
    #[serde(default)]
    atomic: bool,
    /// With `atomic`: true replaces the destination by what the archive holds, and by nothing else.
    #[serde(default)]
    overwrite: bool,
    /// What an entry does that is refused: `fail` ends it there, `skip` leaves it out and says so.
    #[serde(default)]
    if_refused: IfRefused,
}

/// What to do with an entry that is refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum IfRefused {
    #[default]
    Fail,
    Skip,
}

/// What was unpacked.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[allow(dead_code)] // describes what is put together
struct FsUploadBatchResult {
    /// The first 1024 entries.
    paths: Vec<String>,
    /// True when there were more.
    truncated: bool,
    /// All entries.
    entries: u64,
    /// Bytes of files.
    bytes: u64,
    /// The first 1024 entries that were left out.
    skipped: Vec<FsSkipped>,
    /// All of them.
    skipped_count: u64,
}

/// An entry that was left out.
#[derive(Debug, Serialize, ToSchema)]
#[allow(dead_code)] // the same
struct FsSkipped {
    /// Its name as the archive has it.
    name: String,
    /// Why.
    reason: String,
}

/// Unpacks a tar archive, which may be compressed by gzip or zstd, into a directory.
#[utoipa::path(post, path = "/v1/fs/upload-batch", tag = "fs", operation_id = "post_fs_upload_batch",
    params(OptionalTargetQuery, UploadQuery), request_body(content = String, content_type = "application/x-tar"),
    responses((status = 200, body = FsUploadBatchResult), (status = 400, body = ProblemDetails), (status = 403, body = ProblemDetails),
              (status = 408, body = ProblemDetails), (status = 413, body = ProblemDetails), (status = 502, body = ProblemDetails),
              (status = 507, body = ProblemDetails)))]
async fn upload_batch(
    State(state): State<AppState>,
    target: Result<OptionalTarget, ApiError>,
    query: Result<ApiQuery<UploadQuery>, ApiError>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    let asked = target.and_then(|target| Ok((target, query?))).and_then(|asked| match media_type(request.headers()).as_str() {
        media if ARCHIVES.contains(&media) => Ok(asked),
        _ => Err(ApiError::invalid("content-type must be application/x-tar (or application/gzip, application/zstd)")),
    });
    let (OptionalTarget(target), ApiQuery(query)) = match asked {
        Ok(asked) => asked,
        Err(error) => {
            drain(request.into_body(), DRAIN_BYTES).await;
            return Err(error);
        }
    };
    let UploadQuery { atomic, overwrite, if_refused } = query;
    let how = Extraction { atomic, overwrite, skips: if_refused == IfRefused::Skip };
    let (sender, pieces) = mpsc::channel(PIECES);
    let passed = pass(&state, request.into_body(), sender);
    let (passed, extracted) = tokio::join!(passed, state.fs.extract(&target.reach, target.at.clone(), how, pieces));
    let extracted = match passed {
        Ok(Some(rest)) => {
            drain(rest, DRAIN_BYTES).await;
            extracted?
        }
        Ok(None) => extracted?,
        // Why the body ended tells more than that it did.
        Err(error) => return Err(extracted.map_or(error.clone(), |extracted| with_report(error, &extracted))),
    };
    match &extracted.failed {
        None => Ok(Json(report(&extracted))),
        Some(Failed { name, error }) => {
            let error = with_report(error.clone().into(), &extracted);
            Err(name.as_ref().map_or(error.clone(), |name| error.member("entry", name.as_str())))
        }
    }
}

/// The media type in lower case, without parameters.
fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Passes a body on as it comes. Gives back what is left when nobody wants more.
pub(super) async fn pass(state: &AppState, body: Body, pieces: mpsc::Sender<Option<Bytes>>) -> Result<Option<Body>, ApiError> {
    let (mut body, idle) = (body, state.body_idle_timeout());
    loop {
        let frame = tokio::select! {
            frame = tokio::time::timeout(idle, body.frame()) => frame.map_err(|_| too_slow(idle))?,
            () = pieces.closed() => return Ok(Some(body)),
        };
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| ApiError::invalid(format!("the body ended early: {error}")))?;
        let data = frame.into_data().unwrap_or_default(); // trailers are of no interest
        if pieces.send(Some(data)).await.is_err() {
            return Ok(Some(body));
        }
    }
    let _ = pieces.send(None).await; // nobody may want to know
    Ok(None)
}

fn report(extracted: &Extracted) -> Value {
    let paths: Vec<_> = extracted.paths.iter().map(|path| path.to_string_lossy()).collect();
    let skipped: Vec<_> =
        extracted.skipped.iter().map(|skipped| json!({"name": skipped.name, "reason": skipped.reason})).collect();
    json!({
        "paths": paths,
        "truncated": extracted.entries > paths.len() as u64,
        "entries": extracted.entries,
        "bytes": extracted.bytes,
        "skipped": skipped,
        "skippedCount": extracted.skipped_count,
    })
}

fn with_report(error: ApiError, extracted: &Extracted) -> ApiError {
    let Value::Object(members) = report(extracted) else { return error };
    members.into_iter().fold(error, |error, (name, value)| error.member(&name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_downloads() {
        assert_eq!(disposition("a b", "tar"), "attachment; filename=\"a b.tar\"; filename*=UTF-8''a%20b.tar");
        assert_eq!(disposition("ä\"\r\n", "zip"), "attachment; filename=\"____.zip\"; filename*=UTF-8''%C3%A4%22%0D%0A.zip");
        assert_eq!(disposition("", "tar"), "attachment; filename=\"files.tar\"; filename*=UTF-8''files.tar");
    }
}
