//! The rows seen through the published TypeScript SDK, measured by `sdk.mjs` in Node.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::Result;
use crate::report::{Better, Row};
use crate::rows::Context;
use crate::subject::{Pair, Side, run_bounded};

/// The whole script, ten rounds of both sides, has to end within this.
const SCRIPT_LIMIT: Duration = Duration::from_secs(90);

/// `createSession({agent: "mock"})` to the first event from the agent and to its own end, and `dispose()`; median of
/// 7, ms. One Node process measures both sides, after three rounds to warm up; who goes first changes each round.
pub fn sdk(ctx: &Context) -> Result<Vec<Row>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sdk_dir = std::env::var_os("SDK_DIR").map_or_else(|| root.join("tests/npm"), Into::into);
    if !sdk_dir.join("node_modules/sandbox-agent").is_dir() {
        return Err(format!("no sandbox-agent package below {} (set SDK_DIR)", sdk_dir.display()).into());
    }
    let servers = ctx.start_both()?;
    let mut command = Command::new("node");
    command.arg(root.join("benches/compare/sdk.mjs")).env("SDK_DIR", &sdk_dir);
    for side in Side::BOTH {
        command.arg(format!("http://{}", servers.get(side).addr));
    }
    command.arg(ctx.times(7).to_string());
    let found = run_script(&mut command)?;
    let row = |name, key: &str| {
        let samples = Pair { ours: figures(&found["ours"][key]), reference: figures(&found["reference"][key]) };
        Row::of_medians(name, "ms", Better::Lower, &samples)
    };
    Ok(vec![row("SDK first agent event", "firstEventMs"), row("SDK createSession", "createMs"), row("SDK dispose", "disposeMs")])
}

fn figures(list: &Value) -> Vec<f64> {
    list.as_array().into_iter().flatten().filter_map(Value::as_f64).collect()
}

/// Runs the script within its limit and reads its last line as JSON.
fn run_script(command: &mut Command) -> Result<Value> {
    let text = run_bounded(command, SCRIPT_LIMIT)?;
    let last = text.lines().last().unwrap_or_default();
    serde_json::from_str(last).map_err(|_| format!("script gave no result: {:.400}", text.trim()).into())
}
