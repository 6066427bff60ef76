//! The way out.

use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use super::{EndLine, EventLine, FORMAT, GapLine, Head, Line, RequestLine, SessionLine, TurnLine};
use crate::config::as_usize;
use crate::rt::clock::now_ms;
use crate::sessions::live::Live;
use crate::sessions::{Error, Sessions};
use crate::store::{Item, RequestFilter, RequestRow, TurnRow};

/// Turns and requests read at a time.
const PAGE: usize = 200;

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
