//! The row about coming back to a long session: how soon its events and its snapshot are there. The reference keeps no
//! sessions, so it has no such row.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use crate::Result;
use crate::http::EventStream;
use crate::report::{Better, Row, Summary};
use crate::rows::{Context, ms};
use crate::session_api::{Api, REQUEST_LIMIT};
use crate::subject::{Server, Side};

const EVENTS: usize = 10_000;
const RESTARTS: usize = 5;
const WARM_ROUNDS: usize = 5;
const BYTES: usize = 100;

#[derive(Default)]
struct Found {
    cold_first: Vec<f64>,
    cold_all: Vec<f64>,
    cold_snapshot: Vec<f64>,
    first: Vec<f64>,
    all: Vec<f64>,
    middle_first: Vec<f64>,
    middle_all: Vec<f64>,
    snapshot: Vec<f64>,
}

/// A session of 10 000 events, read from the beginning and from its middle, right after a restart of the server and
/// later; ms. A turn of 10 000 updates of tool calls makes it.
pub fn resume(ctx: &Context) -> Result<Vec<Row>> {
    let mut server = ctx.start(Side::Ours)?;
    let addr = server.addr;
    let (id, last) = ctx.solo.block_on(make(addr, ctx.times(EVENTS)))?;
    let path = format!("/v1/sessions/{id}/events");
    let mut found = Found::default();
    for _ in 0..ctx.times(RESTARTS) {
        server.restart()?;
        let (first, all) = ctx.solo.block_on(read(addr, &path, 0, last))?;
        found.cold_first.push(first);
        found.cold_all.push(all);
        ctx.solo.block_on(warm(&server, &id, last, &mut found))?;
        server.restart()?;
        found.cold_snapshot.push(ctx.solo.block_on(snapshot(addr, &id))?);
    }
    let row = |name, list: &[f64]| Row::ours_only(name, "ms", Better::Lower, Summary::median(list));
    let note = format!("{last} events over Server-Sent Events; the reference keeps no sessions; cold: after a restart");
    Ok(vec![
        row("resume, cold, first event", &found.cold_first).note(note),
        row("resume, cold, all events", &found.cold_all),
        row("resume, first event", &found.first),
        row("resume, all events", &found.all),
        row("resume, middle, first event", &found.middle_first),
        row("resume, middle, all events", &found.middle_all),
        row("snapshot, cold", &found.cold_snapshot),
        row("snapshot", &found.snapshot),
    ])
}

/// Gives the session's id and its last position.
async fn make(addr: SocketAddr, events: usize) -> Result<(String, u64)> {
    let mut api = Api::connect(addr).await?;
    let id = api.create("amp").await?;
    let turn = api.submit(&id, &format!("tools {events} {BYTES}")).await?;
    api.wait_ended(&id, &turn).await?;
    let snapshot = api.ask("GET", &format!("/v1/sessions/{id}/snapshot"), b"").await?;
    let last = snapshot["sequence"].as_u64().ok_or("a snapshot without sequence")?;
    Ok((id, last))
}

async fn warm(server: &Server, id: &str, last: u64, found: &mut Found) -> Result<()> {
    let path = format!("/v1/sessions/{id}/events");
    for _ in 0..WARM_ROUNDS {
        let (first, all) = read(server.addr, &path, 0, last).await?;
        found.first.push(first);
        found.all.push(all);
        let (first, all) = read(server.addr, &path, last / 2, last).await?;
        found.middle_first.push(first);
        found.middle_all.push(all);
        found.snapshot.push(snapshot(server.addr, id).await?);
    }
    Ok(())
}

/// From connecting to the first event after a position and to the last one, ms. Every event must come once, in order.
async fn read(addr: SocketAddr, path: &str, after: u64, last: u64) -> Result<(f64, f64)> {
    let begin = Instant::now();
    let mut stream = EventStream::open(addr, path, (after > 0).then_some(after)).await?;
    let (mut reached, mut first, mut in_order) = (after, None, true);
    while reached < last {
        let each = |id: u64, _: &[u8]| {
            first.get_or_insert_with(|| begin.elapsed());
            in_order &= id == reached + 1;
            reached = id;
        };
        let open = timeout(Duration::from_secs(10), stream.read_events(each)).await.map_err(|_| "events are missing")??;
        if !open || !in_order {
            return Err(format!("the stream broke off or has a hole at {reached}").into());
        }
    }
    Ok((ms(first.unwrap_or_default()), ms(begin.elapsed())))
}

async fn snapshot(addr: SocketAddr, id: &str) -> Result<f64> {
    let begin = Instant::now();
    let mut client = crate::http::Client::connect(addr).await?;
    let reply = client.call("GET", &format!("/v1/sessions/{id}/snapshot"), b"", REQUEST_LIMIT).await?;
    if reply.status == 200 { Ok(ms(begin.elapsed())) } else { Err(format!("snapshot: status {}", reply.status).into()) }
}
