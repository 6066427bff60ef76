//! Sessions that a book knows, shown to clients without an agent: the server was taken up from an earlier run.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use serde_json::{Value, json};

use super::*;
use crate::acp::envelope::Envelope;
use crate::acp::tap::NoTaps;
use crate::acp::{AgentSource, BoxFuture, Launch, LaunchError};
use crate::config::Env;
use crate::processes::Children;
use crate::store::{AcpServerRow, RowChange, Store};

/// Agents that can't be started: whatever is answered here isn't answered by one.
struct NoAgents;

impl AgentSource for NoAgents {
    fn knows(&self, _agent: &str) -> bool {
        true
    }

    fn launch(&self, agent: &str) -> BoxFuture<Result<Launch, LaunchError>> {
        let agent = agent.to_owned();
        Box::pin(async move { Err(LaunchError::Unsupported { agent }) })
    }
}

/// One session, `s1`, on the server `there`, with a history of five updates in pages of two.
#[derive(Default)]
struct OneSession {
    closed: Mutex<Vec<(String, bool)>>,
    position: Mutex<u64>,
}

impl SessionBook for OneSession {
    fn find(&self, agent: &str, acp_session_id: &str) -> BoxFuture<Option<Known>> {
        let position = *self.position.lock().unwrap_or_else(PoisonError::into_inner);
        let opened = r#"{"modes":{"currentModeId":"plan","availableModes":[]}}"#.to_owned();
        let history = History { session_id: "ses_1".into(), until: 5, open_turn: None };
        let known = Known { history, server_id: "there".into(), opened, position };
        Box::pin(std::future::ready((agent == "a" && acp_session_id == "s1").then_some(known)))
    }

    fn history(&self, history: &History, after: u64) -> BoxFuture<(Vec<String>, Option<u64>)> {
        assert_eq!(history.session_id, "ses_1");
        let page = (after..5).take(2).map(|number| update("s1", number)["params"].to_string()).collect();
        Box::pin(std::future::ready((page, (after + 2 < 5).then_some(after + 2))))
    }

    fn list(&self, agent: &str, _params: &str) -> BoxFuture<String> {
        let list = json!({"sessions": [{"sessionId": "s1", "cwd": "/", "title": agent}]}).to_string();
        Box::pin(std::future::ready(list))
    }

    fn closed(&self, session_id: &str, deleted: bool) -> BoxFuture<()> {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner).push((session_id.to_owned(), deleted));
        Box::pin(std::future::ready(()))
    }
}

fn update(session: &str, number: u64) -> Value {
    json!({"jsonrpc": "2.0", "method": "session/update", "params": {"sessionId": session, "update": {"number": number}}})
}

struct Stage {
    remote: Remote,
    acp: Acp,
    book: Arc<OneSession>,
    _dir: tempfile::TempDir,
}

impl Stage {
    /// Two servers of an earlier run: where clients begin, and where the session is.
    async fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let bounds = Bounds { acp_load_patience_ms: 20_000, ..Bounds::default() };
        let store = Store::open(&dir.path().join("a.db"), &dir.path().join("b.db"), &bounds).expect("a store");
        for server_id in ["sessions-a", "there"] {
            let row = AcpServerRow {
                server_id: server_id.into(),
                agent: "a".into(),
                instance: format!("acp_{server_id}"),
                created_at_ms: 1,
                initialize: Some("{}".into()),
                authenticate: None,
                initialized: Some(r#"{"protocolVersion":1}"#.into()),
            };
            store.change(RowChange::PutAcpServer(row)).await.expect("written");
        }
        let children = Children::start("remote-test", Env::default(), 8).await;
        let acp = Acp::start(store, children, Arc::new(NoAgents), Arc::new(NoTaps), bounds.clone()).await.expect("a room");
        let book = Arc::new(OneSession::default());
        let remote = Remote::start(acp.clone(), Arc::clone(&book) as Arc<dyn SessionBook>, bounds);
        Self { remote, acp, book, _dir: dir }
    }

    async fn connect(&self) -> Arc<Connection> {
        let initialize = envelope(&json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {"protocolVersion": 1}}));
        let target = Target { agent: Some("a".into()), server: None };
        let (connection, answer) = self.remote.connect(Remote::new_id(), target, &initialize).await.expect("a connection");
        assert!(String::from_utf8_lossy(&answer).contains(r#""loadSession":true"#), "{answer:?}");
        connection
    }

    /// The agent of `there` says something; gives its position.
    async fn says(&self, message: &Value) -> u64 {
        let server = self.acp.get("there").await.expect("a server");
        let mut newest = server.events().watch();
        let before = newest.borrow_and_update().seq;
        self.acp.say(&server, message.to_string().into()).await;
        newest.wait_for(|newest| newest.seq > before).await.expect("written").seq
    }

    async fn send(&self, connection: &Arc<Connection>, method: &str, params: Value) {
        let session = params["sessionId"].as_str().map(str::to_owned);
        let message = json!({"jsonrpc": "2.0", "id": method, "method": method, "params": params});
        self.remote.receive(connection, envelope(&message), Door::Post(session.as_deref())).await.expect("taken");
    }
}

fn envelope(message: &Value) -> Envelope {
    Envelope::parse(Bytes::from(message.to_string())).expect("an envelope")
}

/// Reads until a message fits.
async fn until(feed: &mut Feed, fits: impl Fn(&Value) -> bool) -> Vec<Value> {
    let mut seen = Vec::new();
    loop {
        match feed.read().await.expect("readable") {
            Page::Messages(messages) => {
                seen.extend(messages.iter().map(|shown| serde_json::from_slice(&shown.text).expect("JSON")));
                if seen.iter().any(&fits) {
                    return seen;
                }
            }
            Page::Nothing => feed.changed().await,
            Page::Over(why) => panic!("{why} after {seen:?}"),
        }
    }
}

fn numbers(messages: &[Value]) -> Vec<u64> {
    messages.iter().filter_map(|message| message["params"]["update"]["number"].as_u64()).collect()
}

#[tokio::test]
async fn a_loaded_session_has_its_history_then_what_is_new_and_nothing_twice() {
    let stage = Stage::new().await;
    stage.says(&update("s1", 4)).await; // the history tells of it
    *stage.book.position.lock().expect("free") = stage.says(&update("other", 99)).await;
    stage.says(&update("s1", 5)).await;
    let connection = stage.connect().await;
    let mut answers = stage.remote.open(&connection, Scope::Connection, None).await.expect("a stream");
    let mut updates = stage.remote.open(&connection, Scope::Session("s1".into()), None).await.expect("a stream");
    assert!(matches!(updates.read().await, Ok(Page::Nothing)), "nothing is shown before it is asked for");
    stage.send(&connection, "session/load", json!({"sessionId": "s1", "cwd": "/", "mcpServers": []})).await;
    assert!(matches!(answers.read().await, Ok(Page::Nothing)), "it isn't answered before the history was read");
    let seen = until(&mut updates, |message| message["params"]["update"]["number"] == 5).await;
    assert_eq!(numbers(&seen), [0, 1, 2, 3, 4, 5]);
    let answer = until(&mut answers, |message| message["id"] == "session/load").await;
    assert_eq!(answer.last().expect("an answer")["result"]["modes"]["currentModeId"], "plan");
    stage.says(&update("s1", 6)).await;
    assert_eq!(numbers(&until(&mut updates, |message| message["params"]["update"]["number"] == 6).await), [6]);
}

#[tokio::test]
async fn a_resumed_session_begins_with_what_is_new() {
    let stage = Stage::new().await;
    *stage.book.position.lock().expect("free") = stage.says(&update("s1", 4)).await;
    let connection = stage.connect().await;
    stage.send(&connection, "session/resume", json!({"sessionId": "s1", "cwd": "/"})).await;
    let mut updates = stage.remote.open(&connection, Scope::Session("s1".into()), None).await.expect("a stream");
    let seen = until(&mut updates, |message| message["id"] == "session/resume").await;
    assert!(seen.last().expect("an answer")["result"]["modes"].is_object(), "{seen:?}");
    stage.says(&update("s1", 5)).await;
    // Once more loses nothing of what wasn't read yet.
    stage.send(&connection, "session/resume", json!({"sessionId": "s1", "cwd": "/"})).await;
    assert_eq!(numbers(&until(&mut updates, |message| message["id"] == "session/resume").await), [5]);
    assert!(matches!(stage.remote.open(&connection, Scope::Session("s1".into()), None).await, Err(Error::Taken)));
}

#[tokio::test]
async fn a_load_is_answered_though_nobody_reads_the_history() {
    let stage = Stage::new().await;
    let connection = stage.connect().await;
    stage.send(&connection, "session/load", json!({"sessionId": "s1", "cwd": "/", "mcpServers": []})).await;
    // Another load takes its place, and so it need not be waited for.
    stage.send(&connection, "session/load", json!({"sessionId": "s1", "cwd": "/", "mcpServers": []})).await;
    let mut answers = stage.remote.open(&connection, Scope::Connection, None).await.expect("a stream");
    until(&mut answers, |message| message["id"] == "session/load").await;
    let mut updates = stage.remote.open(&connection, Scope::Session("s1".into()), None).await.expect("a stream");
    assert_eq!(numbers(&until(&mut updates, |message| message["params"]["update"]["number"] == 4).await), [0, 1, 2, 3, 4]);
}

#[tokio::test]
async fn the_book_lists_closes_and_deletes_what_the_agent_can_not() {
    let stage = Stage::new().await;
    let connection = stage.connect().await;
    let mut answers = stage.remote.open(&connection, Scope::Connection, None).await.expect("a stream");
    stage.send(&connection, "session/list", json!({})).await;
    let list = until(&mut answers, |message| message["id"] == "session/list").await;
    assert_eq!(list.last().expect("an answer")["result"]["sessions"][0]["sessionId"], "s1");
    for (method, deleted) in [("session/close", false), ("session/delete", true)] {
        let mut updates = stage.remote.open(&connection, Scope::Session("s1".into()), None).await.expect("a stream");
        stage.send(&connection, method, json!({"sessionId": "s1"})).await;
        until(&mut updates, |message| message["id"] == method && message["result"] == json!({})).await;
        assert!(matches!(updates.read().await, Ok(Page::Over("closed"))), "its stream ends");
        let closed = stage.book.closed.lock().expect("free").pop();
        assert_eq!(closed, Some(("ses_1".to_owned(), deleted)));
    }
}

#[tokio::test]
async fn a_refused_request_of_a_gone_server_ends_the_connection() {
    let stage = Stage::new().await;
    let connection = stage.connect().await;
    let mut answers = stage.remote.open(&connection, Scope::Connection, None).await.expect("a stream");
    stage.acp.delete("sessions-a").await;
    let message = envelope(&json!({"jsonrpc": "2.0", "id": 1, "method": "session/new", "params": {}}));
    let refused = stage.remote.receive(&connection, message, Door::Post(None)).await;
    assert!(matches!(refused, Err(Error::UnknownConnection { .. })), "{refused:?}");
    assert!(matches!(stage.remote.get(connection.id()).await, Err(Error::UnknownConnection { .. })));
    assert!(matches!(answers.read().await, Ok(Page::Over(_))));
}

#[tokio::test]
async fn nobody_is_asked_what_is_answered_already() {
    let stage = Stage::new().await;
    let connection = stage.connect().await;
    stage.send(&connection, "session/resume", json!({"sessionId": "s1", "cwd": "/"})).await;
    let question =
        |id: u64| json!({"jsonrpc": "2.0", "id": id, "method": "session/request_permission", "params": {"sessionId": "s1"}});
    let resolved =
        |id: u64| json!({"jsonrpc": "2.0", "method": "_adapter/request_resolved", "params": {"requestId": id, "by": "rule:1"}});
    for message in [question(0), resolved(0), question(0), question(1), resolved(1)] {
        stage.says(&message).await;
    }
    let mut updates = stage.remote.open(&connection, Scope::Session("s1".into()), None).await.expect("a stream");
    let seen = until(&mut updates, |message| message["method"] == "session/request_permission").await;
    let asked: Vec<_> = seen.iter().filter(|message| message.get("method").is_some()).collect();
    assert_eq!(asked.len(), 1, "{seen:?}");
    let name = asked[0]["id"].clone();
    assert!(name.as_str().is_some_and(|name| name.starts_with("acp_there/")), "{name}");
    stage.says(&resolved(0)).await;
    let seen = until(&mut updates, |message| message["method"] == "$/cancel_request").await;
    assert_eq!(seen.last().expect("a message")["params"]["requestId"], name);
    stage.says(&question(2)).await;
    let second = until(&mut updates, |message| message["method"] == "session/request_permission").await;
    stage.says(&json!({"jsonrpc": "2.0", "method": "_adapter/agent_exited", "params": {}})).await;
    let seen = until(&mut updates, |message| message["method"] == "$/cancel_request").await;
    assert_eq!(seen.last().expect("a message")["params"]["requestId"], second.last().expect("a question")["id"]);
}
