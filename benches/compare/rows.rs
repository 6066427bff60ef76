//! The rows about the server itself and about small requests: start, memory, size, echo, bootstrap.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::Result;
use crate::http::{Client, EventStream};
use crate::report::{Better, Row, Summary};
use crate::subject::{Pair, Server, Side};

/// No single request of these rows may take longer.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);

/// What every row needs.
pub struct Context {
    pub programs: Pair<PathBuf>,
    /// Fewer repetitions, for trying the benchmark out.
    pub quick: bool,
    /// One thread: for latencies, so that no wake-up crosses threads.
    pub solo: Runtime,
    /// Two threads: for readers of event streams.
    pub crowd: Runtime,
}

impl Context {
    /// The number of repetitions, a fifth of it (at least 2) in a quick run.
    pub fn times(&self, full: usize) -> usize {
        if self.quick { (full / 5).max(2) } else { full }
    }

    /// Starts a server of this side in a fresh home.
    pub fn start(&self, side: Side) -> Result<Server> {
        self.start_with(side, &[])
    }

    /// The same with some variables.
    pub fn start_with(&self, side: Side, variables: &[(&'static str, &'static str)]) -> Result<Server> {
        Server::start(side, self.programs.get(side), variables)
    }

    /// Starts both with the mock agent ready.
    pub fn start_both(&self) -> Result<Pair<Server>> {
        Pair::build(|side| self.solo.block_on(self.start(side)?.with_mock()))
    }

    /// Measures `times` figures for each side, taking turns.
    pub fn alternate(&self, times: usize, mut measure: impl FnMut(Side) -> Result<f64>) -> Result<Pair<Vec<f64>>> {
        let mut samples = Pair::<Vec<f64>>::default();
        for _ in 0..times {
            for side in Side::BOTH {
                samples.get_mut(side).push(measure(side)?);
            }
        }
        Ok(samples)
    }
}

/// Milliseconds as a fraction.
pub fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Median of 15 starts in a fresh home, from spawn to the first 200 of `GET /v1/health`; ms.
pub fn start(ctx: &Context) -> Result<Vec<Row>> {
    let samples = ctx.alternate(ctx.times(15), |side| Ok(ms(ctx.start(side)?.start_time)))?;
    Ok(vec![Row::of_medians("start to healthy", "ms", Better::Lower, &samples)])
}

/// Median of 5 of `VmRSS`, three seconds after the first healthy answer; MiB. Of ours, keeper and server together.
pub fn idle_memory(ctx: &Context) -> Result<Vec<Row>> {
    let samples = ctx.alternate(ctx.times(5), |side| {
        let server = ctx.start(side)?;
        std::thread::sleep(Duration::from_secs(3));
        server.memory_mib("VmRSS")
    })?;
    Ok(vec![Row::of_medians("idle RSS", "MiB", Better::Lower, &samples)])
}

/// Size of the executable; MiB.
pub fn binary_size(ctx: &Context) -> Result<Vec<Row>> {
    let samples = ctx.alternate(1, |side| Ok(fs::metadata(ctx.programs.get(side))?.len() as f64 / (1024.0 * 1024.0)))?;
    Ok(vec![Row::of_medians("binary size", "MiB", Better::Lower, &samples)])
}

/// A JSON-RPC request as bytes.
pub fn rpc(id: u64, method: &str, params: &Value) -> Vec<u8> {
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string().into_bytes()
}

/// Sends one echo request and checks that it came back; returns the time to the last byte of the answer.
async fn echo_once(client: &mut Client, path: &str, id: u64) -> Result<Duration> {
    let body = rpc(id, "bench/echo", &json!({"text": "hello", "n": id}));
    let begin = Instant::now();
    let reply = client.call("POST", path, &body, REQUEST_LIMIT).await?;
    let time = begin.elapsed();
    let value: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
    if reply.status != 200 || value["id"] != id || value["result"]["echoed"]["method"] != "bench/echo" {
        let text = String::from_utf8_lossy(&reply.body);
        return Err(format!("echo answered {}: {text:.200}", reply.status).into());
    }
    Ok(time)
}

/// Counts the events of one stream until it is dropped.
struct Subscriber {
    count: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Subscriber {
    fn attach(ctx: &Context, addr: SocketAddr, path: &'static str) -> Result<Self> {
        let count = Arc::new(AtomicU64::new(0));
        let counter = count.clone();
        let mut stream = ctx.crowd.block_on(EventStream::open(addr, path, None))?;
        let task = ctx.crowd.spawn(async move {
            let each = |_: u64, _: &[u8]| {
                counter.fetch_add(1, Ordering::Relaxed);
            };
            while let Ok(true) = stream.read_events(each).await {}
        });
        Ok(Self { count, task })
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One side of the echo rows: a server, its connection, what was measured.
struct Lane {
    server: Server,
    client: Client,
    subscriber: Option<Subscriber>,
    blocks: Vec<Vec<f64>>,
    sent: u64,
}

const ECHO_PATH: &str = "/v1/acp/bench-echo";
const ECHO_WARM_UP: usize = 200;
const ECHO_BLOCK: usize = 500;

impl Lane {
    fn open(ctx: &Context, server: Server, subscribed: bool) -> Result<Self> {
        let client = ctx.solo.block_on(Client::connect(server.addr))?;
        let mut lane = Self { server, client, subscriber: None, blocks: Vec::new(), sent: 0 };
        ctx.solo.block_on(async {
            let path = format!("{ECHO_PATH}?agent=mock");
            echo_once(&mut lane.client, &path, 0).await
        })?;
        lane.sent = 1;
        if subscribed {
            lane.subscriber = Some(Subscriber::attach(ctx, lane.server.addr, ECHO_PATH)?);
        }
        ctx.solo.block_on(lane.run_block(ECHO_WARM_UP))?;
        lane.blocks.clear();
        Ok(lane)
    }

    async fn run_block(&mut self, count: usize) -> Result<()> {
        let mut block = Vec::with_capacity(count);
        for _ in 0..count {
            block.push(ms(echo_once(&mut self.client, ECHO_PATH, self.sent).await?));
            self.sent += 1;
        }
        self.blocks.push(block);
        Ok(())
    }
}

/// Round trip of one small request through the mock agent over one keep-alive connection, 3000 per side after 200
/// for warming up, in blocks of 500 that take turns; p50 and p99 over all, ms. The spread is that of the blocks.
fn echo_rows(ctx: &Context, names: [&'static str; 2], subscribed: bool) -> Result<Vec<Row>> {
    let servers = ctx.start_both()?;
    let mut lanes =
        Pair { ours: Lane::open(ctx, servers.ours, subscribed)?, reference: Lane::open(ctx, servers.reference, subscribed)? };
    for _ in 0..ctx.times(6) {
        for side in Side::BOTH {
            ctx.solo.block_on(lanes.get_mut(side).run_block(ECHO_BLOCK))?;
        }
    }
    let row = |name, q| {
        let sides =
            Pair { ours: Summary::quantile(&lanes.ours.blocks, q), reference: Summary::quantile(&lanes.reference.blocks, q) };
        Row::new(name, "ms", Better::Lower, sides)
    };
    let mut rows = vec![row(names[0], 0.5), row(names[1], 0.99)];
    if subscribed {
        std::thread::sleep(Duration::from_millis(500));
        rows[0].notes.push(format!(
            "events seen by the subscriber: ours {}, reference {}",
            seen(&lanes.ours),
            seen(&lanes.reference)
        ));
    }
    Ok(rows)
}

/// "seen of expected": the mock agent writes two lines for each request.
fn seen(lane: &Lane) -> String {
    let count = lane.subscriber.as_ref().map_or(0, |s| s.count.load(Ordering::Relaxed));
    format!("{count} of {}", 2 * lane.sent)
}

/// The echo rows with nobody on the event stream.
pub fn echo(ctx: &Context) -> Result<Vec<Row>> {
    echo_rows(ctx, ["ACP echo p50", "ACP echo p99"], false)
}

/// The echo rows with one subscriber on the event stream.
pub fn echo_subscribed(ctx: &Context) -> Result<Vec<Row>> {
    echo_rows(ctx, ["ACP echo + 1 SSE p50", "ACP echo + 1 SSE p99"], true)
}

/// First request to a new server id, which starts an agent process, over an open connection; median of 20, ms. Each
/// is deleted before the next; the reference does not answer that, so nobody waits for it longer than 100 ms.
pub fn bootstrap(ctx: &Context) -> Result<Vec<Row>> {
    let servers = ctx.start_both()?;
    let mut clients = Pair::build(|side| ctx.solo.block_on(Client::connect(servers.get(side).addr)))?;
    let mut round = 0;
    let samples = ctx.alternate(ctx.times(20), |side| {
        round += 1;
        let path = format!("/v1/acp/bench-boot-{round}");
        ctx.solo.block_on(async {
            let time = echo_once(clients.get_mut(side), &format!("{path}?agent=mock"), 1).await?;
            let mut closer = Client::connect(servers.get(side).addr).await?;
            let _ = closer.call("DELETE", &path, b"", Duration::from_millis(100)).await;
            drop(closer);
            tokio::time::sleep(Duration::from_millis(30)).await;
            Ok(ms(time))
        })
    })?;
    Ok(vec![Row::of_medians("ACP bootstrap p50", "ms", Better::Lower, &samples)])
}
