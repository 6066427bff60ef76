//! Going on with an agent that outlived the run of ours before this one.
//!
//! The raw log is the truth: all that the agent said is there, each envelope once. What sessions made of it follows a few
//! milliseconds behind, so at the end of a run that was killed some of it is missing in the file. Nothing says how far it had
//! come. Instead what was said since the beginning of a session's last turn is folded once more ([`again`]), by the very
//! functions that fold what comes live, and what is in the file already is left out ([`Already`]). That also leaves the
//! session in memory as it was: its open items, texts, spans and counts.
//!
//! | module | what |
//! |---|---|
//! | `heard` | the raw log, read |
//! | `plan` | what happened since a turn began: pure |
//! | `again` | the fold, once more |
//! | `requests` | what waits for a decision |

mod again;
mod heard;
mod plan;
mod requests;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use again::{Again, Start};
use heard::{Heard, What};
use plan::{Fresh, Known, Prompt};

use super::begin::Sent;
use super::live::Live;
use super::projection::{Already, Projector, Snapshot};
use super::registry::usage_before;
use super::turn::Turn;
use super::types::SessionState;
use super::{Error, Sessions};
use crate::acp::{TapServer, Underway};
use crate::config::as_usize;
use crate::rt::clock::now_ms;
use crate::store::{RowChange, SessionFilter};
use crate::traces::SpanBook;

/// The end of the raw log that is looked through for sessions of which something may be missing: much more than is ever
/// waiting to be committed.
const TAIL_EVENTS: u64 = 4_000;
/// Turns of a session that are looked through for the last one that began.
const TURNS_BACK: u64 = 1_000;
/// And at first.
const TURNS_BACK_FIRST: u64 = 8;
/// Events of a session before a turn that are looked through for its tool calls.
const CALLS_BACK: u64 = 2_000;
/// What is missing was said no longer than this before the last event of its session was committed.
const LAG_MS: i64 = 5_000;

/// What an agent's last envelopes are about.
pub(super) struct Tail {
    said: Vec<Heard>,
    /// Of what clients wrote.
    prompts: Vec<Heard>,
    newest: u64,
}

impl Sessions {
    /// The ends of an agent's raw streams.
    pub(super) async fn tail(&self, server: &TapServer) -> Result<Tail, Error> {
        let newest = server.events.appended();
        let (outbound, inbound) = (format!("acp/{}/out", server.instance), format!("acp/{}/in", server.instance));
        let said = heard::look(self.store(), &outbound, newest.saturating_sub(TAIL_EVENTS), "", |_| true).await?;
        let end = self.store().open_stream(&inbound).await?.newest().seq;
        let is_prompt = |heard: &Heard| matches!(&heard.what, What::Asked { method, .. } if method == "session/prompt");
        let prompts = heard::look(self.store(), &inbound, end.saturating_sub(TAIL_EVENTS), "prompt", is_prompt).await?;
        Ok(Tail { said, prompts, newest })
    }

    /// The sessions that an agent may speak of, by what clients call them.
    pub(super) async fn sessions_of(
        &self,
        server: &TapServer,
        underway: &[Underway],
    ) -> Result<HashMap<String, Arc<Live>>, Error> {
        let filter = SessionFilter { server_id: Some(server.server_id.clone()), closed: Some(false), ..SessionFilter::default() };
        let rows = self.store().sessions(filter, as_usize(self.bounds().acp_sessions_max)).await?;
        let mut found = HashMap::new();
        for row in rows {
            found.insert(row.acp_session_id.clone(), self.live(&row.id).await?);
        }
        // Turns in a session that was closed meanwhile are told of to their end.
        for row in self.store().unfinished_turns().await? {
            let live = self.live(&row.session_id).await?;
            let (of, _, acp_session_id) = live.address();
            if of == server.server_id {
                found.entry(acp_session_id).or_insert(live);
            }
        }
        for prompt in underway {
            if !found.contains_key(&prompt.session)
                && let Some(live) = self.live_by_acp(&server.server_id, &prompt.session).await?
            {
                found.insert(prompt.session.clone(), live);
            }
        }
        for live in found.values() {
            self.learn_secrets(live).await;
        }
        Ok(found)
    }

    /// A session goes on where its agent is. `underway` are its prompts.
    pub(super) async fn go_on(
        &self,
        server: &TapServer,
        live: &Arc<Live>,
        underway: Vec<Underway>,
        tail: &Tail,
    ) -> Result<(), Error> {
        let (_, _, session) = live.address();
        let turns = self.turns_again(live).await?;
        let is_running = !underway.is_empty() || turns.iter().any(|turn| turn.state == "running");
        if !is_running && !tail.is_about(&session) {
            live.agent_lives();
            return Ok(());
        }
        let from = turns.first().cloned();
        let place = from.as_ref().and_then(|turn| turn.doc.sent.clone());
        let (already, before) = self.already(live, from.as_ref(), place.as_ref()).await?;
        let mut underway = underway;
        let mut known = Known::new(turns, &mut underway);
        let prompts = tail.prompts_of(&session);
        let after = place.as_ref().map_or_else(|| tail.before(&prompts), |place| place.events_after);
        let (began, heard) = self.heard(server, &session, after, &known.client_ids(&prompts)).await?;
        let is_known = heard.is_some() && from.as_ref().is_none_or(|turn| already.has_begun(&turn.id));
        let heard = heard.unwrap_or_default();
        for prompt in known.unknown(&prompts, began, &underway, &heard) {
            let at = underway.iter().position(|other| other.client_id == prompt.client_id);
            let underway = at.map(|at| underway.remove(at));
            let fresh = self.fresh(live, Some(prompt), underway, &already, &known).await?;
            known.fresh.push(fresh);
        }
        for prompt in underway {
            let fresh = self.fresh(live, None, Some(prompt), &already, &known).await?;
            known.fresh.push(fresh);
        }
        if is_known {
            known.find_unsent(&heard);
        }
        let unsent: Vec<Turn> = known.turns.iter().filter(|turn| known.unsent.contains(&turn.id)).cloned().collect();
        let lost = known.lost(&heard);
        let half_begun: Vec<_> =
            known.fresh.iter().map(|fresh| fresh.turn.id.clone()).filter(|id| already.has_begun(id)).collect();
        let late_from_ms = self.late_from_ms(live, &already, &heard).await?;
        let place = place.unwrap_or_else(|| live.place_now());
        let start = self.start(live, place, already, &before, !is_known, late_from_ms);
        let ops = known.ops(&session, heard, tail.newest);
        let pending = self.gate().pending_in(&live.id);
        let again = live.again(start, ops, &requests::seen(&pending));
        self.with_rows(live, &half_begun, &again.spans).await?;
        self.look_after_again(live, again);
        for turn in lost {
            live.lock().doc.stats.turns += 1; // that was in memory only
            self.lost(live, turn, "server_restarted").await;
        }
        unsent.into_iter().for_each(|turn| self.send_late(live, turn));
        Ok(())
    }

    /// Turns that wait in these sessions are worked on, once it is known which of them the agent has or had.
    pub(super) async fn wait_again(&self, all: &[Arc<Live>]) -> Result<(), Error> {
        self.store().settle().await;
        for row in self.store().unfinished_turns().await? {
            let Some(live) = all.iter().find(|live| live.id == row.session_id) else { continue };
            let mut state = live.lock();
            if row.state == "queued" && !state.knows(&row.id) {
                state.queue.push_back(Turn::from_row(row));
            }
        }
        for live in all {
            self.work_on(live, &mut live.lock());
        }
        Ok(())
    }

    /// A prompt that the agent has or had, and of which the file has no turn that began: the turn that it is.
    async fn fresh(
        &self,
        live: &Live,
        prompt: Option<&Prompt<'_>>,
        underway: Option<Underway>,
        already: &Already,
        known: &Known,
    ) -> Result<Fresh, Error> {
        let (request, tag) = underway.as_ref().map_or((0, None), |prompt| (prompt.number, prompt.tag.as_deref()));
        let params = prompt.map(|prompt| prompt.params).or(underway.as_ref().map(|prompt| prompt.params.as_str()));
        let client_id = prompt.map(|prompt| prompt.client_id).or(underway.as_ref().map(|prompt| prompt.client_id.as_str()));
        // It waits in the file; in the queue, too, if that was taken up before.
        let waiting = match tag {
            Some(tag) => self.store().turn(tag).await?.map(Turn::from_row).filter(|turn| turn.state == "queued"),
            None => None,
        };
        let mut state = live.lock();
        let waiting = tag.and_then(|tag| state.take_queued(tag)).or(waiting);
        let mut turn = waiting.unwrap_or_else(|| Turn::of_acp(state.next_number(), params.unwrap_or("null"), now_ms()));
        if let Some(tag) = tag {
            tag.clone_into(&mut turn.id);
        } else if let Some(id) = already.turns().iter().find(|id| !known.has(id)) {
            turn.id.clone_from(id); // its beginning was committed, its row wasn't
        }
        let (client_id, seq) = (client_id.unwrap_or("null").to_owned(), prompt.map_or(u64::MAX, |prompt| prompt.seq));
        Ok(Fresh { turn, request, client_id, seq })
    }

    /// What an agent said of a session, and to clients with these ids, behind a position of its stream: `None` when a part of
    /// that isn't kept. And where in the whole log the position is.
    async fn heard(
        &self,
        server: &TapServer,
        session: &str,
        after: u64,
        ids: &HashSet<String>,
    ) -> Result<(u64, Option<Vec<Heard>>), Error> {
        let name = format!("acp/{}/out", server.instance);
        let last = self.store().stream_page(&name, after.saturating_sub(1), 1, 1).await?;
        let began = last.first().filter(|event| event.stream_seq == after).map_or(0, |event| event.seq);
        let keep = |heard: &Heard| match &heard.what {
            What::Update { session: of, .. } => of == session,
            What::Answer { id, .. } => ids.contains(id),
            What::Restarted => true,
            _ => false,
        };
        Ok((began, heard::read(self.store(), &name, after, keep).await?))
    }

    /// From when on (Unix milliseconds) what an agent said after a turn may be missing.
    async fn late_from_ms(&self, live: &Live, already: &Already, heard: &[Heard]) -> Result<i64, Error> {
        let is_doubtful = already.is_reopened() || heard.iter().any(|heard| matches!(heard.what, What::Restarted));
        if is_doubtful {
            return Ok(i64::MAX);
        }
        let newest = live.stream.newest().seq;
        let last = self.store().stream_page(&format!("session/{}", live.id), newest.saturating_sub(1), 1, 1).await?;
        Ok(last.first().map_or(0, |event| event.time_ms.saturating_sub(LAG_MS)))
    }

    /// Turns that go on have their deadlines, and are told to who keeps book of files.
    fn look_after_again(&self, live: &Arc<Live>, again: Again) {
        if let Some(witness) = self.witness() {
            let cwd = live.lock().row.cwd.clone();
            again.running.iter().for_each(|turn_id| witness.turn_began(&live.id, turn_id, &cwd));
            again.touches.into_iter().for_each(|touch| witness.touched(touch));
        }
        again.running.into_iter().for_each(|turn_id| self.watch_turn(live, turn_id));
    }

    /// The turns from which the fold begins: those that run and what came after; else the last one that began.
    async fn turns_again(&self, live: &Live) -> Result<Vec<Turn>, Error> {
        let last = self.store().last_turn(&live.id).await?;
        let unfinished = self.store().unfinished_turns().await?;
        let running =
            unfinished.iter().filter(|row| row.session_id == live.id && row.state == "running").map(|row| row.number).min();
        // Most often the last one is it: a session may have thousands, each with all of its prompt.
        for back in [TURNS_BACK_FIRST, TURNS_BACK] {
            let from = last.saturating_sub(back);
            let rows = self.store().turns(&live.id, from, as_usize(back)).await?;
            let mut began: Vec<_> = rows.into_iter().map(Turn::from_row).filter(|turn| turn.state != "queued").collect();
            began.retain(|turn| turn.state == "running" || turn.doc.sent.is_some());
            let is_all = from == 0 || back == TURNS_BACK || running.map_or(!began.is_empty(), |number| number > from);
            if is_all {
                let from = began.iter().position(|turn| turn.state == "running").unwrap_or(began.len().saturating_sub(1));
                return Ok(began.split_off(from));
            }
        }
        Ok(Vec::new())
    }

    /// What the file has of a session since a turn began, and its items before that. Without a turn: since the only one that
    /// it tells of without a row, if any.
    async fn already(&self, live: &Live, from: Option<&Turn>, place: Option<&Sent>) -> Result<(Already, Snapshot), Error> {
        let mut limits = self.snapshot_limits(usize::MAX);
        limits.items_max = 4 * as_usize(self.bounds().session_open_items_max);
        let (mut already, mut before) = (Already::default(), Snapshot::new(limits));
        let after = place.map_or(0, |place| place.session_after).saturating_sub(CALLS_BACK);
        let mut has_begun = false;
        let each = |payload: &str| {
            let begins = payload.contains(r#""type":"turn.started""#) && from.is_none_or(|turn| payload.contains(&turn.id));
            has_begun |= begins;
            if has_begun || payload.contains(r#""type":"session.state""#) {
                already.push(payload);
            }
            if !has_begun {
                before.push(payload);
            }
        };
        self.store().settle().await;
        self.fold(live, after, each).await?;
        Ok((already, before))
    }

    fn start(&self, live: &Live, place: Sent, already: Already, before: &Snapshot, is_unknown: bool, late_from_ms: i64) -> Start {
        let (_, agent, _) = live.address();
        let seen = usage_before(place.usage.as_ref(), place.is_usage_known);
        let spans = SpanBook::new(&live.id, &agent, seen, as_usize(self.bounds().session_open_items_max));
        let projector = Projector::again(&live.id, self.limits(), before, already.ids());
        Start { projector, spans, stats: place.stats, usage: place.usage, already, is_unknown, late_from_ms }
    }

    /// What the file lacks or has besides: rows of turns whose beginning alone was committed, and spans as they began.
    async fn with_rows(&self, live: &Arc<Live>, turns: &[String], spans: &[String]) -> Result<(), Error> {
        let changes: Vec<RowChange> = {
            let state = live.lock();
            let begun = state.running.iter().filter(|running| turns.contains(&running.turn.id));
            begun.map(|running| running.turn.change(&live.id)).collect()
        };
        if !changes.is_empty()
            && let Err(error) = self.store().change(RowChange::Many(changes)).await
        {
            tracing::warn!(%error, "a turn that goes on isn't in the file");
        }
        let rows = self.store().spans(spans.to_vec()).await?;
        live.lock().spans.as_written(&rows);
        self.inner.parts.traces.go_on(spans);
        Ok(())
    }
}

impl Tail {
    /// True when something was said of late that may be missing in this session.
    fn is_about(&self, session: &str) -> bool {
        let tells = |heard: &Heard| matches!(&heard.what, What::Update { session: of, .. } if of == session);
        self.said.iter().any(tells) || !self.prompts_of(session).is_empty()
    }

    /// Prompts for a session, oldest first.
    fn prompts_of<'a>(&'a self, session: &str) -> Vec<Prompt<'a>> {
        let prompts = self.prompts.iter().filter_map(|heard| match &heard.what {
            What::Asked { id, params, session: Some(of), .. } if of == session => {
                Some(Prompt { seq: heard.seq, client_id: id, params })
            }
            _ => None,
        });
        prompts.collect()
    }

    /// The last position in the agent's stream before the first of these was sent.
    fn before(&self, prompts: &[Prompt<'_>]) -> u64 {
        let Some(first) = prompts.first() else { return self.newest };
        self.said.iter().find(|heard| heard.seq > first.seq).map_or(self.newest, |heard| heard.at - 1)
    }
}

impl Live {
    /// Its agent waits for a prompt, as far as is known.
    fn agent_lives(&self) {
        let mut state = self.lock();
        state.agent_runs = state.doc.exit.is_none();
        if state.agent_runs {
            state.shown = Some(SessionState::Idle);
        }
    }

    fn place_now(&self) -> Sent {
        let state = self.lock();
        self.place(&state, "null", 0)
    }
}
