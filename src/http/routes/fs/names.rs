//! Looking for files by their names.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::Value;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::selection::{Patterns, PatternsQuery, at_least_one};
use super::target::{OptionalTarget, OptionalTargetQuery};
use crate::fs::FindNames;
use crate::http::extract::ApiQuery;
use crate::http::problem::ApiError;
use crate::http::{AppState, ProblemDetails};

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(find_names))
}

/// Names that are given when a request says nothing.
const LIMIT_DEFAULT: usize = 1000;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct NamesQuery {
    /// Names fit this, like `**/*.rs`; without a slash in it, in any directory.
    pattern: Option<String>,
    /// Names have these letters in this order; the best fits come first, with a score.
    fuzzy: Option<String>,
    /// Directories, too.
    #[serde(default)]
    directories: bool,
    /// Names that begin with a dot, too.
    #[serde(default)]
    hidden: bool,
    /// What ignore rules leave out, too.
    #[serde(default)]
    ignored: bool,
    /// So many levels; 1 is the directory itself.
    depth: Option<usize>,
    /// At most so many; 1000 when absent.
    limit: Option<usize>,
}

/// Looks for files by their names.
#[utoipa::path(get, path = "/v1/fs/glob", tag = "fs", operation_id = "get_fs_glob",
    params(OptionalTargetQuery, NamesQuery, PatternsQuery),
    responses((status = 200, body = Object), (status = 400, body = ProblemDetails), (status = 403, body = ProblemDetails)))]
async fn find_names(
    State(state): State<AppState>,
    OptionalTarget(target): OptionalTarget,
    ApiQuery(query): ApiQuery<NamesQuery>,
    patterns: Patterns,
) -> Result<Json<Value>, ApiError> {
    if query.pattern.is_none() && query.fuzzy.is_none() {
        return Err(ApiError::invalid("say pattern, or fuzzy, or both"));
    }
    let find = FindNames {
        pattern: query.pattern,
        fuzzy: query.fuzzy,
        wanted: patterns.wanted(query.hidden, query.ignored, query.depth),
        directories: query.directories,
        limit: Some(at_least_one("limit", query.limit)?.unwrap_or(LIMIT_DEFAULT)),
    };
    Ok(Json(state.fs.find_names(&target.reach, target.at, find).await?))
}
