//! What is asked of windows. Each call is a request and returns what to watch for with [`Display::settled`].

use x11rb::connection::Connection;
use x11rb::protocol::xproto::{
    Atom, ClientMessageEvent, ConfigureWindowAux, ConnectionExt as _, EventMask, InputFocus, StackMode,
};

use super::desk::Manager;
use super::property::{alive, number, numbers};
use super::{Wanted, WindowId, WindowInfo, WindowState, WindowWatch, Workspace};
use crate::{Display, Error, Result};

/// Source of a request: one who acts for the user (EWMH 1.5, source indication).
const PAGER: u32 = 2;
/// `_NET_MOVERESIZE_WINDOW`: gravity NorthWest, so x and y are the frame's.
const BY_FRAME: u32 = 1;
/// `WM_CHANGE_STATE`: put it away (ICCCM 2.0 §4.1.4).
const ICONIC: u32 = 3;
/// Protocols of a window that are read.
const MAX_PROTOCOLS: u32 = 32;

/// Where a window should be; what is `None` stays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Placement {
    /// Of the frame's top left corner, in pixels, −32768 to 32767.
    pub x: Option<i32>,
    /// See `x`.
    pub y: Option<i32>,
    /// Of the content, in pixels, 1 to 32767. The window manager rounds it to what the program allows.
    pub width: Option<u32>,
    /// See `width`.
    pub height: Option<u32>,
}

/// The workspaces of the window manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workspaces {
    /// Counted from 0.
    pub current: u32,
    /// At least 1.
    pub count: u32,
}

impl Placement {
    fn check(self) -> Result<Self> {
        for at in [self.x, self.y].into_iter().flatten() {
            i16::try_from(at).map_err(|_| Error::Invalid(format!("{at} is not a place: −32768 to 32767")))?;
        }
        match [self.width, self.height].into_iter().flatten().find(|size| !(1..=32767).contains(size)) {
            Some(size) => Err(Error::Invalid(format!("{size} is not a size: 1 to 32767"))),
            None => Ok(self),
        }
    }

    /// Whether the window is there.
    pub(super) fn is_of(self, window: &WindowInfo) -> bool {
        let (left, top) = (window.frame.left.cast_signed(), window.frame.top.cast_signed());
        self.x.is_none_or(|x| x == window.x - left)
            && self.y.is_none_or(|y| y == window.y - top)
            && self.width.is_none_or(|width| width == window.width)
            && self.height.is_none_or(|height| height == window.height)
    }
}

impl Display {
    /// Gives a window the keyboard: shows its workspace, brings it back and raises it.
    ///
    /// # Errors
    /// [`Error::NoWindow`]; [`Error::Refused`] for a window that can't be shown.
    pub fn activate(&mut self, id: WindowId) -> Result<WindowWatch> {
        let manager = self.manager_of(id)?;
        if manager.supports(self.atoms._NET_ACTIVE_WINDOW) {
            self.tell_manager(id, self.atoms._NET_ACTIVE_WINDOW, [PAGER, 0, 0, 0, 0])?;
        } else {
            self.conn.map_window(id)?;
            self.conn.configure_window(id, &ConfigureWindowAux::new().stack_mode(StackMode::ABOVE))?;
            self.conn.set_input_focus(InputFocus::POINTER_ROOT, id, x11rb::CURRENT_TIME)?.check()?;
        }
        self.watch(id, Wanted::Active, &manager)
    }

    /// Moves and resizes at once.
    ///
    /// # Errors
    /// [`Error::NoWindow`]; [`Error::Invalid`] beyond what X can say.
    pub fn place(&mut self, id: WindowId, place: Placement) -> Result<WindowWatch> {
        let Placement { x, y, width, height } = place.check()?;
        let manager = self.manager_of(id)?;
        if manager.supports(self.atoms._NET_MOVERESIZE_WINDOW) {
            let given = [x.is_some(), y.is_some(), width.is_some(), height.is_some()];
            let given = (8..).zip(given).fold(0, |flags, (bit, is_given)| flags | u32::from(is_given) << bit);
            let [x, y] = [x, y].map(|at| at.unwrap_or(0).cast_unsigned());
            let values = [BY_FRAME | given | PAGER << 12, x, y, width.unwrap_or(0), height.unwrap_or(0)];
            self.tell_manager(id, self.atoms._NET_MOVERESIZE_WINDOW, values)?;
        } else {
            let aux = ConfigureWindowAux { x, y, width, height, ..ConfigureWindowAux::new() };
            self.conn.configure_window(id, &aux)?.check()?;
        }
        self.watch(id, Wanted::Placed(place), &manager)
    }

    /// Above all others.
    ///
    /// # Errors
    /// [`Error::NoWindow`].
    pub fn raise(&mut self, id: WindowId) -> Result<WindowWatch> {
        self.restack(id, StackMode::ABOVE)
    }

    /// Below all others.
    ///
    /// # Errors
    /// [`Error::NoWindow`].
    pub fn lower(&mut self, id: WindowId) -> Result<WindowWatch> {
        self.restack(id, StackMode::BELOW)
    }

    fn restack(&mut self, id: WindowId, mode: StackMode) -> Result<WindowWatch> {
        let manager = self.manager_of(id)?;
        if manager.supports(self.atoms._NET_RESTACK_WINDOW) {
            self.tell_manager(id, self.atoms._NET_RESTACK_WINDOW, [PAGER, x11rb::NONE, mode.into(), 0, 0])?;
        } else {
            self.conn.configure_window(id, &ConfigureWindowAux::new().stack_mode(mode))?.check()?;
        }
        self.watch(id, Wanted::Stacked, &manager)
    }

    /// Puts a window away.
    ///
    /// # Errors
    /// [`Error::NoWindow`]; [`Error::Refused`] without a window manager.
    pub fn minimise(&mut self, id: WindowId) -> Result<WindowWatch> {
        let manager = self.must_be_managed(id)?;
        self.tell_manager(id, self.atoms.WM_CHANGE_STATE, [ICONIC, 0, 0, 0, 0])?;
        self.watch(id, Wanted::Minimised(true), &manager)
    }

    /// Brings back a window that was put away (ICCCM 2.0 §4.1.4: by mapping it).
    ///
    /// # Errors
    /// [`Error::NoWindow`].
    pub fn restore(&mut self, id: WindowId) -> Result<WindowWatch> {
        let manager = self.manager_of(id)?;
        self.conn.map_window(id)?;
        self.watch(id, Wanted::Minimised(false), &manager)
    }

    /// Sets or unsets one state, or two that go together: both directions of maximised.
    ///
    /// # Errors
    /// [`Error::NoWindow`]; [`Error::Invalid`] for more than two; [`Error::Refused`] without a window manager.
    pub fn set_states(&mut self, id: WindowId, states: &[WindowState], on: bool) -> Result<WindowWatch> {
        let atoms = match *states {
            [one] => [one.atom(&self.atoms), 0],
            [one, two] => [one.atom(&self.atoms), two.atom(&self.atoms)],
            _ => return Err(Error::Invalid("one or two states can be set at once".into())),
        };
        let manager = self.must_be_managed(id)?;
        self.tell_manager(id, self.atoms._NET_WM_STATE, [u32::from(on), atoms[0], atoms[1], PAGER, 0])?;
        self.watch(id, Wanted::States(states.to_vec(), on), &manager)
    }

    /// Asks a window to close; a program that doesn't know how is disconnected. `force` disconnects any, so that it loses all its
    /// windows and usually ends.
    ///
    /// # Errors
    /// [`Error::NoWindow`].
    pub fn close(&mut self, id: WindowId, force: bool) -> Result<WindowWatch> {
        let manager = self.manager_of(id)?;
        if force {
            self.kill(id)?;
        } else if manager.supports(self.atoms._NET_CLOSE_WINDOW) {
            self.tell_manager(id, self.atoms._NET_CLOSE_WINDOW, [x11rb::CURRENT_TIME, PAGER, 0, 0, 0])?;
        } else {
            let protocols = alive(self.ask(id, self.atoms.WM_PROTOCOLS, MAX_PROTOCOLS)?.reply())?;
            if protocols.is_some_and(|protocols| numbers(&protocols).contains(&self.atoms.WM_DELETE_WINDOW)) {
                let values = [self.atoms.WM_DELETE_WINDOW, x11rb::CURRENT_TIME, 0, 0, 0];
                let message = ClientMessageEvent::new(32, id, self.atoms.WM_PROTOCOLS, values);
                self.conn.send_event(false, id, EventMask::NO_EVENT, message)?;
            } else {
                self.kill(id)?;
            }
        }
        self.watch(id, Wanted::Gone, &manager)
    }

    fn kill(&self, id: WindowId) -> Result<()> {
        // The window was there; if it has gone meanwhile, that is what was wanted.
        self.conn.kill_client(id)?.ignore_error();
        Ok(())
    }

    /// Puts a window on a workspace, or on all.
    ///
    /// # Errors
    /// [`Error::NoWindow`]; [`Error::Invalid`] when there is no such workspace; [`Error::Refused`] without workspaces.
    pub fn set_window_workspace(&mut self, id: WindowId, workspace: Workspace) -> Result<WindowWatch> {
        let manager = self.must_be_managed(id)?;
        let index = match workspace {
            Workspace::All => !0,
            Workspace::Index(index) => self.existing_workspace(index)?,
        };
        self.tell_manager(id, self.atoms._NET_WM_DESKTOP, [index, PAGER, 0, 0, 0])?;
        self.watch(id, Wanted::On(workspace), &manager)
    }

    /// Shows another workspace. [`Display::workspaces`] tells when it is shown.
    ///
    /// # Errors
    /// As [`Display::set_window_workspace`].
    pub fn set_workspace(&mut self, index: u32) -> Result<()> {
        let index = self.existing_workspace(index)?;
        self.tell_manager(self.root, self.atoms._NET_CURRENT_DESKTOP, [index, x11rb::CURRENT_TIME, 0, 0, 0])?;
        Ok(self.conn.flush()?)
    }

    /// Which there are; `None` without a window manager that has some.
    ///
    /// # Errors
    /// The server refuses or is gone.
    pub fn workspaces(&self) -> Result<Option<Workspaces>> {
        let current = self.ask(self.root, self.atoms._NET_CURRENT_DESKTOP, 1)?;
        let count = self.ask(self.root, self.atoms._NET_NUMBER_OF_DESKTOPS, 1)?;
        let manager = self.manager()?;
        let (current, count) = (number(&current.reply()?), number(&count.reply()?));
        let both = current.zip(count).filter(|_| manager.supports(self.atoms._NET_CURRENT_DESKTOP));
        Ok(both.map(|(current, count)| Workspaces { current, count }))
    }

    fn existing_workspace(&self, index: u32) -> Result<u32> {
        match self.workspaces()? {
            None => Err(Error::Refused("no window manager with workspaces is running".into())),
            Some(Workspaces { count, .. }) if index >= count => {
                Err(Error::Invalid(format!("there is no workspace {index}: there are {count}, counted from 0")))
            }
            Some(_) => Ok(index),
        }
    }

    /// Who manages a window that is there.
    fn manager_of(&self, id: WindowId) -> Result<Manager> {
        let window = self.conn.get_window_attributes(id)?;
        let manager = self.manager()?;
        alive(window.reply())?.ok_or(Error::NoWindow(id))?;
        Ok(manager)
    }

    fn must_be_managed(&self, id: WindowId) -> Result<Manager> {
        let manager = self.manager_of(id)?;
        if manager.is_there { Ok(manager) } else { Err(Error::Refused("no window manager is running".into())) }
    }

    /// A message about `window`, the way EWMH and ICCCM want it sent.
    pub(super) fn tell_manager(&self, window: WindowId, kind: Atom, values: [u32; 5]) -> Result<()> {
        let message = ClientMessageEvent::new(32, window, kind, values);
        let to = EventMask::SUBSTRUCTURE_NOTIFY | EventMask::SUBSTRUCTURE_REDIRECT;
        self.conn.send_event(false, self.root, to, message)?;
        Ok(())
    }
}
