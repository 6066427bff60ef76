//! The store against a file that another connection meddles with.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rusqlite::Connection;

use super::queue::{Command, Queue};
use super::{AcpServerRow, AcpSessionRow, GapReason, Health, Item, RowChange, Store, Stream};
use crate::config::Bounds;

struct Fixture {
    store: Store,
    /// Another process, as it were.
    other: Connection,
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl Fixture {
    fn new(bounds: &Bounds) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("test.db");
        let store = Store::open(&path, &path, bounds).expect("a store");
        let other = Connection::open(&path).expect("a second connection");
        other.pragma_update(None, "foreign_keys", false).expect("set");
        other.busy_timeout(Duration::from_secs(5)).expect("set");
        Self { store, other, path, _folder: folder }
    }

    fn run(&self, sql: &str) {
        self.other.execute_batch(sql).expect(sql);
    }

    fn number(&self, sql: &str) -> i64 {
        self.other.query_row(sql, [], |row| row.get(0)).expect(sql)
    }

    /// From here on every insert of an event fails as by a broken disk.
    fn break_disk(&self) {
        self.run("ALTER TABLE events RENAME TO away");
    }

    fn mend_disk(&self) {
        self.run("ALTER TABLE away RENAME TO events");
    }

    async fn write(&self, stream: &Arc<Stream>, text: &'static str, change: Option<RowChange>) -> u64 {
        let acked = self.store.append_acked(stream, "test", Bytes::from_static(text.as_bytes()), change);
        self.store.flush();
        acked.await.expect("an open store")
    }

    async fn servers(&self) -> Vec<(AcpServerRow, Vec<AcpSessionRow>)> {
        self.store.acp_servers().await.expect("rows")
    }

    async fn until(&self, what: &str, is: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !is() {
            assert!(Instant::now() < deadline, "never: {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn server(id: &str, instance: &str) -> AcpServerRow {
    AcpServerRow {
        server_id: id.into(),
        agent: "amp".into(),
        instance: instance.into(),
        created_at_ms: 1,
        initialize: None,
        authenticate: None,
        initialized: None,
    }
}

fn initialize(id: &str, instance: &str, params: &str) -> RowChange {
    RowChange::SetInitialize { server_id: id.into(), instance: instance.into(), params: params.into(), result: "{}".into() }
}

fn session(id: &str, instance: &str, session_id: &str) -> RowChange {
    let session = AcpSessionRow {
        session_id: session_id.into(),
        agent_session_id: session_id.into(),
        params: "{}".into(),
        settings: "{}".into(),
        owes_words: false,
    };
    RowChange::PutAcpSession { server_id: id.into(), instance: instance.into(), session, forget: None }
}

fn deletion(id: &str, instance: &str, keep_streams: u64) -> RowChange {
    RowChange::DeleteAcpServer { server_id: id.into(), instance: instance.into(), keep_streams }
}

fn texts(items: &[Item]) -> Vec<(String, bool)> {
    let events = items.iter().filter_map(|item| match item {
        Item::Event(event) => Some((String::from_utf8_lossy(&event.payload).into_owned(), event.kept)),
        Item::Gap { .. } => None,
    });
    events.collect()
}

#[tokio::test]
async fn one_refused_stream_does_not_hurt_the_others() {
    let all = Fixture::new(&Bounds::default());
    let good = all.store.open_stream("good").await.expect("a stream");
    let bad = all.store.open_stream("bad").await.expect("a stream");
    all.run("DELETE FROM streams WHERE name = 'bad'");
    let put = |stream, text, change| all.store.append_acked(stream, "test", Bytes::from_static(text), change);
    let acks = [
        put(&good, b"1", Some(RowChange::PutAcpServer(server("a", "i")))),
        put(&bad, b"2", Some(initialize("a", "i", "{}"))),
        put(&good, b"3", None),
    ];
    all.store.flush();
    for ack in acks {
        ack.await.expect("an open store");
    }
    assert_eq!(all.number("SELECT count(*) FROM events"), 2);
    let shown = texts(&good.read_after(0, 10, 1000).await.expect("a page"));
    assert_eq!(shown, [("1".to_owned(), true), ("3".to_owned(), true)]);
    assert_eq!(texts(&bad.read_after(0, 10, 1000).await.expect("a page")), [("2".to_owned(), false)]);
    assert_eq!(all.servers().await[0].0.initialize.as_deref(), Some("{}"), "the change beside the bad event is made");
    assert_eq!(all.store.health(), Health::Healthy, "the disk is well");
}

#[tokio::test]
async fn a_refused_change_is_answered_and_the_others_are_made() {
    let all = Fixture::new(&Bounds::default());
    all.run("CREATE TRIGGER no BEFORE INSERT ON acp_servers WHEN new.server_id = 'bad' BEGIN SELECT raise(ABORT, 'no'); END");
    let (bad, good) = tokio::join!(
        all.store.change(RowChange::PutAcpServer(server("bad", "i"))),
        all.store.change(RowChange::PutAcpServer(server("good", "j"))),
    );
    assert!(bad.is_err() && good.is_ok(), "{bad:?} {good:?}");
    assert_eq!(all.servers().await.len(), 1);
}

#[tokio::test]
async fn changes_that_rode_on_a_failed_commit_are_made_later() {
    let all = Fixture::new(&Bounds::default());
    let stream = all.store.open_stream("s").await.expect("a stream");
    all.store.change(RowChange::PutAcpServer(server("gone", "g"))).await.expect("made");
    all.break_disk();
    all.write(&stream, "1", Some(RowChange::PutAcpServer(server("a", "i")))).await;
    all.write(&stream, "2", Some(initialize("a", "i", "1"))).await;
    all.write(&stream, "3", Some(session("a", "i", "s1"))).await;
    assert!(matches!(all.store.health(), Health::Degraded { events_not_kept: 3, .. }), "{:?}", all.store.health());
    // A change that shares the fate of an event is answered at once; only a deletion is remembered.
    all.store.append(&stream, "test", Bytes::from_static(b"4"), None);
    let asked = all.store.change(deletion("gone", "g", 100)).await;
    assert!(asked.is_err(), "{asked:?}");
    all.mend_disk();
    all.write(&stream, "5", None).await;
    let servers = all.servers().await;
    assert_eq!(servers.len(), 1, "{servers:?}");
    assert_eq!((servers[0].0.server_id.as_str(), servers[0].0.initialize.as_deref()), ("a", Some("1")));
    assert_eq!(servers[0].1.len(), 1);
    assert_eq!(all.store.health(), Health::Healthy);
    assert_eq!(all.number("SELECT to_seq - from_seq FROM gaps WHERE reason = 'not_kept'"), 3);
}

#[tokio::test]
async fn what_waits_for_the_disk_is_written_when_the_store_closes() {
    let all = Fixture::new(&Bounds::default());
    let stream = all.store.open_stream("s").await.expect("a stream");
    all.break_disk();
    all.write(&stream, "1", Some(RowChange::PutAcpServer(server("a", "i")))).await;
    all.mend_disk();
    all.store.close().await;
    assert_eq!((all.number("SELECT count(*) FROM acp_servers"), all.number("SELECT count(*) FROM gaps")), (1, 1));
}

#[tokio::test]
async fn a_predecessor_does_not_write_into_its_successors_rows() {
    let all = Fixture::new(&Bounds::default());
    all.store.change(RowChange::PutAcpServer(server("a", "new"))).await.expect("made");
    let authenticate = RowChange::SetAuthenticate { server_id: "a".into(), instance: "old".into(), params: "{}".into() };
    for change in [initialize("a", "old", "{}"), authenticate, session("a", "old", "s1")] {
        all.store.change(change).await.expect("taken");
    }
    assert_eq!(all.servers().await, [(server("a", "new"), Vec::new())]);
}

#[tokio::test]
async fn retention_does_not_count_what_the_disk_refused() {
    let bounds = Bounds { log_stream_max_events: 20, log_stream_max_bytes: 100, log_ring_max_events: 1, ..Bounds::default() };
    let all = Fixture::new(&bounds);
    let stream = all.store.open_stream("s").await.expect("a stream");
    for _ in 0..10 {
        all.write(&stream, "kept", None).await;
    }
    all.break_disk();
    for _ in 0..100 {
        all.write(&stream, "refused", None).await;
    }
    all.mend_disk();
    all.write(&stream, "kept", None).await;
    assert_eq!(all.number("SELECT count(*) FROM events"), 11, "nothing is beyond a bound");
    for _ in 0..30 {
        all.write(&stream, "more", None).await;
    }
    let left = all.number("SELECT count(*) FROM events");
    assert!((18..=20).contains(&left), "then the oldest go, a tenth at a time: {left}");
    let page = stream.read_after(0, 100, 10_000).await.expect("a page");
    assert!(matches!(page[0], Item::Gap { from: 1, reason: GapReason::Retention, .. }), "{page:?}");
}

#[tokio::test]
async fn only_orphaned_streams_go_and_never_a_live_one() {
    let all = Fixture::new(&Bounds::default());
    let install = all.store.open_stream("agents/install").await.expect("a stream");
    let mut live = None;
    for instance in ["i1", "i2", "i3"] {
        let names = [format!("acp/{instance}/out"), format!("acp/{instance}/in")];
        let [out, inbound] = all.store.open_streams(names).await.expect("streams");
        all.store.change(RowChange::PutAcpServer(server("a", instance))).await.expect("made");
        for _ in 0..3000 {
            all.store.append(&out, "test", Bytes::from_static(b"x"), None);
        }
        all.write(&inbound, "x", None).await;
        live = live.or(Some(out));
        all.store.change(deletion("a", instance, 2)).await.expect("deleted");
    }
    let streams = "SELECT count(*) FROM streams WHERE name LIKE 'acp/%'";
    all.until("four go, but for the live one", || all.number(streams) == 3).await;
    assert_eq!(all.number("SELECT count(*) FROM streams WHERE name IN ('acp/i1/out', 'acp/i3/out', 'acp/i3/in')"), 3);
    assert_eq!(all.number("SELECT count(*) FROM events WHERE stream_id NOT IN (SELECT id FROM streams)"), 0);
    assert_eq!(all.write(&install, "x", None).await, 1);
    assert_eq!(all.store.health(), Health::Healthy);
    assert_eq!(all.write(live.as_ref().expect("kept"), "x", None).await, 3001);
    assert_eq!(all.number("SELECT count(*) FROM events WHERE stream_id NOT IN (SELECT id FROM streams)"), 0);
}

#[tokio::test]
async fn another_writer_neither_blocks_the_caller_nor_costs_events() {
    let all = Fixture::new(&Bounds::default());
    let stream = all.store.open_stream("s").await.expect("a stream");
    all.run("BEGIN IMMEDIATE");
    let mut acks = Vec::new();
    let started = Instant::now();
    for text in [&b"1"[..], b"2", b"3"] {
        acks.push(all.store.append_acked(&stream, "test", Bytes::from_static(text), None));
        all.store.flush();
    }
    assert!(started.elapsed() < Duration::from_millis(500), "a flush waits for nobody: {:?}", started.elapsed());
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(stream.newest().seq, 0, "nothing is shown before it is committed");
    all.run("COMMIT");
    for (ack, seq) in acks.into_iter().zip(1..) {
        assert_eq!(ack.await.expect("an open store"), seq);
    }
    let shown = texts(&stream.read_after(0, 10, 1000).await.expect("a page"));
    assert_eq!(shown, [("1".to_owned(), true), ("2".to_owned(), true), ("3".to_owned(), true)]);
    assert_eq!(all.store.health(), Health::Healthy);
}

#[test]
fn streams_of_servers_that_were_never_finished_are_orphans_after_a_restart() {
    let all = Fixture::new(&Bounds::default());
    all.run(
        "INSERT INTO acp_servers (server_id, agent, instance, created_at_ms) VALUES ('a', 'amp', 'here', 1);
         INSERT INTO streams (name, created_at_ms) VALUES
             ('agents/install', 1), ('acp/here/out', 1), ('acp/here/in', 1), ('acp/lost/out', 1), ('acp/lost/in', 1);",
    );
    super::sweep::orphan_left_behind(&all.other).expect("marked");
    assert_eq!(all.number("SELECT count(*) FROM streams WHERE orphaned_at_ms IS NOT NULL"), 2);
    assert_eq!(all.number("SELECT count(*) FROM streams WHERE orphaned_at_ms IS NOT NULL AND name LIKE 'acp/lost/%'"), 2);
}

#[tokio::test]
async fn what_belongs_together_is_taken_together() {
    let fixture = Fixture::new(&Bounds::default());
    let stream = fixture.store.open_stream("s").await.expect("a stream");
    let group = |count: usize| {
        let events = vec![("test", Bytes::from_static(b"{}")); count];
        fixture.store.joined(&stream, events, None, None)
    };
    let queue = Queue::new(u64::MAX);
    let all = group(2).into_iter().chain(group(50)).chain(group(1));
    queue.put_all_in_order(all.map(Command::Append));
    queue.put_later(group(60), false);
    assert_eq!(queue.take(1).len(), 2);
    assert_eq!(queue.take_little().0.len(), 50, "more than is little, but one group");
    assert_eq!(queue.take(2).len(), 61, "room for one more, and it is of a group");
    assert!(queue.is_empty() && queue.has_room());
    queue.close();
    queue.put_later(group(2), true);
    assert!(queue.is_empty());
}

#[tokio::test]
async fn a_wal_that_was_left_is_moved_into_the_file_at_the_start() {
    let fixture = Fixture::new(&Bounds::default());
    let stream = fixture.store.open_stream("s").await.expect("a stream");
    let text: &'static str = "x".repeat(60_000).leak();
    for _ in 0..200 {
        fixture.write(&stream, text, None).await;
    }
    // As a SIGKILL leaves it.
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("test.db");
    for end in ["", "-wal"] {
        std::fs::copy(fixture.path.with_extension(format!("db{end}")), path.with_extension(format!("db{end}"))).expect("a copy");
    }
    let length = |path: &Path| path.metadata().expect("a file").len();
    assert!(length(&path) < 1_000_000, "nothing has moved it so far");
    let again = Store::open(&path, &path, &Bounds::default()).expect("a store");
    fixture.until("a checkpoint", || length(&path) > 12_000_000).await;
    again.close().await;
}
