//! Spans of processes, from the events of their stream. How far the stream was read is kept in the same transaction as the
//! spans, so a process that ended while nobody looked, as in a crash, gets its span all the same.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Error, Traces, ids};
use crate::store::{Item, Newest, RowChange, SpanRow, Stream};

/// How long events are gathered for one transaction: runs may come by the hundred.
const GATHER: Duration = Duration::from_millis(250);
/// After the disk refused spans.
const RETRY: Duration = Duration::from_secs(5);
/// Events of one transaction.
const PAGE_EVENTS: usize = 256;
/// The same in bytes.
const PAGE_BYTES: usize = 1024 * 1024;
/// Longest command in a span's name, in characters.
const NAME_MAX_CHARS: usize = 200;
/// Arguments in an attribute.
const ARGS_MAX: usize = 64;

/// Task `process-spans`.
pub(super) struct Follower {
    traces: Traces,
    stream: Arc<Stream>,
    newest: watch::Receiver<Newest>,
    cursor: u64,
    stop: CancellationToken,
}

impl Follower {
    pub(super) async fn new(traces: Traces, stop: CancellationToken) -> Result<Self, Error> {
        let store = &traces.inner.store;
        let stream = store.open_stream("processes").await?;
        let (newest, cursor) = (stream.watch(), store.span_cursor().await?);
        Ok(Self { traces, newest, cursor: cursor.min(stream.newest().seq), stream, stop })
    }

    /// Ends when it is told to, after what is there then.
    pub(super) async fn run(mut self) {
        loop {
            let pause = match self.catch_up().await {
                Ok(()) => {
                    tokio::select! {
                        changed = self.newest.changed() => if changed.is_err() { return },
                        () = self.stop.cancelled() => {}
                    }
                    GATHER
                }
                Err(error) => {
                    tracing::debug!(%error, "spans of processes wait for the database");
                    RETRY
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.stop.cancelled() => {
                    let _ = self.catch_up().await; // what is not written now is by the next run
                    return;
                }
            }
        }
    }

    async fn catch_up(&mut self) -> Result<(), Error> {
        loop {
            self.newest.borrow_and_update();
            let items = self.stream.read_after(self.cursor, PAGE_EVENTS, PAGE_BYTES).await?;
            let Some(last) = items.last().map(Item::end) else { return Ok(()) };
            let events = items.iter().filter_map(|item| if let Item::Event(event) = item { Some(&event.payload) } else { None });
            let spans: Vec<SpanRow> = events.filter_map(|payload| span(payload)).collect();
            let puts = spans.iter().map(|row| RowChange::PutSpan(Box::new(row.clone())));
            let changes = puts.chain([RowChange::KeepSpanCursor { position: last }]).collect();
            self.traces.inner.store.change(RowChange::Many(changes)).await?;
            self.cursor = last;
            spans.iter().for_each(|row| self.traces.ended(row));
        }
    }
}

/// What the events say, as far as it is of interest here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Told {
    #[serde(rename = "type")]
    kind: String,
    process: Option<Process>,
    #[serde(flatten)]
    ran: Option<Ran>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Process {
    id: String,
    command: String,
    #[serde(default)]
    args: Vec<String>,
    cwd: Option<String>,
    owner: Option<String>,
    pid: Option<u32>,
    status: String,
    created_at_ms: i64,
    exited_at_ms: Option<i64>,
    exit: Option<Exit>,
    exit_reason: Option<String>,
    #[serde(default)]
    restarts: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ran {
    id: String,
    command: String,
    #[serde(default)]
    args: Vec<String>,
    cwd: Option<String>,
    exit: Option<Exit>,
    exit_reason: Option<String>,
    duration_ms: i64,
    stdout_bytes: u64,
    stderr_bytes: u64,
    at_ms: i64,
}

#[derive(Deserialize)]
struct Exit {
    code: Option<i32>,
    signal: Option<String>,
}

/// The span that an event tells of. One process is one span, restarts included.
fn span(payload: &[u8]) -> Option<SpanRow> {
    let told: Told = serde_json::from_slice(payload).ok()?;
    match told.kind.as_str() {
        "process.started" | "process.restarted" | "process.exited" => told.process.map(managed),
        "process.ran" => told.ran.map(run),
        _ => None,
    }
}

fn managed(process: Process) -> SpanRow {
    let Process { id, command, args, cwd, owner, exit, exit_reason, .. } = process;
    let ended_at_ms = process.exited_at_ms.filter(|_| process.status == "exited");
    let mut attributes = attributes(&id, &command, &args, cwd);
    attributes.insert("sandboxd.process.owner".into(), owner.into());
    attributes.insert("process.pid".into(), process.pid.into());
    attributes.insert("sandboxd.process.restarts".into(), process.restarts.into());
    row(&id, &command, process.created_at_ms, ended_at_ms, exit, exit_reason, attributes)
}

fn run(ran: Ran) -> SpanRow {
    let Ran { id, command, args, cwd, exit, exit_reason, .. } = ran;
    let mut attributes = attributes(&id, &command, &args, cwd);
    attributes.insert("sandboxd.process.owner".into(), "run".into());
    attributes.insert("sandboxd.output_bytes".into(), (ran.stdout_bytes + ran.stderr_bytes).into());
    row(&id, &command, ran.at_ms - ran.duration_ms, Some(ran.at_ms), exit, exit_reason, attributes)
}

fn attributes(id: &str, command: &str, args: &[String], cwd: Option<String>) -> Map<String, Value> {
    let cut = |text: &str| text.chars().take(NAME_MAX_CHARS).collect::<String>();
    let args: Vec<_> = [command].into_iter().chain(args.iter().map(String::as_str)).take(ARGS_MAX).map(cut).collect();
    let mut attributes = Map::from_iter([
        ("sandboxd.process.id".to_owned(), id.into()),
        ("process.command".to_owned(), cut(command).into()),
        ("process.command_args".to_owned(), args.into()),
    ]);
    attributes.extend(cwd.map(|cwd| ("process.working_directory".to_owned(), cwd.into())));
    attributes
}

fn row(
    id: &str,
    command: &str,
    started_at_ms: i64,
    ended_at_ms: Option<i64>,
    exit: Option<Exit>,
    reason: Option<String>,
    mut attributes: Map<String, Value>,
) -> SpanRow {
    let outcome = ended_at_ms.map(|_| outcome(exit.as_ref(), reason));
    if let Some(exit) = exit.filter(|_| ended_at_ms.is_some()) {
        attributes.insert("process.exit.code".into(), exit.code.into());
        attributes.insert("sandboxd.process.signal".into(), exit.signal.into());
    }
    if let Some(outcome) = outcome.as_ref().filter(|outcome| *outcome != "completed") {
        attributes.insert("error.type".into(), json!(outcome));
    }
    attributes.retain(|_, value| !value.is_null());
    let names = ["process", id, &started_at_ms.to_string()];
    SpanRow {
        span_id: ids::span_id(&names),
        trace_id: ids::trace_id(&names),
        parent_span_id: None,
        session_id: None,
        turn_id: None,
        kind: "process".into(),
        name: command.chars().take(NAME_MAX_CHARS).collect(),
        started_at_ms,
        ended_at_ms: ended_at_ms.map(|at_ms| at_ms.max(started_at_ms)),
        outcome,
        doc: Value::Object(attributes).to_string(),
    }
}

/// `completed` for code 0, `failed` for another end of its own, else why it was ended.
fn outcome(exit: Option<&Exit>, reason: Option<String>) -> String {
    match (exit.and_then(|exit| exit.code), reason) {
        (Some(0), None) => "completed".into(),
        (Some(0), Some(reason)) if reason == "exited" => "completed".into(),
        (_, Some(reason)) if reason != "exited" => reason,
        _ => "failed".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(payload: &Value) -> Option<SpanRow> {
        span(payload.to_string().as_bytes())
    }

    #[test]
    fn a_process_is_one_span_from_its_first_start_to_its_last_end() {
        let mut process = json!({"id": "proc_3", "command": "make", "args": ["all"], "owner": "user", "pid": 7, "tty": false,
            "interactive": false, "status": "running", "createdAtMs": 1000});
        let started = told(&json!({"type": "process.started", "process": process})).expect("a span");
        assert_eq!((started.name.as_str(), started.started_at_ms, started.ended_at_ms), ("make", 1000, None));
        process["status"] = "restarting".into();
        (process["exit"], process["exitReason"], process["exitedAtMs"]) = (json!({"code": 2}), "exited".into(), 1500.into());
        let between = told(&json!({"type": "process.exited", "process": process})).expect("a span");
        assert_eq!((&between.span_id, between.ended_at_ms, between.outcome), (&started.span_id, None, None));
        process["status"] = "exited".into();
        let ended = told(&json!({"type": "process.exited", "process": process})).expect("a span");
        assert_eq!((&ended.span_id, ended.ended_at_ms, ended.outcome.as_deref()), (&started.span_id, Some(1500), Some("failed")));
        let doc: Value = serde_json::from_str(&ended.doc).expect("JSON");
        assert_eq!((&doc["process.exit.code"], &doc["process.command_args"]), (&json!(2), &json!(["make", "all"])));
        process["exitReason"] = "wall_time_limit".into();
        let limited = told(&json!({"type": "process.exited", "process": process})).expect("a span");
        assert_eq!(limited.outcome.as_deref(), Some("wall_time_limit"));
    }

    #[test]
    fn a_run_is_known_when_it_is_over() {
        let ran = json!({"type": "process.ran", "id": "proc_4", "command": "true", "args": [], "cwd": null,
            "exit": {"code": 0}, "exitReason": "exited", "timedOut": false, "durationMs": 30, "stdoutBytes": 1,
            "stderrBytes": 2, "atMs": 1030});
        let span = told(&ran).expect("a span");
        assert_eq!((span.started_at_ms, span.ended_at_ms, span.outcome.as_deref()), (1000, Some(1030), Some("completed")));
        for other in [json!({"type": "process.deleted", "ids": ["proc_1"]}), json!({"type": "port.opened", "port": {}}), json!(1)]
        {
            assert_eq!(told(&other), None, "{other}");
        }
    }
}
