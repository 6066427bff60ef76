//! The synthetic agent both servers run: the benchmark's own binary, started with `--flood-agent`.
//!
//! It speaks newline-delimited JSON-RPC on stdio. Like the mock agent it answers every message with a `mock/echo`
//! notification and every request with `result.echoed`. A request `flood {"count": N, "bytes": B}` instead writes
//! N `session/update` notifications of B bytes each, as fast as the pipe takes them, and then the response. Of ACP it
//! knows `initialize`, `session/new`, and `session/prompt` with one of three texts:
//!
//! | prompt | updates |
//! |---|---|
//! | `say N` | one message chunk that carries the number N |
//! | `chunks N B` | N message chunks with texts of B bytes |
//! | `tools N B` | N updates of tool calls with contents of B bytes, [`UPDATES_PER_CALL`] of each call |

use std::io::{self, BufRead, BufWriter, Write};

use serde_json::{Value, json};

use crate::Result;

/// Stands in front of the running number in each flood notification, so that a reader can tell them apart.
pub const MARK: &str = "flood-";
/// Digits of that number.
pub const MARK_DIGITS: usize = 8;
/// The first begins a call, the last completes it.
const UPDATES_PER_CALL: u64 = 200;

/// Serves stdin until it ends.
pub fn run() -> Result<()> {
    let mut out = BufWriter::with_capacity(64 * 1024, io::stdout().lock());
    let mut sessions = 0;
    for line in io::stdin().lock().lines() {
        let Ok(message) = serde_json::from_str::<Value>(&line?) else {
            continue;
        };
        match message["method"].as_str() {
            Some("flood") => flood(&mut out, &message)?,
            Some("initialize") => reply(&mut out, &message, &json!({"protocolVersion": 1, "agentCapabilities": {}}))?,
            Some("session/new") => {
                sessions += 1;
                reply(&mut out, &message, &json!({"sessionId": format!("bench-{sessions}")}))?;
            }
            Some("session/prompt") => prompt(&mut out, &message)?,
            _ => echo(&mut out, &message)?,
        }
        out.flush()?;
    }
    Ok(())
}

fn echo(out: &mut impl Write, message: &Value) -> Result<()> {
    let echo = json!({"jsonrpc": "2.0", "method": "mock/echo", "params": {"message": message}});
    writeln!(out, "{echo}")?;
    if message.get("method").is_some() && message.get("id").is_some() {
        let reply = json!({"jsonrpc": "2.0", "id": message["id"], "result": {"echoed": message}});
        writeln!(out, "{reply}")?;
    }
    Ok(())
}

fn flood(out: &mut impl Write, request: &Value) -> Result<()> {
    let count = request["params"]["count"].as_u64().unwrap_or(0);
    let bytes = request["params"]["bytes"].as_u64().unwrap_or(0);
    let frame = |text: &str| {
        json!({"jsonrpc": "2.0", "method": "session/update", "params": {"sessionId": "bench", "update": {
            "sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": text}}}})
        .to_string()
    };
    let bare = frame("@").len() - 1 + MARK.len() + MARK_DIGITS;
    let padding = "x".repeat(usize::try_from(bytes)?.saturating_sub(bare));
    let whole = frame("@");
    let (before, after) = whole.split_once('@').ok_or("no place for the text")?;
    for n in 0..count {
        writeln!(out, "{before}{MARK}{n:0width$}{padding}{after}", width = MARK_DIGITS)?;
    }
    reply(out, request, &json!({"flooded": count}))
}

fn reply(out: &mut impl Write, request: &Value, result: &Value) -> Result<()> {
    Ok(writeln!(out, "{}", json!({"jsonrpc": "2.0", "id": request["id"], "result": result}))?)
}

fn prompt(out: &mut impl Write, request: &Value) -> Result<()> {
    let params = &request["params"];
    let text = params["prompt"][0]["text"].as_str().unwrap_or_default();
    let mut words = text.split(' ');
    let order = words.next().unwrap_or_default();
    let mut number = || words.next().and_then(|word| word.parse().ok()).unwrap_or(0u64);
    let (count, bytes) = (number(), usize::try_from(number())?);
    let session = params["sessionId"].as_str().unwrap_or_default();
    match order {
        "chunks" => updates(out, session, 0..count, bytes, |_| chunk())?,
        "tools" => updates(out, session, 0..count, bytes, tool)?,
        _ => updates(out, session, count..count + 1, 0, |_| chunk())?,
    }
    reply(out, request, &json!({"stopReason": "end_turn"}))
}

/// Writes an update per number; an `@` in it stands for a text of so many bytes with the mark.
fn updates(
    out: &mut impl Write,
    session: &str,
    numbers: std::ops::Range<u64>,
    bytes: usize,
    update: impl Fn(u64) -> String,
) -> Result<()> {
    let padding = "x".repeat(bytes.saturating_sub(MARK.len() + MARK_DIGITS));
    for n in numbers {
        let update = update(n);
        let (before, after) = update.split_once('@').ok_or("no place for the text")?;
        write!(out, r#"{{"jsonrpc":"2.0","method":"session/update","params":{{"sessionId":"{session}","update":{before}"#)?;
        writeln!(out, "{MARK}{n:0width$}{padding}{after}}}}}", width = MARK_DIGITS)?;
    }
    Ok(())
}

fn chunk() -> String {
    r#"{"sessionUpdate":"agent_message_chunk","content":{"type":"text","text":"@"}}"#.to_owned()
}

fn tool(n: u64) -> String {
    let call = n / UPDATES_PER_CALL;
    let (kind, rest) = match n % UPDATES_PER_CALL {
        0 => ("tool_call", r#","title":"Run the tests","kind":"execute","status":"pending","rawInput":{"command":"make test"}"#),
        n if n + 1 == UPDATES_PER_CALL => ("tool_call_update", r#","status":"completed""#),
        _ => ("tool_call_update", r#","status":"in_progress""#),
    };
    let content = r#"[{"type":"content","content":{"type":"text","text":"@"}}]"#;
    format!(r#"{{"sessionUpdate":"{kind}","toolCallId":"call-{call}"{rest},"content":{content}}}"#)
}

/// The running number in a flood notification, `None` in any other message.
pub fn mark_in(data: &[u8]) -> Option<usize> {
    let at = data.windows(MARK.len()).position(|w| w == MARK.as_bytes())? + MARK.len();
    std::str::from_utf8(data.get(at..at + MARK_DIGITS)?).ok()?.parse().ok()
}
