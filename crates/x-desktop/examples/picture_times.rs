//! How long pictures take, in ms (median), on the screen that `DISPLAY` or the first argument names: `picture_times :7`.
//!
//! Says more on a busy screen: a photo or a fractal as background, some terminals.

use std::hint::black_box;
use std::time::Instant;

use x_desktop::picture::{Format, Rect, Tiles, encode, fit};
use x_desktop::{Display, Result};

const ROUNDS: usize = 15;

/// The median of the rounds, and what the last one gave.
fn median<T>(mut round: impl FnMut() -> Result<T>) -> Result<(f64, T)> {
    let mut times_ms = Vec::new();
    loop {
        let begin = Instant::now();
        let given = black_box(round()?);
        times_ms.push(begin.elapsed().as_secs_f64() * 1000.0);
        if times_ms.len() == ROUNDS {
            times_ms.sort_by(f64::total_cmp);
            return Ok((times_ms[ROUNDS / 2], given));
        }
    }
}

fn main() -> Result<()> {
    let mut display = Display::open(std::env::args().nth(1).as_deref())?;
    let screen = Rect::of_size(display.size());
    let (capture_ms, mut frame) = median(|| display.capture(screen))?;
    println!("{screen}: capture {capture_ms:.2}");
    for (format, quality) in
        [(Format::Png, 85), (Format::Jpeg, 50), (Format::Jpeg, 85), (Format::Jpeg, 95), (Format::Webp, 85), (Format::Webp, 100)]
    {
        let (ms, file) = median(|| encode(&frame, format, quality))?;
        println!("{} q{quality}: {ms:.1} ms, {} KiB", format.media_type(), file.len() / 1024);
    }
    let region = Rect { x: 100, y: 100, width: 400, height: 300 }.clipped(screen)?;
    let (ms, _) = median(|| encode(&display.capture(region)?, Format::Png, 85))?;
    println!("{region}, captured, as PNG: {ms:.2} ms");
    for bound in [screen.width / 2, screen.width * 3 / 4] {
        let fit = fit(screen.width, screen.height, bound, screen.height);
        let (ms, scaled) = median(|| frame.scaled(fit.width, fit.height))?;
        let (jpeg_ms, _) = median(|| encode(&scaled, Format::Jpeg, 85))?;
        println!("scaled to {}x{}: {ms:.1} ms, as JPEG {jpeg_ms:.1} ms more", fit.width, fit.height);
    }
    let (ms, before) = median(|| Ok(Tiles::of(&frame)))?;
    println!("tiles: {ms:.2} ms");
    let earlier = frame.clone();
    let (ms, _) = median(|| Ok(frame.difference(&earlier)))?;
    println!("difference of equal frames: {ms:.2} ms");
    let (ms, pointer) = median(|| display.pointer())?;
    println!("pointer: {ms:.2} ms");
    frame.draw_pointer(&pointer);
    frame.draw_crosshair(pointer.x, pointer.y);
    println!("changed by the pointer: {:?}, by tiles {:?}", frame.difference(&earlier), Tiles::of(&frame).changed_since(&before));
    Ok(())
}
