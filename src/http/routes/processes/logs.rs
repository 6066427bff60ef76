//! Logs of processes: a page of entries, or an event stream that follows them.

use std::io::Write as _;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, header};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::encode::{self, LogEntryInfo, LogGap};
use super::input::parse_encoding;
use crate::config::as_usize;
use crate::http::extract::{ApiPath, ApiQuery};
use crate::http::problem::ApiError;
use crate::http::sse::{self, Feed, Read, Source};
use crate::http::{AppState, ProblemDetails};
use crate::processes::types::{Encoding, LogStream};
use crate::processes::{Error, LogItem, LogQuery, LogReader, LogState};

/// A page is read and sent in pieces of about this size, whatever its length.
const PAGE_CHUNK_BYTES: usize = 64 * 1024;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(get_process_logs))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct LogsQuery {
    /// `combined` when absent; `pty` for a terminal.
    #[param(inline)]
    stream: Option<LogStream>,
    /// Only the last so many entries.
    tail: Option<usize>,
    /// Only entries after this sequence number.
    since: Option<u64>,
    /// Answers with an event stream that goes on until the process has ended.
    #[serde(default)]
    follow: bool,
    /// Entries of a page at most; all when absent. Not with `follow`.
    #[param(minimum = 1)]
    limit: Option<usize>,
    /// What `data` is to be: `base64` when absent, or `utf8`, where what isn't UTF-8 is replaced.
    encoding: Option<String>,
}

/// A part of a log. Only described here: [`Page`] writes it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct LogPage {
    process_id: String,
    /// What was asked for, or the default.
    stream: LogStream,
    entries: Vec<LogEntryInfo>,
    /// What can't be had any more; absent when nothing is missing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    gaps: Vec<LogGap>,
    /// The newest sequence number of the process when it was asked.
    last_sequence: u64,
    /// `since` for the next page.
    next_since: u64,
    /// `limit` left out more.
    has_more: bool,
}

/// Shows what a process wrote, or follows it (`follow=true`).
///
/// A followed log is an event stream, whatever `Accept` says: `log` (id is the sequence, data an entry), `gap`
/// (`{fromSequence,toSequence,bytes,reason}`: that can't be had any more), and at last `end`
/// (`{reason}`: `exited` or `shutdown`). `Last-Event-ID` wins over `since`.
#[utoipa::path(get, path = "/v1/processes/{id}/logs", tag = "processes", operation_id = "get_process_logs",
    params(("id" = String, Path, description = "`proc_<n>`"), LogsQuery,
           ("Last-Event-ID" = Option<u64>, Header, description = "With `follow`: the last id that was received")),
    responses((status = 200, description = "A page; with `follow`, server-sent events", body = LogPage),
        (status = 400, body = ProblemDetails), (status = 404, body = ProblemDetails), (status = 500, body = ProblemDetails),
        (status = 503, body = ProblemDetails)))]
async fn get_process_logs(
    State(state): State<AppState>,
    ApiPath(id): ApiPath<String>,
    ApiQuery(query): ApiQuery<LogsQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let encoding = parse_encoding(query.encoding.as_deref(), Encoding::Base64).map_err(ApiError::invalid)?;
    match (query.limit, query.follow) {
        (Some(0), _) => return Err(ApiError::invalid("limit must be at least 1")),
        (Some(_), true) => return Err(ApiError::invalid("limit is for pages: a log that is followed has none")),
        _ => {}
    }
    let resumed = if query.follow { sse::last_event_id(&headers)? } else { None };
    let since = resumed.or(query.since).unwrap_or_default();
    let tail = query.tail.filter(|_| resumed.is_none()); // who resumes wants all that came since
    let mut reader = state.processes.logs(&id, LogQuery { stream: query.stream, since, tail }).await?;
    if query.follow {
        reader.follow();
        let chunk_max_bytes = as_usize(state.config.bounds.sse_chunk_max_bytes);
        let log = FollowedLog { reader, encoding, chunk_max_bytes, over: None, stop: state.stop.clone() };
        return Ok(Feed::new(&state, log)?.into_response());
    }
    let page = Page::new(&id, reader.stream(), encoding, since, reader.last_sequence(), query.limit);
    PageBody { reader, page }.respond().await
}

/// A log that is followed.
struct FollowedLog {
    reader: LogReader,
    encoding: Encoding,
    chunk_max_bytes: usize,
    over: Option<&'static str>,
    stop: CancellationToken,
}

impl Source for FollowedLog {
    async fn read(&mut self) -> Read {
        if self.stop.is_cancelled() {
            return Read::Over("shutdown"); // a long log is not read to its end first
        }
        if let Some(reason) = self.over {
            return Read::Over(reason);
        }
        match self.reader.read(self.chunk_max_bytes).await {
            Ok(items) if items.is_empty() => Read::Nothing,
            Ok(items) => {
                let mut out = Vec::new();
                encode::events(&mut out, &items, self.encoding);
                Read::Frames(out.into())
            }
            Err(error) => Read::Failed(error.into()),
        }
    }

    async fn changed(&mut self) {
        if let LogState::Over { reason } = self.reader.changed().await {
            self.over = Some(reason);
        }
    }
}

/// Whether a page takes more.
#[derive(Debug, PartialEq, Eq)]
enum Taken {
    Yes,
    /// The page ends before this item.
    Full,
}

/// Writes a page, item by item. It ends with what was the newest when it was asked for, so that a process that writes
/// faster than the client reads can't make it endless.
#[derive(Debug)]
struct Page {
    encoding: Encoding,
    last_sequence: u64,
    limit: usize,
    entries: usize,
    gaps: Vec<LogGap>,
    /// The last position that was passed.
    passed: u64,
    since: u64,
    has_more: bool,
    /// What is to be sent next.
    out: Vec<u8>,
    is_done: bool,
}

impl Page {
    fn new(id: &str, stream: LogStream, encoding: Encoding, since: u64, last_sequence: u64, limit: Option<usize>) -> Self {
        let (id, stream) = (serde_json::json!(id), encode::stream_word(stream));
        let out = format!("{{\"processId\":{id},\"stream\":\"{stream}\",\"entries\":[").into_bytes();
        let limit = limit.unwrap_or(usize::MAX);
        Self {
            encoding,
            last_sequence,
            limit,
            entries: 0,
            gaps: Vec::new(),
            passed: since,
            since,
            has_more: false,
            out,
            is_done: false,
        }
    }

    fn take(&mut self, item: &LogItem) -> Taken {
        let first = match item {
            LogItem::Entry(entry) => entry.sequence,
            LogItem::Gap { from_sequence, .. } => *from_sequence,
        };
        if first > self.last_sequence {
            return Taken::Full;
        }
        if self.entries == self.limit {
            self.has_more = true;
            return Taken::Full;
        }
        match item {
            LogItem::Entry(entry) => {
                if self.entries > 0 {
                    self.out.push(b',');
                }
                self.entries += 1;
                self.passed = entry.sequence;
                encode::entry(&mut self.out, entry, self.encoding);
            }
            LogItem::Gap { from_sequence, to_sequence, bytes, reason } => {
                self.passed = *to_sequence;
                self.gaps.push(LogGap { from_sequence: *from_sequence, to_sequence: *to_sequence, bytes: *bytes, reason });
            }
        }
        Taken::Yes
    }

    fn end(&mut self) {
        self.is_done = true;
        let next = if self.has_more { self.passed } else { self.passed.max(self.last_sequence).max(self.since) };
        self.out.push(b']');
        if !self.gaps.is_empty() {
            self.out.extend_from_slice(b",\"gaps\":");
            let _ = serde_json::to_writer(&mut self.out, &self.gaps); // writing to a Vec can't fail
        }
        let (last, more) = (self.last_sequence, self.has_more);
        let _ = write!(self.out, ",\"lastSequence\":{last},\"nextSince\":{next},\"hasMore\":{more}}}");
    }
}

/// A page that is read as the socket takes it.
struct PageBody {
    reader: LogReader,
    page: Page,
}

impl PageBody {
    /// The first piece is read before anything is said, so that what is wrong from the start is a problem.
    async fn respond(mut self) -> Result<Response, ApiError> {
        let first = self.next().await?.unwrap_or_default();
        let body = if self.page.is_done {
            Body::from(first)
        } else {
            let rest = futures_util::stream::unfold(self, |mut body| async move {
                let chunk = body.next().await.transpose()?;
                if let Err(error) = &chunk {
                    tracing::warn!(%error, "a log's page is cut off");
                    body.page.is_done = true;
                }
                Some((chunk, body))
            });
            let first = futures_util::stream::once(std::future::ready(Ok::<_, Error>(first)));
            Body::from_stream(futures_util::StreamExt::chain(first, rest))
        };
        Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        while !self.page.is_done && self.page.out.len() < PAGE_CHUNK_BYTES {
            let items = self.reader.read(PAGE_CHUNK_BYTES).await?;
            let is_full = items.iter().any(|item| self.page.take(item) == Taken::Full);
            if items.is_empty() || is_full {
                self.page.end();
            }
        }
        let out = std::mem::take(&mut self.page.out);
        Ok((!out.is_empty()).then(|| out.into()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::processes::LogEntry;

    fn piece(sequence: u64) -> LogItem {
        let data = Bytes::from(format!("line {sequence}\n"));
        LogItem::Entry(LogEntry { sequence, stream: LogStream::Stdout, timestamp_ms: 5, offset: 10 * (sequence - 1), data })
    }

    fn gap(from_sequence: u64, to_sequence: u64) -> LogItem {
        LogItem::Gap { from_sequence, to_sequence, bytes: 9, reason: "truncated" }
    }

    fn page(items: &[LogItem], since: u64, last: u64, limit: Option<usize>) -> Value {
        let mut page = Page::new("proc_1", LogStream::Combined, Encoding::Utf8, since, last, limit);
        let _ = items.iter().any(|item| page.take(item) == Taken::Full);
        page.end();
        serde_json::from_slice(&page.out).expect("JSON")
    }

    fn shape(page: &Value) -> (Vec<u64>, bool, u64, bool) {
        let entries = page["entries"].as_array().expect("entries").iter();
        let sequences = entries.map(|entry| entry["sequence"].as_u64().expect("a number")).collect();
        (sequences, page["gaps"].is_array(), page["nextSince"].as_u64().expect("a cursor"), page["hasMore"] == true)
    }

    #[test]
    fn a_page_is_what_is_described() {
        let entry = |sequence: u64| LogEntryInfo {
            sequence,
            stream: LogStream::Stdout,
            timestamp_ms: 5,
            data: format!("line {sequence}\n"),
            encoding: Encoding::Utf8,
            offset: 10 * (sequence - 1),
        };
        let described = LogPage {
            process_id: "proc_1".into(),
            stream: LogStream::Combined,
            entries: vec![entry(4), entry(5)],
            gaps: vec![LogGap { from_sequence: 1, to_sequence: 3, bytes: 9, reason: "truncated" }],
            last_sequence: 5,
            next_since: 5,
            has_more: false,
        };
        assert_eq!(page(&[gap(1, 3), piece(4), piece(5)], 0, 5, None), json!(described));
        let empty = LogPage { entries: vec![], gaps: vec![], last_sequence: 0, next_since: 0, ..described };
        assert_eq!(page(&[], 0, 0, None), json!(empty));
    }

    #[test]
    fn a_limit_cuts_and_leaves_a_cursor() {
        let items = [gap(1, 2), piece(3), piece(5), piece(6)];
        assert_eq!(shape(&page(&items, 0, 8, Some(2))), (vec![3, 5], true, 5, true));
        assert_eq!(shape(&page(&items[..3], 0, 8, Some(2))), (vec![3, 5], true, 8, false), "what follows is of other streams");
        assert_eq!(shape(&page(&items, 0, 8, Some(3))), (vec![3, 5, 6], true, 8, false));
        assert_eq!(shape(&page(&[], 9, 8, Some(3))), (vec![], false, 9, false), "a cursor never goes back");
    }

    #[test]
    fn a_page_ends_where_the_log_ended_when_it_was_asked_for() {
        let items = [piece(3), piece(4), piece(5)];
        assert_eq!(shape(&page(&items, 0, 4, None)), (vec![3, 4], false, 4, false));
        assert_eq!(shape(&page(&items, 0, 4, Some(2))), (vec![3, 4], false, 4, false));
    }
}
