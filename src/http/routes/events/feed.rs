//! The whole log as server-sent events.

use bytes::Bytes;
use tokio::sync::watch;

use super::{EventsGap, shown};
use crate::config::{Bounds, as_usize};
use crate::http::sse::{Read, Source};
use crate::store::{LogFilter, LogPage, Store};

/// What follows a position of the whole log.
pub(super) struct LogTail {
    store: Store,
    filter: LogFilter,
    newest: watch::Receiver<u64>,
    cursor: u64,
    /// The client's position when it lies beyond the log's end.
    beyond: Option<u64>,
    page_max_events: usize,
    chunk_max_bytes: usize,
    is_gone: bool,
}

impl LogTail {
    pub(super) fn new(store: Store, filter: LogFilter, after: u64, bounds: &Bounds) -> Self {
        let newest = store.watch_log();
        let last = *newest.borrow();
        Self {
            store,
            filter,
            newest,
            cursor: after.min(last),
            beyond: (after > last).then_some(after),
            page_max_events: as_usize(bounds.log_page_max_events),
            chunk_max_bytes: as_usize(bounds.sse_chunk_max_bytes),
            is_gone: false,
        }
    }
}

impl Source for LogTail {
    async fn read(&mut self) -> Read {
        if let Some(beyond) = self.beyond.take() {
            let mut out = Vec::new();
            put_gap(&mut out, &EventsGap::beyond(self.cursor, beyond));
            return Read::Frames(out.into());
        }
        let newest = *self.newest.borrow_and_update(); // before reading: what comes after wakes `changed`
        if self.cursor >= newest {
            return if self.is_gone { Read::Over("closed") } else { Read::Nothing };
        }
        let read = self.store.log_page(self.cursor, self.filter.clone(), self.page_max_events, self.chunk_max_bytes).await;
        match read {
            Ok(page) => {
                // At the log's end positions may be missing whose events are gone: they are not waited for.
                self.cursor = if page.is_last { page.reached.max(newest) } else { page.reached };
                match encode(page) {
                    frames if !frames.is_empty() => Read::Frames(frames),
                    _ if self.cursor >= newest => Read::Nothing,
                    // Much was left out: what has no data is not dispatched, but moves the client's Last-Event-ID on.
                    _ => Read::Frames(format!("id: {}\n\n", self.cursor).into()),
                }
            }
            Err(error) => Read::Failed(error.into()),
        }
    }

    async fn changed(&mut self) {
        self.is_gone = self.newest.changed().await.is_err();
    }
}

/// Events and gaps, each at its place.
fn encode(page: LogPage) -> Bytes {
    let mut out = Vec::with_capacity(page.events.iter().map(|event| event.payload.len() + 200).sum());
    let mut gaps = page.gaps.into_iter().map(EventsGap::from).peekable();
    for event in &page.events {
        while let Some(gap) = gaps.next_if(|gap| gap.sequence <= event.seq) {
            put_gap(&mut out, &gap);
        }
        out.extend_from_slice(format!("event: message\nid: {}\ndata: ", event.seq).as_bytes());
        put_line(&mut out, &shown::json(event));
    }
    gaps.for_each(|gap| put_gap(&mut out, &gap));
    out.into()
}

/// A gap has no id of its own: who goes on from the event before it is told again.
fn put_gap(out: &mut Vec<u8>, gap: &EventsGap) {
    out.extend_from_slice(b"event: gap\ndata: ");
    put_line(out, &serde_json::to_string(gap).unwrap_or_default());
}

/// JSON may have line breaks between its tokens, where a blank does as well.
fn put_line(out: &mut Vec<u8>, json: &str) {
    out.extend(json.bytes().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }));
    out.extend_from_slice(b"\n\n");
}
