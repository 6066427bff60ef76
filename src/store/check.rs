//! Whether the file is sound: the mark that says how the last server left it, and the check that follows from that.
//!
//! The mark is a row in `meta`. It is written by the first commit of a run and removed by the last one: SQLite orders the
//! two with everything between them, so a file without it was closed in order, and whatever was written since is gone,
//! too. It holds the kernel's boot id. A server that was killed leaves what it wrote with the kernel, which loses
//! nothing: such a start pays little. When the kernel went down itself, the disk may have lied.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OptionalExtension as _};

use super::open::{connect_checkpointer, connect_reader};
use crate::config::{Bounds, as_duration};
use crate::rt::clock::now_ms;

/// The mark of a file in use; its value is the boot id.
const IN_USE: &str = "in_use";
/// The mark of a file in which damage was found; its value is what.
const DAMAGED: &str = "damaged";

/// The tables that each start reads as a whole.
const READ_AT_START: [&str; 4] = ["acp_servers", "acp_sessions", "permission_rules", "processes"];
/// What grows is checked last.
const LARGE: [&str; 7] = ["turns", "requests", "fs_edits", "fs_seen", "spans", "fs_blobs", "events"];

/// Instructions, or pages, between two looks at the time.
const STEP: i32 = 50;
/// After a start, the time until the rest of the check goes on: those who wait for an answer come first.
const BREATH: Duration = Duration::from_secs(2);
/// The wait for the writer when damage is marked.
const MARK_PATIENCE: Duration = Duration::from_millis(500);

/// What is known of the file's soundness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Integrity {
    /// It was closed in order, or it was checked.
    Sound,
    /// The last server didn't close it; the check goes on beside.
    Checking,
    /// Damage was found while it is in use. The next start sets it aside.
    Damaged {
        /// What SQLite said of it.
        cause: String,
        /// Since when it is known, in Unix milliseconds.
        since_ms: i64,
    },
}

/// How the last server left the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// Closed.
    Closed,
    /// In use, and the kernel still runs.
    Killed,
    /// In use, and the kernel went down or is another one.
    Crashed,
    /// Known to be damaged.
    Damaged(String),
}

/// What a check came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// All is well in the tables but these, which were not reached in time.
    Unchecked(Vec<String>),
    /// Damage.
    Damaged(String),
}

/// How closely is looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// The pages and rows.
    Quick,
    /// Indexes against their tables, too.
    Whole,
}

/// What is known of the file, and the end of its check.
pub(super) struct Soundness {
    path: PathBuf,
    state: Mutex<State>,
    stop: Condvar,
}

struct State {
    integrity: Integrity,
    stops: bool,
}

impl Soundness {
    pub(super) fn new(path: &Path, is_checked: bool) -> Self {
        let integrity = if is_checked { Integrity::Sound } else { Integrity::Checking };
        Self { path: path.to_path_buf(), state: Mutex::new(State { integrity, stops: false }), stop: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner) // whole after each change
    }

    pub(super) fn get(&self) -> Integrity {
        self.state().integrity.clone()
    }

    /// Remembers damage that a read or a write came upon.
    pub(super) fn saw(&self, error: &rusqlite::Error) {
        if is_damage(error) {
            self.is_damaged(&error.to_string());
        }
    }

    /// Says it loudly, once, and marks the file for the next start.
    fn is_damaged(&self, cause: &str) {
        {
            let mut state = self.state();
            if matches!(state.integrity, Integrity::Damaged { .. }) {
                return;
            }
            state.integrity = Integrity::Damaged { cause: cause.to_owned(), since_ms: now_ms() };
        }
        tracing::error!(cause, path = %self.path.display(), "the database is damaged: it stays in use. Back up what you need; the next start sets it aside and keeps what can be read");
        mark_damaged(&self.path, cause);
    }

    /// At the end: the check stops, and the mark goes when the file is known to be sound. Before the last checkpoint.
    pub(super) fn leave(&self, connection: &Connection) {
        self.state().stops = true;
        self.stop.notify_all();
        if self.get() == Integrity::Sound {
            let _ = connection.execute("DELETE FROM meta WHERE key = ?1", [IN_USE]); // otherwise the next start checks
        }
    }

    /// Goes on with a check, as long as the store is open.
    pub(super) fn check(self: &Arc<Self>, tables: Vec<String>, depth: Depth) {
        let waited = self.stop.wait_timeout_while(self.state(), BREATH, |state| !state.stops);
        if waited.unwrap_or_else(PoisonError::into_inner).0.stops {
            return;
        }
        // Whatever else there is to do comes first. Linux changes this thread alone (sched(7)).
        let _ = rustix::process::setpriority_process(None, 19);
        let started = Instant::now();
        // A connection, and so a read, of its own for each table: a long read keeps the WAL from beginning anew.
        let mut left = tables.into_iter();
        let found = left.try_fold(Found::Unchecked(Vec::new()), |_, table| {
            let soundness = Arc::clone(self);
            let found = connect_reader(&self.path)
                .and_then(|connection| check(&connection, vec![table], depth, move || soundness.state().stops));
            match found {
                Ok(Found::Unchecked(left)) if left.is_empty() => Ok(Found::Unchecked(left)),
                other => Err(other),
            }
        });
        match found {
            Ok(_) => {
                tracing::info!(ms = started.elapsed().as_millis(), "the database was checked: it is sound");
                let mut state = self.state();
                if state.integrity == Integrity::Checking {
                    state.integrity = Integrity::Sound;
                }
            }
            Err(Ok(Found::Damaged(cause))) => self.is_damaged(&cause),
            Err(Ok(Found::Unchecked(_))) => {} // the end came first: the next start begins again
            Err(Err(error)) => tracing::warn!(%error, "the database's check can't go on; the next start tries it again"),
        }
    }
}

/// True for what SQLite says of a file that isn't one of its own, or whose pages don't fit together.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt))
}

/// How the last server left the file.
pub(super) fn left(connection: &Connection) -> rusqlite::Result<Left> {
    let mark = |key| connection.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0)).optional();
    if let Some(cause) = mark(DAMAGED)? {
        return Ok(Left::Damaged(cause));
    }
    Ok(match mark(IN_USE)? {
        None => Left::Closed,
        Some(boot) if boot == boot_id() => Left::Killed,
        Some(_) => Left::Crashed,
    })
}

/// Marks the file as in use.
pub(super) fn take(connection: &Connection) -> rusqlite::Result<()> {
    put(connection, IN_USE, &boot_id())
}

/// Has the next start set the file aside.
pub(super) fn mark_damaged(path: &Path, cause: &str) {
    let marked = connect_checkpointer(path).and_then(|connection| {
        connection.busy_timeout(MARK_PATIENCE)?;
        put(&connection, DAMAGED, cause)
    });
    if let Err(error) = marked {
        tracing::warn!(%error, "the damage could not be marked: the next start may not know of it");
    }
}

/// Removes both marks, as from a copy that nobody uses.
pub(super) fn unmark(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute("DELETE FROM meta WHERE key IN (?1, ?2)", [IN_USE, DAMAGED]).map(|_| ())
}

/// True for the keys of marks, which belong to one file.
pub(super) fn is_mark(key: &str) -> bool {
    [IN_USE, DAMAGED].contains(&key)
}

fn put(connection: &Connection, key: &str, value: &str) -> rusqlite::Result<()> {
    connection
        .execute(
            "INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            [key, value],
        )
        .map(|_| ())
}

/// Another one after each start of the kernel (random(4)). Unknown, it is always another one.
fn boot_id() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned());
    id.unwrap_or_else(|_| crate::rt::ids::new_id("boot"))
}

/// The check before a start, within its bound.
pub(super) fn at_start(connection: &Connection, left: &Left, bounds: &Bounds) -> rusqlite::Result<Found> {
    let bound_ms = match left {
        Left::Damaged(cause) => return Ok(Found::Damaged(cause.clone())),
        Left::Closed => return walk(connection),
        Left::Killed => bounds.store_check_killed_ms,
        Left::Crashed => bounds.store_check_ms,
    };
    let until = Instant::now() + as_duration(bound_ms);
    check(connection, tables(connection)?, Depth::Quick, move || Instant::now() > until)
}

/// Walks through what the start is going to read: an error there would end it. Only the pages' heads are looked at, so it
/// takes about a microsecond for each.
fn walk(connection: &Connection) -> rusqlite::Result<Found> {
    for table in READ_AT_START {
        connection.query_row(&format!("SELECT count(*) FROM {table} NOT INDEXED"), [], |_| Ok(()))?;
    }
    Ok(Found::Unchecked(Vec::new()))
}

/// The tables of a file, the large ones last.
pub(super) fn tables(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut select =
        connection.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT GLOB 'sqlite_*' ORDER BY name")?;
    let mut tables = select.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
    tables.sort_by_key(|table| LARGE.iter().position(|large| large == table).map_or(0, |at| at + 1));
    Ok(tables)
}

/// Checks tables, one after the other, until `ends` says so.
fn check(
    connection: &Connection,
    tables: Vec<String>,
    depth: Depth,
    ends: impl FnMut() -> bool + Send + 'static,
) -> rusqlite::Result<Found> {
    let pragma = match depth {
        Depth::Quick => "quick_check",
        Depth::Whole => "integrity_check",
    };
    connection.progress_handler(STEP, Some(ends))?;
    let mut left = tables.into_iter();
    let mut found = Ok(Found::Unchecked(Vec::new()));
    while let Some(table) = left.next() {
        let mut said = None;
        let checked = connection.pragma(None, pragma, &table, |row| {
            said.get_or_insert(row.get::<_, String>(0)?);
            Ok(())
        });
        match (checked, said) {
            (Ok(()), Some(said)) if said != "ok" => found = Ok(Found::Damaged(format!("{table}: {said}"))),
            (Ok(()), _) => continue,
            (Err(error), _) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {
                found = Ok(Found::Unchecked(std::iter::once(table).chain(left).collect()));
            }
            (Err(error), _) if is_damage(&error) => found = Ok(Found::Damaged(format!("{table}: {error}"))),
            (Err(error), _) => found = Err(error),
        }
        break;
    }
    connection.progress_handler(0, None::<fn() -> bool>)?;
    found
}
