//! Several monitors on one screen, as other programs have them.
#![allow(clippy::unwrap_used)] // a test that can't go on fails

mod support;

use support::{Screen, wait_for};
use x_desktop::windows::{WindowInfo, WindowState};
use x_desktop::{Display, Error, Rect, Size};

fn rect(x: u32, y: u32, width: u32, height: u32) -> Rect {
    Rect { x, y, width, height }
}

fn two(left: Rect, right: Rect) -> Vec<(String, Rect)> {
    vec![("left".to_owned(), left), ("right".to_owned(), right)]
}

/// The only window's content and frame.
fn outer(window: &WindowInfo) -> (i32, i32, u32, u32) {
    let frame = window.frame;
    let (left, top) = (frame.left.cast_signed(), frame.top.cast_signed());
    (window.x - left, window.y - top, window.width + frame.left + frame.right, window.height + frame.top + frame.bottom)
}

fn only(display: &mut Display) -> WindowInfo {
    display.windows().unwrap().listed(false).windows.first().unwrap().clone()
}

#[test]
fn the_screen_is_divided_and_one_again() {
    let screen = Screen::sized(2560, 1440);
    let mut display = screen.open();
    let whole = display.monitors().unwrap();
    assert_eq!((whole.len(), whole[0].rect, whole[0].is_primary), (1, rect(0, 0, 2560, 1440), true), "{whole:?}");
    let parts = two(rect(0, 0, 1280, 720), rect(1280, 100, 800, 600));
    display.set_monitors(&parts, 96.0).unwrap();
    assert_eq!(display.size(), Size { width: 2080, height: 720 }, "just what holds them");
    let monitors = display.monitors().unwrap();
    let told: Vec<_> = monitors.iter().map(|monitor| (monitor.name.clone(), monitor.rect)).collect();
    assert_eq!((told, monitors[0].is_primary, monitors[1].is_primary), (parts, true, false));
    let heads = screen.run("xdpyinfo", &["-ext", "XINERAMA"]);
    assert_eq!(screen.run("xrandr", &["--listactivemonitors"]).lines().count(), 3, "none of the output");
    assert!(heads.contains("head #0: 1280x720 @ 0,0") && heads.contains("head #1: 800x600 @ 1280,100"), "{heads}");
    // Others in their place, and what can't be.
    display.set_monitors(&two(rect(0, 0, 640, 480), rect(640, 0, 640, 480)), 96.0).unwrap();
    assert_eq!(display.monitors().unwrap().len(), 2);
    let own = vec![(whole[0].name.clone(), rect(0, 0, 640, 480))];
    assert!(matches!(display.set_monitors(&own, 96.0), Err(Error::Invalid(_))));
    let large = two(rect(0, 0, 2560, 480), rect(2560, 0, 640, 480));
    assert!(matches!(display.set_monitors(&large, 96.0), Err(Error::Invalid(_))));
    assert_eq!(display.monitors().unwrap().len(), 2, "as they were");
    display.set_monitors(&[], 96.0).unwrap();
    let one = display.monitors().unwrap();
    assert_eq!((one.len(), one[0].rect, &one[0].name), (1, rect(0, 0, 1280, 480), &whole[0].name));
}

#[test]
fn windows_fill_the_monitor_that_they_are_on() {
    let mut screen = Screen::sized(2560, 1440);
    screen.openbox();
    let mut display = screen.open();
    screen.spawn("xterm", &["-geometry", "40x10+100+100"]);
    screen.wait_for_window("XTerm");
    let id = only(&mut display).id;
    for (left, right) in [(rect(0, 0, 1000, 900), rect(1000, 0, 800, 700)), (rect(0, 0, 700, 900), rect(700, 0, 1100, 900))] {
        display.set_monitors(&two(left, right), 96.0).unwrap();
        for part in [left, right] {
            let (x, y) = (part.x.cast_signed() + 50, 60);
            display.place(id, x_desktop::windows::Placement { x: Some(x), y: Some(y), ..Default::default() }).unwrap();
            wait_for("the place", || (outer(&only(&mut display)).0 == x).then_some(()));
            display.set_states(id, &[WindowState::Fullscreen], true).unwrap();
            let filled = (part.x.cast_signed(), 0, part.width, part.height);
            wait_for("the whole monitor", || (outer(&only(&mut display)) == filled).then_some(()));
            display.set_states(id, &[WindowState::Fullscreen], false).unwrap();
            wait_for("a window again", || (outer(&only(&mut display)).2 != part.width).then_some(()));
        }
    }
}

#[test]
fn openbox_takes_another_theme_while_it_runs() {
    let mut screen = Screen::start();
    screen.openbox();
    let display = screen.open();
    let before = wait_for("its theme", || display.openbox_theme().unwrap());
    assert_ne!(before, "Onyx");
    let dir = screen.home().join("openbox");
    std::fs::create_dir_all(&dir).unwrap();
    let config = r#"<?xml version="1.0"?><openbox_config xmlns="http://openbox.org/3.4/rc"><theme><name>Onyx</name></theme></openbox_config>"#;
    std::fs::write(dir.join("rc.xml"), config).unwrap();
    display.reconfigure_openbox().unwrap();
    wait_for("the other theme", || display.openbox_theme().unwrap().filter(|theme| theme == "Onyx"));
}
