//! The tap of one ACP server: turns what passes there into changes of its sessions.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde_json::Value;

use super::gate::Where;
use super::live::Live;
use super::projection::Source;
use super::resume::Tail;
use super::types::ExitDoc;
use super::{Error, Sessions};
use crate::acp::{Asked, Decided, Fact, Outlived, Prompted, Tap, TapServer, TapSource, Transcript, Verdict};
use crate::processes::Exit;
use crate::rt::clock::now_ms;
use crate::rt::spawn_owned;

impl TapSource for Sessions {
    fn tap(&self, server: TapServer) -> Box<dyn Tap> {
        Box::new(ServerTap { sessions: self.clone(), server, live: HashMap::new(), prune_at: PRUNE_MIN, told: Vec::new() })
    }
}

/// Why the janitor stops an agent.
pub(super) const IDLE: &str = "idle";

/// With fewer sessions in memory none is looked for that was deleted.
const PRUNE_MIN: usize = 64;

struct ServerTap {
    sessions: Sessions,
    server: TapServer,
    /// Sessions of this server that were touched since its agent started, by the clients' id.
    live: HashMap<String, Arc<Live>>,
    /// So many there must be until those that were deleted are looked for.
    prune_at: usize,
    /// Those with joined text that waits to be appended.
    told: Vec<Arc<Live>>,
}

impl Tap for ServerTap {
    fn resume(&mut self, outlived: Outlived) -> BoxFuture<'_, Vec<Decided>> {
        Box::pin(async move {
            match self.go_on(outlived).await {
                Ok(decided) => decided,
                Err(error) => {
                    tracing::error!(%error, server = self.server.server_id, "sessions could not be taken up whole");
                    Vec::new()
                }
            }
        })
    }

    fn wants(&self, session: &str) -> bool {
        !self.live.contains_key(session)
    }

    fn load<'a>(&'a mut self, session: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            match self.sessions.live_by_acp(&self.server.server_id, session).await {
                Ok(Some(live)) => {
                    self.sessions.learn_secrets(&live).await;
                    self.live.insert(session.to_owned(), live);
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(%error, session, "a session could not be read: what happens in it now is not shown")
                }
            }
        })
    }

    fn opened_with(&self, session: &str) -> Option<(String, Vec<(String, String)>)> {
        self.known(session).map(|live| live.opened_with())
    }

    fn happened(&mut self, fact: Fact<'_>) {
        match fact {
            Fact::Opened { method, params, result, session, tag } => self.opened(method, params, result, session, tag),
            Fact::PromptEnded { session, number, answer } => self.with(session, |live| live.prompt_ended(number, answer)),
            Fact::Update { session, update } => self.updated(session, update),
            Fact::Set { session, method, params, result } => self.with(session, |live| live.set(method, params, result)),
            Fact::Restored { session, method, history, transcript, result } => {
                self.with(session, |live| live.restored(method, history, transcript, result));
            }
            Fact::Answered { id, result, by } => {
                if let Some(closed) = self.sessions.gate().answered(&self.server.server_id, id, result, by, now_ms()) {
                    self.resolved(&closed);
                }
            }
            Fact::Withdrawn { id } => {
                if let Some(closed) = self.sessions.gate().withdrawn(&self.server.server_id, id, now_ms()) {
                    self.resolved(&closed);
                }
            }
            Fact::Closed { session, method } => self.closed(session, method),
            Fact::Exited { exit, stderr, stopped } => {
                let reason = match stopped {
                    None => "agent_exited",
                    Some(IDLE) => IDLE,
                    Some(_) => "deadline",
                };
                self.exited(&exit_doc(reason, Some(exit), stderr));
            }
            Fact::Ended { deleted } => {
                self.exited(&exit_doc(if deleted { "server_deleted" } else { "server_stopped" }, None, ""));
            }
            Fact::Unreadable { error, head } => self.unreadable(error, head),
            Fact::Initialized { .. } | Fact::Started => {}
        }
    }

    fn prompted(&mut self, prompt: Prompted<'_>) -> bool {
        let Some(live) = self.known(prompt.session) else { return prompt.tag.is_none() };
        if live.prompted_late(&prompt) {
            return true;
        }
        let Some(turn_id) = live.prompted(prompt, self.server.events.appended()) else { return false };
        if let Some(witness) = self.sessions.witness() {
            witness.turn_began(&live.id, &turn_id, &live.lock().row.cwd);
        }
        self.sessions.watch_turn(live, turn_id);
        true
    }

    fn asked(&mut self, asked: Asked<'_>) -> Verdict {
        if self.sessions.gate().is_again(&self.server.server_id, asked.id, asked.method) {
            return Verdict::Ask;
        }
        let live = asked.session.and_then(|session| self.known(session)).cloned();
        let (cwd, turn_id) = match &live {
            Some(live) => {
                let state = live.lock();
                (state.row.cwd.clone(), state.running.last().map(|running| running.turn.id.clone()))
            }
            None => (String::new(), None),
        };
        let at = Where {
            session_id: live.as_ref().map(|live| live.id.as_str()),
            server_id: &self.server.server_id,
            agent: &self.server.agent,
            cwd: &cwd,
            turn_id: turn_id.as_deref(),
        };
        let Some(opened) = self.sessions.gate().asked(at, &asked, now_ms()) else { return Verdict::Ask };
        if let Some(replaced) = &opened.replaced {
            self.resolved(replaced);
        }
        match live {
            Some(live) => live.request_created(&opened),
            None => self.sessions.log_request(&opened),
        }
        opened.verdict
    }

    fn flush(&mut self) {
        let is_followed = self.told.iter().any(|live| live.stream.is_followed());
        for live in self.told.drain(..) {
            live.flush();
        }
        if is_followed && !self.server.events.is_followed() {
            self.sessions.store().no_later();
        }
    }

    fn transcript(&mut self, session: &str) -> BoxFuture<'static, Option<Transcript>> {
        let (sessions, live) = (self.sessions.clone(), self.live.get(session).cloned());
        Box::pin(async move { sessions.transcript(&live?).await })
    }
}

impl ServerTap {
    /// Its agent goes on, and its sessions with it.
    async fn go_on(&mut self, outlived: Outlived) -> Result<Vec<Decided>, Error> {
        let Outlived { underway, asked, answered } = outlived;
        let tail = self.sessions.tail(&self.server).await?;
        self.live = self.sessions.sessions_of(&self.server, &underway).await?;
        self.prune_at = 2 * self.live.len() + PRUNE_MIN;
        let cwds: HashMap<_, _> = self.live.values().map(|live| (live.id.clone(), live.lock().row.cwd.clone())).collect();
        let (server_id, gate) = (self.server.server_id.clone(), self.sessions.gate().clone());
        let left = gate.resume(&server_id, |session| cwds.get(session).cloned().unwrap_or_default());
        let (mut underway, mut gone_on) = (underway, Vec::new());
        for (session, live) in &self.live {
            let (ours, others) = underway.into_iter().partition(|prompt| prompt.session == *session);
            underway = others;
            match self.sessions.go_on(&self.server, live, ours, &tail).await {
                Ok(()) => gone_on.push(Arc::clone(live)),
                Err(error) => tracing::error!(%error, session = live.id, "a session could not be taken up"),
            }
        }
        self.sessions.wait_again(&gone_on).await?;
        let closed = self.sessions.answered_meanwhile(&server_id, &left, (&asked, &answered), &tail);
        closed.iter().for_each(|closed| self.resolved(closed));
        let mut decided = Vec::new();
        for id in asked.iter().filter(|id| !gate.waits(&server_id, id)) {
            match self.sessions.decided_before(&server_id, id).await {
                Some(answer) => decided.push(answer),
                None => decided.extend(self.ask_again(id, &tail)),
            }
        }
        self.sessions.lose_spans_of(&server_id).await?;
        self.sessions.store().flush();
        Ok(decided)
    }

    /// What the agent asked, and nobody was told.
    fn ask_again(&mut self, id: &str, tail: &Tail) -> Option<Decided> {
        let (method, params, session) = tail.asked(id)?;
        match self.asked(Asked { session, id, method, params }) {
            Verdict::Ask => None,
            Verdict::Answer { result, by } => Some(Decided { id: id.to_owned(), result, by }),
        }
    }

    /// A session that isn't deleted.
    fn known(&self, session: &str) -> Option<&Arc<Live>> {
        self.live.get(session).filter(|live| !live.is_deleted())
    }

    fn with(&self, session: &str, change: impl FnOnce(&Arc<Live>)) {
        if let Some(live) = self.known(session) {
            change(live);
        }
    }

    fn opened(&mut self, method: &str, params: &str, result: &str, session: &str, tag: Option<&str>) {
        if let Some(live) = self.known(session) {
            live.reopened(method, result);
            return;
        }
        if self.live.len() >= self.prune_at {
            self.live.retain(|_, live| !live.is_deleted());
            self.prune_at = 2 * self.live.len() + PRUNE_MIN;
        }
        let original = (method == "session/fork").then(|| object(params)["sessionId"].as_str().map(str::to_owned)).flatten();
        let original = original.and_then(|original| self.known(&original)).cloned();
        if let Some(live) = self.sessions.adopt(&self.server, params, result, session, tag, original.as_ref()) {
            if let (Some(original), Some(custodian)) = (&original, self.sessions.custodian()) {
                custodian.copied(&original.id, &live.id);
            }
            self.live.insert(session.to_owned(), live);
        }
    }

    fn updated(&mut self, session: &str, update: &str) {
        let Some(live) = self.known(session).cloned() else { return };
        let touches = live.update(update);
        if let Some(witness) = self.sessions.witness() {
            touches.into_iter().for_each(|touch| witness.touched(touch));
        }
        if !self.told.iter().any(|told| Arc::ptr_eq(told, &live)) {
            self.told.push(live);
        }
    }

    fn closed(&mut self, session: &str, method: &str) {
        let Some(live) = self.known(session).cloned() else { return };
        if method == "session/delete" {
            self.sessions.forget(&live);
        } else {
            // A turn that is under way is told of to its end.
            live.lock().row.closed_at_ms.get_or_insert_with(now_ms);
            self.sessions.drop_queue(&live, "closed");
            live.closed();
            self.sessions.tell_end(&live.id);
            let sessions = self.sessions.clone();
            // Beside this task, which takes the answers to the agent.
            spawn_owned("session-close", async move { sessions.gate().cancel_pending(&live.id).await });
        }
    }

    /// No agent runs any more: what is needed of its sessions is read again when they are.
    fn exited(&mut self, exit: &ExitDoc) {
        for closed in self.sessions.gate().server_gone(&self.server.server_id, &exit.reason, now_ms()) {
            self.resolved(&closed);
        }
        self.told.clear();
        for (_, live) in self.live.drain() {
            live.exited(exit.clone());
        }
    }

    fn resolved(&self, closed: &super::gate::Closed) {
        let live = self.live.values().find(|live| Some(live.id.as_str()) == closed.session_id.as_deref());
        match live {
            Some(live) => live.request_resolved(closed),
            None => self.sessions.log_resolution(closed),
        }
    }

    fn unreadable(&self, error: &str, head: &[u8]) {
        const SHOWN_MAX_BYTES: usize = 1024;
        let raw = String::from_utf8_lossy(&head[..head.len().min(SHOWN_MAX_BYTES)]);
        let data = serde_json::json!({"error": error, "raw": raw, "truncated": head.len() > SHOWN_MAX_BYTES});
        // It may belong to any of those under way: all of them are told.
        for live in self.live.values() {
            let mut state = live.lock();
            if !state.running.is_empty() {
                live.say(&mut state, "agent.unparsed", Source::Agent, &data, None);
            }
        }
    }
}

fn exit_doc(reason: &str, exit: Option<Exit>, stderr: &str) -> ExitDoc {
    ExitDoc {
        reason: reason.to_owned(),
        exit_code: exit.and_then(Exit::code),
        signal: exit.and_then(Exit::signal_name).map(str::to_owned),
        stderr: Some(stderr.to_owned()).filter(|stderr| !stderr.is_empty()),
    }
}

/// What is read of an answer that opened a session, and of its params.
pub(super) fn object(json: &str) -> Value {
    serde_json::from_str(json).ok().filter(Value::is_object).unwrap_or_else(|| serde_json::json!({}))
}
