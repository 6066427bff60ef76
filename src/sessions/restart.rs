//! After a restart of ours: what was under way is told honestly, what waited goes on.

use std::sync::Arc;

use super::live::Live;
use super::turn::Turn;
use super::types::ExitDoc;
use super::{Error, Sessions};

impl Sessions {
    /// Turns that ran are lost, with the reason; turns that waited are worked on.
    pub(super) async fn take_up(&self) -> Result<(), Error> {
        let mut kept: Vec<Arc<Live>> = Vec::new();
        for closed in self.gate().take_lost() {
            match &closed.session_id {
                Some(id) if self.store().session(id).await?.is_some() => self.live(id).await?.request_resolved(&closed),
                _ => self.log_resolution(&closed),
            }
        }
        for row in self.store().unfinished_turns().await? {
            let live = self.live(&row.session_id).await?;
            let turn = Turn::from_row(row);
            if turn.state == "running" {
                live.lost(turn);
            } else {
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
}

impl Live {
    /// Nobody will ever know how it would have ended.
    fn lost(self: &Arc<Self>, mut turn: Turn) {
        let mut state = self.lock();
        state.doc.exit = Some(ExitDoc { reason: "server_restarted".to_owned(), ..ExitDoc::default() });
        state.doc.stats.turns += 1; // that was in memory only
        turn.failed("server_restarted", None);
        self.end_turn(&mut state, turn);
    }
}
