//! Reading what can be read of a damaged file into a new one, table by table and row by row.
//!
//! Opens the damaged file, as far as that can be done, and makes a file of rows that fit together; see [`Table`] for the
//! rows themselves.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Instant;

use rusqlite::{Connection, OpenFlags};

use super::aside::with;
use super::check::{is_mark, tables};
use super::open::PATIENCE;
use super::salvage_table::{Copied, Table};

/// How far positions of events are moved on when some may be lost: what a client saw under a position must never come
/// again as something else.
const SKIPPED: i64 = 1_000_000;
/// The length of a database's header (SQLite's file format, 1.3).
const HEADER: usize = 100;

/// What could be kept.
#[derive(Debug, Default)]
pub(super) struct Salvaged {
    /// Rows by table.
    pub(super) rows: BTreeMap<String, u64>,
    /// Tables of which some rows, or all, could not be read.
    pub(super) incomplete: Vec<String>,
}

/// Copies what can be read of `old` into `new`, which has all tables and no rows, until `deadline`.
///
/// # Errors
/// Only those of the new file: nothing of the old one is an error.
pub(super) fn copy(old: &Path, new: &mut Connection, deadline: Instant) -> rusqlite::Result<Salvaged> {
    let names = tables(new)?;
    let mended = with(old, ".mended");
    let source = read(old).or_else(|_| mend(old, &mended, new).and_then(|()| read(&mended).ok()).ok_or(()));
    let tx = new.transaction()?;
    let mut salvaged = Salvaged::default();
    for table in names {
        let copied = match &source {
            Ok(source) => Table::new(source, &tx, &table, deadline)?.copy()?,
            Err(()) => Copied { rows: 0, whole: false },
        };
        if !copied.whole {
            salvaged.incomplete.push(table.clone());
        }
        salvaged.rows.insert(table, copied.rows);
    }
    drop(source);
    for end in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(with(&mended, end)); // mostly there is none
    }
    drop_orphans(&tx, &mut salvaged)?;
    if salvaged.incomplete.iter().any(|table| ["events", "streams", "gaps"].contains(&table.as_str())) {
        skip_positions(&tx)?;
    }
    tx.commit()?;
    Ok(salvaged)
}

/// Opens a damaged file without changing it; fails when not even its schema can be read.
fn read(path: &Path) -> rusqlite::Result<Connection> {
    if std::fs::metadata(path).is_ok_and(|file| file.len() == 0) {
        return Err(rusqlite::Error::InvalidQuery); // SQLite would take it for a new one, and remove its WAL
    }
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(PATIENCE)?;
    connection.pragma_update(None, "writable_schema", true)?; // a file that is shorter than its header says is read, too
    connection.query_row("SELECT 1 FROM sqlite_schema WHERE name = 'meta'", [], |_| Ok(()))?;
    Ok(connection)
}

/// A copy with the header of the new file, for what only lost that: where tables lie is said behind it.
fn mend(old: &Path, mended: &Path, new: &Connection) -> Option<()> {
    let mut header = [0; HEADER];
    std::fs::File::open(new.path()?).and_then(|mut file| file.read_exact(&mut header)).ok()?;
    for end in ["", "-wal"] {
        let _ = std::fs::remove_file(with(mended, end)); // of a start that was killed
        if with(old, end).exists() {
            std::fs::copy(with(old, end), with(mended, end)).ok()?;
        }
    }
    let mut file = OpenOptions::new().write(true).mode(0o600).open(mended).ok()?;
    let pages = file.metadata().ok()?.len() / u64::from(u16::from_be_bytes([header[16], header[17]]).max(512));
    header[28..32].copy_from_slice(&u32::try_from(pages).ok()?.to_be_bytes());
    header[32..40].fill(0); // no free pages are known
    header[18..20].fill(2); // it has a WAL
    file.rewind().ok()?;
    file.write_all(&header).ok()
}

/// Removes rows whose owner could not be read, and the old file's marks.
fn drop_orphans(new: &Connection, salvaged: &mut Salvaged) -> rusqlite::Result<()> {
    let keys: Vec<String> = {
        let mut select = new.prepare("SELECT key FROM meta")?;
        select.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?
    };
    for key in keys.iter().filter(|key| is_mark(key)) {
        new.execute("DELETE FROM meta WHERE key = ?1", [key])?;
    }
    let links: Vec<[String; 4]> = {
        let mut select = new.prepare(
            "SELECT t.name, f.\"from\", f.\"table\", f.\"to\" FROM pragma_table_list t, pragma_foreign_key_list(t.name) f
             WHERE t.schema = 'main'",
        )?;
        let links = select.query_map([], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?]))?;
        links.collect::<rusqlite::Result<_>>()?
    };
    for [child, column, parent, key] in links {
        let dropped = new.execute(
            &format!("DELETE FROM {child} WHERE {column} IS NOT NULL AND {column} NOT IN (SELECT {key} FROM {parent})"),
            [],
        )? as u64;
        if dropped > 0 {
            salvaged.rows.entry(child.clone()).and_modify(|rows| *rows = rows.saturating_sub(dropped));
            if !salvaged.incomplete.contains(&child) {
                salvaged.incomplete.push(child);
            }
        }
    }
    Ok(())
}

/// Moves all positions on, and says what is missing before them.
pub(super) fn skip_positions(new: &Connection) -> rusqlite::Result<()> {
    let last = super::log::last_seq(new)?;
    // Holes between events, then one behind the last of each stream.
    new.execute(
        "INSERT OR IGNORE INTO gaps (stream_id, from_seq, to_seq, reason, log_seq)
         SELECT stream_id, before + 1, stream_seq - 1, 'not_kept', seq FROM (
             SELECT stream_id, stream_seq, seq,
                    coalesce(lag(stream_seq) OVER (PARTITION BY stream_id ORDER BY stream_seq), 0) AS before FROM events)
         WHERE stream_seq > before + 1",
        [],
    )?;
    new.execute(
        "INSERT OR IGNORE INTO gaps (stream_id, from_seq, to_seq, reason, log_seq)
         SELECT id, reached + 1, reached + ?1, 'not_kept', ?2 FROM (
             SELECT id, max(coalesce((SELECT max(stream_seq) FROM events WHERE stream_id = streams.id), 0),
                            coalesce((SELECT max(to_seq) FROM gaps WHERE stream_id = streams.id), 0)) AS reached FROM streams)",
        [SKIPPED, last + 1],
    )?;
    super::log::remember(new, last + SKIPPED)
}
