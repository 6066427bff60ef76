//! What the failure tests of processes have in common.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use serde_json::{Value, json};

use crate::support::{Event, PATIENCE, Server};

static NAPS: AtomicU64 = AtomicU64::new(0);

/// Seconds to sleep that nobody else sleeps: so its sleepers are found whatever became of their environment and parents.
pub struct Nap(String);

impl Nap {
    pub fn new() -> Self {
        Self(format!("{}.{:04}", 100_000 + std::process::id(), NAPS.fetch_add(1, Ordering::Relaxed) + 1))
    }

    pub fn sleepers(&self) -> usize {
        let pids = std::fs::read_dir("/proc").expect("/proc").flatten().filter(|entry| {
            let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            command == format!("sleep\0{}\0", self.0).as_bytes()
        });
        pids.count()
    }

    pub async fn until_sleeping(&self, count: usize) {
        until("the sleepers", || self.sleepers() >= count).await;
    }

    pub async fn until_none(&self) {
        until("the sleepers' end", || self.sleepers() == 0).await;
    }
}

impl std::fmt::Display for Nap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what} did not come");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// `sh -c`, with more fields.
pub fn sh(script: &str, more: Value) -> Value {
    let mut spec = json!({"command": "sh", "args": ["-c", script]});
    spec.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
    spec
}

/// Starts a process that must start; gives its id.
pub async fn create(server: &Server, spec: Value) -> String {
    let (status, info) = server.send("/v1/processes", &spec).await;
    assert_eq!(status, 200, "{info}");
    info["id"].as_str().expect("an id").to_owned()
}

pub async fn run(server: &Server, spec: Value) -> Value {
    let (status, result) = server.send("/v1/processes/run", &spec).await;
    assert_eq!(status, 200, "{result}");
    result
}

pub async fn info(server: &Server, id: &str) -> Value {
    let (status, info) = server.get(&format!("/v1/processes/{id}")).await;
    assert_eq!(status, 200, "{info}");
    info
}

/// Posts something that is answered 200.
pub async fn post(server: &Server, path: &str, body: Value) -> Value {
    let (status, answer) = server.send(path, &body).await;
    assert_eq!(status, 200, "{path}: {answer}");
    answer
}

pub async fn wait(server: &Server, id: &str, spec: Value) -> Value {
    post(server, &format!("/v1/processes/{id}/wait"), spec).await
}

pub async fn wrote(server: &Server, id: &str, pattern: &str) -> Value {
    let result = wait(server, id, json!({"output": {"pattern": pattern}})).await;
    assert_eq!(result["met"], "output", "{result}");
    result
}

/// Waits for the exit; gives the process.
pub async fn ended(server: &Server, id: &str) -> Value {
    let result = wait(server, id, json!({})).await;
    assert_eq!((&result["met"], &result["process"]["status"]), (&json!("exit"), &json!("exited")), "{result}");
    result["process"].clone()
}

pub async fn page(server: &Server, id: &str, query: &str) -> Value {
    let (status, page) = server.get(&format!("/v1/processes/{id}/logs?{query}")).await;
    assert_eq!(status, 200, "{page}");
    page
}

/// The bytes of an entry.
pub fn bytes(entry: &Value) -> Vec<u8> {
    assert_eq!(entry["encoding"], "base64", "{entry}");
    base64::engine::general_purpose::STANDARD.decode(entry["data"].as_str().expect("text")).expect("base64")
}

/// Everything that a page holds.
pub fn output(page: &Value) -> Vec<u8> {
    page["entries"].as_array().expect("entries").iter().flat_map(bytes).collect()
}

/// Everything that events of a followed log hold.
pub fn followed(events: &[Event]) -> Vec<u8> {
    events.iter().filter(|event| event.name == "log").flat_map(|event| bytes(&event.data)).collect()
}

pub async fn delete(server: &Server, id: &str) -> u16 {
    server.http.delete(server.url(&format!("/v1/processes/{id}"))).send().await.expect("an answer").status().as_u16()
}
