//! The rows about terminals: one key there and back, a flood, and sixty that do nothing.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::Result;
use crate::lanes::Lanes;
use crate::process_api::{Api, Created, REQUEST_LIMIT, wait_became};
use crate::process_logs::{FLOOD_BYTES, FLOODS, Flood, HELLO, STALL, flood_rows, flood_script};
use crate::report::{Better, Row, Summary};
use crate::rows::{Context, ms};
use crate::subject::{Server, Side};
use crate::terminal::Terminal;

const WARM_UP: usize = 100;
const BLOCK: usize = 200;
const BLOCKS: usize = 10;
/// Idle terminals; both servers allow 64 running processes by default.
const TERMINALS: usize = 60;
const MEMORY_ROUNDS: usize = 3;
/// Time for a server to come to rest before its memory is read.
const REST: Duration = Duration::from_millis(500);

/// A terminal that passes every byte on as it is: no echo, no `\r`. `program` is what the shell becomes then.
fn raw_terminal(program: &[&str]) -> Value {
    let mut args = vec!["-c", "stty raw -echo; exec \"$@\"", "sh"];
    args.extend(program);
    json!({"command": "sh", "args": args, "tty": true, "interactive": true})
}

/// Starts a raw terminal and waits until its program is what runs in it.
async fn create_raw(api: &mut Api, program: &[&str]) -> Result<Created> {
    let process = api.create(&raw_terminal(program)).await?;
    wait_became(&process, &format!("{}\0", program.join("\0"))).await?;
    Ok(process)
}

/// One side of the echo rows.
struct Lane {
    /// Held because dropping it ends the server; after the terminal, so that this goes first.
    terminal: Terminal,
    api: Api,
    blocks: Vec<Vec<f64>>,
    _server: Server,
}

impl Lane {
    fn open(ctx: &Context, side: Side) -> Result<Self> {
        let server = ctx.start(side)?;
        ctx.solo.block_on(async {
            let mut api = Api::connect(server.addr).await?;
            let process = create_raw(&mut api, &["cat"]).await?;
            let terminal = Terminal::attach(server.addr, &process.id).await?;
            let mut lane = Self { terminal, api, blocks: Vec::new(), _server: server };
            lane.run_block(WARM_UP).await?;
            lane.blocks.clear();
            Ok(lane)
        })
    }

    /// Times `count` single keys, each from sending it to reading it.
    async fn run_block(&mut self, count: usize) -> Result<()> {
        let mut block = Vec::with_capacity(count);
        for _ in 0..count {
            let begin = Instant::now();
            self.terminal.send("x").await?;
            let echo = self.terminal.output(REQUEST_LIMIT).await?.ok_or("no echo")?;
            block.push(ms(begin.elapsed()));
            if echo != "x" {
                return Err(format!("sent x, got {echo:?}").into());
            }
        }
        self.blocks.push(block);
        Ok(())
    }
}

/// One key through the terminal's WebSocket to `cat` and back, 2000 per side after 100 for warming up, in blocks of
/// 200 that take turns; p50 and p99, ms.
pub fn echo(ctx: &Context) -> Result<Vec<Row>> {
    let mut lanes = Lanes::open(|side| Lane::open(ctx, side));
    for _ in 0..ctx.times(BLOCKS) {
        lanes.each(|_, lane| ctx.solo.block_on(lane.run_block(BLOCK)));
    }
    lanes.each(|_, lane| ctx.solo.block_on(lane.api.clear()));
    let row = |name, q| lanes.row(name, "ms", Better::Lower, |lane| Summary::quantile(&lane.blocks, q));
    Ok(lanes.report(vec![row("PTY echo p50", 0.5), row("PTY echo p99", 0.99)]))
}

/// 50 MB from a raw terminal to one client that was attached before, each time in a fresh server; medians of 5.
pub fn flood(ctx: &Context) -> Result<Vec<Row>> {
    let mut lanes = Lanes::open(|_| Ok(Vec::new()));
    for _ in 0..ctx.times(FLOODS) {
        lanes.each(|side, floods| {
            let server = ctx.start(side)?;
            floods.push(ctx.crowd.block_on(measure_flood(&server, ctx.times(FLOOD_BYTES)))?);
            Ok(())
        });
    }
    Ok(flood_rows(&lanes, ["PTY flood, delivered", "PTY flood, share", "PTY flood, peak RSS"]))
}

async fn measure_flood(server: &Server, bytes: usize) -> Result<Flood> {
    let mut api = Api::connect(server.addr).await?;
    let process = create_raw(&mut api, &["sh", "-c", &flood_script(bytes)]).await?;
    let mut terminal = Terminal::attach(server.addr, &process.id).await?;
    terminal.send("\n").await?;
    terminal.expect(HELLO, REQUEST_LIMIT).await?;
    let mut flood = Flood::begin(bytes);
    terminal.send("\n").await?;
    while !flood.is_over() {
        match terminal.output(STALL).await? {
            Some(output) => flood.take(&output),
            None => break,
        }
    }
    let flood = flood.note_peak(server)?;
    drop(terminal);
    api.clear().await?;
    Ok(flood)
}

/// `VmRSS` of one server, MiB.
struct Memory {
    grown: f64,
    detached: f64,
    attached: f64,
}

/// `VmRSS` with sixty terminals in which nothing happens, by how much it grew for them, and with a client at each;
/// medians of 3 servers, MiB.
pub fn idle_memory(ctx: &Context) -> Result<Vec<Row>> {
    let mut lanes = Lanes::open(|_| Ok(Vec::new()));
    for _ in 0..ctx.times(MEMORY_ROUNDS) {
        lanes.each(|side, found| {
            let server = ctx.start(side)?;
            found.push(ctx.crowd.block_on(measure_memory(&server))?);
            Ok(())
        });
    }
    let row = |name, figure: fn(&Memory) -> f64| {
        lanes.row(name, "MiB", Better::Lower, |found| Summary::median(&found.iter().map(figure).collect::<Vec<_>>()))
    };
    Ok(lanes.report(vec![
        row("RSS growth, 60 terminals", |m| m.grown),
        row("RSS, 60 terminals", |m| m.detached),
        row("RSS, 60 attached", |m| m.attached),
    ]))
}

async fn measure_memory(server: &Server) -> Result<Memory> {
    let mut api = Api::connect(server.addr).await?;
    api.list().await?;
    tokio::time::sleep(REST).await;
    let before = server.memory_mib("VmRSS")?;
    let mut ids = Vec::new();
    for _ in 0..TERMINALS {
        let spec = json!({"command": "sleep", "args": ["1000"], "tty": true, "interactive": true});
        ids.push(api.create(&spec).await?.id);
    }
    tokio::time::sleep(REST).await;
    let detached = server.memory_mib("VmRSS")?;
    let mut terminals = Vec::new();
    for id in &ids {
        terminals.push(Terminal::attach(server.addr, id).await?);
    }
    tokio::time::sleep(REST).await;
    let attached = server.memory_mib("VmRSS")?;
    drop(terminals);
    api.clear().await?;
    Ok(Memory { grown: detached - before, detached, attached })
}
