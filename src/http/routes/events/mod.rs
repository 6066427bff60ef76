//! Everything that happens, in one order and with one cursor: the whole log as pages or as server-sent events.

mod feed;
mod shown;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::config::as_usize;
use crate::http::extract::{ApiQuery, accepts, names_events};
use crate::http::problem::{ApiError, ErrorCode};
use crate::http::sse::{Feed, last_event_id};
use crate::http::{AppState, ProblemDetails, page};
use crate::store::{LogFilter, LogGap};
use feed::LogTail;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(get_events))
}

/// Words of one filter.
const WORDS_MAX: usize = 64;
/// Pages of the store that one request reads while it finds nothing.
const READS_MAX: usize = 10;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
struct EventsQuery {
    /// Events of these sessions, as `ses_…`; several are divided by commas. With `processId`: of either.
    session_id: Option<String>,
    /// Events about these processes, as `proc_1`; several are divided by commas.
    process_id: Option<String>,
    /// Only of these types; several are divided by commas. `turn.*` means all that begin with `turn.`.
    #[serde(rename = "type")]
    #[param(example = "turn.*,process.exited")]
    kind: Option<String>,
    /// Only what follows this position: `next` of the page before. `Last-Event-ID` wins.
    after: Option<u64>,
    /// Events in a page: at most `log_page_max_events`. Event streams have no pages.
    #[param(minimum = 1, default = 100)]
    limit: Option<usize>,
}

impl EventsQuery {
    fn filter(&self) -> Result<LogFilter, ApiError> {
        let sessions = words("sessionId", self.session_id.as_deref())?;
        Ok(LogFilter {
            streams: sessions.iter().map(|id| format!("session/{id}")).collect(),
            processes: words("processId", self.process_id.as_deref())?,
            kinds: words("type", self.kind.as_deref())?,
        })
    }
}

fn words(name: &str, list: Option<&str>) -> Result<Vec<String>, ApiError> {
    let Some(list) = list else { return Ok(Vec::new()) };
    let words: Vec<_> = list.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect();
    match words.len() {
        0 => Err(ApiError::invalid(format!("{name} is empty: leave it out to get everything"))),
        1..=WORDS_MAX => Ok(words),
        _ => Err(ApiError::invalid(format!("{name} names more than {WORDS_MAX}"))),
    }
}

/// A page of the log.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct EventsPage {
    /// In order. Each has `sequence` (its position in the whole log), `stream`, `streamSequence`, `type`, `time` (Unix
    /// milliseconds), and what the event itself carries.
    #[schema(value_type = Vec<serde_json::Value>)]
    events: Vec<Box<RawValue>>,
    /// What is missing between `after` and `next`.
    gaps: Vec<EventsGap>,
    /// Where the next page begins, also when this one is empty: everything up to here was looked at.
    next: u64,
    /// True when there is more to look at behind `next`.
    has_more: bool,
    /// The position of the last event of all.
    newest: u64,
}

/// Positions of a stream that are not in the log.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct EventsGap {
    /// Where in the whole log it lies.
    sequence: u64,
    /// The stream; absent for a position beyond the log's end.
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<String>,
    /// First missing position in that stream.
    from: u64,
    /// Last missing position.
    to: u64,
    /// `retention` (too old) or `not_kept` (the disk refused them).
    reason: &'static str,
}

impl From<LogGap> for EventsGap {
    fn from(gap: LogGap) -> Self {
        Self { sequence: gap.seq, stream: Some(gap.stream), from: gap.from, to: gap.to, reason: gap.reason.as_str() }
    }
}

impl EventsGap {
    /// What a client has seen and the log has not.
    fn beyond(newest: u64, after: u64) -> Self {
        Self { sequence: newest, stream: None, from: newest + 1, to: after, reason: "not_kept" }
    }
}

/// Shows what happened, in the order in which it was committed: a page of JSON, or server-sent events when `Accept` names
/// `text/event-stream`. One cursor goes through all of it.
#[utoipa::path(get, path = "/v1/events", tag = "events", operation_id = "get_events",
    params(EventsQuery, ("Last-Event-ID" = Option<u64>, Header, description = "The last position that was received")),
    responses((status = 200, body = EventsPage, description = "A page; as `text/event-stream` events `message` and `gap`"),
        (status = 400, body = ProblemDetails), (status = 406, body = ProblemDetails), (status = 503, body = ProblemDetails)))]
async fn get_events(
    State(state): State<AppState>,
    headers: HeaderMap,
    ApiQuery(query): ApiQuery<EventsQuery>,
) -> Result<Response, ApiError> {
    let filter = query.filter()?;
    let after = last_event_id(&headers)?.or(query.after).unwrap_or(0);
    if names_events(&headers) {
        let tail = LogTail::new(state.store.clone(), filter, after, &state.config.bounds);
        return Ok(Feed::new(&state, tail)?.into_response());
    }
    if !accepts(&headers, "application", "json") {
        let why = "accept must allow application/json or text/event-stream";
        return Err(ApiError::with_message(ErrorCode::NotAcceptable, "not acceptable", why));
    }
    let limit = page::size("limit", query.limit, page::EVENTS_DEFAULT, state.config.bounds.log_page_max_events)?;
    Ok(Json(log_page(&state, filter, after, limit).await?).into_response())
}

async fn log_page(state: &AppState, filter: LogFilter, after: u64, limit: usize) -> Result<EventsPage, ApiError> {
    let newest = *state.store.watch_log().borrow();
    let max_bytes = as_usize(state.config.bounds.events_page_max_bytes);
    let mut page = EventsPage { events: Vec::new(), gaps: Vec::new(), next: after, has_more: true, newest };
    if after > newest {
        page.gaps.push(EventsGap::beyond(newest, after));
        page.next = newest;
    }
    for _ in 0..READS_MAX {
        let read = state.store.log_page(page.next, filter.clone(), limit, max_bytes).await?;
        page.next = read.reached;
        page.has_more = !read.is_last;
        page.gaps.extend(read.gaps.into_iter().map(EventsGap::from));
        page.events = read.events.iter().map(shown::raw).collect();
        if !page.events.is_empty() || read.is_last {
            break;
        }
    }
    page.newest = newest.max(page.next);
    Ok(page)
}
