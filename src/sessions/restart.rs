//! After a restart of ours: what was under way is told honestly, what waited goes on.

use std::collections::HashSet;
use std::sync::Arc;

use super::live::Live;
use super::projection::{Projected, Snapshot};
use super::turn::Turn;
use super::types::ExitDoc;
use super::{Error, Sessions};
use crate::acp::{ServerInfo, Status};
use crate::rt::clock::now_ms;

/// So many of the last events are looked through first for the beginning of a turn.
const LOOK_BACK_EVENTS: u64 = 1_000;

impl Sessions {
    /// Turns that ran are lost, with the reason, and turns that waited are worked on; unless their agent lives: then both go on
    /// with it ([`resume`](super::resume)).
    pub(super) async fn take_up(&self) -> Result<(), Error> {
        let lives: HashSet<String> = self.acp()?.list().into_iter().filter(is_running).map(|server| server.server_id).collect();
        self.lose_spans(&lives).await?;
        let mut kept: Vec<Arc<Live>> = Vec::new();
        for closed in self.gate().take_lost(|server| lives.contains(server)) {
            match &closed.session_id {
                Some(id) if self.store().session(id).await?.is_some() => self.live(id).await?.request_resolved(&closed),
                _ => self.log_resolution(&closed),
            }
        }
        for row in self.store().unfinished_turns().await? {
            let live = self.live(&row.session_id).await?;
            if lives.contains(&live.lock().row.server_id) {
                continue; // what waits for the file may be with the agent, or over
            }
            let turn = Turn::from_row(row);
            if turn.state == "running" {
                {
                    let mut state = live.lock();
                    state.doc.stats.turns += 1; // that was in memory only
                    state.doc.exit = Some(ExitDoc { reason: "server_restarted".to_owned(), ..ExitDoc::default() });
                }
                self.lost(&live, turn, "server_restarted").await;
            } else if !live.lock().knows(&turn.id) {
                live.lock().queue.push_back(turn);
            }
            if !kept.iter().any(|other| Arc::ptr_eq(other, &live)) {
                kept.push(live);
            }
        }
        self.store().flush();
        for live in kept {
            let mut state = live.lock();
            self.work_on(&live, &mut state);
        }
        Ok(())
    }

    /// Spans of sessions whose agent is gone, too.
    async fn lose_spans(&self, lives: &HashSet<String>) -> Result<(), Error> {
        let traces = &self.inner.parts.traces;
        let mut spared = HashSet::new();
        for id in traces.left_in() {
            if self.store().session(&id).await?.is_some_and(|row| lives.contains(&row.server_id)) {
                spared.insert(id);
            }
        }
        traces.lose_left(|session| session.is_none_or(|id| !spared.contains(id))).await;
        Ok(())
    }

    /// Those of this server's sessions that don't go on.
    pub(super) async fn lose_spans_of(&self, server_id: &str) -> Result<(), Error> {
        let traces = &self.inner.parts.traces;
        let mut over = HashSet::new();
        for id in traces.left_in() {
            if self.store().session(&id).await?.is_some_and(|row| row.server_id == server_id) {
                over.insert(id);
            }
        }
        traces.lose_left(|session| session.is_some_and(|id| over.contains(id))).await;
        Ok(())
    }

    /// Nobody will ever know how the turn would have ended. What it left open ends with it.
    pub(super) async fn lost(&self, live: &Arc<Live>, turn: Turn, reason: &'static str) {
        let left_open = match turn.doc.started_at_ms {
            Some(_) => self.left_open(live, &turn.id).await,
            None => Ok(Vec::new()), // it was never sent
        };
        let left_open = left_open.unwrap_or_else(|error| {
            tracing::error!(%error, session = live.id, "what a lost turn had said could not be read: its items stay open");
            Vec::new()
        });
        live.lost(turn, left_open, reason);
    }

    async fn left_open(&self, live: &Live, turn_id: &str) -> Result<Vec<Projected>, Error> {
        self.store().settle().await;
        let (end, mut back) = (live.stream.newest().seq, LOOK_BACK_EVENTS);
        loop {
            let after = end.saturating_sub(back);
            let (mut open, mut is_whole) = (Snapshot::new(self.snapshot_limits(usize::MAX)), after == 0);
            let each = |payload: &str| {
                is_whole |= payload.contains(r#""type":"turn.started""#) && payload.contains(turn_id);
                open.push(payload);
                open.keep_open();
            };
            self.fold(live, after, each).await?;
            if is_whole {
                return Ok(open.fail_open(now_ms(), &live.id, turn_id));
            }
            back = back.saturating_mul(4);
        }
    }
}

fn is_running(server: &ServerInfo) -> bool {
    matches!(server.status, Status::Running { .. })
}

impl Live {
    fn lost(self: &Arc<Self>, mut turn: Turn, left_open: Vec<Projected>, reason: &'static str) {
        let mut state = self.lock();
        self.append_later(&mut state, left_open, None);
        turn.failed(reason, None);
        self.end_turn(&mut state, turn);
    }
}
