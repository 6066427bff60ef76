//! Which windows someone who uses the desktop would call one.

use super::{WindowInfo, WindowKind, WindowList};

/// Narrower than this *and* lower than [`MIN_HEIGHT`] is a helper of some program.
const MIN_WIDTH: u32 = 120;
/// See [`MIN_WIDTH`].
const MIN_HEIGHT: u32 = 80;

impl WindowInfo {
    /// Whether the window is one to show in a list: it has a title, isn't the desktop itself, isn't tiny, and is on the screen.
    /// The active one always is. `with_hidden` also takes those that are minimised or on another workspace.
    pub fn is_listed(&self, with_hidden: bool) -> bool {
        let is_tiny = self.width < MIN_WIDTH && self.height < MIN_HEIGHT;
        let is_worth = !self.title.is_empty() && !is_tiny && self.kind != WindowKind::Desktop;
        self.is_active || (is_worth && (self.is_visible || with_hidden))
    }
}

impl WindowList {
    /// Only those that [are listed](WindowInfo::is_listed).
    pub fn listed(mut self, with_hidden: bool) -> Self {
        self.windows.retain(|window| window.is_listed(with_hidden));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::windows::FrameExtents;

    fn window(title: &str, width: u32, height: u32) -> WindowInfo {
        WindowInfo {
            id: 1,
            title: title.into(),
            class: String::new(),
            instance: String::new(),
            pid: None,
            kind: WindowKind::Normal,
            states: Vec::new(),
            workspace: None,
            x: 0,
            y: 0,
            width,
            height,
            frame: FrameExtents::default(),
            transient_for: None,
            is_active: false,
            is_minimised: false,
            is_visible: true,
            stacking: Some(0),
        }
    }

    #[test]
    fn small_in_both_directions_goes() {
        assert!(window("a", 119, 80).is_listed(false));
        assert!(window("a", 120, 79).is_listed(false));
        assert!(!window("a", 119, 79).is_listed(false));
        assert!(!window("", 500, 500).is_listed(true));
    }

    #[test]
    fn the_active_one_stays_and_hidden_ones_are_for_who_asks() {
        assert!(WindowInfo { is_active: true, ..window("", 1, 1) }.is_listed(false));
        let hidden = WindowInfo { is_visible: false, is_minimised: true, ..window("a", 500, 500) };
        assert!(!hidden.is_listed(false));
        assert!(hidden.is_listed(true));
    }
}
