//! Databases that are damaged, or were left by a kill: the server comes up, says so, and what can be read is there.

use std::collections::BTreeSet;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::support::{Home, Options, PATIENCE, Server};
use crate::{processes_support, sessions_support};

const PAGE: u64 = 4096;

/// A server's state after some work: an ACP server `a` with one answered call, a session with a turn, a process.
struct Lived {
    home: Home,
    session: String,
    process: String,
}

impl Lived {
    /// Closed in order: everything is in the one file.
    async fn new() -> Self {
        let (lived, server) = Self::running().await;
        assert_eq!(server.stop(), Some(0));
        lived
    }

    async fn running() -> (Self, Server) {
        let home = Home::new();
        sessions_support::fake(&home, "");
        let server = Server::start(&home);
        server.call("a", "amp", 0, "initialize", json!({})).await;
        server.call("a", "amp", 1, "echo", json!({"token": 1})).await;
        let session = sessions_support::create(&server, json!({"agent": "amp"})).await;
        let turn = sessions_support::say(&server, &session, "hello").await;
        sessions_support::ended(&server, &session, &turn).await;
        let process = processes_support::create(&server, processes_support::sh("echo kept", json!({}))).await;
        processes_support::ended(&server, &process).await;
        (Self { home, session, process }, server)
    }

    fn path(&self) -> PathBuf {
        self.home.data().join("sandboxd.db")
    }

    fn wal(&self) -> PathBuf {
        self.home.data().join("sandboxd.db-wal")
    }

    fn sql(&self, sql: &str) {
        Connection::open(self.path()).expect("a database").execute_batch(sql).expect(sql);
    }

    /// As a crash of the machine leaves the file: in use, under another start of the kernel.
    fn crashed(&self) {
        self.sql("INSERT INTO meta VALUES ('in_use', 'another boot')");
    }

    /// Spoils the root page of a table or an index.
    fn spoil(&self, name: &str) {
        let connection = Connection::open(self.path()).expect("a database");
        let sql = "SELECT rootpage FROM sqlite_schema WHERE name = ?1";
        let page = connection.query_row(sql, [name], |row| row.get::<_, i64>(0)).expect("a root page").unsigned_abs();
        drop(connection);
        self.put(&[0x55; PAGE as usize], (page - 1) * PAGE);
    }

    fn put(&self, bytes: &[u8], at: u64) {
        let file = std::fs::OpenOptions::new().write(true).open(self.path()).expect("open");
        file.write_all_at(bytes, at).expect("written");
    }

    /// In a stream; a check takes a while for them.
    fn many_events(&self, stream: u64) {
        self.sql(&format!(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60000)
             INSERT INTO events SELECT 1000000 + i, {stream}, 1000000 + i, 1, 'test', zeroblob(400) FROM n"
        ));
    }

    async fn has_session(&self, server: &Server) {
        assert_eq!(sessions_support::get(server, &self.session).await["id"], self.session.as_str());
    }

    async fn has_process(&self, server: &Server) {
        assert_eq!(processes_support::info(server, &self.process).await["exitCode"], 0);
        let page = processes_support::page(server, &self.process, "").await;
        assert_eq!(processes_support::output(&page), b"kept\n", "and its log");
    }
}

async fn storage(server: &Server) -> Value {
    server.get("/v1/status").await.1["storage"].clone()
}

/// Tables of which rows are missing. The file that was set aside is there, and the log says where.
async fn incomplete(lived: &Lived, server: &Server) -> BTreeSet<String> {
    let deadline = std::time::Instant::now() + crate::support::PATIENCE;
    let mut storage = self::storage(server).await;
    while storage["integrity"] == "checking" && std::time::Instant::now() < deadline {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await; // a slow machine checks it beside
        storage = self::storage(server).await;
    }
    assert_eq!((&storage["status"], &storage["integrity"]), (&json!("healthy"), &json!("sound")), "{storage}");
    let aside = storage["setAside"]["path"].as_str().unwrap_or_else(|| panic!("nothing was set aside: {storage}"));
    assert!(std::path::Path::new(aside).exists() && aside.contains("/sandboxd.db.damaged-20"), "{aside}");
    assert!(storage["setAside"]["help"].as_str().is_some_and(|help| help.contains("state restore")), "{storage}");
    let log = Server::log(&lived.home);
    assert!(log.contains(aside) && !log.contains("panicked"), "{log}");
    let names = storage["setAside"]["incomplete"].as_array().expect("a list");
    names.iter().map(|name| name.as_str().expect("a name").to_owned()).collect()
}

#[tokio::test]
async fn a_lost_header_and_a_damaged_index_cost_nothing() {
    for damage in ["header", "index"] {
        let lived = Lived::new().await;
        match damage {
            "header" => lived.put(&[7; 100], 0),
            _ => {
                lived.crashed();
                lived.spoil("events_by_stream");
            }
        }
        let server = Server::start(&lived.home);
        assert_eq!(incomplete(&lived, &server).await, BTreeSet::new(), "{damage}");
        lived.has_session(&server).await;
        lived.has_process(&server).await;
        let seen = server.events("a", None).await.until_answer(1).await;
        assert!(seen.iter().all(|event| event.name == "message"), "no gap: {seen:?}");
        server.call("a", "amp", 2, "echo", json!({})).await;
        assert_eq!(server.stop(), Some(0));
        let server = Server::start(&lived.home);
        assert!(incomplete(&lived, &server).await.is_empty(), "it is still said");
        let aside = storage(&server).await["setAside"]["path"].as_str().expect("a path").to_owned();
        std::fs::remove_file(aside).expect("removed");
        assert_eq!(storage(&server).await.get("setAside"), None, "until the file is gone");
    }
}

#[tokio::test]
async fn a_damaged_table_takes_no_other_with_it() {
    let lived = Lived::new().await;
    lived.spoil("processes"); // closed in order: it is seen all the same, for a start reads this table
    let server = Server::start(&lived.home);
    assert_eq!(incomplete(&lived, &server).await, BTreeSet::from(["processes".to_owned()]));
    lived.has_session(&server).await;
    assert_eq!(server.get(&format!("/v1/processes/{}", lived.process)).await.0, 404);
    let again = processes_support::create(&server, processes_support::sh("echo new", json!({}))).await;
    assert_ne!(again, lived.process, "no number comes again");
}

#[tokio::test]
async fn lost_events_are_told_and_their_positions_never_come_again() {
    let lived = Lived::new().await;
    lived.crashed();
    lived.spoil("events");
    let server = Server::start(&lived.home);
    assert!(incomplete(&lived, &server).await.contains("events"));
    lived.has_session(&server).await;
    lived.has_process(&server).await;
    let mut events = server.events("a", Some(2)).await;
    server.call("a", "amp", 5, "echo", json!({"token": 5})).await;
    let seen = events.until_answer(5).await;
    assert_eq!((seen[0].name.as_str(), &seen[0].data["reason"]), ("gap", &json!("not_kept")), "{seen:?}");
    assert!(seen.last().and_then(|event| event.id).is_some_and(|id| id > 1_000_000), "{seen:?}");
}

#[tokio::test]
async fn the_server_comes_up_whatever_the_file_is() {
    for damage in ["rubbish", "empty", "cut", "zeros"] {
        let lived = Lived::new().await;
        let length = std::fs::metadata(lived.path()).expect("a file").len();
        let file = std::fs::OpenOptions::new().write(true).open(lived.path()).expect("open");
        match damage {
            "rubbish" => std::fs::write(lived.path(), "this is no database, but long enough ".repeat(1000)).expect("written"),
            "empty" => file.set_len(0).expect("cut"),
            "cut" => file.set_len(length / 2 + 100).expect("cut"),
            _ => file.write_all_at(&vec![0; usize::try_from(length).expect("short")], 0).expect("written"),
        }
        let server = Server::start(&lived.home);
        let incomplete = incomplete(&lived, &server).await;
        assert!(!incomplete.is_empty(), "{damage}");
        server.call("new", "amp", 0, "initialize", json!({})).await;
        assert_eq!(server.stop(), Some(0));
        let server = Server::start(&lived.home);
        assert_eq!(server.get("/v1/acp").await.1["servers"].as_array().map(Vec::is_empty), Some(false), "{damage}");
    }
}

#[tokio::test]
async fn a_torn_end_of_the_wal_costs_nothing_and_a_garbled_one_is_told() {
    let (lived, server) = Lived::running().await;
    server.kill();
    // As a kill in the middle of a write leaves it: the beginning of a frame.
    let wal = std::fs::read(lived.wal()).expect("a WAL");
    assert!(wal.len() > 10_000, "everything is in the WAL");
    std::fs::write(lived.wal(), [wal.as_slice(), &wal[32..1000]].concat()).expect("written");
    let server = Server::start(&lived.home);
    assert_eq!(storage(&server).await.get("setAside"), None);
    server.events("a", None).await.until_answer(1).await;
    lived.has_session(&server).await;
    server.call("a", "amp", 2, "echo", json!({})).await;
    server.kill();

    let wal = std::fs::OpenOptions::new().write(true).open(lived.wal()).expect("a WAL");
    wal.write_all_at(&[0x55; 5000], 0).expect("written");
    let server = Server::start(&lived.home);
    incomplete(&lived, &server).await;
    let storage = storage(&server).await;
    assert!(storage["setAside"]["path"].as_str().is_some_and(|path| path.ends_with("-wal")), "{storage}");
    server.call("new", "amp", 0, "initialize", json!({})).await;
}

#[tokio::test]
async fn what_is_not_checked_in_time_is_checked_beside() {
    let lived = Lived::new().await;
    lived.sql("INSERT INTO streams (id, name, created_at_ms) VALUES (99, 'test', 1)");
    lived.many_events(99);
    let short = Options::default().env("SANDBOXD_STORE_CHECK_MS", "1");
    lived.crashed();
    let server = Server::start_with(&lived.home, &short);
    assert_eq!(storage(&server).await["integrity"], "checking", "the last server didn't close it");
    until_integrity(&server, "sound").await;
    assert_eq!(server.stop(), Some(0));
    let server = Server::start_with(&lived.home, &short);
    assert_eq!(storage(&server).await["integrity"], "sound", "it was closed");
    assert_eq!(server.stop(), Some(0));

    lived.crashed();
    lived.put(&[0x55; PAGE as usize], 3000 * PAGE); // in the middle of the events
    let server = Server::start_with(&lived.home, &short);
    until_integrity(&server, "damaged").await;
    let known = storage(&server).await;
    assert_eq!(known["status"], "damaged", "{known}");
    assert!(Server::log(&lived.home).contains("the database is damaged: it stays in use"));
    server.call("a", "amp", 2, "echo", json!({})).await;
    assert_eq!(server.stop(), Some(0));
    let server = Server::start_with(&lived.home, &short);
    assert_eq!(incomplete(&lived, &server).await, BTreeSet::from(["events".to_owned()]));
    let kept = storage(&server).await["setAside"]["rows"]["events"].as_u64().expect("a number");
    assert!((59_900..60_100).contains(&kept), "all but those of one page: {kept}");
    lived.has_session(&server).await;
}

#[tokio::test]
async fn damage_that_ends_a_start_is_set_aside_by_the_next_one() {
    let lived = Lived::new().await;
    let connection = Connection::open(lived.path()).expect("a database");
    let sql = "SELECT id FROM streams WHERE name = 'requests'"; // each start reads how long it is
    let stream = connection.query_row(sql, [], |row| row.get::<_, i64>(0)).expect("a stream").unsigned_abs();
    drop(connection);
    lived.many_events(stream);
    lived.put(&[0x55; PAGE as usize], 3000 * PAGE);
    assert_eq!(Server::spawn(&lived.home, &Options::default()).wait().expect("it ends").code(), Some(1));
    let log = Server::log(&lived.home);
    assert!(log.contains("the next start sets it aside") && !log.contains("panicked"), "{log}");
    let server = Server::start(&lived.home);
    assert_eq!(incomplete(&lived, &server).await, BTreeSet::from(["events".to_owned()]));
    lived.has_session(&server).await;
}

async fn until_integrity(server: &Server, word: &str) {
    sessions_support::until(word, async || (storage(server).await["integrity"] == word).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_beside_writers_has_all_that_was_answered_before() {
    let (lived, server) = Lived::running().await;
    let server = Arc::new(server);
    let over = Arc::new(AtomicBool::new(false));
    let writers = (0..3_u64).map(|writer| {
        let (server, over) = (Arc::clone(&server), Arc::clone(&over));
        tokio::spawn(async move {
            for at in (0_u64..).take_while(|_| !over.load(Ordering::Relaxed)) {
                server.call("a", "amp", writer * 1_000_000 + at, "echo", json!({"text": "x".repeat(2000)})).await;
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    let state = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sandboxd"));
        let output = command.arg("state").args(words).env_clear().env("HOME", lived.home.path()).output().expect("it runs");
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let backup = lived.home.path().join("backup.db");
    let backup_name = backup.to_str().expect("UTF-8").to_owned();
    for round in 0..5 {
        let token = format!("round-{round}");
        server.call("a", "amp", token.as_str(), "echo", json!({"token": token})).await;
        let (code, said) = tokio::task::block_in_place(|| state(&["backup", "--output", &backup_name, "--force"]));
        assert_eq!(code, Some(0), "{said}");
        let sql = format!("SELECT count(*) FROM events WHERE CAST(payload AS TEXT) LIKE '%\"token\":\"{token}\"%'");
        let found = Connection::open(&backup).expect("a database").query_row(&sql, [], |row| row.get::<_, i64>(0));
        assert!(found.is_ok_and(|found| found > 0), "what was answered before is in it");
        assert_eq!(tokio::task::block_in_place(|| state(&["check", &backup_name])).0, Some(0));
    }
    over.store(true, Ordering::Relaxed);
    for writer in writers {
        tokio::time::timeout(PATIENCE, writer).await.expect("it ends").expect("no writer fails");
    }
    let (code, said) = tokio::task::block_in_place(|| state(&["restore", &backup_name]));
    assert!(code == Some(1) && said.contains("stop it first"), "{said}");
    Arc::into_inner(server).expect("the last one").kill();
    let (code, said) = tokio::task::block_in_place(|| state(&["restore", &backup_name]));
    assert!(code == Some(0) && said.contains("sandboxd.db.before-restore-"), "{said}");
    let server = Server::start(&lived.home);
    assert_eq!(storage(&server).await["integrity"], "sound");
    lived.has_session(&server).await;
    lived.has_process(&server).await;
    server.events("a", None).await.until_answer("round-4").await;
}
