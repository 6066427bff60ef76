//! A server's life with one agent that is played by the test: what the ACP room's owner does is done here.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::acp::{Asked, Decided, Fact, Outlived, Prompted, Tap, TapServer, TapSource, Underway, Verdict};
use crate::config::{Bounds, Config, Env, ServerFlags};
use crate::processes::Children;
use crate::sessions::gate::Gate;
use crate::sessions::live::Live;
use crate::sessions::projection::Snapshot;
use crate::sessions::{Parts, Sessions};
use crate::store::{Item, Store, Stream};
use crate::traces::Traces;
use crate::workspace::{Workspace, WorkspaceConfig};

/// The session as its client calls it.
pub(super) const SESSION: &str = "s1";

/// From start to SIGKILL.
pub(super) struct Life {
    pub(super) store: Store,
    pub(super) sessions: Sessions,
    tap: Box<dyn Tap>,
    outbound: Arc<Stream>,
    inbound: Arc<Stream>,
    numbers: BTreeMap<String, u64>,
    next: u64,
}

/// What outlives it: the agent with what it was asked and asks.
#[derive(Debug, Clone, Default)]
pub(super) struct Agent {
    /// Prompts under way: the client's id, the params and the tag.
    pub(super) underway: Vec<(String, String, Option<String>)>,
    pub(super) asked: Vec<String>,
    pub(super) answered: Vec<(String, String)>,
}

impl Life {
    pub(super) async fn begin(dir: &Path) -> Self {
        let bounds = Bounds::default();
        let store = Store::open(&dir.join("a.db"), &dir.join("b.db"), &bounds).expect("a store");
        assert!(store.path().ends_with("a.db"), "the last life is over");
        let flags = ServerFlags {
            host: "127.0.0.1".into(),
            port: 0,
            token: None,
            token_file: None,
            no_token: true,
            data_dir: Some(dir.to_path_buf()),
            cors_allow_origin: Vec::new(),
            cors_allow_method: Vec::new(),
            cors_allow_header: Vec::new(),
            cors_allow_credentials: false,
        };
        let config = Config::resolve(&flags, Env::default()).expect("a configuration");
        let traces = Traces::start(store.clone(), &config).await.expect("traces");
        let gate = Gate::start(store.clone(), bounds.clone()).await.expect("a gate");
        let children = Children::start("resume-test", Env::default(), 8).await;
        let copies = dir.join("copies");
        let workspace = Workspace::new(WorkspaceConfig { children, env: Env::default(), copies, bounds: bounds.clone() });
        let requests = store.open_stream("requests").await.expect("a stream");
        let (home, data) = (dir.to_path_buf(), dir.to_path_buf());
        let sessions = Sessions::new(Parts { store: store.clone(), bounds, gate, traces, workspace, home, data, requests });
        let names = ["acp/inst/out".to_owned(), "acp/inst/in".to_owned()];
        let [outbound, inbound] = store.open_streams(names).await.expect("streams");
        let server =
            TapServer { server_id: "srv".into(), agent: "mock".into(), instance: "inst".into(), events: Arc::clone(&outbound) };
        let tap = sessions.tap(server);
        Self { store, sessions, tap, outbound, inbound, numbers: BTreeMap::new(), next: 1 }
    }

    /// The session is there, and in the file.
    pub(super) async fn open(&mut self) {
        let (params, result) = (json!({"cwd": "/w", "mcpServers": []}).to_string(), json!({"sessionId": SESSION}).to_string());
        let fact = Fact::Opened { method: "session/new", params: &params, result: &result, session: SESSION, tag: None };
        self.tap.happened(fact);
        self.store.settle().await;
    }

    /// Goes on with an agent that lives.
    pub(super) async fn resume(&mut self, agent: &Agent) -> Vec<Decided> {
        let mut underway = Vec::new();
        for (client_id, params, tag) in &agent.underway {
            let number = self.number(client_id);
            let (client_id, params, tag) = (client_id.clone(), params.clone(), tag.clone());
            underway.push(Underway { session: SESSION.into(), number, client_id, params, tag });
        }
        self.tap.resume(Outlived { underway, asked: agent.asked.clone(), answered: agent.answered.clone() }).await
    }

    fn number(&mut self, client_id: &str) -> u64 {
        let number = self.next + 100; // another run numbers otherwise
        self.next += 1;
        self.numbers.insert(client_id.to_owned(), number);
        number
    }

    pub(super) fn emit(&self, envelope: &Value) {
        self.store.append(&self.outbound, "acp.agent", envelope.to_string().into(), None);
    }

    pub(super) fn prompt(&mut self, agent: &mut Agent, client_id: &str, text: &str) {
        let params = json!({"sessionId": SESSION, "prompt": [{"type": "text", "text": text}]});
        let id: Value = serde_json::from_str(client_id).expect("JSON");
        let envelope = json!({"jsonrpc": "2.0", "id": id, "method": "session/prompt", "params": params});
        self.store.append(&self.inbound, "acp.client", envelope.to_string().into(), None);
        let (number, params) = (self.number(client_id), params.to_string());
        let prompted = Prompted { session: SESSION, number, client_id, params: &params, tag: None };
        assert!(self.tap.prompted(prompted));
        agent.underway.push((client_id.to_owned(), params, None));
    }

    pub(super) fn update(&mut self, update: &Value) {
        self.emit(&json!({"jsonrpc": "2.0", "method": "session/update", "params": {"sessionId": SESSION, "update": update}}));
        self.tap.happened(Fact::Update { session: SESSION, update: &update.to_string() });
    }

    /// The raw log doesn't have it.
    pub(super) fn fold_only(&mut self, update: &Value) {
        self.tap.happened(Fact::Update { session: SESSION, update: &update.to_string() });
    }

    pub(super) fn ask(&mut self, agent: &mut Agent, id: &str, call_id: &str) -> Verdict {
        let (params, verdict) = self.asks(id, call_id);
        if verdict == Verdict::Ask {
            let id: Value = serde_json::from_str(id).expect("JSON");
            self.emit(&json!({"jsonrpc": "2.0", "id": id, "method": "session/request_permission", "params": params}));
        }
        agent.asked.push(id.to_owned());
        verdict
    }

    /// The agent asks its user something.
    pub(super) fn question(&mut self, agent: &mut Agent, id: &str, params: &Value) {
        let (method, text) = ("elicitation/create", params.to_string());
        assert_eq!(self.tap.asked(Asked { session: Some(SESSION), id, method, params: &text }), Verdict::Ask);
        let id_json: Value = serde_json::from_str(id).expect("JSON");
        self.emit(&json!({"jsonrpc": "2.0", "id": id_json, "method": method, "params": params}));
        agent.asked.push(id.to_owned());
    }

    /// The same, but for the raw log.
    pub(super) fn asks(&mut self, id: &str, call_id: &str) -> (Value, Verdict) {
        let options = json!([{"optionId": "a", "kind": "allow_once", "name": "Yes"}, {"optionId": "r", "kind": "reject_once", "name": "No"}]);
        let params =
            json!({"sessionId": SESSION, "toolCall": {"toolCallId": call_id, "title": "t", "kind": "edit"}, "options": options});
        let (method, text) = ("session/request_permission", params.to_string());
        let verdict = self.tap.asked(Asked { session: Some(SESSION), id, method, params: &text });
        (params, verdict)
    }

    pub(super) fn answer(&mut self, agent: &mut Agent, id: &str) {
        let outcome = json!({"outcome": "selected", "optionId": "a"});
        self.tap.happened(Fact::Answered { id, result: Some(&json!({"outcome": outcome}).to_string()), by: "client" });
        let request_id: Value = serde_json::from_str(id).expect("JSON");
        let params = json!({"requestId": request_id, "sessionId": SESSION, "by": "client", "outcome": outcome});
        self.emit(&json!({"jsonrpc": "2.0", "method": "_adapter/request_resolved", "params": params}));
        agent.asked.retain(|asked| asked != id);
    }

    pub(super) fn end(&mut self, agent: &mut Agent, client_id: &str) {
        let result = json!({"stopReason": "end_turn", "usage": {"inputTokens": 3}});
        let number = self.numbers[client_id];
        let text = result.to_string();
        self.tap.happened(Fact::PromptEnded { session: SESSION, number, answer: Ok(&text) });
        let id: Value = serde_json::from_str(client_id).expect("JSON");
        self.emit(&json!({"jsonrpc": "2.0", "id": id, "result": result}));
        agent.underway.retain(|(id, ..)| id != client_id);
    }

    /// Somebody answers; the agent hasn't been told when the server is killed.
    pub(super) fn decide(&mut self, id: &str) {
        let result = json!({"outcome": {"outcome": "selected", "optionId": "a"}}).to_string();
        self.tap.happened(Fact::Answered { id, result: Some(&result), by: "client" });
    }

    /// Everything so far is in the file, and that's it.
    pub(super) async fn kill(&mut self) {
        self.flush();
        self.store.settle().await;
        self.store.kill(0).await;
    }

    /// The session.
    pub(super) async fn live(&self) -> Arc<Live> {
        self.sessions.live_by_acp("srv", SESSION).await.expect("a row").expect("a session")
    }

    /// The owner has read all that was there.
    pub(super) fn flush(&mut self) {
        self.tap.flush();
        self.store.flush();
    }

    /// What a client could find out at the end.
    pub(super) async fn told(&self) -> Told {
        self.store.settle().await;
        let session = self.store.session_by_acp(Some("srv"), None, SESSION).await.expect("a row").expect("a session");
        let live = self.sessions.live(&session.id).await.expect("a session");
        live.until_settled().await;
        let (mut events, mut states) = (Vec::new(), Vec::new());
        let mut fold = Snapshot::new(self.sessions.snapshot_limits(1_000));
        let mut at = 0;
        loop {
            let page = live.stream.read_after(at, 100, 1 << 20).await.expect("a page");
            let Some(last) = page.last() else { break };
            at = last.end();
            for item in &page {
                let Item::Event(event) = item else { panic!("a gap") };
                let payload = std::str::from_utf8(&event.payload).expect("UTF-8");
                fold.push(payload);
                let event: Value = serde_json::from_str(payload).expect("JSON");
                if event["type"] == "session.state" {
                    states.push(event["data"]["state"].clone());
                } else {
                    events.push(event);
                }
            }
        }
        let turns = self.store.turns(&session.id, 0, 100).await.expect("turns");
        let turns = turns.into_iter().map(|turn| {
            let mut doc: Value = serde_json::from_str(&turn.doc).expect("JSON");
            doc.as_object_mut().expect("an object").remove("sent");
            json!({"id": turn.id, "state": turn.state, "doc": doc})
        });
        let (_, spans) = self.store.session_spans(&session.id, None, 1_000).await.expect("spans");
        let mut spans: Vec<_> = spans
            .iter()
            .map(|span| {
                let doc: Value = serde_json::from_str(&span.doc).expect("JSON");
                let (parent, over) = (span.parent_span_id.is_some(), span.ended_at_ms.is_some());
                json!({"kind": span.kind, "name": span.name, "outcome": span.outcome, "parent": parent, "over": over, "doc": doc, "turn": span.turn_id})
            })
            .collect();
        spans.sort_by_key(|span| ["kind", "turn", "name", "outcome", "doc"].map(|key| span[key].to_string()));
        let state = live.lock();
        let memory = json!({"stats": state.doc.stats, "usage": state.doc.usage, "title": state.row.title, "mode": state.doc.mode,
            "running": state.running.len(), "pending": state.pending_requests, "spans": state.spans.open_count()});
        drop(state);
        let doc: Value = serde_json::from_str(&session.doc).expect("JSON");
        let row = json!({"stats": doc["stats"], "usage": doc["usage"], "title": session.title, "mode": doc["mode"]});
        let items = fold.items().iter().map(|item| serde_json::from_str(item.get()).expect("JSON")).collect();
        let mut told = Told { events: joined(events), states, items, turns: turns.collect(), spans, memory, row };
        told.normalise();
        told
    }
}

/// What a client could find out.
#[derive(Debug, PartialEq)]
pub(super) struct Told {
    pub(super) events: Vec<Value>,
    pub(super) states: Vec<Value>,
    pub(super) items: Vec<Value>,
    pub(super) turns: Vec<Value>,
    pub(super) spans: Vec<Value>,
    pub(super) memory: Value,
    pub(super) row: Value,
}

impl Told {
    /// Ids by their order, and no times.
    fn normalise(&mut self) {
        let mut ids = Vec::new();
        let lists = [&mut self.events, &mut self.items, &mut self.turns, &mut self.spans];
        lists.into_iter().flatten().for_each(|value| normalise(value, &mut ids));
    }
}

fn normalise(value: &mut Value, ids: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            let times = ["time", "durationMs", "waitedMs", "atMs"];
            members.retain(|key, _| !key.ends_with("AtMs") && !times.contains(&key.as_str()));
            members.values_mut().for_each(|value| normalise(value, ids));
        }
        Value::Array(values) => values.iter_mut().for_each(|value| normalise(value, ids)),
        Value::String(text)
            if ["item_", "turn_", "req_", "ses_"].iter().any(|prefix| text.starts_with(prefix)) && text.len() > 20 =>
        {
            let at = ids.iter().position(|id| id == text).unwrap_or_else(|| {
                ids.push(text.clone());
                ids.len() - 1
            });
            *text = format!("id {at}");
        }
        _ => {}
    }
}

/// With deltas of one item that follow each other as one: they are cut wherever time has it. Empty ones say nothing.
fn joined(events: Vec<Value>) -> Vec<Value> {
    let mut joined: Vec<Value> = Vec::new();
    for event in events {
        let text = event["data"]["delta"]["text"].as_str().map(str::to_owned);
        match (joined.last_mut(), text) {
            (_, Some(text)) if text.is_empty() => {}
            (Some(last), Some(text))
                if last["data"]["itemId"] == event["data"]["itemId"] && last["data"]["delta"].is_object() =>
            {
                let before = last["data"]["delta"]["text"].as_str().unwrap_or_default();
                last["data"]["delta"]["text"] = format!("{before}{text}").into();
            }
            _ => joined.push(event),
        }
    }
    joined
}
