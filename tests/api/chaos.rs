//! Random kills of the agent, the clients and (SIGKILL) the server: what a watcher saw is in the log once, and nobody
//! is left waiting.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::support::{Home, Options, PATIENCE, Server, client as client_without_proxy, kill};

const ROUNDS: u64 = 12;

/// Events by id, as one watcher saw them.
type Seen = BTreeMap<u64, Value>;

struct World {
    url: String,
    http: reqwest::Client,
    over: AtomicBool,
    next: AtomicU64,
    /// Tokens whose answer a client got.
    answered: Mutex<HashSet<u64>>,
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_seen_is_lost_and_nobody_hangs() {
    let seed = std::env::var("CHAOS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| rand::rng().random());
    println!("CHAOS_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let home = Home::new();
    home.fake_agent("", "");
    let mut server = Server::start(&home);
    let options = Options { port: server.port(), ..Options::default() };
    server.call("a", "amp", 0, "initialize", json!({})).await;
    let world = Arc::new(World {
        url: server.url("/v1/acp/a"),
        http: client_without_proxy(),
        over: AtomicBool::new(false),
        next: AtomicU64::new(1),
        answered: Mutex::default(),
    });
    let clients: Vec<_> = (0..4).map(|at| tokio::spawn(client(world.clone(), seed ^ at))).collect();
    let watchers: Vec<_> = (0..3).map(|at| tokio::spawn(watcher(world.clone(), seed ^ (at + 100)))).collect();
    for _ in 0..ROUNDS {
        tokio::time::sleep(Duration::from_millis(random.random_range(20..400))).await;
        if random.random_bool(0.5) {
            for (pid, _) in home.processes().into_iter().filter(|(_, command)| command.contains("fake-agent")) {
                kill(pid, "KILL");
            }
        } else {
            server.kill();
            server = Server::start_with(&home, &options);
        }
    }
    world.over.store(true, Ordering::Relaxed);
    for client in clients {
        tokio::time::timeout(PATIENCE, client).await.expect("no client waits for ever").expect("no client fails");
    }
    server.call("a", "amp", "last", "echo", json!({})).await;
    let log: Seen = server
        .events("a", None)
        .await
        .until_answer("last")
        .await
        .into_iter()
        .filter_map(|event| Some((event.id?, event.data)))
        .collect();
    let ids: Vec<_> = log.keys().copied().collect();
    assert_eq!(ids, (1..=ids.len() as u64).collect::<Vec<_>>(), "the log has no hole");
    for watcher in watchers {
        let seen = tokio::time::timeout(PATIENCE, watcher).await.expect("no watcher waits for ever").expect("no watcher fails");
        assert!(!seen.is_empty());
        for (id, data) in seen {
            assert_eq!(log.get(&id), Some(&data), "what was seen as {id} is in the log (seed {seed})");
        }
    }
    let logged: HashSet<u64> = log.values().filter_map(|data| data["result"]["echo"]["token"].as_u64()).collect();
    let answered = world.answered.lock().expect("not poisoned").clone();
    assert!(answered.len() > 20, "the clients got something done: {}", answered.len());
    let lost: Vec<_> = answered.difference(&logged).collect();
    assert_eq!(lost, Vec::<&u64>::new(), "answers that clients got are in the log (seed {seed})");
    assert_eq!(server.stop(), Some(0));
    home.assert_empty();
}

/// Sends requests; some it gives up on. Each ends: by an answer, an error answer, or a broken connection.
async fn client(world: Arc<World>, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    while !world.over.load(Ordering::Relaxed) {
        let token = world.next.fetch_add(1, Ordering::Relaxed);
        let envelope = json!({"jsonrpc": "2.0", "id": 1, "method": "echo", "params": {"token": token}});
        let request = world.http.post(format!("{}?agent=amp", world.url)).json(&envelope).send();
        if random.random_bool(0.1) {
            let _ = tokio::time::timeout(Duration::from_micros(random.random_range(0..2000)), request).await;
            continue;
        }
        let response = tokio::time::timeout(PATIENCE, request).await.expect("a request is answered or broken off");
        let Ok(response) = response else {
            tokio::time::sleep(Duration::from_millis(10)).await; // the server is down
            continue;
        };
        let Ok(body) = tokio::time::timeout(PATIENCE, response.json::<Value>()).await.expect("a body ends") else { continue };
        assert_eq!(body["id"], 1, "{body}");
        if body["result"]["echo"]["token"] == token {
            world.answered.lock().expect("not poisoned").insert(token);
        } else {
            assert!(body["error"].is_object(), "{body}");
        }
    }
}

/// Follows the stream over breaks of the connection and restarts of the server.
async fn watcher(world: Arc<World>, seed: u64) -> Seen {
    let mut random = StdRng::seed_from_u64(seed);
    let mut seen = Seen::new();
    while !world.over.load(Ordering::Relaxed) {
        let mut request = world.http.get(&world.url);
        if let Some((last, _)) = seen.last_key_value() {
            request = request.header("last-event-id", *last);
        }
        let Ok(mut response) = request.send().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        assert_eq!(response.status(), 200);
        let mut buffer = Vec::new();
        let leave = tokio::time::sleep(Duration::from_millis(random.random_range(1..300)));
        tokio::pin!(leave);
        loop {
            let chunk = tokio::select! { chunk = response.chunk() => chunk, () = &mut leave => break };
            let Ok(Some(chunk)) = chunk else { break };
            buffer.extend_from_slice(&chunk);
            take_events(&mut buffer, &mut seen);
        }
    }
    seen
}

fn take_events(buffer: &mut Vec<u8>, seen: &mut Seen) {
    while let Some(end) = buffer.windows(2).position(|pair| pair == b"\n\n") {
        let block: Vec<u8> = buffer.drain(..end + 2).collect();
        let block = String::from_utf8(block).expect("UTF-8");
        let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
        assert_ne!(field("event: "), Some("gap"), "nothing may be missing: {block}");
        let Some(id) = field("id: ").and_then(|id| id.parse().ok()) else { continue };
        let data = serde_json::from_str(field("data: ").expect("data")).expect("JSON");
        let expected = seen.last_key_value().map_or(1, |(last, _)| last + 1);
        assert_eq!(id, expected, "each event comes once and in order");
        seen.insert(id, data);
    }
}
