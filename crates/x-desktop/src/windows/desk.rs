//! What is known before a single window is looked at: which there are, who manages them, which one is active.

use x11rb::connection::RequestConnection;
use x11rb::protocol::res;
use x11rb::protocol::xproto::{Atom, ConnectionExt as _, EventMask};

use super::property::{alive, number, numbers};
use super::{MAX_WINDOWS, WindowId};
use crate::{Display, Result};

/// Names of `_NET_SUPPORTED` that are read.
const MAX_SUPPORTED: u32 = 1024;
/// How deep the window with the keyboard may be inside of a top-level one.
const MAX_DEPTH: usize = 32;
/// Focus values that are no window: None and PointerRoot (X11 protocol, SetInputFocus).
pub(super) const LAST_NO_WINDOW: u32 = 1;

/// Who manages the windows.
#[derive(Debug, Default)]
pub(super) struct Manager {
    /// Somebody does.
    pub is_there: bool,
    supported: Vec<Atom>,
}

impl Manager {
    pub fn supports(&self, name: Atom) -> bool {
        self.supported.contains(&name)
    }
}

/// The windows as the window manager names them, or as the tree has them.
#[derive(Debug, Default)]
pub(super) struct Desk {
    /// Lowest first.
    pub stack: Vec<WindowId>,
    pub left_out: usize,
    pub active: Option<WindowId>,
    /// A window manager lists the windows; else `stack` is all children of the root.
    pub is_managed: bool,
    /// The X server says whose a window is.
    pub has_resource_ids: bool,
}

impl Display {
    /// One round trip.
    pub(super) fn manager(&self) -> Result<Manager> {
        let root = self.conn.get_window_attributes(self.root)?;
        let supported = self.ask(self.root, self.atoms._NET_SUPPORTED, MAX_SUPPORTED)?;
        // Properties outlive the window manager that set them, but nobody else may select this, and only one at a time.
        let is_there = root.reply()?.all_event_masks.contains(EventMask::SUBSTRUCTURE_REDIRECT);
        let supported = numbers(&supported.reply()?);
        Ok(Manager { is_there, supported: if is_there { supported } else { Vec::new() } })
    }

    /// One round trip; a few more without a window manager when a window's child has the keyboard.
    pub(super) fn desk(&self) -> Result<Desk> {
        let limit = u32::try_from(MAX_WINDOWS).unwrap_or(u32::MAX);
        let stack = self.ask(self.root, self.atoms._NET_CLIENT_LIST_STACKING, limit)?;
        let clients = self.ask(self.root, self.atoms._NET_CLIENT_LIST, limit)?;
        let active = self.ask(self.root, self.atoms._NET_ACTIVE_WINDOW, 1)?;
        let tree = self.conn.query_tree(self.root)?;
        let focus = self.conn.get_input_focus()?;
        let manager = self.manager()?;
        let (stack, clients) = (stack.reply()?, clients.reply()?);
        let has_resource_ids = self.conn.extension_information(res::X11_EXTENSION_NAME)?.is_some();
        if manager.supports(self.atoms._NET_CLIENT_LIST) {
            let left_out = clients.bytes_after.max(stack.bytes_after) as usize / 4;
            let stack = in_order(numbers(&stack), &numbers(&clients));
            let active = number(&active.reply()?).filter(|id| stack.contains(id));
            return Ok(Desk { stack, left_out, active, is_managed: true, has_resource_ids });
        }
        let mut stack = tree.reply()?.children;
        let active = self.top_level(focus.reply()?.focus, &stack)?;
        let left_out = stack.len().saturating_sub(MAX_WINDOWS);
        stack.truncate(MAX_WINDOWS);
        Ok(Desk { stack, left_out, active, is_managed: false, has_resource_ids })
    }

    /// The child of the root that `window` is in.
    fn top_level(&self, mut window: WindowId, children: &[WindowId]) -> Result<Option<WindowId>> {
        for _ in 0..MAX_DEPTH {
            if window <= LAST_NO_WINDOW || window == self.root {
                return Ok(None);
            }
            if children.contains(&window) {
                return Ok(Some(window));
            }
            match alive(self.conn.query_tree(window)?.reply())? {
                Some(tree) => window = tree.parent,
                None => return Ok(None),
            }
        }
        Ok(None)
    }
}

/// The stack, and on top of it what the list of clients has beyond it: the two are set one after the other.
fn in_order(mut stack: Vec<WindowId>, clients: &[WindowId]) -> Vec<WindowId> {
    if stack.is_empty() {
        return clients.to_vec();
    }
    stack.retain(|id| clients.contains(id));
    let new: Vec<_> = clients.iter().copied().filter(|id| !stack.contains(id)).collect();
    stack.extend(new);
    stack.truncate(MAX_WINDOWS);
    stack
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_that_is_behind_the_list() {
        assert_eq!(in_order(vec![3, 1, 9], &[1, 2, 3]), [3, 1, 2]);
        assert_eq!(in_order(vec![], &[1, 2]), [1, 2]);
        assert_eq!(in_order(vec![4], &[]), [0; 0]);
    }
}
