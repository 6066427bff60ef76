//! The threads of a search: the caller's walks, the others search.

use std::fs::File;
use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use std::time::Instant;

use grep_regex::RegexMatcher;
use grep_searcher::Searcher;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::hits::{Hits, Outlet, Part};
use super::order::Order;
use super::{Search, SearchItem, Start};
use crate::config::{Bounds, as_usize};
use crate::fs::entry::Kind;
use crate::fs::walk::{Found, IsOver, Skipped};

/// Files that one thread takes at a time.
const BATCH: usize = 32;
/// They hold so many directories open at most.
const DIRECTORIES_MAX: usize = 8;
/// Batches that wait for a thread.
const QUEUE: usize = 8;
const THREADS_MAX: usize = 8;
/// Hits of one batch that are held before its turn.
const PART_BYTES: usize = 256 * 1024;

enum Job {
    Found(Found),
    Open(File, Vec<u8>),
}

impl Job {
    fn is_beside(&self, other: Option<&Self>) -> bool {
        match (self, other) {
            (Self::Found(one), Some(Self::Found(other))) => Arc::ptr_eq(&one.directory, &other.directory),
            _ => false,
        }
    }
}

/// What all threads of a search share.
struct Shared<'a> {
    matcher: &'a RegexMatcher,
    search: &'a Search,
    bounds: &'a Bounds,
    is_over: &'a IsOver,
    order: Order,
    files: AtomicU64,
    matched: AtomicU64,
    cut: AtomicU64,
    binary: AtomicU64,
    skipped: Mutex<Skipped>,
}

/// Searches until all is searched or nobody waits; gives the summary. Blocks.
pub(super) fn run(
    starts: Vec<Start>,
    matcher: &RegexMatcher,
    search: &Search,
    bounds: &Bounds,
    is_over: &IsOver,
    deadline: Instant,
    items: &mpsc::Sender<SearchItem>,
) -> Value {
    let limit = search.limit.unwrap_or(u64::MAX).min(bounds.fs_search_matches_max);
    let shared = Shared {
        matcher,
        search,
        bounds,
        is_over,
        order: Order::new(items.clone(), limit, search.answer_max_bytes.unwrap_or(u64::MAX), deadline),
        files: AtomicU64::new(0),
        matched: AtomicU64::new(0),
        cut: AtomicU64::new(0),
        binary: AtomicU64::new(0),
        skipped: Mutex::default(),
    };
    let is_stopped = std::thread::scope(|scope| {
        let (queue, batches) = sync_channel(QUEUE);
        let batches = Arc::new(Mutex::new(batches));
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
        for _ in 0..threads {
            let (batches, shared) = (Arc::clone(&batches), &shared);
            scope.spawn(move || shared.work(&batches));
        }
        drop(batches); // when the threads are gone, nothing can be queued
        walk(starts, queue, &shared)
    });
    shared.summary(is_stopped)
}

/// Queues what is to be searched; true when it ended early.
fn walk(starts: Vec<Start>, queue: SyncSender<(u64, Vec<Job>)>, shared: &Shared<'_>) -> bool {
    let (mut number, mut batch, mut directories) = (0, Vec::with_capacity(BATCH), 0);
    let mut put = |job: Option<Job>| {
        let is_last = job.is_none();
        directories += usize::from(job.as_ref().is_some_and(|job| !job.is_beside(batch.last())));
        batch.extend(job);
        if batch.len() < BATCH && directories < DIRECTORIES_MAX && !is_last {
            return true;
        }
        directories = 0;
        number += 1;
        queue.send((number - 1, std::mem::replace(&mut batch, Vec::with_capacity(BATCH)))).is_ok()
    };
    for start in starts {
        match start {
            Start::File(file, path) => {
                if !put(Some(Job::Open(file, path))) {
                    return true;
                }
            }
            Start::Tree(mut walk) => {
                while let Some(found) = walk.next() {
                    if found.kind == Kind::File && !put(Some(Job::Found(found))) {
                        return true;
                    }
                }
                let is_stopped = walk.is_stopped();
                shared.skipped.lock().unwrap_or_else(PoisonError::into_inner).join(std::mem::take(&mut walk.skipped));
                if is_stopped {
                    shared.order.end();
                    return true;
                }
            }
        }
    }
    !put(None)
}

/// Ends everything when its thread panics, for the others would wait for its turn.
struct EndsAll<'a>(&'a Order);

impl Drop for EndsAll<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.end();
        }
    }
}

impl Shared<'_> {
    fn work(&self, batches: &Mutex<Receiver<(u64, Vec<Job>)>>) {
        let _ends_all = EndsAll(&self.order);
        let heap_max_bytes = as_usize(self.bounds.fs_search_heap_max_bytes);
        let mut searcher = self.search.pattern.searcher(self.search.before, self.search.after, heap_max_bytes);
        loop {
            let next = batches.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok((number, jobs)) = next else { return };
            let mut part = Part::default();
            for job in jobs {
                if (self.is_over)() || self.order.is_over() {
                    return self.order.end();
                }
                self.search_file(&mut searcher, job, number, &mut part);
            }
            if !self.order.give(number, &mut part, true) {
                return;
            }
        }
    }

    fn search_file(&self, searcher: &mut Searcher, job: Job, number: u64, part: &mut Part) {
        let (opened, path) = match job {
            Job::Open(file, path) => (Ok(file), path),
            Job::Found(found) => (found.open(), found.path()),
        };
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return, // gone
            Err(error) => return self.skip(path, &error),
        };
        self.files.fetch_add(1, Ordering::Relaxed);
        let left = self.search.limit_per_file.unwrap_or(u64::MAX);
        let outlet = InTurn { order: &self.order, number };
        let mut hits = Hits::new(part, outlet, self.matcher, &path, as_usize(self.bounds.fs_search_line_max_bytes), left);
        let searched = searcher.search_reader(self.matcher, Watched { file, is_over: self.is_over }, &mut hits);
        let (found, is_cut, is_binary) = (hits.found, hits.is_cut, hits.is_binary);
        self.matched.fetch_add(u64::from(found > 0), Ordering::Relaxed);
        self.cut.fetch_add(u64::from(is_cut), Ordering::Relaxed);
        self.binary.fetch_add(u64::from(is_binary), Ordering::Relaxed);
        if let Err(error) = searched {
            self.skip(path, &error);
        }
    }

    fn skip(&self, path: Vec<u8>, error: &io::Error) {
        self.skipped.lock().unwrap_or_else(PoisonError::into_inner).add(path, error.to_string());
    }

    fn summary(&self, is_stopped: bool) -> Value {
        let (matches, why_cut) = self.order.result();
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let is_over = is_stopped || self.order.is_over();
        let reason = why_cut.or(is_over.then_some("time")).or((of(&self.cut) > 0).then_some("matchesPerFile"));
        let mut summary = json!({
            "kind": "end",
            "matches": matches,
            "filesSearched": of(&self.files),
            "filesMatched": of(&self.matched),
            "binaryFiles": of(&self.binary),
            "truncated": reason.is_some(),
        });
        if let Some(reason) = reason {
            summary["reason"] = reason.into();
        }
        self.skipped.lock().unwrap_or_else(PoisonError::into_inner).show(&mut summary);
        summary
    }
}

struct InTurn<'a> {
    order: &'a Order,
    number: u64,
}

impl Outlet for InTurn<'_> {
    fn pass(&mut self, part: &mut Part) -> bool {
        part.text.len() < PART_BYTES || self.order.give(self.number, part, false)
    }
}

/// A file that ends when nobody waits any more.
struct Watched<'a> {
    file: File,
    is_over: &'a IsOver,
}

impl Read for Watched<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if (self.is_over)() { Ok(0) } else { self.file.read(into) }
    }
}
