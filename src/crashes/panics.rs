//! The panic hook: the last panic is kept in memory and in a file, besides what the default hook prints.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::PanicHookInfo;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::types::PanicReport;
use crate::rt::clock::now_ms;
use crate::rt::files::write_atomically;
use crate::rt::redact::Redactor;
use crate::rt::task_name;

/// Of a process, as the hook is.
static NOTES: Mutex<Notes> = Mutex::new(Notes { file: None, redactor: None, text_max_bytes: 16 * 1024, last: None });

struct Notes {
    file: Option<PathBuf>,
    redactor: Option<Redactor>,
    text_max_bytes: usize,
    last: Option<PanicReport>,
}

/// Installs the hook. Once, before there are threads.
pub fn watch() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        default(info);
        note(info);
    }));
}

/// Has each panic from now on written into this file, in the place of the one before, without these secrets.
pub(super) fn keep_in(file: PathBuf, redactor: Option<Redactor>, text_max_bytes: usize) {
    let mut notes = notes();
    (notes.file, notes.redactor, notes.text_max_bytes) = (Some(file), redactor, text_max_bytes);
}

/// The last one.
pub(super) fn last() -> Option<PanicReport> {
    notes().last.clone()
}

fn notes() -> MutexGuard<'static, Notes> {
    NOTES.lock().unwrap_or_else(PoisonError::into_inner) // whole after each change
}

/// Takes no lock but its own, which nobody holds while anything of ours can panic: a second panic in here ends the process.
fn note(info: &PanicHookInfo<'_>) {
    let backtrace = Backtrace::capture(); // takes its time only when it was asked for
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    let place = info.location().map(|place| format!("{}:{}:{}", place.file(), place.line(), place.column()));
    let message = info.payload_as_str().unwrap_or("a value that is no text").to_owned();
    let mut notes = notes();
    let clean = |mut text: String| {
        if let Some(redactor) = &notes.redactor {
            redactor.clean_text(&mut text);
        }
        text.truncate(text.floor_char_boundary(notes.text_max_bytes));
        text
    };
    let report = PanicReport {
        at_ms: now_ms(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        message: clean(message),
        place: place.unwrap_or_default(),
        thread: std::thread::current().name().unwrap_or("unnamed").to_owned(),
        task: task_name().map(str::to_owned),
        backtrace: backtrace.map(clean),
        count: notes.last.as_ref().map_or(0, |last| last.count) + 1,
    };
    if let Some(file) = &notes.file {
        let text = serde_json::to_vec_pretty(&report).unwrap_or_default();
        let _ = write_atomically(file, &text, 0o600); // the default hook has told it
    }
    notes.last = Some(report);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rt::spawn_owned;

    /// One test: there is one hook for the whole process.
    #[tokio::test]
    async fn the_last_panic_is_kept_with_its_task_and_without_secrets() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("panic.json");
        keep_in(file.clone(), Redactor::new(["s3cr3t-word"]), 40);
        watch();
        let before = last().map_or(0, |last| last.count);
        let task = spawn_owned("unlucky", async { panic!("no {} for s3cr3t-word, however long it is", "luck") });
        assert!(task.await.is_err());
        let kept: PanicReport = serde_json::from_str(&std::fs::read_to_string(&file).expect("a file")).expect("a report");
        assert_eq!(kept.message, "no luck for [redacted], however long it ");
        assert_eq!(kept.task.as_deref(), Some("unlucky"));
        assert!(kept.place.starts_with("src/crashes/panics.rs:"), "{kept:?}");
        assert!(kept.count > before && last().is_some());
    }
}
