//! Text typed into real programs, and read back from the files that they write.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use support::{Screen, wait_for};
use x_desktop::{Display, Plan, Press, Typing};

/// So often each text is typed: a race shows itself now and then only.
const RUNS: usize = 10;

const MIXED: &str =
    "naïve café — “quoted” ‘single’ ü ñ ß 日本語 😀 €5 Привет Ωμέγα 👩‍👩‍👧 e\u{301} `~!@#$%^&*()_+-=[]{}|;':\",./<>?\\\tend";

/// Chinese: more different characters than a keyboard has spare keycodes.
fn chinese(count: u32) -> String {
    (0..count).filter_map(|index| char::from_u32(0x4e00 + (index * 37) % 601)).collect()
}

/// Two thousand characters of many kinds, in lines.
fn long(line: usize) -> String {
    let latin = "The quick brown fox jumps over the lazy dog; 0123456789. Ça va, où? Größe, łódź, žluťoučký. ";
    let cyrillic = "Съешь же ещё этих мягких французских булок, да выпей чаю. ";
    let greek = "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία. ";
    let all = [latin, cyrillic, greek, "日本語の文章も。", "🙂🚀✅ ", "“„«»”… — "].concat();
    let ends = |index: usize, character| if index % line == line - 1 { '\n' } else { character };
    all.chars().cycle().take(2000).enumerate().map(|(index, character)| ends(index, character)).collect()
}

/// A terminal whose `cat` writes what is typed to files of the home.
struct Terminal {
    screen: Screen,
    display: Display,
    lines: u32,
}

impl Terminal {
    fn start(prepare: impl FnOnce(&mut Screen)) -> Self {
        let mut screen = Screen::start();
        prepare(&mut screen);
        let display = screen.open();
        let mut terminal = Self { screen, display, lines: 0 };
        // Lines go to numbered files: each run has its own, without a new xterm. Raw: a line may be longer than 4096 bytes.
        let script = "n=0; touch ready; while IFS= read -r line; do printf %s \"$line\" > part; mv part \"$n\"; n=$((n+1)); done";
        terminal.screen.spawn("xterm", &["-u8", "-en", "UTF-8", "-e", "sh", "-c", script]);
        let window = terminal.screen.wait_for_window("XTerm");
        terminal.screen.wait_for_file("ready", |_| true);
        wait_for("ready", || terminal.screen.home().join("ready").exists().then_some(()));
        focus(&terminal.screen, window);
        terminal
    }

    /// Types each text and Return, and compares the lines that arrive.
    fn check(&mut self, texts: &[&str], pause: Duration) {
        for text in texts {
            Typing::new(&format!("{text}\n"), pause).unwrap().run(&mut self.display).unwrap();
            for line in text.split('\n') {
                let name = self.lines.to_string();
                self.lines += 1;
                wait_for(line, || self.screen.home().join(&name).exists().then_some(()));
                assert_eq!(self.screen.wait_for_file(&name, |_| true), line, "line {name}");
            }
        }
    }
}

/// Without a window manager nobody else gives the focus.
fn focus(screen: &Screen, window: u32) {
    use x11rb::protocol::xproto::{ConnectionExt as _, InputFocus};
    let (conn, _) = screen.connect();
    conn.set_input_focus(InputFocus::PARENT, window, x11rb::CURRENT_TIME).unwrap().check().unwrap();
}

#[test]
fn a_terminal_reads_every_character() {
    Terminal::start(|_| ()).check(&[MIXED; RUNS], Duration::ZERO);
}

#[test]
fn a_terminal_reads_long_texts() {
    let mut terminal = Terminal::start(Screen::openbox);
    let started = Instant::now();
    // A line of a terminal has at most 4096 bytes (termios(3), canonical mode).
    terminal.check(&[long(1000).trim_end(); RUNS], Duration::ZERO);
    println!("{RUNS} times 2000 characters into a terminal: {:?}", started.elapsed());
}

#[test]
fn more_different_characters_than_spare_keycodes() {
    let text = chinese(500);
    let mut terminal = Terminal::start(|_| ());
    let started = Instant::now();
    terminal.check(&[text.as_str(); RUNS], Duration::ZERO);
    println!("{RUNS} times 500 of 500 Chinese characters into a terminal: {:?}", started.elapsed());
}

#[test]
fn the_layout_doesnt_matter() {
    for layout in ["us", "de", "ru", "us,ru", "fr", "us(intl)"] {
        let mut terminal = Terminal::start(|screen| {
            screen.run("setxkbmap", &[layout]);
        });
        terminal.check(&[MIXED; 3], Duration::ZERO);
    }
}

#[test]
fn another_layout_in_between_is_noticed() {
    let mut terminal = Terminal::start(|_| ());
    for layout in ["us", "de", "ru", "us"] {
        terminal.screen.run("setxkbmap", &[layout]);
        terminal.check(&["z日y@q"], Duration::ZERO);
    }
}

#[test]
fn caps_lock_changes_nothing_and_stays() {
    let mut terminal = Terminal::start(|_| ());
    Press::new("Caps_Lock", 1, Duration::ZERO).unwrap().run(&mut terminal.display).unwrap();
    let is_on = |screen: &Screen| screen.run("xset", &["q"]).contains("Caps Lock:   on");
    assert!(is_on(&terminal.screen));
    terminal.check(&["aBc éÉ дД 1!", "aBc éÉ дД 1!"], Duration::ZERO);
    assert!(is_on(&terminal.screen));
    Press::new("capslock", 1, Duration::ZERO).unwrap().run(&mut terminal.display).unwrap();
    assert!(!is_on(&terminal.screen));
    terminal.check(&["aBc éÉ дД 1!", "aBc éÉ дД 1!", "aBc"], Duration::ZERO);
}

#[test]
fn a_long_pause_repeats_nothing() {
    let mut terminal = Terminal::start(|screen| {
        screen.run("xset", &["r", "rate", "30", "100"]);
    });
    terminal.check(&["xé日"], Duration::from_millis(400));
}

#[test]
fn an_editor_of_gtk_reads_every_character() {
    let mut screen = Screen::start();
    screen.openbox();
    std::fs::write(screen.home().join("text"), "").unwrap();
    screen.spawn("mousepad", &["--disable-server", "text"]);
    screen.wait_for_window("Mousepad");
    let mut display = screen.open();
    let texts = [MIXED.replace('\t', " "), long(100), chinese(500)];
    let mut expected = String::new();
    // Its first key shows that it listens.
    wait_for("the editor to take keys", || {
        Typing::new("x", Duration::ZERO).unwrap().run(&mut display).unwrap();
        Press::new("ctrl+s", 1, Duration::ZERO).unwrap().run(&mut display).unwrap();
        std::thread::sleep(Duration::from_millis(300));
        let text = std::fs::read_to_string(screen.home().join("text")).unwrap();
        text.starts_with('x').then_some(())
    });
    Press::new("ctrl+a", 1, Duration::ZERO).unwrap().run(&mut display).unwrap();
    for run in 0..RUNS {
        for text in &texts {
            let started = Instant::now();
            let mut typing = Typing::new(&format!("{text}\n"), Duration::ZERO).unwrap();
            typing.run(&mut display).unwrap();
            assert_eq!(typing.typed(), text.chars().count() + 1);
            println!("run {run}: {} characters into an editor: {:?}", typing.typed(), started.elapsed());
            expected += text;
            expected.push('\n');
        }
    }
    Press::new("ctrl+s", 1, Duration::ZERO).unwrap().run(&mut display).unwrap();
    let saved = screen.wait_for_file("text", |saved| saved.trim_end() == expected.trim_end());
    for (number, (saved, expected)) in saved.lines().zip(expected.lines()).enumerate() {
        assert_eq!(saved, expected, "line {number}");
    }
    assert_eq!(saved.trim_end(), expected.trim_end());
}

#[test]
fn keycodes_are_given_back_and_those_of_the_killed_are_found() {
    let mut terminal = Terminal::start(|_| ());
    let keymap = |screen: &Screen| screen.run("xmodmap", &["-pke"]);
    let before = keymap(&terminal.screen);
    // Another connection that never gives back what it took, as if it was killed.
    let mut killed = std::mem::ManuallyDrop::new(terminal.screen.open());
    Typing::new(&format!("{}\n", chinese(100)), Duration::ZERO).unwrap().run(&mut killed).unwrap();
    wait_for("the line", || terminal.screen.home().join("0").exists().then_some(()));
    assert_ne!(keymap(&terminal.screen), before);
    terminal.lines = 1;
    terminal.check(&["żółć 漢字かな", MIXED], Duration::ZERO);
    wait_for("the program to be ready", || terminal.display.restore_keymap().unwrap().then_some(()));
    assert_eq!(keymap(&terminal.screen), before);
}

#[test]
fn a_slow_program_reads_right_though_another_is_in_focus_since() {
    let mut screen = Screen::start();
    let [slow, quick] = ["slow", "quick"].map(|name| {
        let script = format!("IFS= read -r line; printf %s \"$line\" > part-{name}; mv part-{name} {name}");
        let pid = screen.spawn("xterm", &["-u8", "-en", "UTF-8", "-name", name, "-e", "sh", "-c", &script]);
        (pid, screen.wait_for_window(name))
    });
    let mut display = screen.open();
    let (first, second): (String, String) = (chinese(30), chinese(200).chars().skip(100).collect());
    let signal = |name| screen.run("kill", &[name, &slow.0.to_string()]);
    signal("-STOP");
    focus(&screen, slow.1);
    Typing::new(&format!("{first}\n"), Duration::ZERO).unwrap().run(&mut display).unwrap();
    focus(&screen, quick.1);
    let mut typing = Typing::new(&format!("{second}\n"), Duration::ZERO).unwrap();
    // Some characters find keycodes that are free; the others wait.
    for _ in 0..20 {
        typing.step(&mut display).unwrap();
    }
    assert!(typing.typed() < 30, "{}", typing.typed());
    signal("-CONT");
    typing.run(&mut display).unwrap();
    for (name, expected) in [("slow", first), ("quick", second)] {
        wait_for(name, || screen.home().join(name).exists().then_some(()));
        assert_eq!(screen.wait_for_file(name, |_| true), expected, "{name}");
    }
}
