//! One language server for one root: a process, the client on its pipes, and the files that it was given.
//!
//! ```text
//! starting ──initialized──▶ running ──exit, rubbish, too much memory──▶ waiting (0.5 s, 1 s, … 30 s) ──▶ starting
//!     └───────fails────────────▲                                           └─ again and again ─▶ failed (until asked to restart)
//! running ──nobody asks──▶ stopped (the next request makes a new one)
//! ```

mod files;
mod owner;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use language_client::Client;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard, mpsc, oneshot, watch};
use tokio::time::Instant;

use super::error::Error;
use super::manifest::Manifest;
use super::types::{ServerInfo, ServerState};
use super::{Inner, Lsp};
use crate::processes::StderrTail;
use crate::rt::clock::now_ms;
use crate::rt::spawn_owned;
pub(super) use files::{Open, read};
use owner::Owner;

/// Orders that wait for an owner.
const ORDERS_MAX: usize = 16;

/// How it goes with a server.
#[derive(Clone)]
pub(super) enum State {
    Starting,
    Running(Client),
    /// It ended, and is started again at this time.
    Waiting {
        why: String,
        until_ms: i64,
    },
    /// It ended too often.
    Failed {
        why: String,
    },
    Stopped {
        why: &'static str,
    },
}

/// What an owner is told to do.
enum Order {
    /// Answered when what ran before is gone.
    Restart(oneshot::Sender<()>),
    Stop(oneshot::Sender<()>),
}

/// The handle on a server.
pub(super) struct Server {
    pub(super) id: String,
    pub(super) manifest: Arc<Manifest>,
    pub(super) root: PathBuf,
    state: watch::Receiver<State>,
    orders: mpsc::Sender<Order>,
    shared: Arc<Shared>,
    /// Held for writing while the server has another text than the disk.
    texts: RwLock<()>,
    /// Those who use it right now have one.
    users: Arc<()>,
}

/// What handle and owner both have.
struct Shared {
    used_at_ms: AtomicI64,
    started_at_ms: AtomicI64,
    restarts: AtomicI64,
    memory_bytes: AtomicI64,
    pid: AtomicI64,
    stderr: Mutex<StderrTail>,
    open: Open,
}

impl Server {
    pub(super) fn start(lsp: &Lsp, id: String, manifest: Arc<Manifest>, root: PathBuf) -> Arc<Self> {
        let bounds = &lsp.inner.bounds;
        let (publish, state) = watch::channel(State::Starting);
        let (orders, ordered) = mpsc::channel(ORDERS_MAX);
        let lines = crate::config::as_usize(bounds.stderr_tail_max_lines);
        let shared = Arc::new(Shared {
            used_at_ms: AtomicI64::new(now_ms()),
            started_at_ms: AtomicI64::new(now_ms()),
            restarts: AtomicI64::new(0),
            memory_bytes: AtomicI64::new(0),
            pid: AtomicI64::new(0),
            stderr: Mutex::new(StderrTail::new(lines, crate::config::as_usize(bounds.stderr_line_max_bytes))),
            open: Open::new(crate::config::as_usize(bounds.lsp_open_files_max), bounds.lsp_file_max_bytes),
        });
        let owner =
            Owner::new(lsp.clone(), id.clone(), Arc::clone(&manifest), root.clone(), publish, ordered, Arc::clone(&shared));
        spawn_owned("lsp-server", owner.run());
        Arc::new(Self { id, manifest, root, state, orders, shared, texts: RwLock::default(), users: Arc::default() })
    }

    /// The client, once the server runs.
    ///
    /// # Errors
    /// [`Error::Down`] when it doesn't within `timeout`, with what it wrote to stderr.
    pub(super) async fn client(&self, timeout: Duration) -> Result<Client, Error> {
        self.is_used();
        let deadline = Instant::now() + timeout;
        let mut state = self.state.clone();
        loop {
            let why = match &*state.borrow_and_update() {
                State::Running(client) => return Ok(client.clone()),
                State::Failed { why } => {
                    return Err(self.down(format!("{why}; POST /v1/lsp/servers/{}/restart tries again", self.id)));
                }
                State::Stopped { why } => return Err(self.down((*why).to_owned())),
                State::Starting => "it is still starting".to_owned(),
                State::Waiting { why, .. } => why.clone(),
            };
            match tokio::time::timeout_at(deadline, state.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(Error::Stopping),
                Err(_) => return Err(self.down(why)),
            }
        }
    }

    fn down(&self, why: String) -> Error {
        Error::Down { server: self.manifest.id.clone(), why, stderr_tail: self.stderr_tail() }
    }

    /// It is done for: another one has to be started for the same root.
    pub(super) fn is_over(&self) -> bool {
        matches!(*self.state.borrow(), State::Stopped { .. }) || self.orders.is_closed()
    }

    /// While this is held, it has the texts of the disk; with `alone`, nobody else asks it about texts, and it may have another.
    pub(super) async fn texts(&self, alone: bool) -> Texts<'_> {
        let user = Arc::clone(&self.users);
        match alone {
            true => Texts::Alone { _guard: self.texts.write().await, _user: user },
            false => Texts::Shared { _guard: self.texts.read().await, _user: user },
        }
    }

    /// Nobody waits for an answer of it.
    pub(super) fn is_idle(&self) -> bool {
        Arc::strong_count(&self.users) == 1
    }

    pub(super) fn is_used(&self) {
        self.shared.used_at_ms.store(now_ms(), Ordering::Relaxed);
    }

    pub(super) fn used_at_ms(&self) -> i64 {
        self.shared.used_at_ms.load(Ordering::Relaxed)
    }

    /// The client, if it runs right now.
    pub(super) fn running(&self) -> Option<Client> {
        match &*self.state.borrow() {
            State::Running(client) => Some(client.clone()),
            _ => None,
        }
    }

    /// Starts it anew, whatever it does; resolves when what ran before is gone.
    pub(super) async fn restart(&self) {
        let (reply, begun) = oneshot::channel();
        if self.orders.send(Order::Restart(reply)).await.is_ok() {
            let _ = begun.await; // it has stopped
        }
    }

    /// Stops it; resolves when it is gone.
    pub(super) async fn stop(&self) {
        let (reply, stopped) = oneshot::channel();
        if self.orders.send(Order::Stop(reply)).await.is_ok() {
            let _ = stopped.await; // as above
        }
    }

    /// Gives the server what a file has now, and says which version that is, and whether another than before. `text` instead of what the
    /// disk has.
    ///
    /// # Errors
    /// The file can't be read, or isn't text; the server is gone.
    pub(super) async fn sync(
        &self,
        client: &Client,
        path: &Path,
        language: &str,
        text: Option<Arc<str>>,
    ) -> Result<(i32, bool), Error> {
        self.shared.open.sync(client, path, language, text).await
    }

    fn stderr_tail(&self) -> String {
        self.shared.stderr.lock().unwrap_or_else(std::sync::PoisonError::into_inner).text()
    }

    /// The last lines of its stderr.
    pub(super) fn stderr(&self) -> String {
        self.stderr_tail()
    }

    pub(super) fn info(&self) -> ServerInfo {
        let state = self.state.borrow().clone();
        let (name, why, next_start_at_ms) = match &state {
            State::Starting => (ServerState::Starting, None, None),
            State::Running(_) => (ServerState::Running, None, None),
            State::Waiting { why, until_ms } => (ServerState::Waiting, Some(why.clone()), Some(*until_ms)),
            State::Failed { why } => (ServerState::Failed, Some(why.clone()), None),
            State::Stopped { why } => (ServerState::Stopped, Some((*why).to_owned()), None),
        };
        let client = self.running();
        let number = |value: &AtomicI64| value.load(Ordering::Relaxed);
        ServerInfo {
            id: self.id.clone(),
            server: self.manifest.id.clone(),
            name: self.manifest.name.clone(),
            languages: self.manifest.languages.iter().map(|language| language.id.clone()).collect(),
            root: self.root.display().to_string(),
            state: name,
            why,
            next_start_at: next_start_at_ms.map(crate::rt::clock::rfc3339),
            stderr_tail: Some(self.stderr_tail()).filter(|tail| !tail.is_empty() && client.is_none()),
            pid: Some(number(&self.shared.pid)).filter(|pid| *pid > 0 && client.is_some()),
            memory_bytes: Some(number(&self.shared.memory_bytes)).filter(|bytes| *bytes > 0 && client.is_some()),
            restarts: number(&self.shared.restarts),
            started_at: crate::rt::clock::rfc3339(number(&self.shared.started_at_ms)),
            open_files: self.shared.open.count(),
            position_encoding: client.as_ref().map(|client| client.encoding().as_str().to_owned()),
            progress: client
                .map(|client| client.progress())
                .unwrap_or_default()
                .iter()
                .map(|one| serde_json::json!(one))
                .collect(),
        }
    }
}

/// A use of a server, until this is dropped.
pub(super) enum Texts<'a> {
    Shared { _guard: RwLockReadGuard<'a, ()>, _user: Arc<()> },
    Alone { _guard: RwLockWriteGuard<'a, ()>, _user: Arc<()> },
}

/// The part of the room that owners use.
pub(super) fn room(lsp: &Lsp) -> &Arc<Inner> {
    &lsp.inner
}
