//! A list of actions in one call, with what came of it.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use x_desktop::Rect;
use x_desktop::picture::Tiles;

use super::input::pointer;
use super::link::Eye;
use super::session::Session;
use super::space::View;
use super::types::{DesktopFailure, PointerPosition, Window};
use super::waits::Region;
use super::windows::shown;
use super::{Action, CursorStyle, Desktop, Error, PictureFormat, Shot, Space};
use crate::config::as_usize;

/// Actions to do, one after the other.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActionsSpec {
    /// What to do; at most `desktop_actions_max`.
    pub actions: Vec<Action>,
    /// What the coordinates count in.
    #[serde(flatten)]
    pub space: Space,
    /// Tells what is different afterwards: costs two pictures of the screen.
    #[serde(default)]
    pub evidence: bool,
    /// A picture of the screen afterwards, scaled as the coordinates are.
    #[serde(default)]
    pub screenshot: Option<AfterShot>,
}

/// A picture that is part of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AfterShot {
    /// What it becomes.
    pub format: PictureFormat,
    /// 1 to 100; 85 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quality: Option<u32>,
    /// Shows the pointer as it looks.
    pub cursor: bool,
    /// Only what is different since the picture with this frame id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
}

/// What came of a list of actions.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActionsResult {
    /// Whether all were done.
    pub ok: bool,
    /// How many were done.
    pub completed: usize,
    /// Why the next one wasn't.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<DesktopFailure>,
    /// Where the pointer is, in pixels of the screen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pointer: Option<PointerPosition>,
    /// What is different.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
    /// The screen afterwards.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub screenshot: Option<ShotData>,
}

/// What is different on the screen.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Evidence {
    /// Whether any pixel is.
    pub changed: bool,
    /// Around all that is, in pixels of the screen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<Region>,
    /// Its parts, at most 16.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub regions: Vec<Region>,
    /// Of the screen before.
    pub hash_before: String,
    /// Of the screen after.
    pub hash_after: String,
    /// The window that has the keyboard now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub focused_window: Option<Window>,
    /// Whether that is another one than before.
    pub focus_changed: bool,
}

/// A picture within JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ShotData {
    /// Such as `image/png`.
    pub media_type: String,
    /// Base64; absent when nothing is different.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// Of the picture, in pixels.
    pub width: u32,
    /// Of the picture, in pixels.
    pub height: u32,
    /// The part of the screen that it shows.
    pub region: Region,
    /// For `since`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frame_id: Option<u64>,
}

impl Desktop {
    /// Does all of it, with nobody else in between. The first that fails ends the list; what was done stays done. Dropping the
    /// future ends it where it is.
    ///
    /// # Errors
    /// [`Error::Invalid`]: what is wrong with one of them, before anything is done; there is no desktop.
    pub async fn perform(&self, spec: ActionsSpec) -> Result<ActionsResult, Error> {
        let max = as_usize(self.parts().bounds.desktop_actions_max);
        if spec.actions.len() > max {
            return Err(Error::Invalid(format!("{} actions: at most {max} in one call", spec.actions.len())));
        }
        for (index, action) in spec.actions.iter().enumerate() {
            action.steps(View::default()).map_err(|error| Error::Invalid(format!("action {index}: {error}")))?;
        }
        let session = self.session()?;
        let _alone = session.alone().await;
        let before = if spec.evidence { Some(session.look().await?) } else { None };
        let (mut completed, mut error) = (0, None);
        for action in &spec.actions {
            if let Err(failed) = self.carry_out(&session, action, &spec.space).await {
                error = Some(DesktopFailure { code: failed.code().to_owned(), message: failed.to_string() });
                break;
            }
            completed += 1;
        }
        let evidence = match before {
            Some(before) => Some(evidence(before, session.look().await?)),
            None => None,
        };
        let screenshot = match spec.screenshot {
            Some(after) => Some(self.after(&session, after, spec.space).await?),
            None => None,
        };
        let pointer = pointer(&session).await.ok();
        Ok(ActionsResult { ok: error.is_none(), completed, error, pointer, evidence, screenshot })
    }

    async fn after(&self, session: &std::sync::Arc<Session>, after: AfterShot, space: Space) -> Result<ShotData, Error> {
        let cursor = if after.cursor { CursorStyle::Real } else { CursorStyle::None };
        let shot = Shot {
            format: after.format.into(),
            quality: after.quality,
            scale: None,
            space,
            cursor,
            region: None,
            since: after.since,
        };
        let picture = self.shoot(session, shot).await?;
        let (x, y, width, height) = picture.region;
        Ok(ShotData {
            media_type: picture.media_type.to_owned(),
            data: picture.bytes.map(|bytes| STANDARD.encode(bytes)),
            width: picture.width,
            height: picture.height,
            region: Region { x, y, width, height },
            frame_id: picture.frame_id,
        })
    }
}

/// The screen at a moment.
struct Look {
    tiles: Tiles,
    focused: Option<x_desktop::WindowInfo>,
}

impl Session {
    async fn look(&self) -> Result<Look, Error> {
        let look = |eye: &mut Eye| Ok((eye.picture(eye.screen(), false, Duration::ZERO)?, eye.display.active_window()?));
        let (taken, focused) = self.link.see("a picture", Error::Screenshot, look).await?;
        let tiles = tokio::task::spawn_blocking(move || Tiles::of(&taken.frame)).await;
        Ok(Look { tiles: tiles.map_err(|error| Error::Screenshot(error.to_string()))?, focused })
    }
}

fn evidence(before: Look, after: Look) -> Evidence {
    let region = |Rect { x, y, width, height }: Rect| Region { x, y, width, height };
    let id = |look: &Look| look.focused.as_ref().map(|window| window.id);
    Evidence {
        changed: after.tiles.whole() != before.tiles.whole(),
        region: after.tiles.changed_since(&before.tiles).map(region),
        regions: after.tiles.changed_rects(&before.tiles).into_iter().map(region).collect(),
        hash_before: format!("{:016x}", before.tiles.whole()),
        hash_after: format!("{:016x}", after.tiles.whole()),
        focus_changed: id(&before) != id(&after),
        focused_window: after.focused.as_ref().map(shown),
    }
}
