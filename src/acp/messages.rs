//! The envelopes we make ourselves: answers in an agent's place, adapter notifications, and requests that restore.

use bytes::Bytes;
use serde_json::{Value, json};

use super::envelope::{Envelope, raw_member};
use super::types::Quirks;
use crate::processes::Exit;

/// JSON-RPC "internal error": what clients of the reference know for a broken agent.
const INTERNAL_ERROR: i32 = -32603;

/// An error answer under the client's id (given as written).
pub(super) fn error_response(client_id: &str, message: &str, data: &Value) -> Bytes {
    let error = json!({"code": INTERNAL_ERROR, "message": message, "data": data});
    format!(r#"{{"jsonrpc":"2.0","id":{client_id},"error":{error}}}"#).into()
}

/// What is known of an agent's end, for error data: `{agent, exitCode?, signal?, stderr?}`.
pub(super) fn exit_data(agent: &str, exit: Exit, stderr: &str) -> Value {
    let mut data = json!({"agent": agent});
    if let Some(code) = exit.code() {
        data["exitCode"] = code.into();
    }
    if let Some(signal) = exit.signal_name() {
        data["signal"] = signal.into();
    }
    if !stderr.is_empty() {
        data["stderr"] = stderr.into();
    }
    data
}

/// `_adapter/agent_exited`: `code` is null when a signal ended it.
pub(super) fn agent_exited(exit: Exit, stderr: &str) -> Bytes {
    let mut params = json!({"code": exit.code(), "success": exit.code() == Some(0)});
    if let Some(signal) = exit.signal_name() {
        params["signal"] = signal.into();
    }
    if !stderr.is_empty() {
        params["stderr"] = stderr.into();
    }
    notification("_adapter/agent_exited", params)
}

/// `_adapter/invalid_stdout`: a line that is no JSON, or too long. `bytes` is its whole length when `raw` is cut.
pub(super) fn invalid_stdout(error: &str, line: &[u8], length: u64, shown_max_bytes: usize) -> Bytes {
    let shown = &line[..line.len().min(shown_max_bytes)];
    let mut params = json!({"error": error, "raw": String::from_utf8_lossy(shown)});
    if (shown.len() as u64) < length {
        params["truncated"] = true.into();
        params["bytes"] = length.into();
    }
    notification("_adapter/invalid_stdout", params)
}

/// `_adapter/agent_restarted`: a new process took over, after the old one exited or the server restarted.
pub(super) fn agent_restarted(reason: &str) -> Bytes {
    notification("_adapter/agent_restarted", json!({"reason": reason}))
}

/// `_adapter/session_restored`: the new process knows the session again. `history` is `kept`, `transcript` (it will be
/// told in words, with the next prompt) or `lost`; `suppressed` repeated updates were left out.
pub(super) fn session_restored(session_id: &str, method: &str, history: &str, suppressed: u64) -> Bytes {
    notification(
        "_adapter/session_restored",
        json!({"sessionId": session_id, "method": method, "history": history, "suppressedUpdates": suppressed}),
    )
}

/// `_adapter/request_resolved`: a request of the agent's is answered; whoever still shows it to a person should stop.
pub(super) fn request_resolved(id: &str, session_id: Option<&str>, by: &str, result: Option<&str>) -> Bytes {
    let outcome = result.and_then(|result| raw_member(result, "outcome")).unwrap_or("null");
    let session = session_id.map(|id| format!(r#","sessionId":{}"#, json!(id))).unwrap_or_default();
    let by = json!(by);
    format!(
        r#"{{"jsonrpc":"2.0","method":"_adapter/request_resolved","params":{{"requestId":{id}{session},"by":{by},"outcome":{outcome}}}}}"#
    )
    .into()
}

/// An answer of ours to the agent.
pub(super) fn result_response(id: &str, result: &str) -> Bytes {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#).into()
}

/// A prompt with a text block in front, for an agent that has to be told what was said before.
pub(super) fn with_words_before(envelope: &Envelope, words: &str) -> Envelope {
    let blocks = envelope.params().and_then(|params| raw_member(params, "prompt")).map(str::trim);
    let Some(rest) = blocks.and_then(|blocks| blocks.strip_prefix('[')) else { return envelope.clone() };
    let comma = if rest.trim_start().starts_with(']') { "" } else { "," };
    let block = json!({"type": "text", "text": words});
    envelope.with_param("prompt", &format!("[{block}{comma}{rest}"))
}

/// A request of ours to the agent.
pub(super) fn request(number: u64, method: &str, params: &str) -> Bytes {
    format!(r#"{{"jsonrpc":"2.0","id":{number},"method":"{method}","params":{params}}}"#).into()
}

fn notification(method: &str, params: Value) -> Bytes {
    json!({"jsonrpc": "2.0", "method": method, "params": params}).to_string().into()
}

/// Changes an envelope where the agent needs it; otherwise it stays as it is.
pub(super) fn apply_quirks(envelope: Envelope, quirks: Quirks) -> Envelope {
    let wanted = match envelope.method() {
        "initialize" => quirks.protocol_version_number,
        "session/new" => quirks.session_new_mcp_servers,
        _ => false,
    };
    let params = envelope.params().filter(|_| wanted).and_then(|params| serde_json::from_str::<Value>(params).ok());
    let Some(Value::Object(mut params)) = params else { return envelope };
    if envelope.method() == "initialize" {
        let number =
            params.get("protocolVersion").and_then(Value::as_str).and_then(|text| text.parse::<serde_json::Number>().ok());
        match number {
            Some(number) => params.insert("protocolVersion".into(), number.into()),
            None => return envelope,
        };
    } else {
        params.entry("mcpServers").or_insert_with(|| json!([]));
    }
    envelope.with_params(&Value::Object(params).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope(text: &str) -> Envelope {
        Envelope::parse(Bytes::copy_from_slice(text.as_bytes())).expect("an envelope")
    }

    #[test]
    fn quirks_change_only_what_they_name() {
        let quirks = Quirks { protocol_version_number: true, session_new_mcp_servers: true };
        let changed = |text: &str| String::from_utf8(apply_quirks(envelope(text), quirks).text().to_vec()).expect("UTF-8");
        assert_eq!(
            changed(r#"{"method":"initialize","id":1,"params":{"protocolVersion":"1.0"}}"#),
            r#"{"method":"initialize","id":1,"params":{"protocolVersion":1.0}}"#
        );
        assert_eq!(
            changed(r#"{"method":"session/new","id":1,"params":{}}"#),
            r#"{"method":"session/new","id":1,"params":{"mcpServers":[]}}"#
        );
        let prompt = r#"{"method":"session/prompt","id":1,"params":{ "a":1}}"#;
        assert_eq!(changed(prompt), prompt);
    }

    #[test]
    fn a_cut_line_says_so() {
        let note = String::from_utf8(invalid_stdout("e", b"abcdef", 6, 3).to_vec()).expect("UTF-8");
        assert!(note.contains(r#""raw":"abc""#) && note.contains(r#""bytes":6"#), "{note}");
    }
}
