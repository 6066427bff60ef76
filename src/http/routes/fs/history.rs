//! What was changed, and taking it back.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::edit::{FsEditResult, answer};
use super::target::{AuthorQuery, OptionalTargetQuery, Reached, optional_path, shown};
use crate::fs::{EditInfo, EditQuery, RollbackTo, RolledBack};
use crate::http::extract::{ApiJson, ApiPath, ApiQuery};
use crate::http::page;
use crate::http::problem::ApiError;
use crate::http::{AppState, ProblemDetails};

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list_edits))
        .routes(routes!(get_edit))
        .routes(routes!(apply_edit))
        .routes(routes!(reject_edit))
        .routes(routes!(rollback_edit))
        .routes(routes!(rollback))
}

/// A change of a file.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[allow(dead_code)] // describes what is put together
pub(super) struct FsEdit {
    /// Its id; sorts by time.
    id: String,
    /// `proposed`, `accepted` (another edit made it), `rejected`, `applied` or `reverted` (another edit took it back).
    status: String,
    /// `write`, `edit`, `delete`, `move`, `copy`, `mkdir`, `rollback`, `external` (an agent's own tool), or many changes at
    /// once, such as `archive`.
    op: String,
    /// Where, with no links in it.
    path: String,
    /// Where from, when something was moved.
    from: Option<String>,
    /// Unix milliseconds.
    time_ms: i64,
    /// In whose name.
    session_id: Option<String>,
    /// During which turn.
    turn_id: Option<String>,
    /// By which tool call.
    tool_call_id: Option<String>,
    /// The edit that it took back.
    rollback_of: Option<String>,
    /// What was there: `kind`, and of a file `sha256` and `size`. Null: nothing.
    before: Option<FsSide>,
    /// What was there then.
    after: Option<FsSide>,
    /// Lines.
    added: usize,
    /// Lines.
    removed: usize,
    /// What changed; only for one edit, and when it is a text.
    diff: Option<String>,
    /// The diff ends early.
    diff_truncated: Option<bool>,
    /// True when what was there is kept.
    restorable: bool,
}

#[derive(Debug, Serialize, ToSchema)]
#[allow(dead_code)] // the same
struct FsSide {
    kind: String,
    sha256: Option<String>,
    size: Option<u64>,
    /// Names below a directory.
    entries: Option<usize>,
}

#[derive(Debug, Serialize, ToSchema)]
#[allow(dead_code)] // the same
struct FsEditPage {
    edits: Vec<FsEdit>,
    /// The next page's `cursor`.
    next: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
struct EditsQuery {
    /// Only of this turn.
    turn_id: Option<String>,
    /// Only with this status.
    status: Option<String>,
    /// Edits in a page.
    limit: Option<usize>,
    /// `next` of the page before.
    cursor: Option<String>,
    /// Only of this session.
    session_id: Option<String>,
}

/// Lists changes of files, the latest first: of all, of a file, of what is below a directory, of a session or a turn.
#[utoipa::path(get, path = "/v1/fs/edits", tag = "fs", operation_id = "get_fs_edits", params(OptionalTargetQuery, EditsQuery),
    responses((status = 200, body = FsEditPage), (status = 400, body = ProblemDetails)))]
async fn list_edits(
    State(state): State<AppState>,
    uri: axum::http::Uri,
    ApiQuery(query): ApiQuery<EditsQuery>,
) -> Result<Json<Value>, ApiError> {
    let limit = page::size("limit", query.limit, page::LIST_DEFAULT, state.config.bounds.list_page_max)?;
    let (reach, path) = optional_path(&state, &uri, query.session_id.as_deref()).await?;
    let wanted =
        EditQuery { path, session_id: query.session_id, turn_id: query.turn_id, status: query.status, before: query.cursor };
    let page = state.fs.edits(&reach, wanted, limit).await?;
    let mut answer = json!({"edits": page.edits.iter().map(EditInfo::to_json).collect::<Vec<_>>()});
    if let Some(next) = page.next {
        answer["next"] = next.into();
    }
    Ok(Json(answer))
}

/// One change, with its diff.
#[utoipa::path(get, path = "/v1/fs/edits/{id}", tag = "fs", operation_id = "get_fs_edit", params(("id" = String, Path)),
    responses((status = 200, body = FsEdit), (status = 404, body = ProblemDetails)))]
async fn get_edit(
    State(state): State<AppState>,
    Reached(reach): Reached,
    ApiPath(id): ApiPath<String>,
) -> Result<Json<Value>, ApiError> {
    Ok(Json(state.fs.edit_info(&reach, &id).await?.to_json()))
}

/// Makes a proposed edit: what it says is looked for in what is there now.
#[utoipa::path(post, path = "/v1/fs/edits/{id}/apply", tag = "fs", operation_id = "post_fs_edit_apply",
    params(("id" = String, Path), AuthorQuery),
    responses((status = 200, body = FsEditResult), (status = 404, body = ProblemDetails), (status = 409, body = ProblemDetails),
              (status = 412, body = ProblemDetails)))]
async fn apply_edit(
    State(state): State<AppState>,
    Reached(reach): Reached,
    ApiPath(id): ApiPath<String>,
) -> Result<Json<Value>, ApiError> {
    let edited = state.fs.apply(&reach, &id).await?;
    Ok(Json(answer(&edited, "applied")))
}

/// Puts a proposed edit aside.
#[utoipa::path(post, path = "/v1/fs/edits/{id}/reject", tag = "fs", operation_id = "post_fs_edit_reject",
    params(("id" = String, Path), AuthorQuery),
    responses((status = 200, body = FsEdit), (status = 404, body = ProblemDetails), (status = 409, body = ProblemDetails)))]
async fn reject_edit(
    State(state): State<AppState>,
    Reached(reach): Reached,
    ApiPath(id): ApiPath<String>,
) -> Result<Json<Value>, ApiError> {
    state.fs.reject(&reach, &id).await?;
    Ok(Json(state.fs.edit_info(&reach, &id).await?.to_json()))
}

/// What was taken back.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[allow(dead_code)] // describes what is put together
struct FsRollbackResult {
    /// The latest first.
    rolled_back: Vec<FsRolledBack>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[allow(dead_code)] // the same
struct FsRolledBack {
    /// The edit.
    edit_id: String,
    /// The edit that took it back.
    by_edit_id: String,
    /// What is as it was.
    path: String,
}

fn rolled_back(done: &[RolledBack]) -> Json<Value> {
    let one = |one: &RolledBack| {
        let mut answer = json!({"editId": one.edit_id, "byEditId": one.by_edit_id});
        shown(&mut answer, "path", &one.path);
        answer
    };
    Json(json!({"rolledBack": done.iter().map(one).collect::<Vec<_>>()}))
}

/// Takes one change back: content, mode and link targets are as they were. 409 when something else is there by now.
#[utoipa::path(post, path = "/v1/fs/edits/{id}/rollback", tag = "fs", operation_id = "post_fs_edit_rollback",
    params(("id" = String, Path), AuthorQuery),
    responses((status = 200, body = FsRollbackResult), (status = 404, body = ProblemDetails), (status = 409, body = ProblemDetails)))]
async fn rollback_edit(
    State(state): State<AppState>,
    Reached(reach): Reached,
    ApiPath(id): ApiPath<String>,
) -> Result<Json<Value>, ApiError> {
    Ok(rolled_back(&state.fs.rollback(&reach, None, RollbackTo::Before(id)).await?))
}

/// How far back: one of `turnId`, `toMs` and `toEditId`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct FsRollbackRequest {
    /// Only what was done in this session's name; everybody's changes when absent.
    session_id: Option<String>,
    /// All that was done in this turn is taken back.
    turn_id: Option<String>,
    /// All that was done after this time is taken back: Unix milliseconds.
    to_ms: Option<i64>,
    /// All that was done after this edit is taken back.
    to_edit_id: Option<String>,
}

/// Takes changes back, all or none: a turn's, or what came after a time or an edit. 409 with all that moved on by now.
#[utoipa::path(post, path = "/v1/fs/rollback", tag = "fs", operation_id = "post_fs_rollback", request_body = FsRollbackRequest,
    params(AuthorQuery),
    responses((status = 200, body = FsRollbackResult), (status = 400, body = ProblemDetails), (status = 404, body = ProblemDetails),
              (status = 409, body = ProblemDetails), (status = 413, body = ProblemDetails)))]
async fn rollback(
    State(state): State<AppState>,
    Reached(reach): Reached,
    ApiJson(body): ApiJson<FsRollbackRequest>,
) -> Result<Json<Value>, ApiError> {
    let to = match (body.turn_id, body.to_ms, body.to_edit_id) {
        (Some(id), None, None) => RollbackTo::Turn(id),
        (None, Some(at_ms), None) => RollbackTo::Time(at_ms),
        (None, None, Some(id)) => RollbackTo::After(id),
        _ => return Err(ApiError::invalid("a rollback needs one of `turnId`, `toMs` and `toEditId`")),
    };
    Ok(rolled_back(&state.fs.rollback(&reach, body.session_id, to).await?))
}
