//! A session as JSON Lines, to be kept elsewhere or taken in by another server: the session, its turns and requests, its
//! events, and a last line that says it is whole.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::live::Live;
use super::projection::Source;
use super::turn::Turn;
use super::types::{ExitDoc, SessionDoc, SessionInfo};
use super::{Error, Sessions};
use crate::config::as_usize;
use crate::rt::clock::now_ms;
use crate::rt::ids::new_id;
use crate::store::{Item, RequestFilter, RequestRow, SessionRow, Store, TurnRow};

/// What stands in the first line.
const FORMAT: &str = "sandboxd.session/1";
/// The highest number that a turn may have: it leaves room for those to come.
const NUMBER_MAX: u64 = 1 << 53;
/// Turns and requests read at a time.
const PAGE: usize = 200;

/// A line of an export: an object that says what it is by `type`.
enum Line {
    Session(Box<Head>),
    Turn(TurnLine),
    Request(RequestLine),
    Event(EventLine),
    Gap(GapLine),
    End(EndLine),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    format: String,
    exported_at_ms: i64,
    session: SessionLine,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct TurnLine {
    id: String,
    number: u64,
    state: String,
    idempotency_key: Option<String>,
    request_hash: Option<String>,
    doc: Box<RawValue>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RequestLine {
    id: String,
    kind: String,
    state: String,
    created_at_ms: i64,
    resolved_at_ms: Option<i64>,
    doc: Box<RawValue>,
}

#[derive(Serialize, Deserialize)]
struct EventLine {
    sequence: u64,
    event: Box<RawValue>,
}

#[derive(Serialize, Deserialize)]
struct GapLine {
    from: u64,
    to: u64,
    reason: String,
}

#[derive(Serialize, Deserialize)]
struct EndLine {
    events: u64,
}

impl Line {
    fn read(json: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Kind<'a> {
            #[serde(rename = "type", borrow)]
            kind: std::borrow::Cow<'a, str>,
        }
        fn of<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, String> {
            serde_json::from_slice(json).map_err(|error| error.to_string())
        }
        let Kind { kind } = of(json)?;
        Ok(match kind.as_ref() {
            "session" => Self::Session(of(json)?),
            "turn" => Self::Turn(of(json)?),
            "request" => Self::Request(of(json)?),
            "event" => Self::Event(of(json)?),
            "gap" => Self::Gap(of(json)?),
            "end" => Self::End(of(json)?),
            other => return Err(format!("type {other:?} is none of session, turn, request, event, gap, end")),
        })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SessionLine {
    id: String,
    server_id: String,
    acp_session_id: String,
    agent: String,
    cwd: String,
    title: Option<String>,
    created_at_ms: i64,
    updated_at_ms: i64,
    closed_at_ms: Option<i64>,
    doc: Box<RawValue>,
}

/// An export on its way: gives its lines in pieces, so that a long session costs no memory.
pub struct Export {
    sessions: Sessions,
    live: Arc<Live>,
    part: Part,
    events: u64,
    /// The session may go on meanwhile: it is exported up to here.
    end: u64,
}

enum Part {
    Session,
    Turns { after: u64 },
    Requests { before: Option<String> },
    Events { after: u64 },
    Over,
}

impl Sessions {
    /// Begins an export. Cancel safe: it only reads.
    ///
    /// # Errors
    /// [`Error::UnknownSession`].
    pub async fn export(&self, id: &str) -> Result<Export, Error> {
        let live = self.live(id).await?;
        let end = live.stream.newest().seq;
        Ok(Export { sessions: self.clone(), live, part: Part::Session, events: 0, end })
    }
}

impl Export {
    /// The next lines; `None` at the end. Cancel safe.
    ///
    /// # Errors
    /// The file can't be read: what was given is then not whole, which its missing last line shows.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let mut lines = Lines::default();
        match &mut self.part {
            Part::Session => {
                lines.push(&self.first());
                self.part = Part::Turns { after: 0 };
            }
            Part::Turns { after } => {
                let turns = self.sessions.store().turns(&self.live.id, *after, PAGE).await?;
                match turns.last() {
                    Some(last) => *after = last.number,
                    None => self.part = Part::Requests { before: None },
                }
                turns.into_iter().for_each(|turn| lines.push(&turn_line(turn)));
            }
            Part::Requests { before } => {
                let filter =
                    RequestFilter { session_id: Some(self.live.id.clone()), before: before.clone(), ..RequestFilter::default() };
                let requests = self.sessions.store().requests(filter, PAGE).await?;
                match requests.last() {
                    Some(last) => *before = Some(last.id.clone()),
                    None => self.part = Part::Events { after: 0 },
                }
                requests.into_iter().for_each(|request| lines.push(&request_line(request)));
            }
            Part::Events { .. } => self.event_lines(&mut lines).await?,
            Part::Over => return Ok(None),
        }
        Ok(Some(lines.0.into()))
    }

    fn first(&self) -> Line {
        let state = self.live.lock();
        let row = &state.row;
        let session = SessionLine {
            id: row.id.clone(),
            server_id: row.server_id.clone(),
            acp_session_id: row.acp_session_id.clone(),
            agent: row.agent.clone(),
            cwd: row.cwd.clone(),
            title: row.title.clone(),
            created_at_ms: row.created_at_ms,
            updated_at_ms: row.updated_at_ms,
            closed_at_ms: row.closed_at_ms,
            doc: raw(self.sessions.store().redacted(serde_json::to_string(&state.doc).unwrap_or_default())),
        };
        Line::Session(Box::new(Head { format: FORMAT.to_owned(), exported_at_ms: now_ms(), session }))
    }

    async fn event_lines(&mut self, lines: &mut Lines) -> Result<(), Error> {
        let Part::Events { after } = &mut self.part else { return Ok(()) };
        let bounds = self.sessions.bounds();
        let (events, bytes) = (as_usize(bounds.log_page_max_events), as_usize(bounds.sse_chunk_max_bytes));
        let page = if *after < self.end { self.live.stream.read_after(*after, events, bytes).await? } else { Vec::new() };
        let Some(last) = page.last() else {
            lines.push(&Line::End(EndLine { events: self.events }));
            self.part = Part::Over;
            return Ok(());
        };
        *after = last.end();
        for item in page.into_iter().filter(|item| item.end() <= self.end) {
            match item {
                Item::Gap { from, to, reason } => {
                    lines.push(&Line::Gap(GapLine { from, to, reason: reason.as_str().to_owned() }))
                }
                Item::Event(event) => {
                    self.events += 1;
                    let event_json = raw(String::from_utf8_lossy(&event.payload).into_owned());
                    lines.push(&Line::Event(EventLine { sequence: event.seq, event: event_json }));
                }
            }
        }
        Ok(())
    }
}

#[derive(Default)]
struct Lines(Vec<u8>);

impl Lines {
    fn push(&mut self, line: &Line) {
        match line {
            Line::Session(line) => self.put("session", line),
            Line::Turn(line) => self.put("turn", line),
            Line::Request(line) => self.put("request", line),
            Line::Event(line) => self.put("event", line),
            Line::Gap(line) => self.put("gap", line),
            Line::End(line) => self.put("end", line),
        }
    }

    fn put(&mut self, kind: &str, line: &impl Serialize) {
        let json = serde_json::to_string(line).unwrap_or_default(); // plain structs always serialise
        let members = json.strip_prefix('{').unwrap_or("}");
        self.0.extend_from_slice(format!(r#"{{"type":"{kind}",{members}"#).as_bytes());
        self.0.push(b'\n');
    }
}

fn raw(json: String) -> Box<RawValue> {
    RawValue::from_string(json).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

fn turn_line(row: TurnRow) -> Line {
    let (idempotency_key, request_hash) = row.idempotency.unzip();
    let (id, number, state) = (row.id, row.number, row.state);
    Line::Turn(TurnLine { id, number, state, idempotency_key, request_hash, doc: raw(row.doc) })
}

fn request_line(row: RequestRow) -> Line {
    let RequestRow { id, kind, state, created_at_ms, resolved_at_ms, doc, .. } = row;
    Line::Request(RequestLine { id, kind, state, created_at_ms, resolved_at_ms, doc: raw(doc) })
}

/// An import on its way: takes bytes as they come. Dropped before it is finished, it leaves nothing.
pub struct Import {
    sessions: Sessions,
    rest: Vec<u8>,
    line_number: u64,
    taken: Option<Taken>,
    events: u64,
    is_whole: bool,
}

impl Drop for Import {
    fn drop(&mut self) {
        if let Some(taken) = self.taken.take() {
            drop(self.sessions.forget(&taken.live)); // it goes on by itself
        }
    }
}

/// What is there of it.
struct Taken {
    live: Arc<Live>,
    /// Its id where it was exported, when it has another one here.
    old_id: Option<String>,
    /// What its turns are called here, by what they were called there.
    turns: HashMap<String, String>,
}

impl Sessions {
    /// Begins an import.
    pub fn import(&self) -> Import {
        Import { sessions: self.clone(), rest: Vec::new(), line_number: 0, taken: None, events: 0, is_whole: false }
    }
}

impl Import {
    /// Takes some bytes of the export in.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the number of the line that can't be read. Drop the import then: nothing of it stays.
    pub async fn push(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.rest.extend_from_slice(bytes);
        let mut lines = VecDeque::new();
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            lines.push_back(self.rest.drain(..=end).collect::<Vec<_>>());
        }
        let max = self.sessions.bounds().acp_line_max_bytes;
        if self.rest.len() as u64 > max {
            return Err(Error::invalid(format!("line {} is longer than {max} bytes", self.line_number + 1)));
        }
        for line in lines {
            self.line(&line).await?;
        }
        Ok(())
    }

    /// The session, once everything is in.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the export isn't whole.
    pub async fn finish(&mut self) -> Result<SessionInfo, Error> {
        let rest = std::mem::take(&mut self.rest);
        self.line(&rest).await?;
        let Some(taken) = self.taken.as_ref().filter(|_| self.is_whole) else {
            return Err(Error::invalid("the export isn't whole: its last line, of type end, is missing"));
        };
        let exit = ExitDoc { reason: "imported".to_owned(), ..ExitDoc::default() };
        taken.live.imported(exit, taken.old_id.as_deref());
        self.sessions.store().flush();
        let info = self.sessions.info(&taken.live, true);
        self.taken = None; // it stays
        Ok(info)
    }

    async fn line(&mut self, line: &[u8]) -> Result<(), Error> {
        if line.iter().all(u8::is_ascii_whitespace) {
            return Ok(());
        }
        self.line_number += 1;
        let at = |why: String| Error::invalid(format!("line {}: {why}", self.line_number));
        let line = Line::read(line).map_err(&at)?;
        match (line, &mut self.taken) {
            (Line::Session(head), _) if head.format != FORMAT => Err(at(format!("format must be {FORMAT}"))),
            (Line::Session(head), taken @ None) => {
                *taken = Some(self.sessions.begin(head.session).await?);
                Ok(())
            }
            (_, None) => Err(at("the first line must be of type session".to_owned())),
            (Line::Session(_), Some(_)) => Err(at("there is a second session".to_owned())),
            (Line::End(end), Some(_)) if end.events != self.events => {
                Err(at(format!("{} events were exported, {} came", end.events, self.events)))
            }
            (Line::End(_), Some(_)) => {
                self.is_whole = true;
                Ok(())
            }
            (line, Some(taken)) => {
                self.sessions.store().room().await;
                self.events += u64::from(matches!(line, Line::Event(_)));
                taken.take(line, self.sessions.store()).map_err(&at)
            }
        }
    }
}

impl Sessions {
    /// The session keeps its id where that is free.
    async fn begin(&self, session: SessionLine) -> Result<Taken, Error> {
        if !self.acp()?.knows(&session.agent) {
            return Err(crate::acp::Error::from(crate::acp::LaunchError::Unsupported { agent: session.agent }).into());
        }
        let doc: SessionDoc = serde_json::from_str(session.doc.get()).map_err(|error| Error::invalid(error.to_string()))?;
        let is_ours =
            session.id.starts_with("ses_") && session.id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let _one_at_a_time = self.inner.importing.lock().await;
        let is_known = self.registry().get(&session.id).is_some();
        let is_taken =
            !is_ours || is_known || self.store().session(&session.id).await?.is_some() || self.was_used(&session.id).await?;
        let id = if is_taken { new_id("ses") } else { session.id.clone() };
        let row = SessionRow {
            id: id.clone(),
            server_id: format!("sessions-{}", session.agent),
            acp_session_id: session.acp_session_id,
            agent: session.agent,
            cwd: session.cwd,
            title: session.title,
            created_at_ms: session.created_at_ms,
            updated_at_ms: session.updated_at_ms,
            closed_at_ms: session.closed_at_ms,
            idempotency: None,
            doc: String::new(),
        };
        let stream = self.store().new_stream(&format!("session/{id}"));
        let live = self.insert(row, doc, stream, 0);
        let change = Live::save(&mut live.lock());
        self.store().change(change).await?; // turns and events hang on the row
        Ok(Taken { live, old_id: is_taken.then_some(session.id), turns: HashMap::new() })
    }

    /// A deleted session's stream may still be there under this id.
    async fn was_used(&self, id: &str) -> Result<bool, Error> {
        Ok(self.store().has_stream(&format!("session/{id}")).await?)
    }
}

impl Taken {
    /// Requests stay behind: nobody waits for them here, and the events tell of them.
    fn take(&mut self, line: Line, store: &Store) -> Result<(), String> {
        match line {
            Line::Turn(line) => self.turn(line)?,
            Line::Event(line) => self.event(&line, store)?,
            Line::Gap(GapLine { from, to, reason }) => {
                let data = json!({"from": from, "to": to, "reason": reason});
                let mut state = self.live.lock();
                self.live.say(&mut state, "session.gap", Source::Daemon, &data, None);
            }
            Line::Request(_) | Line::Session(_) | Line::End(_) => {}
        }
        Ok(())
    }

    fn turn(&mut self, line: TurnLine) -> Result<(), String> {
        let mut state = self.live.lock();
        if line.number <= state.last_number || line.number > NUMBER_MAX {
            return Err(format!("the turn's number must be more than {} and at most {NUMBER_MAX}", state.last_number));
        }
        let id = if self.old_id.is_some() { new_id("turn") } else { line.id.clone() };
        self.turns.insert(line.id, id.clone());
        let idempotency = line.idempotency_key.zip(line.request_hash);
        let (session_id, doc) = (self.live.id.clone(), line.doc.get().to_owned());
        let mut turn = Turn::from_row(TurnRow { id, session_id, number: line.number, state: line.state, idempotency, doc });
        if turn.state != "ended" {
            turn.failed("exported", None);
            turn.state = "ended";
        }
        state.last_number = turn.number;
        let change = turn.change(&self.live.id);
        self.live.say(&mut state, "turn.imported", Source::Daemon, &json!({"turnId": turn.id}), Some(change));
        Ok(())
    }

    fn event(&self, line: &EventLine, store: &Store) -> Result<(), String> {
        let mut event: Map<String, Value> = serde_json::from_str(line.event.get()).map_err(|error| error.to_string())?;
        event.insert("sessionId".to_owned(), self.live.id.clone().into());
        self.rename(event.get_mut("turnId"));
        self.rename(event.get_mut("data").and_then(|data| data.get_mut("turnId")));
        let kind = kind_of(event.get("type").and_then(Value::as_str).unwrap_or_default());
        drop(store.append_in_order(&self.live.stream, kind, Value::Object(event).to_string().into(), None)); // nobody waits
        Ok(())
    }

    fn rename(&self, turn_id: Option<&mut Value>) {
        if let Some(value) = turn_id
            && let Some(new) = value.as_str().and_then(|old| self.turns.get(old))
        {
            *value = new.clone().into();
        }
    }
}

impl Live {
    fn imported(&self, exit: ExitDoc, old_id: Option<&str>) {
        let mut state = self.lock();
        state.doc.exit = Some(exit);
        let change = Self::save(&mut state);
        self.say(&mut state, "session.imported", Source::Daemon, &json!({"exportedAs": old_id}), Some(change));
    }
}

/// The types that events may have: the log keeps them as static words.
fn kind_of(kind: &str) -> &'static str {
    const KINDS: &[&str] = &[
        "session.started",
        "session.updated",
        "session.state",
        "session.restored",
        "session.ended",
        "session.gap",
        "session.imported",
        "turn.queued",
        "turn.started",
        "turn.ended",
        "turn.imported",
        "item.started",
        "item.delta",
        "item.completed",
        "request.created",
        "request.resolved",
        "error",
        "agent.unparsed",
    ];
    KINDS.iter().copied().find(|known| *known == kind).unwrap_or("session.imported")
}
