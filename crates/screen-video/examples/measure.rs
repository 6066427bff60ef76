//! Measures the encoder on 1920×1080: `cargo run --release -p screen-video --example measure`.
//!
//! Pictures are made here, without an X server: text of made-up glyphs, scrolled, and noise that moves.
#![allow(clippy::unwrap_used, missing_docs)]

use std::io::Cursor;
use std::time::Duration;

use screen_video::{Encoder, Fmp4Writer, Purpose, Settings};

#[path = "../tests/screens/mod.rs"]
mod screens;

const WIDTH: usize = 1920;
const HEIGHT: usize = 1080;
const FRAMES: u32 = 120;

fn main() {
    let bitrate_bps = std::env::args().nth(1).map_or(4_000_000, |value| value.parse().unwrap());
    println!("{:<28} {:>8} {:>10} {:>9} {:>8} {:>8}", "1920x1080", "fps/core", "cores@30", "skipped", "kbit/s", "PSNR dB");
    measure("still", bitrate_bps, |_| screens::text(WIDTH, HEIGHT, 0));
    measure("a line typed (1 glyph)", bitrate_bps, |n| screens::typed(WIDTH, HEIGHT, n as usize));
    measure("scroll, a line a frame", bitrate_bps, |n| screens::text(WIDTH, HEIGHT, n as usize));
    measure("scroll in 800x500 window", bitrate_bps, |n| screens::window(WIDTH, HEIGHT, n as usize));
    measure("all moves (photo pan)", bitrate_bps, |n| screens::pan(WIDTH, HEIGHT, n as usize));
}

fn measure(name: &str, bitrate_bps: u32, picture: impl Fn(u32) -> Vec<u8>) {
    let settings = Settings { fps: 30, bitrate_bps, purpose: Purpose::Recording };
    let mut encoder = Encoder::new(WIDTH as u32, HEIGHT as u32, settings).unwrap();
    let mut writer = Fmp4Writer::new(Cursor::new(Vec::new()), WIDTH as u32, HEIGHT as u32);
    let (mut spent, mut skipped, mut bytes) = (Duration::ZERO, 0, 0);
    for n in 0..=FRAMES {
        let frame = picture(n);
        let at = Duration::from_secs(1) * n / 30;
        let started = on_cpu();
        let encoded = encoder.encode(&frame, WIDTH * 4, at, false).unwrap();
        // the first is the keyframe
        if n > 0 {
            spent += on_cpu().saturating_sub(started);
            skipped += u32::from(encoded.is_none());
            bytes += encoded.as_ref().map_or(0, |encoded| encoded.data.len());
        }
        if let Some(encoded) = encoded {
            writer.write(&encoded, at).unwrap();
        }
    }
    let end = Duration::from_secs(1) * (FRAMES + 1) / 30;
    let (file, summary) = writer.finish(end).unwrap();
    let file = file.into_inner();
    std::fs::write(std::env::temp_dir().join("measure.mp4"), file).unwrap();
    let psnr = screens::psnr_of(&std::env::temp_dir().join("measure.mp4"), summary.frames - 1, &picture(FRAMES), WIDTH, HEIGHT);
    let each = spent.as_secs_f64() / f64::from(FRAMES);
    println!(
        "{name:<28} {:>8.1} {:>10.2} {skipped:>9} {:>8.0} {psnr:>8.1}",
        1.0 / each,
        each * 30.0,
        bytes as f64 * 8.0 / 1000.0 / (f64::from(FRAMES) / 30.0)
    );
}

/// The time that this thread ran, so that a busy machine measures the same (proc(5), schedstat).
fn on_cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(stat.split(' ').next().unwrap().parse().unwrap())
}
