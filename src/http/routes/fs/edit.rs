//! Edits of text files.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::conflicts::FsConflict;
use super::target::{AuthorQuery, PathText, Reached, shown};
use crate::fs::{Conflict, EditOptions, EditSpec, Edited, Sha256Hex};
use crate::http::extract::ApiJson;
use crate::http::problem::ApiError;
use crate::http::{AppState, ProblemDetails};

/// Equal lines around a change that a patch may ask to be overlooked.
const FUZZ_MAX: usize = 3;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(edit_file))
}

/// What shall be replaced, in one of three ways: by its text (`old`, `new`), by its lines (`range`, `new`), or by a
/// `patch`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct FsEditRequest {
    /// The file.
    path: PathText,
    /// The text that is there, exactly and once. Empty: the file isn't there yet.
    old: Option<String>,
    /// What shall be there instead.
    new: Option<String>,
    /// Which one, from 1, when the text is there several times.
    occurrence: Option<usize>,
    /// The lines that are replaced.
    range: Option<LineRange>,
    /// A unified diff of this file, with or without git's headers.
    patch: Option<String>,
    /// Equal lines at each end of a hunk that need not be there: 0 to 3.
    #[serde(default)]
    fuzz: usize,
    /// `propose` keeps the edit until it is applied or rejected.
    #[serde(default)]
    mode: Mode,
    /// The hash that the file's content must have before.
    expect_sha256: Option<String>,
    /// `fail` answers 409 when another session changed the same or neighbouring lines.
    #[serde(default)]
    on_conflict: OnConflict,
}

/// Lines from 1, the last one with. When it is one less than the first, what is new comes before that.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct LineRange {
    start_line: usize,
    end_line: usize,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Mode {
    #[default]
    Apply,
    Propose,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum OnConflict {
    /// It is made, and the answer tells.
    #[default]
    Tell,
    Fail,
}

/// An edit that was made or proposed.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[allow(dead_code)] // describes what is put together
pub(super) struct FsEditResult {
    /// What the history calls it; absent when nothing had to be changed.
    edit_id: Option<String>,
    /// `applied`, `proposed` or `unchanged`.
    status: String,
    /// The file.
    path: String,
    /// The hash of what was there; null when nothing was.
    sha256_before: Option<String>,
    /// The hash of what is there; null when nothing is.
    sha256: Option<String>,
    /// A unified diff; null when it is no text.
    diff: Option<String>,
    /// The diff ends early.
    diff_truncated: Option<bool>,
    /// Lines.
    added: usize,
    /// Lines.
    removed: usize,
    /// How many lines further down than it says each hunk of a patch was applied.
    offsets: Option<Vec<i64>>,
    /// With what other sessions changed.
    conflicts: Option<Vec<FsConflict>>,
}

/// Replaces text in a file, whole or not at all.
#[utoipa::path(post, path = "/v1/fs/edit", tag = "fs", operation_id = "post_fs_edit", request_body = FsEditRequest, params(AuthorQuery),
    responses((status = 200, body = FsEditResult), (status = 400, body = ProblemDetails), (status = 403, body = ProblemDetails),
              (status = 409, body = ProblemDetails), (status = 412, body = ProblemDetails), (status = 413, body = ProblemDetails)))]
async fn edit_file(
    State(state): State<AppState>,
    Reached(reach): Reached,
    ApiJson(body): ApiJson<FsEditRequest>,
) -> Result<Json<Value>, ApiError> {
    let at = body.path.locate(&reach)?;
    let options = EditOptions {
        expected: body.expect_sha256.as_deref().map(hash).transpose()?,
        fails_on_conflict: body.on_conflict == OnConflict::Fail,
    };
    let mode = body.mode;
    let spec = spec(body)?;
    let edited = match mode {
        Mode::Apply => state.fs.edit(&reach, at, spec, options).await?,
        Mode::Propose => state.fs.propose(&reach, at, spec, options).await?,
    };
    Ok(Json(answer(&edited, if mode == Mode::Apply { "applied" } else { "proposed" })))
}

fn hash(text: &str) -> Result<Sha256Hex, ApiError> {
    Sha256Hex::parse(text).ok_or_else(|| ApiError::invalid("expectSha256 must be 64 hex digits"))
}

fn spec(body: FsEditRequest) -> Result<EditSpec, ApiError> {
    let one_of = || ApiError::invalid("an edit needs `old` and `new`, or `range` and `new`, or `patch`, and no more of them");
    if body.fuzz > FUZZ_MAX {
        return Err(ApiError::invalid(format!("fuzz must be 0 to {FUZZ_MAX}")));
    }
    match (body.old, body.range, body.patch, body.new, body.occurrence) {
        (Some(old), None, None, Some(new), occurrence) => Ok(EditSpec::Text { old, new, occurrence }),
        (None, Some(range), None, Some(new), None) => {
            Ok(EditSpec::Lines { start_line: range.start_line, end_line: range.end_line, new })
        }
        (None, None, Some(patch), None, None) => Ok(EditSpec::Patch { patch, fuzz: body.fuzz }),
        _ => Err(one_of()),
    }
}

/// What an edit is answered with.
pub(super) fn answer(edited: &Edited, status: &str) -> Value {
    let hash = |hash: &Option<Sha256Hex>| hash.as_ref().map(|hash| hash.as_str().to_owned());
    let mut answer = json!({
        "status": if edited.id.is_some() { status } else { "unchanged" },
        "sha256Before": hash(&edited.before),
        "sha256": hash(&edited.after),
        "diff": edited.diff.text,
        "added": edited.diff.added,
        "removed": edited.diff.removed,
    });
    shown(&mut answer, "path", edited.at.path());
    if let Some(id) = &edited.id {
        answer["editId"] = id.as_str().into();
    }
    if edited.diff.is_cut {
        answer["diffTruncated"] = true.into();
    }
    if !edited.offsets.is_empty() {
        answer["offsets"] = json!(edited.offsets);
    }
    if !edited.conflicts.is_empty() {
        answer["conflicts"] = edited.conflicts.iter().map(Conflict::to_json).collect();
    }
    answer
}
