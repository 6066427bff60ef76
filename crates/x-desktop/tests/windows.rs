//! Windows of real programs, with a window manager and without. What became of them is asked over another connection.
#![allow(clippy::unwrap_used)] // a test that can't go on fails
#![allow(clippy::disallowed_methods)] // and starts programs itself

mod support;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use support::{PATIENCE, Screen, wait_for};
use x_desktop::windows::{Placement, Settled, WindowState, WindowWatch, Workspace};
use x_desktop::{Display, Error, WindowInfo};
use x11rb::connection::Connection as _;
use x11rb::protocol::xproto::{AtomEnum, ConnectionExt as _, CreateWindowAux, PropMode, WindowClass};
use x11rb::rust_connection::RustConnection;
use x11rb::wrapper::ConnectionExt as _;

/// openbox as it should be for a program: by itself, it moves the frame about for a while when a window comes or goes.
const OPENBOX: &str = r#"<openbox_config xmlns="http://openbox.org/3.4/rc">
  <theme><animateIconify>no</animateIconify></theme>
</openbox_config>"#;

fn managed() -> Screen {
    let mut screen = Screen::start();
    std::fs::create_dir(screen.home().join("openbox")).unwrap();
    std::fs::write(screen.home().join("openbox/rc.xml"), OPENBOX).unwrap();
    screen.openbox();
    screen
}

/// As a caller does it: looks again when the server says something.
fn settle(display: &mut Display, watch: &WindowWatch) -> Option<WindowInfo> {
    let until = Instant::now() + PATIENCE;
    loop {
        match display.settled(watch).unwrap() {
            Settled::Yes(window) => return window,
            Settled::NotYet(window) => assert!(Instant::now() < until, "{watch:?}: {window:?}"),
        }
        wait_for_news(display);
    }
}

fn wait_for_news(display: &mut Display) {
    let until = Instant::now() + Duration::from_secs(5);
    while !display.pump().unwrap().windows && Instant::now() < until {
        let second = Timespec { tv_sec: 1, tv_nsec: 0 };
        poll(&mut [PollFd::from_borrowed_fd(display.fd(), PollFlags::IN)], Some(&second)).unwrap();
    }
}

/// x, y, width and height of a window's content, as another program sees it.
fn geometry(screen: &Screen, id: u32) -> (i32, i32, u32, u32) {
    let (conn, root) = screen.connect();
    let size = conn.get_geometry(id).unwrap().reply().unwrap();
    let at = conn.translate_coordinates(id, root, 0, 0).unwrap().reply().unwrap();
    (at.dst_x.into(), at.dst_y.into(), size.width.into(), size.height.into())
}

fn of(window: &WindowInfo) -> (i32, i32, u32, u32) {
    (window.x, window.y, window.width, window.height)
}

/// A terminal that has started all it starts. Gives its window and its process.
fn xterm(screen: &mut Screen, title: &str, place: &str) -> (u32, u32) {
    let ready = format!("ready {title}");
    let command = format!("echo yes > '{ready}'; exec sleep 1000");
    let pid = screen.spawn("xterm", &["-T", title, "-geometry", place, "-e", "sh", "-c", &command]);
    screen.wait_for_file(&ready, |text| !text.is_empty());
    let display = screen.open();
    let find = || display.windows().unwrap().listed(true).windows.into_iter().find(|window| window.title == title);
    (wait_for(title, find).id, pid)
}

#[test]
fn windows_are_where_they_are_and_who_they_are() {
    let mut screen = managed();
    let (one, pid) = xterm(&mut screen, "one window", "60x20+301+200");
    let mut display = screen.open();
    let watch = display.activate(one).unwrap();
    let window = settle(&mut display, &watch).unwrap();
    assert_eq!(of(&window), geometry(&screen, one));
    assert!(window.frame.top > 0 && window.x == 301 + window.frame.left.cast_signed(), "{window:?}");
    assert_eq!((window.class.as_str(), window.instance.as_str(), window.pid), ("XTerm", "xterm", Some(pid)));
    assert!(window.is_active && window.is_visible && !window.is_minimised);
    assert_eq!((window.workspace, window.stacking), (Some(Workspace::Index(0)), Some(0)));
    assert_eq!(display.windows_of_pids(&[pid]).unwrap().len(), 1);
    assert_eq!(display.windows_of_pids(&[1]).unwrap(), []);
    assert_eq!(display.windows().unwrap().windows, [window]);
}

#[test]
fn moved_and_resized_as_the_answer_says() {
    let mut screen = managed();
    let (id, _) = xterm(&mut screen, "moves", "60x20+10+10");
    let mut display = screen.open();
    for (x, y) in [(200, 100), (301, 220), (-20, 40), (301, 220)] {
        let watch = display.place(id, Placement { x: Some(x), y: Some(y), ..Placement::default() }).unwrap();
        let window = settle(&mut display, &watch).unwrap();
        assert_eq!(of(&window), geometry(&screen, id));
        assert_eq!((window.x - window.frame.left.cast_signed(), window.y - window.frame.top.cast_signed()), (x, y));
    }
    // A terminal is as large as whole characters: the answer has that size.
    let watch = display.place(id, Placement { width: Some(600), height: Some(400), ..Placement::default() }).unwrap();
    let window = settle(&mut display, &watch).unwrap();
    assert_eq!(of(&window), geometry(&screen, id));
    assert!((570..=600).contains(&window.width) && (370..=400).contains(&window.height), "{window:?}");
    // Nothing changes, and that is answered too.
    let watch = display.place(id, Placement { width: Some(600), height: Some(400), ..Placement::default() }).unwrap();
    assert_eq!(of(&settle(&mut display, &watch).unwrap()), of(&window));
    let beyond = display.place(id, Placement { x: Some(40_000), ..Placement::default() });
    assert!(matches!(beyond, Err(Error::Invalid(_))));
}

#[test]
fn put_away_brought_back_and_shown_otherwise() {
    let mut screen = managed();
    let (id, _) = xterm(&mut screen, "states", "60x20+100+100");
    let mut display = screen.open();
    let watch = display.minimise(id).unwrap();
    let window = settle(&mut display, &watch).unwrap();
    assert!(window.is_minimised && !window.is_visible && !window.is_active);
    assert_eq!(display.windows().unwrap().listed(false).windows, []);
    assert_eq!(display.windows().unwrap().listed(true).windows.len(), 1);
    let watch = display.restore(id).unwrap();
    assert!(!settle(&mut display, &watch).unwrap().is_minimised);
    let watch = display.minimise(id).unwrap();
    settle(&mut display, &watch).unwrap();
    let watch = display.activate(id).unwrap();
    let before = settle(&mut display, &watch).unwrap();
    assert!(before.is_active && before.is_visible);

    let maximised = [WindowState::MaximisedHorz, WindowState::MaximisedVert];
    for (states, least) in [(&maximised[..], (1200, 700)), (&[WindowState::Fullscreen][..], (1280, 800))] {
        let watch = display.set_states(id, states, true).unwrap();
        let window = settle(&mut display, &watch).unwrap();
        assert!(states.iter().all(|state| window.states.contains(state)), "{window:?}");
        assert!(window.width >= least.0 && window.height >= least.1, "{window:?}");
        assert_eq!(of(&window), geometry(&screen, id));
        let watch = display.set_states(id, states, false).unwrap();
        let window = settle(&mut display, &watch).unwrap();
        assert_eq!(of(&window), of(&before));
    }
    let watch = display.set_states(id, &[WindowState::Above], true).unwrap();
    assert!(settle(&mut display, &watch).unwrap().states.contains(&WindowState::Above));
}

#[test]
fn stacked_and_on_other_workspaces() {
    let mut screen = managed();
    let (one, _) = xterm(&mut screen, "one", "60x20+100+100");
    let (two, _) = xterm(&mut screen, "two", "60x20+120+120");
    let mut display = screen.open();
    let order = |display: &Display| display.windows().unwrap().windows.iter().map(|window| window.id).collect::<Vec<_>>();
    for (watch, expected) in [(one, [two, one]), (two, [one, two])] {
        let watch = display.raise(watch).unwrap();
        settle(&mut display, &watch);
        assert_eq!(order(&display), expected);
    }
    let watch = display.lower(two).unwrap();
    settle(&mut display, &watch);
    assert_eq!(order(&display), [two, one]);

    let count = display.workspaces().unwrap().unwrap().count;
    assert!(count > 1);
    let watch = display.set_window_workspace(two, Workspace::Index(1)).unwrap();
    let window = settle(&mut display, &watch).unwrap();
    assert_eq!(window.workspace, Some(Workspace::Index(1)));
    assert!(!window.is_visible && !window.is_minimised, "{window:?}");
    assert_eq!(display.windows().unwrap().listed(false).windows.len(), 1);
    display.set_workspace(1).unwrap();
    wait_for("the workspace", || (display.workspaces().unwrap()?.current == 1).then_some(()));
    assert!(matches!(display.set_workspace(count), Err(Error::Invalid(_))));
    let watch = display.set_window_workspace(one, Workspace::All).unwrap();
    assert_eq!(settle(&mut display, &watch).unwrap().workspace, Some(Workspace::All));
}

#[test]
fn closed_killed_and_none_is_active() {
    let mut screen = managed();
    let mut display = screen.open();
    assert_eq!(display.active_window().unwrap(), None);
    screen.spawn("mousepad", &["--disable-server"]);
    screen.wait_for_window("mousepad");
    let id = wait_for("mousepad's window", || display.active_window().unwrap()).id;
    let watch = display.close(id, false).unwrap();
    assert_eq!(settle(&mut display, &watch), None);
    let (id, _) = xterm(&mut screen, "killed", "60x20+100+100");
    let watch = display.close(id, true).unwrap();
    assert_eq!(settle(&mut display, &watch), None);
    // openbox still names the last one; that is no error.
    assert_eq!(display.active_window().unwrap(), None);
    assert_eq!(display.windows().unwrap().windows, []);

    assert!(matches!(display.window(id), Err(Error::NoWindow(gone)) if gone == id));
    for result in [
        display.activate(id),
        display.place(id, Placement { x: Some(1), ..Placement::default() }),
        display.raise(id),
        display.minimise(id),
        display.restore(id),
        display.set_states(id, &[WindowState::Above], true),
        display.close(id, false),
        display.close(0x7fff_ffff, true),
    ] {
        assert!(matches!(result, Err(Error::NoWindow(_))), "{result:?}");
    }
}

#[test]
fn windows_that_come_and_go_while_they_are_listed() {
    let screen = managed();
    let (name, mut display) = (screen.name().to_owned(), screen.open());
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                number += 1;
                let mut xterm = Command::new("xterm")
                    .args(["-e", "sleep", "100"])
                    .env("DISPLAY", &name)
                    .stderr(Stdio::null())
                    .spawn()
                    .unwrap();
                std::thread::sleep(Duration::from_millis(number * 37 % 300));
                xterm.kill().unwrap();
                xterm.wait().unwrap();
            }
        });
        let mut seen = 0;
        let until = Instant::now() + PATIENCE;
        for count in 0.. {
            let windows = display.windows().map(|list| list.windows).and_then(|windows| display.active_window().map(|_| windows));
            display.pump().unwrap();
            match windows {
                Ok(windows) => seen += windows.len(),
                Err(error) => {
                    stop.store(true, std::sync::atomic::Ordering::Relaxed);
                    panic!("{error}");
                }
            }
            if count > 200 && (seen > 20 || Instant::now() > until) {
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(seen > 0);
    });
}

#[test]
fn without_a_window_manager() {
    let mut screen = Screen::start();
    let mut display = screen.open();
    assert_eq!((display.windows().unwrap().windows, display.active_window().unwrap()), (vec![], None));
    let (one, _) = xterm(&mut screen, "one", "60x20+100+50");
    let (two, _) = xterm(&mut screen, "two", "60x20+120+70");
    let list = display.windows().unwrap();
    assert_eq!(list.windows.iter().map(|window| window.id).collect::<Vec<_>>(), [one, two]);
    let watch = display.activate(one).unwrap();
    let window = settle(&mut display, &watch).unwrap();
    assert_eq!((window.is_active, window.stacking), (true, display.windows().unwrap().windows.iter().position(|w| w.id == one)));
    assert_eq!(display.active_window().unwrap().unwrap().id, one);
    let place = Placement { x: Some(33), y: Some(44), width: Some(400), height: Some(300) };
    let watch = display.place(two, place).unwrap();
    let window = settle(&mut display, &watch).unwrap();
    assert_eq!(of(&window), geometry(&screen, two));
    assert_eq!((window.width, window.height), (400, 300));
    assert_eq!(window.x - window.frame.left.cast_signed(), 33);
    assert!(matches!(display.minimise(two), Err(Error::Refused(_))));
    assert_eq!(display.workspaces().unwrap(), None);
    let watch = display.close(two, false).unwrap();
    assert_eq!(settle(&mut display, &watch), None);
    assert_eq!(display.windows().unwrap().windows.len(), 1);
}

/// A window of the test's own, as a program makes one.
fn own_window(conn: &RustConnection, root: u32, width: u16, height: u16) -> u32 {
    let id = conn.generate_id().unwrap();
    conn.create_window(0, id, root, 5, 6, width, height, 0, WindowClass::INPUT_OUTPUT, 0, &CreateWindowAux::new()).unwrap();
    id
}

#[test]
fn titles_in_every_encoding_and_of_every_length() {
    let screen = Screen::start();
    let (conn, root) = screen.connect();
    let (utf8, name) = (b"UTF8_STRING", b"_NET_WM_NAME");
    let [utf8, net_name] = [&utf8[..], &name[..]].map(|name| conn.intern_atom(false, name).unwrap().reply().unwrap().atom);
    let titled = |name: u32, kind: u32, title: &[u8]| {
        let id = own_window(&conn, root, 200, 200);
        conn.change_property8(PropMode::REPLACE, id, name, kind, title).unwrap();
        conn.map_window(id).unwrap();
        id
    };
    let (wm_name, string) = (AtomEnum::WM_NAME.into(), AtomEnum::STRING.into());
    let latin1 = titled(wm_name, string, b"caf\xe9");
    let broken = titled(net_name, utf8, b"a\xffb");
    let long = titled(net_name, utf8, format!("x{}", "é".repeat(5000)).as_bytes());
    let empty = titled(net_name, utf8, b"");
    conn.change_property8(PropMode::REPLACE, empty, wm_name, string, b"old").unwrap();
    conn.sync().unwrap();
    let display = screen.open();
    let title = |id| display.window(id).unwrap().title;
    assert_eq!((title(latin1), title(broken), title(empty)), ("café".into(), "a\u{fffd}b".into(), "old".into()));
    let long = title(long);
    assert!(long.starts_with("xé") && long.ends_with("é…") && long.len() < 5000, "{}", long.len());
    assert_eq!(display.window(latin1).unwrap().pid, Some(std::process::id()));
    // Those that exist, but aren't shown, are no windows for anybody; asked for by id they are.
    let hidden = own_window(&conn, root, 300, 300);
    conn.sync().unwrap();
    assert!(!display.window(hidden).unwrap().is_visible);
    assert!(display.windows().unwrap().windows.iter().all(|window| window.id != hidden));
}

#[test]
fn many_windows_in_a_list() {
    let screen = managed();
    let (conn, root) = screen.connect();
    let display = screen.open();
    let before = display.windows().unwrap();
    for (count, total) in [(0, 0), (2, 2), (28, 30)] {
        let mut ids = Vec::new();
        for _ in 0..count {
            let id = own_window(&conn, root, 200, 200);
            ids.push(id);
            conn.change_property8(PropMode::REPLACE, id, AtomEnum::WM_NAME, AtomEnum::STRING, b"one of many").unwrap();
        }
        wait_for("the windows", || {
            // Again and again: openbox forgets windows that come while it starts.
            ids.iter().for_each(|&id| drop(conn.map_window(id).unwrap()));
            conn.sync().unwrap();
            (display.windows().unwrap().listed(false).windows.len() == total).then_some(())
        });
        let mut times: Vec<_> = (0..50)
            .map(|_| {
                let start = Instant::now();
                display.windows().unwrap();
                start.elapsed()
            })
            .collect();
        times.sort();
        println!("a list of {total} windows: median {:?}, 90th percentile {:?}", times[25], times[45]);
    }
    assert_eq!(display.windows().unwrap().new_since(&before).count(), 30);
}

#[test]
fn a_window_manager_answers_once_it_does_its_work() {
    let mut screen = Screen::start();
    let mut display = screen.open();
    assert!(display.question_manager().unwrap().is_none(), "nobody manages windows");
    screen.openbox();
    let question = display.question_manager().unwrap().expect("a window manager");
    wait_for("its answer", || display.has_answered(question).unwrap().then_some(()));
}
