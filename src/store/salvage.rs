//! Reading what can be read of a damaged file into a new one, table by table and row by row.
//!
//! A page that can't be read takes its rows with it. Tables with a row number are read from the newest row down; at a
//! damaged page the row numbers below are tried at growing distances until one is found, and what lies between is read
//! from below. Other tables are read from both ends.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Instant;

use rusqlite::types::ToSqlOutput;
use rusqlite::{Connection, OpenFlags, Row, Statement, params_from_iter};

use super::aside::with;
use super::check::{is_mark, tables};
use super::open::PATIENCE;

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

/// What was copied of a table.
struct Copied {
    rows: u64,
    whole: bool,
}

/// How a read ended.
enum End {
    All,
    /// At a row number, when the table has such and one was read.
    Broken(Option<i64>),
    Late,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Up,
    Down,
}

impl Order {
    fn word(self) -> &'static str {
        match self {
            Self::Up => "ASC",
            Self::Down => "DESC",
        }
    }
}

/// One table on its way.
struct Table<'a> {
    source: &'a Connection,
    name: &'a str,
    /// The columns that both files have.
    columns: Vec<String>,
    /// What orders its rows.
    key: String,
    has_row_numbers: bool,
    insert: Statement<'a>,
    deadline: Instant,
    copied: Copied,
}

impl<'a> Table<'a> {
    fn new(source: &'a Connection, new: &'a Connection, name: &'a str, deadline: Instant) -> rusqlite::Result<Self> {
        let known = columns(source, name).unwrap_or_default(); // none: it isn't there, or can't be read
        let all = columns(new, name)?;
        let keys = all.iter().filter(|column| column.key > 0).map(|column| column.name.as_str()).collect::<Vec<_>>().join(", ");
        let without: bool =
            new.query_row("SELECT wr FROM pragma_table_list WHERE schema = 'main' AND name = ?1", [name], |row| row.get(0))?;
        let columns: Vec<_> =
            all.into_iter().map(|column| column.name).filter(|name| known.iter().any(|known| known.name == *name)).collect();
        let places = (1..=columns.len()).map(|at| format!("?{at}")).collect::<Vec<_>>().join(", ");
        let insert = if columns.is_empty() {
            new.prepare("SELECT 1 WHERE 0")?
        } else {
            new.prepare(&format!("INSERT OR IGNORE INTO {name} ({}) VALUES ({places})", columns.join(", ")))?
        };
        let key = if without { keys } else { "rowid".to_owned() };
        let copied = Copied { rows: 0, whole: true };
        Ok(Self { source, name, columns, key, has_row_numbers: !without, insert, deadline, copied })
    }

    /// Errors are the new file's.
    fn copy(mut self) -> rusqlite::Result<Copied> {
        if self.columns.is_empty() {
            // A table that the old file never had is whole: no schema names it.
            let named =
                self.source.query_row("SELECT count(*) FROM sqlite_schema WHERE name = ?1", [self.name], |row| row.get(0));
            return Ok(Copied { rows: 0, whole: named == Ok(0_i64) });
        }
        match self.run(Order::Down, i64::MIN, i64::MAX)? {
            End::All => {}
            End::Late => self.copied.whole = false,
            End::Broken(None) if self.has_row_numbers => self.around(Order::Up, i64::MIN)?,
            End::Broken(Some(at)) if self.has_row_numbers => self.around(Order::Down, at)?,
            End::Broken(_) => {
                self.copied.whole = false;
                self.run(Order::Up, i64::MIN, i64::MAX)?;
            }
        }
        Ok(self.copied)
    }

    /// Reads on behind damage at `at`, the last row number that was read in this order, and as often as more comes.
    fn around(&mut self, order: Order, at: i64) -> rusqlite::Result<()> {
        self.copied.whole = false;
        let mut at = at;
        if at == i64::MIN {
            // Nothing was read from above: from below.
            match self.run(Order::Up, i64::MIN, i64::MAX)? {
                End::Broken(Some(last)) => at = last,
                End::Broken(None) => at = 0, // the first page, too: its rows have numbers from 1
                End::All | End::Late => return Ok(()),
            }
        }
        while let Some(found) = self.beyond(order, at) {
            let rest = match order {
                Order::Up => self.run(Order::Down, at.saturating_add(1), found.saturating_sub(1))?,
                Order::Down => self.run(Order::Up, found.saturating_add(1), at.saturating_sub(1))?,
            };
            let next = match order {
                Order::Up => self.run(order, found, i64::MAX)?,
                Order::Down => self.run(order, i64::MIN, found)?,
            };
            match (rest, next) {
                (End::Late, _) | (_, End::All | End::Late) => return Ok(()),
                (_, End::Broken(last)) => at = last.unwrap_or(found),
            }
        }
        Ok(())
    }

    /// The first row number that can be read beyond `at`, at growing distances.
    fn beyond(&self, order: Order, at: i64) -> Option<i64> {
        let (compares, step) = if order == Order::Up { (">=", 1_i64) } else { ("<=", -1) };
        let sql = format!(
            "SELECT rowid FROM {} NOT INDEXED WHERE rowid {compares} ?1 ORDER BY rowid {} LIMIT 1",
            self.name,
            order.word()
        );
        let mut select = self.source.prepare(&sql).ok()?;
        for doubled in 0..63 {
            let tried = at.checked_add(step.checked_shl(doubled)?)?;
            match select.query_row([tried], |row| row.get(0)) {
                Ok(found) if (order == Order::Up && found >= tried) || (order == Order::Down && found <= tried) => {
                    return Some(found);
                }
                Err(rusqlite::Error::QueryReturnedNoRows) => return None,
                _ => {}
            }
        }
        None
    }

    /// Copies rows in this order, as far as they can be read; those without numbers all.
    fn run(&mut self, order: Order, from: i64, to: i64) -> rusqlite::Result<End> {
        let (number, among) =
            if self.has_row_numbers { ("rowid", "WHERE rowid BETWEEN ?1 AND ?2") } else { ("0", "WHERE ?1 <= ?2") };
        let keys = self.key.split(", ").map(|key| format!("{key} {}", order.word())).collect::<Vec<_>>().join(", ");
        let sql = format!("SELECT {number}, {} FROM {} NOT INDEXED {among} ORDER BY {keys}", self.columns.join(", "), self.name);
        let Ok(mut select) = self.source.prepare(&sql) else { return Ok(End::Broken(None)) };
        let Ok(mut rows) = select.query([from, to]) else { return Ok(End::Broken(None)) };
        let mut last = None;
        loop {
            if Instant::now() > self.deadline {
                return Ok(End::Late);
            }
            match rows.next() {
                Ok(None) => return Ok(End::All),
                Err(_) => return Ok(End::Broken(last)),
                Ok(Some(row)) => {
                    let number: i64 = row.get(0)?;
                    // A damaged page may name any, and would lead back to where we were.
                    let follows = last.is_none_or(|last| if order == Order::Up { number > last } else { number < last });
                    if self.has_row_numbers && !(follows && (from..=to).contains(&number)) {
                        return Ok(End::Broken(last));
                    }
                    last = Some(number);
                    match put(&mut self.insert, row, self.columns.len()) {
                        Ok(rows) => self.copied.rows += rows,
                        // Rows that no server wrote: of another type, or without what must be there.
                        Err(error) if is_refused(&error) => self.copied.whole = false,
                        Err(error) => return Err(error),
                    }
                }
            }
        }
    }
}

/// Marks belong to the old file.
fn put(insert: &mut Statement<'_>, row: &Row<'_>, columns: usize) -> rusqlite::Result<u64> {
    let values = (1..=columns).map(|at| row.get_ref(at).map(ToSqlOutput::Borrowed)).collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(insert.execute(params_from_iter(values))? as u64)
}

fn is_refused(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation)
}

struct Column {
    name: String,
    /// Its place in the primary key, from 1; 0 when it isn't in it.
    key: i64,
}

fn columns(connection: &Connection, table: &str) -> rusqlite::Result<Vec<Column>> {
    let mut select = connection.prepare("SELECT name, pk FROM pragma_table_info(?1)")?;
    select.query_map([table], |row| Ok(Column { name: row.get(0)?, key: row.get(1)? }))?.collect()
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
