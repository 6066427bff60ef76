//! The gate with a store of its own and an agent that takes the first answer.

mod policy;
mod registry;
mod resolve;

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::*;
use crate::acp::{self, BoxFuture};
use crate::rt::clock::now_ms;

/// Tells the gate of the first answer, as the tap does.
pub(super) struct Agent {
    gate: std::sync::Weak<Inner>,
    answered: Mutex<HashSet<String>>,
    pub heard: Mutex<Vec<(String, String, String)>>,
    pub reachable: std::sync::atomic::AtomicBool,
}

impl Answerer for Agent {
    fn answer(&self, server_id: &str, request_id: &str, result: String, by: String) -> BoxFuture<Result<bool, acp::Error>> {
        if !self.reachable.load(std::sync::atomic::Ordering::SeqCst) {
            return Box::pin(std::future::ready(Err(acp::Error::Stopping)));
        }
        let first = self.answered.lock().expect("no panic").insert(request_id.to_owned());
        if first {
            self.heard.lock().expect("no panic").push((request_id.to_owned(), result.clone(), by.clone()));
            let gate = Gate { inner: self.gate.upgrade().expect("the gate lives") };
            let closed = gate.answered(server_id, request_id, Some(&result), &by, now_ms());
            append(&gate, closed.into_iter().flat_map(|closed| closed.changes));
        }
        Box::pin(std::future::ready(Ok(first)))
    }
}

pub(super) fn append(gate: &Gate, changes: impl IntoIterator<Item = crate::store::RowChange>) {
    let stream = gate.inner.store.new_stream(&crate::rt::ids::new_id("test"));
    let change = crate::store::RowChange::Many(changes.into_iter().collect());
    gate.inner.store.append(&stream, "test", "{}".into(), Some(change));
    gate.inner.store.flush();
}

pub(super) struct House {
    pub gate: Gate,
    pub agent: Arc<Agent>,
    pub dir: tempfile::TempDir,
}

impl House {
    pub async fn new(bounds: Bounds) -> Self {
        Self::on(tempfile::tempdir().expect("a directory"), bounds).await
    }

    pub async fn on(dir: tempfile::TempDir, bounds: Bounds) -> Self {
        let store = Store::open(&dir.path().join("a.db"), &dir.path().join("b.db"), &bounds).expect("a store");
        let gate = Gate::start(store, bounds).await.expect("a gate");
        let agent = Arc::new(Agent {
            gate: Arc::downgrade(&gate.inner),
            answered: Mutex::default(),
            heard: Mutex::default(),
            reachable: true.into(),
        });
        gate.connect(Arc::clone(&agent) as Arc<dyn Answerer>);
        Self { gate, agent, dir }
    }

    /// The same file after the server ended.
    pub async fn again(self) -> Self {
        self.gate.inner.store.close().await;
        let Self { gate, agent, dir } = self;
        drop((gate, agent));
        Self::on(dir, Bounds::default()).await
    }

    pub fn ask(&self, id: &str, params: &Value) -> Opened {
        self.ask_as("session/request_permission", id, params)
    }

    pub fn ask_as(&self, method: &str, id: &str, params: &Value) -> Opened {
        let opened =
            self.gate.asked(at(), &Asked { session: Some("acp-session"), id, method, params: &params.to_string() }, now_ms());
        let opened = opened.expect("it is for people");
        append(&self.gate, opened.changes.clone());
        opened
    }

    pub fn heard(&self) -> Vec<(String, String, String)> {
        self.agent.heard.lock().expect("no panic").clone()
    }
}

/// No session: the store has none whose row a request could hang on.
pub(super) fn at() -> Where<'static> {
    Where { session_id: None, server_id: "s", agent: "mock", cwd: "/w", turn_id: None }
}

pub(super) fn options() -> Value {
    json!([
        {"optionId": "a", "name": "Allow", "kind": "allow_once"},
        {"optionId": "aa", "name": "Always", "kind": "allow_always"},
        {"optionId": "r", "name": "Refuse", "kind": "reject_once"},
    ])
}

pub(super) fn command(line: &str) -> Value {
    let call = json!({"toolCallId": "c", "title": line, "kind": "execute", "rawInput": {"command": line}});
    json!({"sessionId": "acp-session", "toolCall": call, "options": options()})
}
