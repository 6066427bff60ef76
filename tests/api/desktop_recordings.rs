//! Recordings of the desktop: real Xvfb, real programs, files judged by ffprobe and ffmpeg.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Home, Options, PATIENCE, Server, kill};

/// Starts a desktop on a display of this test alone, and gives its status.
async fn desktop(server: &Server, first_display: u32, more: Value) -> Value {
    let mut spec = json!({"displayNum": first_display, "width": 640, "height": 480, "maxWidth": 800, "maxHeight": 600});
    spec.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    let (status, body) = server.send("/v1/desktop/start", &spec).await;
    assert_eq!(status, 200, "{body}");
    body
}

async fn post(server: &Server, path: &str, body: Value) -> Value {
    let (status, answer) = server.send(path, &body).await;
    assert_eq!(status, 200, "{path}: {answer}");
    answer
}

/// An xterm that never stops scrolling.
async fn scroll(server: &Server) {
    let script = "i=0; while :; do i=$((i+1)); echo line $i of a text that scrolls; sleep 0.02; done";
    let args = json!({"app": "xterm", "args": ["-geometry", "80x24", "-e", "sh", "-c", script]});
    post(server, "/v1/desktop/launch", args).await;
    let seen = post(server, "/v1/desktop/wait", json!({"for": "window", "class": "xterm", "timeoutMs": 30_000})).await;
    assert_eq!(seen["met"], true, "{seen}");
}

async fn recording(server: &Server, id: &str) -> Value {
    let (status, body) = server.get(&format!("/v1/desktop/recordings/{id}")).await;
    assert_eq!(status, 200, "{body}");
    body
}

/// Waits until what is told of a recording fits.
async fn until(server: &Server, id: &str, fits: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = recording(server, id).await;
        if fits(&now) {
            return now;
        }
        assert!(Instant::now() < deadline, "it stays {now}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn download(server: &Server, id: &str, range: Option<&str>) -> (u16, reqwest::header::HeaderMap, Vec<u8>) {
    let mut request = server.http.get(server.url(&format!("/v1/desktop/recordings/{id}/download")));
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
    let server = Server::start(&home);
    desktop(&server, 300, json!({"width": 641, "height": 479})).await;
    let mut events = server.stream("/v1/events", None).await;
    let started = post(&server, "/v1/desktop/recording/start", json!({"cursor": false})).await;
    assert_eq!(
        json!([started["id"], started["status"], started["fileName"], started["width"], started["height"], started["fps"]]),
        json!(["rec_1", "recording", "rec_1.mp4", 642, 480, 30])
    );
    assert!(started["endedAt"].is_null() && started["reason"].is_null());
    let shot = server.http.get(server.url("/v1/desktop/screenshot")).send().await.expect("a picture");
    let shot = put(&home, "shot.png", &shot.bytes().await.expect("a body"));

    scroll(&server).await;
    let growing = until(&server, "rec_1", |now| now["durationMs"].as_u64() > Some(2500) && now["bytes"].as_u64() > Some(0)).await;
    assert_eq!(growing["status"], "recording");
    let (status, headers, bytes) = download(&server, "rec_1", None).await;
    assert_eq!((status, headers["content-type"].to_str().ok()), (200, Some("video/mp4")));
    assert!(!headers.contains_key("etag"), "its head will change");
    let partly = probe(&put(&home, "growing.mp4", &bytes));
    assert!(partly["frames"].as_f64() > Some(3.0), "{partly}");

    let ended = post(&server, "/v1/desktop/recording/stop", json!({})).await;
    assert_eq!(json!([ended["status"], ended["reason"], ended["paused"]]), json!(["completed", "stopped", false]));
    let (_, headers, whole) = download(&server, "rec_1", None).await;
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
    let poster = server.http.get(server.url("/v1/desktop/recordings/rec_1/poster")).send().await.expect("an answer");
    assert_eq!(poster.headers()["content-type"], "image/png");
    let poster = put(&home, "poster.png", &poster.bytes().await.expect("a body"));
    assert!(pixels(&poster, 641, 479) == seen, "the poster is the screen as it was");

    let etag = headers["etag"].to_str().expect("text");
    let (status, part_headers, part) = download(&server, "rec_1", Some("bytes=100-299")).await;
    assert_eq!((status, part.as_slice()), (206, &whole[100..300]));
    assert_eq!(part_headers["content-range"], format!("bytes 100-299/{}", whole.len()));
    assert_eq!(part_headers["etag"], etag);
    assert_eq!(download(&server, "rec_1", Some("bytes=-10")).await.2, whole[whole.len() - 10..]);
    assert_eq!(download(&server, "rec_1", Some("bytes=999999999-")).await.0, 416);
    let seen = events.until(|event| event.data["type"] == "desktop.recording_ended").await;
    assert!(seen.iter().any(|event| event.data["type"] == "desktop.recording_started"), "{seen:?}");
}

#[tokio::test]
async fn a_still_screen_costs_nearly_nothing_and_the_pointer_is_seen() {
    let home = Home::new();
    let server = Server::start(&home);
    desktop(&server, 310, json!({})).await;
    post(&server, "/v1/desktop/mouse/move", json!({"x": 20, "y": 20})).await;
    post(&server, "/v1/desktop/wait", json!({"for": "still", "quietMs": 1000})).await;
    post(&server, "/v1/desktop/recording/start", json!({"fps": 60})).await;
    until(&server, "rec_1", |now| now["durationMs"].as_u64() > Some(4000)).await;
    let still = post(&server, "/v1/desktop/recording/stop", json!({})).await;
    let video = probe(&folder(&home).join("rec_1.mp4"));
    assert!(video["frames"].as_f64() <= Some(4.0), "{video}");
    assert!(video["seconds"].as_f64() > Some(3.9), "{video}");

    post(&server, "/v1/desktop/recording/start", json!({"fps": 60, "region": {"x": 0, "y": 0, "width": 200, "height": 5000}}))
        .await;
    for step in 1..=10 {
        post(&server, "/v1/desktop/mouse/move", json!({"x": 20 + step * 15, "y": 100})).await;
        tokio::time::sleep(Duration::from_millis(120)).await;
    }
    let moved = post(&server, "/v1/desktop/recording/stop", json!({})).await;
    assert_eq!(json!([moved["width"], moved["height"]]), json!([200, 480]), "clipped to the screen");
    let moved = probe(&folder(&home).join("rec_2.mp4"));
    assert!(moved["frames"].as_f64() > Some(3.0), "{moved}");
    let bytes = still["bytes"].as_u64().expect("a number");
    assert!(bytes < 300_000, "{bytes} bytes");
}

#[tokio::test]
async fn a_killed_server_loses_no_recording_and_numbers_never_come_again() {
    let home = Home::new();
    let server = Server::start_with(&home, &Options::kept());
    desktop(&server, 320, json!({})).await;
    scroll(&server).await;
    post(&server, "/v1/desktop/recording/start", json!({})).await;
    until(&server, "rec_1", |now| now["durationMs"].as_u64() > Some(2500) && now["bytes"].as_u64() > Some(0)).await;
    server.crash();
    let ended = until(&server, "rec_1", |_| true).await;
    assert_eq!(json!([ended["status"], ended["reason"]]), json!(["completed", "server_restarted"]));
    assert!(ended["endedAt"].is_string() && ended["durationMs"].as_u64() > Some(1000), "{ended}");
    let (_, _, whole) = download(&server, "rec_1", None).await;
    let video = probe(&put(&home, "killed.mp4", &whole));
    assert!(video["seconds"].as_f64() > Some(1.0) && video["frames"].as_f64() > Some(3.0), "{video}");
    assert_eq!(ended["bytes"], whole.len());

    // The desktop outlived it.
    let deadline = Instant::now() + PATIENCE;
    while server.get("/v1/desktop/status").await.1["state"] != "active" {
        assert!(Instant::now() < deadline, "{}", server.get("/v1/desktop/status").await.1);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(post(&server, "/v1/desktop/recording/start", json!({})).await["id"], "rec_2");
    post(&server, "/v1/desktop/recording/stop", json!({})).await;
    let gone = server.http.delete(server.url("/v1/desktop/recordings/rec_2")).send().await.expect("an answer");
    assert_eq!(gone.status(), 204);
    server.crash();
    let deadline = Instant::now() + PATIENCE;
    while server.get("/v1/desktop/status").await.1["state"] != "active" {
        assert!(Instant::now() < deadline, "{}", server.get("/v1/desktop/status").await.1);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(post(&server, "/v1/desktop/recording/start", json!({})).await["id"], "rec_3");
    let list = server.get("/v1/desktop/recordings").await.1;
    let ids: Vec<_> = list["recordings"].as_array().expect("a list").iter().map(|one| one["id"].clone()).collect();
    assert_eq!(ids, ["rec_1", "rec_3"]);
    server.stop();
}

#[tokio::test]
async fn whoever_asks_at_the_wrong_time_is_told_why() {
    let home = Home::new();
    let server = Server::start_with(&home, &Options::default().env("SANDBOXD_DESKTOP_RECORDINGS_MAX", "2"));
    let refused = |answer: (u16, Value), words: &str| {
        let (status, body) = answer;
        assert_eq!((status, body["title"].as_str()), (409, Some("Conflict")), "{body}");
        assert!(body["detail"].as_str().is_some_and(|detail| detail.contains(words)), "{body}");
    };
    let start = "/v1/desktop/recording/start";
    refused(server.send(start, &json!({})).await, "start it first");
    refused(server.send("/v1/desktop/recording/stop", &json!({})).await, "no recording is under way");
    desktop(&server, 330, json!({"recordingFps": 7})).await;
    refused(server.send("/v1/desktop/recording/pause", &json!({})).await, "no recording is under way");
    for wrong in [
        json!({"maxBytes": 0}),
        json!({"maxDurationMs": 1_000_000_000}),
        json!({"region": {"x": 0, "y": 0, "width": 0, "height": 9}}),
        json!({"region": {"x": 5000, "y": 0, "width": 9, "height": 9}}),
    ] {
        let (status, body) = server.send(start, &wrong).await;
        assert_eq!((status, body["code"].as_str()), (400, Some("desktop_invalid_action")), "{wrong}: {body}");
    }
    assert_eq!(server.send(start, &json!({"fps": -1})).await.0, 422);
    assert_eq!(post(&server, start, json!({})).await["fps"], 7);
    refused(server.send(start, &json!({})).await, "under way");
    let delete = |id: &str| server.http.delete(server.url(&format!("/v1/desktop/recordings/{id}"))).send();
    assert_eq!(delete("rec_1").await.expect("an answer").status(), 409);
    let stopped = post(&server, "/v1/desktop/recording/stop", json!({})).await;
    assert_eq!(stopped["status"], "completed", "however short it was");
    assert_eq!(post(&server, start, json!({"fps": 500, "maxDurationMs": 300})).await["fps"], 60);
    let ended = until(&server, "rec_2", |now| now["status"] != "recording").await;
    assert_eq!(json!([ended["status"], ended["reason"], ended["durationMs"]]), json!(["completed", "duration", 300]));
    refused(server.send(start, &json!({})).await, "delete some first");

    assert_eq!(delete("rec_2").await.expect("an answer").status(), 204);
    assert_eq!(delete("rec_2").await.expect("an answer").status(), 404);
    let (status, body) = server.get("/v1/desktop/recordings/rec_2").await;
    assert_eq!((status, &body["details"]), (404, &json!({"id": "rec_2", "resource": "desktop_recording"})));
    assert_eq!(server.get("/v1/desktop/recordings/..%2Frec_1").await.0, 404);
    assert!(!folder(&home).join("rec_2.mp4").exists() && !folder(&home).join("rec_2.png").exists());
    std::fs::remove_file(folder(&home).join("rec_1.mp4")).expect("removed");
    let (status, body) = server.get("/v1/desktop/recordings/rec_1/download").await;
    assert_eq!((status, &body["details"]["resource"]), (404, &json!("desktop_recording_file")));

    scroll(&server).await;
    post(&server, start, json!({"maxBytes": 60_000})).await;
    let full = until(&server, "rec_3", |now| now["status"] != "recording").await;
    assert_eq!(full["reason"], "size", "{full}");
    assert!(full["bytes"].as_u64() <= Some(60_000), "{full}");
}

#[tokio::test]
async fn the_end_of_a_desktop_or_a_server_ends_a_recording_well() {
    let home = Home::new();
    let server = Server::start(&home);
    let status = desktop(&server, 340, json!({})).await;
    scroll(&server).await;
    post(&server, "/v1/desktop/recording/start", json!({})).await;
    until(&server, "rec_1", |now| now["durationMs"].as_u64() > Some(500)).await;
    post(&server, "/v1/desktop/stop", json!({})).await;
    let stopped = recording(&server, "rec_1").await;
    assert_eq!(json!([stopped["status"], stopped["reason"]]), json!(["completed", "desktop_stopped"]), "{status}");
    probe(&folder(&home).join("rec_1.mp4"));

    let status = desktop(&server, 340, json!({})).await;
    post(&server, "/v1/desktop/recording/start", json!({})).await;
    until(&server, "rec_2", |now| now["durationMs"].as_u64() > Some(500)).await;
    let processes = status["processes"].as_array().expect("a list");
    let xvfb = processes.iter().find(|process| process["name"] == "Xvfb").expect("Xvfb");
    kill(xvfb["pid"].as_u64().and_then(|pid| pid.try_into().ok()).expect("a pid"), "KILL");
    let ended = until(&server, "rec_2", |now| now["status"] != "recording").await;
    assert_eq!(json!([ended["status"], ended["reason"]]), json!(["completed", "desktop_restarted"]));
    probe(&folder(&home).join("rec_2.mp4"));

    let deadline = Instant::now() + PATIENCE;
    while server.get("/v1/desktop/status").await.1["state"] != "active" {
        assert!(Instant::now() < deadline, "the desktop doesn't come back");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    post(&server, "/v1/desktop/recording/start", json!({})).await;
    until(&server, "rec_3", |now| now["durationMs"].as_u64() > Some(500)).await;
    server.stop();
    let server = Server::start(&home);
    let ended = recording(&server, "rec_3").await;
    assert_eq!(json!([ended["status"], ended["reason"]]), json!(["completed", "server_stopped"]));
    probe(&folder(&home).join("rec_3.mp4"));
}

#[tokio::test]
async fn a_pause_is_not_in_the_video_and_another_screen_size_is_scaled() {
    let home = Home::new();
    let server = Server::start(&home);
    desktop(&server, 350, json!({})).await;
    scroll(&server).await;
    let began = Instant::now();
    post(&server, "/v1/desktop/recording/start", json!({})).await;
    until(&server, "rec_1", |now| now["durationMs"].as_u64() > Some(1000)).await;
    let paused = post(&server, "/v1/desktop/recording/pause", json!({})).await;
    let pause_began = Instant::now();
    assert_eq!(json!([paused["status"], paused["paused"]]), json!(["recording", true]));
    assert_eq!(post(&server, "/v1/desktop/recording/pause", json!({})).await["paused"], true);
    let bytes = recording(&server, "rec_1").await["bytes"].clone();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let still = recording(&server, "rec_1").await;
    assert_eq!(json!([still["bytes"], still["durationMs"]]), json!([bytes, paused["durationMs"]]));
    let pause = pause_began.elapsed();
    assert_eq!(post(&server, "/v1/desktop/recording/resume", json!({})).await["paused"], false);
    post(&server, "/v1/desktop/display/resize", json!({"width": 800, "height": 600})).await;
    until(&server, "rec_1", |now| now["durationMs"].as_u64() > Some(2500)).await;
    let ended = post(&server, "/v1/desktop/recording/stop", json!({})).await;
    let at_most = began.elapsed() - pause;
    let video = probe(&folder(&home).join("rec_1.mp4"));
    assert!(ended["durationMs"].as_u64().map(Duration::from_millis) <= Some(at_most), "{ended}, at most {at_most:?}");
    assert_eq!(json!([video["width"], video["height"]]), json!([640, 480]));
}
