//! Properties of the screen, over random histories.

use alacritty_terminal::grid::{Cursor, Dimensions as _, Grid};
use alacritty_terminal::index::Line;
use alacritty_terminal::term::TermMode;
use alacritty_terminal::term::cell::{Cell, Flags};
use proptest::prelude::*;

use super::{Screen, TerminalSize};

const HISTORY: usize = 12;

fn size(cols: u16, rows: u16) -> TerminalSize {
    TerminalSize { cols, rows }
}

fn screen(cols: u16, rows: u16) -> Screen {
    Screen::new(size(cols, rows), HISTORY)
}

fn fed(cols: u16, rows: u16, bytes: &[u8]) -> Screen {
    let mut screen = screen(cols, rows);
    screen.feed(bytes);
    screen
}

fn text_of(screen: &Screen) -> Vec<String> {
    screen.text(true, false)
}

// ── what two screens must agree in ──────────────────────────────────────────────────────────────────────────────────

fn describe_cell(cell: &Cell) -> String {
    let combining: String = cell.zerowidth().into_iter().flatten().collect();
    // Links without an id get one from a counter of the process.
    let link = cell.hyperlink().map(|link| (link.id().to_owned().replace(char::is_numeric, ""), link.uri().to_owned()));
    let (fg, bg, flags) = (cell.fg, cell.bg, cell.flags);
    format!("{:?}{combining} {fg:?} {bg:?} {flags:?} {:?} {link:?}", cell.c, cell.underline_color())
}

fn describe_cursor(cursor: &Cursor<Cell>) -> String {
    let style = describe_cell(&cursor.template);
    format!("{:?} {} {:?} {style}", cursor.point, cursor.input_needs_wrap, cursor.charsets)
}

fn describe_grid(name: &str, grid: &Grid<Cell>) -> Vec<String> {
    let mut lines = Vec::new();
    for line in grid.topmost_line().0..=grid.bottommost_line().0 {
        for (column, cell) in grid[Line(line)][..].iter().enumerate() {
            lines.push(format!("{name} {line},{column}: {}", describe_cell(cell)));
        }
    }
    lines.push(format!("{name} cursor {}", describe_cursor(&grid.cursor)));
    lines.push(format!("{name} saved {}", describe_cursor(&grid.saved_cursor)));
    lines
}

/// All state that anything could depend on.
fn describe(screen: &mut Screen) -> Vec<String> {
    let emulator = &mut screen.emulator;
    let mut lines = emulator.with_main(|main| describe_grid("main", main));
    if emulator.has(TermMode::ALT_SCREEN) {
        lines.extend(describe_grid("alternate", emulator.term.grid()));
    }
    lines.push(format!("{:?} {:?} {:?}", emulator.term.mode(), emulator.region, emulator.charset));
    lines.push(format!("{:?} {:?}", emulator.tabs, emulator.title));
    lines.push(format!("{:?} {:?}", emulator.styled, emulator.term.cursor_style()));
    lines.push(format!("{:?} {:?} {:?}", emulator.keyboards, emulator.modify_other_keys, emulator.passed_on));
    lines.push(format!("{:?}", (0..=258).map(|index| emulator.term.colors()[index]).collect::<Vec<_>>()));
    lines.push(format!("{:?} {:?}", screen.sequence, screen.cut_off));
    lines
}

/// The marks that a snapshot can't restore: that a row wraps below which there is none, or whose last column is printed
/// anew to bring the cursor behind it.
fn forget_what_is_not_restored(screen: &mut Screen) {
    fn forget(grid: &mut Grid<Cell>) {
        let last = grid.last_column();
        let mut rows = vec![grid.bottommost_line()];
        for cursor in [&grid.cursor, &grid.saved_cursor] {
            rows.extend(cursor.input_needs_wrap.then_some(cursor.point.line));
        }
        for row in rows {
            grid[row][last].flags.remove(Flags::WRAPLINE | Flags::LEADING_WIDE_CHAR_SPACER);
        }
    }
    screen.emulator.with_main(forget);
    if screen.emulator.has(TermMode::ALT_SCREEN) {
        forget(screen.emulator.term.grid_mut());
    }
}

// ── random histories ────────────────────────────────────────────────────────────────────────────────────────────────

#[derive(Clone)]
enum Step {
    Bytes(Vec<u8>),
    Resize(u16, u16),
}

impl std::fmt::Debug for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "{:?}", String::from_utf8_lossy(bytes)),
            Self::Resize(cols, rows) => write!(f, "resize {cols}x{rows}"),
        }
    }
}

fn apply(screen: &mut Screen, steps: &[Step]) {
    for step in steps {
        match step {
            Step::Bytes(bytes) => screen.feed(bytes),
            Step::Resize(cols, rows) => screen.resize(size(*cols, *rows)),
        }
    }
}

fn sequence() -> impl Strategy<Value = String> {
    let number = 0..12_u16;
    let text = prop_oneof![
        "[a-z ]{1,14}",
        "[日本語x ]{1,6}",
        Just("e\u{301}".to_owned()),
        Just("\u{301}".to_owned()),
        Just("👩\u{200d}💻".to_owned()),
        Just("\r\n".to_owned()),
        "[\r\n\t\u{8}\u{b}\u{e}\u{f}]",
    ];
    let moves = (number.clone(), number.clone(), "[ABCDEFGHdfILMPSTXZ@]")
        .prop_map(|(a, b, action)| if action == "H" { format!("\x1b[{a};{b}H") } else { format!("\x1b[{a}{action}") });
    let erase = (0..4_u16, "[JK]").prop_map(|(mode, action)| format!("\x1b[{mode}{action}"));
    let sgr = prop_oneof![
        (0..50_u16).prop_map(|code| format!("\x1b[{code}m")),
        (30..108_u16).prop_map(|code| format!("\x1b[{code}m")),
        prop::sample::select(vec![
            "4:3",
            "4:2",
            "4:4",
            "4:5",
            "38;5;99",
            "48;2;1;2;3",
            "58;5;7",
            "58:2::9:8:7",
            "0",
            "44",
            "7;1"
        ])
        .prop_map(|code| format!("\x1b[{code}m")),
    ];
    let modes = prop::sample::select(vec![
        "?1", "?6", "?7", "?12", "?25", "?47", "?1000", "?1002", "?1003", "?1004", "?1005", "?1006", "?1007", "?1016", "?1047",
        "?1049", "?1049", "?2004", "?2026", "4", "20",
    ]);
    let modes = (modes, "[hl]").prop_map(|(mode, action)| format!("\x1b[{mode}{action}"));
    let region = (number.clone(), number.clone()).prop_map(|(top, bottom)| format!("\x1b[{top};{bottom}r"));
    let others = prop::sample::select(vec![
        "\x1b7",
        "\x1b8",
        "\x1b7",
        "\x1b8",
        "\x1bD",
        "\x1bE",
        "\x1bM",
        "\x1bH",
        "\x1b[g",
        "\x1b[3g",
        "\x1b=",
        "\x1b>",
        "\x1b(0",
        "\x1b(B",
        "\x1b)0",
        "\x1b[2 q",
        "\x1b[5 q",
        "\x1b[0 q",
        "\x1b]2;a title\x07",
        "\x1b]0;\x1b\\",
        "\x1b]8;;\x1b\\",
        "\x1b]8;id=a;http://x/y;z\x1b\\",
        "\x1b]8;;http://q\x07",
        "\x1b]4;3;#112233\x07",
        "\x1b]11;rgb:1/2/3\x07",
        "\x1b]104\x07",
        "\x1b[>1u",
        "\x1b[>5u",
        "\x1b[<u",
        "\x1b[=3;2u",
        "\x1b[>4;2m",
        "\x1bc",
        "\x1b#8",
        "\x1b[?3h",
        "\x1b[6n",
        "\x1bPq#1\x1b\\",
    ]);
    prop_oneof![6 => text, 3 => moves, 2 => erase, 2 => sgr, 2 => modes, 1 => region, 2 => others.prop_map(str::to_owned)]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let bytes = prop::collection::vec(sequence(), 1..12).prop_map(|parts| Step::Bytes(parts.concat().into_bytes()));
    let resize = (2..16_u16, 1..9_u16).prop_map(|(cols, rows)| Step::Resize(cols, rows));
    prop::collection::vec(prop_oneof![5 => bytes, 1 => resize], 1..8)
}

fn assert_same(a: &mut Screen, b: &mut Screen) -> Result<(), TestCaseError> {
    let (a, b) = (describe(a), describe(b));
    for (a, b) in a.iter().zip(&b) {
        prop_assert_eq!(a, b);
    }
    prop_assert_eq!(a.len(), b.len());
    Ok(())
}

proptest! {
    /// A snapshot brings another screen into the same state, hidden state included: both go on alike.
    #[test]
    fn a_snapshot_restores_everything(before in steps(), cut in "[a-z日\x1b\\[0-9;?]{0,6}", after in steps()) {
        let mut a = screen(9, 5);
        apply(&mut a, &before);
        // Stops anywhere, also in a sequence or a character.
        let cut = cut.as_bytes();
        a.feed(&cut[..cut.len().saturating_sub(1)]);
        forget_what_is_not_restored(&mut a);
        let mut b = fed(a.size().cols, a.size().rows, &a.snapshot(usize::MAX));
        prop_assert!(b.take_replies().is_empty());
        assert_same(&mut a, &mut b)?;
        for screen in [&mut a, &mut b] {
            screen.feed(&cut[cut.len().saturating_sub(1)..]);
            apply(screen, &after);
        }
        assert_same(&mut a, &mut b)?;
    }

    /// A snapshot restores whatever state the client's terminal was in.
    #[test]
    fn a_snapshot_replaces_what_was_there(before in steps(), there in steps()) {
        let mut a = screen(9, 5);
        apply(&mut a, &before);
        forget_what_is_not_restored(&mut a);
        let mut b = screen(9, 5);
        apply(&mut b, &there);
        b.resize(a.size());
        b.feed(&a.snapshot(usize::MAX));
        assert_same(&mut a, &mut b)?;
    }

    /// How the bytes are cut into pieces doesn't matter.
    #[test]
    fn pieces_do_not_matter(steps in steps(), length in 1..9_usize) {
        let (mut a, mut b) = (screen(9, 5), screen(9, 5));
        for step in &steps {
            apply(&mut a, std::slice::from_ref(step));
            match step {
                Step::Bytes(bytes) => bytes.chunks(length).for_each(|piece| b.feed(piece)),
                Step::Resize(..) => apply(&mut b, std::slice::from_ref(step)),
            }
        }
        assert_same(&mut a, &mut b)?;
    }

    /// Whatever comes, nothing panics, and a snapshot can be taken.
    #[test]
    fn garbage_is_survived(
        bytes in prop::collection::vec(prop_oneof![
            3 => any::<u8>(),
            6 => prop::sample::select(b"\x1b\x1b\x1b[[[[?>=;:0123456789ABCDEFGHIJKLMPSTXZ@`abcdefghlmnpqrstu]\\ #()".to_vec()),
        ], 0..900),
        cols in 0..12_u16, rows in 0..6_u16, then in (0..12_u16, 0..6_u16),
    ) {
        let mut a = fed(cols, rows, &bytes);
        a.resize(size(then.0, then.1));
        a.feed(&bytes);
        let _ = (a.cells(), a.text(true, true), a.snapshot(3));
    }

    /// The parser is where [`super::sequence::Sequence`] says.
    #[test]
    fn sequences_are_followed(bytes in prop::collection::vec(
        prop::sample::select(b"\x1b\x1b[]PX_\\0;:<? \x07\x18\x1a\x9cm\xc3\xa9a".to_vec()), 0..40)
    ) {
        let mut a = fed(9, 5, b"\x1b[2;2H");
        a.feed(&bytes);
        if !a.cut_off.is_empty() {
            a.feed(b"\x9f");
        }
        let ground = a.sequence.is_ground();
        a.emulator.move_to(1, 1);
        a.emulator.alternate(false);
        a.feed(b"\x01");
        prop_assert_eq!(ground, a.sequence.is_ground());
        let before = a.emulator.term.grid().cursor.point;
        a.feed(b"~"); // printed in the ground state only; no final byte that moves the cursor
        let after = a.emulator.term.grid().cursor.point;
        prop_assert_eq!(ground, before != after);
    }

    /// Skipping what scrolls away leaves no trace.
    #[test]
    fn floods_are_skipped_exactly(
        before in steps(), line in "[a-z\t ]{0,30}", other in "[a-z\r]{0,12}\n?", repeat in 1200..4000_usize, after in steps(),
    ) {
        let mut flood = format!("{line}\r\n{other}").repeat(repeat).into_bytes();
        flood.extend_from_slice(b"the end");
        let (mut a, mut b) = (screen(9, 5), screen(9, 5));
        b.skips_floods = false;
        for screen in [&mut a, &mut b] {
            apply(screen, &before);
        }
        a.feed(&flood);
        b.feed(&flood);
        for screen in [&mut a, &mut b] {
            apply(screen, &after);
        }
        assert_same(&mut a, &mut b)?;
    }

    #[test]
    fn floods_without_returns_are_skipped_exactly(
        before in steps(), lines in prop::collection::vec("[a-z ]{0,30}\n", 1..6), repeat in 900..2500_usize, after in steps(),
    ) {
        let mut flood = lines.concat().repeat(repeat * 40 / lines.concat().len().max(1)).into_bytes();
        flood.extend_from_slice(b"the end");
        let (mut a, mut b) = (screen(9, 5), screen(9, 5));
        b.skips_floods = false;
        for screen in [&mut a, &mut b] {
            apply(screen, &before);
            screen.feed(&flood);
            apply(screen, &after);
        }
        assert_same(&mut a, &mut b)?;
    }
}

// ── single cases ────────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn a_flood_is_skipped() {
    let flood: String = (0..10_000).map(|line| format!("line {line}\r\n")).collect();
    let mut a = screen(20, 3);
    assert!(a.skip_flood(flood.as_bytes()).0 > flood.len() - 1000);
    let raw: String = (0..10_000).map(|line| format!("line {line}\n")).collect();
    assert!(screen(20, 3).skip_flood(raw.as_bytes()).0 > raw.len() - 1000, "without CR, too");
    let mut unskippable = fed(20, 3, b"\x1b[1;2r");
    assert_eq!(unskippable.skip_flood(flood.as_bytes()).0, 0);
    let mut b = fed(20, 3, flood.as_bytes());
    assert_eq!(b.scrollback_lines(), HISTORY);
    assert_eq!(b.text(false, false), ["line 9998", "line 9999", ""]);
    assert_eq!(text_of(&b).first().map(String::as_str), Some("line 9986"));
    assert_eq!((b.cursor_info().row, b.cursor_info().column), (2, 0));
    assert!(b.take_replies().is_empty());
}

#[test]
fn a_snapshot_brings_only_as_much_scrollback_as_asked_for() {
    let mut a = fed(10, 2, b"1\r\n2\r\n3\r\n4\r\n5");
    let b = fed(10, 2, &a.snapshot(2));
    assert_eq!(text_of(&b), ["2", "3", "4", "5"]);
}

#[test]
fn the_main_screen_is_restored_beneath_the_alternate_one() {
    let mut a = fed(10, 3, b"one\r\ntwo\r\nthree\r\n$ vi\x1b[?1049h\x1b[2Jfile");
    let mut b = fed(10, 3, &a.snapshot(10));
    assert!(b.is_alternate());
    assert_eq!(b.text(true, false), ["", "", "    file"]);
    b.feed(b"\x1b[?1049l!");
    assert_eq!(text_of(&b), ["one", "two", "three", "$ vi!"]);
}

#[test]
fn wrapped_rows_are_one_line_again() {
    let mut a = fed(5, 3, b"hello world\r\nx");
    let mut b = fed(5, 3, &a.snapshot(10));
    assert_eq!(b.text(true, true), ["hello world", "x"]);
    b.resize(size(20, 3));
    assert_eq!(b.text(true, false)[..2], ["hello world", "x"]);
}

#[test]
fn queries_are_answered_up_to_a_bound() {
    let mut a = fed(10, 3, b"ab\x1b[6n\x1b[5n\x1b[c");
    assert_eq!(a.take_replies(), b"\x1b[1;3R\x1b[0n\x1b[?6c");
    assert!(a.take_replies().is_empty());
    a.feed(&b"\x1b[6n".repeat(10_000));
    let length = a.take_replies().len();
    assert!((4000..=4096).contains(&length), "{length}");
}

#[test]
fn endless_strings_have_a_bound() {
    let mut a = screen(10, 3);
    a.feed(b"\x1b]52;c;");
    for _ in 0..100 {
        a.feed(&[b'A'; 16 * 1024]);
    }
    assert!(a.snapshot(0).len() < 1000);
    a.feed(b"\x07after\x07");
    assert_eq!((a.text(false, false)[0].as_str(), a.bells()), ("after", 1));
    let title = format!("\x1b]2;{}\x07", "é".repeat(3000));
    a.feed(title.as_bytes());
    assert_eq!(a.title().map(str::len), Some(1024));
    a.feed("\x1b[2;1He".as_bytes());
    a.feed("\u{301}".repeat(1000).as_bytes());
    assert_eq!(a.text(false, false)[1].chars().count(), 1 + super::emulator::COMBINING_MAX);
}

#[test]
fn cells_are_runs_of_one_style() {
    let a = fed(20, 2, "\x1b]2;t\x07ab\x1b[1;91;48;5;200m日本\x1b[0;38;2;1;2;255;4:3mc\x1b[?25l\x1b[5 q".as_bytes());
    let json = serde_json::to_value(a.cells()).expect("serializable");
    assert_eq!(
        json["rows"],
        serde_json::json!([
            [
                {"text": "ab", "width": 2},
                {"text": "日本", "width": 4, "fg": "brightRed", "bg": "200", "bold": true},
                {"text": "c", "width": 1, "fg": "#0102ff", "underline": "curly"},
            ],
            [],
        ])
    );
    assert_eq!(json["cursor"], serde_json::json!({"row": 0, "column": 7, "visible": false, "shape": "bar", "blinking": true}));
    assert_eq!(json["size"], serde_json::json!({"cols": 20, "rows": 2}));
    assert_eq!((&json["title"], &json["alternate"], &json["scrollbackLines"]), (&"t".into(), &false.into(), &0.into()));
    assert_eq!(json["modes"]["applicationCursorKeys"], false);
}
