//! Copies of the file, putting one back, and looking at one: beside a running server, except for putting back.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::Flock;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, ErrorCode};

use super::aside::{self, Kind, with};
use super::check;
use super::open::{NEWEST_SCHEMA, connect_reader, lock, schema_version};
use crate::config::{Bounds, as_usize};
use crate::rt::clock::now_ms;

/// Findings that are named; a file that is damaged at all has many.
const FINDINGS_MAX: usize = 20;

/// Why a file could not be copied, put back or looked at.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// There is none.
    #[error("there is no database at {path}")]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// It can't be read at all.
    #[error("can't read {path}: {cause}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What SQLite or the system said.
        cause: String,
    },
    /// The copy can't be written.
    #[error("can't write {path}: {cause}")]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What SQLite or the system said.
        cause: String,
    },
    /// Something is there already.
    #[error("{path} exists: name another file, or replace it with --force")]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The copy would replace the database itself.
    #[error("{path} is the database itself: name another file")]
    Itself {
        /// The file.
        path: PathBuf,
    },
    /// The check found damage.
    #[error("{path} is damaged: {first}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The first finding.
        first: String,
    },
    /// It isn't a database of ours.
    #[error("{path} is no database of sandboxd's")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// A newer version made it.
    #[error("{path} was made by a newer sandboxd (its schema is {schema}, this one knows {NEWEST_SCHEMA}): run that version")]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        schema: usize,
    },
    /// A server uses the database.
    #[error("a server uses {path}: stop it first")]
    Held {
        /// The file.
        path: PathBuf,
    },
}

/// What a file holds, and what is wrong with it.
#[derive(Debug, Clone)]
pub struct Examined {
    /// Its length, in bytes, without its WAL.
    pub size_bytes: u64,
    /// How far its migrations went.
    pub schema: usize,
    /// Rows by table; tables that can't be counted are missing.
    pub rows: BTreeMap<String, u64>,
    /// What was found, at most 20; nothing: it is sound.
    pub findings: Vec<String>,
}

/// A copy that was put back.
#[derive(Debug, Clone)]
pub struct Restored {
    /// What it holds.
    pub examined: Examined,
    /// Where the file lies that was there before, when there was one.
    pub before: Option<PathBuf>,
}

/// Looks at all of a file: its pages, its rows, its indexes, and whom rows belong to. Takes some seconds for a
/// gigabyte. Changes nothing.
///
/// # Errors
/// The file isn't there, can't be read, is of a newer version, or no database of ours. Damage is no error.
pub fn examine(path: &Path) -> Result<Examined, StateError> {
    let unreadable = |cause: &dyn std::fmt::Display| StateError::Unreadable { path: path.into(), cause: cause.to_string() };
    let size_bytes = match std::fs::metadata(path) {
        Ok(file) if file.is_file() => file.len(),
        Ok(_) => return Err(unreadable(&"it is no file")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(StateError::Missing { path: path.into() }),
        Err(error) => return Err(unreadable(&error)),
    };
    let mut examined = Examined { size_bytes, schema: 0, rows: BTreeMap::new(), findings: Vec::new() };
    if size_bytes == 0 {
        examined.findings.push("it is empty (0 bytes)".into());
        return Ok(examined);
    }
    match connect_reader(path).and_then(|connection| look(&connection, &mut examined)) {
        Err(error) if check::is_damage(&error) => examined.findings.push(error.to_string()),
        Err(error) => return Err(unreadable(&error)),
        Ok(()) if examined.schema > NEWEST_SCHEMA => {
            return Err(StateError::Newer { path: path.into(), schema: examined.schema });
        }
        Ok(()) if examined.schema == 0 || !examined.rows.contains_key("meta") => {
            return Err(StateError::Foreign { path: path.into() });
        }
        Ok(()) => {}
    }
    Ok(examined)
}

/// One moment of the file, whatever is written meanwhile.
fn look(connection: &Connection, examined: &mut Examined) -> rusqlite::Result<()> {
    let moment = connection.unchecked_transaction()?;
    examined.schema = schema_version(&moment)?;
    let tables = check::tables(&moment)?;
    moment.pragma(None, "integrity_check", i64::try_from(FINDINGS_MAX).unwrap_or(i64::MAX), |row| {
        let finding: String = row.get(0)?;
        examined.findings.extend((finding != "ok").then_some(finding));
        Ok(())
    })?;
    let links = moment.pragma_query(None, "foreign_key_check", |row| {
        let (table, owner): (String, String) = (row.get(0)?, row.get(2)?);
        if examined.findings.len() < FINDINGS_MAX {
            examined.findings.push(format!("a row of {table} belongs to none of {owner}"));
        }
        Ok(())
    });
    if let Err(error) = links {
        examined.findings.push(error.to_string());
    }
    for table in tables {
        match moment.query_row(&format!("SELECT count(*) FROM \"{table}\""), [], |row| row.get::<_, i64>(0)) {
            Ok(rows) => drop(examined.rows.insert(table, rows.unsigned_abs())),
            Err(error) if examined.findings.is_empty() => examined.findings.push(format!("{table}: {error}")),
            Err(_) => {} // it has been said
        }
    }
    Ok(())
}

/// Copies a database, with all that was committed by now, to `output`: whole and checked, or not at all. Servers go on.
///
/// # Errors
/// The database can't be read or is damaged; something is at `output`, unless it `replaces` that; the disk is full.
pub fn back_up(database: &Path, output: &Path, replaces: bool) -> Result<Examined, StateError> {
    if !database.exists() {
        return Err(StateError::Missing { path: database.into() });
    }
    let (ours, theirs) = (std::fs::canonicalize(database), std::fs::canonicalize(output));
    if theirs.is_ok_and(|theirs| ours.is_ok_and(|ours| ours == theirs)) {
        return Err(StateError::Itself { path: output.into() });
    }
    if !replaces && output.exists() {
        return Err(StateError::Exists { path: output.into() });
    }
    let whole = Temporary(with(output, &format!(".{}.tmp", std::process::id())));
    let examined = copy_whole(database, &whole.0, false)?;
    let unwritable = |error: io::Error| StateError::Unwritable { path: output.into(), cause: error.to_string() };
    std::fs::rename(&whole.0, output).and_then(|()| aside::sync_folder(output)).map_err(unwritable)?;
    Ok(examined)
}

/// Puts a copy in the place of `database`, whose file is set aside.
///
/// # Errors
/// A server holds the database; the copy can't be read, is of a newer version, or is damaged, unless `accepts_damage`.
pub fn restore(from: &Path, database: &Path, bounds: &Bounds, accepts_damage: bool) -> Result<Restored, StateError> {
    let unwritable = |error: io::Error| StateError::Unwritable { path: database.into(), cause: error.to_string() };
    if let Some(folder) = database.parent() {
        std::fs::create_dir_all(folder).map_err(unwritable)?;
    }
    let _lock = hold(database)?;
    aside::finish(database).map_err(unwritable)?;
    let whole = Temporary(with(database, ".new"));
    let examined = copy_whole(from, &whole.0, accepts_damage)?;
    let before = aside::free_name(database, Kind::BeforeRestore, now_ms());
    aside::swap(database, &whole.0, &before).map_err(unwritable)?;
    aside::prune(database, Kind::BeforeRestore, as_usize(bounds.store_aside_max)).map_err(unwritable)?;
    Ok(Restored { examined, before: Some(before).filter(|before| before.exists()) })
}

fn hold(database: &Path) -> Result<Flock<File>, StateError> {
    match lock(database, None) {
        Ok(Some(lock)) => Ok(lock),
        Ok(None) => Err(StateError::Held { path: database.into() }),
        Err(error) => Err(StateError::Unwritable { path: database.into(), cause: error.to_string() }),
    }
}

/// Removed at the end, with what SQLite put beside it, unless it was given another name.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        for end in ["", "-journal", "-wal", "-shm"] {
            let _ = std::fs::remove_file(with(&self.0, end)); // mostly it isn't there
        }
    }
}

/// A copy in one file that is on the disk, mode 0600, without the marks of whoever uses the original.
fn copy_whole(from: &Path, to: &Path, accepts_damage: bool) -> Result<Examined, StateError> {
    // Before it is copied, for what is wrong is the original's; its rows are counted in the copy.
    let before = examine(from)?;
    if let Some(first) = before.findings.first().filter(|_| !accepts_damage) {
        return Err(StateError::Damaged { path: from.into(), first: first.clone() });
    }
    let unwritable = |cause: &dyn std::fmt::Display| StateError::Unwritable { path: to.into(), cause: cause.to_string() };
    let _ = std::fs::remove_file(to); // of one that was killed
    let file = OpenOptions::new().create_new(true).append(true).mode(0o600).open(to).map_err(|error| unwritable(&error))?;
    let is_sound = before.findings.is_empty();
    if is_sound {
        copy_pages(from, to)?;
    } else {
        // SQLite may refuse to read it: byte by byte, and the next start sees what can be kept.
        std::fs::copy(from, to).map_err(|error| unwritable(&error))?;
        file.set_permissions(Permissions::from_mode(0o600)).map_err(|error| unwritable(&error))?; // not the copy's
        check::mark_damaged(to, &before.findings[0]);
    }
    file.sync_all().map_err(|error| unwritable(&error))?;
    if !is_sound {
        return Ok(before);
    }
    let copied = examine(to)?;
    match copied.findings.first() {
        None => Ok(copied),
        Some(first) => Err(StateError::Damaged { path: to.into(), first: first.clone() }),
    }
}

fn copy_pages(from: &Path, to: &Path) -> Result<(), StateError> {
    let source = connect_reader(from).map_err(|error| StateError::Unreadable { path: from.into(), cause: error.to_string() })?;
    let copy = || {
        let mut target = Connection::open(to)?;
        target.pragma_update(None, "synchronous", "off")?; // it is synced as a whole
        // All pages at once are one moment: a writer beside goes on in the WAL, and the copy never begins again.
        let backup = Backup::new(&source, &mut target)?;
        while !matches!(backup.step(-1)?, StepResult::Done) {
            std::thread::sleep(Duration::from_millis(20));
        }
        drop(backup);
        target.pragma_update_and_check(None, "journal_mode", "delete", |_| Ok(()))?; // one file, nothing beside
        check::unmark(&target)
    };
    copy().map_err(|error: rusqlite::Error| match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            StateError::Damaged { path: from.into(), first: error.to_string() }
        }
        _ => StateError::Unwritable { path: to.into(), cause: error.to_string() },
    })
}
