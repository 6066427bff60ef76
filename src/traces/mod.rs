//! What took how long: spans of turns, tool calls, waits for decisions and processes.
//!
//! Whoever sees a session's facts in order keeps a [`spans::SpanBook`], writes its rows with the events of the same facts, and
//! tells of each row by [`Traces::ended`]. Spans of processes are made here, from the events of their stream, by the task
//! `process-spans`. Task `otlp` sends what has ended to a collector, when one is named.

mod error;
pub mod ids;
mod otlp;
mod processes;
pub mod spans;
pub mod views;

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use error::Error;
pub use otlp::ExportStatus;
pub use spans::{RequestSeen, SpanBook, ToolPhase, ToolSeen, TurnEnded, TurnSeen, UsageSeen};

use crate::config::{Bounds, Config, as_usize};
use crate::rt::spawn_owned;
use crate::store::{RowChange, SpanRow, Store, TraceFilter};
use otlp::Exporter;
use views::{SpanInfo, Timeline, ToolStats, Trace, TraceList, TraceSummary};

/// Old spans are looked for once in so many new ones.
const TRIM_EVERY: u64 = 1000;

/// A cheap handle on the room.
#[derive(Clone)]
pub struct Traces {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    bounds: Bounds,
    ended: AtomicU64,
    stop: CancellationToken,
    follower: Mutex<Option<JoinHandle<()>>>,
    exporter: Option<Exporter>,
    left: Mutex<Left>,
}

/// What an earlier run left.
struct Left {
    /// Spans that had not ended, and their sessions.
    open: Vec<(String, Option<String>)>,
    /// When it last wrote something.
    heard_at_ms: Option<i64>,
}

impl Traces {
    /// Looks what an earlier run left open, for [`Traces::lose_left`], and begins to follow the processes. Must be called
    /// before anything else writes spans.
    ///
    /// # Errors
    /// [`Error::Store`] when the file can't be read.
    pub async fn start(store: Store, config: &Config) -> Result<Self, Error> {
        let bounds = config.bounds.clone();
        let exporter = config.otlp.clone().and_then(|otlp| Exporter::start(otlp, &config.env, &bounds));
        let (open, heard_at_ms) = store.open_spans().await?;
        if let Err(error) = store.change(RowChange::TrimSpans { keep: bounds.spans_max }).await {
            tracing::warn!(%error, "old spans stay for now"); // a full disk is no reason not to start
        }
        let stop = CancellationToken::new();
        let (ended, follower) = (AtomicU64::new(0), Mutex::default());
        let left = Mutex::new(Left { open, heard_at_ms });
        let inner = Inner { store, bounds, ended, stop: stop.clone(), follower, exporter, left };
        let traces = Self { inner: Arc::new(inner) };
        let follower = processes::Follower::new(traces.clone(), stop).await?;
        let task = spawn_owned("process-spans", follower.run());
        *traces.inner.follower.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
        Ok(traces)
    }

    /// The sessions in which an earlier run left spans open.
    pub fn left_in(&self) -> BTreeSet<String> {
        let left = self.inner.left.lock().unwrap_or_else(PoisonError::into_inner); // each change leaves it whole
        left.open.iter().filter_map(|(_, session)| session.clone()).collect()
    }

    /// Ends as lost what an earlier run left open in sessions that `is_over` names, and outside of sessions when `None` is
    /// such. Whoever goes on with a session has it spared, and names it once its spans go on or have ended.
    pub async fn lose_left(&self, is_over: impl Fn(Option<&str>) -> bool) {
        let (mut lost, at_ms) = {
            let mut left = self.inner.left.lock().unwrap_or_else(PoisonError::into_inner); // each change leaves it whole
            let (lost, open): (Vec<_>, _) =
                std::mem::take(&mut left.open).into_iter().partition(|(_, session)| is_over(session.as_deref()));
            left.open = open;
            (lost.into_iter().map(|(id, _)| id).collect::<Vec<_>>(), left.heard_at_ms)
        };
        if lost.is_empty() {
            return;
        }
        let store = &self.inner.store;
        if let Err(error) = store.change(RowChange::LoseSpans { spans: lost.clone(), at_ms }).await {
            return tracing::warn!(%error, "spans that the last run left open stay so"); // a full disk keeps nobody from working
        }
        if self.inner.exporter.is_some() {
            lost.truncate(as_usize(self.inner.bounds.otlp_queue_max_spans));
            match store.spans(lost).await {
                Ok(spans) => spans.iter().for_each(|span| self.ended(span)),
                Err(error) => tracing::warn!(%error, "spans that were lost are not exported"),
            }
        }
    }

    /// Says that these of the spans that an earlier run left open go on: [`Traces::lose_left`] spares them.
    pub fn go_on(&self, spans: &[String]) {
        let mut left = self.inner.left.lock().unwrap_or_else(PoisonError::into_inner); // as above
        left.open.retain(|(id, _)| !spans.contains(id));
    }

    /// A span's row was written or is about to be. Rows of spans that still run are of no interest. Never waits.
    pub fn ended(&self, row: &SpanRow) {
        if row.ended_at_ms.is_none() {
            return;
        }
        if let Some(exporter) = &self.inner.exporter {
            exporter.send(self.inner.store.clean_span(row)); // what leaves is no more than what is kept
        }
        if self.inner.ended.fetch_add(1, Ordering::Relaxed) % TRIM_EVERY == TRIM_EVERY - 1 {
            let (store, keep) = (self.inner.store.clone(), self.inner.bounds.spans_max);
            spawn_owned("span-trim", async move {
                if let Err(error) = store.change(RowChange::TrimSpans { keep }).await {
                    tracing::debug!(%error, "old spans stay for now");
                }
            });
        }
    }

    /// What became of spans that a collector was to get; `None` when none is named.
    pub fn export_status(&self) -> Option<ExportStatus> {
        self.inner.exporter.as_ref().map(Exporter::status)
    }

    /// Ends the tasks, once all that ends has ended. Idempotent.
    pub async fn shut_down(&self) {
        self.inner.store.settle().await;
        self.inner.stop.cancel();
        let follower = self.inner.follower.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(follower) = follower {
            let _ = follower.await; // a panic is in the log
        }
        if let Some(exporter) = &self.inner.exporter {
            exporter.flush().await;
        }
    }

    /// Traces by their first spans, newest first.
    ///
    /// # Errors
    /// [`Error::Store`] when the file can't be read.
    pub async fn list(&self, filter: TraceFilter, limit: usize) -> Result<TraceList, Error> {
        let mut rows = self.inner.store.traces(filter, limit.saturating_add(1)).await?;
        let has_more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| has_more).map(|row| views::cursor(&row.root));
        Ok(TraceList { traces: rows.into_iter().map(TraceSummary::from).collect(), next })
    }

    /// One trace as a tree.
    ///
    /// # Errors
    /// [`Error::NoTrace`] when nothing is known of it, [`Error::Store`] when the file can't be read.
    pub async fn trace(&self, trace_id: &str) -> Result<Trace, Error> {
        let max = as_usize(self.inner.bounds.trace_spans_max);
        let mut rows = self.inner.store.trace_spans(trace_id, max.saturating_add(1)).await?;
        if rows.is_empty() {
            return Err(Error::NoTrace { id: trace_id.to_owned() });
        }
        let truncated = rows.len() > max;
        rows.truncate(max);
        Ok(Trace { trace_id: trace_id.to_owned(), truncated, spans: views::tree(rows) })
    }

    /// A session's spans in the order in which they began, from behind the one that `after` names.
    ///
    /// # Errors
    /// [`Error::NoSession`] when there is none, [`Error::Store`] when the file can't be read.
    pub async fn timeline(&self, session_id: &str, after: Option<(i64, String)>, limit: usize) -> Result<Timeline, Error> {
        if self.inner.store.session(session_id).await?.is_none() {
            return Err(Error::NoSession { id: session_id.to_owned() });
        }
        let (start, mut rows) = self.inner.store.session_spans(session_id, after, limit.saturating_add(1)).await?;
        let has_more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| has_more).map(views::cursor);
        let started_at_ms = start.unwrap_or(0);
        let mut depths: HashMap<String, u32> = HashMap::new();
        let spans = rows.into_iter().map(|row| {
            let below = |parent: &String| depths.get(parent).map_or(1, |depth| depth + 1); // the parent may be a page before
            let depth = row.parent_span_id.as_ref().map_or(0, below);
            depths.insert(row.span_id.clone(), depth);
            views::TimelineSpan { offset_ms: row.started_at_ms - started_at_ms, depth, span: SpanInfo::from(row) }
        });
        Ok(Timeline { session_id: session_id.to_owned(), started_at_ms: start, spans: spans.collect(), next })
    }

    /// How tools did, the most used first.
    ///
    /// # Errors
    /// [`Error::Store`] when the file can't be read.
    pub async fn tools(&self, session_id: Option<&str>, since_ms: Option<i64>) -> Result<ToolStats, Error> {
        let max = as_usize(self.inner.bounds.stats_tools_max);
        let mut rows = self.inner.store.tool_stats(session_id, since_ms.unwrap_or(i64::MIN), max.saturating_add(1)).await?;
        let truncated = rows.len() > max;
        rows.truncate(max);
        Ok(ToolStats { tools: rows.into_iter().map(views::ToolStat::from).collect(), truncated })
    }
}
