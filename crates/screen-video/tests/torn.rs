//! Files that a kill or a full disk cut off anywhere.
#![allow(missing_docs, clippy::unwrap_used)]

mod screens;

use std::fs::{File, OpenOptions};
use std::io::{self, Cursor, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use screen_video::{Error, Limits, Recording, inspect, repair};
use screens::{decoded, mix, probe, text};

const UNLIMITED: Limits = Limits { max_bytes: u64::MAX, max_duration: Duration::MAX };
const SIDE: (u32, u32) = (160, 96);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Whether a file cut off at `offset` ends within the box that describes a fragment.
fn ends_in_moof(file: &[u8], offset: usize) -> bool {
    let mut at = 0;
    while at < offset {
        let size = u32::from_be_bytes(file[at..at + 4].try_into().unwrap()) as usize;
        if &file[at + 4..at + 8] == b"moof" && offset < at + size {
            return true;
        }
        at += size;
    }
    false
}

/// Seven seconds of scrolling.
fn fill<W: Write>(recording: &mut Recording<W>) -> screen_video::Result<()> {
    for n in 0..70 {
        recording.push(&text(160, 96, n), 160 * 4, ms(n as u64 * 100))?;
    }
    Ok(())
}

fn recording<W: Write>(out: W) -> Recording<W> {
    Recording::new(out, SIDE.0, SIDE.1, 10, 1_000_000, UNLIMITED).unwrap()
}

#[test]
fn a_file_cut_off_anywhere_plays_to_its_last_whole_fragment() {
    let mut recording = recording(Cursor::new(Vec::new()));
    fill(&mut recording).unwrap();
    let (file, summary) = recording.finish(ms(7000)).unwrap();
    let file = file.into_inner();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("torn.mp4");
    let (mut torn, mut before) = (0, (0, 0));
    let mut offsets: Vec<usize> = (0..200).map(|n| mix(n) as usize % file.len()).collect();
    offsets.sort_unstable();
    for offset in offsets {
        std::fs::write(&path, &file[..offset]).unwrap();
        let Ok(info) = inspect(&path) else {
            assert!(matches!(repair(&path), Err(Error::NoFrames)), "{offset}");
            assert_eq!(path.metadata().unwrap().len(), offset as u64, "a file that can't be repaired stays as it was");
            continue;
        };
        assert!((info.frames, info.bytes_valid) >= before && info.bytes_valid <= offset as u64, "{offset}: {info:?}");
        before = (info.frames, info.bytes_valid);
        torn += 1;
        // a player shows the frames before, and perhaps some of the torn fragment; ffmpeg refuses a file that ends within a
        // moof, which no kill leaves, because a fragment is one write
        if !ends_in_moof(&file, offset) {
            let played = probe(&path).times.len() as u64;
            assert!(played >= info.frames, "{offset}: {played} of {info:?}");
        }
        let repaired = repair(&path).unwrap();
        assert_eq!((repaired.frames, repaired.duration, repaired.bytes), (info.frames, info.duration, info.bytes_valid));
        assert_eq!(inspect(&path).unwrap(), repaired);
        let probe = probe(&path);
        assert_eq!(probe.times.len() as u64, info.frames, "{offset}");
        assert!((probe.duration - info.duration.as_secs_f64()).abs() < 0.11, "{offset}: {} {info:?}", probe.duration);
    }
    assert!(torn > 100, "most offsets are behind the first fragment: {torn}");
    assert!(before.0 >= summary.frames - 20);
    // nothing complains of a repaired file
    assert_eq!(decoded(&path, 160, 96).len() as u64, before.0);
}

#[test]
fn a_growing_file_plays_at_any_moment() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("growing.mp4");
    let mut recording = recording(File::create(&path).unwrap());
    for n in 0..70_u64 {
        recording.push(&text(160, 96, n as usize), 160 * 4, ms(n * 100)).unwrap();
        if n > 12 && n % 9 == 0 {
            let info = inspect(&path).unwrap();
            assert_eq!(info.bytes, info.bytes_valid, "every write is whole");
            assert!(!info.is_finished);
            // no older than a fragment and a frame
            assert!(info.duration + ms(1200) >= ms(n * 100), "{n}: {info:?}");
            assert_eq!(decoded(&path, 160, 96).len() as u64, info.frames);
        }
    }
    // killed: never finished
    drop(recording);
    let info = repair(&path).unwrap();
    assert!(info.is_finished && info.frames >= 58, "{info:?}");
    assert_eq!(probe(&path).times.len() as u64, info.frames);
}

#[test]
fn a_repaired_file_and_a_whole_one_stay_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("whole.mp4");
    let mut recording = recording(File::create(&path).unwrap());
    fill(&mut recording).unwrap();
    recording.finish(ms(7000)).unwrap();
    let before = std::fs::read(&path).unwrap();
    let info = repair(&path).unwrap();
    assert!(info.is_finished && info.bytes == before.len() as u64);
    assert!(std::fs::read(&path).unwrap() == before);
    // zeros at the end, as a power cut leaves them, are cut off
    OpenOptions::new().append(true).open(&path).unwrap().write_all(&[0; 5000]).unwrap();
    assert_eq!(inspect(&path).unwrap().bytes_valid, before.len() as u64);
    repair(&path).unwrap();
    assert!(std::fs::read(&path).unwrap() == before);
}

#[test]
fn files_of_others_are_refused_untouched() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.mp4");
    let others: [&[u8]; 4] =
        [b"not a video at all, but long enough", &[0xff; 64], b"\0\0\0\x10ftypisom\0\0\0\0\0\0\0\x08free", &[0; 64]];
    for other in others {
        std::fs::write(&path, other).unwrap();
        assert!(inspect(&path).is_err());
        assert!(repair(&path).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), other);
    }
    assert!(matches!(inspect(Path::new("/nowhere/at/all")), Err(Error::Io(_))));
}

/// A disk with so many bytes left.
struct Disk {
    file: File,
    left: usize,
}

impl Write for Disk {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let written = self.file.write(&data[..data.len().min(self.left)])?;
        self.left -= written;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for Disk {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

#[test]
fn a_full_disk_is_an_error_and_what_was_written_plays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("full.mp4");
    let mut full = recording(Cursor::new(Vec::new()));
    fill(&mut full).unwrap();
    let whole = full.finish(ms(7000)).unwrap().1.bytes;
    for part in [30, 50, 70] {
        let disk = Disk { file: File::create(&path).unwrap(), left: (whole * part / 100) as usize };
        let mut recording = recording(disk);
        assert!(matches!(fill(&mut recording), Err(Error::Io(error)) if error.kind() == io::ErrorKind::StorageFull));
        assert!(recording.push(&text(160, 96, 0), 160 * 4, ms(9000)).is_err(), "it is over");
        assert!(recording.finish(ms(9000)).is_err());
        let info = inspect(&path).unwrap();
        assert!(info.frames > 0 && info.bytes_valid < info.bytes, "{info:?}");
        let frames = info.frames;
        repair(&path).unwrap();
        assert_eq!(decoded(&path, 160, 96).len() as u64, frames);
    }
}
