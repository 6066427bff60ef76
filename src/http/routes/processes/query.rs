//! Asking about processes: search in what one wrote, wait for what it does, follow what happens to all.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::config::as_duration;
use crate::http::extract::{ApiPath, ApiQuery, OptionalJson};
use crate::http::problem::ApiError;
use crate::http::{AppState, ProblemDetails, page, slow, sse};
use crate::processes::PATTERN_MAX_CHARS;
use crate::processes::types::{LogStream, SearchResult, SearchSource, SearchSpec, WaitResult, WaitSpec};

const CONTEXT_MAX: usize = 50;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(search_process)).routes(routes!(wait_for_process)).routes(routes!(get_process_events))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct SearchQuery {
    /// A regular expression without look-around (the syntax of Rust's `regex`).
    #[param(min_length = 1, max_length = 200)]
    pattern: String,
    /// Matches that are shown: at most `list_page_max`.
    #[param(minimum = 1, default = 50)]
    limit: Option<usize>,
    /// Lines that are shown before and after each match.
    #[serde(default)]
    #[param(minimum = 0, maximum = 50, default = 0)]
    context: usize,
    /// Only what was written to this stream.
    #[param(inline)]
    stream: Option<LogStream>,
    /// Only the terminal's screen with its scrollback, or only the log.
    #[param(inline)]
    source: Option<SearchSource>,
}

impl SearchQuery {
    fn check(self, limit_max: u64) -> Result<SearchSpec, ApiError> {
        let Self { pattern, limit, context, stream, source } = self;
        if !(1..=PATTERN_MAX_CHARS).contains(&pattern.chars().count()) {
            return Err(ApiError::invalid(format!("pattern has 1 to {PATTERN_MAX_CHARS} characters")));
        }
        let limit = page::size("limit", limit, page::LIST_DEFAULT, limit_max)?;
        if context > CONTEXT_MAX {
            return Err(ApiError::invalid(format!("context must be 0 to {CONTEXT_MAX}")));
        }
        Ok(SearchSpec { pattern, limit, context, stream, source })
    }
}

/// Searches the lines that a process wrote, without their escape sequences.
#[utoipa::path(get, path = "/v1/processes/{id}/search", tag = "processes", operation_id = "search_process",
    params(("id" = String, Path, description = "`proc_<n>`"), SearchQuery),
    responses((status = 200, body = SearchResult), (status = 400, body = ProblemDetails), (status = 404, body = ProblemDetails)))]
async fn search_process(
    State(state): State<AppState>,
    ApiPath(id): ApiPath<String>,
    ApiQuery(query): ApiQuery<SearchQuery>,
) -> Result<Json<SearchResult>, ApiError> {
    Ok(Json(state.processes.search(&id, query.check(state.config.bounds.list_page_max)?).await?))
}

/// Waits until a process ends, writes a line that matches, falls silent, or listens on a port: whatever comes first. An
/// empty body waits for the end. A client that leaves ends only its wait. A long wait sends white space before the JSON.
#[utoipa::path(post, path = "/v1/processes/{id}/wait", tag = "processes", operation_id = "wait_for_process",
    params(("id" = String, Path, description = "`proc_<n>`")), request_body(content = Option<WaitSpec>),
    responses((status = 200, body = WaitResult), (status = 400, body = ProblemDetails), (status = 404, body = ProblemDetails),
        (status = 413, body = ProblemDetails), (status = 415, body = ProblemDetails), (status = 422, body = ProblemDetails),
        (status = 503, body = ProblemDetails)))]
async fn wait_for_process(
    State(state): State<AppState>,
    ApiPath(id): ApiPath<String>,
    OptionalJson(spec): OptionalJson<WaitSpec>,
) -> Result<Response, ApiError> {
    let keepalive = as_duration(state.config.bounds.acp_post_keepalive_ms);
    slow::json(async move { Ok(state.processes.wait(&id, spec).await?) }, keepalive).await
}

/// Streams what happens to processes: `message` events, from the beginning or after `Last-Event-ID`, then live.
#[utoipa::path(get, path = "/v1/processes/events", tag = "processes", operation_id = "get_process_events",
    params(("Last-Event-ID" = Option<u64>, Header, description = "The last id that was received")),
    responses((status = 200, description = "Server-sent events", content_type = "text/event-stream", body = String),
        (status = 400, body = ProblemDetails), (status = 406, body = ProblemDetails), (status = 503, body = ProblemDetails)))]
async fn get_process_events(State(state): State<AppState>, headers: HeaderMap) -> Result<Response, ApiError> {
    sse::check(&headers)?;
    sse::open(&state, state.processes.events(), None, &headers, "closed")
}

#[cfg(test)]
mod tests {
    use axum::extract::Query;

    use super::*;

    fn checked(query: &str) -> Result<SearchSpec, String> {
        let uri = format!("/?{query}").parse().expect("a URI");
        let Query(query) = Query::<SearchQuery>::try_from_uri(&uri).map_err(|error| error.body_text())?;
        query.check(500).map_err(|error| error.detail().to_owned())
    }

    #[test]
    fn a_search_has_defaults() {
        let spec = checked("pattern=a%2B+b").expect("valid");
        assert_eq!(spec, SearchSpec { pattern: "a+ b".into(), limit: 50, context: 0, stream: None, source: None });
        let spec = checked("pattern=x&limit=500&context=50&stream=stderr&source=log").expect("valid");
        assert_eq!((spec.limit, spec.context), (500, 50));
        assert_eq!((spec.stream, spec.source), (Some(LogStream::Stderr), Some(SearchSource::Log)));
        assert!(checked(&format!("pattern={}", "%C3%A9".repeat(200))).is_ok(), "characters are counted, not bytes");
    }

    #[test]
    fn what_is_wrong_with_a_search_is_named() {
        let long = format!("pattern={}", "x".repeat(201));
        for (query, field) in [
            ("", "pattern"),
            ("pattern=", "pattern"),
            (long.as_str(), "pattern"),
            ("pattern=x&limit=0", "limit"),
            ("pattern=x&limit=501", "limit"),
            ("pattern=x&limit=many", "limit"),
            ("pattern=x&context=51", "context"),
            ("pattern=x&context=-1", "context"),
            ("pattern=x&stream=tty", "stream"),
            ("pattern=x&source=disk", "source"),
        ] {
            let why = checked(query).expect_err(query);
            assert!(why.contains(field), "{query}: {why}");
        }
    }
}
