//! Pictures that look like screens, and what ffmpeg reads back of a video.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::disallowed_methods)] // each test uses some; ffmpeg is a program

use std::path::Path;
use std::process::Command;

/// A glyph's cell: what xterm's default font has.
const CELL: (usize, usize) = (6, 13);
const PAPER: [u8; 4] = [24, 20, 18, 0];
const INK: [u8; 4] = [220, 225, 230, 0];

/// A number that looks random and is always the same.
pub fn mix(seed: u64) -> u64 {
    let mut x = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Whether a pixel of the glyph at a line and column of an endless text is ink.
fn inked(line: usize, column: usize, x: usize, y: usize) -> bool {
    let length = 20 + mix(line as u64) as usize % 200;
    let letter = mix((line * 1009 + column) as u64) % 64;
    column < length && letter > 8 && x < 5 && (2..11).contains(&y) && mix(letter * 131 + (y / 2 * 5 + x) as u64) % 5 < 2
}

fn glyphs(frame: &mut [u8], width: usize, area: (usize, usize, usize, usize), first_line: usize) {
    let (left, top, right, bottom) = area;
    for y in top..bottom {
        for x in left..right {
            let (row, column) = ((y - top) / CELL.1, (x - left) / CELL.0);
            let ink = inked(first_line + row, column, (x - left) % CELL.0, (y - top) % CELL.1);
            let at = (y * width + x) * 4;
            frame[at..at + 4].copy_from_slice(if ink { &INK } else { &PAPER });
        }
    }
}

/// A screen full of text, from a line on.
pub fn text(width: usize, height: usize, first_line: usize) -> Vec<u8> {
    let mut frame = vec![0; width * height * 4];
    glyphs(&mut frame, width, (0, 0, width, height), first_line);
    frame
}

/// A screen of text with one more glyph than at the step before.
pub fn typed(width: usize, height: usize, step: usize) -> Vec<u8> {
    let mut frame = text(width, height, 0);
    let y = height / 2 / CELL.1 * CELL.1;
    for x in 0..width.min((step + 1) * CELL.0) {
        for y in y..(y + CELL.1).min(height) {
            let ink = mix((x / 2 + y * 977) as u64).is_multiple_of(3);
            let at = (y * width + x) * 4;
            frame[at..at + 4].copy_from_slice(if ink { &INK } else { &PAPER });
        }
    }
    frame
}

/// A terminal of 800×500 that scrolls in front of a gradient.
pub fn window(width: usize, height: usize, first_line: usize) -> Vec<u8> {
    let mut frame = pan(width, height, 0);
    let area = (width / 4, height / 4, (width / 4 + 800).min(width), (height / 4 + 500).min(height));
    glyphs(&mut frame, width, area, first_line);
    frame
}

/// Something like a photograph that moves to the left by 8 pixels a step.
pub fn pan(width: usize, height: usize, step: usize) -> Vec<u8> {
    let mut frame = Vec::with_capacity(width * height * 4);
    for y in 0..height {
        for x in 0..width {
            let x = x + step * 8;
            let wave = ((x as f32 / 37.0).sin() + (y as f32 / 23.0).cos() + ((x + 2 * y) as f32 / 61.0).sin()) * 30.0;
            let grain = (mix((x / 2 * 65_537 + y / 2) as u64) % 24) as f32;
            let level = 110.0 + wave + grain;
            frame.extend_from_slice(&[level as u8, (level * 0.9) as u8, (level * 0.8 + 20.0) as u8, 0]);
        }
    }
    frame
}

/// Nothing like the frame before.
pub fn noise(width: usize, height: usize, seed: u64) -> Vec<u8> {
    (0..width * height).flat_map(|n| (mix(seed << 32 | n as u64) as u32).to_le_bytes()).collect()
}

/// The frames of a video as BGRX, decoded by ffmpeg, which must not complain.
pub fn decoded(path: &Path, width: usize, height: usize) -> Vec<Vec<u8>> {
    frames(path, width, height, &[])
}

fn frames(path: &Path, width: usize, height: usize, filter: &[&str]) -> Vec<Vec<u8>> {
    let output = Command::new("ffmpeg")
        .args(["-v", "error", "-i"])
        .arg(path)
        .args(filter)
        .args([
            "-fps_mode",
            "passthrough",
            "-sws_flags",
            "accurate_rnd+full_chroma_int",
            "-pix_fmt",
            "bgr0",
            "-f",
            "rawvideo",
            "-",
        ])
        .output()
        .expect("ffmpeg is installed");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "ffmpeg complains of {}", path.display());
    assert!(output.status.success());
    output.stdout.chunks_exact(width * height * 4).map(<[u8]>::to_vec).collect()
}

/// How alike a frame of a video is to a picture, in dB.
pub fn psnr_of(path: &Path, index: u64, picture: &[u8], width: usize, height: usize) -> f64 {
    let found = frames(path, width, height, &["-vf", &format!("select=eq(n\\,{index})")]);
    psnr(found.first().expect("a frame"), picture)
}

/// The peak signal-to-noise ratio of two pictures of BGRX, in dB, over the three colours.
pub fn psnr(left: &[u8], right: &[u8]) -> f64 {
    assert_eq!(left.len(), right.len());
    let pairs = left.chunks_exact(4).zip(right.chunks_exact(4));
    let squares: u64 = pairs.flat_map(|(a, b)| (0..3).map(move |i| u64::from(a[i].abs_diff(b[i])).pow(2))).sum();
    let mean = squares as f64 / (left.len() / 4 * 3) as f64;
    10.0 * (255.0 * 255.0 / mean.max(1e-9)).log10()
}

/// What ffprobe says of a video.
#[derive(Debug)]
pub struct Probe {
    pub codec: String,
    pub profile: String,
    pub pixels: String,
    pub size: (u32, u32),
    /// Of the file, in seconds.
    pub duration: f64,
    /// When each decoded frame is shown, in seconds.
    pub times: Vec<f64>,
}

/// Asks ffprobe, which must find a video. It may complain of the end of a torn one.
pub fn probe(path: &Path) -> Probe {
    let output = Command::new("ffprobe")
        .args(["-v", "quiet", "-of", "default=noprint_wrappers=1", "-show_entries"])
        .arg("stream=codec_name,profile,pix_fmt,width,height:format=duration:frame=pts_time")
        .arg(path)
        .output()
        .expect("ffprobe is installed");
    let text = String::from_utf8(output.stdout).unwrap();
    let values = |key: &str| {
        text.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=').map(str::to_owned)).collect::<Vec<_>>()
    };
    let one = |key: &str| values(key).first().cloned().unwrap_or_else(|| panic!("no {key} of {}: {text}", path.display()));
    Probe {
        codec: one("codec_name"),
        profile: one("profile"),
        pixels: one("pix_fmt"),
        size: (one("width").parse().unwrap(), one("height").parse().unwrap()),
        duration: one("duration").parse().unwrap(),
        times: values("pts_time").iter().filter_map(|time| time.parse().ok()).collect(),
    }
}
