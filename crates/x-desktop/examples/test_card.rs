//! A test card over the whole screen that says when it was drawn: `test_card [--mode MODE] [--fps N]`, on `DISPLAY`.
//!
//! In the upper left corner is a strip of 48 squares, each black or white: the low 40 bits of the clock in milliseconds, then the
//! exclusive or of these five bytes with 0xa5, the highest bit first. It is drawn last, right before all goes to the X server, so that
//! whoever sees it knows how late it is. Below it:
//!
//! | mode | |
//! |---|---|
//! | `still` | some text; nothing changes |
//! | `clock` | some text; only the strip changes |
//! | `scroll` | text that scrolls, 50 lines a second |
//! | `typing` | a character every 100 ms; the strip changes with it |
//! | `video` | waves with grain, other in each frame |

use std::error::Error;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use x11rb::connection::Connection as _;
use x11rb::protocol::xproto::{
    ConfigureWindowAux, ConnectionExt as _, CreateGCAux, CreateWindowAux, Font, Gcontext, ImageFormat, Rectangle, Screen,
    StackMode, Window, WindowClass,
};
use x11rb::rust_connection::RustConnection;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const SQUARES: u16 = 48;
/// On a screen that is wide enough; video leaves smaller ones whole, too.
const SQUARE_PX: u16 = 24;
const CHECK: u8 = 0xa5;
const LINES_PER_SECOND: f64 = 50.0;
const CHARACTER_EVERY: Duration = Duration::from_millis(100);
/// Of the font that every X server has.
const FONT: &[u8] = b"fixed";
/// Patterns of grain; each frame shows another part of it.
const GRAIN_SIDE: usize = 256;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Still,
    Clock,
    Scroll,
    Typing,
    Video,
}

struct Asked {
    mode: Mode,
    fps: u32,
}

impl Asked {
    fn read() -> Result<Self> {
        let mut asked = Self { mode: Mode::Clock, fps: 30 };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
            match word.as_str() {
                "--mode" => {
                    asked.mode = match value.as_str() {
                        "still" => Mode::Still,
                        "clock" => Mode::Clock,
                        "scroll" => Mode::Scroll,
                        "typing" => Mode::Typing,
                        "video" => Mode::Video,
                        _ => return Err(format!("there is no mode {value}").into()),
                    }
                }
                "--fps" => asked.fps = value.parse::<u32>()?.clamp(1, 240),
                _ => return Err(format!("there is no {word}").into()),
            }
        }
        Ok(asked)
    }
}

struct Card {
    x: RustConnection,
    window: Window,
    depth: u8,
    width: u16,
    height: u16,
    square: u16,
    text: Gcontext,
    empty: Gcontext,
    line_px: u16,
    ascent_px: u16,
    character_px: u16,
    /// Lines, characters or frames that were drawn.
    count: u64,
    grain: Vec<u8>,
    random: u64,
}

impl Card {
    fn new() -> Result<Self> {
        let (x, number) = RustConnection::connect(None)?;
        let screen = x.setup().roots.get(number).cloned().ok_or("no screen")?;
        let font = x.generate_id()?;
        x.open_font(font, FONT)?;
        let metrics = x.query_font(font)?.reply()?;
        let window = window(&x, &screen)?;
        let text = gc(&x, window, screen.black_pixel, screen.white_pixel, font)?;
        let empty = gc(&x, window, screen.white_pixel, screen.black_pixel, font)?;
        let side = |pixels: i16| u16::try_from(pixels).unwrap_or(1).max(1);
        let (ascent_px, descent_px) = (side(metrics.font_ascent), side(metrics.font_descent));
        let mut card = Self {
            window,
            depth: screen.root_depth,
            width: screen.width_in_pixels,
            height: screen.height_in_pixels,
            square: SQUARE_PX.min(screen.width_in_pixels / SQUARES),
            text,
            empty,
            line_px: ascent_px + descent_px,
            ascent_px,
            character_px: side(metrics.max_bounds.character_width),
            count: 0,
            grain: Vec::new(),
            random: 0x9e37_79b9_7f4a_7c15,
            x,
        };
        card.grain = (0..GRAIN_SIDE * GRAIN_SIDE).map(|_| card.throw() & 0x1f).collect();
        Ok(card)
    }

    /// xorshift64.
    fn throw(&mut self) -> u8 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random.to_be_bytes()[0]
    }

    fn run(&mut self, asked: &Asked) -> Result<()> {
        let frame_time = if asked.mode == Mode::Typing { CHARACTER_EVERY } else { Duration::from_secs(1) / asked.fps };
        if asked.mode != Mode::Video {
            self.fill_with_text()?;
        }
        let begin = Instant::now();
        let mut next = begin;
        loop {
            match asked.mode {
                Mode::Still | Mode::Clock => {}
                Mode::Scroll => self.scroll_to(begin.elapsed().as_secs_f64() * LINES_PER_SECOND)?,
                Mode::Typing => self.type_one()?,
                Mode::Video => self.video()?,
            }
            self.strip()?;
            if asked.mode == Mode::Still {
                sleep(Duration::MAX);
            }
            next += frame_time;
            let now = Instant::now();
            match next.checked_duration_since(now) {
                Some(left) => sleep(left),
                None => next = now, // the machine is too slow: no frames to catch up
            }
        }
    }

    /// The clock, drawn and sent off.
    fn strip(&self) -> Result<()> {
        let side = usize::from(self.square);
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
        let [.., a, b, c, d, e] = now.to_be_bytes();
        let bytes = [a, b, c, d, e, a ^ b ^ c ^ d ^ e ^ CHECK];
        let bits = bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1 == 1));
        let row: Vec<u8> = bits.flat_map(|is_white| std::iter::repeat_n(if is_white { 255 } else { 0 }, side * 4)).collect();
        // One request: nobody sees a part of it.
        self.x.put_image(
            ImageFormat::Z_PIXMAP,
            self.window,
            self.text,
            SQUARES * self.square,
            self.square,
            0,
            0,
            0,
            self.depth,
            &row.repeat(side),
        )?;
        self.x.flush()?;
        // What waits to be drawn isn't seen: a slow X server makes slower frames, not later ones.
        self.x.get_input_focus()?.reply()?;
        Ok(())
    }

    /// Where lines of text can be, from the top.
    fn rows(&self) -> u16 {
        (self.height - self.square) / self.line_px
    }

    fn line(&mut self) -> Vec<u8> {
        let characters = usize::from(self.width / self.character_px).min(200);
        let number = self.count;
        self.count += 1;
        let mut line = format!("{number:08} ").into_bytes();
        while line.len() < characters {
            let thrown = self.throw();
            line.push(if thrown < 40 { b' ' } else { b'a' + thrown % 26 });
        }
        line
    }

    fn write(&self, row: u16, column: u16, text: &[u8]) -> Result<()> {
        let at = |pixels: u32| i16::try_from(pixels).unwrap_or(i16::MAX);
        let y = u32::from(self.square) + u32::from(row) * u32::from(self.line_px) + u32::from(self.ascent_px);
        self.x.image_text8(self.window, self.text, at(u32::from(column) * u32::from(self.character_px)), at(y), text)?;
        Ok(())
    }

    fn fill_with_text(&mut self) -> Result<()> {
        for row in 0..self.rows() {
            let line = self.line();
            self.write(row, 0, &line)?;
        }
        Ok(())
    }

    fn scroll_to(&mut self, lines: f64) -> Result<()> {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // small and positive
        let due = (lines as u64 + u64::from(self.rows())).saturating_sub(self.count).min(u64::from(self.rows()));
        let new = u16::try_from(due)?;
        let (top, up) = (i16::try_from(self.square)?, new * self.line_px);
        let kept = self.rows() * self.line_px - up;
        self.x.copy_area(self.window, self.window, self.text, 0, top + i16::try_from(up)?, 0, top, self.width, kept)?;
        for row in self.rows() - new..self.rows() {
            let line = self.line();
            self.write(row, 0, &line)?;
        }
        Ok(())
    }

    /// One character more; a screen that is full begins anew.
    fn type_one(&mut self) -> Result<()> {
        let (columns, rows) = (u64::from((self.width / self.character_px).min(100)), u64::from(self.rows()));
        let begun = u64::from(self.rows());
        let at = (self.count - begun) % (columns * rows);
        if at == 0 {
            let below = Rectangle { x: 0, y: i16::try_from(self.square)?, width: self.width, height: self.height - self.square };
            self.x.poly_fill_rectangle(self.window, self.empty, &[below])?;
        }
        self.count += 1;
        let character = b'a' + self.throw() % 26;
        self.write(u16::try_from(at / columns)?, u16::try_from(at % columns)?, &[character])
    }

    fn video(&mut self) -> Result<()> {
        let frame = usize::try_from(self.count)?;
        self.count += 1;
        let (width, height) = (usize::from(self.width), usize::from(self.height - self.square));
        let shift = usize::from(self.throw());
        let mut pixels = Vec::with_capacity(width * height * 4);
        for y in 0..height {
            let grain = &self.grain[(y + shift) % GRAIN_SIDE * GRAIN_SIDE..][..GRAIN_SIDE];
            for x in 0..width {
                let wave = |step: usize| u8::try_from((x / 2 + y / 3 + frame * step) & 0xff).unwrap_or(0).abs_diff(128) + 64;
                let grain = grain[(x / 2 + shift) % GRAIN_SIDE];
                pixels.extend([wave(3) + grain, wave(5) + grain, wave(7) + grain, 0]);
            }
        }
        let top = i16::try_from(self.square)?;
        self.x.put_image(
            ImageFormat::Z_PIXMAP,
            self.window,
            self.text,
            self.width,
            u16::try_from(height)?,
            0,
            top,
            0,
            self.depth,
            &pixels,
        )?;
        Ok(())
    }
}

/// Over everything; no window manager is asked.
fn window(x: &RustConnection, screen: &Screen) -> Result<Window> {
    let window = x.generate_id()?;
    let (width, height) = (screen.width_in_pixels, screen.height_in_pixels);
    let how = CreateWindowAux::new().override_redirect(1).background_pixel(screen.white_pixel);
    x.create_window(screen.root_depth, window, screen.root, 0, 0, width, height, 0, WindowClass::INPUT_OUTPUT, 0, &how)?;
    x.map_window(window)?;
    x.configure_window(window, &ConfigureWindowAux::new().stack_mode(StackMode::ABOVE))?;
    x.get_input_focus()?.reply()?; // it is there
    Ok(window)
}

fn gc(x: &RustConnection, window: Window, foreground: u32, background: u32, font: Font) -> Result<Gcontext> {
    let gc = x.generate_id()?;
    let how = CreateGCAux::new().foreground(foreground).background(background).font(font).graphics_exposures(0);
    x.create_gc(gc, window, &how)?;
    Ok(gc)
}

fn main() -> Result<()> {
    let asked = Asked::read()?;
    Card::new()?.run(&asked)
}
