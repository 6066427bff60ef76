//! One client's connection: which sessions it follows, how far it has read each, and what is open in either direction.
//! It holds no message: streams are read from their server's log.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::book::History;
use super::capabilities::Capabilities;
use super::error::Error;
use super::filter::Scope;
use super::ids::{self, Mark};
use crate::acp::Server;

/// A server, as a connection reaches it.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) server_id: String,
    pub(super) server: Arc<Server>,
}

/// A client's connection. Ends with [`Remote::end`](super::Remote::end) or when nothing of it was open for too long.
pub struct Connection {
    pub(super) id: String,
    pub(super) agent: String,
    /// Where its sessions are made.
    pub(super) home: Place,
    pub(super) can: Capabilities,
    pub(super) gone: CancellationToken,
    state: Mutex<State>,
    /// Told when a stream begins elsewhere, is taken over, or ends.
    moved: watch::Sender<()>,
    max_sessions: u64,
    max_open: usize,
}

struct State {
    lines: HashMap<Scope, Line>,
    /// Requests of agents that this client was shown and nobody answered, by what they are called here.
    asked: HashMap<String, Asked>,
    /// This client's requests in flight, by its id as written.
    pending: HashMap<String, Pending>,
    open_streams: usize,
    idle_since: Instant,
    leases: u64,
}

/// A stream of the connection, with or without a receiver.
struct Line {
    place: Place,
    cursor: u64,
    /// Counts the changes of where it is, so that a page read before one is not shown after it.
    version: u64,
    /// The receiver's; 0 when there is none.
    lease: u64,
    /// The client opened the session itself, so that where it lives is certain.
    is_opened: bool,
    used: u64,
    replay: Option<Replay>,
}

/// What was said in the session, on its way to this client.
struct Replay {
    history: History,
    /// `None` once the last page was handed over.
    after: Option<u64>,
    _done: oneshot::Sender<()>,
}

/// A request of an agent's.
#[derive(Clone)]
pub(super) struct Asked {
    pub(super) place: Place,
    /// The agent's id as written.
    pub(super) raw: String,
    pub(super) scope: Scope,
    pub(super) method: String,
}

/// A request of the client's.
#[derive(Clone)]
pub(super) struct Pending {
    pub(super) place: Place,
    /// What it is called on the server's stream.
    pub(super) own_id: String,
    /// Where the stream was when it was sent: a session that it opens has nothing before that.
    pub(super) start: u64,
    /// The session ends with it.
    pub(super) closes: Option<String>,
}

/// What the receiver of a stream does next.
pub(super) struct Step {
    pub(super) place: Place,
    pub(super) cursor: u64,
    pub(super) version: u64,
    /// The session and from where its history is wanted.
    pub(super) replay: Option<(History, u64)>,
}

impl Connection {
    pub(super) fn new(id: String, agent: String, home: Place, can: Capabilities, max_sessions: u64, max_open: usize) -> Self {
        let start = home.server.events().newest().seq;
        let mut lines = HashMap::new();
        lines.insert(Scope::Connection, Line::new(home.clone(), start, true));
        let (asked, pending) = (HashMap::new(), HashMap::new());
        let state = State { lines, asked, pending, open_streams: 0, idle_since: Instant::now(), leases: 0 };
        let (moved, gone) = (watch::channel(()).0, CancellationToken::new());
        Self { id, agent, home, can, gone, state: Mutex::new(state), moved, max_sessions, max_open }
    }

    /// Its id, for `Acp-Connection-Id`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// True once it ended.
    pub fn is_over(&self) -> bool {
        self.gone.is_cancelled()
    }

    /// Told when there may be a stream without a receiver.
    pub fn watch(&self) -> watch::Receiver<()> {
        self.moved.subscribe()
    }

    /// The streams that nobody receives.
    pub fn untaken(&self) -> Vec<Scope> {
        self.state().lines.iter().filter(|(_, line)| line.lease == 0).map(|(scope, _)| scope.clone()).collect()
    }

    /// True when nothing of it was open for so long.
    pub(super) fn is_idle_for(&self, time: Duration) -> bool {
        let state = self.state();
        state.open_streams == 0 && state.idle_since.elapsed() > time
    }

    pub(super) fn used(&self) {
        self.state().idle_since = Instant::now();
    }

    /// Where a session lives, as far as the client's own words say; it is followed from now on.
    pub(super) fn place_of(&self, session: &str) -> Result<(Place, bool), Error> {
        let mut state = self.state();
        if let Some(line) = state.lines.get(&Scope::Session(session.to_owned())) {
            return Ok((line.place.clone(), line.is_opened));
        }
        self.check_room(&state)?;
        state.lines.insert(Scope::Session(session.to_owned()), Line::new(self.home.clone(), self.newest(), false));
        drop(state);
        self.moved.send_replace(());
        Ok((self.home.clone(), false))
    }

    fn newest(&self) -> u64 {
        self.home.server.events().newest().seq
    }

    pub(super) fn check_room_for_one(&self) -> Result<(), Error> {
        self.check_room(&self.state())
    }

    fn check_room(&self, state: &State) -> Result<(), Error> {
        let has_room = (state.lines.len() as u64) <= self.max_sessions; // the connection's own is one of them
        if has_room { Ok(()) } else { Err(Error::TooManySessions { max: self.max_sessions }) }
    }

    /// Follows a session at a place, from after `cursor`; with a history, that comes first. Resolves with an error once
    /// the receiver has the history, or when it is no longer wanted.
    pub(super) fn attach(&self, session: &str, place: Place, cursor: u64, history: Option<History>) -> oneshot::Receiver<()> {
        let (done, when_done) = oneshot::channel();
        let mut state = self.state();
        let line =
            state.lines.entry(Scope::Session(session.to_owned())).or_insert_with(|| Line::new(place.clone(), cursor, true));
        (line.place, line.cursor, line.is_opened) = (place, cursor, true);
        line.version += 1;
        line.replay = history.map(|history| Replay { history, after: Some(0), _done: done });
        drop(state);
        self.moved.send_replace(());
        when_done
    }

    /// The client opens it itself: it lives where it is looked for.
    pub(super) fn opened(&self, session: &str) {
        if let Some(line) = self.state().lines.get_mut(&Scope::Session(session.to_owned())) {
            line.is_opened = true;
        }
    }

    /// Notes that the session was used now, by a number that grows.
    pub(super) fn note_use(&self, session: &str, now: u64) {
        if let Some(line) = self.state().lines.get_mut(&Scope::Session(session.to_owned())) {
            line.used = now;
        }
    }

    /// When the session was last used here, when it is followed at that server.
    pub(super) fn last_use(&self, session: &str, instance: &str) -> Option<u64> {
        let state = self.state();
        let line = state.lines.get(&Scope::Session(session.to_owned()))?;
        (line.place.server.instance() == instance).then_some(line.used)
    }

    /// Takes a stream for a receiver; gives its lease. `after` is where the receiver says that it is, and ends another
    /// receiver; true when that can't be had.
    pub(super) fn take(&self, scope: &Scope, after: Option<&Mark>) -> Result<(u64, bool), Error> {
        if let Scope::Session(session) = scope {
            self.place_of(session)?;
        }
        let mut state = self.state();
        state.leases += 1;
        let lease = state.leases;
        let line = state.lines.get_mut(scope).ok_or_else(|| Error::UnknownConnection { id: self.id.clone() })?;
        if line.lease != 0 && after.is_none() {
            return Err(Error::Taken);
        }
        line.lease = lease;
        line.version += 1;
        let here = after.filter(|mark| mark.instance == line.place.server.instance());
        if let Some(mark) = here {
            (line.cursor, line.replay) = (mark.position, None);
        }
        state.open_streams += 1;
        drop(state);
        self.moved.send_replace(());
        Ok((lease, after.is_some() && here.is_none()))
    }

    /// The receiver is gone.
    pub(super) fn release(&self, scope: &Scope, lease: u64) {
        let mut state = self.state();
        state.open_streams -= 1;
        state.idle_since = Instant::now();
        if let Some(line) = state.lines.get_mut(scope).filter(|line| line.lease == lease) {
            line.lease = 0;
        }
        drop(state);
        self.moved.send_replace(());
    }

    /// What the receiver does next; `None` when the stream is no longer its own.
    pub(super) fn step(&self, scope: &Scope, lease: u64) -> Option<Step> {
        let mut state = self.state();
        let line = state.lines.get_mut(scope).filter(|line| line.lease == lease)?;
        if line.replay.as_ref().is_some_and(|replay| replay.after.is_none()) {
            line.replay = None; // the socket took the last page: whoever waits for it is told
        }
        let replay = line.replay.as_ref().and_then(|replay| Some((replay.history.clone(), replay.after?)));
        Some(Step { place: line.place.clone(), cursor: line.cursor, version: line.version, replay })
    }

    /// The receiver has read up to `cursor`; false when the stream has moved meanwhile.
    pub(super) fn advance(&self, scope: &Scope, version: u64, cursor: u64) -> bool {
        let mut state = self.state();
        let Some(line) = state.lines.get_mut(scope).filter(|line| line.version == version) else { return false };
        line.cursor = cursor;
        true
    }

    /// The same for a page of the history; `next` is where the next one begins.
    pub(super) fn advance_history(&self, scope: &Scope, version: u64, next: Option<u64>) -> bool {
        let mut state = self.state();
        let Some(line) = state.lines.get_mut(scope).filter(|line| line.version == version) else { return false };
        if let Some(replay) = &mut line.replay {
            replay.after = next;
        }
        true
    }

    /// A request of an agent's is shown; gives what it is called. Beyond the bound nobody could answer it here.
    pub(super) fn ask(&self, position: u64, asked: Asked) -> Option<String> {
        let id = ids::asked(asked.place.server.instance(), position);
        let mut state = self.state();
        if state.asked.len() >= self.max_open && !state.asked.contains_key(&id) {
            return None;
        }
        state.asked.insert(id.clone(), asked);
        Some(id)
    }

    /// A request of an agent's, or each of them, needs no answer any more; gives what those were called that were asked
    /// on this stream.
    pub(super) fn settle(&self, instance: &str, raw: Option<&str>, scope: &Scope) -> Vec<String> {
        let mut state = self.state();
        let is_it = |asked: &Asked| {
            raw.is_none_or(|raw| asked.raw == raw) && asked.scope == *scope && asked.place.server.instance() == instance
        };
        let settled: Vec<_> = state.asked.iter().filter(|(_, asked)| is_it(asked)).map(|(id, _)| id.clone()).collect();
        state.asked.retain(|id, _| !settled.contains(id));
        settled
    }

    /// A request of an agent's by what it is called here.
    pub(super) fn asked(&self, id: &str) -> Option<Asked> {
        self.state().asked.get(id).cloned()
    }

    /// It is answered.
    pub(super) fn forget_asked(&self, id: &str) {
        self.state().asked.remove(id);
    }

    /// All that agents still wait for, at the connection's end.
    pub(super) fn drain_asked(&self) -> Vec<Asked> {
        self.state().asked.drain().map(|(_, asked)| asked).collect()
    }

    /// A request is about to be sent; the latest of one id counts.
    pub(super) fn begin(&self, raw: &str, pending: Pending) {
        let mut state = self.state();
        if state.pending.len() >= self.max_open
            && let Some(oldest) = state.pending.iter().min_by_key(|(_, pending)| pending.start).map(|(raw, _)| raw.clone())
        {
            state.pending.remove(&oldest); // it can no longer be cancelled, and that is all
        }
        state.pending.insert(raw.to_owned(), pending);
    }

    /// A request in flight.
    pub(super) fn pending(&self, raw: &str) -> Option<Pending> {
        self.state().pending.get(raw).cloned()
    }

    /// A request could not be sent.
    pub(super) fn abandon(&self, raw: &str) {
        self.state().pending.remove(raw);
    }

    /// A request was answered. A session that its answer names is followed from where it can begin.
    pub(super) fn finish(&self, raw: &str, session: Option<String>, place: &Place, position: u64) {
        let mut state = self.state();
        let pending = state.pending.remove(raw);
        if let Some(session) = session {
            let start = pending.as_ref().map_or(position, |pending| pending.start);
            let line = state.lines.entry(Scope::Session(session));
            line.or_insert_with(|| Line::new(place.clone(), start, true)).is_opened = true;
        } else if let Some(session) = pending.and_then(|pending| pending.closes) {
            state.lines.remove(&Scope::Session(session));
        } else {
            return;
        }
        drop(state);
        self.moved.send_replace(());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner) // maps that are whole after each change
    }
}

impl Line {
    fn new(place: Place, cursor: u64, is_opened: bool) -> Self {
        Self { place, cursor, version: 0, lease: 0, is_opened, used: 0, replay: None }
    }
}
