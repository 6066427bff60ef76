//! The rows about a server that is killed: how long nobody is answered. The reference takes everything with it.

use std::time::Duration;

use serde_json::json;

use crate::Result;
use crate::http::Client;
use crate::report::{Better, Row, Summary};
use crate::rows::{Context, ms};
use crate::subject::{Server, Side};

const REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// Between two kills: a server that dies sooner again and again gets into safe mode.
const STEADY: Duration = Duration::from_millis(300);

/// Median of 20 kills with SIGKILL, to the first 200 of `GET /v1/health`, which is asked for without pause; ms. With nothing,
/// and with 40 processes, half of them in terminals, of which each is there afterwards.
pub fn kills(ctx: &Context) -> Result<Vec<Row>> {
    let bare = of_kills(ctx, 0)?;
    let busy = of_kills(ctx, 40)?;
    let row = |name, times: &[f64]| Row::ours_only(name, "ms", Better::Lower, Summary::median(times));
    Ok(vec![row("SIGKILL to healthy", &bare), row("SIGKILL to healthy, 40 processes", &busy)])
}

fn of_kills(ctx: &Context, processes: usize) -> Result<Vec<f64>> {
    let mut server = ctx.start_with(Side::Ours, &[("SANDBOXD_KEEPER_STEADY_MS", "100")])?;
    let pids = ctx.solo.block_on(fill(&server, processes))?;
    let mut times = Vec::new();
    for _ in 0..ctx.times(20) {
        std::thread::sleep(STEADY);
        times.push(ms(server.kill()?));
        if ctx.solo.block_on(running(&server))? != pids {
            return Err("a process did not outlive its server".into());
        }
    }
    Ok(times)
}

async fn fill(server: &Server, processes: usize) -> Result<Vec<u64>> {
    let mut client = Client::connect(server.addr).await?;
    for number in 0..processes {
        let body = json!({"command": "sleep", "args": ["1000"], "tty": number % 2 == 0}).to_string();
        let reply = client.call("POST", "/v1/processes", body.as_bytes(), REQUEST_LIMIT).await?;
        if reply.status != 200 {
            return Err(format!("creating a process: status {}", reply.status).into());
        }
    }
    running(server).await
}

/// The pids of all that run.
async fn running(server: &Server) -> Result<Vec<u64>> {
    let mut client = Client::connect(server.addr).await?;
    let reply = client.call("GET", "/v1/processes", b"", REQUEST_LIMIT).await?;
    let list: serde_json::Value = serde_json::from_slice(&reply.body)?;
    let all = list["processes"].as_array().into_iter().flatten();
    Ok(all.filter(|process| process["status"] == "running").filter_map(|process| process["pid"].as_u64()).collect())
}
