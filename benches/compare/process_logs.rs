//! The row about a follower of a log: 50 MB in lines of 100 bytes, as fast as the server takes them.
//!
//! The follower behaves like an `EventSource`: when the server ends its stream it opens it again with
//! `Last-Event-ID`. It is done when it has every byte, and gives up when nothing new came for [`STALL`]. The process
//! lives on after its last byte, so that no end of a process is part of this.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::json;
use tokio::time::{sleep, timeout};

use crate::Result;
use crate::http::EventStream;
use crate::lanes::Lanes;
use crate::process_api::Api;
use crate::report::{Better, Row, Summary};
use crate::rows::Context;
use crate::subject::Server;

/// Bytes written by one flood, a whole number of lines.
pub const FLOOD_BYTES: usize = 50_000_000;
/// Floods per side, each in a fresh server.
pub const FLOODS: usize = 5;
/// Who misses bytes for this long has lost them.
pub const STALL: Duration = Duration::from_secs(2);
/// Nobody reads longer than this.
pub const CUT_OFF: Duration = Duration::from_secs(60);
/// What comes before the flood, to see that the reader is attached.
pub const HELLO: &[u8] = b"hello\n";
const HELLO_LIMIT: Duration = Duration::from_secs(5);
/// Printable bytes of a line, and what fills it.
const LINE: usize = 99;
const FILL: u8 = b'x';

/// A shell script that greets after the first line of input, writes `bytes` after the second and then lives until it
/// is killed or its server is gone.
pub fn flood_script(bytes: usize) -> String {
    let line = char::from(FILL).to_string().repeat(LINE);
    format!("read a; echo hello; read b; yes {line} | head -c {bytes}; read c")
}

/// What one flood gave.
pub struct Flood {
    expected: usize,
    got: usize,
    /// Bytes that cannot be from the process: marks, redraws.
    foreign: usize,
    reopened: u32,
    begin: Instant,
    last: Instant,
    peak: f64,
}

impl Flood {
    /// A flood that begins now.
    pub fn begin(expected: usize) -> Self {
        let now = Instant::now();
        Self { expected, got: 0, foreign: 0, reopened: 0, begin: now, last: now, peak: 0.0 }
    }

    pub fn take(&mut self, bytes: &[u8]) {
        let own = bytes.iter().filter(|b| matches!(**b, FILL | b'\n')).count();
        self.got += own;
        self.foreign += bytes.len() - own;
        self.last = Instant::now();
    }

    pub fn is_over(&self) -> bool {
        self.got >= self.expected || self.begin.elapsed() > CUT_OFF
    }

    /// Notes the server's highest memory use so far.
    pub fn note_peak(mut self, server: &Server) -> Result<Self> {
        self.peak = server.memory_mib("VmHWM")?;
        Ok(self)
    }

    fn seconds(&self) -> f64 {
        (self.last - self.begin).as_secs_f64().max(1e-6)
    }
}

/// The rows of a flood; `names` for the rate, the share and the memory.
pub fn flood_rows(lanes: &Lanes<Vec<Flood>>, names: [&'static str; 3]) -> Vec<Row> {
    let row = |name, unit, better, figure: fn(&Flood) -> f64| {
        lanes.row(name, unit, better, |floods| Summary::median(&floods.iter().map(figure).collect::<Vec<_>>()))
    };
    let note = lanes.tell(|floods| {
        let seconds: Vec<String> = floods.iter().map(|f| format!("{:.2}", f.seconds())).collect();
        let (foreign, reopened) = (floods.iter().map(|f| f.foreign), floods.iter().map(|f| f.reopened));
        let (foreign, reopened) = (foreign.sum::<usize>(), reopened.sum::<u32>());
        format!("to the last byte {} s, other bytes {foreign}, reopened {reopened} times", seconds.join(", "))
    });
    lanes.report(vec![
        row(names[0], "MB/s", Better::Higher, |f| f.got as f64 / 1e6 / f.seconds()).note(note),
        row(names[1], "%", Better::Higher, |f| 100.0 * f.got as f64 / f.expected as f64),
        row(names[2], "MiB", Better::Lower, |f| f.peak),
    ])
}

/// 50 MB through `logs?follow=true` to a follower that was there before, each time in a fresh server; medians of 5.
pub fn follow(ctx: &Context) -> Result<Vec<Row>> {
    let mut lanes = Lanes::open(|_| Ok(Vec::new()));
    for _ in 0..ctx.times(FLOODS) {
        lanes.each(|side, floods| {
            let server = ctx.start(side)?;
            floods.push(ctx.crowd.block_on(measure(&server, ctx.times(FLOOD_BYTES)))?);
            Ok(())
        });
    }
    Ok(flood_rows(&lanes, ["log follow, delivered", "log follow, share", "log follow, peak RSS"]))
}

async fn measure(server: &Server, bytes: usize) -> Result<Flood> {
    let mut api = Api::connect(server.addr).await?;
    let process = api.create(&json!({"command": "sh", "args": ["-c", flood_script(bytes)]})).await?;
    let mut follower = Follower::attach(server.addr, &process.id).await?;
    api.send_line(&process.id).await?;
    follower.wait_hello().await?;
    let mut flood = Flood::begin(bytes);
    api.send_line(&process.id).await?;
    follower.follow(&mut flood).await?;
    let flood = flood.note_peak(server)?;
    api.clear().await?;
    Ok(flood)
}

#[derive(Deserialize)]
struct Entry<'a> {
    data: &'a str,
    encoding: &'a str,
}

struct Follower {
    addr: SocketAddr,
    path: String,
    stream: EventStream,
    last_id: u64,
}

impl Follower {
    async fn attach(addr: SocketAddr, id: &str) -> Result<Self> {
        let path = format!("/v1/processes/{id}/logs?follow=true");
        let stream = EventStream::open_named(addr, &path, None, "log").await?;
        Ok(Self { addr, path, stream, last_id: 0 })
    }

    async fn wait_hello(&mut self) -> Result<()> {
        let mut seen = Vec::new();
        while seen != HELLO {
            let entries = timeout(HELLO_LIMIT, self.read(|bytes| seen.extend_from_slice(bytes))).await;
            if !entries.map_err(|_| "the follower saw nothing")?? {
                return Err(format!("the log ended after {:?}", String::from_utf8_lossy(&seen)).into());
            }
        }
        Ok(())
    }

    async fn follow(&mut self, flood: &mut Flood) -> Result<()> {
        while !flood.is_over() {
            let quiet = flood.last.elapsed();
            let read = self.read(|bytes| flood.take(bytes));
            let Ok(open) = timeout(STALL.saturating_sub(quiet), read).await else {
                return Ok(());
            };
            if !open? {
                // A short pause keeps a broken server from being hammered.
                sleep(Duration::from_millis(2)).await;
                self.stream = EventStream::open_named(self.addr, &self.path, Some(self.last_id), "log").await?;
                flood.reopened += 1;
            }
        }
        Ok(())
    }

    /// Waits for bytes once and hands on the text of every new entry; `false` when the stream ended or broke.
    async fn read(&mut self, mut each: impl FnMut(&[u8])) -> Result<bool> {
        let (last_id, mut failure) = (&mut self.last_id, None);
        let open = self
            .stream
            .read_events(|id, data| {
                if id <= *last_id {
                    return;
                }
                *last_id = id;
                match text_of(data) {
                    Ok(bytes) => each(&bytes),
                    Err(error) => failure = Some(error),
                }
            })
            .await;
        failure.map_or(Ok(open.unwrap_or(false)), Err)
    }
}

fn text_of(data: &[u8]) -> Result<Vec<u8>> {
    let entry: Entry = serde_json::from_slice(data)?;
    match entry.encoding {
        "base64" => Ok(STANDARD.decode(entry.data)?),
        other => Err(format!("log entry encoded as {other}").into()),
    }
}
