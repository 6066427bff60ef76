//! What a new agent process must be told before it can go on where the old one stopped. Pure.
//!
//! ```text
//! fresh process ─initialize─▶ (authenticate) ─▶ ready
//! request for a session it doesn't know ─session/resume, else session/load─▶ open ─settings again─▶ settled
//!                                           └─ refused ─▶ session/new under another id of the agent's ─▶ open
//! ```
//! Agents can't restore a session that had no turn yet, and one that was killed at once after its first turn: then a
//! fresh session takes the old one's place, ids are mapped both ways, and clients are told that the history is lost.
//! Source: ACP v1, "Initialization", "Session Setup" (loading and resuming), "Session Modes", "Session Config Options".

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use serde_json::{Value, json};

use super::envelope::{Envelope, raw_member, string_member};
use crate::store::{AcpServerRow, AcpSessionRow};

/// Methods whose params open a session.
const OPENERS: &[&str] = &["session/new", "session/load", "session/resume"];
/// Methods that change a session and are forgotten by agents when they restore it.
const SETTERS: &[&str] = &["session/set_mode", "session/set_config_option"];

/// What a step of ours is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Initialize,
    Authenticate,
    /// session/resume or session/load.
    Open,
    /// session/new, because the agent could not restore the session.
    Fresh,
    Setting,
}

/// A request of our own that must be answered before the held envelope may go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) purpose: Purpose,
    pub(super) method: String,
    pub(super) params: String,
    /// The session as clients call it.
    pub(super) session: Option<String>,
}

/// What to write down after an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Learned {
    Initialize { params: String, result: String },
    Authenticate(String),
    Session { row: AcpSessionRow, forget: Option<String> },
}

#[derive(Debug, Clone)]
struct Session {
    agent_id: String,
    params: String,
    /// By what they set: method and params, as the client last sent them.
    settings: BTreeMap<String, (String, String)>,
    /// It is a fresh one of the agent's that wasn't told yet what was said before.
    owes_words: bool,
}

/// What the client once said, and how much of it the present agent process has heard.
#[derive(Debug, Default)]
pub(super) struct Memory {
    initialize: Option<String>,
    /// What the agent answered to it last.
    initialized: Option<String>,
    authenticate: Option<String>,
    sessions: HashMap<String, Session>,
    /// By their last prompt, the one longest ago first.
    order: VecDeque<String>,
    max: Max,
    /// True once some session has another id on the agent's side: only then envelopes are looked into for it.
    renamed: bool,
    process: Heard,
    /// Changes with `process`.
    version: u64,
}

/// How much is remembered.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Max {
    /// The oldest sessions are forgotten beyond.
    pub(super) sessions: usize,
    /// Longer params are not remembered.
    pub(super) params_bytes: usize,
}

/// What the present process knows.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct Heard {
    initialized: bool,
    /// The client's own initialize is on its way: what the agent can do is not known yet.
    initializing: bool,
    authenticated: bool,
    can_resume: bool,
    can_load: bool,
    open: HashSet<String>,
    /// Sessions that it could not restore.
    refused: HashSet<String>,
    /// Settings still to be repeated.
    settings: HashMap<String, VecDeque<(String, String)>>,
}

impl Memory {
    pub(super) fn new(max: Max) -> Self {
        Self { max, ..Self::default() }
    }

    pub(super) fn from_rows(server: &AcpServerRow, rows: Vec<AcpSessionRow>, max: Max) -> Self {
        let order = rows.iter().map(|row| row.session_id.clone()).collect();
        let sessions = rows.into_iter().map(|row| {
            let settings = serde_json::from_str(&row.settings).unwrap_or_default();
            let (agent_id, params, owes_words) = (row.agent_session_id, row.params, row.owes_words);
            (row.session_id, Session { agent_id, params, settings, owes_words })
        });
        let sessions: HashMap<_, Session> = sessions.collect();
        let renamed = sessions.iter().any(|(id, session)| session.agent_id != *id);
        let (initialize, authenticate) = (server.initialize.clone(), server.authenticate.clone());
        let initialized = server.initialized.clone();
        Self { initialize, initialized, authenticate, sessions, order, max, renamed, process: Heard::default(), version: 0 }
    }

    /// Changes with what the present process knows.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// What the present process knows.
    pub(super) fn heard_so_far(&self) -> &Heard {
        &self.process
    }

    /// The process is one that outlived an earlier run, and knows this.
    pub(super) fn goes_on(&mut self, heard: Heard) {
        self.process = heard;
    }

    /// The agent process is gone.
    pub(super) fn forget_process(&mut self) {
        self.version += 1;
        self.process = Heard::default();
    }

    /// The client itself sends this to the present process: no step of ours is needed for it.
    pub(super) fn heard(&mut self, method: &str) {
        match method {
            "initialize" => self.process.initializing = true,
            "authenticate" => self.process.authenticated = true,
            _ => return,
        }
        self.version += 1;
    }

    /// A client's request was refused by the agent.
    pub(super) fn refused(&mut self, method: &str) {
        if method == "initialize" {
            self.process.initializing = false;
            self.version += 1;
        }
    }

    /// True when these params must be kept until their answer is there.
    pub(super) fn wants_params(&self, method: &str, params: &str) -> bool {
        let remembered = matches!(method, "initialize" | "authenticate" | "session/fork")
            || OPENERS.contains(&method)
            || SETTERS.contains(&method);
        remembered && params.len() <= self.max.params_bytes
    }

    /// True when `envelope` is for a session that must be restored, and the client's initialize is not yet answered.
    pub(super) fn must_wait(&self, envelope: &Envelope) -> bool {
        let knows = |id: String| self.sessions.contains_key(&id) && !self.process.open.contains(&id);
        self.process.initializing && !OPENERS.contains(&envelope.method()) && envelope.session_id().is_some_and(knows)
    }

    /// True when ids of sessions have to be mapped.
    pub(super) fn renames(&self) -> bool {
        self.renamed
    }

    /// The session's id on the agent's side, when it differs.
    pub(super) fn agent_session(&self, client_id: &str) -> Option<&str> {
        self.sessions.get(client_id).map(|session| session.agent_id.as_str()).filter(|agent_id| *agent_id != client_id)
    }

    /// The session's id on the clients' side, when it differs.
    pub(super) fn client_session(&self, agent_id: &str) -> Option<&str> {
        let renamed = self.sessions.iter().find(|(client_id, session)| session.agent_id == agent_id && *client_id != agent_id);
        renamed.map(|(client_id, _)| client_id.as_str())
    }

    /// What must be done before `envelope` may go to the agent; `None` when nothing.
    pub(super) fn step_before(&self, envelope: &Envelope) -> Option<Step> {
        let method = envelope.method();
        if !self.process.initialized {
            let params = self.initialize.clone().filter(|_| method != "initialize" && !self.process.initializing)?;
            return Some(Step { purpose: Purpose::Initialize, method: "initialize".into(), params, session: None });
        }
        if let Some(params) = self.authenticate.clone().filter(|_| !self.process.authenticated && method != "authenticate") {
            return Some(Step { purpose: Purpose::Authenticate, method: "authenticate".into(), params, session: None });
        }
        let id = envelope.session_id().filter(|_| !OPENERS.contains(&method))?;
        let session = self.sessions.get(&id)?;
        if !self.process.open.contains(&id) {
            return Some(self.open_step(id, session));
        }
        let (method, params) = self.process.settings.get(&id)?.front()?.clone();
        let params = with_session(&params, &session.agent_id);
        Some(Step { purpose: Purpose::Setting, method, params, session: Some(id) })
    }

    fn open_step(&self, id: String, session: &Session) -> Step {
        let refused = self.process.refused.contains(&id);
        let (purpose, method) = match (refused, self.process.can_resume, self.process.can_load) {
            (false, true, _) => (Purpose::Open, "session/resume"),
            (false, false, true) => (Purpose::Open, "session/load"),
            _ => (Purpose::Fresh, "session/new"),
        };
        let params = if purpose == Purpose::Fresh {
            without_session(&session.params)
        } else {
            with_session(&session.params, &session.agent_id)
        };
        Step { purpose, method: method.into(), params, session: Some(id) }
    }

    /// A step of ours succeeded. Gives what has to be written down.
    pub(super) fn step_succeeded(&mut self, step: &Step, result: &str) -> Option<Learned> {
        self.version += 1;
        match (step.purpose, &step.session) {
            (Purpose::Initialize | Purpose::Authenticate, _) => self.succeeded(&step.method, &step.params, result),
            (Purpose::Open, Some(id)) => {
                self.opened_again(id);
                None
            }
            (Purpose::Fresh, Some(id)) => {
                self.opened_again(id);
                let agent_id = string_member(result, "sessionId")?;
                let session = self.sessions.get_mut(id)?;
                (session.agent_id, session.owes_words) = (agent_id, true);
                self.renamed = true;
                self.learned(id, None)
            }
            (Purpose::Setting, Some(id)) => {
                self.process.settings.get_mut(id)?.pop_front();
                None
            }
            (Purpose::Open | Purpose::Fresh | Purpose::Setting, None) => None,
        }
    }

    /// A step of ours was refused. True when there is another way, or it can be done without.
    pub(super) fn step_failed(&mut self, step: &Step) -> bool {
        self.version += 1;
        match (step.purpose, &step.session) {
            (Purpose::Authenticate, _) => self.process.authenticated = true, // the request itself will say what it needs
            (Purpose::Open, Some(id)) => return self.process.refused.insert(id.clone()),
            (Purpose::Setting, Some(id)) => {
                let queue = self.process.settings.get_mut(id);
                queue.and_then(VecDeque::pop_front);
            }
            _ => return false,
        }
        true
    }

    fn opened_again(&mut self, id: &str) {
        self.version += 1;
        self.process.open.insert(id.to_owned());
        let settings = self.sessions.get(id).map(|session| session.settings.values().cloned().collect());
        self.process.settings.insert(id.to_owned(), settings.unwrap_or_default());
    }

    /// Takes note of a successful answer to a client (or to a step of ours). Gives what has to be written down.
    pub(super) fn succeeded(&mut self, method: &str, params: &str, result: &str) -> Option<Learned> {
        self.version += 1;
        let kept = params.to_owned();
        match method {
            "initialize" => {
                let answer: Value = serde_json::from_str(result).unwrap_or_default();
                let capabilities = &answer["agentCapabilities"];
                (self.process.initialized, self.process.initializing) = (true, false);
                self.process.can_load = capabilities["loadSession"] == true;
                self.process.can_resume = !capabilities["sessionCapabilities"]["resume"].is_null();
                let said = self.initialized.replace(result.to_owned()).as_deref() != Some(result);
                let asked = self.initialize.replace(kept.clone()).as_ref() != Some(&kept);
                (asked || said).then(|| Learned::Initialize { params: kept, result: result.to_owned() })
            }
            "authenticate" => {
                self.process.authenticated = true;
                (self.authenticate.replace(kept.clone()).as_ref() != Some(&kept)).then_some(Learned::Authenticate(kept))
            }
            "session/new" | "session/fork" => {
                let id = string_member(result, "sessionId")?;
                let params = without_session(&kept);
                self.opened(id.clone(), Session { agent_id: id, params, settings: BTreeMap::new(), owes_words: false })
            }
            _ if OPENERS.contains(&method) => {
                // A session that was opened afresh keeps its other id and its settings.
                let id = string_member(params, "sessionId")?;
                let known = self.sessions.get(&id).cloned();
                let fresh =
                    || Session { agent_id: id.clone(), params: String::new(), settings: BTreeMap::new(), owes_words: false };
                let session = Session { params: kept, ..known.unwrap_or_else(fresh) };
                self.opened(id, session)
            }
            _ if SETTERS.contains(&method) => self.set(method, kept),
            _ => None,
        }
    }

    pub(super) fn knows(&self, id: &str) -> bool {
        self.sessions.contains_key(id)
    }

    /// A session that another server carried before. `None` when it is known.
    pub(super) fn remember(&mut self, id: &str, params: String, settings: Vec<(String, String)>) -> Option<Learned> {
        if self.sessions.contains_key(id) {
            return None;
        }
        let keyed = settings.into_iter().map(|(method, params)| (setting_key(&params), (method, params)));
        let session = Session { agent_id: id.to_owned(), params, settings: keyed.collect(), owes_words: false };
        let learned = self.opened(id.to_owned(), session);
        self.process.open.remove(id);
        learned
    }

    /// It was prompted: of those that are remembered, it is forgotten last.
    pub(super) fn used(&mut self, id: &str) {
        if self.order.back().is_some_and(|last| last == id) {
            return;
        }
        if let Some(id) = self.order.iter().rposition(|known| known == id).and_then(|at| self.order.remove(at)) {
            self.order.push_back(id);
        }
    }

    /// True when the agent's session must be told in words what was said before it.
    pub(super) fn owes_words(&self, id: &str) -> bool {
        self.sessions.get(id).is_some_and(|session| session.owes_words)
    }

    /// It was told so. Gives what has to be written down.
    pub(super) fn told_words(&mut self, id: &str) -> Option<Learned> {
        let session = self.sessions.get_mut(id).filter(|session| session.owes_words)?;
        session.owes_words = false;
        self.learned(id, None)
    }

    /// The agent closed it: the next request for it restores it.
    pub(super) fn closed(&mut self, id: &str) {
        self.version += 1;
        self.process.open.remove(id);
    }

    fn opened(&mut self, id: String, session: Session) -> Option<Learned> {
        self.version += 1;
        self.process.open.insert(id.clone());
        if self.sessions.insert(id.clone(), session).is_none() {
            self.order.push_back(id.clone());
        }
        let forget = if self.order.len() > self.max.sessions { self.order.pop_front() } else { None };
        if let Some(forget) = &forget {
            self.sessions.remove(forget);
        }
        self.learned(&id, forget)
    }

    fn set(&mut self, method: &str, params: String) -> Option<Learned> {
        let id = string_member(&params, "sessionId")?;
        let key = setting_key(&params);
        self.sessions.get_mut(&id)?.settings.insert(key, (method.to_owned(), params));
        self.learned(&id, None)
    }

    fn learned(&self, id: &str, forget: Option<String>) -> Option<Learned> {
        let session = self.sessions.get(id)?;
        let row = AcpSessionRow {
            session_id: id.to_owned(),
            agent_session_id: session.agent_id.clone(),
            params: session.params.clone(),
            settings: serde_json::to_string(&session.settings).unwrap_or_default(),
            owes_words: session.owes_words,
        };
        Some(Learned::Session { row, forget })
    }
}

/// What a setting sets: a later one of the same replaces it.
fn setting_key(params: &str) -> String {
    string_member(params, "configId").map_or_else(|| "mode".to_owned(), |option| format!("option {option}"))
}

/// Params of session/load are those of session/new plus the id.
fn with_session(params: &str, agent_id: &str) -> String {
    let mut value = object(params);
    value["sessionId"] = agent_id.into();
    if raw_member(params, "configId").is_none() && raw_member(params, "modeId").is_none() && value["mcpServers"].is_null() {
        value["mcpServers"] = json!([]);
    }
    value.to_string()
}

fn without_session(params: &str) -> String {
    let mut value = object(params);
    if let Some(members) = value.as_object_mut() {
        members.remove("sessionId");
    }
    value.to_string()
}

fn object(params: &str) -> Value {
    serde_json::from_str(params).ok().filter(Value::is_object).unwrap_or_else(|| json!({}))
}

#[cfg(test)]
#[path = "restore_tests.rs"]
mod tests;
