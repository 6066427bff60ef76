//! The store's typed questions about sessions, requests and the whole log. All only read: dropping one's future changes
//! nothing, and each fails with [`Error::Read`] when the file can't be read.

use std::sync::Arc;

use tokio::sync::watch;

use super::log::{self, LogEvent, LogFilter, LogPage, PageLimits};
use super::requests::{self, RequestFilter};
use super::sessions::{self, SessionFilter};
use super::spans::{self, ToolRow, TraceFilter, TraceRow};
use super::stream::Stream;
use super::types::Error;
use super::{RequestRow, RuleRow, SessionRow, SpanRow, Store, TurnRow};

/// Rows of the log that one page looks at, at most.
const PAGE_SCAN_MAX: usize = 20_000;

#[allow(clippy::missing_errors_doc)] // the same for all: see the module
impl Store {
    /// Makes a stream under a name that was never used; nothing waits for the disk.
    pub fn new_stream(&self, name: &str) -> Arc<Stream> {
        self.inner.streams.make(name)
    }

    /// True when a stream of this name was ever made and is still in the file.
    pub async fn has_stream(&self, name: &str) -> Result<bool, Error> {
        let name = name.to_owned();
        let query = move |connection: &rusqlite::Connection| {
            connection
                .prepare_cached("SELECT EXISTS (SELECT 1 FROM streams WHERE name = ?1)")?
                .query_row([name], |row| row.get(0))
        };
        self.inner.readers.run(query).await
    }

    /// Sessions by last change, newest first, `limit` at most.
    pub async fn sessions(&self, filter: SessionFilter, limit: usize) -> Result<Vec<SessionRow>, Error> {
        self.inner.readers.run(move |connection| sessions::page(connection, &filter, limit)).await
    }

    /// One session.
    pub async fn session(&self, id: &str) -> Result<Option<SessionRow>, Error> {
        let id = id.to_owned();
        self.inner.readers.run(move |connection| sessions::by_id(connection, &id)).await
    }

    /// The session that was made under this idempotency key.
    pub async fn session_by_key(&self, key: &str) -> Result<Option<SessionRow>, Error> {
        let key = key.to_owned();
        self.inner.readers.run(move |connection| sessions::by_key(connection, &key)).await
    }

    /// The session that ACP clients know by this id, on this server and of this agent when they are named.
    pub async fn session_by_acp(
        &self,
        server_id: Option<&str>,
        agent: Option<&str>,
        acp_session_id: &str,
    ) -> Result<Option<SessionRow>, Error> {
        let (server_id, agent, id) = (server_id.map(str::to_owned), agent.map(str::to_owned), acp_session_id.to_owned());
        let query = move |connection: &_| sessions::by_acp(connection, server_id.as_deref(), agent.as_deref(), &id);
        self.inner.readers.run(query).await
    }

    /// A session's turns after number `after`, in order, `limit` at most.
    pub async fn turns(&self, session_id: &str, after: u64, limit: usize) -> Result<Vec<TurnRow>, Error> {
        let id = session_id.to_owned();
        self.inner.readers.run(move |connection| sessions::turns(connection, &id, after, limit)).await
    }

    /// Closed sessions that retention no longer keeps: changed before `oldest_ms` (Unix milliseconds), or not among the
    /// `keep` changed last; 100 at most.
    pub async fn sessions_beyond(&self, keep: u64, oldest_ms: i64) -> Result<Vec<String>, Error> {
        self.inner.readers.run(move |connection| sessions::beyond(connection, keep, oldest_ms)).await
    }

    /// One turn.
    pub async fn turn(&self, id: &str) -> Result<Option<TurnRow>, Error> {
        let id = id.to_owned();
        self.inner.readers.run(move |connection| sessions::turn(connection, &id)).await
    }

    /// The turn of a session that was submitted under this idempotency key.
    pub async fn turn_by_key(&self, session_id: &str, key: &str) -> Result<Option<TurnRow>, Error> {
        let (id, key) = (session_id.to_owned(), key.to_owned());
        self.inner.readers.run(move |connection| sessions::turn_by_key(connection, &id, &key)).await
    }

    /// The highest number of a session's turns; 0 when it has none.
    pub async fn last_turn(&self, session_id: &str) -> Result<u64, Error> {
        let id = session_id.to_owned();
        self.inner.readers.run(move |connection| sessions::last_turn(connection, &id)).await
    }

    /// Turns that an earlier run left queued or running, by session and number.
    pub async fn unfinished_turns(&self) -> Result<Vec<TurnRow>, Error> {
        self.inner.readers.run(sessions::unfinished_turns).await
    }

    /// Requests, newest first, `limit` at most.
    pub async fn requests(&self, filter: RequestFilter, limit: usize) -> Result<Vec<RequestRow>, Error> {
        self.inner.readers.run(move |connection| requests::page(connection, &filter, limit)).await
    }

    /// One request.
    pub async fn request(&self, id: &str) -> Result<Option<RequestRow>, Error> {
        let id = id.to_owned();
        self.inner.readers.run(move |connection| requests::by_id(connection, &id)).await
    }

    /// All rules, in the order in which they are tried.
    pub async fn permission_rules(&self) -> Result<Vec<RuleRow>, Error> {
        self.inner.readers.run(requests::rules).await
    }

    /// What follows position `after` of the whole log, without raw ACP envelopes unless their stream is named. A page may
    /// be empty and still have `reached` further.
    pub async fn log_page(&self, after: u64, filter: LogFilter, max_events: usize, max_bytes: usize) -> Result<LogPage, Error> {
        let limits = PageLimits { max_events, max_bytes, max_scanned: PAGE_SCAN_MAX };
        let query = move |connection: &_| log::page(connection, after, &filter, limits);
        self.inner.readers.run(query).await
    }

    /// The events of one stream behind position `after` there, in order, up to about `max_bytes` (at least one when there is
    /// any): with their places in the whole log, and when they were committed.
    pub async fn stream_page(
        &self,
        stream: &str,
        after: u64,
        max_events: usize,
        max_bytes: usize,
    ) -> Result<Vec<LogEvent>, Error> {
        let name = stream.to_owned();
        self.inner.readers.run(move |connection| log::of_stream(connection, &name, after, max_events, max_bytes)).await
    }

    /// Ids of spans that are open and aren't a process's, with their sessions; and when anything was last written to the log,
    /// in Unix milliseconds.
    pub async fn open_spans(&self) -> Result<(Vec<(String, Option<String>)>, Option<i64>), Error> {
        self.inner.readers.run(|connection| Ok((spans::open(connection)?, spans::last_heard(connection)?))).await
    }

    /// The spans with these ids that are there.
    pub async fn spans(&self, ids: Vec<String>) -> Result<Vec<SpanRow>, Error> {
        self.inner.readers.run(move |connection| spans::with_ids(connection, &ids)).await
    }

    /// A trace's spans in the order in which they began, `limit` at most.
    pub async fn trace_spans(&self, trace_id: &str, limit: usize) -> Result<Vec<SpanRow>, Error> {
        let id = trace_id.to_owned();
        self.inner.readers.run(move |connection| spans::of_trace(connection, &id, limit)).await
    }

    /// A session's spans in the order in which they began, behind start and id of another one, `limit` at most; and when
    /// the first of all began.
    pub async fn session_spans(
        &self,
        session_id: &str,
        after: Option<(i64, String)>,
        limit: usize,
    ) -> Result<(Option<i64>, Vec<SpanRow>), Error> {
        let id = session_id.to_owned();
        let query = move |connection: &_| {
            let spans = spans::of_session(connection, &id, after.as_ref(), limit)?;
            Ok((spans::session_start(connection, &id)?, spans))
        };
        self.inner.readers.run(query).await
    }

    /// Traces, newest first, `limit` at most.
    pub async fn traces(&self, filter: TraceFilter, limit: usize) -> Result<Vec<TraceRow>, Error> {
        self.inner.readers.run(move |connection| spans::traces(connection, &filter, limit)).await
    }

    /// How tools did in calls that began at `since_ms` or later, the most used first, `limit` at most.
    pub async fn tool_stats(&self, session_id: Option<&str>, since_ms: i64, limit: usize) -> Result<Vec<ToolRow>, Error> {
        let id = session_id.map(str::to_owned);
        self.inner.readers.run(move |connection| spans::tools(connection, id.as_deref(), since_ms, limit)).await
    }

    /// How far the stream of processes was made into spans.
    pub async fn span_cursor(&self) -> Result<u64, Error> {
        self.inner.readers.run(spans::cursor).await
    }

    /// Follows the last committed position of the whole log.
    pub fn watch_log(&self) -> watch::Receiver<u64> {
        self.inner.log.clone()
    }
}
