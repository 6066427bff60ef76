//! The rows about many small processes: `run`, creation, and what five thousand finished ones cost.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::Result;
use crate::http::{Client, Reply};
use crate::lanes::Lanes;
use crate::process_api::{Api, REQUEST_LIMIT, json_of};
use crate::report::{Better, Row, Summary, quantile};
use crate::rows::{Context, ms};
use crate::subject::{Server, Side};

/// Both paths take the same body.
const TRUE: &[u8] = br#"{"command":"/bin/true"}"#;
const RUN: Request = Request { path: "/v1/processes/run", pause: Duration::ZERO, is_good: ran_well };
/// The pause lets the process end. Without it the end of one and the start of the next share the cores now and then,
/// and the median is one of two figures a third apart.
const CREATE: Request = Request { path: "/v1/processes", pause: Duration::from_millis(1), is_good: was_created };
const WARM_UP: usize = 50;
const RUN_BLOCK: usize = 100;
const RUN_BLOCKS: usize = 10;
/// Shorter, as the figure depends on how far the one before has got with ending.
const CREATE_BLOCK: usize = 50;
const CREATE_BLOCKS: usize = 20;
/// Finished processes in that row, made in blocks, and how many are asked for at once.
const FINISHED_BLOCK: usize = 500;
const FINISHED_BLOCKS: usize = 10;
const IN_FLIGHT: usize = 16;
/// Far more than can run at once when [`IN_FLIGHT`] are asked for: the limit is not what is measured.
const RUNNING_LIMIT: usize = 1000;
const LISTINGS: usize = 20;

/// What is asked again and again with [`TRUE`] as its body.
struct Request {
    path: &'static str,
    /// Time after each answer in which nothing is asked.
    pause: Duration,
    is_good: fn(&Value) -> bool,
}

impl Request {
    fn check(&self, reply: &Reply) -> Result<()> {
        let path = self.path;
        let value = json_of(reply).map_err(|e| format!("POST {path}: {e}"))?;
        match (self.is_good)(&value) {
            true => Ok(()),
            false => Err(format!("POST {path}: unexpected {value:.200}").into()),
        }
    }
}

/// One side of the rows about latency.
struct Lane {
    server: Server,
    client: Client,
    blocks: Vec<Vec<f64>>,
}

impl Lane {
    fn open(ctx: &Context, side: Side) -> Result<Self> {
        let server = ctx.start(side)?;
        let client = ctx.solo.block_on(Client::connect(server.addr))?;
        Ok(Self { server, client, blocks: Vec::new() })
    }

    /// Times `count` requests, each to the last byte of its answer, and checks every answer.
    async fn run_block(&mut self, request: &Request, count: usize) -> Result<()> {
        let mut block = Vec::with_capacity(count);
        for _ in 0..count {
            let begin = Instant::now();
            let reply = self.client.call("POST", request.path, TRUE, REQUEST_LIMIT).await?;
            block.push(ms(begin.elapsed()));
            request.check(&reply)?;
            if !request.pause.is_zero() {
                sleep(request.pause).await;
            }
        }
        self.blocks.push(block);
        Ok(())
    }

    /// Removes what the block created, which is not timed.
    async fn clear(&self) -> Result<()> {
        Api::connect(self.server.addr).await?.clear().await
    }
}

fn ran_well(reply: &Value) -> bool {
    reply["exitCode"] == 0 && reply["timedOut"] == false
}

fn was_created(info: &Value) -> bool {
    info["id"].is_string() && info["status"].is_string()
}

fn quantile_of(q: f64) -> impl Fn(&Lane) -> Summary {
    move |lane| Summary::quantile(&lane.blocks, q)
}

/// `/bin/true` through `POST /v1/processes/run` over one keep-alive connection, 1000 per side after 50 for warming
/// up, in blocks of 100 that take turns with blocks of plain spawns by this process; p50 and p99, ms. The last row is
/// the median of a block as a multiple of that of the plain spawns right after it.
pub fn run(ctx: &Context) -> Result<Vec<Row>> {
    let mut lanes = Lanes::open(|side| Lane::open(ctx, side));
    let mut plain = Vec::new();
    lanes.each(|_, lane| {
        ctx.solo.block_on(lane.run_block(&RUN, WARM_UP))?;
        lane.blocks.clear();
        Ok(())
    });
    plain_block(WARM_UP)?;
    for _ in 0..ctx.times(RUN_BLOCKS) {
        lanes.each(|_, lane| ctx.solo.block_on(lane.run_block(&RUN, RUN_BLOCK)));
        plain.push(plain_block(RUN_BLOCK)?);
    }
    let medians = |blocks: &[Vec<f64>]| blocks.iter().map(|b| quantile(b, 0.5)).collect::<Vec<_>>();
    let spawns = medians(&plain);
    let times = |lane: &Lane| {
        let ratios = medians(&lane.blocks).iter().zip(&spawns).map(|(own, spawn)| own / spawn).collect::<Vec<_>>();
        Summary::median(&ratios)
    };
    let (p50, p99) = (quantile(&plain.concat(), 0.5), quantile(&plain.concat(), 0.99));
    let note = format!("a plain spawn and wait: p50 {p50:.3} ms, p99 {p99:.3} ms");
    Ok(lanes.report(vec![
        lanes.row("run /bin/true p50", "ms", Better::Lower, quantile_of(0.5)),
        lanes.row("run /bin/true p99", "ms", Better::Lower, quantile_of(0.99)),
        lanes.row("run p50 / plain spawn", "times", Better::Lower, times).note(note),
    ]))
}

/// Times of starting `/bin/true` and waiting for it without any server.
fn plain_block(count: usize) -> Result<Vec<f64>> {
    let mut block = Vec::with_capacity(count);
    for _ in 0..count {
        let begin = Instant::now();
        let mut command = Command::new("/bin/true");
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
        block.push(ms(begin.elapsed()));
        if !status.success() {
            return Err(format!("/bin/true: {status}").into());
        }
    }
    Ok(block)
}

/// `POST /v1/processes` with `/bin/true` over one keep-alive connection, to its answer; 1000 per side in blocks of 50
/// that take turns, each cleared away before the next; p50 and p99, ms.
pub fn create(ctx: &Context) -> Result<Vec<Row>> {
    let mut lanes = Lanes::open(|side| Lane::open(ctx, side));
    let mut block = |count| {
        lanes.each(|_, lane| {
            ctx.solo.block_on(async {
                lane.run_block(&CREATE, count).await?;
                lane.clear().await
            })
        });
    };
    block(WARM_UP);
    for _ in 0..ctx.times(CREATE_BLOCKS) {
        block(CREATE_BLOCK);
    }
    lanes.each(|_, lane| {
        lane.blocks.remove(0);
        Ok(())
    });
    Ok(lanes.report(vec![
        lanes.row("create process p50", "ms", Better::Lower, quantile_of(0.5)),
        lanes.row("create process p99", "ms", Better::Lower, quantile_of(0.99)),
    ]))
}

/// One side with many finished processes.
struct Crowded {
    server: Server,
    api: Api,
    client: Client,
    before: f64,
    grown: f64,
    resident: f64,
    rates: Vec<f64>,
    list_times: Vec<f64>,
    list_bytes: usize,
    listed: usize,
}

impl Crowded {
    fn open(ctx: &Context, side: Side) -> Result<Self> {
        let server = ctx.start(side)?;
        ctx.crowd.block_on(async {
            let mut api = Api::connect(server.addr).await?;
            api.allow_running(RUNNING_LIMIT).await?;
            create_many(server.addr, WARM_UP).await?;
            api.clear().await?;
            let (client, before) = (Client::connect(server.addr).await?, server.memory_mib("VmRSS")?);
            let (rates, list_times) = (Vec::new(), Vec::new());
            Ok(Self { server, api, client, before, grown: 0.0, resident: 0.0, rates, list_times, list_bytes: 0, listed: 0 })
        })
    }

    /// Creates `count` processes over [`IN_FLIGHT`] connections and waits until the last has ended.
    async fn create_block(&mut self, count: usize) -> Result<()> {
        let begin = Instant::now();
        create_many(self.server.addr, count).await?;
        self.rates.push(count as f64 / begin.elapsed().as_secs_f64());
        self.api.wait_all_exited().await
    }

    fn note_growth(&mut self) -> Result<()> {
        self.grown = self.server.memory_mib("VmRSS")? - self.before;
        Ok(())
    }

    fn note_resident(&mut self) -> Result<()> {
        self.resident = self.server.memory_mib("VmRSS")?;
        Ok(())
    }

    async fn list_once(&mut self) -> Result<()> {
        let begin = Instant::now();
        let reply = self.client.call("GET", CREATE.path, b"", REQUEST_LIMIT).await?;
        self.list_times.push(ms(begin.elapsed()));
        self.list_bytes = reply.body.len();
        self.listed = json_of(&reply)?["processes"].as_array().map_or(0, Vec::len);
        Ok(())
    }
}

async fn create_many(addr: SocketAddr, count: usize) -> Result<()> {
    let created = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::<Result<()>>::new();
    for _ in 0..IN_FLIGHT {
        let created = created.clone();
        tasks.spawn(async move {
            let mut client = Client::connect(addr).await?;
            while created.fetch_add(1, Ordering::Relaxed) < count {
                CREATE.check(&client.call("POST", CREATE.path, TRUE, REQUEST_LIMIT).await?)?;
            }
            Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

/// 5000 finished processes, created 16 at a time in blocks of 500 that take turns: how fast that went, the median of
/// 20 `GET /v1/processes` to the last byte, its size, and `VmRSS`: by how much it grew until the first of these, and
/// after the last. A server that forgets old ones lists fewer: the note tells.
pub fn finished(ctx: &Context) -> Result<Vec<Row>> {
    let blocks = ctx.times(FINISHED_BLOCKS);
    let mut lanes = Lanes::open(|side| Crowded::open(ctx, side));
    for _ in 0..blocks {
        lanes.each(|_, lane| ctx.crowd.block_on(lane.create_block(FINISHED_BLOCK)));
    }
    std::thread::sleep(Duration::from_millis(500));
    lanes.each(|_, lane| lane.note_growth());
    for _ in 0..LISTINGS {
        lanes.each(|_, lane| ctx.solo.block_on(lane.list_once()));
    }
    lanes.each(|_, lane| {
        lane.note_resident()?;
        ctx.solo.block_on(lane.api.clear())
    });
    let note = lanes.tell(|lane| format!("lists {} of {}", lane.listed, blocks * FINISHED_BLOCK));
    let one = |value: f64| Summary::median(&[value]);
    Ok(lanes.report(vec![
        lanes.row("create, 16 at a time", "1/s", Better::Higher, |lane| Summary::median(&lane.rates)),
        lanes.row("list 5000 finished", "ms", Better::Lower, |lane| Summary::median(&lane.list_times)).note(note),
        lanes.row("list 5000 finished", "KiB", Better::Lower, |lane| one(lane.list_bytes as f64 / 1024.0)),
        lanes.row("RSS growth, 5000 finished", "MiB", Better::Lower, |lane| one(lane.grown)),
        lanes.row("RSS, 5000 finished, listed", "MiB", Better::Lower, |lane| one(lane.resident)),
    ]))
}
