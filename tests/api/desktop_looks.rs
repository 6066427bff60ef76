//! Backdrop and theme of a desktop, seen in its pixels.

use reqwest::Method;
use serde_json::{Value, json};
use x_desktop::Rect;
use x_desktop::picture::{Format, Frame, decode, encode};

use crate::desktop_support::Desktop;
use crate::support::{Home, Options};

type Colour = (u8, u8, u8);

/// A picture of columns, one pixel wide each, in a file.
fn columns(home: &Home, name: &str, colours: &[Colour], height: u32) -> String {
    let rect = Rect { x: 0, y: 0, width: u32::try_from(colours.len()).expect("a width"), height };
    let row: Vec<u8> = colours.iter().flat_map(|(red, green, blue)| [*blue, *green, *red, 0]).collect();
    let file = encode(&Frame { rect, data: row.repeat(height as usize) }, Format::Png, 85).expect("a PNG");
    let path = home.path().join(name);
    std::fs::write(&path, file).expect("written");
    path.to_string_lossy().into_owned()
}

async fn seen(desktop: &Desktop, places: &[(u32, u32)]) -> Vec<Colour> {
    let answer = desktop.request(Method::GET, "screenshot").send().await.expect("an answer");
    let frame = decode(&answer.bytes().await.expect("bytes"), u64::MAX, (0, 0, 0)).expect("a picture");
    places.iter().map(|(x, y)| frame.pixel(*x, *y).expect("on the screen")).collect()
}

async fn refused(desktop: &Desktop, path: &str, body: &Value) -> (u16, Value) {
    desktop.answer(desktop.request(Method::PUT, path).json(body)).await
}

const RED: Colour = (255, 0, 0);
const BLUE: Colour = (0, 0, 255);
const GREEN: Colour = (0, 128, 0);

#[tokio::test]
async fn a_backdrop_is_seen_and_stays() {
    let home = Home::new();
    let desktop = Desktop::start(&home, &Options::kept(), 650).await;
    assert_eq!(desktop.get("backdrop").await, json!({}));
    let usual = seen(&desktop, &[(5, 5)]).await;
    desktop.put("backdrop", &json!({"color": "#ff0000"})).await;
    assert_eq!(seen(&desktop, &[(5, 5), (795, 595)]).await, [RED, RED]);
    desktop.post("display/resize", &json!({"width": 1000, "height": 700})).await;
    assert_eq!(seen(&desktop, &[(5, 5), (995, 695)]).await, [RED, RED], "of the new size, too");
    desktop.replace("Xvfb").await;
    assert_eq!(seen(&desktop, &[(5, 5), (795, 595)]).await, [RED, RED], "and of another X server");

    let path = columns(&home, "halves.png", &[vec![RED; 40], vec![BLUE; 40]].concat(), 20);
    let fit = json!({"path": path, "mode": "fit", "color": "#008000"});
    assert_eq!(desktop.put("backdrop", &fit).await, fit);
    // 800x200 in the middle of 800x600.
    assert_eq!(seen(&desktop, &[(5, 190), (5, 210), (795, 390), (795, 410)]).await, [GREEN, RED, BLUE, GREEN]);
    desktop.put("backdrop", &json!({"path": path})).await;
    assert_eq!(seen(&desktop, &[(5, 5), (795, 595)]).await, [RED, BLUE], "fill");
    desktop.put("backdrop", &json!({"path": path, "mode": "tile"})).await;
    assert_eq!(seen(&desktop, &[(39, 599), (40, 0), (79, 19), (80, 20)]).await, [RED, BLUE, BLUE, RED]);
    let center = json!({"path": path, "mode": "center", "color": "#008000"});
    desktop.put("backdrop", &center).await;
    let of_center = [(359, 300), (360, 300), (439, 300), (440, 300)];
    assert_eq!(seen(&desktop, &of_center).await, [GREEN, RED, BLUE, GREEN]);

    std::fs::remove_file(&path).expect("removed");
    desktop.crash().await;
    assert_eq!(desktop.get("backdrop").await, center, "another server knows of it");
    desktop.replace("Xvfb").await;
    assert_eq!(seen(&desktop, &of_center).await, [GREEN, RED, BLUE, GREEN], "a copy is kept");
    desktop.put("backdrop", &json!({})).await;
    assert_eq!(seen(&desktop, &[(5, 5)]).await, usual);
}

#[tokio::test]
async fn what_is_no_backdrop_is_said_and_changes_nothing() {
    let home = Home::new();
    let options = Options::default().env("SANDBOXD_DESKTOP_BACKDROP_MAX_PIXELS", "1000");
    let desktop = Desktop::start(&home, &options, 660).await;
    desktop.put("backdrop", &json!({"color": "#ff0000"})).await;
    let large = columns(&home, "large.png", &[RED; 101], 10);
    let text = home.path().join("text.png");
    std::fs::write(&text, "no picture").expect("written");
    let dir = home.path().to_string_lossy().into_owned();
    let wrong = [
        json!({"color": "red"}),
        json!({"color": "#ff000"}),
        json!({"mode": "tile"}),
        json!({"path": "relative.png"}),
        json!({"path": "/nowhere.png"}),
        json!({"path": dir}),
        json!({"path": "/dev/zero"}),
        json!({"path": text.to_string_lossy()}),
        json!({"path": large}),
    ];
    for body in wrong {
        let (status, problem) = refused(&desktop, "backdrop", &body).await;
        assert_eq!((status, &problem["code"]), (400, &json!("desktop_invalid_action")), "{body}: {problem}");
    }
    assert_eq!(refused(&desktop, "backdrop", &json!({"color": "#ff0000", "mode": "wide"})).await.0, 422);
    assert_eq!(desktop.get("backdrop").await, json!({"color": "#ff0000"}));
    assert_eq!(seen(&desktop, &[(5, 5)]).await, [RED]);
}

#[tokio::test]
async fn frames_take_another_theme_at_once_and_only_what_is_installed() {
    let home = Home::new();
    let desktop = Desktop::start(&home, &Options::default(), 670).await;
    let spec = json!({"app": "xterm", "args": ["-geometry", "20x5+100+100"], "wait": true});
    let id = desktop.post("launch", &spec).await["windowId"].as_str().expect("a window").to_owned();
    let before = desktop.get("theme").await;
    assert_eq!((&before["openbox"], &before["gtk"], &before["dark"]), (&json!("Clearlooks"), &json!("Adwaita"), &json!(false)));
    let has = |kind: &str, name: &str| before["available"][kind].as_array().is_some_and(|names| names.contains(&json!(name)));
    assert!(has("openbox", "Onyx") && has("gtk", "Adwaita") && has("cursors", "Adwaita"), "{before}");
    let window = async || {
        let windows = desktop.get("windows").await;
        windows["windows"].as_array().and_then(|all| all.iter().find(|window| window["id"] == json!(id)).cloned())
    };
    let place = window().await.expect("it is there");
    let side = |name: &str| u32::try_from(place[name].as_i64().expect("a number")).expect("on the screen");
    // In its title bar, beside the buttons.
    let title = [(side("x") + 40, side("y") - 6)];
    desktop.post("wait", &json!({"for": "still", "quietMs": 300})).await;
    let light = seen(&desktop, &title).await;

    let set = json!({"openbox": "Onyx", "dark": true, "cursor": "Adwaita", "font": "DejaVu Sans 12"});
    let after = desktop.put("theme", &set).await;
    for name in ["openbox", "dark", "cursor", "font"] {
        assert_eq!(after[name], set[name], "{after}");
    }
    assert_eq!(after, desktop.get("theme").await);
    desktop.post("wait", &json!({"for": "still", "quietMs": 300})).await;
    assert_ne!(seen(&desktop, &title).await, light, "the frame looks otherwise");
    assert!(window().await.is_some(), "the window is still there");
    let settings = |name: &str| {
        let below = home.path().join(".local/state/sandbox-agent/desktop/home").join(name);
        std::fs::read_to_string(below).expect("a file")
    };
    assert!(settings(".config/gtk-3.0/settings.ini").contains("gtk-application-prefer-dark-theme=1\n"));
    assert!(settings(".icons/default/index.theme").contains("Inherits=Adwaita\n"));

    let (status, problem) = refused(&desktop, "theme", &json!({"dark": false, "openbox": "Nothing"})).await;
    assert_eq!((status, &problem["code"]), (404, &json!("theme_not_found")), "{problem}");
    assert_eq!(problem["available"], before["available"]["openbox"]);
    let (status, problem) = refused(&desktop, "theme", &json!({"font": "Sans"})).await;
    assert_eq!((status, &problem["code"]), (400, &json!("desktop_invalid_action")), "{problem}");
    assert_eq!(desktop.get("theme").await, after, "nothing of it was done");
    desktop.replace("openbox").await;
    assert_eq!(desktop.get("theme").await["openbox"], "Onyx");
}
