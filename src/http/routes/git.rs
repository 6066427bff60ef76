//! `/v1/git`: repositories in the workspace.

use std::os::unix::ffi::OsStrExt as _;

use axum::extract::{FromRequestParts, State};
use axum::{Json, http::StatusCode};
use http::request::Parts;
use percent_encoding::percent_decode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::fs::target::{AuthorQuery, OptionalTarget, OptionalTargetQuery, PathText, Reached, Target, path_answer};
use crate::git::{Diff, DiffSpec, Log, LogSpec, Status, StatusSpec, Untracked, Worktree, WorktreeSpec};
use crate::http::extract::{ApiJson, ApiQuery};
use crate::http::page;
use crate::http::problem::ApiError;
use crate::http::repository::{place, spot};
use crate::http::{AppState, ProblemDetails};

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(git_status)).routes(routes!(git_diff)).routes(routes!(git_log)).routes(routes!(
        list_worktrees,
        add_worktree,
        remove_worktree
    ))
}

/// Each `paths` of a query, byte for byte.
struct Paths(Vec<Vec<u8>>);

impl<S: Sync> FromRequestParts<S> for Paths {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let pairs = parts.uri.query().unwrap_or_default().split('&');
        let values = pairs.filter_map(|pair| pair.strip_prefix("paths="));
        Ok(Self(values.map(|value| percent_decode(value.replace('+', " ").as_bytes()).collect()).collect()))
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct StatusQuery {
    /// How files that git doesn't know are told: `all`, `normal` (directories of nothing else as one) or `no`.
    #[serde(default)]
    untracked: Untracked,
    /// True tells ignored files, too.
    #[serde(default)]
    ignored: bool,
}

/// Says what has changed in a working tree.
#[utoipa::path(get, path = "/v1/git/status", tag = "git", operation_id = "get_git_status", params(OptionalTargetQuery, StatusQuery),
    responses((status = 200, body = Status), (status = 400, body = ProblemDetails), (status = 403, body = ProblemDetails),
              (status = 501, body = ProblemDetails), (status = 502, body = ProblemDetails)))]
async fn git_status(
    State(state): State<AppState>,
    OptionalTarget(target): OptionalTarget,
    ApiQuery(query): ApiQuery<StatusQuery>,
) -> Result<Json<Status>, ApiError> {
    let place = place(&target.reach, target.at).await?;
    let spec = StatusSpec { untracked: query.untracked, ignored: query.ignored };
    Ok(Json(state.git.status(&place, spec).await?))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code)] // `paths` is read byte for byte
struct DiffQuery {
    /// True compares the index instead of the working tree.
    #[serde(default)]
    staged: bool,
    /// The commit, branch or tag before; the index, or with `staged` what is checked out, when absent.
    from: Option<String>,
    /// The one after, instead of index or working tree.
    to: Option<String>,
    /// Nothing but these paths below the top, each in a `paths` of its own.
    #[serde(skip)]
    #[param(value_type = Option<Vec<String>>)]
    paths: (),
}

/// Says how two states of a repository differ.
#[utoipa::path(get, path = "/v1/git/diff", tag = "git", operation_id = "get_git_diff", params(OptionalTargetQuery, DiffQuery),
    responses((status = 200, body = Diff), (status = 400, body = ProblemDetails), (status = 403, body = ProblemDetails),
              (status = 501, body = ProblemDetails), (status = 502, body = ProblemDetails)))]
async fn git_diff(
    State(state): State<AppState>,
    OptionalTarget(target): OptionalTarget,
    Paths(paths): Paths,
    ApiQuery(query): ApiQuery<DiffQuery>,
) -> Result<Json<Diff>, ApiError> {
    let place = place(&target.reach, target.at).await?;
    let spec = DiffSpec { staged: query.staged, from: query.from, to: query.to, paths };
    Ok(Json(state.git.diff(&place, spec).await?))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code)] // the same
struct LogQuery {
    /// The commit, branch or tag to begin with; what is checked out when absent.
    #[serde(rename = "ref")]
    #[param(rename = "ref")]
    revision: Option<String>,
    /// At most so many; 50 when absent.
    limit: Option<usize>,
    /// `next` of the page before.
    cursor: Option<String>,
    /// Only commits that changed these paths below the top, each in a `paths` of its own.
    #[serde(skip)]
    #[param(value_type = Option<Vec<String>>)]
    paths: (),
}

/// Lists the commits that led to a state.
#[utoipa::path(get, path = "/v1/git/log", tag = "git", operation_id = "get_git_log", params(OptionalTargetQuery, LogQuery),
    responses((status = 200, body = Log), (status = 400, body = ProblemDetails), (status = 403, body = ProblemDetails),
              (status = 501, body = ProblemDetails), (status = 502, body = ProblemDetails)))]
async fn git_log(
    State(state): State<AppState>,
    OptionalTarget(target): OptionalTarget,
    Paths(paths): Paths,
    ApiQuery(query): ApiQuery<LogQuery>,
) -> Result<Json<Log>, ApiError> {
    let limit = page::size("limit", query.limit, page::LIST_DEFAULT, state.config.bounds.list_page_max)?;
    let place = place(&target.reach, target.at).await?;
    let spec = LogSpec { revision: query.revision, limit, cursor: query.cursor, paths };
    Ok(Json(state.git.log(&place, spec).await?))
}

/// The working trees of a repository.
#[derive(Debug, Serialize, ToSchema)]
struct Worktrees {
    /// The main one first.
    worktrees: Vec<Worktree>,
}

/// Lists the working trees of a repository.
#[utoipa::path(get, path = "/v1/git/worktrees", tag = "git", operation_id = "get_git_worktrees", params(OptionalTargetQuery),
    responses((status = 200, body = Worktrees), (status = 400, body = ProblemDetails), (status = 403, body = ProblemDetails),
              (status = 501, body = ProblemDetails), (status = 502, body = ProblemDetails)))]
async fn list_worktrees(
    State(state): State<AppState>,
    OptionalTarget(target): OptionalTarget,
) -> Result<Json<Worktrees>, ApiError> {
    let place = place(&target.reach, target.at).await?;
    let (mut worktrees, of_sessions) = (state.git.worktrees(&place).await?, state.store.worktrees().await?);
    for worktree in &mut worktrees {
        let owned = of_sessions.iter().find(|row| row.path == worktree.path().as_os_str().as_bytes());
        (worktree.session_id, worktree.kept) = owned
            .map(|row| (row.session_id.clone(), row.kept.clone()))
            .map_or((None, None), |(session, kept)| (Some(session), kept));
    }
    Ok(Json(Worktrees { worktrees }))
}

/// A working tree to be added.
#[derive(Debug, Deserialize, ToSchema)]
struct WorktreeBody {
    /// A directory in the repository.
    path: PathText,
    /// The directory to make; the one above it is there.
    target: PathText,
    /// The branch to check out, made when it isn't there; without one, the commit alone is checked out.
    branch: Option<String>,
    /// The commit, branch or tag that a new branch begins with; what is checked out when absent.
    base: Option<String>,
}

/// Adds a working tree. Asks no network. One that shall come and go with a session is made with it.
#[utoipa::path(post, path = "/v1/git/worktrees", tag = "git", operation_id = "post_git_worktrees", request_body = WorktreeBody,
    params(AuthorQuery),
    responses((status = 201, body = Worktree), (status = 400, body = ProblemDetails), (status = 403, body = ProblemDetails),
              (status = 409, body = ProblemDetails), (status = 501, body = ProblemDetails), (status = 502, body = ProblemDetails)))]
async fn add_worktree(
    State(state): State<AppState>,
    Reached(reach): Reached,
    ApiJson(body): ApiJson<WorktreeBody>,
) -> Result<(StatusCode, Json<Worktree>), ApiError> {
    let place = place(&reach, body.path.locate(&reach)?).await?;
    let spot = spot(&reach, &body.target.locate(&reach)?).await?;
    let spec = WorktreeSpec { spot, branch: body.branch, base: body.base, lock: None };
    Ok((StatusCode::CREATED, Json(state.git.add_worktree(place, spec).await?)))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct RemoveQuery {
    /// The working tree's directory.
    target: String,
    /// True removes it with work that is in no commit.
    #[serde(default)]
    force: bool,
}

/// Removes a working tree with its directory. Its branch stays.
#[utoipa::path(delete, path = "/v1/git/worktrees", tag = "git", operation_id = "delete_git_worktrees",
    params(OptionalTargetQuery, RemoveQuery),
    responses((status = 200, body = Object), (status = 400, body = ProblemDetails), (status = 403, body = ProblemDetails),
              (status = 409, body = ProblemDetails), (status = 501, body = ProblemDetails), (status = 502, body = ProblemDetails)))]
async fn remove_worktree(
    State(state): State<AppState>,
    OptionalTarget(Target { reach, at }): OptionalTarget,
    ApiQuery(query): ApiQuery<RemoveQuery>,
) -> Result<Json<Value>, ApiError> {
    let target = reach.locate(query.target.as_ref())?;
    let (place, spot) = (place(&reach, at).await?, spot(&reach, &target).await?);
    state.git.remove_worktree(place, spot, query.force).await?;
    Ok(Json(path_answer(target.path())))
}
