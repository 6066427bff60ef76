//! What changes files: renames, formatting, actions. As a plan, or made at once, each file an edit of the history.

use axum::Json;
use axum::extract::State;
use lsp_types::FormattingOptions;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::fs::target::{AuthorQuery, Reached};
use super::question::Question;
use crate::http::extract::ApiJson;
use crate::http::problem::ApiError;
use crate::http::{AppState, ProblemDetails};
use crate::lsp::WorkspaceChange;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(rename))
        .routes(routes!(format))
        .routes(routes!(code_actions))
        .routes(routes!(apply_action))
}

/// A change of files.
#[derive(Debug, Serialize, ToSchema)]
struct LspChange {
    /// The server that worked it out, as the catalogue calls it.
    server: String,
    #[serde(flatten)]
    change: WorkspaceChange,
}

fn changed((server, change): (String, WorkspaceChange)) -> Json<LspChange> {
    Json(LspChange { server, change })
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct LspRename {
    #[serde(flatten)]
    question: Question,
    /// What it shall be called.
    new_name: String,
    /// True makes it at once.
    #[serde(default)]
    apply: bool,
}

/// Renames the thing at a place everywhere. `editId` of each file takes it back: `POST /v1/fs/rollback`.
#[utoipa::path(post, path = "/v1/lsp/rename", tag = "lsp", operation_id = "lsp_rename", request_body = LspRename, params(AuthorQuery),
    responses((status = 200, body = LspChange), (status = 400, body = ProblemDetails), (status = 404, body = ProblemDetails),
              (status = 409, body = ProblemDetails), (status = 502, body = ProblemDetails), (status = 504, body = ProblemDetails)))]
async fn rename(
    State(state): State<AppState>,
    Reached(reach): Reached,
    ApiJson(body): ApiJson<LspRename>,
) -> Result<Json<LspChange>, ApiError> {
    let asking = body.question.asking(&state, &reach).await?;
    let place = body.question.place()?;
    Ok(changed(state.lsp.rename(&asking, &place, &body.new_name, body.apply.then_some(&reach)).await?))
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct LspFormat {
    #[serde(flatten)]
    question: Question,
    /// Columns of a step of indentation: 4 when absent.
    tab_size: Option<u32>,
    /// False indents with tabs.
    insert_spaces: Option<bool>,
    /// True makes it at once.
    #[serde(default)]
    apply: bool,
}

/// Formats a file, or `range` of it.
#[utoipa::path(post, path = "/v1/lsp/format", tag = "lsp", operation_id = "lsp_format", request_body = LspFormat, params(AuthorQuery),
    responses((status = 200, body = LspChange), (status = 400, body = ProblemDetails), (status = 404, body = ProblemDetails),
              (status = 409, body = ProblemDetails), (status = 502, body = ProblemDetails), (status = 504, body = ProblemDetails)))]
async fn format(
    State(state): State<AppState>,
    Reached(reach): Reached,
    ApiJson(body): ApiJson<LspFormat>,
) -> Result<Json<LspChange>, ApiError> {
    let asking = body.question.asking(&state, &reach).await?;
    let options = FormattingOptions {
        tab_size: body.tab_size.unwrap_or(4),
        insert_spaces: body.insert_spaces.unwrap_or(true),
        ..FormattingOptions::default()
    };
    Ok(changed(state.lsp.format(&asking, body.question.range, &options, body.apply.then_some(&reach)).await?))
}

#[derive(Debug, Deserialize, ToSchema)]
struct LspCodeActions {
    #[serde(flatten)]
    question: Question,
    /// Kinds: `quickfix`, `refactor`, `source.organizeImports`, for example.
    #[serde(default)]
    only: Vec<String>,
}

/// Lists what servers propose for `range`, or for a place: `{actions:[{title,kind?,preferred?,disabled?,server,action}],problems}`.
#[utoipa::path(post, path = "/v1/lsp/code-actions", tag = "lsp", operation_id = "lsp_code_actions", request_body = LspCodeActions,
    responses((status = 200, description = "What they propose"), (status = 400, body = ProblemDetails),
              (status = 404, body = ProblemDetails), (status = 502, body = ProblemDetails), (status = 504, body = ProblemDetails)))]
async fn code_actions(
    State(state): State<AppState>,
    Reached(reach): Reached,
    ApiJson(body): ApiJson<LspCodeActions>,
) -> Result<Json<Value>, ApiError> {
    let asking = body.question.asking(&state, &reach).await?;
    let range = body.question.range.ok_or_else(|| ApiError::invalid("range is missing: {start:{line,character},end:{…}}"))?;
    Ok(Json(state.lsp.code_actions(&asking, range, &body.only).await?))
}

#[derive(Debug, Deserialize, ToSchema)]
struct LspApplyAction {
    #[serde(flatten)]
    question: Question,
    /// `action` of one of those that were listed; `server` says whose.
    action: Value,
    /// False plans it only.
    #[serde(default = "yes")]
    apply: bool,
}

fn yes() -> bool {
    true
}

/// Makes what an action comes to, and runs the command that belongs to it.
#[utoipa::path(post, path = "/v1/lsp/code-actions/apply", tag = "lsp", operation_id = "lsp_apply_code_action", request_body = LspApplyAction,
    params(AuthorQuery),
    responses((status = 200, body = LspChange), (status = 400, body = ProblemDetails), (status = 404, body = ProblemDetails),
              (status = 409, body = ProblemDetails), (status = 502, body = ProblemDetails), (status = 504, body = ProblemDetails)))]
async fn apply_action(
    State(state): State<AppState>,
    Reached(reach): Reached,
    ApiJson(body): ApiJson<LspApplyAction>,
) -> Result<Json<LspChange>, ApiError> {
    let asking = body.question.asking(&state, &reach).await?;
    Ok(changed(state.lsp.apply_action(&asking, &body.action, body.apply.then_some(&reach)).await?))
}
