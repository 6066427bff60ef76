//! One-shot runs: a child that is run to its end, with its output in the answer.
//!
//! A run ends at its timeout whatever holds its pipes, and goes on to its end when the client that asked for it leaves.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::task::coop::consume_budget;
use tokio::time::Instant;

use super::Error;
use super::children::Child;
use super::kept::digest;
use super::managed::{How, Stdio, limits, read_now};
use super::prepare::Prepared;
use super::room::Room;
use super::spool::Stream;
use super::types::{Exit, ExitInfo, ExitReason, Owner, RunResult, RunSpec, Stopped};
use super::usage;
use crate::config::{Bounds, as_duration, as_usize};
use crate::rt::clock::now_ms;
use crate::rt::spawn_owned;
use crate::store::RowChange;

/// After the tree was killed, the time for its last output to be read.
const LAST_OUTPUT: Duration = Duration::from_millis(200);

type Answer = Result<Arc<RunResult>, Error>;

/// What runs with a key came to.
#[derive(Default)]
pub(super) struct RunKeys {
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    by_key: HashMap<String, Keyed>,
    oldest_first: VecDeque<String>,
}

/// What a key was used for, and what came of it.
struct Keyed {
    digest: String,
    answer: watch::Receiver<Option<Answer>>,
}

impl Keyed {
    /// Bytes of its answer; `None` while it runs.
    fn bytes(&self) -> Option<usize> {
        let answer = self.answer.borrow();
        answer.as_ref().map(|answer| answer.as_ref().map_or(0, |result| result.stdout.len() + result.stderr.len()))
    }
}

impl Known {
    /// Forgets the oldest answers beyond the bounds. What still runs is never forgotten: a repeated request would run it
    /// twice.
    fn trim(&mut self, bounds: &Bounds) {
        let (max, max_bytes) = (as_usize(bounds.run_keys_max), as_usize(bounds.run_keys_max_bytes));
        let mut bytes: usize = self.by_key.values().filter_map(Keyed::bytes).sum();
        let mut at = 0;
        while at < self.oldest_first.len() && (self.oldest_first.len() > max || bytes > max_bytes) {
            match self.by_key.get(&self.oldest_first[at]).map(Keyed::bytes) {
                Some(None) => at += 1,
                answered => {
                    bytes -= answered.flatten().unwrap_or(0);
                    if let Some(key) = self.oldest_first.remove(at) {
                        self.by_key.remove(&key);
                    }
                }
            }
        }
    }
}

/// Runs to the end. With an idempotency key, a repeated request waits for the same end.
pub(super) async fn run(room: &Arc<Room>, spec: RunSpec) -> Answer {
    let Some(key) = spec.run.idempotency_key.clone() else {
        let room = Arc::clone(room);
        let task = spawn_owned("run", async move { once(&room, &spec).await.map(Arc::new) });
        return task.await.unwrap_or(Err(Error::Stopping));
    };
    let digest = digest(&spec);
    let mut answer = {
        let mut known = room.run_keys.known.lock().unwrap_or_else(PoisonError::into_inner);
        match known.by_key.get(&key) {
            Some(keyed) if keyed.digest == digest => keyed.answer.clone(),
            Some(_) => return Err(Error::KeyReused { key }),
            None => {
                let (publish, answer) = watch::channel(None);
                known.by_key.insert(key.clone(), Keyed { digest, answer: answer.clone() });
                known.oldest_first.push_back(key.clone());
                let room = Arc::clone(room);
                spawn_owned("run", async move {
                    let answer = once(&room, &spec).await.map(Arc::new);
                    room.run_keys.answered(&key, answer.is_ok(), &room.bounds);
                    publish.send_replace(Some(answer));
                });
                answer
            }
        }
    };
    let answer = answer.wait_for(Option::is_some).await.map(|answer| answer.clone());
    answer.ok().flatten().unwrap_or(Err(Error::Stopping))
}

impl RunKeys {
    /// A run that failed to start may be tried again. It is in there: what runs is not forgotten.
    fn answered(&self, key: &str, has_run: bool, bounds: &Bounds) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if !has_run {
            known.by_key.remove(key);
            known.oldest_first.retain(|known| known != key);
        }
        known.trim(bounds);
    }
}

/// What was written to one stream: the first bytes, and how many there were.
struct Captured {
    bytes: Vec<u8>,
    max: usize,
    total: u64,
}

impl Captured {
    fn take(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        let room = self.max.saturating_sub(self.bytes.len()).min(bytes.len());
        self.bytes.extend_from_slice(&bytes[..room]);
    }

    fn is_truncated(&self) -> bool {
        self.total > self.bytes.len() as u64
    }

    /// A cut in the middle of a character leaves the character out.
    fn text(mut self) -> String {
        if self.is_truncated() {
            let whole = whole_characters(&self.bytes);
            self.bytes.truncate(whole);
        }
        String::from_utf8(self.bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
    }
}

/// The length without a character that is begun at the end.
fn whole_characters(bytes: &[u8]) -> usize {
    for back in 1..=bytes.len().min(3) {
        let at = bytes.len() - back;
        let needs = match bytes[at] {
            0xc0..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf7 => 4,
            0x80..=0xbf => continue,
            _ => return bytes.len(),
        };
        return if needs > back { at } else { bytes.len() };
    }
    bytes.len()
}

struct Running {
    stdio: Stdio,
    child: Child,
    stdin: Bytes,
    captured: [Captured; 2],
    output_max_bytes: u64,
    /// What has to be measured.
    open_limits: Option<usage::Limits>,
}

/// Waits for a run's exit.
type Collect = Pin<Box<dyn Future<Output = Exit> + Send>>;

/// How a run ended.
struct End {
    exit: Option<Exit>,
    reason: ExitReason,
    tree: Option<Stopped>,
}

async fn once(room: &Arc<Room>, spec: &RunSpec) -> Result<RunResult, Error> {
    let config = room.config();
    let started = Instant::now();
    let id = room.children.next_id();
    let prepared = Prepared::new(&spec.run, id, Owner::Run, false, room.children.env(), &room.script_dir)?;
    let asked_ms = spec.timeout_ms.filter(|ms| *ms > 0).unwrap_or(config.default_run_timeout_ms);
    let timeout_ms = asked_ms.min(config.max_run_timeout_ms).min(spec.run.limits.wall_time_ms.unwrap_or(u64::MAX));
    let max = as_usize(spec.max_output_bytes.unwrap_or(u64::MAX).min(config.max_output_bytes));
    let with_stdin = spec.run.stdin.is_some();
    let confined = room.confine(id, &spec.run.limits);
    let how = How { terminal: None, stdin: with_stdin, kept_with: None };
    let (stdio, child, exit) = Stdio::start(&room.children, prepared.launch(), &how, confined)?;
    let mut exit: Collect = Box::pin(exit.collect());
    let captured = || Captured { bytes: Vec::new(), max, total: 0 };
    let output_max_bytes = spec.run.limits.output_bytes.unwrap_or(u64::MAX);
    let open_limits = limits::unbounded(&child, &spec.run.limits);
    let mut running = Running {
        open_limits,
        stdio,
        child,
        stdin: prepared.stdin.clone(),
        captured: [captured(), captured()],
        output_max_bytes,
    };
    let drain = as_duration(room.bounds.process_exit_drain_ms);
    let end = running.finish(&mut exit, started + Duration::from_millis(timeout_ms), drain).await;
    if end.exit.is_none() {
        spawn_owned("process", exit); // it can't be killed right now
    }
    let Running { stdio, child, captured: [stdout, stderr], .. } = running;
    let mut left_running = None;
    if !stdio.is_read_to_its_end() && end.tree.is_none() {
        left_running = Some(child.tree_pids().await.len());
        match Arc::clone(&room.lingering).try_acquire_owned() {
            Ok(permit) => _ = spawn_owned("run-rest", read_on(stdio, permit)),
            Err(_) => tracing::warn!(%id, "too much goes on in the background: the output of this run's rest is not read"),
        }
    }
    let result = RunResult {
        exit_code: end.exit.and_then(Exit::code).filter(|_| end.reason != ExitReason::WallTimeLimit),
        timed_out: end.reason == ExitReason::WallTimeLimit,
        stdout_truncated: stdout.is_truncated(),
        stderr_truncated: stderr.is_truncated(),
        stdout_bytes: stdout.total,
        stderr_bytes: stderr.total,
        stdout: stdout.text(),
        stderr: stderr.text(),
        duration_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        process_id: id,
        exit: end.exit.map(ExitInfo::from),
        exit_reason: end.reason,
        tree: end.tree,
        left_running,
    };
    log(room, spec, &result);
    Ok(result)
}

impl Running {
    /// Reads, writes and waits until it is over.
    async fn finish(&mut self, collect: &mut Collect, deadline: Instant, drain: Duration) -> End {
        self.write();
        let mut exit = None;
        let mut drained_at = None;
        let (child, open_limits) = (self.child.clone(), self.open_limits);
        let exceeded = async {
            match open_limits {
                Some(limits) => limits::exceeded(&child, limits).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(exceeded);
        loop {
            consume_budget().await; // waiting for a descriptor that is ready never yields by itself
            if let Some(ended) = exit.filter(|_| self.stdio.is_read_to_its_end()) {
                return self.ended(ended);
            }
            tokio::select! {
                biased;
                stream = self.stdio.readable() => self.read(stream),
                ended = &mut *collect, if exit.is_none() => {
                    exit = Some(ended);
                    drained_at = Some(Instant::now() + drain);
                }
                reason = &mut exceeded, if exit.is_none() => return self.end(collect, reason).await,
                () = self.stdio.writable(), if !self.stdin.is_empty() => self.write(),
                () = tokio::time::sleep_until(drained_at.unwrap_or(deadline).min(deadline)) => {
                    if let Some(ended) = exit {
                        return self.ended(ended);
                    }
                    return self.end(collect, ExitReason::WallTimeLimit).await;
                }
            }
            if self.captured.iter().map(|captured| captured.total).sum::<u64>() > self.output_max_bytes {
                return match exit {
                    Some(exit) => End {
                        exit: Some(exit),
                        reason: ExitReason::OutputLimit,
                        tree: Some(self.child.stop(Duration::ZERO).await),
                    },
                    None => self.end(collect, ExitReason::OutputLimit).await,
                };
            }
        }
    }

    fn ended(&self, exit: Exit) -> End {
        End { exit: Some(exit), reason: limits::breached(&self.child, exit).unwrap_or(ExitReason::Exited), tree: None }
    }

    /// Kills the tree and reads what it had still written.
    async fn end(&mut self, collect: &mut Collect, reason: ExitReason) -> End {
        let tree = self.child.stop(Duration::ZERO).await;
        let exit = tokio::time::timeout(LAST_OUTPUT, collect).await.ok();
        let rest = async {
            while !self.stdio.is_read_to_its_end() {
                consume_budget().await;
                let stream = self.stdio.readable().await;
                self.read(stream);
            }
        };
        let _ = tokio::time::timeout(LAST_OUTPUT, rest).await; // something that can't be killed may hold the pipes
        End { exit, reason, tree: Some(tree) }
    }

    fn read(&mut self, stream: Stream) {
        let captured = &mut self.captured[usize::from(stream == Stream::Stderr)];
        read_now(&mut self.stdio, stream, |bytes| captured.take(bytes));
    }

    fn write(&mut self) {
        while !self.stdin.is_empty() {
            match self.stdio.try_write(&self.stdin) {
                Ok(count) => self.stdin.advance(count),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => self.stdin.clear(), // it doesn't read any more
            }
        }
        self.stdio.close_stdin();
    }
}

/// What was left in the background must not die of writing.
async fn read_on(mut stdio: Stdio, _permit: OwnedSemaphorePermit) {
    while !stdio.is_read_to_its_end() {
        consume_budget().await;
        let stream = stdio.readable().await;
        read_now(&mut stdio, stream, |_| {});
    }
}

fn log(room: &Arc<Room>, spec: &RunSpec, result: &RunResult) {
    let event = json!({
        "type": "process.ran",
        "id": result.process_id,
        "command": spec.run.command,
        "args": spec.run.args,
        "cwd": spec.run.cwd,
        "exit": result.exit,
        "exitReason": result.exit_reason,
        "timedOut": result.timed_out,
        "durationMs": result.duration_ms,
        "stdoutBytes": result.stdout_bytes,
        "stderrBytes": result.stderr_bytes,
        "atMs": now_ms(),
    });
    let change = RowChange::CountProcess { number: result.process_id.0 };
    room.log_soon("process.ran", Bytes::from(event.to_string()), change);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_leaves_half_a_character_out() {
        let captured = |max: usize, text: &str| {
            let mut captured = Captured { bytes: Vec::new(), max, total: 0 };
            captured.take(text.as_bytes());
            captured.text()
        };
        assert_eq!(captured(4, "aä€"), "aä");
        assert_eq!(captured(5, "aä€"), "aä");
        assert_eq!(captured(6, "aä€"), "aä€");
        assert_eq!(captured(2, "😀"), "");
        assert_eq!(captured(0, "x"), "");
    }
}
