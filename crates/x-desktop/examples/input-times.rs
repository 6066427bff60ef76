//! How long pointer and keys take on the display of `DISPLAY`: `cargo run --example input-times`. Types into what is in focus.
#![allow(clippy::print_stdout)]

use std::time::{Duration, Instant};

use x_desktop::{Button, Click, Display, Plan, Press, Result, Scroll, Typing};

fn median(what: &str, mut act: impl FnMut() -> Result<()>) -> Result<()> {
    let mut times = Vec::new();
    for _ in 0..15 {
        let started = Instant::now();
        act()?;
        times.push(started.elapsed());
    }
    times.sort();
    println!("{what}: {:.2} ms ({:.2} to {:.2})", ms(times[7]), ms(times[0]), ms(times[14]));
    Ok(())
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn main() -> Result<()> {
    let mut display = Display::open(None)?;
    let at_once = Duration::ZERO;
    let ascii: String = "The quick brown fox jumps over the lazy dog. ".chars().cycle().take(199).chain(['\n']).collect();
    let mixed: String = "naïve café — “quoted” ü ñ 日本語 😀 Привет. ".chars().cycle().take(199).chain(['\n']).collect();
    let chinese: String = (0..199).filter_map(|index| char::from_u32(0x4e00 + index)).chain(['\n']).collect();
    median("pointer position", || display.pointer_position().map(drop))?;
    median("pointer move and position", || {
        display.move_pointer(100, 100)?;
        display.pointer_position().map(drop)
    })?;
    median("click", || Click::new(Button::Left, 1, at_once, &[])?.run(&mut display))?;
    median("double click", || Click::new(Button::Left, 2, at_once, &[])?.run(&mut display))?;
    median("ctrl click", || Click::new(Button::Left, 1, at_once, &["ctrl"])?.run(&mut display))?;
    median("scroll 120", || Scroll::new(0, 120, &[])?.run(&mut display))?;
    median("press shift+F9", || Press::new("shift+F9", 1, at_once)?.run(&mut display))?;
    median("type 200 ASCII", || Typing::new(&ascii, at_once)?.run(&mut display))?;
    median("type 200 mixed", || Typing::new(&mixed, at_once)?.run(&mut display))?;
    median("type 200 different Chinese", || Typing::new(&chinese, at_once)?.run(&mut display))?;
    while !display.restore_keymap()? {
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
