//! The rows about long turns: how fast what the agent says reaches a reader of the raw stream and one of the session's.

use std::time::Instant;

use tokio::time::timeout;

use crate::Result;
use crate::lanes::Lanes;
use crate::marks::MarkReader;
use crate::report::{Better, Row, Summary};
use crate::rows::Context;
use crate::session_api::{ACP_PATH, Api, REQUEST_LIMIT};
use crate::subject::{Server, Side};

const ROUNDS: usize = 5;
/// Length of the text in each update.
const BYTES: usize = 100;
const CHUNKS: usize = 100_000;
const TOOL_UPDATES: usize = 20_000;

/// Whose stream is read.
#[derive(Clone, Copy, PartialEq)]
enum Door {
    Acp,
    Sessions,
}

/// What one turn gave.
struct Outcome {
    rate: f64,
    delivered: f64,
    /// Updates per event that the reader got.
    joined: f64,
    peak: f64,
}

#[derive(Default)]
struct Found {
    acp: Vec<Outcome>,
    sessions: Vec<Outcome>,
}

impl Found {
    /// Of the session's stream; the reference has only the raw one.
    fn projected(&self) -> &[Outcome] {
        if self.sessions.is_empty() { &self.acp } else { &self.sessions }
    }
}

/// A turn with many message chunks.
pub fn chunks(ctx: &Context) -> Result<Vec<Row>> {
    let names = ["chunks, raw reader", "chunks, raw, share", "chunks, projected", "chunks, projected, share", "chunks, peak RSS"];
    turn_rows(ctx, names, "chunks", ctx.times(CHUNKS))
}

/// A turn with many updates of tool calls.
pub fn tools(ctx: &Context) -> Result<Vec<Row>> {
    let names = ["tools, raw reader", "tools, raw, share", "tools, projected", "tools, projected, share", "tools, peak RSS"];
    turn_rows(ctx, names, "tools", ctx.times(TOOL_UPDATES))
}

/// Five turns per reader and side, each in a fresh server with one reader; medians.
fn turn_rows(ctx: &Context, names: [&'static str; 5], order: &str, count: usize) -> Result<Vec<Row>> {
    let mut lanes = Lanes::open(|_| Ok(Found::default()));
    for _ in 0..ctx.times(ROUNDS) {
        for door in [Door::Acp, Door::Sessions] {
            lanes.each(|side, found| {
                if (side, door) == (Side::Reference, Door::Sessions) {
                    return Ok(());
                }
                let server = ctx.start(side)?;
                let outcome = ctx.crowd.block_on(measure(&server, door, order, count))?;
                let list = if door == Door::Acp { &mut found.acp } else { &mut found.sessions };
                list.push(outcome);
                Ok(())
            });
        }
    }
    let median = |list: &[Outcome], figure: fn(&Outcome) -> f64| Summary::median(&list.iter().map(figure).collect::<Vec<_>>());
    let acp = |name, unit, figure| lanes.row(name, unit, Better::Higher, |found| median(&found.acp, figure));
    let projected = |name, unit, better, figure| lanes.row(name, unit, better, |found| median(found.projected(), figure));
    let joined = lanes.tell(|found| format!("{:.1}", median(found.projected(), |o| o.joined).value));
    Ok(lanes.report(vec![
        acp(names[0], "updates/s", |o| o.rate),
        acp(names[1], "%", |o| o.delivered),
        projected(names[2], "updates/s", Better::Higher, |o| o.rate)
            .note(format!("/v1/sessions/{{id}}/events beside the reference's raw stream; updates per event: {joined}")),
        projected(names[3], "%", Better::Higher, |o| o.delivered),
        projected(names[4], "MiB", Better::Lower, |o| o.peak),
    ]))
}

async fn measure(server: &Server, door: Door, order: &str, count: usize) -> Result<Outcome> {
    let mut api = Api::connect(server.addr).await?;
    api.initialize("amp").await?;
    let session = api.acp_session().await?;
    let path = match door {
        Door::Acp => ACP_PATH.to_owned(),
        Door::Sessions => format!("/v1/sessions/{}/events", api.newest().await?),
    };
    let mut reader = MarkReader::open(server.addr, &path).await?;
    let reading = tokio::spawn(async move { reader.read_all(count).await });
    let begin = Instant::now();
    let text = format!("{order} {count} {BYTES}");
    // The reference may lose the answer; what counts is what the reader gets.
    let posting = tokio::spawn(async move { timeout(REQUEST_LIMIT, api.acp_prompt(&session, &text)).await });
    let tally = reading.await??;
    let outcome = Outcome {
        rate: tally.distinct as f64 / (tally.last - begin).as_secs_f64().max(1e-6),
        delivered: 100.0 * tally.distinct as f64 / count as f64,
        joined: tally.distinct as f64 / tally.events.max(1) as f64,
        peak: server.memory_mib("VmHWM")?,
    };
    posting.abort();
    Ok(outcome)
}
