//! What was said in a session: its stream, its items as they are now, and the raw envelopes.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::gate::RequestInfo;
use super::live::Live;
use super::projection::{Snapshot as Fold, SnapshotLimits};
use super::types::{SessionInfo, TurnInfo};
use super::{Error, Sessions};
use crate::acp::Envelope;
use crate::config::as_usize;
use crate::store::{Item, LogFilter, Stream};

/// A session as it is now, and where its events go on.
pub struct Snapshot {
    /// The session.
    pub session: SessionInfo,
    /// Its items, oldest first.
    pub items: Vec<Box<RawValue>>,
    /// Older items that are not among them.
    pub items_left_out: usize,
    /// Turns that run or wait.
    pub turns: Vec<TurnInfo>,
    /// What waits for a decision.
    pub requests: Vec<Arc<RequestInfo>>,
    /// Events after this position are not in it: `Last-Event-ID` for the stream.
    pub sequence: u64,
}

/// An ACP envelope of a session, as it passed.
pub struct RawEvent {
    /// Its position in the whole log.
    pub seq: u64,
    /// True when a client sent it.
    pub from_client: bool,
    /// Unix milliseconds.
    pub time_ms: i64,
    /// The envelope.
    pub envelope: bytes::Bytes,
}

impl Sessions {
    /// The stream of a session's events. It ends when the session is deleted.
    ///
    /// # Errors
    /// [`Error::UnknownSession`].
    pub async fn stream(&self, id: &str) -> Result<Arc<Stream>, Error> {
        Ok(Arc::clone(&self.live(id).await?.stream))
    }

    /// The session with its items joined and its open turns and requests. Cancel safe.
    ///
    /// # Errors
    /// [`Error::UnknownSession`], or the file can't be read.
    pub async fn snapshot(&self, id: &str, items_max: usize) -> Result<Snapshot, Error> {
        let live = self.live(id).await?;
        let mut fold = Fold::new(self.snapshot_limits(items_max));
        let sequence = self.fold(&live, 0, |payload| fold.push(payload)).await?;
        let requests = self.gate().pending_in(id);
        let turns = {
            let state = live.lock();
            let running = state.running.iter().map(|running| running.turn.info(id, None));
            running.chain(state.queue.iter().map(|turn| turn.info(id, state.position(&turn.id)))).collect()
        };
        let (items, items_left_out) = (fold.items(), fold.left_out());
        Ok(Snapshot { session: self.info(&live, true), items, items_left_out, turns, requests, sequence })
    }

    pub(super) fn snapshot_limits(&self, items_max: usize) -> SnapshotLimits {
        let bounds = self.bounds();
        SnapshotLimits {
            items_max,
            text_max_bytes: as_usize(bounds.item_text_max_bytes),
            tool_call_max_bytes: as_usize(bounds.item_tool_call_max_bytes),
            diff_max_bytes: as_usize(bounds.item_diff_max_bytes),
        }
    }

    /// Calls `each` with every event that follows `after`, up to the newest one. Gives that one's position.
    pub(super) async fn fold(&self, live: &Live, after: u64, mut each: impl FnMut(&str)) -> Result<u64, Error> {
        let bounds = self.bounds();
        let (events, bytes) = (as_usize(bounds.log_page_max_events), as_usize(bounds.sse_chunk_max_bytes));
        let end = live.stream.newest().seq;
        let mut position = after;
        while position < end {
            let page = live.stream.read_after(position, events, bytes).await?;
            let Some(last) = page.last() else { break };
            position = last.end();
            for item in &page {
                if let Item::Event(event) = item
                    && let Ok(payload) = std::str::from_utf8(&event.payload)
                {
                    each(payload);
                }
            }
        }
        Ok(position)
    }

    /// The envelopes that passed for a session in both directions, after a position of the whole log; and where to go
    /// on, also when none was found. Cancel safe.
    ///
    /// # Errors
    /// [`Error::UnknownSession`], or the file can't be read.
    pub async fn raw_events(&self, id: &str, after: u64, limit: usize) -> Result<(Vec<RawEvent>, u64), Error> {
        let live = self.live(id).await?;
        let (server_id, _, acp_session_id) = live.address();
        let instance = match self.acp()?.get(&server_id).await {
            Ok(server) => server.instance().to_owned(),
            // Its envelopes go with it; the next message makes it anew.
            Err(crate::acp::Error::UnknownServer { .. }) => {
                return Ok((Vec::new(), after.max(*self.store().watch_log().borrow())));
            }
            Err(error) => return Err(error.into()),
        };
        let (outbound, inbound) = (format!("acp/{instance}/out"), format!("acp/{instance}/in"));
        let filter = LogFilter { streams: vec![outbound, inbound.clone()], ..LogFilter::default() };
        let bytes = as_usize(self.bounds().sse_chunk_max_bytes);
        let page = self.store().log_page(after, filter, limit, bytes).await?;
        let of_session = |payload: &bytes::Bytes| {
            let envelope = Envelope::parse(payload.clone()).ok()?;
            let named = envelope.session_id().or_else(|| crate::acp::string_member(envelope.result()?, "sessionId"));
            (named.as_deref() == Some(acp_session_id.as_str())).then_some(())
        };
        let events = page.events.into_iter().filter(|event| of_session(&event.payload).is_some());
        let shown = events.map(|event| RawEvent {
            seq: event.seq,
            from_client: event.stream == inbound,
            time_ms: event.time_ms,
            envelope: event.payload,
        });
        Ok((shown.collect(), page.reached))
    }
}
