//! Properties of windows: what their bytes mean.

use x11rb::cookie::Cookie;
use x11rb::errors::ReplyError;
use x11rb::protocol::ErrorKind;
use x11rb::protocol::xproto::{Atom, AtomEnum, ConnectionExt as _, GetPropertyReply};
use x11rb::rust_connection::RustConnection;

use super::{WindowId, WindowKind, WindowState};
use crate::display::Atoms;
use crate::text::{Encoding, decode};
use crate::{Display, Result};

pub(super) type Property<'c> = Cookie<'c, RustConnection, GetPropertyReply>;

/// What is read of a text, in units of four bytes.
const TEXT_UNITS: u32 = 1024;

impl Display {
    /// Asks for a property of any type.
    pub(super) fn ask(&self, window: WindowId, name: impl Into<Atom>, units: u32) -> Result<Property<'_>> {
        Ok(self.conn.get_property(false, window, name, AtomEnum::ANY, 0, units)?)
    }

    pub(super) fn ask_text(&self, window: WindowId, name: impl Into<Atom>) -> Result<Property<'_>> {
        self.ask(window, name, TEXT_UNITS)
    }
}

/// The answer about a window; `None` when the window is gone.
pub(super) fn alive<T>(answer: std::result::Result<T, ReplyError>) -> Result<Option<T>> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(ReplyError::X11Error(error)) if matches!(error.error_kind, ErrorKind::Window | ErrorKind::Drawable) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn numbers(property: &GetPropertyReply) -> Vec<u32> {
    property.value32().map(Iterator::collect).unwrap_or_default()
}

pub(super) fn number(property: &GetPropertyReply) -> Option<u32> {
    property.value32().and_then(|mut values| values.next())
}

/// Text, with `…` for what is beyond [`TEXT_UNITS`].
pub(super) fn text(property: &GetPropertyReply, atoms: &Atoms) -> String {
    if property.format != 8 {
        return String::new();
    }
    let encoding = match property.type_ {
        kind if kind == u32::from(AtomEnum::STRING) => Encoding::Latin1,
        kind if kind == atoms.COMPOUND_TEXT => Encoding::Compound,
        _ => Encoding::Utf8,
    };
    let is_cut = property.bytes_after > 0;
    let mut bytes = property.value.as_slice();
    if is_cut && encoding == Encoding::Utf8 {
        // Up to three bytes of a character that was cut through.
        let whole = (bytes.len().saturating_sub(3)..=bytes.len()).rev().find(|&end| str::from_utf8(&bytes[..end]).is_ok());
        bytes = &bytes[..whole.unwrap_or(bytes.len())];
    }
    // Old programs count the zero at the end in.
    let mut text = decode(bytes, encoding).text.trim_end_matches('\0').to_owned();
    if is_cut {
        text.push('…');
    }
    text
}

/// Instance and class (ICCCM 2.0 §4.1.2.5: two texts, each ended by a zero).
pub(super) fn class(property: &GetPropertyReply) -> (String, String) {
    let mut parts = property.value.split(|&byte| byte == 0).map(|part| decode(part, Encoding::Latin1).text);
    (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
}

/// The first type that is known here counts (EWMH: they are in order of preference).
pub(super) fn kind(types: &[Atom], atoms: &Atoms) -> Option<WindowKind> {
    let known = [
        (atoms._NET_WM_WINDOW_TYPE_NORMAL, WindowKind::Normal),
        (atoms._NET_WM_WINDOW_TYPE_DIALOG, WindowKind::Dialog),
        (atoms._NET_WM_WINDOW_TYPE_UTILITY, WindowKind::Utility),
        (atoms._NET_WM_WINDOW_TYPE_TOOLBAR, WindowKind::Toolbar),
        (atoms._NET_WM_WINDOW_TYPE_MENU, WindowKind::Menu),
        (atoms._NET_WM_WINDOW_TYPE_SPLASH, WindowKind::Splash),
        (atoms._NET_WM_WINDOW_TYPE_DOCK, WindowKind::Dock),
        (atoms._NET_WM_WINDOW_TYPE_DESKTOP, WindowKind::Desktop),
        (atoms._NET_WM_WINDOW_TYPE_NOTIFICATION, WindowKind::Notification),
    ];
    types.iter().find_map(|kind| known.iter().find(|(atom, _)| atom == kind).map(|&(_, kind)| kind))
}

pub(super) fn states(values: &[Atom], atoms: &Atoms) -> Vec<WindowState> {
    WindowState::ALL.into_iter().filter(|&state| values.contains(&state.atom(atoms))).collect()
}

impl WindowState {
    /// Every one.
    pub const ALL: [Self; 12] = [
        Self::Modal,
        Self::Sticky,
        Self::MaximisedHorz,
        Self::MaximisedVert,
        Self::Shaded,
        Self::SkipTaskbar,
        Self::SkipPager,
        Self::Hidden,
        Self::Fullscreen,
        Self::Above,
        Self::Below,
        Self::DemandsAttention,
    ];

    pub(super) fn atom(self, atoms: &Atoms) -> Atom {
        match self {
            Self::Modal => atoms._NET_WM_STATE_MODAL,
            Self::Sticky => atoms._NET_WM_STATE_STICKY,
            Self::MaximisedHorz => atoms._NET_WM_STATE_MAXIMIZED_HORZ,
            Self::MaximisedVert => atoms._NET_WM_STATE_MAXIMIZED_VERT,
            Self::Shaded => atoms._NET_WM_STATE_SHADED,
            Self::SkipTaskbar => atoms._NET_WM_STATE_SKIP_TASKBAR,
            Self::SkipPager => atoms._NET_WM_STATE_SKIP_PAGER,
            Self::Hidden => atoms._NET_WM_STATE_HIDDEN,
            Self::Fullscreen => atoms._NET_WM_STATE_FULLSCREEN,
            Self::Above => atoms._NET_WM_STATE_ABOVE,
            Self::Below => atoms._NET_WM_STATE_BELOW,
            Self::DemandsAttention => atoms._NET_WM_STATE_DEMANDS_ATTENTION,
        }
    }
}
