//! Several displays on one desktop.

use reqwest::Method;
use serde_json::{Value, json};
use x_desktop::picture::{Frame, decode};

use crate::desktop_support::{Desktop, until};
use crate::support::{Home, Options};

/// A picture with the part of the screen that it shows.
async fn shot(desktop: &Desktop, query: &str) -> (Frame, String) {
    let answer = desktop.request(Method::GET, &format!("screenshot{query}")).send().await.expect("an answer");
    assert_eq!(answer.status(), 200, "{query}");
    let region = answer.headers()["x-region"].to_str().expect("text").to_owned();
    (decode(&answer.bytes().await.expect("bytes"), u64::MAX, (0, 0, 0)).expect("a picture"), region)
}

fn two() -> Value {
    json!({"displays": [{"name": "left", "width": 800, "height": 600}, {"name": "right", "width": 1000, "height": 700}]})
}

fn listed(name: &str, x: u32, y: u32, width: u32, height: u32, primary: bool) -> Value {
    json!({"name": name, "x": x, "y": y, "width": width, "height": height, "primary": primary})
}

fn both() -> Value {
    json!({"displays": [listed("left", 0, 0, 800, 600, true), listed("right", 800, 0, 1000, 700, false)]})
}

#[tokio::test]
async fn a_screen_is_divided_seen_and_used_in_parts() {
    let home = Home::new();
    let desktop = Desktop::start(&home, &Options::default(), 680).await;
    let one = desktop.get("displays").await;
    assert_eq!((one["displays"].as_array().map(Vec::len), &one["displays"][0]["width"]), (Some(1), &json!(800)), "{one}");
    assert_eq!(desktop.put("displays", &two()).await, both());
    assert_eq!(desktop.get("displays").await, both());
    let info = desktop.get("display/info").await;
    assert_eq!((&info["resolution"]["width"], &info["resolution"]["height"]), (&json!(1800), &json!(700)));

    // An input counts from the display's corner and stays on it; so does a picture.
    let at = desktop.post("mouse/move", &json!({"x": 10, "y": 20, "display": "right"})).await;
    assert_eq!((&at["x"], &at["y"]), (&json!(810), &json!(20)));
    let at = desktop.post("mouse/move", &json!({"x": 5000, "y": 5000, "display": "left"})).await;
    assert_eq!((&at["x"], &at["y"]), (&json!(799), &json!(599)));
    let at = desktop.post("mouse/move", &json!({"x": 499, "y": 0, "display": "right", "maxWidth": 500})).await;
    assert_eq!(at["x"], 1799);
    desktop
        .post("launch", &json!({"app": "xterm", "args": ["-bg", "#ff0000", "-geometry", "20x5+1300+300"], "wait": true}))
        .await;
    desktop.post("wait", &json!({"for": "still", "quietMs": 300})).await;
    let (whole, region) = shot(&desktop, "").await;
    assert_eq!(region, "0,0,1800,700");
    let (right, region) = shot(&desktop, "?display=right").await;
    assert_eq!((region.as_str(), right.rect.width, right.rect.height), ("800,0,1000,700", 1000, 700));
    let red = (0..700).flat_map(|y| (0..1000).map(move |x| (x, y))).filter(|(x, y)| right.pixel(*x, *y) == Some((255, 0, 0)));
    let red: Vec<_> = red.collect();
    assert!(red.len() > 1000 && red.iter().all(|(x, y)| whole.pixel(x + 800, *y) == Some((255, 0, 0))), "{}", red.len());
    let (part, region) = shot(&desktop, "/region?display=right&x=990&y=690&width=50&height=50").await;
    assert_eq!((region.as_str(), part.rect.width), ("1790,690,10,10", 10), "clipped to it");
    let (small, _) = shot(&desktop, "?display=right&maxWidth=500").await;
    assert_eq!((small.rect.width, small.rect.height), (500, 350));
    let actions = json!({"actions": [{"type": "move", "x": 1, "y": 2}], "display": "right", "screenshot": {}});
    let result = desktop.post("actions", &actions).await;
    assert_eq!((&result["pointer"]["x"], &result["screenshot"]["region"]["x"]), (&json!(801), &json!(800)), "{result}");

    // A window fills the display that it is on, not the screen.
    let windows = desktop.get("windows").await;
    let id = windows["windows"][0]["id"].as_str().expect("a window").to_owned();
    let filled = desktop.post(&format!("windows/{id}/change"), &json!({"change": "fullscreen"})).await;
    let place = [&filled["x"], &filled["y"], &filled["width"], &filled["height"]];
    assert_eq!(place, [&json!(800), &json!(0), &json!(1000), &json!(700)], "{filled}");
}

#[tokio::test]
async fn displays_outlive_xvfb_and_the_server_and_end_with_a_resize_or_a_stop() {
    let home = Home::new();
    let desktop = Desktop::start(&home, &Options::kept(), 690).await;
    desktop.put("displays", &two()).await;
    desktop.replace("Xvfb").await;
    assert_eq!(desktop.get("displays").await, both(), "another X server");
    desktop.crash().await;
    assert_eq!(desktop.get("displays").await, both(), "another server");
    desktop.replace("Xvfb").await;
    assert_eq!(desktop.get("displays").await, both(), "both");
    desktop.post("display/resize", &json!({"width": 900, "height": 650})).await;
    let one = desktop.get("displays").await;
    assert_eq!((one["displays"].as_array().map(Vec::len), &one["displays"][0]["width"]), (Some(1), &json!(900)), "{one}");
    desktop.put("displays", &two()).await;
    desktop.post("stop", &json!({})).await;
    desktop.begin().await;
    let again = until("one display", async || Some(desktop.get("displays").await)).await;
    assert_eq!((again["displays"].as_array().map(Vec::len), &again["displays"][0]["width"]), (Some(1), &json!(800)), "{again}");
}

#[tokio::test]
async fn what_no_display_can_be_is_said() {
    let home = Home::new();
    let desktop = Desktop::start(&home, &Options::default(), 700).await;
    desktop.put("displays", &two()).await;
    let own = json!({"name": "a", "width": 10, "height": 10});
    let wrong = [
        json!([]),
        json!(vec![own.clone(); 9]),
        json!([own, own]),
        json!([{"name": "a b", "width": 10, "height": 10}]),
        json!([{"name": "a", "width": 0, "height": 10}]),
        json!([{"name": "a", "width": 10, "height": 10}, {"name": "b", "width": 10, "height": 10, "x": 9}]),
    ];
    for displays in wrong {
        let (status, problem) =
            desktop.answer(desktop.request(Method::PUT, "displays").json(&json!({"displays": displays}))).await;
        assert_eq!((status, &problem["code"]), (400, &json!("desktop_invalid_action")), "{displays}: {problem}");
    }
    assert_eq!(desktop.get("displays").await, both(), "as it was");
    let (status, problem) = desktop.answer(desktop.request(Method::GET, "screenshot?display=middle")).await;
    let names_them = problem["detail"].as_str().is_some_and(|text| text.contains("left, right"));
    assert_eq!((status, names_them), (400, true), "{problem}");
    let request = desktop.request(Method::POST, "mouse/move").json(&json!({"x": 1, "y": 1, "display": "middle"}));
    assert_eq!(desktop.answer(request).await.0, 400);
    assert_eq!(desktop.answer(desktop.request(Method::GET, "screenshot?display=left&since=1")).await.0, 400);
    // More than the X server can hold.
    let large = json!({"displays": [{"name": "a", "width": 2560, "height": 600}, {"name": "b", "width": 800, "height": 600}]});
    let (status, problem) = desktop.answer(desktop.request(Method::PUT, "displays").json(&large)).await;
    assert_eq!((status, &problem["code"]), (400, &json!("desktop_invalid_action")), "{problem}");
    assert_eq!(desktop.get("displays").await, both(), "as it was");
}
