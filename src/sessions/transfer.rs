//! A session as JSON Lines, to be kept elsewhere or taken in by another server: the session, its turns and requests, its
//! events, and a last line that says it is whole.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::live::Live;
use super::projection::Source;
use super::turn::Turn;
use super::types::{ExitDoc, SessionDoc, SessionInfo};
use super::{Error, Sessions};
use crate::config::as_usize;
use crate::rt::clock::now_ms;
use crate::rt::ids::new_id;
use crate::store::{Item, RequestFilter, RequestRow, RowChange, SessionRow, TurnRow};

/// What stands in the first line.
const FORMAT: &str = "sandboxd.session/1";
/// Turns and requests read at a time.
const PAGE: usize = 200;

/// A line of an export.
#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Line {
    #[serde(rename_all = "camelCase")]
    Session {
        format: String,
        exported_at_ms: i64,
        session: SessionLine,
    },
    #[serde(rename_all = "camelCase")]
    Turn {
        id: String,
        number: u64,
        state: String,
        idempotency_key: Option<String>,
        request_hash: Option<String>,
        doc: Box<RawValue>,
    },
    #[serde(rename_all = "camelCase")]
    Request {
        id: String,
        kind: String,
        state: String,
        created_at_ms: i64,
        resolved_at_ms: Option<i64>,
        doc: Box<RawValue>,
    },
    Event {
        sequence: u64,
        event: Box<RawValue>,
    },
    Gap {
        from: u64,
        to: u64,
        reason: String,
    },
    End {
        events: u64,
    },
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
            doc: raw(serde_json::to_string(&state.doc).unwrap_or_default()),
        };
        Line::Session { format: FORMAT.to_owned(), exported_at_ms: now_ms(), session }
    }

    async fn event_lines(&mut self, lines: &mut Lines) -> Result<(), Error> {
        let Part::Events { after } = &mut self.part else { return Ok(()) };
        let bounds = self.sessions.bounds();
        let (events, bytes) = (as_usize(bounds.log_page_max_events), as_usize(bounds.sse_chunk_max_bytes));
        let page = if *after < self.end { self.live.stream.read_after(*after, events, bytes).await? } else { Vec::new() };
        let Some(last) = page.last() else {
            lines.push(&Line::End { events: self.events });
            self.part = Part::Over;
            return Ok(());
        };
        *after = last.end();
        for item in page.into_iter().filter(|item| item.end() <= self.end) {
            match item {
                Item::Gap { from, to, reason } => lines.push(&Line::Gap { from, to, reason: reason.as_str().to_owned() }),
                Item::Event(event) => {
                    self.events += 1;
                    let event_json = raw(String::from_utf8_lossy(&event.payload).into_owned());
                    lines.push(&Line::Event { sequence: event.seq, event: event_json });
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
        if serde_json::to_writer(&mut self.0, line).is_ok() {
            self.0.push(b'\n');
        } // plain structs always serialise
    }
}

fn raw(json: String) -> Box<RawValue> {
    RawValue::from_string(json).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

fn turn_line(row: TurnRow) -> Line {
    let (idempotency_key, request_hash) = row.idempotency.unzip();
    Line::Turn { id: row.id, number: row.number, state: row.state, idempotency_key, request_hash, doc: raw(row.doc) }
}

fn request_line(row: RequestRow) -> Line {
    let RequestRow { id, kind, state, created_at_ms, resolved_at_ms, doc, .. } = row;
    Line::Request { id, kind, state, created_at_ms, resolved_at_ms, doc: raw(doc) }
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
        let line: Line = serde_json::from_slice(line).map_err(|error| at(error.to_string()))?;
        match (line, &self.taken) {
            (Line::Session { format, .. }, _) if format != FORMAT => Err(at(format!("format must be {FORMAT}"))),
            (Line::Session { session, .. }, None) => {
                self.taken = Some(self.sessions.begin(session).await?);
                Ok(())
            }
            (_, None) => Err(at("the first line must be of type session".to_owned())),
            (Line::Session { .. }, Some(_)) => Err(at("there is a second session".to_owned())),
            (Line::End { events }, Some(_)) if events != self.events => {
                Err(at(format!("{events} events were exported, {} came", self.events)))
            }
            (Line::End { .. }, Some(_)) => {
                self.is_whole = true;
                Ok(())
            }
            (line, Some(taken)) => {
                self.sessions.store().room().await;
                self.events += u64::from(matches!(line, Line::Event { .. }));
                taken.take(line, self.sessions.store());
                Ok(())
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
        let is_taken = !is_ours || self.store().session(&session.id).await?.is_some() || self.was_used(&session.id).await?;
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
        Ok(Taken { live, old_id: is_taken.then_some(session.id) })
    }

    /// A deleted session's stream may still be there under this id.
    async fn was_used(&self, id: &str) -> Result<bool, Error> {
        Ok(self.store().has_stream(&format!("session/{id}")).await?)
    }
}

impl Taken {
    fn take(&self, line: Line, store: &crate::store::Store) {
        let session_id = self.live.id.clone();
        match line {
            Line::Turn { id, number, state, idempotency_key, request_hash, doc } => {
                let idempotency = idempotency_key.zip(request_hash);
                let id = if self.old_id.is_some() { new_id("turn") } else { id };
                let row = TurnRow { id, session_id, number, state, idempotency, doc: doc.get().to_owned() };
                let mut turn = Turn::from_row(row);
                if turn.state != "ended" {
                    turn.failed("exported", None);
                    turn.state = "ended";
                }
                let mut state = self.live.lock();
                state.last_number = state.last_number.max(turn.number);
                let change = turn.change(&self.live.id);
                self.live.say(&mut state, "turn.imported", Source::Daemon, &json!({"turnId": turn.id}), Some(change));
            }
            Line::Request { id, kind, state: _, created_at_ms, resolved_at_ms, doc } => {
                let id = if self.old_id.is_some() { new_id("req") } else { id };
                let server_id = self.live.lock().row.server_id.clone();
                let resolved_at_ms = resolved_at_ms.or(Some(now_ms())); // nobody waits for it here
                let (state, doc) = ("resolved".to_owned(), doc.get().to_owned());
                let row = RequestRow {
                    id: id.clone(),
                    session_id: Some(session_id),
                    server_id,
                    kind,
                    state,
                    created_at_ms,
                    resolved_at_ms,
                    doc,
                };
                let mut state = self.live.lock();
                let change = RowChange::PutRequest(Box::new(row));
                self.live.say(&mut state, "request.imported", Source::Daemon, &json!({"requestId": id}), Some(change));
            }
            Line::Event { event, .. } => {
                let mut event: Value = serde_json::from_str(event.get()).unwrap_or_default();
                event["sessionId"] = session_id.into();
                let kind = kind_of(event["type"].as_str().unwrap_or_default());
                store.append(&self.live.stream, kind, event.to_string().into(), None);
            }
            Line::Gap { from, to, reason } => {
                let data = json!({"from": from, "to": to, "reason": reason});
                let mut state = self.live.lock();
                self.live.say(&mut state, "session.gap", Source::Daemon, &data, None);
            }
            Line::Session { .. } | Line::End { .. } => {}
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
        "request.imported",
        "error",
        "agent.unparsed",
    ];
    KINDS.iter().copied().find(|known| *known == kind).unwrap_or("session.imported")
}
