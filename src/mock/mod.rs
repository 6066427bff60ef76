//! The built-in mock agent: an ACP agent on stdio without a model (`sandboxd mock-agent-process`).
//!
//! It keeps the echo of `sandbox-agent` 0.4.2 (`mock/echo`, `result.echoed`, `mock/client_response`,
//! `mock/parse_error`) and adds what ACP clients need for whole turns. A prompt's lines that begin with `/` are
//! orders, done one after the other ([`turn`]); any other text is echoed in words. The main thread reads, each prompt
//! runs on a thread of its own, so it can be cancelled and answered in the middle.

mod replies;
mod turn;

use std::collections::HashMap;
use std::io::{BufRead as _, Write as _};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::acp::{Envelope, Kind, ParseError};

/// Runs until stdin ends; gives the exit code.
pub fn run() -> i32 {
    let agent = Arc::new(Mock::default());
    for line in std::io::stdin().lock().split(b'\n') {
        let Ok(line) = line else { return 1 };
        if !line.trim_ascii().is_empty() {
            agent.line(&line);
        }
    }
    agent.cancel_all();
    0
}

#[derive(Default)]
pub(crate) struct Mock {
    state: Mutex<State>,
    cancelled: Condvar,
}

#[derive(Default)]
struct State {
    sessions: u64,
    requests: u64,
    /// Turns in progress, by session: how often each session was cancelled.
    cancels: HashMap<String, u64>,
    ended: bool,
    /// Values of options that were set, by session and option.
    settings: HashMap<(String, String), Value>,
    /// Who waits for a client's answer, by our request id.
    waiting: HashMap<String, SyncSender<Value>>,
}

impl Mock {
    fn line(self: &Arc<Self>, line: &[u8]) {
        let envelope = match Envelope::parse(Bytes::copy_from_slice(line.trim_ascii())) {
            Ok(envelope) => envelope,
            Err(ParseError::NotJson(error)) => {
                let raw = String::from_utf8_lossy(line);
                return say(&[notification("mock/parse_error", &json!({"error": error, "raw": raw}))]);
            }
            // Any other JSON value is echoed, and that is all.
            Err(_) => return say(&[echo(&String::from_utf8_lossy(line.trim_ascii()))]),
        };
        let echo = echo(text(&envelope));
        match envelope.kind() {
            Kind::Request => self.request(&envelope, echo),
            Kind::Notification => {
                say(&[echo]);
                self.notified(envelope.method(), &params(&envelope));
            }
            Kind::Response => {
                say(&[echo]);
                self.answered(&envelope);
            }
        }
    }

    fn request(self: &Arc<Self>, envelope: &Envelope, echo: String) {
        if envelope.method() == "session/prompt" {
            say(&[echo]);
            let (agent, envelope) = (Arc::clone(self), envelope.clone());
            let params = params(&envelope);
            // Before the thread starts: a cancel that comes right behind the prompt must count.
            let since = self.cancel_count(params["sessionId"].as_str().unwrap_or_default());
            std::thread::spawn(move || {
                let result = turn::run(&agent, &params, since);
                say(&[reply(&envelope, &result)]);
            });
            return;
        }
        let (result, update) = replies::result(self, envelope.method(), || params(envelope));
        let reply = reply(envelope, &result);
        match update {
            Some(update) => say(&[echo, update, reply]),
            None => say(&[echo, reply]),
        }
    }

    fn notified(&self, method: &str, params: &Value) {
        if method == "session/cancel" {
            let session = params["sessionId"].as_str().unwrap_or_default();
            *self.lock().cancels.entry(session.to_owned()).or_default() += 1;
            self.cancelled.notify_all();
        }
    }

    fn answered(&self, envelope: &Envelope) {
        let Some(id) = envelope.id() else { return };
        let message: Value = serde_json::from_str(text(envelope)).unwrap_or_default();
        let params = json!({"error": message["error"], "id": message["id"], "result": message["result"]});
        say(&[notification("mock/client_response", &params)]);
        let id: Option<String> = serde_json::from_str(id).ok();
        let waiting = id.and_then(|id| self.lock().waiting.remove(&id));
        if let Some(waiting) = waiting {
            match waiting.try_send(message["result"].clone()) {
                Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {} // the turn ended meanwhile
            }
        }
    }

    fn cancel_all(&self) {
        self.lock().ended = true;
        self.cancelled.notify_all();
    }

    /// A session id that no earlier process of the mock gave.
    fn new_session(&self) -> String {
        self.lock().sessions += 1;
        crate::rt::ids::new_id("mock")
    }

    /// `params` name the session.
    fn set(&self, params: &Value, option: &str, value: &Value) {
        let session = params["sessionId"].as_str().unwrap_or_default();
        self.lock().settings.insert((session.to_owned(), option.to_owned()), value.clone());
    }

    fn setting(&self, session: &str, option: &str) -> Option<Value> {
        self.lock().settings.get(&(session.to_owned(), option.to_owned())).cloned()
    }

    fn cancel_count(&self, session: &str) -> u64 {
        self.lock().cancels.get(session).copied().unwrap_or_default()
    }

    /// Sleeps until the session is cancelled once more than `since`, or the time is over. True when cancelled.
    fn sleep(&self, session: &str, since: u64, duration: Duration) -> bool {
        let goes_on = |state: &mut State| !state.ended && state.cancels.get(session).copied().unwrap_or_default() <= since;
        let waited = self.cancelled.wait_timeout_while(self.lock(), duration, goes_on);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        !goes_on(&mut state)
    }

    /// Asks the client something; gives its `result`, or null when the session was cancelled first.
    fn ask(&self, session: &str, since: u64, method: &str, params: Value) -> Value {
        let (sender, answer) = std::sync::mpsc::sync_channel(1);
        let id = {
            let mut state = self.lock();
            state.requests += 1;
            let id = format!("mock-request-{}", state.requests);
            state.waiting.insert(id.clone(), sender);
            id
        };
        say(&[json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string()]);
        loop {
            match answer.recv_timeout(Duration::from_millis(50)) {
                Ok(result) => return result,
                Err(_) if self.cancel_count(session) > since || self.lock().ended => {
                    self.lock().waiting.remove(&id);
                    return Value::Null;
                }
                Err(_) => {}
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn text(envelope: &Envelope) -> &str {
    std::str::from_utf8(envelope.text()).unwrap_or_default() // an envelope is UTF-8
}

fn params(envelope: &Envelope) -> Value {
    envelope.params().and_then(|params| serde_json::from_str(params).ok()).unwrap_or_default()
}

fn notification(method: &str, params: &Value) -> String {
    json!({"jsonrpc": "2.0", "method": method, "params": params}).to_string()
}

/// What came in, as it is written.
fn echo(text: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","method":"mock/echo","params":{{"message":{text}}}}}"#)
}

/// The result's own members and `echoed`.
fn reply(envelope: &Envelope, result: &Value) -> String {
    let own = result.as_object().filter(|members| !members.is_empty()).map(|_| result.to_string());
    let own = own.as_deref().and_then(|own| own.strip_suffix('}')).map_or_else(|| "{".to_owned(), |own| format!("{own},"));
    format!(r#"{{"jsonrpc":"2.0","id":{},"result":{own}"echoed":{}}}}}"#, envelope.id().unwrap_or("null"), text(envelope))
}

/// Lines on stdout, in one write. When nobody reads any more, the agent has no reason to live.
fn say(messages: &[String]) {
    let mut lines = messages.join("\n");
    lines.push('\n');
    let mut stdout = std::io::stdout().lock();
    if stdout.write_all(lines.as_bytes()).and_then(|()| stdout.flush()).is_err() {
        std::process::exit(1);
    }
}
