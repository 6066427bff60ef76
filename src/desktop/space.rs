//! What coordinates mean: places in a picture of the screen, or of a part of it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use x_desktop::Rect;
use x_desktop::picture::fit;

use super::Error;

/// The picture that a client's coordinates count in: the screen made to fit, as `maxWidth` and `maxHeight` of a screenshot do.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Space {
    /// Pixels, at least 1; without a bound when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_width: Option<u32>,
    /// Pixels, at least 1; without a bound when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_height: Option<u32>,
    /// The display that the picture shows, and whose corner coordinates count from; the whole screen when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display: Option<String>,
}

/// What coordinates mean.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct View {
    /// Pixels of the picture by pixels of the screen.
    pub(super) factor: f64,
    /// The part of the screen that they count in; all of it when absent.
    pub(super) part: Option<Rect>,
}

impl Default for View {
    fn default() -> Self {
        Self { factor: 1.0, part: None }
    }
}

impl Space {
    /// Whether the picture is other than as large as the screen.
    pub(super) fn is_scaled(&self) -> bool {
        self.max_width.is_some() || self.max_height.is_some()
    }

    /// Pixels of the picture by pixels of the screen.
    pub(super) fn factor(&self, width: u32, height: u32) -> f64 {
        fit(width, height, self.max_width.unwrap_or(u32::MAX), self.max_height.unwrap_or(u32::MAX)).factor
    }
}

/// A place, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[allow(missing_docs)]
pub struct Point {
    pub x: i32,
    pub y: i32,
}

/// The middle of the screen's pixels that this pixel of the picture stands for.
///
/// # Errors
/// [`Error::Invalid`]: it is negative.
pub(super) fn place(x: i32, y: i32, view: View) -> Result<(i32, i32), Error> {
    if x < 0 || y < 0 {
        return Err(Error::Invalid(format!("coordinates are not negative: {x}, {y}")));
    }
    let View { factor, part } = view;
    let on_screen = |value: i32| if factor >= 1.0 { value } else { ((f64::from(value) + 0.5) / factor) as i32 };
    let (x, y) = (on_screen(x), on_screen(y));
    // Beyond a display is its edge, as beyond the screen is the screen's.
    let within = |value: i32, start: u32, length: u32| {
        i32::try_from(value.unsigned_abs().min(length.saturating_sub(1)).saturating_add(start)).unwrap_or(i32::MAX)
    };
    Ok(part.map_or((x, y), |part| (within(x, part.x, part.width), within(y, part.y, part.height))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coordinates_of_a_smaller_picture_are_those_of_the_screen() {
        let space = Space { max_width: Some(1280), max_height: Some(800), display: None };
        let factor = space.factor(2560, 1440);
        assert!((factor - 0.5).abs() < 1e-9);
        let view = View { factor, part: None };
        assert_eq!(place(0, 0, view).expect("a place"), (1, 1));
        assert_eq!(place(1279, 719, view).expect("a place"), (2559, 1439));
        assert_eq!(place(7, 9, View::default()).expect("a place"), (7, 9));
        let part = Some(Rect { x: 2560, y: 100, width: 2560, height: 1440 });
        assert_eq!(place(1279, 719, View { factor, part }).expect("a place"), (5119, 1539));
        let right = View { factor: 1.0, part };
        assert_eq!(place(3, 4, right).expect("a place"), (2563, 104));
        assert_eq!(place(9_999, i32::MAX, right).expect("a place"), (5119, 1539), "its edge");
    }
}
