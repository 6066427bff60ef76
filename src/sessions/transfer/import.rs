//! The way in.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{EventLine, FORMAT, GapLine, Line, SessionLine, TurnLine};
use crate::rt::ids::new_id;
use crate::sessions::live::Live;
use crate::sessions::projection::Source;
use crate::sessions::turn::Turn;
use crate::sessions::types::{ExitDoc, SessionDoc, SessionInfo};
use crate::sessions::{Error, Sessions};
use crate::store::{SessionRow, Store, TurnRow};

/// The highest number that a turn may have: it leaves room for those to come.
const NUMBER_MAX: u64 = 1 << 53;

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
    /// Those that hadn't ended.
    unfinished: Vec<Turn>,
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
        let Some(taken) = self.taken.as_mut().filter(|_| self.is_whole) else {
            return Err(Error::invalid("the export isn't whole: its last line, of type end, is missing"));
        };
        taken.live.lock().doc.exit = Some(ExitDoc { reason: "imported".to_owned(), ..ExitDoc::default() });
        for turn in std::mem::take(&mut taken.unfinished) {
            self.sessions.lost(&taken.live, turn, "exported").await;
        }
        taken.live.imported(taken.old_id.as_deref());
        if let (Some(original), Some(custodian)) = (&taken.old_id, self.sessions.custodian()) {
            custodian.copied(original, &taken.live.id);
        }
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
                if let Line::Turn(turn) = &line
                    && taken.old_id.is_none()
                    && self.sessions.store().turn(&turn.id).await?.is_some()
                {
                    return Err(at(format!("{} is a turn of another session here", turn.id)));
                }
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
        let is_copy = is_known || self.store().session(&session.id).await?.is_some() || self.was_used(&session.id).await?;
        let is_taken = is_copy || !is_ours;
        let id = if is_taken { new_id("ses") } else { session.id.clone() };
        let server_id = format!("sessions-{}", session.agent);
        // Two sessions can't share one of the agent's: it won't know the new id, and is told the transcript.
        let other = self.store().session_by_acp(Some(&server_id), None, &session.acp_session_id).await?;
        let acp_session_id = if is_copy || other.is_some() { new_id("copy") } else { session.acp_session_id };
        let row = SessionRow {
            id: id.clone(),
            server_id,
            acp_session_id,
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
        Ok(Taken { live, old_id: is_taken.then_some(session.id), turns: HashMap::new(), unfinished: Vec::new() })
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
        if self.turns.contains_key(&line.id) {
            return Err(format!("the turn {} is there twice", line.id));
        }
        let id = if self.old_id.is_some() { new_id("turn") } else { line.id.clone() };
        self.turns.insert(line.id, id.clone());
        let idempotency = line.idempotency_key.zip(line.request_hash);
        let (session_id, doc) = (self.live.id.clone(), line.doc.get().to_owned());
        let mut turn = Turn::from_row(TurnRow { id, session_id, number: line.number, state: line.state, idempotency, doc });
        if turn.state != "ended" {
            turn.state = "running"; // never sent from here, also when this server is killed now
            self.unfinished.push(turn.clone());
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
    fn imported(&self, old_id: Option<&str>) {
        let mut state = self.lock();
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
