//! The rows about files: listing directories, small and large transfers.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::Result;
use crate::http::Client;
use crate::lanes::Lanes;
use crate::report::{Better, Row, Summary};
use crate::rows::{Context, ms};
use crate::subject::{Server, Side};

const REQUEST_LIMIT: Duration = Duration::from_secs(60);
const SMALL: usize = 4 * 1024;
/// The reference takes no more than 2 MiB.
const MIDDLE: usize = 1_900_000;
const LARGE: u64 = 1 << 30;
const BLOCK: usize = 40;
const BLOCKS: usize = 5;

/// One side, with a directory of files.
struct Lane {
    client: Client,
    /// Times of each thing that was done, ms, in blocks.
    blocks: Vec<Vec<f64>>,
    others: Vec<Vec<f64>>,
    peak: f64,
    /// Held because dropping it ends the server.
    server: Server,
}

impl Lane {
    fn open(ctx: &Context, side: Side) -> Result<Self> {
        let server = ctx.start(side)?;
        let client = ctx.solo.block_on(Client::connect(server.addr))?;
        Ok(Self { client, blocks: Vec::new(), others: Vec::new(), peak: f64::NAN, server })
    }

    async fn ask(&mut self, method: &str, path: &str, body: &[u8]) -> Result<Vec<u8>> {
        let reply = self.client.call(method, path, body, REQUEST_LIMIT).await?;
        match reply.status {
            200 => Ok(reply.body),
            status => Err(format!("{method} {path}: {status} {:.200}", String::from_utf8_lossy(&reply.body)).into()),
        }
    }

    async fn list_block(&mut self, path: &str, count: usize, times: usize) -> Result<()> {
        let path = format!("/v1/fs/entries?path={path}");
        let mut block = Vec::with_capacity(times);
        for _ in 0..times {
            let begin = Instant::now();
            let body = self.ask("GET", &path, b"").await?;
            block.push(ms(begin.elapsed()));
            let entries: Vec<Value> = serde_json::from_slice(&body)?;
            if entries.len() != count {
                return Err(format!("{} of {count} entries are listed", entries.len()).into());
            }
        }
        self.blocks.push(block);
        Ok(())
    }

    /// Writes a file and reads it back, again and again.
    async fn transfer_block(&mut self, content: &[u8], times: usize) -> Result<()> {
        let (mut puts, mut gets) = (Vec::with_capacity(times), Vec::with_capacity(times));
        for _ in 0..times {
            let begin = Instant::now();
            self.ask("PUT", "/v1/fs/file?path=bench.bin", content).await?;
            puts.push(ms(begin.elapsed()));
            let begin = Instant::now();
            let read = self.ask("GET", "/v1/fs/file?path=bench.bin", b"").await?;
            gets.push(ms(begin.elapsed()));
            if read != content {
                return Err("what was read isn't what was written".into());
            }
        }
        self.blocks.push(puts);
        self.others.push(gets);
        Ok(())
    }
}

/// A directory of empty files; removed when dropped.
fn directory(count: usize) -> Result<tempfile::TempDir> {
    let home = tempfile::Builder::new().prefix("compare-files-").tempdir()?;
    for number in 0..count {
        std::fs::File::create(home.path().join(format!("file-{number:06}.txt")))?;
    }
    Ok(home)
}

/// `GET /v1/fs/entries` of 5 000 and of 100 000 files, over one connection; p50, ms.
pub fn list(ctx: &Context) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (name, count, times) in [("list 5 000 files p50", 5_000, 10), ("list 100 000 files p50", 100_000, 2)] {
        let files = directory(count)?;
        let path = files.path().display().to_string();
        let mut lanes = Lanes::open(|side| Lane::open(ctx, side));
        for _ in 0..ctx.times(BLOCKS) {
            lanes.each(|_, lane| ctx.solo.block_on(lane.list_block(&path, count, times)));
        }
        rows.extend(lanes.report(vec![lanes.row(name, "ms", Better::Lower, |lane| Summary::quantile(&lane.blocks, 0.5))]));
    }
    Ok(rows)
}

/// `PUT` and `GET` of 4 KB and 1.9 MB of random bytes; p50, ms.
pub fn transfer(ctx: &Context) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (names, size, times) in
        [(["PUT 4 KB p50", "GET 4 KB p50"], SMALL, BLOCK), (["PUT 1.9 MB p50", "GET 1.9 MB p50"], MIDDLE, BLOCK / 4)]
    {
        let content = random(size)?;
        let mut lanes = Lanes::open(|side| Lane::open(ctx, side));
        for _ in 0..ctx.times(BLOCKS) {
            lanes.each(|_, lane| ctx.solo.block_on(lane.transfer_block(&content, times)));
        }
        rows.extend(lanes.report(vec![
            lanes.row(names[0], "ms", Better::Lower, |lane| Summary::quantile(&lane.blocks, 0.5)),
            lanes.row(names[1], "ms", Better::Lower, |lane| Summary::quantile(&lane.others, 0.5)),
        ]));
    }
    Ok(rows)
}

fn random(size: usize) -> Result<Vec<u8>> {
    use std::io::Read as _;
    let mut content = vec![0; size];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut content)?;
    Ok(content)
}

fn large(home: &Path) -> Result<PathBuf> {
    let path = home.join("large.bin");
    let piece = random(1 << 20)?;
    let mut file = std::fs::File::create(&path)?;
    for _ in 0..LARGE >> 20 {
        file.write_all(&piece)?;
    }
    Ok(path)
}

/// One GiB down, and up again where the server takes it; beside a plain copy by this process. MiB/s, and the most memory
/// that the server had.
pub fn large_file(ctx: &Context) -> Result<Vec<Row>> {
    let home = tempfile::Builder::new().prefix("compare-large-").tempdir()?;
    let path = large(home.path())?;
    let copy = home.path().join("copy.bin");
    let mut copies = Vec::new();
    let mut lanes = Lanes::open(|side| Lane::open(ctx, side));
    for _ in 0..ctx.times(3) {
        let begin = Instant::now();
        plain_copy(&path, &copy)?;
        copies.push(mib_per_s(begin.elapsed()));
        std::fs::remove_file(&copy)?;
        lanes.each(|side, lane| {
            let shown = path.display();
            let begin = Instant::now();
            let got = ctx.solo.block_on(lane.client.drain(&format!("/v1/fs/file?path={shown}"), REQUEST_LIMIT))?;
            lane.others.push(vec![mib_per_s(begin.elapsed())]);
            if got != LARGE {
                return Err(format!("{got} of {LARGE} bytes came").into());
            }
            if side == Side::Ours {
                let put = format!("/v1/fs/file?path={}", copy.display());
                let begin = Instant::now();
                ctx.solo.block_on(lane.client.send_file(&put, &path, REQUEST_LIMIT))?;
                lane.blocks.push(vec![mib_per_s(begin.elapsed())]);
                std::fs::remove_file(&copy)?;
            }
            lane.peak = lane.server.memory_mib("VmHWM")?;
            Ok(())
        });
    }
    let copied = Summary::median(&copies);
    let note =
        format!("a plain copy through 1 MiB of memory: {:.0} MiB/s; the reference takes no more than 2 MiB up", copied.value);
    Ok(lanes.report(vec![
        lanes.row("GET 1 GiB", "MiB/s", Better::Higher, |lane| Summary::median(&lane.others.concat())).note(note),
        lanes.row("PUT 1 GiB", "MiB/s", Better::Higher, |lane| {
            if lane.blocks.is_empty() { Summary::NONE } else { Summary::median(&lane.blocks.concat()) }
        }),
        lanes.row("peak RSS with 1 GiB", "MiB", Better::Lower, |lane| Summary::median(&[lane.peak])),
    ]))
}

fn plain_copy(from: &Path, to: &Path) -> Result<()> {
    use std::io::Read as _;
    let (mut from, mut to) = (std::fs::File::open(from)?, std::fs::File::create(to)?);
    let mut piece = vec![0; 1 << 20];
    loop {
        match from.read(&mut piece)? {
            0 => return Ok(()),
            read => to.write_all(&piece[..read])?,
        }
    }
}

fn mib_per_s(time: Duration) -> f64 {
    (LARGE >> 20) as f64 / time.as_secs_f64()
}
