//! What each session saw last of each file. Bounded over all sessions: what was seen longest ago is forgotten, and then the
//! session may write as if it had never seen the file.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::super::history::image::Raw;
use crate::rt::clock::now_ms;
use crate::store::FsSeenRow;

/// A file as a session saw it last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenFile {
    /// The session.
    pub session_id: String,
    /// The file.
    pub path: PathBuf,
    /// The hash of its content.
    pub sha256: String,
    /// `read` or `write`.
    pub op: String,
    /// Unix milliseconds.
    pub seen_at_ms: i64,
    /// How often, since the server started.
    pub count: u64,
}

/// All of it.
pub(in crate::fs) struct Seen {
    state: Mutex<State>,
    max: usize,
}

#[derive(Default)]
struct State {
    sessions: HashMap<String, HashMap<PathBuf, Entry>>,
    /// By when they were seen.
    order: BTreeMap<u64, (String, PathBuf)>,
    last: u64,
}

struct Entry {
    sha256: String,
    op: String,
    seen_at_ms: i64,
    count: u64,
    number: u64,
}

impl Seen {
    /// From rows, the latest first.
    pub fn new(rows: Vec<FsSeenRow>, max: usize) -> Self {
        let seen = Self { state: Mutex::default(), max };
        for row in rows.into_iter().rev() {
            seen.put_at(&row.session_id, &Raw(row.path).path(), &row.sha256, &row.op, row.seen_at_ms);
        }
        seen
    }

    /// A session saw this; false when that was known.
    pub fn put(&self, session: &str, path: &Path, sha256: &str, op: &str) -> bool {
        self.put_at(session, path, sha256, op, now_ms())
    }

    fn put_at(&self, session: &str, path: &Path, sha256: &str, op: &str, seen_at_ms: i64) -> bool {
        let mut state = self.lock();
        state.last += 1;
        let number = state.last;
        let files = state.sessions.entry(session.to_owned()).or_default();
        let earlier = files.remove(path);
        let count = earlier.as_ref().map_or(1, |earlier| earlier.count + 1);
        let is_news = earlier.as_ref().is_none_or(|earlier| earlier.sha256 != sha256 || earlier.op != op);
        files.insert(path.to_owned(), Entry { sha256: sha256.to_owned(), op: op.to_owned(), seen_at_ms, count, number });
        if let Some(earlier) = earlier {
            state.order.remove(&earlier.number);
        }
        state.order.insert(number, (session.to_owned(), path.to_owned()));
        while state.order.len() > self.max
            && let Some((_, (session, path))) = state.order.pop_first()
        {
            if let Some(files) = state.sessions.get_mut(&session) {
                files.remove(&path);
                if files.is_empty() {
                    state.sessions.remove(&session);
                }
            }
        }
        is_news
    }

    /// The hash that a session saw last of a file.
    pub fn get(&self, session: &str, path: &Path) -> Option<String> {
        self.lock().sessions.get(session)?.get(path).map(|entry| entry.sha256.clone())
    }

    /// The files below a directory that a session saw, with what it saw last.
    pub fn below(&self, session: &str, directory: &Path) -> Vec<(PathBuf, String)> {
        let state = self.lock();
        let files = state.sessions.get(session).into_iter().flatten();
        let below = files.filter(|(path, _)| path.starts_with(directory) && *path != directory);
        below.map(|(path, entry)| (path.clone(), entry.sha256.clone())).collect()
    }

    /// What is known of a file, or of a session, or of both; the latest first, `limit` at most.
    pub fn list(&self, session: Option<&str>, path: Option<&Path>, limit: usize) -> Vec<SeenFile> {
        let state = self.lock();
        let is_wanted = |(its_session, its_path): &&(String, PathBuf)| {
            session.is_none_or(|session| session == its_session) && path.is_none_or(|path| path == its_path)
        };
        let found = state.order.values().rev().filter(is_wanted).filter_map(|(session, path)| {
            let entry = state.sessions.get(session)?.get(path)?;
            Some(SeenFile {
                session_id: session.clone(),
                path: path.clone(),
                sha256: entry.sha256.clone(),
                op: entry.op.clone(),
                seen_at_ms: entry.seen_at_ms,
                count: entry.count,
            })
        });
        found.take(limit).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner) // whole after each change
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_counts_and_the_oldest_is_forgotten() {
        let seen = Seen::new(Vec::new(), 2);
        let path = |name: &str| PathBuf::from(name);
        assert!(seen.put("a", &path("/1"), "x", "read"));
        assert!(!seen.put("a", &path("/1"), "x", "read"), "that was known");
        assert!(seen.put("a", &path("/1"), "y", "read"));
        assert_eq!(seen.get("a", &path("/1")).as_deref(), Some("y"));
        seen.put("b", &path("/1"), "z", "write");
        seen.put("b", &path("/2"), "z", "write");
        assert_eq!(seen.get("a", &path("/1")), None, "two are kept");
        let of_file: Vec<_> = seen.list(None, Some(&path("/1")), 10).into_iter().map(|file| file.session_id).collect();
        assert_eq!((of_file, seen.list(Some("b"), None, 1).len()), (vec!["b".to_owned()], 1));
    }
}
