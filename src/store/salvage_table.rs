//! One table of a damaged file, row by row: a page that can't be read takes its rows with it, and no others.
//!
//! Tables with row numbers are read from the newest row down; at a damaged page the row numbers below are tried at growing
//! distances until one is found, and what lies between is read from below. Other tables are read from both ends, and
//! between by the keys that their indexes have.

use std::time::Instant;

use rusqlite::types::{ToSqlOutput, Value};
use rusqlite::{Connection, ErrorCode, Row, Statement, params_from_iter};

/// What was copied of a table.
pub(super) struct Copied {
    pub(super) rows: u64,
    pub(super) whole: bool,
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
pub(super) struct Table<'a> {
    source: &'a Connection,
    name: &'a str,
    /// The columns that both files have.
    columns: Vec<String>,
    /// What orders its rows.
    key: String,
    has_row_numbers: bool,
    /// Those that have all rows.
    indexes: Vec<String>,
    insert: Statement<'a>,
    deadline: Instant,
    copied: Copied,
}

impl<'a> Table<'a> {
    pub(super) fn new(source: &'a Connection, new: &'a Connection, name: &'a str, deadline: Instant) -> rusqlite::Result<Self> {
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
        let indexes = {
            let mut select = new.prepare("SELECT name FROM pragma_index_list(?1) WHERE origin = 'c' AND partial = 0")?;
            select.query_map([name], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?
        };
        Ok(Self { source, name, columns, key, has_row_numbers: !without, indexes, insert, deadline, copied })
    }

    /// Errors are the new file's.
    pub(super) fn copy(mut self) -> rusqlite::Result<Copied> {
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
                if matches!(self.run(Order::Up, i64::MIN, i64::MAX)?, End::Broken(_)) {
                    self.by_indexes()?;
                }
            }
        }
        Ok(self.copied)
    }

    /// Looks up the rows of each index, which has the keys of all of them. Those that are there already stay.
    fn by_indexes(&mut self) -> rusqlite::Result<()> {
        let source = self.source;
        let places = (1..=self.key.split(", ").count()).map(|at| format!("?{at}")).collect::<Vec<_>>().join(", ");
        let row = format!("SELECT 0, {} FROM {} WHERE ({}) = ({places})", self.columns.join(", "), self.name, self.key);
        let Ok(mut row) = source.prepare(&row) else { return Ok(()) };
        for index in std::mem::take(&mut self.indexes) {
            let keys = format!("SELECT {} FROM {} INDEXED BY {index}", self.key, self.name);
            let Ok(mut keys) = source.prepare(&keys) else { continue };
            let columns = keys.column_count();
            let Ok(mut keys) = keys.query([]) else { continue };
            while let (Ok(Some(key)), true) = (keys.next(), Instant::now() < self.deadline) {
                let Ok(key) = (0..columns).map(|at| key.get::<_, Value>(at)).collect::<rusqlite::Result<Vec<_>>>() else {
                    continue;
                };
                let Ok(mut found) = row.query(params_from_iter(key)) else { continue };
                if let Ok(Some(found)) = found.next() {
                    self.keep(found)?;
                }
            }
        }
        Ok(())
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

    /// Puts a row into the new file, unless it is there. One that no server wrote, of another type or without what must
    /// be there, is left out.
    fn keep(&mut self, row: &Row<'_>) -> rusqlite::Result<()> {
        let values = (1..=self.columns.len()).map(|at| row.get_ref(at).map(ToSqlOutput::Borrowed));
        let values = values.collect::<rusqlite::Result<Vec<_>>>()?;
        match self.insert.execute(params_from_iter(values)) {
            Ok(rows) => self.copied.rows += rows as u64,
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => self.copied.whole = false,
            Err(error) => return Err(error),
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
                    self.keep(row)?;
                }
            }
        }
    }
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
