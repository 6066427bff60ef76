//! The rows about many sessions: listing them, starting with them, and what an idle one costs in memory.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::Result;
use crate::lanes::Lanes;
use crate::report::{Better, Row, Summary};
use crate::rows::{Context, ms};
use crate::session_api::Api;
use crate::subject::{Server, Side};

const LISTED: usize = 10_000;
/// Connections that make them.
const MAKERS: usize = 4;
const ROUNDS: usize = 5;
const IDLE: usize = 200;
const IDLE_ROUNDS: usize = 3;
/// Idleness after which ours ends an agent in the row about memory.
const AGENT_IDLE: (&str, &str) = ("SANDBOXD_SESSION_AGENT_IDLE_MS", "6000");
/// Time for a server to come to rest before its memory is read.
const REST: Duration = Duration::from_millis(1000);
/// Longest wait for the agent to be ended.
const SLEEP_LIMIT: Duration = Duration::from_secs(40);

/// 10 000 sessions of one agent that were never spoken in: memory while all are in use, then, after a restart, the start
/// of the server, a page of 500 and all pages; medians. The reference keeps no sessions.
pub fn list(ctx: &Context) -> Result<Vec<Row>> {
    let mut server = ctx.start(Side::Ours)?;
    let addr = server.addr;
    let count = ctx.times(LISTED);
    let starts_empty = starts(ctx, &mut server)?;
    let empty = rested(&server)?;
    let begin = Instant::now();
    ctx.crowd.block_on(make(addr, count))?;
    let made_per_s = count as f64 / begin.elapsed().as_secs_f64();
    let filled = rested(&server)?;
    let starts_full = starts(ctx, &mut server)?;
    let started = rested(&server)?;
    let (mut pages, mut alls) = (Vec::new(), Vec::new());
    for _ in 0..ctx.times(ROUNDS) {
        let (first, all) = ctx.solo.block_on(page_all(addr, count))?;
        pages.push(first);
        alls.push(all);
    }
    let listed = rested(&server)?;
    let row = |name, unit, list: &[f64]| Row::ours_only(name, unit, Better::Lower, Summary::median(list));
    let note = format!("{count} sessions, made at {made_per_s:.0}/s; the reference keeps no sessions");
    Ok(vec![
        row("list, page of 500", "ms", &pages).note(note),
        row("list, all pages", "ms", &alls),
        row("start, no sessions", "ms", &starts_empty),
        row("start, 10 000 sessions", "ms", &starts_full),
        row("RSS, no sessions", "MiB", &[empty]),
        row("RSS, all in use", "MiB", &[filled]),
        row("RSS, started with them", "MiB", &[started]),
        row("RSS, after listing all", "MiB", &[listed]),
    ])
}

fn starts(ctx: &Context, server: &mut Server) -> Result<Vec<f64>> {
    let start = |_| {
        server.restart()?;
        Ok(ms(server.start_time))
    };
    (0..ctx.times(ROUNDS)).map(start).collect()
}

fn rested(server: &Server) -> Result<f64> {
    std::thread::sleep(REST);
    server.memory_mib("VmRSS")
}

/// Makes sessions over several connections.
async fn make(addr: SocketAddr, count: usize) -> Result<()> {
    let mut tasks = JoinSet::new();
    for maker in 0..MAKERS {
        tasks.spawn(async move {
            let mut api = Api::connect(addr).await?;
            for _ in (maker..count).step_by(MAKERS) {
                api.create("amp").await?;
            }
            Ok::<_, crate::Error>(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

/// Gives the time of the first page and that of all, ms. Every session must be listed once.
async fn page_all(addr: SocketAddr, count: usize) -> Result<(f64, f64)> {
    let mut api = Api::connect(addr).await?;
    let (mut path, mut first, mut ids) = ("/v1/sessions?limit=500".to_owned(), None, Vec::new());
    let begin = Instant::now();
    let mut bodies = Vec::new();
    loop {
        let reply = api.raw("GET", &path, b"").await?;
        first.get_or_insert_with(|| begin.elapsed());
        let next = cursor(&reply.body).map(|cursor| format!("/v1/sessions?limit=500&cursor={cursor}"));
        bodies.push(reply.body);
        match next {
            Some(next) => path = next,
            None => break,
        }
    }
    let all = begin.elapsed();
    for body in &bodies {
        let page: Value = serde_json::from_slice(body)?;
        let sessions = page["sessions"].as_array().ok_or_else(|| format!("a page without sessions: {page:.300}"))?;
        ids.extend(sessions.iter().filter_map(|session| session["id"].as_str().map(str::to_owned)));
    }
    ids.sort();
    ids.dedup();
    if ids.len() != count {
        return Err(format!("{} of {count} sessions are listed", ids.len()).into());
    }
    Ok((ms(first.unwrap_or_default()), ms(all)))
}

/// `nextCursor`, which comes last, without reading the page.
fn cursor(body: &[u8]) -> Option<&str> {
    let tail = std::str::from_utf8(&body[body.len().saturating_sub(200)..]).ok()?;
    tail.rsplit_once(r#""nextCursor":""#)?.1.strip_suffix("\"}")
}

/// Resident memory of one server, MiB.
struct Memory {
    /// Before and after the sessions.
    alone: f64,
    with_sessions: f64,
    agents: f64,
    /// After the agent was ended for idleness.
    asleep: Option<f64>,
}

impl Memory {
    fn kib_each(&self) -> f64 {
        (self.with_sessions - self.alone) * 1024.0 / (IDLE - 1) as f64
    }

    fn kib_asleep(&self) -> f64 {
        self.asleep.map_or(f64::NAN, |asleep| (asleep - self.alone) * 1024.0 / (IDLE - 1) as f64)
    }
}

#[derive(Default)]
struct Found {
    acp: Vec<Memory>,
    sessions: Vec<Memory>,
}

/// What the server grew by for each of 200 sessions of one agent, in KiB, and the agent's own memory; medians of 3
/// servers. The first session is not counted: it pays for what all share.
pub fn idle(ctx: &Context) -> Result<Vec<Row>> {
    let mut lanes = Lanes::open(|_| Ok(Found::default()));
    for _ in 0..ctx.times(IDLE_ROUNDS) {
        lanes.each(|side, found| {
            let server = ctx.start(side)?;
            found.acp.push(ctx.crowd.block_on(measure(&server, false))?);
            Ok(())
        });
        lanes.each(|side, found| {
            if side == Side::Ours {
                let server = ctx.start_with(side, &[AGENT_IDLE])?;
                found.sessions.push(ctx.crowd.block_on(measure(&server, true))?);
            }
            Ok(())
        });
    }
    let median = |list: &[Memory], figure: fn(&Memory) -> f64| Summary::median(&list.iter().map(figure).collect::<Vec<_>>());
    let acp = |name, unit, figure| lanes.row(name, unit, Better::Lower, |found| median(&found.acp, figure));
    let sessions = |name, unit, figure| {
        lanes.row(name, unit, Better::Lower, |found| {
            median(if found.sessions.is_empty() { &found.acp } else { &found.sessions }, figure)
        })
    };
    Ok(lanes.report(vec![
        acp("RSS per session, /v1/acp", "KiB", Memory::kib_each),
        sessions("RSS per session, /v1/sessions", "KiB", Memory::kib_each).note("the reference through /v1/acp".to_owned()),
        sessions("RSS per session, asleep", "KiB", Memory::kib_asleep).note(
            "above a server with one session, after its agent was ended for idleness; the reference never ends it".to_owned(),
        ),
        acp("RSS, one session", "MiB", |memory| memory.alone),
        acp("RSS of the agent, 200 sessions", "MiB", |memory| memory.agents),
    ]))
}

async fn measure(server: &Server, durable: bool) -> Result<Memory> {
    let mut api = Api::connect(server.addr).await?;
    if !durable {
        api.initialize("amp").await?;
    }
    let mut alone = 0.0;
    for number in 0..IDLE {
        if durable {
            api.create("amp").await?
        } else {
            api.acp_session().await?
        };
        if number == 0 {
            sleep(REST).await;
            alone = server.memory_mib("VmRSS")?;
        }
    }
    sleep(REST).await;
    let (with_sessions, agents) = (server.memory_mib("VmRSS")?, server.agents_mib().iter().sum());
    let asleep = if durable { Some(asleep(server).await?) } else { None };
    Ok(Memory { alone, with_sessions, agents, asleep })
}

async fn asleep(server: &Server) -> Result<f64> {
    let begin = Instant::now();
    while !server.agents_mib().is_empty() {
        if begin.elapsed() > SLEEP_LIMIT {
            return Err("the idle agent was not ended".into());
        }
        sleep(Duration::from_millis(200)).await;
    }
    sleep(2 * REST).await;
    server.memory_mib("VmRSS")
}
