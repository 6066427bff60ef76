//! Replacing at many places.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::search::{PatternBody, places};
use super::selection::SelectionBody;
use super::target::{AuthorQuery, PathText, Reached};
use crate::fs::{Fsync, Reach, Replace, ReplaceFile, Sha256Hex};
use crate::http::extract::ApiJson;
use crate::http::problem::ApiError;
use crate::http::{AppState, ProblemDetails};

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(replace))
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ReplaceBody {
    #[serde(flatten)]
    pattern: PatternBody,
    /// What takes the place of a match; `$1` and `${name}` are groups of the pattern, `$$` is a dollar. When the pattern is
    /// literal, this is, too.
    replacement: String,
    #[serde(flatten)]
    selection: SelectionBody,
    /// Files, and trees whose files are changed; where relative paths start when absent.
    #[serde(default)]
    paths: Vec<PathText>,
    /// True, or absent: nothing is changed, and the plan is told.
    #[serde(default = "yes")]
    dry_run: bool,
    /// What of a plan is done: files with the hash that the plan saw. Absent: what fits now.
    files: Option<Vec<ReplaceFileBody>>,
    /// True answers when the files are on the disk.
    #[serde(default)]
    fsync: bool,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ReplaceFileBody {
    path: PathText,
    /// That of the plan.
    sha256: String,
    /// Only the matches with these ids.
    only: Option<Vec<u64>>,
}

fn yes() -> bool {
    true
}

/// Tells what a replacement would change, or makes it: each file at all its places or not at all, and only if it is what
/// the plan saw.
#[utoipa::path(post, path = "/v1/fs/replace", tag = "fs", operation_id = "post_fs_replace", request_body = ReplaceBody,
    params(AuthorQuery),
    responses((status = 200, body = Object), (status = 400, body = ProblemDetails), (status = 403, body = ProblemDetails),
              (status = 413, body = ProblemDetails)))]
async fn replace(
    State(state): State<AppState>,
    Reached(reach): Reached,
    ApiJson(body): ApiJson<ReplaceBody>,
) -> Result<Json<Value>, ApiError> {
    let replace = Replace {
        pattern: body.pattern.into(),
        replacement: body.replacement,
        places: places(&reach, &body.paths)?,
        wanted: body.selection.into(),
        fsync: if body.fsync { Fsync::Yes } else { Fsync::No },
    };
    let answer = match (body.dry_run, body.files) {
        (true, None) => state.fs.plan_replace(&reach, replace).await?,
        (true, Some(_)) => return Err(ApiError::invalid("files are those to change: set dryRun to false")),
        (false, None) => state.fs.replace_all(&reach, replace).await?,
        (false, Some(files)) => {
            let files = files.iter().map(|file| file.read(&reach)).collect::<Result<Vec<_>, _>>()?;
            state.fs.apply_replace(&reach, replace, files).await?
        }
    };
    Ok(Json(answer))
}

impl ReplaceFileBody {
    fn read(&self, reach: &Reach) -> Result<ReplaceFile, ApiError> {
        let no_hash = || ApiError::invalid("sha256 must be that of the plan");
        let expected = Sha256Hex::parse(&self.sha256).ok_or_else(no_hash)?;
        Ok(ReplaceFile { at: self.path.locate(reach)?, expected, only: self.only.clone() })
    }
}
