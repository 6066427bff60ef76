//! What a new agent process must be told before it can go on where the old one stopped. Pure.
//!
//! ```text
//! fresh process ─initialize─▶ (authenticate) ─▶ ready
//! request for a session it doesn't know ─session/resume, else session/load─▶ that session is open
//! ```
//! Source: ACP v1, "Initialization", "Session Setup" (loading and resuming sessions).

use std::collections::{HashMap, HashSet, VecDeque};

use serde_json::Value;

use super::envelope::{Envelope, raw_member, string_member};
use crate::store::{AcpServerRow, AcpSessionRow};

/// Methods whose params open a session.
const OPENERS: &[&str] = &["session/new", "session/load", "session/resume"];

/// A request of our own that must be answered before the held envelope may go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) method: &'static str,
    pub(super) params: String,
    pub(super) session: Option<String>,
}

/// What the client once said, and how much of it the present agent process has heard.
#[derive(Debug, Default)]
pub(super) struct Memory {
    initialize: Option<String>,
    authenticate: Option<String>,
    sessions: HashMap<String, String>,
    order: VecDeque<String>,
    max_sessions: usize,
    // of the present process:
    initialized: bool,
    authenticated: bool,
    open: HashSet<String>,
    can_resume: bool,
    can_load: bool,
}

/// What to write down after an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Learned {
    Initialize(String),
    Authenticate(String),
    Session { row: AcpSessionRow, forget: Option<String> },
}

impl Memory {
    pub(super) fn new(max_sessions: usize) -> Self {
        Self { max_sessions, ..Self::default() }
    }

    pub(super) fn from_rows(server: &AcpServerRow, sessions: Vec<AcpSessionRow>, max_sessions: usize) -> Self {
        let order = sessions.iter().map(|session| session.session_id.clone()).collect();
        let sessions = sessions.into_iter().map(|session| (session.session_id, session.params)).collect();
        let (initialize, authenticate) = (server.initialize.clone(), server.authenticate.clone());
        Self { initialize, authenticate, sessions, order, max_sessions, ..Self::default() }
    }

    /// The agent process is gone.
    pub(super) fn forget_process(&mut self) {
        self.initialized = false;
        self.authenticated = false;
        self.open.clear();
    }

    /// The client itself sends this to the present process: no step of ours is needed for it.
    pub(super) fn heard(&mut self, method: &str) {
        match method {
            "initialize" => self.initialized = true,
            "authenticate" => self.authenticated = true,
            _ => {}
        }
    }

    /// True when params of this method must be kept until its answer is there.
    pub(super) fn wants_params(method: &str) -> bool {
        matches!(method, "initialize" | "authenticate") || OPENERS.contains(&method)
    }

    /// What must be done before `envelope` may go to the agent; `None` when nothing.
    pub(super) fn step_before(&self, envelope: &Envelope) -> Option<Step> {
        let method = envelope.method();
        if !self.initialized {
            let params = self.initialize.clone().filter(|_| method != "initialize")?;
            return Some(Step { method: "initialize", params, session: None });
        }
        if !self.authenticated && method != "authenticate" {
            if let Some(params) = self.authenticate.clone() {
                return Some(Step { method: "authenticate", params, session: None });
            }
        }
        let session = envelope.session_id().filter(|_| !OPENERS.contains(&method))?;
        let params = self.sessions.get(&session).filter(|_| !self.open.contains(&session))?;
        let method = if self.can_resume { "session/resume" } else { "session/load" };
        (self.can_resume || self.can_load).then(|| Step { method, params: with_session(params, &session), session: Some(session) })
    }

    /// True when the envelope names a session that this process can't know and can't be told.
    pub(super) fn lost_session(&self, envelope: &Envelope) -> Option<String> {
        let session = envelope.session_id()?;
        let lost = self.initialized && !self.can_resume && !self.can_load && self.sessions.contains_key(&session) && !self.open.contains(&session);
        lost.then_some(session)
    }

    /// Takes note of a successful answer, a client's or our own. Gives what has to be written down.
    pub(super) fn succeeded(&mut self, method: &str, params: &str, result: &str) -> Option<Learned> {
        match method {
            "initialize" => {
                self.initialized = true;
                let result: Value = serde_json::from_str(result).unwrap_or_default();
                let capabilities = &result["agentCapabilities"];
                self.can_load = capabilities["loadSession"] == true;
                self.can_resume = !capabilities["sessionCapabilities"]["resume"].is_null();
                let params = params.to_owned();
                (self.initialize.replace(params.clone()).as_ref() != Some(&params)).then_some(Learned::Initialize(params))
            }
            "authenticate" => {
                self.authenticated = true;
                let params = params.to_owned();
                (self.authenticate.replace(params.clone()).as_ref() != Some(&params)).then_some(Learned::Authenticate(params))
            }
            "session/new" => self.opened(string_member(result, "sessionId")?, params),
            _ if OPENERS.contains(&method) => self.opened(string_member(params, "sessionId")?, params),
            _ => None,
        }
    }

    /// An authenticate of ours that failed must not be tried before every request.
    pub(super) fn failed(&mut self, method: &str) {
        if method == "authenticate" {
            self.authenticated = true;
        }
    }

    fn opened(&mut self, session: String, params: &str) -> Option<Learned> {
        self.open.insert(session.clone());
        if self.sessions.get(&session).map(String::as_str) == Some(params) {
            return None;
        }
        if self.sessions.insert(session.clone(), params.to_owned()).is_none() {
            self.order.push_back(session.clone());
        }
        let forget = if self.order.len() > self.max_sessions { self.order.pop_front() } else { None };
        if let Some(forget) = &forget {
            self.sessions.remove(forget);
        }
        Some(Learned::Session { row: AcpSessionRow { session_id: session, params: params.to_owned() }, forget })
    }
}

/// Params of session/load are those of session/new plus the id.
fn with_session(params: &str, session: &str) -> String {
    if raw_member(params, "sessionId").is_some() {
        return params.to_owned();
    }
    let mut value: Value = serde_json::from_str(params).unwrap_or_else(|_| Value::Object(serde_json::Map::new()));
    value["sessionId"] = session.into();
    if value["mcpServers"].is_null() {
        value["mcpServers"] = Value::Array(Vec::new());
    }
    value.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn envelope(text: &str) -> Envelope {
        Envelope::parse(Bytes::copy_from_slice(text.as_bytes())).expect("an envelope")
    }

    fn prompt(session: &str) -> Envelope {
        envelope(&format!(r#"{{"id":1,"method":"session/prompt","params":{{"sessionId":"{session}"}}}}"#))
    }

    fn remembered() -> Memory {
        let mut memory = Memory::new(2);
        memory.succeeded("initialize", r#"{"protocolVersion":1}"#, r#"{"agentCapabilities":{"loadSession":true}}"#);
        memory.succeeded("session/new", r#"{"cwd":"/w"}"#, r#"{"sessionId":"s1"}"#);
        memory
    }

    #[test]
    fn nothing_is_repeated_to_a_process_that_heard_it() {
        assert_eq!(remembered().step_before(&prompt("s1")), None);
    }

    #[test]
    fn a_new_process_is_told_in_order() {
        let mut memory = remembered();
        memory.forget_process();
        let first = memory.step_before(&prompt("s1")).expect("a step");
        assert_eq!((first.method, first.params.as_str()), ("initialize", r#"{"protocolVersion":1}"#));
        memory.succeeded("initialize", &first.params, r#"{"agentCapabilities":{"loadSession":true}}"#);
        let second = memory.step_before(&prompt("s1")).expect("a step");
        assert_eq!(second.method, "session/load");
        assert_eq!(second.params, r#"{"cwd":"/w","mcpServers":[],"sessionId":"s1"}"#);
        memory.succeeded("session/load", &second.params, "{}");
        assert_eq!(memory.step_before(&prompt("s1")), None);
    }

    #[test]
    fn a_new_handshake_by_the_client_needs_no_step() {
        let mut memory = remembered();
        memory.forget_process();
        assert_eq!(memory.step_before(&envelope(r#"{"id":1,"method":"initialize","params":{}}"#)), None);
    }

    #[test]
    fn resume_is_preferred_and_a_lost_session_is_named() {
        let mut memory = remembered();
        memory.forget_process();
        memory.succeeded("initialize", "{}", r#"{"agentCapabilities":{"loadSession":true,"sessionCapabilities":{"resume":{}}}}"#);
        assert_eq!(memory.step_before(&prompt("s1")).map(|step| step.method), Some("session/resume"));
        memory.succeeded("initialize", "{}", "{}");
        assert_eq!(memory.step_before(&prompt("s1")), None);
        assert_eq!(memory.lost_session(&prompt("s1")), Some("s1".into()));
        assert_eq!(memory.lost_session(&prompt("unknown")), None);
    }

    #[test]
    fn the_oldest_session_is_forgotten_at_the_bound() {
        let mut memory = remembered();
        memory.succeeded("session/new", "{}", r#"{"sessionId":"s2"}"#);
        let learned = memory.succeeded("session/new", "{}", r#"{"sessionId":"s3"}"#);
        assert!(matches!(learned, Some(Learned::Session { forget: Some(forget), .. }) if forget == "s1"));
    }
}
