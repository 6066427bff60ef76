//! Disks that are full, read-only, or hold rubbish.

use std::process::Command;

use serde_json::json;

use crate::support::{Home, Options, Server};

/// A small file system of its own below a home; unmounted at the end.
pub struct SmallDisk(pub std::path::PathBuf);

impl SmallDisk {
    pub fn new(home: &Home, size: &str) -> Self {
        let path = home.data();
        std::fs::create_dir_all(&path).expect("a folder");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(&path).status();
        assert!(mounted.is_ok_and(|status| status.success()), "this test needs the right to mount a tmpfs: run it as root");
        Self(path)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test]
async fn on_a_full_disk_agents_run_on_and_readers_are_told() {
    let home = Home::new();
    let disk = SmallDisk::new(&home, "3M");
    home.fake_agent("", "");
    let server = Server::start(&home);
    server.call("a", "amp", 0, "initialize", json!({})).await;
    let mut events = server.events("a", None).await;
    assert!(std::fs::write(disk.0.join("filler"), vec![0; 4_000_000]).is_err(), "the filler takes all that is left");
    server.call("a", "amp", 1, "fake/flood", json!({"count": 60, "bytes": 10_000})).await;
    let answer = server.call("a", "amp", 2, "echo", json!({"still": "here"})).await;
    assert_eq!(answer["result"]["echo"]["still"], "here", "the agent runs on");
    let seen = events.until_answer(2).await;
    let told = seen.iter().find(|event| event.name == "not_kept").expect("the reader is told what could not be kept");
    let first_lost = told.data["from"].as_u64().expect("a number");
    let flooded = seen.iter().filter(|event| event.data["method"] == "fake/flooded").count();
    assert_eq!(flooded, 60, "live readers get everything");
    let status = server.get("/v1/status").await.1;
    assert_eq!(status["storage"]["status"], "degraded", "{status}");
    assert!(status["storage"]["cause"].as_str().is_some_and(|cause| cause.contains("full")), "{status}");
    let (code, body) = server.post("b", Some("amp"), &json!({"id": 1, "method": "initialize"})).await;
    assert_eq!((code, &body["type"]), (507, &json!("urn:sandbox-agent:error:storage_unavailable")), "{body}");

    Command::new("mount").args(["-o", "remount,size=64M"]).arg(&disk.0).status().expect("mount runs");
    server.call("a", "amp", 3, "echo", json!({})).await;
    assert_eq!(server.get("/v1/status").await.1["storage"]["status"], "healthy");
    server.kill();
    let server = Server::start(&home);
    let replayed = server.events("a", None).await.until_answer(3).await;
    let gap = replayed.iter().find(|event| event.name == "gap").expect("the hole is named after a restart");
    assert_eq!((gap.data["from"].as_u64(), &gap.data["reason"]), (Some(first_lost), &json!("not_kept")));
    assert_eq!(server.stop(), Some(0));
}

#[tokio::test]
async fn deleted_servers_lose_their_streams_and_nobody_else_does() {
    let home = Home::new();
    home.fake_agent("", "");
    let server = Server::start_with(&home, &Options::default().env("SANDBOXD_LOG_DELETED_STREAMS_MAX", "2"));
    for id in ["a", "b", "c", "d"] {
        server.call(id, "amp", 0, "initialize", json!({})).await;
        if id != "d" {
            assert_eq!(server.delete(id).await, 204);
        }
    }
    let database = rusqlite::Connection::open(home.data().join("sandboxd.db")).expect("a database");
    let count = |sql: &str| database.query_row(sql, [], |row| row.get::<_, i64>(0)).expect(sql);
    let deadline = std::time::Instant::now() + crate::support::PATIENCE;
    while count("SELECT count(*) FROM streams WHERE orphaned_at_ms IS NOT NULL") > 2 {
        assert!(std::time::Instant::now() < deadline, "old streams stay");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(count("SELECT count(*) FROM streams WHERE name = 'agents/install'"), 1, "no ACP server owned it");
    assert_eq!(count("SELECT count(*) FROM streams WHERE name LIKE 'acp/%' AND orphaned_at_ms IS NULL"), 2, "d has both");
    assert_eq!(server.call("d", "amp", 1, "echo", json!({"still": 1})).await["result"]["echo"]["still"], 1);
    assert_eq!(server.get("/v1/status").await.1["storage"]["status"], "healthy");
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn a_database_of_a_newer_version_is_left_alone() {
    let home = Home::new();
    std::fs::create_dir_all(home.data()).expect("a folder");
    let connection = rusqlite::Connection::open(home.data().join("sandboxd.db")).expect("a database");
    connection.pragma_update(None, "user_version", 99).expect("set");
    drop(connection);
    assert_start_fails(&home, "A newer sandboxd made it");
}

#[test]
fn a_read_only_disk_is_named_with_what_to_do() {
    let home = Home::new();
    let disk = SmallDisk::new(&home, "1M");
    Command::new("mount").args(["-o", "remount,ro"]).arg(&disk.0).status().expect("mount runs");
    assert_start_fails(&home, "--data-dir");
}

fn assert_start_fails(home: &Home, words: &str) {
    let mut child = Server::spawn(home, &crate::support::Options::default());
    let status = child.wait().expect("it ends");
    let log = Server::log(home);
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains(words) && !log.contains("panicked"), "{log}");
}
