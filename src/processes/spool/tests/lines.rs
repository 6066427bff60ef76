//! Lines of a spool, and of items made up.

use proptest::prelude::*;

use super::*;

fn entry(sequence: u64, stream: Stream, text: &str) -> Item {
    Item::Entry(Entry { sequence, stream, time_ms: 0, offset: 0, bytes: text.as_bytes().to_vec() })
}

fn assemble(streams: Streams, items: &[Item]) -> Vec<LineItem> {
    let (mut assembler, mut out) = (LineAssembler::new(streams), Vec::new());
    items.iter().for_each(|item| assembler.push(item, &mut out));
    assembler.finish(&mut out);
    out
}

fn texts(text: &str) -> Vec<String> {
    let lines = assemble(Streams::ALL, &[entry(1, Stream::Pty, text)]);
    let text = |item| if let LineItem::Line(line) = item { line.text } else { panic!("{item:?}") };
    lines.into_iter().map(text).collect()
}

#[test]
fn lines_are_shown_as_a_terminal_would() {
    for (written, shown) in [
        ("a\nb\r\n\nc", &["a", "b", "", "c"][..]),
        ("10%\r50%\r100%\nnext\n", &["100%", "next"]),
        ("kept\r\x1b[K\nx\r", &["kept", "x"]),
        ("\x1b[32mok\x1b[0m \x1b]0;t\x07done\n", &["ok done"]),
        ("a\x1b[\nb\u{9b}c\n", &["a", "bc"]),
        ("", &[]),
        ("\x1b[0m", &[]),
    ] {
        assert_eq!(texts(written), shown, "{written:?}");
    }
}

#[test]
fn lines_of_two_streams_do_not_mix_and_begin_where_their_text_begins() {
    let items = [
        entry(1, Stream::Stdout, "out "),
        entry(2, Stream::Stderr, "err\nmore"),
        entry(3, Stream::Stdout, "goes on\n"),
        entry(4, Stream::Stdout, "\x1b[1m"),
        entry(5, Stream::Stdout, "old\r"),
        entry(6, Stream::Stdout, "new"),
    ];
    let line =
        |number, sequence, stream, text: &str, end| LineItem::Line(Line { number, sequence, stream, text: text.to_owned(), end });
    assert_eq!(
        assemble(Streams::ALL, &items),
        [
            line(1, 2, Stream::Stderr, "err", LineEnd::Newline),
            line(2, 1, Stream::Stdout, "out goes on", LineEnd::Newline),
            line(3, 6, Stream::Stdout, "new", LineEnd::Unfinished),
            line(4, 2, Stream::Stderr, "more", LineEnd::Unfinished),
        ]
    );
    assert_eq!(assemble(Stream::Stderr.into(), &items).len(), 2);
}

#[test]
fn a_gap_ends_lines_of_its_streams_only() {
    let gap = Gap { from_sequence: 3, to_sequence: 9, bytes: StreamBytes::from_array([5, 0, 0]), reason: GapReason::Truncated };
    let items = [
        entry(1, Stream::Stdout, "half \x1b]0;ti"),
        entry(2, Stream::Stderr, "whole "),
        Item::Gap(gap),
        entry(10, Stream::Stdout, "other half\n"),
        entry(11, Stream::Stderr, "line\n"),
    ];
    let line =
        |number, sequence, stream, text: &str, end| LineItem::Line(Line { number, sequence, stream, text: text.to_owned(), end });
    assert_eq!(
        assemble(Streams::ALL, &items),
        [
            line(1, 1, Stream::Stdout, "half ", LineEnd::Gap),
            LineItem::Gap(gap),
            line(2, 10, Stream::Stdout, "other half", LineEnd::Newline),
            line(3, 2, Stream::Stderr, "whole line", LineEnd::Newline),
        ]
    );
    assert_eq!(assemble(Stream::Stderr.into(), &items).len(), 1, "what is missing is of another stream");
}

#[test]
fn a_long_line_comes_in_pieces_of_one_number() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = Spool::create(dir.path(), 1, 10 << 20);
    let long = "€".repeat(50_000);
    spool.append(Stream::Stdout, 0, long.as_bytes());
    spool.append(Stream::Stdout, 0, b"\nshort\n");
    let lines = Lines::new(SpoolReader::new(spool.index()), Streams::ALL).map(|item| match item.unwrap() {
        LineItem::Line(line) => line,
        other => panic!("{other:?}"),
    });
    let lines: Vec<Line> = lines.collect();
    let shape: Vec<_> = lines.iter().map(|line| (line.number, line.text.len(), line.end)).collect();
    assert_eq!(
        shape,
        [(1, 65_535, LineEnd::Cut), (1, 65_535, LineEnd::Cut), (1, 18_930, LineEnd::Newline), (2, 5, LineEnd::Newline),]
    );
    assert_eq!(lines[..3].iter().map(|line| line.text.as_str()).collect::<String>(), long);
}

#[test]
fn a_line_of_broken_escapes_is_bounded_too() {
    let item =
        |sequence| Item::Entry(Entry { sequence, stream: Stream::Pty, time_ms: 0, offset: 0, bytes: b"\x1b\x80".repeat(4000) });
    let lines = assemble(Streams::ALL, &(1..=40).map(item).collect::<Vec<_>>());
    let ends = lines.iter().map(|item| if let LineItem::Line(line) = item { line.end } else { panic!("{item:?}") });
    assert_eq!(ends.collect::<Vec<_>>(), [LineEnd::Cut, LineEnd::Cut, LineEnd::Unfinished]);
}

#[test]
fn what_is_not_text_is_replaced() {
    let item = Item::Entry(Entry { sequence: 1, stream: Stream::Stdout, time_ms: 0, offset: 0, bytes: b"a\xFFb\n".to_vec() });
    let LineItem::Line(line) = &assemble(Streams::ALL, &[item])[0] else { panic!("a line") };
    assert_eq!(line.text, "a\u{FFFD}b");
}

proptest! {
    #[test]
    fn however_output_is_cut_the_lines_are_the_same(text in "[ab€\r\n\x1b\\[m\\];\x07]{0,80}", cut in 1usize..9) {
        let whole = texts(&text);
        let pieces: Vec<Item> = text.as_bytes().chunks(cut).zip(1..).map(|(bytes, sequence)| {
            Item::Entry(Entry { sequence, stream: Stream::Pty, time_ms: 0, offset: 0, bytes: bytes.to_vec() })
        }).collect();
        let text = |item: LineItem| if let LineItem::Line(line) = item { line.text } else { panic!("{item:?}") };
        let cut: Vec<String> = assemble(Streams::ALL, &pieces).into_iter().map(text).collect();
        prop_assert_eq!(cut, whole);
    }
}
