//! Looks at the screen for the stream and for recordings: whether it may look different from the last picture, and where the pointer
//! is, whose motion damages nothing.

use std::time::Duration;

use tokio::time::Instant;
use x_desktop::{Pointer, Rect};

use super::Error;
use super::link::{Link, Seen, Taken, Watcher};

/// How often a pointer is looked for that has not moved for [`POINTER_RESTS`].
const RESTING_POINTER_EVERY: Duration = Duration::from_millis(100);
const POINTER_RESTS: Duration = Duration::from_secs(2);

/// Hears of changes as long as it is held. Whoever makes it takes a picture next: what changes from now on is heard of.
pub(super) struct Lookout {
    link: Link,
    watcher: Watcher,
    seen: Seen,
    is_dirty: bool,
    pointing: Option<Pointing>,
}

/// For who wants to know where the pointer is.
struct Pointing {
    known: Option<Pointer>,
    moved_at: Instant,
    next_look: Instant,
}

impl Lookout {
    pub(super) fn new(link: Link, with_pointer: bool) -> Self {
        let mut watcher = link.watch();
        let (seen, now) = (watcher.now(), Instant::now());
        let pointing = with_pointer.then_some(Pointing { known: None, moved_at: now, next_look: now });
        Self { link, watcher, seen, is_dirty: true, pointing }
    }

    /// Something may look different from the last picture.
    pub(super) fn is_dirty(&self) -> bool {
        self.is_dirty
    }

    /// It does, or has to be taken for it.
    pub(super) fn soil(&mut self) {
        self.is_dirty = true;
    }

    /// It doesn't, whatever was drawn.
    pub(super) fn settle(&mut self) {
        self.is_dirty = false;
    }

    /// When to look for the pointer; `None` when nobody wants to know.
    pub(super) fn next_look(&self) -> Option<Instant> {
        self.pointing.as_ref().map(|pointing| pointing.next_look)
    }

    /// Waits until something has happened, and looks at it. False when the connection is gone. Cancel safe.
    pub(super) async fn changed(&mut self) -> bool {
        let is_there = self.watcher.changed().await;
        self.look();
        is_there
    }

    /// What has happened so far.
    pub(super) fn look(&mut self) {
        let now = self.watcher.now();
        self.is_dirty |= (now.changes, now.resizes) != (self.seen.changes, self.seen.resizes);
        if let Some(pointing) = self.pointing.as_mut().filter(|_| now.cursors != self.seen.cursors) {
            pointing.next_look = Instant::now(); // it looks different
        }
        self.seen = now;
    }

    /// Looks for the pointer; gives it when it is elsewhere or looks different. The next look is after `every`, or later when it rests.
    ///
    /// # Errors
    /// As [`Link::call`].
    pub(super) async fn pointer(&mut self, every: Duration) -> Result<Option<Pointer>, Error> {
        let found = self.link.call("the pointer", Error::Screenshot, x_desktop::Display::pointer).await?;
        Ok(self.found(&found, every).then_some(found))
    }

    /// True when it isn't where it was, or as it was.
    fn found(&mut self, pointer: &Pointer, every: Duration) -> bool {
        let Some(pointing) = &mut self.pointing else { return false };
        let now = Instant::now();
        let is_other = pointing.known.as_ref() != Some(pointer);
        if is_other {
            (pointing.known, pointing.moved_at) = (Some(pointer.clone()), now);
        }
        let rests = now - pointing.moved_at > POINTER_RESTS;
        pointing.next_look = now + if rests { RESTING_POINTER_EVERY.max(every) } else { every };
        is_other
    }

    /// Takes a picture of the screen, or of a part of it; one of somebody else's that isn't older than `max_age` is as good. What is
    /// drawn after it is a change.
    ///
    /// # Errors
    /// As [`Link::call`]; a part that isn't on the screen. Where the server was busy, it is dirty still.
    pub(super) async fn picture(&mut self, part: Option<Rect>, max_age: Duration, every: Duration) -> Result<Taken, Error> {
        let with_pointer = self.pointing.is_some();
        let take = move |eye: &mut super::link::Eye| {
            let screen = eye.screen();
            let part = part.map(|part| part.clipped(screen)).transpose()?.unwrap_or(screen);
            eye.picture(part, with_pointer, max_age)
        };
        let resizes = self.watcher.now().resizes;
        let taken = self.link.see("a picture", Error::Screenshot, take).await;
        self.is_dirty = matches!(taken, Err(Error::TimedOut { .. } | Error::Changing(_)));
        let taken = taken?;
        (self.seen.changes, self.seen.resizes) = (taken.changes, resizes);
        if let Some(pointer) = &taken.pointer {
            self.found(pointer, every);
        }
        self.look(); // what was told meanwhile
        Ok(taken)
    }
}
