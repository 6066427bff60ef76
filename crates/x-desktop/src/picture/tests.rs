use super::*;

/// A frame whose pixels all differ, the ones that say nothing included.
fn numbered(rect: Rect) -> Frame {
    let data = (0..rect.pixels() as u32).flat_map(|number| (number.wrapping_mul(0x9e37_79b1)).to_le_bytes()).collect();
    Frame { rect, data }
}

const SCREEN: Rect = Rect { x: 0, y: 0, width: 1440, height: 900 };

#[test]
fn a_region_is_clipped_to_the_screen() {
    let clipped = |x, y, width, height| Rect { x, y, width, height }.clipped(SCREEN);
    assert_eq!(clipped(1430, 0, 20, 20).unwrap(), Rect { x: 1430, y: 0, width: 10, height: 20 });
    assert_eq!(clipped(0, 899, 20, 20).unwrap(), Rect { x: 0, y: 899, width: 20, height: 1 });
    assert_eq!(clipped(0, 0, u32::MAX, u32::MAX).unwrap(), SCREEN);
    assert_eq!(clipped(1439, 899, u32::MAX, u32::MAX).unwrap(), Rect { x: 1439, y: 899, width: 1, height: 1 });
    for (x, y) in [(1440, 0), (0, 900), (u32::MAX, u32::MAX)] {
        assert!(matches!(clipped(x, y, u32::MAX, u32::MAX), Err(Error::Invalid(_))), "{x},{y}");
    }
    assert!(clipped(5, 5, 0, 5).is_err());
}

#[test]
fn a_part_is_cut_out_where_it_is_on_the_screen() {
    let frame = numbered(Rect { x: 100, y: 50, width: 31, height: 17 });
    let part = Rect { x: 110, y: 60, width: 21, height: 7 };
    let cropped = frame.crop(part).unwrap();
    assert_eq!((cropped.rect, cropped.data.len()), (part, part.pixels() * BYTES_PER_PIXEL));
    for (x, y) in [(110, 60), (130, 66), (110, 66), (120, 63)] {
        assert_eq!(cropped.pixel(x, y), frame.pixel(x, y));
    }
    assert_eq!(frame.crop(frame.rect).unwrap(), frame);
    for outside in [Rect { x: 99, ..part }, Rect { y: 49, ..part }, Rect { width: 22, ..part }, Rect { height: 0, ..part }] {
        assert!(matches!(frame.crop(outside), Err(Error::Invalid(_))), "{outside}");
    }
}

#[test]
fn a_pixel_is_red_green_blue() {
    let frame = Frame { rect: Rect { x: 5, y: 6, width: 2, height: 1 }, data: vec![1, 2, 3, 99, 4, 5, 6, 99] };
    assert_eq!(frame.pixel(5, 6), Some((3, 2, 1)));
    assert_eq!(frame.pixel(6, 6), Some((6, 5, 4)));
    for (x, y) in [(4, 6), (7, 6), (5, 5), (5, 7), (u32::MAX, u32::MAX)] {
        assert_eq!(frame.pixel(x, y), None);
    }
}
