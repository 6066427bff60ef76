//! Directories, and what is done with names.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::header;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::selection::{Patterns, PatternsQuery, at_least_one};
use super::target::{
    AuthorQuery, OptionalTarget, OptionalTargetQuery, PathText, Reached, Target, TargetQuery, path_answer, shown,
};
use crate::fs::{Listing, TreePage};
use crate::http::extract::{ApiJson, ApiQuery};
use crate::http::problem::ApiError;
use crate::http::{AppState, ProblemDetails};

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list_entries))
        .routes(routes!(delete_entry))
        .routes(routes!(make_directory))
        .routes(routes!(move_entry))
        .routes(routes!(copy_entry))
        .routes(routes!(stat))
}

/// What has a name in a directory.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[allow(dead_code)] // describes what is written by hand
pub(super) struct FsEntry {
    /// Its name; what isn't UTF-8 is replaced, and `nameBase64` has the bytes.
    name: String,
    /// Its path; the same with `pathBase64`.
    path: String,
    /// `file` or `directory`: links, and everything else, are `file`, and `kind` says more.
    entry_type: String,
    /// `symlink`, `fifo`, `socket`, `blockDevice` or `characterDevice`, where it is neither file nor directory.
    kind: Option<String>,
    /// What a link says.
    target: Option<String>,
    /// Bytes.
    size: u64,
    /// When its content changed: RFC 3339.
    modified: Option<String>,
}

/// What a file is.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[allow(dead_code)] // the same
pub(super) struct FsStat {
    /// Its path.
    path: String,
    /// `file` or `directory`.
    entry_type: String,
    /// What it is otherwise.
    kind: Option<String>,
    /// What a link says.
    target: Option<String>,
    /// Bytes.
    size: u64,
    /// When its content changed: RFC 3339.
    modified: Option<String>,
    /// Permission bits in octal.
    mode: String,
    /// Its owner.
    uid: u32,
    /// Its group.
    gid: u32,
    /// Names it has.
    links: u32,
    /// Its number on its device.
    inode: u64,
    /// Its device.
    device: u64,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// False leaves out names that begin with a dot.
    #[serde(default = "yes")]
    hidden: bool,
    /// True lists all below, too: by names, a directory before what it holds, as `{"entries": […], "nextCursor": …}`, which
    /// is null at the end.
    #[serde(default)]
    recursive: bool,
    /// With `recursive`, so many levels; 1 is the directory itself.
    depth: Option<usize>,
    /// With `recursive`, shows what ignore rules leave out, too.
    #[serde(default)]
    ignored: bool,
    /// With `recursive`, at most so many entries.
    limit: Option<usize>,
    /// With `recursive`, `nextCursor` of the page before.
    cursor: Option<String>,
}

fn yes() -> bool {
    true
}

/// Lists a directory, or a tree.
#[utoipa::path(get, path = "/v1/fs/entries", tag = "fs", operation_id = "get_fs_entries", params(OptionalTargetQuery, ListQuery, PatternsQuery),
    responses((status = 200, body = Vec<FsEntry>), (status = 400, body = ProblemDetails), (status = 403, body = ProblemDetails)))]
async fn list_entries(
    State(state): State<AppState>,
    OptionalTarget(target): OptionalTarget,
    ApiQuery(query): ApiQuery<ListQuery>,
    patterns: Patterns,
) -> Result<Response, ApiError> {
    let listing = if query.recursive {
        let wanted = patterns.wanted(query.hidden, query.ignored, query.depth);
        let page = TreePage { limit: at_least_one("limit", query.limit)?, cursor: query.cursor };
        state.fs.list_tree(&target.reach, target.at, &wanted, &page).await?
    } else {
        state.fs.list(&target.reach, target.at, query.hidden).await?
    };
    let body = match listing {
        Listing::Whole(entries) => Body::from(entries),
        Listing::Pieces(pieces) => super::body_of(pieces),
    };
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct DeleteQuery {
    /// True removes a directory with all that it holds.
    #[serde(default)]
    recursive: bool,
}

/// Removes a file, a link or a directory.
#[utoipa::path(delete, path = "/v1/fs/entry", tag = "fs", operation_id = "delete_fs_entry", params(TargetQuery, DeleteQuery),
    responses((status = 200, body = Object), (status = 400, body = ProblemDetails), (status = 403, body = ProblemDetails),
              (status = 502, body = ProblemDetails)))]
async fn delete_entry(
    State(state): State<AppState>,
    target: Target,
    ApiQuery(query): ApiQuery<DeleteQuery>,
) -> Result<Json<Value>, ApiError> {
    let answer = path_answer(target.at.path());
    state.fs.remove(&target.reach, target.at, query.recursive).await?;
    Ok(Json(answer))
}

/// Makes a directory, and those above it.
#[utoipa::path(post, path = "/v1/fs/mkdir", tag = "fs", operation_id = "post_fs_mkdir", params(TargetQuery),
    responses((status = 200, body = Object), (status = 400, body = ProblemDetails), (status = 403, body = ProblemDetails)))]
async fn make_directory(State(state): State<AppState>, target: Target) -> Result<Json<Value>, ApiError> {
    let answer = path_answer(target.at.path());
    state.fs.make_directory(&target.reach, target.at).await?;
    Ok(Json(answer))
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct MoveBody {
    from: PathText,
    to: PathText,
    /// True replaces what has the name.
    #[serde(default)]
    overwrite: Option<bool>,
}

/// Gives a file or a directory another name.
#[utoipa::path(post, path = "/v1/fs/move", tag = "fs", operation_id = "post_fs_move", request_body = MoveBody, params(AuthorQuery),
    responses((status = 200, body = Object), (status = 400, body = ProblemDetails), (status = 403, body = ProblemDetails)))]
async fn move_entry(
    State(state): State<AppState>,
    Reached(reach): Reached,
    ApiJson(body): ApiJson<MoveBody>,
) -> Result<Json<Value>, ApiError> {
    let (from, to) = (body.from.locate(&reach)?, body.to.locate(&reach)?);
    let answer = both(&from, &to);
    state.fs.relocate(&reach, from, to, body.overwrite.unwrap_or_default()).await?;
    Ok(Json(answer))
}

/// Copies a file, a link, or a directory with all that it holds.
#[utoipa::path(post, path = "/v1/fs/copy", tag = "fs", operation_id = "post_fs_copy", request_body = MoveBody, params(AuthorQuery),
    responses((status = 200, body = Object), (status = 400, body = ProblemDetails), (status = 403, body = ProblemDetails),
              (status = 507, body = ProblemDetails)))]
async fn copy_entry(
    State(state): State<AppState>,
    Reached(reach): Reached,
    ApiJson(body): ApiJson<MoveBody>,
) -> Result<Json<Value>, ApiError> {
    let (from, to) = (body.from.locate(&reach)?, body.to.locate(&reach)?);
    let answer = both(&from, &to);
    state.fs.copy(&reach, from, to, body.overwrite.unwrap_or_default()).await?;
    Ok(Json(answer))
}

fn both(from: &crate::fs::Located, to: &crate::fs::Located) -> Value {
    let mut answer = json!({});
    shown(&mut answer, "from", from.path());
    shown(&mut answer, "to", to.path());
    answer
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
struct StatQuery {
    /// False says what a link itself is.
    #[serde(default = "yes")]
    follow: bool,
}

/// Says what a path leads to.
#[utoipa::path(get, path = "/v1/fs/stat", tag = "fs", operation_id = "get_fs_stat", params(TargetQuery, StatQuery),
    responses((status = 200, body = FsStat), (status = 400, body = ProblemDetails), (status = 403, body = ProblemDetails)))]
async fn stat(State(state): State<AppState>, target: Target, ApiQuery(query): ApiQuery<StatQuery>) -> Result<Response, ApiError> {
    let stat = state.fs.stat(&target.reach, target.at, query.follow).await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], stat).into_response())
}
