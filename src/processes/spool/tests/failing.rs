//! A disk that is full, broken, or writes half: nothing is lost without being counted.

use std::collections::VecDeque;
use std::io;
use std::sync::Mutex;

use proptest::prelude::*;

use super::super::disk::{Disk, Files, SegmentFile};
use super::super::index::State;
use super::*;

#[derive(Debug, Clone, Copy)]
enum Fault {
    /// The disk is full after so many bytes.
    Full(usize),
    /// One write takes so many bytes only; the next goes on.
    Short(usize),
}

#[derive(Debug, Default)]
struct Faults {
    create: bool,
    remove: bool,
    set_len: bool,
    writes: VecDeque<Option<Fault>>,
    full: bool,
}

#[derive(Clone, Default)]
struct Faulty(Arc<Mutex<Faults>>);

struct FaultyFile(Faulty, Box<dyn SegmentFile>);

fn refuse(is: bool) -> io::Result<()> {
    if is { Err(io::Error::from(io::ErrorKind::StorageFull)) } else { Ok(()) }
}

impl Disk for Faulty {
    fn create(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        refuse(self.0.lock().unwrap().create)?;
        Ok(Box::new(FaultyFile(self.clone(), Files.create(path)?)))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        refuse(self.0.lock().unwrap().remove)?;
        Files.remove(path)
    }
}

impl SegmentFile for FaultyFile {
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
        let mut faults = self.0.0.lock().unwrap();
        refuse(std::mem::take(&mut faults.full))?;
        let most = match faults.writes.pop_front().flatten() {
            None => bytes.len(),
            Some(Fault::Full(most)) => {
                faults.full = most > 0 && most < bytes.len();
                refuse(most == 0)?;
                most
            }
            Some(Fault::Short(most)) => most.max(1),
        };
        self.1.write_at(&bytes[..most.min(bytes.len())], at)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        refuse(self.0.0.lock().unwrap().set_len)?;
        self.1.set_len(len)
    }
}

fn faulty(dir: &Path, bound: u64) -> (Spool, Faulty) {
    let disk = Faulty::default();
    (Spool::with_disk(SpoolIndex::new(dir, 1, State::empty()), bound, 0, Box::new(disk.clone())), disk)
}

#[derive(Debug, Clone)]
enum Step {
    Append(usize, usize, Option<Fault>),
    Resize(u16, Option<Fault>),
    Create(bool),
    SetLen(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let fault = || {
        let at = || prop_oneof![0usize..300, 0usize..30_000];
        prop::option::of(prop_oneof![3 => at().prop_map(Fault::Full), 1 => at().prop_map(Fault::Short)])
    };
    prop_oneof![
        8 => (0usize..3, prop_oneof![1usize..200, 1usize..30_000], fault()).prop_map(|(s, size, f)| Step::Append(s, size, f)),
        2 => (any::<u16>(), fault()).prop_map(|(cols, fault)| Step::Resize(cols, fault)),
        1 => any::<bool>().prop_map(Step::Create),
        1 => any::<bool>().prop_map(Step::SetLen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn whatever_fails_is_counted(steps in prop::collection::vec(step(), 0..40), bound in 0u64..300_000) {
        let dir = tempfile::tempdir().unwrap();
        let (mut spool, disk) = faulty(dir.path(), bound);
        let mut model = Model::default();
        let (mut follower, mut place) = (SpoolReader::new(spool.index()), Position::START);
        for step in steps {
            match step {
                Step::Append(stream, size, fault) => {
                    disk.0.lock().unwrap().writes = [fault].into();
                    model.append(&mut spool, Stream::ALL[stream], size);
                }
                Step::Resize(cols, fault) => {
                    disk.0.lock().unwrap().writes = [fault].into();
                    spool.append_control(0, Control::Resize { cols, rows: 0 });
                }
                Step::Create(fails) => disk.0.lock().unwrap().create = fails,
                Step::SetLen(fails) => disk.0.lock().unwrap().set_len = fails,
            }
            let end = spool.index().end();
            prop_assert!(!end.degraded || end.error.is_some());
            prop_assert_eq!(end.disk_bytes, disk_bytes(dir.path(), 1).unwrap());
            prop_assert!(end.disk_bytes <= bound.max(MIN));
            model.check(&mut place, &read_all(&mut follower, 20_000));
            prop_assert_eq!((place.next, place.bytes), (end.last_sequence + 1, end.bytes));
        }
        *disk.0.lock().unwrap() = Faults::default();
        model.append(&mut spool, Stream::Pty, 1);
        let end = spool.index().end();
        prop_assert!(!end.degraded);
        let items = model.check_whole(&spool.index());
        let loaded = SpoolIndex::load(dir.path(), 1).unwrap();
        prop_assert_eq!(loaded.end(), End { error: None, ..end });
        prop_assert_eq!(read_all(&mut SpoolReader::new(loaded), 77), items);
    }
}

#[test]
fn a_loss_told_before_there_was_a_file_is_not_told_twice() {
    let dir = tempfile::tempdir().unwrap();
    let (mut spool, disk) = faulty(dir.path(), 1 << 20);
    let mut reader = SpoolReader::new(spool.index());
    let lost = |from_sequence, bytes| {
        let bytes = StreamBytes::from_array([bytes, 0, 0]);
        [Item::Gap(Gap { from_sequence, to_sequence: from_sequence, bytes, reason: GapReason::NotKept })]
    };
    for (from_sequence, bytes) in [(1, 5), (2, 7)] {
        disk.0.lock().unwrap().writes = [Some(Fault::Full(0))].into();
        spool.append(Stream::Stdout, 0, &vec![b'x'; bytes]);
        assert_eq!(reader.read(1000).unwrap(), lost(from_sequence, bytes as u64));
    }
    disk.0.lock().unwrap().writes = [Some(Fault::Full(0))].into();
    spool.append(Stream::Stdout, 0, b"xyz");
    spool.append(Stream::Stdout, 0, b"kept");
    let items = reader.read(1000).unwrap();
    assert_eq!((&items[..1], sequences(&items)), (&lost(3, 3)[..], vec![4]));
}

#[test]
fn half_written_frames_are_cut_off_and_whole_ones_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (mut spool, disk) = faulty(dir.path(), 1 << 20);
    spool.append(Stream::Stdout, 0, b"before");
    let before = disk_bytes(dir.path(), 1).unwrap();
    disk.0.lock().unwrap().writes = [Some(Fault::Full(8224 + 8000))].into();
    assert_eq!(spool.append(Stream::Stdout, 0, &[b'x'; 20_000]), 2..5);
    assert_eq!(disk_bytes(dir.path(), 1).unwrap(), before + 8224);
    let end = spool.index().end();
    assert_eq!(end.not_kept, Count { entries: 2, bytes: 20_000 - 8192 });
    assert_eq!(end.bytes.get(Stream::Stdout), 20_006);
    assert!(end.degraded && end.error.is_some());

    let mut reader = SpoolReader::new(spool.index());
    let bytes = StreamBytes::from_array([20_000 - 8192, 0, 0]);
    let lost = Item::Gap(Gap { from_sequence: 3, to_sequence: 4, bytes, reason: GapReason::NotKept });
    assert_eq!(read_all(&mut reader, 1 << 20)[2..], *std::slice::from_ref(&lost));
    assert_eq!(spool.append(Stream::Stdout, 0, b"after"), 5..6);
    assert!(!spool.index().end().degraded);
    assert_eq!(sequences(&read_all(&mut reader, 1 << 20)), [5]);
    let items = read_all(&mut SpoolReader::new(SpoolIndex::load(dir.path(), 1).unwrap()), 1 << 20);
    assert_eq!((sequences(&items), &items[2]), (vec![1, 2, 5], &lost));
}

#[test]
fn a_size_that_could_not_be_written_comes_with_the_next_output() {
    let dir = tempfile::tempdir().unwrap();
    let (mut spool, disk) = faulty(dir.path(), 1 << 20);
    spool.append(Stream::Pty, 0, b"x");
    disk.0.lock().unwrap().writes = [Some(Fault::Full(5)), None].into();
    spool.append_control(3, Control::Resize { cols: 5, rows: 6 });
    spool.append(Stream::Pty, 0, b"y");
    let items = read_all(&mut SpoolReader::new(spool.index()), 1000);
    assert_eq!(items[1], Item::Control { time_ms: 3, control: Control::Resize { cols: 5, rows: 6 } });
    assert_eq!((items.len(), spool.index().end().not_kept.entries), (3, 0));
}

#[test]
fn nothing_is_written_over_the_bound_when_nothing_can_be_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let (mut spool, disk) = faulty(dir.path(), 4 * MIN);
    disk.0.lock().unwrap().remove = true;
    for _ in 0..20 {
        spool.append(Stream::Stdout, 0, &[b'x'; 8000]);
        assert!(disk_bytes(dir.path(), 1).unwrap() <= 4 * MIN);
    }
    let end = spool.index().end();
    assert!(end.degraded);
    assert_eq!((end.last_sequence, end.not_kept.entries, end.truncated.entries), (20, 16, 0));
    disk.0.lock().unwrap().remove = false;
    spool.append(Stream::Stdout, 0, b"x");
    let items = read_all(&mut SpoolReader::new(spool.index()), 1 << 20);
    assert_eq!(*sequences(&items).last().unwrap(), 21);
}
