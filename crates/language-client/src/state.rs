//! What a server has told, within bounds.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::Limits;

/// Tokens of progress that are kept.
const PROGRESS_MAX: usize = 64;
/// Registrations of one server.
const REGISTRATIONS_MAX: usize = 256;

/// The latest diagnostics of a file.
#[derive(Debug, Clone)]
pub struct Published {
    /// Of the document that they are for, when the server says.
    pub version: Option<i32>,
    /// Counts everything that was published; a later one is higher.
    pub number: u64,
    /// When.
    pub at: Instant,
    /// LSP's `Diagnostic`, as the server wrote them.
    pub diagnostics: Arc<[Value]>,
    /// How many more there were.
    pub left_out: usize,
}

/// Work that a server tells about (LSP 3.17, `WorkDoneProgress`).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Progress {
    /// What is done.
    pub title: String,
    /// How it goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// 0 to 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percentage: Option<u64>,
}

/// What a server had logged or shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogLine {
    /// `error`, `warning`, `info`, `log` or `debug`.
    pub level: &'static str,
    /// What it said, cut at its bound.
    pub message: String,
}

/// A capability that a server has registered (LSP 3.17, `client/registerCapability`).
#[derive(Debug, Clone)]
pub(crate) struct Registration {
    pub(crate) id: String,
    pub(crate) method: String,
    pub(crate) options: Value,
}

/// Shared by the owner and the handles.
pub(crate) struct State {
    inner: Mutex<Inner>,
    /// Counts whatever changes in it.
    changes: watch::Sender<u64>,
    limits: Limits,
}

#[derive(Default)]
struct Inner {
    published: BTreeMap<String, Published>,
    count: u64,
    /// Files of which other diagnostics were published since somebody looked.
    news: BTreeSet<String>,
    progress: BTreeMap<String, Progress>,
    registrations: Vec<Registration>,
    log: VecDeque<LogLine>,
    /// Servers that pull diagnostics again, how often.
    refreshes: u64,
    gone: Option<String>,
}

impl State {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { inner: Mutex::default(), changes: watch::channel(0).0, limits }
    }

    /// Tells of every change of it.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub(crate) fn publish(&self, uri: String, version: Option<i32>, mut diagnostics: Vec<Value>) {
        let left_out = diagnostics.len().saturating_sub(self.limits.diagnostics_max);
        diagnostics.truncate(self.limits.diagnostics_max);
        self.change(|inner| {
            inner.count += 1;
            let published =
                Published { version, number: inner.count, at: Instant::now(), diagnostics: diagnostics.into(), left_out };
            let before = inner.published.insert(uri.clone(), published);
            let is_other =
                inner.published.get(&uri).map(|now| &now.diagnostics) != before.as_ref().map(|before| &before.diagnostics);
            let is_empty_first = before.is_none() && inner.published.get(&uri).is_some_and(|now| now.diagnostics.is_empty());
            if is_other && !is_empty_first {
                inner.news.insert(uri);
            }
            if inner.published.len() > self.limits.files_max {
                let oldest = inner.published.iter().min_by_key(|(_, published)| published.number).map(|(uri, _)| uri.clone());
                oldest.into_iter().for_each(|uri| _ = inner.published.remove(&uri));
            }
        });
    }

    pub(crate) fn published(&self, uri: &str) -> Option<Published> {
        self.inner().published.get(uri).cloned()
    }

    pub(crate) fn all_published(&self) -> Vec<(String, Published)> {
        self.inner().published.iter().map(|(uri, published)| (uri.clone(), published.clone())).collect()
    }

    /// How much was published so far.
    pub(crate) fn count(&self) -> u64 {
        self.inner().count
    }

    pub(crate) fn take_news(&self) -> Vec<String> {
        std::mem::take(&mut self.inner().news).into_iter().collect()
    }

    pub(crate) fn progressed(&self, token: String, progress: Option<Progress>) {
        self.change(|inner| match progress {
            Some(progress) if inner.progress.len() < PROGRESS_MAX || inner.progress.contains_key(&token) => {
                inner.progress.insert(token, progress);
            }
            Some(_) => {}
            None => _ = inner.progress.remove(&token),
        });
    }

    pub(crate) fn progress_of(&self, token: &str) -> Option<Progress> {
        self.inner().progress.get(token).cloned()
    }

    pub(crate) fn progress(&self) -> Vec<Progress> {
        self.inner().progress.values().cloned().collect()
    }

    pub(crate) fn register(&self, registration: Registration) {
        self.change(|inner| {
            inner.registrations.retain(|known| known.id != registration.id);
            if inner.registrations.len() < REGISTRATIONS_MAX {
                inner.registrations.push(registration);
            }
        });
    }

    pub(crate) fn unregister(&self, id: &str) {
        self.change(|inner| inner.registrations.retain(|known| known.id != id));
    }

    pub(crate) fn registrations(&self) -> Vec<Registration> {
        self.inner().registrations.clone()
    }

    pub(crate) fn log(&self, level: &'static str, mut message: String) {
        let mut end = message.len().min(self.limits.log_line_max_bytes);
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        message.truncate(end);
        self.change(|inner| {
            inner.log.push_back(LogLine { level, message });
            while inner.log.len() > self.limits.log_max_lines {
                inner.log.pop_front();
            }
        });
    }

    pub(crate) fn log_lines(&self) -> Vec<LogLine> {
        self.inner().log.iter().cloned().collect()
    }

    pub(crate) fn refresh(&self) {
        self.change(|inner| inner.refreshes += 1);
    }

    pub(crate) fn refreshes(&self) -> u64 {
        self.inner().refreshes
    }

    pub(crate) fn end(&self, why: &str) {
        self.change(|inner| _ = inner.gone.get_or_insert_with(|| why.to_owned()));
    }

    pub(crate) fn gone(&self) -> Option<String> {
        self.inner().gone.clone()
    }

    fn change(&self, change: impl FnOnce(&mut Inner)) {
        change(&mut self.inner());
        self.changes.send_modify(|count| *count += 1);
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner) // whole after each change
    }
}
