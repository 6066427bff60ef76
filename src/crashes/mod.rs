//! Crash reports: how servers ended that did not want to, and what panicked.
//!
//! ```text
//! a task panics ──hook──▶ <data>/crash/panic-<port>.json     the last panic of this server, which goes on
//! the server dies ──keeper──▶ the next start ──▶ <data>/crash/crash_….json, with that panic in it
//! ```
//!
//! Reports are files, not rows: they have to be written and read when the database can't be. They hold no known secret.

mod panics;
mod types;

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

pub use panics::watch;
pub use types::{CrashReport, Ending, PanicReport};

use crate::config::{Bounds, as_usize};
use crate::keeper::{Keeper, LastRun};
use crate::rt::clock::now_ms;
use crate::rt::files::{read_bounded, write_atomically};
use crate::rt::ids::new_id;
use crate::rt::redact::Redactor;

/// Beyond the texts, a report has room for names and numbers, and for what escapes add.
const REPORT_MAX_BYTES: u64 = 1024 * 1024;

/// How much of a dead server's stderr the keeper has at most.
const TAIL_MAX_BYTES: usize = 4096;

/// Takes known secrets out of JSON.
pub type Redact = Arc<dyn Fn(String) -> String + Send + Sync>;

/// A cheap handle on the reports of one data directory.
#[derive(Clone)]
pub struct Crashes {
    inner: Arc<Inner>,
}

struct Inner {
    panics: PathBuf,
    text_max_bytes: usize,
    redact: Redact,
    /// Newest first.
    reports: Vec<CrashReport>,
}

impl Crashes {
    /// Reads what there is, and adds a report when a server has died since. `port` is the one that is listened on: it tells
    /// apart the servers of one home. Blocks for some small files; never fails, since nothing must keep a server from
    /// starting because another one has died.
    pub fn open(data: &Path, port: u16, bounds: &Bounds, keeper: &Keeper, redact: Redact) -> Self {
        let folder = data.join("crash");
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        if let Err(error) = made {
            tracing::warn!(%error, folder = %folder.display(), "crash reports can't be kept");
        }
        let max = as_usize(bounds.crash_reports_max);
        let mut reports = read_all(&folder, max);
        let panics = folder.join(format!("panic-{port}.json"));
        if let Some(report) = new_report(keeper, &panics, &reports) {
            let report = clean(&report, &redact).unwrap_or(report);
            tracing::error!(id = report.id, why = %report.in_words(), "the server before this one ended unexpectedly");
            write(&folder, &report);
            reports.insert(0, report);
            reports.truncate(max);
        }
        let _ = std::fs::remove_file(&panics); // it is in the report, or there is none
        prune(&folder, max);
        let text_max_bytes = as_usize(bounds.crash_text_max_bytes);
        Self { inner: Arc::new(Inner { panics, text_max_bytes, redact, reports }) }
    }

    /// Has each panic of this process written from now on, in the place of the one before, without these secrets.
    pub fn keep_panics(&self, redactor: Option<Redactor>) {
        panics::keep_in(self.inner.panics.clone(), redactor, self.inner.text_max_bytes);
    }

    /// The reports, newest first; at most `crash_reports_max`.
    pub fn list(&self) -> Vec<CrashReport> {
        let clean = |report: &CrashReport| clean(report, &self.inner.redact).unwrap_or_else(|| report.clone());
        self.inner.reports.iter().map(clean).collect()
    }

    /// The last panic of this very server.
    pub fn last_panic(&self) -> Option<PanicReport> {
        let last = panics::last()?;
        Some(clean(&last, &self.inner.redact).unwrap_or(last))
    }
}

/// What is to be told of the server before this one, if it ended unexpectedly and that wasn't told yet.
fn new_report(keeper: &Keeper, panics: &Path, known: &[CrashReport]) -> Option<CrashReport> {
    let panic = read_bounded(panics, REPORT_MAX_BYTES).ok().and_then(|text| serde_json::from_str(&text).ok());
    let run_id = keeper.run_id().map(str::to_owned);
    let is_known =
        |last: &LastRun| known.iter().any(|report| report.run_id == run_id && report.pid == last.pid && last.pid.is_some());
    let last = keeper.last().filter(|last| !is_known(last));
    if last.is_none() && panic.is_none() {
        return None;
    }
    Some(CrashReport {
        id: new_id("crash"),
        at_ms: now_ms(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        run_id,
        pid: last.and_then(|last| last.pid),
        ended: last.map(|last| last.ended.into()),
        uptime_ms: last.map(|last| last.uptime_ms),
        is_upgrade: last.is_some_and(|last| last.is_upgrade),
        stderr: last.map(|last| whole_lines(&last.stderr).to_owned()),
        panic,
    })
}

/// What was cut off at its beginning may begin within a secret, which nobody would know any more.
fn whole_lines(tail: &str) -> &str {
    if tail.len() < TAIL_MAX_BYTES {
        return tail;
    }
    tail.split_once('\n').map_or("", |(_, rest)| rest)
}

fn clean<T: serde::Serialize + serde::de::DeserializeOwned>(report: &T, redact: &Redact) -> Option<T> {
    serde_json::from_str(&redact(serde_json::to_string(report).ok()?)).ok()
}

fn write(folder: &Path, report: &CrashReport) {
    let path = folder.join(format!("{}.json", report.id));
    let text = serde_json::to_vec_pretty(report).unwrap_or_default();
    if let Err(error) = write_atomically(&path, &text, 0o600) {
        tracing::warn!(%error, path = %path.display(), "a crash report can't be kept");
    }
}

/// Names of reports sort by time.
fn read_all(folder: &Path, max: usize) -> Vec<CrashReport> {
    let mut paths: Vec<PathBuf> = files(folder).filter(|path| name(path).starts_with("crash_")).collect();
    paths.sort_unstable();
    let texts = paths.iter().rev().take(max).filter_map(|path| read_bounded(path, REPORT_MAX_BYTES).ok());
    texts.filter_map(|text| serde_json::from_str(&text).ok()).collect()
}

/// Those written last stay, panics of servers on other ports among them.
fn prune(folder: &Path, max: usize) {
    let written = |path: &PathBuf| path.metadata().and_then(|metadata| metadata.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    let mut paths: Vec<(SystemTime, PathBuf)> = files(folder).map(|path| (written(&path), path)).collect();
    paths.sort_unstable();
    let extra = paths.len().saturating_sub(max);
    paths.into_iter().take(extra).for_each(|(_, path)| _ = std::fs::remove_file(path)); // next time, then
}

fn files(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| path.extension().is_some_and(|extension| extension == "json"))
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(data: &Path, max: u64) -> Crashes {
        let bounds = Bounds { crash_reports_max: max, ..Bounds::default() };
        let redact: Redact = Arc::new(|json| json.replace("s3cr3t-word", "[redacted]"));
        Crashes::open(data, 2468, &bounds, &Keeper::none(), redact)
    }

    fn panicked(data: &Path, message: &str) {
        let panic = PanicReport { message: message.to_owned(), count: 1, ..PanicReport::default() };
        let text = serde_json::to_string(&panic).expect("JSON");
        std::fs::create_dir_all(data.join("crash")).expect("a folder");
        std::fs::write(data.join("crash/panic-2468.json"), text).expect("written");
    }

    #[test]
    fn a_panic_of_the_run_before_is_told_once_and_without_secrets() {
        let data = tempfile::tempdir().expect("a folder");
        panicked(data.path(), "it knew s3cr3t-word");
        let reports = open(data.path(), 20).list();
        assert_eq!(reports.len(), 1);
        assert_eq!(reports[0].panic.as_ref().map(|panic| panic.message.as_str()), Some("it knew [redacted]"));
        assert_eq!(open(data.path(), 20).list(), reports, "and it stays");
        let folder = data.path().join("crash");
        let mut kept = files(&folder).map(|path| std::fs::read_to_string(path).expect("text"));
        assert!(kept.all(|text| !text.contains("s3cr3t-word")));
    }

    #[test]
    fn only_so_many_are_kept() {
        let data = tempfile::tempdir().expect("a folder");
        for number in 0..5 {
            panicked(data.path(), &number.to_string());
            open(data.path(), 3);
        }
        let reports = open(data.path(), 3).list();
        let messages: Vec<_> = reports.iter().filter_map(|report| Some(report.panic.as_ref()?.message.as_str())).collect();
        assert_eq!(messages, ["4", "3", "2"]);
        assert_eq!(files(&data.path().join("crash")).count(), 3);
    }

    #[test]
    fn what_is_no_report_is_left_out() {
        let data = tempfile::tempdir().expect("a folder");
        std::fs::create_dir_all(data.path().join("crash/crash_2.json")).expect("a folder");
        std::fs::write(data.path().join("crash/crash_1.json"), "{").expect("written");
        assert_eq!(open(data.path(), 3).list(), Vec::new());
        std::fs::write(data.path().join("file"), "").expect("written");
        assert_eq!(open(&data.path().join("file"), 3).list(), Vec::new(), "no folder can be made");
    }

    #[test]
    fn a_tail_begins_with_a_whole_line() {
        assert_eq!(whole_lines("cut\nall"), "cut\nall");
        let long = format!("cut\n{}", "x".repeat(TAIL_MAX_BYTES));
        assert_eq!(whole_lines(&long).len(), TAIL_MAX_BYTES);
        assert_eq!(whole_lines(&"x".repeat(TAIL_MAX_BYTES)), "");
    }
}
