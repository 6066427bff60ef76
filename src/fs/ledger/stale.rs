//! Writing over what is newer than what a session saw: refused, with what is needed to do it right.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::super::edit::diff;
use super::super::history::journal_limits;
use super::super::{Author, Error, Fs, Located, Reach, blocking};
use super::{Conflict, LeaseSpec, Leases, SeenFile, conflicts};

/// Why a session's write was refused: the file has become another one since the session saw it.
#[derive(Debug, Clone)]
pub struct Stale {
    /// The file.
    pub path: PathBuf,
    /// The hash of what the session saw last.
    pub base: String,
    /// The hash of what it wants to write; `None` when the file shall go.
    pub yours: Option<String>,
    /// The hash of what is there.
    pub current: Option<String>,
    /// What it wants to write and what is there, when both are short enough to be compared.
    pub texts: Option<(Bytes, Bytes)>,
    /// What the three come to, as far as that can be said.
    pub merged: Option<Merged>,
}

/// Three contents compared.
#[derive(Debug, Clone)]
pub struct Merged {
    /// From what the session saw to what is there; `None` when the former isn't kept.
    pub theirs: Option<String>,
    /// From what the session saw to what it wants to write; from what is there, when the former isn't kept.
    pub yours: Option<String>,
    /// Both changes together, when they don't meet, or with marks of conflict where they do.
    pub merged: Option<String>,
    /// There are no such marks.
    pub is_clean: bool,
}

/// What is known of a file.
#[derive(Debug, Clone)]
pub struct FileState {
    /// Where it really is.
    pub path: PathBuf,
    /// The hash of its content; `None` when it isn't there, or is no file.
    pub current: Option<String>,
    /// What sessions saw of it.
    pub seen: Vec<SeenFile>,
}

impl Fs {
    /// The hash that must be there for this author to write over it, when that is known.
    pub(in crate::fs) fn must_be(&self, author: &Author, path: &Path) -> Option<String> {
        let session = author.session_id.as_deref().filter(|_| !author.forces)?;
        self.inner.journal.get()?.seen.get(session, path)
    }

    /// A session has seen that a file has this content: it may write over it.
    pub fn record_seen(&self, session: &str, path: &Path, sha256: &str) {
        if let Some(journal) = self.inner.journal.get() {
            journal.saw(session, path, sha256, "read");
        }
    }

    /// The same for a file that was opened by a path.
    pub(in crate::fs) fn saw(&self, reach: &Reach, at: &Located, sha256: &str) {
        if let (Some(session), true) = (&reach.author().session_id, self.inner.journal.get().is_some())
            && let Ok(place) = reach.target(at, false)
        {
            self.record_seen(session, &place.real_path(), sha256);
        }
    }

    /// Says what the three contents come to, where a write was refused.
    pub(in crate::fs) async fn explained<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        let Err(Error::Stale(mut stale)) = result else { return result };
        if let (Some((yours, current)), Ok(journal)) = (stale.texts.take(), self.journal()) {
            journal.settle().await; // what another session replaced a moment ago is what this one saw
            let base = journal.store.fs_blob(&stale.base).await.unwrap_or_default();
            let (path, limits) = (stale.path.to_string_lossy().into_owned(), journal_limits(&self.inner.bounds));
            let merged = blocking(move || Ok(merge(&path, base.as_deref(), &yours, &current, limits))).await;
            stale.merged = merged.ok();
        }
        Err(Error::Stale(stale))
    }

    /// What sessions know of a file, and what it has.
    ///
    /// # Errors
    /// [`Error::Outside`], [`Error::Denied`].
    pub async fn file_state(&self, reach: &Reach, at: Located, session: Option<&str>, limit: usize) -> Result<FileState, Error> {
        let path = self.real_path(reach, &at).await;
        let opened = match self.open(reach, at).await {
            Ok(opened) => Some(self.hashed(opened).await?),
            Err(Error::NotFound(_) | Error::NotAFile(_)) => None,
            Err(error) => return Err(error),
        };
        let current = opened.and_then(|opened| match opened.validator {
            super::super::Validator::Content(hash) => Some(hash.as_str().to_owned()),
            super::super::Validator::Times(_) => None,
        });
        let seen = self.journal()?.seen.list(session, Some(&path), limit);
        Ok(FileState { path, current, seen })
    }

    /// What a session knows of files, the latest first, `limit` at most.
    ///
    /// # Errors
    /// [`Error::Invalid`] without a journal.
    pub fn seen_files(&self, session: &str, limit: usize) -> Result<Vec<SeenFile>, Error> {
        Ok(self.journal()?.seen.list(Some(session), None, limit))
    }

    /// Where sessions are in each other's way: at a file, or one session with others. Cancel safe.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn conflicts(&self, path: Option<&Path>, session: Option<&str>) -> Result<Vec<Conflict>, Error> {
        let journal = self.journal()?;
        journal.settle().await;
        Ok(conflicts::all(&journal.store, &self.inner.bounds, path, session).await?)
    }

    /// Of a change that is about to be made.
    pub(in crate::fs) async fn conflicts_before(
        &self,
        path: &Path,
        session: &str,
        hunks: Option<Vec<super::super::edit::Hunk>>,
    ) -> Result<Vec<Conflict>, Error> {
        let journal = self.journal()?;
        journal.settle().await;
        Ok(conflicts::conflicts_with(&journal.store, &self.inner.bounds, path, session, hunks).await?)
    }

    /// Gives a session a lease; see [`Leases::take`].
    ///
    /// # Errors
    /// [`Error::Leased`], [`Error::TooMuch`], [`Error::Outside`].
    pub async fn lease(&self, reach: &Reach, at: &Located, spec: LeaseSpec) -> Result<super::Lease, Error> {
        let path = self.real_path(reach, at).await;
        if !reach.covers(&path) {
            return Err(Error::Outside(path));
        }
        self.inner.leases.take(LeaseSpec { path, ..spec })
    }

    /// All leases.
    pub fn leases(&self) -> &Leases {
        &self.inner.leases
    }

    /// Where a path of a client really leads.
    pub async fn resolve(&self, reach: &Reach, at: &Located) -> PathBuf {
        self.real_path(reach, at).await
    }
}

/// Lines times changed lines of what is merged: that takes so many steps, and nothing ends it early.
const MERGED_MAX: usize = 50_000_000;

fn merge(path: &str, base: Option<&[u8]>, yours: &[u8], current: &[u8], limits: super::super::edit::DiffLimits) -> Merged {
    let Some(base) = base else {
        let yours = diff(path, Some(current), Some(yours), limits).text;
        return Merged { theirs: None, yours, merged: None, is_clean: false };
    };
    let [theirs, diff_of_yours] = [current, yours].map(|now| diff(path, Some(base), Some(now), limits));
    let lines: usize = [base, yours, current].map(|text| memchr::memchr_iter(b'\n', text).count() + 1).iter().sum();
    let changed: usize = [&theirs, &diff_of_yours].map(|diff| diff.added + diff.removed).iter().sum();
    let (theirs, diff_of_yours) = (theirs.text, diff_of_yours.text);
    let is_text = theirs.is_some() && diff_of_yours.is_some();
    let merged = (is_text && lines.saturating_mul(changed) <= MERGED_MAX).then(|| diffy::merge_bytes(base, yours, current));
    let is_clean = matches!(merged, Some(Ok(_)));
    let merged = merged.map(|merged| merged.unwrap_or_else(|with_marks| with_marks));
    // Half of it would be taken for the whole.
    let merged = merged.filter(|merged| merged.len() <= limits.shown_max_bytes).and_then(|merged| String::from_utf8(merged).ok());
    Merged { theirs, yours: diff_of_yours, merged, is_clean }
}

#[cfg(test)]
mod tests {
    use super::super::super::edit::DiffLimits;
    use super::*;

    const LIMITS: DiffLimits = DiffLimits { compared_max_bytes: 1000, shown_max_bytes: 1000 };

    #[test]
    fn two_changes_of_one_content() {
        let base = "1\n2\n3\n4\n5\n6\n7\n8\n9\n";
        let (yours, current) = (base.replace('2', "two"), base.replace('8', "eight"));
        let merged = merge("f", Some(base.as_bytes()), yours.as_bytes(), current.as_bytes(), LIMITS);
        assert!(merged.is_clean);
        assert_eq!(merged.merged.as_deref(), Some(yours.replace('8', "eight").as_str()));
        let other = base.replace('2', "zwei");
        let merged = merge("f", Some(base.as_bytes()), yours.as_bytes(), other.as_bytes(), LIMITS);
        assert!(!merged.is_clean && merged.merged.is_some_and(|merged| merged.contains("<<<<<<<") && merged.contains("zwei")));
        let long = |line: &str| [line, "\n"].concat().repeat(20_000);
        let limits = DiffLimits { compared_max_bytes: 1 << 20, shown_max_bytes: 1 << 20 };
        let merged = merge("f", Some(long("a").as_bytes()), long("b").as_bytes(), long("c").as_bytes(), limits);
        assert!(merged.merged.is_none() && !merged.is_clean, "what shares nothing isn't merged");
        let merged = merge("f", None, yours.as_bytes(), other.as_bytes(), LIMITS);
        assert!(merged.theirs.is_none() && merged.yours.is_some_and(|diff| diff.contains("-zwei\n+two\n")));
    }
}
