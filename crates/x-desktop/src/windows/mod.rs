//! Windows: which there are, and what is asked of them.
//!
//! A window manager speaks EWMH 1.5 (`_NET_…`) with us; without one, the mapped children of the root are the windows, and
//! what they are asked is done by the X server itself. A request is only a request: the window manager does it later, or
//! otherwise (size hints). [`Display::settled`] looks whether it has.

mod act;
mod desk;
mod filter;
mod openbox;
mod property;
mod read;
mod settle;

use x11rb::protocol::xproto;

pub use act::{Placement, Workspaces};
pub use settle::{ManagerQuestion, Settled, Wanted, WindowWatch};

pub(crate) use settle::Probes;

use crate::{Display, Error, Result};

/// Windows that a list has at most; it takes the lower ones in the stack and says how many it left out.
pub const MAX_WINDOWS: usize = 1024;

/// An id of a window in X.
pub type WindowId = xproto::Window;

/// What a window is for (EWMH 1.5, `_NET_WM_WINDOW_TYPE`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum WindowKind {
    Normal,
    Dialog,
    Utility,
    Toolbar,
    Menu,
    Splash,
    Dock,
    Desktop,
    Notification,
    /// A type that isn't listed here, or a menu or tip that a window opened.
    Other,
}

/// How a window is shown (EWMH 1.5, `_NET_WM_STATE`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum WindowState {
    Modal,
    Sticky,
    MaximisedHorz,
    MaximisedVert,
    Shaded,
    SkipTaskbar,
    SkipPager,
    Hidden,
    Fullscreen,
    Above,
    Below,
    DemandsAttention,
}

/// Where a window is among the workspaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workspace {
    /// On one of them, counted from 0.
    Index(u32),
    /// On every one.
    All,
}

/// What the window manager drew around a window, in pixels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct FrameExtents {
    pub left: u32,
    pub right: u32,
    pub top: u32,
    pub bottom: u32,
}

/// A window as it was when it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowInfo {
    /// Its id in X.
    pub id: WindowId,
    /// `_NET_WM_NAME`, else `WM_NAME`; empty when it has none. At most 4 KiB; `…` at its end when it was longer.
    pub title: String,
    /// Second part of `WM_CLASS`: the program.
    pub class: String,
    /// First part of `WM_CLASS`: this instance of it.
    pub instance: String,
    /// `_NET_WM_PID`, else what the X server knows of the connection.
    pub pid: Option<u32>,
    /// What it is for.
    pub kind: WindowKind,
    /// How it is shown.
    pub states: Vec<WindowState>,
    /// Where it is; `None` without a window manager that has workspaces.
    pub workspace: Option<Workspace>,
    /// Of its own top left pixel (not the frame's), from the root's, in pixels.
    pub x: i32,
    /// See `x`.
    pub y: i32,
    /// Of the content, without the frame, in pixels.
    pub width: u32,
    /// See `width`.
    pub height: u32,
    /// Around the content.
    pub frame: FrameExtents,
    /// The window that it is a dialog of.
    pub transient_for: Option<WindowId>,
    /// Has the keyboard.
    pub is_active: bool,
    /// Was put away, to come back.
    pub is_minimised: bool,
    /// Is mapped, and so are those that it is in: not minimised, not on another workspace.
    pub is_visible: bool,
    /// Place in the stack of the windows, 0 at the bottom; `None` when it is not one of the list.
    pub stacking: Option<usize>,
}

/// Windows, lowest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WindowList {
    /// Lowest first.
    pub windows: Vec<WindowInfo>,
    /// How many more there are than [`MAX_WINDOWS`].
    pub left_out: usize,
}

impl Display {
    /// All windows, lowest first: minimised ones and those of other workspaces, too. Two round trips, however many there are.
    ///
    /// A window that goes while it is looked at is not in the list.
    ///
    /// # Errors
    /// The server refuses or is gone.
    pub fn windows(&self) -> Result<WindowList> {
        let desk = self.desk()?;
        let mut windows = self.read_windows(&desk.stack, &desk)?;
        if !desk.is_managed {
            // Without a window manager, what isn't mapped is not (or not yet) a window for anybody.
            windows.retain(|window| window.is_visible);
            (0..).zip(&mut windows).for_each(|(place, window)| window.stacking = Some(place));
        }
        Ok(WindowList { windows, left_out: desk.left_out })
    }

    /// One window, of the list or not.
    ///
    /// # Errors
    /// [`Error::NoWindow`].
    pub fn window(&self, id: WindowId) -> Result<WindowInfo> {
        let desk = self.desk()?;
        self.read_windows(&[id], &desk)?.pop().ok_or(Error::NoWindow(id))
    }

    /// The window that has the keyboard; `None` when there is none, also when the window manager still names
    /// one that is gone or isn't seen.
    ///
    /// # Errors
    /// The server refuses or is gone.
    pub fn active_window(&self) -> Result<Option<WindowInfo>> {
        let desk = self.desk()?;
        match desk.active {
            Some(id) => Ok(self.read_windows(&[id], &desk)?.pop().filter(|window| window.is_active)),
            None => Ok(None),
        }
    }

    /// Those windows of [`Display::windows`] that belong to one of these processes. To wait for the first one of a program, look
    /// again whenever [`crate::Happened::windows`] is told; a program's descendants are the caller's to name.
    ///
    /// # Errors
    /// As [`Display::windows`].
    pub fn windows_of_pids(&self, pids: &[u32]) -> Result<Vec<WindowInfo>> {
        let mut windows = self.windows()?.windows;
        windows.retain(|window| window.pid.is_some_and(|pid| pids.contains(&pid)));
        Ok(windows)
    }
}

impl WindowList {
    /// Windows that weren't there `before`.
    pub fn new_since(&self, before: &Self) -> impl Iterator<Item = &WindowInfo> {
        self.windows.iter().filter(|window| before.windows.iter().all(|old| old.id != window.id))
    }
}
