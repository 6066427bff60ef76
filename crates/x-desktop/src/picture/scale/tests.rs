use super::*;

fn frame(width: u32, height: u32, pixel: impl Fn(u32, u32) -> [u8; 4]) -> Frame {
    let data = (0..height).flat_map(|y| (0..width).map(move |x| (x, y))).flat_map(|(x, y)| pixel(x, y)).collect();
    Frame { rect: Rect { x: 40, y: 30, width, height }, data }
}

#[test]
fn sides_are_rounded_to_the_nearest_and_never_nothing() {
    assert_eq!(scaled_size(301, 203, 0.5), (151, 102));
    assert_eq!(scaled_size(1440, 900, 0.1), (144, 90));
    assert_eq!(scaled_size(1440, 900, 0.333), (480, 300));
    assert_eq!(scaled_size(4, 1, 0.1), (1, 1));
    assert_eq!(scaled_size(7, 9, 1.0), (7, 9));
    assert_eq!(scaled_size(7, 9, f64::NAN), (1, 1));
}

#[test]
fn a_picture_fits_and_keeps_its_shape() {
    assert_eq!(fit(1440, 900, 720, 10_000), Fit { width: 720, height: 450, factor: 0.5 });
    assert_eq!(fit(1440, 900, 10_000, 450), Fit { width: 720, height: 450, factor: 0.5 });
    assert_eq!(fit(800, 600, 1024, 768), Fit { width: 800, height: 600, factor: 1.0 });
    assert_eq!(fit(3, 5000, 100, 100), Fit { width: 1, height: 100, factor: 0.02 });
    for (width, height) in [(1920, 1080), (1366, 768), (1, 1), (333, 777), (32767, 1)] {
        for (max_width, max_height) in [(1280, 800), (1, 1), (1000, 3), (0, 0)] {
            let fit = fit(width, height, max_width, max_height);
            assert!(fit.width <= max_width.max(1) && fit.height <= max_height.max(1), "{width}x{height}: {fit:?}");
            assert!(fit.factor > 0.0 && fit.factor <= 1.0);
        }
    }
}

#[test]
fn one_colour_stays_it() {
    let grey = frame(301, 203, |_, _| [10, 200, 77, 0]);
    for (width, height) in [(151, 102), (1, 1), (30, 20), (301, 203), (301, 1)] {
        let scaled = grey.scaled(width, height).unwrap();
        assert_eq!(scaled.rect, Rect { x: 0, y: 0, width, height });
        assert!(scaled.data.as_chunks::<4>().0.iter().all(|pixel| pixel[..3] == [10, 200, 77]), "{width}x{height}");
    }
}

#[test]
fn things_stay_where_they_are() {
    let edge = frame(200, 100, |x, y| if x < 100 && y < 50 { [255, 0, 0, 7] } else { [0, 0, 255, 255] });
    let half = edge.scaled(100, 50).unwrap();
    assert_eq!(half.pixel(47, 22), Some((0, 0, 255)));
    for (x, y) in [(52, 10), (10, 27), (99, 49)] {
        assert_eq!(half.pixel(x, y), Some((255, 0, 0)), "{x},{y}");
    }
}

#[test]
fn what_cannot_be_scaled_is_said() {
    let whole = frame(10, 10, |_, _| [0; 4]);
    assert!(matches!(whole.scaled(0, 5), Err(Error::Invalid(_))));
    let torn = Frame { data: vec![0; 10], ..whole };
    assert!(matches!(torn.scaled(5, 5), Err(Error::Encode(_))));
}
