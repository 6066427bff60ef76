//! The encoder by itself, as a live stream uses it.
#![allow(missing_docs, clippy::unwrap_used, clippy::disallowed_methods)] // starts itself and ffmpeg

mod screens;

use std::process::Command;
use std::time::Duration;

use screen_video::{Encoder, Error, Purpose, Settings};
use screens::{decoded, noise, text, typed};

const LIVE: Settings = Settings { fps: 30, bitrate_bps: 3_000_000, purpose: Purpose::Live };

fn at(n: usize) -> Duration {
    Duration::from_millis(n as u64 * 33)
}

/// The sizes of NAL units, without start codes, and their types.
fn units(data: &[u8]) -> Vec<(usize, u8)> {
    let starts: Vec<usize> = data.windows(3).enumerate().filter(|(_, code)| *code == [0, 0, 1]).map(|(at, _)| at + 3).collect();
    let ends = starts.iter().skip(1).map(|start| start - 3).chain([data.len()]);
    starts.iter().zip(ends).map(|(start, end)| (end - start, data[*start] & 0x1f)).collect()
}

#[test]
fn keyframes_come_when_asked_for_and_begin_with_parameter_sets() {
    let mut encoder = Encoder::new(320, 200, LIVE).unwrap();
    assert_eq!(encoder.encode_again(at(0), true).unwrap(), None, "there is no frame yet");
    let mut keyframes = Vec::new();
    for n in 0..30 {
        let encoded = encoder.encode(&typed(320, 200, n), 320 * 4, at(n), n == 17).unwrap();
        let Some(encoded) = encoded else { continue };
        let kinds: Vec<u8> = units(&encoded.data).into_iter().map(|unit| unit.1).collect();
        if encoded.is_keyframe {
            keyframes.push(n);
            assert_eq!(kinds[..3], [7, 8, 5]);
        } else {
            assert!(kinds.iter().all(|kind| *kind == 1), "{kinds:?}");
        }
    }
    assert!(keyframes[0] == 0 && keyframes.len() == 2 && keyframes[1] >= 17, "{keyframes:?}");
    let again = encoder.encode_again(at(60), true).unwrap().unwrap();
    assert!(again.is_keyframe);
}

#[test]
fn a_frame_is_one_slice() {
    for purpose in [Purpose::Live, Purpose::Recording] {
        let mut encoder = Encoder::new(640, 480, Settings { purpose, ..LIVE }).unwrap();
        let encoded = encoder.encode(&noise(640, 480, 1), 640 * 4, at(0), false).unwrap().unwrap();
        let kinds: Vec<u8> = units(&encoded.data).into_iter().map(|unit| unit.1).collect();
        assert_eq!(kinds, [7, 8, 5]);
    }
}

/// Text with a part in it that is another noise in each frame: too small a part for a new scene.
fn restless(n: u64) -> Vec<u8> {
    let (mut screen, part) = (text(640, 480, 0), noise(160, 100, n));
    for (row, line) in part.chunks(160 * 4).enumerate() {
        let from = ((200 + row) * 640 + 200) * 4;
        screen[from..from + line.len()].copy_from_slice(line);
    }
    screen
}

#[test]
fn another_rate_takes_effect_without_a_keyframe() {
    let mut encoder = Encoder::new(640, 480, Settings { bitrate_bps: 800_000, ..LIVE }).unwrap();
    let (mut stream, mut frames, mut n) = (Vec::new(), 0, 0);
    let mut seconds = |encoder: &mut Encoder, count: usize, fps: usize| {
        let mut bytes = 0;
        for _ in 0..count * fps {
            n += 30 / fps;
            let screen = restless(n as u64);
            let Some(encoded) = encoder.encode(&screen, 640 * 4, at(n), false).unwrap() else { continue };
            assert!(!encoded.is_keyframe || frames == 0, "frame {n}");
            bytes += encoded.data.len();
            stream.extend(encoded.data);
            frames += 1;
        }
        bytes * 8 / count
    };
    seconds(&mut encoder, 2, 30);
    let middle = seconds(&mut encoder, 3, 30);
    encoder.set_rate(200_000, 15).unwrap();
    assert_eq!((encoder.settings().bitrate_bps, encoder.settings().fps), (200_000, 15));
    seconds(&mut encoder, 1, 15);
    let low = seconds(&mut encoder, 3, 15);
    encoder.set_rate(2_000_000, 30).unwrap();
    seconds(&mut encoder, 1, 30);
    let high = seconds(&mut encoder, 3, 30);
    assert!(low < 300_000 && low < middle / 2 && high > middle * 3 / 2, "{low}, {middle}, {high} bit/s");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stream.h264");
    std::fs::write(&path, stream).unwrap();
    assert_eq!(decoded(&path, 640, 480).len(), frames);
}

#[test]
fn a_rate_before_the_first_frame_holds() {
    let mut encoder = Encoder::new(320, 200, LIVE).unwrap();
    encoder.set_rate(800_000, 10).unwrap();
    assert_eq!((encoder.settings().bitrate_bps, encoder.settings().fps), (800_000, 10));
    assert!(encoder.encode(&text(320, 200, 0), 320 * 4, at(0), false).unwrap().unwrap().is_keyframe);
}

#[test]
fn sizes_and_settings_have_bounds() {
    for (width, height) in [(0, 1), (1, 0), (3841, 16), (16, 3841), (2161, 2161), (u32::MAX, u32::MAX)] {
        assert!(matches!(Encoder::new(width, height, LIVE), Err(Error::Size { .. })), "{width}x{height}");
    }
    let wild = Settings { fps: 100_000, bitrate_bps: 0, purpose: Purpose::Live };
    let encoder = Encoder::new(1, 3, wild).unwrap();
    assert_eq!((encoder.coded_size(), encoder.settings().fps, encoder.settings().bitrate_bps), ((16, 16), 60, 50_000));
    // portrait, at the end of the range
    let mut encoder = Encoder::new(2160, 3840, LIVE).unwrap();
    let encoded = encoder.encode(&vec![200; 2160 * 3840 * 4], 2160 * 4, at(0), false).unwrap().unwrap();
    assert!(encoded.is_keyframe);
}

#[test]
fn motion_all_over_is_not_sent_as_keyframes_and_what_rests_is_a_screen_again() {
    for (purpose, is_noticed) in [(Purpose::Live, true), (Purpose::Recording, false)] {
        let mut encoder = Encoder::new(640, 480, Settings { purpose, ..LIVE }).unwrap();
        let (mut stream, mut keyframes, mut encoded_count) = (Vec::new(), Vec::new(), 0);
        for n in 0..20 {
            let Some(encoded) = encoder.encode(&noise(640, 480, n), 640 * 4, at(n as usize * 10), false).unwrap() else {
                continue;
            };
            keyframes.push(encoded.is_keyframe);
            stream.extend(encoded.data);
            encoded_count += 1;
        }
        let last_five = &keyframes[keyframes.len() - 5..];
        assert_eq!(last_five, [!is_noticed; 5], "{keyframes:?}");
        encoder.rests().unwrap();
        for n in 20..24_u64 {
            let Some(encoded) = encoder.encode(&text(640, 480, 0), 640 * 4, at(n as usize * 10), false).unwrap() else {
                continue;
            };
            assert_eq!(encoded.is_keyframe, n == 20, "frame {n}");
            stream.extend(encoded.data);
            encoded_count += 1;
        }
        encoder.rests().unwrap();
        assert!(!encoder.encode_again(at(300), false).unwrap().unwrap().is_keyframe, "it was a screen already");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stream.h264");
        std::fs::write(&path, stream).unwrap();
        assert_eq!(decoded(&path, 640, 480).len(), encoded_count);
    }
}

/// Runs the tests that encode once more, in a process whose stderr is read.
#[test]
fn the_library_says_nothing_on_stderr() {
    let names = [
        "a_frame_is_one_slice",
        "sizes_and_settings_have_bounds",
        "another_rate_takes_effect_without_a_keyframe",
        "motion_all_over_is_not_sent_as_keyframes_and_what_rests_is_a_screen_again",
    ];
    let output = Command::new(std::env::current_exe().unwrap()).args(names).arg("--nocapture").output().unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
