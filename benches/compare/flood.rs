//! The rows about many events: how fast they reach one reader and eight, whether all arrive, what is kept.
//!
//! The flood agent writes its notifications as fast as the server takes them. Each reader behaves like an
//! `EventSource`: when the server ends its stream it opens it again with `Last-Event-ID`. A reader is done when it
//! has every event, and gives up when nothing came for [`STALL`] or after [`CUT_OFF`].

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout_at};

use crate::Result;
use crate::flood_agent::mark_in;
use crate::http::{Client, EventStream};
use crate::report::{Better, Row};
use crate::rows::{Context, rpc};
use crate::subject::{Pair, Server, Side};

const PATH: &str = "/v1/acp/bench-flood";
/// Notifications in one flood, and the length of each.
const COUNT: usize = 100_000;
const BYTES: usize = 200;
/// Floods per side and row: single ones differ by a factor of two, as three programs share the cores.
const ROUNDS: usize = 5;
/// Echoes before the flood, each of which makes two events: one starts the agent, one finds every reader attached.
const HELLOS: usize = 2;
/// A reader without a new event for this long has lost what is missing.
const STALL: Duration = Duration::from_secs(3);
/// Nobody reads longer than this.
const CUT_OFF: Duration = Duration::from_secs(20);
const SETUP_LIMIT: Duration = Duration::from_secs(10);

/// Events per second to one reader.
pub fn one_reader(ctx: &Context) -> Result<Vec<Row>> {
    const NAMES: [&str; 4] = ["flood, 1 reader", "delivered, 1 reader", "replayed, 1 reader", "peak RSS, 1 reader"];
    flood_rows(ctx, NAMES, 1)
}

/// Events per second to eight readers at once.
pub fn eight_readers(ctx: &Context) -> Result<Vec<Row>> {
    const NAMES: [&str; 4] = ["flood, 8 readers", "delivered, 8 readers", "replayed, 8 readers", "peak RSS, 8 readers"];
    flood_rows(ctx, NAMES, 8)
}

/// What one flood gave.
struct Outcome {
    /// Events that the average reader got per second, from the POST to the last event of the last reader.
    rate: f64,
    /// Distinct events received by all readers, in per cent of what there was.
    delivered: f64,
    reopened: u32,
    /// Distinct flood notifications that a new reader got afterwards with `Last-Event-ID: 0`.
    replayed: usize,
    /// From that request to the last event it gave.
    replay_time: Duration,
    /// `VmHWM` at the end, MiB.
    peak: f64,
}

/// Five floods per side, each in a fresh server, taking turns; medians.
fn flood_rows(ctx: &Context, names: [&'static str; 4], readers: usize) -> Result<Vec<Row>> {
    let mut outcomes = Pair::<Vec<Outcome>>::default();
    for _ in 0..ctx.times(ROUNDS) {
        for side in Side::BOTH {
            let server = ctx.start(side)?;
            let outcome = ctx.crowd.block_on(measure(&server, readers, ctx.times(COUNT)))?;
            outcomes.get_mut(side).push(outcome);
        }
    }
    let row = |name, unit, better, figure: &dyn Fn(&Outcome) -> f64| {
        let samples =
            Pair { ours: outcomes.ours.iter().map(figure).collect(), reference: outcomes.reference.iter().map(figure).collect() };
        Row::of_medians(name, unit, better, &samples)
    };
    let total = ctx.times(COUNT);
    Ok(vec![
        row(names[0], "events/s", Better::Higher, &|o| o.rate),
        row(names[1], "%", Better::Higher, &|o| o.delivered).note(delivery_note(&outcomes)),
        row(names[2], "events", Better::Higher, &|o| o.replayed as f64).note(replay_note(&outcomes, total)),
        row(names[3], "MiB", Better::Lower, &|o| o.peak),
    ])
}

fn delivery_note(outcomes: &Pair<Vec<Outcome>>) -> String {
    let tell = |list: &[Outcome]| {
        let reopened: u32 = list.iter().map(|o| o.reopened).sum();
        let complete = list.iter().filter(|o| o.delivered >= 100.0).count();
        format!("{complete} of {} runs complete, streams reopened {reopened} times", list.len())
    };
    format!("ours {}; reference {}", tell(&outcomes.ours), tell(&outcomes.reference))
}

fn replay_note(outcomes: &Pair<Vec<Outcome>>, total: usize) -> String {
    let tell = |list: &[Outcome]| {
        let all = if list.iter().all(|o| o.replayed == total) { "yes" } else { "no" };
        let slowest = list.iter().map(|o| o.replay_time).max().unwrap_or_default();
        format!("{all} (slowest {:.2} s)", slowest.as_secs_f64())
    };
    let (ours, reference) = (tell(&outcomes.ours), tell(&outcomes.reference));
    format!("all {total} again from Last-Event-ID 0: ours {ours}; reference {reference}")
}

/// Attaches the readers, floods, waits for them, then looks at what a new reader is given.
async fn measure(server: &Server, readers: usize, count: usize) -> Result<Outcome> {
    let addr = server.addr;
    let mut client = Client::connect(addr).await?;
    hello(&mut client, "?agent=amp").await?;
    let (ready_in, mut ready) = mpsc::channel(readers);
    let (go, go_out) = watch::channel(0);
    let mut tasks = JoinSet::new();
    for _ in 0..readers {
        let (ready_in, go_out) = (ready_in.clone(), go_out.clone());
        tasks.spawn(async move { Reader::attach(addr).await?.follow(ready_in, go_out, count + 1).await });
    }
    hello(&mut client, "").await?;
    let base = wait_ready(&mut ready, &mut tasks, readers).await?;
    let begin = Instant::now();
    go.send(base)?;
    let flood = rpc(99, "flood", &json!({"count": count, "bytes": BYTES}));
    let post = tokio::spawn(async move { client.call("POST", PATH, &flood, CUT_OFF).await.map(|r| r.status) });
    let mut tallies = Vec::new();
    while let Some(tally) = tasks.join_next().await {
        tallies.push(tally??);
    }
    post.abort();
    let (replayed, replay_time) = replay(addr, count).await?;
    let got: usize = tallies.iter().map(|t| t.distinct).sum();
    let last = tallies.iter().map(|t| t.last).max().unwrap_or(begin);
    Ok(Outcome {
        rate: got as f64 / readers as f64 / (last - begin).as_secs_f64().max(1e-6),
        delivered: 100.0 * got as f64 / (readers * (count + 1)) as f64,
        reopened: tallies.iter().map(|t| t.reopened).sum(),
        replayed,
        replay_time,
        peak: server.memory_mib("VmHWM")?,
    })
}

async fn hello(client: &mut Client, query: &str) -> Result<()> {
    let body = rpc(1, "bench/hello", &json!({}));
    let reply = client.call("POST", &format!("{PATH}{query}"), &body, SETUP_LIMIT).await?;
    match reply.status {
        200 => Ok(()),
        other => Err(format!("flood agent: {other}: {:.200}", String::from_utf8_lossy(&reply.body)).into()),
    }
}

/// Waits until every reader has seen both hellos; returns the newest id any of them saw.
async fn wait_ready(ready: &mut mpsc::Receiver<u64>, tasks: &mut JoinSet<Result<Tally>>, readers: usize) -> Result<u64> {
    let (mut base, mut waiting) = (0, readers);
    while waiting > 0 {
        tokio::select! {
            Some(id) = ready.recv() => { base = base.max(id); waiting -= 1; }
            Some(done) = tasks.join_next() => {
                done??;
                return Err("a reader left before the flood".into());
            }
            () = sleep(SETUP_LIMIT) => return Err("readers did not see the first events".into()),
        }
    }
    Ok(base)
}

/// What one reader got.
struct Tally {
    distinct: usize,
    last: Instant,
    reopened: u32,
}

/// One reader of the flood.
struct Reader {
    addr: SocketAddr,
    stream: EventStream,
    last_id: u64,
    tally: Tally,
}

impl Reader {
    async fn attach(addr: SocketAddr) -> Result<Self> {
        Self::resume(addr, None).await
    }

    async fn resume(addr: SocketAddr, last_id: Option<u64>) -> Result<Self> {
        let stream = EventStream::open(addr, PATH, last_id).await?;
        let tally = Tally { distinct: 0, last: Instant::now(), reopened: 0 };
        Ok(Self { addr, stream, last_id: 0, tally })
    }

    /// Sees the hellos, says so, waits for the word, then reads `expected` events with ids above the base.
    async fn follow(mut self, ready: mpsc::Sender<u64>, mut go: watch::Receiver<u64>, expected: usize) -> Result<Tally> {
        let mut hellos = 0;
        self.read_until(SETUP_LIMIT, SETUP_LIMIT, |_, _| {
            hellos += 1;
            (true, hellos >= 2 * HELLOS)
        })
        .await?;
        ready.send(self.last_id).await?;
        let base = *go.wait_for(|base| *base > 0).await?;
        self.tally = Tally { distinct: 0, last: Instant::now(), reopened: 0 };
        let (mut seen, mut distinct) = (vec![false; expected], 0);
        self.read_until(STALL, CUT_OFF, |id, _| {
            let place = id.checked_sub(base + 1).and_then(|n| seen.get_mut(usize::try_from(n).ok()?));
            let new = place.is_some_and(|p| !std::mem::replace(p, true));
            distinct += usize::from(new);
            (new, distinct == expected)
        })
        .await?;
        Ok(self.tally)
    }

    /// Reads until `take` says it is enough, nothing new came for `stall`, or `cut_off` is over. `take` answers
    /// whether an event is new and whether it was the last one wanted.
    async fn read_until(
        &mut self,
        stall: Duration,
        cut_off: Duration,
        mut take: impl FnMut(u64, &[u8]) -> (bool, bool),
    ) -> Result<()> {
        let (end, mut quiet_since, mut enough) = (Instant::now() + cut_off, Instant::now(), false);
        while !enough {
            let (mut fresh, mut newest) = (0, self.last_id);
            let read = self.stream.read_events(|id, data| {
                let (new, last) = take(id, data);
                fresh += usize::from(new);
                enough |= last;
                newest = newest.max(id);
            });
            let open = match timeout_at(end.min(quiet_since + stall).into(), read).await {
                Err(_) => return Ok(()),
                Ok(open) => open.unwrap_or(false),
            };
            self.last_id = newest;
            if fresh > 0 {
                quiet_since = Instant::now();
                self.tally.last = quiet_since;
                self.tally.distinct += fresh;
            }
            if !open && !enough {
                self.reopen(end).await?;
            }
        }
        Ok(())
    }

    /// Opens the stream again after the last event seen. A short pause keeps a broken server from being hammered.
    async fn reopen(&mut self, end: Instant) -> Result<()> {
        sleep(Duration::from_millis(2)).await;
        if Instant::now() >= end {
            return Err("the stream kept ending".into());
        }
        self.stream = EventStream::open(self.addr, PATH, Some(self.last_id)).await?;
        self.tally.reopened += 1;
        Ok(())
    }
}

/// Reads everything from `Last-Event-ID: 0` and counts the distinct flood notifications by their own number, so
/// that this check does not rest on the ids.
async fn replay(addr: SocketAddr, count: usize) -> Result<(usize, Duration)> {
    let begin = Instant::now();
    let mut reader = Reader::resume(addr, Some(0)).await?;
    let (mut seen, mut distinct) = (vec![false; count], 0);
    reader
        .read_until(STALL, CUT_OFF, |_, data| {
            let place = mark_in(data).and_then(|n| seen.get_mut(n));
            let new = place.is_some_and(|p| !std::mem::replace(p, true));
            distinct += usize::from(new);
            (new, distinct == count)
        })
        .await?;
    Ok((distinct, reader.tally.last - begin))
}
