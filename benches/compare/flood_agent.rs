//! The synthetic agent both servers run: the benchmark's own binary, started with `--flood-agent`.
//!
//! It speaks newline-delimited JSON-RPC on stdio. Like the mock agent it answers every message with a `mock/echo`
//! notification and every request with `result.echoed`. A request `flood {"count": N, "bytes": B}` instead writes
//! N `session/update` notifications of B bytes each, as fast as the pipe takes them, and then the response.

use std::io::{self, BufRead, BufWriter, Write};

use serde_json::{Value, json};

use crate::Result;

/// Stands in front of the running number in each flood notification, so that a reader can tell them apart.
pub const MARK: &str = "flood-";
/// Digits of that number.
pub const MARK_DIGITS: usize = 8;

/// Serves stdin until it ends.
pub fn run() -> Result<()> {
    let mut out = BufWriter::with_capacity(64 * 1024, io::stdout().lock());
    for line in io::stdin().lock().lines() {
        let Ok(message) = serde_json::from_str::<Value>(&line?) else {
            continue;
        };
        if message["method"] == "flood" {
            flood(&mut out, &message)?;
        } else {
            echo(&mut out, &message)?;
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
    writeln!(out, "{}", json!({"jsonrpc": "2.0", "id": request["id"], "result": {"flooded": count}}))?;
    Ok(())
}

/// The running number in a flood notification, `None` in any other message.
pub fn mark_in(data: &[u8]) -> Option<usize> {
    let at = data.windows(MARK.len()).position(|w| w == MARK.as_bytes())? + MARK.len();
    std::str::from_utf8(data.get(at..at + MARK_DIGITS)?).ok()?.parse().ok()
}
