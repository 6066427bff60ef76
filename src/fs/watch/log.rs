//! Changes as events of the log: many in one, for a checkout changes thousands of files at once.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Serialize;
use serde_json::{Value, json};

use super::tell::Change;
use super::tree::Way;
use crate::rt::clock::now_ms;
use crate::store::{Store, Stream};

/// While the disk is behind, the log is asked so often whether it takes more.
const ROOM_PAUSE: Duration = Duration::from_millis(2);

/// Where the changes of one tree are told.
pub(super) struct Log {
    pub(super) store: Store,
    pub(super) stream: Arc<Stream>,
    /// Of the root, as clients wrote it.
    pub(super) root: String,
    pub(super) changes_max: usize,
}

/// A change on the wire.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    #[serde(rename = "type")]
    what: &'static str,
    #[serde(flatten)]
    path: PathShown,
    absolute_path: String,
    kind: &'static str,
    #[serde(flatten)]
    rename: Option<Rename>,
}

#[derive(Serialize)]
struct PathShown {
    path: String,
    #[serde(rename = "pathBase64", skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Rename {
    from: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    from_base64: Option<String>,
    to: String,
}

fn bytes(path: &Path) -> Option<String> {
    path.to_str().is_none().then(|| BASE64_STANDARD.encode(path.as_os_str().as_bytes()))
}

impl Log {
    /// Changes in order, as events `fs.changed`; those that were found by looking at everything again name that `scan`.
    pub(super) fn changed(&self, changes: &[Change], scan: Option<u64>) {
        for changes in changes.chunks(self.changes_max) {
            let shown: Vec<_> = changes.iter().map(|change| self.shown(change)).collect();
            let mut event = json!({"type": "fs.changed", "time": now_ms(), "root": self.root});
            if let Some(scan) = scan {
                event["scan"] = scan.into();
            }
            event["changes"] = serde_json::to_value(shown).unwrap_or_default(); // strings: can't fail
            self.append("fs.changed", &event);
        }
        self.store.flush();
    }

    fn shown(&self, change: &Change) -> Shown {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let separator = if self.root.ends_with('/') { "" } else { "/" };
        let path = text(&change.path);
        let rename = change.from.as_deref().map(|from| Rename { from: text(from), from_base64: bytes(from), to: path.clone() });
        Shown {
            what: change.what.as_str(),
            absolute_path: format!("{}{separator}{path}", self.root),
            path: PathShown { path, base64: bytes(&change.path) },
            kind: change.kind.as_str(),
            rename,
        }
    }

    /// Clients can't rely on having been told of every change: why, and what follows. Waits until that is in the stream.
    pub(super) fn resync(&self, reason: &'static str, way: Way, scan: u64, differences: Option<usize>) {
        let mut event = json!({"type": "fs.resync", "time": now_ms(), "root": self.root, "reason": reason, "scan": scan});
        event["mode"] = way.means().mode.into();
        if let Some(differences) = differences {
            event["differences"] = differences.into();
        }
        let told = self.store.append_acked(&self.stream, "fs.resync", event.to_string().into(), None);
        self.store.flush();
        let _ = told.blocking_recv(); // an error is the end of the store
    }

    fn append(&self, kind: &'static str, event: &Value) {
        while !self.store.has_room() {
            std::thread::sleep(ROOM_PAUSE); // the queue of the kernel's events fills meanwhile, and has its bound
        }
        self.store.append(&self.stream, kind, event.to_string().into(), None);
    }
}
