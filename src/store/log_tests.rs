//! The whole log, read while it is written.

use bytes::Bytes;

use super::{GapReason, LogFilter, LogPage, Store};
use crate::config::Bounds;

fn open(bounds: &Bounds) -> (Store, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("test.db");
    (Store::open(&path, &path, bounds).expect("a store"), folder)
}

async fn write(store: &Store, stream: &str, count: usize) {
    let stream = store.open_stream(stream).await.expect("a stream");
    let mut acked = None;
    for n in 0..count {
        store.room().await;
        acked = Some(store.append_acked(&stream, "test.written", Bytes::from(format!("{{\"n\":{n}}}")), None));
        if n % 7 == 0 {
            tokio::task::yield_now().await;
        }
    }
    store.flush();
    acked.expect("one at least").await.expect("an open store");
}

/// Follows the log as the event feed does, until it has `count` events.
async fn follow(store: &Store, filter: LogFilter, mut after: u64, count: usize) -> Vec<(u64, String, u64)> {
    let mut newest = store.watch_log();
    let mut seen = Vec::new();
    while seen.len() < count {
        let last = *newest.borrow_and_update();
        if after >= last {
            newest.changed().await.expect("an open store");
            continue;
        }
        let page = store.log_page(after, filter.clone(), 13, 1024).await.expect("a page");
        after = if page.is_last { page.reached.max(last) } else { page.reached };
        seen.extend(page.events.into_iter().map(|event| (event.seq, event.stream, event.stream_seq)));
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn followers_miss_nothing_and_double_nothing_while_many_write() {
    let (store, _folder) = open(&Bounds::default());
    let sessions: Vec<_> = (0..6).map(|n| format!("session/ses_{n}")).collect();
    let mut tasks = tokio::task::JoinSet::new();
    for stream in sessions.iter().cloned().chain(["acp/i/out".to_owned(), "processes".to_owned()]) {
        let store = store.clone();
        tasks.spawn(async move { write(&store, &stream, 300).await });
    }
    let one = LogFilter { streams: vec![sessions[3].clone()], ..LogFilter::default() };
    let (all, of_one) = tokio::join!(follow(&store, LogFilter::default(), 0, 7 * 300), follow(&store, one, 0, 300));
    while let Some(done) = tasks.join_next().await {
        done.expect("a writer");
    }
    assert!(all.is_sorted_by(|a, b| a.0 < b.0), "in order, none twice");
    for stream in sessions.iter().map(String::as_str).chain(["processes"]) {
        let positions: Vec<_> = all.iter().filter(|(_, of, _)| of == stream).map(|(.., at)| *at).collect();
        assert_eq!(positions, (1..=300).collect::<Vec<u64>>(), "{stream}");
    }
    assert_eq!(of_one, all.iter().filter(|(_, of, _)| *of == sessions[3]).cloned().collect::<Vec<_>>());
    let resumed = follow(&store, LogFilter::default(), all[1000].0, 1099).await;
    assert_eq!(resumed, all[1001..]);
}

#[tokio::test]
async fn a_flood_that_nobody_wants_moves_the_cursor_on() {
    let (store, _folder) = open(&Bounds::default());
    write(&store, "session/a", 1).await;
    write(&store, "acp/i/out", 25_000).await;
    write(&store, "session/a", 1).await;
    let read = |after| store.log_page(after, LogFilter::default(), 100, 1 << 20);
    let first = read(0).await.expect("a page");
    assert_eq!((first.events.len(), first.is_last), (1, false));
    assert!(first.reached >= 20_000, "{}", first.reached);
    let second = read(first.reached).await.expect("a page");
    assert_eq!((second.events.len(), second.is_last, second.reached), (1, true, 25_002));
    let raw = LogFilter { streams: vec!["acp/i/out".into()], ..LogFilter::default() };
    assert_eq!(store.log_page(5, raw, 10, 1 << 20).await.expect("a page").events.len(), 10, "unless it is asked for");
}

fn gaps(page: &LogPage) -> Vec<(u64, &str, u64, u64)> {
    page.gaps.iter().map(|gap| (gap.seq, gap.stream.as_str(), gap.from, gap.to)).collect()
}

#[tokio::test]
async fn who_reads_over_what_retention_removed_is_told_once() {
    let (store, _folder) = open(&Bounds { log_stream_max_events: 10, ..Bounds::default() });
    let (a, b) = ("session/a", "session/b");
    write(&store, a, 5).await; // 1 to 5
    write(&store, b, 1).await; // 6
    for _ in 0..8 {
        write(&store, a, 1).await; // 7 to 14
    }
    let read = |after, filter: LogFilter| store.log_page(after, filter, 100, 1 << 20);
    let page = read(0, LogFilter::default()).await.expect("a page");
    let (seq, to) = (page.gaps[0].seq, page.gaps[0].to);
    assert_eq!(
        (page.gaps.len(), page.gaps[0].stream.as_str(), page.gaps[0].from, page.gaps[0].reason),
        (1, a, 1, GapReason::Retention)
    );
    assert_eq!(page.events.len() as u64, 14 - to, "what is there and what is said to be missing are all there was");
    assert!(page.events.iter().filter(|event| event.stream == a).all(|event| event.seq > seq));
    let of_b = LogFilter { streams: vec![b.into()], ..LogFilter::default() };
    assert_eq!(gaps(&read(0, of_b).await.expect("a page")), [], "b lacks nothing");
    assert_eq!(gaps(&read(seq, LogFilter::default()).await.expect("a page")), [], "who is behind it has read them");
    assert_eq!(gaps(&read(seq - 1, LogFilter::default()).await.expect("a page")), [(seq, a, 1, to)]);
}

#[tokio::test]
async fn what_the_disk_refused_is_a_gap_where_it_was_missing() {
    let (store, folder) = open(&Bounds::default());
    let _held = store.open_stream("session/a").await.expect("a stream"); // to open it again needs the table
    write(&store, "session/a", 2).await;
    let other = rusqlite::Connection::open(folder.path().join("test.db")).expect("a second connection");
    other.pragma_update(None, "foreign_keys", false).expect("set");
    other.execute_batch("ALTER TABLE events RENAME TO away").expect("renamed");
    write(&store, "session/a", 3).await;
    other.execute_batch("ALTER TABLE away RENAME TO events").expect("renamed");
    write(&store, "session/a", 1).await;
    let page = store.log_page(0, LogFilter::default(), 100, 1 << 20).await.expect("a page");
    assert_eq!(page.events.iter().map(|event| (event.seq, event.stream_seq)).collect::<Vec<_>>(), [(1, 1), (2, 2), (3, 6)]);
    assert_eq!(gaps(&page), [(3, "session/a", 3, 5)]);
    assert_eq!(page.gaps[0].reason, GapReason::NotKept);
}

#[tokio::test]
async fn known_secrets_reach_neither_file_nor_readers() {
    use super::{AcpServerRow, ProcessRow, RowChange, SessionRow};
    let secret = "sk-12345678";
    let (store, folder) = open(&Bounds::default());
    store.redact([secret.to_owned()]);
    let session = SessionRow {
        id: "ses_1".into(),
        server_id: "s".into(),
        acp_session_id: "a".into(),
        agent: "amp".into(),
        cwd: "/".into(),
        title: Some(format!("Use {secret}")),
        created_at_ms: 1,
        updated_at_ms: 1,
        closed_at_ms: None,
        idempotency: None,
        doc: format!("{{\"k\":\"{secret}\"}}"),
    };
    let process = |number, restart| ProcessRow {
        number,
        spec: format!("{{\"command\":\"{secret}\",\"restart\":\"{restart}\"}}"),
        owner: "user",
        created_at_ms: 1,
        end: None,
        restarts: 0,
        terminal: None,
        idempotency: None,
    };
    let stream = store.open_stream("session/ses_1").await.expect("a stream");
    let change =
        RowChange::Many(vec![RowChange::PutSession(Box::new(session)), RowChange::PutProcess(Box::new(process(1, "never")))]);
    let payload = Bytes::from(format!("{{\"text\":\"the key is {secret}\"}}"));
    let acked = store.append_acked(&stream, "test", payload, Some(change));
    store.flush();
    acked.await.expect("an open store");
    let live = stream.read_after(0, 1, 1 << 20).await.expect("an event");
    assert!(matches!(&live[0], super::Item::Event(event) if &event.payload[..] == br#"{"text":"the key is [redacted]"}"#));
    store.change(RowChange::PutProcess(Box::new(process(2, "always")))).await.expect("kept");
    let server = AcpServerRow {
        server_id: "s".into(),
        agent: "amp".into(),
        instance: "i".into(),
        created_at_ms: 1,
        initialize: Some(format!("{{\"env\":\"{secret}\"}}")),
        authenticate: None,
        initialized: None,
    };
    store.change(RowChange::PutAcpServer(server)).await.expect("kept");
    let file = rusqlite::Connection::open(folder.path().join("test.db")).expect("a connection");
    let span = super::SpanRow {
        span_id: "0123456789abcdef".into(),
        trace_id: "0123456789abcdef0123456789abcdef".into(),
        parent_span_id: None,
        session_id: None,
        turn_id: None,
        kind: "process".into(),
        name: secret.into(),
        started_at_ms: 1,
        ended_at_ms: None,
        outcome: None,
        doc: format!("[\"{secret}\"]"),
    };
    let clean = store.clean_span(&span);
    assert_eq!((clean.name.as_str(), clean.doc.as_str()), ("[redacted]", "[\"[redacted]\"]"));
    let read = |sql: &str| file.query_row(sql, [], |row| row.get::<_, String>(0)).expect(sql);
    assert_eq!(read("SELECT CAST(payload AS TEXT) FROM events"), r#"{"text":"the key is [redacted]"}"#);
    assert_eq!(read("SELECT title || doc FROM sessions"), r#"Use [redacted]{"k":"[redacted]"}"#);
    assert_eq!(read("SELECT spec FROM processes WHERE number = 1"), r#"{"command":"[redacted]","restart":"never"}"#);
    for kept in ["SELECT spec FROM processes WHERE number = 2", "SELECT initialize FROM acp_servers"] {
        assert!(read(kept).contains(secret), "needed to start again: {kept}");
    }
}
