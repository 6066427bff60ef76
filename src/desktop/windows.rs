//! Windows: what there is, and what becomes of one.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use utoipa::ToSchema;
use x_desktop::windows::{Placement, Settled, WindowKind, WindowState, WindowWatch, Workspace};
use x_desktop::{Display, WindowInfo};

use super::session::Session;
use super::types::Window;
use super::{Desktop, Error};

/// How long the window manager and the program have for what is asked of a window; then the answer tells how it is.
const SETTLE_PATIENCE: Duration = Duration::from_secs(1);
const SETTLE_POLL: Duration = Duration::from_millis(10);

/// What a window is asked to become.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum WindowChange {
    /// It has the keyboard, and is seen.
    Focus,
    /// Its frame is there.
    Move {
        /// Pixels from the left; may be negative.
        x: i32,
        /// Pixels from above; may be negative.
        y: i32,
    },
    /// Its content is so large; 0 leaves that side as it is.
    Resize {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
    },
    /// It is above the others.
    Raise,
    /// It is below the others.
    Lower,
    /// It is put away.
    Minimize,
    /// It is back, and neither maximised nor full-screen.
    Restore,
    /// It is as large as the screen has room for.
    Maximize,
    /// It covers the screen.
    Fullscreen,
    /// It is asked to close.
    Close,
    /// Its program is cut off from the display.
    Kill,
    /// It is on another workspace.
    Workspace {
        /// From 0.
        index: u32,
    },
}

impl Desktop {
    /// Windows, lowest first; minimised ones and those of other workspaces `with_hidden`.
    ///
    /// # Errors
    /// There is no desktop.
    pub async fn windows(&self, with_hidden: bool) -> Result<Vec<Window>, Error> {
        let session = self.session()?;
        let windows = session.link.call("the windows", Error::failed, |display| display.windows()).await?;
        Ok(windows.listed(with_hidden).windows.iter().map(shown).collect())
    }

    /// The window that has the keyboard.
    ///
    /// # Errors
    /// [`Error::NoFocusedWindow`]; there is no desktop.
    pub async fn focused_window(&self) -> Result<Window, Error> {
        let session = self.session()?;
        let window = session.link.call("the active window", Error::failed, |display| display.active_window()).await?;
        window.map(|window| shown(&window)).ok_or(Error::NoFocusedWindow)
    }

    /// Asks something of a window, and waits a moment for it. Gives how the window is then; `None` when it is no more.
    ///
    /// # Errors
    /// [`Error::WindowNotFound`]; what is out of range; there is no desktop.
    pub async fn change_window(&self, id: &str, change: WindowChange) -> Result<Option<Window>, Error> {
        let session = self.session()?;
        let number = number_of(id)?;
        let asked = session.link.call("a window's change", Error::failed, move |display| ask(display, number, change)).await;
        let watch = match asked {
            Err(Error::WindowNotFound(_)) => return Err(Error::WindowNotFound(id.to_owned())),
            asked => asked?,
        };
        let window = session.settle(watch).await?;
        Ok(window.map(|window| shown(&window)))
    }

    /// Shows another workspace.
    ///
    /// # Errors
    /// There is no such one, or no desktop.
    pub async fn set_workspace(&self, index: u32) -> Result<(), Error> {
        let session = self.session()?;
        session.link.call("the workspace", Error::Invalid, move |display| display.set_workspace(index)).await
    }
}

/// Decimal, or hexadecimal after `0x`.
fn number_of(id: &str) -> Result<u32, Error> {
    let number = id.strip_prefix("0x").map_or_else(|| id.parse(), |hex| u32::from_str_radix(hex, 16));
    number.map_err(|_| Error::WindowNotFound(id.to_owned()))
}

fn ask(display: &mut Display, id: u32, change: WindowChange) -> x_desktop::Result<WindowWatch> {
    display.window(id)?;
    let maximised = [WindowState::MaximisedHorz, WindowState::MaximisedVert];
    match change {
        WindowChange::Focus => display.activate(id),
        WindowChange::Move { x, y } => display.place(id, Placement { x: Some(x), y: Some(y), ..Placement::default() }),
        WindowChange::Resize { width, height } => {
            let side = |pixels: u32| (pixels > 0).then_some(pixels);
            display.place(id, Placement { width: side(width), height: side(height), ..Placement::default() })
        }
        WindowChange::Raise => display.raise(id),
        WindowChange::Lower => display.lower(id),
        WindowChange::Minimize => display.minimise(id),
        WindowChange::Restore => {
            let window = display.window(id)?;
            let mut watch = display.restore(id)?;
            for states in [&maximised[..], &[WindowState::Fullscreen]] {
                if window.states.iter().any(|state| states.contains(state)) {
                    watch = display.set_states(id, states, false)?;
                }
            }
            Ok(watch)
        }
        WindowChange::Maximize => display.set_states(id, &maximised, true),
        WindowChange::Fullscreen => display.set_states(id, &[WindowState::Fullscreen], true),
        WindowChange::Close => display.close(id, false),
        WindowChange::Kill => display.close(id, true),
        WindowChange::Workspace { index } => display.set_window_workspace(id, Workspace::Index(index)),
    }
}

impl Session {
    /// Waits for what a window was asked.
    pub(super) async fn settle(&self, watch: WindowWatch) -> Result<Option<WindowInfo>, Error> {
        let until = Instant::now() + SETTLE_PATIENCE;
        let mut watcher = self.link.watch();
        loop {
            watcher.now();
            let asked = watch.clone();
            match self.link.call("a window", Error::failed, move |display| display.settled(&asked)).await? {
                Settled::Yes(window) => return Ok(window),
                Settled::NotYet(window) if Instant::now() >= until => return Ok(Some(window)),
                Settled::NotYet(_) => {}
            }
            // Not all that windows do is told to us.
            let _ = tokio::time::timeout(SETTLE_POLL, watcher.changed()).await;
        }
    }
}

/// As clients see it.
pub(super) fn shown(window: &WindowInfo) -> Window {
    let workspace = match window.workspace {
        Some(Workspace::Index(index)) => Some(index),
        _ => None,
    };
    Window {
        id: window.id.to_string(),
        title: window.title.clone(),
        x: window.x,
        y: window.y,
        width: window.width,
        height: window.height,
        is_active: window.is_active,
        class: window.class.clone(),
        instance: window.instance.clone(),
        pid: window.pid,
        kind: kind_word(window.kind).to_owned(),
        states: window.states.iter().map(|state| state_word(*state).to_owned()).collect(),
        workspace,
        minimized: window.is_minimised,
        stacking: window.stacking.and_then(|place| u32::try_from(place).ok()),
    }
}

/// As EWMH names them.
fn kind_word(kind: WindowKind) -> &'static str {
    match kind {
        WindowKind::Normal => "normal",
        WindowKind::Dialog => "dialog",
        WindowKind::Utility => "utility",
        WindowKind::Toolbar => "toolbar",
        WindowKind::Menu => "menu",
        WindowKind::Splash => "splash",
        WindowKind::Dock => "dock",
        WindowKind::Desktop => "desktop",
        WindowKind::Notification => "notification",
        WindowKind::Other => "other",
    }
}

/// As EWMH names them.
fn state_word(state: WindowState) -> &'static str {
    match state {
        WindowState::Modal => "modal",
        WindowState::Sticky => "sticky",
        WindowState::MaximisedHorz => "maximized_horz",
        WindowState::MaximisedVert => "maximized_vert",
        WindowState::Shaded => "shaded",
        WindowState::SkipTaskbar => "skip_taskbar",
        WindowState::SkipPager => "skip_pager",
        WindowState::Hidden => "hidden",
        WindowState::Fullscreen => "fullscreen",
        WindowState::Above => "above",
        WindowState::Below => "below",
        WindowState::DemandsAttention => "demands_attention",
    }
}
