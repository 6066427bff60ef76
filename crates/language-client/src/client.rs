//! The handle on a connection: requests, documents, and waiting for diagnostics.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::connection::{Command, raw};
use crate::document::{Document, SyncKind, changes};
use crate::error::{CONTENT_MODIFIED, Error, Result, SERVER_CANCELLED};
use crate::handshake::{Abilities, initialize_params};
use crate::position::Encoding;
use crate::state::{LogLine, Progress, Published, State};
use crate::uri::canonical;
use crate::{Limits, Setup};

/// So often is asked again what a server gave up because the text changed meanwhile.
const RETRIES: u32 = 4;
const RETRY_AFTER: Duration = Duration::from_millis(60);
/// Diagnostics without a version are for the last text once nothing more came for so long: servers tell of syntax first.
const SETTLES: Duration = Duration::from_millis(250);

/// A handle on a language server; clones are handles on the same.
#[derive(Clone)]
pub struct Client {
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
}

struct Shared {
    state: Arc<State>,
    setup: Arc<Setup>,
    limits: Limits,
    abilities: OnceLock<Abilities>,
    documents: Mutex<HashMap<String, Document>>,
}

/// Diagnostics that were waited for.
#[derive(Debug, Clone)]
pub struct Waited {
    /// The latest; `None` when the server never said anything of the file.
    pub published: Option<Published>,
    /// They are for the text that was asked about, as far as that can be known.
    pub is_current: bool,
}

impl Client {
    pub(crate) fn new(commands: mpsc::Sender<Command>, state: Arc<State>, setup: Arc<Setup>, limits: Limits) -> Self {
        let shared = Shared { state, setup, limits, abilities: OnceLock::new(), documents: Mutex::default() };
        Self { commands, shared: Arc::new(shared) }
    }

    /// Begins, as every client has to before anything else.
    ///
    /// # Errors
    /// What the server refuses, or that it isn't there in time.
    pub async fn initialize(&self) -> Result<()> {
        let Shared { setup, limits, .. } = &*self.shared;
        let result: Value = self.request("initialize", &initialize_params(setup), limits.start_timeout).await?;
        let _ = self.shared.abilities.set(Abilities::of(&result)); // a second time changes nothing
        self.notify("initialized", &json!({})).await?;
        self.notify("workspace/didChangeConfiguration", &json!({"settings": setup.settings})).await
    }

    /// Ends it as the protocol has it. The process should be gone soon after.
    ///
    /// # Errors
    /// It doesn't answer.
    pub async fn shut_down(&self, timeout: Duration) -> Result<()> {
        let answered: Result<Value> = self.request("shutdown", &Value::Null, timeout).await;
        self.notify("exit", &Value::Null).await?;
        answered.map(drop)
    }

    /// Asks; what the server gives up because a text changed is asked again. Dropping the future tells the server so.
    ///
    /// # Errors
    /// Each [`Error`].
    pub async fn request<T: DeserializeOwned>(&self, method: &str, params: &impl Serialize, timeout: Duration) -> Result<T> {
        let answer = self.request_raw(method, raw(params), timeout).await?;
        serde_json::from_str(answer.get()).map_err(|error| Error::Nonsense { method: method.to_owned(), why: error.to_string() })
    }

    /// The same with what was sent and what came as they are.
    ///
    /// # Errors
    /// As above.
    pub async fn request_raw(&self, method: &str, params: Box<RawValue>, timeout: Duration) -> Result<Box<RawValue>> {
        let deadline = Instant::now() + timeout;
        let mut tries = 0;
        loop {
            tries += 1;
            let left = deadline.saturating_duration_since(Instant::now());
            let answer = self.ask(method, params.clone(), left).await;
            let is_stale = matches!(&answer, Err(Error::Refused { error, .. }) if [CONTENT_MODIFIED, SERVER_CANCELLED].contains(&error.code));
            if !is_stale || tries > RETRIES {
                return answer;
            }
            tokio::time::sleep(RETRY_AFTER * tries).await;
        }
    }

    async fn ask(&self, method: &str, params: Box<RawValue>, timeout: Duration) -> Result<Box<RawValue>> {
        let (reply, answer) = oneshot::channel();
        let (_waiting, waits) = oneshot::channel(); // dropped with this future
        let command = Command::Request { method: method.to_owned(), params, timeout, reply, waits };
        self.tell(command).await?;
        answer.await.map_err(|_| self.gone())?
    }

    /// Says something.
    ///
    /// # Errors
    /// [`Error::Gone`].
    pub async fn notify(&self, method: &'static str, params: &impl Serialize) -> Result<()> {
        self.tell(Command::Notify { method, params: raw(params) }).await
    }

    /// The same as somebody wrote it.
    ///
    /// # Errors
    /// [`Error::Gone`].
    pub async fn notify_raw(&self, method: String, params: Box<RawValue>) -> Result<()> {
        self.tell(Command::NotifyRaw { method, params }).await
    }

    async fn tell(&self, command: Command) -> Result<()> {
        self.commands.send(command).await.map_err(|_| self.gone())
    }

    fn gone(&self) -> Error {
        Error::Gone(self.shared.state.gone().unwrap_or_else(|| "it ended".to_owned()))
    }

    /// Why it is gone, once it is.
    #[must_use]
    pub fn is_gone(&self) -> Option<String> {
        self.shared.state.gone()
    }

    /// Whether the server said, or has registered, that it answers a method.
    #[must_use]
    pub fn can(&self, method: &str) -> bool {
        self.shared.abilities.get().is_some_and(|abilities| abilities.can(method, &self.shared.state))
    }

    /// What it said of a method: its options, null without any.
    #[must_use]
    pub fn options(&self, method: &str) -> Value {
        self.shared.abilities.get().map(|abilities| abilities.options(method, &self.shared.state)).unwrap_or_default()
    }

    /// `ServerCapabilities` as it said them, and `serverInfo`.
    #[must_use]
    pub fn capabilities(&self) -> (Value, Value) {
        let abilities = self.shared.abilities.get();
        abilities.map(|abilities| (abilities.capabilities.clone(), abilities.info.clone())).unwrap_or_default()
    }

    /// Methods that it has registered since, with their options.
    #[must_use]
    pub fn registered(&self) -> Vec<(String, Value)> {
        self.shared.state.registrations().into_iter().map(|known| (known.method, known.options)).collect()
    }

    /// What it counts characters in.
    #[must_use]
    pub fn encoding(&self) -> Encoding {
        self.shared.abilities.get().map(|abilities| abilities.encoding).unwrap_or_default()
    }

    /// Makes the server's text of a document this one; opens it when it isn't. Gives the version that it has then, and whether it is
    /// another one than before.
    ///
    /// # Errors
    /// [`Error::Gone`].
    pub async fn sync(&self, uri: &str, language_id: &str, text: Arc<str>) -> Result<(i32, bool)> {
        let (kind, encoding, hears_saves) = match self.shared.abilities.get() {
            Some(abilities) => (abilities.sync, abilities.encoding, abilities.hears_saves),
            None => (SyncKind::Full, Encoding::default(), false),
        };
        let mut documents = self.shared.documents.lock().await; // versions are told in their order
        let Some(document) = documents.get_mut(uri) else {
            let version = 1;
            let item = json!({"uri": uri, "languageId": language_id, "version": version, "text": &*text});
            self.notify("textDocument/didOpen", &json!({"textDocument": item})).await?;
            documents.insert(uri.to_owned(), Document { version, text });
            return Ok((version, true));
        };
        if document.text == text {
            return Ok((document.version, false));
        }
        let version = document.version + 1;
        if kind != SyncKind::None {
            let content = changes(&document.text, &text, kind, encoding);
            let id = json!({"uri": uri, "version": version});
            self.notify("textDocument/didChange", &json!({"textDocument": id, "contentChanges": content})).await?;
        }
        (document.version, document.text) = (version, text);
        if hears_saves {
            self.notify("textDocument/didSave", &json!({"textDocument": {"uri": uri}})).await?;
        }
        Ok((version, true))
    }

    /// The server needn't know its text any more; false when it didn't.
    ///
    /// # Errors
    /// [`Error::Gone`].
    pub async fn close(&self, uri: &str) -> Result<bool> {
        let mut documents = self.shared.documents.lock().await;
        if documents.remove(uri).is_none() {
            return Ok(false);
        }
        self.notify("textDocument/didClose", &json!({"textDocument": {"uri": uri}})).await?;
        Ok(true)
    }

    /// The text of an open document.
    pub async fn text(&self, uri: &str) -> Option<Arc<str>> {
        self.shared.documents.lock().await.get(uri).map(|document| Arc::clone(&document.text))
    }

    /// The latest diagnostics of a file that were published or pulled.
    #[must_use]
    pub fn diagnostics(&self, uri: &str) -> Option<Published> {
        self.shared.state.published(uri)
    }

    /// The same of all files.
    #[must_use]
    pub fn all_diagnostics(&self) -> Vec<(String, Published)> {
        self.shared.state.all_published()
    }

    /// How much was published so far: what is waited for comes after that.
    #[must_use]
    pub fn published_count(&self) -> u64 {
        self.shared.state.count()
    }

    /// The diagnostics of an open document for this version of it. `since` is [`Client::published_count`] before it was told. Pulled where
    /// the server has that; else waited for, at most `timeout`.
    ///
    /// # Errors
    /// [`Error::Gone`].
    pub async fn wait_for_diagnostics(&self, uri: &str, version: i32, since: u64, timeout: Duration) -> Result<Waited> {
        let deadline = Instant::now() + timeout;
        let mut changes = self.shared.state.changes();
        loop {
            if self.can("textDocument/diagnostic") {
                // some say so late
                return self.pull(uri, deadline.saturating_duration_since(Instant::now())).await;
            }
            let published = self.diagnostics(uri);
            let now = Instant::now();
            let settles_at = match &published {
                Some(Published { version: Some(known), .. }) if *known >= version => Some(now),
                // one that came before may be for the same text, when nothing of it changed since
                Some(Published { version: None, number, at, .. }) if *number > since => Some(*at + SETTLES),
                _ => None,
            };
            if settles_at.is_some_and(|at| at <= now) {
                return Ok(Waited { published, is_current: true });
            }
            if now >= deadline {
                return Ok(Waited { published, is_current: false });
            }
            if self.is_gone().is_some() {
                return Err(self.gone());
            }
            let until = settles_at.unwrap_or(deadline).min(deadline);
            let _ = tokio::time::timeout_at(until, changes.changed()).await; // the deadline is looked at above
        }
    }

    /// `textDocument/diagnostic`, kept as if it had been published.
    async fn pull(&self, uri: &str, timeout: Duration) -> Result<Waited> {
        let params = json!({"textDocument": {"uri": uri}, "identifier": self.options("textDocument/diagnostic")["identifier"]});
        let report: Value = match self.request("textDocument/diagnostic", &params, timeout).await {
            Err(Error::Timeout { .. }) => return Ok(Waited { published: self.diagnostics(uri), is_current: false }),
            other => other?,
        };
        let items = |report: &Value| report["items"].as_array().cloned();
        for (related, report) in report["relatedDocuments"].as_object().into_iter().flatten() {
            if let Some(items) = items(report) {
                self.shared.state.publish(canonical(related.clone()), None, items);
            }
        }
        if let Some(items) = items(&report) {
            self.shared.state.publish(uri.to_owned(), None, items);
        }
        Ok(Waited { published: self.diagnostics(uri), is_current: true })
    }

    /// Files whose diagnostics became others since this was last asked.
    #[must_use]
    pub fn take_news(&self) -> Vec<String> {
        self.shared.state.take_news()
    }

    /// Tells of each change of what the server told.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.state.changes()
    }

    /// How often the server has said that all diagnostics should be pulled again.
    #[must_use]
    pub fn refreshes(&self) -> u64 {
        self.shared.state.refreshes()
    }

    /// Work that it tells about.
    #[must_use]
    pub fn progress(&self) -> Vec<Progress> {
        self.shared.state.progress()
    }

    /// Waits until it tells of no work any more; false when `timeout` passes first. Cancel safe.
    pub async fn idle(&self, timeout: Duration) -> bool {
        let mut changes = self.shared.state.changes();
        let idle = async { while !self.progress().is_empty() && self.is_gone().is_none() && changes.changed().await.is_ok() {} };
        tokio::time::timeout(timeout, idle).await.is_ok()
    }

    /// What it had logged, the oldest first.
    #[must_use]
    pub fn log(&self) -> Vec<LogLine> {
        self.shared.state.log_lines()
    }
}
