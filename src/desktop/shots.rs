//! Pictures of the screen.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use x_desktop::picture::{Format, Tiles, encode, fit, scaled_size};
use x_desktop::{Frame, Pointer, Rect};

use super::displays::part;
use super::link::{Eye, Taken};
use super::session::Session;
use super::{Desktop, Error, Space};

const QUALITY: u32 = 85;

/// What a picture becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum PictureFormat {
    #[default]
    Png,
    Jpeg,
    Webp,
}

impl From<PictureFormat> for Format {
    fn from(format: PictureFormat) -> Self {
        match format {
            PictureFormat::Png => Self::Png,
            PictureFormat::Jpeg => Self::Jpeg,
            PictureFormat::Webp => Self::Webp,
        }
    }
}

/// How the pointer is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CursorStyle {
    /// Not at all.
    #[default]
    None,
    /// A red cross where it points to.
    Crosshair,
    /// As it looks.
    Real,
}

/// A picture that is asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Shot {
    /// What it becomes.
    pub format: Format,
    /// 1 to 100; 85 when absent.
    pub quality: Option<u32>,
    /// 0.1 to 1.
    pub scale: Option<f32>,
    /// The screen is made to fit into this instead; and which display it is of.
    pub space: Space,
    /// The pointer.
    pub cursor: CursorStyle,
    /// Only this part, clipped to the screen or display: x, y, width and height in its pixels.
    pub region: Option<(i32, i32, u32, u32)>,
    /// Only what is different since the picture with this frame id.
    pub since: Option<u64>,
}

/// A picture.
#[derive(Debug, Clone)]
pub struct Picture {
    /// The file; `None` when nothing is different.
    pub bytes: Option<Vec<u8>>,
    /// Its media type.
    pub media_type: &'static str,
    /// The part of the screen that it shows: x, y, width, height.
    pub region: (u32, u32, u32, u32),
    /// Of the picture, in pixels.
    pub width: u32,
    /// Of the picture, in pixels.
    pub height: u32,
    /// The screen.
    pub screen: (u32, u32),
    /// Names the whole screen at this moment, for `since`; only of pictures of the whole screen.
    pub frame_id: Option<u64>,
    /// The same for the same pixels, while the server runs.
    pub hash: u64,
}

impl Shot {
    /// Whether it is of the whole screen.
    fn is_whole(&self) -> bool {
        self.region.is_none() && self.space.display.is_none()
    }

    /// # Errors
    /// [`Error::Invalid`]: what is out of range.
    fn check(&self) -> Result<(), Error> {
        let invalid = |why: String| Err(Error::Invalid(why));
        let quality = self.quality.unwrap_or(QUALITY);
        if !(1..=100).contains(&quality) {
            return invalid(format!("quality is 1 to 100, not {quality}"));
        }
        if let Some(scale) = self.scale.filter(|scale| !(0.1..=1.0).contains(scale)) {
            return invalid(format!("scale is 0.1 to 1, not {scale}"));
        }
        if self.scale.is_some() && self.space.is_scaled() {
            return invalid("scale, or maxWidth and maxHeight: not both".to_owned());
        }
        if [self.space.max_width, self.space.max_height].contains(&Some(0)) {
            return invalid("maxWidth and maxHeight are at least 1".to_owned());
        }
        if let Some((x, y, width, height)) = self.region {
            if x < 0 || y < 0 {
                return invalid(format!("x and y of a region are not negative: {x}, {y}"));
            }
            if width == 0 || height == 0 {
                return invalid("a region has at least one pixel: width and height are not 0".to_owned());
            }
        }
        if self.since.is_some() && !self.is_whole() {
            return invalid("since tells what is different on the whole screen: leave region and display out".to_owned());
        }
        Ok(())
    }
}

impl Desktop {
    /// Takes a picture.
    ///
    /// # Errors
    /// What is out of range; there is no desktop; the X server refuses.
    pub async fn shot(&self, shot: Shot) -> Result<Picture, Error> {
        shot.check()?;
        let session = self.session()?;
        self.shoot(&session, shot).await
    }

    pub(super) async fn shoot(&self, session: &Arc<Session>, shot: Shot) -> Result<Picture, Error> {
        let asked = shot.clone();
        let (frame, pointer) = session.link.see("a picture", Error::Screenshot, move |eye| capture(eye, &asked)).await?;
        let _turn = self.inner.encoding.acquire().await.map_err(|_| Error::Stopping)?;
        let session = Arc::clone(session);
        let made = tokio::task::spawn_blocking(move || make(&session, frame, pointer.as_ref(), &shot));
        made.await.map_err(|error| Error::Screenshot(error.to_string()))?
    }
}

/// On the thread of the connection.
fn capture(eye: &mut Eye, shot: &Shot) -> x_desktop::Result<(Captured, Option<Pointer>)> {
    let screen = eye.screen();
    let area = shot.space.display.as_ref().map_or(Ok(screen), |name| part(&eye.display, name)?.clipped(screen))?;
    let wanted = match shot.region {
        None => area,
        Some((x, y, width, height)) => {
            let (x, y) = (x.unsigned_abs().saturating_add(area.x), y.unsigned_abs().saturating_add(area.y));
            Rect { x, y, width, height }.clipped(area)?
        }
    };
    let Taken { frame, pointer, .. } = eye.picture(wanted, shot.cursor != CursorStyle::None, Duration::ZERO)?;
    Ok((Captured { frame, screen }, pointer))
}

struct Captured {
    frame: Arc<Frame>,
    screen: Rect,
}

/// On a thread that may take its time.
fn make(session: &Session, captured: Captured, pointer: Option<&Pointer>, shot: &Shot) -> Result<Picture, Error> {
    let failed = |error: x_desktop::Error| Error::of_x(error, Error::Screenshot);
    let Captured { mut frame, screen } = captured;
    let tiles = Tiles::of(&frame);
    let hash = tiles.whole();
    let mut picture = Picture {
        bytes: None,
        media_type: shot.format.media_type(),
        region: (frame.rect.x, frame.rect.y, 0, 0),
        width: 0,
        height: 0,
        screen: (screen.width, screen.height),
        frame_id: None,
        hash,
    };
    if shot.is_whole() {
        let mut pictures = session.pictures();
        // An id that is not known any more: all of it.
        let changed = shot.since.and_then(|since| pictures.get(since).map(|before| tiles.changed_since(before)));
        picture.frame_id = Some(pictures.note(tiles));
        drop(pictures);
        match changed {
            Some(None) => return Ok(picture),
            Some(Some(changed)) => frame = Arc::new(frame.crop(changed).map_err(failed)?),
            None => {}
        }
    }
    if let Some(pointer) = pointer {
        match shot.cursor {
            CursorStyle::Crosshair => Arc::make_mut(&mut frame).draw_crosshair(pointer.x, pointer.y),
            CursorStyle::Real => Arc::make_mut(&mut frame).draw_pointer(pointer),
            CursorStyle::None => {}
        }
    }
    let shown = frame.rect;
    picture.region = (shown.x, shown.y, shown.width, shown.height);
    let (width, height) = size(shot, shown, screen);
    if (width, height) != (shown.width, shown.height) {
        frame = Arc::new(frame.scaled(width, height).map_err(failed)?);
    }
    (picture.width, picture.height) = (width, height);
    let quality = u8::try_from(shot.quality.unwrap_or(QUALITY)).unwrap_or(100);
    picture.bytes = Some(encode(&frame, shot.format, quality).map_err(failed)?);
    Ok(picture)
}

/// How large the picture becomes.
fn size(shot: &Shot, shown: Rect, screen: Rect) -> (u32, u32) {
    if shot.space.is_scaled() {
        // A part is scaled as the whole screen would be, so that coordinates keep their meaning; a region or a display of its own fits itself.
        let whole = if shot.is_whole() { screen } else { shown };
        let (width, height) = (shot.space.max_width.unwrap_or(u32::MAX), shot.space.max_height.unwrap_or(u32::MAX));
        return scaled_size(shown.width, shown.height, fit(whole.width, whole.height, width, height).factor);
    }
    match shot.scale {
        Some(scale) if scale < 1.0 => scaled_size(shown.width, shown.height, scale.into()),
        _ => (shown.width, shown.height),
    }
}
