//! JSON-RPC 2.0 as MCP uses it.

use serde_json::{Value, json};

use super::failure::Failure;

/// What a server wrote.
#[derive(Debug, PartialEq)]
pub(super) enum Message {
    /// The answer that was waited for.
    Answer(Value),
    /// The error that it was answered with.
    Error { code: i64, message: String },
    /// A request of the server, and what to answer.
    Request { answer: Value },
    /// A notification, or the answer to something else.
    Other,
    /// No JSON-RPC.
    Rubbish,
}

pub(super) fn request(id: u64, method: &str, params: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
}

pub(super) fn notification(method: &str) -> Value {
    json!({"jsonrpc": "2.0", "method": method})
}

/// Reads one message; `id` is that of the request that waits.
pub(super) fn read(text: &[u8], id: u64) -> Message {
    let message: Value = serde_json::from_slice(text).unwrap_or_default();
    if message["jsonrpc"] != "2.0" {
        return Message::Rubbish;
    }
    if let Some(method) = message["method"].as_str() {
        return match message.get("id") {
            Some(id) => Message::Request { answer: answer(method, id) },
            None => Message::Other,
        };
    }
    match (&message["id"], message.get("result"), message.get("error")) {
        (answered, Some(result), _) if *answered == id => Message::Answer(result.clone()),
        // An error about what the server couldn't read has no id.
        (answered, None, Some(error)) if *answered == id || answered.is_null() => Message::Error {
            code: error["code"].as_i64().unwrap_or_default(),
            message: error["message"].as_str().unwrap_or_default().to_owned(),
        },
        _ => Message::Other,
    }
}

/// We are alive, and offer nothing.
fn answer(method: &str, id: &Value) -> Value {
    if method == "ping" {
        return json!({"jsonrpc": "2.0", "id": id, "result": {}});
    }
    json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": format!("{method} is not offered")}})
}

impl Message {
    /// The answer to `method`, or its error, when it is one of both.
    pub(super) fn settled(self, method: &'static str) -> Option<Result<Value, Failure>> {
        match self {
            Self::Answer(result) => Some(Ok(result)),
            Self::Error { code, message } => Some(Err(Failure::Refused { method, code, message })),
            Self::Request { .. } | Self::Other | Self::Rubbish => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages() {
        let read = |text: &str| read(text.as_bytes(), 2);
        assert_eq!(read(r#"{"jsonrpc":"2.0","id":2,"result":{"a":1}}"#), Message::Answer(json!({"a": 1})));
        let error = Message::Error { code: -1, message: "no".to_owned() };
        assert_eq!(read(r#"{"jsonrpc":"2.0","id":2,"error":{"code":-1,"message":"no"}}"#), error);
        assert_eq!(read(r#"{"jsonrpc":"2.0","id":null,"error":{"code":-1,"message":"no"}}"#), error);
        for other in [r#"{"jsonrpc":"2.0","id":1,"result":{}}"#, r#"{"jsonrpc":"2.0","method":"notifications/message"}"#] {
            assert_eq!(read(other), Message::Other, "{other}");
        }
        for rubbish in ["", "hello", "[]", r#"{"id":2,"result":{}}"#] {
            assert_eq!(read(rubbish), Message::Rubbish, "{rubbish}");
        }
        let ping = json!({"jsonrpc": "2.0", "id": "x", "result": {}});
        assert_eq!(read(r#"{"jsonrpc":"2.0","id":"x","method":"ping"}"#), Message::Request { answer: ping });
        let Message::Request { answer } = read(r#"{"jsonrpc":"2.0","id":2,"method":"roots/list"}"#) else { panic!("a request") };
        assert_eq!(answer["error"]["code"], -32601);
    }
}
