//! What a viewer is told.

use serde_json::json;

use super::{Presence, Talk, viewer_id};
use crate::desktop::SelectionName;
use crate::desktop::stream::messages::{audio, host};
use crate::desktop::stream::picture::{Kind, message, pointer_message};
use crate::desktop::stream::pointer::Told;

/// A clipboard that is longer isn't sent, in bytes.
const CLIPBOARD_MAX_BYTES: usize = 1 << 20;

impl Talk {
    pub(super) async fn send_rectangles(&mut self) -> Result<(), ()> {
        let Some(mut rectangles) = self.rectangles.take() else { return Ok(()) };
        let Some(picture) = self.pictures.borrow_and_update().clone() else {
            self.rectangles = Some(rectangles);
            return Ok(());
        };
        let (number, at) = (picture.number, picture.at);
        let made = tokio::task::spawn_blocking(move || {
            let made = rectangles.of(&picture);
            (rectangles, made)
        });
        let Ok((rectangles, made)) = made.await else { return Err(()) };
        self.rectangles = Some(rectangles);
        let made = match made {
            Ok(made) => made,
            Err(error) => return self.say("system/error", json!({"code": "picture", "message": error})).await,
        };
        let count = made.len();
        for (index, part) in made.into_iter().enumerate() {
            let rect = (part.rect.x, part.rect.y, part.rect.width, part.rect.height);
            self.send(message(Kind::Jpeg { is_last: index + 1 == count }, number, at, rect, &part.jpeg)).await?;
        }
        self.is_shown = count == 0;
        Ok(())
    }

    pub(super) async fn tell_host(&self, now: Option<u64>) -> Result<(), ()> {
        let by = now.map_or_else(|| self.presence.viewer.id(), viewer_id);
        self.say("control/host", host(&by, now.map(viewer_id).as_deref())).await
    }

    pub(super) async fn tell_size(&self, (width, height): (u32, u32)) -> Result<(), ()> {
        let (id, rate) = (self.presence.viewer.id(), self.presence.stream.fps);
        self.say("screen/updated", json!({"id": id, "width": width, "height": height, "rate": rate})).await?;
        // The SDK knows only this for another size; it asks for another connection then.
        if self.is_ours { Ok(()) } else { self.init().await }
    }

    /// What is copied on the desktop is told to who is in control.
    pub(super) async fn tell_clipboard(&self) -> Result<(), ()> {
        let Presence { stream, viewer } = &self.presence;
        if *stream.viewers.host().borrow() != Some(viewer.number) {
            return Ok(());
        }
        match self.desktop.clipboard(SelectionName::Clipboard).await {
            Ok(copied) if copied.text.len() > CLIPBOARD_MAX_BYTES => {
                let message = format!("what was copied is longer than {CLIPBOARD_MAX_BYTES} bytes: read it over the API");
                self.say("system/error", json!({"code": "clipboard", "message": message})).await
            }
            Ok(copied) if !copied.text.is_empty() => self.say("clipboard/updated", json!({"text": copied.text})).await,
            _ => Ok(()), // no text
        }
    }

    /// Where the pointer is and what it looks like, to who shows it.
    pub(super) async fn tell_pointer(&mut self) -> Result<(), ()> {
        let Presence { stream, viewer } = &self.presence;
        let Some(pointer) = stream.pointers.borrow().clone() else { return Ok(()) };
        // neko's own client draws where its own mouse is
        let with_position = self.is_ours || *stream.viewers.host().borrow() != Some(viewer.number);
        let messages = self.pointer.as_mut().map(|told| told.of(&pointer, with_position)).unwrap_or_default();
        for neko in messages {
            match (&self.peer, &stream.gateway) {
                (Some(peer), Some(gateway)) if self.has_channel => gateway.message(peer.id, neko).await,
                _ if self.is_ours => self.send(pointer_message(&neko)).await?,
                _ => self.pointer = Some(Told::default()), // once its channel is open
            }
        }
        Ok(())
    }

    /// Whether the pointer is in the picture.
    pub(super) async fn tell_drawn(&self) -> Result<(), ()> {
        let drawn = *self.presence.stream.draws_pointer.borrow();
        if self.is_ours { self.say("stream/pointer", json!({"drawn": drawn})).await } else { Ok(()) }
    }

    /// Whether there is sound.
    pub(super) async fn tell_hearing(&self) -> Result<(), ()> {
        let hearing = self.presence.stream.hearing.borrow().as_result();
        if self.is_ours { self.say("stream/audio", audio(&hearing)).await } else { Ok(()) }
    }
}
