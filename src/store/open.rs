//! Opening the file: folder, lock, pragmas, migrations, and clear words when it can't be had.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use rusqlite_migration::{M, Migrations};

use super::check::{self, Depth, Found, Left};
use super::recover;
use super::types::Error;
use crate::config::Bounds;
use crate::rt::ids::new_id;

const MIGRATIONS: &[M<'static>] = &[
    M::up(include_str!("../../schemas/sql/0001_log_and_acp.sql")),
    M::up(include_str!("../../schemas/sql/0002_processes.sql")),
    M::up(include_str!("../../schemas/sql/0003_sessions.sql")),
    M::up(include_str!("../../schemas/sql/0004_traces.sql")),
    M::up(include_str!("../../schemas/sql/0005_words_owed.sql")),
    M::up(include_str!("../../schemas/sql/0006_files.sql")),
    M::up(include_str!("../../schemas/sql/0007_worktrees.sql")),
    M::up(include_str!("../../schemas/sql/0008_read_positions.sql")),
];

/// The schema that this server makes of every file.
pub(super) const NEWEST_SCHEMA: usize = MIGRATIONS.len();

/// How long a connection waits for a lock that another process holds.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

pub(super) struct Opened {
    pub(super) ready: Ready,
    pub(super) path: PathBuf,
    pub(super) lock: Flock<File>,
}

/// A file that can be worked with.
pub(super) struct Ready {
    pub(super) connection: Connection,
    pub(super) store_id: String,
    /// Tables that weren't checked in time, and how closely they are to be looked at.
    pub(super) unchecked: Vec<String>,
    pub(super) depth: Depth,
}

/// Why a file can't be worked with.
pub(super) enum Trouble {
    /// It is damaged, as it says.
    Damaged(String),
    /// Another file would be no better.
    Fatal(Error),
}

/// `kept` is the lock file as an earlier run had it open.
pub(super) fn open(path: &Path, fallback: &Path, bounds: &Bounds, kept: Option<File>) -> Result<Opened, Error> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)
            .map_err(|error| failed(path, &error, "Make the folder writable, or pass --data-dir DIR."))?;
    }
    let kept_of = |path: &Path| kept.as_ref().filter(|kept| is_file(kept, &path.with_extension("lock")));
    let (path, lock) = match lock(path, kept_of(path))? {
        Some(lock) => (path, lock),
        None => {
            let held = "Another server holds it; stop that one, or pass another --data-dir.";
            let lock = lock(fallback, kept_of(fallback))?.ok_or_else(|| failed(fallback, &"it is locked", held))?;
            tracing::warn!(used = %fallback.display(), wanted = %path.display(), "another server holds the database: using a file of this port's own");
            (fallback, lock)
        }
    };
    let ready = recover::open(path, bounds)?;
    Ok(Opened { ready, path: path.to_path_buf(), lock })
}

/// Opens the file as it is, looks at it as closely as the last server left it, and migrates it.
pub(super) fn ready(path: &Path, bounds: &Bounds) -> Result<Ready, Trouble> {
    let trouble = |error: rusqlite::Error| trouble(path, &error);
    if std::fs::metadata(path).is_ok_and(|file| file.is_file() && file.len() == 0) {
        return Err(Trouble::Damaged("it is empty (0 bytes)".into()));
    }
    let mut connection = connect(path).map_err(trouble)?;
    let version = schema_version(&connection).map_err(trouble)?;
    if version > NEWEST_SCHEMA {
        return Err(Trouble::Fatal(newer(path, version)));
    }
    // Here a table that is missing, too, means that the file has lost something.
    let lost = |error: rusqlite::Error| match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::Unknown) => Trouble::Damaged(error.to_string()),
        _ => trouble(error),
    };
    let left = if version == 0 { Left::Closed } else { check::left(&connection).map_err(lost)? };
    let unchecked = match left {
        Left::Closed if version < NEWEST_SCHEMA => Vec::new(), // it may not have the tables yet
        ref left => match check::at_start(&connection, left, bounds).map_err(lost)? {
            Found::Unchecked(left) => left,
            Found::Damaged(cause) => return Err(Trouble::Damaged(cause)),
        },
    };
    migrate(path, &mut connection)?;
    let store_id = store_id(&connection).map_err(trouble)?;
    check::take(&connection).map_err(trouble)?;
    super::sweep::orphan_left_behind(&connection).map_err(trouble)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false).map_err(trouble)?;
    let depth = if left == Left::Crashed { Depth::Whole } else { Depth::Quick };
    let all = if left == Left::Crashed { check::tables(&connection).map_err(trouble)? } else { unchecked };
    Ok(Ready { connection, store_id, unchecked: all, depth })
}

/// The lock is a file of its own: SQLite's locks on the database must not be touched from outside.
pub(super) fn lock(path: &Path, kept: Option<&File>) -> Result<Option<Flock<File>>, Error> {
    let lock_path = path.with_extension("lock");
    let open = || OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&lock_path);
    let file = kept
        .map_or_else(open, File::try_clone)
        .map_err(|error| failed(&lock_path, &error, "Make the folder writable, or pass --data-dir DIR."))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, errno)) => Err(failed(&lock_path, &errno, "Use a file system with flock, or pass --data-dir DIR.")),
    }
}

/// Whether an open file is the one of this name.
fn is_file(open: &File, path: &Path) -> bool {
    match (open.metadata(), std::fs::metadata(path)) {
        (Ok(open), Ok(there)) => (open.dev(), open.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    if !path.exists() {
        // SQLite would make it by umask: what agents said is nobody else's business.
        let _ = OpenOptions::new().create(true).append(true).mode(0o600).open(path);
    }
    let connection = Connection::open(path)?;
    // Until it is known to be whole: closing would move the WAL into a damaged file.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "normal")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)?; // the checkpoint thread does it, so that no commit waits
    connection.pragma_update(None, "journal_size_limit", 64 * 1024 * 1024)?;
    connection.busy_timeout(PATIENCE)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// A read-only connection beside the writer.
pub(super) fn connect_reader(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(PATIENCE)?;
    connection.pragma_update(None, "cache_size", -512)?;
    Ok(connection)
}

/// The connection of the checkpoint thread.
pub(super) fn connect_checkpointer(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "synchronous", "normal")?;
    connection.pragma_update(None, "cache_size", -256)?;
    Ok(connection)
}

/// How far its migrations went; 0 for an empty one.
pub(super) fn schema_version(connection: &Connection) -> rusqlite::Result<usize> {
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    Ok(usize::try_from(version).unwrap_or(usize::MAX)) // no server of ours writes a negative one
}

fn newer(path: &Path, version: usize) -> Error {
    let cause = format!("its schema is {version}, and this server knows {NEWEST_SCHEMA}");
    failed(path, &cause, "A newer sandboxd made it: run that version, or pass another --data-dir.")
}

pub(super) fn migrate(path: &Path, connection: &mut Connection) -> Result<(), Trouble> {
    use rusqlite_migration::Error as Migration;
    Migrations::from_slice(MIGRATIONS).to_latest(connection).map_err(|error| match &error {
        Migration::RusqliteError { err, .. } => trouble(path, err),
        _ => Trouble::Fatal(failed(path, &error, "Report this with the file's size and the version that made it.")),
    })
}

fn store_id(connection: &Connection) -> rusqlite::Result<String> {
    connection.execute("INSERT OR IGNORE INTO meta (key, value) VALUES ('store_id', ?1)", [new_id("store")])?;
    connection.query_row("SELECT value FROM meta WHERE key = 'store_id'", [], |row| row.get(0))
}

pub(super) fn failed(path: &Path, cause: &dyn std::fmt::Display, help: &'static str) -> Error {
    Error::Open { path: path.to_path_buf(), cause: cause.to_string(), help }
}

pub(super) fn trouble(path: &Path, error: &rusqlite::Error) -> Trouble {
    if check::is_damage(error) { Trouble::Damaged(error.to_string()) } else { Trouble::Fatal(explain(path, error)) }
}

pub(super) fn explain(path: &Path, error: &rusqlite::Error) -> Error {
    use rusqlite::ErrorCode;
    let help = match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            "The file is damaged: move it away (the server then starts with an empty one) or put a copy back."
        }
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            "The file or its folder can't be written: change its owner or mode, or pass --data-dir DIR."
        }
        Some(ErrorCode::DiskFull) => "The disk is full: free some space, or pass --data-dir DIR on another one.",
        _ => "Pass --data-dir DIR to use another place.",
    };
    failed(path, error, help)
}
