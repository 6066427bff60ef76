//! The task of a language server: starts it, again when it ended, tells it of files, and stops it when nobody asks.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use language_client::{ApplyEdit, Asks, Client, Limits, Setup, uri_of};
use serde_json::Value;
use tokio::io::AsyncReadExt as _;
use tokio::process::ChildStderr;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{Order, Shared, State, room};
use crate::config::{as_duration, as_usize};
use crate::lsp::manifest::Manifest;
use crate::lsp::watching::Watching;
use crate::lsp::{Lsp, applying, telling};
use crate::processes::{Child, Started};
use crate::rt::clock::now_ms;
use crate::rt::spawn_owned;

/// Before it is started again: twice as long each time, up to the other.
const WAIT: Duration = Duration::from_millis(500);
const WAIT_MAX: Duration = Duration::from_secs(30);
/// One that ran for so long is started again as if for the first time.
const RAN_WELL: Duration = Duration::from_secs(60);
/// So many ends in a row are one too many.
const ENDS_MAX: u32 = 6;
/// What a server has for `shutdown` and `exit`; then it is ended.
const GOODBYE: Duration = Duration::from_secs(2);
const GRACE: Duration = Duration::from_secs(2);
/// How often idleness and memory are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Changed files that wait to be looked at; more are looked at when somebody asks.
const LOOKS_MAX: usize = 64;
/// A changed file's diagnostics are waited for so long.
const LOOK_TIME: Duration = Duration::from_secs(10);
/// After its end, what it wrote to stderr last may still come.
const STDERR_TIME: Duration = Duration::from_millis(200);

pub(super) struct Owner {
    lsp: Lsp,
    id: String,
    manifest: Arc<Manifest>,
    root: PathBuf,
    state: watch::Sender<State>,
    orders: mpsc::Receiver<Order>,
    shared: Arc<Shared>,
    /// Ends in a row.
    ends: u32,
}

/// One run of the process.
struct Run {
    process: Child,
    client: Client,
    asks: Asks,
    connection: JoinHandle<()>,
    stderr: JoinHandle<()>,
    watching: Option<Watching>,
    /// Files whose diagnostics are to be had though nobody asks: they changed.
    looks: mpsc::Sender<(PathBuf, String)>,
    refreshes: u64,
    began: Instant,
}

/// How a run ended.
enum End {
    /// By itself.
    Lost(String),
    Restart(oneshot::Sender<()>),
    Stop(&'static str, Option<oneshot::Sender<()>>),
}

impl Owner {
    #[allow(clippy::too_many_arguments)] // made in one place
    pub(super) fn new(
        lsp: Lsp,
        id: String,
        manifest: Arc<Manifest>,
        root: PathBuf,
        state: watch::Sender<State>,
        orders: mpsc::Receiver<Order>,
        shared: Arc<Shared>,
    ) -> Self {
        Self { lsp, id, manifest, root, state, orders, shared, ends: 0 }
    }

    pub(super) async fn run(mut self) {
        loop {
            self.state.send_replace(State::Starting);
            let end = match self.start().await {
                Ok(mut run) => {
                    let end = self.serve(&mut run).await;
                    self.finish(run, end).await
                }
                Err(end) => end,
            };
            let (why, reply) = match self.next(end).await {
                None => continue,
                Some(stopped) => stopped,
            };
            self.state.send_replace(State::Stopped { why });
            self.lsp.forget(&self.id);
            if let Some(reply) = reply {
                let _ = reply.send(()); // nobody waits any more
            }
            return;
        }
    }

    /// Until it runs, as its client's handshake says.
    async fn start(&mut self) -> Result<Run, End> {
        let lost = |why: String| End::Lost(why);
        let inner = Arc::clone(room(&self.lsp));
        let (places, manifest, root) = (inner.places.clone(), Arc::clone(&self.manifest), self.root.clone());
        let launch = tokio::task::spawn_blocking(move || places.launch(&manifest, &root)).await;
        let spec = launch.map_err(|_| End::Stop("the server is stopping", None))?.map_err(|error| lost(error.to_string()))?;
        let Started { stdin, stdout, stderr, process } = inner.children.spawn(&spec).map_err(|error| lost(error.to_string()))?;
        self.shared.pid.store(process.pid().into(), Ordering::Relaxed);
        self.shared.started_at_ms.store(now_ms(), Ordering::Relaxed);
        let (client, asks, connection) = language_client::start(stdout, stdin, self.setup(), limits(&self.lsp));
        let connection = spawn_owned("lsp-connection", connection);
        let stderr = spawn_owned("lsp-stderr", read_stderr(stderr, Arc::clone(&self.shared)));
        let began = Instant::now();
        let (looks, to_look_at) = mpsc::channel(LOOKS_MAX);
        spawn_owned("lsp-looks", look_at_all(client.clone(), Arc::clone(&self.shared), to_look_at));
        let mut run = Run { process, client, asks, connection, stderr, watching: None, looks, refreshes: 0, began };
        let client = run.client.clone();
        let greeted = {
            let process = run.process.clone();
            tokio::select! {
                greeted = client.initialize() => greeted.map_err(|error| lost(error.to_string())),
                exit = process.exited() => Err(lost(format!("it ended while it started: {exit}"))),
                end = ordered(&mut self.orders) => Err(end),
            }
        };
        if let Err(end) = greeted {
            return Err(self.finish(run, end).await);
        }
        run.watching = Watching::start(&inner, &self.root).await;
        self.shared.open.refresh(&run.client, |_| true).await; // those that were open when it ended
        self.state.send_replace(State::Running(run.client.clone()));
        Ok(run)
    }

    fn setup(&self) -> Setup {
        let name = self.root.file_name().map_or_else(|| "/".to_owned(), |name| name.to_string_lossy().into_owned());
        Setup {
            root_uri: uri_of(&self.root),
            name,
            initialization_options: self.manifest.initialization_options.clone().unwrap_or(Value::Null),
            settings: self.manifest.settings.clone().unwrap_or_else(|| Value::Object(serde_json::Map::default())),
            process_id: std::process::id(),
        }
    }

    async fn serve(&mut self, run: &mut Run) -> End {
        let mut looking = tokio::time::interval(LOOK_EVERY);
        let mut changes = run.client.changes();
        let process = run.process.clone();
        loop {
            let Run { client, asks, watching, looks, refreshes, .. } = run;
            tokio::select! {
                exit = process.exited() => return End::Lost(format!("it ended: {exit}")),
                end = ordered(&mut self.orders) => return end,
                Ok(()) = changes.changed() => {
                    if let Some(why) = client.is_gone() {
                        return End::Lost(why);
                    }
                    telling::tell(&self.lsp, &self.id, &self.manifest.id, client).await;
                    if std::mem::replace(refreshes, client.refreshes()) != client.refreshes() {
                        look(looks, self.shared.open.all());
                    }
                }
                Some(ask) = asks.recv() => self.apply(ask),
                changes = Watching::next(watching) => {
                    changes.tell(client, &self.shared.open).await;
                    look(looks, changes.files(&self.manifest));
                }
                _ = looking.tick() => if let Some(end) = self.look(&process).await {
                    return end;
                },
            }
        }
    }

    /// Makes an edit that the server asked for. It is made while the server goes on.
    fn apply(&self, ask: ApplyEdit) {
        let (lsp, state) = (self.lsp.clone(), self.state.borrow().clone());
        spawn_owned("lsp-apply", async move {
            let State::Running(client) = state else { return };
            let made = applying::apply(&lsp, &client, &ask.edit).await;
            let _ = ask.reply.send(made.map(drop).map_err(|error| error.to_string())); // it is gone
        });
    }

    /// Whether it goes on.
    async fn look(&self, process: &Child) -> Option<End> {
        let bounds = &room(&self.lsp).bounds;
        let idle_ms = now_ms() - self.shared.used_at_ms.load(Ordering::Relaxed);
        if u64::try_from(idle_ms).is_ok_and(|idle_ms| idle_ms > bounds.lsp_idle_stop_ms) {
            return Some(End::Stop("nobody asked it for a while", None));
        }
        let used = process.memory_bytes(bounds.lsp_memory_max_bytes).await;
        self.shared.memory_bytes.store(i64::try_from(used).unwrap_or(i64::MAX), Ordering::Relaxed);
        (used > bounds.lsp_memory_max_bytes).then(|| {
            End::Lost(format!(
                "it took {used} bytes of memory, and may have {} (lsp_memory_max_bytes)",
                bounds.lsp_memory_max_bytes
            ))
        })
    }

    /// Ends the process, politely where it still listens.
    async fn finish(&mut self, run: Run, end: End) -> End {
        if !matches!(end, End::Lost(_)) && run.client.shut_down(GOODBYE).await.is_ok() {
            let _ = tokio::time::timeout(GRACE, run.process.exited()).await; // else it is ended
        }
        run.process.stop(GRACE).await;
        run.connection.abort();
        let _ = tokio::time::timeout(STDERR_TIME, run.stderr).await; // something else may hold it open
        if run.began.elapsed() > RAN_WELL {
            self.ends = 0;
        }
        end
    }

    /// What comes after an end: `None` is another run.
    async fn next(&mut self, end: End) -> Option<(&'static str, Option<oneshot::Sender<()>>)> {
        let why = match end {
            End::Restart(reply) => {
                self.begin_anew(reply);
                return None;
            }
            End::Stop(why, reply) => return Some((why, reply)),
            End::Lost(why) => why,
        };
        self.ends += 1;
        self.shared.restarts.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(server = self.manifest.id, root = %self.root.display(), why, ends = self.ends, "a language server ended");
        telling::down(&self.lsp, &self.id, &self.manifest.id, &why);
        let wait = WAIT.saturating_mul(1 << (self.ends - 1).min(16)).min(WAIT_MAX);
        if self.ends >= ENDS_MAX {
            self.state.send_replace(State::Failed { why });
        } else {
            let until_ms = now_ms() + i64::try_from(wait.as_millis()).unwrap_or(0);
            self.state.send_replace(State::Waiting { why, until_ms });
        }
        let is_failed = self.ends >= ENDS_MAX;
        let idle = as_duration(room(&self.lsp).bounds.lsp_idle_stop_ms);
        let end = tokio::select! {
            end = ordered(&mut self.orders) => end,
            () = tokio::time::sleep(wait), if !is_failed => return None,
            () = tokio::time::sleep(idle), if is_failed => End::Stop("it ended too often", None),
        };
        match end {
            End::Stop(why, reply) => Some((why, reply)),
            End::Restart(reply) => {
                self.begin_anew(reply);
                None
            }
            End::Lost(_) => None, // nobody orders that
        }
    }

    fn begin_anew(&mut self, reply: oneshot::Sender<()>) {
        self.ends = 0;
        self.state.send_replace(State::Starting);
        let _ = reply.send(()); // nobody waits any more
    }
}

fn look(looks: &mpsc::Sender<(PathBuf, String)>, files: Vec<(PathBuf, String)>) {
    for (index, file) in files.into_iter().enumerate() {
        if looks.try_send(file).is_err() {
            return tracing::debug!(index, "files that changed aren't looked at until somebody asks: there are too many");
        }
    }
}

/// Has the server look at files that changed, one after the other: what it has to say becomes events. Ends with the run.
async fn look_at_all(client: Client, shared: Arc<Shared>, mut files: mpsc::Receiver<(PathBuf, String)>) {
    while let Some((path, language)) = files.recv().await {
        let count = client.published_count();
        let Ok((version, is_other)) = shared.open.sync(&client, &path, &language, None).await else { continue }; // it is gone again
        let since = if is_other { count } else { 0 };
        let _ = client.wait_for_diagnostics(&uri_of(&path), version, since, LOOK_TIME).await; // the server is gone: so is this
    }
}

/// What is ordered next. Cancel safe.
async fn ordered(orders: &mut mpsc::Receiver<Order>) -> End {
    match orders.recv().await {
        Some(Order::Restart(reply)) => End::Restart(reply),
        Some(Order::Stop(reply)) => End::Stop("it was stopped", Some(reply)),
        None => End::Stop("nobody knows it any more", None),
    }
}

fn limits(lsp: &Lsp) -> Limits {
    let bounds = &room(lsp).bounds;
    Limits {
        message_max_bytes: as_usize(bounds.lsp_message_max_bytes),
        outgoing_max_bytes: as_usize(bounds.lsp_outgoing_max_bytes),
        requests_max: as_usize(bounds.lsp_requests_max),
        files_max: as_usize(bounds.lsp_files_max),
        diagnostics_max: as_usize(bounds.lsp_diagnostics_max),
        log_max_lines: as_usize(bounds.lsp_log_max_lines),
        log_line_max_bytes: as_usize(bounds.lsp_log_line_max_bytes),
        start_timeout: as_duration(bounds.lsp_start_timeout_ms),
    }
}

async fn read_stderr(mut stderr: ChildStderr, shared: Arc<Shared>) {
    let mut buffer = vec![0; 4096];
    while let Ok(count) = stderr.read(&mut buffer).await {
        if count == 0 {
            return;
        }
        shared.stderr.lock().unwrap_or_else(PoisonError::into_inner).push(&buffer[..count]);
    }
}
