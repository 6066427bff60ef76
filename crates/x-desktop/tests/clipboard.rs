//! Selections with other programs on the other side: xclip, mousepad, and programs of the test's own that misbehave.
#![allow(clippy::unwrap_used)] // a test that can't go on fails

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use support::{PATIENCE, Screen, wait_for};
use x_desktop::Error;
use x_desktop::clipboard::{Clipboard, Content, Limits, Selection, Target};
use x11rb::connection::Connection as _;
use x11rb::protocol::Event;
use x11rb::protocol::xproto::{
    Atom, AtomEnum, ConnectionExt as _, CreateWindowAux, EventMask, PropMode, SELECTION_NOTIFY_EVENT, SelectionNotifyEvent,
    SelectionRequestEvent, Window, WindowClass,
};
use x11rb::rust_connection::RustConnection;
use x11rb::wrapper::ConnectionExt as _;

const LARGE: usize = 20 << 20;

fn open(screen: &Screen) -> Clipboard {
    Clipboard::open(Some(screen.name()), Limits::default(), Box::new(|_, _| {})).unwrap()
}

fn set_text(clipboard: &Clipboard, selections: &[Selection], text: &str) {
    clipboard.set(selections, vec![("UTF8_STRING".into(), text.into())]).unwrap();
}

fn get(clipboard: &Clipboard, selection: Selection, target: Target) -> Option<Content> {
    clipboard.get(selection, target, PATIENCE).unwrap()
}

fn text(clipboard: &Clipboard, selection: Selection) -> Option<String> {
    get(clipboard, selection, Target::Text).map(|content| content.text().unwrap().text)
}

fn named(target: &str) -> Target {
    Target::Named(target.into())
}

/// Lets xclip own a selection with a file's content; waits until it does. Gives its process.
fn xclip(screen: &mut Screen, clipboard: &Clipboard, selection: Selection, args: &[&str], content: &[u8]) -> u32 {
    std::fs::write(screen.home().join("given"), content).unwrap();
    let name = if selection == Selection::Primary { "primary" } else { "clipboard" };
    let before = clipboard.changes(selection);
    let pid = screen.spawn("xclip", &[&["-quiet", "-selection", name, "-i", "given"], args].concat());
    wait_for("xclip", || (clipboard.changes(selection) > before).then_some(()));
    pid
}

fn kill(screen: &Screen, pid: u32) {
    screen.run("kill", &["-9", &pid.to_string()]);
}

fn large_text() -> String {
    let line = "0123456789 abcdefghijklmnopqrstuvwxyz äöü 日本語 ";
    let mut text: String = (0..)
        .map(|number| format!("{number} {line}\n"))
        .scan(0, |bytes, line| {
            *bytes += line.len();
            (*bytes < LARGE).then_some(line)
        })
        .collect();
    text.push_str("the end");
    text
}

#[test]
fn text_both_ways_with_xclip() {
    let mut screen = Screen::start();
    let clipboard = open(&screen);
    assert_eq!(text(&clipboard, Selection::Clipboard), None);
    assert_eq!(clipboard.targets(Selection::Primary, PATIENCE).unwrap(), [""; 0]);
    set_text(&clipboard, &Selection::ALL, "größer: 日本 ✓\n");
    for name in ["clipboard", "primary"] {
        assert_eq!(screen.run("xclip", &["-selection", name, "-o"]), "größer: 日本 ✓\n");
        let targets = screen.run("xclip", &["-selection", name, "-o", "-t", "TARGETS"]);
        let has = |name: &str| targets.lines().any(|line| line == name);
        assert!(has("UTF8_STRING") && has("text/plain;charset=utf-8") && has("TIMESTAMP") && !has("STRING"), "{targets}");
    }
    assert_eq!(text(&clipboard, Selection::Clipboard).as_deref(), Some("größer: 日本 ✓\n"));

    // Two owners at once, and each selection has its own.
    xclip(&mut screen, &clipboard, Selection::Primary, &[], "from xclip: é\0é\n".as_bytes());
    assert_eq!(text(&clipboard, Selection::Primary).as_deref(), Some("from xclip: é\0é\n"));
    assert_eq!(text(&clipboard, Selection::Clipboard).as_deref(), Some("größer: 日本 ✓\n"));
    assert_eq!((clipboard.changes(Selection::Clipboard), clipboard.changes(Selection::Primary)), (1, 2));
    assert_eq!(get(&clipboard, Selection::Primary, named("image/png")), None);

    // Content with characters that Latin-1 has is there for old programs, too.
    set_text(&clipboard, &[Selection::Clipboard], "café");
    let out = "xclip -selection clipboard -o -t STRING > latin1";
    screen.run("sh", &["-c", out]);
    assert_eq!(std::fs::read(screen.home().join("latin1")).unwrap(), b"caf\xe9");
    // Nothing empties it.
    clipboard.set(&[Selection::Clipboard], vec![]).unwrap();
    assert_eq!(text(&clipboard, Selection::Clipboard), None);
}

#[test]
fn any_target_both_ways() {
    let mut screen = Screen::start();
    let clipboard = open(&screen);
    let png = [&b"\x89PNG\r\n\x1a\n"[..], &[0, 1, 2, 255].repeat(5000)].concat();
    let html = "<b>bold</b>";
    let content = vec![
        ("text/html".into(), html.into()),
        ("image/png".into(), png.clone()),
        ("text/uri-list".into(), b"file:///tmp/a\r\n".to_vec()),
        ("text/plain".into(), b"bold".to_vec()),
    ];
    clipboard.set(&[Selection::Clipboard], content).unwrap();
    screen.run("sh", &["-c", "xclip -selection clipboard -o -t image/png > out.png"]);
    assert_eq!(std::fs::read(screen.home().join("out.png")).unwrap(), png);
    assert_eq!(screen.run("xclip", &["-selection", "clipboard", "-o", "-t", "text/html"]), html);
    assert_eq!(screen.run("xclip", &["-selection", "clipboard", "-o"]), "bold");
    assert_eq!(get(&clipboard, Selection::Clipboard, named("image/png")).unwrap().text(), None);

    xclip(&mut screen, &clipboard, Selection::Clipboard, &["-t", "image/png"], &png);
    let image = get(&clipboard, Selection::Clipboard, named("image/png")).unwrap();
    assert_eq!((image.target.as_str(), &image.bytes[..]), ("image/png", &png[..]));
    // xclip would give the picture as text, too.
    assert_eq!(text(&clipboard, Selection::Clipboard), None);
    assert_eq!(clipboard.targets(Selection::Clipboard, PATIENCE).unwrap(), ["TARGETS", "image/png"]);
}

#[test]
fn large_text_both_ways_and_to_many_at_once() {
    let mut screen = Screen::start();
    let clipboard = open(&screen);
    let large = large_text();
    set_text(&clipboard, &[Selection::Clipboard], &large);
    let out = "for i in 1 2 3; do xclip -selection clipboard -o > out$i & done; wait";
    screen.run("sh", &["-c", out]);
    for name in ["out1", "out2", "out3"] {
        assert!(std::fs::read(screen.home().join(name)).unwrap() == large.as_bytes(), "{name}");
    }
    let start = Instant::now();
    xclip(&mut screen, &clipboard, Selection::Clipboard, &[], large.as_bytes());
    assert!(text(&clipboard, Selection::Clipboard).unwrap() == large);
    println!("20 MiB from xclip, with its start: {:?}", start.elapsed());
    let start = Instant::now();
    assert!(text(&clipboard, Selection::Clipboard).unwrap() == large);
    println!("20 MiB from xclip: {:?}", start.elapsed());
}

#[test]
fn more_than_may_be_is_said_and_its_owner_lives() {
    let mut screen = Screen::start();
    let limits = Limits { content_bytes: 1 << 20, ..Limits::default() };
    let clipboard = Clipboard::open(Some(screen.name()), limits, Box::new(|_, _| {})).unwrap();
    let too_much = clipboard.set(&[Selection::Primary], vec![("UTF8_STRING".into(), vec![b'x'; (1 << 20) + 1])]);
    assert!(matches!(too_much, Err(Error::TooLarge { .. })));
    xclip(&mut screen, &clipboard, Selection::Clipboard, &[], large_text().as_bytes());
    let too_much = clipboard.get(Selection::Clipboard, Target::Text, PATIENCE);
    assert!(matches!(too_much, Err(Error::TooLarge { .. })), "{too_much:?}");
    // xclip gives its content to one at a time, and forgets who asks meanwhile; the rest of ours is still being taken.
    let again = "timeout 5 xclip -selection clipboard -o || true";
    wait_for("xclip", || screen.run("sh", &["-c", again]).ends_with("the end").then_some(()));
}

#[test]
fn content_outlives_its_owner() {
    let mut screen = Screen::start();
    let clipboard = open(&screen);
    let png = [&b"\x89PNG\r\n\x1a\n"[..], &[0, 1, 2, 255].repeat(200_000)].concat();
    let one = xclip(&mut screen, &clipboard, Selection::Clipboard, &["-t", "image/png"], &png);
    assert!(get(&clipboard, Selection::Clipboard, named("image/png")).is_some());
    let two = xclip(&mut screen, &clipboard, Selection::Primary, &[], "marked ✓".as_bytes());
    assert!(text(&clipboard, Selection::Primary).is_some());
    kill(&screen, one);
    kill(&screen, two);
    let gone = |selection| {
        wait_for("what was kept", || screen_targets(&screen, selection).filter(|targets| targets.contains("TIMESTAMP")))
    };
    gone("clipboard");
    gone("primary");
    assert_eq!(screen.run("xclip", &["-selection", "primary", "-o"]), "marked ✓");
    screen.run("sh", &["-c", "xclip -selection clipboard -o -t image/png > kept.png"]);
    assert!(std::fs::read(screen.home().join("kept.png")).unwrap() == png);
    assert_eq!(text(&clipboard, Selection::Primary).as_deref(), Some("marked ✓"));
    assert_eq!(clipboard.changes(Selection::Primary), 1, "the content is the same");
}

fn screen_targets(screen: &Screen, selection: &str) -> Option<String> {
    let command = format!("xclip -selection {selection} -o -t TARGETS || true");
    Some(screen.run("sh", &["-c", &command])).filter(|targets| !targets.is_empty())
}

#[test]
fn copied_and_pasted_in_an_editor() {
    let mut screen = Screen::start();
    screen.openbox();
    let clipboard = open(&screen);
    std::fs::write(screen.home().join("a.txt"), "from the editor: é ✓\n").unwrap();
    let mut display = screen.open();
    let pid = screen.spawn("mousepad", &["--disable-server", "a.txt"]);
    let is_there =
        |display: &x_desktop::Display| display.active_window().unwrap().filter(|window| window.title.contains("a.txt"));
    let window = wait_for("mousepad", || is_there(&display));
    display.activate(window.id).unwrap();
    wait_for("a copy", || {
        screen.run("xdotool", &["key", "ctrl+a", "ctrl+c"]);
        text(&clipboard, Selection::Clipboard).filter(|text| text == "from the editor: é ✓\n")
    });
    set_text(&clipboard, &[Selection::Clipboard], "pasted: 日本 ✓\n");
    screen.run("xdotool", &["key", "ctrl+a", "ctrl+v", "ctrl+s"]);
    screen.wait_for_file("a.txt", |text| text.contains("pasted"));
    assert_eq!(std::fs::read_to_string(screen.home().join("a.txt")).unwrap(), "pasted: 日本 ✓\n");
    let before = clipboard.changes(Selection::Clipboard);
    screen.run("xdotool", &["key", "ctrl+a", "ctrl+c"]);
    wait_for("a copy", || (clipboard.changes(Selection::Clipboard) > before).then_some(()));
    assert_eq!(text(&clipboard, Selection::Clipboard).as_deref(), Some("pasted: 日本 ✓\n"));
    kill(&screen, pid);
    wait_for("the editor's end", || display.active_window().unwrap().is_none().then_some(()));
    assert_eq!(text(&clipboard, Selection::Clipboard).as_deref(), Some("pasted: 日本 ✓\n"));
}

/// A program of the test's own that owns a selection and answers as `answer` says; it goes when dropped.
struct Owner {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

type Answer = Box<dyn Fn(&RustConnection, &SelectionRequestEvent) -> Option<(Atom, Vec<u8>)> + Send>;

fn client(screen: &Screen) -> (RustConnection, Window) {
    let (conn, root) = screen.connect();
    let window = conn.generate_id().unwrap();
    let aux = CreateWindowAux::new().event_mask(EventMask::PROPERTY_CHANGE);
    conn.create_window(0, window, root, 0, 0, 1, 1, 0, WindowClass::INPUT_ONLY, 0, &aux).unwrap();
    (conn, window)
}

/// `None` as the answer function never answers at all.
fn owner(screen: &Screen, clipboard: &Clipboard, selection: Selection, answer: Option<Answer>) -> Owner {
    let (conn, window) = client(screen);
    let name: &[u8] = if selection == Selection::Primary { b"PRIMARY" } else { b"CLIPBOARD" };
    let atom = conn.intern_atom(false, name).unwrap().reply().unwrap().atom;
    let before = clipboard.changes(selection);
    conn.set_selection_owner(window, atom, x11rb::CURRENT_TIME).unwrap();
    conn.flush().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let thread = std::thread::spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            match (conn.poll_for_event().unwrap(), &answer) {
                (Some(Event::SelectionRequest(request)), Some(answer)) => reply(&conn, &request, answer(&conn, &request)),
                (Some(_), _) => {}
                (None, _) => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    });
    wait_for("an owner", || (clipboard.changes(selection) > before).then_some(()));
    Owner { stop, thread: Some(thread) }
}

fn reply(conn: &RustConnection, request: &SelectionRequestEvent, answer: Option<(Atom, Vec<u8>)>) {
    let property = if answer.is_some() { request.property } else { x11rb::NONE };
    if let Some((kind, bytes)) = answer {
        conn.change_property8(PropMode::REPLACE, request.requestor, property, kind, &bytes).unwrap();
    }
    let &SelectionRequestEvent { time, requestor, selection, target, .. } = request;
    let response_type = SELECTION_NOTIFY_EVENT;
    let notify = SelectionNotifyEvent { response_type, sequence: 0, time, requestor, selection, target, property };
    conn.send_event(false, requestor, EventMask::NO_EVENT, notify).unwrap();
    conn.flush().unwrap();
}

#[test]
fn an_owner_that_never_answers_holds_up_nobody() {
    let screen = Screen::start();
    let clipboard = open(&screen);
    let silent = owner(&screen, &clipboard, Selection::Clipboard, None);
    set_text(&clipboard, &[Selection::Primary], "mine");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| clipboard.get(Selection::Clipboard, Target::Text, PATIENCE));
        for _ in 0..20 {
            let late = clipboard.get(Selection::Clipboard, Target::Text, Duration::from_millis(20));
            assert!(matches!(late, Err(Error::TimedOut { timeout_ms: 20, .. })), "{late:?}");
            assert_eq!(text(&clipboard, Selection::Primary).as_deref(), Some("mine"));
        }
        assert!(clipboard.targets(Selection::Clipboard, Duration::from_millis(20)).is_err());
        assert_eq!(screen.run("xclip", &["-selection", "primary", "-o"]), "mine");
        // It ends, and whoever waits for it hears at once that there is nothing.
        drop(silent);
        assert_eq!(waiting.join().unwrap().unwrap(), None);
    });
    let _silent = owner(&screen, &clipboard, Selection::Clipboard, None);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| clipboard.get(Selection::Clipboard, Target::Text, PATIENCE));
        // Another takes it: it is asked instead.
        set_text(&clipboard, &[Selection::Clipboard], "new");
        assert_eq!(waiting.join().unwrap().unwrap().unwrap().text().unwrap().text, "new");
    });
}

#[test]
fn owners_that_know_little_and_bytes_that_are_no_text() {
    let screen = Screen::start();
    let clipboard = open(&screen);
    let string = u32::from(AtomEnum::STRING);
    let old: Answer = Box::new(move |_, request| (request.target == string).then(|| (string, b"caf\xe9\0x".to_vec())));
    let _old = owner(&screen, &clipboard, Selection::Clipboard, Some(old));
    assert_eq!(text(&clipboard, Selection::Clipboard).as_deref(), Some("café\0x"));
    assert_eq!(clipboard.targets(Selection::Clipboard, PATIENCE).unwrap(), [""; 0]);

    let broken: Answer = Box::new(|conn, request| {
        let utf8 = conn.intern_atom(false, b"UTF8_STRING").unwrap().reply().unwrap().atom;
        (request.target == utf8).then(|| (utf8, b"a\xff\xfeb".to_vec()))
    });
    let _broken = owner(&screen, &clipboard, Selection::Primary, Some(broken));
    let content = get(&clipboard, Selection::Primary, Target::Text).unwrap();
    let decoded = content.text().unwrap();
    assert!(decoded.is_lossy && decoded.text.starts_with('a') && decoded.text.ends_with('b'), "{decoded:?}");
    assert_eq!(&content.bytes[..], b"a\xff\xfeb");
    // Names that nobody has heard of, and ones that can't be names.
    assert_eq!(get(&clipboard, Selection::Primary, named("application/x-never")), None);
    assert!(matches!(clipboard.get(Selection::Primary, named(""), PATIENCE), Err(Error::Invalid(_))));
}

/// Asks us as ICCCM has it, and gives the time, the pairs and what was put into the first one.
#[test]
fn several_targets_in_one_request() {
    let screen = Screen::start();
    let clipboard = open(&screen);
    set_text(&clipboard, &[Selection::Clipboard], "multiple");
    let (conn, window) = client(&screen);
    let atom = |name: &str| conn.intern_atom(false, name.as_bytes()).unwrap().reply().unwrap().atom;
    let [board, multiple, pair, utf8, time] = ["CLIPBOARD", "MULTIPLE", "ATOM_PAIR", "UTF8_STRING", "TIMESTAMP"].map(atom);
    let [list, a, b, c] = ["LIST", "A", "B", "C"].map(atom);
    let pairs = [utf8, a, time, b, atom("image/png"), c];
    conn.change_property32(PropMode::REPLACE, window, list, pair, &pairs).unwrap();
    conn.convert_selection(window, board, multiple, list, x11rb::CURRENT_TIME).unwrap();
    conn.flush().unwrap();
    let notify = wait_for("an answer", || match conn.poll_for_event().unwrap() {
        Some(Event::SelectionNotify(notify)) => Some(notify),
        _ => None,
    });
    assert_eq!(notify.property, list);
    let read = |name| conn.get_property(false, window, name, AtomEnum::ANY, 0, 100).unwrap().reply().unwrap();
    assert_eq!(read(list).value32().unwrap().collect::<Vec<_>>(), [utf8, a, time, b, atom("image/png"), 0]);
    assert_eq!(read(a).value, b"multiple");
    let since = read(b).value32().unwrap().next().unwrap();
    assert!(since > 0);
    assert_eq!(read(c).value_len, 0);
    // What was asked for before we owned it is refused.
    conn.convert_selection(window, board, utf8, a, since.wrapping_sub(1000)).unwrap();
    conn.flush().unwrap();
    let notify = wait_for("an answer", || match conn.poll_for_event().unwrap() {
        Some(Event::SelectionNotify(notify)) => Some(notify),
        _ => None,
    });
    assert_eq!(notify.property, x11rb::NONE);
}

#[test]
fn who_takes_no_pieces_and_a_server_that_ends() {
    let mut screen = Screen::start();
    let limits = Limits { transfers: 2, transfer_time: Duration::from_millis(300), ..Limits::default() };
    let clipboard = Clipboard::open(Some(screen.name()), limits, Box::new(|_, _| {})).unwrap();
    set_text(&clipboard, &[Selection::Clipboard], &large_text());
    let (conn, window) = client(&screen);
    let atom = |name: &str| conn.intern_atom(false, name.as_bytes()).unwrap().reply().unwrap().atom;
    let ask = |property: Atom| {
        conn.convert_selection(window, atom("CLIPBOARD"), atom("UTF8_STRING"), property, x11rb::CURRENT_TIME).unwrap();
        conn.flush().unwrap();
        wait_for("an answer", || match conn.poll_for_event().unwrap() {
            Some(Event::SelectionNotify(notify)) => Some(notify.property),
            _ => None,
        })
    };
    // Two are begun and not taken, so that the third is refused until their time is over.
    assert_eq!((ask(atom("A")), ask(atom("B"))), (atom("A"), atom("B")));
    wait_for("the others' end", || (ask(atom("C")) == atom("C")).then_some(()));
    screen.server().kill().unwrap();
    let error = wait_for("the end", || clipboard.get(Selection::Primary, Target::Text, PATIENCE).err());
    assert!(matches!(error, Error::Gone(_)), "{error}");
}

#[test]
fn small_content_costs_little() {
    let mut screen = Screen::start();
    let clipboard = open(&screen);
    let measure = |what: &str, act: &mut dyn FnMut()| {
        let mut times: Vec<_> = (0..50)
            .map(|_| {
                let start = Instant::now();
                act();
                start.elapsed()
            })
            .collect();
        times.sort();
        println!("{what}: median {:?}, 90th percentile {:?}", times[25], times[45]);
    };
    measure("set", &mut || set_text(&clipboard, &Selection::ALL, "small"));
    measure("get of ours", &mut || drop(text(&clipboard, Selection::Clipboard).unwrap()));
    xclip(&mut screen, &clipboard, Selection::Clipboard, &[], b"small");
    measure("get of xclip's", &mut || assert_eq!(text(&clipboard, Selection::Clipboard).unwrap(), "small"));
}
