//! One prompt of the mock, line by line.
//!
//! | line | what happens |
//! |---|---|
//! | `/tool PATH` | a tool call that asks permission, then writes PATH |
//! | `/question TEXT` | a form (ACP elicitation) with one field, then what was answered |
//! | `/stream N` | N chunks |
//! | `/sleep MS` | nothing for a while |
//! | `/stall` | nothing until `session/cancel` |
//! | `/rubbish` | a line on stdout that is no JSON |
//! | `/stderr TEXT` | a line on stderr |
//! | `/die [CODE]` | the process exits in mid-turn |
//! | anything else | echoed in words |

use std::io::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::replies::update;
use super::{Mock, say};

/// A stall ends with the process at the latest.
const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// Runs one prompt; cancels beyond the `since`th end it.
pub(super) fn run(agent: &Mock, params: &Value, since: u64) -> Value {
    let turn = Turn { agent, params, session: params["sessionId"].as_str().unwrap_or_default(), since };
    let text = prompt_text(&params["prompt"]);
    for line in text.lines() {
        if turn.line(line) {
            return json!({"stopReason": "cancelled"});
        }
    }
    json!({"stopReason": "end_turn"})
}

struct Turn<'a> {
    agent: &'a Mock,
    params: &'a Value,
    session: &'a str,
    since: u64,
}

impl Turn<'_> {
    /// True when the turn was cancelled.
    fn line(&self, line: &str) -> bool {
        let (order, argument) = line.split_once(' ').unwrap_or((line, ""));
        match order {
            "/tool" => return self.tool(argument.trim()),
            "/question" => return self.question(argument.trim()),
            "/stream" => {
                for number in 0..argument.trim().parse().unwrap_or(1u64) {
                    self.chunk(&format!("chunk {number} "));
                }
            }
            "/sleep" => {
                return self.agent.sleep(self.session, self.since, Duration::from_millis(argument.trim().parse().unwrap_or(0)));
            }
            "/stall" => return self.agent.sleep(self.session, self.since, FOR_EVER),
            "/rubbish" => {
                let _ = std::io::stdout().lock().write_all(b"this is not JSON \xc3\n"); // say() notices a closed stdout
            }
            "/stderr" => eprintln!("{argument}"),
            "/die" => std::process::exit(argument.trim().parse().unwrap_or(1)),
            _ => line.split_inclusive(' ').for_each(|word| self.chunk(word)),
        }
        self.agent.sleep(self.session, self.since, Duration::ZERO)
    }

    fn update(&self, what: Value) {
        say(&[update(self.params, what)]);
    }

    fn chunk(&self, text: &str) {
        let content = json!({"type": "text", "text": text});
        self.update(json!({"sessionUpdate": "agent_message_chunk", "content": content}));
    }

    /// ACP "Elicitation".
    fn question(&self, message: &str) -> bool {
        let schema = json!({"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]});
        let form = json!({"sessionId": self.session, "mode": "form", "message": message, "requestedSchema": schema});
        let answer = self.agent.ask(self.session, self.since, "elicitation/create", form);
        if self.agent.cancel_count(self.session) > self.since {
            return true;
        }
        match (answer["action"].as_str(), answer["content"]["answer"].as_str()) {
            (Some("accept"), Some(text)) => self.chunk(&format!("answered: {text}")),
            _ => self.chunk("not answered"),
        }
        false
    }

    /// ACP "Tool Calls", "Requesting Permission".
    fn tool(&self, path: &str) -> bool {
        let id = crate::rt::ids::new_id("call");
        let call = json!({"toolCallId": id, "title": format!("Write {path}"), "kind": "edit", "status": "pending", "rawInput": {"path": path}});
        self.update(with(&call, "sessionUpdate", "tool_call"));
        let option = |kind: &str, name: &str| json!({"optionId": kind, "kind": kind, "name": name});
        let options =
            json!([option("allow_once", "Allow"), option("allow_always", "Always allow"), option("reject_once", "Refuse")]);
        let question = json!({"sessionId": self.session, "toolCall": call, "options": options});
        let answer = self.agent.ask(self.session, self.since, "session/request_permission", question);
        let allowed = answer["outcome"]["optionId"].as_str().is_some_and(|option| option.starts_with("allow"));
        let (status, words) = match allowed.then(|| std::fs::write(path, "mock\n")) {
            None => ("failed", "refused".to_owned()),
            Some(Ok(())) => ("completed", format!("created {path}")),
            Some(Err(error)) => ("failed", format!("{path}: {error}")),
        };
        let content = json!([{"type": "content", "content": {"type": "text", "text": words}}]);
        self.update(json!({"sessionUpdate": "tool_call_update", "toolCallId": id, "status": status, "content": content}));
        if self.agent.cancel_count(self.session) > self.since {
            return true;
        }
        self.chunk(&words);
        false
    }
}

fn with(value: &Value, key: &str, text: &str) -> Value {
    let mut value = value.clone();
    value[key] = text.into();
    value
}

/// The text blocks of a prompt, joined by line breaks.
fn prompt_text(prompt: &Value) -> String {
    let blocks = prompt.as_array().into_iter().flatten().filter_map(|block| block["text"].as_str());
    blocks.collect::<Vec<_>>().join("\n")
}
