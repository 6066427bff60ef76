//! Whatever is appended: the files stay within the bound, and first and latest output are there.

use proptest::prelude::*;

use super::super::segment::segment_bytes;
use super::*;

#[derive(Debug, Clone)]
enum Step {
    Append(Stream, usize),
    Resize(u16),
    Bound(u64),
    Reopen,
}

fn stream() -> impl Strategy<Value = Stream> {
    prop::sample::select(Stream::ALL.to_vec())
}

fn append() -> impl Strategy<Value = Step> {
    (stream(), prop_oneof![3 => 0usize..300, 3 => 0usize..9_000, 1 => 0usize..40_000]).prop_map(|(s, size)| Step::Append(s, size))
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => append(),
        2 => any::<u16>().prop_map(Step::Resize),
        1 => (0u64..300_000).prop_map(Step::Bound),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_read_is_head_gap_and_tail(steps in prop::collection::vec(append(), 0..60), bound in 0u64..400_000) {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::create(dir.path(), 1, bound);
        let mut model = Model::default();
        for step in &steps {
            let Step::Append(stream, size) = *step else { unreachable!("only appends") };
            model.append(&mut spool, stream, size);
            let on_disk = disk_bytes(dir.path(), 1).unwrap();
            prop_assert!(on_disk <= bound.max(MIN), "{on_disk} of {bound}");
            prop_assert_eq!(on_disk, spool.index().end().disk_bytes);
        }
        let items = model.check_whole(&spool.index());
        let end = spool.index().end();
        prop_assert!(gaps(&items).len() <= 1);
        prop_assert_eq!(end.not_kept, Count::default());
        if end.last_sequence > 0 {
            let kept = sequences(&items);
            prop_assert_eq!(*kept.last().unwrap(), end.last_sequence);
            if bound >= 3 * MIN {
                prop_assert_eq!(kept[0], 1);
            }
        }
        if end.truncated.entries > 0 {
            prop_assert!(end.disk_bytes > bound.max(MIN) - segment_bytes(bound), "{} of {}", end.disk_bytes, bound);
        }
        let loaded = SpoolIndex::load(dir.path(), 1).unwrap();
        prop_assert_eq!(loaded.end(), end);
        prop_assert_eq!(read_all(&mut SpoolReader::new(loaded), 1), items);
    }

    #[test]
    fn bounds_may_change_and_writers_come_back(steps in prop::collection::vec(any_step(), 0..60), bound in 0u64..200_000) {
        let dir = tempfile::tempdir().unwrap();
        let mut bound = bound;
        let mut spool = Spool::create(dir.path(), 1, bound);
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Append(stream, size) => {
                    model.append(&mut spool, stream, size);
                    prop_assert!(size == 0 || disk_bytes(dir.path(), 1).unwrap() <= bound.max(MIN));
                }
                Step::Resize(cols) => spool.append_control(1, Control::Resize { cols, rows: 1 }),
                Step::Bound(to) => {
                    bound = to;
                    spool.set_max_bytes(bound);
                }
                Step::Reopen => {
                    drop(spool);
                    spool = Spool::reopen(dir.path(), 1, bound).unwrap();
                }
            }
        }
        let items = model.check_whole(&spool.index());
        prop_assert!(gaps(&items).len() <= 1);
        let loaded = SpoolIndex::load(dir.path(), 1).unwrap();
        prop_assert_eq!(loaded.end(), spool.index().end());
        prop_assert_eq!(read_all(&mut SpoolReader::new(loaded), 9_999), items);
    }

    #[test]
    fn entries_cut_no_character(text in "[a😀é]{0,3}", repeats in 0usize..9_000) {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::create(dir.path(), 1, 1 << 20);
        let whole = text.repeat(repeats);
        spool.append(Stream::Pty, 0, whole.as_bytes());
        let mut joined = String::new();
        for item in read_all(&mut SpoolReader::new(spool.index()), 1 << 20) {
            let Item::Entry(entry) = item else { panic!("only entries: {item:?}") };
            joined.push_str(std::str::from_utf8(&entry.bytes).unwrap());
        }
        prop_assert!(joined == whole);
    }
}

#[test]
fn a_silent_process_has_no_file_and_files_are_ours_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let mut spool = Spool::create(dir.path(), 5, 1 << 20);
    spool.append_control(7, Control::Resize { cols: 1, rows: 2 });
    spool.append_control(8, Control::Resize { cols: 80, rows: 24 });
    assert_eq!(spool.append(Stream::Pty, 9, b""), 1..1);
    assert_eq!(files(dir.path()), Vec::<String>::new());
    assert_eq!(spool.append(Stream::Pty, 9, b"$ "), 1..2);
    assert_eq!(files(dir.path()), ["p5.0.spool"]);
    assert_eq!(std::fs::metadata(dir.path().join("p5.0.spool")).unwrap().permissions().mode() & 0o777, 0o600);
    let size = Item::Control { time_ms: 8, control: Control::Resize { cols: 80, rows: 24 } };
    let entry = Entry { sequence: 1, stream: Stream::Pty, time_ms: 9, offset: 0, bytes: b"$ ".to_vec() };
    assert_eq!(read_all(&mut SpoolReader::new(spool.index()), 100), [size, Item::Entry(entry)]);
}

#[test]
fn files_of_an_earlier_process_of_the_number_give_way() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["p1.0.spool", "p1.3.spool", "p2.0.spool"] {
        std::fs::write(dir.path().join(name), "old").unwrap();
    }
    let mut spool = Spool::create(dir.path(), 1, 1 << 20);
    spool.append(Stream::Stdout, 0, b"new");
    assert_eq!(files(dir.path()), ["p1.0.spool", "p2.0.spool"]);
    assert!(!spool.index().end().degraded);
}

#[test]
fn the_size_in_force_follows_the_gap() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = Spool::create(dir.path(), 1, 8 * MIN);
    spool.append(Stream::Pty, 1, b"x");
    for cols in 1..=3 {
        for _ in 0..20 {
            spool.append(Stream::Pty, 100 + i64::from(cols), &[b'y'; 8000]);
        }
        spool.append_control(cols.into(), Control::Resize { cols, rows: 9 });
    }
    for _ in 0..20 {
        spool.append(Stream::Pty, 104, &[b'z'; 8000]);
    }
    let items = read_all(&mut SpoolReader::new(spool.index()), 1 << 20);
    let gap = items.iter().position(|item| matches!(item, Item::Gap(_))).unwrap();
    assert_eq!(items[gap + 1], Item::Control { time_ms: 104, control: Control::Resize { cols: 3, rows: 9 } });
    assert_eq!(items.iter().filter(|item| matches!(item, Item::Control { .. })).count(), 1);
}

#[test]
fn one_append_is_one_write_of_whole_frames() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = Spool::create(dir.path(), 1, 1 << 20);
    assert_eq!(spool.append(Stream::Stdout, 3, &[b'x'; 20_000]), 1..4);
    assert_eq!(spool.append(Stream::Stderr, 4, b"e"), 4..5);
    let items = read_all(&mut SpoolReader::new(spool.index()), 1 << 20);
    let shape = items.iter().map(|item| match item {
        Item::Entry(entry) => (entry.sequence, entry.stream, entry.time_ms, entry.offset, entry.bytes.len()),
        other => panic!("{other:?}"),
    });
    assert_eq!(
        shape.collect::<Vec<_>>(),
        [
            (1, Stream::Stdout, 3, 0, 8192),
            (2, Stream::Stdout, 3, 8192, 8192),
            (3, Stream::Stdout, 3, 16384, 3616),
            (4, Stream::Stderr, 4, 0, 1),
        ]
    );
}
