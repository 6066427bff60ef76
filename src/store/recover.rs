//! A start whatever state the file is in: what is damaged is set aside, what can be read of it is kept.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rusqlite::{Connection, OptionalExtension as _};
use serde::{Deserialize, Serialize};

use super::aside::{self, Kind, with};
use super::open::{Ready, Trouble, explain, failed, migrate, ready};
use super::salvage::{self, Salvaged};
use super::types::Error;
use crate::config::{Bounds, as_duration, as_usize};
use crate::rt::clock::now_ms;

/// The key in `meta` of what was set aside last.
const SET_ASIDE: &str = "set_aside";

/// A damaged file that was set aside, and what of it is in use now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAside {
    /// Where it lies, with `-wal` and `-shm` beside it.
    pub path: PathBuf,
    /// When, in Unix milliseconds.
    pub at_ms: i64,
    /// What was wrong with it.
    pub cause: String,
    /// Rows that could be kept, by table.
    pub rows: BTreeMap<String, u64>,
    /// Tables of which rows are missing, or all.
    pub incomplete: Vec<String>,
}

/// Opens the file, or what can be had of it.
///
/// # Errors
/// [`Error::Open`] for what another file wouldn't help: a newer version's, no rights, a full disk.
pub(super) fn open(path: &Path, bounds: &Bounds) -> Result<Ready, Error> {
    let moved = |error: std::io::Error| failed(path, &error, "Make the folder writable, or pass --data-dir DIR.");
    aside::finish(path).map_err(moved)?;
    let at_ms = now_ms();
    let wal = aside::take_garbled_wal(path, at_ms).map_err(moved)?;
    let ready = match ready(path, bounds) {
        Ok(ready) => ready,
        Err(Trouble::Fatal(error)) => return Err(error),
        Err(Trouble::Damaged(cause)) => set_aside(path, &cause, at_ms, bounds)?,
    };
    if let Some(wal) = wal {
        lose_wal(&ready.connection, &wal, at_ms).map_err(|error| explain(path, &error))?;
    }
    if let Err(error) = aside::prune(path, Kind::Damaged, as_usize(bounds.store_aside_max)) {
        tracing::warn!(%error, "files that were set aside could not be removed");
    }
    Ok(ready)
}

/// Sets a damaged file aside, and opens a new one with what could be read of it.
fn set_aside(path: &Path, cause: &str, at_ms: i64, bounds: &Bounds) -> Result<Ready, Error> {
    tracing::error!(cause, path = %path.display(), "the database is damaged: it is set aside, and what can be read is kept");
    let (new, aside) = (with(path, ".new"), aside::free_name(path, Kind::Damaged, at_ms));
    let salvaged = make_new(path, &new, bounds)?;
    let told = SetAside { path: aside, at_ms, cause: cause.to_owned(), rows: salvaged.rows, incomplete: salvaged.incomplete };
    let swap = || {
        let connection = Connection::open(&new).map_err(|error| explain(&new, &error))?;
        remember(&connection, &told).map_err(|error| explain(&new, &error))?;
        drop(connection);
        let kept = |error: std::io::Error| failed(path, &error, "Make the folder writable, or pass --data-dir DIR.");
        std::fs::File::open(&new).and_then(|file| file.sync_all()).map_err(kept)?;
        aside::swap(path, &new, &told.path).map_err(kept)
    };
    swap().inspect_err(|_| drop(std::fs::remove_file(&new)))?;
    say(&told);
    ready(path, bounds).map_err(|trouble| match trouble {
        Trouble::Fatal(error) => error,
        Trouble::Damaged(cause) => {
            failed(path, &cause, "The new file is damaged, too: the disk may be broken. Pass --data-dir DIR on another one.")
        }
    })
}

/// A new file with what can be read of the old one. A folder without room for it, or another trouble, leaves nothing.
fn make_new(old: &Path, new: &Path, bounds: &Bounds) -> Result<Salvaged, Error> {
    let deadline = Instant::now() + as_duration(bounds.store_salvage_ms);
    let refused = |error: rusqlite::Error| explain(new, &error);
    let make = || {
        let _ = std::fs::remove_file(new); // of a start that was killed
        let made = OpenOptions::new().create_new(true).append(true).mode(0o600).open(new);
        made.map_err(|error| failed(new, &error, "Make the folder writable, or pass --data-dir DIR."))?;
        let mut connection = Connection::open(new).map_err(refused)?;
        // Nobody sees it before it is whole and on the disk.
        for (pragma, value) in
            [("journal_mode", "memory"), ("synchronous", "off"), ("foreign_keys", "off"), ("cache_size", "-65536")]
        {
            connection.pragma_update(None, pragma, value).map_err(refused)?;
        }
        migrate(new, &mut connection).map_err(|trouble| match trouble {
            Trouble::Fatal(error) => error,
            Trouble::Damaged(cause) => failed(new, &cause, "The disk may be broken: pass --data-dir DIR on another one."),
        })?;
        salvage::copy(old, &mut connection, deadline).map_err(refused)
    };
    make().inspect_err(|_| drop(std::fs::remove_file(new)))
}

/// Whatever the WAL held is lost: clients may have seen it.
fn lose_wal(connection: &Connection, wal: &Path, at_ms: i64) -> rusqlite::Result<()> {
    salvage::skip_positions(connection)?;
    let told = SetAside {
        path: wal.to_path_buf(),
        at_ms,
        cause: "its write-ahead log can't be read: what was written last is lost".into(),
        rows: BTreeMap::new(),
        incomplete: Vec::new(),
    };
    say(&told);
    if read(connection)?.is_none_or(|before| before.at_ms != at_ms) {
        remember(connection, &told)?;
    }
    Ok(())
}

fn say(told: &SetAside) {
    let rows: Vec<_> = told.rows.iter().filter(|(_, rows)| **rows > 0).map(|(table, rows)| format!("{table} {rows}")).collect();
    tracing::error!(
        path = %told.path.display(), cause = told.cause, kept = rows.join(", "), incomplete = told.incomplete.join(", "),
        "a damaged file was set aside, and the server goes on with what could be read. Put a backup back (sandboxd state restore FILE), or remove the file when you don't need it"
    );
}

fn remember(connection: &Connection, told: &SetAside) -> rusqlite::Result<()> {
    let text = serde_json::to_string(told).unwrap_or_default(); // strings and numbers: it can't fail
    connection.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)", [SET_ASIDE, &text]).map(|_| ())
}

/// What was set aside last.
pub(super) fn read(connection: &Connection) -> rusqlite::Result<Option<SetAside>> {
    let text: Option<String> =
        connection.query_row("SELECT value FROM meta WHERE key = ?1", [SET_ASIDE], |row| row.get(0)).optional()?;
    Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
}
