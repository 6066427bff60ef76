//! Waiting until the screen is still, or changes, or a window is there.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use utoipa::ToSchema;
use x_desktop::picture::Tiles;
use x_desktop::{Rect, WindowInfo};

use super::action::WAIT_MAX_MS;
use super::link::Eye;
use super::session::Session;
use super::types::Window;
use super::windows::shown;
use super::{Desktop, Error};

const TIMEOUT_MS: u64 = 10_000;
const QUIET_MS: u64 = 300;

/// A part of the screen, in its pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[allow(missing_docs)]
pub struct Region {
    pub x: u32,
    pub y: u32,
    pub width: u32,
    pub height: u32,
}

/// What is waited for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "for", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum WaitFor {
    /// No pixel changes for a while.
    Still {
        /// For so long, to 60 000; 300 when absent.
        #[serde(default)]
        quiet_ms: Option<u64>,
        /// Only here.
        #[serde(default)]
        region: Option<Region>,
        /// At most, to 60 000; 10 000 when absent.
        #[serde(default)]
        timeout_ms: Option<u64>,
    },
    /// A pixel changes.
    Change {
        /// Only here.
        #[serde(default)]
        region: Option<Region>,
        /// At most, to 60 000; 10 000 when absent.
        #[serde(default)]
        timeout_ms: Option<u64>,
    },
    /// A window is there whose title and class have these words, whatever their case.
    Window {
        /// In its title.
        #[serde(default)]
        title: Option<String>,
        /// In its class.
        #[serde(default)]
        class: Option<String>,
        /// Until there is none, instead.
        #[serde(default)]
        gone: bool,
        /// At most, to 60 000; 10 000 when absent.
        #[serde(default)]
        timeout_ms: Option<u64>,
    },
}

/// How the wait ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Waited {
    /// Whether it came.
    pub met: bool,
    /// How long it took.
    pub waited_ms: u64,
    /// The window that is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
}

impl Desktop {
    /// Waits. Cancel safe.
    ///
    /// # Errors
    /// What is out of range; there is no desktop, or no more.
    pub async fn wait(&self, what: WaitFor) -> Result<Waited, Error> {
        let within = |name: &str, ms: Option<u64>, usual: u64| match ms.unwrap_or(usual) {
            ms if ms > WAIT_MAX_MS => Err(Error::Invalid(format!("{name} is at most {WAIT_MAX_MS}, not {ms}"))),
            ms => Ok(Duration::from_millis(ms)),
        };
        let began = Instant::now();
        let (met, window) = match what {
            WaitFor::Still { quiet_ms, region, timeout_ms } => {
                let quiet = within("quietMs", quiet_ms, QUIET_MS)?;
                let timeout = within("timeoutMs", timeout_ms, TIMEOUT_MS)?;
                (self.session()?.until_still(region, quiet, timeout).await?, None)
            }
            WaitFor::Change { region, timeout_ms } => {
                let timeout = within("timeoutMs", timeout_ms, TIMEOUT_MS)?;
                (self.session()?.until_changed(region, timeout).await?, None)
            }
            WaitFor::Window { title, class, gone, timeout_ms } => {
                let timeout = within("timeoutMs", timeout_ms, TIMEOUT_MS)?;
                let has = |text: &str, words: &Option<String>| {
                    words.as_ref().is_none_or(|words| text.to_lowercase().contains(&words.to_lowercase()))
                };
                let is_it = |window: &WindowInfo| has(&window.title, &title) && has(&window.class, &class);
                let found = self.session()?.until_window(is_it, gone, timeout).await?;
                (found.is_some(), found.flatten().map(|window| shown(&window)))
            }
        };
        let waited_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(Waited { met, waited_ms, window })
    }
}

impl Session {
    /// False when the time is over before. Only pixels count: what is drawn again as it was is no change.
    pub(super) async fn until_still(&self, region: Option<Region>, quiet: Duration, timeout: Duration) -> Result<bool, Error> {
        let until = Instant::now() + timeout;
        let mut watcher = self.link.watch();
        let mut seen = watcher.now();
        let mut tiles = self.tiles(region).await?;
        let mut since = Instant::now();
        loop {
            let wake = (since + quiet).min(until);
            if Instant::now() >= wake {
                return Ok(Instant::now() >= since + quiet);
            }
            match tokio::time::timeout_at(wake, watcher.changed()).await {
                Err(_) => {}
                Ok(false) => return Err(Error::gone()),
                Ok(true) => {
                    let now = watcher.now();
                    if now.changes != seen.changes {
                        let other = self.tiles(region).await?;
                        if other.whole() != tiles.whole() {
                            (tiles, since) = (other, Instant::now());
                        }
                    }
                    seen = now;
                }
            }
        }
    }

    /// False when the time is over before.
    async fn until_changed(&self, region: Option<Region>, timeout: Duration) -> Result<bool, Error> {
        let until = Instant::now() + timeout;
        let mut watcher = self.link.watch();
        let mut seen = watcher.now();
        let first = self.tiles(region).await?.whole();
        loop {
            match tokio::time::timeout_at(until, watcher.changed()).await {
                Err(_) => return Ok(false),
                Ok(false) => return Err(Error::gone()),
                Ok(true) => {
                    let now = watcher.now();
                    if now.changes != seen.changes && self.tiles(region).await?.whole() != first {
                        return Ok(true);
                    }
                    seen = now;
                }
            }
        }
    }

    /// The first such window; with `is_gone`, nothing once there is none. `None` when the time is over before.
    pub(super) async fn until_window(
        &self,
        is_it: impl Fn(&WindowInfo) -> bool,
        is_gone: bool,
        timeout: Duration,
    ) -> Result<Option<Option<WindowInfo>>, Error> {
        let until = Instant::now() + timeout;
        let mut watcher = self.link.watch();
        loop {
            watcher.now();
            let windows = self.link.call("the windows", Error::failed, |display| display.windows()).await?.windows;
            let found = windows.into_iter().find(|window| window.is_listed(true) && is_it(window));
            if found.is_none() == is_gone {
                return Ok(Some(found));
            }
            // Titles and such change without a word to us: looked at now and then, too.
            let wake = until.min(Instant::now() + LOOK_EVERY);
            if let Ok(false) = tokio::time::timeout_at(wake, watcher.changed()).await {
                return Err(Error::gone());
            }
            if Instant::now() >= until {
                return Ok(None);
            }
        }
    }

    async fn tiles(&self, region: Option<Region>) -> Result<Tiles, Error> {
        let capture = move |eye: &mut Eye| {
            let screen = eye.screen();
            let part = region.map(|Region { x, y, width, height }| Rect { x, y, width, height }.clipped(screen));
            eye.picture(part.transpose()?.unwrap_or(screen), false, Duration::ZERO)
        };
        let taken = self.link.see("a picture", Error::Screenshot, capture).await?;
        let tiles = tokio::task::spawn_blocking(move || Tiles::of(&taken.frame)).await;
        tiles.map_err(|error| Error::Screenshot(error.to_string()))
    }
}

const LOOK_EVERY: Duration = Duration::from_millis(100);
