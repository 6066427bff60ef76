//! The connection: what the server can do, the names of things, and what it says unasked.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use x11rb::connection::{Connection, RequestConnection};
use x11rb::protocol::Event;
use x11rb::protocol::damage::{self, ConnectionExt as _, ReportLevel};
use x11rb::protocol::xproto::{self, ChangeWindowAttributesAux, ConnectionExt as _, EventMask, Window};
use x11rb::protocol::{randr, shm, xfixes, xkb, xtest};
use x11rb::rust_connection::{DefaultStream, RustConnection};

use crate::capture::Shared;
use crate::keyboard::Keyboard;
use crate::pointer::Button;
use crate::windows::Probes;
use crate::{CursorImage, Error, Result};

x11rb::atom_manager! {
    /// Names of properties and messages: EWMH 1.5, ICCCM 2.0.
    pub(crate) Atoms: AtomsCookie {
        _NET_ACTIVE_WINDOW,
        _NET_CLIENT_LIST,
        _NET_CLIENT_LIST_STACKING,
        _NET_CLOSE_WINDOW,
        _NET_CURRENT_DESKTOP,
        _NET_FRAME_EXTENTS,
        _NET_MOVERESIZE_WINDOW,
        _NET_NUMBER_OF_DESKTOPS,
        _NET_REQUEST_FRAME_EXTENTS,
        _NET_RESTACK_WINDOW,
        _NET_SUPPORTED,
        _NET_SUPPORTING_WM_CHECK,
        _NET_WM_DESKTOP,
        _NET_WM_NAME,
        _NET_WM_PID,
        _NET_WM_PING,
        _NET_WM_STATE,
        _NET_WM_STATE_ABOVE,
        _NET_WM_STATE_BELOW,
        _NET_WM_STATE_DEMANDS_ATTENTION,
        _NET_WM_STATE_FULLSCREEN,
        _NET_WM_STATE_HIDDEN,
        _NET_WM_STATE_MAXIMIZED_HORZ,
        _NET_WM_STATE_MAXIMIZED_VERT,
        _NET_WM_STATE_MODAL,
        _NET_WM_STATE_SHADED,
        _NET_WM_STATE_SKIP_PAGER,
        _NET_WM_STATE_SKIP_TASKBAR,
        _NET_WM_STATE_STICKY,
        _NET_WM_WINDOW_TYPE,
        _NET_WM_WINDOW_TYPE_DESKTOP,
        _NET_WM_WINDOW_TYPE_DIALOG,
        _NET_WM_WINDOW_TYPE_DOCK,
        _NET_WM_WINDOW_TYPE_MENU,
        _NET_WM_WINDOW_TYPE_NORMAL,
        _NET_WM_WINDOW_TYPE_NOTIFICATION,
        _NET_WM_WINDOW_TYPE_SPLASH,
        _NET_WM_WINDOW_TYPE_TOOLBAR,
        _NET_WM_WINDOW_TYPE_UTILITY,
        COMPOUND_TEXT,
        UTF8_STRING,
        WM_CHANGE_STATE,
        WM_CLASS,
        WM_DELETE_WINDOW,
        WM_NAME,
        WM_PROTOCOLS,
        WM_STATE,
        _OB_CONTROL,
        _OB_THEME,
        _XROOTPMAP_ID,
        _X_DESKTOP_KEYCODES,
        ESETROOT_PMAP_ID,
    }
}

/// Width and height in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Size {
    pub width: u16,
    pub height: u16,
}

/// What the server said unasked since the last look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Happened {
    /// Something may look different.
    pub damaged: bool,
    /// Windows came, went or moved, another one is active, or one that was acted on has changed.
    pub windows: bool,
    /// The screen has another size.
    pub resized: bool,
    /// Another layout of the keyboard, or other keysyms of spare keycodes: our own, too.
    pub keymap: bool,
    /// Another picture of the pointer.
    pub cursor: bool,
}

/// A connection to a display. Dropping it closes it, and what it made goes with it.
pub struct Display {
    pub(crate) conn: RustConnection,
    pub(crate) root: Window,
    pub(crate) atoms: Atoms,
    pub(crate) size: Size,
    pub(crate) shared: Option<Shared>,
    /// The pointer's latest picture.
    pub(crate) cursor: Option<Arc<CursorImage>>,
    pub(crate) probes: Probes,
    /// What happened while something else was waited for; the next pump tells.
    pub(crate) unsaid: Happened,
    pub(crate) keyboard: Keyboard,
    /// Held down now.
    pub(crate) buttons: BTreeSet<Button>,
    damage: damage::Damage,
}

impl Display {
    /// Connects to `:N` or `host:N`; `None` takes `DISPLAY`.
    ///
    /// # Errors
    /// Nobody answers there, or an extension is missing.
    pub fn open(name: Option<&str>) -> Result<Self> {
        let (conn, screen) = x11rb::connect(name)?;
        for extension in
            [xtest::X11_EXTENSION_NAME, xfixes::X11_EXTENSION_NAME, damage::X11_EXTENSION_NAME, shm::X11_EXTENSION_NAME]
        {
            conn.extension_information(extension)?.ok_or(Error::Missing(extension))?;
        }
        xfixes::query_version(&conn, 5, 0)?.reply()?;
        conn.damage_query_version(1, 1)?.reply()?;
        if conn.extension_information(randr::X11_EXTENSION_NAME)?.is_some() {
            randr::query_version(&conn, 1, 5)?.reply()?;
        }
        if conn.extension_information(xkb::X11_EXTENSION_NAME)?.is_some() {
            xkb::use_extension(&conn, 1, 0)?.reply()?;
        }
        let screen = &conn.setup().roots[screen];
        let (root, size) = (screen.root, Size { width: screen.width_in_pixels, height: screen.height_in_pixels });
        let atoms = Atoms::new(&conn)?.reply()?;
        // Answers to pings are sent to those who follow the root's children.
        let listen = EventMask::PROPERTY_CHANGE | EventMask::STRUCTURE_NOTIFY | EventMask::SUBSTRUCTURE_NOTIFY;
        conn.change_window_attributes(root, &ChangeWindowAttributesAux::new().event_mask(listen))?;
        let damage = conn.generate_id()?;
        conn.damage_create(damage, root, ReportLevel::NON_EMPTY)?;
        xfixes::select_cursor_input(&conn, root, xfixes::CursorNotifyMask::DISPLAY_CURSOR)?;
        let display = Self {
            conn,
            root,
            atoms,
            size,
            shared: None,
            cursor: None,
            probes: Probes::default(),
            unsaid: Happened::default(),
            keyboard: Keyboard::default(),
            buttons: BTreeSet::new(),
            damage,
        };
        display.follow_keymap()?;
        display.conn.flush()?;
        Ok(display)
    }

    /// Readable when there is something to [`Display::pump`]. That is due after each other call, too: what the server says comes
    /// with answers, and is then waiting here already.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.stream().as_fd()
    }

    fn stream(&self) -> &DefaultStream {
        self.conn.stream()
    }

    /// The size of the screen.
    pub fn size(&self) -> Size {
        self.size
    }

    /// The root window's id.
    pub fn root(&self) -> Window {
        self.root
    }

    /// Takes what the server has said. Doesn't block.
    ///
    /// # Errors
    /// [`Error::Gone`].
    pub fn pump(&mut self) -> Result<Happened> {
        self.drain()?;
        Ok(std::mem::take(&mut self.unsaid))
    }

    /// After a [`Happened::damaged`]: the next change is told again. Until then none is, so that a screen that changes without
    /// pause costs nothing while nobody looks. A [`Display::pump`] is due after it, as after each call.
    ///
    /// # Errors
    /// [`Error::Gone`].
    pub fn rearm(&mut self) -> Result<()> {
        self.conn.damage_subtract(self.damage, x11rb::NONE, x11rb::NONE)?;
        Ok(self.conn.flush()?)
    }

    /// Takes what the server has said, to be told by the next [`Display::pump`].
    pub(crate) fn drain(&mut self) -> Result<()> {
        let mut happened = std::mem::take(&mut self.unsaid);
        loop {
            // Flushing may read: what came is in memory then, and the descriptor says nothing of it.
            self.conn.flush()?;
            let Some(event) = self.conn.poll_for_event()? else { break };
            self.take(&event, &mut happened)?;
        }
        self.unsaid = happened;
        Ok(())
    }

    fn take(&mut self, event: &Event, happened: &mut Happened) -> Result<()> {
        let atoms = &self.atoms;
        match event {
            Event::DamageNotify(_) => happened.damaged = true,
            Event::XfixesCursorNotify(_) => happened.cursor = true,
            Event::MappingNotify(_) | Event::XkbMapNotify(_) | Event::XkbNewKeyboardNotify(_) => {
                self.keyboard.forget_map();
                happened.keymap = true;
            }
            Event::ClientMessage(message) if message.type_ == atoms.WM_PROTOCOLS && message.window == self.root => {
                let [protocol, token, ..] = message.data.as_data32();
                if protocol == atoms._NET_WM_PING {
                    self.keyboard.take_pong(token);
                }
            }
            Event::PropertyNotify(xproto::PropertyNotifyEvent { window, atom, .. }) => {
                let of_root = [
                    atoms._NET_CLIENT_LIST,
                    atoms._NET_ACTIVE_WINDOW,
                    atoms._NET_CLIENT_LIST_STACKING,
                    atoms._NET_CURRENT_DESKTOP,
                ];
                happened.windows |= *window != self.root || of_root.contains(atom);
            }
            Event::ConfigureNotify(configured) if configured.window == self.root => {
                let size = Size { width: configured.width, height: configured.height };
                happened.resized |= std::mem::replace(&mut self.size, size) != size;
            }
            Event::ConfigureNotify(_) | Event::MapNotify(_) | Event::UnmapNotify(_) | Event::DestroyNotify(_) => {
                happened.windows = true;
            }
            _ => {} // errors of requests without an answer, too: their callers look at what became of them
        }
        Ok(())
    }

    /// Returns once the server has done everything that was asked of it.
    ///
    /// # Errors
    /// [`Error::Gone`].
    pub fn sync(&self) -> Result<()> {
        self.conn.get_input_focus()?.reply()?;
        Ok(())
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        // The server keeps down what was pressed through XTEST, and keymaps, when a connection ends.
        let _ = self.release_all();
        let _ = self.restore_keymap();
        let _ = self.sync();
    }
}
