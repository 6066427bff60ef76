//! Looking at sessions and turns.

use std::sync::Arc;
use std::time::Duration;

use super::live::Live;
use super::turn::Turn;
use super::types::{ExitDoc, SessionDetails, SessionDoc, SessionInfo, SessionState, TurnInfo};
use super::{Error, Sessions};
use crate::store::{SessionFilter, SessionRow};

impl Sessions {
    /// Sessions by last change, newest first, `limit` at most. Cancel safe.
    ///
    /// # Errors
    /// The file can't be read.
    pub async fn list(&self, filter: SessionFilter, limit: usize) -> Result<Vec<SessionInfo>, Error> {
        let rows = self.store().sessions(filter, limit).await?;
        Ok(rows.into_iter().map(|row| self.shown(row)).collect())
    }

    /// One session. Cancel safe.
    ///
    /// # Errors
    /// [`Error::UnknownSession`].
    pub async fn get(&self, id: &str) -> Result<SessionInfo, Error> {
        let known = self.in_memory(id)?;
        if let Some(live) = known {
            return Ok(self.info(&live, true));
        }
        self.store().settle().await; // what it said last, when it has just gone to rest
        let row = self.store().session(id).await?.ok_or_else(|| Error::UnknownSession { id: id.to_owned() })?;
        let doc = SessionDoc::of(&row.doc);
        Ok(at_rest(&row, doc, true))
    }

    fn shown(&self, row: SessionRow) -> SessionInfo {
        let live = self.registry().get(&row.id);
        match live {
            Some(live) => self.info(&live, false),
            None => {
                let doc = SessionDoc::of(&row.doc);
                at_rest(&row, doc, false)
            }
        }
    }

    /// A session in memory, as it is now.
    pub(super) fn info(&self, live: &Arc<Live>, with_details: bool) -> SessionInfo {
        let state = live.lock();
        let mut info = at_rest(&state.row, state.doc.clone(), with_details);
        info.state = state.state();
        info.exit = info.exit.filter(|_| info.state == SessionState::Exited);
        info.queued_turns = state.queue.len();
        info.current_turn_id = state.running.last().map(|running| running.turn.id.clone());
        info.pending_requests = state.pending_requests;
        info
    }

    /// A session's turns after number `after`, in order, `limit` at most. Cancel safe.
    ///
    /// # Errors
    /// [`Error::UnknownSession`].
    pub async fn turns(&self, id: &str, after: u64, limit: usize) -> Result<Vec<TurnInfo>, Error> {
        let live = self.live(id).await?;
        live.until_settled().await;
        let rows = self.store().turns(id, after, limit).await?;
        let state = live.lock();
        Ok(rows
            .into_iter()
            .map(|row| match state.unfinished(&row.id) {
                Some(turn) => turn.info(id, state.position(&row.id)),
                None => Turn::from_row(row).info(id, None),
            })
            .collect())
    }

    /// One turn; waits up to `wait` for its end. Cancel safe.
    ///
    /// # Errors
    /// [`Error::UnknownSession`], [`Error::UnknownTurn`].
    pub async fn turn(&self, id: &str, turn_id: &str, wait: Duration) -> Result<TurnInfo, Error> {
        let live = self.live(id).await?;
        live.until_settled().await;
        let _ = tokio::time::timeout(wait, live.until_over(turn_id)).await; // then it is shown as it is
        let known = {
            let state = live.lock();
            let unfinished = state.unfinished(turn_id).map(|turn| turn.info(id, state.position(turn_id)));
            unfinished.or_else(|| state.ended.iter().find(|turn| turn.id == turn_id).map(|turn| turn.info(id, None)))
        };
        if let Some(turn) = known {
            return Ok(turn);
        }
        match self.store().turn(turn_id).await?.filter(|row| row.session_id == id) {
            Some(row) => Ok(Turn::from_row(row).info(id, None)),
            None => Err(Error::UnknownTurn { id: turn_id.to_owned() }),
        }
    }
}

/// A session that isn't in memory: no agent runs for it.
fn at_rest(row: &SessionRow, doc: SessionDoc, with_details: bool) -> SessionInfo {
    let exit = doc.exit.or_else(|| Some(ExitDoc { reason: "server_restarted".to_owned(), ..ExitDoc::default() }));
    let details = SessionDetails {
        modes: doc.modes,
        config_options: doc.config_options,
        initialized: doc.initialized,
        workspace: doc.workspace,
        turn_limits: doc.turn_limits,
    };
    SessionInfo {
        id: row.id.clone(),
        agent: row.agent.clone(),
        server_id: row.server_id.clone(),
        acp_session_id: row.acp_session_id.clone(),
        cwd: row.cwd.clone(),
        title: row.title.clone(),
        roots: doc.roots,
        state: SessionState::Exited,
        exit,
        created_at_ms: row.created_at_ms,
        updated_at_ms: row.updated_at_ms,
        closed_at_ms: row.closed_at_ms,
        origin: doc.origin,
        mode: doc.mode,
        model: doc.model,
        metadata: doc.metadata,
        usage: doc.usage,
        stats: doc.stats,
        queued_turns: 0,
        current_turn_id: None,
        pending_requests: 0,
        restored: doc.restored,
        details: with_details.then_some(details),
    }
}
