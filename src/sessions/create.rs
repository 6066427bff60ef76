//! Making a session: handshake with the agent, session/new, then what its creator wants set. All or nothing: what fails
//! half-way is closed again.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, PoisonError};

use serde_json::{Value, json};

use super::ground::Root;
use super::lifecycle::DELETE_OR_CLOSE;
use super::live::Live;
use super::tap::object;
use super::types::{McpPolicy, SessionInfo, SessionSpec, TurnLimits};
use super::{Error, Sessions};
use crate::acp::{Envelope, Posted};
use crate::config::as_duration;
use crate::rt::ids::new_id;
use crate::rt::raw_json::RawJson;
use crate::rt::spawn_owned;

/// What a session that is being made will get, by its id.
#[derive(Default)]
pub(super) struct Creating(HashMap<String, Made>);

/// What its creator gave along.
#[derive(Clone, Default)]
pub(super) struct Made {
    pub(super) is_ours: bool,
    pub(super) title: Option<String>,
    pub(super) metadata: Option<Value>,
    pub(super) workspace: Option<Value>,
    pub(super) turn_limits: TurnLimits,
    pub(super) roots: Option<Vec<Root>>,
    pub(super) idempotency: Option<(String, String)>,
}

impl Sessions {
    pub(super) fn creating(&self, id: &str) -> Option<Made> {
        self.inner.creating.lock().unwrap_or_else(PoisonError::into_inner).0.get(id).cloned()
    }

    /// Makes a session. The same `key` with the same request gives the session that was made the first time, and
    /// false. Dropping the future doesn't stop the making.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::NotOffered`], [`Error::McpNotReady`], [`Error::Refused`], [`Error::KeyReused`], or the
    /// agent can't be started.
    pub async fn create(&self, spec: SessionSpec, key: Option<String>) -> Result<(SessionInfo, bool), Error> {
        let digest = super::submit::digest(&spec);
        let sessions = self.clone();
        let making = spawn_owned("session-create", async move { sessions.make_once(spec, key.zip(Some(digest))).await });
        making.await.map_err(|_| Error::Acp(crate::acp::Error::Stopping))?
    }

    async fn make_once(&self, spec: SessionSpec, idempotency: Option<(String, String)>) -> Result<(SessionInfo, bool), Error> {
        let Some((key, digest)) = &idempotency else {
            self.check(&spec)?;
            return Ok((self.info(&self.make(spec, None).await?, true), true));
        };
        let _alone = self.inner.retries.enter(key).await; // a retry at the same time waits for what the first comes to
        if let Some(row) = self.store().session_by_key(key).await? {
            let is_same = row.idempotency.as_ref().is_some_and(|(_, first)| first == digest);
            return if is_same { Ok((self.get(&row.id).await?, false)) } else { Err(Error::KeyReused { key: key.clone() }) };
        }
        self.check(&spec)?;
        Ok((self.info(&self.make(spec, idempotency).await?, true), true))
    }

    fn check(&self, spec: &SessionSpec) -> Result<(), Error> {
        if !self.acp()?.knows(&spec.agent) {
            return Err(crate::acp::Error::from(crate::acp::LaunchError::Unsupported { agent: spec.agent.clone() }).into());
        }
        if spec.metadata.as_ref().is_some_and(|metadata| !metadata.is_object()) {
            return Err(Error::invalid("metadata must be a JSON object"));
        }
        if let Some(server) = spec.mcp_servers.iter().find(|server| !server["name"].is_string()) {
            return Err(Error::invalid(format!("an MCP server needs a name: {server}")));
        }
        let cwd = self.folder(spec.cwd.as_deref());
        if spec.worktree.is_some() && spec.cwd.is_some() {
            return Err(Error::invalid("cwd and worktree together: send one of them"));
        }
        if spec.worktree.is_none() && !Path::new(&cwd).is_dir() {
            return Err(Error::invalid(format!("cwd {cwd:?} is no directory in the sandbox: make it first")));
        }
        Ok(())
    }

    async fn make(&self, spec: SessionSpec, idempotency: Option<(String, String)>) -> Result<Arc<Live>, Error> {
        let roots = self.roots(spec.roots.as_deref()).await?;
        let server_id = spec.server_id.clone().unwrap_or_else(|| format!("sessions-{}", spec.agent));
        let initialized = self.handshake(&server_id, &spec.agent).await?;
        let initialized: Value = serde_json::from_str(&initialized).unwrap_or_default();
        let id = new_id("ses");
        let cwd = self.ground(&id, &spec, roots.as_ref()).await?;
        let has_tree = spec.worktree.is_some();
        let made = self.open(id.clone(), spec, (server_id, &initialized), cwd, roots, idempotency).await;
        if let Some(custodian) = self.custodian().filter(|_| has_tree) {
            custodian.worktree_settled(&id, made.is_ok()).await;
        }
        made
    }

    /// In its directory, at its agent.
    async fn open(
        &self,
        id: String,
        spec: SessionSpec,
        (server_id, initialized): (String, &Value),
        cwd: String,
        roots: Option<Vec<Root>>,
        idempotency: Option<(String, String)>,
    ) -> Result<Arc<Live>, Error> {
        let check = spec.mcp_policy != McpPolicy::Skip;
        let capabilities = &initialized["agentCapabilities"];
        let workspace = &self.inner.parts.workspace;
        let prepared = workspace.prepare(Path::new(&cwd), spec.mcp_servers.clone(), capabilities, check).await;
        self.store().redact(prepared.secrets);
        let failures = prepared.report.failures();
        if spec.mcp_policy == McpPolicy::Fail && !failures.is_empty() {
            return Err(Error::McpNotReady { which: failures.join("; ") });
        }
        let mut params = json!({"cwd": cwd, "mcpServers": prepared.mcp_servers});
        if !spec.additional_directories.is_empty() {
            params["additionalDirectories"] = json!(spec.additional_directories);
        }
        let made = Made {
            is_ours: true,
            title: spec.title.clone(),
            metadata: spec.metadata.clone(),
            workspace: serde_json::to_value(&prepared.report).ok(),
            turn_limits: spec.turn_limits,
            roots,
            idempotency,
        };
        self.inner.creating.lock().unwrap_or_else(PoisonError::into_inner).0.insert(id.clone(), made);
        let opened = self.ask(&server_id, &spec.agent, "session/new", &params, Some(id.clone())).await;
        self.inner.creating.lock().unwrap_or_else(PoisonError::into_inner).0.remove(&id);
        opened?;
        let live = self.live(&id).await?;
        if let Err(error) = self.settle(&live, spec.mode.as_deref(), spec.model.as_deref(), &spec.config_options).await {
            self.undo(&live).await;
            return Err(error);
        }
        Ok(live)
    }

    /// A session of an earlier run was given what variables hold, and its agent may say it.
    pub(super) async fn learn_secrets(&self, live: &Live) {
        let cwd = {
            let state = live.lock();
            let opened_with = object(state.doc.opened_with.as_ref().map_or("", |params| params.get()));
            let has_servers = opened_with["mcpServers"].as_array().is_some_and(|servers| !servers.is_empty());
            (state.doc.origin == "sessions" && has_servers).then(|| state.row.cwd.clone())
        };
        if let Some(cwd) = cwd {
            self.store().redact(self.inner.parts.workspace.secrets(Path::new(&cwd)).await);
        }
    }

    /// What was made of a session that can't be what its creator wants.
    async fn undo(&self, live: &Arc<Live>) {
        self.close_at_agent(live, DELETE_OR_CLOSE).await;
        let _ = self.forget(live).await; // a panic in it is logged
    }

    /// What the agent of this server answered to `initialize`; it is asked when it wasn't yet.
    ///
    /// # Errors
    /// [`Error::Refused`], or the agent can't be started.
    pub(super) async fn handshake(&self, server_id: &str, agent: &str) -> Result<Arc<str>, Error> {
        self.acp()?.check(server_id, Some(agent))?;
        let _alone = self.inner.handshakes.enter(server_id).await;
        if let Some(known) = self.acp()?.initialized(server_id) {
            return Ok(known);
        }
        self.acp()?.ensure(server_id, agent).await?; // its agent may have to be installed first: that isn't its answer's time
        let params = json!({
            "protocolVersion": 1,
            "clientCapabilities": {"elicitation": {"form": {}}},
            "clientInfo": {"name": "sandboxd", "version": env!("CARGO_PKG_VERSION")},
        });
        let answer = self.ask(server_id, agent, "initialize", &params, None).await?;
        Ok(answer.to_string().into())
    }

    /// One request to a session's agent; gives its result. Waits `session_call_timeout_ms` at most.
    ///
    /// # Errors
    /// [`Error::Refused`] with the agent's error or without an answer, or it can't be reached.
    pub(super) async fn ask(
        &self,
        server_id: &str,
        agent: &str,
        method: &str,
        params: &Value,
        tag: Option<String>,
    ) -> Result<Value, Error> {
        let id = new_id("call");
        let text = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string();
        let envelope = Envelope::parse(text.into()).map_err(|error| Error::invalid(error.to_string()))?;
        let max_ms = self.bounds().session_call_timeout_ms;
        let posted = self.acp()?.post_tagged(server_id, Some(agent), envelope, tag);
        let Ok(posted) = tokio::time::timeout(as_duration(max_ms), posted).await else {
            let message = format!("no answer within {max_ms} ms (session_call_timeout_ms)");
            return Err(Error::Refused { method: method.to_owned(), message, error: Value::Null });
        };
        let Posted::Response { text, .. } = posted? else { return Ok(Value::Null) };
        let mut answer: Value = serde_json::from_slice(&text).unwrap_or_default();
        match answer.get_mut("result").map(Value::take) {
            Some(result) => Ok(result),
            None => {
                let error = answer["error"].take();
                let message = error["data"]["details"].as_str().or(error["message"].as_str()).unwrap_or("no reason given");
                Err(Error::Refused { method: method.to_owned(), message: message.to_owned(), error })
            }
        }
    }

    /// A notification to a session's agent; no agent is started for it.
    pub(super) async fn tell(&self, server_id: &str, method: &str, params: &Value) -> Result<(), Error> {
        let text = json!({"jsonrpc": "2.0", "method": method, "params": params}).to_string();
        let envelope = Envelope::parse(text.into()).map_err(|error| Error::invalid(error.to_string()))?;
        self.acp()?.post(server_id, None, envelope).await?;
        Ok(())
    }

    /// Sets model, mode and options, in this order: what modes there are may depend on the model.
    pub(super) async fn settle(
        &self,
        live: &Arc<Live>,
        mode: Option<&str>,
        model: Option<&str>,
        options: &std::collections::BTreeMap<String, Value>,
    ) -> Result<(), Error> {
        if let Some(model) = model {
            self.set_model(live, model).await?;
        }
        if let Some(mode) = mode {
            self.set_mode(live, mode).await?;
        }
        for (id, value) in options {
            self.set_option(live, id, value).await?;
        }
        Ok(())
    }

    async fn set_mode(&self, live: &Arc<Live>, mode: &str) -> Result<(), Error> {
        let (server_id, agent, session) = live.address();
        let (modes, options) = live.offers();
        let offered: Vec<_> =
            modes["availableModes"].as_array().into_iter().flatten().filter_map(|mode| mode["id"].as_str()).collect();
        if offered.contains(&mode) {
            return self
                .ask(&server_id, &agent, "session/set_mode", &json!({"sessionId": session, "modeId": mode}), None)
                .await
                .map(drop);
        }
        match option_of(&options, "mode") {
            Some(option) if offered.is_empty() => {
                self.set_option(live, option["id"].as_str().unwrap_or_default(), &mode.into()).await
            }
            _ => Err(Error::NotOffered { what: "mode", wanted: mode.to_owned(), offered: list(&offered, "no choice of modes") }),
        }
    }

    async fn set_model(&self, live: &Arc<Live>, model: &str) -> Result<(), Error> {
        let (_, options) = live.offers();
        match option_of(&options, "model") {
            Some(option) => self.set_option(live, option["id"].as_str().unwrap_or_default(), &model.into()).await,
            None => Err(Error::NotOffered { what: "model", wanted: model.to_owned(), offered: "no choice of models".to_owned() }),
        }
    }

    async fn set_option(&self, live: &Arc<Live>, id: &str, value: &Value) -> Result<(), Error> {
        let (server_id, agent, session) = live.address();
        let (_, options) = live.offers();
        let option = options.as_array().into_iter().flatten().find(|option| option["id"] == id);
        let Some(option) = option else {
            let offered: Vec<_> = options.as_array().into_iter().flatten().filter_map(|option| option["id"].as_str()).collect();
            return Err(Error::NotOffered { what: "option", wanted: id.to_owned(), offered: list(&offered, "no options") });
        };
        let values = choices(option);
        if let Some(wanted) = value.as_str().filter(|wanted| !values.is_empty() && !values.iter().any(|value| value == wanted)) {
            let what = match option["category"].as_str() {
                Some("model") => "model",
                Some("mode") => "mode",
                _ => "value",
            };
            return Err(Error::NotOffered { what, wanted: wanted.to_owned(), offered: values.join(", ") });
        }
        let mut params = json!({"sessionId": session, "configId": id, "value": value});
        if value.is_boolean() {
            params["type"] = "boolean".into(); // ACP v1, "Session Config Options": values other than ids name their type
        }
        self.ask(&server_id, &agent, "session/set_config_option", &params, None).await.map(drop)
    }
}

impl Live {
    /// Where its agent is reached: server, agent, and the id that ACP clients use.
    pub(super) fn address(&self) -> (String, String, String) {
        let state = self.lock();
        (state.row.server_id.clone(), state.row.agent.clone(), state.row.acp_session_id.clone())
    }

    /// ACP's modes and options, as they are now.
    fn offers(&self) -> (Value, Value) {
        let state = self.lock();
        let tree = |raw: &Option<RawJson>| raw.as_ref().map(RawJson::parse).unwrap_or_default();
        (tree(&state.doc.modes), tree(&state.doc.config_options))
    }
}

fn option_of<'a>(options: &'a Value, category: &str) -> Option<&'a Value> {
    options.as_array()?.iter().find(|option| option["category"] == category)
}

fn list(offered: &[&str], nothing: &str) -> String {
    if offered.is_empty() { nothing.to_owned() } else { offered.join(", ") }
}

/// The values of a select option, also of a grouped one.
fn choices(option: &Value) -> Vec<String> {
    let entries = option["options"].as_array().into_iter().flatten();
    let flat = entries.flat_map(|entry| match entry["options"].as_array() {
        Some(group) => group.iter().collect::<Vec<_>>(),
        None => vec![entry],
    });
    flat.filter_map(|entry| entry["value"].as_str().map(str::to_owned)).collect()
}
