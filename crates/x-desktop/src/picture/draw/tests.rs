use std::sync::Arc;

use super::*;

const REGION: Rect = Rect { x: 30, y: 20, width: 40, height: 35 };
const GREY: [u8; 4] = [100, 100, 100, 9];

fn grey() -> Frame {
    Frame { rect: REGION, data: GREY.repeat(REGION.pixels()) }
}

/// Places in the frame, at its edges, and around it.
fn places() -> impl Iterator<Item = (i32, i32)> {
    (-5..90).step_by(5).chain([29, 31, 69, 71]).flat_map(|x| (-5..80).step_by(5).chain([19, 21, 54, 56]).map(move |y| (x, y)))
}

#[test]
fn a_cross_is_drawn_where_it_is_seen() {
    let is_red = |dx: i32, dy: i32| {
        ((-10..10).contains(&dx) && (-1..1).contains(&dy)) || ((-10..10).contains(&dy) && (-1..1).contains(&dx))
    };
    for (x, y) in places() {
        let mut frame = grey();
        frame.draw_crosshair(x, y);
        for (seen_x, seen_y) in (30..70).flat_map(|x| (20..55).map(move |y| (x, y))) {
            let expected = if is_red(seen_x - x, seen_y - y) { (255, 0, 0) } else { (100, 100, 100) };
            assert_eq!(frame.pixel(seen_x as u32, seen_y as u32), Some(expected), "{seen_x},{seen_y} of a cross at {x},{y}");
        }
    }
}

#[test]
fn far_away_nothing_is_drawn() {
    for (x, y) in [(i32::MIN, 30), (30, i32::MIN), (i32::MAX, i32::MAX), (i32::MIN, i32::MIN)] {
        let mut frame = grey();
        frame.draw_crosshair(x, y);
        assert_eq!(frame, grey());
    }
}

#[test]
fn a_pointer_is_laid_over_what_is_below() {
    let (width, height) = (7_u16, 9_u16);
    // Nothing, red, half of white, and a blue that isn't multiplied as it should be.
    let kinds = [(0, (100, 100, 100)), (0xffff_0000, (255, 0, 0)), (0x8080_8080, (178, 178, 178)), (0x4000_00ff, (75, 75, 255))];
    let image = CursorImage {
        serial: 1,
        name: String::new(),
        width,
        height,
        hot_x: 2,
        hot_y: 3,
        argb: (0..usize::from(width * height)).map(|at| kinds[at % kinds.len()].0).collect(),
    };
    let image = Some(Arc::new(image));
    for (x, y) in places() {
        let mut frame = grey();
        frame.draw_pointer(&Pointer { x, y, image: image.clone() });
        for (seen_x, seen_y) in (30..70).flat_map(|x| (20..55).map(move |y| (x, y))) {
            let (column, row) = (seen_x - x + 2, seen_y - y + 3);
            let within = (0..7).contains(&column) && (0..9).contains(&row);
            let expected = if within { kinds[(row * 7 + column) as usize % kinds.len()].1 } else { (100, 100, 100) };
            assert_eq!(frame.pixel(seen_x as u32, seen_y as u32), Some(expected), "{seen_x},{seen_y} of a pointer at {x},{y}");
        }
    }
}

#[test]
fn a_pointer_without_a_picture_is_not_drawn() {
    let mut frame = grey();
    frame.draw_pointer(&Pointer { x: 40, y: 30, image: None });
    assert_eq!(frame, grey());
}
