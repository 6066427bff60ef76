//! What was said in a session: as events, as items, as raw envelopes.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::config::{as_duration, as_usize};
use crate::http::extract::{ApiPath, ApiQuery, accepts, names_events};
use crate::http::problem::{ApiError, ErrorCode};
use crate::http::sse::{self, Feed, Read, Source, last_event_id};
use crate::http::{AppState, ProblemDetails, page};
use crate::sessions::gate::RequestInfo;
use crate::sessions::{SessionInfo, Sessions, TurnInfo};
use crate::store::Item;

/// Items of a snapshot, when it doesn't say.
const ITEMS_DEFAULT: usize = 200;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(get_session_events)).routes(routes!(get_snapshot))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct EventsQuery {
    /// Only what follows this position; `Last-Event-ID` wins.
    after: Option<u64>,
    /// Events in a page: at most `log_page_max_events`. Event streams have no pages.
    #[param(minimum = 1, default = 100)]
    limit: Option<usize>,
    /// `items` (default): projected events with turns and items. `raw`: the ACP envelopes in both directions, as they
    /// passed; positions are those of the whole log then.
    view: Option<String>,
}

/// A page of a session's events.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct SessionEventsPage {
    /// In order. Each has `sequence`, `time`, `sessionId`, `turnId`, `source`, `synthetic`, `type` and `data`; raw ones
    /// `sequence`, `time`, `direction` and `envelope`.
    #[schema(value_type = Vec<Object>)]
    events: Vec<Box<RawValue>>,
    /// What is missing between `after` and `next`, and why.
    #[schema(value_type = Vec<Object>)]
    gaps: Vec<Value>,
    /// Where the next page begins.
    next: u64,
    /// True when there is more behind `next`.
    has_more: bool,
}

/// Shows a session's events: a page of JSON, or server-sent events when `Accept` names `text/event-stream`: from the
/// beginning or after `Last-Event-ID`, then live, across restarts of the server.
#[utoipa::path(get, path = "/v1/sessions/{id}/events", tag = "sessions", operation_id = "get_session_events",
    params(("id" = String, Path, description = "`ses_…`"), EventsQuery,
           ("Last-Event-ID" = Option<u64>, Header, description = "The last id that was received")),
    responses((status = 200, body = SessionEventsPage, description = "A page; as `text/event-stream` events `message`, `gap`, `end`"),
        (status = 400, body = ProblemDetails), (status = 404, body = ProblemDetails), (status = 406, body = ProblemDetails),
        (status = 503, body = ProblemDetails)))]
async fn get_session_events(
    State(state): State<AppState>,
    ApiPath(id): ApiPath<String>,
    headers: HeaderMap,
    ApiQuery(query): ApiQuery<EventsQuery>,
) -> Result<Response, ApiError> {
    let after = last_event_id(&headers)?.or(query.after).unwrap_or(0);
    let is_raw = match query.view.as_deref() {
        None | Some("items") => false,
        Some("raw") => true,
        Some(_) => return Err(ApiError::invalid("view must be items or raw")),
    };
    if names_events(&headers) {
        let stream = state.sessions.stream(&id).await?;
        if is_raw {
            let tail = RawTail::new(state.sessions.clone(), &state, id, after);
            return Ok(Feed::new(&state, tail)?.into_response());
        }
        return sse::open_decorated(&state, stream, after, "deleted");
    }
    if !accepts(&headers, "application", "json") {
        let why = "accept must allow application/json or text/event-stream";
        return Err(ApiError::with_message(ErrorCode::NotAcceptable, "not acceptable", why));
    }
    let limit = page::size("limit", query.limit, page::EVENTS_DEFAULT, state.config.bounds.log_page_max_events)?;
    let page = if is_raw { raw_page(&state, &id, after, limit).await? } else { item_page(&state, &id, after, limit).await? };
    Ok(Json(page).into_response())
}

async fn item_page(state: &AppState, id: &str, after: u64, limit: usize) -> Result<SessionEventsPage, ApiError> {
    let stream = state.sessions.stream(id).await?;
    let newest = stream.newest().seq;
    let items = stream.read_after(after, limit, as_usize(state.config.bounds.events_page_max_bytes)).await?;
    let next = items.last().map_or(after, Item::end);
    let mut page = SessionEventsPage { events: Vec::new(), gaps: Vec::new(), next, has_more: next < newest };
    for item in items {
        match item {
            Item::Gap { from, to, reason } => {
                page.gaps.push(serde_json::json!({"from": from, "to": to, "reason": reason.as_str()}));
            }
            Item::Event(event) => page.events.extend(raw_value(&sse::with_sequence(event.seq, &event.payload))),
        }
    }
    Ok(page)
}

async fn raw_page(state: &AppState, id: &str, after: u64, limit: usize) -> Result<SessionEventsPage, ApiError> {
    let (events, next) = state.sessions.raw_events(id, after, limit).await?;
    let newest = *state.store.watch_log().borrow();
    let events = events.iter().filter_map(|event| raw_value(&raw_json(event))).collect();
    Ok(SessionEventsPage { events, gaps: Vec::new(), next, has_more: next < newest })
}

fn raw_json(event: &crate::sessions::RawEvent) -> Bytes {
    let direction = if event.from_client { "client" } else { "agent" };
    let mut text =
        format!(r#"{{"sequence":{},"time":{},"direction":"{direction}","envelope":"#, event.seq, event.time_ms).into_bytes();
    text.extend_from_slice(&event.envelope);
    text.push(b'}');
    text.into()
}

/// What the log holds is JSON; what isn't is left out.
fn raw_value(json: &[u8]) -> Option<Box<RawValue>> {
    RawValue::from_string(String::from_utf8(json.to_vec()).ok()?).ok()
}

/// The raw envelopes of a session, live.
struct RawTail {
    sessions: Sessions,
    id: String,
    cursor: u64,
    page_max: usize,
    newest: tokio::sync::watch::Receiver<u64>,
    /// Between two looks when nothing but other sessions' envelopes comes.
    pause: std::time::Duration,
}

impl RawTail {
    fn new(sessions: Sessions, state: &AppState, id: String, cursor: u64) -> Self {
        let page_max = as_usize(state.config.bounds.log_page_max_events);
        let pause = as_duration(5);
        Self { sessions, id, cursor, page_max, newest: state.store.watch_log(), pause }
    }
}

impl Source for RawTail {
    async fn read(&mut self) -> Read {
        loop {
            let newest = *self.newest.borrow_and_update(); // before reading: what comes after wakes `changed`
            if self.cursor >= newest {
                return Read::Nothing;
            }
            match self.sessions.raw_events(&self.id, self.cursor, self.page_max).await {
                Ok((events, reached)) => {
                    let stuck = reached == self.cursor;
                    self.cursor = reached;
                    if !events.is_empty() {
                        return Read::Frames(frames(&events));
                    }
                    if stuck {
                        return Read::Nothing;
                    }
                }
                Err(crate::sessions::Error::UnknownSession { .. }) => return Read::Over("deleted"),
                Err(error) => return Read::Failed(error.into()),
            }
        }
    }

    async fn changed(&mut self) {
        if self.newest.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(self.pause).await; // a flood elsewhere is looked at in pages, not event by event
    }
}

fn frames(events: &[crate::sessions::RawEvent]) -> Bytes {
    let mut out = Vec::new();
    for event in events {
        out.extend_from_slice(format!("event: message\nid: {}\ndata: ", event.seq).as_bytes());
        out.extend_from_slice(&raw_json(event));
        out.extend_from_slice(b"\n\n");
    }
    out.into()
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
struct SnapshotQuery {
    /// How many of the latest items: at most `snapshot_items_max`.
    #[param(minimum = 1, default = 200)]
    items_max: Option<usize>,
}

/// A session as it is now.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct SnapshotBody {
    session: SessionInfo,
    /// Messages, thoughts, tool calls and plans, joined, oldest first.
    #[schema(value_type = Vec<Object>)]
    items: Vec<Box<RawValue>>,
    /// Older items that are not among them.
    items_left_out: usize,
    /// Turns that run or wait.
    turns: Vec<TurnInfo>,
    /// What waits for a decision.
    #[schema(value_type = Vec<RequestInfo>)]
    requests: Vec<Arc<RequestInfo>>,
    /// Follow the events from here: `Last-Event-ID` of the event stream.
    sequence: u64,
}

/// Shows a session with its items joined, and where its events go on from here.
#[utoipa::path(get, path = "/v1/sessions/{id}/snapshot", tag = "sessions", operation_id = "get_snapshot",
    params(("id" = String, Path, description = "`ses_…`"), SnapshotQuery),
    responses((status = 200, body = SnapshotBody), (status = 400, body = ProblemDetails), (status = 404, body = ProblemDetails)))]
async fn get_snapshot(
    State(state): State<AppState>,
    ApiPath(id): ApiPath<String>,
    ApiQuery(query): ApiQuery<SnapshotQuery>,
) -> Result<Json<SnapshotBody>, ApiError> {
    let items_max = page::size("itemsMax", query.items_max, ITEMS_DEFAULT, state.config.bounds.snapshot_items_max)?;
    let snapshot = state.sessions.snapshot(&id, items_max).await?;
    Ok(Json(SnapshotBody {
        session: snapshot.session,
        items: snapshot.items,
        items_left_out: snapshot.items_left_out,
        turns: snapshot.turns,
        requests: snapshot.requests,
        sequence: snapshot.sequence,
    }))
}
