//! Uploads in pieces, and batches.

use std::path::Path;

use serde_json::{Value, json};

use crate::storage::SmallDisk;
use crate::support::{Home, Options, PATIENCE, Server};

async fn begin(server: &Server, query: &str) -> (u16, Value) {
    server.send(&format!("/v1/fs/uploads?{query}"), &Value::Null).await
}

async fn patch(server: &Server, id: &str, offset: u64, piece: impl Into<reqwest::Body>) -> (u16, Value) {
    let request = server.http.patch(server.url(&format!("/v1/fs/uploads/{id}"))).header("upload-offset", offset).body(piece);
    let response = request.send().await.expect("an answer");
    (response.status().as_u16(), response.json().await.expect("JSON"))
}

async fn complete(server: &Server, id: &str, body: Value) -> (u16, Value) {
    server.send(&format!("/v1/fs/uploads/{id}/complete"), &body).await
}

fn id_of(upload: &Value) -> String {
    upload["id"].as_str().expect("an id").to_owned()
}

/// Names in a directory.
fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).expect("a folder").flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

const CONTENT: &str = "0123456789";
const SHA256: &str = "84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882";

#[tokio::test]
async fn an_upload_goes_on_where_it_broke_off_also_behind_a_kill() {
    let home = Home::new();
    let server = Server::start(&home);
    let (status, upload) = begin(&server, "path=d/file&size=10").await;
    assert_eq!((status, &upload["offset"]), (201, &0.into()), "{upload}");
    let id = id_of(&upload);
    let (status, upload) = patch(&server, &id, 0, "0123").await;
    assert_eq!((status, &upload["offset"]), (200, &4.into()), "{upload}");
    server.kill();

    let server = Server::start(&home);
    let head = server.http.head(server.url(&format!("/v1/fs/uploads/{id}"))).send().await.expect("an answer");
    assert_eq!(head.headers()["upload-offset"], "4");
    let (status, problem) = patch(&server, &id, 7, "789").await;
    assert_eq!((status, &problem["offset"]), (409, &4.into()), "{problem}");
    // The same piece again, and one that is half known.
    assert_eq!(patch(&server, &id, 0, "0123").await.1["offset"], 4);
    assert_eq!(patch(&server, &id, 2, "2345").await.1["offset"], 6);
    let (status, problem) = patch(&server, &id, 0, "0x23").await;
    assert_eq!((status, &problem["offset"]), (409, &6.into()), "{problem}");
    let (status, problem) = complete(&server, &id, json!({})).await;
    assert_eq!((status, &problem["offset"]), (409, &6.into()), "{problem}");
    assert_eq!(patch(&server, &id, 6, "6789").await.1["offset"], 10);
    assert_eq!(patch(&server, &id, 10, "x").await.0, 413);
    assert!(!home.path().join("d/file").exists());

    let (status, problem) = complete(&server, &id, json!({"sha256": "0".repeat(64)})).await;
    assert_eq!((status, problem["found"].as_str()), (409, Some(SHA256)), "{problem}");
    assert_eq!(server.get(&format!("/v1/fs/uploads/{id}")).await.1["offset"], 10, "the part stays");
    let (status, written) = complete(&server, &id, json!({"sha256": SHA256})).await;
    assert_eq!((status, &written["bytesWritten"], written["sha256"].as_str()), (200, &10.into(), Some(SHA256)), "{written}");
    assert_eq!(std::fs::read_to_string(home.path().join("d/file")).expect("a file"), CONTENT);
    assert_eq!(names(&home.path().join("d")), ["file"]);
    assert_eq!(names(&home.data().join("uploads")), Vec::<String>::new());
    assert_eq!(complete(&server, &id, json!({})).await.0, 404);
    assert_eq!(patch(&server, &id, 0, "0").await.0, 404);
    assert_eq!(server.get("/v1/fs/uploads/..%2F..%2Fx").await.0, 404);
}

#[tokio::test]
async fn one_client_at_a_time_writes_and_what_breaks_off_stays() {
    let home = Home::new();
    let server = Server::start(&home);
    let id = id_of(&begin(&server, "path=file").await.1);
    let (sender, receiver) = tokio::sync::mpsc::channel::<Result<bytes::Bytes, std::io::Error>>(1);
    let body = futures_util::stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) });
    let request = server.http.patch(server.url(&format!("/v1/fs/uploads/{id}"))).header("upload-offset", 0);
    let sending = tokio::spawn(request.body(reqwest::Body::wrap_stream(body)).send());
    sender.send(Ok("01234".into())).await.expect("sent");
    let offset = || async { server.get(&format!("/v1/fs/uploads/{id}")).await.1["offset"].clone() };
    until(|| async { offset().await == 5 }).await;
    let (status, problem) = patch(&server, &id, 5, "5").await;
    assert_eq!(status, 409, "{problem}");
    assert_eq!(complete(&server, &id, json!({})).await.0, 409);
    drop(sender.send(Err(std::io::Error::other("gone"))).await);
    let _ = sending.await;
    until(|| async { patch(&server, &id, 5, "56789").await.0 == 200 }).await;
    std::fs::write(home.path().join("file"), "other").expect("a file");
    let url = server.url(&format!("/v1/fs/uploads/{id}/complete"));
    let refused = server.http.post(&url).header("if-none-match", "*").send().await.expect("an answer");
    assert_eq!(refused.status(), 412);
    assert_eq!(offset().await, 10, "the part stays");
    assert_eq!(complete(&server, &id, json!({"fsync": true})).await.0, 200);
    assert_eq!(std::fs::read_to_string(home.path().join("file")).expect("a file"), CONTENT);
}

async fn until<F: Future<Output = bool>>(mut fits: impl FnMut() -> F) {
    let wait = async {
        while !fits().await {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("in time");
}

#[tokio::test]
async fn uploads_end_and_expire() {
    let home = Home::new();
    let server = Server::start_with(&home, &Options::default().env("SANDBOXD_FS_UPLOADS_MAX", "2"));
    let (one, two) = (id_of(&begin(&server, "path=u/one").await.1), id_of(&begin(&server, "path=u/two").await.1));
    let (status, problem) = begin(&server, "path=u/three").await;
    assert_eq!(status, 413, "{problem}");
    assert_eq!(patch(&server, &two, 0, "x").await.0, 200);
    let aborted = server.http.delete(server.url(&format!("/v1/fs/uploads/{one}"))).send().await.expect("an answer");
    assert_eq!(aborted.status(), 204);
    assert_eq!(names(&home.path().join("u")).len(), 1);
    server.kill();
    let part = home.path().join("u").join(&names(&home.path().join("u"))[0]);
    let server = Server::start_with(&home, &Options::default().env("SANDBOXD_FS_UPLOAD_EXPIRY_MS", "1"));
    until(|| async { !part.exists() }).await;
    until(|| async { names(&home.data().join("uploads")).is_empty() }).await;
    assert_eq!(server.get(&format!("/v1/fs/uploads/{two}")).await.0, 404);
}

#[tokio::test]
async fn a_batch_has_a_result_for_each() {
    let home = Home::new();
    let server = Server::start_with(
        &home,
        &Options::default().env("SANDBOXD_FS_BATCH_OPERATIONS_MAX", "12").env("SANDBOXD_FS_BATCH_READ_MAX_BYTES", "20"),
    );
    let operations = json!([
        {"op": "mkdir", "path": "d"},
        {"op": "write", "path": "d/a", "content": CONTENT},
        {"op": "write", "path": "d/b", "content": "/w==", "encoding": "base64"},
        {"op": "write", "path": "d/a", "content": "x", "create": true},
        {"op": "write", "path": "d/a", "content": "x", "expectSha256": "0".repeat(64)},
        {"op": "read", "path": "d/a"},
        {"op": "read", "path": "d/b"},
        {"op": "read", "path": "d/none"},
        {"op": "copy", "from": "d/a", "to": "e/c"},
        {"op": "move", "from": "d/a", "to": "e/m"},
        {"op": "stat", "path": "e/m"},
        {"op": "delete", "path": "d", "recursive": true},
    ]);
    let (status, said) = server.send("/v1/fs/batch", &json!({"operations": operations})).await;
    assert_eq!(status, 200, "{said}");
    let results = said["results"].as_array().expect("results");
    let statuses: Vec<_> = results.iter().map(|result| result["status"].as_u64().expect("a status")).collect();
    assert_eq!(statuses, [200, 200, 200, 412, 412, 200, 200, 400, 200, 200, 200, 200], "{said}");
    assert_eq!(said["failed"], 3);
    assert_eq!((&results[5]["body"]["content"], &results[5]["body"]["encoding"]), (&CONTENT.into(), &"utf8".into()));
    assert_eq!(results[5]["body"]["sha256"], SHA256);
    assert_eq!((&results[6]["body"]["content"], &results[6]["body"]["encoding"]), (&"/w==".into(), &"base64".into()));
    assert!(results[7]["problem"]["detail"].as_str().expect("text").contains("path not found"), "{said}");
    assert_eq!(results[10]["body"]["size"], 10);
    assert_eq!(names(&home.path().join("e")), ["c", "m"]);
    assert!(!home.path().join("d").exists());

    let stops = json!({"stopOnError": true, "operations": [{"op": "read", "path": "none"}, {"op": "mkdir", "path": "never"}]});
    let (_, said) = server.send("/v1/fs/batch", &stops).await;
    assert_eq!((said["results"].as_array().map(Vec::len), &said["failed"]), (Some(1), &1.into()));
    assert!(!home.path().join("never").exists());
    let many = json!({"operations": vec![json!({"op": "stat", "path": "."}); 13]});
    assert_eq!(server.send("/v1/fs/batch", &many).await.0, 413);
    let reads = json!({"operations": vec![json!({"op": "read", "path": "e/c"}); 3]});
    let (_, said) = server.send("/v1/fs/batch", &reads).await;
    assert_eq!(said["results"][1]["status"], 200);
    assert_eq!(said["results"][2]["status"], 413, "{said}");
    assert_eq!(server.send("/v1/fs/batch", &json!({"operations": [{"op": "chmod"}]})).await.0, 422);
}

/// A disk of its own that fills up.
#[tokio::test]
async fn a_full_disk_keeps_the_part() {
    let home = Home::new();
    let disk = home.path().join("disk");
    std::fs::create_dir(&disk).expect("a folder");
    let mounted = std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=1M", "tmpfs"]).arg(&disk).status();
    assert!(mounted.is_ok_and(|status| status.success()), "this test needs the right to mount a tmpfs: run it as root");
    let _disk = SmallDisk(disk);
    let server = Server::start(&home);
    let id = id_of(&begin(&server, "path=disk/file").await.1);
    let (status, problem) = patch(&server, &id, 0, vec![b'x'; 4 << 20]).await;
    let offset = server.get(&format!("/v1/fs/uploads/{id}")).await.1["offset"].as_u64().expect("a number");
    assert_eq!(status, 507, "{problem}");
    assert!(offset > 0, "what fitted stays");
}
