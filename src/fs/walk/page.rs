//! A tree as a listing: a page of it, with where to go on.

use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde_json::json;
use tokio::sync::mpsc;

use super::{Found, Walk, Wanted, until};
use crate::config::as_usize;
use crate::fs::entry::{Encoder, Meta};
use crate::fs::{Error, Fs, Listing, Located, Reach, blocking, list};
use crate::rt::spawn_owned;

/// Entries that are looked at together: what a listing costs in memory.
const BATCH: usize = 4096;
/// They hold so many directories open at most.
const DIRECTORIES_MAX: usize = 64;
/// Fewer than this aren't worth a thread.
const SHARE_MIN: usize = 512;
const THREADS_MAX: usize = 4;
/// A name, its path and the rest of an entry, about.
const ENTRY_BYTES: usize = 200;

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
            let mut pages = Pages { walk, left: limit, is_first: true };
            let first = pages.next();
            Ok((pages, first))
        };
        let (pages, first) = blocking(begin).await?;
        if pages.left == 0 && first.1 {
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
    left: usize,
    is_first: bool,
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
        let (mut batch, mut directories): (Vec<Found>, usize) = (Vec::new(), 0);
        let wanted = self.left.min(BATCH);
        let mut is_last = false;
        while batch.len() < wanted && directories < DIRECTORIES_MAX {
            let Some(found) = self.walk.next() else {
                is_last = true;
                break;
            };
            let is_other = batch.last().is_none_or(|last| !Arc::ptr_eq(&last.directory, &found.directory));
            directories += usize::from(is_other);
            batch.push(found);
        }
        is_last |= batch.len() == self.left;
        self.left -= batch.len();
        let mut out = encode(&batch, std::mem::take(&mut self.is_first));
        if is_last {
            // A full page may be the end of the tree: the next one is empty then.
            let is_cut = self.walk.is_stopped();
            let cursor = is_cut.then(|| BASE64_URL_SAFE_NO_PAD.encode(self.walk.position()));
            self.left = 0;
            let mut rest = json!({"nextCursor": cursor});
            self.walk.skipped.show(&mut rest);
            out.extend_from_slice(b"],");
            out.extend_from_slice(&rest.to_string().as_bytes()[1..]);
        }
        (out.into(), is_last)
    }
}

fn encode(batch: &[Found], is_first: bool) -> Vec<u8> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX).min(batch.len() / SHARE_MIN + 1);
    let share = batch.len().div_ceil(threads).max(1);
    let parts: Vec<Vec<u8>> = std::thread::scope(|scope| {
        let mut shares = batch.chunks(share);
        let own = shares.next().unwrap_or_default();
        let others: Vec<_> = shares.map(|share| scope.spawn(|| encode_some(share))).collect();
        let mut parts = vec![encode_some(own)];
        parts.extend(others.into_iter().filter_map(|part| part.join().ok())); // a panic is in the log
        parts
    });
    let mut out = Vec::with_capacity(parts.iter().map(Vec::len).sum::<usize>() + 64);
    out.extend_from_slice(if is_first { b"{\"entries\":[" } else { b"" });
    let mut is_empty = is_first;
    for part in parts.iter().filter(|part| !part.is_empty()) {
        if !std::mem::take(&mut is_empty) {
            out.push(b',');
        }
        out.extend_from_slice(part);
    }
    out
}

fn encode_some(share: &[Found]) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::with_capacity(share.len() * ENTRY_BYTES));
    let mut is_first = true;
    for found in share {
        let directory = found.directory.fd.as_fd();
        let name = std::path::Path::new(std::ffi::OsStr::from_bytes(&found.name));
        let Ok(meta) = Meta::of(directory, name) else { continue }; // gone
        if !std::mem::take(&mut is_first) {
            encoder.push(",");
        }
        let target = list::link(directory, &found.name, meta.kind);
        encoder.entry(Some(&found.directory.prefix), &found.name, &meta, target.as_deref());
        encoder.push("}");
    }
    encoder.into_bytes()
}
