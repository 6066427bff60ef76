//! The rows about many files: taking them in, searching them, following what changes.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::Result;
use crate::http::{Client, EventStream};
use crate::lanes::Lanes;
use crate::report::{Better, Row, Summary};
use crate::rows::{Context, ms};
use crate::subject::{Pair, Server, Side};

const LIMIT: Duration = Duration::from_secs(120);
const FILES: usize = 10_000;
const FILE_BYTES: usize = 1024;
/// So many files of [`FILE_BYTES`] are a tar that the reference takes: below its 2 MiB.
const FILES_PER_TAR: usize = 1000;
const SEARCHED: usize = 20_000;
const WATCHED: usize = 60;

/// One side, with the seconds that it took.
struct Lane {
    client: Client,
    one_by_one: Vec<f64>,
    in_tars: Vec<f64>,
    /// What was made is removed at the end: ext4 looks long for an inode while many were given back just before.
    homes: Vec<tempfile::TempDir>,
    /// Held because dropping it ends the server.
    _server: Server,
}

impl Lane {
    fn open(ctx: &Context, side: Side) -> Result<Self> {
        let server = ctx.start(side)?;
        let client = ctx.solo.block_on(Client::connect(server.addr))?;
        Ok(Self { client, one_by_one: Vec::new(), in_tars: Vec::new(), homes: Vec::new(), _server: server })
    }

    async fn send(&mut self, method: &str, path: &str, kind: &str, body: &[u8]) -> Result<()> {
        let reply = self.client.call_with(method, path, kind, body, LIMIT).await?;
        match reply.status {
            200 => Ok(()),
            status => Err(format!("{method} {path}: {status} {:.200}", String::from_utf8_lossy(&reply.body)).into()),
        }
    }

    async fn put_all(&mut self, content: &[u8]) -> Result<()> {
        let home = tempfile::Builder::new().prefix("compare-put-").tempdir()?;
        let begin = Instant::now();
        for number in 0..FILES {
            let path = format!("/v1/fs/file?path={}/{}", home.path().display(), name(number));
            self.send("PUT", &path, "application/octet-stream", content).await?;
        }
        self.one_by_one.push(begin.elapsed().as_secs_f64());
        count(home.path())?;
        self.homes.push(home);
        Ok(())
    }

    async fn unpack(&mut self, tars: &[Vec<u8>]) -> Result<()> {
        let home = tempfile::Builder::new().prefix("compare-tar-").tempdir()?;
        let path = format!("/v1/fs/upload-batch?path={}", home.path().display());
        let begin = Instant::now();
        for tar in tars {
            self.send("POST", &path, "application/x-tar", tar).await?;
        }
        self.in_tars.push(begin.elapsed().as_secs_f64());
        count(home.path())?;
        self.homes.push(home);
        Ok(())
    }
}

/// In a hundred directories.
fn name(number: usize) -> String {
    format!("d{:02}/file-{number:06}.txt", number % 100)
}

fn count(home: &Path) -> Result<()> {
    let mut found = 0;
    for directory in std::fs::read_dir(home)? {
        found += std::fs::read_dir(directory?.path())?.count();
    }
    if found == FILES { Ok(()) } else { Err(format!("{found} of {FILES} files are there").into()) }
}

fn tars(content: &[u8], files_each: usize) -> Result<Vec<Vec<u8>>> {
    let numbers: Vec<usize> = (0..FILES).collect();
    let pack = |numbers: &[usize]| {
        let mut tar = tar::Builder::new(Vec::new());
        for number in numbers {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, name(*number), content)?;
        }
        Ok(tar.into_inner()?)
    };
    numbers.chunks(files_each).map(pack).collect()
}

/// 10 000 files of 1 KiB: one `PUT` each over one connection, and in tars (ours in one, the reference in ten, because it takes
/// no larger ones); s. GNU tar unpacks the same beside them.
pub fn upload(ctx: &Context) -> Result<Vec<Row>> {
    let content = vec![b'x'; FILE_BYTES];
    let (whole, parts) = (tars(&content, FILES)?, tars(&content, FILES_PER_TAR)?);
    let mut lanes = Lanes::open(|side| Lane::open(ctx, side));
    let (mut plain, mut homes) = (Vec::new(), Vec::new());
    for _ in 0..ctx.times(3) {
        lanes.each(|_, lane| ctx.solo.block_on(lane.put_all(&content)));
        lanes.each(|side, lane| {
            ctx.solo.block_on(lane.unpack(match side {
                Side::Ours => &whole,
                Side::Reference => &parts,
            }))
        });
        let home = tempfile::Builder::new().prefix("compare-gnu-").tempdir()?;
        plain.push(unpack_plainly(&whole[0], home.path())?);
        homes.push(home);
    }
    let note = format!("GNU tar unpacks the same in {:.2} s", Summary::median(&plain).value);
    Ok(lanes.report(vec![
        lanes.row("PUT of 10 000 files of 1 KiB", "s", Better::Lower, |lane| Summary::median(&lane.one_by_one)),
        lanes.row("tar of 10 000 files of 1 KiB", "s", Better::Lower, |lane| Summary::median(&lane.in_tars)).note(note),
    ]))
}

fn unpack_plainly(tar: &[u8], home: &Path) -> Result<f64> {
    use std::io::Write as _;
    let begin = Instant::now();
    let mut child = Command::new("tar").args(["-x", "-C"]).arg(home).stdin(Stdio::piped()).spawn()?;
    child.stdin.take().ok_or("tar has no standard input")?.write_all(tar)?;
    if !child.wait()?.success() {
        return Err("tar failed".into());
    }
    let took = begin.elapsed().as_secs_f64();
    count(home)?;
    Ok(took)
}

/// A tree of text: 20 000 files in 400 directories, about 110 MB, a word of which is in one file of a hundred.
fn text_tree() -> Result<tempfile::TempDir> {
    let home = tempfile::Builder::new().prefix("compare-text-").tempdir()?;
    let mut state = 1_u64;
    for number in 0..SEARCHED {
        let directory = home.path().join(format!("d{:03}", number % 400));
        std::fs::create_dir_all(&directory)?;
        let mut text = String::new();
        for line in 0..100 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let word = if number % 100 == 0 && line == 50 { "needle_in_hay" } else { "some_usual_word" };
            writeln!(text, "let value_{} = {word}({:016x});", state >> 48, state)?;
        }
        std::fs::write(directory.join(format!("file-{number}.rs")), text)?;
    }
    Ok(home)
}

/// A search of a tree by us over HTTP, and by `rg` as a program: that one stands in the reference's column. ms.
pub fn search(ctx: &Context) -> Result<Vec<Row>> {
    let tree = text_tree()?;
    let server = ctx.start(Side::Ours)?;
    let mut client = ctx.solo.block_on(Client::connect(server.addr))?;
    let cases = [
        ("search of 20 000 files, a word", "needle_in_hay", 200),
        ("search of 20 000 files, an expression", r"value_\d%2B%20=%20needle\w%2B\(", 200),
    ];
    let mut rows = Vec::new();
    for (name, pattern, hits) in cases {
        let mut times = Pair { ours: Vec::new(), reference: Vec::new() };
        let path = format!("/v1/fs/grep?path={}&limit=1000&pattern={pattern}", tree.path().display());
        let plain = pattern.replace("%20", " ").replace("%2B", "+");
        for _ in 0..ctx.times(9) {
            let begin = Instant::now();
            let reply = ctx.solo.block_on(client.call("GET", &path, b"", LIMIT))?;
            times.ours.push(ms(begin.elapsed()));
            let found = String::from_utf8(reply.body)?.matches("needle_in_hay").count();
            let begin = Instant::now();
            let output = Command::new("rg").args(["-n", "--no-heading", "-e", &plain]).arg(tree.path()).output()?;
            times.reference.push(ms(begin.elapsed()));
            let lines = output.stdout.iter().filter(|byte| **byte == b'\n').count();
            if (found, lines) != (hits, hits) {
                return Err(format!("{name}: {found} and {lines} hits of {hits}").into());
            }
        }
        rows.push(Row::of_medians(name, "ms", Better::Lower, &times).note(format!("{name}: beside ripgrep itself")));
    }
    Ok(rows)
}

/// From the write of a file to the event that tells it; ms. Changes are gathered for `fs_watch_window_ms` first.
pub fn watch(ctx: &Context) -> Result<Vec<Row>> {
    let home = tempfile::Builder::new().prefix("compare-watch-").tempdir()?;
    let server = ctx.start(Side::Ours)?;
    let times = ctx.solo.block_on(async {
        let path = format!("/v1/fs/watch?path={}", home.path().display());
        let mut ready = EventStream::open_named(server.addr, &path, None, "ready").await?;
        ready.read_events(|_, _| {}).await?;
        let mut events = EventStream::open(server.addr, &path, None).await?;
        let mut times = Vec::new();
        for number in 0..WATCHED {
            let name = format!("file-{number}.txt");
            tokio::time::sleep(Duration::from_millis(150)).await;
            let begin = Instant::now();
            std::fs::write(home.path().join(&name), "x")?;
            let mut is_told = false;
            while !is_told {
                let seen = |_, data: &[u8]| is_told |= String::from_utf8_lossy(data).contains(&name);
                if !tokio::time::timeout(LIMIT, events.read_events(seen)).await?? {
                    return Err("the stream of changes ended".into());
                }
            }
            times.push(ms(begin.elapsed()));
        }
        Ok::<_, crate::Error>(times)
    })?;
    let times = [times];
    Ok(vec![
        Row::ours_only("a change is told p50", "ms", Better::Lower, Summary::quantile(&times, 0.5))
            .note("a change is told: changes are gathered for 75 ms first; the reference has no watch".to_owned()),
        Row::ours_only("a change is told p99", "ms", Better::Lower, Summary::quantile(&times, 0.99)),
    ])
}
