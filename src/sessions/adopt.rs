//! Sessions that are opened, through whichever door, get a row and a stream.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::Sessions;
use super::create::Made;
use super::lifecycle::{DELETE_OR_CLOSE, method_of};
use super::live::Live;
use super::projection::Source;
use super::tap::object;
use super::types::SessionDoc;
use crate::acp::TapServer;
use crate::config::as_usize;
use crate::rt::clock::now_ms;
use crate::rt::ids::new_id;
use crate::rt::raw_json::RawJson;
use crate::rt::spawn_owned;
use crate::store::{RowChange, SessionRow};

impl Sessions {
    /// A session that we didn't know was opened. `tag` is the id that was chosen for it when it is made by us; `None` when
    /// nobody waited for it any more. A fork has the roots of its `original`.
    pub(super) fn adopt(
        &self,
        server: &TapServer,
        params: &str,
        result: &str,
        acp_session_id: &str,
        tag: Option<&str>,
        original: Option<&Arc<Live>>,
    ) -> Option<Arc<Live>> {
        let now = now_ms();
        let (id, made) = match tag {
            Some(tag) => match self.creating(tag) {
                Some(made) => (tag.to_owned(), made),
                None => {
                    self.close_unwanted(server, acp_session_id);
                    return None;
                }
            },
            None => {
                let roots = original.and_then(|original| original.lock().doc.roots.clone());
                (new_id("ses"), Made { roots, ..Made::default() })
            }
        };
        let asked = object(params);
        let mut doc = SessionDoc {
            origin: if made.is_ours { "sessions" } else { "acp" }.to_owned(),
            opened_with: serde_json::value::RawValue::from_string(params.to_owned())
                .ok()
                .filter(|params| params.get().len() <= as_usize(self.bounds().session_params_max_bytes)),
            metadata: made.metadata,
            workspace: made.workspace,
            turn_limits: made.turn_limits,
            roots: made.roots,
            initialized: self.initialized(&server.server_id),
            ..SessionDoc::default()
        };
        doc.learn(result);
        let row = SessionRow {
            id: id.clone(),
            server_id: server.server_id.clone(),
            acp_session_id: acp_session_id.to_owned(),
            agent: server.agent.clone(),
            cwd: asked["cwd"].as_str().unwrap_or_default().to_owned(),
            title: made.title,
            created_at_ms: now,
            updated_at_ms: now,
            closed_at_ms: None,
            idempotency: made.idempotency,
            doc: String::new(),
        };
        let stream = self.store().new_stream(&format!("session/{id}"));
        let live = self.insert(row, doc, stream, 0);
        let mut state = live.lock();
        let mut data = json!({
            "agent": server.agent,
            "cwd": state.row.cwd,
            "acpSessionId": acp_session_id,
            "serverId": server.server_id,
            "origin": state.doc.origin,
        });
        if let Some(title) = &state.row.title {
            data["title"] = title.clone().into();
        }
        let change = Live::save(&mut state);
        live.say(&mut state, "session.started", Source::Daemon, &data, Some(change));
        state.agent_runs = true;
        live.show(&mut state);
        drop(state);
        Some(live)
    }

    /// The answer came too late: the agent needn't keep it.
    fn close_unwanted(&self, server: &TapServer, acp_session_id: &str) {
        let (sessions, session) = (self.clone(), acp_session_id.to_owned());
        let (server_id, agent) = (server.server_id.clone(), server.agent.clone());
        spawn_owned("session-close", async move {
            let initialized = sessions.initialized(&server_id);
            let Some(method) = method_of(initialized.as_ref(), DELETE_OR_CLOSE) else { return };
            if let Err(error) = sessions.ask(&server_id, &agent, method, &json!({"sessionId": session}), None).await {
                tracing::info!(%error, session, "the agent didn't close a session that nobody waited for any more");
            }
        });
    }

    fn initialized(&self, server_id: &str) -> Option<RawJson> {
        RawJson::from_text(self.inner.acp.get()?.initialized(server_id)?).ok()
    }

    /// A session is deleted: nothing is written about it from now on, and nobody finds it. The task ends once that is in the
    /// file, and readers have seen it.
    pub(super) fn forget(&self, live: &Arc<Live>) -> tokio::task::JoinHandle<()> {
        let keep_streams = self.bounds().log_deleted_streams_max;
        let mut changes = self.gate().forget_session(&live.id);
        changes.push(RowChange::DeleteSession { id: live.id.clone(), keep_streams });
        let committed = live.deleted(RowChange::Many(changes));
        self.tell_end(&live.id);
        self.store().flush();
        let (sessions, live) = (self.clone(), Arc::clone(live));
        spawn_owned("session-forget", async move {
            let Some(committed) = committed else { return };
            sessions.gate().cancel_pending(&live.id).await;
            let _ = committed.await; // a closed store: nothing more is written
            // Until here it is known, as deleted: nobody reads its old row meanwhile.
            sessions.registry().remove(&live.id);
            live.stream.end();
            sessions.remove_attachments(&live.id);
        })
    }

    /// The folder that a request names: absolute, or relative to the home.
    pub(super) fn folder(&self, cwd: Option<&str>) -> String {
        let home = &self.inner.parts.home;
        let path = match cwd {
            None | Some("" | "~") => home.clone(),
            Some(cwd) => match cwd.strip_prefix("~/") {
                Some(below) => home.join(below),
                None => home.join(Path::new(cwd)),
            },
        };
        path.to_string_lossy().into_owned()
    }
}

impl Live {
    /// What it can be opened with again: params, and what is set since.
    pub(super) fn opened_with(&self) -> (String, Vec<(String, String)>) {
        let state = self.lock();
        let opened_with = state.doc.opened_with.as_ref().map(|params| params.get().to_owned());
        let params = opened_with.unwrap_or_else(|| json!({"cwd": state.row.cwd, "mcpServers": []}).to_string());
        (params, state.doc.settings(&state.row.acp_session_id))
    }

    /// A client opened it again on the same process.
    pub(super) fn reopened(&self, method: &str, result: &str) {
        let mut state = self.lock();
        state.doc.learn(result);
        state.row.closed_at_ms = None;
        let data = json!({"reopened": method, "modes": state.doc.modes, "configOptions": state.doc.config_options});
        let change = Self::save(&mut state);
        self.say(&mut state, "session.updated", Source::Client, &data, Some(change));
        state.agent_runs = true;
        self.show(&mut state);
    }
}

impl SessionDoc {
    /// Takes what an answer that opened the session says of modes and options.
    pub(super) fn learn(&mut self, result: &str) {
        let result = object(result);
        if result["modes"].is_object() {
            self.mode = result["modes"]["currentModeId"].as_str().map(str::to_owned).or_else(|| self.mode.take());
            self.modes = Some(RawJson::from(&result["modes"]));
        }
        if let Some(model) = result["models"]["currentModelId"].as_str() {
            self.model = Some(model.to_owned());
        }
        if result["configOptions"].is_array() {
            self.learn_options(&result["configOptions"]);
        }
    }

    /// What is set, as requests that set it again: method and params.
    pub(super) fn settings(&self, acp_session_id: &str) -> Vec<(String, String)> {
        let options = self.config_options.as_ref().map(RawJson::parse).unwrap_or_default();
        let options = options.as_array().into_iter().flatten();
        let chosen = options.filter(|option| option["currentValue"].is_string()).map(|option| {
            let params = json!({"sessionId": acp_session_id, "configId": option["id"], "value": option["currentValue"]});
            ("session/set_config_option".to_owned(), params.to_string())
        });
        let mode = self.mode.as_ref().filter(|_| self.modes.is_some()).map(|mode| {
            let params = json!({"sessionId": acp_session_id, "modeId": mode});
            ("session/set_mode".to_owned(), params.to_string())
        });
        chosen.chain(mode).collect()
    }

    /// Takes the options, and from them mode and model.
    pub(super) fn learn_options(&mut self, options: &Value) {
        for (category, known) in [("model", &mut self.model), ("mode", &mut self.mode)] {
            let option = options.as_array().into_iter().flatten().find(|option| option["category"] == category);
            if let Some(value) = option.and_then(|option| option["currentValue"].as_str()) {
                *known = Some(value.to_owned());
            }
        }
        self.config_options = Some(RawJson::from(options));
    }
}
