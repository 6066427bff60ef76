//! Which sessions are in memory, and how one gets there.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use super::live::Live;
use super::projection::Projector;
use super::types::{SessionDoc, UsageDoc};
use super::{Error, Sessions};
use crate::config::as_usize;
use crate::store::{SessionRow, Stream};
use crate::traces::{SpanBook, UsageSeen};

/// Handles that don't keep a session in memory: the tap of its server does, or whoever works with it.
#[derive(Default)]
pub(super) struct Registry {
    live: HashMap<String, Weak<Live>>,
    /// Entries after the last look for those that are gone.
    kept: usize,
}

impl Registry {
    pub(super) fn get(&self, id: &str) -> Option<Arc<Live>> {
        self.live.get(id).and_then(Weak::upgrade)
    }

    /// Whoever comes second gets the first one's.
    pub(super) fn insert(&mut self, live: Arc<Live>) -> Arc<Live> {
        if let Some(first) = self.get(&live.id) {
            return first;
        }
        self.live.insert(live.id.clone(), Arc::downgrade(&live));
        if self.live.len() > 2 * self.kept + 64 {
            self.live.retain(|_, live| live.strong_count() > 0);
            self.kept = self.live.len();
        }
        live
    }

    pub(super) fn remove(&mut self, id: &str) {
        self.live.remove(id);
    }

    /// All that are in memory.
    pub(super) fn all(&self) -> Vec<Arc<Live>> {
        self.live.values().filter_map(Weak::upgrade).collect()
    }
}

impl Sessions {
    /// The session in memory, read from the file when it isn't there.
    ///
    /// # Errors
    /// [`Error::UnknownSession`], or the file can't be read.
    pub(super) async fn live(&self, id: &str) -> Result<Arc<Live>, Error> {
        let known = self.in_memory(id)?;
        match known {
            Some(live) => Ok(live),
            None => self.bring(id).await,
        }
    }

    /// The session when it is in memory.
    ///
    /// # Errors
    /// [`Error::UnknownSession`] when it is being deleted.
    pub(super) fn in_memory(&self, id: &str) -> Result<Option<Arc<Live>>, Error> {
        let known = self.registry().get(id);
        match known {
            Some(live) if live.is_deleted() => Err(Error::UnknownSession { id: id.to_owned() }),
            known => Ok(known),
        }
    }

    /// The session of a server that ACP clients call so.
    pub(super) async fn live_by_acp(&self, server_id: &str, acp_session_id: &str) -> Result<Option<Arc<Live>>, Error> {
        self.store().settle().await; // it may have been made, and left memory, a moment ago
        match self.store().session_by_acp(Some(server_id), None, acp_session_id).await? {
            Some(row) => match self.live(&row.id).await {
                Err(Error::UnknownSession { .. }) => Ok(None),
                brought => brought.map(Some),
            },
            None => Ok(None),
        }
    }

    async fn bring(&self, id: &str) -> Result<Arc<Live>, Error> {
        let _alone = self.inner.loads.enter(id).await;
        if let Some(live) = self.in_memory(id)? {
            return Ok(live);
        }
        let unknown = || Error::UnknownSession { id: id.to_owned() };
        self.store().settle().await; // it may have left memory a moment ago
        self.store().session(id).await?.ok_or_else(unknown)?;
        let stream = self.store().open_stream(&format!("session/{id}")).await?;
        let mut row = self.store().session(id).await?.ok_or_else(unknown)?;
        let last_number = self.store().last_turn(id).await?;
        let doc = SessionDoc::of(&std::mem::take(&mut row.doc));
        Ok(self.insert(row, doc, stream, last_number))
    }

    pub(super) fn insert(&self, row: SessionRow, doc: SessionDoc, stream: Arc<Stream>, last_number: u64) -> Arc<Live> {
        let usage = usage_before(doc.usage.as_ref(), doc.stats.turns == 0);
        let spans = SpanBook::new(&row.id, &row.agent, usage, as_usize(self.bounds().session_open_items_max));
        let projector = Projector::new(&row.id, self.limits());
        let (store, traces) = (self.store().clone(), self.inner.parts.traces.clone());
        let live = Live::new(row, doc, stream, last_number, (projector, spans), store, traces);
        self.registry().insert(live)
    }
}

/// A session's usage; where there was none so far, nothing, else it isn't known.
pub(super) fn usage_before(usage: Option<&UsageDoc>, is_none: bool) -> Option<UsageSeen> {
    match usage {
        None => is_none.then(UsageSeen::default),
        Some(usage) => Some(UsageSeen {
            used: usage.used,
            size: usage.size,
            cost_amount: usage.cost.as_ref().map(|cost| cost.amount),
            cost_currency: usage.cost.as_ref().map(|cost| cost.currency.clone()),
        }),
    }
}
