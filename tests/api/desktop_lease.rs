//! Several clients and one desktop: who has it, and who hears of what.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::desktop_support::{Desktop, until};
use crate::support::{Events, Home, Options};

async fn lease(desktop: &Desktop, holder: &str, ttl_ms: u64, take_over: bool) -> (u16, Value) {
    let body = json!({"holder": holder, "ttlMs": ttl_ms, "takeOver": take_over});
    desktop.answer(desktop.request(Method::POST, "lease").json(&body)).await
}

/// Moves the pointer as somebody.
async fn point(desktop: &Desktop, who: Option<&str>, x: u32) -> (u16, Value) {
    let request = desktop.request(Method::POST, "mouse/move").json(&json!({"x": x, "y": 1}));
    desktop.answer(who.into_iter().fold(request, |request, who| request.header("X-Desktop-Holder", who))).await
}

async fn follow(desktop: &Desktop) -> Events {
    desktop.server.stream("/v1/events?type=desktop.control", None).await
}

/// The next change: what, who has it, who had it.
async fn told(events: &mut Events) -> (Value, Value, Value) {
    let event = events.next().await.expect("an event").data;
    assert_eq!((&event["type"], &event["stream"]), (&json!("desktop.control"), &json!("desktop")), "{event}");
    (event["change"].clone(), event["holder"].clone(), event["previous"].clone())
}

#[tokio::test]
async fn a_desktop_is_taken_kept_from_others_and_given_back() {
    let home = Home::new();
    let desktop = Desktop::start(&home, &Options::default(), 610).await;
    let mut events = follow(&desktop).await;
    assert_eq!(desktop.get("lease").await, json!({"held": false}));
    let (status, taken) = lease(&desktop, "agent a", 60_000, false).await;
    assert_eq!((status, &taken["holder"]), (200, &json!("agent a")), "{taken}");
    assert_eq!(told(&mut events).await, (json!("taken"), json!("agent a"), Value::Null));
    assert_eq!(desktop.get("lease").await, taken);

    let (status, renewed) = lease(&desktop, "agent a", 120_000, false).await;
    assert_eq!((status, &renewed["since"]), (200, &taken["since"]));
    assert!(renewed["expiresAt"].as_str() > taken["expiresAt"].as_str(), "{renewed}");

    let (status, problem) = lease(&desktop, "b", 1_000, false).await;
    assert_eq!((status, &problem["code"], &problem["holder"]), (409, &json!("desktop_leased"), &json!("agent a")));
    assert_eq!(problem["expiresAt"], renewed["expiresAt"]);
    assert!(problem["detail"].as_str().is_some_and(|text| text.contains("takeOver")), "{problem}");

    assert_eq!(point(&desktop, Some("agent a"), 10).await.0, 200);
    let (status, problem) = point(&desktop, Some("b"), 20).await;
    assert_eq!((status, &problem["code"]), (409, &json!("desktop_leased")), "{problem}");
    let other_doors = [
        ("actions", json!({"actions": [{"type": "move", "x": 30, "y": 1}]})),
        ("keyboard/type", json!({"text": "x"})),
        ("accessibility/act", json!({"node": "1.0/1@00000000", "action": "click"})),
    ];
    for (path, body) in other_doors {
        let request = desktop.request(Method::POST, path).header("X-Desktop-Holder", "b");
        let (status, problem) = desktop.answer(request.json(&body)).await;
        assert_eq!((status, &problem["code"]), (409, &json!("desktop_leased")), "{path}: {problem}");
    }
    assert_eq!(desktop.get("mouse/position").await["x"], 10, "nothing of it was done");

    let give_back = async |holder: &str| {
        let path = format!("lease?holder={}", holder.replace(' ', "%20"));
        desktop.answer(desktop.request(Method::DELETE, &path)).await
    };
    assert_eq!(give_back("b").await, (204, Value::Null), "not b's: it stays");
    assert_eq!(desktop.get("lease").await["holder"], "agent a");
    assert_eq!(give_back("agent a").await.0, 204);
    assert_eq!(give_back("agent a").await.0, 204, "twice is once");
    assert_eq!(told(&mut events).await, (json!("given_back"), Value::Null, json!("agent a")));
    assert_eq!(desktop.get("lease").await, json!({"held": false}));
    assert_eq!(point(&desktop, Some("b"), 20).await.0, 200);
}

#[tokio::test]
async fn who_comes_in_between_or_takes_over_is_told_to_the_holder() {
    let home = Home::new();
    let desktop = Desktop::start(&home, &Options::default(), 620).await;
    let mut events = follow(&desktop).await;
    lease(&desktop, "a", 60_000, false).await;
    told(&mut events).await;
    for x in 0..50 {
        assert_eq!(point(&desktop, None, x).await.0, 200, "it is advisory");
    }
    assert_eq!(desktop.get("mouse/position").await["x"], 49);
    assert_eq!(told(&mut events).await, (json!("intruded"), json!("a"), Value::Null));
    assert_eq!(lease(&desktop, "b", 60_000, true).await.0, 200);
    // On a slow machine the fifty took more than a second, but not fifty.
    let mut others = 0;
    let last = loop {
        match told(&mut events).await {
            (change, ..) if change == "intruded" => others += 1,
            other => break other,
        }
    };
    assert!(others < 40, "{others}");
    assert_eq!(last, (json!("taken_over"), json!("b"), json!("a")));
    assert_eq!(point(&desktop, Some("a"), 1).await.0, 409, "it isn't a's any more");
    assert_eq!(point(&desktop, Some("b"), 2).await.0, 200);
}

#[tokio::test]
async fn a_lease_ends_by_itself_and_outlives_the_server() {
    let home = Home::new();
    let desktop = Desktop::start(&home, &Options::kept(), 630).await;
    let (_, taken) = lease(&desktop, "a", 3_600_000, false).await;
    desktop.crash().await;
    assert_eq!(desktop.get("lease").await, taken, "the next server knows of it");
    assert_eq!(point(&desktop, Some("b"), 2).await.0, 409);
    desktop.post("stop", &json!({})).await;
    desktop.begin().await;
    assert_eq!(desktop.get("lease").await, taken, "another desktop is the same to it");
    let mut events = follow(&desktop).await; // from the beginning
    assert_eq!(told(&mut events).await, (json!("taken"), json!("a"), Value::Null));
    assert_eq!(lease(&desktop, "a", 1, false).await.0, 200);
    assert_eq!(told(&mut events).await, (json!("expired"), Value::Null, json!("a")));
    assert_eq!(desktop.get("lease").await, json!({"held": false}));
    assert_eq!(lease(&desktop, "b", 1_000, false).await.0, 200);
}

#[tokio::test]
async fn what_is_no_lease_is_said() {
    let home = Home::new();
    let desktop = Desktop::start(&home, &Options::default().env("SANDBOXD_DESKTOP_LEASE_TTL_MAX_MS", "500"), 640).await;
    for (holder, ttl_ms) in [("", 100), (" a", 100), ("ä", 100), ("a", 0), ("a", 501)] {
        let (status, problem) = lease(&desktop, holder, ttl_ms, false).await;
        assert_eq!((status, &problem["code"]), (400, &json!("desktop_invalid_action")), "{holder:?} {ttl_ms}: {problem}");
    }
    assert_eq!(desktop.answer(desktop.request(Method::POST, "lease").json(&json!({"holder": "a"}))).await.0, 422);
    assert_eq!(desktop.answer(desktop.request(Method::DELETE, "lease")).await.0, 400);
    let (status, problem) = point(&desktop, Some(&"x".repeat(200)), 1).await;
    assert_eq!(status, 400, "{problem}");
    assert_eq!(lease(&desktop, "a", 500, false).await.0, 200);
    let free = async || (desktop.get("lease").await["held"] == false).then_some(());
    tokio::time::timeout(Duration::from_secs(30), until("its end", free)).await.expect("an end");
}
