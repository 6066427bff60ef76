//! The desktop beyond the contract, on a real X server with real programs. The contract's part is tested with the published SDK.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::desktop_support::{Desktop, until};
use crate::support::{Home, Options};

#[tokio::test]
async fn a_list_of_actions_is_done_in_order_and_tells_what_it_did() {
    let home = Home::new();
    let desktop = Desktop::start(&home, &Options::default(), 410).await;
    let file = desktop.typewriter(&home).await;
    let spec = json!({
        "actions": [
            {"type": "move", "x": 790, "y": 590},
            {"type": "type", "text": "größer 日本 😀\n"},
            {"type": "key", "key": "ctrl+d"},
            {"type": "waitStill", "quietMs": 200},
        ],
        "evidence": true,
        "screenshot": {"format": "jpeg", "cursor": true},
        "maxWidth": 800,
    });
    let result = desktop.post("actions", &spec).await;
    assert_eq!((&result["ok"], &result["completed"]), (&json!(true), &json!(4)), "{result}");
    assert_eq!((&result["pointer"]["x"], &result["pointer"]["y"]), (&json!(790), &json!(590)));
    assert_eq!(result["evidence"]["changed"], true, "the terminal is gone: {result}");
    assert_ne!(result["evidence"]["hashBefore"], result["evidence"]["hashAfter"]);
    assert!(result["screenshot"]["data"].as_str().is_some_and(|data| data.starts_with("/9j/")), "a JPEG");
    let typed = until("the text", async || std::fs::read_to_string(&file).ok().filter(|text| text.ends_with('\n'))).await;
    assert_eq!(typed, "größer 日本 😀\n");
    // What is wrong is said before anything is done.
    let wrong = json!({"actions": [{"type": "move", "x": 1, "y": 1}, {"type": "key", "key": "Entr"}]});
    let (status, problem) = desktop.refused("actions", &wrong).await;
    assert_eq!((status, &problem["code"]), (400, &json!("desktop_invalid_action")), "{problem}");
    assert!(problem["detail"].as_str().is_some_and(|text| text.contains("action 1") && text.contains("enter")), "{problem}");
    assert_eq!(desktop.get("mouse/position").await["x"], 790);
}

#[tokio::test]
async fn a_picture_of_what_changed_since_another_one() {
    let home = Home::new();
    let desktop = Desktop::start(&home, &Options::default(), 420).await;
    let shot = async |query: &str| {
        let answer = desktop.request(Method::GET, &format!("screenshot{query}")).send().await.expect("an answer");
        let header = |name: &str| answer.headers().get(name).map(|value| value.to_str().expect("text").to_owned());
        (answer.status().as_u16(), header("x-frame-id"), header("x-region"))
    };
    desktop.post("wait", &json!({"for": "still", "quietMs": 200})).await;
    let (status, id, region) = shot("").await;
    assert_eq!((status, region.as_deref()), (200, Some("0,0,800,600")));
    let id = id.expect("a frame id");
    assert_eq!(shot(&format!("?since={id}")).await.0, 204, "nothing is different");
    desktop.post("launch", &json!({"app": "xterm", "args": ["-geometry", "20x5+100+100"], "wait": true})).await;
    desktop.post("wait", &json!({"for": "still", "quietMs": 200})).await;
    let (status, _, region) = shot(&format!("?since={id}")).await;
    let parts: Vec<u32> = region.expect("a region").split(',').map(|part| part.parse().expect("a number")).collect();
    assert!(status == 200 && parts[2] < 800 && parts[3] < 600 && parts[0] <= 100 && parts[1] <= 100, "{parts:?}");
    assert_eq!(shot("?since=999999").await.2.as_deref(), Some("0,0,800,600"), "an id that nobody knows: all of it");
}

#[tokio::test]
async fn the_screen_gets_another_size_and_coordinates_of_a_smaller_picture_are_its() {
    let home = Home::new();
    let desktop = Desktop::start(&home, &Options::default(), 430).await;
    let info = desktop.post("display/resize", &json!({"width": 1600, "height": 1200})).await;
    assert_eq!((&info["resolution"]["width"], &info["resolution"]["height"]), (&json!(1600), &json!(1200)));
    let at = desktop.post("mouse/move", &json!({"x": 799, "y": 599, "maxWidth": 800})).await;
    assert_eq!((&at["x"], &at["y"]), (&json!(1599), &json!(1199)));
    let answer = desktop.request(Method::GET, "screenshot?maxWidth=800").send().await.expect("an answer");
    assert_eq!(answer.headers()["x-picture"], "800,600");
    let (status, problem) = desktop.refused("display/resize", &json!({"width": 60000, "height": 10})).await;
    assert_eq!(status, 400, "{problem}");
}

#[tokio::test]
async fn windows_become_what_is_asked_of_them() {
    let home = Home::new();
    let desktop = Desktop::start(&home, &Options::default(), 440).await;
    let launched = desktop.post("launch", &json!({"app": "xterm", "wait": true})).await;
    let id = launched["windowId"].as_str().expect("a window").to_owned();
    let change = async |change: Value| desktop.post(&format!("windows/{id}/change"), &json!({"change": change})).await;
    assert_eq!(change(json!("minimize")).await["minimized"], true);
    assert_eq!(desktop.get("windows").await["windows"], json!([]));
    assert_eq!(desktop.get("windows?hidden=true").await["windows"][0]["id"], json!(id));
    assert_eq!(change(json!("restore")).await["minimized"], false);
    let maximised = change(json!("maximize")).await;
    assert!(maximised["states"].as_array().is_some_and(|states| states.contains(&json!("maximized_vert"))), "{maximised}");
    assert_eq!(change(json!({"workspace": {"index": 1}})).await["workspace"], 1);
    desktop.post("workspace", &json!({"index": 1})).await;
    let close = desktop.request(Method::POST, &format!("windows/{id}/change")).json(&json!({"change": "close"}));
    assert_eq!(desktop.answer(close).await, (204, Value::Null), "it is no more");
    let gone = desktop.post("wait", &json!({"for": "window", "class": "xterm", "gone": true})).await;
    assert_eq!(gone["met"], true);
    let (status, problem) = desktop.refused(&format!("windows/{id}/change"), &json!({"change": "raise"})).await;
    assert_eq!((status, &problem["code"]), (404, &json!("window_not_found")));
}

#[tokio::test]
async fn selections_have_any_form() {
    let home = Home::new();
    let desktop = Desktop::start(&home, &Options::default(), 450).await;
    let picture = desktop.request(Method::GET, "screenshot").send().await.expect("an answer");
    let picture = picture.bytes().await.expect("bytes");
    let put = desktop.request(Method::PUT, "clipboard/content").header("content-type", "image/png").body(picture.clone());
    assert_eq!(put.send().await.expect("an answer").status(), 200);
    let got = desktop.request(Method::GET, "clipboard/content?target=image/png").send().await.expect("an answer");
    assert_eq!(got.headers()["content-type"], "image/png");
    assert!(got.bytes().await.expect("bytes") == picture, "the same picture");
    let text = desktop.get("clipboard").await;
    assert_eq!((&text["text"], &text["targets"]), (&json!(""), &json!(["image/png"])));
    assert_eq!(desktop.answer(desktop.request(Method::GET, "clipboard/content?target=text/html")).await.0, 204);
}

#[tokio::test]
async fn who_leaves_in_the_middle_leaves_nothing_pressed() {
    let home = Home::new();
    let desktop = Desktop::start(&home, &Options::default(), 460).await;
    let file = desktop.typewriter(&home).await;
    let body = json!({"text": "A".repeat(5000), "delayMs": 20});
    let typing = desktop.request(Method::POST, "keyboard/type").json(&body).timeout(Duration::from_millis(700));
    assert!(typing.send().await.is_err(), "it takes longer");
    desktop.post("keyboard/type", &json!({"text": "b\n"})).await;
    desktop.post("keyboard/press", &json!({"key": "ctrl+d"})).await;
    let typed = until("the text", async || std::fs::read_to_string(&file).ok().filter(|text| text.ends_with('\n'))).await;
    let before = typed.trim_end().strip_suffix('b').expect("no Shift is down");
    assert!(before.len() < 5000 && before.chars().all(|char| char == 'A'), "{} characters", before.len());
}

#[tokio::test]
async fn it_outlives_the_server_and_what_it_is_made_of_comes_back() {
    let home = Home::new();
    let desktop = Desktop::start(&home, &Options::kept(), 470).await;
    let launched = desktop.post("launch", &json!({"app": "xterm", "wait": true})).await;
    let (xvfb, window) = (desktop.pid_of("Xvfb").await, launched["windowId"].clone());
    assert!(xvfb.is_some() && window.is_string());
    let status = desktop.crash().await;
    assert_eq!((desktop.pid_of("Xvfb").await, &status["windows"][0]["id"]), (xvfb, &window), "{status}");
    desktop.post("mouse/move", &json!({"x": 5, "y": 6})).await;
    desktop.replace("openbox").await;
    desktop.replace("Xvfb").await;
    let status = desktop.active().await;
    assert_eq!(status["display"], ":470");
    assert!(status["restarts"].as_u64().is_some_and(|restarts| restarts >= 2), "{status}");
    assert_eq!(desktop.post("mouse/move", &json!({"x": 7, "y": 8})).await["x"], 7);
    let stopped = desktop.post("stop", &json!({})).await;
    assert_eq!((&stopped["state"], &stopped["processes"]), (&json!("inactive"), &json!([])));
}
