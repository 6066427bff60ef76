//! Working trees of sessions: made with them, locked while they are open, and removed some time after their end, unless
//! there is work in them.
//!
//! ```text
//!  made, locked ──closed or deleted──▶ unlocked ──grace over, clean──▶ removed
//!       ▲ ◀───────reopened───────────────┘  └──work in it──▶ kept, and said why; looked at again
//! ```
//!
//! Rows in the store say whose each is. Task `git-worktrees` compares them with the sessions again and again, so that
//! nothing depends on what it was told before a crash.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::config::{Bounds, as_duration};
use crate::fs::{Fs, Located, Reach};
use crate::git::{self, Git, WorktreeSpec};
use crate::http::repository::{place, spot};
use crate::rt::clock::now_ms;
use crate::rt::spawn_owned;
use crate::sessions::{self, BadWorktree, SessionWorktree, Sessions};
use crate::store::{RowChange, SessionFilter, Store, WorktreeRow};

/// Between two rounds.
const PAUSE: Duration = Duration::from_secs(30);
/// The same, when trees go after a short time.
const PAUSE_MIN: Duration = Duration::from_millis(200);

/// Looks after them.
#[derive(Clone)]
pub(super) struct Worktrees {
    inner: Arc<Inner>,
}

struct Inner {
    fs: Fs,
    git: Git,
    store: Store,
    sessions: Sessions,
    grace: Duration,
    max: u64,
    wake: Notify,
    /// One is made at a time: nobody else takes its place meanwhile.
    making: tokio::sync::Mutex<()>,
    /// Sessions that aren't there yet, with the branch that was made for one.
    unborn: Mutex<HashMap<String, Option<String>>>,
}

/// Why one could not be made or looked after.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Fs(#[from] crate::fs::Error),
    #[error(transparent)]
    Git(#[from] git::Error),
    #[error(transparent)]
    Store(#[from] crate::store::Error),
}

impl From<Error> for BadWorktree {
    fn from(error: Error) -> Self {
        let code = match &error {
            Error::Fs(error) => error.code(),
            Error::Git(error) => error.code(),
            Error::Store(_) => "store",
        };
        Self { code, why: error.to_string() }
    }
}

/// What git says of a lock of ours.
fn reason(session_id: &str) -> String {
    format!("session {session_id}")
}

fn path_of(bytes: &[u8]) -> PathBuf {
    OsStr::from_bytes(bytes).into()
}

impl Worktrees {
    pub(super) fn new(fs: Fs, git: Git, store: Store, sessions: Sessions, bounds: &Bounds) -> Self {
        let (grace, max, wake) = (as_duration(bounds.git_worktree_grace_ms), bounds.git_worktrees_max, Notify::new());
        let inner =
            Inner { fs, git, store, sessions, grace, max, wake, making: tokio::sync::Mutex::default(), unborn: Mutex::default() };
        Self { inner: Arc::new(inner) }
    }

    /// Looks after them from now on.
    pub(super) fn start(&self) {
        let worktrees = self.clone();
        let pause = PAUSE.min(self.inner.grace / 2).max(PAUSE_MIN);
        spawn_owned("git-worktrees", async move {
            let mut tried = HashMap::new();
            loop {
                worktrees.round(&mut tried).await;
                let _ = tokio::time::timeout(pause, worktrees.inner.wake.notified()).await; // in time, too
            }
        });
    }

    /// Something of a session has changed.
    pub(super) fn look(&self) {
        self.inner.wake.notify_one();
    }

    fn unborn(&self) -> MutexGuard<'_, HashMap<String, Option<String>>> {
        self.inner.unborn.lock().unwrap_or_else(PoisonError::into_inner) // whole after each change
    }

    /// Makes one for a session that is about to be made, as far as `reach` leads; gives its path.
    pub(super) async fn make(&self, session_id: String, asked: SessionWorktree, reach: Reach) -> Result<String, BadWorktree> {
        let _one = self.inner.making.lock().await;
        self.unborn().insert(session_id.clone(), None); // before there is a row
        let made = self.add(&session_id, asked, &reach).await;
        if made.is_err() {
            self.unborn().remove(&session_id);
        }
        Ok(made?)
    }

    async fn add(&self, session_id: &str, asked: SessionWorktree, reach: &Reach) -> Result<String, Error> {
        let repository = reach.locate(OsStr::new(&asked.repository))?;
        let target = match &asked.target {
            Some(target) => reach.locate(OsStr::new(target))?,
            None => beside(&repository, session_id)?,
        };
        let (place, spot) = (place(reach, repository.clone()).await?, spot(reach, &target).await?);
        let path = self.inner.fs.resolve(reach, &target).await;
        let text = path.to_str().ok_or_else(|| crate::fs::Error::Invalid(format!("{} isn't UTF-8", path.display())))?.to_owned();
        let row = WorktreeRow {
            path: path.into_os_string().into_vec(),
            repository: self.inner.fs.resolve(reach, &repository).await.into_os_string().into_vec(),
            session_id: session_id.to_owned(),
            created_at_ms: now_ms(),
            ended_at_ms: None,
            kept: None,
        };
        let (known, max) = (self.inner.store.worktrees().await?, self.inner.max);
        if known.iter().any(|known| known.path == row.path) {
            return Err(git::Error::Exists(path_of(&row.path)).into());
        }
        if known.len() as u64 >= max {
            return Err(crate::fs::Error::TooMany { what: "worktrees of sessions", max, bound: "git_worktrees_max" }.into());
        }
        self.inner.store.change(RowChange::PutWorktree(row.clone())).await?; // first: what has a row is looked after
        let branch = asked.branch.clone();
        let spec = WorktreeSpec { spot, branch: asked.branch, base: asked.base, lock: Some(reason(session_id)) };
        match self.inner.git.add_worktree(place, spec).await {
            Ok(added) => {
                let made_branch = branch.filter(|_| added.made_branch);
                self.unborn().insert(session_id.to_owned(), made_branch);
                Ok(text)
            }
            Err(error) => {
                self.forget(&row).await;
                Err(error.into())
            }
        }
    }

    /// The session is there; or it isn't, and its tree goes as if it had never been.
    pub(super) async fn settled(&self, session_id: &str, is_made: bool) {
        if !is_made {
            self.undo(session_id).await;
        }
        self.unborn().remove(session_id); // last: nobody else looks after it until then
    }

    async fn undo(&self, session_id: &str) {
        let branch = self.unborn().get(session_id).cloned().flatten();
        let rows = self.inner.store.worktrees().await.unwrap_or_default();
        for row in rows.into_iter().filter(|row| row.session_id == session_id) {
            let undone = async {
                self.lock(&row, false).await?;
                self.remove(&row).await?;
                if let Some(branch) = &branch {
                    let place = place(self.inner.fs.reach(), Located::from(path_of(&row.repository))).await?;
                    self.inner.git.remove_branch(&place, branch).await?;
                }
                Ok::<_, Error>(())
            };
            if let Err(error) = undone.await {
                tracing::warn!(%error, path = %path_of(&row.path).display(), "a worktree without a session: it goes later");
                continue;
            }
            self.forget(&row).await;
        }
    }

    async fn round(&self, tried: &mut HashMap<Vec<u8>, i64>) {
        let rows = match self.inner.store.worktrees().await {
            Ok(rows) => rows,
            Err(error) => return tracing::warn!(%error, "worktrees of sessions can't be looked after"),
        };
        let known: HashSet<_> = rows.iter().map(|row| row.path.clone()).collect();
        tried.retain(|path, _| known.contains(path));
        for row in rows {
            if self.unborn().contains_key(&row.session_id) {
                continue;
            }
            let path = path_of(&row.path);
            if let Err(error) = self.look_after(row, tried).await {
                tracing::debug!(%error, path = %path.display(), "a worktree could not be looked after");
            }
        }
    }

    async fn look_after(&self, row: WorktreeRow, tried: &mut HashMap<Vec<u8>, i64>) -> Result<(), Error> {
        let ended = match self.inner.sessions.get(&row.session_id).await {
            Ok(session) => session.closed_at_ms,
            Err(sessions::Error::UnknownSession { .. }) => Some(row.ended_at_ms.unwrap_or_else(now_ms)),
            Err(_) => return Ok(()), // it is asked again
        };
        let path = path_of(&row.path);
        if ended.is_some() && !tokio::task::spawn_blocking(move || path.is_dir()).await.unwrap_or(true) {
            // Somebody removed the directory; what git remembers of it goes when it can.
            if let Err(error) = async {
                self.lock(&row, false).await?;
                self.remove(&row).await
            }
            .await
            {
                tracing::debug!(%error, path = %path_of(&row.path).display(), "git still remembers a worktree that is gone");
            }
            self.forget(&row).await;
            return Ok(());
        }
        let grace_ms = i64::try_from(self.inner.grace.as_millis()).unwrap_or(i64::MAX);
        let is_past = |since: i64| now_ms().saturating_sub(since) >= grace_ms;
        match (row.ended_at_ms, ended) {
            (None, None) => Ok(()),
            (before, now) if before.is_some() != now.is_some() => {
                match self.lock(&row, now.is_none()).await {
                    Err(Error::Git(git::Error::NotAWorktree(_))) => self.forget(&row).await, // somebody removed it
                    locked => {
                        locked?;
                        self.put(WorktreeRow { ended_at_ms: now, kept: None, ..row }).await;
                        self.look();
                    }
                }
                Ok(())
            }
            (_, Some(ended)) if is_past(ended) && tried.get(&row.path).is_none_or(|at| is_past(*at)) => {
                tried.insert(row.path.clone(), now_ms());
                self.end(row).await
            }
            _ => Ok(()),
        }
    }

    /// Its time is over: it goes, or it is said why not.
    async fn end(&self, row: WorktreeRow) -> Result<(), Error> {
        let path = path_of(&row.path);
        let at_work = SessionFilter { cwd: path.to_str().map(str::to_owned), closed: Some(false), ..SessionFilter::default() };
        if self.inner.sessions.list(at_work, 1).await.is_ok_and(|sessions| !sessions.is_empty()) {
            return Ok(()); // another one works there
        }
        let kept = match self.remove(&row).await {
            Ok(()) => {
                tracing::info!(path = %path.display(), session = row.session_id, "the worktree of a session that is over is removed");
                self.forget(&row).await;
                return Ok(());
            }
            Err(Error::Git(git::Error::NotAWorktree(_))) => {
                self.forget(&row).await;
                return Ok(());
            }
            Err(Error::Git(error @ (git::Error::Busy { .. } | git::Error::TimedOut { .. } | git::Error::Stopping))) => {
                return Err(error.into());
            }
            Err(error) => error.to_string(),
        };
        if row.kept.as_ref() != Some(&kept) {
            tracing::warn!(path = %path.display(), session = row.session_id, kept, "the worktree of a session that is over is kept");
            self.put(WorktreeRow { kept: Some(kept), ..row }).await;
        }
        Ok(())
    }

    async fn lock(&self, row: &WorktreeRow, is_locked: bool) -> Result<(), Error> {
        let place = place(self.inner.fs.reach(), Located::from(path_of(&row.repository))).await?;
        let why = reason(&row.session_id);
        Ok(self.inner.git.lock_worktree(&place, &path_of(&row.path), &why, is_locked).await?)
    }

    /// Only when nothing is lost by it.
    async fn remove(&self, row: &WorktreeRow) -> Result<(), Error> {
        let reach = self.inner.fs.reach();
        let place = place(reach, Located::from(path_of(&row.repository))).await?;
        let spot = spot(reach, &Located::from(path_of(&row.path))).await?;
        Ok(self.inner.git.remove_worktree(place, spot, false).await?)
    }

    async fn put(&self, row: WorktreeRow) {
        self.change(RowChange::PutWorktree(row)).await;
    }

    async fn forget(&self, row: &WorktreeRow) {
        self.change(RowChange::DeleteWorktree { path: row.path.clone() }).await;
    }

    async fn change(&self, change: RowChange) {
        if let Err(error) = self.inner.store.change(change).await {
            tracing::warn!(%error, "what became of a worktree is not in the database: it is looked at again");
        }
    }
}

/// Where one is made when nobody said.
fn beside(repository: &Located, session_id: &str) -> Result<Located, crate::fs::Error> {
    let path: PathBuf = repository.path().components().collect();
    let no_name = || crate::fs::Error::Invalid(format!("{} has no name: say target", path.display()));
    let (parent, name) = path.parent().zip(path.file_name()).ok_or_else(no_name)?;
    let name: OsString = [name, OsStr::new("-"), OsStr::new(session_id)].into_iter().collect();
    Ok(Located::from(Path::join(parent, name)))
}
