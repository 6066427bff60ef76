//! Another size of a screen that runs, as the server, other programs and pictures have it.
#![allow(clippy::unwrap_used)] // a test that can't go on fails

mod support;

use support::{Screen, wait_for};
use x_desktop::{Error, Rect, Size};

const MAX: Size = Size { width: 3840, height: 2160 };

#[test]
fn the_screen_follows_down_up_and_across() {
    let screen = Screen::sized(MAX.width, MAX.height);
    let (mut display, mut other) = (screen.open(), screen.open());
    for (width, height, dpi) in
        [(1280, 720, 96.0), (1920, 1080, 96.0), (1000, 1500, 192.0), (1500, 1000, 96.0), (3840, 2160, 96.0)]
    {
        let size = Size { width, height };
        display.resize(size, dpi).unwrap();
        assert_eq!(display.size(), size);
        assert!(display.pump().unwrap().resized, "who follows the screen is told");
        let info = display.screen().unwrap();
        assert_eq!((info.size, info.max), (size, MAX));
        assert!(info.sizes.contains(&size), "{:?}", info.sizes);
        let claimed = info.dpi.unwrap();
        assert!((claimed - dpi).abs() < 1.0, "{claimed} of {dpi}");

        let everything = Rect::of_size(size);
        assert_eq!(display.capture(everything).unwrap().data.len(), everything.pixels() * 4);
        let said = screen.run("xrandr", &[]);
        assert!(said.contains(&format!("current {width} x {height}")), "{said}");
        let seen = screen.run("xdpyinfo", &[]);
        assert!(seen.contains(&format!("{width}x{height} pixels")), "{seen}");
        wait_for("the other connection", || other.pump().unwrap().resized.then_some(()));
        assert_eq!(other.size(), size);
    }
    assert!(display.screen().unwrap().sizes.len() <= 3, "sizes that are out of use go");
}

#[test]
fn what_the_screen_cannot_be_is_said() {
    let screen = Screen::start();
    let mut display = screen.open();
    for (width, height) in [(1281, 800), (1280, 801), (0, 100), (u16::MAX, u16::MAX)] {
        let error = display.resize(Size { width, height }, 96.0).unwrap_err();
        assert!(matches!(&error, Error::Invalid(text) if text.contains("1280x800")), "{error}");
    }
    assert!(matches!(display.resize(Size { width: 640, height: 480 }, 0.0), Err(Error::Invalid(_))));
    assert_eq!(display.screen().unwrap().size, Size { width: 1280, height: 800 });
    display.resize(Size { width: 640, height: 480 }, 96.0).unwrap();
    let beyond = Rect { x: 0, y: 0, width: 641, height: 480 };
    assert!(matches!(display.capture(beyond), Err(Error::Invalid(_))));
}

#[test]
fn windows_stay_and_can_be_used_at_another_size() {
    let mut screen = Screen::sized(1920, 1080);
    screen.openbox();
    screen.spawn("xterm", &["-geometry", "40x10+1200+700"]);
    screen.wait_for_window("XTerm");
    let mut display = screen.open();
    display.resize(Size { width: 1280, height: 720 }, 96.0).unwrap();
    let windows = display.windows().unwrap().listed(false).windows;
    assert_eq!(windows.len(), 1);
    display.resize(Size { width: 1920, height: 1080 }, 96.0).unwrap();
    assert_eq!(display.windows().unwrap().listed(false).windows.len(), 1);
}
