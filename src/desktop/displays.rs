//! Several displays: parts of the one screen that the window manager takes for monitors.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use x_desktop::{Display, Monitor, Rect};

use super::backdrop::blocking;
use super::home::Home;
use super::session::{SIDE_MAX, Session};
use super::{Desktop, Error};
use crate::config::as_usize;

/// While the desktop runs, over a death of its X server and of ours.
const FILE: &str = "displays.json";

const NAME_MAX_BYTES: usize = 64;

/// The displays that are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
pub struct DisplaysSpec {
    /// The first is the primary one; at most `desktop_displays_max`.
    pub displays: Vec<DisplaySpec>,
}

/// A display that is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DisplaySpec {
    /// 1 to 64 letters, digits, `.`, `_` and `-`.
    pub name: String,
    /// Pixels, 1 to 16 384.
    pub width: u32,
    /// Pixels, 1 to 16 384.
    pub height: u32,
    /// Pixels from the left of the screen; to the right of the display before it when absent.
    #[serde(default)]
    pub x: Option<u32>,
    /// Pixels from above; 0 when absent.
    #[serde(default)]
    pub y: Option<u32>,
}

/// The displays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct DisplayList {
    /// The primary one first.
    pub displays: Vec<ListedDisplay>,
}

/// A display.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ListedDisplay {
    /// For `display` in other calls.
    pub name: String,
    /// Pixels from the left of the screen.
    pub x: u32,
    /// Pixels from above.
    pub y: u32,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Whether programs begin there.
    pub primary: bool,
}

impl Desktop {
    /// The displays, as programs see them.
    ///
    /// # Errors
    /// There is no desktop.
    pub async fn displays(&self) -> Result<DisplayList, Error> {
        self.session()?.displays().await
    }

    /// Divides the screen, and gives it the size that holds all of them.
    ///
    /// # Errors
    /// What is out of range, or there twice, or one over another; there is no desktop.
    pub async fn set_displays(&self, spec: DisplaysSpec) -> Result<DisplayList, Error> {
        let parts = laid_out(spec.displays, as_usize(self.parts().bounds.desktop_displays_max))?;
        let (session, home) = (self.session()?, self.home()?);
        let _alone = session.looks.lock().await;
        let (dpi, wanted) = (f64::from(session.dpi), parts.clone());
        let divide = move |display: &mut Display| display.set_monitors(&wanted, dpi);
        session.link.call("the displays", Error::Invalid, divide).await?;
        blocking(move || {
            home.keep(FILE, Some(&kept(&parts)));
            Ok(())
        })
        .await?;
        self.dress_again(&session).await?;
        session.displays().await
    }
}

impl Session {
    async fn displays(&self) -> Result<DisplayList, Error> {
        let monitors = self.link.call("the displays", Error::Screenshot, |display| display.monitors()).await?;
        let shown = |Monitor { name, rect, is_primary }| {
            let Rect { x, y, width, height } = rect;
            ListedDisplay { name, x, y, width, height, primary: is_primary }
        };
        Ok(DisplayList { displays: monitors.into_iter().map(shown).collect() })
    }
}

/// The part of the screen that is this display. On the thread of the connection.
///
/// # Errors
/// [`x_desktop::Error::Invalid`] with the names that there are.
pub(super) fn part(display: &Display, name: &str) -> x_desktop::Result<Rect> {
    let monitors = display.monitors()?;
    let found = monitors.iter().find(|monitor| monitor.name == name).map(|monitor| monitor.rect);
    found.ok_or_else(|| {
        let names: Vec<_> = monitors.iter().map(|monitor| monitor.name.as_str()).collect();
        x_desktop::Error::Invalid(format!("there is no display {name:?}: there are {}", names.join(", ")))
    })
}

/// The displays of an X server that died, for the next one. Blocks.
pub(super) fn remembered(home: &Home) -> Vec<(String, Rect)> {
    let kept: Vec<DisplaySpec> = home.kept(FILE).unwrap_or_default();
    laid_out(kept, usize::MAX).unwrap_or_default()
}

/// Another desktop has one display, and one whose screen is resized. Blocks.
pub(super) fn forget(home: &Home) {
    home.keep::<()>(FILE, None);
}

fn kept(parts: &[(String, Rect)]) -> Vec<DisplaySpec> {
    let spec = |(name, rect): &(String, Rect)| {
        let Rect { x, y, width, height } = *rect;
        DisplaySpec { name: name.clone(), width, height, x: Some(x), y: Some(y) }
    };
    parts.iter().map(spec).collect()
}

/// Where each is.
///
/// # Errors
/// [`Error::Invalid`].
fn laid_out(displays: Vec<DisplaySpec>, max: usize) -> Result<Vec<(String, Rect)>, Error> {
    let invalid = |why: String| Err(Error::Invalid(why));
    if displays.is_empty() || displays.len() > max {
        return invalid(format!("{} displays: 1 to {max} can be", displays.len()));
    }
    let mut parts: Vec<(String, Rect)> = Vec::with_capacity(displays.len());
    let mut next_x = 0;
    for DisplaySpec { name, width, height, x, y } in displays {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if name.is_empty() || name.len() > NAME_MAX_BYTES || !name.bytes().all(is_name) {
            return invalid(format!("a display's name is 1 to {NAME_MAX_BYTES} letters, digits, . _ and -, not {name:?}"));
        }
        let rect = Rect { x: x.unwrap_or(next_x), y: y.unwrap_or(0), width, height };
        let sides = [rect.x.saturating_add(width), rect.y.saturating_add(height)];
        if width == 0 || height == 0 || sides.iter().any(|side| *side > SIDE_MAX) {
            return invalid(format!("{name} is {rect}: at least one pixel, and up to {SIDE_MAX} on the screen, are possible"));
        }
        if let Some((other, _)) = parts.iter().find(|(other, of_other)| *other == name || of_other.intersection(rect).is_some()) {
            return invalid(format!("{name} has the name of {other}, or lies over it"));
        }
        next_x = rect.x + width;
        parts.push((name, rect));
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str, width: u32, height: u32, at: Option<(u32, u32)>) -> DisplaySpec {
        DisplaySpec { name: name.into(), width, height, x: at.map(|(x, _)| x), y: at.map(|(_, y)| y) }
    }

    #[test]
    fn they_stand_side_by_side_unless_it_is_said_otherwise() {
        let all = vec![
            spec("a", 100, 50, None),
            spec("b", 200, 60, None),
            spec("c", 30, 40, Some((0, 60))),
            spec("d", 1, 1, Some((30, 70))),
        ];
        let parts = laid_out(all, 4).expect("fine");
        let told: Vec<String> = parts.iter().map(|(name, rect)| format!("{name} {rect}")).collect();
        assert_eq!(told, ["a 100x50+0+0", "b 200x60+100+0", "c 30x40+0+60", "d 1x1+30+70"]);
    }

    #[test]
    fn what_cannot_be_is_said() {
        let wrong = [
            vec![],
            vec![spec("a", 1, 1, None), spec("b", 1, 1, None), spec("c", 1, 1, None)],
            vec![spec("a", 0, 1, None)],
            vec![spec("a", 1, 16_385, None)],
            vec![spec("a", 1, 1, Some((u32::MAX, 0)))],
            vec![spec("", 1, 1, None)],
            vec![spec("a b", 1, 1, None)],
            vec![spec("a", 1, 1, None), spec("a", 1, 1, None)],
            vec![spec("a", 100, 100, None), spec("b", 100, 100, Some((99, 99)))],
        ];
        for displays in wrong {
            assert!(matches!(laid_out(displays.clone(), 2), Err(Error::Invalid(_))), "{displays:?}");
        }
    }

    #[test]
    fn they_are_remembered_until_they_are_forgotten() {
        let dir = tempfile::tempdir().expect("a directory");
        let home = Home::at(dir.path().to_path_buf());
        assert_eq!(remembered(&home), []);
        let parts = laid_out(vec![spec("a", 100, 50, None), spec("b", 200, 60, None)], 2).expect("fine");
        home.keep(FILE, Some(&kept(&parts)));
        assert_eq!(remembered(&home), parts);
        forget(&home);
        assert_eq!(remembered(&home), []);
    }
}
