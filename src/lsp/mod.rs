//! Language servers: found by the language of a file, started for its root when somebody asks, shared by all who do.
//!
//! ```text
//!  asked about a file ─▶ servers of its language ─▶ root ─▶ server (started, or there already) ─▶ given the file's text ─▶ asked
//! ```
//!
//! | module | what |
//! |---|---|
//! | `manifest`, `registry`, `places` | which servers there are, where they lie, which root is a file's |
//! | `install` | having them |
//! | `server` | **the owner task of a server**: process, restarts, files, idleness |
//! | `watching` | what changes on the disk reaches a server |
//! | `diagnostics`, `telling` | what servers have to say of files, asked and unasked |
//! | `features` | hover, definitions, symbols and all else that is asked about a place |
//! | `applying` | edits that servers propose, worked out and made through the files room |
//! | `texts` | lines and characters |

mod applying;
mod diagnostics;
mod error;
mod features;
mod install;
mod manifest;
mod places;
mod registry;
mod server;
mod telling;
mod texts;
mod types;
mod watching;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::Value;
use serde_json::value::RawValue;

pub use applying::{FileEdit, TextEdit, WorkspaceChange};
pub use diagnostics::{DiagnosticsSpec, FileDiagnostics};
pub use error::Error;
pub use features::{Answer, Asking, Place};
pub use install::Installed;
pub use language_client::Encoding;
pub use manifest::{Language, Manifest, Role};
pub use types::{CatalogueEntry, Diagnostic, Position, Range, ServerInfo, ServerState};

use crate::config::{Bounds, Dirs, Env, as_duration, as_usize};
use crate::fs::Fs;
use crate::processes::Children;
use crate::rt::keyed::Keyed;
use crate::store::{Store, Stream};
use places::{Places, how_to_install, root_of};
use registry::Registry;
use server::Server;

/// Who wants to hear of diagnostics as they come. Must not block.
pub trait Listener: Send + Sync {
    /// A file's diagnostics became others; `event` is `lsp.diagnostics`.
    fn diagnostics(&self, path: &Path, event: &Value);
}

/// What the room needs from outside.
pub struct Parts {
    /// Where installations and users' manifests lie.
    pub dirs: Dirs,
    /// The server's environment.
    pub env: Env,
    /// Every limit.
    pub bounds: Bounds,
    /// Starts servers and installations.
    pub children: Children,
    /// Watches files, and makes edits.
    pub fs: Fs,
    /// Keeps events.
    pub store: Store,
    /// Where they go.
    pub events: Arc<Stream>,
    /// Who hears of diagnostics besides.
    pub listener: Arc<dyn Listener>,
}

/// The handle on the room.
#[derive(Clone)]
pub struct Lsp {
    inner: Arc<Inner>,
}

struct Inner {
    registry: Registry,
    places: Places,
    bounds: Bounds,
    children: Children,
    fs: Fs,
    store: Store,
    events: Arc<Stream>,
    listener: Arc<dyn Listener>,
    servers: Mutex<BTreeMap<String, Arc<Server>>>,
    next_id: AtomicU64,
    /// One installation of a server at a time.
    installing: Keyed,
}

/// A file or directory that is asked about. Who asks may read it: that was looked at before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// It, without links.
    pub path: PathBuf,
    /// Where relative paths of who asks begin: a root is not looked for above it.
    pub base: PathBuf,
}

impl Asked {
    fn name(&self) -> &str {
        self.path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
    }
}

impl Lsp {
    /// Opens the room; nothing is started yet.
    pub fn new(parts: Parts) -> Self {
        let Parts { dirs, env, bounds, children, fs, store, events, listener } = parts;
        let registry = Registry::new(&dirs.config, &bounds);
        let (servers, next_id, installing) = (Mutex::default(), AtomicU64::new(1), Keyed::default());
        let places = Places { dirs, env };
        let inner = Inner { registry, places, bounds, children, fs, store, events, listener, servers, next_id, installing };
        Self { inner: Arc::new(inner) }
    }

    /// The servers that are known, whether they are installed, and manifests that can't be used.
    pub async fn catalogue(&self) -> (Vec<CatalogueEntry>, Vec<Value>) {
        self.blocking(|inner| {
            let roster = inner.registry.roster();
            let entry = |manifest: &Arc<Manifest>| {
                let program = inner.places.program(manifest);
                CatalogueEntry {
                    server: manifest.id.clone(),
                    name: manifest.name.clone(),
                    role: manifest.role,
                    languages: manifest.languages.clone(),
                    installed: program.is_some(),
                    help: program.is_none().then(|| how_to_install(manifest)),
                    path: program.map(|path| path.display().to_string()),
                }
            };
            let problem = |problem: &crate::rt::manifests::Problem| {
                serde_json::json!({"path": problem.path.to_string_lossy(), "reason": problem.reason})
            };
            (roster.manifests.iter().map(entry).collect(), roster.problems.iter().map(problem).collect())
        })
        .await
    }

    /// The servers that run, or did until a moment ago.
    pub fn servers(&self) -> Vec<ServerInfo> {
        self.all().iter().map(|server| server.info()).collect()
    }

    /// One of them.
    ///
    /// # Errors
    /// [`Error::NotRunning`].
    pub fn server(&self, id: &str) -> Result<ServerInfo, Error> {
        Ok(self.known(id)?.info())
    }

    /// `ServerCapabilities`, `serverInfo`, and what the server has registered since.
    ///
    /// # Errors
    /// [`Error::NotRunning`], [`Error::Down`].
    pub async fn capabilities(&self, id: &str) -> Result<Value, Error> {
        let client = self.known(id)?.client(as_duration(self.inner.bounds.lsp_start_timeout_ms)).await?;
        let (capabilities, info) = client.capabilities();
        let registered = client.registered().into_iter();
        let registered: Vec<_> =
            registered.map(|(method, options)| serde_json::json!({"method": method, "options": options})).collect();
        Ok(serde_json::json!({"capabilities": capabilities, "serverInfo": info, "registered": registered}))
    }

    /// What a server had logged, and wrote to stderr.
    ///
    /// # Errors
    /// [`Error::NotRunning`].
    pub fn logs(&self, id: &str) -> Result<Value, Error> {
        let server = self.known(id)?;
        let log = server.running().map(|client| client.log()).unwrap_or_default();
        Ok(serde_json::json!({"log": log, "stderr": server.stderr()}))
    }

    /// Starts a server for a root, or finds the one that there is.
    ///
    /// # Errors
    /// [`Error::UnknownServer`], [`Error::NotInstalled`], [`Error::TooMany`], [`Error::Down`].
    pub async fn start(&self, id: &str, root: PathBuf) -> Result<ServerInfo, Error> {
        let id = id.to_owned();
        let manifest = self.blocking(move |inner| inner.registry.roster().get(&id)).await?;
        let launch = {
            let (manifest, root) = (Arc::clone(&manifest), root.clone());
            self.blocking(move |inner| inner.places.launch(&manifest, &root)).await
        };
        launch?;
        let server = self.server_for(&manifest, root).await?;
        server.client(as_duration(self.inner.bounds.lsp_start_timeout_ms)).await?;
        Ok(server.info())
    }

    /// Starts it anew.
    ///
    /// # Errors
    /// [`Error::NotRunning`], [`Error::Down`].
    pub async fn restart(&self, id: &str) -> Result<ServerInfo, Error> {
        let server = self.known(id)?;
        server.restart().await;
        server.client(as_duration(self.inner.bounds.lsp_start_timeout_ms)).await?;
        Ok(server.info())
    }

    /// Stops it; resolves when it is gone.
    ///
    /// # Errors
    /// [`Error::NotRunning`].
    pub async fn stop(&self, id: &str) -> Result<(), Error> {
        self.known(id)?.stop().await;
        self.forget(id);
        Ok(())
    }

    /// Stops all.
    pub async fn shut_down(&self) {
        let all = self.all();
        join_all(all.iter().map(|server| server.stop())).await;
    }

    /// A request to a server as somebody wrote it; its answer as it wrote that.
    ///
    /// # Errors
    /// [`Error::NotRunning`], [`Error::Down`], [`Error::Client`].
    pub async fn request(
        &self,
        id: &str,
        method: &str,
        params: Box<RawValue>,
        timeout: Option<Duration>,
    ) -> Result<Box<RawValue>, Error> {
        let server = self.known(id)?;
        let client = server.client(as_duration(self.inner.bounds.lsp_start_timeout_ms)).await?;
        let timeout = timeout.unwrap_or(as_duration(self.inner.bounds.lsp_request_timeout_ms));
        let _texts = server.texts(false).await;
        Ok(client.request_raw(method, params, timeout).await?)
    }

    /// A notification to a server as somebody wrote it.
    ///
    /// # Errors
    /// As above.
    pub async fn notify(&self, id: &str, method: String, params: Box<RawValue>) -> Result<(), Error> {
        let client = self.known(id)?.client(as_duration(self.inner.bounds.lsp_start_timeout_ms)).await?;
        Ok(client.notify_raw(method, params).await?)
    }

    /// The servers for a file, with the language that it is to them: the one that is named, or else the first of each role that is
    /// installed. They may still be starting.
    ///
    /// # Errors
    /// [`Error::NoServer`], [`Error::NotInstalled`], [`Error::UnknownServer`], [`Error::TooMany`].
    async fn for_file(&self, asked: &Asked, only: Option<&str>) -> Result<Vec<(Arc<Server>, String)>, Error> {
        let (file, only) = (asked.clone(), only.map(str::to_owned));
        let chosen = self.blocking(move |inner| inner.choose(&file, only.as_deref())).await?;
        let mut servers = Vec::new();
        for (manifest, language, root) in chosen {
            servers.push((self.server_for(&manifest, root).await?, language));
        }
        Ok(servers)
    }

    /// The server for a root, started when there is none.
    async fn server_for(&self, manifest: &Arc<Manifest>, root: PathBuf) -> Result<Arc<Server>, Error> {
        loop {
            let unused = {
                let mut servers = self.map();
                servers.retain(|_, server| !server.is_over());
                let found = servers.values().find(|server| server.manifest.id == manifest.id && server.root == root);
                if let Some(server) = found {
                    server.is_used();
                    return Ok(Arc::clone(server));
                }
                if servers.len() < as_usize(self.inner.bounds.lsp_servers_max) {
                    let id = format!("lsp_{}", self.inner.next_id.fetch_add(1, Ordering::Relaxed));
                    let server = Server::start(self, id.clone(), Arc::clone(manifest), root);
                    servers.insert(id, Arc::clone(&server));
                    return Ok(server);
                }
                servers.values().filter(|server| server.is_idle()).min_by_key(|server| server.used_at_ms()).cloned()
            };
            let Some(unused) = unused else { return Err(Error::TooMany { max: self.inner.bounds.lsp_servers_max }) };
            tracing::info!(id = unused.id, server = unused.manifest.id, "stopped for another language server");
            unused.stop().await;
        }
    }

    fn known(&self, id: &str) -> Result<Arc<Server>, Error> {
        self.map().get(id).cloned().ok_or_else(|| Error::NotRunning { id: id.to_owned() })
    }

    fn all(&self) -> Vec<Arc<Server>> {
        self.map().values().cloned().collect()
    }

    /// It is over.
    fn forget(&self, id: &str) {
        self.map().remove(id);
    }

    fn map(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Server>>> {
        self.inner.servers.lock().unwrap_or_else(PoisonError::into_inner) // whole after each change
    }

    fn event(&self, kind: &'static str, event: &Value) {
        self.inner.store.append(&self.inner.events, kind, event.to_string().into(), None);
    }

    /// Runs what reads the file system off the async threads.
    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Inner) -> T + Send + 'static) -> T {
        let inner = Arc::clone(&self.inner);
        match tokio::task::spawn_blocking(move || work(&inner)).await {
            Ok(value) => value,
            Err(error) => std::panic::resume_unwind(error.into_panic()), // never cancelled, so it panicked: a bug
        }
    }
}

/// A server to use for a file, the file's language, and its root.
type Chosen = (Arc<Manifest>, String, PathBuf);

impl Inner {
    /// Which servers are used for a file. Blocks on the file system.
    fn choose(&self, asked: &Asked, only: Option<&str>) -> Result<Vec<Chosen>, Error> {
        let roster = self.registry.roster();
        let mut known = roster.for_file(asked.name());
        if let Some(only) = only {
            let manifest = roster.get(only)?;
            known.retain(|(manifest, _)| manifest.id == only);
            if known.is_empty() {
                let languages: Vec<_> = manifest.languages.iter().map(|language| language.id.as_str()).collect();
                return Err(Error::Invalid(format!(
                    "{only} is for {}, which {} is not",
                    languages.join(", "),
                    asked.path.display()
                )));
            }
        }
        if known.is_empty() {
            return Err(Error::NoServer { path: asked.path.clone(), manifests: self.places.manifests() });
        }
        let mut chosen: Vec<Chosen> = Vec::new();
        for (manifest, language) in &known {
            let is_taken = chosen.iter().any(|(other, ..)| other.role == manifest.role);
            if !is_taken && self.places.program(manifest).is_some() {
                let root = root_of(&asked.path, manifest, &asked.base);
                chosen.push((Arc::clone(manifest), language.clone(), root));
            }
        }
        if chosen.is_empty() {
            let help =
                known.iter().map(|(manifest, _)| format!("{}: {}", manifest.id, how_to_install(manifest))).collect::<Vec<_>>();
            let language = known.first().map(|(_, language)| language.clone()).unwrap_or_default();
            return Err(Error::NotInstalled { what: language, help: help.join("; ") });
        }
        Ok(chosen)
    }
}
