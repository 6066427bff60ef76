//! Searching contents: on one page, as lines of JSON, or as events.

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, header};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::mpsc;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::selection::{Patterns, PatternsQuery, SelectionBody, at_least_one};
use super::target::{AuthorQuery, OptionalTarget, OptionalTargetQuery, PathText, Reached, Target};
use crate::fs::{self, Case, Pattern, Reach, Search, SearchItem};
use crate::http::extract::{ApiJson, ApiQuery, names_events};
use crate::http::problem::ApiError;
use crate::http::sse::{Feed, Read, Source};
use crate::http::{AppState, ProblemDetails};

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(grep)).routes(routes!(search))
}

/// Lines with matches on a page when a request says nothing.
const LIMIT_DEFAULT: u64 = 1000;
const LINES: &str = "application/x-ndjson";

/// Which case letters must have: that of the pattern, any, or any unless the pattern has an upper-case letter.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub(super) enum CaseName {
    #[default]
    Sensitive,
    Insensitive,
    Smart,
}

impl From<CaseName> for Case {
    fn from(name: CaseName) -> Self {
        match name {
            CaseName::Sensitive => Self::Sensitive,
            CaseName::Insensitive => Self::Insensitive,
            CaseName::Smart => Self::Smart,
        }
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
struct GrepQuery {
    /// A regular expression as ripgrep has them.
    pattern: String,
    /// The pattern stands for itself.
    #[serde(default)]
    literal: bool,
    #[serde(default)]
    #[param(inline)]
    case: CaseName,
    /// Only whole words.
    #[serde(default)]
    word: bool,
    /// A match may go over several lines.
    #[serde(default)]
    multiline: bool,
    /// Lines around a match that are shown, too.
    #[serde(default)]
    context: usize,
    /// The same before it only.
    before: Option<usize>,
    /// The same behind it only.
    after: Option<usize>,
    /// Names that begin with a dot, too.
    #[serde(default)]
    hidden: bool,
    /// What ignore rules leave out, too.
    #[serde(default)]
    ignored: bool,
    /// So many levels; 1 is the directory itself.
    depth: Option<usize>,
    /// At most so many lines with matches; 1000 when absent and it isn't streamed.
    limit: Option<u64>,
    /// At most so many in each file.
    limit_per_file: Option<u64>,
}

/// Searches contents: a page of JSON, or by `Accept` lines of JSON (`application/x-ndjson`) or events.
#[utoipa::path(get, path = "/v1/fs/grep", tag = "fs", operation_id = "get_fs_grep",
    params(OptionalTargetQuery, GrepQuery, PatternsQuery),
    responses((status = 200, content((Object = "application/json"), (String = "application/x-ndjson"), (String = "text/event-stream"))),
              (status = 400, body = ProblemDetails), (status = 403, body = ProblemDetails)))]
async fn grep(
    State(state): State<AppState>,
    headers: HeaderMap,
    OptionalTarget(Target { reach, at }): OptionalTarget,
    ApiQuery(query): ApiQuery<GrepQuery>,
    patterns: Patterns,
) -> Result<Response, ApiError> {
    let GrepQuery { pattern, literal, word, multiline, .. } = query;
    let search = Search {
        pattern: Pattern { text: pattern, is_literal: literal, case: query.case.into(), word, multiline },
        places: vec![at],
        wanted: patterns.wanted(query.hidden, query.ignored, query.depth),
        before: query.before.unwrap_or(query.context),
        after: query.after.unwrap_or(query.context),
        limit: at_least_one("limit", query.limit)?,
        limit_per_file: at_least_one("limitPerFile", query.limit_per_file)?,
        answer_max_bytes: None,
    };
    answer(&state, &headers, &reach, search).await
}

/// What is searched for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct PatternBody {
    /// A regular expression as ripgrep has them.
    pattern: String,
    /// The pattern stands for itself.
    #[serde(default)]
    literal: bool,
    /// Which case letters must have.
    #[serde(default)]
    case: CaseName,
    /// Only whole words.
    #[serde(default)]
    word: bool,
    /// A match may go over several lines.
    #[serde(default)]
    multiline: bool,
}

impl From<PatternBody> for Pattern {
    fn from(body: PatternBody) -> Self {
        let PatternBody { pattern, literal, case, word, multiline } = body;
        Self { text: pattern, is_literal: literal, case: case.into(), word, multiline }
    }
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct SearchBody {
    #[serde(flatten)]
    pattern: PatternBody,
    #[serde(flatten)]
    selection: SelectionBody,
    /// Files, and trees whose files are searched; where relative paths start when absent.
    #[serde(default)]
    paths: Vec<PathText>,
    /// Lines around a match that are shown, too.
    #[serde(default)]
    context: usize,
    /// The same before it only.
    before: Option<usize>,
    /// The same behind it only.
    after: Option<usize>,
    /// At most so many lines with matches; 1000 when absent and it isn't streamed.
    limit: Option<u64>,
    /// At most so many in each file.
    limit_per_file: Option<u64>,
}

/// The same as `GET /v1/fs/grep`, with several paths.
#[utoipa::path(post, path = "/v1/fs/search", tag = "fs", operation_id = "post_fs_search", request_body = SearchBody,
    params(AuthorQuery),
    responses((status = 200, content((Object = "application/json"), (String = "application/x-ndjson"), (String = "text/event-stream"))),
              (status = 400, body = ProblemDetails), (status = 403, body = ProblemDetails)))]
async fn search(
    State(state): State<AppState>,
    headers: HeaderMap,
    Reached(reach): Reached,
    ApiJson(body): ApiJson<SearchBody>,
) -> Result<Response, ApiError> {
    let search = Search {
        pattern: body.pattern.into(),
        places: places(&reach, &body.paths)?,
        wanted: body.selection.into(),
        before: body.before.unwrap_or(body.context),
        after: body.after.unwrap_or(body.context),
        limit: at_least_one("limit", body.limit)?,
        limit_per_file: at_least_one("limitPerFile", body.limit_per_file)?,
        answer_max_bytes: None,
    };
    answer(&state, &headers, &reach, search).await
}

/// What paths of a body name; where relative ones start when there are none.
pub(super) fn places(reach: &Reach, paths: &[PathText]) -> Result<Vec<fs::Located>, ApiError> {
    if paths.is_empty() {
        return Ok(vec![reach.locate("".as_ref())?]);
    }
    paths.iter().map(|path| path.locate(reach)).collect()
}

async fn answer(state: &AppState, headers: &HeaderMap, reach: &Reach, search: Search) -> Result<Response, ApiError> {
    if names_events(headers) {
        let found = state.fs.search(reach, search).await?;
        return Ok(Feed::new(state, Events { found, next: None, is_over: false })?.into_response());
    }
    if names_lines(headers) {
        let found = state.fs.search(reach, search).await?;
        let body = Body::from_stream(futures_util::stream::unfold(found, |mut found| async move {
            let piece = match found.recv().await? {
                SearchItem::Hits(hits) => hits,
                SearchItem::End(summary) => Bytes::from(format!("{summary}\n")),
            };
            Some((Ok::<_, std::convert::Infallible>(piece), found))
        }));
        return Ok(([(header::CONTENT_TYPE, LINES)], body).into_response());
    }
    let answer_max_bytes = Some(state.config.bounds.fs_search_answer_max_bytes);
    let limit = search.limit.or(Some(LIMIT_DEFAULT));
    let found = state.fs.search(reach, Search { limit, answer_max_bytes, ..search }).await?;
    page(found).await
}

fn names_lines(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut media = values.flat_map(|value| value.split(',')).map(|range| range.split(';').next().unwrap_or_default().trim());
    media.any(|media| media.eq_ignore_ascii_case(LINES))
}

/// `{"hits": […], "matches": …}`.
async fn page(mut found: mpsc::Receiver<SearchItem>) -> Result<Response, ApiError> {
    let mut out = b"{\"hits\":[".to_vec();
    while let Some(item) = found.recv().await {
        match item {
            // JSON has no end of line within.
            SearchItem::Hits(hits) => out.extend(hits.iter().map(|byte| if *byte == b'\n' { b',' } else { *byte })),
            SearchItem::End(mut summary) => {
                if out.last() == Some(&b',') {
                    out.pop();
                }
                if let Value::Object(members) = &mut summary {
                    members.remove("kind");
                }
                out.extend_from_slice(b"],");
                out.extend_from_slice(&summary.to_string().as_bytes()[1..]);
                return Ok(([(header::CONTENT_TYPE, "application/json")], out).into_response());
            }
        }
    }
    Err(fs::Error::Stopping.into())
}

/// What is found, as events: `match`, `context`, and `summary` at the end.
struct Events {
    found: mpsc::Receiver<SearchItem>,
    next: Option<SearchItem>,
    is_over: bool,
}

impl Source for Events {
    async fn read(&mut self) -> Read {
        let next = self.next.take().or_else(|| self.found.try_recv().ok());
        match next {
            Some(SearchItem::Hits(hits)) => Read::Frames(frames(&hits)),
            Some(SearchItem::End(summary)) => Read::Frames(format!("event: summary\ndata: {summary}\n\n").into()),
            None if self.is_over => Read::Over("finished"),
            None => Read::Nothing,
        }
    }

    async fn changed(&mut self) {
        if self.next.is_none() {
            self.next = self.found.recv().await;
            self.is_over = self.next.is_none();
        }
    }
}

fn frames(hits: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(hits.len() * 2);
    for line in hits.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let is_match = line.starts_with(b"{\"kind\":\"match\"");
        out.extend_from_slice(if is_match { b"event: match\ndata: " } else { b"event: context\ndata: " });
        out.extend_from_slice(line);
        out.extend_from_slice(b"\n\n");
    }
    out.into()
}
