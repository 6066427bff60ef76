use super::*;

const REGION: Rect = Rect { x: 100, y: 40, width: 200, height: 150 };

fn frame() -> Frame {
    Frame { rect: REGION, data: (0..REGION.pixels()).flat_map(|at| [at as u8, (at >> 8) as u8, 3, 0]).collect() }
}

/// The same with other pixels at these places of the screen.
fn with(places: &[(u32, u32)]) -> Frame {
    let mut frame = frame();
    for (x, y) in places {
        let at = ((y - REGION.y) * REGION.width + (x - REGION.x)) as usize * BYTES_PER_PIXEL;
        frame.data[at + 2] ^= 0x80;
    }
    frame
}

fn rect(x: u32, y: u32, width: u32, height: u32) -> Rect {
    Rect { x, y, width, height }
}

#[test]
fn the_same_is_the_same() {
    let (before, mut after) = (frame(), frame());
    for pixel in after.data.as_chunks_mut::<BYTES_PER_PIXEL>().0 {
        pixel[3] = 255;
    }
    assert_eq!(after.difference(&before), None);
    let (before, after) = (Tiles::of(&before), Tiles::of(&after));
    assert_eq!((after.changed_since(&before), after.whole()), (None, before.whole()));
    assert_eq!(after.changed_rects(&before), []);
}

#[test]
fn a_pixel_changes_its_tile() {
    let before = Tiles::of(&frame());
    for (place, tile) in [
        ((100, 40), rect(100, 40, 32, 32)),
        ((131, 71), rect(100, 40, 32, 32)),
        ((132, 72), rect(132, 72, 32, 32)),
        // What is left at the right and below: 200 are 6 tiles and 8, 150 are 4 and 22.
        ((299, 189), rect(292, 168, 8, 22)),
        ((292, 40), rect(292, 40, 8, 32)),
    ] {
        let changed = with(&[place]);
        assert_eq!(changed.difference(&frame()), Some(rect(place.0, place.1, 1, 1)));
        let after = Tiles::of(&changed);
        assert_eq!((after.changed_since(&before), after.changed_rects(&before)), (Some(tile), vec![tile]), "{place:?}");
        assert_ne!(after.whole(), before.whole());
    }
}

#[test]
fn changes_here_and_there_are_told_apart() {
    let changed = with(&[(100, 40), (133, 50), (298, 160), (299, 188)]);
    assert_eq!(changed.difference(&frame()), Some(rect(100, 40, 200, 149)));
    let (after, before) = (Tiles::of(&changed), Tiles::of(&frame()));
    assert_eq!(after.changed_since(&before), Some(REGION));
    assert_eq!(after.changed_rects(&before), [rect(100, 40, 64, 32), rect(292, 136, 8, 54)]);
}

#[test]
fn another_size_or_place_is_all_new() {
    let before = frame();
    for other in [rect(101, 40, 200, 150), rect(100, 40, 150, 200), rect(100, 40, 200, 1)] {
        let after = Frame { rect: other, data: before.data[..other.pixels() * BYTES_PER_PIXEL].to_vec() };
        assert_eq!(after.difference(&before), Some(other));
        let (after, before) = (Tiles::of(&after), Tiles::of(&before));
        assert_eq!((after.changed_since(&before), after.changed_rects(&before)), (Some(other), vec![other]));
        assert_ne!(after.whole(), before.whole());
    }
}

#[test]
fn many_changes_are_few_rectangles_that_miss_none() {
    let screen = rect(0, 0, 1920, 1080);
    let before = Frame { rect: screen, data: vec![0; screen.pixels() * BYTES_PER_PIXEL] };
    for every in [2, 3, 7, 40, 300] {
        let mut after = before.clone();
        let mut places = Vec::new();
        for tile in (0..60 * 34).filter(|tile| tile % every == 0) {
            let (x, y) = ((tile % 60) * 32 + tile % 31, ((tile / 60) * 32 + tile % 17).min(1079));
            after.data[(y * 1920 + x) * BYTES_PER_PIXEL] = 1;
            places.push(rect(x as u32, y as u32, 1, 1));
        }
        let rects = Tiles::of(&after).changed_rects(&Tiles::of(&before));
        assert!(rects.len() <= MAX_RECTS, "{}", rects.len());
        assert!(places.iter().all(|&place| rects.iter().any(|rect| rect.contains(place))), "every {every}");
        assert!(rects.iter().all(|&rect| screen.contains(rect)));
    }
}

#[test]
fn earlier_frames_are_known_by_number_for_a_while() {
    let mut seen = Seen::default();
    assert!(seen.latest().is_none() && seen.get(0).is_none());
    let look = |number: usize| Tiles::of(&with(&[(100 + number as u32, 40)]));
    assert_eq!(seen.note(look(0)), 0);
    assert_eq!(seen.note(look(0)), 0, "nothing changed");
    assert_eq!(seen.note(look(1)), 1);
    assert_eq!(seen.note(look(0)), 2, "as it was before, but another one in between");
    assert_eq!(look(0).changed_since(seen.get(0).unwrap()), None);
    assert_eq!(look(0).changed_since(seen.get(1).unwrap()), Some(rect(100, 40, 32, 32)));
    for number in 3..100 {
        assert_eq!(seen.note(look(number)), number as u64);
    }
    let oldest = 100 - FRAMES_KEPT as u64;
    assert!(seen.get(oldest - 1).is_none() && seen.get(100).is_none() && seen.get(u64::MAX).is_none());
    assert_eq!(seen.get(oldest), Some(&look(oldest as usize)));
    assert_eq!(seen.latest(), Some(&look(99)));
}
