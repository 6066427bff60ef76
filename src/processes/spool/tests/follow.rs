//! Readers beside a writer: following, overtaken, seeking, from the end.

use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;

use super::*;

#[test]
fn readers_follow_a_writer_that_rotates() {
    let dir = tempfile::tempdir().unwrap();
    for bound in [0, 4 * MIN, 1 << 20] {
        let mut spool = Spool::create(dir.path(), bound, bound);
        let (index, done) = (spool.index(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let readers: Vec<_> = [100, 70_000]
                .map(|max_bytes| {
                    let (index, done) = (Arc::clone(&index), &done);
                    scope.spawn(move || {
                        let (mut reader, mut items) = (SpoolReader::new(index), Vec::new());
                        loop {
                            let last = done.load(Ordering::Acquire);
                            let more = reader.read(max_bytes).unwrap();
                            if more.is_empty() {
                                if last {
                                    return items;
                                }
                                std::thread::yield_now();
                            }
                            items.extend(more);
                        }
                    })
                })
                .into();
            let mut model = Model::default();
            for turn in 0..1500_usize {
                model.append(&mut spool, Stream::ALL[turn % 3], turn * 7919 % 12_000);
            }
            done.store(true, Ordering::Release);
            for reader in readers {
                let items = reader.join().unwrap();
                let mut place = Position::START;
                model.check(&mut place, &items);
                assert_eq!((place.next, place.bytes), (index.end().last_sequence + 1, index.end().bytes));
                assert!(gaps(&items).iter().all(|gap| gap.reason == GapReason::Truncated));
            }
        });
    }
}

#[test]
fn an_overtaken_reader_reads_its_file_to_the_end_and_then_gets_the_gap() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = Spool::create(dir.path(), 1, 8 * MIN);
    let mut append = |times: usize| {
        for _ in 0..times {
            spool.append(Stream::Stdout, 0, &[b'x'; 4000]);
        }
    };
    append(5); // two in each segment: 1 2, 3 4, 5
    let mut reader = SpoolReader::new(SpoolIndex::load(dir.path(), 1).unwrap());
    reader.seek_after(2);
    assert_eq!(sequences(&reader.read(1).unwrap()), [3]);
    append(1);
    drop(reader);
    let index = spool.index();
    let mut reader = SpoolReader::new(Arc::clone(&index));
    reader.seek_after(2);
    assert_eq!(sequences(&reader.read(1).unwrap()), [3]);
    for _ in 0..40 {
        spool.append(Stream::Stdout, 0, &[b'x'; 4000]);
    }
    assert!(!dir.path().join("p1.1.spool").exists());
    let items = read_all(&mut reader, 1 << 20);
    assert_eq!(sequences(&items)[0], 4);
    let gap = gaps(&items)[0];
    assert_eq!((gap.from_sequence, gap.reason), (5, GapReason::Truncated));
    assert_eq!(gap.bytes.get(Stream::Stdout), (gap.to_sequence - 4) * 4000);
    assert_eq!(sequences(&items)[1], gap.to_sequence + 1);
    assert_eq!(reader.position(), 46);
}

#[test]
fn a_reader_that_waits_is_given_what_comes_and_keeps_its_place_before_what_does_not_fit() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = Spool::create(dir.path(), 1, 1 << 20);
    let mut reader = SpoolReader::new(spool.index());
    assert_eq!(reader.read(100).unwrap(), []);
    spool.append(Stream::Stdout, 0, b"one");
    spool.append(Stream::Stdout, 0, b"two");
    assert_eq!(sequences(&reader.read(2 * 35 - 1).unwrap()), [1]);
    spool.append(Stream::Stdout, 0, b"three");
    assert_eq!(sequences(&reader.read(100).unwrap()), [2, 3]);
    assert_eq!(reader.read(100).unwrap(), []);
    reader.seek_after(5); // ahead
    for _ in 4..=7 {
        spool.append(Stream::Stderr, 0, b"x");
    }
    assert_eq!(sequences(&reader.read(1000).unwrap()), [6, 7]);
}

#[test]
fn a_spool_taken_away_is_an_error_and_a_middle_file_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = Spool::create(dir.path(), 1, 8 * MIN);
    for _ in 0..12 {
        spool.append(Stream::Stdout, 0, &[b'x'; 4000]);
    }
    std::fs::remove_file(dir.path().join("p1.2.spool")).unwrap();
    let items = read_all(&mut SpoolReader::new(spool.index()), 1 << 20);
    let bytes = StreamBytes::from_array([8000, 0, 0]);
    assert_eq!(gaps(&items), [Gap { from_sequence: 5, to_sequence: 6, bytes, reason: GapReason::Truncated }]);
    remove(dir.path(), 1).unwrap();
    let error = SpoolReader::new(spool.index()).read(1000).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
}

#[test]
fn controls_come_between_their_entries_after_a_seek_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = Spool::create(dir.path(), 1, 1 << 20);
    for cols in 1..=4 {
        spool.append(Stream::Pty, 0, b"x");
        spool.append_control(0, Control::Resize { cols, rows: 1 });
    }
    let mut reader = SpoolReader::new(spool.index());
    reader.seek_after(3);
    let resize = |cols| Item::Control { time_ms: 0, control: Control::Resize { cols, rows: 1 } };
    let items = reader.read(1000).unwrap();
    assert_eq!((items.len(), &items[0], sequences(&items), &items[2]), (3, &resize(3), vec![4], &resize(4)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn seeking_and_tails_give_the_end_of_the_whole(
        sizes in prop::collection::vec((0usize..3, 1usize..12_000), 1..80),
        bound in prop_oneof![Just(0u64), 20_000u64..150_000, Just(10_000_000)],
        seek in 0u64..120, n in 0u64..60, one in 0usize..3,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::create(dir.path(), 1, bound);
        let mut model = Model::default();
        for (stream, size) in sizes {
            model.append(&mut spool, Stream::ALL[stream], size);
        }
        for index in [spool.index(), SpoolIndex::load(dir.path(), 1).unwrap()] {
            let whole = model.check_whole(&index);
            let mut reader = SpoolReader::new(Arc::clone(&index));
            reader.seek_after(seek);
            let after = read_all(&mut reader, 5_000);
            let expected: Vec<_> = sequences(&whole).into_iter().filter(|sequence| *sequence > seek).collect();
            prop_assert_eq!(sequences(&after), expected);
            let missing = |items: &[Item]| gaps(items).iter().map(|gap| (gap.from_sequence.max(seek + 1), gap.to_sequence)).filter(|(from, to)| from <= to).collect::<Vec<_>>();
            prop_assert_eq!(missing(&after), missing(&whole));
            for streams in [Streams::ALL, Stream::ALL[one].into()] {
                let after = reader.tail(n, streams).unwrap();
                prop_assert_eq!(after, reader.position());
                let is_chosen = |item: &Item| matches!(item, Item::Entry(entry) if streams.contains(entry.stream));
                let tail = read_all(&mut reader, 50_000);
                let chosen = whole.iter().filter(|item| is_chosen(item)).count();
                let found = tail.iter().filter(|item| is_chosen(item)).count();
                prop_assert_eq!(found, chosen.min(n as usize));
                if chosen >= n as usize && n > 0 {
                    prop_assert!(is_chosen(&tail[0]));
                    prop_assert!(whole.ends_with(&tail));
                }
            }
        }
    }
}
