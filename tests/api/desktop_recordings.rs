//! Recordings of the desktop: real Xvfb, real programs, files judged by ffprobe and ffmpeg.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::desktop_support::Desktop;
use crate::support::{Home, Options};

fn small(display: u32) -> Value {
    json!({"displayNum": display, "width": 640, "height": 480, "maxWidth": 800, "maxHeight": 600})
}

/// An xterm that never stops scrolling.
async fn scroll(desktop: &Desktop) {
    let script = "i=0; while :; do i=$((i+1)); echo line $i of a text that scrolls; sleep 0.02; done";
    let args = json!({"app": "xterm", "args": ["-geometry", "80x24", "-e", "sh", "-c", script]});
    desktop.post("launch", &args).await;
    let seen = desktop.post("wait", &json!({"for": "window", "class": "xterm", "timeoutMs": 30_000})).await;
    assert_eq!(seen["met"], true, "{seen}");
}

/// Some seconds of it, and something of that on the disk.
fn grows(now: &Value) -> bool {
    now["durationMs"].as_u64() > Some(2500) && now["bytes"].as_u64() > Some(0)
}

async fn download(desktop: &Desktop, id: &str, range: Option<&str>) -> (u16, reqwest::header::HeaderMap, Vec<u8>) {
    let mut request = desktop.request(Method::GET, &format!("recordings/{id}/download"));
    if let Some(range) = range {
        request = request.header("range", range);
    }
    let response = request.send().await.expect("an answer");
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    (status, headers, response.bytes().await.expect("a body").to_vec())
}

/// A program that must work; what it says.
fn run(program: &str, args: &[&str]) -> Vec<u8> {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{program} is missing: {error}"));
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// What ffprobe says of the video, with its frames counted; all of it is decoded.
fn probe(path: &Path) -> Value {
    let path = path.to_str().expect("UTF-8");
    let decoded = ["-v", "error", "-xerror", "-i", path, "-f", "null", "-"];
    run("ffmpeg", &decoded);
    let text = run(
        "ffprobe",
        &["-v", "error", "-count_frames", "-show_streams", "-show_format", "-select_streams", "v:0", "-of", "json", path],
    );
    let all: Value = serde_json::from_slice(&text).expect("JSON");
    let number = |value: &Value| value.as_str().and_then(|text| text.parse::<f64>().ok()).unwrap_or_default();
    let stream = &all["streams"][0];
    json!({
        "codec": stream["codec_name"], "width": stream["width"], "height": stream["height"],
        "frames": number(&stream["nb_read_frames"]), "seconds": number(&all["format"]["duration"]),
    })
}

/// The first picture of a file, cut to a size: red, green, blue.
fn pixels(path: &Path, width: u32, height: u32) -> Vec<u8> {
    let crop = format!("crop={width}:{height}:0:0:exact=1,format=rgb24");
    let path = path.to_str().expect("UTF-8");
    run("ffmpeg", &["-v", "error", "-i", path, "-frames:v", "1", "-vf", &crop, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"])
}

fn mean_difference(a: &[u8], b: &[u8]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>() / a.len() as f64
}

fn put(home: &Home, name: &str, bytes: &[u8]) -> PathBuf {
    let path = home.path().join(name);
    std::fs::write(&path, bytes).expect("written");
    path
}

fn folder(home: &Home) -> PathBuf {
    home.path().join(".local/state/sandbox-agent/desktop/recordings")
}

#[tokio::test]
async fn a_scrolling_terminal_is_recorded_and_plays_while_it_grows() {
    let home = Home::new();
    let mut spec = small(300);
    (spec["width"], spec["height"]) = (json!(641), json!(479));
    let desktop = Desktop::start_with(&home, &Options::default(), spec).await;
    let mut events = desktop.server.stream("/v1/events", None).await;
    let started = desktop.post("recording/start", &json!({"cursor": false})).await;
    assert_eq!(
        json!([started["id"], started["status"], started["fileName"], started["width"], started["height"], started["fps"]]),
        json!(["rec_1", "recording", "rec_1.mp4", 642, 480, 30])
    );
    assert!(started["endedAt"].is_null() && started["reason"].is_null());
    let shot = desktop.request(Method::GET, "screenshot").send().await.expect("a picture");
    let shot = put(&home, "shot.png", &shot.bytes().await.expect("a body"));

    scroll(&desktop).await;
    let growing = desktop.when("recordings/rec_1", grows).await;
    assert_eq!(growing["status"], "recording");
    let (status, headers, bytes) = download(&desktop, "rec_1", None).await;
    assert_eq!((status, headers["content-type"].to_str().ok()), (200, Some("video/mp4")));
    assert!(!headers.contains_key("etag"), "its head will change");
    let partly = probe(&put(&home, "growing.mp4", &bytes));
    assert!(partly["frames"].as_f64() > Some(3.0), "{partly}");

    let ended = desktop.post("recording/stop", &json!({})).await;
    assert_eq!(json!([ended["status"], ended["reason"], ended["paused"]]), json!(["completed", "stopped", false]));
    let (_, headers, whole) = download(&desktop, "rec_1", None).await;
    assert_eq!(ended["bytes"], whole.len());
    let path = put(&home, "whole.mp4", &whole);
    let video = probe(&path);
    assert_eq!(json!([video["codec"], video["width"], video["height"]]), json!(["h264", 642, 480]));
    assert!(video["frames"].as_f64() > partly["frames"].as_f64(), "{video} after {partly}");
    let told = ended["durationMs"].as_f64().expect("a number") / 1000.0;
    assert!((video["seconds"].as_f64().expect("a number") - told).abs() < 0.1, "{video}, told {told}");

    let seen = pixels(&shot, 641, 479);
    let first = mean_difference(&pixels(&path, 641, 479), &seen);
    assert!(first < 4.0, "the first frame is {first} from the screenshot");
    let poster = desktop.request(Method::GET, "recordings/rec_1/poster").send().await.expect("an answer");
    assert_eq!(poster.headers()["content-type"], "image/png");
    let poster = put(&home, "poster.png", &poster.bytes().await.expect("a body"));
    assert!(pixels(&poster, 641, 479) == seen, "the poster is the screen as it was");

    let etag = headers["etag"].to_str().expect("text");
    let (status, part_headers, part) = download(&desktop, "rec_1", Some("bytes=100-299")).await;
    assert_eq!((status, part.as_slice()), (206, &whole[100..300]));
    assert_eq!(part_headers["content-range"], format!("bytes 100-299/{}", whole.len()));
    assert_eq!(part_headers["etag"], etag);
    assert_eq!(download(&desktop, "rec_1", Some("bytes=-10")).await.2, whole[whole.len() - 10..]);
    assert_eq!(download(&desktop, "rec_1", Some("bytes=999999999-")).await.0, 416);
    let seen = events.until(|event| event.data["type"] == "desktop.recording_ended").await;
    assert!(seen.iter().any(|event| event.data["type"] == "desktop.recording_started"), "{seen:?}");
}

#[tokio::test]
async fn a_still_screen_costs_nearly_nothing_and_the_pointer_is_seen() {
    let home = Home::new();
    let desktop = Desktop::start_with(&home, &Options::default(), small(310)).await;
    desktop.post("mouse/move", &json!({"x": 20, "y": 20})).await;
    desktop.post("wait", &json!({"for": "still", "quietMs": 1000})).await;
    desktop.post("recording/start", &json!({"fps": 60})).await;
    desktop.when("recordings/rec_1", |now| now["durationMs"].as_u64() > Some(4000)).await;
    let still = desktop.post("recording/stop", &json!({})).await;
    let video = probe(&folder(&home).join("rec_1.mp4"));
    assert!(video["frames"].as_f64() <= Some(4.0), "{video}");
    assert!(video["seconds"].as_f64() > Some(3.9), "{video}");

    desktop.post("recording/start", &json!({"fps": 60, "region": {"x": 0, "y": 0, "width": 200, "height": 5000}})).await;
    for step in 1..=10 {
        desktop.post("mouse/move", &json!({"x": 20 + step * 15, "y": 100})).await;
        tokio::time::sleep(Duration::from_millis(120)).await;
    }
    let moved = desktop.post("recording/stop", &json!({})).await;
    assert_eq!(json!([moved["width"], moved["height"]]), json!([200, 480]), "clipped to the screen");
    let moved = probe(&folder(&home).join("rec_2.mp4"));
    assert!(moved["frames"].as_f64() > Some(3.0), "{moved}");
    let bytes = still["bytes"].as_u64().expect("a number");
    assert!(bytes < 300_000, "{bytes} bytes");
}

#[tokio::test]
async fn a_killed_server_loses_no_recording_and_numbers_never_come_again() {
    let home = Home::new();
    let desktop = Desktop::start_with(&home, &Options::kept(), small(320)).await;
    scroll(&desktop).await;
    desktop.post("recording/start", &json!({})).await;
    desktop.when("recordings/rec_1", grows).await;
    desktop.server.crash();
    let ended = desktop.get("recordings/rec_1").await;
    assert_eq!(json!([ended["status"], ended["reason"]]), json!(["completed", "server_restarted"]));
    assert!(ended["endedAt"].is_string() && ended["durationMs"].as_u64() > Some(1000), "{ended}");
    let (_, _, whole) = download(&desktop, "rec_1", None).await;
    let video = probe(&put(&home, "killed.mp4", &whole));
    assert!(video["seconds"].as_f64() > Some(1.0) && video["frames"].as_f64() > Some(3.0), "{video}");
    assert_eq!(ended["bytes"], whole.len());

    // The desktop outlived it.
    desktop.active().await;
    assert_eq!(desktop.post("recording/start", &json!({})).await["id"], "rec_2");
    desktop.post("recording/stop", &json!({})).await;
    assert_eq!(desktop.answer(desktop.request(Method::DELETE, "recordings/rec_2")).await.0, 204);
    desktop.crash().await;
    assert_eq!(desktop.post("recording/start", &json!({})).await["id"], "rec_3");
    let list = desktop.get("recordings").await;
    let ids: Vec<_> = list["recordings"].as_array().expect("a list").iter().map(|one| one["id"].clone()).collect();
    assert_eq!(ids, ["rec_1", "rec_3"]);
    desktop.server.stop();
}

#[tokio::test]
async fn whoever_asks_at_the_wrong_time_is_told_why() {
    let home = Home::new();
    let mut spec = small(330);
    spec["recordingFps"] = json!(7);
    let desktop = Desktop::inactive(&home, &Options::default().env("SANDBOXD_DESKTOP_RECORDINGS_MAX", "2"), spec);
    let conflict = async |path: &str, words: &str| {
        let (status, body) = desktop.refused(path, &json!({})).await;
        assert_eq!((status, body["title"].as_str()), (409, Some("Conflict")), "{body}");
        assert!(body["detail"].as_str().is_some_and(|detail| detail.contains(words)), "{body}");
    };
    let start = "recording/start";
    conflict(start, "start it first").await;
    conflict("recording/stop", "no recording is under way").await;
    desktop.begin().await;
    conflict("recording/pause", "no recording is under way").await;
    for wrong in [
        json!({"maxBytes": 0}),
        json!({"maxDurationMs": 1_000_000_000}),
        json!({"region": {"x": 0, "y": 0, "width": 0, "height": 9}}),
        json!({"region": {"x": 5000, "y": 0, "width": 9, "height": 9}}),
    ] {
        let (status, body) = desktop.refused(start, &wrong).await;
        assert_eq!((status, body["code"].as_str()), (400, Some("desktop_invalid_action")), "{wrong}: {body}");
    }
    assert_eq!(desktop.refused(start, &json!({"fps": -1})).await.0, 422);
    assert_eq!(desktop.post(start, &json!({})).await["fps"], 7);
    conflict(start, "under way").await;
    let delete = async |id: &str| desktop.answer(desktop.request(Method::DELETE, &format!("recordings/{id}"))).await.0;
    assert_eq!(delete("rec_1").await, 409);
    let stopped = desktop.post("recording/stop", &json!({})).await;
    assert_eq!(stopped["status"], "completed", "however short it was");
    assert_eq!(desktop.post(start, &json!({"fps": 500, "maxDurationMs": 300})).await["fps"], 60);
    let ended = desktop.when("recordings/rec_2", |now| now["status"] != "recording").await;
    assert_eq!(json!([ended["status"], ended["reason"], ended["durationMs"]]), json!(["completed", "duration", 300]));
    conflict(start, "delete some first").await;

    assert_eq!(delete("rec_2").await, 204);
    assert_eq!(delete("rec_2").await, 404);
    let (status, body) = desktop.server.get("/v1/desktop/recordings/rec_2").await;
    assert_eq!((status, &body["details"]), (404, &json!({"id": "rec_2", "resource": "desktop_recording"})));
    assert_eq!(desktop.server.get("/v1/desktop/recordings/..%2Frec_1").await.0, 404);
    assert!(!folder(&home).join("rec_2.mp4").exists() && !folder(&home).join("rec_2.png").exists());
    std::fs::remove_file(folder(&home).join("rec_1.mp4")).expect("removed");
    let (status, body) = desktop.server.get("/v1/desktop/recordings/rec_1/download").await;
    assert_eq!((status, &body["details"]["resource"]), (404, &json!("desktop_recording_file")));

    scroll(&desktop).await;
    desktop.post(start, &json!({"maxBytes": 60_000})).await;
    let full = desktop.when("recordings/rec_3", |now| now["status"] != "recording").await;
    assert_eq!(full["reason"], "size", "{full}");
    assert!(full["bytes"].as_u64() <= Some(60_000), "{full}");
}

#[tokio::test]
async fn the_end_of_a_desktop_or_a_server_ends_a_recording_well() {
    let home = Home::new();
    let desktop = Desktop::start_with(&home, &Options::default(), small(340)).await;
    scroll(&desktop).await;
    desktop.post("recording/start", &json!({})).await;
    desktop.when("recordings/rec_1", |now| now["durationMs"].as_u64() > Some(500)).await;
    desktop.post("stop", &json!({})).await;
    let stopped = desktop.get("recordings/rec_1").await;
    assert_eq!(json!([stopped["status"], stopped["reason"]]), json!(["completed", "desktop_stopped"]), "{stopped}");
    probe(&folder(&home).join("rec_1.mp4"));

    desktop.begin().await;
    desktop.post("recording/start", &json!({})).await;
    desktop.when("recordings/rec_2", |now| now["durationMs"].as_u64() > Some(500)).await;
    desktop.kill("Xvfb").await;
    let ended = desktop.when("recordings/rec_2", |now| now["status"] != "recording").await;
    assert_eq!(json!([ended["status"], ended["reason"]]), json!(["completed", "desktop_restarted"]));
    probe(&folder(&home).join("rec_2.mp4"));

    desktop.active().await;
    desktop.post("recording/start", &json!({})).await;
    desktop.when("recordings/rec_3", |now| now["durationMs"].as_u64() > Some(500)).await;
    desktop.server.stop();
    let desktop = Desktop::inactive(&home, &Options::default(), Value::Null);
    let ended = desktop.get("recordings/rec_3").await;
    assert_eq!(json!([ended["status"], ended["reason"]]), json!(["completed", "server_stopped"]));
    probe(&folder(&home).join("rec_3.mp4"));
}

#[tokio::test]
async fn a_pause_is_not_in_the_video_and_another_screen_size_is_scaled() {
    let home = Home::new();
    let desktop = Desktop::start_with(&home, &Options::default(), small(350)).await;
    scroll(&desktop).await;
    let began = Instant::now();
    desktop.post("recording/start", &json!({})).await;
    desktop.when("recordings/rec_1", |now| now["durationMs"].as_u64() > Some(1000)).await;
    let paused = desktop.post("recording/pause", &json!({})).await;
    let pause_began = Instant::now();
    assert_eq!(json!([paused["status"], paused["paused"]]), json!(["recording", true]));
    assert_eq!(desktop.post("recording/pause", &json!({})).await["paused"], true);
    let bytes = desktop.get("recordings/rec_1").await["bytes"].clone();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let still = desktop.get("recordings/rec_1").await;
    assert_eq!(json!([still["bytes"], still["durationMs"]]), json!([bytes, paused["durationMs"]]));
    let pause = pause_began.elapsed();
    assert_eq!(desktop.post("recording/resume", &json!({})).await["paused"], false);
    desktop.post("display/resize", &json!({"width": 800, "height": 600})).await;
    desktop.when("recordings/rec_1", |now| now["durationMs"].as_u64() > Some(2500)).await;
    let ended = desktop.post("recording/stop", &json!({})).await;
    let at_most = began.elapsed() - pause;
    let video = probe(&folder(&home).join("rec_1.mp4"));
    assert!(ended["durationMs"].as_u64().map(Duration::from_millis) <= Some(at_most), "{ended}, at most {at_most:?}");
    assert_eq!(json!([video["width"], video["height"]]), json!([640, 480]));
}
