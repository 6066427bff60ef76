//! Retention, attachments, and a disk that is full.

use serde_json::{Value, json};

use crate::sessions_support::{create, ended, events, fake, follow, heard, message, outcome, request, say, until, until_type};
use crate::storage::SmallDisk;
use crate::support::{Home, Options, Server};

async fn close(server: &Server, id: &str) {
    assert_eq!(request(server, "POST", &format!("/v1/sessions/{id}/close"), None, None).await.0, 200);
}

async fn ids(server: &Server) -> Vec<String> {
    let (_, list) = server.get("/v1/sessions").await;
    let mut ids: Vec<_> = list["sessions"]
        .as_array()
        .expect("sessions")
        .iter()
        .map(|session| session["id"].as_str().expect("an id").to_owned())
        .collect();
    ids.sort();
    ids
}

#[tokio::test]
async fn closed_sessions_go_by_number_and_age() {
    let home = Home::new();
    let options = Options::default().env("SANDBOXD_SESSION_AGENT_IDLE_MS", "1000").env("SANDBOXD_SESSION_CLOSED_MAX", "2");
    let server = Server::start_with(&home, &options);
    let mut made = Vec::new();
    for _ in 0..5 {
        made.push(create(&server, json!({"agent": "mock"})).await);
    }
    for id in &made[..4] {
        close(&server, id).await;
    }
    until("two closed ones are left", async || (ids(&server).await == made[2..]).then_some(())).await;
    server.kill();
    let server = Server::start_with(&home, &options.env("SANDBOXD_SESSION_CLOSED_MAX_AGE_MS", "1"));
    until("the open one is left", async || (ids(&server).await == made[4..]).then_some(())).await;
    assert_eq!(server.stop(), Some(0));
}

async fn upload(server: &Server, id: &str, query: &str, bytes: Vec<u8>) -> (u16, Value) {
    let path = server.url(&format!("/v1/sessions/{id}/attachments{query}"));
    let sent = server.http.post(path).header("content-type", "text/plain").body(bytes).send().await.expect("an answer");
    let status = sent.status().as_u16();
    (status, sent.json().await.expect("JSON"))
}

fn files(home: &Home) -> usize {
    fn count(folder: &std::path::Path) -> usize {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| if entry.path().is_dir() { count(&entry.path()) } else { 1 }).sum()
    }
    count(&home.data().join("attachments"))
}

#[tokio::test]
async fn attachments_go_with_messages_and_leave_nothing_behind() {
    let home = Home::new();
    fake(&home, "");
    let server = Server::start_with(&home, &Options::default().env("SANDBOXD_ATTACHMENT_MAX_BYTES", "1000"));
    let id = create(&server, json!({"agent": "amp"})).await;
    let (status, attachment) = upload(&server, &id, "?name=notes.txt", b"some notes".to_vec()).await;
    assert_eq!((status, &attachment["name"], &attachment["sizeBytes"]), (201, &json!("notes.txt"), &json!(10)), "{attachment}");
    assert_eq!(std::fs::read(attachment["path"].as_str().expect("a path")).expect("a file"), b"some notes");
    let submitted = message(&server, &id, json!({"text": "read it", "attachments": [{"id": attachment["id"]}]})).await;
    ended(&server, &id, submitted["turnId"].as_str().expect("a turn")).await;
    let prompt = heard(&home, "session/prompt").pop().expect("a prompt");
    let link = &prompt["params"]["prompt"][1];
    assert_eq!(
        (&link["type"], &link["uri"], &link["size"]),
        (&json!("resource_link"), &attachment["uri"], &json!(10)),
        "{prompt}"
    );
    let path = format!("/v1/sessions/{id}/messages");
    for unknown in [json!({"id": "att_none"}), json!({"id": "../x"}), json!({"path": "/no/such/file"})] {
        let (status, problem) = server.send(&path, &json!({"text": "x", "attachments": [unknown]})).await;
        assert_eq!(status, 422, "{problem}");
    }
    assert_eq!(server.send(&path, &json!({"attachments": [{}]})).await.0, 400);
    assert_eq!(files(&home), 1);
    let (status, problem) = upload(&server, &id, "", vec![b'x'; 1001]).await;
    assert!(status == 413 && problem.to_string().contains("attachment_max_bytes"), "{status} {problem}");
    // An upload that breaks off.
    let mut socket = tokio::net::TcpStream::connect(("127.0.0.1", server.port())).await.expect("a connection");
    let head = format!("POST /v1/sessions/{id}/attachments HTTP/1.1\r\nhost: localhost\r\ncontent-length: 900\r\n\r\nhalf of it");
    tokio::io::AsyncWriteExt::write_all(&mut socket, head.as_bytes()).await.expect("written");
    until("it is being written", async || (files(&home) == 2).then_some(())).await;
    drop(socket);
    until("nothing of them is left", async || (files(&home) == 1).then_some(())).await;
    assert_eq!(request(&server, "DELETE", &format!("/v1/sessions/{id}"), None, None).await.0, 204);
    until("they go with the session", async || (files(&home) == 0).then_some(())).await;
    assert_eq!(server.stop(), Some(0));
}

#[tokio::test]
async fn on_a_full_disk_turns_end_and_waiters_are_answered() {
    let home = Home::new();
    let disk = SmallDisk::new(&home, "3M");
    fake(&home, "");
    let server = Server::start(&home);
    let id = create(&server, json!({"agent": "amp"})).await;
    let mut live = follow(&server, &id, "", None).await;
    let stalls = say(&server, &id, "stall").await;
    until_type(&mut live, "turn.started").await;
    assert!(std::fs::write(disk.0.join("filler"), vec![0; 4_000_000]).is_err(), "the filler takes all that is left");
    let flooded = say(&server, &id, "flood 60 10000").await;
    assert_eq!(server.send(&format!("/v1/sessions/{id}/interrupt"), &json!({})).await.0, 202);
    assert_eq!(outcome(&server, &id, &stalls).await.0, "cancelled");
    assert_eq!(outcome(&server, &id, &flooded).await.0, "finished");
    let seen = live.until(|event| event.data["type"] == "turn.ended" && event.data["turnId"] == flooded.as_str()).await;
    assert!(seen.iter().any(|event| event.name == "not_kept"), "readers are told");
    let (status, _) = upload(&server, &id, "", vec![b'x'; 100_000]).await;
    assert_eq!(status, 507);
    // On a connection of its own: the one of the upload is being closed.
    let snapshot = crate::support::client().get(server.url(&format!("/v1/sessions/{id}/snapshot"))).send().await;
    assert_eq!(snapshot.map(|answer| answer.status().as_u16()).ok(), Some(200), "{}", Server::log(&home));
    std::fs::remove_file(disk.0.join("filler")).expect("removed");
    std::process::Command::new("mount").args(["-o", "remount,size=64M"]).arg(&disk.0).status().expect("mount runs");
    let turn = say(&server, &id, "there is room again").await;
    assert_eq!(outcome(&server, &id, &turn).await.0, "finished");
    server.kill();
    let server = Server::start(&home);
    for (turn, end) in [(&stalls, "cancelled"), (&flooded, "finished"), (&turn, "finished")] {
        assert_eq!(outcome(&server, &id, turn).await.0, end, "rows are written late, but written");
    }
    assert!(events(&server, &id, "").await.len() > 5);
    assert_eq!(server.stop(), Some(0));
}
