//! What language servers have to say of files.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::fs::target::{Reached, Target, TargetQuery};
use super::question::{PositionEncoding, Question, asked};
use crate::config::as_duration;
use crate::http::extract::{ApiJson, ApiQuery};
use crate::http::problem::ApiError;
use crate::http::{AppState, ProblemDetails, slow};
use crate::lsp::{DiagnosticsSpec, FileDiagnostics};

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(diagnostics)).routes(routes!(check))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
struct DiagnosticsQuery {
    /// How long they are waited for, once the server runs: at most `long_poll_max_ms`.
    #[serde(default = "default_wait_ms")]
    #[param(default = 5_000)]
    wait_ms: u64,
    /// One server only, as the catalogue calls it.
    server: Option<String>,
    /// What characters are counted in.
    #[serde(default)]
    #[param(inline)]
    encoding: PositionEncoding,
    /// True tells what is known already, of all files below the path, without asking anybody.
    #[serde(default)]
    known: bool,
}

fn default_wait_ms() -> u64 {
    5_000
}

/// Diagnostics of files.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct LspDiagnostics {
    /// Of each file that was asked about; those without any are there, too.
    files: Vec<FileDiagnostics>,
    /// Files below a directory beyond `lsp_folder_files_max`.
    files_left_out: usize,
}

/// What language servers have to say of a file, or of all files below a directory, as they are on the disk now. Servers start by
/// themselves.
#[utoipa::path(get, path = "/v1/lsp/diagnostics", tag = "lsp", operation_id = "get_diagnostics", params(TargetQuery, DiagnosticsQuery),
    responses((status = 200, body = LspDiagnostics), (status = 400, body = ProblemDetails), (status = 403, body = ProblemDetails),
              (status = 404, body = ProblemDetails), (status = 502, body = ProblemDetails)))]
async fn diagnostics(
    State(state): State<AppState>,
    target: Target,
    ApiQuery(query): ApiQuery<DiagnosticsQuery>,
) -> Result<Response, ApiError> {
    let wait = wait(&state, query.wait_ms)?;
    let asked = asked(&state, &target.reach, target.at).await?;
    let spec = DiagnosticsSpec { wait, server: query.server, encoding: query.encoding.into(), text: None };
    let keepalive = as_duration(state.config.bounds.acp_post_keepalive_ms);
    let found = async move {
        let (files, files_left_out) = if query.known {
            (state.lsp.known_diagnostics(&asked.path, spec.encoding).await, 0)
        } else if asked.path.is_dir() {
            state.lsp.folder_diagnostics(&asked, &spec).await?
        } else {
            (vec![state.lsp.diagnostics(&asked, &spec).await?], 0)
        };
        Ok(LspDiagnostics { files, files_left_out })
    };
    slow::json(found, keepalive).await
}

fn wait(state: &AppState, wait_ms: u64) -> Result<Duration, ApiError> {
    let max = state.config.bounds.long_poll_max_ms;
    if wait_ms > max {
        return Err(ApiError::invalid(format!("waitMs must be at most {max}")));
    }
    Ok(Duration::from_millis(wait_ms))
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct LspCheck {
    #[serde(flatten)]
    question: Question,
    /// How long they are waited for.
    #[serde(default = "default_wait_ms")]
    wait_ms: u64,
}

/// The diagnostics that a file would have with another text. Nothing is written.
#[utoipa::path(post, path = "/v1/lsp/check", tag = "lsp", operation_id = "check_text", request_body = LspCheck,
    responses((status = 200, body = FileDiagnostics), (status = 400, body = ProblemDetails), (status = 404, body = ProblemDetails),
              (status = 502, body = ProblemDetails)))]
async fn check(
    State(state): State<AppState>,
    Reached(reach): Reached,
    ApiJson(body): ApiJson<LspCheck>,
) -> Result<Json<FileDiagnostics>, ApiError> {
    let wait = wait(&state, body.wait_ms)?;
    let asking = body.question.asking(&state, &reach).await?;
    if asking.text.is_none() {
        return Err(ApiError::invalid("text is missing: what the file would have"));
    }
    let spec = DiagnosticsSpec { wait, server: asking.server, encoding: asking.encoding, text: asking.text };
    Ok(Json(state.lsp.diagnostics(&asking.file, &spec).await?))
}
