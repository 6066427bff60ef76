//! Waiting for what a process does: its exit, a line of output, quiet, an open port.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Error;
use super::logs::{LogQuery, LogReader, LogState, streams};
use super::open_ports;
use super::room::{Found, Room};
use super::search::pattern;
use super::spool::{LineAssembler, LineItem, Streams};
use super::types::{MatchedLine, WaitMet, WaitResult, WaitSpec};

/// How often listening ports are looked at while somebody waits for one.
const PORT_POLL: Duration = Duration::from_millis(100);

/// Output read at a time.
const PAGE_BYTES: usize = 256 * 1024;

/// Waits for the first of what is asked, or the exit.
pub(super) async fn wait(room: &Arc<Room>, found: &Found, spec: WaitSpec) -> Result<WaitResult, Error> {
    let began = Instant::now();
    let timeout_ms = spec.timeout_ms.unwrap_or(room.bounds.process_wait_timeout_default_ms);
    if timeout_ms > room.bounds.process_wait_timeout_max_ms {
        return Err(Error::Invalid(format!("timeoutMs is at most {}", room.bounds.process_wait_timeout_max_ms)));
    }
    let mut output = match &spec.output {
        Some(wanted) => Some(Output::open(room, found, wanted).await?),
        None => None,
    };
    let quiet = Quiet::open(room, found, spec.quiet_ms).await?;
    let ended = tokio::time::timeout(Duration::from_millis(timeout_ms), async {
        tokio::select! {
            biased;
            line = line_of(output.as_mut()) => line.map(Met::Output),
            () = quiet.wait() => Ok(Met::Quiet),
            port = port_of(room, found, spec.port) => port.map(Met::Port),
            () = exit_of(found) => Ok(Met::Exit),
        }
    });
    let met = match ended.await {
        Ok(Ok(Met::Exit)) => {
            // The exit may have been seen before the last output was looked at.
            match &mut output {
                Some(output) => output.rest().await?.map_or(Some(Met::Exit), |line| Some(Met::Output(line))),
                None => Some(Met::Exit),
            }
        }
        Ok(met) => Some(met?),
        Err(_) => None,
    };
    let process = (*found.info()).clone();
    let missed_bytes = output.map_or(0, |output| output.missed_bytes);
    let waited_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let mut result =
        WaitResult { met: None, timed_out: met.is_none(), waited_ms, matched: None, port: None, missed_bytes, process };
    match met {
        Some(Met::Output(line)) => (result.met, result.matched) = (Some(WaitMet::Output), Some(line)),
        Some(Met::Port(port)) => (result.met, result.port) = (Some(WaitMet::Port), Some(port)),
        Some(Met::Quiet) => result.met = Some(WaitMet::Quiet),
        Some(Met::Exit) => result.met = Some(WaitMet::Exit),
        None => {}
    }
    Ok(result)
}

enum Met {
    Exit,
    Output(MatchedLine),
    Quiet,
    Port(u16),
}

async fn exit_of(found: &Found) {
    if let Found::Alive(handle) = found {
        handle.exited().await;
    }
}

async fn line_of(output: Option<&mut Output>) -> Result<MatchedLine, Error> {
    match output {
        Some(output) => output.wait().await,
        None => std::future::pending().await,
    }
}

async fn port_of(room: &Arc<Room>, found: &Found, wanted: Option<u16>) -> Result<u16, Error> {
    match (wanted, found) {
        (Some(wanted), Found::Alive(handle)) => open_ports::opened(room, handle.id, wanted, PORT_POLL).await,
        _ => std::future::pending().await,
    }
}

/// Quiet: nothing is added to the log for some time.
struct Quiet(Option<(LogReader, Duration)>);

impl Quiet {
    async fn open(room: &Room, found: &Found, quiet_ms: Option<u64>) -> Result<Self, Error> {
        let Some(quiet_ms) = quiet_ms else { return Ok(Self(None)) };
        let mut log = LogReader::open(room, found, LogQuery::default()).await?;
        log.skip_to_end();
        Ok(Self(Some((log, Duration::from_millis(quiet_ms)))))
    }

    async fn wait(self) {
        let Some((mut log, quiet)) = self.0 else { return std::future::pending().await };
        loop {
            match tokio::time::timeout(quiet, log.changed()).await {
                Err(_) => return,
                Ok(LogState::More) => log.skip_to_end(),
                Ok(LogState::Over { .. }) => return std::future::pending().await, // the exit says it
            }
        }
    }
}

/// Lines that are tried as they come.
struct Output {
    log: LogReader,
    lines: LineAssembler,
    pattern: regex::Regex,
    missed_bytes: u64,
}

impl Output {
    async fn open(room: &Room, found: &Found, wanted: &super::types::WaitOutput) -> Result<Self, Error> {
        let pattern = pattern(&wanted.pattern)?;
        let query = LogQuery { stream: wanted.stream, since: wanted.since, tail: None };
        let streams = wanted.stream.map_or(Streams::ALL, streams);
        let log = LogReader::open(room, found, query).await?;
        Ok(Self { log, lines: LineAssembler::new(streams), pattern, missed_bytes: 0 })
    }

    async fn wait(&mut self) -> Result<MatchedLine, Error> {
        loop {
            if let Some(line) = self.read().await? {
                return Ok(line);
            }
            if let LogState::Over { .. } = self.log.changed().await {
                return std::future::pending().await; // the exit says it
            }
        }
    }

    /// What is left after the exit.
    async fn rest(&mut self) -> Result<Option<MatchedLine>, Error> {
        self.read().await
    }

    /// Reads what there is; the first line that matches, also one that hasn't ended.
    async fn read(&mut self) -> Result<Option<MatchedLine>, Error> {
        loop {
            let items = self.log.read_items(PAGE_BYTES).await?;
            if items.is_empty() {
                return Ok(None);
            }
            let mut done: VecDeque<LineItem> = VecDeque::new();
            for item in &items {
                self.lines.push(item, &mut done);
            }
            let mut ended = Vec::with_capacity(done.len());
            for item in done {
                match item {
                    LineItem::Line(line) => ended.push(line),
                    LineItem::Gap(gap) => self.missed_bytes += gap.bytes.total(),
                }
            }
            // A prompt has no line end: what is there of the last line is tried, too.
            let mut lines = ended.into_iter().chain(self.lines.open_lines());
            if let Some(line) = lines.find(|line| self.pattern.is_match(&line.text)) {
                return Ok(Some(MatchedLine { sequence: line.sequence, line: line.text }));
            }
        }
    }
}
