//! Files and sessions know nothing of each other: here agents' changes of files come into the history, and conflicts into
//! the streams of the sessions that are in each other's way.
//!
//! What an agent's tool calls say is noted when they end. What else changed below its directory during a turn, by a shell
//! command or a tool that says nothing, is seen by a watch and noted when the turn ends: in its name when no other turn
//! was under way there, else in nobody's. What was there before is known by the baseline of the turn.
//!
//! | module | what |
//! |---|---|
//! | `trace` | what a watch told during a turn; pure |
//! | `note` | from there, and from what tool calls say, to edits |

mod note;
mod trace;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::config::{Bounds, as_usize};
use crate::fs::{Baseline, Conflict, Error, Fs, Located, Notices, WatchSpec};
use crate::lsp::Listener;
use crate::rt::clock::now_ms;
use crate::rt::spawn_owned;
use crate::sessions::{Sessions, Touch, Witness};
use crate::store::{Item, Stream};
use trace::Trace;

/// After a turn's end, until the watch has told what was done in it.
const SETTLE: Duration = Duration::from_millis(300);
/// What is told at once in one read of a watch.
const READ_EVENTS: usize = 64;
const READ_BYTES: usize = 256 * 1024;
/// Tool calls whose files are read at once.
const READERS_MAX: usize = 4;

/// Conflicts become events of both sessions.
pub(super) struct ConflictNotices(pub(super) Sessions);

impl Notices for ConflictNotices {
    fn conflict(&self, conflict: &Conflict) {
        for id in [&conflict.session_id, &conflict.other_session_id] {
            let (sessions, id, data) = (self.0.clone(), id.clone(), conflict.to_json());
            spawn_owned("fs-conflict", async move {
                if let Err(error) = sessions.notice(&id, "fs.conflict", &data).await {
                    tracing::debug!(%error, session = id, "a conflict could not be told");
                }
            });
        }
    }
}

/// Diagnostics become events of the sessions that work where the file lies.
pub(super) struct DiagnosticsNotices(pub(super) Sessions);

impl Listener for DiagnosticsNotices {
    fn diagnostics(&self, path: &Path, event: &Value) {
        for id in self.0.working_in(path) {
            let (sessions, data) = (self.0.clone(), event.clone());
            spawn_owned("lsp-notice", async move {
                if let Err(error) = sessions.notice(&id, "lsp.diagnostics", &data).await {
                    tracing::debug!(%error, session = id, "diagnostics could not be told");
                }
            });
        }
    }
}

/// Notes what agents do to files.
#[derive(Clone)]
pub(super) struct Bookkeeper {
    fs: Fs,
    home: Arc<Path>,
    files_max: usize,
    /// Turns under way, or just over, by their ids: the next one of a session may begin before the last is noted.
    turns: Arc<Mutex<HashMap<String, Turn>>>,
    readers: Arc<Semaphore>,
}

struct Turn {
    session_id: String,
    cwd: PathBuf,
    began_ms: i64,
    /// Another turn was under way in the same place.
    is_shared: bool,
    /// What a watch saw change.
    trace: Trace,
    /// What was there before, where there is a watch.
    baseline: Option<Baseline>,
    over: CancellationToken,
}

impl Bookkeeper {
    pub(super) fn new(fs: Fs, home: PathBuf, bounds: &Bounds) -> Self {
        let (turns, readers) = (Arc::default(), Arc::new(Semaphore::new(READERS_MAX)));
        Self { fs, home: home.into(), files_max: as_usize(bounds.fs_turn_files_max), turns, readers }
    }

    /// What holds the home, or files for a moment, holds far too much that is nobody's work.
    fn is_place_of_work(&self, cwd: &Path) -> bool {
        !self.home.starts_with(cwd) && cwd != std::env::temp_dir()
    }

    fn turns(&self) -> MutexGuard<'_, HashMap<String, Turn>> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner) // each change leaves it whole
    }

    /// Remembers a turn that begins; gives what ends with it.
    fn open(&self, session_id: &str, turn_id: &str, cwd: &Path, baseline: Option<Baseline>) -> CancellationToken {
        let over = CancellationToken::new();
        let mut turns = self.turns();
        let meets = |other: &Turn| other.cwd.starts_with(cwd) || cwd.starts_with(&other.cwd);
        let mut is_shared = false;
        for other in turns.values_mut().filter(|other| other.session_id != session_id && meets(other)) {
            (other.is_shared, is_shared) = (true, true);
        }
        let (session_id, cwd, trace) = (session_id.to_owned(), cwd.to_path_buf(), Trace::default());
        let turn = Turn { session_id, cwd, began_ms: now_ms(), is_shared, trace, baseline, over: over.clone() };
        turns.insert(turn_id.to_owned(), turn);
        over
    }

    /// Follows what changes below the directory of a turn until that is over.
    async fn look(&self, turn_id: &str, cwd: &Path) -> Result<(), Error> {
        let spec = WatchSpec { recursive: true, ignore: Vec::new(), gitignore: true, hidden: true, git: false };
        let watch = self.fs.watch(self.fs.reach(), Located::from(cwd.to_path_buf()), spec).await?;
        tracing::debug!(turn = turn_id, "the directory of a turn is watched");
        let stream: &Arc<Stream> = &watch.stream;
        let (mut at, mut newest) = (watch.ready.sequence, stream.watch());
        loop {
            let items = stream.read_after(at, READ_EVENTS, READ_BYTES).await.unwrap_or_default();
            for item in &items {
                at = item.end();
                if let Item::Event(event) = item
                    && let Some(turn) = self.turns().get_mut(turn_id)
                {
                    turn.trace.note(&event.payload, self.files_max);
                }
            }
            if items.is_empty() && newest.changed().await.is_err() {
                return Ok(());
            }
        }
    }
}

impl Witness for Bookkeeper {
    fn turn_began(&self, session_id: &str, turn_id: &str, cwd: &str) {
        let cwd = PathBuf::from(cwd);
        let is_watched = self.is_place_of_work(&cwd);
        let baseline = if is_watched { self.fs.baseline(Located::from(cwd.clone())) } else { None };
        let over = self.open(session_id, turn_id, &cwd, baseline);
        if !is_watched {
            return;
        }
        let (books, session_id, turn_id) = (self.clone(), session_id.to_owned(), turn_id.to_owned());
        spawn_owned("fs-turn", async move {
            if let Some(Err(error)) = over.run_until_cancelled(books.look(&turn_id, &cwd)).await {
                tracing::debug!(%error, session = session_id, "the directory of a turn isn't watched");
            }
        });
    }

    fn turn_ended(&self, _: &str, turn_id: &str) {
        let (books, turn_id) = (self.clone(), turn_id.to_owned());
        spawn_owned("fs-turn-end", async move {
            tokio::time::sleep(SETTLE).await;
            let ended = books.turns().remove(&turn_id);
            if let Some(turn) = ended {
                turn.over.cancel();
                books.close(&turn_id, turn).await;
            }
        });
    }

    fn touched(&self, touch: Touch) {
        if !touch.succeeded {
            return;
        }
        let books = self.clone();
        spawn_owned("fs-touch", async move {
            let _permit = books.readers.acquire().await;
            books.note(touch).await;
        });
    }
}
