//! Leases: a session says that it works on a file, or in a directory, for some time. Nobody is kept from writing; who does
//! all the same causes a notice. They live in memory: a restart ends them.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::super::Error;
use crate::rt::clock::now_ms;
use crate::rt::ids::new_id;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct LeaseSpec {
    /// The file or directory.
    pub path: PathBuf,
    /// The owner.
    pub session_id: String,
    /// How long.
    pub duration_ms: i64,
    /// What for.
    pub note: Option<String>,
}

/// A lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Its id.
    pub id: String,
    /// The file or directory.
    pub path: PathBuf,
    /// The owner.
    pub session_id: String,
    /// When it ends by itself: Unix milliseconds.
    pub ends_at_ms: i64,
    /// What for.
    pub note: Option<String>,
}

/// All leases.
pub struct Leases {
    leases: Mutex<Vec<Lease>>,
    max: usize,
}

impl Leases {
    /// At most so many at once.
    pub fn new(max: usize) -> Self {
        Self { leases: Mutex::default(), max }
    }

    /// Gives a lease, or a longer time for the one that the session has of that path.
    ///
    /// # Errors
    /// [`Error::Leased`] when another session has it, or something above or below it; [`Error::TooMuch`].
    pub fn take(&self, spec: LeaseSpec) -> Result<Lease, Error> {
        let now = now_ms();
        let mut leases = self.lock();
        leases.retain(|lease| lease.ends_at_ms > now);
        if let Some(held) = leases.iter().find(|lease| lease.session_id != spec.session_id && meets(&lease.path, &spec.path)) {
            return Err(Error::Leased(Box::new(held.clone())));
        }
        let ends_at_ms = now.saturating_add(spec.duration_ms);
        if let Some(own) = leases.iter_mut().find(|lease| lease.session_id == spec.session_id && lease.path == spec.path) {
            (own.ends_at_ms, own.note) = (ends_at_ms, spec.note);
            return Ok(own.clone());
        }
        if leases.len() >= self.max {
            return Err(Error::TooMuch { what: "leases at once".to_owned(), max: self.max as u64, bound: "fs_leases_max" });
        }
        let lease = Lease { id: new_id("lease"), path: spec.path, session_id: spec.session_id, ends_at_ms, note: spec.note };
        leases.push(lease.clone());
        Ok(lease)
    }

    /// Ends one; false when there is none.
    pub fn end(&self, id: &str) -> bool {
        let mut leases = self.lock();
        let before = leases.len();
        leases.retain(|lease| lease.id != id);
        leases.len() < before
    }

    /// Ends those of a session that is over.
    pub fn end_of(&self, session: &str) {
        self.lock().retain(|lease| lease.session_id != session);
    }

    /// Those that are about a path, or all; of a session, or of all.
    pub fn list(&self, path: Option<&Path>, session: Option<&str>) -> Vec<Lease> {
        let now = now_ms();
        let is_wanted = |lease: &&Lease| {
            lease.ends_at_ms > now
                && path.is_none_or(|path| meets(&lease.path, path))
                && session.is_none_or(|session| lease.session_id == session)
        };
        self.lock().iter().filter(is_wanted).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Lease>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner) // whole after each change
    }
}

/// True when one is the other, or holds it.
fn meets(one: &Path, other: &Path) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(path: &str, session: &str, duration_ms: i64) -> LeaseSpec {
        LeaseSpec { path: path.into(), session_id: session.into(), duration_ms, note: None }
    }

    #[test]
    fn one_session_at_a_time() {
        let leases = Leases::new(2);
        let first = leases.take(spec("/d", "a", 60_000)).expect("nobody has it");
        assert!(matches!(leases.take(spec("/d/f", "b", 60_000)), Err(Error::Leased(held)) if *held == first));
        assert_eq!(leases.take(spec("/d", "a", 120_000)).expect("its own").id, first.id);
        leases.take(spec("/e", "b", 60_000)).expect("nobody has it");
        assert!(matches!(leases.take(spec("/g", "b", 60_000)), Err(Error::TooMuch { .. })));
        assert_eq!(leases.list(Some(Path::new("/d/f")), None).len(), 1);
        assert!(leases.end(&first.id) && !leases.end(&first.id));
        leases.take(spec("/d/f", "b", 0)).expect("it is free");
        assert_eq!(leases.list(None, Some("b")).len(), 1, "the other one is over");
        leases.end_of("b");
        assert!(leases.list(None, None).is_empty());
    }
}
