//! What sessions know of files, where they meet, and leases.

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::target::{OptionalTargetQuery, PathText, optional_path, shown};
use crate::fs::{Conflict, Lease, LeaseSpec, SeenFile};
use crate::http::extract::{ApiJson, ApiPath, ApiQuery};
use crate::http::page;
use crate::http::problem::{ApiError, ErrorCode};
use crate::http::{AppState, ProblemDetails};

/// How long a lease lasts when it doesn't say.
const LEASE_MS: u64 = 600_000;
/// What a lease may say of itself.
const NOTE_MAX_BYTES: usize = 1024;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(file_state))
        .routes(routes!(list_conflicts))
        .routes(routes!(list_leases, take_lease))
        .routes(routes!(end_lease))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
struct OfSession {
    /// Only of this session.
    session_id: Option<String>,
    /// Files at most.
    limit: Option<usize>,
}

/// What sessions saw.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[allow(dead_code)] // describes what is put together
struct FsState {
    /// The file, when one was asked for.
    path: Option<String>,
    /// The hash of what it has; null when it isn't there.
    sha256: Option<String>,
    /// What sessions saw last, the latest first.
    seen: Vec<FsSeen>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[allow(dead_code)] // the same
struct FsSeen {
    session_id: String,
    path: String,
    /// The hash of what it had.
    sha256: String,
    /// `read` or `write`.
    op: String,
    /// Unix milliseconds.
    seen_at_ms: i64,
    /// How often, since the server started.
    count: u64,
    /// True when the file has something else now; only for one file.
    changed: Option<bool>,
}

/// What sessions know of a file, or one session of all.
#[utoipa::path(get, path = "/v1/fs/state", tag = "fs", operation_id = "get_fs_state", params(OptionalTargetQuery, OfSession),
    responses((status = 200, body = FsState), (status = 400, body = ProblemDetails), (status = 403, body = ProblemDetails)))]
async fn file_state(
    State(state): State<AppState>,
    uri: axum::http::Uri,
    ApiQuery(query): ApiQuery<OfSession>,
) -> Result<Json<Value>, ApiError> {
    let limit = page::size("limit", query.limit, page::LIST_DEFAULT, state.config.bounds.list_page_max)?;
    // Looking is not reading: it is done in nobody's name.
    let (reach, path) = optional_path(&state, &uri, query.session_id.as_deref()).await?;
    let seen = |file: &SeenFile, current: Option<&Option<String>>| {
        let mut one = json!({"sessionId": file.session_id, "sha256": file.sha256, "op": file.op, "seenAtMs": file.seen_at_ms, "count": file.count});
        shown(&mut one, "path", &file.path);
        if let Some(current) = current {
            one["changed"] = (current.as_ref() != Some(&file.sha256)).into();
        }
        one
    };
    let Some(path) = path else {
        let session = query.session_id.ok_or_else(|| ApiError::invalid("`path` or `sessionId` is missing"))?;
        let mut files = state.fs.seen_files(&session, limit)?;
        files.retain(|file| reach.covers(&file.path));
        return Ok(Json(json!({"seen": files.iter().map(|file| seen(file, None)).collect::<Vec<_>>()})));
    };
    let known = state.fs.file_state(&reach, path.into(), query.session_id.as_deref(), limit).await?;
    let files: Vec<_> = known.seen.iter().map(|file| seen(file, Some(&known.current))).collect();
    let mut answer = json!({"sha256": known.current, "seen": files});
    shown(&mut answer, "path", &known.path);
    Ok(Json(answer))
}

/// Sessions at the same file.
#[derive(Debug, Serialize, ToSchema)]
#[allow(dead_code)] // the same
struct FsConflicts {
    /// The worst of each pair of sessions and file, the worst first.
    conflicts: Vec<FsConflict>,
    /// Leases of the file.
    leases: Vec<FsLease>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[allow(dead_code)] // the same
pub(super) struct FsConflict {
    path: String,
    /// `leased`, `same_line`, `adjacent_line` (up to five lines between) or `different_area`.
    severity: String,
    /// Who came later.
    session_id: String,
    edit_id: Option<String>,
    /// Its lines as they are now.
    lines: Option<FsLines>,
    other_session_id: String,
    other_edit_id: Option<String>,
    other_lines: Option<FsLines>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[allow(dead_code)] // the same
struct FsLines {
    start_line: usize,
    end_line: usize,
}

/// Where sessions are in each other's way, by the edits of the last time.
#[utoipa::path(get, path = "/v1/fs/conflicts", tag = "fs", operation_id = "get_fs_conflicts", params(OptionalTargetQuery, OfSession),
    responses((status = 200, body = FsConflicts), (status = 400, body = ProblemDetails)))]
async fn list_conflicts(
    State(state): State<AppState>,
    uri: axum::http::Uri,
    ApiQuery(query): ApiQuery<OfSession>,
) -> Result<Json<Value>, ApiError> {
    let (reach, path) = optional_path(&state, &uri, query.session_id.as_deref()).await?;
    let limit = page::size("limit", query.limit, page::LIST_DEFAULT, state.config.bounds.list_page_max)?;
    let mut conflicts = state.fs.conflicts(path.as_deref(), query.session_id.as_deref()).await?;
    conflicts.retain(|conflict| reach.covers(&conflict.path));
    conflicts.truncate(limit);
    let leases = state.fs.leases().list(path.as_deref(), None);
    let leases: Vec<_> = leases.iter().filter(|_| path.is_some()).map(lease).collect();
    Ok(Json(json!({"conflicts": conflicts.iter().map(Conflict::to_json).collect::<Vec<_>>(), "leases": leases})))
}

/// A session that works on a file.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[allow(dead_code)] // the same
struct FsLease {
    id: String,
    path: String,
    session_id: String,
    /// Unix milliseconds.
    ends_at_ms: i64,
    note: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
#[allow(dead_code)] // the same
struct FsLeases {
    leases: Vec<FsLease>,
}

fn lease(lease: &Lease) -> Value {
    let mut answer = json!({"id": lease.id, "sessionId": lease.session_id, "endsAtMs": lease.ends_at_ms, "note": lease.note});
    shown(&mut answer, "path", &lease.path);
    answer
}

/// Lists leases: of all, of a session, or those that are about a path.
#[utoipa::path(get, path = "/v1/fs/leases", tag = "fs", operation_id = "get_fs_leases", params(OptionalTargetQuery, OfSession),
    responses((status = 200, body = FsLeases)))]
async fn list_leases(
    State(state): State<AppState>,
    uri: axum::http::Uri,
    ApiQuery(query): ApiQuery<OfSession>,
) -> Result<Json<Value>, ApiError> {
    let (reach, path) = optional_path(&state, &uri, query.session_id.as_deref()).await?;
    let mut leases = state.fs.leases().list(path.as_deref(), query.session_id.as_deref());
    leases.retain(|lease| reach.covers(&lease.path));
    Ok(Json(json!({"leases": leases.iter().map(lease).collect::<Vec<_>>()})))
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct FsLeaseRequest {
    /// The file or directory.
    path: PathText,
    /// Who works on it.
    session_id: String,
    /// How long; ten minutes when absent.
    duration_ms: Option<u64>,
    /// What for.
    note: Option<String>,
}

/// Says that a session works on a file, or in a directory. Nobody is kept from writing; who does all the same causes a
/// notice. A session's second lease of a path prolongs the first.
#[utoipa::path(post, path = "/v1/fs/leases", tag = "fs", operation_id = "post_fs_lease", request_body = FsLeaseRequest,
    responses((status = 200, body = FsLease), (status = 400, body = ProblemDetails), (status = 404, body = ProblemDetails),
              (status = 409, body = ProblemDetails), (status = 413, body = ProblemDetails)))]
async fn take_lease(State(state): State<AppState>, ApiJson(body): ApiJson<FsLeaseRequest>) -> Result<Json<Value>, ApiError> {
    let reach = super::target::reach(&state, &body.session_id).await?;
    let at = body.path.locate(&reach)?;
    let max = state.config.bounds.fs_lease_max_ms;
    let duration_ms = body.duration_ms.unwrap_or(LEASE_MS.min(max));
    if !(1..=max).contains(&duration_ms) {
        return Err(ApiError::invalid(format!("durationMs must be 1 to {max}")));
    }
    if body.note.as_ref().is_some_and(|note| note.len() > NOTE_MAX_BYTES) {
        return Err(ApiError::invalid(format!("note must have at most {NOTE_MAX_BYTES} bytes")));
    }
    let spec = LeaseSpec {
        path: at.path().to_path_buf(),
        session_id: body.session_id,
        duration_ms: i64::try_from(duration_ms).unwrap_or(i64::MAX),
        note: body.note,
    };
    Ok(Json(lease(&state.fs.lease(&reach, &at, spec).await?)))
}

/// Ends a lease.
#[utoipa::path(delete, path = "/v1/fs/leases/{id}", tag = "fs", operation_id = "delete_fs_lease", params(("id" = String, Path)),
    responses((status = 204), (status = 404, body = ProblemDetails)))]
async fn end_lease(State(state): State<AppState>, ApiPath(id): ApiPath<String>) -> Result<StatusCode, ApiError> {
    if state.fs.leases().end(&id) {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(ApiError::new(ErrorCode::NotFound, format!("not found: no lease {id}"))
        .member("details", json!({"resource": "lease", "id": id})))
}
