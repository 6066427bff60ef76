//! What changes below a server's root, by whoever: the server hears of it as it asked to, and gets the new text of what it has open.

use std::path::{Path, PathBuf};

use globset::{Glob, GlobSet, GlobSetBuilder};
use language_client::{Client, path_of, uri_of};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::Inner;
use super::manifest::Manifest;
use super::server::Open;
use crate::fs::{Located, Watch, WatchSpec};
use crate::store::{Item, Newest};

/// What is told at once in one read of a watch.
const READ_EVENTS: usize = 64;
const READ_BYTES: usize = 256 * 1024;
/// Patterns that a server may register.
const PATTERNS_MAX: usize = 256;

/// LSP 3.17, `FileChangeType`.
const CREATED: u8 = 1;
const CHANGED: u8 = 2;
const DELETED: u8 = 3;

/// A watch of a root, as long as this is there.
pub(super) struct Watching {
    root: PathBuf,
    watch: Watch,
    newest: watch::Receiver<Newest>,
    at: u64,
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum Told {
    #[serde(rename = "fs.changed")]
    Changed { changes: Vec<Change> },
    #[serde(other)]
    Else,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Change {
    #[serde(rename = "type")]
    what: String,
    absolute_path: PathBuf,
    #[serde(default)]
    from: Option<PathBuf>,
}

impl Watching {
    /// `None` where that can't be watched: files are looked at when they are asked about, then.
    pub(super) async fn start(inner: &Inner, root: &Path) -> Option<Self> {
        let spec = WatchSpec { recursive: true, ignore: Vec::new(), gitignore: true, hidden: true, git: false };
        match inner.fs.watch(inner.fs.reach(), Located::from(root.to_owned()), spec).await {
            Ok(watch) => {
                let (newest, at) = (watch.stream.watch(), watch.ready.sequence);
                Some(Self { root: root.to_owned(), watch, newest, at })
            }
            Err(error) => {
                tracing::warn!(%error, root = %root.display(), "a language server isn't told of changes below its root");
                None
            }
        }
    }

    /// The next changes; never where there is no watch. Cancel safe.
    pub(super) async fn next(watching: &mut Option<Self>) -> Changes {
        let Some(this) = watching else { return std::future::pending().await };
        let items = loop {
            let items = this.watch.stream.read_after(this.at, READ_EVENTS, READ_BYTES).await.unwrap_or_default();
            if !items.is_empty() {
                break items;
            }
            if this.newest.changed().await.is_err() {
                return std::future::pending().await; // the store ends
            }
        };
        let (mut changes, mut all_anew) = (Vec::new(), false);
        for item in &items {
            this.at = item.end();
            match item {
                Item::Event(event) => match serde_json::from_slice(&event.payload) {
                    Ok(Told::Changed { changes: more }) => changes.extend(more),
                    _ => all_anew = true, // some may have been missed
                },
                Item::Gap { .. } => all_anew = true,
            }
        }
        Changes { root: this.root.clone(), changes, all_anew }
    }
}

/// What changed.
pub(super) struct Changes {
    root: PathBuf,
    changes: Vec<Change>,
    /// More may have.
    all_anew: bool,
}

impl Changes {
    /// The server hears of it.
    pub(super) async fn tell(&self, client: &Client, open: &Open) {
        self.notify(client).await;
        let is_of = |path: &Path| self.all_anew || self.changes.iter().any(|change| change.is_of(path));
        open.refresh(client, is_of).await;
    }

    /// Files that are there now and are of a language of the server, with that.
    pub(super) fn files(&self, manifest: &Manifest) -> Vec<(PathBuf, String)> {
        let is_there = |change: &&Change| matches!(change.what.as_str(), "create" | "change" | "rename");
        let language = |path: &Path| manifest.language_of(path.file_name()?.to_str()?).map(str::to_owned);
        let paths = self.changes.iter().filter(is_there).map(|change| change.absolute_path.clone());
        paths.filter_map(|path| language(&path).map(|language| (path, language))).collect()
    }

    async fn notify(&self, client: &Client) {
        let Some(patterns) = Patterns::of(client, &self.root) else { return };
        let events: Vec<Value> = self
            .changes
            .iter()
            .flat_map(|change| change.events(&self.root))
            .filter_map(|(path, kind)| patterns.fits(&path).then(|| json!({"uri": uri_of(&path), "type": kind})))
            .collect();
        if !events.is_empty() {
            let _ = client.notify("workspace/didChangeWatchedFiles", &json!({"changes": events})).await; // it is gone
        }
    }
}

impl Change {
    fn is_of(&self, path: &Path) -> bool {
        path == self.absolute_path
            || path.starts_with(&self.absolute_path)
            || self.from.as_ref().is_some_and(|from| path.ends_with(from))
    }

    /// A move is two.
    fn events(&self, root: &Path) -> Vec<(PathBuf, u8)> {
        let path = self.absolute_path.clone();
        match (self.what.as_str(), &self.from) {
            ("rename", Some(from)) => vec![(root.join(from), DELETED), (path, CREATED)],
            ("create", _) => vec![(path, CREATED)],
            ("delete", _) => vec![(path, DELETED)],
            _ => vec![(path, CHANGED)],
        }
    }
}

/// What a server wants to hear of (LSP 3.17, `DidChangeWatchedFilesRegistrationOptions`).
struct Patterns {
    /// Of whole paths.
    set: GlobSet,
}

impl Patterns {
    fn of(client: &Client, root: &Path) -> Option<Self> {
        let registered = client.registered();
        let options =
            registered.iter().filter(|(method, _)| method == "workspace/didChangeWatchedFiles").map(|(_, options)| options);
        let watchers = options.flat_map(|options| options["watchers"].as_array().into_iter().flatten());
        let mut set = GlobSetBuilder::new();
        let mut count = 0;
        for watcher in watchers.take(PATTERNS_MAX) {
            let pattern = &watcher["globPattern"];
            let (base, text) = match (pattern.as_str(), pattern["pattern"].as_str()) {
                (Some(text), _) => (root.to_owned(), text),
                (_, Some(text)) => (base_of(&pattern["baseUri"]).unwrap_or_else(|| root.to_owned()), text),
                _ => continue,
            };
            let whole = if text.starts_with('/') {
                text.to_owned()
            } else {
                format!("{}/{text}", globset::escape(&base.to_string_lossy()))
            };
            if let Ok(glob) = Glob::new(&whole) {
                set.add(glob);
                count += 1;
            }
        }
        (count > 0).then(|| set.build().ok().map(|set| Self { set })).flatten()
    }

    fn fits(&self, path: &Path) -> bool {
        self.set.is_match(path)
    }
}

/// A URI, or a folder with one.
fn base_of(base: &Value) -> Option<PathBuf> {
    path_of(base.as_str().or_else(|| base["uri"].as_str())?)
}
