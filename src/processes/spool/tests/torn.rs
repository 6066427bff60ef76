//! Files as a killed writer, or a damaged disk, leaves them.

use super::*;

/// A spool whose last frames are: a resize, an entry of each pipe, the terminal's. Gives where each ends, from the first on.
fn written(dir: &Path) -> (Vec<u8>, Vec<usize>) {
    let mut spool = Spool::create(dir, 1, 1 << 20);
    let path = dir.join("p1.0.spool");
    spool.append(Stream::Stdout, 1, b"first");
    let mut ends = vec![std::fs::metadata(&path).unwrap().len() as usize];
    for step in 0..4 {
        match step {
            0 => spool.append_control(2, Control::Resize { cols: 0x707, rows: 0x808 }),
            1 => {
                spool.append(Stream::Stderr, 3, b"an error");
            }
            2 => {
                spool.append(Stream::Stdout, 4, "größer".as_bytes());
            }
            _ => {
                spool.append(Stream::Pty, 5, b"$ ");
            }
        }
        ends.push(std::fs::metadata(&path).unwrap().len() as usize);
    }
    (std::fs::read(&path).unwrap(), ends)
}

#[test]
fn wherever_it_is_cut_the_whole_frames_are_read_and_the_writer_goes_on() {
    let source = tempfile::tempdir().unwrap();
    let (whole, ends) = written(source.path());
    let all = read_all(&mut SpoolReader::new(SpoolIndex::load(source.path(), 1).unwrap()), 1 << 20);
    assert_eq!(all.len(), 5);
    for cut in ends[0]..=whole.len() {
        for tail in [&b""[..], &[0; 70], &[0xB5; 50], b"\x01\xB5\x05\x00garbage that begins as a frame does"] {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("p1.0.spool"), [&whole[..cut], tail].concat()).unwrap();
            let kept = ends.iter().filter(|end| **end <= cut).count();
            let index = SpoolIndex::load(dir.path(), 1).unwrap();
            assert_eq!(read_all(&mut SpoolReader::new(Arc::clone(&index)), 50), all[..kept], "cut at {cut}");
            let end = index.end();
            assert_eq!(end.last_sequence, sequences(&all[..kept]).len() as u64);
            assert_eq!((end.truncated, end.not_kept), Default::default());

            let mut spool = Spool::reopen(dir.path(), 1, 1 << 20).unwrap();
            assert_eq!(disk_bytes(dir.path(), 1).unwrap(), ends[kept - 1] as u64);
            assert_eq!(spool.append(Stream::Stdout, 9, b"next").start, end.last_sequence + 1);
            assert_eq!(files(dir.path()), ["p1.0.spool", "p1.1.spool"]);
            for index in [spool.index(), SpoolIndex::load(dir.path(), 1).unwrap()] {
                let items = read_all(&mut SpoolReader::new(index), 1 << 20);
                assert_eq!(items[..kept], all[..kept]);
                let offset = end.bytes.get(Stream::Stdout);
                let entry = Entry {
                    sequence: end.last_sequence + 1,
                    stream: Stream::Stdout,
                    time_ms: 9,
                    offset,
                    bytes: b"next".to_vec(),
                };
                assert_eq!(items[kept..], [Item::Entry(entry)]);
            }
        }
    }
}

#[test]
fn a_frame_out_of_order_ends_what_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, ends) = written(dir.path());
    let again = &whole[ends[1]..ends[2]]; // a whole frame, a second time
    std::fs::write(dir.path().join("p1.0.spool"), [&whole[..], again].concat()).unwrap();
    let index = SpoolIndex::load(dir.path(), 1).unwrap();
    assert_eq!(index.end().last_sequence, 4);
    assert_eq!(sequences(&read_all(&mut SpoolReader::new(index), 1000)), [1, 2, 3, 4]);
}

#[test]
fn files_that_are_no_segment_are_passed_over_and_a_writer_clears_them_away() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, _) = written(dir.path());
    std::fs::write(dir.path().join("p1.1.spool"), &whole).unwrap(); // another index than the name's
    std::fs::write(dir.path().join("p1.2.spool"), &whole[..40]).unwrap();
    std::fs::write(dir.path().join("p1.3.spool"), "").unwrap();
    assert_eq!(SpoolIndex::load(dir.path(), 1).unwrap().end().last_sequence, 4);
    let mut spool = Spool::reopen(dir.path(), 1, 1 << 20).unwrap();
    spool.append(Stream::Stdout, 0, b"x");
    assert_eq!(files(dir.path()), ["p1.0.spool", "p1.4.spool"]);
    let items = read_all(&mut SpoolReader::new(SpoolIndex::load(dir.path(), 1).unwrap()), 1000);
    assert_eq!((sequences(&items), gaps(&items)), (vec![1, 2, 3, 4, 5], vec![]));
}

#[test]
fn damage_in_the_middle_is_a_gap_of_what_follows_in_its_segment() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = Spool::create(dir.path(), 1, 8 * MIN);
    for _ in 0..6 {
        spool.append(Stream::Stdout, 0, &[b'x'; 4000]);
    }
    let path = dir.path().join("p1.1.spool");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[96 + 4032 + 10] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    for index in [spool.index(), SpoolIndex::load(dir.path(), 1).unwrap()] {
        let items = read_all(&mut SpoolReader::new(index), 1 << 20);
        assert_eq!(sequences(&items), [1, 2, 3, 5, 6]);
        let bytes = StreamBytes::from_array([4000, 0, 0]);
        assert_eq!(gaps(&items), [Gap { from_sequence: 4, to_sequence: 4, bytes, reason: GapReason::NotKept }]);
    }
}

#[test]
fn a_spool_without_files_is_one_without_output() {
    let dir = tempfile::tempdir().unwrap();
    let index = SpoolIndex::load(&dir.path().join("none"), 3).unwrap();
    assert_eq!((index.end().last_sequence, index.number()), (0, 3));
    assert_eq!(SpoolReader::new(index).read(100).unwrap(), []);
    let mut spool = Spool::reopen(dir.path(), 3, 0).unwrap();
    assert_eq!(spool.append(Stream::Pty, 0, b"x"), 1..2);
    assert_eq!(files(dir.path()), ["p3.0.spool"]);
}
