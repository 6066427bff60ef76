//! Pictures of a real screen: every pixel that is looked at was drawn by somebody else.
#![allow(clippy::unwrap_used)] // a test that can't go on fails

use std::io::Cursor;
use std::sync::Arc;

use x_desktop::picture::{Format, Tiles, encode};
use x_desktop::{Display, Error, Frame, Rect};
use x11rb::COPY_DEPTH_FROM_PARENT;
use x11rb::connection::Connection as _;
use x11rb::protocol::xproto::{
    self, ConfigureWindowAux, ConnectionExt as _, CreateGCAux, CreateWindowAux, Gcontext, Pixmap, Rectangle, Window, WindowClass,
};
use x11rb::rust_connection::RustConnection;

mod support;
use support::{Screen, wait_for};

const RED: u32 = 0x00ff_0000;
const GREEN: u32 = 0x0000_ff00;
const BLUE: u32 = 0x0000_00ff;

/// A window without a manager's frame, and what draws into it.
struct Canvas {
    conn: RustConnection,
    root: Window,
    window: Window,
    gc: Gcontext,
}

impl Canvas {
    fn open(screen: &Screen, rect: Rect, background: u32) -> Self {
        let (conn, root) = screen.connect();
        let (window, gc) = (conn.generate_id().unwrap(), conn.generate_id().unwrap());
        let aux = CreateWindowAux::new().background_pixel(background).override_redirect(1);
        let (x, y, width, height) = (rect.x as i16, rect.y as i16, rect.width as u16, rect.height as u16);
        let class = WindowClass::INPUT_OUTPUT;
        conn.create_window(COPY_DEPTH_FROM_PARENT, window, root, x, y, width, height, 0, class, 0, &aux).unwrap();
        conn.create_gc(gc, window, &CreateGCAux::new()).unwrap();
        conn.map_window(window).unwrap().check().unwrap();
        Self { conn, root, window, gc }
    }

    /// Returns once it is drawn.
    fn fill(&self, colour: u32, x: i16, y: i16, width: u16, height: u16) {
        self.conn.change_gc(self.gc, &xproto::ChangeGCAux::new().foreground(colour)).unwrap();
        self.conn.poly_fill_rectangle(self.window, self.gc, &[Rectangle { x, y, width, height }]).unwrap().check().unwrap();
    }
}

fn whole(display: &Display) -> Rect {
    Rect::of_size(display.size())
}

fn rgb(colour: u32) -> (u8, u8, u8) {
    let [_, red, green, blue] = colour.to_be_bytes();
    (red, green, blue)
}

fn is_all(frame: &Frame, colour: u32) -> bool {
    frame.data.as_chunks::<4>().0.iter().all(|&[blue, green, red, _]| (red, green, blue) == rgb(colour))
}

#[test]
fn a_background_is_seen_in_every_pixel_and_format() {
    let screen = Screen::sized(1440, 900);
    let mut display = screen.open();
    screen.run("xsetroot", &["-solid", "#123456"]);
    let region = whole(&display);
    let frame = display.capture(region).unwrap();
    assert_eq!((frame.rect, frame.data.len()), (region, 1440 * 900 * 4));
    assert!(is_all(&frame, 0x0012_3456));
    let file = encode(&frame, Format::Png, 85).unwrap();
    let mut reader = png::Decoder::new(Cursor::new(&file)).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut pixels).unwrap();
    assert!(pixels.as_chunks::<3>().0.iter().all(|pixel| *pixel == [0x12, 0x34, 0x56]));
    for format in [Format::Jpeg, Format::Webp] {
        assert!(encode(&frame, format, 85).unwrap().len() < 100_000);
    }
}

#[test]
fn a_region_is_what_the_whole_has_there() {
    let screen = Screen::sized(641, 479);
    let mut display = screen.open();
    screen.run("xsetroot", &["-solid", "#123456"]);
    let canvas = Canvas::open(&screen, Rect { x: 100, y: 50, width: 200, height: 150 }, RED);
    canvas.fill(GREEN, 10, 20, 30, 40);
    canvas.fill(BLUE, 199, 149, 1, 1);
    let frame = display.capture(whole(&display)).unwrap();
    for (x, y, colour) in [
        (99, 50, 0x0012_3456),
        (100, 49, 0x0012_3456),
        (100, 50, RED),
        (110, 70, GREEN),
        (139, 109, GREEN),
        (140, 109, RED),
        (139, 110, RED),
        (298, 199, RED),
        (299, 199, BLUE),
        (300, 199, 0x0012_3456),
    ] {
        assert_eq!(frame.pixel(x, y), Some(rgb(colour)), "{x},{y}");
    }
    for region in [
        Rect { x: 110, y: 70, width: 30, height: 40 },
        Rect { x: 299, y: 199, width: 1, height: 1 },
        Rect { x: 640, y: 0, width: 1, height: 479 },
        Rect { x: 0, y: 478, width: 641, height: 1 },
        Rect { x: 87, y: 33, width: 333, height: 222 },
    ] {
        assert_eq!(display.capture(region).unwrap(), frame.crop(region).unwrap(), "{region}");
    }
    assert!(is_all(&display.capture(Rect { x: 110, y: 70, width: 30, height: 40 }).unwrap(), GREEN));
    let beyond = Rect { x: 640, y: 478, width: 2, height: 1 };
    assert!(matches!(display.capture(beyond), Err(Error::Invalid(_))));
    assert_eq!(display.capture(beyond.clipped(frame.rect).unwrap()).unwrap().rect.width, 1);
}

#[test]
fn what_changed_is_found() {
    let screen = Screen::start();
    let mut display = screen.open();
    let canvas = Canvas::open(&screen, Rect { x: 0, y: 0, width: 1280, height: 800 }, 0);
    // What is damaged until the server has taken note isn't told again: pictures come after it.
    display.sync().unwrap();
    display.pump().unwrap();
    display.rearm().unwrap();
    display.sync().unwrap();
    let before = display.capture(whole(&display)).unwrap();
    canvas.fill(GREEN, 333, 222, 50, 11);
    wait_for("damage", || display.pump().unwrap().damaged.then_some(()));
    let after = display.capture(whole(&display)).unwrap();
    let exact = Rect { x: 333, y: 222, width: 50, height: 11 };
    assert_eq!(after.difference(&before), Some(exact));
    let tiles = Tiles::of(&after).changed_since(&Tiles::of(&before)).unwrap();
    assert_eq!(tiles, Rect { x: 320, y: 192, width: 64, height: 64 });
    assert!(tiles.contains(exact));
    canvas.fill(0, 333, 222, 50, 11);
    let again = display.capture(whole(&display)).unwrap();
    assert_eq!(Tiles::of(&again), Tiles::of(&before));
}

/// Fills a bitmap for a cursor.
fn bitmap(canvas: &Canvas, width: u16, height: u16, filled: Rectangle) -> Pixmap {
    let (bitmap, gc) = (canvas.conn.generate_id().unwrap(), canvas.conn.generate_id().unwrap());
    canvas.conn.create_pixmap(1, bitmap, canvas.root, width, height).unwrap();
    canvas.conn.create_gc(gc, bitmap, &CreateGCAux::new().foreground(0)).unwrap();
    canvas.conn.poly_fill_rectangle(bitmap, gc, &[Rectangle { x: 0, y: 0, width, height }]).unwrap();
    canvas.conn.change_gc(gc, &xproto::ChangeGCAux::new().foreground(1)).unwrap();
    canvas.conn.poly_fill_rectangle(bitmap, gc, &[filled]).unwrap().check().unwrap();
    bitmap
}

/// A pointer of 16x12: 3 columns at the left are green, the next 5 red, and the rest nothing. It points with 4,6.
fn set_cursor(canvas: &Canvas) {
    let source = bitmap(canvas, 16, 12, Rectangle { x: 0, y: 0, width: 3, height: 12 });
    let mask = bitmap(canvas, 16, 12, Rectangle { x: 0, y: 0, width: 8, height: 12 });
    let cursor = canvas.conn.generate_id().unwrap();
    canvas.conn.create_cursor(cursor, source, mask, 0, 0xffff, 0, 0xffff, 0, 0, 4, 6).unwrap();
    let aux = xproto::ChangeWindowAttributesAux::new().cursor(cursor);
    canvas.conn.change_window_attributes(canvas.window, &aux).unwrap().check().unwrap();
}

fn point_at(canvas: &Canvas, x: i16, y: i16) {
    canvas.conn.warp_pointer(x11rb::NONE, canvas.root, 0, 0, 0, 0, x, y).unwrap().check().unwrap();
}

#[test]
fn the_pointer_has_its_place_and_picture() {
    let screen = Screen::start();
    let mut display = screen.open();
    let canvas = Canvas::open(&screen, Rect { x: 0, y: 0, width: 1280, height: 800 }, BLUE);
    set_cursor(&canvas);
    point_at(&canvas, 200, 100);
    let pointer = display.pointer().unwrap();
    assert_eq!((pointer.x, pointer.y), (200, 100));
    let image = pointer.image.clone().unwrap();
    assert_eq!((image.hot_x, image.hot_y), (4, 6));
    let mut frame = display.capture(whole(&display)).unwrap();
    assert!(is_all(&frame, BLUE), "the pointer isn't in what is captured");
    frame.draw_pointer(&pointer);
    for (x, y, colour) in [
        (195, 100, BLUE),
        (196, 94, GREEN),
        (198, 105, GREEN),
        (199, 100, RED),
        (203, 105, RED),
        (204, 100, BLUE),
        (198, 93, BLUE),
        (198, 106, BLUE),
    ] {
        assert_eq!(frame.pixel(x, y), Some(rgb(colour)), "{x},{y}");
    }
    let at_the_edge = (1279, 799);
    point_at(&canvas, at_the_edge.0, at_the_edge.1);
    let pointer = display.pointer().unwrap();
    assert!(Arc::ptr_eq(pointer.image.as_ref().unwrap(), &image), "it is the same picture");
    let mut corner = display.capture(Rect { x: 1270, y: 790, width: 10, height: 10 }).unwrap();
    corner.draw_pointer(&pointer);
    assert_eq!((corner.pixel(1277, 799), corner.pixel(1279, 793)), (Some(rgb(GREEN)), Some(rgb(RED))));
}

#[test]
fn another_picture_of_the_pointer_is_told() {
    let screen = Screen::start();
    let mut display = screen.open();
    let canvas = Canvas::open(&screen, Rect { x: 0, y: 0, width: 1280, height: 800 }, BLUE);
    let before = display.pointer().unwrap().image.unwrap();
    display.pump().unwrap();
    set_cursor(&canvas);
    wait_for("the pointer", || display.pump().unwrap().cursor.then_some(()));
    let after = display.pointer().unwrap().image.unwrap();
    assert_ne!(before.serial, after.serial);
    assert_ne!(before.argb, after.argb);
}

#[test]
fn after_a_resize_pictures_have_the_new_size() {
    let screen = Screen::start();
    let mut display = screen.open();
    let large = display.capture(whole(&display)).unwrap();
    let canvas = Canvas::open(&screen, Rect { x: 600, y: 400, width: 200, height: 200 }, GREEN);
    screen.run("xrandr", &["--newmode", "small", "30", "640", "640", "640", "640", "480", "480", "480", "480"]);
    screen.run("xrandr", &["--addmode", "screen", "small"]);
    screen.run("xrandr", &["--output", "screen", "--mode", "small"]);
    wait_for("another size", || display.pump().unwrap().resized.then_some(()));
    let small = display.capture(whole(&display)).unwrap();
    assert_eq!((small.rect.width, small.rect.height), (640, 480));
    assert_eq!(small.pixel(639, 479), Some(rgb(GREEN)));
    assert!(display.capture(large.rect).is_err());
    assert_eq!(Tiles::of(&small).changed_since(&Tiles::of(&large)), Some(small.rect));
    screen.run("xrandr", &["--output", "screen", "--mode", "1280x800"]);
    wait_for("the first size", || display.pump().unwrap().resized.then_some(()));
    canvas.conn.configure_window(canvas.window, &ConfigureWindowAux::new().x(1080).y(600)).unwrap().check().unwrap();
    let again = display.capture(whole(&display)).unwrap();
    assert_eq!(again.rect, large.rect);
    assert_eq!((again.pixel(1279, 799), again.pixel(1080, 600)), (Some(rgb(GREEN)), Some(rgb(GREEN))));
}
