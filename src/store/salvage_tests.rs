//! What is read of damaged files.

use std::collections::BTreeSet;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::open::migrate;
use super::salvage::{Salvaged, copy};

const PAGE: u64 = 4096;
const EVENTS: i64 = 3000;

/// A file with a stream of events and some sessions with turns, in one piece.
struct Damaged {
    folder: tempfile::TempDir,
}

impl Damaged {
    fn new() -> Self {
        let damaged = Self { folder: tempfile::tempdir().expect("a folder") };
        let mut connection = Connection::open(damaged.path()).expect("a database");
        assert!(migrate(&damaged.path(), &mut connection).is_ok());
        let tx = connection.transaction().expect("a transaction");
        tx.execute_batch("INSERT INTO streams VALUES (1, 'acp/a/out', 1, NULL), (2, 'acp/b/out', 1, NULL)").expect("written");
        for seq in 1..=EVENTS {
            let sql = "INSERT INTO events VALUES (?1, 1, ?1, 1, 'test', ?2)";
            tx.execute(sql, (seq, format!("{seq}").repeat(50).into_bytes())).expect("written");
        }
        for at in 0..300 {
            let id = format!("session-{at:04}");
            let sql = "INSERT INTO sessions VALUES (?1, 's', 's', 'amp', '/', NULL, 1, ?2, NULL, NULL, NULL, ?3)";
            tx.execute(sql, (&id, at, "x".repeat(100))).expect("written");
            tx.execute("INSERT INTO turns VALUES (?1 || '-turn', ?1, 1, 'ended', NULL, NULL, '{}')", [&id]).expect("written");
        }
        tx.execute("INSERT INTO meta VALUES ('in_use', 'x'), ('store_id', 'store_x')", []).expect("written");
        tx.commit().expect("committed");
        damaged
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("old.db")
    }

    /// Pages of a table or an index, by kind, in the order of its keys.
    fn pages(&self, name: &str, kind: &str) -> Vec<u64> {
        let root: u64 = self.ask(&format!("SELECT rootpage FROM sqlite_schema WHERE name = '{name}'"));
        let mut pages = Vec::new();
        let file = std::fs::read(self.path()).expect("read");
        walk(&file, root, kind, &mut pages);
        pages
    }

    fn ask(&self, sql: &str) -> u64 {
        Connection::open(self.path()).expect("open").query_row(sql, [], |row| row.get::<_, i64>(0)).expect(sql).unsigned_abs()
    }

    fn spoil(&self, page: u64) {
        let file = std::fs::OpenOptions::new().write(true).open(self.path()).expect("open");
        file.write_all_at(&[0x55; PAGE as usize], (page - 1) * PAGE).expect("written");
    }

    fn salvage(&self) -> (Salvaged, Connection) {
        let before = std::fs::read(self.path()).expect("read");
        let path = self.folder.path().join("new.db");
        let mut new = Connection::open(&path).expect("a database");
        new.pragma_update(None, "foreign_keys", false).expect("set");
        assert!(migrate(&path, &mut new).is_ok());
        let salvaged = copy(&self.path(), &mut new, Instant::now() + Duration::from_secs(60)).expect("copied");
        assert!(before == std::fs::read(self.path()).expect("read"), "the damaged file is as it was");
        let sound: String = new.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("checked");
        assert_eq!(sound, "ok");
        assert!(!new.prepare("PRAGMA foreign_key_check").expect("checked").exists([]).expect("checked"));
        (salvaged, new)
    }
}

/// Follows a b-tree: table or index, by the interior pages' pointers (SQLite's file format, 1.6).
fn walk(file: &[u8], page: u64, kind: &str, found: &mut Vec<u64>) {
    let at = ((page - 1) * PAGE) as usize;
    let word = |at: usize| u64::from(u32::from_be_bytes([file[at], file[at + 1], file[at + 2], file[at + 3]]));
    let short = |at: usize| usize::from(u16::from_be_bytes([file[at], file[at + 1]]));
    let is_leaf = file[at] & 8 != 0;
    if is_leaf == (kind == "leaf") {
        found.push(page);
    }
    if !is_leaf {
        for cell in 0..short(at + 3) {
            walk(file, word(at + short(at + 12 + 2 * cell)), kind, found);
        }
        walk(file, word(at + 8), kind, found);
    }
}

fn seqs(connection: &Connection) -> BTreeSet<i64> {
    let mut select = connection.prepare("SELECT seq FROM events").expect("prepared");
    select.query_map([], |row| row.get(0)).expect("read").map(|seq| seq.expect("a number")).collect()
}

fn number(connection: &Connection, sql: &str) -> i64 {
    connection.query_row(sql, [], |row| row.get(0)).expect(sql)
}

#[test]
fn a_whole_file_is_copied_whole_without_its_marks() {
    let (salvaged, new) = Damaged::new().salvage();
    assert_eq!((salvaged.incomplete.as_slice(), salvaged.rows["events"], salvaged.rows["sessions"]), (&[][..], 3000, 300));
    assert_eq!(number(&new, "SELECT count(*) FROM meta WHERE key <> 'store_id'"), 0);
    assert_eq!(number(&new, "SELECT count(*) FROM gaps"), 0, "nothing is missing");
}

#[test]
fn damaged_pages_take_their_own_rows_and_no_others() {
    let damaged = Damaged::new();
    let leaves = damaged.pages("events", "leaf");
    let spoilt = [0, 7, 8, leaves.len() / 2, leaves.len() - 1];
    spoilt.iter().for_each(|at| damaged.spoil(leaves[*at]));
    let (salvaged, new) = damaged.salvage();
    assert_eq!(salvaged.incomplete, ["events"]);
    let per_leaf = EVENTS as usize / leaves.len() + 12;
    let (kept, least) = (seqs(&new), EVENTS as usize - spoilt.len() * per_leaf);
    assert!(kept.len() >= least, "{} of at least {least}", kept.len());
    assert_eq!(salvaged.rows["events"], kept.len() as u64);
    // Every hole is told, and no position comes again.
    let missing = (1..=EVENTS).filter(|seq| !kept.contains(seq));
    for seq in missing {
        let told = format!("SELECT count(*) FROM gaps WHERE stream_id = 1 AND from_seq <= {seq} AND to_seq >= {seq}");
        assert_eq!(number(&new, &told), 1, "{seq}");
    }
    assert!(super::log::last_seq(&new).expect("read") > EVENTS);
    assert_eq!(number(&new, "SELECT count(*) FROM gaps WHERE stream_id = 2 AND from_seq = 1"), 1, "an empty stream, too");
}

#[test]
fn a_damaged_inner_page_and_a_damaged_index_lose_nothing_else() {
    let damaged = Damaged::new();
    damaged.pages("events_by_stream", "leaf").into_iter().for_each(|page| damaged.spoil(page));
    let (salvaged, new) = damaged.salvage();
    assert_eq!((salvaged.incomplete.len(), seqs(&new).len()), (0, 3000), "an index is made anew");

    let damaged = Damaged::new();
    damaged.pages("events", "inner").into_iter().for_each(|page| damaged.spoil(page));
    let (salvaged, new) = damaged.salvage();
    assert_eq!((salvaged.incomplete.as_slice(), salvaged.rows["sessions"]), (&["events".to_owned()][..], 300));
    assert_eq!(number(&new, "SELECT count(*) FROM turns"), 300);
}

#[test]
fn a_lost_owner_takes_its_rows_with_it() {
    let damaged = Damaged::new();
    let leaves = damaged.pages("sessions", "leaf");
    assert!(leaves.len() > 4, "the test needs more");
    let spoilt = [1, 4, leaves.len() - 2];
    spoilt.iter().for_each(|at| damaged.spoil(leaves[*at]));
    let (salvaged, new) = damaged.salvage();
    assert_eq!(salvaged.incomplete, ["sessions", "turns"]);
    let sessions = number(&new, "SELECT count(*) FROM sessions");
    let least = 300 - 3 * (300 / i64::try_from(leaves.len()).expect("few") + 5);
    assert!((least..300).contains(&sessions), "what lies between is found by an index: {sessions} of at least {least}");
    assert_eq!(number(&new, "SELECT count(*) FROM turns"), sessions);
}

#[test]
fn what_was_cut_off_or_lost_its_header_is_read() {
    let damaged = Damaged::new();
    let file = std::fs::OpenOptions::new().write(true).open(damaged.path()).expect("open");
    let length = file.metadata().expect("a length").len();
    file.set_len(length / PAGE * 3 / 4 * PAGE + 100).expect("cut");
    let (salvaged, new) = damaged.salvage();
    assert!(salvaged.rows["events"] > 1000 && !salvaged.incomplete.is_empty(), "{salvaged:?}");
    assert_eq!(number(&new, "SELECT count(*) FROM meta WHERE key = 'store_id'"), 1);

    let damaged = Damaged::new();
    std::fs::OpenOptions::new().write(true).open(damaged.path()).expect("open").write_all_at(&[7; 100], 0).expect("written");
    let (salvaged, _) = damaged.salvage();
    assert_eq!((salvaged.incomplete.as_slice(), salvaged.rows["events"], salvaged.rows["sessions"]), (&[][..], 3000, 300));
    assert_eq!(std::fs::read_dir(damaged.folder.path()).expect("a folder").count(), 2, "the mended copy is gone");
}

#[test]
fn rubbish_and_a_time_that_is_over_give_what_there_is() {
    let damaged = Damaged::new();
    std::fs::write(damaged.path(), "this is no database, but long enough to be looked at ".repeat(1000)).expect("written");
    let (salvaged, _) = damaged.salvage();
    assert!(salvaged.rows.values().all(|rows| *rows == 0) && salvaged.incomplete.len() == salvaged.rows.len());

    let damaged = Damaged::new();
    let mut new = Connection::open(damaged.folder.path().join("new.db")).expect("a database");
    assert!(migrate(Path::new("new"), &mut new).is_ok());
    let salvaged = copy(&damaged.path(), &mut new, Instant::now()).expect("copied");
    assert!(salvaged.incomplete.contains(&"events".to_owned()));
}
