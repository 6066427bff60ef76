//! Everything about many windows at once: all questions first, then the answers, so that it takes one round trip.

use x11rb::cookie::Cookie;
use x11rb::protocol::res::{self, ClientIdMask, ClientIdSpec, QueryClientIdsReply};
use x11rb::protocol::xproto::{
    AtomEnum, ConnectionExt as _, GetGeometryReply, GetWindowAttributesReply, MapState, TranslateCoordinatesReply,
};
use x11rb::rust_connection::RustConnection;

use super::desk::Desk;
use super::property::{Property, alive, class, kind, number, numbers, states, text};
use super::{FrameExtents, WindowId, WindowInfo, WindowKind, WindowState, Workspace};
use crate::display::Atoms;
use crate::{Display, Result};

/// Values that are read of a property with a list.
const MAX_VALUES: u32 = 32;
/// `WM_STATE` of a window that was put away (ICCCM 2.0 §4.1.3.1).
const ICONIC: u32 = 3;
/// `_NET_WM_DESKTOP` of a window on every workspace.
const ALL_WORKSPACES: u32 = !0;

type Answer<'c, T> = Cookie<'c, RustConnection, T>;

/// What was asked about one window.
struct Asked<'c> {
    id: WindowId,
    attributes: Answer<'c, GetWindowAttributesReply>,
    geometry: Answer<'c, GetGeometryReply>,
    origin: Answer<'c, TranslateCoordinatesReply>,
    net_name: Property<'c>,
    name: Property<'c>,
    class: Property<'c>,
    pid: Property<'c>,
    owner: Option<Answer<'c, QueryClientIdsReply>>,
    kind: Property<'c>,
    states: Property<'c>,
    workspace: Property<'c>,
    frame: Property<'c>,
    wm_state: Property<'c>,
    transient_for: Property<'c>,
}

impl Display {
    /// Those of `ids` that are still there, in that order.
    pub(super) fn read_windows(&self, ids: &[WindowId], desk: &Desk) -> Result<Vec<WindowInfo>> {
        let asked = ids.iter().map(|&id| self.ask_about(id, desk)).collect::<Result<Vec<_>>>()?;
        let mut windows = Vec::with_capacity(ids.len());
        for asked in asked {
            windows.extend(asked.answer(desk, &self.atoms)?);
        }
        Ok(windows)
    }

    fn ask_about(&self, id: WindowId, desk: &Desk) -> Result<Asked<'_>> {
        let (conn, atoms) = (&self.conn, &self.atoms);
        let spec = ClientIdSpec { client: id, mask: ClientIdMask::LOCAL_CLIENT_PID };
        let owner = if desk.has_resource_ids { Some(res::query_client_ids(conn, &[spec])?) } else { None };
        Ok(Asked {
            id,
            attributes: conn.get_window_attributes(id)?,
            geometry: conn.get_geometry(id)?,
            origin: conn.translate_coordinates(id, self.root, 0, 0)?,
            net_name: self.ask_text(id, atoms._NET_WM_NAME)?,
            name: self.ask_text(id, AtomEnum::WM_NAME)?,
            class: self.ask_text(id, AtomEnum::WM_CLASS)?,
            pid: self.ask(id, atoms._NET_WM_PID, 1)?,
            owner,
            kind: self.ask(id, atoms._NET_WM_WINDOW_TYPE, MAX_VALUES)?,
            states: self.ask(id, atoms._NET_WM_STATE, MAX_VALUES)?,
            workspace: self.ask(id, atoms._NET_WM_DESKTOP, 1)?,
            frame: self.ask(id, atoms._NET_FRAME_EXTENTS, 4)?,
            wm_state: self.ask(id, atoms.WM_STATE, 1)?,
            transient_for: self.ask(id, AtomEnum::WM_TRANSIENT_FOR, 1)?,
        })
    }
}

impl Asked<'_> {
    /// `None` when the window went before all was answered.
    fn answer(self, desk: &Desk, atoms: &Atoms) -> Result<Option<WindowInfo>> {
        macro_rules! answer {
            ($cookie:ident) => {
                match alive(self.$cookie.reply())? {
                    Some(answer) => answer,
                    None => return Ok(None),
                }
            };
        }
        let (attributes, geometry, origin) = (answer!(attributes), answer!(geometry), answer!(origin));
        let (net_name, name) = (text(&answer!(net_name), atoms), text(&answer!(name), atoms));
        let (instance, class) = class(&answer!(class));
        let states = states(&numbers(&answer!(states)), atoms);
        let (wm_state, pid) = (number(&answer!(wm_state)), number(&answer!(pid)));
        let transient_for = number(&answer!(transient_for)).filter(|&id| id != x11rb::NONE);
        // EWMH managers also call those of other workspaces iconic (openbox), so their own state comes first.
        let is_minimised = if desk.is_managed { states.contains(&WindowState::Hidden) } else { wm_state == Some(ICONIC) };
        // Whoever is asked about a client that just left answers with an error or nothing.
        let owner = self.owner.and_then(|owner| owner.reply().ok());
        let owner = owner.and_then(|ids| ids.ids.first().and_then(|id| id.value.first().copied()));
        let without_type = match attributes.override_redirect {
            true => WindowKind::Other,
            false if transient_for.is_some() => WindowKind::Dialog,
            false => WindowKind::Normal,
        };
        let is_visible = attributes.map_state == MapState::VIEWABLE;
        Ok(Some(WindowInfo {
            id: self.id,
            title: if net_name.is_empty() { name } else { net_name },
            class,
            instance,
            pid: pid.or(owner).filter(|&pid| pid != 0),
            kind: match numbers(&answer!(kind)).as_slice() {
                [] => without_type,
                types => kind(types, atoms).unwrap_or(WindowKind::Other),
            },
            states,
            workspace: number(&answer!(workspace)).map(|index| match index {
                ALL_WORKSPACES => Workspace::All,
                index => Workspace::Index(index),
            }),
            x: origin.dst_x.into(),
            y: origin.dst_y.into(),
            width: geometry.width.into(),
            height: geometry.height.into(),
            frame: frame(&numbers(&answer!(frame)), u32::from(geometry.border_width)),
            transient_for,
            // Until the window manager names another one, it names one that was put away.
            is_active: is_visible && desk.active == Some(self.id),
            is_minimised,
            is_visible,
            stacking: desk.stack.iter().position(|&id| id == self.id),
        }))
    }
}

/// What the window manager says, else the border that the X server draws.
fn frame(extents: &[u32], border: u32) -> FrameExtents {
    match extents {
        &[left, right, top, bottom] => FrameExtents { left, right, top, bottom },
        _ => FrameExtents { left: border, right: border, top: border, bottom: border },
    }
}
