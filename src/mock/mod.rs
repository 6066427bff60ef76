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

use serde_json::{Value, json};

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
    /// Who waits for a client's answer, by our request id.
    waiting: HashMap<String, SyncSender<Value>>,
}

impl Mock {
    fn line(self: &Arc<Self>, line: &[u8]) {
        let message: Value = match serde_json::from_slice(line) {
            Ok(message) => message,
            Err(error) => {
                let raw = String::from_utf8_lossy(line);
                return say(&[&notification("mock/parse_error", json!({"error": error.to_string(), "raw": raw}))]);
            }
        };
        let echo = notification("mock/echo", json!({"message": message}));
        match (message["method"].as_str().map(str::to_owned), message.get("id").cloned()) {
            (Some(method), Some(id)) => self.request(&method, id, message, &echo),
            (Some(method), None) => {
                say(&[&echo]);
                self.notified(&method, &message["params"]);
            }
            (None, Some(id)) => {
                say(&[&echo]);
                self.answered(&id, &message);
            }
            (None, None) => say(&[&echo]),
        }
    }

    fn request(self: &Arc<Self>, method: &str, id: Value, message: Value, echo: &Value) {
        if method == "session/prompt" {
            say(&[echo]);
            let agent = Arc::clone(self);
            std::thread::spawn(move || {
                let result = turn::run(&agent, &message["params"]);
                say(&[&reply(&id, message, result)]);
            });
            return;
        }
        let (result, update) = replies::result(self, method, &message["params"]);
        let reply = reply(&id, message, result);
        match update {
            Some(update) => say(&[echo, &update, &reply]),
            None => say(&[echo, &reply]),
        }
    }

    fn notified(&self, method: &str, params: &Value) {
        if method == "session/cancel" {
            let session = params["sessionId"].as_str().unwrap_or_default();
            *self.lock().cancels.entry(session.to_owned()).or_default() += 1;
            self.cancelled.notify_all();
        }
    }

    fn answered(&self, id: &Value, message: &Value) {
        let params = json!({"error": message["error"], "id": id, "result": message["result"]});
        say(&[&notification("mock/client_response", params)]);
        let waiting = id.as_str().and_then(|id| self.lock().waiting.remove(id));
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
        say(&[&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})]);
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

fn notification(method: &str, params: Value) -> Value {
    json!({"jsonrpc": "2.0", "method": method, "params": params})
}

fn reply(id: &Value, message: Value, mut result: Value) -> Value {
    result["echoed"] = message;
    json!({"jsonrpc": "2.0", "id": id, "result": result})
}

/// Lines on stdout, in one write. When nobody reads any more, the agent has no reason to live.
fn say(messages: &[&Value]) {
    let lines: String = messages.iter().map(|message| format!("{message}\n")).collect();
    let mut stdout = std::io::stdout().lock();
    if stdout.write_all(lines.as_bytes()).and_then(|()| stdout.flush()).is_err() {
        std::process::exit(1);
    }
}
