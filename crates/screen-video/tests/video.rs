//! Recordings, read back by ffprobe and ffmpeg.
#![allow(missing_docs, clippy::unwrap_used)]

mod screens;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use screen_video::{Error, Limit, Limits, Progress, Recording, inspect};
use screens::{decoded, noise, pan, probe, psnr, text, typed};

const UNLIMITED: Limits = Limits { max_bytes: u64::MAX, max_duration: Duration::MAX };

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

struct Made {
    path: PathBuf,
    _folder: tempfile::TempDir,
    recording: Recording<File>,
}

fn recording(width: u32, height: u32, bitrate_bps: u32, limits: Limits) -> Made {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("screen.mp4");
    let recording = Recording::new(File::create(&path).unwrap(), width, height, 30, bitrate_bps, limits).unwrap();
    Made { path, _folder: folder, recording }
}

fn assert_near(left: f64, right: f64, by: f64) {
    assert!((left - right).abs() <= by, "{left} isn't within {by} of {right}");
}

#[test]
fn text_is_legible_and_every_frame_is_there() {
    let Made { path, _folder, mut recording } = recording(640, 400, 4_000_000, UNLIMITED);
    let pictures: Vec<_> = (0..45).map(|n| typed(640, 400, n)).collect();
    let mut shown = Vec::new();
    for (n, picture) in pictures.iter().enumerate() {
        // any origin of the clock will do
        let progress = recording.push(picture, 640 * 4, ms(5000 + n as u64 * 40)).unwrap();
        if matches!(progress, Progress::Written { .. }) {
            shown.push(n);
        }
    }
    let (_, summary) = recording.finish(ms(5000 + 45 * 40)).unwrap();
    let probe = probe(&path);
    assert_eq!((probe.codec.as_str(), probe.pixels.as_str(), probe.size), ("h264", "yuv420p", (640, 400)));
    assert_eq!(probe.profile, "Constrained Baseline");
    assert_eq!(probe.times.len(), shown.len());
    assert_eq!(summary.frames, shown.len() as u64);
    assert_eq!(summary.bytes, path.metadata().unwrap().len());
    assert!(shown.len() >= 30, "{shown:?}");
    assert_near(probe.duration, 1.8, 0.04);
    assert_eq!(summary.duration, ms(1800));
    for ((frame, n), time) in decoded(&path, 640, 400).iter().zip(&shown).zip(&probe.times) {
        assert_near(*time, *n as f64 * 0.04, 0.001);
        let alike = psnr(frame, &pictures[*n]);
        assert!(alike > 30.0, "frame {n}: {alike} dB");
    }
}

#[test]
fn frames_are_shown_when_they_came_however_unevenly() {
    let Made { path, _folder, mut recording } = recording(320, 200, 4_000_000, UNLIMITED);
    let times = [0_u64, 33, 34, 500, 533, 3100, 3101, 3999, 4000, 4444];
    for (n, at) in times.iter().enumerate() {
        let progress = recording.push(&typed(320, 200, n), 320 * 4, ms(*at)).unwrap();
        assert!(matches!(progress, Progress::Written { .. }), "{at}: {progress:?}");
    }
    let (_, summary) = recording.finish(ms(6000)).unwrap();
    let probe = probe(&path);
    for (seen, at) in probe.times.iter().zip(times) {
        assert_near(*seen, at as f64 / 1000.0, 0.0001);
    }
    assert_eq!((probe.times.len(), summary.duration), (times.len(), ms(6000)));
    assert_near(probe.duration, 6.0, 0.001);
}

#[test]
fn odd_and_tiny_screens_are_padded() {
    for (width, height, coded) in [(1439, 899, (1440, 900)), (1, 1, (16, 16)), (17, 640, (18, 640)), (16, 2, (16, 16))] {
        let Made { path, _folder, mut recording } = recording(width, height, 8_000_000, UNLIMITED);
        let picture = text(width as usize, height as usize, 3);
        recording.push(&picture, width as usize * 4, ms(0)).unwrap();
        recording.touch(ms(600)).unwrap();
        recording.finish(ms(1000)).unwrap();
        let probe = probe(&path);
        assert_eq!(probe.size, coded);
        let frames = decoded(&path, coded.0 as usize, coded.1 as usize);
        let last = frames.last().unwrap();
        let inside: Vec<u8> = last
            .chunks_exact(coded.0 as usize * 4)
            .take(height as usize)
            .flat_map(|row| &row[..width as usize * 4])
            .copied()
            .collect();
        let alike = psnr(&inside, &picture);
        assert!(alike > 30.0, "{width}x{height}: {alike} dB");
    }
}

#[test]
fn a_pause_is_not_in_the_video() {
    let Made { path, _folder, mut recording } = recording(320, 200, 4_000_000, UNLIMITED);
    for n in 0..10 {
        recording.push(&typed(320, 200, n as usize), 320 * 4, ms(n * 100)).unwrap();
    }
    recording.pause(ms(1000)).unwrap();
    recording.pause(ms(1500)).unwrap();
    assert!(recording.is_paused());
    // what happened before the pause is on the disk
    let info = inspect(&path).unwrap();
    assert_eq!((info.bytes, info.duration), (info.bytes_valid, ms(1000)));
    assert_eq!(recording.push(&typed(320, 200, 99), 320 * 4, ms(2000)).unwrap(), Progress::Paused);
    assert_eq!(recording.touch(ms(3000)).unwrap(), Progress::Paused);
    assert_eq!(recording.summary(ms(3500)).duration, ms(1000));
    recording.resume(ms(61_000)).unwrap();
    recording.push(&typed(320, 200, 10), 320 * 4, ms(61_200)).unwrap();
    let (_, summary) = recording.finish(ms(61_500)).unwrap();
    assert_eq!(summary.duration, ms(1500));
    let probe = probe(&path);
    assert_near(probe.duration, 1.5, 0.001);
    assert_near(*probe.times.last().unwrap(), 1.2, 0.001);
}

#[test]
fn finished_while_paused_ends_where_it_was_paused() {
    let Made { path, _folder, mut recording } = recording(64, 64, 1_000_000, UNLIMITED);
    recording.push(&text(64, 64, 0), 256, ms(0)).unwrap();
    recording.pause(ms(700)).unwrap();
    assert_eq!(recording.finish(ms(9000)).unwrap().1.duration, ms(700));
    assert_near(probe(&path).duration, 0.7, 0.001);
}

#[test]
fn a_still_screen_after_a_pause_is_in_the_video() {
    let Made { path, _folder, mut recording } = recording(64, 64, 1_000_000, UNLIMITED);
    recording.push(&text(64, 64, 0), 256, ms(0)).unwrap();
    recording.pause(ms(700)).unwrap();
    recording.resume(ms(5000)).unwrap();
    let (_, summary) = recording.finish(ms(6000)).unwrap();
    assert_eq!((summary.frames, summary.duration), (2, ms(1700)));
    assert_near(probe(&path).duration, 1.7, 0.001);
}

#[test]
fn noise_stays_within_the_bit_rate() {
    let bitrate_bps = 2_000_000;
    let Made { path, _folder, mut recording } = recording(640, 480, bitrate_bps, UNLIMITED);
    let seconds = 10;
    for n in 0..seconds * 30 {
        recording.push(&noise(640, 480, n), 640 * 4, ms(n * 1000 / 30)).unwrap();
    }
    let (_, summary) = recording.finish(ms(seconds * 1000)).unwrap();
    let rate = summary.bytes * 8 / seconds;
    // the keyframe at the start is worth a second or two of it
    assert!(rate < u64::from(bitrate_bps) * 3 / 2, "{rate} bit/s");
    assert_eq!(decoded(&path, 640, 480).len() as u64, summary.frames);
}

#[test]
fn eight_hours_of_a_still_screen_cost_next_to_nothing() {
    let Made { path, _folder, mut recording } = recording(320, 200, 4_000_000, UNLIMITED);
    let picture = text(320, 200, 0);
    recording.push(&picture, 320 * 4, ms(0)).unwrap();
    let hours = Duration::from_secs(8 * 3600);
    let mut encoded = 0;
    for second in 1..hours.as_secs() {
        encoded += u64::from(recording.touch(Duration::from_secs(second)).unwrap() != Progress::Idle);
    }
    let (_, summary) = recording.finish(hours).unwrap();
    assert_eq!(summary.duration, hours);
    assert!(encoded <= 8 * 360 + 10, "{encoded} frames were encoded");
    assert!(summary.bytes < 2_000_000, "{} bytes", summary.bytes);
    assert_near(probe(&path).duration, hours.as_secs_f64(), 0.01);
    let info = inspect(&path).unwrap();
    assert_eq!((info.duration, info.frames, info.is_finished), (hours, summary.frames, true));
    assert_eq!(info.first_keyframe_at, Some(Duration::ZERO));
}

#[test]
fn what_was_skipped_is_shown_when_the_screen_is_still() {
    let Made { path, _folder, mut recording } = recording(640, 480, 200_000, UNLIMITED);
    let mut skipped = 0;
    for n in 0..60 {
        skipped += usize::from(recording.push(&pan(640, 480, n), 640 * 4, ms(n as u64 * 33)).unwrap() == Progress::Skipped);
    }
    assert!(skipped > 5, "the test needs a bit rate that is too low: {skipped}");
    for at in (2000..20_000).step_by(33) {
        recording.touch(ms(at)).unwrap();
    }
    recording.finish(ms(20_000)).unwrap();
    let alike = psnr(decoded(&path, 640, 480).last().unwrap(), &pan(640, 480, 59));
    assert!(alike > 28.0, "{alike} dB");
}

#[test]
fn a_recording_ends_at_its_bounds() {
    let limits = Limits { max_bytes: 200_000, max_duration: Duration::MAX };
    let Made { path, _folder, mut recording } = recording(320, 240, 8_000_000, limits);
    let mut at = 0;
    while recording.full().is_none() {
        recording.push(&noise(320, 240, at), 320 * 4, ms(at)).unwrap();
        at += 33;
        assert!(at < 60_000);
    }
    assert_eq!(recording.touch(ms(at + 5000)).unwrap(), Progress::Full(Limit::Bytes));
    let (_, summary) = recording.finish(ms(at + 60_000)).unwrap();
    assert!((100_000..=200_000).contains(&summary.bytes), "{} bytes", summary.bytes);
    assert_eq!(summary.bytes, path.metadata().unwrap().len());
    assert_eq!(decoded(&path, 320, 240).len() as u64, summary.frames);

    let limits = Limits { max_bytes: u64::MAX, max_duration: ms(2500) };
    let Made { path, _folder, mut recording } = self::recording(320, 240, 8_000_000, limits);
    recording.push(&text(320, 240, 0), 320 * 4, ms(100)).unwrap();
    assert!(matches!(recording.push(&text(320, 240, 1), 320 * 4, ms(2500)).unwrap(), Progress::Written { .. }));
    assert_eq!(recording.push(&text(320, 240, 2), 320 * 4, ms(2600)).unwrap(), Progress::Full(Limit::Duration));
    assert_eq!(recording.finish(ms(9000)).unwrap().1.duration, ms(2500));
    assert_near(probe(&path).duration, 2.5, 0.001);
}

#[test]
fn a_bad_frame_is_refused_and_the_recording_goes_on() {
    let Made { path, _folder, mut recording } = recording(64, 64, 1_000_000, UNLIMITED);
    assert!(matches!(recording.push(&[0; 100], 256, ms(0)), Err(Error::Frame { .. })));
    recording.push(&text(64, 64, 0), 256, ms(1000)).unwrap();
    assert!(matches!(recording.push(&[0; 100], 256, ms(1100)), Err(Error::Frame { .. })));
    assert_eq!(recording.finish(ms(2000)).unwrap().1.duration, ms(1000));
    assert_eq!(probe(Path::new(&path)).times.len(), 1);
}

#[test]
fn nothing_pushed_is_nothing_written() {
    let Made { path, _folder, mut recording } = recording(64, 64, 1_000_000, UNLIMITED);
    assert_eq!(recording.touch(ms(1000)).unwrap(), Progress::Idle);
    assert!(matches!(recording.finish(ms(2000)), Err(Error::NoFrames)));
    assert_eq!(path.metadata().unwrap().len(), 0);
    assert!(matches!(inspect(&path), Err(Error::NoFrames)));
}
