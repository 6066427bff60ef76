//! How long pictures take, in ms (the median, and the least), on the screen that `DISPLAY` or the first argument names: `picture_times :7`.
//!
//! Says more on a busy screen: a photo or a fractal as background, some terminals.

use std::hint::black_box;
use std::time::Instant;

use x_desktop::picture::{Format, Rect, Tiles, encode, fit};
use x_desktop::{Display, Result};

const ROUNDS: usize = 15;

/// The median and the least of the rounds, and what the last one gave.
fn timed<T>(mut round: impl FnMut() -> Result<T>) -> Result<(String, T)> {
    let mut times_ms = Vec::new();
    loop {
        let begin = Instant::now();
        let given = black_box(round()?);
        times_ms.push(begin.elapsed().as_secs_f64() * 1000.0);
        if times_ms.len() == ROUNDS {
            times_ms.sort_by(f64::total_cmp);
            return Ok((format!("{:.2} ({:.2}) ms", times_ms[ROUNDS / 2], times_ms[0]), given));
        }
    }
}

fn main() -> Result<()> {
    let mut display = Display::open(std::env::args().nth(1).as_deref())?;
    let screen = Rect::of_size(display.size());
    let (capture_ms, mut frame) = timed(|| display.capture(screen))?;
    println!("{screen}: capture {capture_ms}");
    for (format, quality) in
        [(Format::Png, 85), (Format::Jpeg, 50), (Format::Jpeg, 85), (Format::Jpeg, 95), (Format::Webp, 85), (Format::Webp, 100)]
    {
        let (ms, file) = timed(|| encode(&frame, format, quality))?;
        println!("{} q{quality}: {ms}, {} KiB", format.media_type(), file.len() / 1024);
    }
    let region = Rect { x: 100, y: 100, width: 400, height: 300 }.clipped(screen)?;
    let (ms, _) = timed(|| encode(&display.capture(region)?, Format::Png, 85))?;
    println!("{region}, captured, as PNG: {ms}");
    for bound in [screen.width / 2, screen.width * 3 / 4] {
        let fit = fit(screen.width, screen.height, bound, screen.height);
        let (ms, scaled) = timed(|| frame.scaled(fit.width, fit.height))?;
        let (jpeg_ms, _) = timed(|| encode(&scaled, Format::Jpeg, 85))?;
        println!("scaled to {}x{}: {ms}, as JPEG {jpeg_ms} more", fit.width, fit.height);
    }
    let (ms, before) = timed(|| Ok(Tiles::of(&frame)))?;
    println!("tiles: {ms}");
    let earlier = frame.clone();
    let (ms, _) = timed(|| Ok(frame.difference(&earlier)))?;
    println!("difference of equal frames: {ms}");
    let (ms, pointer) = timed(|| display.pointer())?;
    println!("pointer: {ms}");
    frame.draw_pointer(&pointer);
    frame.draw_crosshair(pointer.x, pointer.y);
    println!("changed by the pointer: {:?}, by tiles {:?}", frame.difference(&earlier), Tiles::of(&frame).changed_since(&before));
    Ok(())
}
