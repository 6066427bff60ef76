//! Sends ended spans to a collector (OTLP/HTTP, JSON). What sends never holds up what happens: spans wait in a bounded queue,
//! and those that find it full are dropped, counted and said.

mod client;
mod encode;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use crate::config::{Bounds, Env, Otlp, as_duration, as_usize};
use crate::rt::spawn_owned;
use crate::store::SpanRow;
use client::{Client, Sent};

/// Spans of one request.
const BATCH_MAX: usize = 256;
/// How long spans wait for company.
const GATHER: Duration = Duration::from_secs(1);
/// The first pause after the collector could not take them; each doubles it.
const RETRY_MIN: Duration = Duration::from_secs(1);
/// The longest pause.
const RETRY_MAX: Duration = Duration::from_secs(30);
/// What a batch is tried for; then it is dropped.
const TRIES_MAX: u32 = 6;

/// What became of spans that were to be sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExportStatus {
    /// The collector, without what may be secret in its URL.
    pub endpoint: String,
    /// Spans that it took.
    pub exported: u64,
    /// Spans that were dropped: the queue was full, the collector refused them, or was away for too long.
    pub dropped: u64,
}

#[derive(Default)]
struct Counts {
    exported: AtomicU64,
    dropped: AtomicU64,
}

/// The way to the task `otlp`.
pub(super) struct Exporter {
    queue: mpsc::Sender<SpanRow>,
    counts: Arc<Counts>,
    endpoint: String,
    stop: CancellationToken,
    flush: Duration,
    task: std::sync::Mutex<Option<JoinHandle<()>>>,
}

impl Exporter {
    /// Starts the task; `None`, said in the log, when the settings can't be used.
    pub(super) fn start(settings: Otlp, env: &Env, bounds: &Bounds) -> Option<Self> {
        if let Some(why) = settings.refused {
            tracing::error!(why, "spans are not exported");
            return None;
        }
        let client = match Client::new(&settings, env) {
            Ok(client) => client,
            Err(why) => {
                tracing::error!(why, "spans are not exported");
                return None;
            }
        };
        let endpoint = client.shown();
        tracing::info!(endpoint, "spans are exported");
        let (queue, waiting) = mpsc::channel(as_usize(bounds.otlp_queue_max_spans));
        let (counts, stop) = (Arc::new(Counts::default()), CancellationToken::new());
        let sender = Sender { client, resource: settings.resource, waiting, counts: Arc::clone(&counts), stop: stop.clone() };
        let task = std::sync::Mutex::new(Some(spawn_owned("otlp", sender.run())));
        Some(Self { queue, counts, endpoint, stop, flush: as_duration(bounds.otlp_flush_ms), task })
    }

    /// Never waits.
    pub(super) fn send(&self, row: &SpanRow) {
        if self.queue.try_send(row.clone()).is_err() {
            self.counts.lose(1, "the queue is full");
        }
    }

    pub(super) fn status(&self) -> ExportStatus {
        ExportStatus {
            endpoint: self.endpoint.clone(),
            exported: self.counts.exported.load(Ordering::Relaxed),
            dropped: self.counts.dropped.load(Ordering::Relaxed),
        }
    }

    /// Sends what waits, without a second try, for `otlp_flush_ms` at most.
    pub(super) async fn flush(&self) {
        self.stop.cancel();
        let task = self.task.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        let Some(mut task) = task else { return };
        if tokio::time::timeout(self.flush, &mut task).await.is_err() {
            task.abort();
            tracing::warn!("the collector was too slow for the last spans");
        }
    }
}

impl Counts {
    fn lose(&self, spans: u64, why: &str) {
        let before = self.dropped.fetch_add(spans, Ordering::Relaxed);
        // Each first one, and whenever as many again were lost.
        if before == 0 || before.ilog2() != (before + spans).ilog2() {
            tracing::warn!(why, dropped = before + spans, "spans are not exported");
        }
    }
}

/// The task's own.
struct Sender {
    client: Client,
    resource: Vec<(String, String)>,
    waiting: mpsc::Receiver<SpanRow>,
    counts: Arc<Counts>,
    stop: CancellationToken,
}

impl Sender {
    async fn run(mut self) {
        loop {
            let mut batch = Vec::new();
            tokio::select! {
                _ = self.waiting.recv_many(&mut batch, BATCH_MAX) => {}
                () = self.stop.cancelled() => {}
            }
            if !self.stop.is_cancelled() && batch.len() < BATCH_MAX {
                tokio::select! { () = tokio::time::sleep(GATHER) => {}, () = self.stop.cancelled() => {} }
            }
            while batch.len() < BATCH_MAX {
                let Ok(row) = self.waiting.try_recv() else { break };
                batch.push(row);
            }
            if !batch.is_empty() {
                self.deliver(&batch).await;
            } else if self.stop.is_cancelled() {
                return;
            }
        }
    }

    async fn deliver(&self, batch: &[SpanRow]) {
        let (body, spans) = (encode::request(&self.resource, batch), batch.len() as u64);
        let mut pause = RETRY_MIN;
        for attempt in 1..=TRIES_MAX {
            match self.client.post(body.clone()).await {
                Sent::Taken { rejected } => {
                    self.counts.exported.fetch_add(spans.saturating_sub(rejected), Ordering::Relaxed);
                    if rejected > 0 {
                        self.counts.lose(rejected.min(spans), "the collector rejected them");
                    }
                    return;
                }
                Sent::Refused(why) => return self.counts.lose(spans, &why),
                Sent::Later { why, after } => {
                    if attempt == TRIES_MAX || self.stop.is_cancelled() {
                        return self.counts.lose(spans, &why);
                    }
                    tracing::debug!(why, attempt, "the collector could not take spans: it is tried again");
                    tokio::select! {
                        () = tokio::time::sleep(after.unwrap_or(pause).min(RETRY_MAX)) => {}
                        () = self.stop.cancelled() => {} // one last try
                    }
                    pause = (pause * 2).min(RETRY_MAX);
                }
            }
        }
    }
}
