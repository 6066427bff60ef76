//! Searching contents with ripgrep's engine, in this process: one thread walks, others search, and what they find comes out
//! by file in the order of the walk. Files are read, never mapped: one that is cut meanwhile would end the server.
//!
//! | module | what |
//! |---|---|
//! | `pattern` | what is searched for |
//! | `hits` | what is found in one file, as JSON |
//! | `order` | what comes out when |
//! | `work` | the threads |

pub(super) mod hits;
mod order;
mod pattern;
mod work;

use std::fs::File;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::mpsc;

pub use pattern::{Case, Pattern};

use super::walk::{IsOver, Walk, Wanted, until};
use super::{Error, Fs, Located, Reach, blocking, read};
use crate::config::{Bounds, as_usize};
use crate::rt::spawn_owned;

/// So many places one search may start at.
const PLACES_MAX: usize = 100;
/// So many lines around a match may be asked for.
const CONTEXT_MAX: usize = 100;

/// A search through contents.
#[derive(Debug, Clone, Default)]
pub struct Search {
    /// What for.
    pub pattern: Pattern,
    /// Files, and trees whose files are searched.
    pub places: Vec<Located>,
    /// Which files of those.
    pub wanted: Wanted,
    /// Lines before a match that are shown, too.
    pub before: usize,
    /// The same behind it.
    pub after: usize,
    /// At most so many lines with matches; `None` for as many as there may be.
    pub limit: Option<u64>,
    /// At most so many in each file.
    pub limit_per_file: Option<u64>,
    /// At most so many bytes of JSON.
    pub answer_max_bytes: Option<u64>,
}

/// A piece of what is found.
#[derive(Debug)]
pub enum SearchItem {
    /// Lines of JSON, each a match or a line around one.
    Hits(Bytes),
    /// The last one: what was searched, and whether that is all.
    End(Value),
}

/// Where a search starts.
enum Start {
    Tree(Box<Walk>),
    File(File, Vec<u8>),
}

impl Fs {
    /// Searches files, in order of their paths. Waits while `fs_searches_max` others are under way. Dropping what it gives
    /// ends it.
    ///
    /// # Errors
    /// [`Error::Invalid`] for patterns, [`Error::NotFound`], [`Error::Outside`], [`Error::Denied`].
    pub async fn search(&self, reach: &Reach, search: Search) -> Result<mpsc::Receiver<SearchItem>, Error> {
        let matcher = search.pattern.compile()?;
        check(&search)?;
        let permit = self.inner.searches.clone().acquire_owned().await.map_err(|_| Error::Stopping)?;
        let (bounds, reach) = (self.inner.bounds.clone(), reach.clone());
        let (items, received) = mpsc::channel(2);
        let left = items.clone();
        let deadline = Instant::now() + Duration::from_millis(bounds.fs_search_timeout_ms);
        let begin = move || {
            let is_over = until(deadline, move || left.is_closed());
            let starts = search.places.iter().map(|at| start(&reach, at, &search.wanted, &bounds, &is_over));
            Ok((starts.collect::<Result<Vec<Start>, Error>>()?, is_over, search, bounds))
        };
        let (starts, is_over, search, bounds) = blocking(begin).await?;
        spawn_owned("fs-search", async move {
            let out = items.clone();
            let work = blocking(move || Ok(work::run(starts, &matcher, &search, &bounds, &is_over, deadline, &out)));
            let summary = work.await;
            drop(permit);
            if let Ok(summary) = summary {
                let _ = items.send(SearchItem::End(summary)).await; // a reader that left
            }
        });
        Ok(received)
    }
}

fn check(search: &Search) -> Result<(), Error> {
    if search.places.is_empty() || search.places.len() > PLACES_MAX {
        return Err(Error::Invalid(format!("a search starts at between 1 and {PLACES_MAX} paths")));
    }
    if search.before.max(search.after) > CONTEXT_MAX {
        return Err(Error::Invalid(format!("at most {CONTEXT_MAX} lines around a match can be shown")));
    }
    Ok(())
}

fn start(reach: &Reach, at: &Located, wanted: &Wanted, bounds: &Bounds, is_over: &IsOver) -> Result<Start, Error> {
    let selection = wanted.compile(as_usize(bounds.fs_walk_depth_max))?;
    match Walk::new(reach, at, selection, None, bounds, IsOver::clone(is_over)) {
        Ok(walk) => Ok(Start::Tree(Box::new(walk))),
        Err(Error::NotADirectory(_)) => {
            let (file, _) = read::open(reach, at)?;
            Ok(Start::File(file, std::os::unix::ffi::OsStrExt::as_bytes(at.path().as_os_str()).to_vec()))
        }
        Err(error) => Err(error),
    }
}
