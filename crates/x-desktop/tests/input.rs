//! Pointer and keys, as a client of a real X server sees them.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::time::Duration;

use support::{Screen, wait_for};
use x_desktop::{Button, Click, Display, Drag, Error, KeyChange, Plan, Press, Scroll, Typing};
use x11rb::connection::Connection as _;
use x11rb::protocol::Event;
use x11rb::protocol::xproto::{ConnectionExt as _, CreateWindowAux, EventMask, InputFocus, KeyButMask, Window, WindowClass};
use x11rb::rust_connection::RustConnection;
use x11rb::wrapper::ConnectionExt as _;

const AT_ONCE: Duration = Duration::ZERO;

/// A window at 100,100 of 400x300 that notes what it is told.
struct Watcher {
    conn: RustConnection,
    root: Window,
    window: Window,
}

/// What it was told: what, which key or button, with which modifiers and buttons down before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Key(bool, u32, u16),
    Button(bool, u8, u16),
    Motion(i16, i16, u16),
}

impl Watcher {
    fn new(screen: &Screen) -> Self {
        let (conn, root) = screen.connect();
        let window = conn.generate_id().unwrap();
        let mask = EventMask::KEY_PRESS
            | EventMask::KEY_RELEASE
            | EventMask::BUTTON_PRESS
            | EventMask::BUTTON_RELEASE
            | EventMask::POINTER_MOTION;
        let aux = CreateWindowAux::new().event_mask(mask).override_redirect(1);
        conn.create_window(0, window, root, 100, 100, 400, 300, 0, WindowClass::INPUT_OUTPUT, 0, &aux).unwrap();
        conn.map_window(window).unwrap();
        conn.set_input_focus(InputFocus::PARENT, window, x11rb::CURRENT_TIME).unwrap();
        conn.sync().unwrap();
        Self { conn, root, window }
    }

    fn told(&self) -> Vec<Told> {
        self.conn.sync().unwrap();
        let mut told = Vec::new();
        while let Some(event) = self.conn.poll_for_event().unwrap() {
            told.extend(match event {
                Event::KeyPress(key) => Some(Told::Key(true, self.symbol(key.detail, key.state), key.state.into())),
                Event::KeyRelease(key) => Some(Told::Key(false, self.symbol(key.detail, key.state), key.state.into())),
                Event::ButtonPress(button) => Some(Told::Button(true, button.detail, button.state.into())),
                Event::ButtonRelease(button) => Some(Told::Button(false, button.detail, button.state.into())),
                Event::MotionNotify(motion) => Some(Told::Motion(motion.root_x, motion.root_y, motion.state.into())),
                _ => None,
            });
        }
        told
    }

    /// Of the first group, as programs did before XKB.
    fn symbol(&self, keycode: u8, state: KeyButMask) -> u32 {
        let symbols = self.conn.get_keyboard_mapping(keycode, 1).unwrap().reply().unwrap().keysyms;
        let level = usize::from(state.contains(KeyButMask::SHIFT) && symbols[1] != 0);
        symbols[level]
    }

    fn nothing_is_down(&self) -> bool {
        let keys = self.conn.query_keymap().unwrap().reply().unwrap().keys;
        let mask = u16::from(self.conn.query_pointer(self.root).unwrap().reply().unwrap().mask);
        keys.iter().all(|byte| *byte == 0) && mask == 0
    }
}

const SHIFT: u16 = 1;
const CONTROL: u16 = 4;
const BUTTON1: u16 = 256;

fn run(plan: &mut impl Plan, display: &mut Display) {
    plan.run(display).unwrap();
}

fn press(display: &mut Display, chord: &str) {
    run(&mut Press::new(chord, 1, AT_ONCE).unwrap(), display);
}

#[test]
fn the_pointer_goes_where_it_is_sent_and_to_the_edge() {
    let screen = Screen::start();
    let watcher = Watcher::new(&screen);
    let mut display = screen.open();
    let at = |display: &mut Display, x, y| {
        display.move_pointer(x, y).unwrap();
        let position = display.pointer_position().unwrap();
        (position.x, position.y, position.window)
    };
    assert_eq!(at(&mut display, 150, 120), (150, 120, watcher.window));
    assert_eq!(at(&mut display, 10, 20), (10, 20, watcher.root));
    for beyond in [1280, 32767, 32768, 40000, 65535, 65536, 100_000, i32::MAX] {
        assert_eq!(at(&mut display, beyond, beyond), (1279, 799, watcher.root), "{beyond}");
    }
    assert_eq!(at(&mut display, 0, 0), (0, 0, watcher.root));
    assert!(matches!(display.move_pointer(-1, 5), Err(Error::Invalid(_))));
}

#[test]
fn a_click_holds_its_modifiers() {
    let screen = Screen::start();
    let watcher = Watcher::new(&screen);
    let mut display = screen.open();
    display.move_pointer(200, 200).unwrap();
    watcher.told();
    run(&mut Click::new(Button::Left, 2, AT_ONCE, &["Ctrl", "shift"]).unwrap(), &mut display);
    let both = CONTROL | SHIFT;
    let expected = [
        Told::Key(true, 0xffe3, 0),
        Told::Key(true, 0xffe1, CONTROL),
        Told::Button(true, 1, both),
        Told::Button(false, 1, both | BUTTON1),
        Told::Button(true, 1, both),
        Told::Button(false, 1, both | BUTTON1),
        Told::Key(false, 0xffe1, both),
        Told::Key(false, 0xffe3, CONTROL),
    ];
    assert_eq!(watcher.told(), expected);
    for (button, number) in [(Button::Middle, 2), (Button::Right, 3), (Button::Back, 8), (Button::Forward, 9)] {
        run(&mut Click::new(button, 1, Duration::from_millis(5), &[]).unwrap(), &mut display);
        let told = watcher.told();
        assert!(matches!(told[..], [Told::Button(true, down, 0), Told::Button(false, up, _)] if down == number && up == number));
    }
    assert!(matches!(Click::new(Button::Left, 0, AT_ONCE, &[]), Err(Error::Invalid(_))));
    assert!(matches!(Click::new(Button::Left, 1, AT_ONCE, &["contrl"]), Err(Error::Invalid(text)) if text.contains("control")));
}

#[test]
fn a_modifier_that_the_layout_lacks_is_refused_and_nothing_stays_down() {
    let screen = Screen::start();
    let watcher = Watcher::new(&screen);
    let mut display = screen.open();
    let mut click = Click::new(Button::Left, 1, AT_ONCE, &["ctrl", "Cyrillic_a"]).unwrap();
    assert!(matches!(click.step(&mut display), Err(Error::Refused(_))));
    assert!(watcher.nothing_is_down());
    assert_eq!(watcher.told(), []);
}

#[test]
fn the_wheel_turns_as_often_as_it_is_told() {
    let screen = Screen::start();
    let watcher = Watcher::new(&screen);
    let mut display = screen.open();
    display.move_pointer(200, 200).unwrap();
    watcher.told();
    run(&mut Scroll::new(-3, 120, &["ctrl"]).unwrap(), &mut display);
    let told = watcher.told();
    let count =
        |wanted| told.iter().filter(|told| matches!(told, Told::Button(true, button, CONTROL) if *button == wanted)).count();
    assert_eq!((count(5), count(6), count(4), count(7)), (120, 3, 0, 0));
    run(&mut Scroll::new(1, -1, &[]).unwrap(), &mut display);
    assert_eq!(watcher.told().iter().filter(|told| matches!(told, Told::Button(true, 4 | 7, 0))).count(), 2);
    assert!(Scroll::new(0, 0, &[]).is_err());
    assert!(Scroll::new(0, i32::MIN, &[]).is_err());
}

#[test]
fn a_drag_moves_in_between() {
    let screen = Screen::start();
    let watcher = Watcher::new(&screen);
    let mut display = screen.open();
    display.move_pointer(110, 110).unwrap();
    watcher.told();
    let path = [(120, 120), (320, 120), (320, 220)];
    run(&mut Drag::new(Button::Left, &path, Some(30), Some(Duration::from_millis(60)), &[]).unwrap(), &mut display);
    let told = watcher.told();
    assert_eq!(told[..2], [Told::Motion(120, 120, 0), Told::Button(true, 1, 0)]);
    let mut expected: Vec<_> = (1..=20).map(|motion| Told::Motion(120 + motion * 10, 120, BUTTON1)).collect();
    expected.extend((1..=10).map(|motion| Told::Motion(320, 120 + motion * 10, BUTTON1)));
    expected.push(Told::Button(false, 1, BUTTON1));
    assert_eq!(told[2..], expected);
    run(&mut Drag::new(Button::Left, &path[..2], None, None, &["alt"]).unwrap(), &mut display);
    assert!(watcher.told().iter().filter(|told| matches!(told, Told::Motion(..))).count() > 8);
    for wrong in [Drag::new(Button::Left, &path[..1], None, None, &[]), Drag::new(Button::Left, &path, Some(0), None, &[])] {
        assert!(matches!(wrong, Err(Error::Invalid(_))));
    }
    assert!(Drag::new(Button::Left, &[(0, 0), (0, -1)], None, None, &[]).is_err());
}

#[test]
fn what_is_dropped_half_way_holds_nothing() {
    let screen = Screen::start();
    let watcher = Watcher::new(&screen);
    let mut display = screen.open();
    let mut drag = Drag::new(Button::Left, &[(120, 120), (300, 300)], None, None, &["shift"]).unwrap();
    drag.step(&mut display).unwrap();
    drag.step(&mut display).unwrap();
    assert!(!watcher.nothing_is_down());
    drag.abandon(&mut display);
    assert!(watcher.nothing_is_down());
    let mut hold = Press::new("ctrl+日", 1, Duration::from_secs(100)).unwrap();
    hold.step(&mut display).unwrap();
    assert!(!watcher.nothing_is_down());
    hold.abandon(&mut display);
    assert!(watcher.nothing_is_down());
    display.button(Button::Right, true).unwrap();
    run(&mut KeyChange::down("ctrl+alt").unwrap(), &mut display);
    display.release_all().unwrap();
    assert!(watcher.nothing_is_down());
    display.button(Button::Right, true).unwrap();
    run(&mut KeyChange::down("shift").unwrap(), &mut display);
    drop(display);
    assert!(watcher.nothing_is_down());
}

#[test]
fn chords_press_what_their_keys_need() {
    let screen = Screen::start();
    let watcher = Watcher::new(&screen);
    let mut display = screen.open();
    press(&mut display, "ctrl+shift+t");
    let both = CONTROL | SHIFT;
    let expected = [
        Told::Key(true, 0xffe3, 0),
        Told::Key(true, 0xffe1, CONTROL),
        Told::Key(true, 0x54, both),
        Told::Key(false, 0x54, both),
        Told::Key(false, 0xffe1, both),
        Told::Key(false, 0xffe3, CONTROL),
    ];
    assert_eq!(watcher.told(), expected);
    let pressed = |display: &mut Display, chord: &str| {
        press(display, chord);
        let told = watcher.told();
        let keys = told.iter().filter_map(|told| match told {
            Told::Key(true, symbol, state) if !(0xffe1..=0xffee).contains(symbol) => Some((*symbol, *state)),
            _ => None,
        });
        keys.collect::<Vec<_>>()
    };
    let keys = [
        ("Enter", 0xff0d, 0),
        ("ArrowUp", 0xff52, 0),
        ("F5", 0xffc2, 0),
        ("!", 0x21, SHIFT),
        ("ctrl+!", 0x21, both),
        ("+", 0x2b, SHIFT),
        ("ctrl++", 0x2b, both),
        ("A", 0x41, SHIFT),
        ("shift+A", 0x41, SHIFT),
        ("é", 0xe9, 0),
        ("ctrl+é", 0xe9, CONTROL),
        ("U20AC", 0x0100_20ac, 0),
        ("0x61", 0x61, 0),
        ("XF86AudioPlay", 0x1008_ff14, 0),
    ];
    for (chord, symbol, state) in keys {
        // Some keymaps have a keysym on a higher level only: the key is what counts here.
        let told = pressed(&mut display, chord);
        assert_eq!(told, [(symbol, state)], "{chord}");
        assert!(watcher.nothing_is_down(), "{chord}");
    }
    assert!(matches!(Press::new("NoSuchKey", 1, AT_ONCE), Err(Error::Invalid(_))));
    assert!(matches!(Press::new("ctrl+Entr", 1, AT_ONCE), Err(Error::Invalid(text)) if text.contains("enter")));
    run(&mut Press::new("x", 50, AT_ONCE).unwrap(), &mut display);
    assert_eq!(watcher.told().len(), 100);
}

#[test]
fn held_modifiers_stay_while_others_come_and_go() {
    let screen = Screen::start();
    let watcher = Watcher::new(&screen);
    let mut display = screen.open();
    run(&mut KeyChange::down("Shift").unwrap(), &mut display);
    run(&mut KeyChange::down("shift").unwrap(), &mut display);
    run(&mut Typing::new("AB", AT_ONCE).unwrap(), &mut display);
    press(&mut display, "ctrl+Home");
    run(&mut KeyChange::up("shift").unwrap(), &mut display);
    let told = watcher.told();
    assert_eq!(told.iter().filter(|told| matches!(told, Told::Key(_, 0xffe1, _))).count(), 2, "{told:?}");
    assert!(matches!(told[0], Told::Key(true, 0xffe1, 0)) && matches!(told[told.len() - 1], Told::Key(false, 0xffe1, SHIFT)));
    assert!(told.contains(&Told::Key(true, 0x41, SHIFT)));
    assert!(watcher.nothing_is_down());
}

#[test]
fn a_double_click_takes_a_word_in_a_terminal() {
    let mut screen = Screen::start();
    screen.openbox();
    screen.spawn("xterm", &["-geometry", "80x24+0+0", "-e", "sh", "-c", "echo wordywordy; touch ready; cat > typed"]);
    let window = screen.wait_for_window("XTerm");
    wait_for("the terminal", || screen.home().join("ready").exists().then_some(()));
    let mut display = screen.open();
    let (conn, root) = screen.connect();
    let corner = conn.translate_coordinates(window, root, 0, 0).unwrap().reply().unwrap();
    // The word is drawn some time after it was written: again until it is taken.
    let typed = wait_for("the word", || {
        display.move_pointer(i32::from(corner.dst_x) + 20, i32::from(corner.dst_y) + 8).unwrap();
        run(&mut Click::new(Button::Left, 2, AT_ONCE, &[]).unwrap(), &mut display);
        run(&mut Click::new(Button::Middle, 1, AT_ONCE, &[]).unwrap(), &mut display);
        std::thread::sleep(Duration::from_millis(300));
        press(&mut display, "Enter");
        std::thread::sleep(Duration::from_millis(300));
        let typed = std::fs::read_to_string(screen.home().join("typed")).unwrap();
        typed.lines().find(|line| !line.is_empty()).map(str::to_owned)
    });
    assert_eq!(typed, "wordywordy");
}

#[test]
fn a_double_click_takes_a_word_in_an_editor() {
    let mut screen = Screen::start();
    screen.openbox();
    std::fs::write(screen.home().join("text"), "wordywordywordy and others").unwrap();
    screen.spawn("mousepad", &["--disable-server", "text"]);
    let window = screen.wait_for_window("Mousepad");
    let mut display = screen.open();
    let (conn, root) = screen.connect();
    let text = wait_for("the word to be replaced", || {
        // Below the menu, whose height depends on the theme: clicks into nothing change nothing.
        let geometry = conn.get_geometry(window).unwrap().reply().unwrap();
        let corner = conn.translate_coordinates(window, root, 0, 0).unwrap().reply().unwrap();
        for y in (30..geometry.height.min(90)).step_by(6) {
            display.move_pointer(i32::from(corner.dst_x) + 50, i32::from(corner.dst_y) + i32::from(y)).unwrap();
            run(&mut Click::new(Button::Left, 2, AT_ONCE, &[]).unwrap(), &mut display);
            std::thread::sleep(Duration::from_millis(500));
            run(&mut Typing::new("é", AT_ONCE).unwrap(), &mut display);
            press(&mut display, "ctrl+s");
            std::thread::sleep(Duration::from_millis(300));
            let text = std::fs::read_to_string(screen.home().join("text")).unwrap();
            if !text.contains("wordy") {
                return Some(text);
            }
        }
        None
    });
    assert!(text.contains("é and others"), "{text:?}");
}
