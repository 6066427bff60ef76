//! The rows about the desktop: how long a picture, an input, a look at windows and selections take, and its start.
//!
//! A blank screen is black, without a window. A busy one has a coloured cloud behind two terminals full of text. Each side has
//! its own display. Programs: Xvfb, openbox, xterm, xclip, ImageMagick; for the reference xdotool, too.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::Result;
use crate::http::Client;
use crate::lanes::Lanes;
use crate::process_api::json_of;
use crate::report::{Better, Row, Summary};
use crate::rows::{Context, ms};
use crate::subject::{Server, Side};

/// No single request of these rows may take longer, but for [`SET_LIMIT`].
const REQUEST_LIMIT: Duration = Duration::from_secs(20);
/// The reference never answers to a new clipboard text: it is waited for no longer.
const SET_LIMIT: Duration = Duration::from_secs(5);
/// Longest wait for a screen to be as a row needs it.
const SETTLE_LIMIT: Duration = Duration::from_secs(30);
const SETTLE_PAUSE: Duration = Duration::from_millis(100);
/// Measured calls of each kind, after one for warming up.
const CALLS: usize = 10;
const STARTS: usize = 10;
const TYPED_CHARS: usize = 200;
/// A picture of a busy screen is no smaller.
const BUSY_BYTES_MIN: usize = 500_000;
const COPIED: &str = "what was copied";

/// Pixels.
type Size = (u32, u32);
const SIZES: [Size; 2] = [(1440, 900), (1920, 1080)];

/// One kind of call.
struct Call {
    name: &'static str,
    method: &'static str,
    path: &'static str,
    /// By the number of the round, as input that changes nothing may cost nothing.
    body: fn(usize) -> Value,
    /// Whether this is a right answer.
    is_right: fn(&[u8]) -> bool,
    /// Whether it tells something of a busy screen only.
    busy_only: bool,
}

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";
const JPEG: &[u8] = b"\xff\xd8\xff";

const CALLS_OF: [Call; 9] = [
    look("screenshot PNG", "screenshot", |body| body.starts_with(PNG)),
    look("screenshot JPEG", "screenshot?format=jpeg", |body| body.starts_with(JPEG)),
    look("screenshot WebP", "screenshot?format=webp", |body| body.get(8..12) == Some(b"WEBP")),
    look("region 400x300 PNG", "screenshot/region?x=100&y=100&width=400&height=300", |body| body.starts_with(PNG)),
    input("mouse move", "mouse/move", |round| json!({"x": 200 + round, "y": 300}), false),
    input("click", "mouse/click", |round| json!({"x": 200 + round, "y": 300}), false),
    input("type 200 characters", "keyboard/type", |_| json!({"text": text(), "delayMs": 0}), true),
    Call { busy_only: true, ..look("window list, 2 windows", "windows", |body| windows(body) == 2) },
    look("clipboard get", "clipboard", |body| member(body, "text") == COPIED),
];

const fn look(name: &'static str, path: &'static str, is_right: fn(&[u8]) -> bool) -> Call {
    Call { name, method: "GET", path, body: |_| Value::Null, is_right, busy_only: false }
}

const fn input(name: &'static str, path: &'static str, body: fn(usize) -> Value, busy_only: bool) -> Call {
    Call { name, method: "POST", path, body, is_right: |_| true, busy_only }
}

fn text() -> String {
    "the quick brown fox jumps over the lazy dog ".chars().cycle().take(TYPED_CHARS).collect()
}

fn member(body: &[u8], name: &str) -> Value {
    serde_json::from_slice::<Value>(body).map_or(Value::Null, |mut value| value[name].take())
}

fn windows(body: &[u8]) -> usize {
    member(body, "windows").as_array().map_or(0, Vec::len)
}

/// One side: a server with its desktop, and what was measured, ms.
struct Lane {
    client: Client,
    samples: BTreeMap<&'static str, Vec<f64>>,
    starts: Vec<f64>,
    sets: Vec<f64>,
    side: Side,
    server: Server,
}

impl Lane {
    fn open(ctx: &Context, side: Side) -> Result<Self> {
        let server = ctx.start(side)?;
        let client = ctx.solo.block_on(Client::connect(server.addr))?;
        Ok(Self { client, samples: BTreeMap::new(), starts: Vec::new(), sets: Vec::new(), side, server })
    }

    async fn ask(&mut self, method: &str, path: &str, body: &Value, limit: Duration) -> Result<Vec<u8>> {
        let sent = if body.is_null() { String::new() } else { body.to_string() };
        let path = format!("/v1/{path}");
        let reply = self.client.call(method, &path, sent.as_bytes(), limit).await?;
        match reply.status {
            200 => Ok(reply.body),
            status => Err(format!("{method} {path}: {status} {:.200}", String::from_utf8_lossy(&reply.body)).into()),
        }
    }

    /// Gives the time until it is active.
    async fn begin(&mut self, (width, height): Size) -> Result<Duration> {
        // Ten displays are tried from there on.
        let display = if self.side == Side::Ours { 150 } else { 170 };
        let spec = json!({"width": width, "height": height, "displayNum": display});
        let begin = Instant::now();
        let status = self.ask("POST", "desktop/start", &spec, REQUEST_LIMIT).await?;
        match member(&status, "state").as_str() {
            Some("active") => Ok(begin.elapsed()),
            _ => Err(format!("the desktop is {:.300}", String::from_utf8_lossy(&status)).into()),
        }
    }

    async fn stop(&mut self) -> Result<()> {
        self.ask("POST", "desktop/stop", &Value::Null, REQUEST_LIMIT).await.map(drop)
    }

    async fn start_once(&mut self, size: Size) -> Result<()> {
        let time = self.begin(size).await?;
        self.starts.push(ms(time));
        self.stop().await
    }

    /// Runs a shell script in the desktop to its end.
    async fn shell(&mut self, script: &str) -> Result<()> {
        let launch = json!({"app": "sh", "args": ["-c", script]});
        let launched = self.ask("POST", "desktop/launch", &launch, REQUEST_LIMIT).await?;
        let id = member(&launched, "processId");
        let path = format!("/v1/processes/{}", id.as_str().ok_or("launched without an id")?);
        let begin = Instant::now();
        while begin.elapsed() < SETTLE_LIMIT {
            let info = json_of(&self.client.call("GET", &path, b"", REQUEST_LIMIT).await?)?;
            match (info["status"].as_str(), info["exitCode"].as_i64()) {
                (Some("exited"), Some(0)) => return Ok(()),
                (Some("exited"), _) => return Err(format!("{script}: {info}").into()),
                _ => sleep(SETTLE_PAUSE).await,
            }
        }
        Err(format!("{script}: still runs after {SETTLE_LIMIT:?}").into())
    }

    /// Makes the screen as the row wants it. Something is copied on each.
    async fn dress(&mut self, (width, height): Size, is_busy: bool) -> Result<()> {
        let copy = format!("printf '{COPIED}' | xclip -selection clipboard -i >/dev/null 2>&1");
        self.shell(&copy).await?;
        if !is_busy {
            return Ok(());
        }
        // `display` calls it a failure that there is no window of its own: the picture below tells.
        let make = format!("convert -seed 7 -size {width}x{height} plasma:fractal cloud.png");
        self.shell(&format!("{make} && {{ display -window root cloud.png || true; }}")).await?;
        for place in ["80x24+40+40", "80x24+500+300"] {
            let script = "seq -s ' ' 1 500; exec cat > /dev/null";
            let launch = json!({"app": "xterm", "args": ["-geometry", place, "-e", "sh", "-c", script]});
            self.ask("POST", "desktop/launch", &launch, REQUEST_LIMIT).await?;
        }
        let begin = Instant::now();
        while windows(&self.ask("GET", "desktop/windows", &Value::Null, REQUEST_LIMIT).await?) < 2 {
            if begin.elapsed() > SETTLE_LIMIT {
                return Err(format!("no two windows after {SETTLE_LIMIT:?}").into());
            }
            sleep(SETTLE_PAUSE).await;
        }
        match self.ask("GET", "desktop/screenshot", &Value::Null, REQUEST_LIMIT).await?.len() {
            BUSY_BYTES_MIN.. => Ok(()),
            bytes => Err(format!("a picture of {bytes} bytes is not busy").into()),
        }
    }

    async fn measure(&mut self, call: &Call, round: usize) -> Result<()> {
        let body = (call.body)(round);
        let begin = Instant::now();
        let answer = self.ask(call.method, &format!("desktop/{}", call.path), &body, REQUEST_LIMIT).await?;
        let time = begin.elapsed();
        if !(call.is_right)(&answer) {
            return Err(format!("{}: not right: {:.200}", call.name, String::from_utf8_lossy(&answer)).into());
        }
        // The first warms up.
        if round > 0 {
            self.samples.entry(call.name).or_default().push(ms(time));
        }
        Ok(())
    }

    /// Sets the clipboard; a side that doesn't answer is not asked again.
    async fn set_clipboard(&mut self, times: usize) -> Result<()> {
        for round in 0..times {
            let begin = Instant::now();
            let set = self.ask("POST", "desktop/clipboard", &json!({"text": format!("number {round}")}), SET_LIMIT).await;
            if let Err(error) = set {
                if begin.elapsed() < SET_LIMIT {
                    return Err(error);
                }
                self.client = Client::connect(self.server.addr).await?;
                self.sets.clear();
                return Ok(());
            }
            self.sets.push(ms(begin.elapsed()));
        }
        Ok(())
    }

    fn set_summary(&self) -> Summary {
        if self.sets.is_empty() { Summary::NONE } else { Summary::median(&self.sets) }
    }
}

/// Median of 10 starts of Xvfb and all that belongs to it, to the answer that says `active`; ms.
pub fn start(ctx: &Context) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for size in SIZES {
        let mut lanes = Lanes::open(|side| Lane::open(ctx, side));
        for _ in 0..ctx.times(STARTS) {
            lanes.each(|_, lane| ctx.solo.block_on(lane.start_once(size)));
        }
        let row = lanes.row(name_of("start to active", size, ""), "ms", Better::Lower, |lane| Summary::median(&lane.starts));
        rows.extend(lanes.report(vec![row]));
    }
    Ok(rows)
}

/// Each call, median of 10 over one connection, at 1440x900; ms.
pub fn small(ctx: &Context) -> Result<Vec<Row>> {
    Ok(both_screens(ctx, SIZES[0]))
}

/// The same at 1920x1080.
pub fn large(ctx: &Context) -> Result<Vec<Row>> {
    Ok(both_screens(ctx, SIZES[1]))
}

fn both_screens(ctx: &Context, size: Size) -> Vec<Row> {
    [false, true].into_iter().flat_map(|is_busy| of_screen(ctx, size, is_busy)).collect()
}

fn of_screen(ctx: &Context, size: Size, is_busy: bool) -> Vec<Row> {
    let mut lanes = Lanes::open(|side| {
        let mut lane = Lane::open(ctx, side)?;
        ctx.solo.block_on(async {
            lane.begin(size).await?;
            lane.dress(size, is_busy).await
        })?;
        Ok(lane)
    });
    let calls = || CALLS_OF.iter().filter(|call| is_busy || !call.busy_only);
    for round in 0..=ctx.times(CALLS) {
        for call in calls() {
            lanes.each(|_, lane| ctx.solo.block_on(lane.measure(call, round)));
        }
    }
    lanes.each(|_, lane| ctx.solo.block_on(lane.set_clipboard(ctx.times(CALLS))));
    let screen = if is_busy { "busy" } else { "blank" };
    let median = |lane: &Lane, name| lane.samples.get(name).map_or(Summary::NONE, |samples| Summary::median(samples));
    let row = |call: &Call| lanes.row(name_of(call.name, size, screen), "ms", Better::Lower, |lane| median(lane, call.name));
    let mut rows: Vec<Row> = calls().map(row).collect();
    let set = lanes.row(name_of("clipboard set", size, screen), "ms", Better::Lower, Lane::set_summary);
    let told = lanes.tell(|lane| match lane.sets.len() {
        0 => format!("never answered within {SET_LIMIT:?}"),
        times => format!("answered {times} times"),
    });
    rows.push(set.note(told));
    let rows = lanes.report(rows);
    // The reference leaves its desktop running when it ends.
    lanes.each(|_, lane| ctx.solo.block_on(lane.stop()));
    rows
}

/// Rows live as long as the program.
fn name_of(what: &str, (width, height): Size, screen: &str) -> &'static str {
    format!("{what}, {width}x{height} {screen}").trim_end().to_owned().leak()
}
