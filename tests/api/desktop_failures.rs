//! What goes wrong on a desktop, on a real X server with real programs; and drags that draw. The death of Xvfb and openbox is in
//! `desktop.rs` and in the tests with the published SDK.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use crate::desktop_support::{Desktop, screen, until};
use crate::support::{Home, Options};

/// A PNG: the same for the same pixels.
type Pixels = Vec<u8>;

/// A program for drawing, whose canvas is from 300, 150 to 560, 370; black, with a red pencil.
async fn painter(desktop: &Desktop) {
    desktop.post("launch", &json!({"app": "mtpaint", "wait": true})).await;
    desktop.post("wait", &json!({"for": "window", "title": "Settings Toolbar"})).await;
    desktop.post("wait", &json!({"for": "still", "quietMs": 500})).await;
    // Its settings lie over its tools, of which the pencil is the first.
    let windows = desktop.get("windows").await["windows"].clone();
    let settings = windows.as_array().into_iter().flatten().find(|window| window["title"] == "Settings Toolbar");
    let id = settings.and_then(|window| window["id"].as_str()).unwrap_or_else(|| panic!("no settings: {windows}"));
    desktop.post(&format!("windows/{id}/move"), &json!({"x": 480, "y": 380})).await;
    desktop.post("wait", &json!({"for": "still", "quietMs": 300})).await;
    desktop.post("mouse/click", &json!({"x": 18, "y": 101})).await;
}

async fn pixel(desktop: &Desktop, x: u32, y: u32) -> Pixels {
    part(desktop, (x, y, 1, 1)).await
}

async fn part(desktop: &Desktop, (x, y, width, height): (u32, u32, u32, u32)) -> Pixels {
    let path = format!("screenshot/region?x={x}&y={y}&width={width}&height={height}");
    let answer = desktop.request(Method::GET, &path).send().await.expect("an answer");
    assert_eq!(answer.status(), 200);
    answer.bytes().await.expect("a body").to_vec()
}

#[tokio::test]
async fn a_drag_draws_and_one_whose_client_dies_holds_no_button() {
    let home = Home::new();
    let desktop = Desktop::start(&home, &Options::default(), 510).await;
    painter(&desktop).await;
    let black = pixel(&desktop, 420, 180).await;
    assert!(pixel(&desktop, 440, 200).await == black, "nothing is drawn");
    let drawn = desktop.post("mouse/drag", &json!({"startX": 320, "startY": 200, "endX": 540, "endY": 200})).await;
    assert_eq!((&drawn["x"], &drawn["y"]), (&json!(540), &json!(200)));
    let red = until("the line", async || Some(pixel(&desktop, 440, 200).await).filter(|pixel| *pixel != black)).await;
    for x in [321, 350, 400, 500, 539] {
        until("the whole line", async || Some(pixel(&desktop, x, 200).await).filter(|pixel| *pixel == red)).await;
    }
    assert!(pixel(&desktop, 440, 203).await == black, "a line, and not a blot");
    // A path with corners, drawn in a list of actions.
    let path = json!([{"x": 330, "y": 230}, {"x": 500, "y": 230}, {"x": 500, "y": 260}]);
    let result = desktop.post("actions", &json!({"actions": [{"type": "drag", "path": path}], "evidence": true})).await;
    assert_eq!((&result["ok"], &result["evidence"]["changed"]), (&json!(true), &json!(true)), "{result}");
    for (x, y) in [(400, 230), (500, 245)] {
        until("the corner", async || Some(pixel(&desktop, x, y).await).filter(|pixel| *pixel == red)).await;
    }
    // The client dies in the middle of a third.
    let long = json!({"actions": [{"type": "drag", "path": [{"x": 320, "y": 300}, {"x": 550, "y": 300}], "durationMs": 20_000}]});
    let dying = desktop.request(Method::POST, "actions").json(&long).timeout(Duration::from_millis(1500));
    assert!(dying.send().await.is_err(), "it takes longer");
    // The button is up: what the pointer passes now isn't drawn on.
    let actions =
        json!([{"type": "move", "x": 540, "y": 350}, {"type": "move", "x": 330, "y": 340}, {"type": "wait", "ms": 300}]);
    desktop.post("actions", &json!({"actions": actions})).await;
    until("its beginning", async || Some(pixel(&desktop, 325, 300).await).filter(|pixel| *pixel == red)).await;
    assert!(pixel(&desktop, 545, 300).await == black, "and not ended");
    let below = part(&desktop, (310, 310, 240, 50)).await;
    desktop.post("actions", &json!({"actions": [{"type": "move", "x": 520, "y": 320}, {"type": "wait", "ms": 200}]})).await;
    assert!(part(&desktop, (310, 310, 240, 50)).await == below);
    assert!(pixel(&desktop, 430, 345).await == black, "nothing was drawn without a button");
}

#[tokio::test]
async fn where_no_display_is_free_that_is_said() {
    let home = Home::new();
    let desktop = Desktop::inactive(&home, &Options::default(), screen(520, 800, 600));
    // As of servers that run: this process holds them.
    let locks: Vec<PathBuf> = (520..530).map(|display| PathBuf::from(format!("/tmp/.X{display}-lock"))).collect();
    for lock in &locks {
        std::fs::write(lock, format!("{:>10}\n", std::process::id())).expect("a lock");
    }
    let (status, problem) = desktop.server.send("/v1/desktop/start", &json!({"displayNum": 520})).await;
    for lock in &locks {
        std::fs::remove_file(lock).expect("removed");
    }
    assert_eq!((status, &problem["code"]), (503, &json!("desktop_runtime_failed")), "{problem}");
    assert!(problem["detail"].as_str().is_some_and(|text| text.contains("no display is free from :520 to :529")), "{problem}");
    let status = desktop.get("status").await;
    assert_eq!((&status["state"], &status["processes"]), (&json!("failed"), &json!([])), "{status}");
    assert_eq!(desktop.begin().await["display"], ":520", "and now it is");
}

/// Everything is about windows that vanish, from many clients at once.
#[tokio::test]
async fn a_storm_of_x_errors_breaks_nothing() {
    let home = Home::new();
    let desktop = Desktop::start(&home, &Options::default(), 540).await;
    let mut seen = std::collections::BTreeMap::<(u16, String), u32>::new();
    for _ in 0..3 {
        let launched = desktop.post("launch", &json!({"app": "xterm", "wait": true})).await;
        let id = launched["windowId"].as_str().expect("a window").to_owned();
        let process = launched["processId"].as_str().expect("a process").to_owned();
        let calls = (0..120_u32).map(|number| {
            let (desktop, id) = (&desktop, &id);
            async move {
                let id = if number % 2 == 0 { id.clone() } else { (0x00de_ad00 + number).to_string() };
                let (path, body) = match number % 4 {
                    0 | 1 => (format!("windows/{id}/move"), json!({"x": number, "y": number})),
                    2 => (format!("windows/{id}/focus"), json!({})),
                    _ => (format!("windows/{id}/change"), json!({"change": "raise"})),
                };
                desktop.answer(desktop.request(Method::POST, &path).json(&body)).await
            }
        });
        let kill = async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            desktop.server.send(&format!("/v1/processes/{process}/kill"), &json!({})).await
        };
        let (answers, _) = tokio::join!(futures_util::future::join_all(calls), kill);
        for (status, body) in answers {
            *seen.entry((status, body["code"].as_str().unwrap_or("").to_owned())).or_default() += 1;
        }
    }
    let allowed = [(200, ""), (404, "window_not_found"), (409, "desktop_runtime_starting")]; // the last: more than may wait
    assert!(seen.keys().all(|(status, code)| allowed.contains(&(*status, code))), "{seen:?}");
    assert!(seen.get(&(404, "window_not_found".to_owned())) > Some(&100), "{seen:?}");
    let status = desktop.get("status").await;
    assert_eq!((&status["state"], status.get("restarts")), (&json!("active"), None), "{status}");
    let launched = desktop.post("launch", &json!({"app": "xterm", "wait": true})).await;
    let id = launched["windowId"].as_str().expect("a window");
    assert_eq!(desktop.post(&format!("windows/{id}/focus"), &json!({})).await["isActive"], true);
}

#[tokio::test]
async fn a_full_disk_ends_a_recording_that_plays_and_nothing_else() {
    let home = Home::new();
    let small = home.path().join("small");
    std::fs::create_dir(&small).expect("a folder");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]).arg(&small).status().expect("mount runs");
    assert!(mounted.success(), "this test needs to mount a file system");
    let mut spec = screen(550, 800, 600);
    spec["stateDir"] = json!(small);
    let desktop = Desktop::start_with(&home, &Options::default(), spec).await;
    let noise = "while :; do head -c 2000 /dev/urandom | base64 -w 70; done";
    let xterm = json!({"app": "xterm", "args": ["-geometry", "120x40", "-e", "sh", "-c", noise], "wait": true});
    desktop.post("launch", &xterm).await;
    let recording = desktop.post("recording/start", &json!({"fps": 30})).await;
    let path = format!("/v1/desktop/recordings/{}", recording["id"].as_str().expect("an id"));
    let look = async || Some(desktop.server.get(&path).await.1).filter(|now| now["status"] != "recording");
    let ended = until("its end", look).await;
    let download = desktop.server.http.get(desktop.server.url(&format!("{path}/download"))).send().await.expect("an answer");
    let video = home.path().join("video.mp4");
    std::fs::write(&video, download.bytes().await.expect("a body")).expect("written");
    let screenshot = desktop.request(Method::GET, "screenshot").send().await.expect("an answer").status();
    let moved = desktop.server.send("/v1/desktop/mouse/move", &json!({"x": 9, "y": 9})).await.0;
    let stopped = desktop.server.send("/v1/desktop/stop", &json!({})).await.0;
    let unmounted = Command::new("umount").arg("--lazy").arg(&small).status().expect("umount runs");
    assert!(unmounted.success());
    assert_eq!(ended["reason"], "disk", "{ended}");
    assert_eq!((screenshot.as_u16(), moved, stopped), (200, 200, 200));
    let probe = Command::new("ffprobe")
        .args(["-v", "error", "-count_frames", "-show_entries", "stream=nb_read_frames", "-of", "csv=p=0"])
        .arg(&video)
        .stdin(Stdio::null())
        .output()
        .expect("ffprobe runs");
    let frames = String::from_utf8_lossy(&probe.stdout).trim().parse::<u32>();
    assert!(probe.status.success() && frames.as_ref().is_ok_and(|frames| *frames > 5), "{frames:?} {ended}");
}
