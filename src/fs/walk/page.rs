//! A tree as a listing: a page of it, with where to go on.

use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde_json::json;
use tokio::sync::mpsc;

use super::{Found, Walk, Wanted, until};
use crate::config::as_usize;
use crate::fs::shares::{self, Name, Share};
use crate::fs::{Error, Fs, Listing, Located, Reach, blocking};
use crate::rt::spawn_owned;

/// Entries behind which a piece ends: what a listing costs in memory.
const PIECE_ENTRIES: usize = 4096;
/// Entries that one thread looks at together.
const BATCH: usize = 512;
/// They hold so many directories open at most.
const DIRECTORIES_MAX: usize = 16;

/// Which part of a tree is listed.
#[derive(Debug, Clone, Default)]
pub struct TreePage {
    /// At most so many entries; `None` for as many as there may be.
    pub limit: Option<usize>,
    /// Goes on behind what a page before said.
    pub cursor: Option<String>,
}

impl TreePage {
    fn after(&self) -> Result<Option<Vec<u8>>, Error> {
        let Some(cursor) = &self.cursor else { return Ok(None) };
        let decoded = BASE64_URL_SAFE_NO_PAD.decode(cursor);
        decoded.map(Some).map_err(|_| Error::Invalid("cursor must be one that a page gave".to_owned()))
    }
}

impl Fs {
    /// The entries of a tree, in JSON: `{"entries": […], "nextCursor": …, "skipped": …}`. A cursor names the path behind
    /// which to go on, so nothing that stays is lost or shown twice, whatever comes and goes between two pages. Dropping
    /// what it gives ends it.
    ///
    /// # Errors
    /// [`Error::Invalid`] for patterns and cursors, [`Error::NotFound`], [`Error::NotADirectory`], [`Error::Outside`],
    /// [`Error::Denied`], [`Error::Busy`].
    pub async fn list_tree(&self, reach: &Reach, at: Located, wanted: &Wanted, page: &TreePage) -> Result<Listing, Error> {
        let bounds = self.inner.bounds.clone();
        let selection = wanted.compile(as_usize(bounds.fs_walk_depth_max))?;
        let limit_max = as_usize(bounds.fs_walk_page_max_entries);
        let (after, limit) = (page.after()?, page.limit.unwrap_or(limit_max).min(limit_max));
        let reach = reach.clone();
        let (pieces, received) = mpsc::channel(1);
        let left = pieces.clone();
        let deadline = Instant::now() + Duration::from_millis(bounds.fs_walk_timeout_ms);
        let begin = move || {
            let is_over = until(deadline, move || left.is_closed());
            let walk = Walk::new(&reach, &at, selection, after.as_deref(), &bounds, is_over)?;
            let mut pages = Pages { walk, left: limit, is_begun: false, is_empty: true };
            let first = pages.next();
            Ok((pages, first))
        };
        let (pages, first) = blocking(begin).await?;
        if first.1 {
            return Ok(Listing::Whole(first.0));
        }
        let permit = self.transfer()?;
        spawn_owned("fs-tree", async move {
            let _permit = permit;
            // A reader that leaves closes the channel, which ends the thread.
            let rest = blocking(move || {
                pages.rest(first, &pieces);
                Ok(())
            });
            let _ = rest.await;
        });
        Ok(Listing::Pieces(received))
    }
}

struct Pages {
    walk: Walk,
    /// Entries that the page has room for; 0 also when the walk is over.
    left: usize,
    /// The page has its `[`.
    is_begun: bool,
    /// It has no entry yet.
    is_empty: bool,
}

impl Pages {
    fn rest(mut self, first: (Bytes, bool), pieces: &mpsc::Sender<Result<Bytes, Error>>) {
        let mut next = first;
        loop {
            let (piece, is_last) = next;
            if pieces.blocking_send(Ok(piece)).is_err() || is_last {
                return;
            }
            next = self.next();
        }
    }

    /// The next piece, and whether it is the last one.
    fn next(&mut self) -> (Bytes, bool) {
        let lead: &[u8] = match (self.is_begun, self.is_empty) {
            (false, _) => b"{\"entries\":[",
            (true, false) => b",",
            (true, true) => b"",
        };
        let mut out = lead.to_vec();
        let mut wanted = PIECE_ENTRIES;
        let is_any = shares::encode(&mut out, &mut || {
            let batch = self.batch(wanted.min(BATCH))?;
            wanted -= batch.0.len();
            Some(batch)
        });
        if !is_any && self.is_begun {
            out.clear(); // no entry follows the comma
        }
        self.is_begun = true;
        self.is_empty &= !is_any;
        if self.left > 0 {
            return (out.into(), false);
        }
        // A full page may be the end of the tree: the next one is empty then.
        let cursor = self.walk.is_stopped().then(|| BASE64_URL_SAFE_NO_PAD.encode(self.walk.position()));
        let mut rest = json!({"nextCursor": cursor});
        self.walk.skipped.show(&mut rest);
        out.extend_from_slice(b"],");
        out.extend_from_slice(&rest.to_string().as_bytes()[1..]);
        (out.into(), true)
    }

    /// So many entries at most. `None` when there are none any more.
    fn batch(&mut self, most: usize) -> Option<Batch> {
        let (mut batch, mut directories): (Vec<Found>, usize) = (Vec::new(), 0);
        while batch.len() < most.min(self.left) && directories < DIRECTORIES_MAX {
            let Some(found) = self.walk.next() else {
                self.left = batch.len(); // it isn't asked again: it may have been stopped
                break;
            };
            let is_other = batch.last().is_none_or(|last| !Arc::ptr_eq(&last.directory, &found.directory));
            directories += usize::from(is_other);
            batch.push(found);
        }
        self.left -= batch.len();
        (!batch.is_empty()).then_some(Batch(batch))
    }
}

/// What is looked at together.
struct Batch(Vec<Found>);

impl Share for Batch {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn name(&self, at: usize) -> Name<'_> {
        let found = &self.0[at];
        Name { directory: found.directory.fd.as_fd(), prefix: &found.directory.prefix, name: &found.name }
    }
}
